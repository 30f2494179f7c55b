// SPDX-License-Identifier: Apache-2.0
//! Every executable of root and initrd is on a list, with a reason. Nothing is booted.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};

use crate::scenario::{Bench, holds};
use crate::tree::{self, Entry, Kind};

/// Where the lists are.
const LISTS: [&str; 2] = ["executables", "mkosi.images/initrd/executables"];
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// No file and no link has one of these names, and no list may name them.
const INTERPRETERS: &[&str] = &[
    "ash",
    "awk",
    "bash",
    "bpftrace",
    "busybox",
    "csh",
    "dash",
    "ed",
    "expect",
    "fish",
    "gawk",
    "gdb",
    "guile",
    "jq",
    "jshell",
    "ksh",
    "less",
    "lua",
    "luajit",
    "m4",
    "make",
    "mawk",
    "mksh",
    "more",
    "nawk",
    "node",
    "openssl",
    "perl",
    "php",
    "python",
    "python2",
    "python3",
    "rbash",
    "ruby",
    "sed",
    "sh",
    "su",
    "sudo",
    "systemd-nspawn",
    "systemd-run",
    "run0",
    "tclsh",
    "tcsh",
    "toybox",
    "vi",
    "vim",
    "zsh",
];

/// The names that a list has; each needs a reason.
fn allowed(list: &str) -> Result<BTreeSet<String>> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../image-build").join(list);
    let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (name, reason) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
        ensure!(!reason.trim().is_empty(), "{list}: {name}: no reason");
        ensure!(names.insert(name.to_owned()), "{list}: {name}: twice");
    }
    Ok(names)
}

pub fn every_executable_has_a_reason(bench: &Bench) -> Result<()> {
    let (tools, scratch) = (&bench.site.tools, bench.scratch.path());
    let below = scratch.join("root");
    let root = tree::root(tools, &part(bench, ".root-x86-64.")?, &below)?;
    let initrd = tree::initrd(tools, &part(bench, ".efi")?, scratch)?;
    for (list, entries) in LISTS.into_iter().zip([root, initrd]) {
        let allowed = allowed(list)?;
        let (found, faults) = look(&entries, &allowed);
        bench.say(&format!("{list}: {} among {} files", found.len(), entries.len()));
        holds("only what is listed can be run", faults.is_empty(), faults)?;
        let gone: Vec<_> = allowed.difference(&found).collect();
        holds("what is listed is there", gone.is_empty(), gone)?;
    }
    let attributes = tree::attributes(&below)?;
    holds("no file has capabilities or other attributes", attributes.is_empty(), attributes)
}

/// The file of the update whose name has this in it.
fn part(bench: &Bench, text: &str) -> Result<PathBuf> {
    let update = bench.site.update("1.0.0");
    let mut files = fs::read_dir(&update)?.flatten().map(|entry| entry.path());
    let found = files.find(|path| path.to_string_lossy().contains(text));
    found.with_context(|| format!("no {text} in {}", update.display()))
}

/// The executables, and what must not be, by path.
fn look(
    entries: &[Entry],
    allowed: &BTreeSet<String>,
) -> (BTreeSet<String>, BTreeMap<String, String>) {
    let (mut found, mut faults) = (BTreeSet::new(), BTreeMap::new());
    for entry in entries {
        let name = entry.path.rsplit('/').next().unwrap_or_default();
        if INTERPRETERS.contains(&name) && is_in_a_search_path(&entry.path) {
            faults.insert(entry.path.clone(), "is the name of an interpreter".into());
        }
        let may_run = entry.mode & 0o111 != 0;
        let (is_run, fault) = match &entry.kind {
            Kind::Link => continue,
            Kind::Script => (may_run, Some("is a script".to_owned())),
            Kind::Loaded(loader) if loader == LOADER => (true, None),
            Kind::Loaded(loader) => (true, Some(format!("is run by {loader}"))),
            Kind::Other => (may_run, None),
        };
        let unknown = is_run && !allowed.contains(&entry.path);
        let fault = fault.or_else(|| unknown.then(|| "is on no list".into()));
        let bits = entry.mode & 0o6000 != 0;
        let fault =
            fault.or_else(|| bits.then(|| format!("has the mode {:o}", entry.mode & 0o7777)));
        faults.extend(fault.map(|fault| (entry.path.clone(), fault)));
        if is_run {
            found.insert(entry.path.clone());
        }
    }
    (found, faults)
}

/// `/usr/share/bash-completion` and the like hold data of that name.
fn is_in_a_search_path(path: &str) -> bool {
    path.contains("/bin/") || path.contains("/sbin/") || path.contains("/libexec/")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_can_be_run_and_is_on_no_list_is_found() {
        let file = |path: &str, mode, kind| Entry { path: path.into(), mode, kind };
        let loaded = |loader: &str| Kind::Loaded(loader.into());
        let entries = [
            file("/usr/bin/known", 0o755, loaded(LOADER)),
            file("/usr/bin/unknown", 0o755, loaded(LOADER)),
            file("/usr/lib/not-even-executable", 0o644, loaded(LOADER)),
            file("/usr/lib/klibc/bin/thing", 0o755, loaded("/lib/klibc.so")),
            file("/usr/share/script", 0o644, Kind::Script),
            file("/usr/bin/static", 0o755, Kind::Other),
            file("/usr/bin/mount", 0o104_755, loaded(LOADER)),
            file("/usr/share/data", 0o644, Kind::Other),
            file("/usr/bin/sh", 0o777, Kind::Link),
        ];
        let allowed = ["known", "mount"].map(|name| format!("/usr/bin/{name}")).into();
        let (found, faults) = look(&entries, &allowed);
        assert!(found.contains("/usr/bin/known") && !found.contains("/usr/share/data"));
        let faults: Vec<_> = faults.iter().map(|(path, why)| format!("{path} {why}")).collect();
        assert_eq!(
            faults,
            [
                "/usr/bin/mount has the mode 4755",
                "/usr/bin/sh is the name of an interpreter",
                "/usr/bin/static is on no list",
                "/usr/bin/unknown is on no list",
                "/usr/lib/klibc/bin/thing is run by /lib/klibc.so",
                "/usr/lib/not-even-executable is on no list",
                "/usr/share/script is a script",
            ]
        );
    }

    #[test]
    fn no_list_names_an_interpreter() {
        for list in LISTS {
            for path in allowed(list).expect("read the list") {
                let name = path.rsplit('/').next().unwrap_or_default();
                assert!(!INTERPRETERS.contains(&name), "{list}: {path}");
            }
        }
    }
}
