// SPDX-License-Identifier: Apache-2.0
//! The agent's API and the commands on it: what they answer, who may ask, and
//! that no one can hold the agent up.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::Signal;
use serde_json::{Value, json};
use tests::api::{Response, SOCKET, ask, connect, listen, say, scrape};
use tests::cni::{Annotations, Call};
use tests::command::{executable, output, text, wait_for};
use tests::json_schema::assert_valid;
use tests::node::{Node, Pod, USER_DATA, with_node, with_ready_node};

const MBIT: u64 = 1_000_000;
const BOTH: Annotations = Annotations { egress: 20 * MBIT, ingress: 20 * MBIT };
const NO_RIGHTS: &str = "65534";

/// A node whose agent answers.
fn with_api(bandwidth: &str, test: impl FnOnce(&mut Node) + Send) {
    with_ready_node(bandwidth, |node| {
        node.wait_for_api();
        test(node);
    });
}

fn limits(node: &Node, pod: &Pod) -> (Option<u64>, Option<u64>, Value) {
    let status = node.status(pod);
    let limit = |direction: &str| status[direction]["limit_bps"].as_u64();
    (limit("egress"), limit("ingress"), status["egress"]["origin"].clone())
}

fn assert_goes_on() {
    let begin = Instant::now();
    assert_eq!(ask("GET", "/v1/pods", "").status, 200);
    assert!(begin.elapsed() < Duration::from_secs(1), "answered after {:?}", begin.elapsed());
}

#[test]
fn socket_is_for_root_where_there_is_no_group() {
    with_api("", |_| {
        let socket = fs::symlink_metadata(SOCKET).expect("the socket");
        assert_eq!((socket.permissions().mode() & 0o777, socket.uid()), (0o600, 0));
        // Even with the file open to all, the agent looks at who asks.
        fs::set_permissions(SOCKET, fs::Permissions::from_mode(0o666)).expect("open it");
        fs::set_permissions("/run/sluice", fs::Permissions::from_mode(0o755)).expect("open it");
        let output = Command::new("setpriv")
            .args(["--reuid", NO_RIGHTS, "--regid", NO_RIGHTS, "--clear-groups"])
            .args(["curl", "-s", "-i", "--unix-socket", SOCKET, "http://x/v1/status"])
            .output()
            .expect("run setpriv");
        let response =
            Response::parse(&output.stdout).unwrap_or_else(|| panic!("{}", text(&output)));
        let error = response.json()["error"].clone();
        assert_eq!(
            (response.status, error),
            (403, json!("only root and the group sluice may ask"))
        );
        assert_goes_on();
    });
}

#[test]
fn members_of_the_group_may_ask() {
    with_node(|node| {
        // A file of this mount namespace only.
        fs::write("/run/group", "root:x:0:\nsluice:x:54321:\n").expect("write a group file");
        let bound = Command::new("mount").args(["--bind", "/run/group", "/etc/group"]).status();
        assert!(bound.expect("run mount").success());
        node.boot_with("");
        node.start_agent();
        node.wait_for_api();
        let socket = fs::symlink_metadata(SOCKET).expect("the socket");
        assert_eq!((socket.permissions().mode() & 0o777, socket.gid()), (0o660, 54321));
        let curl = |gid: &str, asked: &[&str]| {
            let drop = ["setpriv", "--reuid", NO_RIGHTS, "--regid", gid, "--clear-groups"];
            ask_as(&drop, asked)
        };
        let pods = ["http://x/v1/pods"];
        assert_eq!(curl("54321", &pods).map(|response| response.status), Some(200));
        // They change nothing.
        let refused = curl("54321", &["-X", "POST", "http://x/v1/reload"]).expect("a response");
        assert_eq!(refused.status, 403);
        let error = refused.json()["error"].as_str().expect("an error").to_owned();
        assert!(error.ends_with(" is of user 65534"), "{error}");
        // The kernel itself does not let others connect.
        assert!(curl(NO_RIGHTS, &pods).is_none());
    });
}

/// What curl, started by these words, is answered.
fn ask_as(words: &[&str], asked: &[&str]) -> Option<Response> {
    let curl = ["curl", "-s", "-i", "--unix-socket", SOCKET];
    let output = output(words[0], &[&words[1..], &curl[..], asked].concat());
    Response::parse(&output.stdout)
}

