// SPDX-License-Identifier: Apache-2.0

//! How fast a pod may go: "500Mbit", "500M" or "unlimited" in, "500Mbit" or "unlimited" out.
//!
//! Owns `Rate`, its units and range, `Limit` and `Capacity`.
//! Never knows whose rate it is.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::values::kubernetes::Quantity;
use crate::values::quantity::{Number, QuantityError, Unit, Words, canonical, factor, from_string};

pub(crate) const RATE_RANGE: RangeInclusive<u64> = 1_000..=1_000_000_000_000_000;

const RATE_UNITS: &[Unit] = &[
    ("bit", 1),
    ("Bit", 1),
    ("kbit", 1_000),
    ("Kbit", 1_000),
    ("mbit", 1_000_000),
    ("Mbit", 1_000_000),
    ("gbit", 1_000_000_000),
    ("Gbit", 1_000_000_000),
    ("tbit", 1_000_000_000_000),
    ("Tbit", 1_000_000_000_000),
    ("kibit", 1 << 10),
    ("Kibit", 1 << 10),
    ("mibit", 1 << 20),
    ("Mibit", 1 << 20),
    ("gibit", 1 << 30),
    ("Gibit", 1 << 30),
];

const RATE_CANONICAL: &[Unit] = &[
    ("Tbit", 1_000_000_000_000),
    ("Gbit", 1_000_000_000),
    ("Mbit", 1_000_000),
    ("kbit", 1_000),
    ("bit", 1),
];

pub(crate) const RATE_WORDS: Words = Words {
    units: "bit, kbit, mbit, gbit or tbit",
    example: "\"500Mbit\"",
    range: "1kbit to 1000Tbit",
};

pub(crate) const LIMIT_WORDS: Words =
    Words { range: "1kbit to 1000Tbit or \"unlimited\"", ..RATE_WORDS };

pub(crate) const CAPACITY_WORDS: Words =
    Words { range: "1kbit to 1000Tbit or \"auto\"", example: "\"10Gbit\"", ..RATE_WORDS };

/// Bits per second, 1 kbit/s to 1 Pbit/s: the range of Kubernetes' bandwidth annotations.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Rate(u64);

impl Rate {
    /// None outside the range.
    pub fn from_bits_per_sec(bits: u64) -> Option<Self> {
        RATE_RANGE.contains(&bits).then_some(Self(bits))
    }

    /// The rate in bit/s.
    pub fn bits_per_sec(self) -> u64 {
        self.0
    }

    /// Our own units, else a Kubernetes quantity with a suffix, as annotations have it.
    ///
    /// A bare number is a good quantity, but in settings it is a forgotten unit far more often than
    /// bit/s; so it is refused here, and only here.
    fn read(text: &str, words: Words) -> Result<Self, QuantityError> {
        match Quantity::read(text) {
            Ok(quantity) if !quantity.suffix.is_empty() => {
                quantity.rate().map_err(|_| QuantityError::out_of_range(text, words))
            }
            _ => Self::read_with_unit(text, words),
        }
    }

    fn read_with_unit(text: &str, words: Words) -> Result<Self, QuantityError> {
        let number = Number::read(text, words)?;
        let factor = factor(number.unit, RATE_UNITS);
        let factor = factor.ok_or_else(|| QuantityError::unknown_unit(text, words))?;
        let bits = number.times(factor, &RATE_RANGE);
        bits.map(Self).ok_or_else(|| QuantityError::out_of_range(text, words))
    }
}

impl FromStr for Rate {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        Self::read(text, RATE_WORDS)
    }
}

impl fmt::Display for Rate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&canonical(self.0, RATE_CANONICAL))
    }
}

/// How fast a pod may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Limit {
    /// Not shaped.
    Unlimited,
    /// At most this rate.
    Rate(Rate),
}

impl FromStr for Limit {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text {
            "unlimited" => Ok(Self::Unlimited),
            rate => Rate::read(rate, LIMIT_WORDS).map(Self::Rate),
        }
    }
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unlimited => f.write_str("unlimited"),
            Self::Rate(rate) => rate.fmt(f),
        }
    }
}

/// How much a node can send or receive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Capacity {
    /// What is found out on the node.
    #[default]
    Auto,
    /// The same, and this was found. No document says it.
    Found(Rate),
    /// This rate.
    Rate(Rate),
}

impl FromStr for Capacity {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        match text {
            "auto" => Ok(Self::Auto),
            rate => Rate::read(rate, CAPACITY_WORDS).map(Self::Rate),
        }
    }
}

impl fmt::Display for Capacity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto | Self::Found(_) => f.write_str("auto"),
            Self::Rate(rate) => rate.fmt(f),
        }
    }
}

/// Rule of a key that holds a capacity.
pub(crate) fn capacity(value: &DeValue<'_>) -> Result<Capacity, Refusal> {
    from_string(value, CAPACITY_WORDS)
}

/// Rule of a key that holds a limit.
pub(crate) fn limit(value: &DeValue<'_>) -> Result<Limit, Refusal> {
    from_string(value, LIMIT_WORDS)
}

/// Rule of a key that holds a rate, or is not given.
pub(crate) fn some_rate(value: &DeValue<'_>) -> Result<Option<Rate>, Refusal> {
    from_string(value, RATE_WORDS).map(Some)
}

