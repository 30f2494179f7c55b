// SPDX-License-Identifier: Apache-2.0
//! Where `sluice boot` finds its settings, and what it says when IMDS, a
//! carrier or a source is not as it should be.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

use flate2::{Compression, write::GzEncoder};
use nix::mount::{MsFlags, mount};
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use serde_json::json as value;
use tests::command::{executable, json, output, text};
use tests::imds::{Address, Imds, Step};
use tests::node::{BIN_DIR, CONF_DIR, CONFLIST, with_node};

const DATA: &str = "http://169.254.169.254/latest/user-data";
const TOKEN: &str = "http://169.254.169.254/latest/api/token";
const TOKEN_6: &str = "http://[fd00:ec2::254]/latest/api/token";
const NO_ROUTE_6: &str =
    "Network is unreachable (os error 101) from http://[fd00:ec2::254]/latest/api/token";

/// What `boot` says in the end when the settings are in force.
const WROTE: &str = "info: wrote /run/node/bin/sluice\ninfo: wrote /run/sluice/settings.toml\ninfo: \
                     wrote /run/node/net.d/10-main.conflist\n";
/// The default settings' directories; there is no conflist there, and none is made.
const DEFAULTS: &str = "info: wrote /opt/cni/bin/sluice\ninfo: wrote /run/sluice/settings.toml\n";

/// Gone by the time that IMDS is asked.
const REHEARSAL: &str = "/run/sluice/rehearsal";

fn settings() -> String {
    format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nconf-dir = \"{CONF_DIR}\"\n\
         bin-dir = \"{BIN_DIR}\"\n[settings.sluice.bandwidth]\ndefault-egress = \"123Mbit\"\n"
    )
}

/// A node without user data or CNI files of the machine that the test runs on.
fn on_bare_node(test: impl FnOnce() + Send) {
    with_node(|_| {
        let none = None::<&str>;
        let hidden = ["/var/lib", "/etc/cni", "/opt/cni", "/sys/firmware"];
        for dir in hidden.iter().filter(|dir| fs::exists(dir).expect("look for a directory")) {
            mount(Some("tmpfs"), *dir, Some("tmpfs"), MsFlags::empty(), none).expect("hide");
        }
        test();
    });
}

fn boot(seconds: &str) -> Output {
    boot_in(&[], seconds)
}

/// With these variables in its environment.
fn boot_in(environment: &[(&str, &str)], seconds: &str) -> Output {
    let mut command = Command::new(executable("sluice"));
    // No pod starts here, and to copy a plugin of 100 MB, built for debugging, takes most of a second.
    command.args(["boot", "--imds-budget", seconds, "--plugin", "/bin/true"]);
    command.envs(environment.iter().copied()).output().expect("run sluice")
}

/// Standard error without the program's name, with N for the time until the next try and for the
/// number of tries, and equal lines that follow each other as one.
fn said(output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    let mut lines: Vec<_> = stderr.lines().map(without_chance).collect();
    lines.dedup();
    lines.concat()
}

fn without_chance(line: &str) -> String {
    let line = line.strip_prefix("sluice: ").unwrap_or(line);
    match (line.rsplit_once(", again in "), line.split_once("(tries: ")) {
        (Some((before, after)), _) if after.ends_with(" s") => format!("{before}, again in N s\n"),
        (_, Some((before, after))) => {
            format!("{before}(tries: N{}\n", after.trim_start_matches(|c: char| c.is_ascii_digit()))
        }
        _ => format!("{line}\n"),
    }
}

fn in_force(output: &Output, expected: &str) {
    assert_eq!(said(output), format!("{expected}{WROTE}"));
    assert_eq!(output.status.code(), Some(0), "{}", text(output));
    let settings = fs::read_to_string("/run/sluice/settings.toml").expect("read settings.toml");
    assert!(settings.contains("\"123Mbit\""), "{settings}");
    assert!(!fs::exists(REHEARSAL).expect("look for the rehearsal"));
    assert!(fs::read_to_string(CONFLIST).expect("read the conflist").contains("sluice"));
}

