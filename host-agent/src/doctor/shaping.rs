// SPDX-License-Identifier: Apache-2.0
//! Checks of each pod's own attachments: what its record promises against what
//! hangs on both ends of its veth pair.

use settings_model::{Rate, Settings};

use super::finding::Finding;
use super::hooks::{Ends, HookEntry, Layer, Side, Surveyed};
use super::owner::Owner;
use super::survey::{Survey, SurveyedPod};
use crate::netlink::{FILTER_HANDLE, Gso, LEAF_HANDLE, ROOT_HANDLE};
use crate::pod::direction::Direction;
use crate::pod::limit::Limit;
use crate::pod::record::{Guard, Mode, Record, Shaping};
use crate::trouble::{Severity, code};

pub fn check(survey: &Survey) -> Vec<Finding> {
    survey
        .pods
        .iter()
        .flat_map(|pod| PodCheck::of(survey, pod).map(PodCheck::run))
        .flatten()
        .collect()
}

struct PodCheck<'a> {
    survey: &'a Survey,
    record: &'a Record,
    inside: &'a Surveyed,
    host: &'a Surveyed,
    bypassed: Option<bpf::Counters>,
    is_guard_preceded: bool,
    /// `default/web`
    name: String,
    findings: Vec<Finding>,
}

impl<'a> PodCheck<'a> {
    /// None for a pod that cannot be looked at; the checks of records report that.
    fn of(survey: &'a Survey, pod: &'a SurveyedPod) -> Option<Self> {
        let record = pod.record.as_ref().ok()?;
        let (inside, host) = (pod.inside.as_ref().ok()?, survey.host_end(record)?);
        Some(Self {
            survey,
            record,
            inside,
            host,
            bypassed: pod.bypassed,
            is_guard_preceded: pod.is_guard_preceded,
            name: pod.name(),
            findings: Vec::new(),
        })
    }

    fn run(mut self) -> Vec<Finding> {
        let record = self.record;
        for (direction, shaping) in record.directions() {
            if let Shaping::Limited { mode, bits_per_sec, gso_before, .. } = shaping {
                self.limited(direction, mode.as_ref());
                // Where the shaper has no place nothing was clamped.
                if !is_guarded(shaping) {
                    self.clamp(direction, *bits_per_sec, *gso_before);
                }
            }
        }
        if let Some(guard) = &record.guard {
            self.guard(guard);
        }
        if let Some(guard) = &record.ingress_guard {
            self.ingress_guard(&guard.state);
        }
        if self.inside.more_filters {
            let name = &self.inside.device.name;
            let finding =
                Finding::new(code::TOO_MANY_FILTERS, format!("pod {} ({name} inside)", self.name));
            self.tell(
                finding
                    .seen("it has more filters than are read: the first 1024 of each hook")
                    .why("those behind are not judged"),
            );
        }
        self.findings
    }

    fn subject(&self, direction: Direction) -> String {
        let (device, word) = match direction {
            Direction::Ingress => (&self.host.device.name, "ingress"),
            Direction::Egress => (&self.inside.device.name, "egress"),
        };
        match direction {
            Direction::Ingress => format!("pod {}, {word} ({device})", self.name),
            Direction::Egress => format!("pod {}, {word} ({device} inside)", self.name),
        }
    }

    fn tell(&mut self, finding: Finding) {
        self.findings.push(finding);
    }

