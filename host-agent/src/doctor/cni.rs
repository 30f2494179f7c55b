// SPDX-License-Identifier: Apache-2.0
//! Checks of the CNI chain: the file that the runtime takes, our entry in it,
//! and the plugin's binary.

use std::path::Path;

use serde_json::Value;
use settings_model::Settings;

use super::finding::Finding;
use super::survey::{CniFiles, Survey};
use crate::libcni::conflist;
use crate::libcni::conflist::TextFile;
use crate::libcni::entry::{Upstream, is_chained, rates_kept, upstream};
use crate::trouble::{Severity, code};

const OWN: &str = "sluice";
const UPSTREAM: &str = "bandwidth";

pub fn check(survey: &Survey) -> Vec<Finding> {
    let cni = &survey.cni;
    let mut findings: Vec<Finding> = cni.temporary.iter().map(|path| temporary(path)).collect();
    findings.extend(set_aside(cni));
    if let Some(settings) = survey.state.settings().filter(|settings| is_chained(settings)) {
        findings.extend(chain(cni, settings));
        findings.extend(plugin(cni));
    }
    findings
}

fn temporary(path: &Path) -> Finding {
    let path = path.display().to_string();
    Finding::new(code::TEMPORARY_LEFT, path.as_str())
        .seen("a write was interrupted here")
        .why("no runtime loads it: its name ends in .tmp")
        .remedy(format!("the next write replaces it; or rm {path}"))
}

/// daemon/cmd/cni/config.go of Cilium, cleanupOtherCNI.
fn set_aside(cni: &CniFiles) -> Option<Finding> {
    if cni.set_aside.is_empty() {
        return None;
    }
    let finding = Finding::new(code::CILIUM_EXCLUSIVE, cni.conf_dir.display().to_string())
        .seen(format!("Cilium has renamed: {}", cni.set_aside.join(", ")))
        .why("with cni.exclusive=true it renames every other list, and writes its own again after each change: no entry of ours stays in it");
    Some(finding)
}

/// The entries of a list, by kind; None for what is no list of plugins.
fn entries(text: &str) -> Option<Vec<Value>> {
    let list: Value = serde_json::from_str(text).ok()?;
    Some(list["plugins"].as_array()?.clone())
}

fn has(text: &str, kind: &str) -> bool {
    entries(text).is_some_and(|all| all.iter().any(|entry| entry["type"] == kind))
}

fn chain(cni: &CniFiles, settings: &Settings) -> Vec<Finding> {
    let dir = cni.conf_dir.display().to_string();
    let active = match conflist::choose(&cni.conf_dir, &cni.files) {
        Err(error) => return vec![unreadable(&dir, &error)],
        Ok(None) => {
            let finding = Finding::new(code::CONFLIST_MISSING, dir)
                .seen("no .conf, .conflist or .json is there")
                .why("the node is not ready: the main plugin has not written its file");
            return vec![finding];
        }
        Ok(Some(file)) => file,
    };
    let path = active.path.display().to_string();
    let entries = match conflist::add(&active.text) {
        Ok(_) if conflist::is_list(&active.path) => entries(&active.text).unwrap_or_default(),
        Ok(_) => return vec![unreadable(&path, &conflist::ListProblem::OnePlugin.to_string())],
        Err(error) => return vec![unreadable(&path, &error.to_string())],
    };
    let find = |kind: &str| entries.iter().find(|entry| entry["type"] == kind);
    let has_upstream = find(UPSTREAM).is_some();
    if let Some(upstream) = upstream(settings, active).filter(|upstream| upstream.stays()) {
        return vec![kept(&path, upstream, find(OWN).is_some())];
    }
    let mut findings = Vec::new();
    match find(OWN) {
        None => findings.push(missing(cni, active)),
        Some(own) if own["capabilities"]["bandwidth"] != true => {
            let finding = Finding::new(code::ENTRY_CHANGED, path.as_str())
                .seen(format!("our entry is {own}"))
                .why("without the capability the runtime does not tell us the pods' annotations");
            findings.push(finding);
        }
        Some(_) => {}
    }
    if has_upstream {
        let finding = Finding::new(code::UPSTREAM_ENTRY, path.as_str())
            .seen("the upstream \"bandwidth\" plugin is in the chain")
            .why("it limits a second time, and beside network policy its ADD fails (file exists)");
        findings.push(finding);
    }
    findings
}

/// As the settings say; but not both.
fn kept(path: &str, upstream: Upstream, beside_ours: bool) -> Finding {
    let seen = "the upstream \"bandwidth\" plugin is in the chain";
    let keep = "cni.upstream-bandwidth is \"keep\": new pods are limited by it, not by us";
    match upstream {
        _ if beside_ours => Finding::new(code::UPSTREAM_ENTRY, path)
            .seen(format!("{seen}, beside our entry"))
            .why("it stays as the settings say, and each of the two limits")
            .remedy("sluice boot"),
        Upstream::HasRates(rates) => {
            Finding::new(code::UPSTREAM_RATES, path).seen(seen).why(rates_kept(&rates))
        }
        _ => Finding::new(code::UPSTREAM_ENTRY, path)
            .severity(Severity::Note)
            .seen(seen)
            .why(keep)
            .remedy("none, if that is meant; else \"replace\""),
    }
}

