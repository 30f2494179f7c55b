// SPDX-License-Identifier: Apache-2.0
//! The pods whose traffic is measured: each with a peer of its own, so that what
//! the peer's namespace received is what the pod has sent. They live from the
//! first to the last moment.

use std::path::PathBuf;
use std::sync::Mutex;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::judge::Tally;
use super::kernel::{
    CLSACT_INGRESS, Device, Limits, OUR_CLASS, OUR_FILTER, OUR_LEAF, OUR_ROOT, tcx_programs,
};
use super::ledger::{Ledger, Seen};
use super::run::Run;
use super::traffic::Second;
use crate::cni::Annotations;
use crate::command::wait_for;
use crate::flows::Progress;
use crate::node::{Node, PIN_DIR, Pod};
use crate::policy_agent::PolicyAgent;

/// Of each direction; more than one, so that sharing has a part in it.
pub const TCP_FLOWS: usize = 2;

/// What is sent in a pod's two directions.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flood {
    Udp,
    Tcp,
}

pub struct Measured {
    pub pod: Pod,
    pub peer: Pod,
    /// None: the node's defaults are its limits.
    pub annotated: Option<[u64; 2]>,
    pub floods: [Flood; 2],
    pub inside: Device,
    pub outside: Device,
    slot: u32,
    limits: Limits,
    pub ledger: Mutex<Ledger>,
    pub progress: [Progress; 2],
    pub seconds: [Mutex<Vec<Second>>; 2],
    pub tally: [Mutex<Tally>; 2],
}

/// Both floods in both directions, with annotations and without; the first two of them are left out where
/// there are only two.
const KINDS: [([Flood; 2], bool); 4] = [
    ([Flood::Udp, Flood::Udp], true),
    ([Flood::Tcp, Flood::Tcp], true),
    ([Flood::Udp, Flood::Tcp], false),
    ([Flood::Tcp, Flood::Udp], true),
];

impl Measured {
    /// All of them, shaped and guarded; network policy is there first, as on a node of EKS.
    pub fn make_all(node: &Node, run: &Run, dice: &mut Rng) -> Vec<Self> {
        let policy = PolicyAgent::start();
        let kinds = &KINDS[KINDS.len() - run.pace.measured..];
        let make = |(number, (floods, annotated)): (usize, &([Flood; 2], bool))| {
            let mut rate = || run.pace.rates[dice.usize(..run.pace.rates.len())];
            let annotated = annotated.then(|| [rate(), rate()]);
            Self::make(node, &policy, run, number as u8, *floods, annotated)
        };
        kinds.iter().enumerate().map(make).collect()
    }

    fn make(
        node: &Node,
        policy: &PolicyAgent,
        run: &Run,
        number: u8,
        floods: [Flood; 2],
        annotated: Option<[u64; 2]>,
    ) -> Self {
        let pod = node.pod(&format!("m{number}"), 2 + 2 * number);
        let peer = node.pod(&format!("p{number}"), 3 + 2 * number);
        policy.allow(&pod.host_ifname);
        let [egress, ingress] = annotated.unwrap_or_default();
        node.add(&pod, Annotations { egress, ingress });
        let limits = annotated.unwrap_or([run.pace.rates[0]; 2]).map(Some);
        let measured = Self {
            inside: Device::in_netns(&pod.netns(), "eth0"),
            outside: Device::here(&pod.host_ifname),
            slot: slot_of(&pod),
            limits: Limits::open(&format!("{PIN_DIR}/lines")),
            ledger: Mutex::new(Ledger::new(limits, Instant::now())),
            progress: [Progress::new(0), Progress::new(0)],
            seconds: Default::default(),
            tally: Default::default(),
            pod,
            peer,
            annotated,
            floods,
        };
        wait_for("all pieces of a pod", Duration::from_secs(20), || {
            measured.look(run).there.iter().all(|there| *there).then_some(())
        });
        measured
    }

    pub fn name(&self) -> &str {
        &self.pod.name
    }

    /// Of the guard's link, where there is tcx.
    pub fn guard_pin(&self) -> PathBuf {
        PathBuf::from(format!("{PIN_DIR}/links/{}", self.outside.index))
    }

    /// What is attached now, and the limits in the map.
    pub fn look(&self, run: &Run) -> Seen {
        let from = Instant::now();
        let (paced, Self { inside, outside, .. }) = (run.pace.paced, self);
        let there = [
            inside.filters(OUR_ROOT).contains(&OUR_FILTER),
            !paced || inside.has_qdisc(OUR_CLASS, OUR_LEAF),
            match run.pace.tcx {
                // A link whose pin was removed is detached a little later.
                true => self.guard_pin().exists() && tcx_programs(outside.index) > 0,
                // Behind policy's OK it would never run.
                false => outside.filters(CLSACT_INGRESS).first() == Some(&OUR_FILTER),
            },
            outside.filters(OUR_ROOT).contains(&OUR_FILTER),
            !paced || outside.has_qdisc(OUR_CLASS, OUR_LEAF),
        ];
        let entries = [0, 1].map(|direction| 2 * self.slot + direction);
        let ns_per_byte = entries.map(|entry| self.limits.ns_per_byte(entry));
        Seen { from, to: Instant::now(), there, ns_per_byte }
    }

    /// Looks, enters that, and reports what no one took.
    pub fn watch(&self, run: &Run) {
        let seen = self.look(run);
        let mut ledger = self.ledger.lock().expect("the ledger");
        let (gone, back) = ledger.enter(&seen);
        for piece in gone {
            let events = ledger.events(seen.from - Duration::from_secs(3), seen.to).join("\n    ");
            run.fail(format!("{}: {piece:?} is gone, no one took it\n    {events}", self.name()));
        }
        let due_back = ledger.due_back(run.calm_time());
        let late = due_back.into_iter().find(|(_, _, due)| run.agent_had(*due) > run.pace.repair);
        if let (Some((piece, gone, due)), false) = (late, ledger.overdue_told) {
            ledger.overdue_told = true;
            let events = ledger.events(gone - Duration::from_secs(3), seen.to).join("\n    ");
            let had = run.agent_had(due);
            run.fail(format!("{}: {piece:?} is not back after {had:?}\n    {events}", self.name()));
        }
        for absence in back {
            if let Some(time) = ledger.was_taken_for(&absence) {
                run.took(&format!("until {:?} was back", absence.piece), time);
            }
        }
    }
}

fn slot_of(pod: &Pod) -> u32 {
    let names = std::fs::read_dir("/run/sluice/pods").expect("the records");
    let names = names.map(|entry| entry.expect("an entry").file_name());
    let names: Vec<_> = names.map(|name| name.to_string_lossy().into_owned()).collect();
    let own = format!("@id-{}@eth0.json", pod.name);
    let slot = names.iter().find_map(|name| name.strip_suffix(&own)?.parse().ok());
    slot.unwrap_or_else(|| panic!("no record of {} in {names:?}", pod.name))
}