#[test]
fn container_is_refused_and_root_without_its_capabilities_changes_nothing() {
    with_node(|node| {
        node.boot_with("");
        let log = fs::File::create("/run/agent.log").expect("a log");
        node.start_agent_logging_to(log);
        node.wait_for_api();
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let status = ["http://x/v1/status"];
        let limit = r#"{"egress": "1kbit", "ingress": "1kbit", "for": "7d"}"#;
        let set = ["-X", "PUT", "-d", limit, "http://x/v1/pods/default/a/limit"];
        let containers: &[(&str, &[&str])] = &[
            ("mnt", &["unshare", "--mount"]),
            ("pid", &["unshare", "--pid", "--fork"]),
            ("cgroup", &["unshare", "--cgroup"]),
            ("user", &["unshare", "--user", "--map-root-user"]),
            ("mnt", &["unshare", "--mount", "--pid", "--fork", "--cgroup", "--net"]),
        ];
        for (kind, container) in containers {
            for asked in [&status[..], &set[..]] {
                let refused = ask_as(container, asked).expect("a response");
                let error = refused.json()["error"].as_str().expect("an error").to_owned();
                let why = format!("{kind} namespace other than the host's: a container");
                assert!(refused.status == 403 && error.ends_with(&why), "{container:?}: {error}");
            }
        }
        // As a container that shares all of these with the host has it.
        let bare = ["unshare", "--net", "setpriv", "--bounding-set=-all", "--inh-caps=-all"];
        assert_eq!(ask_as(&bare, &status).map(|response| response.status), Some(200));
        let refused = ask_as(&bare, &set).expect("a response");
        let error = refused.json()["error"].as_str().expect("an error").to_owned();
        assert!(refused.status == 403 && error.ends_with("has no CAP_SYS_ADMIN"), "{error}");
        assert_eq!(limits(node, &pod).0, Some(20 * MBIT));
        // The agent's log has one of them, not all.
        let log = fs::read_to_string("/run/agent.log").expect("the log");
        assert_eq!(log.matches("refused a request on the socket: process ").count(), 1, "{log}");
        assert_eq!(ask_as(&["env"], &set).map(|response| response.status), Some(200));
    });
}

#[test]
fn limit_set_by_hand_holds_at_once_and_goes_with_clear() {
    with_api("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let set = ["limit", "set", "default/a", "--egress", "5Mbit", "--ingress", "unlimited"];
        let done = node.sluice_json(&[&set[..], &["--for", "10m", "--json"]].concat());
        assert_eq!(done["interfaces"], 1);
        assert_eq!(limits(node, &pod), (Some(5 * MBIT), None, json!("live-override")));
        let trace = node.sluice_json(&["trace", "default/a", "--json"]);
        let sources = &trace["interfaces"][0]["egress"]["sources"];
        assert_eq!((&sources[0]["value"], &sources[0]["wins"]), (&json!("5Mbit"), &json!(true)));
        assert_eq!((&sources[1]["value"], &sources[1]["wins"]), (&json!("20Mbit"), &json!(false)));
        assert_eq!(trace["interfaces"][0]["egress"]["stale"], false);
        let said =
            |words: &[&str]| String::from_utf8_lossy(&node.sluice(words).stdout).into_owned();
        let again = said(&["limit", "set", "default/a", "--egress", "6Mbit", "--for", "1h"]);
        let (egress, ingress) = again.split_once('\n').expect("two lines");
        assert!(egress.starts_with("default/a eth0 egress: 5M -> 6M until 20"), "{again}");
        assert!(egress.ends_with(" UTC (for 1h)"), "{again}");
        assert!(ingress.starts_with("default/a eth0 ingress: unlimited -> 20M until "), "{again}");
        let listed = node.sluice_json(&["limit", "list", "--json"]);
        assert_eq!(
            (&listed["overrides"][0]["pod"], &listed["overrides"][0]["override"]["egress"]),
            (&json!("a"), &json!("6Mbit"))
        );
        let listed = said(&["limit", "list"]);
        assert!(listed.contains("\ndefault/a        6Mbit         - "), "{listed}");
        let status = said(&["status", "--interval", "1"]);
        assert!(status.contains("\noverrides: default/a (ends in "), "{status}");
        assert_eq!(said(&["limit", "clear", "default/a"]), "default/a eth0 egress: 6M -> 20M\n");
        assert_eq!(said(&["limit", "clear", "default/a"]), "there was no override\n");
        assert_eq!(said(&["limit", "list"]), "no overrides\n");
        let before = (Some(20 * MBIT), Some(20 * MBIT), json!("pod-annotation"));
        assert_eq!(limits(node, &pod), before);
    });
}

