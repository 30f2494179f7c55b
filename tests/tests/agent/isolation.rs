// SPDX-License-Identifier: Apache-2.0
//! What a pod does in its own network namespace costs the node little: the agent
//! neither grows nor works with the number of a pod's devices, qdiscs, filters and
//! events, and the other pods keep what they have.

use std::fs;
use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{has_looked, json as parse, tc, text, wait_for};
use tests::kernel::in_guest;
use tests::meter::{Protocol, Transfer};
use tests::node::{Node, Pod, die_with_parent, with_ready_node};

const LIMIT: u64 = 20_000_000;
const BOTH: Annotations = Annotations { egress: LIMIT, ingress: LIMIT };
const MIB: u64 = 1 << 20;
/// As on a node with many pods: of each the agent needs a few numbers.
const DEVICES: usize = 400;
/// Whatever a pod does; a whole pass because of lost events is at most this late, with some room for
/// a busy or emulated machine.
const AT_LAST: Duration = Duration::from_secs(40);

/// Lines for `ip` or `tc` to run in the pod, all in one process.
fn batch(pod: &Pod, program: &str, lines: impl Iterator<Item = String>) -> Child {
    let path = format!("/run/batch-{}-{program}", pod.name);
    let mut file = fs::File::create(&path).expect("create a batch");
    lines.for_each(|line| writeln!(file, "{line}").expect("write a batch"));
    let mut command = Command::new("ip");
    command.args(["netns", "exec", &pod.name, program, "-force", "-batch", &path]);
    die_with_parent(&mut command);
    command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("start a batch")
}

fn run(pod: &Pod, program: &str, lines: impl Iterator<Item = String>) {
    batch(pod, program, lines).wait().expect("wait for a batch");
}

/// Peak of the agent's memory, in bytes.
fn peak(node: &Node) -> u64 {
    let status = format!("/proc/{}/status", node.agent_pid());
    let status = fs::read_to_string(status).expect("the agent lives");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a peak");
    line.trim().trim_end_matches(" kB").parse::<u64>().expect("a number") << 10
}

/// Seconds of a processor that the agent has used.
fn used(node: &Node) -> f64 {
    let stat = fs::read_to_string(format!("/proc/{}/stat", node.agent_pid())).expect("its times");
    let fields = stat.rsplit(") ").next().expect("fields").split(' ');
    let ticks: Vec<f64> = fields.skip(11).take(2).map(|n| n.parse().expect("ticks")).collect();
    ticks.iter().sum::<f64>() / 100.0
}

fn report(node: &Node, key: &str) -> u64 {
    let output = node.sluice(&["status", "--json", "--interval", "1"]);
    assert!(has_looked(&output), "{}", text(&output));
    let status = parse(&String::from_utf8_lossy(&output.stdout));
    status["agent"]["report"][key].as_u64().unwrap_or_else(|| panic!("no {key} in {status}"))
}

/// A whole pass that begins after this call.
fn pass(node: &Node) {
    let before = report(node, "passes");
    node.signal_agent(nix::sys::signal::Signal::SIGHUP);
    wait_for("a pass", AT_LAST, || (report(node, "passes") > before).then_some(()));
}

fn has_filter(pod: &Pod) -> bool {
    pod.run("tc filter show dev eth0 parent 51ce:").contains("sluice_egress")
}

fn comes_back(pod: &Pod) {
    pod.run("tc qdisc del dev eth0 root");
    wait_for("the pod's shaper", AT_LAST, || has_filter(pod).then_some(()));
    tc(&format!("qdisc del dev {} root", pod.host_ifname));
    let line = format!("filter show dev {} parent 51ce:", pod.host_ifname);
    wait_for("the host's shaper", AT_LAST, || tc(&line).contains("sluice_ingress").then_some(()));
}

#[test]
fn devices_of_a_pod_cost_the_agent_no_memory_and_the_pod_keeps_its_limits() {
    with_ready_node("", |node| {
        let (pod, other) = (node.pod("a", 2), node.pod("b", 3));
        node.add(&pod, BOTH);
        node.guard(&pod);
        pass(node);
        let (before, pid) = (peak(node), node.agent_pid());
        let pairs = if in_guest() { 300 } else { 5000 };
        let lines = (0..pairs).map(|n| format!("link add name v{n} type veth peer name w{n}"));
        run(&pod, "ip", lines);
        pass(node);
        comes_back(&pod);
        node.add(&other, BOTH);
        let doctor = node.sluice(&["doctor", "--json"]);
        let findings = parse(&String::from_utf8_lossy(&doctor.stdout));
        assert!(findings["pods"][0]["inside"].is_object(), "{}", text(&doctor));
        let after = peak(node);
        println!("{} KiB before, {} after {pairs} pairs", before >> 10, after >> 10);
        assert!(after - before <= 16 * MIB, "{before} bytes before, {after} after");
        assert_eq!(node.agent_pid(), pid);
    });
}

