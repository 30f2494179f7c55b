// SPDX-License-Identifier: Apache-2.0
//! Settings are put in force whole or not at all, also when `sluice boot` is
//! killed: after every single file operation of a run, enumerated. Works below
//! a directory of its own (`--root`), without namespaces.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use tests::command::{executable, json, output, run, text};
use tests::crash::{End, run_until};

const CONFLIST: &str = "{\"plugins\":[{\"type\":\"ptp\"}]}\n";
const BROKEN: &str = "[settings.sluice]\nversion = 1\nbandwith = {}\n";

fn user_data(bandwidth: &str) -> String {
    format!("[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n{bandwidth}\n")
}

/// In memory: what a killed program has written is there, synced or not; on a disk each of a thousand
/// boots would wait for it.
const MEMORY: &str = "/dev/shm";

/// A node's file system below a temporary directory.
struct Root {
    dir: tempfile::TempDir,
}

/// Path below the root, and content.
type Files = BTreeMap<PathBuf, Vec<u8>>;

impl Root {
    fn new() -> Self {
        let root = Self { dir: tempfile::tempdir_in(MEMORY).expect("a temporary directory") };
        root.write("etc/cni/net.d/10-main.conflist", CONFLIST);
        root.write("usr/libexec/sluice/sluice-cni", "the plugin");
        root
    }

    fn write(&self, path: &str, content: &str) {
        let path = self.dir.path().join(path);
        fs::create_dir_all(path.parent().expect("a parent")).expect("make directories");
        fs::write(path, content).expect("write");
    }

    fn boot_command(&self, user_data: &str) -> Command {
        self.write("user-data.toml", user_data);
        let mut command = Command::new(executable("sluice"));
        command.arg("--root").arg(self.dir.path()).args(["boot", "--user-data"]);
        command.arg(self.dir.path().join("user-data.toml"));
        command.stdout(Stdio::null()).stderr(Stdio::null());
        command
    }

    fn boot(&self, user_data: &str) -> Output {
        let mut command = self.boot_command(user_data);
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).output().expect("run sluice")
    }

    fn boot_well(&self, user_data: &str) {
        let output = self.boot(user_data);
        assert!(output.status.success(), "{}", text(&output));
    }

    fn files(&self) -> Files {
        let mut files = Files::new();
        collect(self.dir.path(), self.dir.path(), &mut files);
        files.remove(Path::new("user-data.toml"));
        files
    }

    /// Makes the directory as it was; the program under test is not running.
    fn restore(&self, files: &Files) {
        for path in self.files().keys().filter(|path| !files.contains_key(*path)) {
            fs::remove_file(self.dir.path().join(path)).expect("remove");
        }
        for (path, content) in files {
            let path = self.dir.path().join(path);
            fs::create_dir_all(path.parent().expect("a parent")).expect("make directories");
            fs::write(path, content).expect("restore");
        }
    }
}

fn collect(root: &Path, dir: &Path, files: &mut Files) {
    for entry in fs::read_dir(dir).expect("list") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(root, &path, files);
        } else {
            let content = fs::read(&path).expect("read");
            files.insert(path.strip_prefix(root).expect("below the root").to_owned(), content);
        }
    }
}

/// What shapes pods: plugin, settings, conflist. Generations and reports are apart.
fn in_force(files: &Files) -> Files {
    let names =
        ["opt/cni/bin/sluice", "run/sluice/settings.toml", "etc/cni/net.d/10-main.conflist"];
    let wanted = |path: &Path| names.iter().any(|name| path == Path::new(name));
    files.iter().filter(|(p, _)| wanted(p)).map(|(p, c)| (p.clone(), c.clone())).collect()
}

/// Kills a boot from `before` to `new` after each file operation; gives the number of points.
fn kill_everywhere(root: &Root, before: &Files, new: &str) -> usize {
    root.restore(before);
    root.boot_well(new);
    let after = root.files();
    for n in 1.. {
        root.restore(before);
        if run_until(&mut root.boot_command(new), n) != End::Killed {
            return n - 1;
        }
        let crashed = root.files();
        check_each_file_is_whole(&crashed, before, &after, n);
        check_restart(root, new, &after, n);
        root.restore(&crashed);
        check_restart_with_broken_settings(root, before, &after, n);
    }
    unreachable!("the loop ends when the program does");
}

