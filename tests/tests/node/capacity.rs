// SPDX-License-Identifier: Apache-2.0
//! Whether the node has the addresses that max-pods promises: a node's life as
//! IMDS shows it, and what the agent tells of it, each thing once. What takes
//! minutes to be reported is in the agent's own tests, where time is given.

use std::fs::{self, File};
use std::time::Duration;

use serde_json::{Value, json};
use tests::addresses::{
    capacity, hide_eni, look, look_and_see, promise, show_eni, wait_for_addresses, wait_for_state,
};
use tests::api::{ask, scrape};
use tests::command::{text, wait_for};
use tests::imds::{Address, Imds, Step};
use tests::node::{Node, USER_DATA, with_node};
use tests::result_cache::{Cached, bandwidth};

const LOG: &str = "/run/agent.log";
const PATIENCE: Duration = Duration::from_secs(20);
const WITH_PREFIXES: &str = "enabled = true";

/// A node with its agent, whose cluster has this to say of prefixes. Nothing is promised yet.
fn with_agent(delegation: &str, test: impl FnOnce(&mut Node) + Send) {
    with_node(|node| {
        boot(node, delegation);
        node.start_agent_logging_to(File::create(LOG).expect("the agent's log"));
        node.wait_for_api();
        test(node);
    });
}

fn user_data(delegation: &str) -> String {
    format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nconf-dir = \"/run/node/net.d\"\n\
         bin-dir = \"/run/node/bin\"\n[settings.sluice.prefix-delegation]\n{delegation}\n"
    )
}

fn boot(node: &Node, delegation: &str) {
    let output = node.boot(&user_data(delegation));
    assert!(output.status.success(), "{}", text(&output));
}

/// IMDS with the node's own ENI, which has this many addresses and these prefixes.
fn imds(addresses: u8, prefixes: &[&str]) -> Imds {
    let imds = Imds::start(Address::V4, None, &[]);
    show_eni(&imds, 0, addresses, prefixes);
    imds
}

/// The agent's lines with this in them.
fn said(text: &str) -> Vec<String> {
    let log = fs::read_to_string(LOG).expect("the agent's log");
    log.lines().filter(|line| line.contains(text)).map(str::to_owned).collect()
}

fn metric(series: &str) -> Option<f64> {
    let scraped = scrape("127.0.0.1:9469", "text/plain").body;
    let value = scraped.lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' '));
    value.map(|value| value.parse().expect("a number"))
}

/// A pod as the runtime has it after its ADD.
fn pod(node: &Node, name: &str, number: u8) -> String {
    let pod = node.pod(name, number);
    Cached {
        pod: name,
        host_ifname: &pod.host_ifname,
        netns: &pod.netns(),
        plugins: &["ptp"],
        bandwidth: bandwidth(0, 0),
    }
    .write();
    format!("/var/lib/cni/results/main-id-{name}-eth0")
}

#[test]
fn prefixes_that_come_one_by_one_are_told_when_they_suffice() {
    with_agent(WITH_PREFIXES, |node| {
        let imds = imds(1, &[]);
        promise(110, 240, true);
        let seen = wait_for_state("filling");
        assert_eq!((&seen["full"], &seen["max_pods"]), (&json!(240), &json!(110)), "{seen}");
        assert_eq!(metric("sluice_ip_state{state=\"filling\"}"), Some(1.0));
        pod(node, "a", 2);
        show_eni(&imds, 0, 1, &["10.0.1.0/28"]);
        assert_eq!(look_and_see()["state"], "filling", "17 are wanted");
        show_eni(&imds, 1, 1, &["10.0.2.0/28", "10.0.2.16/28"]);
        look();
        wait_for_state("ok");
        let table = [
            ("sluice_ip_capacity", Some(48.0)),
            ("sluice_ip_capacity_full", Some(240.0)),
            ("sluice_ip_used", Some(1.0)),
            ("sluice_max_pods", Some(110.0)),
            ("sluice_ip_state{state=\"ok\"}", Some(1.0)),
            ("sluice_ip_state{state=\"filling\"}", Some(0.0)),
        ];
        // The agent makes metrics once a second at most.
        for (series, value) in table {
            wait_for(series, Duration::from_secs(5), || (metric(series) == value).then_some(()));
        }
        assert!(metric("sluice_ip_age_seconds").is_some_and(|age| age < 60.0));
        hide_eni(&imds, 1);
        look();
        assert_eq!(wait_for_addresses(16)["state"], "ok", "an ENI that goes may come again");
        show_eni(&imds, 1, 1, &["10.0.2.0/28"]);
        (0..3).for_each(|_| assert_eq!(look_and_see()["state"], "ok"));
        let screen = String::from_utf8(node.sluice(&["status", "--interval", "1"]).stdout);
        let screen = screen.expect("UTF-8");
        let line = "capacity: ok: 32 addresses for pods, up to 240; 1 pods have one; max-pods 110; \
                    IMDS answered ";
        assert!(screen.contains(line), "{screen}");
        assert!(screen.contains("degraded: nothing"), "{screen}");
        let logged: Vec<_> = said("addresses for pods");
        let expected = [
            "sluice: info: filling: 0 addresses for pods, up to 240; 0 pods have one; max-pods 110",
            "sluice: info: ok: 48 addresses for pods, up to 240; 1 pods have one; max-pods 110",
        ];
        assert_eq!(logged, expected);
    });
}