#[test]
fn limit_set_by_hand_ends_when_its_time_is_up() {
    with_api("", |node| {
        let (first, second) = (node.pod("a", 2), node.pod("b", 3));
        for (pod, time) in [(&first, "1s"), (&second, "3s")] {
            node.add(pod, BOTH);
            let name = format!("default/{}", pod.name);
            let set = node.sluice(&["limit", "set", &name, "--egress", "5Mbit", "--for", time]);
            assert!(set.status.success(), "{}", text(&set));
        }
        for pod in [&first, &second] {
            wait_for("the end of the limit", Duration::from_secs(10), || {
                (limits(node, pod).0 == Some(20 * MBIT)).then_some(())
            });
        }
    });
}

#[test]
fn limit_that_cannot_be_set_is_told_why() {
    with_api("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let put =
            |pod: &str, body: &str| ask("PUT", &format!("/v1/pods/default/{pod}/limit"), body);
        let response = put("a", r#"{"egress": "5Mb", "for": "1m"}"#);
        assert_eq!(response.status, 400);
        assert_eq!(response.json()["allowed"], "a rate, e.g. \"20Mbit\", or \"unlimited\"");
        assert_eq!(put("a", r#"{"egress": "5Mbit"}"#).json()["error"], "for is missing");
        assert_eq!(put("b", r#"{"egress": "5Mbit", "for": "1m"}"#).status, 404);
        assert_eq!(limits(node, &pod).0, Some(20 * MBIT));
        let output =
            node.sluice(&["limit", "set", "default/b", "--egress", "1Mbit", "--for", "1m"]);
        assert_eq!(output.status.code(), Some(1));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("no pod default/b on this node"), "{stderr}");
        let output =
            node.sluice(&["limit", "set", "default/a", "--egress", "1Mbit", "--for", "8d"]);
        assert_eq!(output.status.code(), Some(2));
        let off = fs::read_to_string(USER_DATA).expect("user data") + "enabled = false\n";
        fs::write(USER_DATA, off).expect("write user data");
        assert_eq!(ask("POST", "/v1/reload", "").status, 200);
        let response = put("a", r#"{"egress": "5Mbit", "for": "1m"}"#);
        assert_eq!(response.status, 409, "{}", response.body);
    });
}

#[test]
fn reload_goes_through_the_agent_and_tells_what_is_wrong() {
    with_api("default-egress = \"10Mbit\"", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations::default());
        let old = fs::read_to_string(USER_DATA).expect("user data");
        fs::write(USER_DATA, old.replace("10Mbit", "30Mbit")).expect("write user data");
        assert_eq!(node.sluice(&["reload"]).status.code(), Some(0));
        assert_eq!(limits(node, &pod).0, Some(30 * MBIT));
        fs::write(USER_DATA, old.replace("10Mbit", "10Mb")).expect("write user data");
        let output = node.sluice(&["reload"]);
        assert_eq!(output.status.code(), Some(78), "{}", text(&output));
        let stderr = String::from_utf8_lossy(&output.stderr);
        assert!(stderr.contains("\"10Mb\" has an unknown unit"), "{stderr}");
        let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
        let codes: Vec<_> = status["degraded"].as_array().expect("a list").iter().collect();
        assert!(codes.iter().any(|t| t["code"] == "settings-not-as-asked"), "{status}");
    });
}

const BOOT_FILE: &str = "/run/sluice/boot.json";

#[test]
fn reload_from_a_source_that_cannot_be_read_changes_nothing() {
    with_api("default-egress = \"10Mbit\"", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations::default());
        let before = fs::read_to_string(BOOT_FILE).expect("what is in force");
        // The agent's own file is none that can be read.
        fs::remove_file(USER_DATA).expect("remove the user data");
        fs::create_dir(USER_DATA).expect("make a directory");
        for words in [&["reload", "--user-data", "/nonexistent"][..], &["reload"]] {
            let output = node.sluice(words);
            assert_eq!(output.status.code(), Some(1), "{}", text(&output));
            let said = String::from_utf8_lossy(&output.stderr);
            assert!(said.contains("nothing is changed: read the user data "), "{said}");
            assert_eq!(fs::read_to_string(BOOT_FILE).expect("what is in force"), before);
        }
        assert_eq!(node.troubles("settings-not-as-asked"), Vec::<Value>::new());
        assert_eq!(limits(node, &pod).0, Some(10 * MBIT));
    });
}