fn unreadable(subject: &str, seen: &str) -> Finding {
    Finding::new(code::CONFLIST_UNREADABLE, subject)
        .seen(seen)
        .why("the runtime takes the first file of the directory: the node is not ready")
}

fn missing(cni: &CniFiles, first: &TextFile) -> Finding {
    let path = first.path.display().to_string();
    let mut others = cni.files.iter().skip(1).filter_map(|file| file.as_ref().ok());
    match others.find(|file| has(&file.text, OWN)) {
        Some(with_entry) => Finding::new(code::CONFLIST_SHADOWED, path.as_str())
            .seen(format!("our entry is in {}, which sorts behind it", with_entry.path.display()))
            .why("the runtime takes the first file by name: new pods get no limit")
            .remedy(format!("mv {path} away if no one needs it, or sluice boot to chain there")),
        None => Finding::new(code::ENTRY_MISSING, path.as_str())
            .seen("our entry is not in it")
            .why("new pods get no limit; the VPC CNI replaces this file whenever aws-node starts"),
    }
}

fn plugin(cni: &CniFiles) -> Option<Finding> {
    let path = cni.plugin.display().to_string();
    if !cni.plugin_runs {
        let finding = Finding::new(code::PLUGIN_MISSING, path)
            .seen("no executable file is there")
            .why("the runtime cannot call it: no pod can start, with or without a limit");
        return Some(finding);
    }
    (cni.plugin_is_shipped == Some(false)).then(|| {
        Finding::new(code::PLUGIN_DIFFERS, path)
            .seen(format!("it is not the same file as {}", cni.shipped.display()))
            .why("it was replaced, or the image was updated without a boot")
    })
}

#[cfg(test)]
mod tests {
    use settings_model::UpstreamBandwidth;

    use super::*;
    use crate::libcni::conflist::ENTRY;

    fn codes(files: &[&str]) -> Vec<&'static str> {
        let file = |(number, text): (usize, &&str)| {
            Ok(TextFile { path: format!("/n/{number}.conflist").into(), text: text.to_string() })
        };
        let files = files.iter().enumerate().map(file).collect();
        let cni = CniFiles { files, ..CniFiles::default() };
        chain(&cni, &Settings::default()).iter().map(|finding| finding.code).collect()
    }

    #[test]
    fn our_entry_is_looked_for_where_the_runtime_looks() {
        let own = format!(r#"{{"plugins":[{{"type":"ptp"}},{ENTRY}]}}"#);
        let other = r#"{"plugins":[{"type":"ptp"}]}"#;
        assert_eq!(codes(&[&own]), [""; 0]);
        assert_eq!(codes(&[&own, other]), [""; 0]);
        assert_eq!(codes(&[other, &own]), [code::CONFLIST_SHADOWED.name]);
        assert_eq!(codes(&[other]), [code::ENTRY_MISSING.name]);
        assert_eq!(codes(&[]), [code::CONFLIST_MISSING.name]);
        assert_eq!(codes(&["{", &own]), [code::CONFLIST_UNREADABLE.name]);
    }

    #[test]
    fn an_entry_without_the_capability_and_one_of_upstream_are_faults() {
        let text = r#"{"plugins":[{"type":"a"},{"type":"sluice"},{"type":"bandwidth"}]}"#;
        assert_eq!(codes(&[text]), [code::ENTRY_CHANGED.name, code::UPSTREAM_ENTRY.name]);
    }

    #[test]
    fn upstream_entry_that_is_to_be_kept_is_no_fault_unless_ours_is_beside_it() {
        let keep = |text: &str| {
            let file = TextFile { path: "/n/1.conflist".into(), text: text.into() };
            let cni = CniFiles { files: vec![Ok(file)], ..CniFiles::default() };
            let mut settings = Settings::default();
            settings.cni.upstream_bandwidth = UpstreamBandwidth::Keep;
            let found = chain(&cni, &settings);
            found.iter().map(|f| (f.code, f.severity)).collect::<Vec<_>>()
        };
        let alone = r#"{"plugins":[{"type":"a"},{"type":"bandwidth"}]}"#;
        let both = format!(r#"{{"plugins":[{{"type":"a"}},{{"type":"bandwidth"}},{ENTRY}]}}"#);
        assert_eq!(keep(alone), [(code::UPSTREAM_ENTRY.name, Severity::Note)]);
        assert_eq!(keep(&both), [(code::UPSTREAM_ENTRY.name, Severity::Fault)]);
    }
}
