// SPDX-License-Identifier: Apache-2.0
//! What a node must know of the cluster to join it, as `aws eks
//! describe-cluster` prints it.

use serde::Deserialize;

use super::Error;

/// Fields of nodeadm's NodeConfig; in Terraform they are expressions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cluster {
    pub name: String,
    pub region: String,
    pub endpoint: String,
    pub certificate_authority: String,
    pub service_cidr: String,
}

#[derive(Deserialize)]
struct Described {
    cluster: Found,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Found {
    name: String,
    arn: String,
    endpoint: String,
    certificate_authority: Authority,
    kubernetes_network_config: NetworkConfig,
}

#[derive(Deserialize)]
struct Authority {
    data: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct NetworkConfig {
    service_ipv4_cidr: Option<String>,
    service_ipv6_cidr: Option<String>,
}

impl Cluster {
    pub fn read(json: &str) -> Result<Self, Error> {
        let no_cluster = |why: &str| Error::NoCluster(why.to_owned());
        let Described { cluster: found } =
            serde_json::from_str(json).map_err(|e| no_cluster(&e.to_string()))?;
        let region = found.arn.split(':').nth(3).filter(|region| !region.is_empty());
        let network = found.kubernetes_network_config;
        let cidr = network.service_ipv6_cidr.or(network.service_ipv4_cidr);
        let cluster = Self {
            region: region.ok_or_else(|| no_cluster("arn has no region"))?.to_owned(),
            name: found.name,
            endpoint: found.endpoint,
            certificate_authority: found.certificate_authority.data,
            service_cidr: cidr.ok_or_else(|| no_cluster("no serviceIpv4Cidr"))?,
        };
        let Self { name, region, endpoint, certificate_authority, service_cidr } = &cluster;
        let plain = |c: char| c.is_ascii_graphic() && !"\"\\$%{}".contains(c);
        for text in [name, region, endpoint, certificate_authority, service_cidr] {
            if text.is_empty() || !text.chars().all(plain) {
                return Err(no_cluster(&format!("{text:?} cannot be from EKS")));
            }
        }
        Ok(cluster)
    }
}
