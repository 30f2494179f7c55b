// SPDX-License-Identifier: Apache-2.0
//! `sluice status`: what holds for each pod, read from the records and the
//! pinned maps. Rates are measured over an interval by reading counters twice.

use std::fmt::Write;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use bpf::{Counters, Direction, Pins};
use serde::Serialize;
use settings_model::Rate;

use crate::attach::Veth;
use crate::boot::InForce;
use crate::limit::Origin;
use crate::paths::Paths;
use crate::record::{Claim, Guard, Mode, Record, Records, Shaping};

#[derive(Debug, Serialize)]
pub struct Status {
    /// None on a node where `sluice boot` has not run.
    pub settings: Option<InForce>,
    pub pods: Vec<Pod>,
}

#[derive(Debug, Serialize)]
pub struct Pod {
    pub namespace: String,
    pub pod: String,
    pub interface: String,
    /// None as long as nothing was ever attached.
    pub host_interface: Option<String>,
    pub slot: u16,
    pub egress: Line,
    pub ingress: Line,
    /// None without a limit on egress.
    pub guard: Option<GuardLine>,
}

/// One direction of one pod. Rates are bit/s of L2 frames; packets are counted since ADD.
#[derive(Debug, Serialize)]
pub struct Line {
    pub limit_bps: Option<u64>,
    pub origin: Option<Origin>,
    pub measured_bps: u64,
    pub sent_packets: u64,
    pub dropped_packets: u64,
    /// Of the dropped ones: those that a queue above the latency target cost.
    pub aqm_dropped_packets: u64,
    pub marked_packets: u64,
    /// Mean time for which a packet of the interval was held back; None if there was none.
    pub mean_wait_ns: Option<u64>,
    /// `paced`, `policed` or `guarded`.
    pub mode: Option<&'static str>,
    /// Why the mode is what it is, or what is wrong.
    pub reason: String,
}

/// What the host's end says of what the pod sends.
#[derive(Debug, Serialize)]
pub struct GuardLine {
    /// `tcx`, `clsact`, `pending` or `off`.
    pub state: &'static str,
    pub reason: String,
    pub measured_bps: u64,
    pub passed_packets: u64,
    pub dropped_packets: u64,
}

struct Sample {
    claim: Claim,
    record: Record,
    counters: [Counters; 3],
    at: Instant,
}

/// Counters of one direction at both ends of the interval.
struct Interval {
    before: Counters,
    after: Counters,
    elapsed: Duration,
}

/// Reads everything, waits for `interval`, and reads the counters again.
pub fn status(paths: &Paths, interval: Duration) -> Result<Status> {
    let settings = InForce::read(&paths.boot_file())?;
    let records = read_records(paths)?;
    let pins = match records.iter().all(|(_, record)| record.is_unlimited()) {
        true => None,
        false => Some(Pins::open(&paths.pin_dir()).context("read the state of the shaper")?),
    };
    let sample = |(claim, record): (Claim, Record)| -> Result<Sample> {
        let counters = read_counters(pins.as_ref(), &claim)?;
        Ok(Sample { counters, record, claim, at: Instant::now() })
    };
    let first = records.into_iter().map(sample).collect::<Result<Vec<_>>>()?;
    if !first.is_empty() {
        thread::sleep(interval);
    }
    let pods = first.iter().map(|before| pod(before, pins.as_ref())).collect::<Result<_>>()?;
    Ok(Status { settings, pods })
}

fn read_records(paths: &Paths) -> Result<Vec<(Claim, Record)>> {
    let claims = Records::new(paths.pods_dir()).list()?;
    claims.into_iter().map(|claim| Ok((claim.clone(), claim.read()?))).collect()
}

fn read_counters(pins: Option<&Pins>, claim: &Claim) -> Result<[Counters; 3]> {
    let Some(pins) = pins else { return Ok(Default::default()) };
    let read = |direction| pins.counters(claim.slot, direction);
    Ok([read(Direction::Egress)?, read(Direction::Ingress)?, read(Direction::Guard)?])
}

