// SPDX-License-Identifier: Apache-2.0

//! Patterns for names of namespaces and pods: "batch-*" matches "batch-7".
//!
//! `*` stands for any characters or none, `?` for exactly one. A pattern is the more precise the
//! more literal characters it has. Whether two patterns can match one name is decided exactly.
//! Never knows which names there are.

use std::fmt;

use toml::de::DeValue;

use crate::text::code;
use crate::text::problem::{Refusal, quote};
use crate::text::reader::{describe, wrong_type};

/// Longest pattern: generated pod names are never longer, and one word of bits holds as many states.
pub(crate) const LONGEST: usize = 63;

/// Most patterns of one list: enough to read over, and each pod is tried against all of them.
pub(crate) const MOST_PATTERNS: usize = 16;

pub(crate) const ALLOWED: &str = "1 to 63 characters of a-z, 0-9, -, . and the wildcards * and ?";

/// A pattern that a name can match: 1 to 63 of `a-z 0-9 - . * ?`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Pattern(String);

/// One step of a pattern or of a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Step {
    Literal(u8),
    One,
    Many,
}

impl Pattern {
    /// None if no Kubernetes name could match, or if it is too long.
    pub fn new(text: &str) -> Option<Self> {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || b"-.*?".contains(&c);
        let fits = (1..=LONGEST).contains(&text.len()) && text.bytes().all(good);
        fits.then(|| Self(text.to_owned()))
    }

    /// The pattern as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether a name matches, from its first to its last character.
    pub fn matches(&self, name: &str) -> bool {
        meet(name.bytes().map(Step::Literal), &self.steps())
    }

    /// Whether there is a name that both match.
    pub fn overlaps(&self, other: &Self) -> bool {
        // Most patterns differ in how they begin or end, which is faster to see.
        let ends_differ = differ(self.0.bytes(), other.0.bytes())
            || differ(self.0.bytes().rev(), other.0.bytes().rev());
        !ends_differ && meet(self.steps().into_iter(), &other.steps())
    }

    /// How many literal characters it has.
    pub fn precision(&self) -> usize {
        self.0.bytes().filter(|c| !is_wildcard(*c)).count()
    }

    fn steps(&self) -> Vec<Step> {
        let step = |c| match c {
            b'*' => Step::Many,
            b'?' => Step::One,
            literal => Step::Literal(literal),
        };
        self.0.bytes().map(step).collect()
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_wildcard(c: u8) -> bool {
    matches!(c, b'*' | b'?')
}

/// Whether two patterns have different literals before either has a wildcard.
fn differ(one: impl Iterator<Item = u8>, other: impl Iterator<Item = u8>) -> bool {
    let mut literals = one.zip(other).take_while(|(a, b)| !is_wildcard(*a) && !is_wildcard(*b));
    literals.any(|(a, b)| a != b)
}

/// Whether two step sequences have a name in common.
///
/// Walks `left` step by step; bit n of `reached` says that n steps of `right` can be done by then.
fn meet(left: impl Iterator<Item = Step>, right: &[Step]) -> bool {
    let many = bits(right, |step| step == Step::Many);
    let mut reached = past_many(1, many);
    for step in left {
        reached = match step {
            // Any state from the first reached one on: `*` takes whatever `right` needs in between.
            Step::Many => reached | !(reached & reached.wrapping_neg()).wrapping_sub(1),
            one => {
                let same = bits(right, |step| {
                    step != Step::Many && (step == one || step == Step::One || one == Step::One)
                });
                past_many((reached & many) | ((reached & same) << 1), many)
            }
        };
        if reached == 0 {
            return false;
        }
    }
    reached >> right.len() & 1 == 1
}

/// Bit n: whether step n is wanted.
fn bits(steps: &[Step], wanted: impl Fn(Step) -> bool) -> u64 {
    steps.iter().enumerate().fold(0, |bits, (n, step)| bits | (u64::from(wanted(*step)) << n))
}

/// Adds what is reached when each `*` may also stand for nothing.
fn past_many(mut reached: u64, many: u64) -> u64 {
    loop {
        let further = reached | ((reached & many) << 1);
        if further == reached {
            return reached;
        }
        reached = further;
    }
}

/// One to 16 patterns; a name matches if it matches one of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Patterns(Vec<Pattern>);

impl Patterns {
    /// The list `["*"]`.
    pub(crate) fn all() -> Self {
        Self(vec![Pattern("*".to_owned())])
    }

    /// The patterns as written.
    pub fn iter(&self) -> std::slice::Iter<'_, Pattern> {
        self.0.iter()
    }

    /// Precision of the most precise pattern that matches, if one does.
    pub fn precision_for(&self, name: &str) -> Option<usize> {
        self.iter().filter(|pattern| pattern.matches(name)).map(Pattern::precision).max()
    }

    /// Two patterns, one of each list, that overlap and are equally precise.
    pub(crate) fn rivals<'p>(&'p self, other: &'p Self) -> Option<(&'p Pattern, &'p Pattern)> {
        let rival = |own: &Pattern, other: &Pattern| {
            own.precision() == other.precision() && own.overlaps(other)
        };
        self.iter().find_map(|own| Some((own, other.iter().find(|other| rival(own, other))?)))
    }
}

