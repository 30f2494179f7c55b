// SPDX-License-Identifier: Apache-2.0
//! How long an override lasts: `90s`, `10m`, `2h`, `7d`.

use std::fmt;
use std::str::FromStr;

pub const ALLOWED: &str = "a whole number with s, m, h or d, e.g. \"10m\"; 1s to 7d";
const LONGEST_SECONDS: u64 = 7 * DAY;
const DAY: u64 = 24 * 3600;

/// From one second to seven days.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TimeToLive(u64);

/// Text that is none.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TimeToLiveError {
    #[error("{0:?} is not a time; use a whole number with s, m, h or d, e.g. 10m")]
    NotATime(String),
    #[error("{0:?} is out of range; use 1s to 7d")]
    OutOfRange(String),
}

impl TimeToLive {
    pub fn seconds(self) -> u64 {
        self.0
    }

    /// What is left of one; None once it is over.
    pub fn left(seconds: u64) -> Option<Self> {
        (seconds > 0).then_some(Self(seconds))
    }
}

impl FromStr for TimeToLive {
    type Err = TimeToLiveError;

    fn from_str(text: &str) -> Result<Self, TimeToLiveError> {
        let not_a_time = || TimeToLiveError::NotATime(text.chars().take(32).collect());
        let digits_end = text.find(|c: char| !c.is_ascii_digit()).ok_or_else(not_a_time)?;
        let (digits, unit) = text.split_at(digits_end);
        let unit_seconds = match unit {
            "s" => 1,
            "m" => 60,
            "h" => 3600,
            "d" => DAY,
            _ => return Err(not_a_time()),
        };
        if digits.is_empty() {
            return Err(not_a_time());
        }
        let seconds = digits.parse().unwrap_or(u64::MAX).saturating_mul(unit_seconds);
        let in_range = (1..=LONGEST_SECONDS).contains(&seconds);
        let out_of_range = || TimeToLiveError::OutOfRange(text.chars().take(32).collect());
        in_range.then_some(Self(seconds)).ok_or_else(out_of_range)
    }
}

impl fmt::Display for TimeToLive {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        let units = [(DAY, "d"), (3600, "h"), (60, "m"), (1, "s")];
        let mut rest = self.0;
        for (seconds, unit) in units {
            if rest >= seconds {
                write!(f, "{}{unit}", rest / seconds)?;
                rest %= seconds;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(text: &str) -> Result<u64, String> {
        text.parse::<TimeToLive>().map(TimeToLive::seconds).map_err(|e| e.to_string())
    }

    #[test]
    fn whole_numbers_with_a_unit_are_times() {
        let table = [("1s", 1), ("90s", 90), ("10m", 600), ("2h", 7200), ("7d", LONGEST_SECONDS)];
        table.iter().for_each(|(text, expected)| assert_eq!(seconds(text), Ok(*expected)));
    }

    #[test]
    fn all_else_is_refused_with_what_it_was() {
        for text in ["", "10", "m", "-1s", "+1s", "1.5h", "1 m", "10M", "1h30m", "10ms", "１s"] {
            let error =
                format!("{text:?} is not a time; use a whole number with s, m, h or d, e.g. 10m");
            assert_eq!(seconds(text), Err(error));
        }
        for text in ["0s", "8d", "169h", "99999999999999999999d", "18446744073709551615d"] {
            assert_eq!(seconds(text), Err(format!("{text:?} is out of range; use 1s to 7d")));
        }
    }

    #[test]
    fn times_are_printed_in_their_largest_units() {
        let text = |seconds| TimeToLive(seconds).to_string();
        assert_eq!(
            (text(90), text(7200), text(90_061)),
            ("1m30s".into(), "2h".into(), "1d1h1m1s".into())
        );
    }
}