#[test]
fn next_pod_that_gets_no_address_is_told_before_it_hangs() {
    with_agent("", |node| {
        let _imds = imds(3, &[]);
        promise(5, 2, true);
        wait_for_state("mismatch");
        let [mismatch] = &node.troubles("ip-mismatch")[..] else { panic!("one mismatch") };
        assert_eq!(
            mismatch["what"],
            "max-pods is more than the ENIs of t3a.medium carry: 2 addresses for pods, up to 2; 0 pods \
             have one; max-pods 5"
        );
        pod(node, "a", 2);
        assert_eq!(capacity()["seen"]["used"], 1, "pods are counted when asked for");
        let last = pod(node, "b", 3);
        look();
        wait_for_state("exhausted");
        let [exhausted] = &node.troubles("ip-exhausted")[..] else { panic!("one exhaustion") };
        assert_eq!(
            exhausted["what"],
            "no address is free for the next pod, though max-pods allows it: 2 addresses for pods, up \
             to 2; 2 pods have one; max-pods 5"
        );
        assert_eq!(metric("sluice_degraded{code=\"ip-exhausted\"}"), Some(1.0));
        assert_eq!(metric("sluice_degraded{code=\"ip-mismatch\"}"), None);
        fs::remove_file(last).expect("a pod that ends");
        let seen = look_and_see();
        assert_eq!((&seen["state"], &seen["seen"]["used"]), (&json!("exhausted"), &json!(1)));
        (0..3).for_each(|_| drop(look_and_see()));
        // As many as there are addresses for, with those in the host's network.
        promise(4, 2, true);
        wait_for_state("ok");
        assert_eq!(node.troubles("ip-exhausted"), [] as [Value; 0]);
        let logged = said("addresses for pods");
        let begins = |line: &str, text: &str| line.starts_with(&format!("sluice: {text}"));
        assert!(
            logged.len() == 3
                && begins(&logged[0], "warn: max-pods is more than")
                && begins(&logged[1], "warn: no address is free")
                && begins(&logged[2], "info: ok: 2 addresses"),
            "{logged:#?}"
        );
    });
}

#[test]
fn efa_only_interface_on_the_first_card_is_a_mismatch_at_once() {
    with_agent("", |node| {
        let imds = imds(6, &[]);
        promise(17, 15, true);
        wait_for_state("ok");
        let of = |key: &str| format!("network/interfaces/macs/02:00:00:00:01:00/{key}");
        imds.set(&of("device-number"), "1");
        imds.set(&of("network-card"), "1");
        assert_eq!(look_and_see()["full"], 15, "on another card it takes no place");
        imds.set(&of("network-card"), "0");
        look();
        assert_eq!(wait_for_state("mismatch")["full"], 10);
        let [mismatch] = &node.troubles("ip-mismatch")[..] else { panic!("one mismatch") };
        assert_eq!(
            mismatch["what"],
            "max-pods is more than the ENIs of t3a.medium carry (EFA-only, without addresses: 1): 5 \
             addresses for pods, up to 10; 0 pods have one; max-pods 17"
        );
    });
}

#[test]
fn type_without_prefixes_is_a_mismatch_until_the_settings_say_so() {
    with_agent(WITH_PREFIXES, |node| {
        let imds = imds(6, &[]);
        promise(17, 15, false);
        wait_for_state("mismatch");
        let [mismatch] = &node.troubles("ip-mismatch")[..] else { panic!("one mismatch") };
        let what = mismatch["what"].as_str().expect("a text");
        let expected = "prefix-delegation.enabled = true, but t3a.medium can have no prefixes: ";
        assert!(what.starts_with(expected), "{what}");
        fs::write(USER_DATA, user_data("enabled = false")).expect("write user data");
        assert_eq!(ask("POST", "/v1/reload", "").json()["exit_status"], 0);
        promise(17, 15, false);
        wait_for_state("ok");
        assert_eq!(node.troubles("ip-mismatch"), [] as [Value; 0]);
        assert_eq!(said("can have no prefixes").len(), 1);
        assert!(imds.requests().iter().all(|request| request.ends_with(" 200")
            || request.ends_with("-prefix 404")
            || request.ends_with("network-card 404")));
    });
}