/// Rule of a key that holds patterns.
pub(crate) fn patterns(value: &DeValue<'_>) -> Result<Patterns, Refusal> {
    let DeValue::Array(items) = value else {
        return Err(wrong_type(value, "an array of patterns, e.g. [\"batch-*\"]"));
    };
    if items.is_empty() {
        let message = "found an empty array; use at least one pattern, [\"*\"] for all names";
        return Err(Refusal::new(code::NOT_ALLOWED, message));
    }
    if items.len() > MOST_PATTERNS {
        let message = format!("found {} patterns; use at most {MOST_PATTERNS}", items.len());
        return Err(Refusal::new(code::TOO_MANY, message));
    }
    items.iter().map(|item| pattern(item.get_ref())).collect::<Result<_, _>>().map(Patterns)
}

fn pattern(value: &DeValue<'_>) -> Result<Pattern, Refusal> {
    let Some(text) = value.as_str() else {
        let message = format!("found {} in the array; use strings: {ALLOWED}", describe(value));
        return Err(Refusal::new(code::WRONG_TYPE, message));
    };
    Pattern::new(text).ok_or_else(|| {
        let message = format!("{} is not a pattern; use {ALLOWED}", quote(text));
        Refusal::new(code::BAD_PATTERN, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    use proptest::prelude::*;

    fn pattern(text: &str) -> Pattern {
        Pattern::new(text).expect("pattern")
    }

    #[test]
    fn wildcards_stand_for_characters() {
        let matching = [
            ("batch-*", "batch-7"),
            ("batch-*", "batch-"),
            ("*", ""),
            ("*", "any.name"),
            ("a?c", "abc"),
            ("*-db-*", "x-db-db-0"),
            ("**", "x"),
            ("a", "a"),
        ];
        for (text, name) in matching {
            assert!(pattern(text).matches(name), "{text} {name}");
        }
        let other = [("batch-*", "batch"), ("a?c", "ac"), ("a", "ab"), ("a", ""), ("a*b", "abc")];
        for (text, name) in other {
            assert!(!pattern(text).matches(name), "{text} {name}");
        }
        assert!(!pattern("a").matches("*"));
        assert!(pattern(&"*".repeat(63)).matches(&"x".repeat(253)));
        assert!(!pattern(&"?".repeat(63)).matches(&"x".repeat(62)));
        assert!(pattern(&"?".repeat(63)).matches(&"x".repeat(63)));
    }

    #[test]
    fn overlap_is_exact() {
        for (one, other) in [("a*", "*b"), ("*", "a"), ("a?", "?b"), ("a*c", "ab*"), ("*a*", "*b*")]
        {
            assert!(pattern(one).overlaps(&pattern(other)), "{one} {other}");
        }
        for (one, other) in
            [("a*", "b*"), ("a", "b"), ("a?", "a"), ("*a", "*b"), ("a-*", "a"), ("?", "a?*")]
        {
            assert!(!pattern(one).overlaps(&pattern(other)), "{one} {other}");
        }
    }

    #[test]
    fn pattern_is_what_a_name_could_match() {
        for bad in ["", "Batch", "a b", "a/b", "[ab]", "ä", "a_b", &"a".repeat(64)] {
            assert_eq!(Pattern::new(bad), None, "{bad}");
        }
    }

    #[test]
    fn precision_counts_literals() {
        assert_eq!(["*", "a?", "a-*b", "abc"].map(|text| pattern(text).precision()), [0, 1, 3, 3]);
    }

    /// The definition, slow but plain.
    fn plainly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            ([b'*', rest @ ..], _) => (0..=name.len()).any(|taken| plainly(rest, &name[taken..])),
            ([b'?', rest @ ..], [_, name @ ..]) => plainly(rest, name),
            ([c, rest @ ..], [d, name @ ..]) => c == d && plainly(rest, name),
            _ => false,
        }
    }

    fn names() -> Vec<String> {
        let mut names = vec![String::new()];
        for length in 0..8 {
            let longer = names.iter().filter(|name| name.len() == length);
            names.extend(
                longer.flat_map(|n| [format!("{n}a"), format!("{n}b")]).collect::<Vec<_>>(),
            );
        }
        names
    }

    proptest! {
        #[test]
        fn matching_agrees_with_the_definition(text in "[ab*?]{1,8}", name in "[ab]{0,8}") {
            let expected = plainly(text.as_bytes(), name.as_bytes());
            prop_assert_eq!(pattern(&text).matches(&name), expected);
        }

        #[test]
        fn overlap_agrees_with_trying_every_name(one in "[ab*?]{1,4}", other in "[ab*?]{1,4}") {
            let (one, other) = (pattern(&one), pattern(&other));
            let shared = names().iter().any(|name| one.matches(name) && other.matches(name));
            prop_assert_eq!(one.overlaps(&other), shared);
            prop_assert_eq!(other.overlaps(&one), shared);
        }
    }
}
