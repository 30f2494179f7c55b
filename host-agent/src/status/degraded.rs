// SPDX-License-Identifier: Apache-2.0
//! What is degraded: the agent's own troubles, and what settings, records and
//! counters show. Each with what was seen and what the reader can do. One
//! entry may speak of many pods, so that it stays readable.

use super::node::Status;
use super::pod::{Line, PodState, PodStatus, names};
use crate::settings::in_force::Reason;
use crate::trouble::code::{self, Code};
use crate::trouble::{Trouble, some};

/// What is said of pods that the records show to be without their limit.
const UNENFORCED: &str =
    "a limit is not enforced where it should be; sluice pods says what is missing";

/// Finds the pods without their limit once more, as a look at the devices may show others.
pub fn look_again(degraded: &mut Vec<Trouble>, all: &[PodStatus]) {
    degraded.retain(|trouble| trouble.what != UNENFORCED);
    degraded.extend(unenforced(degraded, all));
}

/// The agent says of a pod that it works on what is in the way; that is enough.
fn unenforced(reported: &[Trouble], all: &[PodStatus]) -> Option<Trouble> {
    let is_told = |pod: &PodStatus| {
        let subject = format!("{} {}", pod.name(), pod.interface);
        reported.iter().any(|trouble| trouble.is(code::NOT_ENFORCED) && trouble.subject == subject)
    };
    let without = all.iter().filter(|pod| pod.state() == PodState::Broken && !is_told(pod));
    of_names(code::NOT_ENFORCED, UNENFORCED, &names(without))
}

/// The pins could not be opened because of `pins`, if that is given.
pub fn of(status: &Status, pins: Option<&bpf::Error>) -> Vec<Trouble> {
    let mut all = status.agent.as_ref().map_or(Vec::new(), |it| it.report.troubles.clone());
    // The agent may have found that nothing is in force.
    let is_booted = !all.iter().any(|trouble| trouble.is(code::NOT_BOOTED));
    let settings = settings(status).filter(|it| is_booted || !it.is(code::NOT_BOOTED));
    let found = [agent(status, pins), settings, kubelet(status), programs(status, pins)];
    all.extend(unenforced(&all, &status.pods));
    all.extend(found.into_iter().flatten());
    all.extend(unmet_parts(status));
    all.extend(of_pods(&status.pods));
    all
}

/// The agent looks at the conflist itself, and knows whether it has been repaired since.
fn unmet_parts(status: &Status) -> Vec<Trouble> {
    let mut unmet = status.settings.iter().flat_map(|it| it.unmet.clone()).collect::<Vec<_>>();
    unmet.retain(|trouble| status.agent.is_none() || !is_of_conflist(trouble));
    unmet
}

fn kubelet(status: &Status) -> Option<Trouble> {
    let max_pods = status.settings.as_ref()?.max_pods.as_ref()?;
    let has = status.kubelet.as_ref()?.max_pods;
    if has == Some(max_pods.pods) {
        return None;
    }
    let has = match has {
        Some(pods) => format!("kubelet runs with max-pods {pods}"),
        None => "kubelet started without a number of Sluice's".into(),
    };
    let what = format!("{has}; the settings in force give it {}", max_pods.pods);
    let trouble = Trouble::new(code::KUBELET_NOT_RESTARTED, "max-pods", what);
    let by_nodeadm =
        "reboot or replace the node: nodeadm makes kubelet's configuration once, at boot";
    Some(if max_pods.by_nodeadm { trouble.with_next_step(by_nodeadm) } else { trouble })
}

fn agent(status: &Status, pins: Option<&bpf::Error>) -> Option<Trouble> {
    let (code, what) = match &status.agent {
        None if pins.is_some() && status.pods.is_empty() => (
            code::AGENT_NOT_RUNNING,
            "no agent runs, and nothing of Sluice's is attached, as after sluice detach: no pod has a limit",
        ),
        None => (
            code::AGENT_NOT_RUNNING,
            "no agent runs; limits stay in force, but nothing is repaired and no guard attached",
        ),
        Some(agent) if !agent.report.ready => {
            (code::NOT_READY, "the agent's first pass is not through")
        }
        Some(_) => return None,
    };
    Some(Trouble::new(code, "sluice agent", what))
}

