// SPDX-License-Identifier: Apache-2.0
//! `sluice support`: what a report of a problem needs, in one archive of a
//! bounded size. User data is not in it, but for Sluice's own settings, and no
//! value whose key speaks of a secret.

use std::fs;
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::SystemTime;

use anyhow::{Context, Result};
use clap::Args;
use flate2::{Compression, write::GzEncoder};
use serde_json::Value;

use super::output::print;
use crate::api::client::Client;
use crate::host::clock::seconds;
use crate::host::file;
use crate::host::paths::Paths;
use crate::settings::in_force::in_force;

/// Of each file in it, before it is compressed.
const MOST_BYTES: usize = 1024 * 1024;
const MOST_CONFLISTS: usize = 20;
/// A command that hangs is left out after so many seconds.
const PATIENCE: &str = "20";
const BLOCK: usize = 512;

/// The file's name, and the arguments of `sluice` whose output it holds.
const OURS: [(&str, &[&str]); 8] = [
    ("status.txt", &["status"]),
    ("status.json", &["status", "--json"]),
    ("pods.txt", &["pods"]),
    ("doctor.txt", &["doctor", "--all"]),
    ("doctor.json", &["doctor", "--json"]),
    ("settings.txt", &["settings", "show", "--origin"]),
    ("plan.txt", &["plan", "--imds-budget", "3"]),
    ("max-pods.txt", &["max-pods", "--explain"]),
];

const JOURNAL: [&str; 9] = [
    "journalctl",
    "--no-pager",
    "--lines=5000",
    "--output=short-iso-precise",
    "--boot",
    "--unit=sluice-boot",
    "--unit=sluice",
    "--unit=sluice-aide",
    "--quiet",
];

/// Parts of a key whose value stays here.
const SECRETS: [&str; 7] =
    ["secret", "token", "password", "passwd", "credential", "private", "auth"];

#[derive(Args)]
pub struct Support {
    /// Where the archive goes
    #[arg(long, value_name = "FILE", default_value = "sluice-support.tar.gz")]
    output: PathBuf,
}

pub fn run(paths: &Paths, asked: &Support) -> Result<()> {
    let mut archive = Vec::new();
    for (name, text) in files(paths)? {
        entry(&mut archive, name, text);
    }
    archive.resize(archive.len() + 2 * BLOCK, 0);
    let mut packed = GzEncoder::new(Vec::new(), Compression::default());
    packed.write_all(&archive)?;
    let path = &asked.output;
    let path = &std::path::absolute(path).with_context(|| format!("find {}", path.display()))?;
    file::replace(path, &packed.finish()?, 0o600)?;
    let at = path.display();
    print(&format!(
        "wrote {at}\nsettings, pods' names and addresses are in it: look before you share it\n"
    ))
}

fn files(paths: &Paths) -> Result<Vec<(String, Vec<u8>)>> {
    let own = std::env::current_exe().context("find this program")?;
    let root = paths.resolve(Path::new("/"));
    let own = [own.display().to_string(), "--root".into(), root.display().to_string()];
    let of_ours =
        |words: &[&str]| said(own.iter().map(String::as_str).chain(words.iter().copied()));
    // JSON says how the node is by itself, and nothing may stand behind it.
    let ours = OURS.iter().map(|(name, words)| {
        let (mut text, beside) = of_ours(words);
        if text.is_empty() || !name.ends_with(".json") {
            text.extend(beside);
        }
        ((*name).to_owned(), text)
    });
    let mut files: Vec<_> = ours.collect();
    let said = |words: &[&str]| {
        let (text, beside) = said(words.iter().copied());
        [text, beside].concat()
    };
    files.push(("journal.txt".into(), said(&JOURNAL)));
    files.push(("kernel.txt".into(), said(&["uname", "-a"])));
    let metrics = Client::new(paths.socket()).metrics();
    let metrics = metrics.map(|text| text.unwrap_or_else(|| "no agent runs\n".into()));
    files.push(("metrics.txt".into(), metrics.unwrap_or_else(|e| format!("{e:#}\n")).into()));
    for file in ["/etc/os-release", "/run/sluice/boot.json"] {
        files.push((file[1..].into(), read(&paths.resolve(Path::new(file)))));
    }
    files.extend(conflists(paths));
    Ok(files)
}

