// SPDX-License-Identifier: Apache-2.0
//! A container runtime that hurries: pods come by ADD, by an ADD that is killed
//! and tried again, or past the chain, and go by DEL, by a DEL that is killed, or
//! without one. Several of them work at once.

use std::fs::{self, File};
use std::io::Write;
use std::net::Ipv4Addr;
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::Mutex;
use std::thread;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::prelude::BASE64_STANDARD;
use fastrand::Rng;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};
use serde_json::json;

use super::process;
use super::run::Run;
use crate::cni::{Annotations, Call};
use crate::command::{output, tc, text};
use crate::link::{Gso, gso, index};
use crate::node::Pod;
use crate::policy_agent::PolicyAgent;

const CACHE: &str = "/var/lib/cni/results";
const SECOND: &str = "v4if0";
const RECORDS: &str = "/run/sluice/pods";

/// How long an ADD takes at most, as far as is known: kills are spread over that.
static LONGEST_VERB: Mutex<Duration> = Mutex::new(Duration::from_millis(5));

/// A pod of the crowd, which no one measures.
pub struct Extra {
    pub pod: Pod,
    /// The host's end of a second pair, as egress-cni makes one for the other address family.
    second: Option<String>,
    annotations: Annotations,
    untouched: Gso,
    /// What was done to it.
    history: Mutex<Vec<String>>,
}

pub struct Runtime<'a> {
    run: &'a Run,
    number: usize,
    made: usize,
    dice: Rng,
    living: Vec<Extra>,
}

impl<'a> Runtime<'a> {
    pub fn new(run: &'a Run, number: usize, dice: Rng) -> Self {
        Self { run, number, made: 0, dice, living: Vec::new() }
    }

    /// Until the run is over; gives the pods that are still there.
    pub fn work(mut self) -> Vec<Extra> {
        while !self.run.is_over() {
            let crowd = self.run.pace.crowd;
            // A crowd of half of that on average.
            if self.dice.usize(..crowd) >= self.living.len() {
                self.bring();
            } else {
                let leaving = self.dice.usize(..self.living.len());
                let extra = self.living.swap_remove(leaving);
                self.send_away(extra);
            }
            let pause = self.run.pace.breather.mul_f64(self.dice.f64());
            self.run.pause(pause);
        }
        self.living
    }

    fn bring(&mut self) {
        self.made += 1;
        let name = format!("c{}x{}", self.number, self.made);
        let extra = Extra::make(&name, self.any_annotations(), self.dice.u8(..8) == 0);
        if self.dice.u8(..10) == 0 {
            PolicyAgent.allow(&extra.pod.host_ifname);
        }
        match self.dice.u8(..10) {
            0 => self.leave_to_adoption(&extra),
            1..=2 => self.add_after_a_kill(&extra),
            _ => self.add(&extra),
        }
        if self.dice.u8(..10) == 0 {
            self.tamper(&extra);
        }
        self.living.push(extra);
    }

    fn any_annotations(&mut self) -> Annotations {
        let rates = self.run.pace.rates;
        let mut rate = || match self.dice.u8(..3) {
            0 => 0,
            _ => rates[self.dice.usize(..rates.len())],
        };
        Annotations { egress: rate(), ingress: rate() }
    }

    fn add(&mut self, extra: &Extra) {
        extra.note("ADD");
        self.run.count("ADD");
        let began = Instant::now();
        let output = Call::new("ADD", &extra.pod, extra.annotations).run(&extra.pod);
        let mut longest = LONGEST_VERB.lock().expect("the longest verb");
        *longest = began.elapsed().max(*longest).min(Duration::from_millis(60));
        self.run.took("ADD", began.elapsed());
        if !output.status.success() {
            self.run.fail(format!("ADD of {}: {}", extra.pod.name, text(&output)));
        }
        if self.dice.u8(..3) == 0 {
            extra.write_cache();
        }
    }

    /// Killed somewhere on its way; then as the runtime does it: DEL and another ADD, or ADD again.
    fn add_after_a_kill(&mut self, extra: &Extra) {
        self.kill_on_its_way("ADD", extra);
        if self.dice.bool() {
            self.del(extra);
        }
        self.add(extra);
    }

