// SPDX-License-Identifier: Apache-2.0
//! docs/benchmarks.md and its plots, from what was measured.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use tests::probes::Probed;

use crate::crowd::Crowd;
use crate::figure::Figure;
use crate::packets::Packets;
use crate::plots;
use crate::report::Report;
use crate::row::{Direction, Row};
use crate::setups::Setup;
use crate::share::Share;
use crate::sharing::Sharing;
use crate::site::MTUS;

const PAGE: &str = "docs/benchmarks.md";
const PLOTS: &str = "docs/benchmarks";

const HEAD: &str = "# Benchmarks

What follows from the figures:

- A limit applies from the first second on: within 0.5 % over 10 s, within 2 % and a frame in any second (P4, P5).
- Small requests hardly wait behind the pod's own bulk transfers: less than 0.5 ms at the median, and at the 99th percentile no longer than by
  CAKE (P6). With departure times alone it is about a second, with the upstream plugin and a burst of 32 KB some 35 ms.
- Bulk flows have equal shares, and of what a pod sends less than one segment of 1000 is sent again (P7).
- Pods that share the node have equal parts of its line however many flows they open, and 98 % and more of it is used (F1). A quiet pod's
  round trip stays below a millisecond meanwhile (F5). The price is work for each packet (F6).
- The plugin takes less than half of the upstream plugin's time; an idle agent with 500 pods takes no processor time and less than 16 MiB (C, N).
- The price is work for each packet (P1, P2, P3). Not what it must be in this run: ";

const LEGEND: &str = ".