/// What a command prints; beside it what it says of errors, and its exit status where that is not 0.
fn said<'w>(words: impl IntoIterator<Item = &'w str> + Clone) -> (Vec<u8>, Vec<u8>) {
    let run = |program: &str, words: &mut dyn Iterator<Item = &'w str>| {
        Command::new(program).args(words).stdin(Stdio::null()).output()
    };
    // An image without a shell may have no `timeout` either.
    let limited = run("timeout", &mut [PATIENCE].into_iter().chain(words.clone()));
    let output = limited.or_else(|e| {
        let mut words = words.into_iter();
        words.next().map_or(Err(e), |program| run(program, &mut words))
    });
    match output {
        Ok(output) => {
            let mut text = output.stdout;
            text.truncate(MOST_BYTES);
            let mut beside = output.stderr;
            if !output.status.success() {
                beside.extend(format!("{}\n", output.status).bytes());
            }
            (text, beside)
        }
        Err(e) => (Vec::new(), format!("{e}\n").into()),
    }
}

fn read(path: &Path) -> Vec<u8> {
    let mut text = Vec::new();
    let file = fs::File::open(path);
    match file.and_then(|file| file.take(MOST_BYTES as u64).read_to_end(&mut text)) {
        Ok(_) => text,
        Err(e) => format!("{e}\n").into(),
    }
}

/// Those of other networks may hold what opens a door.
fn conflists(paths: &Paths) -> Vec<(String, Vec<u8>)> {
    let settings = in_force(paths).unwrap_or_default();
    let dir = paths.resolve(settings.cni.conf_dir.as_ref());
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    let mut found: Vec<_> = entries.filter(|path| path.is_file()).collect();
    found.sort();
    let file = |path: &PathBuf| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        let text = match serde_json::from_slice(&read(path)) {
            Ok(json) => format!("{:#}\n", without_secrets(json)),
            Err(e) => format!("left out, as it is not JSON: {e}\n"),
        };
        (format!("conflists/{name}"), text.into())
    };
    found.iter().take(MOST_CONFLISTS).map(file).collect()
}

fn without_secrets(json: Value) -> Value {
    let is_secret = |key: &str| {
        let key = key.to_lowercase();
        SECRETS.iter().any(|word| key.contains(word)) || key.ends_with("key")
    };
    match json {
        Value::Array(all) => all.into_iter().map(without_secrets).collect(),
        Value::Object(all) => {
            let entry = |(key, value): (String, Value)| match is_secret(&key) {
                true => (key, "left out".into()),
                false => (key, without_secrets(value)),
            };
            Value::Object(all.into_iter().map(entry).collect())
        }
        other => other,
    }
}

/// One file of a tar archive (ustar): a head of 512 bytes, and the content in blocks of that size.
fn entry(archive: &mut Vec<u8>, name: String, mut content: Vec<u8>) {
    content.truncate(MOST_BYTES);
    let mut head = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| head[at..at + text.len()].copy_from_slice(text.as_bytes());
    let name: String =
        format!("sluice-support/{name}").chars().filter(char::is_ascii).take(99).collect();
    put(0, &name);
    for (at, number) in [(100, 0o600), (108, 0), (116, 0)] {
        put(at, &format!("{number:07o}"));
    }
    put(124, &format!("{:011o}", content.len()));
    put(136, &format!("{:011o}", seconds(SystemTime::now())));
    put(148, "        0");
    put(257, "ustar\x0000");
    let sum: u32 = head.iter().map(|byte| u32::from(*byte)).sum();
    head[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
    archive.extend(head);
    archive.extend(content);
    archive.resize(archive.len().next_multiple_of(BLOCK), 0);
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_of_keys_that_speak_of_a_secret_stay_here() {
        let given = json!({ "plugins": [{ "type": "calico", "policy": { "k8s_auth_token": "abc" } },
            { "etcd_key": "k", "mtu": 1500, "clientSecret": { "a": "b" } }] });
        let left = without_secrets(given);
        let expected = json!({ "plugins": [{ "type": "calico", "policy": { "k8s_auth_token": "left out" } },
            { "etcd_key": "left out", "mtu": 1500, "clientSecret": "left out" }] });
        assert_eq!(left, expected);
    }
}
