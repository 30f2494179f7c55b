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

use crate::boot::InForce;
use crate::limit::Origin;
use crate::paths::Paths;
use crate::record::{Claim, Record, RecordedMode, Records, Shaping};

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
    pub host_interface: String,
    pub slot: u16,
    pub egress: Line,
    pub ingress: Line,
}

/// One direction of one pod. Rates are bit/s of L2 frames.
#[derive(Debug, Serialize)]
pub struct Line {
    pub limit_bps: Option<u64>,
    pub origin: Option<Origin>,
    pub measured_bps: u64,
    pub sent_packets: u64,
    pub dropped_packets: u64,
    pub mode: Option<RecordedMode>,
    /// Why the mode is what it is, or what is wrong.
    pub reason: &'static str,
}

struct Sample {
    claim: Claim,
    record: Record,
    counters: [Counters; 2],
    at: Instant,
}

/// Reads everything, waits for `interval`, and reads the counters again.
pub fn status(paths: &Paths, interval: Duration) -> Result<Status> {
    let settings = InForce::read(&paths.boot_file())?;
    let claims = Records::new(paths.pods_dir()).list()?;
    if claims.is_empty() {
        return Ok(Status { settings, pods: Vec::new() });
    }
    let pins = Pins::open(&paths.pin_dir()).context("read the state of the shaper")?;
    let first = claims.into_iter().map(|claim| sample(&pins, claim)).collect::<Result<Vec<_>>>()?;
    thread::sleep(interval);
    let pods = first.iter().map(|before| pod(before, &pins)).collect::<Result<_>>()?;
    Ok(Status { settings, pods })
}

fn sample(pins: &Pins, claim: Claim) -> Result<Sample> {
    let record = claim.read()?;
    Ok(Sample { counters: read_counters(pins, &claim)?, record, claim, at: Instant::now() })
}

fn read_counters(pins: &Pins, claim: &Claim) -> Result<[Counters; 2]> {
    Ok([
        pins.counters(claim.slot, Direction::Egress)?,
        pins.counters(claim.slot, Direction::Ingress)?,
    ])
}

fn pod(before: &Sample, pins: &Pins) -> Result<Pod> {
    let after = read_counters(pins, &before.claim)?;
    let elapsed = before.at.elapsed();
    let line = |shaping: &Shaping, direction: Direction| {
        let index = direction as usize;
        Line::new(shaping, before.counters[index], after[index], elapsed)
    };
    Ok(Pod {
        namespace: before.record.namespace.clone(),
        pod: before.record.pod.clone(),
        interface: before.claim.key.ifname.clone(),
        host_interface: before.record.host_ifname.clone(),
        slot: before.claim.slot.number(),
        egress: line(&before.record.egress, Direction::Egress),
        ingress: line(&before.record.ingress, Direction::Ingress),
    })
}

impl Line {
    fn new(shaping: &Shaping, before: Counters, after: Counters, elapsed: Duration) -> Self {
        let bytes = after.sent_bytes.saturating_sub(before.sent_bytes);
        let (limit_bps, origin, mode, reason) = match shaping {
            Shaping::Unlimited => (None, None, None, "no limit asked for"),
            Shaping::Limited { bits_per_sec, origin, mode } => {
                (Some(*bits_per_sec), Some(*origin), *mode, reason(*mode))
            }
        };
        Self {
            limit_bps,
            origin,
            measured_bps: (bytes as f64 * 8.0 / elapsed.as_secs_f64()) as u64,
            sent_packets: after.sent_packets,
            dropped_packets: after.dropped_packets,
            mode,
            reason,
        }
    }
}

fn reason(mode: Option<RecordedMode>) -> &'static str {
    match mode {
        Some(RecordedMode::Paced) => "fq releases each packet on time",
        Some(RecordedMode::Policed) => "degraded: the kernel has no sch_fq, so excess is dropped",
        None => "not enforced: the attachment was never completed",
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
            "{:<32} {:<8} {:>10} {:<15} {:>10} {:>8} {}\n",
            "POD", "WAY", "LIMIT", "ORIGIN", "MEASURED", "DROPPED", "MODE"
        );
        for pod in &self.pods {
            for (way, line) in [("egress", &pod.egress), ("ingress", &pod.ingress)] {
                let name = format!("{}/{}", pod.namespace, pod.pod);
                // Writing to a String cannot fail.
                let _ = writeln!(
                    text,
                    "{name:<32} {way:<8} {:>10} {:<15} {:>10} {:>8} {}",
                    line.limit_bps.map_or("unlimited".into(), short),
                    line.origin.map_or("-".into(), |origin| origin.to_string()),
                    short(line.measured_bps),
                    line.dropped_packets,
                    line.mode_text(),
                );
            }
        }
        text
    }
}

impl Line {
    fn mode_text(&self) -> String {
        let mode = match self.mode {
            Some(RecordedMode::Paced) => "paced",
            Some(RecordedMode::Policed) => "policed",
            None => "-",
        };
        format!("{mode} ({})", self.reason)
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

    #[test]
    fn rate_is_bytes_over_the_interval() {
        let after = Counters { sent_bytes: 1_250_000, ..Counters::default() };
        let line =
            Line::new(&Shaping::Unlimited, Counters::default(), after, Duration::from_millis(500));
        assert_eq!(line.measured_bps, 20_000_000);
    }
}