fn settings(status: &Status) -> Option<Trouble> {
    let Some(in_force) = &status.settings else {
        let what = "no settings are in force: `sluice boot` has not run since the node started";
        return Some(Trouble::new(code::NOT_BOOTED, "settings", what));
    };
    let why = in_force.problems.join("; ");
    let what = format!("in force is {}: {why}", in_force.to_text());
    (in_force.reason != Reason::AsAsked).then(|| {
        let trouble = Trouble::new(code::SETTINGS_NOT_AS_ASKED, "settings", what);
        trouble.with_next_step(in_force.next_step())
    })
}

fn programs(status: &Status, error: Option<&bpf::Error>) -> Option<Trouble> {
    // Before the agent's first start there is nothing, and no one who needs it.
    let needed = status.agent.is_some() || status.count(PodState::Unlimited) < status.pods.len();
    let error = error.filter(|_| needed)?;
    let what = format!("the programs and maps are not there: {error}; counters cannot be read");
    Some(Trouble::new(code::PINS_MISSING, "shaper", what))
}

fn of_pods(all: &[PodStatus]) -> Vec<Trouble> {
    type Group<'g> = (&'static Code, &'g str, fn(&PodStatus) -> bool);
    let groups: [Group; 6] = [
        (code::POLICED, "excess is dropped, not paced: this kernel has no sch_fq", |pod| {
            pod.directions().iter().any(|(_, line)| line.mode.as_deref() == Some("policed"))
        }),
        (
            code::GUARDED,
            "the guard alone enforces: a foreign root qdisc has the place of ours; sluice pods says \
             on which device",
            |pod| pod.directions().iter().any(|(_, line)| is_guarded(line)),
        ),
        (code::DODGED, "the guard drops what got round the pod's own shaper", is_dodging),
        (
            code::GUARD_OFF,
            "no guard: a pod with CAP_NET_RAW can send past its limit, and one with CAP_NET_ADMIN \
             can remove it; sluice pods says why",
            |pod| pod.guard.as_ref().is_some_and(|guard| guard.state == "off"),
        ),
        (
            code::INGRESS_BYPASSED,
            "packets reach the pod past its host end: they are policed, not paced",
            |pod| {
                let packets = pod.ingress.sent_packets;
                let bypassed = pod.bypassed.as_ref().filter(|_| !is_guarded(&pod.ingress));
                bypassed.is_some_and(|bypassed| bypassed.is_notable(packets))
            },
        ),
        (
            code::INGRESS_GUARD_OFF,
            "no guard in the pod: what others hand to it past its host end is not limited",
            |pod| pod.bypassed.as_ref().is_some_and(|bypassed| bypassed.guard == "off"),
        ),
    ];
    let troubles = groups.into_iter().filter_map(|(code, what, holds)| {
        of_names(code, what, &names(all.iter().filter(|pod| holds(pod))))
    });
    troubles.collect()
}

fn is_of_conflist(trouble: &Trouble) -> bool {
    trouble.is(code::CONFLIST_UNREADABLE) || trouble.is(code::CONFLIST_NOT_WRITTEN)
}

/// One for all of them, if there are any.
fn of_names(code: &'static Code, what: &str, names: &[String]) -> Option<Trouble> {
    (!names.is_empty()).then(|| Trouble::new(code, some(names), what))
}

fn is_dodging(pod: &PodStatus) -> bool {
    let dropped = pod.guard.as_ref().is_some_and(|guard| guard.dropped_packets > 0);
    dropped && !is_guarded(&pod.egress)
}

