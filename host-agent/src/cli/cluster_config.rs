// SPDX-License-Identifier: Apache-2.0
//! `sluice cluster-config`: what the cluster's side must have to match the
//! settings, as one screen or ready to paste. Needs no node and no root.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, ValueEnum};

use super::output::{print, show};
use super::settings;
use crate::addresses::instance::Instance;
use crate::cluster_config::check::AwsNode;
use crate::cluster_config::cluster::Cluster;
use crate::cluster_config::user_data::{self, Os};
use crate::cluster_config::{
    ClusterNeeds, Error, addon, eksctl, env, karpenter, launch_template, overview, terraform,
};
use crate::host::paths::Paths;
use crate::settings::layers::merge;

#[derive(Args)]
pub struct ClusterConfig {
    /// What to print, ready to paste; all on one screen if not given
    #[arg(value_enum)]
    format: Option<Format>,
    /// User data with the settings, instead of those in force on this node; `-` is standard input
    #[arg(long, value_name = "FILE")]
    user_data: Option<PathBuf>,
    /// The instance type of all these nodes, which fixes their number of pods
    #[arg(long, value_name = "TYPE")]
    instance_type: Option<String>,
    /// What the node's image is built upon: the form of its user data
    #[arg(long, value_enum, default_value_t = Os::Al2023)]
    os: Os,
    /// The cluster's name, for karpenter
    #[arg(long, value_name = "NAME", default_value = "CLUSTER", value_parser = cluster_name)]
    cluster_name: String,
    /// The cluster, as `aws eks describe-cluster --name NAME` prints it: what nodes need to join it, for
    /// launch-template and eksctl
    #[arg(long, value_name = "FILE")]
    cluster: Option<PathBuf>,
    /// The image with Sluice in it, for launch-template; in terraform it is var.image_id
    #[arg(long, value_name = "AMI", value_parser = id)]
    image_id: Option<String>,
    /// A launch template made of `launch-template`, for eksctl
    #[arg(long, value_name = "ID", value_parser = id)]
    launch_template_id: Option<String>,
    /// Compare a running aws-node: the DaemonSet as JSON, or the add-on's configuration values.
    /// Prints each difference; exit status 1 if there is one
    #[arg(long, value_name = "FILE", conflicts_with = "format")]
    check: Option<PathBuf>,
}

#[derive(Clone, Copy, ValueEnum)]
enum Format {
    /// kubectl commands that change the aws-node DaemonSet
    Env,
    /// Configuration values of the EKS add-on vpc-cni, JSON
    Addon,
    /// Add-on and launch template for Terraform, HCL
    Terraform,
    /// What `aws ec2 create-launch-template --launch-template-data` takes, JSON
    LaunchTemplate,
    /// An EC2NodeClass, YAML
    Karpenter,
    /// A ClusterConfig, YAML
    Eksctl,
}

/// Gives the exit status.
pub fn run(paths: &Paths, asked: &ClusterConfig) -> Result<u8> {
    let found = settings::documents(paths, asked.user_data.as_deref());
    let effective = merge(&found.context("find the settings (--user-data names a file)")?)?;
    effective.warnings.iter().for_each(|warning| log::warn!("{warning}"));
    let wanted = ClusterNeeds::new(&effective, instance(asked)?.as_ref());
    if let Some(file) = &asked.check {
        return check(file, &wanted);
    }
    let text = text(asked, &wanted)?;
    tell(asked, &wanted);
    match asked.format {
        Some(_) => print(&text)?,
        None => show(&text)?,
    }
    Ok(0)
}

fn instance(asked: &ClusterConfig) -> Result<Option<Instance>> {
    let Some(name) = &asked.instance_type else { return Ok(None) };
    let types = || {
        let types = Instance::all().count();
        format!("instance type {name:?} is not in this program's table of {types}")
    };
    Ok(Some(Instance::find(name).with_context(types)?))
}

