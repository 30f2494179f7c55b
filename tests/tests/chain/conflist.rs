// SPDX-License-Identifier: Apache-2.0
//! Our entry in the main plugin's conflist while others write it too: it is
//! back at once, no one's write is lost or seen by halves, a writer against it is
//! found out, and where it is not wanted it goes.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use nix::sys::inotify::AddWatchFlags;
use nix::sys::signal::Signal;
use serde_json::Value;
use tests::cni::Annotations;
use tests::command::{text, wait_for};
use tests::conflist::{Over, Watched, conflist, has_entry, kinds, numbered, write_as_aws_node};
use tests::node::{CONF_DIR, CONFLIST, Node, with_node, with_ready_node};

/// What must happen at once takes longer in an emulated guest, or on a busy machine.
const SOON: Duration = Duration::from_secs(10);
const BOTH: Annotations = Annotations { egress: 20_000_000, ingress: 20_000_000 };

fn report(node: &Node) -> Value {
    node.sluice_json(&["status", "--json", "--interval", "1"])["agent"]["report"].clone()
}

fn is_loaded(name: &str) -> bool {
    [".conf", ".conflist", ".json"].iter().any(|extension| name.ends_with(extension))
}

/// containerd's watcher reloads on IN_MODIFY, IN_MOVED_FROM and IN_DELETE, not on IN_CREATE,
/// IN_MOVED_TO or IN_ATTRIB (internal/cri/server/cni_conf_syncer.go over fsnotify).
#[test]
fn each_write_of_the_agent_is_a_whole_file_that_containerds_watcher_is_told_of() {
    with_ready_node("", |node| {
        let ours = conflist();
        for round in 1..=20 {
            node.signal_agent(Signal::SIGSTOP);
            write_as_aws_node(&numbered(round));
            let watched = Watched::begin();
            node.signal_agent(Signal::SIGCONT);
            wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
            let mut events = Vec::new();
            wait_for("the end of its write", SOON, || {
                events.extend(watched.events());
                let names = fs::read_dir(CONF_DIR).expect("the directory").count();
                (names == 1 && !events.is_empty()).then_some(())
            });
            events.extend(watched.events());
            let of = |flag: AddWatchFlags| {
                let hits = events.iter().filter(move |(mask, _)| mask.contains(flag));
                hits.map(|(_, name)| name.clone()).collect::<Vec<_>>()
            };
            let by_halves = [of(AddWatchFlags::IN_CREATE), of(AddWatchFlags::IN_MODIFY)].concat();
            assert!(!by_halves.iter().any(|name| is_loaded(name)), "{events:?}");
            assert!(!of(AddWatchFlags::IN_DELETE).iter().any(|name| is_loaded(name)), "{events:?}");
            assert!(!of(AddWatchFlags::IN_MOVED_FROM).is_empty(), "{events:?}");
        }
        write_as_aws_node(&ours);
    });
}

/// Takes the entry out whenever it is there, at once, until `over`; gives how often.
fn oppose(over: &AtomicBool) -> u32 {
    let mut times = 0;
    while !over.load(Ordering::SeqCst) {
        if has_entry(&conflist()) {
            write_as_aws_node(&numbered(0));
            times += 1;
        }
        thread::sleep(Duration::from_millis(1));
    }
    times
}

#[test]
fn who_takes_the_entry_out_whenever_it_is_there_is_told_of_and_left_alone() {
    with_ready_node("", |node| {
        let over = AtomicBool::new(false);
        thread::scope(|scope| {
            let opponent = scope.spawn(|| oppose(&over));
            let end = Over(&over);
            let contested = || node.troubles("contested").pop();
            let trouble = wait_for("word of the contest", Duration::from_secs(60), || {
                contested().filter(|_| !has_entry(&conflist()))
            });
            assert_eq!(trouble["subject"], CONFLIST);
            assert_eq!(trouble["what"], "another writer removes our entry again and again");
            let writes = || report(node)["conflist_writes"].as_u64().expect("a count");
            wait_for("an end of our writes", Duration::from_secs(60), || {
                let before = writes();
                thread::sleep(Duration::from_secs(1));
                (before == writes()).then_some(())
            });
            let writes = writes();
            assert!((128..=138).contains(&writes), "{writes} writes");
            assert_eq!(conflist(), numbered(0));
            drop(end);
            assert!(opponent.join().expect("the opponent") >= 128);
        });
    });
}

