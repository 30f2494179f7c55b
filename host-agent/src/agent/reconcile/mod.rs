// SPDX-License-Identifier: Apache-2.0
//! Keeps every pod as it should be: which pods are due to be looked at, and
//! when. Events and a slow whole pass make them due; `pod` looks and acts. All
//! of the agent's rtnetlink traffic starts here, in slices, so that a runtime's
//! verbs are never kept waiting (docs/decisions/0008-reconcile.md).

pub mod adopt;
mod allowance;
mod ena;
mod health;
mod known_pod;
mod node_busy;
mod node_line;
mod node_share;
pub mod once;
mod pending_guard;
mod pod;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::Result;
use bpf::Pins;
use settings_model::Settings;

use crate::addresses::capacity::Capacity;
use crate::agent::chain_entry;
use crate::host::lock::{Busy, unless_busy};
use crate::host::paths::Paths;
use crate::netlink::{Changed, Link, Netlink};
use crate::pod::direction::Direction;
use crate::pod::floors::NodeFloors;
use crate::pod::record::{Claim, Key, NoFreeSlot, Record, Records};
use crate::pod::sources::capacity;
use crate::settings::in_force::in_force;
use crate::status::metrics::SinceStart;
use crate::status::report::AgentReport;
use crate::trouble::{Trouble, code, some};
use known_pod::{KnownPod, RETRY, longest_without_guard};
use node_busy::NodeBusy;
use node_share::NodeShare;
use pod::{NodeView, Seen};

/// Finds changes without an event: a link that was detached, an event that got lost.
const PASS_EVERY: Duration = Duration::from_secs(300);
/// Whole passes because events got lost come no closer: a pod may make more events than can be held.
const LOST_EVERY: Duration = Duration::from_secs(10);
/// How long the loop works before it lets verbs, and whoever asks, have their turn.
const SLICE: Duration = Duration::from_millis(20);
const BREAK: Duration = Duration::from_millis(1);
/// A new tcx link holds the kernel's network lock for some 15 ms (kernel/bpf/tcx.c, tcx_entry_sync);
/// so long it is left alone after one, for ADDs to come through.
const GUARD_EVERY: Duration = Duration::from_millis(25);
/// What a pod is still doing when its event comes is waited for.
const SETTLE: Duration = Duration::from_millis(20);
/// A verb that takes longer hangs; the pod's turn comes later.
const PATIENCE: Duration = Duration::from_millis(500);
/// How long a pod that was deleted is not adopted: the runtime removes its cache file last.
const DELETED_FOR: Duration = Duration::from_secs(60);

pub struct Reconciler {
    paths: Paths,
    records: Records,
    pins: Pins,
    netlink: Netlink,
    /// The host's devices; None since one of them has changed.
    links: Option<Vec<Link>>,
    settings: Settings,
    /// Whether those are in force; before any are, no pod and no file is changed.
    in_force: bool,
    /// Times that settings were read.
    reads: u64,
    report: AgentReport,
    pods: BTreeMap<Key, KnownPod>,
    deleted: BTreeMap<Key, Instant>,
    next_guard: Instant,
    next_pass: Instant,
    next_for_lost: Instant,
    pass: Option<Pass>,
    troubles: BTreeMap<&'static str, Trouble>,
    /// What is wrong with files of the result cache.
    unread: BTreeMap<PathBuf, Trouble>,
    chain: chain_entry::Chain,
    node_share: NodeShare,
    floors: NodeFloors,
    node_busy: NodeBusy,
    since_start: SinceStart,
    /// Directories of older versions' pins, which go when nothing uses them any more.
    older: Vec<PathBuf>,
}

/// A whole pass that is under way.
struct Pass {
    began: Instant,
    worked: Duration,
}

impl Reconciler {
    pub fn open(paths: &Paths) -> Result<Self> {
        let now = Instant::now();
        let mut reconciler = Self {
            paths: paths.clone(),
            records: Records::new(paths),
            pins: Pins::open(&paths.pin_dir())?,
            netlink: Netlink::open()?,
            links: None,
            settings: Settings::default(),
            in_force: false,
            reads: 0,
            report: AgentReport::default(),
            pods: BTreeMap::new(),
            deleted: BTreeMap::new(),
            next_guard: now,
            next_pass: now,
            next_for_lost: now,
            pass: None,
            troubles: BTreeMap::new(),
            unread: BTreeMap::new(),
            chain: chain_entry::Chain::default(),
            node_share: NodeShare::default(),
            floors: NodeFloors::default(),
            node_busy: NodeBusy::default(),
            since_start: SinceStart::begin(),
            older: bpf::older_layouts(&paths.bpffs())?,
        };
        reconciler.read_settings();
        Ok(reconciler)
    }

