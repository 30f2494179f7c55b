// SPDX-License-Identifier: Apache-2.0
//! N1 to N6: the agent on a node with 500 pods. It adopts them all from the
//! runtime's result cache, is started again over them, and then has nothing to
//! do; what it says to the service manager tells when it is ready.

use std::fs;
use std::os::unix::net::UnixDatagram;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use tests::cni::{Annotations, Call};
use tests::command::{executable, json as parse, run, wait_for};
use tests::node::{Node, USER_DATA, with_node};

use crate::figure::{Bound, Figure};

const PODS: usize = 500;
const NOTIFY_SOCKET: &str = "/run/notify";
const IDLE: Duration = Duration::from_secs(20);
const ADDS: usize = 40;
/// As many as are attached while ADDs are timed.
const ATTACHED: usize = 250;

/// Everything here, on a node of its own.
pub fn measure() -> Result<Vec<Figure>> {
    let mut figures = Ok(Vec::new());
    with_node(|node| {
        node.boot_with("default-egress = \"100Mbit\"\ndefault-ingress = \"100Mbit\"");
        figures = on(node);
    });
    figures
}

fn on(node: &Node) -> Result<Vec<Figure>> {
    let mut figures = add_latency(node)?;
    make_pods(ATTACHED..PODS)?;
    let (mut agent, ready) = start(true)?;
    let adopting = Figure::new("N1", format!("start to READY, {PODS} pods to adopt"), "ms");
    let adopting = adopting.peer("processor time", run_ns(agent.id())? as f64 / 1e6);
    figures.push(adopting.judge(ready, Bound::AtMost, [2000.0, 500.0]));
    wait_for("the guards", Duration::from_secs(120), || (pending() == 0).then_some(()));
    stop(&mut agent)?;
    let (mut agent, ready) = start(true)?;
    let again = Figure::new("N2", format!("start to READY, {PODS} pods that have limits"), "ms");
    let again = again.peer("processor time", run_ns(agent.id())? as f64 / 1e6);
    figures.push(again.judge(ready, Bound::AtMost, [300.0, 100.0]));
    figures.extend(idle(&agent)?);
    stop(&mut agent)?;
    Ok(figures)
}

/// Pods as devices and files in the result cache, without an ADD.
fn make_pods(numbers: std::ops::Range<usize>) -> Result<()> {
    let mut batch = String::new();
    for n in numbers.clone() {
        batch += &format!(
            "netns add p{n}\nlink add eni{n} type veth peer name eth0 netns p{n}\nlink set eni{n} up\n"
        );
    }
    fs::write("/run/pods.batch", batch)?;
    run("ip", &["-batch", "/run/pods.batch"]);
    let dir = "/var/lib/cni/results";
    fs::create_dir_all(dir)?;
    for n in numbers {
        let info = json!({
            "kind": "cniCacheV1", "containerId": format!("c{n}"), "ifName": "eth0",
            "networkName": "main", "config": "",
            "cniArgs": [["K8S_POD_NAME", format!("p{n}")], ["K8S_POD_NAMESPACE", "default"]],
            "result": {"interfaces": [{"name": "eth0", "sandbox": format!("/run/netns/p{n}")}]},
        });
        fs::write(format!("{dir}/main-c{n}-eth0"), info.to_string())?;
    }
    Ok(())
}

/// The agent, and after how many milliseconds it said READY.
fn start(wait: bool) -> Result<(Child, f64)> {
    // There is none before the first start.
    let _ = fs::remove_file(NOTIFY_SOCKET);
    let socket = UnixDatagram::bind(NOTIFY_SOCKET).context("bind the service manager's socket")?;
    socket.set_read_timeout(Some(Duration::from_secs(60)))?;
    let mut command = Command::new(executable("sluice"));
    command.args(["agent", "--user-data", USER_DATA, "--plugin"]).arg(executable("sluice-cni"));
    command.env("NOTIFY_SOCKET", NOTIFY_SOCKET).stderr(Stdio::null());
    tests::node::die_with_parent(&mut command);
    let began = Instant::now();
    let agent = command.spawn()?;
    let mut buffer = [0; 4096];
    let mut ready = !wait;
    while !ready {
        let length = socket.recv(&mut buffer).context("hear of READY")?;
        ready = String::from_utf8_lossy(&buffer[..length]).lines().any(|line| line == "READY=1");
    }
    Ok((agent, began.elapsed().as_secs_f64() * 1000.0))
}

