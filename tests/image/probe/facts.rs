// SPDX-License-Identifier: Apache-2.0
//! What the machine is after its boot.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde::Serialize;
use serde_json::Value;
use tests::command::wait_for;

const IS_UP: [&str; 2] = ["is-system-running", "--wait"];
const NOT_IN_THE_IMAGE: [&str; 12] = [
    "/bin/sh",
    "/bin/bash",
    "/bin/dash",
    "/usr/bin/perl",
    "/usr/bin/apt",
    "/usr/bin/apt-get",
    "/usr/bin/dpkg",
    "/usr/sbin/sshd",
    "/usr/sbin/agetty",
    "/usr/bin/login",
    "/usr/bin/busybox",
    "/usr/bin/su",
];

#[derive(Serialize)]
pub struct Facts {
    pub image: String,
    /// Why nothing can be written below the root.
    root_write: String,
    root: String,
    /// Of the device below the root, as the kernel has it.
    verity: String,
    var: String,
    shells: Vec<&'static str>,
    failed: Vec<String>,
    state: String,
    agent: String,
    kubelet: Kubelet,
    /// That of a boot which is not good and the last there is.
    stays: String,
    /// Files of the boot entries, with their counters of tries.
    entries: Vec<String>,
    boots: u64,
    settings: String,
    in_force: Value,
    status: String,
    extensions: Vec<String>,
    /// What hardens the kernel, by file, as it is and as the image has it.
    hardening: BTreeMap<String, [String; 2]>,
    /// What becomes of code for the kernel that no one has signed.
    kernel_refuses: BTreeMap<&'static str, String>,
}

#[derive(Serialize)]
struct Kubelet {
    state: String,
    /// Its configuration in force; or why it ended.
    says: Value,
}

/// Waits until nothing of the boot is left to do; a slot that is on trial must have been blessed or not.
pub fn after_boot() -> Result<Facts> {
    // The manager reports: asking again and again would keep an emulated processor busy.
    let state = run("systemctl", &IS_UP)?.trim().to_owned();
    if !["running", "degraded"].contains(&&*state) {
        // It goes down again, and whatever is asked of it now may fail.
        loop {
            std::thread::park();
        }
    }
    Ok(Facts {
        image: image_version()?,
        root_write: refusal(fs::write("/usr/probe", "x")),
        root: mount_of("/")?,
        verity: verity()?,
        var: mount_of("/var")?,
        shells: NOT_IN_THE_IMAGE.into_iter().filter(|path| Path::new(path).exists()).collect(),
        failed: failed_units()?,
        state,
        agent: property("sluice.service", "ActiveState")?,
        kubelet: kubelet()?,
        stays: property("sluice-node-stay.service", "ConditionResult")?,
        entries: entries()?,
        boots: count_boots()?,
        settings: settings(),
        in_force: in_force(),
        status: said("/usr/bin/sluice", &["status"]),
        extensions: names("/run/systemd/sysext").unwrap_or_default(),
        hardening: hardening()?,
        kernel_refuses: kernel_refuses()?,
    })
}

/// Settings of the image's sysctl.d, and those of its command line that can be read back.
fn hardening() -> Result<BTreeMap<String, [String; 2]>> {
    let mut found = BTreeMap::new();
    let mut add = |file: String, wanted: &str| -> Result<()> {
        let text = fs::read_to_string(&file).with_context(|| format!("read {file}"))?;
        found.insert(file, [text.trim().to_owned(), wanted.to_owned()]);
        Ok(())
    };
    let settings = fs::read_to_string("/usr/lib/sysctl.d/91-hardening.conf")?;
    for line in settings.lines().filter(|line| !line.starts_with('#')) {
        let (key, value) = line.split_once(" = ").with_context(|| format!("read {line:?}"))?;
        add(format!("/proc/sys/{}", key.replace('.', "/")), value)?;
    }
    add("/sys/module/module/parameters/sig_enforce".into(), "Y")?;
    add("/sys/kernel/security/lockdown".into(), "none [integrity] confidentiality")?;
    Ok(found)
}

/// An ELF file without a signature as a module, and memory by its address.
fn kernel_refuses() -> Result<BTreeMap<&'static str, String>> {
    let module = std::env::current_exe()?;
    let output = Command::new("insmod").arg(module).output()?;
    let module = String::from_utf8_lossy(&output.stderr).trim().to_owned();
    let memory = refusal(fs::File::open("/dev/mem").map(drop));
    Ok([("module", module), ("memory", memory)].into())
}

/// Its process may have nothing said yet, but says something in any case.
fn kubelet() -> Result<Kubelet> {
    let says = wait_for("a word of kubelet", Duration::from_secs(60), || {
        let journal = ["--boot", "--unit=kubelet", "--output=cat", "--identifier=kubelet"];
        run("journalctl", &journal).ok()?.lines().last().map(str::to_owned)
    });
    let says = serde_json::from_str(&says).unwrap_or(Value::String(says));
    Ok(Kubelet { state: property("kubelet.service", "ActiveState")?, says })
}

pub fn image_version() -> Result<String> {
    let release = fs::read_to_string("/usr/lib/os-release")?;
    let version = release.lines().find_map(|line| line.strip_prefix("IMAGE_VERSION="));
    Ok(version.context("a version of the image")?.trim_matches('"').to_owned())
}