    /// The account of all this, with what is wrong now.
    pub fn report(&self) -> AgentReport {
        let pods = self.pods.values().filter_map(|pod| pod.trouble.clone());
        let node = self.troubles.values().chain(self.unread.values()).cloned();
        let troubles = node.chain(pods).collect();
        AgentReport { troubles, ..self.report.clone() }
    }

    /// Something is wrong with `part` of the node, or is no more.
    pub fn set_trouble(&mut self, part: &'static str, trouble: Option<Trouble>) {
        match trouble {
            Some(trouble) => self.troubles.insert(part, trouble),
            None => self.troubles.remove(part),
        };
    }

    /// What has been found out about the node's addresses; None where max-pods promises none.
    pub fn set_capacity(&mut self, capacity: Option<Capacity>) {
        self.report.capacity = capacity;
    }

    /// Whether a whole pass has finished and nothing is left to be done soon.
    pub fn is_done(&self) -> bool {
        let waits = |pod: &KnownPod| pod.guard_due.is_some();
        self.report.ready && self.pass.is_none() && !self.pods.values().any(waits)
    }

    /// How many pod interfaces have a record.
    pub fn pods(&self) -> usize {
        self.pods.len()
    }

    pub fn settings(&self) -> &Settings {
        &self.settings
    }

    /// Other settings are in force: every pod is due. Where they cannot be read, the ones before hold.
    pub fn settings_changed(&mut self) {
        self.read_settings();
        self.next_pass = Instant::now();
    }

    /// Boot has written what it knows of the machine.
    pub fn booted(&mut self) {
        self.node_share.look_again();
    }

    /// Times that settings in force were read; before the first time there are none.
    pub fn settings_reads(&self) -> u64 {
        self.reads
    }

    fn read_settings(&mut self) {
        let read = in_force(&self.paths);
        let trouble = read.as_ref().err().map(|e| {
            let file = self.paths.settings_in_force();
            let code = if file.exists() { code::SETTINGS_UNREADABLE } else { code::NOT_BOOTED };
            Trouble::new(code, file.display().to_string(), format!("{e:#}"))
        });
        self.set_trouble("settings", trouble);
        if let Ok(settings) = read {
            self.settings = settings;
            self.in_force = true;
            self.reads += 1;
        }
    }

    /// Links, qdiscs or filters were changed by another process.
    pub fn changed(&mut self, changed: &Changed) {
        let now = Instant::now();
        if changed.lost {
            self.next_pass = self.next_pass.min(self.next_for_lost.max(now));
        }
        if changed.host_links || changed.lost {
            self.links = None;
        }
        if changed.host_links || changed.routes || changed.lost {
            self.node_share.look_again();
        }
        for pod in self.pods.values_mut() {
            let host = pod.host_index.is_some_and(|index| changed.host.contains(&index));
            let inside = pod.netns.is_some_and(|netns| changed.inside.contains(&netns));
            if host || inside {
                self.report.deferred += u64::from(pod.heard(now, SETTLE));
            }
        }
    }

    /// Pins again what someone has unpinned.
    pub fn put_pins_back(&self) -> Result<()> {
        let mut tries = 0;
        let put_back = loop {
            match self.pins.put_back() {
                // Whoever removes them may still be at it.
                Err(_) if tries < 10 => thread::sleep(SETTLE),
                done => break done?,
            }
            tries += 1;
        };
        if put_back {
            log::warn!(CODE = "unpinned"; "{} was emptied; restored", self.paths.pin_dir().display());
        }
        Ok(())
    }

    /// An event may have been missed: everything is due.
    pub fn lost(&mut self) {
        self.next_pass = Instant::now();
    }