    /// The device that sends in this direction, where the qdisc and the filter are.
    fn sender(&self, direction: Direction) -> &'a Surveyed {
        if direction == Direction::Ingress { self.host } else { self.inside }
    }

    fn limited(&mut self, direction: Direction, mode: Option<&Mode>) {
        let subject = self.subject(direction);
        match mode {
            None => self.tell(
                Finding::new(code::ATTACH_INCOMPLETE, subject)
                    .seen("the record has a limit whose attachment was never completed")
                    .why("this direction is not limited"),
            ),
            Some(Mode::Guarded(obstacle)) => self.tell(
                Finding::new(code::GUARDED, subject).seen(obstacle).why(match direction {
                    Direction::Egress => {
                        "the guard on the host's end drops the excess; nothing is paced"
                    }
                    Direction::Ingress => "the guard in the pod drops the excess; nothing is paced",
                }),
            ),
            Some(Mode::Policed) => {
                self.tell(
                    Finding::new(code::POLICED, subject)
                        .seen("there was no sch_fq when it was attached")
                        .why("the limit holds by dropping: TCP gets about it, less evenly"),
                );
                self.attached(direction, false);
            }
            Some(Mode::Paced) => self.attached(direction, true),
        }
    }

    /// Whether root qdisc, fq and filter are there, and the filter is reached.
    fn attached(&mut self, direction: Direction, paced: bool) {
        let (subject, device) = (self.subject(direction), self.sender(direction));
        let root = device.root().filter(|root| root.handle != 0);
        let layer = Layer::Root;
        if let Some(root) = root.filter(|root| root.major() != ROOT_HANDLE) {
            let seen = format!("the root qdisc is {} {:x}:", root.kind, root.major());
            // What was on ours went with it, and cannot come back before this one has gone.
            return self.tell(foreign_root(&subject, &seen));
        }
        if root.is_none() {
            // The filter and the leaf went with the root.
            return self.missing(direction, "our root qdisc and the filter on it are gone");
        }
        let fq = LEAF_HANDLE;
        let has_fq = device.qdiscs.iter().any(|q| q.kind == "fq" && q.major() == fq);
        if paced && !has_fq {
            self.tell(
                Finding::new(code::FQ_MISSING, subject.as_str())
                    .seen(format!("the fq {fq:x}: is gone"))
                    .why("packets are stamped and nothing holds them back: no limit, but the guard's"),
            );
        }
        let entries = device.hook(Side::Egress, layer);
        match entries.iter().position(is_own_filter) {
            Some(_) => self.reached(&subject, device),
            None => self.missing(direction, "our filter is gone"),
        }
    }

    fn missing(&mut self, direction: Direction, seen: &str) {
        let (subject, also) = (self.subject(direction), self.tidied());
        let why = match direction {
            Direction::Ingress => "what the pod receives is not limited",
            Direction::Egress => "what the pod sends is not limited, but for the guard",
        };
        self.tell(
            Finding::new(code::FILTER_MISSING, subject).seen(format!("{seen}{also}")).why(why),
        );
    }

    /// The component that removes what it does not know, if it is on this node.
    fn tidied(&self) -> &'static str {
        let owners = super::others::owners(self.survey);
        if owners.contains(&Owner::Calico) {
            " (Calico is on this node, and removes qdiscs and filters that it does not know)"
        } else if owners.contains(&Owner::Cilium) {
            " (Cilium is on this node, and replaces qdiscs of devices that it manages)"
        } else {
            ""
        }
    }

    /// Whether a program in front of our filter lets packets past it.
    fn reached(&mut self, subject: &str, device: &Surveyed) {
        // Behind clsact and tcx on purpose: what policy passes arrives there anyhow.
        let all = device.hook(Side::Egress, Layer::Root).iter();
        let ahead: Vec<_> =
            all.take_while(|e| !is_own_filter(e)).map(|e| (Layer::Root, e)).collect();
        let worst = ahead.into_iter().max_by_key(|(layer, entry)| entry.ends(*layer));
        let Some((layer, entry)) = worst.filter(|(l, e)| e.ends(*l) == Ends::CanPass) else {
            return;
        };
        self.tell(
            Finding::new(code::SHAPER_HIDDEN, subject)
                .seen(told_of(entry, layer))
                .why("our filter behind it does not see those packets: they are not limited"),
        );
    }

    fn clamp(&mut self, direction: Direction, bits_per_sec: u64, before: Gso) {
        let device = &self.sender(direction).device;
        let Some(most) = gso_max_size(bits_per_sec, device.mtu) else { return };
        let (wanted, now) = (before.clamped(most), device.gso);
        let lost = now.max_size > wanted.max_size
            || now.ipv4_max_size.zip(wanted.ipv4_max_size).is_some_and(|(now, max)| now > max);
        if !lost {
            return;
        }
        let namespace = match direction {
            Direction::Ingress => String::new(),
            Direction::Egress => format!("nsenter --net={} ", self.record.netns.display()),
        };
        let (name, size) = (&device.name, wanted.max_size);
        let finding = Finding::new(code::GSO_CLAMP_LOST, self.subject(direction))
            .seen(format!("gso_max_size is {}, and was set to {size}", now.max_size))
            .why("one super-packet blocks the line for longer: more delay for all else of the pod")
            .remedy(format!(
                "{namespace}ip link set dev {name} gso_max_size {size}; \
                 the agent does it within 5 minutes while it runs"
            ));
        self.tell(finding);
    }

    fn guard(&mut self, guard: &Guard) {
        let severity = absence(&self.record.egress);
        let subject = format!("pod {}, guard ({})", self.name, self.host.device.name);
        let why = "a pod that may change its own network gets round its limit unseen";
        match guard {
            Guard::Pending => self.tell(
                Finding::new(code::GUARD_PENDING, subject)
                    .seen("the agent attaches it, and has not yet")
                    .why(why),
            ),
            Guard::Off(reason) => {
                self.tell(Finding::new(code::GUARD_OFF, subject).seen(reason).why(why))
            }
            Guard::Tcx => self.in_place(&subject, self.host, severity, Layer::Tcx),
            Guard::Clsact => self.in_place(&subject, self.host, severity, Layer::Clsact),
        }
    }

    /// Pending is no finding where the shaper enforces: it waits on purpose, and soon is not.
    fn ingress_guard(&mut self, guard: &Guard) {
        let severity = absence(&self.record.ingress);
        let subject =
            format!("pod {}, ingress guard ({} inside)", self.name, self.inside.device.name);
        match guard {
            Guard::Pending if severity != Severity::Fault => {}
            Guard::Pending => self.tell(
                Finding::new(code::GUARD_PENDING, subject)
                    .severity(severity)
                    .seen("the agent attaches it, and has not yet")
                    .why("it alone would enforce the limit"),
            ),
            Guard::Off(reason) => self.tell(
                Finding::new(code::INGRESS_GUARD_OFF, subject)
                    .severity(severity)
                    .seen(reason)
                    .why("what does not pass our qdisc on the host's end is not limited"),
            ),
            Guard::Tcx => self.in_place(&subject, self.inside, severity, Layer::Tcx),
            Guard::Clsact => self.in_place(&subject, self.inside, severity, Layer::Clsact),
        }
        if !is_guarded(&self.record.ingress) {
            self.bypassed();
        }
    }

    /// Names whatever could hand packets to the pod's own end.
    fn bypassed(&mut self) {
        let Some(bypassed) = self.bypassed.filter(|counters| counters.dropped_packets > 0) else {
            return;
        };
        let packets = bypassed.sent_packets + bypassed.dropped_packets;
        let able = redirectors(self.survey);
        let by = if able.is_empty() {
            "no program that redirects was found".into()
        } else {
            able.join("; ")
        };
        let finding = Finding::new(code::INGRESS_BYPASSED, self.subject(Direction::Ingress)).seen(
            format!("{packets} packets reached the pod past its host end; can redirect: {by}"),
        );
        let finding = match self.is_guard_preceded {
            true => finding
                .severity(Severity::Fault)
                .why(
                    "a packet socket in the pod (gVisor's network is one) gets them before the \
                     guard can drop any: they are not limited",
                )
                .remedy(
                    "Calico: BPFRedirectToPeer=Disabled; Cilium: enable-host-legacy-routing=true",
                ),
            false => finding
                .why(
                    "the guard in the pod enforces the limit by dropping; those packets are not \
                     paced",
                )
                .remedy(
                    "Calico: BPFRedirectToPeer=Disabled; Cilium: enable-host-legacy-routing=true; \
                     or leave it: the limit applies",
                ),
        };
        self.tell(finding);
    }

    fn in_place(&mut self, subject: &str, at: &Surveyed, severity: Severity, layer: Layer) {
        let is_guard =
            |(at, entry): &(Layer, &HookEntry)| *at == layer && entry.owner == Owner::Sluice;
        let chain: Vec<_> = at.chain(Side::Ingress).collect();
        let Some(position) = chain.iter().position(is_guard) else {
            return self.tell(
                Finding::new(code::GUARD_MISSING, subject)
                    .severity(severity)
                    .seen("the record has it, and it is not there")
                    .why("what gets round the shaper is neither limited nor seen"),
            );
        };
        let worst = chain[..position].iter().max_by_key(|(layer, entry)| entry.ends(*layer));
        let Some((layer, entry)) = worst else { return };
        match entry.ends(*layer) {
            Ends::Never => {}
            Ends::Unknown => self.tell(
                Finding::new(code::GUARD_BEHIND, subject)
                    .seen(told_of(entry, *layer))
                    .why("if it ends the chain, the guard behind it does not run"),
            ),
            Ends::CanPass => self.tell(
                Finding::new(code::GUARD_HIDDEN, subject)
                    .severity(severity)
                    .seen(told_of(entry, *layer))
                    .why("the guard behind it does not see those packets"),
            ),
        }
    }
}

