// SPDX-License-Identifier: Apache-2.0
//! No one but root can keep boot, agent or plugin waiting, and whoever waits learns for whom.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use tests::api::ask;
use tests::cni::{Annotations, Call, expect_error};
use tests::command::{output, text};
use tests::node::{Node, USER_DATA, with_ready_node};

const BOTH: Annotations = Annotations { egress: 20_000_000, ingress: 20_000_000 };
const NO_RIGHTS: u32 = 65534;
const LOCKS: &str = "/run/sluice/locks";
/// Below what a boot, a verb or a reload waits for a lock.
const AT_ONCE: Duration = Duration::from_secs(8);

/// An exclusive lock on every file and directory of the node that a user without rights can open for reading.
fn hold_as_nobody() -> Vec<File> {
    let dirs = ["/", "/run", "/run/sluice", "/run/node", "/etc/cni", "/opt/cni", "/var/lib"];
    let found = output("find", &[&dirs[2..], &["-print"]].concat());
    let found = String::from_utf8_lossy(&found.stdout).into_owned();
    // Of this thread alone; with the user go the capabilities that would open any file.
    setfsgid(Gid::from_raw(NO_RIGHTS));
    setfsuid(Uid::from_raw(NO_RIGHTS));
    let opened = dirs.into_iter().chain(found.lines()).filter_map(|path| File::open(path).ok());
    let held = opened.filter(|file| file.try_lock().is_ok()).collect();
    setfsuid(Uid::from_raw(0));
    setfsgid(Gid::from_raw(0));
    held
}

fn boot(node: &Node) -> std::process::Output {
    node.boot(&fs::read_to_string(USER_DATA).expect("user data"))
}

#[test]
fn nobody_who_is_not_root_can_keep_boot_agent_or_plugin_waiting() {
    with_ready_node("", |node| {
        node.wait_for_api();
        let (first, second) = (node.pod("a", 2), node.pod("b", 3));
        node.add(&first, BOTH);
        // All that a umask of 022 gives, and more.
        for dir in ["/run/sluice", "/run/sluice/pods"] {
            fs::set_permissions(dir, Permissions::from_mode(0o755)).expect("open it");
        }
        let held = hold_as_nobody();
        assert!(held.len() > 10, "it holds {}", held.len());
        let began = Instant::now();
        let output = boot(node);
        assert!(output.status.success(), "{}", text(&output));
        node.add(&second, BOTH);
        node.signal_agent(Signal::SIGHUP);
        assert_eq!(ask("POST", "/v1/reload", "").status, 200);
        node.del(&second);
        node.del(&first);
        assert!(began.elapsed() < AT_ONCE, "{:?}", began.elapsed());
        drop(held);
    });
}

#[test]
fn locks_are_files_of_root_in_a_directory_of_mode_0700_whatever_was_there() {
    with_ready_node("", |node| {
        fs::set_permissions(LOCKS, Permissions::from_mode(0o755)).expect("open it");
        fs::set_permissions(format!("{LOCKS}/boot"), Permissions::from_mode(0o666))
            .expect("open it");
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        assert!(boot(node).status.success());
        let entries = fs::read_dir(LOCKS).expect("the locks");
        let mut names: Vec<_> = entries
            .map(|entry| {
                let entry = entry.expect("an entry");
                let found = entry.metadata().expect("look at it");
                assert_eq!((found.mode() & 0o7777, found.uid(), found.is_file()), (0o600, 0, true));
                entry.file_name().into_string().expect("UTF-8")
            })
            .collect();
        names.sort();
        assert_eq!(names, ["agent", "boot", "containers", "files", "pods", "records"]);
        assert_eq!(fs::metadata(LOCKS).expect("the locks").mode() & 0o7777, 0o700);
        assert!(output("chown", &["1000", LOCKS]).status.success());
        let refused = boot(node);
        let said = String::from_utf8_lossy(&refused.stderr).into_owned();
        let why = "it belongs to user 1000, not to 0; remove it: /run/sluice/locks must be a \
                   directory of root's, mode 0700";
        assert!(refused.status.code() == Some(1) && said.contains(why), "{said}");
    });
}

#[test]
fn wait_for_a_lock_ends_and_names_its_holder() {
    with_ready_node("", |node| {
        node.wait_for_api();
        let hold = |name: &str| {
            let mut options = File::options();
            options.write(true).create(true).truncate(false);
            let lock = options.open(format!("{LOCKS}/{name}")).expect("the lock");
            lock.lock().expect("hold it");
            lock
        };
        let own = format!("held by process {} (", std::process::id());
        let held = hold("boot");
        let output = boot(node);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let expected = format!("lock {LOCKS}/boot: waited 10s; {own}");
        assert!(output.status.code() == Some(1) && said.contains(&expected), "{said}");
        drop(held);
        let pod = node.pod("a", 2);
        let held = hold("pods");
        let error = expect_error(&Call::new("ADD", &pod, BOTH).run(&pod));
        let expected = format!("sluice: lock {LOCKS}/pods: waited 30s; {own}");
        assert_eq!(error["code"], 11, "{error}");
        assert!(error["msg"].as_str().expect("a message").starts_with(&expected), "{error}");
        // The agent answers meanwhile, and says it of what it was to do.
        assert_eq!(ask("GET", "/v1/pods", "").status, 200);
        drop(held);
        node.add(&pod, BOTH);
    });
}
