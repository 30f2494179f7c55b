// SPDX-License-Identifier: Apache-2.0
//! What people see: every command that has a screen, in a real terminal of 80
//! and of 200 columns.

use std::io::{Read, Write};
use std::process::{Command, Stdio};

use nix::sys::signal::Signal;
use tests::cni::{Annotations, Call};
use tests::command::{executable, json, text, wait_for};
use tests::json_schema::assert_valid;
use tests::node::{Node, USER_DATA, with_ready_node};

const MBIT: u64 = 1_000_000;
const BOTH: Annotations = Annotations { egress: 20 * MBIT, ingress: 20 * MBIT };
const LONG: &str = "payments-reconciliation-worker-deployment-7d9c4b6f58-x2x9k";
const WIDTHS: [usize; 2] = [80, 200];

/// A terminal of this width that runs `sluice` with these words.
fn terminal(width: usize, words: &str) -> Command {
    let sluice = executable("sluice").display().to_string();
    let mut command = Command::new("script");
    let line = format!("stty cols {width} rows 24 && exec {sluice} {words}");
    command.args(["--quiet", "--return", "--command", &line, "/dev/null"]).env("TERM", "xterm");
    command.env_remove("NO_COLOR").stdin(Stdio::piped()).stdout(Stdio::piped());
    command
}

/// What it shows, with its colours.
fn shown(width: usize, words: &str) -> String {
    let output = terminal(width, words).output().expect("run script");
    let status = output.status.code();
    assert!(matches!(status, Some(0 | 1 | 3)), "{words}: {}", text(&output));
    String::from_utf8_lossy(&output.stdout).replace('\r', "")
}

/// Without what acts on the terminal; a move of the cursor begins a line.
fn plain(text: &str) -> Vec<String> {
    let mut lines = vec![String::new()];
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        let line = lines.last_mut().expect("a line");
        match c {
            '\n' => lines.push(String::new()),
            '\u{1b}' if rest.as_str().starts_with('[') => {
                let end = rest.by_ref().skip(1).find(|c| c.is_ascii_alphabetic());
                if end == Some('H') {
                    lines.push(String::new());
                }
            }
            c => line.push(c),
        }
    }
    lines
}

fn assert_fits(width: usize, words: &str, lines: &[String]) {
    for line in lines {
        assert!(line.chars().count() <= width, "{words} in {width} columns: {line:?}");
    }
}

/// A node with a limited pod whose name is long, one that has none, and an agent.
fn with_screens(test: impl FnOnce(&mut Node) + Send) {
    with_screens_of("max-egress = \"10Mbit\"", test);
}

fn with_screens_of(bandwidth: &str, test: impl FnOnce(&mut Node) + Send) {
    with_ready_node(bandwidth, |node| {
        node.wait_for_api();
        for (number, name) in [(2, LONG), (3, "web")] {
            let mut pod = node.pod(&format!("p{number}"), number);
            pod.name = name.into();
            let limits = if name == LONG { BOTH } else { Annotations::default() };
            let mut call = Call::new("ADD", &pod, limits);
            call.netns = format!("/run/netns/p{number}");
            let output = call.run(&pod);
            assert!(output.status.success(), "{}", text(&output));
        }
        test(node);
    });
}

#[test]
fn no_line_is_longer_than_the_terminal_and_no_column_is_missing() {
    with_screens(|node| {
        let limit = format!("limit set default/{LONG} --ingress 5Mbit --for 10m");
        let heads = |line: &str| line.split_whitespace().map(str::to_owned).collect::<Vec<_>>();
        let pods = heads("POD DIR LIMIT ORIGIN RATE WAIT MARKS DROPS MODE");
        let top = heads("POD DIR RATE LIMIT USED WAIT MARKS DROPS MODE");
        for width in WIDTHS {
            let mut words: Vec<String> = [
                &limit,
                "limit list",
                "status --interval 1",
                "status --brief",
                "doctor",
                "doctor --all",
                "settings show --origin",
                "settings explain bandwidth.burst",
                "max-pods --all",
                "max-pods --instance-type t3a.medium --explain",
                "cluster-config",
                "--help",
            ]
            .map(str::to_owned)
            .into();
            words.push(format!("trace default/{LONG}"));
            words.push(format!("check {USER_DATA}"));
            for command in ["boot", "plan", "status", "pods", "top", "limit set", "doctor", "check"]
            {
                words.push(format!("{command} --help"));
            }
            for words in &words {
                assert_fits(width, words, &plain(&shown(width, words)));
            }
            for (words, heads_of_it) in [
                ("pods --interval 1", &pods),
                ("pods -n default --sort rate", &pods),
                ("top --once", &top),
            ] {
                let lines = plain(&shown(width, words));
                assert_fits(width, words, &lines);
                assert_eq!(heads(&lines[0]), *heads_of_it, "{words}: {lines:#?}");
                let of_it = |line: &&String| line.contains("gress ") && line.contains("x2x9k");
                let rows: Vec<_> = lines.iter().filter(of_it).collect();
                let whole = rows.iter().filter(|row| row.contains(LONG)).count();
                let all = if width == 200 { 2 } else { 0 };
                assert_eq!((rows.len(), whole), (2, all), "{words}: {lines:#?}");
            }
        }
        // Whatever else there is, a pod has one line for each direction, and what is wrong below.
        let lines = plain(&shown(80, "pods web"));
        assert_eq!(lines.iter().filter(|line| line.ends_with(" policed")).count(), 1);
        assert_eq!(lines.iter().filter(|line| line.ends_with(" -")).count(), 1);
        let output = node.sluice(&["pods", "none"]);
        assert_eq!(output.status.code(), Some(1), "{}", text(&output));
        node.kill_agent(Signal::SIGKILL);
        assert!(shown(80, "status --brief").starts_with("\u{1b}[38;5;11mdegraded:"), "no colour");
    });
}

