// SPDX-License-Identifier: Apache-2.0

//! How far a pod may run ahead of its rate: "5ms" or "64KB" in, the same out.
//!
//! Owns `Burst`, its two forms and their ranges. The time form scales with the rate, the byte form
//! is what people know from tc.
//! Never knows a rate of its own.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::values::quantity::{Number, QuantityError, Unit, Words, canonical, factor, from_string};
use crate::values::rate::Rate;

const NS_PER_SEC: u64 = 1_000_000_000;

/// Above a second it would not be a burst but a second limit.
const TIME_RANGE_NS: RangeInclusive<u64> = 1..=NS_PER_SEC;

/// 64 MiB is the default burst, 5 ms, at just over 100 Gbit/s: the fastest interface a pod sees.
/// More than that is a queue's worth of data that leaves at line rate, which no limit intends.
const BYTE_RANGE: RangeInclusive<u64> = 1..=64 << 20;

pub(crate) const TIME_UNITS: &[Unit] =
    &[("s", NS_PER_SEC), ("ms", 1_000_000), ("us", 1_000), ("ns", 1)];

const BYTE_UNITS: &[Unit] = &[
    ("MiB", 1 << 20),
    ("MB", 1_000_000),
    ("KiB", 1 << 10),
    ("KB", 1_000),
    ("kB", 1_000),
    ("B", 1),
];

pub(crate) const WORDS: Words = Words {
    units: "ns, us, ms or s for time, or B, KB, MB, KiB or MiB for bytes",
    example: "\"5ms\" or \"64KB\"",
    range: "1ns to 1s, or 1B to 64MiB",
};

/// What may be sent at once before the rate applies.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Burst {
    /// As much as the rate gives in this time.
    Time(BurstTime),
    /// This much at any rate.
    Bytes(ByteCount),
}

/// Nanoseconds, more than none and up to a second.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BurstTime(u64);

/// Bytes, 1 to 64 MiB, which is 5 ms at just over 100 Gbit/s.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ByteCount(u64);

impl BurstTime {
    /// The time in nanoseconds.
    pub fn ns(self) -> u64 {
        self.0
    }
}

impl ByteCount {
    /// None outside the range.
    pub fn new(bytes: u64) -> Option<Self> {
        BYTE_RANGE.contains(&bytes).then_some(Self(bytes))
    }

    /// The number of bytes.
    pub fn bytes(self) -> u64 {
        self.0
    }
}

impl Burst {
    /// The burst as time at a rate, in nanoseconds, rounded down.
    pub fn ns_at(self, rate: Rate) -> u64 {
        match self {
            Self::Time(time) => time.ns(),
            Self::Bytes(count) => {
                let bits = u128::from(count.bytes()) * 8;
                let ns = bits * u128::from(NS_PER_SEC) / u128::from(rate.bits_per_sec());
                u64::try_from(ns).unwrap_or(u64::MAX)
            }
        }
    }
}

impl Burst {
    /// Whether it is above another one at any rate: of one kind they can be compared without one.
    pub(crate) fn is_above(self, other: Self) -> bool {
        match (self, other) {
            (Self::Time(time), Self::Time(other)) => time > other,
            (Self::Bytes(count), Self::Bytes(other)) => count > other,
            _ => false,
        }
    }
}

impl Default for Burst {
    /// 5 ms.
    fn default() -> Self {
        Self::Time(BurstTime(5_000_000))
    }
}

impl FromStr for Burst {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let number = Number::read(text, WORDS)?;
        let burst = if let Some(ns) = factor(number.unit, TIME_UNITS) {
            number.times(ns, &TIME_RANGE_NS).map(|ns| Self::Time(BurstTime(ns)))
        } else if let Some(bytes) = factor(number.unit, BYTE_UNITS) {
            number.times(bytes, &BYTE_RANGE).map(|bytes| Self::Bytes(ByteCount(bytes)))
        } else {
            return Err(QuantityError::unknown_unit(text, WORDS));
        };
        burst.ok_or_else(|| QuantityError::out_of_range(text, WORDS))
    }
}

