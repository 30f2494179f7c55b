// SPDX-License-Identifier: Apache-2.0
//! Ways to share a node's line among pods: Sluice's node share, and the peers on
//! the uplink as their users would have them.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use tests::cni::Annotations;
use tests::command::{json, tc, wait_for};
use tests::node::{Node, Pod};

use crate::share::SharePlan;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Sharing {
    /// The line is not limited: what a round trip takes by itself.
    None,
    NodeShare,
    /// Sluice without node share: each pod is limited to its part.
    Limits,
    CakeDualSrchost,
    HtbFqCodel,
    TbfFqCodel,
}

impl Sharing {
    pub fn name(self) -> String {
        let name = serde_json::to_value(self).expect("a name");
        name.as_str().expect("a word").to_owned()
    }

    /// Of these pods, the last of which is the quiet one.
    pub fn apply(self, node: &Node, plan: &SharePlan, pods: &[Pod], uplink: &str) {
        let line = plan.line_bps;
        match self {
            Self::None => {}
            Self::NodeShare => node_share(node, plan, pods),
            Self::Limits => {
                let limit = line / plan.pods.len() as u64;
                for pod in pods {
                    node.add(pod, Annotations { egress: limit, ingress: limit });
                }
            }
            Self::CakeDualSrchost => {
                tc(&format!("qdisc add dev {uplink} root cake bandwidth {line}bit dual-srchost"));
            }
            Self::HtbFqCodel => htb(line, pods, uplink),
            Self::TbfFqCodel => {
                let tbf = format!("tbf rate {line}bit burst 32kb latency 400ms");
                tc(&format!("qdisc add dev {uplink} root handle 1: {tbf}"));
                tc(&format!("qdisc add dev {uplink} parent 1:1 fq_codel"));
            }
        }
    }

    pub fn remove(self, node: &Node, pods: &[Pod]) {
        if matches!(self, Self::NodeShare | Self::Limits) {
            pods.iter().for_each(|pod| node.del(pod));
            node.boot_with("");
        }
    }
}

fn node_share(node: &Node, plan: &SharePlan, pods: &[Pod]) {
    let line = plan.line_bps;
    let mut settings =
        format!("node-share = true\nnode-egress = '{line}bit'\nnode-ingress = '{line}bit'\n");
    for (pod, sharer) in pods.iter().zip(&plan.pods) {
        if sharer.weight != 100 {
            settings += &format!(
                "[[settings.sluice.bandwidth.class]]\nname = '{0}'\nnamespaces = ['*']\n\
                 pods = ['{0}']\nweight = {1}\n",
                pod.name, sharer.weight
            );
        }
    }
    node.boot_with(&settings);
    for (number, pod) in pods.iter().enumerate() {
        let limit = plan.pods.get(number).map_or(0, |sharer| sharer.limit_bps);
        node.add(pod, Annotations { egress: limit, ingress: limit });
    }
    wait_for("node share", Duration::from_secs(60), || {
        let output = node.sluice(&["status", "--json", "--interval", "1"]);
        let status = json(&String::from_utf8_lossy(&output.stdout));
        let has_limits = |pod: &&serde_json::Value| {
            ["egress", "ingress"].iter().all(|way| pod[way]["limit_bps"].is_u64())
        };
        let ready = status["pods"].as_array().into_iter().flatten().filter(has_limits).count();
        (ready == pods.len()).then_some(())
    });
}

/// A class and a queue for each pod.
fn htb(line: u64, pods: &[Pod], uplink: &str) {
    let part = line / pods.len() as u64;
    tc(&format!("qdisc add dev {uplink} root handle 1: htb"));
    tc(&format!("class add dev {uplink} parent 1: classid 1:1 htb rate {line}bit ceil {line}bit"));
    for pod in pods {
        let number = pod.address.octets()[3];
        let (class, source) = (format!("1:{number:x}"), pod.address);
        let rates = format!("rate {part}bit ceil {line}bit");
        tc(&format!("class add dev {uplink} parent 1:1 classid {class} htb {rates}"));
        tc(&format!("qdisc add dev {uplink} parent {class} fq_codel"));
        let filter = format!("protocol ip u32 match ip src {source}/32 flowid {class}");
        tc(&format!("filter add dev {uplink} parent 1: {filter}"));
    }
}