fn is_guarded(line: &Line) -> bool {
    line.mode.as_deref() == Some("guarded")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::in_force::MaxPodsInForce;
    use crate::status::node::InKubelet;
    use crate::status::text::tests::{pod, status};

    fn codes(status: &Status) -> Vec<String> {
        of(status, None).into_iter().map(|trouble| trouble.code().to_owned()).collect()
    }

    #[test]
    fn node_that_is_as_it_should_be_has_nothing_to_tell() {
        assert_eq!(codes(&status(vec![pod()])), Vec::<String>::new());
    }

    #[test]
    fn each_degradation_has_its_code() {
        let mut healthy = status(Vec::new());
        healthy.agent = None;
        healthy.settings = None;
        assert_eq!(codes(&healthy), ["agent-not-running", "not-booted"]);
        let mut policed = pod();
        policed.egress.mode = Some("policed".into());
        let mut guarded = pod();
        guarded.egress.mode = Some("guarded".into());
        let mut broken = pod();
        broken.ingress.broken = true;
        let all = status(vec![policed, guarded, broken]);
        assert_eq!(codes(&all), ["not-enforced", "policed", "guarded"]);
    }

    #[test]
    fn kubelet_that_has_not_read_its_number_is_degraded_with_what_it_takes() {
        let mut node = status(Vec::new());
        node.settings.as_mut().unwrap().max_pods = Some(MaxPodsInForce {
            pods: 13,
            summary: "kubelet reads a file".into(),
            instance_type: None,
            capacity: None,
            delegates_prefixes: None,
            by_nodeadm: false,
            earlier: None,
        });
        node.kubelet = Some(InKubelet { max_pods: Some(13) });
        assert_eq!(codes(&node), Vec::<String>::new());
        node.kubelet = Some(InKubelet { max_pods: Some(12) });
        let trouble = of(&node, None).remove(0);
        assert_eq!(trouble.what, "kubelet runs with max-pods 12; the settings in force give it 13");
        assert_eq!(trouble.next_step, "restart kubelet: systemctl restart kubelet");
        node.settings.as_mut().unwrap().max_pods.as_mut().unwrap().by_nodeadm = true;
        assert!(of(&node, None).remove(0).next_step.starts_with("reboot or replace the node"));
    }

    #[test]
    fn conflist_is_the_agents_to_judge_while_one_runs() {
        let mut degraded = status(Vec::new());
        let unmet = [code::CONFLIST_UNREADABLE, code::KUBELET_NOT_CONFIGURED];
        let unmet = unmet.map(|code| Trouble::new(code, "part", "broken"));
        degraded.settings.as_mut().unwrap().unmet = unmet.into();
        assert_eq!(codes(&degraded), ["kubelet-not-configured"]);
        degraded.agent = None;
        assert_eq!(
            codes(&degraded),
            ["agent-not-running", "conflist-unreadable", "kubelet-not-configured"]
        );
    }

    #[test]
    fn pod_that_the_agent_works_on_is_one_entry_with_what_is_in_the_way() {
        let mut broken = pod();
        broken.ingress.broken = true;
        let mut node = status(vec![broken]);
        let why = Trouble::new(code::NOT_ENFORCED, "default/web eth0", "a tbf is there");
        node.agent.as_mut().unwrap().report.troubles.push(why.clone());
        node.degraded = of(&node, None);
        assert!(node.degraded.iter().eq([&why]));
        look_again(&mut node.degraded, &node.pods);
        assert!(node.degraded.iter().eq([&why]));
    }

    #[test]
    fn many_pods_are_one_entry_that_names_five() {
        let named = |n: u32| PodStatus { pod: format!("p{n}"), ..pod() };
        let pods = (0..8).map(|n| {
            let mut pod = named(n);
            pod.egress.broken = true;
            pod
        });
        let troubles = of(&status(pods.collect()), None);
        assert_eq!(
            troubles[0].subject,
            "default/p0, default/p1, default/p2, default/p3, default/p4 and 3 more"
        );
    }
}
