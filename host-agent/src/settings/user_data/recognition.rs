// SPDX-License-Identifier: Apache-2.0
//! What a text is: settings of ours, a foreign program, a NodeConfig, or of no
//! interest. One account of it for every carrier. What TOML takes for our table
//! is settings_model's to say; what follows from that is carrier.rs'.

use settings_model::sight;

/// What no settings begin with: programs, which may write our table into a file.
const PROGRAMS: [&str; 3] = ["#!", "<", "#part-handler"];
/// What cloud-init removes from a program before it runs it.
const ABOVE_PROGRAMS: [&str; 2] = ["#cloud-boothook", "## template:"];
/// Other things that cloud-init reads.
const CLOUD_INIT: [&str; 3] = ["#cloud-", "#include", "## template:"];

/// Whether the text gives our table, in any spelling and whatever else is in it. In TOML a table that is
/// nearly called so is meant as ours.
///
/// Text that is no TOML as a whole is judged by its lines. YAML and JSON cannot have a table's header
/// or a key of ours at the start of a line; further in, both can be in a block of YAML.
pub(super) fn has_our_table(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(without_mark(bytes));
    if is_program(&text) {
        return false;
    }
    let whole = sight(&text);
    if whole.is_toml {
        return whole.ours || whole.misspelt;
    }
    outside_yaml_blocks(&text).any(opens_our_table)
}

/// Whether the line is a header of our table or gives a key of it.
pub(super) fn opens_our_table(line: &str) -> bool {
    (line.contains("sluice") || line.contains('\\')) && sight(line).ours
}

/// Whole user data that goes to the TOML parser, its mistakes included.
pub(super) fn may_be_ours(bytes: &[u8]) -> bool {
    let text = String::from_utf8_lossy(without_mark(bytes));
    if is_program(&text) {
        return false;
    }
    let of_our_kind = |line: &str| {
        let found = sight(line);
        line.contains("sluice") || found.settings || found.misspelt
    };
    let named = || !is_of_another_kind(&text) && meaningful(&text).any(of_our_kind);
    has_our_table(bytes) || named()
}

/// Names the API group that every NodeConfig is of; whether it is one, its parser says.
pub(super) fn may_be_node_config(bytes: &[u8]) -> bool {
    let group = b"node.eks.aws/";
    !bytes.trim_ascii_start().starts_with(b"#!") && bytes.windows(group.len()).any(|w| w == group)
}

/// Some editors put a byte order mark first, which hides what follows from every test.
pub(super) fn without_mark(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(bytes)
}

fn is_program(text: &str) -> bool {
    let lines = text.lines().map(str::trim_start);
    let mut lines = lines.filter(|line| !line.is_empty());
    let above = |line: &&str| ABOVE_PROGRAMS.iter().any(|start| line.starts_with(start));
    let first = lines.find(|line| !above(line)).unwrap_or_default();
    PROGRAMS.iter().any(|start| first.starts_with(start))
}

/// Lines without comments and empty ones.
fn meaningful(text: &str) -> impl Iterator<Item = &str> {
    let bare = text.lines().map(|line| line.split(" #").next().unwrap_or_default().trim());
    bare.filter(|line| !line.is_empty() && !line.starts_with('#'))
}

/// YAML, JSON or something for cloud-init. Settings of ours written as YAML are none of these.
fn is_of_another_kind(text: &str) -> bool {
    let head = text.trim_start();
    if CLOUD_INIT.iter().any(|start| head.starts_with(start)) {
        return true;
    }
    let first = meaningful(text).next().unwrap_or_default();
    let key = first.split_once(':').filter(|(_, rest)| rest.is_empty() || rest.starts_with(' '));
    let is_key =
        |key: &str| !key.contains(['=', '[', ' ']) && !["settings", "sluice"].contains(&key);
    let is_item = first.starts_with("- ") || ["---", "{", "%"].iter().any(|s| first.starts_with(s));
    is_item || key.is_some_and(|(key, _)| is_key(key))
}