    /// A record was written. What the agent itself has written last is no news: a look for each write
    /// would be several for each pod that it adopts.
    pub fn record_written(&mut self, claim: Claim) {
        self.deleted.remove(&claim.key);
        let record = claim.read().ok();
        let known = self.pods.get(&claim.key).filter(|pod| pod.claim == claim && !pod.add_is_open);
        if record.is_some() && known.is_some_and(|pod| pod.left == record) {
            return;
        }
        let new = self.pods.get(&claim.key).is_none_or(|pod| pod.add_is_open);
        let took_ns = record.filter(|_| new).and_then(|record| record.took_ns());
        if let Some(took_ns) = took_ns {
            self.since_start.observe_add(took_ns);
        }
        let key = claim.key.clone();
        self.make_due(claim, Instant::now());
        if let Some(pod) = self.pods.get_mut(&key) {
            pod.add_is_open = new && took_ns.is_none();
        }
    }

    /// Brings these pods at once, because a caller waits for it.
    pub fn bring_now(&mut self, claims: Vec<Claim>) -> Result<()> {
        let keys = claims.iter().map(|claim| claim.key.clone()).collect();
        let now = Instant::now();
        claims.into_iter().for_each(|claim| self.make_due(claim, now));
        self.bring_all(keys, now)
    }

    /// How long ADDs took since the start, among others.
    pub fn since_start(&self) -> &SinceStart {
        &self.since_start
    }

    /// A record was removed, by a DEL or by ourselves.
    pub fn record_removed(&mut self, claim: &Claim) {
        if self.pods.get(&claim.key).is_some_and(|pod| pod.claim == *claim) {
            self.pods.remove(&claim.key);
        }
        self.deleted.insert(claim.key.clone(), Instant::now());
    }

    /// A file of the runtime's result cache is new, or has gone.
    pub fn cached(&mut self, path: &std::path::Path) -> Result<()> {
        self.unread.remove(path);
        self.found(adopt::read(path).into_iter().collect())
    }

    /// Adopts what the chain has missed, and notes what of the cache could not be read.
    fn found(&mut self, found: Vec<adopt::Found>) -> Result<()> {
        for file in &found {
            let Some(problem) = &file.problem else { continue };
            // An ADD has said all there is to say of it.
            if file.cached.is_none() && self.pods.keys().any(|key| file.is_of(key)) {
                continue;
            }
            let trouble = unread(file, problem);
            log::warn!(CODE = trouble.code(); "{}: {}", trouble.subject, trouble.what);
            self.unread.insert(file.path.clone(), trouble);
        }
        self.adopt(found.into_iter().filter_map(|file| file.cached).collect())
    }

    fn make_due(&mut self, claim: Claim, when: Instant) {
        let pod =
            self.pods.entry(claim.key.clone()).or_insert_with(|| KnownPod::new(claim.clone()));
        pod.claim = claim;
        pod.is_due(when);
    }

    /// When there is something to do again, whatever happens.
    pub fn next(&self) -> Instant {
        let pods = self.pods.values().filter_map(|pod| pod.due);
        let guards = self.pods.values().filter_map(|pod| pod.guard_due).min();
        let guards = guards.map(|due| due.max(self.next_guard));
        let chain = self.chain.next().filter(|_| self.in_force);
        let line = self.node_share.line.next();
        let rest = pods.chain(guards).chain(chain).chain(line);
        rest.fold(self.next_pass, Instant::min)
    }

    /// Does what is due, up to a slice of time. Trouble with one pod is that pod's.
    pub fn work(&mut self) -> Result<()> {
        let began = Instant::now();
        if self.next_pass <= began {
            self.begin_pass(began)?;
        }
        self.keep_entry(began);
        self.share_node();
        self.look_at_node_line(began);
        let due = self.due(began);
        if !due.is_empty() {
            self.bring_all(due, began)?;
        }
        self.count_floors();
        self.end_pass(began.elapsed())?;
        if began.elapsed() >= SLICE {
            thread::sleep(BREAK);
        }
        self.attach_one_guard(Instant::now())?;
        if self.in_force && self.is_done() { self.end_older_layouts() } else { Ok(()) }
    }

    /// Every pod has this version's programs by now.
    fn end_older_layouts(&mut self) -> Result<()> {
        for dir in std::mem::take(&mut self.older) {
            bpf::remove_layout(&dir)?;
            log::info!("removed {}, of an older version", dir.display());
        }
        Ok(())
    }

