// SPDX-License-Identifier: Apache-2.0
//! P1: what the programs cost for each packet, by BPF_PROG_TEST_RUN on this
//! machine, net of a program that does nothing. A test run has no classid, so
//! slot 0 gets the limit that the plugin wrote for a pod. F6: the same pod before and
//! after it takes part in a node share, in turn.

use std::time::Duration;
use std::{fs, thread};

use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{json, run, wait_for};
use tests::node::{Node, PIN_DIR, with_node};
use tests::pinned_map;

use crate::figure::{Bound, Figure};
use crate::frames::{self, Frame};
use crate::packets::UNREACHABLE_BPS;
use crate::setups::{PEERS, limit_edt, load_peers};

const ROUNDS: usize = 11;
const REPEAT: &str = "1000000";
/// In struct sluice_line: PACED is 0.
const MODE: usize = 40;
/// Where the node's own lines begin in the map, and in each what changes with uplinks and routes.
const NODE: usize = 2 * 1024;
const PATHS: usize = 312;
/// Its word `clock.next_ns`.
const CLOCK: usize = 8;

/// A packet of a test run comes from no device: that becomes an uplink.
const NO_DEVICE: usize = 0;
const ROUTES: [usize; 3] = [0, 10, 1000];
const PROCESSORS: usize = 2;

/// Nanoseconds of one program with one kind of packet.
struct Case {
    program: String,
    frame: Frame,
    /// What slot 0 holds meanwhile in this direction, where it is not always the same.
    line: Option<(usize, Vec<u8>)>,
    /// That run it at once.
    processors: usize,
    times_ns: Vec<f64>,
}

pub fn measure() -> Figure {
    let mut figure = None;
    with_node(|node| {
        node.boot_with("");
        node.start_agent();
        load_peers();
        limit_edt(UNREACHABLE_BPS);
        limit_slot_0(node);
        figure = Some(judge(&measure_cases()));
    });
    figure.expect("the node ran")
}

/// What a packet costs more while its pod takes part in a node share that nobody fills.
pub fn measure_node_share() -> Vec<Figure> {
    let mut figures = Vec::new();
    with_node(|node| {
        node.boot_with("");
        node.start_agent();
        limit_slot_0(node);
        let off = paced_lines();
        node.boot_with("node-share = true\nnode-egress = '900Gbit'\nnode-ingress = '900Gbit'\n");
        wait_for("the pod's weight", Duration::from_secs(20), || {
            (used_values("uplinks").len() + used_values("routes").len() > 0
                && paced_lines().iter().zip(&off).all(|(on, off)| on != off))
            .then_some(())
        });
        let on = paced_lines();
        set("uplinks", NO_DEVICE, "value 1 0 0 0");
        let mut costs = Vec::new();
        for routes in ROUTES {
            add_routes(routes);
            forget_paths();
            let of = |(name, ns)| (format!("{name}, {routes} routes"), ns);
            costs.extend(costs_of_share(&off, &on, 1).into_iter().map(of));
        }
        let one = judge_costs("F6", "node share: what a packet costs more", [25.0, 15.0], costs);
        let costs = costs_of_share(&off, &on, PROCESSORS);
        let what = "the same where two processors send for one pod";
        figures = vec![one, judge_costs("F6-processors", what, [40.0, 25.0], costs)];
    });
    figures
}

/// By program, both with and without, in turn.
fn costs_of_share(off: &[Vec<u8>], on: &[Vec<u8>], processors: usize) -> Vec<(String, f64)> {
    let mut cases = Vec::new();
    for (direction, program) in ["shape_egress", "shape_ingress"].into_iter().enumerate() {
        for line in [&off[direction], &on[direction]] {
            let line = Some((direction, line.clone()));
            let case = Case::new(format!("{PIN_DIR}/{program}"), Frame::Tcp);
            cases.push(Case { line, processors, ..case });
        }
    }
    let free = node_clocks();
    run_in_turn(&mut cases);
    let charged = node_clocks().iter().zip(&free).all(|(after, before)| after > before);
    assert!(charged, "by the node's line, both ways");
    let more = |pair: &[Case]| pair[1].median() - pair[0].median();
    cases.chunks(2).map(|pair| (pair[0].name(), more(pair))).collect()
}

fn judge_costs(
    id: &'static str,
    name: &'static str,
    bounds: [f64; 2],
    costs: Vec<(String, f64)>,
) -> Figure {
    let worst = costs.iter().max_by(|a, b| a.1.total_cmp(&b.1)).cloned().expect("a cost");
    let judged = Figure::new(id, name, "ns").judge(worst.1, Bound::AtMost, bounds).detail(worst.0);
    costs.into_iter().fold(judged, |figure, (name, ns)| figure.peer(name, ns))
}

/// Of the one pod, behind its copies in slot 0.
fn paced_lines() -> Vec<Vec<u8>> {
    let mut lines = used_values("lines");
    lines = lines.drain(2..4).collect();
    lines.iter_mut().for_each(|line| line[MODE] = 0);
    lines
}

/// Pods of the node beside what the agent has found.
fn add_routes(count: usize) {
    for number in 0..count as u32 {
        let address = 0x0a02_0000 + number;
        let bytes = [&128u32.to_ne_bytes()[..], &[0; 10], &[0xff; 2], &address.to_be_bytes()];
        set_at("routes", &bytes.concat(), "value 1 0 0 0");
    }
}

