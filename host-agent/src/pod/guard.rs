// SPDX-License-Identifier: Apache-2.0
//! The two guards of a pod. The one on the host's end, for a limit on egress: a
//! pod that may change its own network cannot remove it there. The one on the
//! pod's own end, for a limit on ingress: it sees what others hand to the pod past
//! the host's end (bpf_redirect_peer). Each lets pass what its shaper has charged,
//! and polices just the rest.
//!
//! With tcx each is a link at the head, which no foreign filter can get in front
//! of by accident. Without, it is a filter in front of the others on clsact,
//! because an OK ends the chain: on the host's end as a guest on network policy's
//! clsact, never removing that, and making one only where `bandwidth.guard` says so
//! (docs/decisions/0006-guard.md); in the pod on one that it makes, unless an `ingress` qdisc is there.
//!
//! The agent attaches them, soon after ADD: a new tcx link waits until no packet is
//! under way in the old list (kernel/bpf/tcx.c, tcx_entry_sync), ten times as
//! long as all the rest of an ADD.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use bpf::{Pins, Slot};
use nix::errno::Errno;
use settings_model::GuardPlace;

use crate::netlink::{self, FILTER_HANDLE, Filter};
use crate::pod::record::{Guard, IngressGuard, Record};
use crate::pod::veth::{End, Veth};
use crate::trouble::code;

/// How long after its shaper a guard is attached where an older layout's was in force: what an older
/// program let pass, and no guard of ours would know, has then left the longest queue.
const AFTER_OLDER: Duration = Duration::from_secs(2);
/// How long after its pod's ADD an ingress guard is attached: what an older program let pass into the
/// pod has then arrived.
const INGRESS_AFTER: Duration = Duration::from_secs(1);
/// The same where it needs clsact, which keeps an `ingress` qdisc out: a sandbox that needs one has put
/// it there by then (Kata's shim does so right after ADD).
const CLSACT_AFTER: Duration = Duration::from_secs(5);

/// Puts the guard where this kernel and this device let it be.
pub fn attach(pins: &Pins, slot: Slot, host: &mut End, place: GuardPlace) -> Result<Guard> {
    if pins.attach_guard(host.link.index, slot)? {
        return Ok(Guard::Tcx);
    }
    if place == GuardPlace::OwnClsact {
        make_clsact(host)?;
    }
    let (program, id) = pins.guard()?;
    let filter = Filter { program, name: "sluice_guard", slot: slot.number() };
    put_in_front(host, &filter, id)
}

/// It stays for as long as the device does: policy may use it by now, and taking it away would take policy's
/// filters along.
fn make_clsact(host: &mut End) -> Result<()> {
    if host.netlink.ingress_kind(&host.link)?.is_some() {
        return Ok(());
    }
    match host.netlink.add_clsact(&host.link) {
        // Policy has just made one.
        Err(e) if e.errno() == Some(Errno::EEXIST) => Ok(()),
        made => Ok(made?),
    }
}

/// Logs a pod that nothing guards, once; status and metrics say it as long as it is so.
pub fn tell(record: &Record, before: Option<&Guard>) {
    let (namespace, pod) = (&record.namespace, &record.pod);
    if let Some(guard @ Guard::Off(why)) = &record.guard
        && before != Some(guard)
    {
        log::warn!(
            POD_NAMESPACE = namespace.as_str(),
            POD_NAME = pod.as_str(),
            CODE = code::GUARD_OFF.name;
            "{namespace}/{pod}: no guard, {why}: with CAP_NET_RAW the pod can send past its limit"
        );
    }
}

/// The ingress guard that a record names, or one that is still to be attached.
pub fn of_pod(record: &Record, pod: &End) -> Result<IngressGuard> {
    if let Some(guard) = &record.ingress_guard {
        return Ok(guard.clone());
    }
    let what = || format!("look at the network namespace {}", record.netns.display());
    let inode = fs::metadata(&record.netns).with_context(what)?.ino();
    let netns = u32::try_from(inode).with_context(what)?;
    Ok(IngressGuard { netns, ifindex: pod.link.index, state: Guard::Pending })
}

/// The ingress guard, for a pod that is reached through its namespace.
pub fn attach_ingress(
    pins: &Pins,
    slot: Slot,
    netns: &Path,
    pod: &mut End,
    guard: &IngressGuard,
) -> Result<Guard> {
    let file = File::open(netns)
        .with_context(|| format!("open the network namespace {}", netns.display()))?;
    if netlink::inside(&file, || pins.attach_ingress_guard(guard.end(), slot))?? {
        return Ok(Guard::Tcx);
    }
    if pod.netlink.ingress_kind(&pod.link)?.is_none() {
        pod.netlink.add_clsact(&pod.link)?;
    }
    let (program, id) = pins.ingress_guard()?;
    let filter = Filter { program, name: "sluice_ingress_guard", slot: slot.number() };
    put_in_front(pod, &filter, id)
}