    fn begin_pass(&mut self, now: Instant) -> Result<()> {
        self.next_pass = now + PASS_EVERY;
        self.next_for_lost = now + LOST_EVERY;
        self.links = None;
        self.pass.get_or_insert(Pass { began: now, worked: Duration::ZERO });
        self.deleted.retain(|_, when| when.elapsed() < DELETED_FOR);
        let claims = self.records.list()?;
        // At once: one by one each would wait for the kernel.
        self.pins.make_flows_for(&claims.iter().map(|claim| claim.slot).collect::<Vec<_>>())?;
        let keys: BTreeSet<_> = claims.iter().map(|claim| &claim.key).collect();
        self.pods.retain(|key, _| keys.contains(key));
        claims.into_iter().for_each(|claim| self.make_due(claim, now));
        self.unread.clear();
        self.node_share.look_again();
        self.set_trouble("slots", None);
        self.found(adopt::read_all(&self.paths.result_cache())?)?;
        self.chain.look_again(now);
        Ok(())
    }

    /// What is due now must wait for settings, which make everything due.
    fn wait_for_settings(&mut self, due: Vec<Key>) {
        for key in due {
            self.pods.entry(key).and_modify(|pod| pod.due = None);
        }
    }

    /// Links of guards whose pods have gone without a DEL.
    fn collect_links(&mut self) -> Result<()> {
        let records: Vec<_> = self.pods.values().filter_map(|pod| pod.claim.read().ok()).collect();
        let hosts: BTreeSet<_> =
            records.iter().filter_map(|r| Some(r.host.as_ref()?.ifindex)).collect();
        let ends: BTreeSet<_> =
            records.iter().filter_map(|r| Some(r.ingress_guard.as_ref()?.end())).collect();
        for index in self.pins.guard_links()?.into_iter().filter(|index| !hosts.contains(index)) {
            self.pins.detach_link(index)?;
        }
        let links = self.pins.ingress_guard_links()?.into_iter();
        for end in links.filter(|end| !ends.contains(end)) {
            self.pins.detach_pod_link(end)?;
        }
        Ok(())
    }

    fn end_pass(&mut self, worked: Duration) -> Result<()> {
        let Some(pass) = &mut self.pass else { return Ok(()) };
        pass.worked += worked;
        let now = Instant::now();
        if self.pods.values().any(|pod| pod.due.is_some_and(|due| due <= now)) {
            return Ok(());
        }
        self.report.last_pass_ns = pass.worked.as_nanos() as u64;
        log::debug!("whole pass: {:?} of work in {:?}", pass.worked, pass.began.elapsed());
        self.report.passes += 1;
        self.report.ready = true;
        self.pass = None;
        self.collect_links()
    }

    /// The pod that has waited longest comes first: where more pods come than can be served, all have their turn.
    fn due(&self, now: Instant) -> Vec<Key> {
        let due = self.pods.iter().filter_map(|(key, pod)| Some((pod.due?, key)));
        let mut due: Vec<_> = due.filter(|(due, _)| *due <= now).collect();
        due.sort();
        due.into_iter().map(|(_, key)| key.clone()).collect()
    }

    fn bring_all(&mut self, due: Vec<Key>, began: Instant) -> Result<()> {
        if !self.in_force {
            self.wait_for_settings(due);
            return Ok(());
        }
        let links = match self.links.take() {
            Some(links) => links,
            None => self.netlink.links()?,
        };
        for key in due {
            let Some(pod) = self.pods.get_mut(&key) else { continue };
            pod.due = None;
            let claim = pod.claim.clone();
            let _held = match self.records.hold(&key.container_id, PATIENCE) {
                Err(e) if e.is::<Busy>() => {
                    log::warn!("{e:#}; its pod's turn comes later");
                    self.make_due(claim, Instant::now() + RETRY);
                    continue;
                }
                held => held?,
            };
            let (records, pins) = (&self.records, &self.pins);
            let (bandwidth, upgrades) = (&self.settings.bandwidth, !self.older.is_empty());
            let floors = &self.floors;
            let node = NodeView { records, pins, bandwidth, links: &links, floors, upgrades };
            let result = pod::bring(&node, &claim);
            self.note(&claim, result);
            if began.elapsed() >= SLICE {
                break;
            }
        }
        self.links = Some(links);
        Ok(())
    }

    fn note(&mut self, claim: &Claim, result: Result<Option<Seen>>) {
        let Some(pod) = self.pods.get_mut(&claim.key) else { return };
        let mut seen = match result {
            Ok(Some(seen)) => seen,
            Ok(None) => {
                self.report.collected += u64::from(self.pods.remove(&claim.key).is_some());
                return;
            }
            Err(e) => return pod.failed(&e),
        };
        let now = Instant::now();
        self.report.repairs += u64::from(!seen.mended.is_empty());
        pod.left = seen.record.take();
        pod.saw(&seen, now);
        for ifname in seen.others {
            self.add_other(claim, ifname);
        }
    }