fn pod(sample: &Sample, pins: Option<&Pins>) -> Result<Pod> {
    let Sample { claim, record, counters: before, at } = sample;
    let after = read_counters(pins, claim)?;
    let interval = |direction: Direction| {
        let index = direction as usize;
        Interval { before: before[index], after: after[index], elapsed: at.elapsed() }
    };
    let guard = interval(Direction::Guard);
    let [egress_problem, ingress_problem] = problems(claim, record, &guard.after);
    // Where the guard enforces, it also counts.
    let egress = match &record.egress {
        Shaping::Limited { mode: Some(Mode::Guarded(_)), .. } => interval(Direction::Guard),
        _ => interval(Direction::Egress),
    };
    Ok(Pod {
        namespace: record.namespace.clone(),
        pod: record.pod.clone(),
        interface: claim.key.ifname.clone(),
        host_interface: record.host.as_ref().map(|host| host.ifname.clone()),
        slot: claim.slot.number(),
        egress: Line::new(&record.egress, &egress, egress_problem),
        ingress: Line::new(&record.ingress, &interval(Direction::Ingress), ingress_problem),
        guard: record.guard.as_ref().map(|state| GuardLine::new(state, &guard)),
    })
}

/// What keeps each direction from being enforced where it should be; found by looking.
fn problems(claim: &Claim, record: &Record, guard: &Counters) -> [Option<String>; 2] {
    if record.is_unlimited() {
        return [None, None];
    }
    let mut veth = Veth::find(&record.netns, &claim.key.ifname);
    record.ways().map(|(way, shaping)| {
        let mode = match shaping {
            Shaping::Limited { mode: Some(Mode::Paced), .. } => bpf::Mode::Paced,
            Shaping::Limited { mode: Some(Mode::Policed), .. } => bpf::Mode::Policed,
            _ => return None,
        };
        let missing = match &mut veth {
            Ok(veth) => veth.missing(way, mode).unwrap_or_default(),
            Err(_) => Some("the pod's network namespace or interface is gone"),
        };
        let dropped = if way == Direction::Egress { guard.dropped_packets } else { 0 };
        let got_round = (dropped > 0)
            .then(|| format!("the pod gets round its shaper: the guard dropped {dropped} packets"));
        let told: Vec<String> = missing.map(str::to_owned).into_iter().chain(got_round).collect();
        (!told.is_empty()).then(|| told.join("; "))
    })
}

impl Interval {
    fn bits_per_sec(&self) -> u64 {
        let bytes = self.after.sent_bytes.saturating_sub(self.before.sent_bytes);
        (bytes as f64 * 8.0 / self.elapsed.as_secs_f64()) as u64
    }

    fn mean_wait_ns(&self) -> Option<u64> {
        let wait_ns = self.after.sojourn_ns.saturating_sub(self.before.sojourn_ns);
        wait_ns.checked_div(self.after.sent_packets.saturating_sub(self.before.sent_packets))
    }
}

impl Line {
    fn new(shaping: &Shaping, interval: &Interval, problem: Option<String>) -> Self {
        let after = &interval.after;
        let (limit_bps, origin, (mode, reason)) = match shaping {
            Shaping::Unlimited => (None, None, (None, "no limit asked for".into())),
            Shaping::Limited { bits_per_sec, origin, mode, .. } => {
                (Some(*bits_per_sec), Some(*origin), explain(mode.as_ref()))
            }
        };
        Self {
            limit_bps,
            origin,
            measured_bps: interval.bits_per_sec(),
            sent_packets: after.sent_packets,
            dropped_packets: after.dropped_packets,
            aqm_dropped_packets: after.aqm_packets,
            marked_packets: after.marked_packets,
            mean_wait_ns: interval.mean_wait_ns(),
            mode,
            reason: problem.unwrap_or(reason),
        }
    }
}

impl GuardLine {
    fn new(state: &Guard, interval: &Interval) -> Self {
        let (state, reason) = match state {
            Guard::Pending => ("pending", "the agent attaches it, and has not yet".into()),
            Guard::Tcx => ("tcx", "a link at the head of the host's end".into()),
            Guard::Clsact => ("clsact", "a filter in front of network policy's".into()),
            Guard::Off(reason) => ("off", format!("{reason}: guard is off")),
        };
        Self {
            state,
            reason,
            measured_bps: interval.bits_per_sec(),
            passed_packets: interval.after.sent_packets,
            dropped_packets: interval.after.dropped_packets,
        }
    }
}