/// When a guard of this pod is to be attached, if one is. `upgrades` is as in reconcile's node.
pub fn due_in(pins: &Pins, record: &Record, upgrades: bool) -> Option<Duration> {
    let ingress = record.ingress_guard.as_ref().map(|guard| &guard.state);
    match (&record.guard, ingress) {
        (Some(Guard::Pending), _) if upgrades => Some(AFTER_OLDER),
        (Some(Guard::Pending), _) => Some(Duration::ZERO),
        (_, Some(Guard::Pending)) if pins.ingress_guard_is_link() => Some(INGRESS_AFTER),
        (_, Some(Guard::Pending)) => Some(CLSACT_AFTER),
        _ => None,
    }
}

/// Whether this version's guard is the first filter on clsact.
pub fn is_ours(pins: &Pins, host: &mut End) -> Result<bool> {
    let first = host.netlink.first_ingress_filter(&host.link)?;
    let program = first.filter(|first| first.handle == FILTER_HANDLE).and_then(|f| f.program_id);
    Ok(program == Some(pins.guard()?.1))
}

/// Whether a packet socket gets all that arrives at this device of the pod, as gVisor's own network does by
/// one: the kernel hands it a copy before it asks any program on ingress (net/core/dev.c,
/// __netif_receive_skb_core), so no guard in the pod can keep anything from it.
pub fn is_preceded(netns: &Path, ifindex: u32) -> bool {
    let sockets = || fs::read_to_string("/proc/thread-self/net/packet");
    let listed = File::open(netns).ok().and_then(|netns| netlink::inside(&netns, sockets).ok());
    listed.and_then(Result::ok).is_some_and(|list| takes_all(&list, ifindex))
}

/// By the kernel's list: the fourth column is the protocol, the fifth the device or 0 for each.
fn takes_all(list: &str, ifindex: u32) -> bool {
    const ALL: &str = "0003";
    let device = ifindex.to_string();
    list.lines().any(|line| {
        let mut words = line.split_whitespace().skip(3);
        words.next() == Some(ALL) && words.next().is_some_and(|on| on == "0" || on == device)
    })
}

fn put_in_front(end: &mut End, filter: &Filter, program_id: u32) -> Result<Guard> {
    // On `ingress` the priority may be another's, and its owner would be refused.
    if end.netlink.ingress_kind(&end.link)? != Some("clsact") {
        return Ok(Guard::Off(off_reason(end)));
    }
    let End { netlink, link } = end;
    match netlink.first_ingress_filter(link)?.filter(|first| first.handle == FILTER_HANDLE) {
        Some(first) if first.program_id == Some(program_id) => return Ok(Guard::Clsact),
        Some(_) => {
            netlink.replace_ingress_filter(link, filter)?;
            return Ok(Guard::Clsact);
        }
        None => {}
    }
    let added = match netlink.add_ingress_filter(link, filter) {
        // It is further back.
        Err(e) if e.errno() == Some(Errno::EEXIST) => {
            netlink.delete_ingress_filter(link)?;
            netlink.add_ingress_filter(link, filter)
        }
        added => added,
    };
    match added {
        Ok(()) => Ok(Guard::Clsact),
        // A foreign filter of another kind has the priority that policy shares.
        Err(e) if e.errno() == Some(Errno::EINVAL) => Ok(Guard::Off(off_reason(end))),
        Err(e) => Err(e.into()),
    }
}

/// Removes it, wherever it is; what is not there is no error.
pub fn detach(pins: &Pins, slot: Slot, host: &mut End, guard: &Guard) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    if *guard == Guard::Clsact {
        errors.extend(delete_filter(host));
    }
    errors.extend(pins.detach_guard(host.link.index, slot).err().map(anyhow::Error::from));
    errors
}

/// The same for the ingress guard; without `veth` the filter has gone with the pod. The pod's clsact
/// stays: a foreign filter may use it by now.
pub fn detach_ingress(
    pins: &Pins,
    slot: Slot,
    veth: Option<&mut Veth>,
    guard: &IngressGuard,
) -> Vec<anyhow::Error> {
    let mut errors = Vec::new();
    if let (Guard::Clsact, Some(veth)) = (&guard.state, veth) {
        errors.extend(delete_filter(&mut veth.pod));
    }
    let detached = pins.detach_ingress_guard(guard.end(), slot);
    errors.extend(detached.err().map(anyhow::Error::from));
    errors
}

fn delete_filter(end: &mut End) -> Option<anyhow::Error> {
    let deleted = end.netlink.delete_ingress_filter(&end.link);
    deleted.err().filter(|e| !e.is_not_found()).map(anyhow::Error::from)
}

fn off_reason(end: &End) -> String {
    format!("no tcx in this kernel and no clsact on {} that it can share", end.link.name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packet_socket_for_all_of_the_device_comes_before_the_guard() {
        // Of gVisor; of tcpdump on all devices; of a DHCP client; on another device.
        const HEAD: &str = "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n0000000000000000 3      ";
        for (socket, precedes) in [
            ("3    0003   2     1 0      0      97423", true),
            ("3    0003   0     1 0      0      97423", true),
            ("2    0800   2     1 0      0      97423", false),
            ("3    0003   1     1 0      0      97423", false),
        ] {
            assert_eq!(takes_all(&format!("{HEAD}{socket}\n"), 2), precedes, "{socket}");
        }
        assert!(!takes_all("sk RefCnt Type Proto Iface R Rmem User Inode\n", 2));
    }
}