#[test]
fn settings_are_tried_for_a_while_and_what_was_before_is_put_back() {
    with_api("default-egress = \"10Mbit\"", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, Annotations::default());
        let before = fs::read_to_string(BOOT_FILE).expect("what is in force");
        let other = fs::read_to_string(USER_DATA).expect("user data").replace("10Mbit", "30Mbit");
        fs::write("/run/node/other.toml", other).expect("write user data");
        let plugin = executable("sluice-cni").display().to_string();
        let start = |time: &str| {
            let mut trial = Command::new(executable("sluice"));
            trial.args(["reload", "--user-data", "/run/node/other.toml"]);
            trial.args(["--imds-budget", "1", "--plugin", &plugin]);
            let trial =
                trial.args(["--for", time]).stdout(Stdio::piped()).spawn().expect("start sluice");
            wait_for("the settings to be tried", Duration::from_secs(20), || {
                (limits(node, &pod).0 == Some(30 * MBIT)).then_some(())
            });
            trial
        };
        let end = |trial: std::process::Child| {
            let output = trial.wait_with_output().expect("wait for sluice");
            assert_eq!(output.status.code(), Some(0), "{}", text(&output));
            wait_for("the limit of before", Duration::from_secs(20), || {
                (limits(node, &pod).0 == Some(10 * MBIT)).then_some(())
            });
            String::from_utf8_lossy(&output.stdout).into_owned()
        };
        let in_force = format!("in force again: generation 1 ({USER_DATA}), as asked for\n");
        assert!(end(start("2s")).ends_with(&in_force));
        assert_eq!(fs::read_to_string(BOOT_FILE).expect("what is in force"), before);
        let trial = start("7d");
        let pid = nix::unistd::Pid::from_raw(trial.id() as i32);
        nix::sys::signal::kill(pid, Signal::SIGHUP).expect("hang up");
        assert!(end(trial).ends_with(&in_force));
        // Others who put settings in force meanwhile have the last word.
        let trial = start("2s");
        assert_eq!(node.sluice(&["reload"]).status.code(), Some(0));
        assert!(end(trial).ends_with("other settings were put in force meanwhile; they stay\n"));
    });
}

#[test]
fn commands_work_without_an_agent_and_say_that_there_is_none() {
    with_api("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let with_agent = node.sluice_json(&["status", "--json", "--interval", "1"]);
        assert_eq!(with_agent["agent"]["report"]["ready"], true);
        node.kill_agent(Signal::SIGKILL);
        let status = node.sluice_json(&["status", "--json", "--interval", "1"]);
        assert_eq!(status["agent"], Value::Null);
        assert_eq!(status["degraded"][0]["code"], "agent-not-running");
        assert_eq!(
            status["degraded"][0]["next_step"],
            "systemctl start sluice; journalctl -u sluice says why it ended"
        );
        let top = node.sluice_json(&["top", "--json", "--interval", "1"]);
        assert_eq!(top["directions"][0]["limit_bps"], 20 * MBIT);
        let output = node.sluice(&["top", "--once", "--interval", "1"]);
        let table = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(table.lines().count() == 3 && table.contains("default/a"), "{table}");
        let trace = node.sluice(&["trace", "default/a"]);
        let printed = String::from_utf8_lossy(&trace.stdout).into_owned();
        assert!(
            printed.contains("-> pod annotation  20Mbit      kubernetes.io/egress-bandwidth"),
            "{printed}"
        );
        let pods = String::from_utf8_lossy(&node.sluice(&["pods"]).stdout).into_owned();
        assert!(pods.contains("egress    20M annotation"), "{pods}");
        let limit = node.sluice(&["limit", "clear", "default/a"]);
        let stderr = String::from_utf8_lossy(&limit.stderr).into_owned();
        assert!(stderr.contains("no agent answers on /run/sluice/sluice.sock"), "{stderr}");
        // The next agent takes the socket that the killed one has left.
        node.start_agent();
        wait_for("the new agent", Duration::from_secs(20), || {
            let stream = std::os::unix::net::UnixStream::connect(SOCKET);
            stream.is_ok().then_some(())
        });
        assert_goes_on();
    });
}