#[test]
fn top_fits_the_terminal_and_obeys_its_keys() {
    with_screens(|node| {
        node.kill_agent(Signal::SIGKILL);
        for width in WIDTHS {
            let mut child = terminal(width, "top --interval 100").spawn().expect("start script");
            let mut keys = child.stdin.take().expect("a pipe");
            let mut screen = child.stdout.take().expect("a pipe");
            let mut seen = Vec::new();
            let mut until = |word: &str| {
                wait_for(word, std::time::Duration::from_secs(20), || {
                    let mut bytes = [0; 4096];
                    let length = screen.read(&mut bytes).expect("read the screen");
                    seen.extend_from_slice(&bytes[..length]);
                    String::from_utf8_lossy(&seen).contains(word).then_some(())
                });
            };
            until("agent-not-running");
            until("20M");
            keys.write_all(b"h").expect("press h");
            until("Ctrl-C");
            keys.write_all(b"\x1b").expect("press Escape");
            keys.write_all(b"/nothing\r").expect("filter");
            until("no pod's name has \"nothing\"");
            keys.write_all(b"\x1b[F\x1b[Hq").expect("press q");
            assert!(child.wait().expect("wait for script").success());
            let lines = plain(&String::from_utf8_lossy(&seen).replace('\r', ""));
            assert_fits(width, "top", &lines);
            assert!(lines.iter().any(|line| line.starts_with("pods 2  limits 3  egress ")));
        }
    });
}

/// With all that a page can have: a maximum, a class, pods that share the node.
const ALL: &str = r#"max-egress = "10Mbit"
node-share = true
node-egress = "1Gbit"
node-ingress = "1Gbit"

[[settings.sluice.bandwidth.class]]
name = "web"
namespaces = ["default"]
pods = ["web"]
egress = "5Mbit"
weight = 200"#;

#[test]
fn every_json_is_one_object_by_its_schema_whatever_goes_wrong() {
    with_screens_of(ALL, |node| {
        let (trace, check) = (format!("trace default/{LONG}"), format!("check {USER_DATA}"));
        for (words, status) in [
            ("status --interval 1", 3),
            ("pods --interval 1", 0),
            ("top --interval 1", 0),
            (&format!("limit set default/{LONG} --egress 1Mbit --for 1m"), 0),
            ("limit list", 0),
            ("limit set default/none --egress 1Mbit --for 1m", 1),
            ("limit set default/none --egress 1Mb --for 1m", 1),
            ("limit clear default/web", 0),
            (&trace, 0),
            ("doctor", 3),
            ("settings show", 0),
            ("settings show --origin", 0),
            ("max-pods --all", 0),
            ("max-pods --instance-type t3a.medium", 0),
            (&check, 0),
            ("check /nonexistent", 1),
        ] {
            let words: Vec<_> = words.split(' ').chain(["--json"]).collect();
            let output = node.sluice(&words);
            assert_eq!(output.status.code(), Some(status), "{words:?}: {}", text(&output));
            let printed = json(&String::from_utf8_lossy(&output.stdout));
            assert_valid(words[0], &printed);
            assert_eq!(printed["error"].is_string(), status == 1, "{words:?}: {printed}");
        }
        let shown = node.sluice_json(&["settings", "show", "--origin", "--json"]);
        let all = shown["settings"].as_array().expect("settings");
        let of = |key: &str| all.iter().find(|it| it["key"] == key).expect("the key").clone();
        let expected = (&"\"10Mbit\"".into(), &USER_DATA.into());
        assert_eq!(
            (&of("bandwidth.max-egress")["value"], &of("bandwidth.max-egress")["file"]),
            expected
        );
        assert!(of("bandwidth.burst")["file"].is_null());
        node.kill_agent(Signal::SIGKILL);
        assert!(node.sluice_json(&["status", "--json", "--interval", "1"])["agent"].is_null());
    });
}