fn check_each_file_is_whole(crashed: &Files, before: &Files, after: &Files, n: usize) {
    for (path, content) in in_force(crashed) {
        let whole = [before, after].iter().any(|files| files.get(&path) == Some(&content));
        assert!(whole, "killed after operation {n}: {} is neither old nor new", path.display());
    }
}

/// The same settings again: the new ones are in force, and nothing is left over.
fn check_restart(root: &Root, new: &str, after: &Files, n: usize) {
    root.boot_well(new);
    assert_eq!(in_force(&root.files()), in_force(after), "killed after operation {n}");
    let left: Vec<_> = root.files().into_keys().filter(|p| is_temporary(p)).collect();
    assert!(left.is_empty(), "killed after operation {n}: {left:?}");
}

/// Broken settings now: the last good generation is in force, whole, be it old or new.
fn check_restart_with_broken_settings(root: &Root, before: &Files, after: &Files, n: usize) {
    let output = root.boot(BROKEN);
    assert_eq!(output.status.code(), Some(78), "killed after {n}: {}", text(&output));
    let now = in_force(&root.files());
    // On a node that never had settings the old state is what the built-in defaults make of it.
    let old = if in_force(before).len() == 1 { defaults_in_force() } else { in_force(before) };
    assert!(now == old || now == in_force(after), "killed after {n}: a mixture is in force");
}

fn defaults_in_force() -> Files {
    let root = Root::new();
    root.boot_well("");
    in_force(&root.files())
}

fn is_temporary(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == "tmp")
}

#[test]
fn boot_killed_after_any_file_operation_leaves_old_or_new_settings() {
    let root = Root::new();
    let fresh = root.files();
    let first = user_data("default-egress = \"10Mbit\"");
    let second = user_data("default-egress = \"20Mbit\"\nburst = \"2ms\"");
    let off = user_data("enabled = false");
    let mut points = kill_everywhere(&root, &fresh, &first);
    for (old, new) in [(&first, &second), (&second, &off), (&off, &first)] {
        root.restore(&fresh);
        root.boot_well(old);
        let before = root.files();
        points += kill_everywhere(&root, &before, new);
    }
    println!("killed at {points} points");
    assert!(points >= 200, "only {points} points");
}

#[test]
fn unchanged_settings_write_nothing() {
    let root = Root::new();
    let settings = user_data("default-egress = \"10Mbit\"");
    root.boot_well(&settings);
    let times = || {
        let dir = root.dir.path().display().to_string();
        let list = run("find", &[&dir, "-type", "f", "-printf", "%p %i %T@\\n"]);
        // A lock has the name of who took it last.
        let is_ours = |line: &&str| !line.contains("user-data.toml") && !line.contains("/locks/");
        list.lines().filter(is_ours).collect::<String>()
    };
    let before = times();
    root.boot_well(&settings);
    assert_eq!(times(), before);
}

#[test]
fn broken_settings_leave_the_last_good_ones_in_force() {
    let root = Root::new();
    root.boot_well(&user_data("default-egress = \"10Mbit\""));
    let good = in_force(&root.files());
    let output = root.boot(BROKEN);
    assert_eq!(output.status.code(), Some(78), "{}", text(&output));
    assert_eq!(in_force(&root.files()), good);
    let report =
        json(&fs::read_to_string(root.dir.path().join("run/sluice/boot.json")).expect("it"));
    assert_eq!(report["reason"], "last-good");
    assert_eq!(report["generation"], 1);
    let problem = report["problems"][0].as_str().expect("a problem");
    assert!(problem.ends_with("unknown table; did you mean \"bandwidth\"?"), "{problem}");
}

