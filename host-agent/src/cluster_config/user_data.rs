// SPDX-License-Identifier: Apache-2.0
//! User data with the settings in it, as the node's operating system needs it.

use clap::ValueEnum;

use super::ClusterNeeds;
use super::cluster::Cluster;

/// More EC2 does not take.
const MOST_BYTES: usize = 16 * 1024;

/// What the image is built upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Os {
    /// Amazon Linux 2023: a MIME part beside nodeadm's
    Al2023,
    /// TOML: a table [sluice] beside Bottlerocket's own settings, which refuse others
    Bottlerocket,
}

/// The text, before any base64; with how to join the cluster, unless something else adds that.
pub fn text(wanted: &ClusterNeeds, os: Os, cluster: Option<&Cluster>) -> String {
    match os {
        // Lines of the document begin with a key or a bracket, so none is a boundary.
        Os::Al2023 => format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"SLUICE\"\n\n{}--SLUICE\n\
             Content-Type: application/toml\n\n{}--SLUICE--\n",
            cluster.map(node_config).unwrap_or_default(),
            wanted.document
        ),
        Os::Bottlerocket => bottlerocket(wanted, cluster),
    }
}

fn node_config(cluster: &Cluster) -> String {
    let Cluster { name, endpoint, certificate_authority, service_cidr, .. } = cluster;
    format!(
        "--SLUICE\nContent-Type: application/node.eks.aws\n\napiVersion: node.eks.aws/v1alpha1\n\
         kind: NodeConfig\nspec:\n  cluster:\n    name: \"{name}\"\n    apiServerEndpoint: \"{endpoint}\"\n    \
         certificateAuthority: \"{certificate_authority}\"\n    cidr: \"{service_cidr}\"\n"
    )
}

/// Bottlerocket does not start with a setting that it does not know; a table beside its own it ignores.
fn bottlerocket(wanted: &ClusterNeeds, cluster: Option<&Cluster>) -> String {
    let header = |line: &str| match line.starts_with('[') {
        true => line.replacen("[settings.sluice", "[sluice", 1) + "\n",
        false => format!("{line}\n"),
    };
    let document: String = wanted.document.lines().map(header).collect();
    let mut own = String::new();
    if let Some(Cluster { name, endpoint, certificate_authority, .. }) = cluster {
        own += &format!(
            "cluster-name = \"{name}\"\napi-server = \"{endpoint}\"\ncluster-certificate = \
             \"{certificate_authority}\"\n"
        );
    }
    // Bottlerocket itself writes kubelet's configuration, and reserves memory by this number.
    if let Some(pods) = wanted.pods_setting {
        own += &format!("max-pods = {pods}\n");
    }
    match own.is_empty() {
        true => document,
        false => format!("{document}\n[settings.kubernetes]\n{own}"),
    }
}

/// What is wrong with it, if anything.
pub fn too_long(text: &str) -> Option<String> {
    (text.len() > MOST_BYTES).then(|| {
        let found = text.len();
        format!("the user data has {found} bytes, and EC2 takes {MOST_BYTES}: gzip it, which Sluice reads")
    })
}