/// Instead the built-in defaults are, and the node's own conflist is left alone.
fn not_in_force(output: &Output, status: i32, expected: &str) {
    let instead = "warn: in force: built-in defaults, instead of what was asked for\n";
    let instead = if expected.ends_with(DEFAULTS) { "" } else { instead };
    assert_eq!(said(output), format!("{expected}{instead}"));
    assert_eq!(output.status.code(), Some(status), "{}", text(output));
    let settings = fs::read_to_string("/run/sluice/settings.toml").expect("read settings.toml");
    assert!(!settings.contains("123Mbit"), "{settings}");
    assert!(!fs::exists(REHEARSAL).expect("look for the rehearsal"));
    assert!(!fs::exists(format!("{BIN_DIR}/sluice")).expect("look for the plugin"));
    assert!(!fs::exists("/etc/cni/net.d").expect("look for conflists"));
    assert!(!fs::read_to_string(CONFLIST).expect("read the conflist").contains("sluice"));
}

/// What `boot` says when it has the user data.
const GOT: &str = "info: user data from http://169.254.169.254/latest/user-data\n";

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::best());
    encoder.write_all(bytes).expect("compress");
    encoder.finish().expect("compress")
}

#[test]
fn settings_from_imds_are_in_force() {
    on_bare_node(|| {
        let text = settings();
        let imds = Imds::start(Address::V4, Some(text.as_bytes()), &[]);
        in_force(&boot("60"), GOT);
        assert_eq!(imds.requests(), ["PUT /latest/api/token 200", "GET /latest/user-data 200"]);
    });
}

#[test]
fn boot_is_rehearsed_before_imds_is_asked_and_leaves_nothing_of_that() {
    on_bare_node(|| {
        // Of one that was killed.
        fs::create_dir_all(format!("{REHEARSAL}/var/lib/sluice")).expect("make a directory");
        let inotify = Inotify::init(InitFlags::IN_NONBLOCK).expect("inotify");
        inotify.add_watch(REHEARSAL, AddWatchFlags::IN_CREATE).expect("watch the rehearsal");
        let text = settings();
        let _imds = Imds::start(Address::V4, Some(text.as_bytes()), &[]);
        in_force(&boot("60"), GOT);
        let made = inotify.read_events().expect("what was made");
        let made: Vec<_> = made.into_iter().filter_map(|event| event.name).collect();
        // For locks and what is in force, and for the plugin; that of generations was there.
        assert_eq!(made, ["run", "opt"]);
    });
}

#[test]
fn ipv6_endpoint_serves_where_there_is_no_ipv4() {
    on_bare_node(|| {
        let text = settings();
        let _imds = Imds::start(Address::V6, Some(text.as_bytes()), &[]);
        let url = "http://[fd00:ec2::254]/latest/user-data";
        in_force(&boot("60"), &format!("info: user data from {url}\n"));
    });
}

#[test]
fn instance_without_user_data_has_the_defaults() {
    on_bare_node(|| {
        let _imds = Imds::start(Address::V4, None, &[]);
        let expected =
            format!("info: imds: 404 from {DATA}: this instance has no user data\n{DEFAULTS}");
        not_in_force(&boot("60"), 0, &expected);
    });
}

#[test]
fn user_data_of_others_leaves_the_defaults() {
    on_bare_node(|| {
        let script = b"#!/bin/sh\necho sluice\n";
        let _imds = Imds::start(Address::V4, Some(script), &[]);
        let expected = format!("{GOT}info: imds:user-data has no settings for sluice\n{DEFAULTS}");
        not_in_force(&boot("60"), 0, &expected);
    });
}

#[test]
fn switched_off_imds_is_told_at_once() {
    for (script, url) in
        [(&[Step::Status(403)][..], TOKEN), (&[Step::Works, Step::Status(403)][..], DATA)]
    {
        on_bare_node(|| {
            let imds = Imds::start(Address::V4, Some(b""), script);
            let expected = format!(
                "error: ask IMDS for the user data: 403 from {url}: IMDS is switched off for this \
                 instance (metadata option HttpEndpoint)\n"
            );
            not_in_force(&boot("60"), 1, &expected);
            assert_eq!(imds.requests().len(), script.len());
        });
    }
}

#[test]
fn bad_request_is_not_tried_again() {
    on_bare_node(|| {
        let imds = Imds::start(Address::V4, Some(b""), &[Step::Status(400)]);
        let expected =
            format!("error: ask IMDS for the user data: 400 from {TOKEN}, expected 200\n");
        not_in_force(&boot("60"), 1, &expected);
        assert_eq!(imds.requests().len(), 1);
    });
}

