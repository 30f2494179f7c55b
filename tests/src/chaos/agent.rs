// SPDX-License-Identifier: Apache-2.0
//! The node's operator, no friend of the agent: kills it, ends it, makes
//! it read other settings, some of them broken, and sets overrides, also
//! just before a kill.

use std::collections::BTreeSet;
use std::fs;
use std::process::{Child, Command};
use std::thread;
use std::time::{Duration, Instant};

use fastrand::Rng;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::account::Account;
use super::ledger::{DIRECTIONS, NODE_BPS};
use super::measured::Measured;
use super::pace::Pace;
use super::process::{self, status};
use super::run::Run;
use crate::command::{executable, json, output, run as run_to_end, text};
use crate::node::{BIN_DIR, CONF_DIR, Node, PIN_DIR, USER_DATA};

/// Asked for again after so long: something was in the way of the first time.
const AGAIN: Duration = Duration::from_secs(3);
/// Of the rates that pods get, or none.
type Limits = [Option<u64>; 2];

pub struct Operator<'a> {
    run: &'a Run,
    dice: Rng,
    agent: Option<Child>,
    defaults: Limits,
    /// As an override, for each measured pod: None where nothing was set.
    by_hand: Vec<Option<Limits>>,
    pub account: Account,
    /// Numbers of all programs that were ever pinned.
    pub programs: BTreeSet<u64>,
}

#[derive(Clone, Copy)]
enum Deed {
    Kill,
    KillTwice,
    Terminate,
    Hangup,
    Settings,
    SettingsByCommand,
    SettingsWithoutAgent,
    BrokenSettings,
    KillWhileReloading,
    SetLimit,
    SetLimitForSeconds,
    ClearLimit,
    KillWhileSetting,
}

const DEEDS: [Deed; 15] = [
    Deed::Kill,
    Deed::Kill,
    Deed::KillTwice,
    Deed::Terminate,
    Deed::Hangup,
    Deed::Settings,
    Deed::Settings,
    Deed::SettingsByCommand,
    Deed::SettingsWithoutAgent,
    Deed::BrokenSettings,
    Deed::KillWhileReloading,
    Deed::SetLimit,
    Deed::SetLimitForSeconds,
    Deed::ClearLimit,
    Deed::KillWhileSetting,
];

impl<'a> Operator<'a> {
    /// Boots the node and starts its agent.
    pub fn start(node: &Node, run: &'a Run, dice: Rng) -> Self {
        let mut operator = Self {
            run,
            dice,
            agent: None,
            defaults: [Some(run.pace.rates[0]); 2],
            by_hand: vec![None; run.pace.measured],
            account: Account::default(),
            programs: BTreeSet::new(),
        };
        let booted = node.boot(&user_data(operator.defaults, false));
        assert!(booted.status.success(), "{}", text(&booted));
        operator.start_agent();
        operator.wait_until_ready();
        operator
    }

    pub fn process(&self) -> u32 {
        self.agent.as_ref().expect("the agent runs").id()
    }

    /// Until the run is over.
    pub fn work(&mut self, pods: &[Measured]) {
        while !self.run.is_over() {
            let Pace { pause, peace, .. } = self.run.pace;
            let pause = match self.dice.u8(..8) {
                0 => peace.mul_f64(0.5 + 0.5 * self.dice.f64()),
                _ => pause.mul_f64(self.dice.f64()),
            };
            self.run.pause(pause);
            if let Ok(Some(status)) = self.agent.as_mut().expect("an agent").try_wait() {
                self.run.fail(format!("the agent ended by itself: {status}"));
                self.agent = None;
                return;
            }
            let deed = DEEDS[self.dice.usize(..DEEDS.len())];
            self.commit(deed, pods);
        }
    }

    fn commit(&mut self, deed: Deed, pods: &[Measured]) {
        match deed {
            Deed::Kill => self.restart(Signal::SIGKILL, pods),
            Deed::KillTwice => {
                self.restart(Signal::SIGKILL, pods);
                // While it loads its programs, or in its first pass.
                self.nap(300);
                self.restart(Signal::SIGKILL, pods);
            }
            Deed::Terminate => self.restart(Signal::SIGTERM, pods),
            Deed::Hangup => {
                self.run.count("agent: SIGHUP");
                self.signal(Signal::SIGHUP);
            }
            Deed::Settings => self.change_settings(pods, "SIGHUP", Self::hang_up),
            Deed::SettingsByCommand => self.change_settings(pods, "sluice reload", Self::reload),
            Deed::SettingsWithoutAgent => {
                self.change_settings(pods, "sluice reload without agent", Self::reload_alone);
            }
            Deed::KillWhileReloading => {
                self.change_settings(pods, "SIGHUP, then kill", Self::hang_up_and_kill);
            }
            Deed::BrokenSettings => self.break_settings(),
            Deed::SetLimit => self.set_limit(pods, "10m", false),
            Deed::KillWhileSetting => self.set_limit(pods, "10m", true),
            Deed::SetLimitForSeconds => self.set_for_seconds(pods),
            Deed::ClearLimit => self.clear_limit(pods),
        }
    }

