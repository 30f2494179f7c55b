// SPDX-License-Identifier: Apache-2.0
//! P1: what the programs cost for each packet, by BPF_PROG_TEST_RUN on this
//! machine, net of a program that does nothing. A test run has no classid, so
//! slot 0 gets the limit that the plugin wrote for a pod.

use std::fs;

use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{json, run};
use tests::node::{Node, PIN_DIR, with_node};

use crate::figure::{Bound, Figure};
use crate::frames::{self, Frame};
use crate::packets::UNREACHABLE_BPS;
use crate::setups::{PEERS, limit_edt, load_peers};

const ROUNDS: usize = 11;
const REPEAT: &str = "1000000";
/// In struct sluice_line: PACED is 0.
const MODE: usize = 40;

/// Nanoseconds of one program with one kind of packet.
struct Case {
    program: String,
    frame: Frame,
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

fn measure_cases() -> Vec<Case> {
    let mut cases = vec![Case::new(format!("{PEERS}/empty"), Frame::Udp)];
    for program in ["shape_egress", "shape_ingress", "guard"] {
        let path = format!("{PIN_DIR}/{program}");
        if fs::exists(&path).unwrap_or(false) {
            cases.extend([Frame::Tcp, Frame::Udp].map(|frame| Case::new(path.clone(), frame)));
        }
    }
    cases.push(Case::new(format!("{PEERS}/edt"), Frame::Udp));
    for _ in 0..ROUNDS {
        cases.iter_mut().for_each(Case::run_once);
    }
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
        Self { program, frame, times_ns: Vec::new() }
    }

    fn name(&self) -> String {
        let program = self.program.rsplit('/').next().unwrap_or_default();
        format!("{program}, {}", self.frame.name())
    }

    fn run_once(&mut self) {
        let input = self.frame.path();
        let text = run(
            "bpftool",
            &["-j", "prog", "run", "pinned", &self.program, "data_in", input, "repeat", REPEAT],
        );
        let answer = json(&text);
        assert_eq!(answer["retval"].as_u64(), Some(u32::MAX.into()), "TC_ACT_UNSPEC: {text}");
        self.times_ns.push(answer["duration"].as_f64().expect("a duration"));
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
    let key = words(&(index as u32).to_ne_bytes());
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