#[test]
fn token_that_ran_out_is_replaced_without_a_pause() {
    for script in [&[Step::ShortToken][..], &[Step::Works, Step::Status(401)][..]] {
        on_bare_node(|| {
            let text = settings();
            let imds = Imds::start(Address::V4, Some(text.as_bytes()), script);
            let expected = format!("info: imds: 401 from {DATA}, again with a new token\n{GOT}");
            in_force(&boot("60"), &expected);
            let (put, get) = ("PUT /latest/api/token 200", "GET /latest/user-data");
            let requests = [put, &format!("{get} 401"), put, &format!("{get} 200")];
            assert_eq!(imds.requests(), requests);
        });
    }
}

#[test]
fn what_can_pass_is_tried_again() {
    use Step::{Breaks, Late, Reset, Status, Works};
    let late = Late(Duration::from_millis(1500));
    let reset = "Connection reset by peer (os error 104)";
    let table: [(&[Step], Vec<String>); 6] = [
        (&[Status(503)], vec![format!("503 from {TOKEN}")]),
        (
            &[Works, Status(503), Works, Status(500)],
            vec![format!("503 from {DATA}"), format!("500 from {DATA}")],
        ),
        (&[Reset], vec![format!("{reset} from {TOKEN}, {NO_ROUTE_6}")]),
        (&[Works, Reset], vec![format!("{reset} from {DATA}, {NO_ROUTE_6}")]),
        (&[Works, Breaks(10)], vec![format!("Peer disconnected from {DATA}, {NO_ROUTE_6}")]),
        (&[Works, late], vec![]),
    ];
    for (script, faults) in table {
        on_bare_node(|| {
            let text = settings();
            let _imds = Imds::start(Address::V4, Some(text.as_bytes()), script);
            let warning = |fault: &String| format!("warn: imds: {fault}, again in N s\n");
            let expected: String = faults.iter().map(warning).collect();
            in_force(&boot("60"), &format!("{expected}{GOT}"));
        });
    }
}

#[test]
fn hanging_request_is_given_up_after_two_seconds() {
    on_bare_node(|| {
        let text = settings();
        let _imds = Imds::start(Address::V4, Some(text.as_bytes()), &[Step::Works, Step::Hang]);
        let start = Instant::now();
        let expected =
            format!("warn: imds: no answer in 2 s from {DATA}, {NO_ROUTE_6}, again in N s\n{GOT}");
        in_force(&boot("60"), &expected);
        let took = start.elapsed();
        assert!((2.0..4.0).contains(&took.as_secs_f64()), "{took:?}");
    });
}

#[test]
fn imds_may_start_ten_seconds_after_the_node() {
    on_bare_node(|| {
        let text = settings();
        let delay = Duration::from_secs(10);
        let _imds = Imds::start_after(delay, Address::V4, Some(text.as_bytes()), &[]);
        let start = Instant::now();
        let expected = format!(
            "warn: imds: Connection refused (os error 111) from {TOKEN}, {NO_ROUTE_6}, again in N \
             s\n{GOT}"
        );
        in_force(&boot("60"), &expected);
        let took = start.elapsed();
        assert!((10.0..13.0).contains(&took.as_secs_f64()), "{took:?}");
    });
}

#[test]
fn network_may_come_after_boot_has_begun() {
    on_bare_node(|| {
        let mut command = Command::new(executable("sluice"));
        command.args(["boot", "--imds-budget", "60", "--plugin"]).arg(executable("sluice-cni"));
        let mut child = command.stderr(Stdio::piped()).spawn().expect("run sluice");
        let mut lines = BufReader::new(child.stderr.take().expect("a pipe"));
        let mut stderr = String::new();
        lines.read_line(&mut stderr).expect("what is waited for");
        let held = |path| fs::exists(path).expect("look for a file");
        assert!(!held(REHEARSAL) && !held("/run/sluice/settings.toml"));
        let text = settings();
        let _imds = Imds::start(Address::V4, Some(text.as_bytes()), &[]);
        // The address is there a moment before who answers at it.
        let rest = lines.lines().map(|line| line.expect("a line") + "\n");
        stderr.extend(rest.filter(|line| !line.contains("Connection refused")));
        let status = child.wait().expect("wait for sluice");
        let output = Output { status, stdout: Vec::new(), stderr: stderr.into_bytes() };
        let fault = format!("Network is unreachable (os error 101) from {TOKEN}, {NO_ROUTE_6}");
        let expected = format!("warn: imds: {fault}, again until there is a network\n{GOT}");
        in_force(&output, &expected);
    });
}