fn stop(agent: &mut Child) -> Result<()> {
    kill(Pid::from_raw(agent.id() as i32), Signal::SIGTERM)?;
    agent.wait()?;
    Ok(())
}

/// Pods that lack a guard as yet: the one on the host's end, or the one in the pod, which comes after.
fn pending() -> usize {
    let text = run(executable("sluice").to_str().unwrap_or_default(), &["pods", "--json"]);
    let status = parse(&text);
    let lacks = |pod: &&Value| {
        let states = [&pod["guard"]["state"], &pod["bypassed"]["guard"]];
        states.into_iter().any(|state| state == "pending")
    };
    status["pods"].as_array().map_or(0, |pods| pods.iter().filter(lacks).count())
}

fn idle(agent: &Child) -> Result<Vec<Figure>> {
    let pid = agent.id();
    wait_for("the guards", Duration::from_secs(120), || (pending() == 0).then_some(()));
    let (wakes, ns) = (wake_ups(pid)?, run_ns(pid)?);
    let began = Instant::now();
    while began.elapsed() < IDLE {
        std::thread::sleep(IDLE - began.elapsed());
    }
    let seconds = began.elapsed().as_secs_f64();
    let wakes = (wake_ups(pid)? - wakes) as f64 / seconds;
    let percent = (run_ns(pid)? - ns) as f64 / 1e7 / seconds;
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let kib = |key: &str| -> f64 {
        let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).unwrap_or(f64::NAN)
    };
    let rss = Figure::new("N3", format!("resident memory of the agent, {PODS} pods"), "MiB");
    let rss = rss.judge(kib("VmRSS") / 1024.0, Bound::AtMost, [16.0, 8.0]);
    Ok(vec![
        rss.peer("peak", kib("VmHWM") / 1024.0).peer("anonymous", kib("RssAnon") / 1024.0),
        Figure::new("N4", format!("wake-ups of the idle agent, {PODS} pods"), "per s").judge(
            wakes,
            Bound::AtMost,
            [1.0, 1.0],
        ),
        Figure::new("N5", format!("processor time of the idle agent, {PODS} pods"), "%").judge(
            percent,
            Bound::AtMost,
            [0.1, 0.1],
        ),
    ])
}

fn wake_ups(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("voluntary_ctxt_switches"));
    let count = line.and_then(|line| line.split_whitespace().nth(1)).context("a count")?;
    Ok(count.parse()?)
}

/// Time of its main thread on a processor (Documentation/scheduler/sched-stats.rst, schedstat).
fn run_ns(pid: u32) -> Result<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    Ok(text.split_whitespace().next().context("a time")?.parse()?)
}

/// ADDs while nothing else goes on, and while the agent adopts 250 pods and attaches their guards.
fn add_latency(node: &Node) -> Result<Vec<Figure>> {
    let pod = node.pod("timed", 200);
    let (mut agent, _) = start(true)?;
    let alone = worst_add(node, &pod)?;
    stop(&mut agent)?;
    make_pods(0..ATTACHED)?;
    let (mut agent, _) = start(false)?;
    let beside = worst_add(node, &pod)?;
    wait_for("the guards", Duration::from_secs(120), || (pending() == 0).then_some(()));
    stop(&mut agent)?;
    let name = format!("what attaching {ATTACHED} pods adds to the worst of {ADDS} ADDs");
    let figure = Figure::new("N6", name, "ms").judge(beside - alone, Bound::AtMost, [50.0, 20.0]);
    Ok(vec![figure.peer("alone", alone).peer("beside", beside)])
}

/// Milliseconds.
fn worst_add(node: &Node, pod: &tests::node::Pod) -> Result<f64> {
    let mut worst = 0f64;
    for _ in 0..ADDS {
        let both = Annotations { egress: 10_000_000, ingress: 10_000_000 };
        let call = Call::new("ADD", pod, both);
        let began = Instant::now();
        let output = call.run(pod);
        let took = began.elapsed().as_secs_f64() * 1000.0;
        anyhow::ensure!(output.status.success(), "ADD: {}", tests::command::text(&output));
        worst = worst.max(took);
        node.del(pod);
    }
    Ok(worst)
}
