// SPDX-License-Identifier: Apache-2.0
//! The diagnosis as JSON.

use serde_json::{Value, json};

use super::diagnosis::Diagnosis;
use super::hooks::{Hook, HookEntry, Surveyed};
use super::survey::{Survey, SurveyedPod};
use crate::trouble::Severity;

impl Diagnosis {
    /// Summary, findings, node and pods.
    pub fn to_json(&self) -> Value {
        let survey = &self.survey;
        let count = |severity| self.count(severity);
        json!({
            "summary": {
                "fault": count(Severity::Fault),
                "degraded": count(Severity::Degraded),
                "note": count(Severity::Note),
            },
            "findings": self.findings,
            "kernel": survey.kernel,
            "bpffs": survey.bpffs,
            "agent_answers": survey.state.agent_answers,
            "devices": survey.host.devices.iter().map(|device| device.to_json(survey)).collect::<Vec<_>>(),
            "pods": survey.pods.iter().map(SurveyedPod::to_json).collect::<Vec<_>>(),
        })
    }
}

impl Surveyed {
    /// The device, its pod if one is known, and its hooks in order.
    pub fn to_json(&self, survey: &Survey) -> Value {
        let mut value = self.ends_json();
        value["pod"] = survey.pod_behind(self).map(SurveyedPod::name).into();
        value
    }

    fn ends_json(&self) -> Value {
        let mut value = json!(self);
        value["gso_max_size"] = self.device.gso.max_size.into();
        value["gso_ipv4_max_size"] = self.device.gso.ipv4_max_size.into();
        value["hooks"] = self.hooks.iter().map(hook_json).collect();
        value
    }
}

impl SurveyedPod {
    pub fn to_json(&self) -> Value {
        let (inside, error) = match &self.inside {
            Ok(inside) => (Some(inside.ends_json()), None),
            Err(error) => (None, Some(error)),
        };
        json!({
            "name": self.name(),
            "container_id": self.claim.key.container_id,
            "interface": self.claim.key.ifname,
            "slot": self.claim.slot.number(),
            "record": self.record.as_ref().ok(),
            "inside": inside,
            "error": error,
        })
    }
}

/// A hook's entries, with what their verdicts mean in words.
fn hook_json(hook: &Hook) -> Value {
    let entry = |(index, entry): (usize, &HookEntry)| {
        let mut value = json!(entry);
        value["position"] = (index + 1).into();
        value["verdicts"] = entry.verdicts(hook.layer).into();
        value["effect"] = entry.effect(hook.layer).into();
        value
    };
    let entries: Vec<_> = hook.entries.iter().enumerate().map(entry).collect();
    json!({ "side": hook.side, "layer": hook.layer, "entries": entries })
}