#[test]
fn node_without_imds_says_so_when_the_budget_is_spent() {
    on_bare_node(|| {
        let start = Instant::now();
        let fault = format!("Network is unreachable (os error 101) from {TOKEN}, {NO_ROUTE_6}");
        let expected = format!(
            "warn: imds: {fault}, again until there is a network\nerror: ask IMDS for the user data: no \
             usable answer within 3 s (tries: N): {fault}\n"
        );
        not_in_force(&boot("3"), 1, &expected);
        let took = start.elapsed();
        assert!((2.9..3.9).contains(&took.as_secs_f64()), "{took:?}");
        // Where that time went.
        let in_force =
            json(&fs::read_to_string("/run/sluice/boot.json").expect("what is in force"));
        let waited = in_force["took"]["user_data_ms"].as_u64().expect("a time");
        assert!((2900..3900).contains(&waited), "{in_force}");
        let sluice = executable("sluice").display().to_string();
        let status = text(&output(&sluice, &["status"]));
        assert!(
            status.contains(&format!(" ms: user data {waited}, firmware and plan ")),
            "{status}"
        );
    });
}

/// On metal or in a VM: the node's own file is all there is.
#[test]
fn machine_of_another_vendor_boots_at_once_with_its_own_settings() {
    on_bare_node(|| {
        let node = tempfile::tempdir().expect("make a node");
        for (file, content) in [
            ("sys/class/dmi/id/sys_vendor", "QEMU\n".to_owned()),
            ("etc/sluice/settings.toml", settings()),
        ] {
            let path = node.path().join(file);
            fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
            fs::write(path, content).expect("write a file");
        }
        let start = Instant::now();
        let mut command = Command::new(executable("sluice"));
        command.arg("--root").arg(node.path()).args(["boot", "--imds-budget", "60"]);
        let output = command.args(["--plugin", "/bin/true"]).output().expect("run sluice");
        assert!(start.elapsed() < Duration::from_secs(5), "{:?}", start.elapsed());
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        let expected = "info: no user data: IMDS is EC2's, and this machine is of QEMU\n";
        assert!(said(&output).starts_with(expected), "{}", text(&output));
        let in_force = fs::read_to_string(node.path().join("run/sluice/boot.json"));
        let in_force = json(&in_force.expect("what is in force"));
        assert_eq!(in_force["reason"], "as-asked");
        assert!(in_force["documents"][0].as_str().expect("a name").contains("settings.toml"));
        assert_eq!((&in_force["problems"], &in_force["unmet"]), (&value!([]), &value!([])));
    });
}

#[test]
fn hanging_imds_does_not_stretch_the_budget() {
    on_bare_node(|| {
        let _v4 = Imds::start(Address::V4, Some(b""), &[Step::Hang; 9]);
        let _v6 = Imds::start(Address::V6, Some(b""), &[Step::Hang; 9]);
        let start = Instant::now();
        let output = boot("3");
        let took = start.elapsed();
        assert!((2.9..3.9).contains(&took.as_secs_f64()), "{took:?}");
        // The second endpoint has what the first one left of the budget.
        let expected = format!(
            "error: ask IMDS for the user data: no usable answer within 3 s (tries: 1): no answer \
             in 2 s from {TOKEN}, no answer in "
        );
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(stderr.starts_with(&format!("sluice: {expected}")), "{stderr}");
        let first = stderr.lines().next().unwrap_or_default();
        assert!(first.ends_with(&format!(" s from {TOKEN_6}")), "{stderr}");
        assert_eq!(output.status.code(), Some(1));
    });
}

#[test]
fn user_data_of_ec2s_full_length_is_read() {
    on_bare_node(|| {
        let text = format!("{}{}", settings(), "# a comment of 32 letters ......\n".repeat(500));
        let _imds = Imds::start(Address::V4, Some(&text.as_bytes()[..16 * 1024]), &[]);
        in_force(&boot("60"), GOT);
    });
}