fn explain(mode: Option<&Mode>) -> (Option<&'static str>, String) {
    match mode {
        Some(Mode::Paced) => (Some("paced"), "fq releases each packet on time".into()),
        Some(Mode::Policed) => {
            (Some("policed"), "degraded: the kernel has no sch_fq, so excess is dropped".into())
        }
        Some(Mode::Guarded(obstacle)) => {
            (Some("guarded"), format!("degraded: {obstacle}, so the guard drops the excess"))
        }
        None => (None, "not enforced: the attachment was never completed".into()),
    }
}

impl Status {
    /// For people: the settings, then a table with one line for each direction.
    pub fn to_text(&self) -> String {
        self.settings_text() + &self.pods_text()
    }

    fn settings_text(&self) -> String {
        let Some(in_force) = &self.settings else {
            return "settings: none; `sluice boot` has not run\n\n".into();
        };
        let mut text = format!("settings: {}\n", in_force.to_text());
        let lines = in_force.problems.iter().chain(&in_force.warnings);
        lines.for_each(|line| text += &format!("  {line}\n"));
        text + "\n"
    }

    fn pods_text(&self) -> String {
        let mut text = format!(
            "{:<32} {:<8} {:>10} {:<15} {:>10} {:>8} {:>7} {:>7} {}\n",
            "POD", "WAY", "LIMIT", "ORIGIN", "MEASURED", "WAIT", "DROPPED", "MARKED", "MODE"
        );
        for pod in &self.pods {
            let name = format!("{}/{}", pod.namespace, pod.pod);
            for (way, line) in [("egress", &pod.egress), ("ingress", &pod.ingress)] {
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "{name:<32} {way:<8} {:>10} {:<15} {:>10} {:>8} {:>7} {:>7} {} ({})",
                    line.limit_bps.map_or("unlimited".into(), short),
                    line.origin.map_or("-".into(), |origin| origin.to_string()),
                    short(line.measured_bps),
                    line.mean_wait_ns.map_or("-".into(), |ns| format!("{}us", ns / 1_000)),
                    line.dropped_packets,
                    line.marked_packets,
                    line.mode.unwrap_or("-"),
                    line.reason,
                );
            }
            if let Some(guard) = &pod.guard {
                let _ = writeln!(
                    text,
                    "{name:<32} {:<8} {:>10} {:<15} {:>10} {:>8} {:>7} {:>7} {} ({})",
                    "guard",
                    "-",
                    "-",
                    short(guard.measured_bps),
                    "-",
                    guard.dropped_packets,
                    "-",
                    guard.state,
                    guard.reason,
                );
            }
        }
        text
    }
}

/// Three digits are enough to compare by eye; `--json` has all of them.
fn short(bits_per_sec: u64) -> String {
    let digits = bits_per_sec.checked_ilog10().unwrap_or(0);
    let step = 10u64.pow(digits.saturating_sub(2));
    let rounded = (bits_per_sec + step / 2) / step * step;
    Rate::from_bits_per_sec(rounded).map_or(format!("{rounded}bit"), |rate| rate.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn measured_rates_are_rounded_to_three_digits() {
        assert_eq!(short(0), "0bit");
        assert_eq!(short(99_987_654), "100Mbit");
        assert_eq!(short(1_234_567), "1230kbit");
    }

    fn half_a_second(after: Counters) -> Interval {
        let before = Counters { sent_packets: 10, sojourn_ns: 5_000, ..Counters::default() };
        Interval { before, after, elapsed: Duration::from_millis(500) }
    }

    #[test]
    fn rate_is_bytes_over_the_interval() {
        let after = Counters { sent_bytes: 1_250_000, ..Counters::default() };
        let line = Line::new(&Shaping::Unlimited, &half_a_second(after), None);
        assert_eq!(line.measured_bps, 20_000_000);
    }

    #[test]
    fn wait_is_the_mean_of_what_was_sent_in_the_interval() {
        let after = Counters { sent_packets: 14, sojourn_ns: 9_000, ..Counters::default() };
        assert_eq!(half_a_second(after).mean_wait_ns(), Some(1_000));
        let idle = Counters { sent_packets: 10, sojourn_ns: 5_000, ..Counters::default() };
        assert_eq!(half_a_second(idle).mean_wait_ns(), None);
    }
}