#[test]
fn status_says_with_its_exit_status_how_the_node_is_and_waits_until_it_is_well() {
    with_api("", |node| {
        let brief = |node: &Node, more: &[&str]| {
            let output = node.sluice(&[&["status", "--brief"], more].concat());
            (String::from_utf8_lossy(&output.stdout).into_owned(), output.status.code())
        };
        let well = format!("ok: no pods; generation 1 ({USER_DATA}), as asked for\n");
        assert_eq!(brief(node, &["--wait", "20"]), (well.clone(), Some(0)));
        node.kill_agent(Signal::SIGKILL);
        let (line, status) = brief(node, &["--wait", "1"]);
        assert!(line.starts_with("degraded: agent-not-running: sluice agent: "), "{line}");
        assert_eq!((line.lines().count(), status), (1, Some(3)));
        let mut waiting = Command::new(executable("sluice"));
        waiting.args(["status", "--brief", "--wait", "60"]).stdout(Stdio::piped());
        let waiting = waiting.spawn().expect("start sluice");
        node.start_agent();
        let output = waiting.wait_with_output().expect("wait for sluice");
        assert_eq!(String::from_utf8_lossy(&output.stdout), well, "{}", text(&output));
        assert_eq!(output.status.code(), Some(0));
    });
}

#[test]
fn agent_and_command_see_the_same_pods() {
    with_api("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        node.guard(&pod);
        let mut asked = ask("GET", "/v1/status", "").json();
        let mut pods = ask("GET", "/v1/pods", "").json();
        for (command, answer) in [("status", &mut asked), ("pods", &mut pods)] {
            answer["schema"] = 1.into();
            assert_valid(command, answer);
        }
        node.kill_agent(Signal::SIGKILL);
        let mut read = node.sluice_json(&["status", "--json", "--interval", "1"]);
        for status in [&mut asked, &mut read] {
            let pod = &mut status["pods"][0];
            for direction in ["egress", "ingress"] {
                // Only the command measures; and a pod looks for IPv6 routers when it likes to.
                for key in ["measured_bps", "mean_wait_ns", "sent_packets", "sent_bytes", "delays"]
                {
                    pod[direction][key] = Value::Null;
                }
            }
            for key in ["measured_bps", "passed_bytes"] {
                pod["guard"][key] = Value::Null;
            }
        }
        assert_eq!(asked["pods"], read["pods"]);
        assert_eq!(asked["kernel"], read["kernel"]);
    });
}

