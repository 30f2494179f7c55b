// SPDX-License-Identifier: Apache-2.0

//! Keys that count something: whole numbers without quotes.
//!
//! Never clamps: what is out of range is refused.

use std::ops::RangeInclusive;

use toml::de::DeValue;

use crate::text::code;
use crate::text::problem::Refusal;
use crate::text::reader::wrong_type;

/// What a counting key takes.
pub(crate) type Range = RangeInclusive<u16>;

/// Reads a whole number; `allowed` is what a message calls it, e.g. `"auto", or a whole number`.
pub(crate) fn whole(value: &DeValue<'_>, range: &Range, allowed: &str) -> Result<u16, Refusal> {
    let allowed = format!("{allowed} from {} to {} without quotes", range.start(), range.end());
    let DeValue::Integer(number) = value else { return Err(wrong_type(value, &allowed)) };
    let read = u16::from_str_radix(number.as_str(), number.radix()).ok();
    read.filter(|number| range.contains(number)).ok_or_else(|| {
        Refusal::new(code::OUT_OF_RANGE, format!("{number} is out of range; use {allowed}"))
    })
}