#[test]
fn devices_of_the_host_cost_the_agent_little_memory() {
    with_ready_node("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        node.guard(&pod);
        pass(node);
        let before = peak(node);
        let mut file = fs::File::create("/run/devices").expect("create a batch");
        for n in 0..DEVICES / 2 {
            writeln!(file, "link add v{n} type veth peer name w{n}").expect("write a batch");
        }
        tests::command::run("ip", &["-batch", "/run/devices"]);
        pass(node);
        let after = peak(node);
        println!("{} KiB before, {} after {DEVICES} devices", before >> 10, after >> 10);
        assert!(after - before <= MIB, "{before} bytes before, {after} after");
    });
}

/// Flaps a device of the pod until it is dropped.
struct Flapping(Child);

impl Flapping {
    fn start(pod: &Pod) -> Self {
        let flap = |n| format!("link set eth0 txqlen {}", 1000 + n % 2);
        Self(batch(pod, "ip", (0..3_000_000).map(flap)))
    }
}

impl Drop for Flapping {
    fn drop(&mut self) {
        self.0.kill().expect("end the flapping");
        self.0.wait().expect("wait for its end");
    }
}

#[test]
fn pod_that_flaps_its_device_costs_little_and_the_others_are_served() {
    with_ready_node("", |node| {
        let (pod, other, late) = (node.pod("a", 2), node.pod("b", 3), node.pod("c", 4));
        node.add(&pod, BOTH);
        node.add(&other, BOTH);
        node.guard(&other);
        let flapping = Flapping::start(&pod);
        wait_for("looks that are put off", AT_LAST, || {
            (report(node, "deferred") > 0).then_some(())
        });
        let (began, passes, work) = (Instant::now(), report(node, "passes"), used(node));
        node.add(&late, BOTH);
        node.guard(&late);
        comes_back(&other);
        comes_back(&pod);
        let deferred = report(node, "deferred");
        wait_for("more of them", AT_LAST, || {
            (report(node, "deferred") > deferred + 2).then_some(())
        });
        let took = began.elapsed();
        let (passes, work) = (report(node, "passes") - passes, used(node) - work);
        let load = work / took.as_secs_f64();
        println!("{passes} passes in {took:?}, {load:.3} of a processor");
        assert!(passes <= 1 + took.as_secs() / 10, "{passes} passes in {took:?}");
        // In a guest time is counted in its own instructions, and a debug build has many.
        assert!(in_guest() || load < 0.25, "{load} of a processor");
        drop(flapping);
        comes_back(&pod);
    });
}

#[test]
fn pod_with_many_qdiscs_classes_and_filters_is_shaped_and_told_of_rightly() {
    with_ready_node("", |node| {
        let (pod, remote) = (node.pod("a", 2), node.pod("remote", 9));
        node.add(&pod, BOTH);
        node.guard(&pod);
        let mode = node.status(&pod)["egress"]["mode"].clone();
        let before = peak(node);
        pod.run("ip link add name v type veth peer name w");
        pod.run("tc qdisc add dev v root handle 7: htb");
        let many = if in_guest() { 1100 } else { 3000 };
        let class = |n| format!("class add dev v parent 7: classid 7:{n:x} htb rate 1gbit");
        let leaf = |n| format!("qdisc add dev v parent 7:{n:x} pfifo");
        let _ = pod.run("tc qdisc replace dev eth0 clsact");
        let filter = |side| {
            move |n| {
                format!(
                    "filter add dev eth0 {side} prio {n} protocol ip u32 \
                     match ip dst 192.0.2.{}/32 flowid 1:1",
                    n % 250
                )
            }
        };
        // 64 KiB of other names, the most that the kernel takes, are part of each answer about the device.
        let other_name =
            |n| format!("link property add dev eth0 altname x{n:04}{}", "y".repeat(118));
        run(&pod, "ip", (0..600).map(other_name));
        run(&pod, "tc", (1..many).map(class).chain((1..many / 4).map(leaf)));
        run(&pod, "tc", (2..many).map(filter("ingress")).chain((2..many).map(filter("egress"))));
        pass(node);
        let status = node.status(&pod);
        assert_eq!(status["egress"]["mode"], mode, "{status}");
        assert_eq!(status["egress"]["limit_bps"], LIMIT, "{status}");
        comes_back(&pod);
        let doctor = node.sluice(&["doctor", "--json"]);
        let findings = parse(&String::from_utf8_lossy(&doctor.stdout));
        let codes: Vec<&Value> =
            findings["findings"].as_array().expect("findings").iter().map(|f| &f["code"]).collect();
        assert!(codes.iter().any(|code| *code == "too-many-filters"), "{codes:?}");
        assert!(!codes.iter().any(|code| *code == "filter-missing"), "{codes:?}");
        let after = peak(node);
        assert!(after - before <= 16 * MIB, "{before} bytes before, {after} after");
        let (from, to) = (pod.netns(), remote.netns());
        let protocol = Protocol::Udp(2 * LIMIT);
        let transfer = Transfer { from: &from, to: &to, address: remote.address, protocol };
        let rates = transfer.seconds(2);
        assert!(rates[1] <= LIMIT + LIMIT / 50, "{rates:?}");
    });
}