#[test]
fn mode_that_somebody_gave_the_file_stays() {
    with_ready_node("", |node| {
        let mode = || fs::metadata(CONFLIST).expect("look").permissions().mode() & 0o7777;
        let temporary = format!("{CONFLIST}.tmp");
        fs::write(&temporary, numbered(1)).expect("write");
        fs::set_permissions(&temporary, fs::Permissions::from_mode(0o600)).expect("set a mode");
        fs::rename(&temporary, CONFLIST).expect("rename");
        wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
        assert_eq!(mode(), 0o600);
        settings_now(node, "enabled = false");
        wait_for("a list without us", SOON, || (!has_entry(&conflist())).then_some(()));
        assert_eq!(mode(), 0o600);
    });
}

/// The agent of a node whose settings are these from now on.
fn settings_now(node: &Node, bandwidth: &str) {
    node.boot_with(bandwidth);
    node.signal_agent(Signal::SIGHUP);
}

fn records() -> usize {
    fs::read_dir("/run/sluice/pods").expect("the records").count()
}

/// Once the entry is out no DEL comes: pods that have a record then are cleared by the agent.
#[test]
fn settings_that_say_off_take_the_entry_out_and_pods_are_still_cleared() {
    with_ready_node("", |node| {
        let plain = numbered(1);
        write_as_aws_node(&plain);
        wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
        let pods = [node.pod("a", 2), node.pod("b", 3)];
        pods.iter().for_each(|pod| node.add(pod, BOTH));
        assert_eq!(records(), 2);
        settings_now(node, "enabled = false");
        wait_for("the main plugin's own list", SOON, || (conflist() == plain).then_some(()));
        pods[0].delete();
        wait_for("one record less", SOON, || (records() == 1).then_some(()));
        // A writer that brings it back is ignored too.
        write_as_aws_node(&plain.replace("1500}", "1500}, {\"type\": \"sluice\"}"));
        wait_for("a list without us", SOON, || (!has_entry(&conflist())).then_some(()));
        pods[1].delete();
        wait_for("no record", SOON, || (records() == 0).then_some(()));
        settings_now(node, "");
        wait_for("our entry again", SOON, || has_entry(&conflist()).then_some(()));
    });
}

#[test]
fn detach_takes_the_entry_out_of_every_list_and_keeps_their_modes() {
    with_ready_node("", |node| {
        let chained = conflist();
        node.kill_agent(Signal::SIGTERM);
        let second = format!("{CONF_DIR}/20-second.conflist");
        fs::write(&second, &chained).expect("write a second list");
        fs::write(format!("{CONF_DIR}/30-broken.conflist"), "{ \"sluice\"").expect("write");
        fs::set_permissions(&second, fs::Permissions::from_mode(0o640)).expect("set a mode");
        let output = node.sluice(&["detach"]);
        assert!(output.status.success(), "{}", text(&output));
        for path in [CONFLIST, &second] {
            let left = fs::read_to_string(path).expect("a list");
            assert_eq!(kinds(&left), ["ptp"], "{path}");
        }
        let mode = fs::metadata(&second).expect("look").permissions().mode() & 0o7777;
        assert_eq!(mode, 0o640);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(said.contains("comes back when its owner writes the file again"), "{said}");
    });
}

/// aws-node makes neither; kubelet's image or the runtime's package does, perhaps later than we start.
#[test]
fn directory_that_is_not_there_yet_gets_the_entry_as_soon_as_a_list_is_in_it() {
    with_node(|node| {
        node.boot_with("");
        let main = numbered(1);
        fs::remove_dir_all(CONF_DIR).expect("remove the directory");
        node.start_agent();
        wait_for("word of it", SOON, || node.troubles("conflist-missing").pop());
        for round in 0..3 {
            assert!(!fs::exists(CONF_DIR).expect("look"), "round {round}");
            fs::create_dir(CONF_DIR).expect("make the directory");
            write_as_aws_node(&main);
            let began = Instant::now();
            wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
            // Without hearing of the directory it would be up to five seconds.
            assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
            fs::remove_dir_all(CONF_DIR).expect("remove the directory");
            wait_for("word of it", SOON, || node.troubles("conflist-missing").pop());
        }
    });
}

