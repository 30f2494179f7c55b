// SPDX-License-Identifier: Apache-2.0
//! What guests are to measure for each group of figures, and nothing twice.

use crate::crowd::CrowdPlan;
use crate::jobs::Job;
use crate::rate::{Path, Protocol, RatePlan};
use crate::row::{Direction, RowPlan};
use crate::setups::Setup;
use crate::site::{MTUS, USUAL_MTU};

const MBIT: u64 = 1_000_000;
/// All comparisons are made at this rate.
pub const RATE_BPS: u64 = 20 * MBIT;
const DIRECTIONS: [Direction; 2] = [Direction::Egress, Direction::Ingress];
/// More than there are buckets, as many as CAKE has, and far more than that.
const CROWDS: [usize; 3] = [300, 1000, 10_000];
const PATHS: [Path; 3] = [Path::PodToRemote, Path::RemoteToPod, Path::PodToPod];

/// P6 and P7: Sluice and CAKE in all cases, the other peers in one of each direction.
pub fn rows() -> Vec<Job> {
    MTUS.into_iter().flat_map(rows_at).collect()
}

fn rows_at(mtu: u32) -> Vec<Job> {
    let row = |setup, direction, flows, congestion: &str| {
        let (congestion, rate_bps, seconds) = (congestion.to_owned(), RATE_BPS, 6);
        Job::Row(RowPlan { setup, direction, flows, congestion, rate_bps, mtu, seconds })
    };
    let mut jobs = vec![row(Setup::None, Direction::Egress, 0, "cubic")];
    for direction in DIRECTIONS {
        for congestion in ["cubic", "bbr"] {
            for flows in [1, 8, 32] {
                for setup in [Setup::Sluice, Setup::Cake] {
                    jobs.push(row(setup, direction, flows, congestion));
                }
            }
        }
        for setup in [Setup::TbfFqCodel, Setup::Upstream32Kb, Setup::CiliumEdt] {
            jobs.push(row(setup, direction, 8, "cubic"));
        }
    }
    jobs
}

/// P4 and P5: every path at the middle rate, to and from a remote at the others; the peers once.
pub fn rates() -> Vec<Job> {
    MTUS.into_iter().flat_map(rates_at).collect()
}

fn rates_at(mtu: u32) -> Vec<Job> {
    let mut jobs = Vec::new();
    for (rate_bps, paths) in
        [(MBIT, &PATHS[..2]), (RATE_BPS, &PATHS[..]), (100 * MBIT, &PATHS[..2])]
    {
        for path in paths {
            for protocol in [Protocol::Tcp, Protocol::Udp] {
                for ipv6 in [false, true] {
                    let (setup, path) = (Setup::Sluice, *path);
                    let senders = 1;
                    let plan = RatePlan { setup, path, protocol, ipv6, rate_bps, mtu, senders };
                    jobs.push(Job::Rate(plan));
                }
            }
        }
    }
    let peers =
        [Setup::Upstream, Setup::Upstream32Kb, Setup::CiliumEdt, Setup::Cake, Setup::TbfFqCodel];
    jobs.extend(peers.map(|setup| Job::Rate(RatePlan { setup, ..from_pod(mtu, 1) })));
    jobs
}

/// Processes that send for one pod from two processors at once.
pub fn processors() -> Vec<Job> {
    vec![Job::Rate(RatePlan { protocol: Protocol::Udp, ..from_pod(USUAL_MTU, 2) })]
}

fn from_pod(mtu: u32, senders: usize) -> RatePlan {
    let (setup, path, protocol) = (Setup::Sluice, Path::PodToRemote, Protocol::Tcp);
    RatePlan { setup, path, protocol, ipv6: false, rate_bps: RATE_BPS, mtu, senders }
}

/// P2.
pub fn packets() -> Vec<Job> {
    let steps = [Setup::Queues, Setup::QueuesAndFilter, Setup::SluiceUnguarded, Setup::EmptyGuard];
    let peers = [Setup::None, Setup::Sluice, Setup::Fq, Setup::CiliumEdt, Setup::Upstream];
    steps.into_iter().chain(peers).map(Job::Packets).collect()
}

/// P8: frames of EKS' own size, too.
pub fn crowds() -> Vec<Job> {
    let mut jobs = Vec::new();
    for direction in DIRECTIONS {
        for (mtu, flows) in MTUS.into_iter().flat_map(|mtu| CROWDS.map(|flows| (mtu, flows))) {
            for setup in [Setup::Sluice, Setup::Cake, Setup::TbfFqCodel] {
                let rate_bps = 10 * MBIT;
                jobs.push(Job::Crowd(CrowdPlan { direction, mtu, flows, setup, rate_bps }));
            }
        }
    }
    jobs
}
