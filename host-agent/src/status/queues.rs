// SPDX-License-Identifier: Apache-2.0
//! What the fq below a limit has dropped of its own accord: it has room for all
//! that the programs admit, so this is nothing, unless its parameters were changed.
//! One question to the kernel for each direction, for as long as the budget lasts.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::pod::PodStatus;
use crate::netlink::Netlink;
use crate::pod::record::{Claim, Mode, Record, Shaping};
use crate::pod::veth::End;

/// Of one picture of the node: the agent's loop waits for it.
const BUDGET: Duration = Duration::from_millis(20);

/// Where the queues of a pod are.
pub struct Queues {
    netns: Option<PathBuf>,
    ifname: String,
    host_index: Option<u32>,
}

impl Queues {
    pub fn of(claim: &Claim, record: &Record) -> Self {
        let paced = |of: &Shaping| matches!(of, Shaping::Limited { mode: Some(Mode::Paced), .. });
        let host = record.host.as_ref().filter(|_| paced(&record.ingress));
        Self {
            netns: paced(&record.egress).then(|| record.netns.clone()),
            ifname: claim.key.ifname.clone(),
            host_index: host.map(|host| host.ifindex),
        }
    }
}

/// Enters the drops into the pods, one after the other, beginning somewhere else each time.
pub fn enter(pods: &mut [PodStatus], queues: &[Queues], at_ns: u64) {
    let Ok(mut host) = Netlink::open() else { return };
    let first = (at_ns % pods.len().max(1) as u64) as usize;
    let mut both: Vec<_> = pods.iter_mut().zip(queues).collect();
    both.rotate_left(first);
    let start = Instant::now();
    for (pod, at) in both {
        if start.elapsed() > BUDGET {
            return;
        }
        let on_host = |index| host.fq_drops(index).ok().flatten();
        pod.ingress.enter_fq_drops(at.host_index.and_then(on_host));
        pod.egress.enter_fq_drops(at.netns.as_deref().and_then(|path| in_pod(path, &at.ifname)));
    }
}

fn in_pod(netns: &Path, ifname: &str) -> Option<u32> {
    let mut end = End::in_pod(netns, ifname).ok()?;
    end.netlink.fq_drops(end.link.index).ok()?
}
