// SPDX-License-Identifier: Apache-2.0
//! Options of qdiscs and classes, as bytes: the message crate has none of
//! these. Numbers and layouts are the kernel's.

/// What Sluice says to an fq.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fq {
    /// Packets that wait, all together.
    pub limit: u32,
    /// Packets of one socket that wait.
    pub flow_limit: u32,
    /// A stamp further ahead counts as so far ahead; it is never a reason to drop.
    pub horizon_us: u32,
}

/// The one class below htb that everything goes through.
const CLASS_MINOR: u32 = 1;

/// Kernel numbers of include/uapi/linux/pkt_sched.h.
const TCA_FQ_PLIMIT: u16 = 1;
const TCA_FQ_FLOW_PLIMIT: u16 = 2;
const TCA_FQ_HORIZON: u16 = 14;
const TCA_FQ_HORIZON_DROP: u16 = 15;
const TCA_HTB_PARMS: u16 = 1;
const TCA_HTB_INIT: u16 = 2;
const TCA_HTB_RATE64: u16 = 6;
const TCA_HTB_CEIL64: u16 = 7;
const TC_LINKLAYER_ETHERNET: u32 = 1;

/// One netlink attribute, padded to a multiple of four bytes.
fn attribute(kind: u16, value: &[u8]) -> Vec<u8> {
    let length = 4 + value.len();
    let mut bytes = [&(length as u16).to_ne_bytes(), &kind.to_ne_bytes(), value].concat();
    bytes.resize(length.next_multiple_of(4), 0);
    bytes
}

fn words(values: &[u32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_ne_bytes()).collect()
}

/// What is not said here (quantum, buckets) is as good as its default: our stamps order the packets.
pub(super) fn fq(fq: Fq) -> Vec<u8> {
    [
        attribute(TCA_FQ_PLIMIT, &words(&[fq.limit])),
        attribute(TCA_FQ_FLOW_PLIMIT, &words(&[fq.flow_limit])),
        attribute(TCA_FQ_HORIZON, &words(&[fq.horizon_us])),
        attribute(TCA_FQ_HORIZON_DROP, &[0]),
    ]
    .concat()
}

/// struct tc_prio_qopt: two bands (the least there is), every priority in the first.
pub(super) fn prio() -> Vec<u8> {
    [2i32.to_ne_bytes().as_slice(), &[0; 16]].concat()
}

/// struct tc_fifo_qopt: a limit of 0, so that every packet is one too many.
pub(super) fn no_packets() -> Vec<u8> {
    words(&[0])
}

/// struct tc_htb_glob: version, rate2quantum, default class, debug, direct packets.
pub(super) fn htb() -> Vec<u8> {
    attribute(TCA_HTB_INIT, &words(&[3, 10, CLASS_MINOR, 0, 0]))
}

/// struct tc_htb_opt of a class that never limits: 800 Gbit/s, above any that a pod can have.
pub(super) fn htb_class() -> Vec<u8> {
    const BYTES_PER_SEC: u64 = 100_000_000_000;
    const BUFFER_TICKS: u32 = 1 << 20;
    const QUANTUM: u32 = 65536;
    // struct tc_ratespec: cell_log, linklayer, overhead, cell_align, mpu, rate.
    let ratespec = [TC_LINKLAYER_ETHERNET << 8, 0, u32::MAX];
    let rest = [BUFFER_TICKS, BUFFER_TICKS, QUANTUM, 0, 0];
    let parms = words(&[&ratespec[..], &ratespec[..], &rest[..]].concat());
    [
        attribute(TCA_HTB_PARMS, &parms),
        attribute(TCA_HTB_RATE64, &BYTES_PER_SEC.to_ne_bytes()),
        attribute(TCA_HTB_CEIL64, &BYTES_PER_SEC.to_ne_bytes()),
    ]
    .concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn fq_options_are_attributes_padded_to_four_bytes() {
        let options = fq(Fq { limit: 7, flow_limit: 5, horizon_us: 3 });
        let packets = [8, 0, 1, 0, 7, 0, 0, 0, 8, 0, 2, 0, 5, 0, 0, 0];
        let horizon = [8, 0, 14, 0, 3, 0, 0, 0, 5, 0, 15, 0, 0, 0, 0, 0];
        assert_eq!(options, [packets, horizon].concat());
    }
}