impl fmt::Display for Burst {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&match self {
            Self::Time(time) => canonical(time.ns(), TIME_UNITS),
            Self::Bytes(count) => canonical(count.bytes(), BYTE_UNITS),
        })
    }
}

/// Rule of a key that holds a burst.
pub(crate) fn burst(value: &DeValue<'_>) -> Result<Burst, Refusal> {
    from_string(value, WORDS)
}

/// Rule of a key that holds a burst, or is not given.
pub(crate) fn some_burst(value: &DeValue<'_>) -> Result<Option<Burst>, Refusal> {
    burst(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn read(text: &str) -> Result<Burst, String> {
        text.parse().map_err(|e: QuantityError| e.to_string())
    }

    fn rate(text: &str) -> Rate {
        text.parse().expect("rate")
    }

    #[test]
    fn time_and_bytes_are_told_apart_by_unit() {
        assert_eq!(read("5ms"), Ok(Burst::default()));
        assert_eq!(read("1.5us"), Ok(Burst::Time(BurstTime(1_500))));
        assert_eq!(read("1s"), Ok(Burst::Time(BurstTime(1_000_000_000))));
        assert_eq!(read("1500B"), Ok(Burst::Bytes(ByteCount(1_500))));
        assert_eq!(read("64KB"), Ok(Burst::Bytes(ByteCount(64_000))));
        assert_eq!(read("64 KiB"), Ok(Burst::Bytes(ByteCount(65_536))));
        assert_eq!(read("64MiB"), Ok(Burst::Bytes(ByteCount(67_108_864))));
    }

    #[test]
    fn out_of_range_names_both_ranges() {
        for wrong in ["0ms", "1001ms", "0B", "65MiB", "67108865B"] {
            let message = format!("{wrong:?} is out of range; use 1ns to 1s, or 1B to 64MiB");
            assert_eq!(read(wrong), Err(message));
        }
    }

    #[test]
    fn bits_are_no_bytes() {
        for wrong in ["64Kb", "1500b", "64kbit", "5min"] {
            let message = format!(
                "{wrong:?} has an unknown unit; use ns, us, ms or s for time, \
                 or B, KB, MB, KiB or MiB for bytes, e.g. \"5ms\" or \"64KB\""
            );
            assert_eq!(read(wrong), Err(message));
        }
    }

    #[test]
    fn bytes_take_longer_at_a_lower_rate() {
        let burst = read("125KB").expect("burst");
        assert_eq!(burst.ns_at(rate("1Gbit")), 1_000_000);
        assert_eq!(burst.ns_at(rate("1Mbit")), 1_000_000_000);
        assert_eq!(burst.ns_at(rate("1000Tbit")), 1);
        assert_eq!(read("64MiB").expect("burst").ns_at(rate("1kbit")), 536_870_912_000_000);
    }

    #[test]
    fn time_is_the_same_at_any_rate() {
        assert_eq!(Burst::default().ns_at(rate("1kbit")), 5_000_000);
        assert_eq!(Burst::default().ns_at(rate("100Gbit")), 5_000_000);
    }

    proptest! {
        #[test]
        fn bursts_survive_printing(time in TIME_RANGE_NS, bytes in BYTE_RANGE) {
            let (time, bytes) = (Burst::Time(BurstTime(time)), Burst::Bytes(ByteCount(bytes)));
            prop_assert_eq!(time.to_string().parse(), Ok(time));
            prop_assert_eq!(bytes.to_string().parse(), Ok(bytes));
        }

        #[test]
        fn ns_at_has_an_answer_for_any_count(bytes: u64, rate_bits in 1_000..=1_000_000_000_000_000_u64) {
            let ns = Burst::Bytes(ByteCount(bytes)).ns_at(rate(&format!("{rate_bits}bit")));
            let exact = u128::from(bytes) * 8_000_000_000 / u128::from(rate_bits);
            prop_assert_eq!(u128::from(ns), exact.min(u128::from(u64::MAX)));
        }
    }
}