    fn restart(&mut self, signal: Signal, pods: &[Measured]) {
        self.run.count(&format!("agent: {signal}"));
        self.note(pods, &format!("agent: {signal}"));
        self.ask_for_report();
        self.end(signal);
        if self.dice.bool() {
            self.nap(1500);
        }
        self.start_agent();
        self.note(pods, "agent: started");
    }

    fn end(&mut self, signal: Signal) {
        let Some(mut agent) = self.agent.take() else { return };
        self.run.agent_is_up(false);
        let began = Instant::now();
        kill(Pid::from_raw(agent.id() as i32), signal).expect("signal the agent");
        let status = agent.wait().expect("wait for the agent");
        if signal == Signal::SIGTERM {
            self.run.took("until the agent ended at SIGTERM", began.elapsed());
            if !status.success() {
                self.run.fail(format!("the agent ended at SIGTERM with {status}"));
            }
        }
    }

    fn start_agent(&mut self) {
        let began = Instant::now();
        self.agent = Some(process::start());
        self.run.wait_for("the agent's API", || status().is_some());
        self.run.took("until a started agent answered", began.elapsed());
        self.run.agent_is_up(true);
        for name in ["guard", "shape_egress", "shape_ingress"] {
            let path = format!("{PIN_DIR}/{name}");
            let shown = json(&run_to_end("bpftool", &["-j", "prog", "show", "pinned", &path]));
            self.programs.extend(shown["id"].as_u64());
        }
    }

