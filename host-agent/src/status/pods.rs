// SPDX-License-Identifier: Apache-2.0
//! Reads pods from their records and counters, and looks at their devices for
//! what that adds.

use anyhow::Result;
use bpf::{Counters, Delays, Pins};

use super::node_share::{NodeLines, PodShare};
use super::pod::{Bypassed, GuardLine, Line, PodStatus};
use super::queues::{self, Queues};
use crate::host::clock::now_ns;
use crate::host::paths::Paths;
use crate::pod::direction::Direction;
use crate::pod::guard;
use crate::pod::record::{Claim, Mode, Record, Records, Shaping};
use crate::pod::veth::Veth;
use crate::trouble::{Trouble, code};

/// What the programs of one direction have counted.
#[derive(Default)]
struct Counted {
    shaped: (Counters, Delays),
    /// What came to the guard without having been shaped.
    unshaped: Counters,
    /// What the guard has seen of what was.
    passed_bytes: u64,
    share: Option<PodShare>,
}

/// All pods, and what of them could not be read.
pub fn read(
    paths: &Paths,
    pins: Option<&Pins>,
    node: &NodeLines,
) -> Result<(Vec<PodStatus>, Vec<Trouble>)> {
    let (mut pods, mut queues, mut troubles) = (Vec::new(), Vec::new(), Vec::new());
    for claim in Records::new(paths).list()? {
        match read_one(pins, &claim, node) {
            Ok(Some((pod, at))) => {
                pods.push(pod);
                queues.push(at);
            }
            Ok(None) => {}
            Err(e) => {
                let subject = format!("{} {}", claim.key.container_id, claim.key.ifname);
                troubles.push(Trouble::new(code::RECORD_UNREADABLE, subject, format!("{e:#}")));
            }
        }
    }
    queues::enter(&mut pods, &queues, now_ns());
    Ok((pods, troubles))
}

/// None if the pod has gone since the listing.
fn read_one(
    pins: Option<&Pins>,
    claim: &Claim,
    node: &NodeLines,
) -> Result<Option<(PodStatus, Queues)>> {
    let record = match claim.read() {
        Ok(record) => record,
        Err(e) if is_not_found(&e) => return Ok(None),
        Err(e) => return Err(e),
    };
    let sends = Counted::read(pins, claim, Direction::Egress, node)?;
    let receives = Counted::read(pins, claim, Direction::Ingress, node)?;
    // Where the guard enforces, it also counts.
    let mut egress = match is_guarded(&record.egress) {
        true => Line::new(&record.egress, &(sends.unshaped, Delays::default())),
        false => Line::new(&record.egress, &sends.shaped),
    };
    if record.guard.is_some() {
        egress.tell_of_dodging(&sends.unshaped);
    }
    let mut ingress = match is_guarded(&record.ingress) {
        true => Line::new(&record.ingress, &(receives.unshaped, Delays::default())),
        false => Line::new(&record.ingress, &receives.shaped),
    };
    (egress.share, ingress.share) = (sends.share, receives.share);
    let why = record.admitted.as_ref().map(|why| format!("started without limits: {why}"));
    [&mut egress, &mut ingress].into_iter().for_each(|line| line.tell_of_problem(why.clone()));
    let bypassed = record.ingress_guard.as_ref().filter(|_| pins.is_some());
    let bypassed = bypassed.map(|guard| Bypassed::new(&guard.state, &receives.unshaped));
    bypassed.iter().for_each(|bypassed| ingress.tell_of_bypass(bypassed));
    ingress.tell_of_problem(read_past_the_guard(&record, bypassed.as_ref()));
    let queues = Queues::of(claim, &record);
    let pod = PodStatus {
        container_id: claim.key.container_id.clone(),
        interface: claim.key.ifname.clone(),
        host_ifindex: record.host.as_ref().map(|host| host.ifindex),
        host_interface: record.host.map(|host| host.ifname),
        slot: claim.slot.number(),
        egress,
        ingress,
        guard: record
            .guard
            .as_ref()
            .map(|state| GuardLine::new(state, &sends.unshaped, sends.passed_bytes)),
        bypassed,
        namespace: record.namespace,
        pod: record.pod,
        came: record.came,
        main: record.main,
        annotated: record.annotated,
        live: record.live,
    };
    Ok(Some((pod, queues)))
}

fn is_guarded(shaping: &Shaping) -> bool {
    matches!(shaping, Shaping::Limited { mode: Some(Mode::Guarded(_)), .. })
}

/// Only where it matters, as it takes a visit to the pod's namespace.
fn read_past_the_guard(record: &Record, bypassed: Option<&Bypassed>) -> Option<String> {
    let guard = record.ingress_guard.as_ref()?;
    let is_limited = !record.ingress.is_unlimited() && bypassed?.is_dropping(now_ns());
    (is_limited && guard::is_preceded(&record.netns, guard.ifindex)).then(|| {
        "a packet socket in the pod (gVisor's network is one) gets what reaches it past its host end \
         before the guard can drop it"
            .into()
    })
}

fn is_not_found(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|e| e.kind() == std::io::ErrorKind::NotFound)
}

impl Counted {
    /// Delays first: a packet may be among the sent ones only, not among the delayed ones only.
    fn read(
        pins: Option<&Pins>,
        claim: &Claim,
        direction: Direction,
        node: &NodeLines,
    ) -> bpf::Result<Self> {
        let Some(pins) = pins else { return Ok(Self::default()) };
        let delays = pins.delays(claim.slot, direction)?;
        Ok(Self {
            shaped: (pins.counters(claim.slot, direction)?, delays),
            unshaped: pins.unshaped(claim.slot, direction)?,
            passed_bytes: pins.passed_bytes(claim.slot, direction)?,
            share: PodShare::read(pins, claim.slot, direction, node.of(direction))?,
        })
    }
}

/// Says of each pod what was removed from it.
pub fn look_at_devices(paths: &Paths, pods: &mut [PodStatus]) -> Result<()> {
    for claim in Records::new(paths).list()? {
        let same = |pod: &&mut PodStatus| {
            pod.slot == claim.slot.number() && pod.interface == claim.key.ifname
        };
        let (Some(pod), Ok(record)) = (pods.iter_mut().find(same), claim.read()) else { continue };
        let [egress, ingress] = problems(&claim, &record);
        pod.egress.tell_of_problem(egress);
        pod.ingress.tell_of_problem(ingress);
    }
    Ok(())
}

/// What was removed of each direction's attachment; found by looking.
fn problems(claim: &Claim, record: &Record) -> [Option<String>; 2] {
    let attached = |shaping: &Shaping| match shaping {
        Shaping::Limited { mode: Some(Mode::Paced), .. } => Some(bpf::Mode::Paced),
        Shaping::Limited { mode: Some(Mode::Policed), .. } => Some(bpf::Mode::Policed),
        _ => None,
    };
    if record.directions().iter().all(|(_, shaping)| attached(shaping).is_none()) {
        return [None, None];
    }
    let mut veth = Veth::find(&record.netns, &claim.key.ifname);
    record.directions().map(|(direction, shaping)| {
        let mode = attached(shaping)?;
        let missing = match &mut veth {
            Ok(veth) => veth.missing(direction, mode).unwrap_or_default(),
            Err(e) => return Some(format!("{e:#}")),
        };
        missing.map(str::to_owned)
    })
}