#[test]
fn over_long_user_data_is_refused() {
    on_bare_node(|| {
        let text = format!("{}{}", settings(), "#".repeat(1 << 20));
        let _imds = Imds::start(Address::V4, Some(text.as_bytes()), &[]);
        let expected = format!(
            "{GOT}error: decode the user data imds:user-data: more than 65536 bytes, allowed are \
             65536 (64 KiB)\n"
        );
        not_in_force(&boot("60"), 78, &expected);
    });
}

#[test]
fn gzip_bomb_stops_at_the_bound() {
    on_bare_node(|| {
        let bomb = gzip(&vec![b'#'; 32 << 20]);
        let _imds = Imds::start(Address::V4, Some(&bomb), &[]);
        let expected = format!(
            "{GOT}error: decode the user data imds:user-data: inflate the gzip data: more than \
             1048576 bytes, allowed are 1048576 (1 MiB)\n"
        );
        not_in_force(&boot("60"), 78, &expected);
    });
}

/// A MIME message with nodeadm's part and one of ours.
fn beside_nodeadm(ours: &str) -> String {
    format!(
        "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"//\"\n\n--//\n\
         Content-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\nkind: \
         NodeConfig\n\n--//\nContent-Type: application/toml\n\n{ours}\n--//--\n"
    )
}

#[test]
fn part_beside_nodeadms_is_in_force() {
    on_bare_node(|| {
        let message = gzip(beside_nodeadm(&settings()).as_bytes());
        let _imds = Imds::start(Address::V4, Some(&message), &[]);
        in_force(&boot("60"), GOT);
    });
}

#[test]
fn problem_in_a_part_names_part_and_line() {
    on_bare_node(|| {
        let message = beside_nodeadm("[settings.sluice]\nversion = 1\nbandwith.enabled = true");
        let _imds = Imds::start(Address::V4, Some(message.as_bytes()), &[]);
        let expected = format!(
            "{}error: imds:user-data part 2:3:1 settings.sluice.bandwith: unknown table; did you \
             mean \"bandwidth\"?\n",
            GOT
        );
        not_in_force(&boot("60"), 78, &expected);
    });
}

fn sluice(arguments: &[&str]) -> Output {
    output(executable("sluice").to_str().expect("UTF-8"), arguments)
}

#[test]
fn misspelt_table_is_refused_in_plain_user_data_and_in_a_part() {
    let misspelt = |name: &str| settings().replace("settings.sluice", name);
    for (user_data, place, meant) in [
        (misspelt("settings.sluise"), ":1:11 settings.sluise", "settings.sluice"),
        (misspelt("setting.sluice"), ":1:2 setting.sluice", "settings.sluice"),
        (misspelt("Settings.Sluice"), ":1:2 Settings.Sluice", "settings.sluice"),
        (misspelt("sluce"), ":1:2 sluce", "sluice"),
        (
            beside_nodeadm(&misspelt("settings.slucie")),
            " part 2:1:11 settings.slucie",
            "settings.sluice",
        ),
    ] {
        on_bare_node(|| {
            let _imds = Imds::start(Address::V4, Some(user_data.as_bytes()), &[]);
            let expected = format!(
                "{GOT}error: imds:user-data{place}: unknown table; did you mean [{meant}]?\n"
            );
            not_in_force(&boot("60"), 78, &expected);
        });
    }
}

#[test]
fn reload_of_a_misspelt_table_leaves_the_last_good_settings_in_force() {
    on_bare_node(|| {
        const FILE: &str = "/var/lib/sluice/user-data.toml";
        fs::create_dir_all("/var/lib/sluice").expect("make a directory");
        fs::write(FILE, settings()).expect("write user data");
        in_force(&boot("60"), &format!("info: user data from {FILE}\n"));
        let before = fs::read("/run/sluice/settings.toml").expect("read settings.toml");
        let misspelt = settings().replace("sluice.bandwidth", "slucie.bandwidth");
        fs::write(FILE, misspelt).expect("write user data");
        let reloaded = sluice(&["reload"]);
        assert_eq!(reloaded.status.code(), Some(78), "{}", text(&reloaded));
        let expected = format!(
            "error: {FILE}:6:11 settings.slucie: unknown table; did you mean [settings.sluice]?\n"
        );
        assert!(said(&reloaded).contains(&expected), "{}", text(&reloaded));
        let after = fs::read("/run/sluice/settings.toml").expect("read settings.toml");
        assert_eq!(after, before);
        let status = sluice(&["status"]);
        let status = String::from_utf8_lossy(&status.stdout);
        let limits = "\nlimits:   egress 123Mbit, ingress unlimited by default; no class\n";
        assert!(status.contains("the last good ones") && status.contains(limits), "{status}");
    });
}

