// SPDX-License-Identifier: Apache-2.0

//! Stable names of the kinds of problem and warning, for programs; people get the message.
//!
//! A code is never renamed and never given another meaning. This is the whole list.

macro_rules! codes {
    ($($name:ident = $code:literal, $meaning:literal;)+) => {
        $(#[doc = $meaning] pub const $name: &str = $code;)+

        /// Every code with its meaning.
        pub const ALL: &[(&str, &str)] = &[$(($code, $meaning)),+];
    };
}

codes! {
    SYNTAX = "toml-syntax", "The text is not TOML.";
    DUPLICATE_KEY = "duplicate-key", "A key or table is given twice.";
    UNKNOWN_KEY = "unknown-key", "A key or table that our table does not have.";
    MISSPELT_TABLE = "misspelt-table", "A table whose name is nearly that of ours, or in other letter case.";
    MISSING_KEY = "missing-key", "A required key is not there.";
    WRONG_TYPE = "wrong-type", "A value of another TOML type than the key needs.";
    UNSUPPORTED_VERSION = "unsupported-version", "A settings version newer than this program.";
    NOT_A_QUANTITY = "not-a-quantity", "Text that is not a number followed by a unit.";
    MISSING_UNIT = "missing-unit", "A number without a unit.";
    UNKNOWN_UNIT = "unknown-unit", "A number with a unit that the key does not take.";
    OUT_OF_RANGE = "out-of-range", "A quantity or number that is too small or too large.";
    NOT_ALLOWED = "not-allowed", "A value that is not one of the allowed ones.";
    BAD_PATH = "bad-path", "A path that is empty, relative or impossible.";
    BAD_ADDRESS = "bad-address", "Text that is not an address and a port to listen on.";
    BAD_NAME = "bad-name", "A class name that could not be a label.";
    BAD_PATTERN = "bad-pattern", "Text that is not a pattern for names.";
    TOO_MANY = "too-many", "More items than are allowed.";
    DUPLICATE_CLASS = "duplicate-class", "A class name that one document gives twice.";
    AMBIGUOUS_CLASSES = "ambiguous-classes", "Two classes that match the same pods equally well.";
    LIMIT_ABOVE_CAPACITY = "limit-above-capacity", "A pod's limit above the node's capacity.";
    ABOVE_MAXIMUM = "above-maximum", "A limit or burst above the maximum that the settings have for it.";
    BURST_TOO_SMALL = "burst-too-small", "A burst that does not hold two full frames.";
    MAX_PODS_DIFFER = "max-pods-differ", "Our max-pods and kubernetes' contradict each other.";
    IPV6_WITHOUT_PREFIXES = "ipv6-without-prefixes", "IPv6 pods in a cluster that delegates no prefixes.";
    IPV6_CUSTOM_NETWORKING = "ipv6-custom-networking", "IPv6 pods and custom networking, which exclude each other.";
    GROWTH_FROZEN = "growth-frozen", "Targets with which a node never gets more than its first addresses.";
    TABLES_DIFFER = "tables-differ", "[settings.sluice] and [sluice] mean different things.";
    MORE = "more", "Stands for all further problems, after the first hundred.";
    WITHOUT_EFFECT = "without-effect", "Warning: a key that does nothing: in this version, or while what it is for is off.";
    OVERRIDDEN = "overridden", "Warning: a key that another one makes ineffective.";
    DEPRECATED_KEY = "deprecated-key", "Warning: a key that has a successor.";
    NOT_HONOURED = "not-honoured", "Warning: a value of a foreign key that is of no use.";
}

#[cfg(test)]
mod tests {
    use super::ALL;
    use std::collections::BTreeSet;

    #[test]
    fn each_code_is_given_once() {
        let codes: BTreeSet<_> = ALL.iter().map(|(code, _)| code).collect();
        assert_eq!(codes.len(), ALL.len());
    }
}
