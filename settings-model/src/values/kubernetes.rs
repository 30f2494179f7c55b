// SPDX-License-Identifier: Apache-2.0

//! Kubernetes' `resource.Quantity`: "10M", "1Gi", "1e9", "1500m".
//!
//! Owns its grammar, its rounding (fractions up) and its error texts, as pod annotations meet them
//! in containerd. Exact for any number of digits: where Go's 64 bits wrap (`1e20` is 0 there, some
//! large negative numbers are positive), the value here is what the text says.
//! Never takes our own units; `rate.rs` does.

use thiserror::Error;

use crate::values::rate::{RATE_RANGE, Rate};

/// Why a text is not a bandwidth annotation, in the words of Kubernetes and containerd.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum AnnotationError {
    /// Not of the form sign, number, suffix.
    #[error(
        "quantities must match the regular expression \
         '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
    )]
    Format,
    /// A suffix that there is not.
    #[error("unable to parse quantity's suffix")]
    Suffix,
    /// A suffix without a number; other such texts count as 0.
    #[error("unable to parse numeric part of quantity")]
    Number,
    /// Less than 1 kbit/s, negative ones included.
    #[error("resource is unreasonably small (< 1kbit)")]
    TooSmall,
    /// More than 1 Pbit/s.
    #[error("resource is unreasonably large (> 1Pbit)")]
    TooLarge,
}

/// Reads a pod's bandwidth annotation, in bit/s, as containerd does.
pub fn annotation(text: &str) -> Result<Rate, AnnotationError> {
    Quantity::read(text)?.rate()
}

/// A text's sign, digits and suffix; not yet a number.
pub(crate) struct Quantity<'t> {
    negative: bool,
    whole: &'t str,
    fraction: &'t str,
    pub(crate) suffix: &'t str,
    scale: Scale,
}

/// What a suffix multiplies by.
#[derive(Clone, Copy)]
enum Scale {
    /// 10 to this power.
    Ten(i64),
    /// 1024 to this power.
    Binary(u32),
}

impl<'t> Quantity<'t> {
    pub(crate) fn read(text: &'t str) -> Result<Self, AnnotationError> {
        if text.is_empty() {
            return Err(AnnotationError::Format);
        }
        let unsigned = text.strip_prefix(['-', '+']).unwrap_or(text);
        let (whole, rest) = split_while(unsigned, |c| c.is_ascii_digit());
        let (fraction, suffix) = match rest.strip_prefix('.') {
            Some(rest) => split_while(rest, |c| c.is_ascii_digit()),
            None => ("", rest),
        };
        check_suffix_letters(suffix)?;
        let scale = scale(suffix)?;
        let no_digits = whole.is_empty() && fraction.is_empty();
        if no_digits && matches!(scale, Scale::Binary(5..) | Scale::Ten(..=-10)) {
            return Err(AnnotationError::Number);
        }
        Ok(Self { negative: text.starts_with('-'), whole, fraction, suffix, scale })
    }

    /// The value as bit/s, rounded up.
    pub(crate) fn rate(&self) -> Result<Rate, AnnotationError> {
        let mut number = Decimal::new(self.whole, self.fraction);
        match self.scale {
            Scale::Ten(power) => number.point = number.point.saturating_add(power),
            Scale::Binary(power) => (0..power).for_each(|_| number.times_1024()),
        }
        let bits = if self.negative { Some(0) } else { number.rounded_up() };
        match bits {
            Some(bits) if bits < *RATE_RANGE.start() => Err(AnnotationError::TooSmall),
            bits => bits.and_then(Rate::from_bits_per_sec).ok_or(AnnotationError::TooLarge),
        }
    }
}

fn split_while(text: &str, wanted: fn(char) -> bool) -> (&str, &str) {
    let end = text.find(|c| !wanted(c)).unwrap_or(text.len());
    text.split_at(end)
}

/// Letters, perhaps a sign, perhaps digits: the shape comes before the meaning.
fn check_suffix_letters(suffix: &str) -> Result<(), AnnotationError> {
    let (_, rest) = split_while(suffix, |c| "eEinumkKMGTP".contains(c));
    let digits = rest.strip_prefix(['-', '+']).unwrap_or(rest);
    match digits.chars().all(|c| c.is_ascii_digit()) {
        true => Ok(()),
        false => Err(AnnotationError::Format),
    }
}

