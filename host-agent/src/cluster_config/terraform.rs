// SPDX-License-Identifier: Apache-2.0
//! Resources of Terraform's provider `aws`, in HCL.

use settings_model::IpFamily;

use super::cluster::Cluster;
use super::launch_template::SECURITY_GROUPS;
use super::user_data::{self, Os};
use super::{
    ClusterNeeds, Error, HOP_LIMIT, Network, Prefixes, Variable, addon, comment, commented,
    indented,
};

pub fn text(wanted: &ClusterNeeds, os: Os) -> Result<String, Error> {
    let notes = commented(&wanted.notes);
    let cluster = "data \"aws_eks_cluster\" \"sluice\" {\n  name = var.cluster_name\n}\n";
    Ok(format!("{notes}{}\n{cluster}\n{}", addon(wanted), launch_template(wanted, os)?))
}

fn addon(wanted: &ClusterNeeds) -> String {
    let values = match &wanted.network {
        Network::AwsNode(_) => {
            let lines = wanted.variables().map(line).collect::<String>();
            format!("{{\n    env = {{\n{lines}    }}\n  }}")
        }
        // JSON is HCL too; the space is what `terraform fmt` has.
        Network::Standalone(_) => {
            let values = indented(2, &format!("{:#}", addon::values(wanted)));
            values.trim().replace("\": ", "\" : ")
        }
    };
    format!(
        "resource \"aws_eks_addon\" \"vpc_cni\" {{\n  \
           cluster_name                = var.cluster_name\n  \
           addon_name                  = \"vpc-cni\"\n  \
           resolve_conflicts_on_create = \"OVERWRITE\"\n  \
           resolve_conflicts_on_update = \"OVERWRITE\"\n\n  \
           configuration_values = jsonencode({values})\n}}\n"
    )
}

fn line(Variable { name, value, from, .. }: &Variable) -> String {
    format!("      # {from}\n      {name} = \"{value}\"\n")
}

fn launch_template(wanted: &ClusterNeeds, os: Os) -> Result<String, Error> {
    let user_data = user_data::text(wanted, os, Some(&cluster(wanted.family)));
    let interface = match wanted.network {
        Network::AwsNode(_) => String::new(),
        Network::Standalone(prefixes) => interface(prefixes)?,
    };
    Ok(format!(
        "resource \"aws_launch_template\" \"sluice\" {{\n  \
           name_prefix = \"sluice-\"\n  \
           image_id    = var.image_id\n\n  \
           metadata_options {{\n    \
             http_endpoint               = \"enabled\"\n    \
             http_tokens                 = \"required\"\n    \
             http_put_response_hop_limit = {HOP_LIMIT}\n  \
           }}\n{interface}\n  \
           user_data = base64encode(<<EOT\n{user_data}EOT\n  )\n}}\n"
    ))
}

/// Terraform fills these in.
fn cluster(family: IpFamily) -> Cluster {
    let of = |field: &str| format!("${{data.aws_eks_cluster.sluice.{field}}}");
    Cluster {
        name: "${var.cluster_name}".into(),
        region: String::new(),
        endpoint: of("endpoint"),
        certificate_authority: of("certificate_authority[0].data"),
        service_cidr: of(&format!("kubernetes_network_config[0].service_{family}_cidr")),
    }
}

fn interface(prefixes: Prefixes) -> Result<String, Error> {
    let key = match prefixes {
        Prefixes::Ipv4(_) => "ipv4_prefix_count",
        Prefixes::Ipv6 => "ipv6_prefix_count",
    };
    let count = prefixes.count()?;
    let said = comment(2, SECURITY_GROUPS);
    Ok(format!(
        "\n{said}  network_interfaces {{\n    device_index      = 0\n    {key} = {count}\n  }}\n"
    ))
}