/// Rule of a key that holds a limit, or is not given.
pub(crate) fn some_limit(value: &DeValue<'_>) -> Result<Option<Limit>, Refusal> {
    limit(value).map(Some)
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn rate(text: &str) -> Result<u64, String> {
        text.parse().map(Rate::bits_per_sec).map_err(|e: QuantityError| e.to_string())
    }

    #[test]
    fn every_unit_has_its_factor() {
        assert_eq!(rate("1000bit"), Ok(1_000));
        assert_eq!(rate("1kbit"), Ok(1_000));
        assert_eq!(rate("2 Mbit"), Ok(2_000_000));
        assert_eq!(rate("3gbit"), Ok(3_000_000_000));
        assert_eq!(rate(" 4\tTbit "), Ok(4_000_000_000_000));
        assert_eq!(rate("1Kibit"), Ok(1_024));
        assert_eq!(rate("1mibit"), Ok(1_048_576));
        assert_eq!(rate("1Gibit"), Ok(1_073_741_824));
    }

    #[test]
    fn kubernetes_quantities_are_bits_per_second() {
        assert_eq!(rate("10M"), Ok(10_000_000));
        assert_eq!(rate("1Gi"), Ok(1_073_741_824));
        assert_eq!(rate("1e9"), Ok(1_000_000_000));
        assert_eq!(rate("10000001m"), Ok(10_001));
        assert_eq!(rate("+.5k5"), Err(not_a_rate("+.5k5")));
        assert_eq!(rate("10m"), Err(out_of_range("10m")));
        assert_eq!(rate("-5M"), Err(out_of_range("-5M")));
        assert_eq!(rate("1E"), Err(out_of_range("1E")));
        assert_eq!("10M".parse::<Rate>().expect("rate").to_string(), "10Mbit");
    }

    fn not_a_rate(found: &str) -> String {
        format!("{found:?} is not a number with a unit; use 1kbit to 1000Tbit, e.g. \"500Mbit\"")
    }

    #[test]
    fn fractions_are_exact_and_round_up() {
        assert_eq!(rate("1.5Gbit"), Ok(1_500_000_000));
        assert_eq!(rate("0.1Kibit"), Err(out_of_range("0.1Kibit")));
        assert_eq!(rate("1.0001kbit"), Ok(1_001));
        assert_eq!(rate("999.1bit"), Ok(1_000));
        assert_eq!(rate("0001.50000000000000000000000000000Gbit"), Ok(1_500_000_000));
        assert_eq!(rate("0.1234567890123456789Tbit"), Ok(123_456_789_013));
    }

    fn out_of_range(found: &str) -> String {
        format!("{found:?} is out of range; use 1kbit to 1000Tbit")
    }

    #[test]
    fn range_ends_are_inside() {
        assert_eq!(rate("1000Tbit"), Ok(1_000_000_000_000_000));
        assert_eq!(rate("999bit"), Err(out_of_range("999bit")));
        assert_eq!(rate("1000000000000001bit"), Err(out_of_range("1000000000000001bit")));
        assert_eq!(rate("99999999999999999999Tbit"), Err(out_of_range("99999999999999999999Tbit")));
    }

    #[test]
    fn messages_name_what_was_found_and_what_is_allowed() {
        let units = "use bit, kbit, mbit, gbit or tbit, e.g. \"500Mbit\"";
        assert_eq!(rate("500"), Err(format!("\"500\" has no unit; {units}")));
        for wrong in ["10Mb", "10MB", "10Mbps", "10MBIT", "10 Mbit/s", "1_000Mbit"] {
            assert_eq!(rate(wrong), Err(format!("{wrong:?} has an unknown unit; {units}")));
        }
        let number = "is not a number with a unit; use 1kbit to 1000Tbit, e.g. \"500Mbit\"";
        for wrong in ["", "fast", "-5Mbit", ".5Gbit", "5.Gbit", "1.5.2Gbit", "1,5Gbit", "Mbit"] {
            assert_eq!(rate(wrong), Err(format!("{wrong:?} {number}")));
        }
        assert_eq!(
            rate("100000000000000000000bit"),
            Err("\"100000000000000000000bit\" has more than 20 digits; use 1kbit to 1000Tbit"
                .into())
        );
    }

    #[test]
    fn limit_is_a_rate_or_unlimited() {
        assert_eq!("unlimited".parse(), Ok(Limit::Unlimited));
        assert_eq!("1Gbit".parse(), Ok(Limit::Rate(Rate(1_000_000_000))));
        assert_eq!(Limit::Unlimited.to_string(), "unlimited");
        assert_eq!(
            "0Mbit".parse::<Limit>().expect_err("zero").to_string(),
            "\"0Mbit\" is out of range; use 1kbit to 1000Tbit or \"unlimited\""
        );
    }

    #[test]
    fn rates_print_in_the_largest_unit_that_divides_them() {
        for text in ["500Mbit", "1500Mbit", "1001bit", "1000Tbit", "1kbit"] {
            assert_eq!(text.parse::<Rate>().expect("rate").to_string(), text);
        }
        assert_eq!(Rate(1_048_576).to_string(), "1048576bit");
    }

    proptest! {
        #[test]
        fn rates_survive_printing(bits in RATE_RANGE) {
            prop_assert_eq!(Rate(bits).to_string().parse(), Ok(Rate(bits)));
        }

        #[test]
        fn round_rates_survive_printing(bits in 1..=1_000_u64, unit in 1..5_usize) {
            let rate = Rate(bits * 1_000_u64.pow(unit as u32));
            prop_assert_eq!(rate.to_string().parse(), Ok(rate));
        }

        #[test]
        fn any_text_is_a_limit_or_a_message(text in ".*") {
            if let Err(error) = text.parse::<Limit>() {
                prop_assert!(error.to_string().contains("; use "));
            }
        }
    }
}