#[test]
fn check_says_what_it_has_read() {
    let dir = tempfile::tempdir().expect("a directory");
    let file = dir.path().join("user-data");
    let name = file.to_str().expect("UTF-8");
    let foreign = "[settings.kubernetes]\nmax-pods = 58\n";
    let class =
        "[[settings.sluice.bandwidth.class]]\nname = 'x'\nnamespaces = ['x']\negress = '1Mbit'\n";
    let read = "for sluice; limits: egress 123Mbit, ingress unlimited by default";
    let none = format!("{name} has no settings for sluice\n");
    for (user_data, said, required) in [
        (settings(), format!("{name} has 4 keys {read}; no class\n"), 0),
        (settings() + class, format!("{name} has 7 keys {read}; 1 class\n"), 0),
        (beside_nodeadm(&settings()), format!("{name} part 2 has 4 keys {read}; no class\n"), 0),
        (foreign.to_owned(), none.clone(), 78),
        ("#!/bin/sh\n".to_owned(), none.clone(), 78),
        (String::new(), none.clone(), 78),
    ] {
        fs::write(&file, user_data).expect("write user data");
        let checked = sluice(&["check", name]);
        let (out, err) = (&checked.stdout, &checked.stderr);
        assert_eq!((&*String::from_utf8_lossy(out), &err[..]), (&*said, &b""[..]));
        assert_eq!(checked.status.code(), Some(0));
        let checked = sluice(&["check", "--require-settings", name]);
        assert_eq!(checked.status.code(), Some(required), "{}", text(&checked));
        let expected = if required == 0 { said } else { format!("sluice: error: {none}") };
        assert!(text(&checked).contains(&expected), "{}", text(&checked));
        let checked = sluice(&["check", "--json", "--require-settings", name]);
        assert_eq!(checked.status.code(), Some(required), "{}", text(&checked));
        let verdict = json(&String::from_utf8_lossy(&checked.stdout));
        assert_eq!(verdict, serde_json::json!({ "schema": 1, "problems": [], "warnings": [] }));
    }
}

#[test]
fn broken_part_is_named() {
    on_bare_node(|| {
        let message = beside_nodeadm("[settings.sluice]").replace("\n--//--\n", "");
        let _imds = Imds::start(Address::V4, Some(message.as_bytes()), &[]);
        let expected = format!(
            "{GOT}error: decode the user data imds:user-data: part 2: cut off: no line \"--//\" or \
             \"--//--\" behind it\n"
        );
        not_in_force(&boot("60"), 78, &expected);
    });
}

#[test]
fn local_file_comes_before_imds() {
    on_bare_node(|| {
        let imds = Imds::start(Address::V4, Some(b"[sluice]"), &[]);
        fs::create_dir_all("/var/lib/sluice").expect("make a directory");
        fs::write("/var/lib/sluice/user-data.toml", settings()).expect("write user data");
        in_force(&boot("60"), "info: user data from /var/lib/sluice/user-data.toml\n");
        assert_eq!(imds.requests(), [""; 0]);
    });
}

#[test]
fn credential_comes_before_the_local_file() {
    on_bare_node(|| {
        fs::create_dir_all("/var/lib/sluice").expect("make a directory");
        fs::write("/var/lib/sluice/user-data.toml", "[sluice]").expect("write user data");
        let credential = "/run/node/sluice.user-data";
        fs::write(credential, settings()).expect("write the credential");
        let output = boot_in(&[("CREDENTIALS_DIRECTORY", "/run/node")], "60");
        in_force(&output, &format!("info: user data from {credential}\n"));
    });
}

#[test]
fn proxy_of_the_environment_is_not_asked() {
    on_bare_node(|| {
        let text = settings();
        let _imds = Imds::start(Address::V4, Some(text.as_bytes()), &[]);
        let proxy = "http://127.0.0.1:1";
        let environment = ["http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"];
        in_force(&boot_in(&environment.map(|name| (name, proxy)), "60"), GOT);
    });
}
