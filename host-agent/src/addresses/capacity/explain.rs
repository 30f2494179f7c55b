// SPDX-License-Identifier: Apache-2.0
//! Findings in words: one line for the journal and for status, and what the
//! reader can do.

use super::judge::{COMES_WITHIN, FILLS_WITHIN, Signs};
use super::promise::{Pool, Promise};
use super::state::{AddressCount, Capacity, CapacityFinding};
use crate::trouble::Trouble;
use crate::trouble::code::{self, Code};

const DELEGATE: &str = "set ENABLE_PREFIX_DELEGATION in aws-node (`sluice cluster-config` prints how), \
                        or prefix-delegation.enabled = false and let max-pods be computed again";
const SUBNET: &str = "see aws-node's log (InsufficientCidrBlocks: the subnet has no free /28): use a \
                      larger subnet, or reserve blocks in it for prefixes (subnet CIDR reservations)";
const ADDRESSES: &str = "see aws-node's log; use a larger subnet, or prefixes";

/// Beyond this many no one counts.
const UNBOUNDED: u64 = 1 << 32;

/// The numbers, e.g. `32 addresses for pods, up to 240; 5 pods; max-pods 110`.
pub fn numbers(capacity: &Capacity) -> String {
    let addresses = |count: u64| match count {
        0..UNBOUNDED => count.to_string(),
        _ => "unbounded".into(),
    };
    let full = capacity.full.filter(|full| *full < UNBOUNDED);
    let full = full.map(|full| format!(", up to {full}")).unwrap_or_default();
    let max_pods = capacity.max_pods;
    match &capacity.seen {
        Some(AddressCount { addresses: now, used, .. }) => format!(
            "{} addresses for pods{full}; {used} pods have one; max-pods {max_pods}",
            addresses(*now)
        ),
        None => format!("addresses for pods not seen{full}; max-pods {max_pods}"),
    }
}

/// What degrades the node, if anything does.
pub fn trouble(
    capacity: &Capacity,
    promise: &Promise,
    pool: &Pool,
    signs: &Signs,
) -> Option<Trouble> {
    let (code, why, next_step) = match capacity.finding {
        CapacityFinding::Unseen | CapacityFinding::Fits => return None,
        CapacityFinding::Filling if !signs.fills_for_long() => return None,
        CapacityFinding::Filling => filling(promise),
        CapacityFinding::Exhausted => exhausted(promise, signs),
        mismatch => {
            (code::IP_MISMATCH, contradiction(mismatch, promise, pool), remedy(mismatch, pool))
        }
    };
    let what = format!("{why}: {}", numbers(capacity));
    Some(Trouble::new(code, "max-pods", what).with_next_step(next_step))
}

fn filling(promise: &Promise) -> (&'static Code, String, &'static str) {
    let minutes = FILLS_WITHIN.as_secs() / 60;
    let why = format!("fewer addresses than the warm target needs, for {minutes} minutes");
    (code::IP_FILLING, why, grow(promise))
}

fn exhausted(promise: &Promise, signs: &Signs) -> (&'static Code, String, &'static str) {
    let why = "no address is free for the next pod, though max-pods allows it".to_owned();
    let next_step = match signs.misses_prefixes() {
        true => DELEGATE,
        false => grow(promise),
    };
    (code::IP_EXHAUSTED, why, next_step)
}

fn grow(promise: &Promise) -> &'static str {
    match (promise.standalone, promise.wants_prefixes()) {
        (true, _) => "delegate more prefixes to the node's first interface, or lower max-pods",
        (_, true) => SUBNET,
        (_, false) => ADDRESSES,
    }
}

fn contradiction(finding: CapacityFinding, promise: &Promise, pool: &Pool) -> String {
    let instance_type = promise.in_force.instance_type.as_deref().unwrap_or("this instance type");
    match finding {
        CapacityFinding::CannotDelegate => {
            format!("prefix-delegation.enabled = true, but {instance_type} can have no prefixes")
        }
        CapacityFinding::Overpromised if promise.standalone => {
            "max-pods is more than the delegated prefixes have addresses".into()
        }
        CapacityFinding::Overpromised if pool.efa_only > 0 => format!(
            "max-pods is more than the ENIs of {instance_type} carry (EFA-only, without addresses: {})",
            pool.efa_only
        ),
        CapacityFinding::Overpromised => {
            format!("max-pods is more than the ENIs of {instance_type} carry")
        }
        CapacityFinding::UnexpectedPrefixes => {
            "aws-node delegates prefixes, but prefix-delegation.enabled = false".into()
        }
        _ => format!(
            "prefix-delegation.enabled = true, but IMDS has shown no prefix for {} minutes",
            COMES_WITHIN.as_secs() / 60
        ),
    }
}

fn remedy(finding: CapacityFinding, pool: &Pool) -> &'static str {
    match finding {
        CapacityFinding::CannotDelegate => {
            "use a Nitro type, or prefix-delegation.enabled = false for nodes of this one"
        }
        CapacityFinding::Overpromised if pool.efa_only > 0 => {
            "give max-pods.value, at most 2 more than these addresses, or attach EFA-only interfaces to \
             other network cards"
        }
        CapacityFinding::Overpromised => {
            "lower max-pods (max-pods.value = \"auto\" fits), or use prefixes or a larger type"
        }
        CapacityFinding::UnexpectedPrefixes => {
            "set prefix-delegation.enabled = true, so that max-pods is what they carry"
        }
        _ => DELEGATE,
    }
}
