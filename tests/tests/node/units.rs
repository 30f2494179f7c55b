// SPDX-License-Identifier: Apache-2.0
//! The units and their companions, judged without a running systemd. What they
//! do on a node is shown by `service.rs`.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tests::command::{executable, output, run, text};

/// A root directory as `packaging/install` makes it.
struct Root(tempfile::TempDir);

impl Root {
    fn installed() -> Self {
        let root = Self(tempfile::tempdir().expect("make a directory"));
        let bin = executable("sluice").parent().expect("a directory").to_owned();
        let install = packaging().join("install");
        run(utf8(&install), &[utf8(&bin), utf8(root.0.path())]);
        root
    }

    fn path(&self, below: &str) -> PathBuf {
        self.0.path().join(below)
    }

    /// What the units need of others: this host's units, and something in place of its programs.
    fn with_the_system(self) -> Self {
        run("cp", &["-an", "/usr/lib/systemd/system", utf8(&self.path("usr/lib/systemd/"))]);
        fs::create_dir_all(self.path("bin")).expect("make a directory");
        for program in ["bin/kill", "usr/bin/systemd-tmpfiles"] {
            fs::copy("/bin/true", self.path(program)).expect("copy a program");
        }
        self
    }

    fn units(&self) -> Vec<PathBuf> {
        ["sluice-boot", "sluice", "sluice-aide"]
            .map(|u| self.path(&format!("usr/lib/systemd/system/{u}.service")))
            .into()
    }
}

fn packaging() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging")
}

fn utf8(path: &Path) -> &str {
    path.to_str().expect("path is UTF-8")
}

fn values<'a>(unit: &'a str, key: &str) -> Vec<&'a str> {
    let lines = unit.lines().filter_map(|line| line.split_once('='));
    lines.filter(|(k, _)| *k == key).map(|(_, value)| value).collect()
}

#[test]
fn units_verify_without_a_complaint() {
    let root = Root::installed().with_the_system();
    let option = format!("--root={}", utf8(root.0.path()));
    // Pages would be looked for on this machine; `documentation` knows them.
    let verified = output(
        "systemd-analyze",
        &[
            &option,
            "--man=no",
            "verify",
            "sluice-boot.service",
            "sluice.service",
            "sluice-aide.service",
        ],
    );
    let complaints: Vec<_> = String::from_utf8_lossy(&verified.stderr)
        .lines()
        .filter(|line| line.contains("sluice"))
        .map(str::to_owned)
        .collect();
    assert!(verified.status.success() && complaints.is_empty(), "{}", text(&verified));
}

#[test]
fn exposure_is_at_most_what_it_was() {
    for (unit, most) in Root::installed().units().iter().zip(["15", "20", "18"]) {
        let threshold = format!("--threshold={most}");
        let arguments = ["security", "--offline=true", "--no-pager", &threshold, utf8(unit)];
        let judged = output("systemd-analyze", &arguments);
        assert!(judged.status.success(), "{}", text(&judged));
    }
}

#[test]
fn presets_enable_both_units_where_they_are_wanted() {
    let root = Root::installed();
    let option = format!("--root={}", utf8(root.0.path()));
    run("systemctl", &[&option, "--quiet", "preset", "sluice-boot.service", "sluice.service"]);
    let mut links = BTreeSet::new();
    for wants in fs::read_dir(root.path("etc/systemd/system")).expect("links") {
        let wants = wants.expect("an entry").path();
        for link in fs::read_dir(&wants).expect("a directory") {
            let link = link.expect("an entry").path();
            links.insert(
                utf8(link.strip_prefix(root.path("etc/systemd/system")).expect("below")).to_owned(),
            );
        }
    }
    let expected = [
        "containerd.service.wants/sluice-boot.service",
        "kubelet.service.wants/sluice-boot.service",
        "multi-user.target.wants/sluice-boot.service",
        "multi-user.target.wants/sluice.service",
        "nodeadm-run.service.wants/sluice-boot.service",
    ];
    assert_eq!(links, expected.map(String::from).into());
}

/// nodeadm's, kubelet's and k3s'; where they are missing, no one reads them.
const OF_OTHERS: [&str; 5] = [
    "-/etc/eks/nodeadm.d",
    "-/etc/kubernetes/kubelet.conf.d",
    "-/etc/kubernetes/kubelet",
    "-/var/lib/rancher/k3s/agent/etc/cni",
    "-/var/lib/rancher/k3s/data",
];

#[test]
fn every_path_made_writable_is_made_before() {
    let made = fs::read_to_string(packaging().join("tmpfiles.d/sluice.conf")).expect("tmpfiles");
    let made: BTreeSet<_> = made.lines().filter_map(|l| l.split_whitespace().nth(1)).collect();
    for unit in ["sluice", "sluice-boot"] {
        let path = packaging().join(format!("systemd/{unit}.service"));
        let text = fs::read_to_string(path).expect("the unit");
        let writable = values(&text, "ReadWritePaths").join(" ");
        for path in writable.split_whitespace().filter(|path| !OF_OTHERS.contains(path)) {
            let path = path.trim_start_matches('-');
            // What is there or not is the kernel's to say.
            if path.starts_with("/proc/sys/") {
                continue;
            }
            assert!(made.contains(path), "{path} of {unit}.service is not in tmpfiles.d");
        }
    }
}

#[test]
fn reload_has_asked_imds_before_the_watchdog_bites() {
    let text = fs::read_to_string(packaging().join("systemd/sluice.service")).expect("the unit");
    let budget = values(&text, "ExecStart")[0].rsplit(' ').next().expect("a word");
    let budget: u64 = budget.parse().expect("--imds-budget is the last option");
    let watchdog: u64 = values(&text, "WatchdogSec")[0].parse().expect("seconds");
    // Half of it may be over when the reload begins.
    assert!(budget < watchdog / 2, "{budget} s of IMDS, {watchdog} s of the watchdog");
}

#[test]
fn where_the_images_kubelet_looks_boot_and_the_agent_may_write() {
    let kubelet = packaging().join("../image-build/kubelet.service");
    let kubelet = fs::read_to_string(kubelet).expect("the image's kubelet.service");
    let directory = kubelet.split_whitespace().find_map(|word| word.strip_prefix("--config-dir="));
    let directory = Path::new(directory.expect("a --config-dir"));
    for unit in ["sluice", "sluice-boot"] {
        let path = packaging().join(format!("systemd/{unit}.service"));
        let text = fs::read_to_string(path).expect("the unit");
        let writable = values(&text, "ReadWritePaths").join(" ");
        let mut writable = writable.split_whitespace().map(|path| path.trim_start_matches('-'));
        assert!(writable.any(|path| directory.starts_with(path)), "{unit}.service: {directory:?}");
    }
}
