// SPDX-License-Identifier: Apache-2.0
//! pacing.h as the host has it (pacing_host.c), and one pod's line made of it.

/// contract.h's struct sluice_limit.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Limit {
    pub ns_per_byte: u64,
    pub burst_ns: u64,
    pub quantum_ns: u64,
    pub horizon_ns: u64,
    pub target_ns: u64,
    pub mode: u32,
    pub ecn: u32,
    pub weight: u32,
    pub node_only: u32,
    pub floor_ns_per_byte: u64,
}

/// pacing_host.c's struct step.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Step {
    pub departure_ns: u64,
    pub next_ns: u64,
    pub admitted: u32,
    pub pad: u32,
}

/// contract.h's struct sluice_clock.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
pub struct Clock {
    pub next_ns: u64,
    pub round_ns: u64,
    pub early_ns: u64,
    pub earlier_ns: u64,
    pub last_ns: u64,
    pub idle_ns: u64,
    pub queued: u32,
    pub active: u32,
    pub round: u32,
    pub queued_sources: u16,
    pub sources: u16,
}

/// contract.h's struct sluice_flows: a pod's table, which only the C text looks into.
#[repr(C, align(8))]
pub struct Flows([u8; 256 * 48]);

/// pacing.h's struct sluice_packet.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Packet {
    pub now_ns: u64,
    pub cost_ns: u64,
    pub segments: u32,
    pub hash: u32,
    pub node_ns: u64,
    pub part_ns: u64,
}

/// pacing.h's struct sluice_turn.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Turn {
    pub departure_ns: u64,
    pub share_ns: u64,
    pub source_ns: u64,
    pub flows: u32,
    pub parts: u32,
    pub sources: u32,
    pub action: u32,
    pub early: u32,
    pub pad: u32,
}

#[link(name = "pacing_host", kind = "static")]
unsafe extern "C" {
    pub safe fn host_cost_ns(limit: &Limit, wire_len: u32) -> u64;
    pub safe fn host_pace(clock_ns: u64, now_ns: u64, cost_ns: u64, limit: &Limit) -> Step;
    pub safe fn host_enqueue(
        limit: &Limit,
        clock: &mut Clock,
        table: &mut Flows,
        source_hash: u32,
        packet: &Packet,
    ) -> Turn;
    pub safe fn host_share(
        node: &mut Entry,
        pod: &mut Entry,
        table: &mut Flows,
        wire_len: u32,
        packet: &Packet,
    ) -> Turn;
    pub safe fn host_inv_sqrt(n: u32) -> u32;
    pub safe fn host_bounds_passed(wait_ns: u64) -> u32;
    pub safe fn host_stamp(departure_ns: u64, own_ns: u64, now_ns: u64, limit: &Limit) -> u64;
}

/// A pod's line with its flows, fed in the order of time.
pub struct Line {
    pub limit: Limit,
    pub clock: Clock,
    table: Box<Flows>,
}

impl Line {
    pub fn new(limit: Limit) -> Self {
        let table = Box::new(Flows([0; 256 * 48]));
        Self { limit, clock: Clock::default(), table }
    }

    /// A packet of this flow, all flows having one source.
    pub fn send(&mut self, flow: usize, now_ns: u64, length: u32) -> Turn {
        self.send_from(0, flow, now_ns, length)
    }

    pub fn send_from(&mut self, source: usize, flow: usize, now_ns: u64, length: u32) -> Turn {
        let cost_ns = host_cost_ns(&self.limit, length);
        let [hash, source] = [flow + 1, !source].map(hash);
        let packet = Packet { now_ns, cost_ns, segments: 1, hash, node_ns: 0, part_ns: 0 };
        host_enqueue(&self.limit, &mut self.clock, &mut self.table, source, &packet)
    }
}

/// contract.h's struct sluice_line: all of one direction of a pod, or of the node.
#[repr(C)]
#[derive(Clone, Copy, Debug)]
pub struct Entry {
    pub limit: Limit,
    pub clock: Clock,
    account: [u64; 8],
    delays: [u64; 8],
    share: [u64; 8],
}

impl Entry {
    pub fn new(limit: Limit) -> Self {
        let clock = Clock::default();
        Self { limit, clock, account: [0; 8], delays: [0; 8], share: [0; 8] }
    }
}

/// Pods that share a node's line.
pub struct Node {
    pub line: Entry,
    pub pods: Vec<(Entry, Box<Flows>)>,
}

impl Node {
    pub fn new(capacity: Limit, pods: &[Limit]) -> Self {
        let pod = |limit: &Limit| (Entry::new(*limit), Box::new(Flows([0; 256 * 48])));
        Self { line: Entry::new(capacity), pods: pods.iter().map(pod).collect() }
    }

    pub fn send(&mut self, pod: usize, flow: usize, now_ns: u64, length: u32) -> Turn {
        let hash = hash(flow + 1);
        let packet = Packet { now_ns, cost_ns: 0, segments: 1, hash, node_ns: 0, part_ns: 0 };
        let (entry, table) = &mut self.pods[pod];
        host_share(&mut self.line, entry, table, length, &packet)
    }
}

/// As good as the kernel's; splitmix64's.
pub fn hash(number: usize) -> u32 {
    let mut mixed = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ mixed >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ mixed >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    (mixed ^ mixed >> 31) as u32
}
