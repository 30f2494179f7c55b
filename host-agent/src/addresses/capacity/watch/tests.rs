// SPDX-License-Identifier: Apache-2.0
//! A node's life, minute by minute, as the watch sees and reports it.

use std::collections::BTreeMap;

use super::super::promise::tests::{PREFIXES, SECONDARY, promise};
use super::*;
use crate::imds::{ImdsAnswer, ImdsRequest, Silence};

const MINUTE: Duration = Duration::from_secs(60);

/// Metadata of a node, or what is there instead.
struct Service {
    pages: BTreeMap<String, String>,
    /// With this status everything is answered; 0: nothing is.
    instead: Option<u16>,
    asked: usize,
    now: Duration,
}

impl Outside for Service {
    fn send(&mut self, request: &ImdsRequest, _: Duration) -> Result<ImdsAnswer, Silence> {
        self.asked += 1;
        let answer = |status, body: &str| Ok(ImdsAnswer { status, body: body.into() });
        match (self.instead, request.url.split_once("/latest/meta-data/")) {
            (Some(0), _) => Err(Silence::Broken("Connection refused (os error 111)".into())),
            (Some(status), _) => answer(status, ""),
            (None, None) => answer(200, "token"),
            (None, Some((_, path))) => {
                let page = self.pages.get(path);
                page.map_or_else(|| answer(404, ""), |body| answer(200, body))
            }
        }
    }

    fn now(&self) -> Duration {
        self.now
    }

    fn sleep(&mut self, _: Duration) {
        panic!("a call that comes again in a minute does not wait");
    }

    /// So that a pause is a minute.
    fn chance(&mut self) -> f64 {
        0.5
    }
}

struct Node {
    service: Service,
    watch: Watch,
    promise: Option<Promise>,
    /// Keeps the result cache.
    root: tempfile::TempDir,
}

impl Node {
    fn of(promise: Promise) -> Self {
        let root = tempfile::tempdir().unwrap();
        let watch = Watch::new(&Paths::below(root.path()));
        let (pages, now) = (BTreeMap::new(), Duration::ZERO);
        let service = Service { pages, instead: None, asked: 0, now };
        let mut node = Self { service, watch, promise: Some(promise), root };
        node.set("mac", "02:00:00:00:00:00");
        node.enis(&[&[]]);
        node
    }

    fn set(&mut self, path: &str, text: &str) {
        self.service.pages.insert(path.into(), text.into());
    }

    /// The node has these ENIs with these prefixes, the first one is its own.
    fn enis(&mut self, prefixes: &[&[&str]]) {
        let macs = "network/interfaces/macs/";
        self.service.pages.retain(|path, _| !path.starts_with(macs));
        let mut list = String::new();
        for (number, prefixes) in prefixes.iter().enumerate() {
            let mac = format!("02:00:00:00:00:0{number}");
            list += &format!("{mac}/\n");
            self.set(&format!("{macs}{mac}/local-ipv4s"), &format!("10.0.0.1{number}"));
            if !prefixes.is_empty() {
                self.set(&format!("{macs}{mac}/ipv4-prefix"), &prefixes.join("\n"));
            }
        }
        self.set(macs, &list);
    }

    fn pods(&self, count: u64) {
        let cache = Paths::below(self.root.path()).result_cache();
        std::fs::create_dir_all(&cache).unwrap();
        for number in 0..count {
            let text = format!(
                r#"{{"kind":"cniCacheV1","containerId":"{number}","ifName":"eth0","netns":"/proc/self/ns/net"}}"#
            );
            std::fs::write(cache.join(format!("aws-cni-{number}-eth0")), text).unwrap();
        }
    }

    fn look(&mut self) -> CapacityLook {
        self.watch.look(self.promise.clone(), &mut self.service)
    }

    /// Looks every minute; each state with the minute in which it comes, and its trouble's code.
    fn live(&mut self, minutes: u32) -> Vec<(u32, &'static str, Option<String>)> {
        let mut seen = Vec::new();
        for minute in 0..minutes {
            let look = self.look();
            assert_eq!(look.pause, Some(MINUTE));
            let state = look.capacity.expect("a promise").state.name();
            let code = look.trouble.map(|trouble| trouble.code().to_owned());
            if seen.last().is_none_or(|(_, s, c)| (*s, c) != (state, &code)) {
                seen.push((minute, state, code));
            }
            self.service.now += MINUTE;
        }
        seen
    }
}

fn seen(node: &mut Node) -> [u64; 3] {
    let seen = node.look().capacity.and_then(|capacity| capacity.seen).expect("seen");
    [seen.addresses, seen.prefixes, seen.used]
}