fn scale(suffix: &str) -> Result<Scale, AnnotationError> {
    Ok(match suffix {
        "n" => Scale::Ten(-9),
        "u" => Scale::Ten(-6),
        "m" => Scale::Ten(-3),
        "" => Scale::Ten(0),
        "k" => Scale::Ten(3),
        "M" => Scale::Ten(6),
        "G" => Scale::Ten(9),
        "T" => Scale::Ten(12),
        "P" => Scale::Ten(15),
        "E" => Scale::Ten(18),
        "Ki" => Scale::Binary(1),
        "Mi" => Scale::Binary(2),
        "Gi" => Scale::Binary(3),
        "Ti" => Scale::Binary(4),
        "Pi" => Scale::Binary(5),
        "Ei" => Scale::Binary(6),
        exponent => Scale::Ten(read_exponent(exponent)?),
    })
}

fn read_exponent(suffix: &str) -> Result<i64, AnnotationError> {
    let digits = suffix.strip_prefix(['e', 'E']).ok_or(AnnotationError::Suffix)?;
    digits.parse().map_err(|_| AnnotationError::Suffix)
}

/// Digits, most significant first, and how many of them are before the point.
struct Decimal {
    digits: Vec<u8>,
    point: i64,
}

impl Decimal {
    fn new(whole: &str, fraction: &str) -> Self {
        let digits = whole.bytes().chain(fraction.bytes()).map(|digit| digit - b'0').collect();
        Self { digits, point: i64::try_from(whole.len()).unwrap_or(i64::MAX) }
    }

    fn times_1024(&mut self) {
        let mut carry = 0;
        for digit in self.digits.iter_mut().rev() {
            let product = u16::from(*digit) * 1024 + carry;
            *digit = (product % 10) as u8;
            carry = product / 10;
        }
        while carry > 0 {
            self.digits.insert(0, (carry % 10) as u8);
            self.point += 1;
            carry /= 10;
        }
    }

    /// The next whole number; none if it has more digits than any rate.
    fn rounded_up(&self) -> Option<u64> {
        const MOST_DIGITS: i64 = 18;
        let zeros = self.digits.iter().take_while(|digit| **digit == 0).count();
        let digits = self.digits.get(zeros..).filter(|digits| !digits.is_empty());
        let Some(digits) = digits else { return Some(0) };
        let point = self.point.saturating_sub(i64::try_from(zeros).ok()?);
        if point > MOST_DIGITS {
            return None;
        }
        let point = usize::try_from(point).unwrap_or(0);
        let padded = digits.iter().chain(std::iter::repeat(&0)).take(point);
        let whole = padded.fold(0, |sum, digit| sum * 10 + u64::from(*digit));
        let fraction = digits.iter().skip(point).any(|digit| *digit > 0);
        Some(whole + u64::from(fraction))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> String {
        match annotation(text) {
            Ok(rate) => rate.bits_per_sec().to_string(),
            Err(error) => error.to_string(),
        }
    }

    fn check_table(table: &str) -> usize {
        let rows = table.lines().filter(|line| !line.starts_with('#'));
        rows.map(|row| {
            let (text, expected) = row.split_once('\t').expect("two columns");
            let text: String = serde_json::from_str(text).expect("JSON string");
            assert_eq!(read(&text), expected, "{text:?}");
        })
        .count()
    }

    #[test]
    fn every_row_of_the_table_agrees_with_kubernetes() {
        assert!(check_table(include_str!("../../testdata/annotation-quantities.tsv")) >= 200);
    }

    #[test]
    #[ignore = "needs QUANTITY_TABLE=file, a larger table of the same form, e.g. of random texts"]
    fn a_table_from_outside_agrees_too() {
        let path = std::env::var_os("QUANTITY_TABLE").expect("QUANTITY_TABLE");
        check_table(&std::fs::read_to_string(path).expect("read QUANTITY_TABLE"));
    }

    #[test]
    fn numbers_that_wrap_in_go_are_what_they_say() {
        // In Go 0, 5000000, 1000 and 0: 64-bit value, 64-bit value, 32-bit exponent, 64-bit value.
        for text in ["1e20", "18446744073714551616", "1e4294967299", "10E"] {
            assert_eq!(annotation(text), Err(AnnotationError::TooLarge), "{text}");
        }
        let long = format!("0.{}1e{}", "0".repeat(5_000), 5_007);
        assert_eq!(read(&long), "1000000");
        assert_eq!(annotation("1e9223372036854775807"), Err(AnnotationError::TooLarge));
        assert_eq!(annotation("1e-9223372036854775808"), Err(AnnotationError::TooSmall));
    }
}
