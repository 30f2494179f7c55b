// SPDX-License-Identifier: Apache-2.0

//! How much of the node's capacity a pod has beside others: whole numbers, of which only the ratio matters.
//!
//! Owns the range.
//! Never knows whose weight it is.

use std::fmt;
use std::str::FromStr;

use toml::de::DeValue;

use crate::text::problem::Refusal;
use crate::values::number::{Range, whole};

/// The heaviest pod of a node still leaves the lightest a part that its clock can count.
pub(crate) const WEIGHTS: Range = 1..=10_000;

const ALLOWED: &str = "a whole number";

/// 1 to 10000.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Weight(u16);

impl Weight {
    /// The largest.
    pub const MOST: Self = Self(*WEIGHTS.end());

    /// None outside the range.
    pub fn new(weight: u16) -> Option<Self> {
        WEIGHTS.contains(&weight).then_some(Self(weight))
    }

    /// The number itself.
    pub fn value(self) -> u16 {
        self.0
    }
}

impl Default for Weight {
    fn default() -> Self {
        Self(100)
    }
}

impl fmt::Display for Weight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Why a text is no weight.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoWeight(String);

impl fmt::Display for NoWeight {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (least, most) = (WEIGHTS.start(), WEIGHTS.end());
        write!(f, "{:?} is no weight; use {ALLOWED} from {least} to {most}", self.0)
    }
}

impl std::error::Error for NoWeight {}

impl FromStr for Weight {
    type Err = NoWeight;

    fn from_str(text: &str) -> Result<Self, NoWeight> {
        text.parse().ok().and_then(Self::new).ok_or_else(|| NoWeight(text.to_owned()))
    }
}

/// Rule of a key that holds a weight, or is not given.
pub(crate) fn some_weight(value: &DeValue<'_>) -> Result<Option<Weight>, Refusal> {
    whole(value, &WEIGHTS, ALLOWED).map(|weight| Some(Weight(weight)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weight_is_a_whole_number_in_its_range() {
        for text in ["1", "100", "10000"] {
            assert_eq!(
                text.parse::<Weight>().map(|weight| weight.to_string()),
                Ok(text.to_owned())
            );
        }
        for text in ["0", "10001", "-1", "1.5", "", "ten", " 5"] {
            let error = text.parse::<Weight>().expect_err(text).to_string();
            assert_eq!(error, format!("{text:?} is no weight; use a whole number from 1 to 10000"));
        }
    }
}
