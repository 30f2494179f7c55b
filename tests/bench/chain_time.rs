// SPDX-License-Identifier: Apache-2.0
//! C1 to C3: what a pod waits for when it starts and ends. Sluice's plugin and
//! the CNI project's bandwidth plugin take turns on the same new veth, with the
//! same environment and the same configuration, both directions limited. A
//! neighbour is limited all the while, as on a node that is in use: the first
//! filter of a whole kernel costs more than all others. No agent runs.

use std::fs::{self, File};
use std::process::{Command, Stdio};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use tests::cni::{Annotations, Call};
use tests::command::{ip, output};
use tests::node::{BIN_DIR, Node, Pod, with_node};

use crate::figure::{Bound, Figure};
use crate::peak_memory::peak_memory_kib;
use crate::upstream::PLUGIN_DIR;

const ROUNDS: usize = 100;
const BOTH: Annotations = Annotations { egress: 20_000_000, ingress: 20_000_000 };
const STDIN: &str = "/run/stdin";

/// One plugin, and milliseconds of its calls.
struct Plugin {
    path: String,
    add_ms: Vec<f64>,
    del_ms: Vec<f64>,
    peak_kib: u64,
}

/// Everything here, on a node of its own.
pub fn measure() -> Result<Vec<Figure>> {
    let mut figures = Ok(Vec::new());
    with_node(|node| figures = on(node));
    figures
}

fn on(node: &mut Node) -> Result<Vec<Figure>> {
    node.boot_with("");
    node.start_agent();
    let neighbour = node.pod("neighbour", 9);
    node.add(&neighbour, BOTH);
    node.guard(&neighbour);
    node.kill_agent(Signal::SIGTERM);
    let mut plugins = [format!("{BIN_DIR}/sluice"), format!("{PLUGIN_DIR}/bandwidth")]
        .map(|path| Plugin { path, add_ms: Vec::new(), del_ms: Vec::new(), peak_kib: 0 });
    for round in 0..ROUNDS {
        let pod = node.pod("timed", 2);
        let order = [round % 2, (round + 1) % 2];
        order.into_iter().try_for_each(|number| plugins[number].take_a_turn(&pod))?;
        remove(&pod);
    }
    let pod = node.pod("weighed", 3);
    for plugin in &mut plugins {
        plugin.peak_kib = peak_memory_kib(&mut plugin.command("ADD", &pod)?)?;
        plugin.run("DEL", &pod)?;
        clean(&pod);
    }
    Ok(figures(&mut plugins))
}

impl Plugin {
    fn take_a_turn(&mut self, pod: &Pod) -> Result<()> {
        let add_ms = self.run("ADD", pod)?;
        self.add_ms.push(add_ms);
        let del_ms = self.run("DEL", pod)?;
        self.del_ms.push(del_ms);
        clean(pod);
        Ok(())
    }

    /// Start to end, in milliseconds.
    fn run(&self, verb: &'static str, pod: &Pod) -> Result<f64> {
        let mut command = self.command(verb, pod)?;
        let began = Instant::now();
        let status = command.status().with_context(|| format!("run {}", self.path))?;
        let took_ms = began.elapsed().as_secs_f64() * 1000.0;
        ensure!(status.success(), "{} {verb}: {status}", self.path);
        Ok(took_ms)
    }

    fn command(&self, verb: &'static str, pod: &Pod) -> Result<Command> {
        let call = Call::new(verb, pod, BOTH);
        fs::write(STDIN, call.stdin.to_string())?;
        let mut command = Command::new(&self.path);
        command.env_clear().stdin(File::open(STDIN)?).stdout(Stdio::null());
        let environment = call.command(pod);
        command.envs(environment.get_envs().filter_map(|(name, value)| Some((name, value?))));
        Ok(command)
    }

    fn median_and_p99(times_ms: &mut [f64]) -> [f64; 2] {
        times_ms.sort_by(f64::total_cmp);
        [times_ms.len() / 2, times_ms.len() * 99 / 100].map(|place| times_ms[place])
    }
}

/// Upstream's DEL leaves its qdiscs to the end of the veth; the next one is to find none.
fn clean(pod: &Pod) {
    let host = pod.host_ifname.as_str();
    // Not all of it is ever there.
    for words in [
        ["qdisc", "del", "dev", host, "root"].as_slice(),
        &["qdisc", "del", "dev", host, "ingress"],
    ] {
        let _ = output("tc", words);
    }
}

fn remove(pod: &Pod) {
    ip(&format!("link del {}", pod.host_ifname));
    pod.delete();
}

fn figures([ours, upstream]: &mut [Plugin; 2]) -> Vec<Figure> {
    let of = |id, verb: &str, [ours, theirs]: [&mut Vec<f64>; 2], must_and_aim| {
        let ([median, p99], [their_median, their_p99]) =
            (Plugin::median_and_p99(ours), Plugin::median_and_p99(theirs));
        let name = format!("{verb} of both directions, start to end of the plugin, median");
        Figure::new(id, name, "ms")
            .judge(median, Bound::AtMost, must_and_aim)
            .peer("p99", p99)
            .peer("upstream", their_median)
            .peer("upstream p99", their_p99)
    };
    let mib = |plugin: &Plugin| plugin.peak_kib as f64 / 1024.0;
    let add = of("C1", "ADD", [&mut ours.add_ms, &mut upstream.add_ms], [1.6, 1.2]);
    let del = of("C2", "DEL", [&mut ours.del_ms, &mut upstream.del_ms], [25.0, 10.0]);
    let memory = Figure::new("C3", "peak resident memory of an ADD", "MiB");
    let memory = memory.judge(mib(ours), Bound::AtMost, [4.0, 3.0]).peer("upstream", mib(upstream));
    vec![add, del, memory]
}