    fn wait_until_ready(&self) {
        self.run.wait_for("the agent's first pass", || {
            status().is_some_and(|status| status["agent"]["report"]["ready"] == true)
        });
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.process() as i32), signal).expect("signal the agent");
    }

    fn ask_for_report(&mut self) {
        self.account.ask(self.process());
    }

    /// Other defaults, or none, asked for in this way.
    fn change_settings(&mut self, pods: &[Measured], how: &str, ask: fn(&mut Self, &[Measured])) {
        self.run.count(&format!("settings: {how}"));
        self.defaults = [self.any_limit(), self.any_limit()];
        self.note(pods, &format!("settings: {:?} by {how}", self.defaults));
        self.enter_limits(pods);
        let shares = self.dice.bool();
        self.run.count(if shares { "node share: on" } else { "node share: off" });
        fs::write(USER_DATA, user_data(self.defaults, shares)).expect("write user data");
        ask(self, pods);
        self.wait_for_limits(pods, true);
    }

    fn hang_up(&mut self, _: &[Measured]) {
        self.signal(Signal::SIGHUP);
    }

    fn reload(&mut self, _: &[Measured]) {
        // Where it fails, e.g. at a broken conflist, it is asked for again.
        output_of_sluice(&["reload"]);
    }

    fn reload_alone(&mut self, _: &[Measured]) {
        self.ask_for_report();
        self.end(Signal::SIGKILL);
        let plugin = executable("sluice-cni").display().to_string();
        output_of_sluice(&["reload", "--user-data", USER_DATA, "--plugin", &plugin]);
        self.start_agent();
    }

    fn hang_up_and_kill(&mut self, pods: &[Measured]) {
        self.signal(Signal::SIGHUP);
        self.nap(60);
        self.restart(Signal::SIGKILL, pods);
        self.signal(Signal::SIGHUP);
    }

    /// What cannot be used changes nothing.
    fn break_settings(&mut self) {
        self.run.count("settings: broken");
        let good = fs::read_to_string(USER_DATA).expect("the user data");
        let broken = ["default-egress = \"1Mb\"\n", "[settings.sluice]\n", "\u{0}"];
        fs::write(USER_DATA, format!("{good}{}", broken[self.dice.usize(..broken.len())]))
            .expect("write user data");
        self.signal(Signal::SIGHUP);
        self.nap(1000);
        fs::write(USER_DATA, good).expect("write user data");
        self.signal(Signal::SIGHUP);
    }

    fn set_limit(&mut self, pods: &[Measured], time: &str, killed: bool) {
        let number = self.dice.usize(..pods.len());
        let limits = [self.any_limit(), self.any_limit()];
        self.run.count(if killed { "limit set, then kill" } else { "limit set" });
        self.note(pods, &format!("limit set {} {limits:?} for {time}", pods[number].name()));
        self.by_hand[number] = Some(limits);
        self.enter_limits(pods);
        let pod = format!("default/{}", pods[number].name());
        let [egress, ingress] = limits.map(rate);
        let words = ["limit", "set", &pod, "--egress", &egress, "--ingress", &ingress];
        let words = [&words[..], &["--for", time]].concat();
        if killed {
            let mut command = Command::new(executable("sluice"));
            let null = || std::process::Stdio::null();
            let mut asked =
                command.args(&words).stderr(null()).stdout(null()).spawn().expect("run sluice");
            self.nap(30);
            self.restart(Signal::SIGKILL, pods);
            asked.wait().expect("wait for sluice");
        }
        self.must_be_noted(&words);
        self.wait_for_limits(pods, false);
    }

    fn set_for_seconds(&mut self, pods: &[Measured]) {
        let before = self.by_hand.clone();
        self.set_limit(pods, "6s", false);
        self.run.count("limit's time is up");
        let changed = |(now, before): (&mut Option<Limits>, &Option<Limits>)| {
            if *now != *before {
                *now = None;
            }
        };
        self.by_hand.iter_mut().zip(&before).for_each(changed);
        // The same limits as were set before end, too; then there is nothing to be waited for.
        self.enter_limits(pods);
        self.wait_for_limits(pods, false);
    }

    fn clear_limit(&mut self, pods: &[Measured]) {
        let set: Vec<_> = (0..pods.len()).filter(|n| self.by_hand[*n].is_some()).collect();
        let Some(number) = self.dice.choice(set) else { return };
        self.run.count("limit cleared");
        self.note(pods, &format!("limit clear {}", pods[number].name()));
        self.by_hand[number] = None;
        self.enter_limits(pods);
        self.must_succeed(&["limit", "clear", &format!("default/{}", pods[number].name())]);
        self.wait_for_limits(pods, false);
    }

    /// A verb that was held up keeps it from being in force at once; then it must come by itself.
    fn must_be_noted(&self, words: &[&str]) {
        let output = output_of_sluice(words);
        if text(&output).contains("the limit is noted, but could not be put in force") {
            self.run.count("limit only noted at first");
        } else if !output.status.success() {
            self.run.fail(format!("sluice {}: {}", words.join(" "), text(&output)));
        }
    }

    fn must_succeed(&self, words: &[&str]) {
        let output = output_of_sluice(words);
        if !output.status.success() {
            self.run.fail(format!("sluice {}: {}", words.join(" "), text(&output)));
        }
    }

    /// What every measured pod has to get by now.
    fn enter_limits(&self, pods: &[Measured]) {
        for (pod, by_hand) in pods.iter().zip(&self.by_hand) {
            let otherwise = pod.annotated.map_or(self.defaults, |limits| limits.map(Some));
            let wanted = by_hand.unwrap_or(otherwise);
            let mut ledger = pod.ledger.lock().expect("the ledger");
            DIRECTIONS
                .iter()
                .for_each(|direction| ledger.ask(*direction, wanted[*direction as usize]));
        }
    }

    /// Settings are asked for again now and then: a boot fails while the conflist is broken.
    fn wait_for_limits(&mut self, pods: &[Measured], settings: bool) {
        let (began, mut asked) = (Instant::now(), Instant::now());
        self.run.wait_for("new limits to be in force", || {
            if settings && asked.elapsed() > AGAIN {
                self.run.count("settings: asked for again");
                self.signal(Signal::SIGHUP);
                asked = Instant::now();
            }
            pods.iter().all(|pod| pod.ledger.lock().expect("the ledger").limits_are_in_force())
        });
        self.run.took("until new limits were in force", began.elapsed());
    }

    fn any_limit(&mut self) -> Option<u64> {
        let rates = self.run.pace.rates;
        (self.dice.u8(..6) > 0).then(|| rates[self.dice.usize(..rates.len())])
    }

    fn nap(&mut self, millis: u64) {
        thread::sleep(Duration::from_millis(self.dice.u64(..millis)));
    }

    fn note(&self, pods: &[Measured], what: &str) {
        pods.iter().for_each(|pod| pod.ledger.lock().expect("the ledger").note(what.into()));
    }

    /// Until everything is as it should be again, with nothing in the way. A whole pass finds what
    /// had no event.
    pub fn settle(&mut self, pods: &[Measured]) {
        let began = Instant::now();
        self.wait_until_ready();
        self.signal(Signal::SIGHUP);
        self.run.wait_for("all pods to be whole, with their limits", || {
            pods.iter().for_each(|pod| pod.watch(self.run));
            pods.iter().all(|pod| {
                let ledger = pod.ledger.lock().expect("the ledger");
                ledger.limits_are_in_force() && ledger.is_whole()
            })
        });
        self.run.took("until all was settled in the end", began.elapsed());
        self.ask_for_report();
    }
}

impl Drop for Operator<'_> {
    fn drop(&mut self) {
        self.end(Signal::SIGKILL);
    }
}

fn output_of_sluice(words: &[&str]) -> std::process::Output {
    output(executable("sluice").to_str().expect("a path"), words)
}

fn rate(limit: Option<u64>) -> String {
    limit.map_or("unlimited".into(), |rate| format!("{}Mbit", rate / 1_000_000))
}

fn user_data(defaults: Limits, shares: bool) -> String {
    let [egress, ingress] = defaults.map(rate);
    let node = rate(Some(NODE_BPS));
    format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nconf-dir = \"{CONF_DIR}\"\n\
         bin-dir = \"{BIN_DIR}\"\n[settings.sluice.bandwidth]\n\
         default-egress = \"{egress}\"\ndefault-ingress = \"{ingress}\"\nnode-share = {shares}\n\
         node-egress = \"{node}\"\nnode-ingress = \"{node}\"\n"
    )
}