    fn kill_on_its_way(&mut self, verb: &'static str, extra: &Extra) {
        self.run.count(&format!("{verb} killed"));
        extra.note(&format!("{verb} killed"));
        let mut child = Call::new(verb, &extra.pod, extra.annotations).start(&extra.pod);
        // Half of them in the first milliseconds, where most of the work is.
        let longest = match self.dice.bool() {
            true => Duration::from_millis(5),
            false => *LONGEST_VERB.lock().expect("the longest verb"),
        };
        thread::sleep(longest.mul_f64(self.dice.f64()));
        // It may have come to its end before.
        let _ = child.kill();
        child.wait_with_output().expect("wait for the plugin");
    }

    fn del(&self, extra: &Extra) {
        self.run.count("DEL");
        extra.del(self.run);
    }

    /// It was not in the chain: the runtime's result cache is all there is of it.
    fn leave_to_adoption(&self, extra: &Extra) {
        self.run.count("past the chain, adopted");
        extra.note("adopted");
        extra.write_cache();
        let began = Instant::now();
        self.run.wait_for("a pod to be adopted", || extra.record().is_some());
        self.run.took("until a pod was adopted", began.elapsed());
    }

    fn tamper(&mut self, extra: &Extra) {
        self.run.count("tampering with the crowd");
        extra.note("tampered with");
        let (name, host) = (&extra.pod.name, &extra.pod.host_ifname);
        let line = match self.dice.u8(..3) {
            0 => format!("qdisc del dev {host} root"),
            1 => format!("-n {name} qdisc del dev eth0 root"),
            _ => format!("-n {name} filter del dev eth0 parent 51ce: prio 1"),
        };
        // One without limits has none of that.
        output("tc", &line.split(' ').collect::<Vec<_>>());
    }

    fn send_away(&mut self, extra: Extra) {
        match self.dice.u8(..8) {
            0 => self.run.count("gone without DEL"),
            1 => {
                self.kill_on_its_way("DEL", &extra);
                self.del(&extra);
            }
            _ => self.del(&extra),
        }
        if self.dice.u8(..8) == 0 {
            // The main plugin deletes the pair before the runtime does the namespace.
            output("ip", &["link", "del", &extra.pod.host_ifname]);
        }
        extra.delete();
    }
}

impl Extra {
    /// A namespace and a veth pair, as cheaply as can be; it sends nothing.
    fn make(name: &str, annotations: Annotations, two: bool) -> Self {
        let pod = Pod {
            name: name.into(),
            host_ifname: format!("eni{name}"),
            address: Ipv4Addr::new(10, 2, 0, 1),
        };
        make_netns(&pod.netns());
        let host = &pod.host_ifname;
        let second = two.then(|| format!("veth{name}"));
        let pairs = [Some((host, "eth0")), second.as_ref().map(|second| (second, SECOND))];
        let line = |(host, inside)| {
            format!(
                "link add {host} type veth peer name {inside} netns {name}\nlink set {host} up\n"
            )
        };
        batch(&pairs.into_iter().flatten().map(line).collect::<String>());
        let untouched = gso(index(host));
        Self { pod, second, annotations, untouched, history: Mutex::default() }
    }

    /// DEL, which must succeed; then nothing of ours is left on the pair.
    pub fn del(&self, run: &Run) {
        self.note("DEL");
        let began = Instant::now();
        let output = Call::new("DEL", &self.pod, self.annotations).run(&self.pod);
        run.took("DEL", began.elapsed());
        if !output.status.success() || !output.stdout.is_empty() {
            run.fail(format!("DEL of {}: {}", self.pod.name, text(&output)));
        }
        let mut left = left_on(&self.pod.name, &self.pod.host_ifname, "eth0");
        if let Some(second) = &self.second {
            left = format!("{left} {}", left_on(&self.pod.name, second, SECOND)).trim().into();
        }
        if left.is_empty() && gso(index(&self.pod.host_ifname)) == self.untouched {
            return;
        }
        // The runtime's cache file goes last: an agent that starts before that takes the pod for one
        // that the chain has missed. It is collected when its devices go.
        match self.record() {
            Some(record) if record.contains("adopted") && !run.is_over() => {
                run.count("adopted once more between DEL and its end");
            }
            record => run.fail(format!(
                "DEL of {} has left {left}; its record: {record:?}\n    {}; {:?}, {:?}\n    {}",
                self.pod.name,
                self.history.lock().expect("the history").join(", "),
                self.second,
                self.annotations,
                process::log_of(&self.pod.name)
            )),
        }
    }