#[test]
fn layers_win_over_each_other_and_on_invalid_of_the_image_decides() {
    let root = Root::new();
    let image = user_data("default-egress = \"10Mbit\"\ndefault-ingress = \"10Mbit\"");
    root.write("usr/share/sluice/defaults.toml", &image);
    root.write("etc/sluice/settings.d/20-b.toml", &user_data("default-egress = \"30Mbit\""));
    root.write("etc/sluice/settings.d/10-a.toml", &user_data("default-egress = \"20Mbit\""));
    root.boot_well(&user_data("burst = \"2ms\""));
    let settings = || {
        let path = root.dir.path().join("run/sluice/settings.toml");
        fs::read_to_string(path).expect("the settings in force")
    };
    for line in ["default-egress = \"30Mbit\"", "default-ingress = \"10Mbit\"", "burst = \"2ms\""] {
        assert!(settings().contains(line), "{}", settings());
    }
    let on_invalid = |what| format!("[sluice]\nversion = 1\nagent.on-invalid = \"{what}\"\n");
    root.write("etc/sluice/settings.d/30-c.toml", &on_invalid("fail"));
    let before = in_force(&root.files());
    assert_eq!(root.boot(BROKEN).status.code(), Some(78));
    assert_eq!(in_force(&root.files()), before);
    root.write("etc/sluice/settings.d/30-c.toml", &on_invalid("defaults"));
    assert_eq!(root.boot(BROKEN).status.code(), Some(78));
    assert!(settings().contains("burst = \"5ms\""), "{}", settings());
    assert!(settings().contains("default-egress = \"30Mbit\""), "{}", settings());
}

#[test]
fn plan_shows_what_would_change_and_changes_nothing() {
    let root = Root::new();
    let before = root.files();
    root.write("user-data.toml", &user_data("default-egress = \"10Mbit\""));
    let dir = root.dir.path().display().to_string();
    let user_data = format!("{dir}/user-data.toml");
    let sluice = executable("sluice").display().to_string();
    let plan = || {
        let asked = ["--root", &dir, "plan", "--user-data", &user_data, "--detailed-exitcode"];
        let output = output(&sluice, &asked);
        (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
    };
    let (text, status) = plan();
    assert!(status == Some(2) && text.ends_with("\n3 changes\n"), "{status:?} {text}");
    assert!(text.contains("+default-egress = \"10Mbit\"\n"), "{text}");
    assert!(text.contains("-{\"plugins\":[{\"type\":\"ptp\"}]}\n"), "{text}");
    assert_eq!(root.files(), before);
    let boot = || run(&sluice, &["--root", &dir, "boot", "--user-data", &user_data]);
    let in_force = format!("in force: generation 1 ({user_data}), as asked for\n");
    assert_eq!(boot(), format!("3 files written; {in_force}"));
    assert_eq!(boot(), format!("no changes; {in_force}"));
    assert_eq!(plan(), ("no changes\n".into(), Some(0)));
}

#[test]
fn last_good_settings_that_this_image_cannot_read_give_way_to_the_image() {
    let root = Root::new();
    root.boot_well(&user_data("default-egress = \"10Mbit\""));
    let generation = "var/lib/sluice/generations/1.json";
    let stored = fs::read_to_string(root.dir.path().join(generation)).expect("the generation");
    root.write(generation, &stored.replace("version = 1", "version = 2"));
    assert_eq!(root.boot(BROKEN).status.code(), Some(78));
    assert_eq!(in_force(&root.files()), defaults_in_force());
}

#[test]
fn boots_at_the_same_time_leave_the_settings_of_one() {
    let root = Root::new();
    let documents = ["enabled = false", "default-egress = \"10Mbit\""].map(user_data);
    let whole = documents.clone().map(|document| {
        let root = Root::new();
        root.boot_well(&document);
        in_force(&root.files())
    });
    for round in 0..15 {
        let boots: Vec<_> = (0..6)
            .map(|n| {
                let file = format!("user-data-{n}.toml");
                root.write(&file, &documents[n % 2]);
                let mut command = Command::new(executable("sluice"));
                command.arg("--root").arg(root.dir.path()).args(["boot", "--user-data"]);
                let command = command.arg(root.dir.path().join(file)).stderr(Stdio::null());
                command.spawn().expect("run sluice")
            })
            .collect();
        for mut boot in boots {
            assert!(boot.wait().expect("wait").success(), "round {round}");
        }
        assert!(whole.contains(&in_force(&root.files())), "round {round}: a mixture is in force");
    }
}
