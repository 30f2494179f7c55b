// SPDX-License-Identifier: Apache-2.0
//! What is degraded: the agent's own troubles, and what settings, records and
//! counters show. Each with what was seen and what the reader can do. One
//! entry may speak of many pods, so that it stays readable.

use super::node::Status;
use super::pod::{Pod, State, names};
use crate::settings::in_force::Reason;
use crate::trouble::{CONFLIST, Trouble, some};

/// Code of pods without their limit, which a look at the devices may find more of.
pub const BROKEN: &str = "broken";

pub fn broken(all: &[Pod]) -> Option<Trouble> {
    of_pods(all).into_iter().find(|trouble| trouble.code == BROKEN)
}

/// The pins could not be opened because of `pins`, if that is given.
pub fn of(status: &Status, pins: Option<&bpf::Error>) -> Vec<Trouble> {
    let reported = status.agent.iter().flat_map(|agent| agent.report.troubles.clone());
    let found = [agent(status), settings(status), kubelet(status), programs(status, pins)];
    let pods = of_pods(&status.pods);
    let found = found.into_iter().flatten().chain(unmet_parts(status)).chain(pods);
    reported.chain(found).collect()
}

/// The agent looks at the conflist itself, and knows whether it has been repaired since.
fn unmet_parts(status: &Status) -> Vec<Trouble> {
    let mut unmet = status.settings.iter().flat_map(|it| it.unmet.clone()).collect::<Vec<_>>();
    unmet.retain(|trouble| status.agent.is_none() || trouble.code != CONFLIST);
    unmet
}

fn kubelet(status: &Status) -> Option<Trouble> {
    let max_pods = status.settings.as_ref()?.max_pods.as_ref()?;
    let has = status.kubelet.as_ref()?.max_pods;
    if has == Some(max_pods.pods) {
        return None;
    }
    let next_step = match max_pods.by_nodeadm {
        true => "reboot or replace the node: nodeadm makes kubelet's configuration once, at boot",
        false => "restart kubelet: systemctl restart kubelet",
    };
    let has = match has {
        Some(pods) => format!("kubelet runs with max-pods {pods}"),
        None => "kubelet started without a number of Sluice's".into(),
    };
    let what = format!("{has}; the settings in force give it {}", max_pods.pods);
    Some(trouble("kubelet-not-restarted", "max-pods", &what, next_step))
}

fn agent(status: &Status) -> Option<Trouble> {
    match &status.agent {
        None => Some(trouble(
            "no-agent",
            "sluice agent",
            "no agent runs; limits stay in force, but nothing is repaired and no guard attached",
            "start it: systemctl start sluice",
        )),
        Some(agent) if !agent.report.ready => Some(trouble(
            "not-ready",
            "sluice agent",
            "the agent's first pass is not through",
            "wait; if that lasts for more than a minute, read its journal: journalctl -u sluice",
        )),
        Some(_) => None,
    }
}

fn settings(status: &Status) -> Option<Trouble> {
    let Some(in_force) = &status.settings else {
        return Some(trouble(
            "not-booted",
            "settings",
            "no settings are in force: `sluice boot` has not run since the node started",
            "run sluice boot",
        ));
    };
    let why = in_force.problems.join("; ");
    (in_force.reason != Reason::AsAsked).then(|| {
        trouble(
            "settings-not-as-asked",
            "settings",
            &format!("in force is {}: {why}", in_force.to_text()),
            "correct the settings, check them with sluice check, then sluice reload",
        )
    })
}

fn programs(status: &Status, error: Option<&bpf::Error>) -> Option<Trouble> {
    // Before the agent's first start there is nothing, and no one who needs it.
    let needed = status.agent.is_some() || status.count(State::Unlimited) < status.pods.len();
    let error = error.filter(|_| needed)?;
    Some(trouble(
        "not-loaded",
        "shaper",
        &format!("the programs and maps are not there: {error}; counters cannot be read"),
        "restart the agent: systemctl restart sluice",
    ))
}