#[test]
fn prefixes_come_late_and_one_by_one_then_an_eni_comes_and_goes() {
    let mut node = Node::of(promise(&PREFIXES));
    assert_eq!(node.live(2), [(0, "filling", None)]);
    node.enis(&[&["10.0.1.0/28"]]);
    assert_eq!(seen(&mut node), [16, 1, 0]);
    assert_eq!(node.live(2), [(0, "ok", None)]);
    node.pods(20);
    assert_eq!(node.live(3), [(0, "ok", None)]);
    assert_eq!(node.live(1), [(0, "filling", None)]);
    node.enis(&[&["10.0.1.0/28", "10.0.1.16/28"], &["10.0.2.0/28"]]);
    assert_eq!(seen(&mut node), [48, 3, 20]);
    assert_eq!(node.live(9), [(0, "ok", None)]);
    node.enis(&[&["10.0.1.0/28", "10.0.1.16/28"]]);
    let expected =
        [(0, "ok", None), (3, "filling", None), (10, "filling", Some("ip-filling".into()))];
    assert_eq!(node.live(12), expected);
}

#[test]
fn prefixes_that_are_stripped_are_a_mismatch_until_they_come_back() {
    let mut node = Node::of(promise(&PREFIXES));
    node.enis(&[&["10.0.1.0/28", "10.0.1.16/28"]]);
    node.live(2);
    node.enis(&[&[]]);
    let mismatch = Some("ip-mismatch".to_owned());
    let expected = [(0, "ok", None), (3, "filling", None), (5, "mismatch", mismatch)];
    assert_eq!(node.live(9), expected);
    let trouble = node.look().trouble.expect("a mismatch");
    assert_eq!(
        trouble.what,
        "prefix-delegation.enabled = true, but IMDS has shown no prefix for 5 minutes: 0 addresses for \
         pods, up to 240; 0 pods have one; max-pods 110"
    );
    assert!(trouble.next_step.starts_with("set ENABLE_PREFIX_DELEGATION in aws-node"));
    node.enis(&[&["10.0.1.0/28"]]);
    assert_eq!(node.live(3), [(0, "ok", None)]);
}

#[test]
fn silence_changes_nothing_but_the_age() {
    let mut node = Node::of(promise(&PREFIXES));
    node.service.instead = Some(0);
    assert_eq!(node.live(9), [(0, "unknown", None)]);
    assert_eq!(node.look().capacity.expect("a promise").seen, None);
    node.service.instead = None;
    node.enis(&[&["10.0.1.0/28"]]);
    assert_eq!(node.live(2), [(0, "ok", None)]);
    let before = node.look().capacity;
    for silence in [0, 503, 500] {
        node.service.instead = Some(silence);
        assert_eq!(node.live(20), [(0, "ok", None)]);
        assert_eq!(node.look().capacity, before);
    }
    node.service.instead = None;
    node.pods(3);
    assert_eq!(seen(&mut node), [16, 1, 3]);
}

#[test]
fn silence_does_not_count_as_time_without_prefixes() {
    let mut node = Node::of(promise(&PREFIXES));
    assert_eq!(node.live(2), [(0, "filling", None)]);
    node.service.instead = Some(0);
    assert_eq!(node.live(30), [(0, "filling", None)]);
    node.service.instead = None;
    let expected = [(0, "filling", None), (2, "mismatch", Some("ip-mismatch".to_owned()))];
    assert_eq!(node.live(4), expected);
}

#[test]
fn imds_that_is_off_is_asked_again_only_when_ordered() {
    let mut node = Node::of(promise(&PREFIXES));
    node.enis(&[&["10.0.1.0/28"]]);
    node.live(1);
    node.service.instead = Some(403);
    node.service.asked = 0;
    let look = node.look();
    assert_eq!((look.pause, node.service.asked), (None, 1));
    assert_eq!(
        look.capacity.expect("a promise").state,
        crate::addresses::capacity::CapacityState::Ok
    );
    node.service.instead = None;
    assert_eq!(node.look().pause, Some(MINUTE));
}

#[test]
fn where_nothing_is_promised_nothing_is_asked() {
    let mut node = Node::of(promise(&PREFIXES));
    node.promise = None;
    assert_eq!((node.look(), node.service.asked), (CapacityLook::default(), 0));
}

#[test]
fn another_promise_is_judged_from_the_start() {
    let mut node = Node::of(promise(&PREFIXES));
    assert_eq!(node.live(6).last().map(|(_, state, _)| *state), Some("mismatch"));
    node.promise = Some(promise(&SECONDARY));
    assert_eq!(node.live(1), [(0, "filling", None)]);
}

#[test]
fn host_that_answers_like_no_instance_is_unknown() {
    let mut node = Node::of(promise(&PREFIXES));
    node.service.pages.clear();
    assert_eq!(node.live(9), [(0, "unknown", None)]);
}