fn refusal(result: std::io::Result<()>) -> String {
    result.map_or_else(|error| error.to_string(), |()| "written".into())
}

fn mount_of(at: &str) -> Result<String> {
    let mounts = fs::read_to_string("/proc/self/mounts")?;
    let line = mounts.lines().rfind(|line| line.split(' ').nth(1) == Some(at));
    Ok(line.context("a mount")?.to_owned())
}

/// The UUID tells the kind: CRYPT-VERITY-….
fn verity() -> Result<String> {
    let device = fs::canonicalize("/dev/mapper/root")?;
    let name = device.file_name().context("a name")?.to_string_lossy().into_owned();
    Ok(fs::read_to_string(format!("/sys/block/{name}/dm/uuid"))?.trim().to_owned())
}

fn failed_units() -> Result<Vec<String>> {
    let list = run("systemctl", &["list-units", "--failed", "--plain", "--no-legend"])?;
    Ok(list.lines().filter_map(|line| line.split_whitespace().next()).map(str::to_owned).collect())
}

pub fn entries() -> Result<Vec<String>> {
    names("/boot/EFI/Linux")
}

fn names(directory: &str) -> Result<Vec<String>> {
    let entries = fs::read_dir(directory).with_context(|| format!("read {directory}"))?;
    let mut names: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}

/// Kept on the data partition.
fn count_boots() -> Result<u64> {
    let path = Path::new("/var/lib/probe-boots");
    let boots = fs::read_to_string(path).ok().and_then(|text| text.parse().ok()).unwrap_or(0) + 1;
    fs::write(path, boots.to_string())?;
    // The power may go any moment.
    fs::File::open(path)?.sync_all()?;
    Ok(boots)
}

pub fn settings() -> String {
    fs::read_to_string("/run/sluice/settings.toml").unwrap_or_default()
}

pub fn in_force() -> Value {
    let text = fs::read_to_string("/run/sluice/boot.json").unwrap_or_default();
    let mut in_force = serde_json::from_str(&text).unwrap_or(Value::Null);
    // Another time at each boot.
    in_force.as_object_mut().and_then(|all| all.remove("took"));
    in_force
}

/// Milliseconds since the kernel's start.
pub fn times() -> Result<BTreeMap<String, u64>> {
    let manager = show(&[])?;
    let mut times = BTreeMap::new();
    for (name, key) in [
        ("firmware", "FirmwareTimestampMonotonic"),
        ("loader", "LoaderTimestampMonotonic"),
        ("initrd", "InitRDTimestampMonotonic"),
        ("userspace", "UserspaceTimestampMonotonic"),
        ("finish", "FinishTimestampMonotonic"),
    ] {
        times.insert(name.to_owned(), micros(&manager, key) / 1000);
    }
    for unit in ["sluice-boot", "sluice", "containerd"] {
        let of = show(&[&format!("{unit}.service")])?;
        let started = micros(&of, "InactiveExitTimestampMonotonic");
        times.insert(format!("{unit} starts"), started / 1000);
        times.insert(format!("{unit} ends"), micros(&of, "ActiveEnterTimestampMonotonic") / 1000);
    }
    let others = show(&["basic.target"])?;
    times.insert("basic".into(), micros(&others, "ActiveEnterTimestampMonotonic") / 1000);
    if let Some(at) = user_data_came()? {
        times.insert("user data".into(), at / 1000);
    }
    Ok(times)
}

/// When `sluice boot` said so, in microseconds.
fn user_data_came() -> Result<Option<u64>> {
    let entries = run("journalctl", &["--boot", "--unit=sluice-boot", "--output=json"])?;
    let mut entries = entries.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let said = |entry: &Value| {
        entry["MESSAGE"].as_str().is_some_and(|text| text.contains("user data from"))
    };
    let entry = entries.find(said);
    Ok(entry.and_then(|entry| entry["__MONOTONIC_TIMESTAMP"].as_str()?.parse().ok()))
}

fn show(units: &[&str]) -> Result<BTreeMap<String, String>> {
    let text = run("systemctl", &[&["show"], units].concat())?;
    let pair = |line: &str| line.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned()));
    Ok(text.lines().filter_map(pair).collect())
}

fn micros(of: &BTreeMap<String, String>, key: &str) -> u64 {
    of.get(key).and_then(|text| text.parse().ok()).unwrap_or(0)
}

pub fn property(unit: &str, name: &str) -> Result<String> {
    Ok(run("systemctl", &["show", "--value", "--property", name, unit])?.trim().to_owned())
}

/// What a program prints, however it ends.
pub fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map_or_else(
        |error| error.to_string(),
        |output| String::from_utf8_lossy(&output.stdout).into_owned(),
    )
}

/// A program's output; `is-system-running` also tells by its exit code what it says.
pub fn run(program: &str, arguments: &[&str]) -> Result<String> {
    let output =
        Command::new(program).args(arguments).output().with_context(|| format!("run {program}"))?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let said = String::from_utf8_lossy(&output.stderr);
    let succeeded = output.status.success() || arguments == IS_UP;
    ensure!(succeeded, "{program} {}: {text} {said}", arguments.join(" "));
    Ok(text)
}
