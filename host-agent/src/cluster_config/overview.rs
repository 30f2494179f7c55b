// SPDX-License-Identifier: Apache-2.0
//! All of it on one screen, for people.

use super::{ClusterNeeds, HOP_LIMIT, Network, Prefixes, SetBy, Variable, wrapped};

pub fn text(wanted: &ClusterNeeds) -> String {
    let network = match &wanted.network {
        Network::AwsNode(variables) => table(variables),
        Network::Standalone(prefixes) => standalone(*prefixes),
    };
    let pods = match &wanted.pods {
        Some(pods) => format!("{} on each node ({})", pods.count, pods.from),
        None => "each node's own number, by its instance type".into(),
    };
    let notes = wanted.notes.iter().map(|note| "\n".to_owned() + &wrapped("  ", note));
    let notes = notes.collect::<String>();
    format!(
        "{network}\n\
         IMDS of nodes    HttpTokens required, HttpPutResponseHopLimit {HOP_LIMIT}\n\
         pods             {pods}\n{notes}\n\
         Ready to paste: cluster-config env, addon, terraform, launch-template, karpenter, eksctl\n"
    )
}

fn table(variables: &[Variable]) -> String {
    let width = |text: fn(&Variable) -> usize| variables.iter().map(text).max().unwrap_or(0);
    let (name_width, value_width) = (width(|v| v.name.len()), width(|v| v.value.len()));
    let variables = variables.iter().filter(|variable| variable.set_by != SetBy::NotSet);
    let line = |Variable { name, value, from, .. }: &Variable| {
        format!("  {name:name_width$}  {value:value_width$}  {from}\n")
    };
    let lines = variables.map(line).collect::<String>();
    format!("aws-node (DaemonSet in kube-system)\n{lines}")
}

fn standalone(prefixes: Prefixes) -> String {
    let count = match prefixes {
        Prefixes::Ipv6 => "one IPv6 prefix".into(),
        Prefixes::Ipv4(Some(1)) => "one IPv4 prefix".into(),
        Prefixes::Ipv4(Some(count)) => format!("{count} IPv4 prefixes"),
        Prefixes::Ipv4(None) => "IPv4 prefixes, how many depends on the instance type".into(),
    };
    format!("aws-node         not on these nodes\nfirst interface  {count}\n")
}
