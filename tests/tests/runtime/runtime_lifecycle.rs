// SPDX-License-Identifier: Apache-2.0
//! Pods of a real containerd 1.6, 1.7 and 2.1 through everything that can come
//! in between: calls twice, a runtime or an agent that is killed, plugins that
//! fail, a restart of the machine. In the end nothing is left of any of them.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::thread;
use std::time::Duration;

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::Value;
use tests::command::{run, wait_for};
use tests::containerd::{BIN_DIR, Containerd, Pod, PodSpec};
use tests::sluice_node::{
    AFTER, BEFORE, EGRESS, INGRESS, PORTMAP, SLUICE, SluiceNode, conflist, on_each_release,
};

const LIMITS: [Option<u64>; 2] = [Some(20_000_000), Some(30_000_000)];
const BROKEN: &str = r#"{"cniVersion":"1.0.0","code":103,"msg":"broken","details":"as asked"}"#;
const PATIENCE: Duration = Duration::from_secs(20);

fn on_each(test: impl Fn(Containerd, &mut SluiceNode) + Sync) {
    on_each_release(&conflist("1.0.0", "node", &[PORTMAP, BEFORE, SLUICE, AFTER]), "", test);
}

/// With the annotations of [`LIMITS`].
fn limited(name: &str) -> PodSpec {
    PodSpec::new("default", name).annotation(EGRESS, "20M").annotation(INGRESS, "30M")
}

/// What shapes a pod: its record, and the kernel's own word for both ends.
fn shaping(node: &SluiceNode, pod: &Pod) -> (Option<Value>, [String; 2]) {
    let inside = ["tc qdisc show dev eth0", "tc filter show dev eth0 parent 51ce:"]
        .map(|line| node.run_in(pod, line));
    (node.record(&pod.id), inside)
}

#[test]
fn stop_and_remove_succeed_again_and_again_and_touch_no_other_pod() {
    on_each(|release, node| {
        let other = node.run(&limited("other"));
        node.guard("other");
        let before = shaping(node, &other);
        let pod = node.run(&limited("a"));
        let after = node.gate("after");
        node.stop(&pod.id);
        assert_eq!(node.record(&pod.id), None);
        assert!(after.received("DEL", &pod.id)["prevResult"].is_object());
        node.stop(&pod.id);
        // The same configuration for a namespace that is no more, without a result.
        assert_eq!(after.received("DEL", &pod.id)["prevResult"], Value::Null);
        node.remove(&pod.id);
        node.remove(&pod.id);
        let stopped = node.runtime.stop_pod(&pod.id);
        assert_eq!(stopped.is_err(), release == Containerd::Bookworm16, "{stopped:?}");
        assert_eq!(after.calls(&pod.id), ["ADD netns", "DEL netns", "DEL", "DEL"]);
        assert_eq!(shaping(node, &other), before);
        node.remove(&other.id);
        node.nothing_left();
    });
}

#[test]
fn killed_containerd_comes_back_to_limits_as_they_were() {
    on_each(|_, node| {
        let pods = [node.run(&limited("a")), node.run(&limited("b"))];
        node.guard("a");
        node.guard("b");
        let shaped = |node: &SluiceNode| pods.each_ref().map(|pod| shaping(node, pod));
        let before = shaped(node);
        node.runtime.kill_containerd().expect("kill containerd");
        assert_eq!(shaped(node), before);
        assert_eq!(node.limits("a"), LIMITS);
        node.runtime.start_containerd().expect("start containerd");
        assert_eq!(shaped(node), before);
        assert!(node.runtime.sandboxes().expect("the list of pods").iter().all(|pod| pod.ready));
        for pod in &pods {
            node.stop(&pod.id);
            assert_eq!(node.record(&pod.id), None);
            node.remove(&pod.id);
        }
        node.nothing_left();
    });
}

/// containerd 1.7 calls no DEL for a pod whose ADD it did not see through, so host-local keeps its
/// address, and libcni the loopback's result. What is ours goes all the same.
fn nothing_left_after_a_killed_add(release: Containerd, node: &SluiceNode) {
    node.remove_all();
    let leaks = |left: &str| {
        let of_others = left.starts_with("address") || left.starts_with("result cni-loopback-");
        release == Containerd::Trixie17 && of_others
    };
    node.nothing_left_but(leaks);
    let pod = node.run(&limited("next"));
    assert_eq!(node.limits("next"), LIMITS);
    assert_eq!(node.pod("next")["slot"], 1);
    node.remove(&pod.id);
    node.nothing_left_but(leaks);
}

#[test]
fn containerd_killed_before_or_after_our_part_of_an_add_leaves_nothing() {
    on_each(|release, node| {
        for place in ["before", "after"] {
            let gate = node.gate(place);
            gate.hold("ADD");
            let call =
                node.runtime.kill_containerd_during(&limited(place), |_| gate.wait_until_held());
            assert!(call.expect("kill containerd").is_err());
            let id = gate.last_pod();
            assert_eq!(node.record(&id).is_some(), place == "after");
            node.runtime.start_containerd().expect("start containerd");
            gate.release("ADD");
            nothing_left_after_a_killed_add(release, node);
            println!("{release:?}, killed {place} ours: {:?}", gate.calls(&id));
        }
    });
}

