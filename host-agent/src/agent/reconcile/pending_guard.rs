// SPDX-License-Identifier: Apache-2.0
//! The guards that ADD leaves to the agent: each waits for an RCU grace period.

use std::time::Duration;

use anyhow::Result;
use bpf::Pins;
use settings_model::GuardPlace;

use crate::host::lock::unless_busy;
use crate::pod::guard;
use crate::pod::record::{Claim, Guard, IngressGuard, Record, Records};
use crate::pod::veth::End;

/// Until the next try while a verb of the pod has not ended.
const AGAIN: Duration = Duration::from_millis(100);

/// What one try has come to.
#[derive(Default)]
pub struct Tried {
    /// The record as it is now.
    pub record: Option<Record>,
    /// When to come again: for the other guard, or because a verb of the pod has not ended.
    pub again: Option<Duration>,
}

/// Attaches one guard that ADD has left to us.
pub fn attach(records: &Records, pins: &Pins, claim: &Claim, place: GuardPlace) -> Result<Tried> {
    let Some(_held) = unless_busy(records.hold(&claim.key.container_id, Duration::ZERO))? else {
        return Ok(Tried { again: Some(AGAIN), ..Tried::default() });
    };
    let Ok(mut record) = claim.read() else { return Ok(Tried::default()) };
    let host = record.host.clone().filter(|_| record.guard == Some(Guard::Pending));
    match (host, record.ingress_guard.clone()) {
        (Some(host), _) => {
            let Some(mut end) = End::on_host(host.ifindex, &host.ifname)? else {
                return Ok(Tried::default());
            };
            if !end.may_be_of(&record.netns) {
                return Ok(Tried::default());
            }
            let guard = guard::attach(pins, claim.slot, &mut end, place)?;
            record.guard = Some(guard.clone());
            guard::tell(&record, None);
            if !records.rewrite(claim, &record)? {
                complain(&guard::detach(pins, claim.slot, &mut end, &guard));
            }
        }
        (None, Some(guard)) if guard.state == Guard::Pending => {
            let Ok(mut pod) = End::in_pod(&record.netns, &claim.key.ifname) else {
                return Ok(Tried::default());
            };
            let state = guard::attach_ingress(pins, claim.slot, &record.netns, &mut pod, &guard)?;
            record.ingress_guard = Some(IngressGuard { state, ..guard.clone() });
            if !records.rewrite(claim, &record)? {
                complain(&guard::detach_ingress(pins, claim.slot, None, &guard));
            }
        }
        _ => {}
    }
    Ok(Tried { again: guard::due_in(pins, &record, false), record: Some(record) })
}

fn complain(errors: &[anyhow::Error]) {
    errors.iter().for_each(|e| log::warn!("{e:#}"));
}
