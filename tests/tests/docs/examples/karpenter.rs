// SPDX-License-Identifier: Apache-2.0
//! Node class and node pool, in types that know their fields.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{commands, documents, expect_bash, expect_limits, read};

/// An object of Kubernetes.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Object<S> {
    api_version: String,
    kind: String,
    metadata: Metadata,
    spec: S,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Metadata {
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct NodeClassSpec {
    ami_family: String,
    ami_selector_terms: Vec<AmiTerm>,
    role: String,
    subnet_selector_terms: Vec<TagTerm>,
    security_group_selector_terms: Vec<TagTerm>,
    metadata_options: Value,
    block_device_mappings: Value,
    user_data: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct AmiTerm {
    name: String,
    owner: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TagTerm {
    tags: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NodePoolSpec {
    template: Template,
    #[serde(rename = "disruption")]
    _disruption: Disruption,
    #[serde(rename = "limits")]
    _limits: BTreeMap<String, String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Template {
    spec: TemplateSpec,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct TemplateSpec {
    node_class_ref: NodeClassRef,
    requirements: Vec<Requirement>,
    #[serde(rename = "expireAfter")]
    _expire_after: String,
}

#[derive(Debug, Deserialize, PartialEq)]
#[serde(deny_unknown_fields)]
struct NodeClassRef {
    group: String,
    kind: String,
    name: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Requirement {
    key: String,
    operator: String,
    values: Vec<String>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
#[expect(dead_code, reason = "that they are there, and of their types, is all that is known here")]
struct Disruption {
    consolidation_policy: String,
    consolidate_after: String,
    budgets: Vec<BTreeMap<String, String>>,
}

/// The names that the template for Packer gives its images, up to the time in them.
fn names_of_packers_images() -> String {
    let template: Value = hcl::from_str(&read("packer/eks-al2023.pkr.hcl")).expect("HCL");
    let name = template["source"]["amazon-ebs"]["node"]["ami_name"].as_str().expect("a name");
    let version = &template["variable"]["kubernetes_version"]["default"];
    let name = name.replace("${var.kubernetes_version}", version.as_str().expect("a version"));
    name.split("${").next().expect("a beginning").to_owned()
}

#[test]
fn karpenter_finds_packers_images_and_leaves_the_settings_as_they_are() {
    let source = read("karpenter/node-class.yaml");
    expect_bash(&commands(&source, "#   "));
    let [class, pool] = &documents::<Value>(&source)[..] else { panic!("not two documents") };
    let class: Object<NodeClassSpec> = serde_json::from_value(class.clone()).expect("a node class");
    let pool: Object<NodePoolSpec> = serde_json::from_value(pool.clone()).expect("a node pool");
    assert_eq!(class.api_version, "karpenter.k8s.aws/v1");
    assert_eq!((&*pool.api_version, &*pool.kind), ("karpenter.sh/v1", "NodePool"));
    assert_eq!(pool.metadata.name, class.metadata.name);
    let spec = class.spec;
    // IMDSv2 alone, and from the host alone.
    let options = json!({ "httpEndpoint": "enabled", "httpTokens": "required", "httpPutResponseHopLimit": 1 });
    assert_eq!(spec.metadata_options, options);
    let ebs = json!({ "volumeType": "gp3", "volumeSize": "20Gi", "encrypted": true, "deleteOnTermination": true });
    assert_eq!(spec.block_device_mappings, json!([{ "deviceName": "/dev/xvda", "ebs": ebs }]));
    let [AmiTerm { name, owner }] = &spec.ami_selector_terms[..] else { panic!("not one term") };
    assert_eq!((name.clone(), owner.as_str()), (names_of_packers_images() + "*", "self"));
    assert!(!spec.role.is_empty());
    for terms in [spec.subnet_selector_terms, spec.security_group_selector_terms] {
        assert!(!terms.is_empty() && terms.iter().all(|term| !term.tags.is_empty()));
    }
    // Of anything but MIME Karpenter makes a NodeConfig or a script for this family.
    assert_eq!(spec.ami_family, "AL2023");
    assert!(spec.user_data.starts_with("MIME-Version: 1.0\n"), "{}", spec.user_data);
    expect_limits(&spec.user_data);
    let reference = NodeClassRef {
        group: "karpenter.k8s.aws".into(),
        kind: class.kind,
        name: class.metadata.name,
    };
    assert_eq!(reference.kind, "EC2NodeClass");
    assert_eq!(pool.spec.template.spec.node_class_ref, reference);
    let requirements = pool.spec.template.spec.requirements;
    assert!(requirements.iter().all(|one| one.operator == "In" && !one.values.is_empty()));
    let of = |key| requirements.iter().find(|one| one.key == key).map(|one| &one.values[..]);
    assert_eq!(of("kubernetes.io/arch"), Some(&["amd64", "arm64"].map(str::to_owned)[..]));
}