/// With a limit and without one: then there is nothing but a record.
fn with_and_without_limits() -> [PodSpec; 2] {
    [limited("limited"), PodSpec::new("default", "unlimited")]
}

#[test]
fn our_add_that_ends_after_containerd_was_killed_leaves_nothing() {
    on_each(|release, node| {
        for spec in with_and_without_limits() {
            let verbs = node.hold_verbs();
            kill_during_our_add(node, &spec, |_| ());
            node.runtime.start_containerd().expect("start containerd");
            assert_eq!(node.plugins().len(), 1, "the orphan waits");
            drop(verbs);
            wait_for("the orphan's end", PATIENCE, || node.plugins().is_empty().then_some(()));
            assert_eq!(node.pods().len(), 1, "the orphan has done its work");
            nothing_left_after_a_killed_add(release, node);
        }
    });
}

#[test]
fn our_add_that_ends_after_its_own_del_leaves_nothing() {
    on_each(|release, node| {
        for spec in with_and_without_limits() {
            let verbs = node.hold_verbs();
            let mut orphan = None;
            kill_during_our_add(node, &spec, |pid| {
                kill(pid, Signal::SIGSTOP).expect("stop the plugin");
                orphan = Some(pid);
            });
            node.runtime.start_containerd().expect("start containerd");
            drop(verbs);
            node.remove_all();
            kill(orphan.expect("a plugin"), Signal::SIGCONT).expect("let it go on");
            wait_for("its end", PATIENCE, || node.plugins().is_empty().then_some(()));
            nothing_left_after_a_killed_add(release, node);
        }
    });
}

#[test]
fn our_add_that_is_killed_itself_leaves_nothing_and_a_retry_succeeds() {
    on_each(|_, node| {
        let node = &*node;
        let verbs = node.hold_verbs();
        let said = thread::scope(|scope| {
            let call = scope.spawn(|| node.refused(&limited("a")));
            let plugin = wait_for("our plugin", PATIENCE, || node.plugins().pop());
            kill(plugin, Signal::SIGKILL).expect("kill the plugin");
            // The DEL that follows at once takes the same lock.
            drop(verbs);
            call.join().expect("the call")
        });
        println!("{said}");
        assert!(said.contains("plugin type=\"sluice\" failed (add): netplugin failed"), "{said}");
        node.nothing_left();
        let pod = node.run(&PodSpec { attempt: 1, ..limited("a") });
        assert_eq!(node.limits("a"), LIMITS);
        node.remove(&pod.id);
        node.nothing_left();
    });
}

/// SIGKILL of containerd while our plugin waits for the lock, which the caller holds.
fn kill_during_our_add(node: &mut SluiceNode, spec: &PodSpec, at: impl FnOnce(Pid)) {
    let plugin = Path::new(BIN_DIR).join("sluice");
    let call = node.runtime.kill_containerd_during(spec, |runtime| {
        let waits = |pid: &Pid| waits_for_the_lock(*pid);
        let plugin = || runtime.processes(&plugin).pop().filter(waits);
        at(wait_for("our plugin at the lock", PATIENCE, plugin));
    });
    assert!(call.expect("kill containerd").is_err());
}

/// Then it has read all that the runtime had to say.
fn waits_for_the_lock(pid: Pid) -> bool {
    let files = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let mut opened = files.filter_map(|file| fs::read_link(file.path()).ok());
    opened.any(|path| path.ends_with("run/sluice/locks/pods"))
}

#[test]
fn add_waits_for_an_agent_that_is_about_to_start_and_for_no_settings() {
    on_each(|_, node| {
        node.end_agent(Signal::SIGTERM);
        let settings = node.runtime.host_path("/run/sluice/settings.toml");
        let pins = node.runtime.host_path("/sys/fs/bpf/sluice");
        fs::remove_dir_all(pins).expect("take the pins away");
        run("touch", &[settings.to_str().expect("UTF-8")]);
        let no_pins = "plugin type=\"sluice\" failed (add): sluice: open the shaper's pins (is \
            sluice.service running?); ";
        refused_without_a_trace(node, &limited("a"), no_pins);
        let kept = settings.with_extension("kept");
        fs::rename(&settings, &kept).expect("take the settings away");
        let pod = node.run(&PodSpec { attempt: 1, ..limited("a") });
        let why = node.record(&pod.id).expect("a record")["admitted"].to_string();
        assert!(why.contains("find the settings in force (has `sluice boot` run?)"), "{why}");
        fs::rename(&kept, &settings).expect("restore the settings");
        node.start_agent();
        wait_for("the limits", PATIENCE, || (node.limits("a") == LIMITS).then_some(()));
        node.remove(&pod.id);
        node.nothing_left();
    });
}