#[test]
fn node_without_imds_is_unknown_and_says_so_once() {
    with_agent(WITH_PREFIXES, |node| {
        promise(110, 240, true);
        wait_for_state("unknown");
        wait_for("the first silence", PATIENCE, || {
            (!said("asked again every minute").is_empty()).then_some(())
        });
        assert_eq!(metric("sluice_ip_state{state=\"unknown\"}"), Some(1.0));
        assert_eq!(metric("sluice_ip_capacity"), None);
        (0..3).for_each(|_| look());
        let _imds = imds(1, &["10.0.1.0/28"]);
        look();
        wait_for_state("ok");
        assert_eq!(said("asked again every minute").len(), 1, "{:#?}", said(""));
        assert_eq!(said("imds:"), [] as [&str; 0]);
        assert_eq!(node.troubles("ip-mismatch"), [] as [Value; 0]);
    });
}

#[test]
fn silence_keeps_what_was_known_and_imds_that_is_off_is_left_alone() {
    let silences = || said("look for the addresses").len();
    with_agent(WITH_PREFIXES, |_| {
        let imds = imds(1, &["10.0.1.0/28"]);
        promise(110, 240, true);
        let mut known = wait_for_state("ok");
        for (before, step) in [Step::Hang, Step::Reset, Step::Status(503)].into_iter().enumerate() {
            imds.play(&[step]);
            look();
            wait_for("the silence", PATIENCE, || (silences() > before).then_some(()));
            assert_eq!(capacity(), known, "{step:?}");
            known = look_and_see();
            assert_eq!(known["state"], "ok");
        }
        imds.answer_all(Some(403));
        let asked = imds.requests().len();
        look();
        wait_for("the end of it", PATIENCE, || {
            (said("not asked again before the next reload").len() == 1).then_some(())
        });
        assert_eq!(imds.requests()[asked..], ["PUT /latest/api/token 403"]);
        assert_eq!(capacity(), known);
        imds.answer_all(None);
        show_eni(&imds, 0, 1, &["10.0.1.0/28", "10.0.1.16/28"]);
        look();
        assert_eq!(wait_for_addresses(32)["state"], "ok");
        assert_eq!(silences(), 4, "a line for each");
        assert_eq!(said("info: ok:").len(), 1);
    });
}

#[test]
fn what_boot_has_told_kubelet_is_what_is_looked_for() {
    const PODS: &str = "enabled = true\n[settings.sluice.max-pods]\nkubelet = \"none\"\nvalue =";
    with_agent(WITH_PREFIXES, |node| {
        let imds = imds(1, &[]);
        let reload = |pods: u32| {
            fs::write(USER_DATA, user_data(&format!("{PODS} {pods}"))).expect("write user data");
            let output = node.sluice(&["reload"]);
            assert!(output.status.success(), "{}", text(&output));
        };
        reload(40);
        let seen = wait_for_state("filling");
        assert_eq!((&seen["max_pods"], &seen["full"]), (&json!(40), &Value::Null), "{seen}");
        assert_eq!(metric("sluice_ip_capacity_full"), None);
        show_eni(&imds, 0, 1, &["10.0.1.0/28"]);
        reload(40);
        wait_for_state("ok");
        reload(41);
        wait_for("another promise", PATIENCE, || (capacity()["max_pods"] == 41).then_some(()));
    });
}

#[test]
fn nothing_is_asked_where_nothing_is_promised() {
    with_agent(WITH_PREFIXES, |node| {
        let imds = imds(1, &[]);
        let looks = || imds.requests().iter().filter(|asked| asked.starts_with("PUT")).count();
        promise(110, 240, true);
        wait_for_state("filling");
        boot(node, "warm-prefix-target = 2\nenabled = true");
        wait_for("the end of the promise", PATIENCE, || capacity().is_null().then_some(()));
        assert_eq!(metric("sluice_max_pods"), None);
        let before = looks();
        for _ in 0..5 {
            assert_eq!(ask("POST", "/v1/reload", "").json()["exit_status"], 0);
        }
        promise(110, 240, true);
        wait_for_state("filling");
        // The last reload may find the promise already.
        assert!((1..=2).contains(&(looks() - before)), "{:#?}", imds.requests());
    });
}
