// SPDX-License-Identifier: Apache-2.0
//! What pods may leave behind on a node, in one place for every test that ends
//! with nothing left.

use std::collections::BTreeSet;
use std::path::Path;
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::{PIN_DIR, SluiceNode};
use crate::command::json;
use crate::containerd::BIN_DIR;
use crate::pinned_map::{self, Held};

const PATIENCE: Duration = Duration::from_secs(20);

impl SluiceNode {
    /// Waits until nothing of any pod is left on the node, in the runtime or in Sluice.
    pub fn nothing_left(&self) {
        self.nothing_left_but(|_| false);
    }

    /// The same, but for what is not ours to clear: the leftovers that are like that stay, all of them.
    pub fn nothing_left_but(&self, expected: impl Fn(&str) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let left = self.leftovers();
            let (stay, go): (Vec<_>, Vec<_>) = left.into_iter().partition(|l| expected(l));
            if go.is_empty() {
                stay.iter().for_each(|left| println!("left, and not ours: {left}"));
                return;
            }
            let late = Instant::now() > deadline;
            assert!(!late, "left on the node: {go:#?}\nagent: {}", self.agent_log());
            thread::sleep(Duration::from_millis(20));
        }
    }

    /// All that there is on the node of pods, a line for each: runtime, devices, shaper, files.
    pub fn leftovers(&self) -> Vec<String> {
        let pods = self.runtime.sandboxes().expect("the list of pods");
        let mut left: Vec<String> = pods.iter().map(|pod| format!("{pod:?}")).collect();
        let mut list = |what: &str, names: Vec<String>| {
            left.extend(names.into_iter().map(|name| format!("{what} {name}")));
        };
        list("device", self.devices());
        list("qdisc", self.qdiscs());
        list("link", self.names_in(&format!("{PIN_DIR}/links")));
        list("record", self.names_in("/run/sluice/pods"));
        list("namespace", self.names_in("/run/netns"));
        list("address", self.addresses());
        list("result", self.names_in("/var/lib/cni/results"));
        list("plugin", self.plugins_at_work());
        // They are long, so they come last.
        if left.is_empty() { self.in_maps() } else { left }
    }

    fn in_maps(&self) -> Vec<String> {
        let maps = [("guards", Held::AnyEntry), ("lines", Held::NotZero)];
        let held = |(map, held): (&str, Held)| {
            pinned_map::held(&self.runtime.host_path(format!("{PIN_DIR}/{map}")), held)
        };
        maps.into_iter().flat_map(held).collect()
    }

    fn devices(&self) -> Vec<String> {
        let links = json(&self.run_on_host("ip -j link show"));
        let name = |link: &Value| link["ifname"].as_str().map(str::to_owned);
        without(links.as_array().expect("links").iter().filter_map(name).collect(), &["lo"])
    }

    fn qdiscs(&self) -> Vec<String> {
        let lines = self.run_on_host("tc qdisc show");
        let lines = lines.lines().filter(|line| !line.contains(" dev lo "));
        lines.map(str::to_owned).collect()
    }

    /// Held by host-local, of all networks.
    fn addresses(&self) -> Vec<String> {
        let networks = self.names_in("/var/lib/cni/networks");
        let held = |network| self.names_in(&format!("/var/lib/cni/networks/{network}"));
        without(networks.into_iter().flat_map(held).collect(), &["lock", "last_reserved_ip.0"])
    }

    fn plugins_at_work(&self) -> Vec<String> {
        let names: BTreeSet<_> = self.names_in(BIN_DIR).into_iter().collect();
        let runs =
            |name: &String| !self.runtime.processes(&Path::new(BIN_DIR).join(name)).is_empty();
        names.into_iter().filter(runs).collect()
    }
}

fn without(mut names: Vec<String>, expected: &[&str]) -> Vec<String> {
    names.retain(|name| !expected.contains(&name.as_str()));
    names
}