fn text(asked: &ClusterConfig, wanted: &ClusterNeeds) -> Result<String> {
    let ClusterConfig { format, os, cluster_name, .. } = asked;
    let os = *os;
    Ok(match format {
        None => overview::text(wanted),
        Some(Format::Env) => env::text(wanted),
        Some(Format::Addon) => addon::text(wanted),
        Some(Format::Terraform) => terraform::text(wanted, os)?,
        Some(Format::LaunchTemplate) => {
            let image_id = given("--image-id", asked.image_id.as_ref());
            let (cluster, image_id) = both(cluster(asked), image_id)?;
            launch_template::text(wanted, os, &cluster, image_id)?
        }
        Some(Format::Karpenter) => karpenter::text(wanted, cluster_name, os)?,
        Some(Format::Eksctl) => {
            let id = given("--launch-template-id", asked.launch_template_id.as_ref());
            let (cluster, id) = both(cluster(asked), id)?;
            eksctl::text(wanted, &cluster, id)
        }
    })
}

fn cluster(asked: &ClusterConfig) -> Result<Cluster> {
    let file = given("--cluster", asked.cluster.as_ref())?;
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("read {name}"))?;
    Cluster::read(&text).with_context(|| format!("read {name}"))
}

/// What is not in the settings, and a format is not complete without.
fn given<'o, T>(option: &str, value: Option<&'o T>) -> Result<&'o T> {
    value.ok_or_else(|| Error::Missing(option.into()).into())
}

/// Both, or all that is missing.
fn both<A, B>(a: Result<A>, b: Result<B>) -> Result<(A, B)> {
    match (a, b) {
        (Err(a), Err(b)) => match (a.downcast_ref(), b.downcast_ref()) {
            (Some(Error::Missing(a)), Some(Error::Missing(b))) => {
                Err(Error::Missing(format!("{a} and {b}")).into())
            }
            _ => Err(a),
        },
        (a, b) => Ok((a?, b?)),
    }
}

fn check(file: &Path, wanted: &ClusterNeeds) -> Result<u8> {
    let name = file.display();
    let text = fs::read_to_string(file).with_context(|| format!("read {name}"))?;
    let json = serde_json::from_str(&text).with_context(|| format!("read {name} as JSON"))?;
    let found = AwsNode::read(&json).with_context(|| format!("read {name}"))?;
    let differences = found.differences(wanted);
    let lines = differences.iter().map(|line| format!("{name}: {line}\n"));
    print(&match differences.is_empty() {
        true => format!("{name}: no differences\n"),
        false => lines.collect::<String>(),
    })?;
    Ok(u8::from(!differences.is_empty()))
}

/// What JSON has no place for, and what EC2 would refuse.
fn tell(asked: &ClusterConfig, wanted: &ClusterNeeds) {
    let notes = match asked.format {
        Some(Format::Addon) => wanted.notes.clone(),
        Some(Format::LaunchTemplate) => launch_template::notes(wanted),
        _ => Vec::new(),
    };
    notes.iter().for_each(|note| log::info!("{note}"));
    if let (Some(Format::Karpenter), Some(why)) = (asked.format, karpenter::warning(wanted)) {
        log::warn!("{why}");
    }
    if let Some(why) = user_data::too_long(&user_data::text(wanted, asked.os, None)) {
        log::warn!("{why}");
    }
}

/// `ami-0123456789abcdef0`
fn id(text: &str) -> Result<String, String> {
    let plain = text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-');
    match plain && text.contains('-') {
        true => Ok(text.into()),
        false => Err("use an ID of EC2, like ami-0123456789abcdef0".into()),
    }
}

/// As EKS allows it, which is plain enough for YAML.
fn cluster_name(text: &str) -> Result<String, String> {
    let first = text.starts_with(|c: char| c.is_ascii_alphanumeric());
    let others = text.chars().all(|c| c.is_ascii_alphanumeric() || "-_".contains(c));
    match first && others && text.len() <= 100 {
        true => Ok(text.into()),
        false => Err("use a letter or digit, then letters, digits, - and _, up to 100".into()),
    }
}
