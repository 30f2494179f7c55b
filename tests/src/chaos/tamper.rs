// SPDX-License-Identifier: Apache-2.0
//! Removes from measured pods what the agent has put there, changes what it has
//! set, and does what a network policy agent does beside it. Not so often to the
//! same pod that the agent takes it for a contest and stands back.

use std::collections::VecDeque;
use std::fs;
use std::time::{Duration, Instant};

use fastrand::Rng;

use super::kernel::detach_link;
use super::ledger::Piece;
use super::measured::Measured;
use super::run::Run;
use crate::command::output;
use crate::policy_agent::{PolicyAgent, Side, Verdict};

/// The agent stands back at ten repairs a minute, and a deed may need two.
const OFTEN: usize = 4;
const MINUTE: Duration = Duration::from_secs(60);

#[derive(Clone, Copy, Debug)]
enum Deed {
    PodFilter,
    PodLeaf,
    PodRoot,
    HostRoot,
    HostFilter,
    HostLeaf,
    Guard,
    DetachedGuard,
    PodFilterAndGuard,
    PodGso,
    HostGso,
    PolicyAnew,
    PolicyGone,
    PolicyClsact,
}

const DEEDS: [Deed; 14] = [
    Deed::PodFilter,
    Deed::PodLeaf,
    Deed::PodRoot,
    Deed::HostRoot,
    Deed::HostFilter,
    Deed::HostLeaf,
    Deed::Guard,
    Deed::DetachedGuard,
    Deed::PodFilterAndGuard,
    Deed::PodGso,
    Deed::HostGso,
    Deed::PolicyAnew,
    Deed::PolicyGone,
    Deed::PolicyClsact,
];

struct Tamperer<'a> {
    run: &'a Run,
    dice: Rng,
    policy: PolicyAgent,
}

pub fn work(run: &Run, pods: &[Measured], dice: Rng) {
    let mut tamperer = Tamperer { run, dice, policy: PolicyAgent };
    let mut lately: Vec<VecDeque<Instant>> = vec![VecDeque::new(); pods.len()];
    while !run.is_over() {
        run.pause(Duration::from_millis(tamperer.dice.u64(200..3000)));
        let number = tamperer.dice.usize(..pods.len());
        let deed = DEEDS[tamperer.dice.usize(..DEEDS.len())];
        lately[number].retain(|when| when.elapsed() < MINUTE);
        if run.is_over() || lately[number].len() >= OFTEN {
            continue;
        }
        lately[number].push_back(Instant::now());
        tamperer.commit(deed, &pods[number]);
    }
}