    /// An interface that came with another one's ADD shares its slot, and so its limit.
    fn add_other(&mut self, main: &Claim, ifname: String) {
        let key = Key { container_id: main.key.container_id.clone(), ifname };
        let Ok(record) = main.read() else { return };
        let same_pod = |pod: &KnownPod| pod.claim.read().is_ok_and(|r| r.netns == record.netns);
        let known = self.pods.iter().any(|(k, pod)| k.ifname == key.ifname && same_pod(pod));
        if known {
            return;
        }
        match self.claim_other(key, &record.for_other(&main.key.ifname)) {
            Ok(claim) => self.make_due(claim, Instant::now()),
            Err(e) => log::warn!("{e:#}"),
        }
    }

    /// An ADD that we have not yet read of may have been there first: its record says what is attached.
    fn claim_other(&self, key: Key, record: &Record) -> Result<Claim> {
        match self.records.find(&key)? {
            Some(claim) => Ok(claim),
            None => self.records.claim(key, record),
        }
    }

    fn attach_one_guard(&mut self, now: Instant) -> Result<()> {
        if now < self.next_guard {
            return Ok(());
        }
        let Some(pod) = longest_without_guard(&mut self.pods, now) else { return Ok(()) };
        pod.guard_due = None;
        let claim = pod.claim.clone();
        let done =
            pending_guard::attach(&self.records, &self.pins, &claim, self.settings.bandwidth.guard);
        match (done, self.pods.get_mut(&claim.key)) {
            (Ok(tried), Some(pod)) => {
                pod.guard_due = tried.again.map(|wait| Instant::now() + wait);
                pod.left = tried.record.or(pod.left.take());
            }
            (Err(e), Some(pod)) => pod.failed(&e.context("attach the guard")),
            (_, None) => {}
        }
        self.next_guard = Instant::now() + GUARD_EVERY;
        Ok(())
    }

    /// Gives records, and so slots and limits, to pods that the chain has missed.
    fn adopt(&mut self, cached: Vec<adopt::Cached>) -> Result<()> {
        let missed = |cached: &adopt::Cached| {
            !self.pods.contains_key(&cached.key) && !self.deleted.contains_key(&cached.key)
        };
        let missed: Vec<_> = cached.into_iter().filter(missed).collect();
        if missed.is_empty() || !self.in_force {
            return Ok(());
        }
        let ours = missed.into_iter().filter(|cached| !cached.is_left_alone(&self.settings));
        let wanted = ours.map(|cached| (cached.key.clone(), cached.record())).collect();
        let Some(seized) = unless_busy(self.records.seize(PATIENCE))? else { return Ok(()) };
        let (claims, without) = self.records.claim_all(wanted)?;
        self.set_trouble("slots", no_slot(&without));
        let slots: Vec<_> = claims.iter().map(|claim| claim.slot).collect();
        slots.iter().try_for_each(|slot| self.pins.clear(*slot))?;
        // Verbs that wait need not wait for the rest.
        drop(seized);
        self.pins.make_flows_for(&slots)?;
        for record in claims.iter().filter_map(|claim| claim.read().ok()) {
            log::info!(
                POD_NAMESPACE = record.namespace.as_str(),
                POD_NAME = record.pod.as_str(),
                CODE = "adopted";
                "{}/{}: adopted, the chain missed it",
                record.namespace,
                record.pod
            );
        }
        self.report.adopted += claims.len() as u64;
        claims.into_iter().for_each(|claim| self.make_due(claim, Instant::now()));
        Ok(())
    }

    /// Pods have their limits whether or not this succeeds.
    fn share_node(&mut self) {
        if !self.in_force || !self.node_share.take_due() {
            return;
        }
        let bandwidth = &mut self.settings.bandwidth;
        let brought = self.node_share.bring(&self.pins, &mut self.netlink, bandwidth, &self.paths);
        let trouble = match &brought {
            Ok(_) => self.node_share.trouble(bandwidth),
            Err(e) => Some(node_share::failed(e)),
        };
        let is_shared = Direction::BOTH.iter().any(|it| capacity(bandwidth, *it).is_some());
        self.node_busy.follow(is_shared, Instant::now());
        self.set_trouble("node share", trouble);
        if !is_shared {
            self.set_trouble("node egress", None);
            self.set_trouble("node ingress", None);
            self.set_trouble("floors of the line", None);
        }
        if matches!(brought, Ok(true)) {
            self.next_pass = Instant::now();
        }
    }

