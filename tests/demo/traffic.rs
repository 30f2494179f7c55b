// SPDX-License-Identifier: Apache-2.0
//! iperf3 between two network namespaces, measured at the receiver: wire rate
//! in each second against the limit.

use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use anyhow::{Result, bail};
use serde::{Deserialize, Serialize};
use tests::meter::{in_netns, measure_seconds};
use tests::node::die_with_parent;

/// Seconds of each transfer.
const SECONDS: usize = 6;

/// One end of a transfer.
#[derive(Clone, Debug)]
pub struct End {
    pub netns: PathBuf,
    pub address: Ipv4Addr,
}

/// One line of the report.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Measurement {
    pub pod: String,
    pub direction: String,
    pub protocol: String,
    pub limit_bps: u64,
    /// bit/s of L2 frames in each second, from the first byte on.
    pub seconds: Vec<u64>,
    pub mode: String,
    pub kernel: String,
}

/// What is to be transferred, and the limit that is to show.
pub struct Plan<'a> {
    pub pod: &'a str,
    pub direction: &'a str,
    pub from: &'a End,
    pub to: &'a End,
    pub limit_bps: u64,
    pub mode: &'a str,
}

pub fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}

pub fn print_head() {
    println!(
        "\n{:<12} {:<20} {:>12}  Mbit/s in each second (wire, at the receiver)",
        "POD", "DIRECTION", "LIMIT"
    );
}

/// Transfers by TCP, prints the line, gives it back.
pub fn transfer(plan: &Plan) -> Measurement {
    let measurement = Measurement {
        pod: plan.pod.into(),
        direction: plan.direction.into(),
        protocol: "tcp".into(),
        limit_bps: plan.limit_bps,
        seconds: iperf3(plan.from, plan.to),
        mode: plan.mode.into(),
        kernel: kernel(),
    };
    let rates: Vec<String> = measurement.seconds.iter().map(|rate| mbit(*rate)).collect();
    println!(
        "{:<12} {:<20} {:>12}  {}  {}",
        plan.pod,
        plan.direction,
        mbit(plan.limit_bps),
        rates.join(" "),
        plan.mode
    );
    measurement
}

fn mbit(bits_per_sec: u64) -> String {
    format!("{:.2}", bits_per_sec as f64 / 1e6)
}

/// Server and meter in the receiver's namespace, client in the sender's.
fn iperf3(from: &End, to: &End) -> Vec<u64> {
    let address = to.address.to_string();
    let time = (SECONDS + 2).to_string();
    thread::scope(|scope| {
        let (listening, is_listening) = mpsc::channel();
        let server = in_netns(scope, &to.netns, move || {
            let mut command = Command::new("iperf3");
            command.args(["--server", "--one-off"]).stdout(Stdio::null());
            die_with_parent(&mut command);
            let mut child = command.spawn().expect("start iperf3");
            tests::command::wait_for("iperf3 to listen", Duration::from_secs(20), listens);
            listening.send(()).expect("the main thread waits");
            child.wait()
        });
        is_listening.recv().expect("the server starts");
        let meter = in_netns(scope, &to.netns, || measure_seconds(SECONDS));
        let client = in_netns(scope, &from.netns, move || {
            let mut command = Command::new("iperf3");
            command.args(["--client", &address, "--time", &time]).stdout(Stdio::null());
            die_with_parent(&mut command);
            command.status()
        });
        let rates = meter.join().expect("the meter");
        let client = client.join().expect("the client").expect("run iperf3");
        assert!(client.success(), "the iperf3 client: {client}");
        server.join().expect("the server").expect("wait for iperf3");
        rates
    })
}

/// Port 5201 in state LISTEN (0A), in this thread's namespace.
fn listens() -> Option<()> {
    let table = |name| std::fs::read_to_string(format!("/proc/thread-self/net/{name}"));
    let has = |text: String| text.lines().any(|l| l.contains(":1451 ") && l.contains(" 0A "));
    [table("tcp"), table("tcp6")].into_iter().flatten().any(has).then_some(())
}

impl Measurement {
    /// Paced: no second above 1.05 × the limit, every one after the first within 2 %. Policed: the
    /// mean is not above. Says what does not hold.
    pub fn check(all: &[Self]) -> Result<()> {
        let wrong: Vec<String> = all.iter().filter(|m| !m.holds()).map(Self::to_line).collect();
        if wrong.is_empty() {
            println!("every limit held");
            return Ok(());
        }
        bail!("limits that did not hold:\n{}", wrong.join("\n"))
    }

    fn holds(&self) -> bool {
        let limit = self.limit_bps;
        if self.mode == "policed" {
            let mean = self.seconds.iter().sum::<u64>() / self.seconds.len() as u64;
            return mean <= limit * 105 / 100;
        }
        let never_above = self.seconds.iter().all(|rate| *rate <= limit * 105 / 100);
        let steady = self.seconds.iter().skip(1).all(|rate| rate.abs_diff(limit) <= limit / 50);
        never_above && steady
    }

    fn to_line(&self) -> String {
        let (pod, direction, limit) = (&self.pod, &self.direction, self.limit_bps);
        format!("{pod} {direction} on {}: limit {limit}, seconds {:?}", self.kernel, self.seconds)
    }
}