/// Lines but those of a block of text in YAML (`content: |`), e.g. what cloud-init is to write.
fn outside_yaml_blocks(text: &str) -> impl Iterator<Item = &str> {
    let mut opener = None;
    let lines = text.lines().filter(|line| !line.trim().is_empty());
    lines.filter(move |line| {
        let inside = opener.is_some_and(|opener| indent(line) > opener);
        if !inside {
            opener = opens_yaml_block(line).then(|| indent(line));
        }
        !inside
    })
}

fn opens_yaml_block(line: &str) -> bool {
    let line = line.split(" #").next().unwrap_or_default().trim_end();
    let line = line.trim_end_matches(|c: char| c.is_ascii_digit() || "+-".contains(c));
    let begins = [": ", "- "].iter().any(|mark| line.contains(mark));
    begins && (line.ends_with(" |") || line.ends_with(" >"))
}

fn indent(line: &str) -> usize {
    line.len() - line.trim_start().len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_blocks_of_yaml_may_hold_our_table_and_are_foreign() {
        for text in [
            "#!/bin/sh\ncat > /x <<E\n[settings.sluice]\nversion = 1\nE\n",
            "\n#!/usr/bin/env bash\n[sluice]\n",
            "#cloud-boothook\n#!/bin/sh\ncat <<E\n[sluice]\nE\n",
            "## template: jinja\n#!/bin/sh\ncat <<E\n[sluice]\nE\n",
            "<powershell>\n[sluice]\n</powershell>\n",
            "#part-handler\nx = '''\n[sluice]\n'''\n",
            "#cloud-config\nwrite_files:\n- path: /x\n  content: |\n    [settings.sluice]\n    version = 1\n",
            "a:\n  b: |-\n    # first\n\n      sluice.version = 1\n",
            "- content: >+2 # c\n    [sluice]\n",
            "x = \"\"\"\n[settings.sluice]\n\"\"\"\n",
        ] {
            assert!(!has_our_table(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn table_that_stands_in_no_block_is_ours_whatever_is_above_it() {
        for text in [
            "apiVersion: v1\nkind: X\n[settings.sluice]\nversion = 1\n",
            "#cloud-config\n  [settings.sluice]\n  version = 1\n  x y\n",
            "runcmd: |\n  echo\n[sluice]\nversion = 1\n",
            "these are the settings:\n\t[settings.sluice]\n\tversion = 1\n",
            "\u{feff}[settings.sluice]\r\nversion = 1\r\nx y\r\n",
            "[settings.motd]\nx y\n\n  settings . 'sluice' . version = 1\n",
            "[Settings.Sluice]\nversion = 1\n",
            "[sluce]\nversion = 1\n",
        ] {
            assert!(has_our_table(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn text_that_mentions_us_in_a_comment_or_as_yaml_is_none_of_ours() {
        for text in [
            "# sluice is on these nodes\nkind: NodeConfig\napiVersion: node.eks.aws/v1alpha1\n",
            "kind: NodeConfig\nmetadata:\n  labels:\n    sluice: x\n",
            "echo hello\n# sluice\n",
            "- sluice\n- other\n",
            "%YAML 1.2\n---\nsluice\n",
            "#cloud-config\npackages:\n  - sluice\n",
            "#!/bin/sh\ncat >/x <<E\n[sluce]\nE\n",
            "kind: X\nspec: |\n  [sluce]\n",
            "[Slice]\nCPUWeight = 100\n",
        ] {
            assert!(!may_be_ours(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn text_of_no_known_kind_that_names_us_is_judged_as_settings() {
        for text in [
            "sluice\n",
            "settings:\n  sluice:\n    version: 1\n",
            "[setings.sluice]\n",
            "sluice = 5\n",
            "[sluce]\nversion = 1\n",
            "[Settings.Sluice]\nversion = 1\n",
            "[settings.slucie.bandwidth]\nx y\n",
            "x y\n[[sluise.class]]\n",
        ] {
            assert!(may_be_ours(text.as_bytes()), "{text}");
        }
    }
}
