// SPDX-License-Identifier: Apache-2.0

//! How long a packet may wait for its pod's limit before the queue is made to shrink: "5ms".
//!
//! Never knows how a queue is made to shrink.

use std::fmt;
use std::ops::RangeInclusive;
use std::str::FromStr;

use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::values::burst::TIME_UNITS;
use crate::values::quantity::{Number, QuantityError, Words, canonical, factor, from_string};

/// Below 1 ms a single super-packet, cut to about that time, would be over the target; 100 ms is
/// CoDel's interval, and a delay must be seen within it.
const RANGE_NS: RangeInclusive<u64> = 1_000_000..=100_000_000;

pub(crate) const WORDS: Words =
    Words { units: "ns, us, ms or s", example: "\"5ms\"", range: "1ms to 100ms" };

/// Nanoseconds, 1 ms to 100 ms.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct LatencyTarget(u64);

impl LatencyTarget {
    /// The time in nanoseconds.
    pub fn ns(self) -> u64 {
        self.0
    }
}

impl Default for LatencyTarget {
    /// 5 ms, CoDel's.
    fn default() -> Self {
        Self(5_000_000)
    }
}

impl FromStr for LatencyTarget {
    type Err = QuantityError;

    fn from_str(text: &str) -> Result<Self, QuantityError> {
        let number = Number::read(text, WORDS)?;
        let factor = factor(number.unit, TIME_UNITS);
        let factor = factor.ok_or_else(|| QuantityError::unknown_unit(text, WORDS))?;
        let ns = number.times(factor, &RANGE_NS);
        ns.map(Self).ok_or_else(|| QuantityError::out_of_range(text, WORDS))
    }
}

impl fmt::Display for LatencyTarget {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&canonical(self.0, TIME_UNITS))
    }
}

/// Rule of a key that holds a latency target.
pub(crate) fn latency_target(value: &DeValue<'_>) -> Result<LatencyTarget, Refusal> {
    from_string(value, WORDS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn range_ends_are_inside() {
        let ns = |text: &str| text.parse().map(LatencyTarget::ns).map_err(|e| e.to_string());
        assert_eq!(ns("1ms"), Ok(1_000_000));
        assert_eq!(ns("0.1s"), Ok(100_000_000));
        for wrong in ["999us", "101ms", "0ms"] {
            let message = format!("{wrong:?} is out of range; use 1ms to 100ms");
            assert_eq!(ns(wrong), Err(message));
        }
        assert_eq!(
            ns("5KB"),
            Err("\"5KB\" has an unknown unit; use ns, us, ms or s, e.g. \"5ms\"".into())
        );
    }
}