fn is_guarded(shaping: &Shaping) -> bool {
    matches!(shaping, Shaping::Limited { mode: Some(Mode::Guarded(_)), .. })
}

/// How bad it is that a guard is not there: where it enforces, its absence is the limit's.
fn absence(shaping: &Shaping) -> Severity {
    if is_guarded(shaping) { Severity::Fault } else { Severity::Degraded }
}

/// Foreign programs of the node's devices that send packets on by themselves, or may do so.
fn redirectors(survey: &Survey) -> Vec<String> {
    let mut found = Vec::new();
    for device in &survey.host.devices {
        for hook in &device.hooks {
            let foreign =
                hook.entries.iter().filter(|e| e.owner != Owner::Sluice && !e.is_policy());
            let able = foreign.filter(|entry| entry.may_redirect());
            found.extend(able.map(|entry| format!("{} on {}", entry.label(), device.device.name)));
        }
    }
    found
}

/// The clamp follows from the rate and the device alone; the rest of a limit is any.
fn gso_max_size(bits_per_sec: u64, mtu: u32) -> Option<u32> {
    let rate = Rate::from_bits_per_sec(bits_per_sec)?;
    Some(Limit::of_node(rate, &Settings::default().bandwidth).gso_max_size(mtu))
}

pub fn is_own_filter(entry: &HookEntry) -> bool {
    entry.owner == Owner::Sluice && entry.handle() == FILTER_HANDLE
}

/// `foo (program 7, owner unknown) on tcx, ahead, returns PASS: can end the chain…`
pub fn told_of(entry: &HookEntry, layer: Layer) -> String {
    let place = match layer {
        Layer::Tcx => "on tcx",
        Layer::Clsact => "on clsact",
        Layer::Root => "on the root qdisc",
    };
    let (label, verdicts) = (entry.label(), entry.verdicts(layer));
    format!("ahead of it {place}: {label} returns {verdicts}: {}", entry.effect(layer))
}

fn foreign_root(subject: &str, seen: &str) -> Finding {
    Finding::new(code::FOREIGN_ROOT_QDISC, subject)
        .seen(seen)
        .why("it took the place of ours, which held packets back until their time")
}
