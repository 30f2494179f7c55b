// SPDX-License-Identifier: Apache-2.0

//! What an operator may write: TOML text in, typed [`Settings`] out, or all [`Problems`] at once.
//!
//! Owns the names, defaults and rules of our table, `[settings.sluice]` or top-level `[sluice]`;
//! everything outside that table belongs to others and is ignored.
//! Never reads a file, never probes the host, knows nothing of bpf or netlink.
//!
//! `text` is what any document is made of, `values` what may stand behind a key, `sections` our tables,
//! `document` all of it together, `docs` what is said of it. Each uses those before it and no other.
//! `bottlerocket` is our table as that system keeps it; it uses `document`.

#![forbid(unsafe_code)]

mod bottlerocket;
mod docs;
mod document;
mod sections;
mod text;
mod values;

pub use bottlerocket::{SluiceSettingsV1, Unusable};
pub use docs::explain::{docs_page, explain, meant};
pub use docs::schema::schema;
pub use document::effective::{Effective, Entry, Origin, merge};
pub use document::{Sighting, sight};
pub use sections::agent::{Agent, Listen, ListenAddress, OnInvalid};
pub use sections::bandwidth::{Bandwidth, Count, GuardPlace};
pub use sections::class::{Class, ClassName, Classes};
pub use sections::cni::{Cni, CniMode, UpstreamBandwidth};
pub use sections::max_pods::{IpFamily, KubeletConfig, MaxPods, PodCount, PodLimit};
pub use sections::prefix_delegation::{PrefixDelegation, WarmPrefixTarget};
pub use text::code;
pub use text::problem::{Problem, Problems, Warning};
pub use text::reader::distance;
pub use values::burst::{Burst, BurstTime, ByteCount};
pub use values::latency::LatencyTarget;
pub use values::path::AbsolutePath;
pub use values::pattern::{Pattern, Patterns};
pub use values::quantity;
pub use values::quantity::QuantityError;
pub use values::rate::{Capacity, Limit, Rate};
pub use values::weight::Weight;

/// Everything an operator can set; the default is what applies without any document.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Settings {
    /// `[settings.sluice.bandwidth]`: how pods are shaped.
    pub bandwidth: Bandwidth,
    /// `[settings.sluice.cni]`: how the agent joins the CNI chain.
    pub cni: Cni,
    /// `[settings.sluice.prefix-delegation]`: whether the cluster gives nodes whole prefixes.
    pub prefix_delegation: PrefixDelegation,
    /// `[settings.sluice.max-pods]`: how many pods the node takes.
    pub max_pods: MaxPods,
    /// `[settings.sluice.agent]`: how the agent itself behaves.
    pub agent: Agent,
}

/// Reads one document; `source` is how messages name it, e.g. `user-data`.
///
/// A document without our table gives the defaults. Fails with all problems, sorted by position;
/// warnings are left out: [`merge`] has them.
pub fn parse(source: &str, text: &str) -> Result<Settings, Problems> {
    merge(&[(source, text)]).map(|effective| effective.settings)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn messages(text: &str) -> String {
        parse("user-data", text).expect_err("problems").to_string()
    }

    #[test]
    fn empty_document_gives_defaults() {
        assert_eq!(parse("user-data", ""), Ok(Settings::default()));
    }

    #[test]
    fn misspelt_key_names_its_place_and_the_likely_one() {
        let text = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n  defualt-egress = \"1Mbit\"\n";
        assert_eq!(
            messages(text),
            "user-data:4:3 settings.sluice.bandwidth.defualt-egress: unknown key; \
             did you mean \"default-egress\"?\n"
        );
    }

    #[test]
    fn other_version_is_the_only_problem_told() {
        assert_eq!(
            messages("sluice = { version = 2, wings = 4 }"),
            "user-data:1:22 sluice.version: found 2; this program understands version 1; \
             a newer image is needed to read it\n"
        );
    }

    #[test]
    fn problems_carry_stable_codes() {
        let problems = parse("x", "sluice = { wings = 4 }").expect_err("problems");
        let codes: Vec<_> = problems.iter().map(|p| p.code).collect();
        assert_eq!(codes, [code::MISSING_KEY, code::UNKNOWN_KEY]);
    }
}