impl Tamperer<'_> {
    fn commit(&mut self, deed: Deed, pod: &Measured) {
        let pieces = self.pieces(deed);
        {
            let mut ledger = pod.ledger.lock().expect("the ledger");
            ledger.note(format!("{deed:?}"));
            ledger.take(&pieces);
        }
        self.run.count(&format!("tampering: {deed:?}"));
        self.act(deed, pod);
        pod.ledger.lock().expect("the ledger").taken();
        self.clear_up(deed, pod);
    }

    /// What goes with it.
    fn pieces(&self, deed: Deed) -> Vec<Piece> {
        let on_clsact = if self.run.pace.tcx { vec![] } else { vec![Piece::Guard] };
        match deed {
            Deed::PodFilter => vec![Piece::PodFilter],
            Deed::PodLeaf => vec![Piece::PodFq],
            Deed::PodRoot => vec![Piece::PodFilter, Piece::PodFq],
            Deed::HostRoot => vec![Piece::HostFilter, Piece::HostFq],
            Deed::HostFilter => vec![Piece::HostFilter],
            Deed::HostLeaf => vec![Piece::HostFq],
            Deed::Guard | Deed::DetachedGuard => vec![Piece::Guard],
            Deed::PodFilterAndGuard => vec![Piece::PodFilter, Piece::Guard],
            Deed::PodGso | Deed::HostGso => vec![],
            Deed::PolicyAnew | Deed::PolicyGone | Deed::PolicyClsact => on_clsact,
        }
    }

    fn act(&mut self, deed: Deed, pod: &Measured) {
        let (name, host) = (pod.name(), &pod.pod.host_ifname);
        let pod_filter =
            || attempt("tc", &format!("-n {name} filter del dev eth0 parent 51ce: prio 1"));
        let pod_leaf = "qdisc del dev eth0 parent 51ce:1 handle 51cf:";
        let pod_root = || attempt("tc", &format!("-n {name} qdisc del dev eth0 root"));
        match deed {
            Deed::PodFilter => pod_filter(),
            Deed::PodLeaf => attempt("tc", &format!("-n {name} {pod_leaf}")),
            Deed::PodRoot => pod_root(),
            Deed::HostRoot => attempt("tc", &format!("qdisc del dev {host} root")),
            Deed::HostFilter => {
                attempt("tc", &format!("filter del dev {host} parent 51ce: prio 1"));
            }
            Deed::HostLeaf => {
                attempt("tc", &format!("qdisc del dev {host} parent 51ce:1 handle 51cf:"));
            }
            Deed::Guard => self.remove_guard(pod),
            Deed::DetachedGuard => self.detach_guard(pod),
            Deed::PodFilterAndGuard => {
                pod_filter();
                self.remove_guard(pod);
            }
            Deed::PodGso => attempt("ip", &format!("-n {name} link set eth0 gso_max_size 65536")),
            Deed::HostGso => attempt("ip", &format!("link set {host} gso_max_size 65536")),
            Deed::PolicyAnew => self.policy_anew(host),
            Deed::PolicyGone => {
                let side = self.any_side();
                // There may be none from the last time.
                let _ = self.policy.detach(host, side);
            }
            Deed::PolicyClsact => attempt("tc", &format!("qdisc del dev {host} clsact")),
        }
    }

    fn remove_guard(&self, pod: &Measured) {
        if self.run.pace.tcx {
            // It may be gone from the last time.
            let _ = fs::remove_file(pod.guard_pin());
        } else {
            let host = &pod.pod.host_ifname;
            attempt("tc", &format!("filter del dev {host} ingress prio 1 handle 0x51ce bpf"));
        }
    }

    fn detach_guard(&self, pod: &Measured) {
        match self.run.pace.tcx {
            // The same.
            true => drop(detach_link(&pod.guard_pin())),
            false => self.remove_guard(pod),
        }
    }

    fn policy_anew(&mut self, host: &str) {
        let side = self.any_side();
        if let Err(e) = self.policy.attach(host, side, Verdict::Allow) {
            self.run.fail(format!("policy cannot be attached to {host}: {e}"));
        }
    }

    fn any_side(&mut self) -> Side {
        if self.dice.bool() { Side::Ingress } else { Side::Egress }
    }

    /// Nothing tells the agent of a link or of a size that is gone: any event of the device does.
    fn clear_up(&mut self, deed: Deed, pod: &Measured) {
        let (name, host) = (pod.name(), &pod.pod.host_ifname);
        match deed {
            Deed::Guard | Deed::DetachedGuard | Deed::PodFilterAndGuard | Deed::HostGso => {
                self.run.pause(Duration::from_millis(self.dice.u64(..1500)));
                attempt("ip", &format!("link set {host} alias {}", self.dice.u16(..)));
            }
            Deed::PodGso => {
                self.run.pause(Duration::from_millis(self.dice.u64(..1500)));
                attempt("ip", &format!("-n {name} link set eth0 alias {}", self.dice.u16(..)));
            }
            // Policy's agent would restore it; without it there is no place for a guard on clsact.
            Deed::PolicyClsact => {
                self.run.pause(Duration::from_millis(self.dice.u64(..500)));
                let pieces = self.pieces(deed);
                pod.ledger.lock().expect("the ledger").take(&pieces);
                self.policy_anew(host);
                pod.ledger.lock().expect("the ledger").taken();
            }
            _ => {}
        }
    }
}

/// What has gone already, or is not there while there is no limit, is none of ours.
fn attempt(program: &str, line: &str) {
    output(program, &line.split_whitespace().collect::<Vec<_>>());
}
