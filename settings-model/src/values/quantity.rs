// SPDX-License-Identifier: Apache-2.0

//! Numbers with units: how they are read and printed, and what can be wrong with them.
//!
//! Integers only, fractions rounded up, so nothing is lost or shortened. What units there are
//! and what range is good comes from `rate.rs` and `burst.rs`.
//! Never clamps: what is out of range is refused.

use std::ops::RangeInclusive;
use std::str::FromStr;

use thiserror::Error;
use toml::de::DeValue;

use crate::text::code;
use crate::text::problem::{Refusal, quote};
use crate::text::reader;

pub use crate::values::kubernetes::{AnnotationError, annotation};

/// Spelling of a unit and how many base units it is.
pub(crate) type Unit = (&'static str, u64);

/// More digits than any useful quantity; keeps every product below within u128.
const MOST_DIGITS: usize = 20;

/// How messages name what is allowed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Words {
    pub(crate) units: &'static str,
    pub(crate) example: &'static str,
    pub(crate) range: &'static str,
}

/// Why a text is not a quantity of the wanted kind.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{found} {what}")]
pub struct QuantityError {
    found: String,
    what: String,
    code: &'static str,
}

impl QuantityError {
    fn new(found: &str, code: &'static str, what: String) -> Self {
        Self { found: quote(found), what, code }
    }

    fn not_a_number(found: &str, words: Words) -> Self {
        let Words { example, range, .. } = words;
        let what = format!("is not a number with a unit; use {range}, e.g. {example}");
        Self::new(found, code::NOT_A_QUANTITY, what)
    }

    fn too_many_digits(found: &str, words: Words) -> Self {
        let what = format!("has more than {MOST_DIGITS} digits; use {}", words.range);
        Self::new(found, code::NOT_A_QUANTITY, what)
    }

    fn no_unit(found: &str, words: Words) -> Self {
        let Words { units, example, .. } = words;
        let what = format!("has no unit; use {units}, e.g. {example}");
        Self::new(found, code::MISSING_UNIT, what)
    }

    pub(crate) fn unknown_unit(found: &str, words: Words) -> Self {
        let Words { units, example, .. } = words;
        let what = format!("has an unknown unit; use {units}, e.g. {example}");
        Self::new(found, code::UNKNOWN_UNIT, what)
    }

    pub(crate) fn out_of_range(found: &str, words: Words) -> Self {
        let what = format!("is out of range; use {}", words.range);
        Self::new(found, code::OUT_OF_RANGE, what)
    }
}

impl From<QuantityError> for Refusal {
    fn from(error: QuantityError) -> Self {
        Refusal::new(error.code, error.to_string())
    }
}

/// Reads a quantity from a TOML string; for a bare number the error explains units.
pub(crate) fn from_string<T>(value: &DeValue<'_>, words: Words) -> Result<T, Refusal>
where
    T: FromStr<Err = QuantityError>,
{
    match value {
        DeValue::String(text) => text.parse().map_err(Refusal::from),
        DeValue::Integer(_) | DeValue::Float(_) => {
            let found = reader::describe(value);
            Err(QuantityError { found, ..QuantityError::no_unit("", words) }.into())
        }
        other => {
            let Words { example, range, .. } = words;
            let wanted = format!("a string: {range}, e.g. {example}");
            Err(reader::wrong_type(other, &wanted))
        }
    }
}

/// A decimal number, `digits / 10^decimals`, and the unit behind it.
pub(crate) struct Number<'t> {
    digits: u128,
    decimals: u32,
    pub(crate) unit: &'t str,
}

impl<'t> Number<'t> {
    /// Splits `"1.5 Gbit"`; the unit is there but not yet known to be a good one.
    pub(crate) fn read(text: &'t str, words: Words) -> Result<Self, QuantityError> {
        let not_a_number = || QuantityError::not_a_number(text, words);
        let (whole, rest) = split_digits(text.trim());
        let (fraction, rest) = match rest.strip_prefix('.') {
            Some(rest) => split_digits(rest),
            None => ("0", rest),
        };
        let unit = rest.trim_start();
        if whole.is_empty() || fraction.is_empty() || unit.starts_with(['.', ',']) {
            return Err(not_a_number());
        }
        if unit.is_empty() {
            return Err(QuantityError::no_unit(text, words));
        }
        let fraction = fraction.trim_end_matches('0');
        let digits = format!("{}{fraction}", whole.trim_start_matches('0'));
        if digits.len() > MOST_DIGITS {
            return Err(QuantityError::too_many_digits(text, words));
        }
        let decimals = u32::try_from(fraction.len()).map_err(|_| not_a_number())?;
        let digits = format!("0{digits}").parse().map_err(|_| not_a_number())?;
        Ok(Self { digits, decimals, unit })
    }

    /// The number times `factor`, rounded up; `None` outside the range.
    pub(crate) fn times(&self, factor: u64, range: &RangeInclusive<u64>) -> Option<u64> {
        let divisor = 10_u128.checked_pow(self.decimals)?;
        let product = self.digits.checked_mul(u128::from(factor))?.div_ceil(divisor);
        u64::try_from(product).ok().filter(|value| range.contains(value))
    }
}

fn split_digits(text: &str) -> (&str, &str) {
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.split_at(end)
}

/// How many base units a unit is, if the table has it.
pub(crate) fn factor(unit: &str, units: &[Unit]) -> Option<u64> {
    units.iter().find(|(name, _)| *name == unit).map(|(_, factor)| *factor)
}

/// The value in the largest unit that divides it; units from large to small, down to 1.
pub(crate) fn canonical(value: u64, units: &[Unit]) -> String {
    let whole = units.iter().find(|(_, factor)| value.is_multiple_of(*factor));
    let (name, factor) = whole.unwrap_or(&("", 1));
    format!("{}{name}", value / factor)
}