#[test]
fn malformed_and_oversized_requests_are_refused_and_the_agent_goes_on() {
    with_api("", |_| {
        let head =
            |header: &str| format!("PUT /v1/reload HTTP/1.1\r\n{header}\r\n\r\n").into_bytes();
        let long = [b"GET /".to_vec(), vec![b'a'; 100_000]].concat();
        let body = [head("Content-Length: 1000000"), vec![b'x'; 1_000_000]].concat();
        let table = [
            (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03".to_vec(), 400),
            (b"GET / HTTP/9.9\r\n\r\n".to_vec(), 400),
            (vec![0; 1000], 400),
            (long, 431),
            (body, 413),
            (head("Content-Length: 7\r\nContent-Length: 8"), 400),
            (head("Transfer-Encoding: chunked"), 501),
            (b"BREW /metrics HTTP/1.1\r\n\r\n".to_vec(), 405),
            (b"GET /../../etc/passwd HTTP/1.1\r\n\r\n".to_vec(), 404),
            (b"GET http://x/v1/status HTTP/1.1\r\n\r\n".to_vec(), 404),
        ];
        for (bytes, status) in table {
            let response = say(&bytes);
            let start = String::from_utf8_lossy(&bytes[..bytes.len().min(40)]).into_owned();
            assert_eq!(response.map(|response| response.status), Some(status), "{start:?}");
        }
        assert_goes_on();
    });
}

#[test]
fn stuck_peers_are_let_go_and_hold_nobody_up() {
    with_api("", |_| {
        let mut stuck: Vec<_> = (0..8).map(|_| connect()).collect();
        stuck
            .iter_mut()
            .for_each(|stream| stream.write_all(b"GET /v1/st").expect("say half of it"));
        assert_goes_on();
        for stream in stuck {
            assert_eq!(listen(stream).map(|response| response.status), Some(408));
        }
        assert_goes_on();
    });
}

#[test]
fn thousand_connections_are_served_or_refused() {
    with_api("", |_| {
        let request = b"GET /v1/pods HTTP/1.1\r\n\r\n";
        let answers: Vec<_> = std::thread::scope(|scope| {
            let asking = (0..20).map(|_| {
                scope.spawn(|| (0..50).map(|_| say(request).map(|r| r.status)).collect::<Vec<_>>())
            });
            let asking: Vec<_> = asking.collect();
            asking.into_iter().flat_map(|thread| thread.join().expect("a peer")).collect()
        });
        let count = |status| answers.iter().filter(|answer| **answer == status).count();
        let (served, refused) = (count(Some(200)), count(Some(503)));
        println!("of 1000: served {served}, refused {refused}, cut off {}", count(None));
        assert_eq!(served + refused, 1000, "{answers:?}");
        assert!(served > 0);
        assert_goes_on();
    });
}

#[test]
fn thousand_silent_connections_leave_the_agent_answering() {
    with_api("", |_| {
        let silent: Vec<_> = (0..1000).map(|_| connect()).collect();
        // As long as they are there, who comes is sent away; after two seconds they are not.
        wait_for("an answer", Duration::from_secs(10), || {
            (say(b"GET /v1/pods HTTP/1.1\r\n\r\n")?.status == 200).then_some(())
        });
        drop(silent);
        assert_goes_on();
    });
}

const METRICS: &str = "127.0.0.1:9469";

#[test]
fn two_sandboxes_of_one_name_are_one_pod_to_commands_and_two_to_metrics() {
    with_api("", |node| {
        let (old, new) = (node.pod("old", 2), node.pod("new", 3));
        for pod in [&old, &new] {
            let call = Call::new("ADD", pod, BOTH);
            let mut named = pod.clone();
            named.name = "web-0".into();
            assert!(call.run(&named).status.success());
        }
        let set = ["limit", "set", "default/web-0", "--egress", "5Mbit", "--for", "10m", "--json"];
        assert_eq!(node.sluice_json(&set)["interfaces"], 2);
        let trace = node.sluice_json(&["trace", "default/web-0", "--json"])["interfaces"].clone();
        let seen =
            |n: usize| (&trace[n]["container_id"], &trace[n]["egress"]["enforced"]["limit_bps"]);
        assert_eq!(seen(0), (&json!("id-new"), &json!(5 * MBIT)));
        assert_eq!(seen(1), (&json!("id-old"), &json!(5 * MBIT)));
        // Not from before the second ADD.
        let series = wait_for("both sandboxes", Duration::from_secs(10), || {
            let body = scrape(METRICS, "application/openmetrics-text").body;
            let samples = body.lines().filter(|line| !line.starts_with('#'));
            let series: Vec<_> = samples.filter_map(|line| line.rsplit_once(' ')).collect();
            let series: Vec<String> = series.iter().map(|(name, _)| (*name).to_owned()).collect();
            series.iter().any(|one| one.contains("container_id=\"id-old\"")).then_some(series)
        });
        let unique: std::collections::BTreeSet<_> = series.iter().collect();
        assert_eq!(unique.len(), series.len(), "{series:?}");
        assert!(!series.iter().any(|one| one.contains("id-new")), "{series:?}");
    });
}

#[test]
fn metrics_are_served_to_head_with_a_query_and_beside_a_crowd_that_says_nothing() {
    with_api("", |node| {
        let pod = node.pod("a", 2);
        node.add(&pod, BOTH);
        let head = output("curl", &["-s", "-I", &format!("http://{METRICS}/metrics?x=1")]);
        let head = String::from_utf8_lossy(&head.stdout).into_owned();
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.ends_with("\r\n\r\n"), "{head}");
        let crowd: Vec<_> =
            (0..40).map(|_| std::net::TcpStream::connect(METRICS).expect("connect")).collect();
        for _ in 0..3 {
            let begin = Instant::now();
            assert_eq!(scrape(METRICS, "text/plain").status, 200);
            assert!(begin.elapsed() < Duration::from_secs(1), "{:?}", begin.elapsed());
        }
        drop(crowd);
    });
}