fn of_pods(all: &[Pod]) -> Vec<Trouble> {
    type Group<'g> = (&'g str, &'g str, &'g str, fn(&Pod) -> bool);
    let groups: [Group; 7] = [
        (
            BROKEN,
            "a limit is not enforced where it should be; sluice pods says what is missing",
            "restart the pod, or find what has changed its devices: sluice doctor",
            |pod| pod.state() == State::Broken,
        ),
        (
            "policed",
            "excess is dropped, not paced: this kernel has no sch_fq",
            "use an image whose kernel has the module sch_fq",
            |pod| pod.ways().iter().any(|(_, line)| line.mode.as_deref() == Some("policed")),
        ),
        (
            "guarded",
            "the guard alone enforces: a foreign root qdisc is on the pod's end",
            "find what adds it, and restart the pod without it",
            |pod| pod.egress.mode.as_deref() == Some("guarded"),
        ),
        (
            "dodged",
            "the guard drops what got round the pod's own shaper",
            "look at what runs there: it has changed its own devices or sends past them",
            |pod| is_dodging(pod),
        ),
        (
            "guard-off",
            "no guard: a pod with CAP_NET_RAW can send past its limit, and one with CAP_NET_ADMIN take it \
             off; sluice pods says why",
            "set bandwidth.guard = \"own-clsact\"; or use a kernel with tcx (6.6), or network policy, whose \
             clsact the guard shares",
            |pod| pod.guard.as_ref().is_some_and(|guard| guard.state == "off"),
        ),
        (
            "bypassed",
            "packets reach the pod past its host end: they are policed, not paced",
            "sluice doctor names the programs that can do that (bpf_redirect_peer)",
            |pod| {
                let packets = pod.ingress.sent_packets;
                pod.bypassed.as_ref().is_some_and(|bypassed| bypassed.is_notable(packets))
            },
        ),
        (
            "ingress-guard-off",
            "no guard in the pod: what others hand to it past its host end is not limited",
            "remove the ingress qdisc of the pod's end, or use a kernel with tcx (6.6)",
            |pod| pod.bypassed.as_ref().is_some_and(|bypassed| bypassed.guard == "off"),
        ),
    ];
    let troubles = groups.into_iter().filter_map(|(code, what, next_step, holds)| {
        let names = names(all.iter().filter(|pod| holds(pod)));
        (!names.is_empty()).then(|| trouble(code, &some(&names), what, next_step))
    });
    troubles.collect()
}

fn is_dodging(pod: &Pod) -> bool {
    let dropped = pod.guard.as_ref().is_some_and(|guard| guard.dropped_packets > 0);
    dropped && pod.egress.mode.as_deref() != Some("guarded")
}

fn trouble(code: &str, subject: &str, what: &str, next_step: &str) -> Trouble {
    Trouble {
        code: code.into(),
        subject: subject.into(),
        what: what.into(),
        next_step: next_step.into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::settings::in_force::MaxPodsInForce;
    use crate::status::node::InKubelet;
    use crate::status::text::tests::{pod, status};

    fn codes(status: &Status) -> Vec<String> {
        of(status, None).into_iter().map(|trouble| trouble.code).collect()
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
        assert_eq!(codes(&healthy), ["no-agent", "not-booted"]);
        let mut policed = pod();
        policed.egress.mode = Some("policed".into());
        let mut guarded = pod();
        guarded.egress.mode = Some("guarded".into());
        let mut broken = pod();
        broken.ingress.broken = true;
        let all = status(vec![policed, guarded, broken]);
        assert_eq!(codes(&all), ["broken", "policed", "guarded"]);
    }

    #[test]
    fn kubelet_that_has_not_read_its_number_is_degraded_with_what_it_takes() {
        let mut node = status(Vec::new());
        node.settings.as_mut().unwrap().max_pods = Some(MaxPodsInForce {
            pods: 13,
            told: "kubelet reads a file".into(),
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
        let unmet = ["conflist", "kubelet-not-configured"];
        let unmet = unmet.map(|code| trouble(code, "part", "broken", "repair it"));
        degraded.settings.as_mut().unwrap().unmet = unmet.into();
        assert_eq!(codes(&degraded), ["kubelet-not-configured"]);
        degraded.agent = None;
        assert_eq!(codes(&degraded), ["no-agent", "conflist", "kubelet-not-configured"]);
    }

    #[test]
    fn many_pods_are_one_entry_that_names_five() {
        let named = |n: u32| Pod { pod: format!("p{n}"), ..pod() };
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