    /// What of the node's line is the pods' now.
    fn look_at_node_line(&mut self, now: Instant) {
        if self.node_share.line.next().is_none_or(|due| due > now) {
            return;
        }
        let slots = self.pods.values().map(|pod| pod.claim.slot).collect();
        let bandwidth = &self.settings.bandwidth;
        let look = self.node_share.look(&self.pins, &mut self.netlink, &slots, bandwidth);
        if let Err(e) = look {
            log::warn!("{e:#}; what pods may use of the node's line stays as it was");
        }
        self.set_trouble("floors of the line", self.node_share.line.lowered(now));
        self.watch_node(now);
    }

    /// Another pod, or other settings, changes what the others can be promised.
    fn count_floors(&mut self) {
        let bandwidth = &self.settings.bandwidth;
        let by_class = bandwidth.classes.iter().any(|class| class.has_floor());
        let left = self.pods.values().filter_map(|pod| pod.left.as_ref());
        let any = by_class || left.clone().any(|record| record.annotated.has_floor());
        let of_pods = left.filter(|record| any && record.main.is_none());
        let floors = NodeFloors::of(of_pods.map(|record| record.wanted(bandwidth)));
        if floors == self.floors {
            return;
        }
        self.floors = floors;
        if let Err(e) = self.node_share.line.promise(&self.pins, bandwidth, floors.promised()) {
            log::warn!("{e:#}; floors may be lowered too little");
        }
        self.pods.values_mut().for_each(|pod| pod.is_due(Instant::now()));
        let trouble = self
            .floors
            .lowered()
            .map(|why| Trouble::new(code::FLOORS_LOWERED, "bandwidth.class", why));
        self.set_trouble("floors", trouble);
    }

    /// Names who takes most of a line that is busy for long.
    fn watch_node(&mut self, now: Instant) {
        if !self.node_busy.is_due(now) {
            return;
        }
        let claims: Vec<_> = self.pods.values().map(|pod| &pod.claim).collect();
        let exceeded = self.node_share.line.take_exceeded();
        match self.node_busy.look(now, &self.pins, &claims, exceeded) {
            Ok([egress, ingress]) => {
                self.set_trouble("node egress", egress);
                self.set_trouble("node ingress", ingress);
            }
            Err(e) => log::warn!("look at the node's line: {e}"),
        }
    }

    /// Restores our entry in the conflist where another writer has replaced it.
    fn keep_entry(&mut self, now: Instant) {
        if !self.in_force {
            return;
        }
        let kept = self.chain.keep(&self.paths, &self.settings, now);
        self.report.conflist_writes = self.chain.writes();
        if let Some(trouble) = kept {
            let is_new = trouble.as_ref() != self.troubles.get("conflist");
            // Every node starts without one.
            let is_said = |it: &&Trouble| is_new && !it.is(code::CONFLIST_MISSING);
            if let Some(it) = trouble.as_ref().filter(is_said) {
                let Trouble { subject, what, next_step, .. } = it;
                log::warn!(CODE = it.code(); "{subject}: {what}; next: {next_step}");
            }
            self.set_trouble("conflist", trouble);
        }
    }

    /// The directory of conflists has changed.
    pub fn conflist_changed(&mut self) {
        self.chain.look_again(Instant::now());
    }
}

/// A file of the result cache whose pod is not limited as it asks for.
fn unread(file: &adopt::Found, problem: &str) -> Trouble {
    let (what, next_step) = match file.cached {
        Some(_) => (
            format!("{problem}; class and default apply instead"),
            "correct the pod's annotations, then restart the pod",
        ),
        None => (
            format!("the runtime's result cannot be read ({problem}), so its pod has no limit"),
            "restart the pod; if it has gone, remove the file",
        ),
    };
    Trouble::new(code::NOT_ADOPTED, file.subject(), what).with_next_step(next_step)
}

fn no_slot(pods: &[String]) -> Option<Trouble> {
    (!pods.is_empty()).then(|| {
        let trouble = Trouble::new(code::NOT_ADOPTED, some(pods), NoFreeSlot.to_string());
        trouble.with_next_step("fewer pods on this node")
    })
}