    /// The namespace, and the pair with it; the runtime's cache file goes last.
    pub fn delete(&self) {
        let netns = self.pod.netns();
        umount2(&netns, MntFlags::MNT_DETACH).expect("unmount a namespace");
        fs::remove_file(&netns).expect("remove a namespace's file");
        // Most have none.
        let _ = fs::remove_file(self.cache());
    }

    /// As the agent keeps it.
    fn record(&self) -> Option<String> {
        let own = format!("@id-{}@eth0.json", self.pod.name);
        let mut files = fs::read_dir(RECORDS).ok()?.filter_map(|entry| Some(entry.ok()?.path()));
        let file = files.find(|path| path.to_string_lossy().ends_with(&own))?;
        fs::read_to_string(file).ok()
    }

    fn note(&self, what: &str) {
        self.history.lock().expect("the history").push(what.into());
    }

    fn cache(&self) -> String {
        format!("{CACHE}/main-id-{}-eth0", self.pod.name)
    }

    /// The file that libcni leaves (libcni/api.go, cachedInfo).
    fn write_cache(&self) {
        fs::create_dir_all(CACHE).expect("make the result cache");
        let (pod, Annotations { egress, ingress }) = (&self.pod, self.annotations);
        let burst = |rate| if rate == 0 { 0 } else { u64::from(u32::MAX) };
        let list = r#"{"cniVersion":"1.0.0","name":"main","plugins":[{"type":"ptp"}]}"#;
        let info = json!({
            "kind": "cniCacheV1", "containerId": format!("id-{}", pod.name), "ifName": "eth0",
            "networkName": "main", "config": BASE64_STANDARD.encode(list),
            "cniArgs": [["IgnoreUnknown", "1"], ["K8S_POD_NAME", pod.name],
                ["K8S_POD_NAMESPACE", "default"]],
            "capabilityArgs": {"bandwidth": {
                "IngressRate": ingress, "IngressBurst": burst(ingress),
                "EgressRate": egress, "EgressBurst": burst(egress)}},
            "result": {"cniVersion": "1.0.0", "interfaces": [{"name": pod.host_ifname},
                {"name": "eth0", "sandbox": pod.netns()}]},
        });
        fs::write(self.cache(), info.to_string()).expect("write the cache");
    }
}

/// What of ours is on a pair: the pod's name, the host's end, the pod's end.
pub fn left_on(name: &str, host: &str, inside: &str) -> String {
    let shown = [
        tc(&format!("qdisc show dev {host}")),
        tc(&format!("-n {name} qdisc show dev {inside}")),
        tc(&format!("-n {name} filter show dev {inside} egress")),
    ];
    let lines = shown.iter().flat_map(|text| text.lines());
    let ours = lines.filter(|l| ["51ce", "51cf", "sluice"].iter().any(|word| l.contains(word)));
    ours.collect::<Vec<_>>().join("; ")
}

/// As `ip netns add` does it.
fn make_netns(path: &Path) {
    File::create(path).expect("make a file for a namespace");
    let own = || {
        unshare(CloneFlags::CLONE_NEWNET).expect("make a namespace");
        let none = None::<&str>;
        let source = Some("/proc/thread-self/ns/net");
        mount(source, path, none, MsFlags::MS_BIND, none).expect("keep a namespace");
    };
    thread::scope(|scope| scope.spawn(own).join()).expect("a thread of its own namespace");
}

fn batch(lines: &str) {
    let mut command = Command::new("ip");
    command.args(["-batch", "-"]).stdin(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("run ip");
    child.stdin.take().expect("a pipe").write_all(lines.as_bytes()).expect("write to ip");
    let output = child.wait_with_output().expect("wait for ip");
    assert!(output.status.success(), "ip -batch: {lines}{}", text(&output));
}
