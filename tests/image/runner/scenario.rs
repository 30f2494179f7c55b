// SPDX-License-Identifier: Apache-2.0
//! Runs scenarios some at a time, each with a directory of its own, and keeps the consoles of those that failed.

use std::cell::Cell;
use std::collections::VecDeque;
use std::fs::{self, DirEntry, File};
use std::panic::{self, AssertUnwindSafe};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, OnceLock};
use std::thread;
use std::time::Instant;

use anyhow::{Context, Result, anyhow, ensure};
use tempfile::TempDir;
use tests::containerd::pause_image;

use crate::disk::Disk;
use crate::scenarios::updated::Updated;
use crate::tools::{Tools, in_tools, text};

pub const LOGS: &str = "target/report/image";
/// On two processors: a machine that waits leaves them to the others.
const AT_ONCE: usize = 4;

/// What all scenarios share.
pub struct Site {
    pub tools: Tools,
    /// A directory for each version of the image.
    images: PathBuf,
    pub probe_disk: PathBuf,
    /// Made by the first scenario that needs it; or why there is none.
    updated: OnceLock<Result<Updated, String>>,
    pub scratch: TempDir,
}

pub struct Scenario {
    pub name: &'static str,
    pub run: fn(&Bench) -> Result<()>,
    /// Before all others, for what it measures.
    pub alone: bool,
}

/// One scenario's place.
pub struct Bench<'a> {
    pub site: &'a Site,
    pub scratch: TempDir,
    logs: PathBuf,
    boots: Cell<usize>,
}

impl Site {
    pub fn prepare(target: &Path, probe: &Path) -> Result<Self> {
        let tools = Tools::find()?;
        let scratch = tempfile::Builder::new().prefix("sluice-image-test").tempdir()?;
        let probe_disk = scratch.path().join("probe.erofs");
        let tree = scratch.path().join("probe");
        fs::create_dir(&tree)?;
        fs::copy(probe, tree.join("image_probe")).context("copy the probe")?;
        fs::write(tree.join("pause.tar"), pause_image::docker_archive(None)?)?;
        fs::write(tree.join("policy.bpf.o"), tests::policy_agent::OBJECT)?;
        add_extension(&target.join("packages"), &tree)?;
        tools.run("mkfs.erofs", &["--quiet", text(&probe_disk), text(&tree)])?;
        let images = target.join("image");
        Ok(Self { tools, images, probe_disk, updated: OnceLock::new(), scratch })
    }

    pub fn image(&self, version: &str) -> PathBuf {
        self.images.join(version).join(format!("sluice-node_{version}.raw"))
    }

    pub fn update(&self, version: &str) -> PathBuf {
        self.images.join(version).join("update")
    }
}

/// The signed extension, its certificate, and a foreign one.
fn add_extension(packages: &Path, tree: &Path) -> Result<()> {
    let found = |entry: &DirEntry| entry.file_name().to_string_lossy().ends_with(".sysext-signed");
    let mut entries = fs::read_dir(packages).context("find the packages")?.flatten();
    let signed = entries.find(found).context("no signed sysext among the packages")?.path();
    for file in ["sluice.raw", "sluice.crt"] {
        fs::copy(signed.join(file), tree.join(file)).with_context(|| format!("copy {file}"))?;
    }
    let make = "openssl req -quiet -x509 -newkey rsa:2048 -noenc -subj /CN=foreign -keyout /tmp/key -out other.crt";
    in_tools(tree, &make.split(' ').collect::<Vec<_>>()).map(drop)
}

impl Bench<'_> {
    pub fn disk(&self, version: &str) -> Result<Disk> {
        self.disk_over(&self.site.image(version), "raw")
    }

    pub fn disk_over(&self, base: &Path, format: &str) -> Result<Disk> {
        let path = self.scratch.path().join("volume.qcow2");
        Disk::over(&self.site.tools, base, format, path)
    }

    /// Over what another machine has left.
    pub fn disk_over_disk(&self, left: &Path) -> Result<Disk> {
        self.disk_over(left, "qcow2")
    }

    pub fn updated(&self) -> Result<&Updated> {
        let make = || Updated::make(self).map_err(|error| format!("{error:#}"));
        self.site.updated.get_or_init(make).as_ref().map_err(|error| anyhow!("{error}"))
    }

    /// The console of the next machine.
    pub fn next_log(&self) -> Result<File> {
        self.boots.set(self.boots.get() + 1);
        let path = self.logs.join(format!("{:02}.log", self.boots.get()));
        File::create(&path).with_context(|| format!("make {}", path.display()))
    }

    /// A line of what was seen.
    pub fn say(&self, line: &str) {
        let name = self.logs.file_name().unwrap_or_default();
        println!("{:<18} {line}", name.to_string_lossy());
    }
}

/// Gives the names of those that failed.
pub fn run_all(site: &Site, scenarios: Vec<Scenario>) -> Vec<&'static str> {
    let (alone, together): (VecDeque<_>, VecDeque<_>) =
        scenarios.into_iter().partition(|scenario| scenario.alone);
    [run_some(site, alone, 1), run_some(site, together, AT_ONCE)].concat()
}

fn run_some(site: &Site, queue: VecDeque<Scenario>, at_once: usize) -> Vec<&'static str> {
    let queue = Mutex::new(queue);
    let failed = Mutex::new(Vec::new());
    // A function, so that the lock is not held while the scenario runs.
    let next = || queue.lock().expect("a queue").pop_front();
    let work = || {
        while let Some(scenario) = next() {
            let began = Instant::now();
            let result = run(site, &scenario);
            let seconds = began.elapsed().as_secs();
            match result {
                Ok(()) => println!("{:<18} held, {seconds} s", scenario.name),
                Err(error) => {
                    println!("{:<18} DID NOT HOLD, {seconds} s: {error:#}", scenario.name);
                    failed.lock().expect("a list").push(scenario.name);
                }
            }
        }
    };
    thread::scope(|scope| {
        for _ in 0..at_once {
            scope.spawn(work);
        }
    });
    failed.into_inner().expect("a list")
}

fn run(site: &Site, scenario: &Scenario) -> Result<()> {
    let logs = Path::new(LOGS).join(scenario.name);
    fs::create_dir_all(&logs)?;
    for old in fs::read_dir(&logs)? {
        fs::remove_file(old?.path())?;
    }
    let scratch = TempDir::new_in(site.scratch.path())?;
    let bench = Bench { site, scratch, logs: logs.clone(), boots: Cell::new(0) };
    let result = panic::catch_unwind(AssertUnwindSafe(|| (scenario.run)(&bench)));
    let result = result.unwrap_or_else(|panic| {
        let text = panic.downcast_ref::<String>().cloned();
        Err(anyhow!("{}", text.unwrap_or_else(|| "a panic".into())))
    });
    if result.is_ok() {
        fs::remove_dir_all(&logs)?;
    }
    result
}

/// Whether something holds that a scenario promises.
pub fn holds(what: &str, holds: bool, seen: impl std::fmt::Debug) -> Result<()> {
    ensure!(holds, "{what}; seen: {seen:?}");
    Ok(())
}