/// Without maps there is nothing in them either.
fn refused_without_a_trace(node: &SluiceNode, spec: &PodSpec, words: &str) {
    let said = node.refused(spec);
    println!("{said}");
    assert!(said.contains(words), "{said}");
    assert!(node.runtime.sandboxes().expect("the list of pods").is_empty());
    let id = node.gate("after").last_pod();
    assert_eq!(node.gate("after").calls(&id), ["DEL netns"]);
    assert_eq!(node.record(&id), None);
}

#[test]
fn plugin_that_fails_after_ours_leaves_nothing_and_a_retry_succeeds() {
    on_each(|_, node| {
        // It would collect what DEL left.
        node.end_agent(Signal::SIGTERM);
        let after = node.gate("after");
        after.fail("ADD", Some(BROKEN));
        let said = node.refused(&limited("a"));
        assert!(said.ends_with("plugin type=\"after\" failed (add): broken; as asked"), "{said}");
        assert_eq!(after.calls(&after.last_pod()), ["ADD netns", "DEL netns"]);
        node.nothing_left();
        after.fail("ADD", None);
        let pod = node.run(&PodSpec { attempt: 1, ..limited("a") });
        assert_eq!(node.limits("a"), LIMITS);
        node.remove(&pod.id);
        node.nothing_left();
    });
}

#[test]
fn del_that_never_reaches_us_leaves_nothing_of_ours() {
    on_each(|release, node| {
        let after = node.gate("after");
        after.fail("ADD", Some(BROKEN));
        after.fail("DEL", Some(BROKEN));
        // The chain is undone from its end, which fails: no one before it is called.
        node.refused(&limited("a"));
        let id = after.last_pod();
        after.fail("ADD", None);
        after.fail("DEL", None);
        node.remove_all();
        println!("{release:?}: {:?}", after.calls(&id));
        // Only 1.6 tries again. Then host-local keeps its address.
        let leaks = |left: &str| release != Containerd::Bookworm16 && left.starts_with("address");
        node.nothing_left_but(leaks);
    });
}

#[test]
fn pods_come_and_go_without_an_agent() {
    on_each(|_, node| {
        let early = node.run(&limited("early"));
        let gone = node.run(&limited("gone"));
        node.guard("early");
        node.guard("gone");
        node.end_agent(Signal::SIGKILL);
        node.remove(&gone.id);
        let late = node.run(&limited("late"));
        assert_eq!(node.limits("late"), LIMITS);
        assert_eq!(node.pod("late")["guard"]["state"], "pending");
        node.start_agent();
        let guard = node.guard("late");
        assert_eq!(guard["state"], "tcx", "{guard}");
        let names: BTreeSet<_> = node.pods().iter().map(|pod| pod["pod"].to_string()).collect();
        assert_eq!(names, ["\"early\"", "\"late\""].map(str::to_owned).into());
        node.end_agent(Signal::SIGKILL);
        node.remove(&early.id);
        node.remove(&late.id);
        // No one is there to collect anything.
        node.nothing_left();
    });
}

#[test]
fn pods_that_come_or_go_while_we_are_not_in_the_chain_are_adopted_or_collected() {
    on_each(|_, node| {
        let gone = node.run(&limited("gone"));
        node.end_agent(Signal::SIGKILL);
        // As at a restart of the main plugin's daemon, which knows nothing of us.
        node.write_conflist(&conflist("1.0.0", "node", &[PORTMAP, BEFORE, AFTER]));
        node.remove(&gone.id);
        let missed = node.run(&limited("missed"));
        assert!(node.record(&gone.id).is_some() && node.record(&missed.id).is_none());
        node.start_agent();
        wait_for("adoption", PATIENCE, || node.record(&missed.id));
        assert_eq!(node.limits("missed"), LIMITS);
        assert_eq!(node.record(&gone.id), None);
        wait_for("our entry", PATIENCE, || node.conflist().contains("sluice").then_some(()));
        node.wait_until_loaded();
        // A DEL of a pod that we were never asked to ADD.
        node.remove(&missed.id);
        node.nothing_left();
    });
}

#[test]
fn pods_of_before_a_restart_of_the_machine_are_deleted_and_new_ones_limited() {
    on_each(|release, node| {
        let pods = [node.run(&limited("a")), node.run(&limited("b"))];
        node.restart_machine();
        let known = node.runtime.sandboxes().expect("the list of pods");
        assert!(known.len() == 2 && known.iter().all(|pod| !pod.ready), "{known:?}");
        // One before `sluice boot` has run, one when the agent is there.
        node.stop(&pods[0].id);
        node.remove(&pods[0].id);
        node.boot("");
        node.start_agent();
        node.stop(&pods[1].id);
        node.remove(&pods[1].id);
        println!("{release:?}: {:?}", node.gate("after").calls(&pods[0].id));
        node.nothing_left();
        let pod = node.run(&limited("new"));
        assert_eq!(node.limits("new"), LIMITS);
        assert_eq!(node.pod("new")["slot"], 1);
        node.remove(&pod.id);
        node.nothing_left();
    });
}
