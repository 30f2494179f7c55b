// SPDX-License-Identifier: Apache-2.0
//! A double of the AWS network policy agent's tc layer, which cannot run
//! without a cluster. It follows aws-ebpf-sdk-go pkg/tc/tc.go: its hooks, its
//! priority and handle, what it takes for its own, what it deletes. The
//! programs give the real ones' verdicts, OK and SHOT.

use std::fs;

use serde_json::Value;

use crate::command::{json, output, run, tc};

pub const OBJECT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/policy.bpf.o"));
const PIN_DIR: &str = "/sys/fs/bpf/globals/aws/programs";

/// The agent's two verdicts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Allow,
    Deny,
}

/// Side of the host veth; its egress is the pod's ingress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Side {
    Ingress,
    Egress,
}

impl Side {
    fn word(self) -> &'static str {
        match self {
            Self::Ingress => "ingress",
            Self::Egress => "egress",
        }
    }
}

pub struct PolicyAgent;

impl PolicyAgent {
    /// Loads both programs and pins them where the real agent does.
    pub fn start() -> Self {
        fs::create_dir_all(PIN_DIR).expect("make the agent's pin directory");
        fs::write("/run/policy.bpf.o", OBJECT).expect("write the object");
        run("bpftool", &["prog", "loadall", "/run/policy.bpf.o", PIN_DIR]);
        Self
    }

    /// The pod's egress as a node with network policy has it: clsact, and an OK on the host's end.
    pub fn allow(&self, device: &str) {
        self.attach(device, Side::Ingress, Verdict::Allow).expect("attach policy");
    }

    /// TCIngressAttach and TCEgressAttach: with EEXIST, detach and try once more.
    pub fn attach(&self, device: &str, side: Side, verdict: Verdict) -> Result<(), String> {
        self.enable_qdisc(device)?;
        match self.add_filter(device, side, verdict) {
            Err(e) if e.contains("exist") => {
                self.detach(device, side)?;
                self.add_filter(device, side, verdict)
            }
            result => result,
        }
    }

    /// Deletes the first filter with handle 1, whatever its priority or owner.
    pub fn detach(&self, device: &str, side: Side) -> Result<(), String> {
        let filters = self.filters(device, side);
        let Some(first) = filters.iter().find(|filter| handle(filter) == Some(1)) else {
            return Err("no active filter to detach".into());
        };
        let (pref, kind) = (&first["pref"], first["kind"].as_str().unwrap_or("bpf"));
        let line = format!("filter del dev {device} {} pref {pref} handle 1 {kind}", side.word());
        attempt(&line)
    }

    /// GetAllAttachedProgIds: of all filters with handle 1 the last one wins.
    pub fn attached_program(&self, device: &str, side: Side) -> Option<String> {
        let filters = self.filters(device, side);
        let own = filters.iter().rfind(|filter| handle(filter) == Some(1))?;
        own["options"]["prog"]["name"].as_str().map(str::to_owned)
    }

    /// Skips the qdisc if any has handle ffff: and clsact's parent.
    fn enable_qdisc(&self, device: &str) -> Result<(), String> {
        let qdiscs = json(&tc(&format!("-j qdisc show dev {device}")));
        let list = qdiscs.as_array().expect("a list of qdiscs");
        if list.iter().any(|q| q["handle"] == "ffff:" && q["parent"] == "ffff:fff1") {
            return Ok(());
        }
        attempt(&format!("qdisc add dev {device} clsact"))
    }

    /// FilterAdd: NLM_F_CREATE | NLM_F_EXCL, priority 1, handle 1, every protocol, direct action.
    fn add_filter(&self, device: &str, side: Side, verdict: Verdict) -> Result<(), String> {
        let program = match verdict {
            Verdict::Allow => "policy_allow",
            Verdict::Deny => "policy_deny",
        };
        attempt(&format!(
            "filter add dev {device} {} protocol all prio 1 handle 1 bpf da object-pinned \
             {PIN_DIR}/{program}",
            side.word()
        ))
    }

    fn filters(&self, device: &str, side: Side) -> Vec<Value> {
        let text = tc(&format!("-j filter show dev {device} {}", side.word()));
        let all = json(&text).as_array().expect("a list of filters").clone();
        // tc prints a line for the priority itself, which is no filter.
        all.into_iter().filter(|filter| filter["options"].get("handle").is_some()).collect()
    }
}

fn handle(filter: &Value) -> Option<u64> {
    let text = filter["options"]["handle"].as_str()?;
    u64::from_str_radix(text.trim_start_matches("0x"), 16).ok()
}

fn attempt(line: &str) -> Result<(), String> {
    let output = output("tc", &line.split_whitespace().collect::<Vec<_>>());
    match output.status.success() {
        true => Ok(()),
        false => Err(String::from_utf8_lossy(&output.stderr).into_owned()),
    }
}
