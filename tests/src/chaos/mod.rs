// SPDX-License-Identifier: Apache-2.0
//! Everything that can go wrong on a node, at random moments: the agent and the
//! plugin are killed, what they attached is removed, pods come and go in every
//! way there is, settings and limits change. Meanwhile a few pods are measured:
//! in every second in which something of ours was in place they keep their limit,
//! and in the end nothing is left behind.
//!
//! One seed decides what is done and when: each actor draws from its own fork of
//! it, so that none shifts the others' dice. What the machine makes of that is
//! its own; a seed brings the same actions, not the same interleaving.

mod account;
mod agent;
mod churn;
mod conflist;
mod judge;
mod kernel;
mod leaks;
mod ledger;
mod measured;
mod pace;
mod process;
mod run;
mod sampler;
mod tamper;
mod traffic;

use std::thread;

use fastrand::Rng;

use crate::chaos::agent::Operator;
use crate::chaos::churn::{Extra, Runtime};
use crate::chaos::leaks::Baseline;
use crate::chaos::measured::Measured;
use crate::chaos::pace::Pace;
use crate::chaos::run::Run;
use crate::chaos::traffic::Ends;
use crate::node::Node;

/// One run on this node, as the environment asks for it (see [`Pace`]); panics with all that was
/// wrong.
pub fn run(node: &mut Node) {
    let pace = Pace::from_environment();
    println!("{}", pace.to_line());
    let run = &Run::new(pace);
    let mut dice = Rng::with_seed(run.pace.seed);
    let mut operator = Operator::start(node, run, dice.fork());
    let baseline = Baseline::take(operator.process());
    let pods = Measured::make_all(node, run, &mut dice);
    let left = chaos(run, &mut operator, &pods, &mut dice);
    judge::print(run, &pods);
    if run.is_sound() {
        operator.settle(&pods);
        leaks::delete_all(node, run, pods, left);
        leaks::check(run, &baseline, &operator);
    }
    operator.account.print();
    run.finish(&process::last_words());
}

/// All actors, until their time is over; gives the pods of the crowd that are still there.
fn chaos(run: &Run, operator: &mut Operator, pods: &[Measured], dice: &mut Rng) -> Vec<Extra> {
    thread::scope(|scope| {
        let _ends = Ends(run, pods);
        pods.iter().for_each(|pod| traffic::start(scope, run, pod));
        let runtimes: Vec<_> = (0..run.pace.runtimes)
            .map(|number| Runtime::new(run, number, dice.fork()))
            .map(|runtime| scope.spawn(|| runtime.work()))
            .collect();
        let (tampering, conflists) = (dice.fork(), dice.fork());
        scope.spawn(|| tamper::work(run, pods, tampering));
        scope.spawn(|| conflist::work(run, conflists));
        scope.spawn(|| sampler::work(run, pods));
        operator.work(pods);
        runtimes.into_iter().flat_map(|runtime| runtime.join().expect("a runtime")).collect()
    })
}
