// SPDX-License-Identifier: Apache-2.0
//! Launch template and managed node group, in types that know EC2's and EKS' fields.

use std::collections::{BTreeMap, BTreeSet};

use serde::Deserialize;
use serde_json::{Value, json};
use tests::cluster_config::from_base64;

use crate::{commands, document, expect_bash, expect_limits, read};

/// The body of the part with this type, in a MIME document as simple as ours.
fn part<'a>(message: &'a str, media_type: &str) -> &'a str {
    let header = format!("--SLUICE\nContent-Type: {media_type}\n\n");
    let (_, body) = message.split_once(&header).unwrap_or_else(|| panic!("no {media_type}"));
    body.split_once("\n--SLUICE").expect("a boundary").0
}

/// What a managed node group allows of EC2's RequestLaunchTemplateData, as far as it is used here. Not allowed:
/// IamInstanceProfile, NetworkInterfaces' SubnetId, InstanceMarketOptions.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct LaunchTemplate {
    image_id: String,
    #[serde(rename = "InstanceType")]
    _instance_type: String,
    metadata_options: Value,
    block_device_mappings: Value,
    tag_specifications: Vec<TagSpecification>,
    user_data: Value,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct TagSpecification {
    resource_type: String,
    tags: Vec<Tag>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "PascalCase")]
struct Tag {
    key: String,
    value: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeConfig {
    api_version: String,
    kind: String,
    spec: NodeConfigSpec,
}

/// Nothing of kubelet's: a number of pods here would hold, and Sluice's would not.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodeConfigSpec {
    cluster: Cluster,
}

/// What nodeadm wants to know of a cluster.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Cluster {
    name: String,
    api_server_endpoint: String,
    certificate_authority: Value,
    cidr: String,
}

#[test]
fn launch_template_has_user_data_that_joins_the_node_and_gives_settings() {
    let template: LaunchTemplate =
        serde_json::from_str(&read("launch-template/launch-template.json")).expect("JSON");
    // IMDSv2 alone, and from the host alone.
    let options = json!({ "HttpEndpoint": "enabled", "HttpTokens": "required", "HttpPutResponseHopLimit": 1 });
    assert_eq!(template.metadata_options, options);
    // The root of the images, and as large as they are.
    let ebs = json!({ "VolumeType": "gp3", "VolumeSize": 20, "Encrypted": true, "DeleteOnTermination": true });
    assert_eq!(template.block_device_mappings, json!([{ "DeviceName": "/dev/xvda", "Ebs": ebs }]));
    assert!(template.image_id.starts_with("ami-"));
    for TagSpecification { resource_type, tags } in &template.tag_specifications {
        assert!(["instance", "volume", "network-interface"].contains(&resource_type.as_str()));
        assert!(tags.iter().all(|tag| !tag.key.is_empty() && !tag.value.is_empty()));
    }
    let user_data = from_base64(&template.user_data);
    assert_eq!(user_data, read("launch-template/user-data.mime"));
    expect_limits(&user_data);
    let config: NodeConfig = document(part(&user_data, "application/node.eks.aws"));
    assert_eq!((&*config.api_version, &*config.kind), ("node.eks.aws/v1alpha1", "NodeConfig"));
    let Cluster { name, api_server_endpoint, certificate_authority, cidr } = config.spec.cluster;
    assert!(!name.is_empty() && api_server_endpoint.starts_with("https://") && cidr.contains('/'));
    from_base64(&certificate_authority);
    expect_bash(&commands(&read("launch-template/README.md"), "    "));
}

/// EKS' CreateNodegroup with an image in the launch template: without what EKS refuses then (amiType, version,
/// releaseVersion, diskSize, remoteAccess), and without instanceTypes, of which the template has one.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeGroup {
    cluster_name: String,
    nodegroup_name: String,
    node_role: String,
    subnets: Vec<String>,
    launch_template: LaunchTemplateReference,
    scaling_config: ScalingConfig,
    update_config: UpdateConfig,
    #[serde(rename = "labels")]
    _labels: BTreeMap<String, String>,
    #[serde(rename = "tags")]
    _tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LaunchTemplateReference {
    name: String,
    version: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct ScalingConfig {
    min_size: u32,
    desired_size: u32,
    max_size: u32,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct UpdateConfig {
    max_unavailable: u32,
}

#[test]
fn managed_node_group_is_made_of_the_launch_template() {
    let source = read("managed-node-group/node-group.yaml");
    let group: NodeGroup = document(&source);
    assert!(group.node_role.starts_with("arn:aws:iam::"), "{}", group.node_role);
    assert!(group.subnets.len() >= 2 && group.subnets.iter().all(|id| id.starts_with("subnet-")));
    let LaunchTemplateReference { name, version } = group.launch_template;
    assert!(version.parse::<u32>().is_ok_and(|version| version > 0), "{version}");
    let made = read("launch-template/README.md");
    assert!(made.contains(&format!(" create-launch-template --launch-template-name {name} ")));
    let ScalingConfig { min_size, desired_size, max_size } = group.scaling_config;
    assert!(min_size <= desired_size && desired_size <= max_size && max_size > 0);
    assert!(group.update_config.max_unavailable > 0);
    let commands = commands(&source, "#   ");
    expect_bash(&commands);
    let commands = commands.join("\n");
    for (option, value) in [
        ("--cluster-name ", &group.cluster_name),
        ("--nodegroup-name ", &group.nodegroup_name),
        ("--launch-template name=", &name),
    ] {
        let found: BTreeSet<_> = commands
            .split(option)
            .skip(1)
            .filter_map(|rest| rest.split([' ', '\n', ',']).next())
            .collect();
        assert_eq!(found, [value.as_str()].into(), "{option}");
    }
}