| figures | are of |
| --- | --- |
| P1 | the programs' time for each packet |
| P2 | instructions that a limit adds to each UDP packet |
| P3 | TCP throughput that a limit costs which is far above it |
| P4 | the rate: how far it is off, over 10 s and in any second |
| P5 | the first second, as a multiple of the limit |
| P6 | the round trip of small requests beside bulk flows of the same pod |
| P7 | the bulk flows: goodput, retransmissions, shares (Jain's index; 1 is equal) |
| P8 | many flows at once: a flood, and new flows beside it |
| F1, F7 | node share: 8 or 64 pods of 1 to 16 flows; Jain's index over pods, and how much of the line is used |
| F2 | node share: parts by weight, and pods that come and go |
| F3, F4 | node share: beside pods with small limits of their own, and beside a flood of UDP |
| F5 | node share: round trips of a quiet pod and of a sparse flow inside the heaviest one; retransmissions |
| F6, F6-processors | node share: what a packet costs more, on one processor and on two at once |
| F8 | node share: what stays on the node while the line is full |
| C | the CNI plugin: ADD, DEL, memory |
| N | the agent with 250 or 500 pods: start, memory, wake-ups, what it does to ADDs |
| M | a boot with new settings, and the look-up of an instance type |
| S1 | `sluice check` of a document of settings |

*must* is what a figure has to keep, or `make bench` fails; *aim* is what it should be. *reached* says which of them it is: `aim`, `must`, or `no`
for neither. Where there are several cases the value is that of the worst, which *worst case* names. *peers* are other limiters in the same
place, or what the value consists of.

Made by `make bench`; the same figures, and all that they come from, are in `target/report/bench.json`.

P2, P4 to P8 and F but F6 are measured in a QEMU guest (kernel 6.12, one processor) whose time is the number of instructions it
has done, two nanoseconds each: no noise, the same on any machine. A pod is a routed veth, the remote machine a namespace
behind another one. C, F6, M, N, P1, P3 and S1 are measured on the kernel of the machine itself; C is what the released plugin and the CNI
project's do in turn on the same veths.

| set-up | what it is |
| --- | --- |
| sluice | the pod's limits through the CNI plugin |
| cake | `cake bandwidth RATE besteffort`, on the pod's eth0 (egress) or on its host end (ingress) |
| tbf-fq-codel | `tbf burst 32kb latency 400ms` with `fq_codel`, in the same places |
| upstream | the CNI project's bandwidth plugin with the burst that containerd asks for |
| upstream-32kb | the same with a burst of 32 KB |
| cilium-edt | departure times as Cilium's bandwidth manager stamps them, and fq, on the uplink (egress) or host end (ingress) |
| fq | the queue alone, without program or limit |
| queues | the qdiscs that Sluice puts on a pod's egress, without a program |
| queues-and-filter | the same, and a filter whose program does nothing |
| empty-guard | the same, and such a program on tcx of the host's end |
| sluice-unguarded | Sluice without the guard on the host's end |
| node-share | Sluice's node share of a line of 100 Mbit/s |
| limits | Sluice without it: each pod limited to its part of that line |
| cake-dual-srchost | `cake bandwidth LINE dual-srchost` on the uplink (egress only, as the next two) |
| htb-fq-codel | an HTB class for each pod, which may borrow all of the line, with `fq_codel` |
| tbf-fq-codel (F) | `tbf burst 32kb latency 400ms` with `fq_codel`, on the uplink |

";

pub fn write(report: &Report) -> Result<()> {
    let mut page = [HEAD, &missed(&report.figures), LEGEND].concat();
    figures(&mut page, &report.figures);
    fs::create_dir_all(PLOTS)?;
    for (name, title, svg) in plots(report) {
        let file = Path::new(PLOTS).join(format!("{name}.svg"));
        fs::write(&file, svg).with_context(|| format!("write {}", file.display()))?;
        // A String takes all that is written.
        let _ = write!(page, "\n## {title}\n\n![{title}](benchmarks/{name}.svg)\n");
    }
    steps(&mut page, &report.packets);
    for mtu in MTUS {
        rows(&mut page, mtu, &report.rows);
    }
    crowds(&mut page, &report.crowds);
    shares(&mut page, &report.shares);
    fs::write(PAGE, page).with_context(|| format!("write {PAGE}"))?;
    println!("written: {PAGE}, {PLOTS}");
    Ok(())
}

/// Figures that are not what they must be.
fn missed(figures: &[Figure]) -> String {
    let missed = figures.iter().filter(|figure| !figure.ok);
    let ids: Vec<&str> = missed.map(|figure| figure.id.as_str()).collect();
    if ids.is_empty() { "nothing".into() } else { ids.join(", ") }
}

fn figures(page: &mut String, figures: &[Figure]) {
    page.push_str(
        "## Figures\n\n| figure | what | worst case | value | must | aim | reached | peers |\n",
    );
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for figure in figures {
        let Figure { id, name, value, unit, must, aim, detail, .. } = figure;
        let reached = match (figure.ok, figure.aim_ok) {
            (true, true) => "aim",
            (true, false) => "must",
            _ => "no",
        };
        let peers = figure.peers.iter().map(|(name, value)| {
            format!("{name} {}", value.as_f64().map_or_else(|| "-".into(), round))
        });
        let peers: Vec<String> = peers.collect();
        let value = round(*value);
        let _ = writeln!(
            page,
            "| {id} | {name} | {detail} | {value} {unit} | {must} | {aim} | {reached} | {} |",
            peers.join("; ")
        );
    }
}

/// What each part of a limit costs a packet, as the difference of two set-ups.
fn steps(page: &mut String, packets: &[Packets]) {
    let of = |setup| packets.iter().find(|p| p.setup == setup).map(|p| p.instructions);
    page.push_str(
        "\n## Where the instructions of a packet go\n\n| step | instructions |\n| --- | --- |\n",
    );
    for (step, with, without) in [
        ("fq", Setup::Fq, Setup::None),
        ("prio above it, with the class for drops", Setup::Queues, Setup::Fq),
        ("its filter: what the kernel does to run one", Setup::QueuesAndFilter, Setup::Queues),
        ("the shaper's program", Setup::SluiceUnguarded, Setup::QueuesAndFilter),
        ("tcx on the host's end: what the kernel does", Setup::EmptyGuard, Setup::QueuesAndFilter),
    ] {
        if let (Some(with), Some(without)) = (of(with), of(without)) {
            let _ = writeln!(page, "| {step} | {:.0} |", with - without);
        }
    }
    let guard = [Setup::Sluice, Setup::SluiceUnguarded, Setup::EmptyGuard, Setup::QueuesAndFilter];
    if let [Some(sluice), Some(unguarded), Some(hook), Some(none)] = guard.map(of) {
        let _ =
            writeln!(page, "| the guard's program | {:.0} |", sluice - unguarded - (hook - none));
    }
}

/// Three significant digits or so.
fn round(value: f64) -> String {
    match value.abs() {
        v if v >= 100.0 => format!("{value:.0}"),
        v if v >= 10.0 => format!("{value:.1}"),
        v if v >= 1.0 => format!("{value:.2}"),
        _ => format!("{value:.3}"),
    }
}

fn plots(report: &Report) -> Vec<(&'static str, &'static str, String)> {
    let mut plots = vec![
        (
            "latency-egress",
            "Round trip of a pod that sends by 8 flows at 20 Mbit/s",
            plots::latency(&report.rows, Direction::Egress),
        ),
        (
            "latency-ingress",
            "Round trip of a pod that receives by 8 flows at 20 Mbit/s",
            plots::latency(&report.rows, Direction::Ingress),
        ),
        ("rate", "Rate of a TCP transfer limited to 20 Mbit/s", plots::rate(&report.rates)),
    ];
    let mut cost = |id: &str, name, title, unit, is_shown: fn(&str) -> bool| {
        if let Some(figure) = report.figures.iter().find(|figure| figure.id == id) {
            plots.push((name, title, plots::cost(figure, unit, is_shown)));
        }
    };
    cost("P1", "program-cost", "Cost of the programs for each packet", "ns", |name| {
        !name.starts_with("empty")
    });
    let title = "Instructions that a set-up adds to each UDP packet from a pod";
    cost("P2", "packet-cost", title, "instructions", |name| !name.contains("in all"));
    plots
}

fn rows(page: &mut String, mtu: u32, rows: &[Row]) {
    let _ = writeln!(page, "\n## All rows at 20 Mbit/s, MTU {mtu}\n");
    page.push_str("Rates are payload in Mbit/s, times milliseconds.\n\n");
    page.push_str("| direction | flows | set-up | goodput | retransmissions of segments | slowest | fastest | Jain ");
    page.push_str("| echo median | p99 | lost | request median | p99 |\n");
    page.push_str(
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- | --- |\n",
    );
    for row in rows.iter().filter(|row| row.plan.mtu == mtu) {
        let (plan, sent, echo, request) =
            (&row.plan, row.sent, row.probed.echo, row.probed.request);
        let [slowest, fastest] = row.slowest_and_fastest();
        let (direction, flows, cc) = (plan.direction.name(), plan.flows, &plan.congestion);
        let _ = write!(page, "| {direction} | {flows} {cc} | {} ", plan.setup.name());
        let _ = write!(
            page,
            "| {:.2} | {} of {} ",
            row.goodput_mbps(),
            sent.retransmissions,
            sent.segments
        );
        let _ = write!(page, "| {slowest:.3} | {fastest:.3} | {:.4} ", row.jain());
        let _ = write!(page, "| {:.3} | {:.3} | {} ", echo.median_ms, echo.p99_ms, echo.lost);
        let _ = writeln!(page, "| {:.3} | {:.3} |", request.median_ms, request.p99_ms);
    }
}

fn crowds(page: &mut String, crowds: &[Crowd]) {
    page.push_str("\n## Many flows at 10 Mbit/s\n\nA flood of UDP, four times the limit, and echoes that are a ");
    page.push_str("new flow each; L2 rates in Mbit/s, times in milliseconds; then the first second of one flow a ");
    page.push_str("minute later, as a multiple of the limit.\n\n");
    page.push_str(
        "| direction | MTU | flows | set-up | goodput | echo median | p99 | lost | first second |\n",
    );
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for Crowd { plan, goodput_mbps, echo, first_second, .. } in crowds {
        let (direction, setup) = (plan.direction.name(), plan.setup.name());
        let _ = write!(page, "| {direction} | {} | {} | {setup} ", plan.mtu, plan.flows);
        let _ = write!(page, "| {goodput_mbps:.2} | {:.3} | {:.3} ", echo.median_ms, echo.p99_ms);
        let _ = writeln!(page, "| {} of {} | {first_second:.3} |", echo.lost, echo.asked);
    }
}

fn shares(page: &mut String, shares: &[Share]) {
    page.push_str("\n## Pods that share a line of 100 Mbit/s\n\nTimes are median / p99 in milliseconds, echo and request; of its ");
    page.push_str(
        "part: the pod that has least and the one that has most of its part of the whole line.\n\n",
    );
    page.push_str("| pods | sharing | used | Jain | worst second | retransmissions of segments ");
    page.push_str("| quiet pod | busiest pod | of its part |\n");
    page.push_str("| --- | --- | --- | --- | --- | --- | --- | --- | --- |\n");
    for share in shares.iter().filter(|share| share.plan.sharing != Sharing::None) {
        let Share { plan, sent, quiet, busy, .. } = share;
        let (used, jain, worst) = (share.used_percent(), share.jain(), share.worst_jain());
        let _ = write!(page, "| {plan} | {} | {used:.2} % ", plan.sharing.name());
        let _ = write!(page, "| {jain:.4} | {worst:.4} | {} ", sent.retransmissions);
        let _ = write!(page, "of {} ", sent.segments);
        for Probed { echo, request } in [quiet, busy] {
            let _ = write!(page, "| {:.3} / {:.3}, ", echo.median_ms, echo.p99_ms);
            let _ = write!(page, "{:.3} / {:.3} ", request.median_ms, request.p99_ms);
        }
        let parts = share.of_part().into_iter().filter(|part| part.is_finite());
        let (least, most) = parts.fold((f64::INFINITY, 0.0_f64), |(least, most), part| {
            (least.min(part), most.max(part))
        });
        let _ = writeln!(page, "| {least:.3} to {most:.3} |");
    }
}