/// When the node's own lines are free.
fn node_clocks() -> [u64; 2] {
    [0, 1].map(|direction| {
        pinned_map::words(format!("{PIN_DIR}/lines").as_ref(), NODE + direction, CLOCK + 1)[CLOCK]
    })
}

/// What was looked up before the maps were written here.
fn forget_paths() {
    let lines = used_values("lines");
    for (direction, mut line) in lines.into_iter().rev().take(2).rev().enumerate() {
        line[PATHS] += 1;
        set("lines", NODE + direction, &format!("value {}", words(&line)));
    }
}

fn run_in_turn(cases: &mut [Case]) {
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(Case::run_once);
    }
}

fn measure_cases() -> Vec<Case> {
    let mut cases = vec![Case::new(format!("{PEERS}/empty"), Frame::Udp)];
    for program in ["shape_egress", "shape_ingress", "guard"] {
        let path = format!("{PIN_DIR}/{program}");
        if fs::exists(&path).unwrap_or(false) {
            cases.extend([Frame::Tcp, Frame::Udp].map(|frame| Case::new(path.clone(), frame)));
        }
    }
    cases.push(Case::new(format!("{PEERS}/edt"), Frame::Udp));
    run_in_turn(&mut cases);
    cases
}

fn judge(cases: &[Case]) -> Figure {
    let empty = cases[0].median();
    let own = cases.iter().filter(|case| case.name().starts_with("shape_"));
    let worst = own.max_by(|a, b| a.median().total_cmp(&b.median())).expect("a program");
    let figure = Figure::new("P1", "program cost for each packet, net, the slowest", "ns");
    let figure = figure.judge(worst.median() - empty, Bound::AtMost, [50.0, 40.0]);
    cases.iter().fold(figure.detail(worst.name()), |figure, case| {
        let net = if case.program.ends_with("/empty") { 0.0 } else { empty };
        figure.peer(case.name(), case.median() - net)
    })
}

impl Case {
    fn new(program: String, frame: Frame) -> Self {
        frames::write(frame);
        Self { program, frame, line: None, processors: 1, times_ns: Vec::new() }
    }

    fn name(&self) -> String {
        let program = self.program.rsplit('/').next().unwrap_or_default();
        format!("{program}, {}", self.frame.name())
    }

    fn run_once(&mut self) {
        if let Some((direction, line)) = &self.line {
            set("lines", *direction, &format!("value {}", words(line)));
        }
        let input = self.frame.path();
        let run_it = || {
            let text = run(
                "bpftool",
                &["-j", "prog", "run", "pinned", &self.program, "data_in", input, "repeat", REPEAT],
            );
            let answer = json(&text);
            assert_eq!(answer["retval"].as_u64(), Some(u32::MAX.into()), "TC_ACT_UNSPEC: {text}");
            answer["duration"].as_f64().expect("a duration")
        };
        let times_ns = thread::scope(|scope| {
            let runs: Vec<_> = (0..self.processors).map(|_| scope.spawn(run_it)).collect();
            runs.into_iter().map(|run| run.join().expect("a run")).collect::<Vec<_>>()
        });
        self.times_ns.push(times_ns.iter().sum::<f64>() / times_ns.len() as f64);
    }

    fn median(&self) -> f64 {
        let mut times = self.times_ns.clone();
        times.sort_by(f64::total_cmp);
        times[times.len() / 2]
    }
}

/// Copies a pod's lines to slot 0, and makes them paced: this kernel may have no fq. A pod's
/// entries follow each other as those of slot 0 do. The pod's tables of flows serve both.
fn limit_slot_0(node: &Node) {
    let pod = node.pod("cost", 77);
    let rate = UNREACHABLE_BPS;
    node.add(&pod, Annotations { egress: rate, ingress: rate });
    for (direction, mut line) in used_values("lines").into_iter().enumerate() {
        line[MODE] = 0;
        set("lines", direction, &format!("value {}", words(&line)));
    }
    for (direction, id) in used_values("flows").into_iter().enumerate() {
        let id = u32::from_ne_bytes(id.try_into().expect("the number of a map"));
        set("flows", direction, &format!("value id {id}"));
    }
}

/// What is not zero in a pinned array, in its order; nothing where there is no such map.
fn used_values(map: &str) -> Vec<Vec<u8>> {
    let path = format!("{PIN_DIR}/{map}");
    if !fs::exists(&path).unwrap_or(false) {
        return Vec::new();
    }
    let entries = json(&run("bpftool", &["-j", "map", "dump", "pinned", &path]));
    let values = entries.as_array().expect("entries").iter().map(|entry| bytes(&entry["value"]));
    values.filter(|value| value.iter().any(|byte| *byte != 0)).collect()
}

fn set(map: &str, index: usize, value: &str) {
    set_at(map, &(index as u32).to_ne_bytes(), value);
}

fn set_at(map: &str, key: &[u8], value: &str) {
    let key = words(key);
    let line = format!("map update pinned {PIN_DIR}/{map} key {key} {value}");
    run("bpftool", &line.split_whitespace().collect::<Vec<_>>());
}

fn words(bytes: &[u8]) -> String {
    bytes.iter().map(u8::to_string).collect::<Vec<_>>().join(" ")
}

/// bpftool's hexadecimal; an array of maps has an error in place of a map that is not there.
fn bytes(list: &Value) -> Vec<u8> {
    let byte = |text: &Value| {
        let digits = text.as_str().expect("a byte").trim_start_matches("0x");
        u8::from_str_radix(digits, 16).expect("hexadecimal")
    };
    list.as_array().into_iter().flatten().map(byte).collect()
}