#[test]
fn list_that_multus_runs_gets_the_entry_and_multus_own_file_stays() {
    with_ready_node("", |node| {
        let plain = numbered(1);
        let path = format!("/host{CONFLIST}");
        let thick = format!(
            r#"{{"cniVersion":"0.3.1","name":"multus-cni-network","type":"multus-shim","clusterNetwork":"{path}"}}"#
        );
        let thin = format!(r#"{{"type":"multus","name":"m","delegates":[{plain}]}}"#);
        let multus = format!("{CONF_DIR}/00-multus.conf");
        for text in [&thick, &thin] {
            fs::write(&multus, text).expect("write as multus does, in place");
            write_as_aws_node(&plain);
            wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
            assert_eq!(&fs::read_to_string(&multus).expect("multus' file"), text);
            assert_eq!(node.troubles("conflist-unreadable"), Vec::<Value>::new());
        }
        fs::write(&multus, thick.replace("10-main", "99-other")).expect("write");
        let trouble = wait_for("word of it", SOON, || node.troubles("conflist-unreadable").pop());
        let what = trouble["what"].as_str().expect("what was seen");
        assert_eq!(
            what,
            format!(
                "{multus}: multus runs \"clusterNetwork\" \"/host{CONF_DIR}/99-other.conflist\"; only \
                 a .conflist in {CONF_DIR} can be chained to"
            )
        );
    });
}

#[test]
fn conflist_that_cannot_be_used_is_in_the_journal_once() {
    with_node(|node| {
        node.boot_with("");
        let path = "/run/agent.log";
        node.start_agent_logging_to(fs::File::create(path).expect("a log"));
        wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
        let whole = conflist();
        let said = || {
            let log = fs::read_to_string(path).expect("the log");
            // What a reload says of it is an error.
            let of_agent = |line: &&str| line.contains("warn: ") && line.contains("; next: ");
            log.lines().filter(of_agent).filter(|line| line.contains(CONF_DIR)).count()
        };
        write_as_aws_node("{");
        wait_for("word of it", SOON, || (said() == 1).then_some(()));
        for round in 0..3 {
            write_as_aws_node("{");
            write_as_aws_node(&format!("{whole}\n"));
            wait_for("no word of it", SOON, || {
                node.troubles("conflist-unreadable").is_empty().then_some(())
            });
            write_as_aws_node("{");
            wait_for("word of it", SOON, || (said() == round + 2).then_some(()));
        }
        for _ in 0..3 {
            let passes = || report(node)["passes"].as_u64();
            let before = passes();
            node.signal_agent(Signal::SIGHUP);
            wait_for("another look", SOON, || (passes() > before).then_some(()));
        }
        assert_eq!(said(), 4);
    });
}

/// Both write the same list, by a temporary file of the same name.
#[test]
fn boots_beside_the_agent_never_get_into_its_way() {
    with_ready_node("", |node| {
        for _ in 0..30 {
            for (settings, chained) in [("enabled = false", false), ("", true)] {
                // The agent hears of the settings and of the list, and does its part.
                node.boot_with(settings);
                wait_for("the list as the settings say", SOON, || {
                    (has_entry(&conflist()) == chained).then_some(())
                });
            }
        }
        wait_for("an end of all writes", SOON, || {
            (fs::read_dir(CONF_DIR).expect("the directory").count() == 1).then_some(())
        });
    });
}

/// As a boot holds it while it writes; one that hangs must not make the agent hang.
#[test]
fn agent_writes_no_list_while_somebody_holds_the_lock_and_goes_on_with_the_rest() {
    with_ready_node("", |node| {
        let lock = fs::File::open("/run/sluice/locks/files").expect("the lock");
        lock.lock().expect("hold it");
        write_as_aws_node(&numbered(1));
        // Two answers of the loop: by the second it has long heard of the write.
        for _ in 0..2 {
            report(node);
        }
        assert_eq!(conflist(), numbered(1));
        drop(lock);
        wait_for("our entry", SOON, || has_entry(&conflist()).then_some(()));
    });
}
