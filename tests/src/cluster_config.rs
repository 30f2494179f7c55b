// SPDX-License-Identifier: Apache-2.0
//! `sluice cluster-config` on a machine that is no node, and what its outputs
//! mean to those who read them: a shell, JSON, YAML, Terraform, carriers of
//! user data.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output};

use base64::prelude::{BASE64_STANDARD, Engine};
use hcl::eval::{Context, FuncArgs, FuncDef, ParamType};
use serde_json::Value;

use crate::command::{executable, json, run, text};

/// As EKS describes one.
pub const CLUSTER: &str = r#"{"cluster": {"name": "prod", "arn": "arn:aws:eks:eu-central-1:1:cluster/prod",
    "endpoint": "https://ENDPOINT", "certificateAuthority": {"data": "Q0E="},
    "kubernetesNetworkConfig": {"serviceIpv4Cidr": "10.100.0.0/16"}}}"#;

/// Variables of aws-node.
pub type Env = BTreeMap<String, String>;

/// An empty root directory, and user data beside it.
pub struct Desk(tempfile::TempDir);

impl Desk {
    pub fn with(user_data: &str) -> Self {
        let desk = Self(tempfile::tempdir().expect("make a directory"));
        fs::create_dir(desk.0.path().join("root")).expect("make a root directory");
        desk.put("user-data", user_data.as_bytes());
        desk
    }

    pub fn put(&self, name: &str, content: &[u8]) -> PathBuf {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().expect("a directory")).expect("make a directory");
        fs::write(&path, content).expect("write a file");
        path
    }

    pub fn file(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    pub fn command(&self) -> Command {
        let mut command = Command::new(executable("sluice"));
        command.arg("--root").arg(self.0.path().join("root"));
        command
    }

    /// `sluice cluster-config` for the user data, with arguments split at spaces, and with what a format
    /// needs beside the settings.
    pub fn try_config(&self, arguments: &str) -> Output {
        let mut command = self.command();
        let cluster = self.put("cluster.json", CLUSTER.as_bytes());
        command.arg("cluster-config").args(arguments.split_whitespace());
        command.arg("--user-data").arg(self.file("user-data"));
        command.arg("--cluster").arg(cluster);
        command.args(["--image-id", "ami-0123", "--launch-template-id", "lt-0123"]);
        command.output().expect("run sluice")
    }

    pub fn config(&self, arguments: &str) -> String {
        let output = self.try_config(arguments);
        assert!(output.status.success(), "cluster-config {arguments}\n{}", text(&output));
        String::from_utf8(output.stdout).expect("UTF-8")
    }

    /// The settings that user data gives, as the agent itself reads them.
    pub fn settings_of(&self, user_data: &str) -> Value {
        let file = self.put("decoded", user_data.as_bytes());
        let mut command = self.command();
        command.args(["settings", "show", "--json", "--user-data"]).arg(file);
        let output = command.output().expect("run sluice");
        assert!(output.status.success(), "{user_data}\n{}", text(&output));
        json(&String::from_utf8_lossy(&output.stdout))
    }
}

/// The arguments that a shell gives kubectl, command by command.
pub fn kubectl_calls(script: &str) -> Vec<Vec<String>> {
    let stub = "kubectl() { printf '%s\\n' \"$@\" --; }\n";
    let said = run("sh", &["-euc", &format!("{stub}{script}")]);
    let mut calls = vec![Vec::new()];
    for line in said.lines() {
        match line {
            "--" => calls.push(Vec::new()),
            word => calls.last_mut().expect("a call").push(word.to_owned()),
        }
    }
    assert_eq!(calls.pop(), Some(Vec::new()), "{said}");
    calls
}

/// NAME=VALUE of `kubectl set env`.
pub fn set_by_kubectl(script: &str) -> Env {
    let calls = kubectl_calls(script);
    let [call] = &calls[..] else { panic!("not one call: {calls:?}") };
    let (target, pairs) = call.split_at(8);
    let wanted = ["set", "env", "daemonset", "aws-node", "-n", "kube-system", "-c", "aws-node"];
    assert_eq!(target, wanted);
    let pair = |pair: &String| {
        let (name, value) = pair.split_once('=').unwrap_or_else(|| panic!("{pair:?}"));
        (name.to_owned(), value.to_owned())
    };
    pairs.iter().map(pair).collect()
}

/// `env` of an add-on's configuration values, which are text all.
pub fn env(values: &Value) -> Env {
    let env = values["env"].as_object().unwrap_or_else(|| panic!("no env in {values}"));
    let text =
        |value: &Value| value.as_str().unwrap_or_else(|| panic!("{value} is no text")).into();
    env.iter().map(|(name, value)| (name.clone(), text(value))).collect()
}

pub fn yaml(text: &str) -> Value {
    serde_saphyr::from_str(text).unwrap_or_else(|e| panic!("{e} in\n{text}"))
}

/// Terraform's resources, with all expressions evaluated: `[type][name]`.
pub fn terraform(text: &str) -> Value {
    let mut context = Context::new();
    context.declare_var("var", hcl::value!({ cluster_name = "prod", image_id = "ami-0123" }));
    // As CLUSTER, whatever the family.
    let data = hcl::value!({ aws_eks_cluster = { sluice = {
        endpoint = "https://ENDPOINT",
        certificate_authority = [{ data = "Q0E=" }],
        kubernetes_network_config = [
            { service_ipv4_cidr = "10.100.0.0/16", service_ipv6_cidr = "10.100.0.0/16" },
        ],
    } } });
    context.declare_var("data", data);
    let one = |function: fn(FuncArgs) -> Result<hcl::Value, String>| {
        FuncDef::builder().param(ParamType::Any).build(function)
    };
    context.declare_func("jsonencode", one(jsonencode));
    context.declare_func("base64encode", one(base64encode));
    let value: Value =
        hcl::eval::from_str(text, &context).unwrap_or_else(|e| panic!("{e} in\n{text}"));
    value["resource"].clone()
}

fn jsonencode(arguments: FuncArgs) -> Result<hcl::Value, String> {
    serde_json::to_string(&arguments[0]).map(Into::into).map_err(|e| e.to_string())
}

fn base64encode(arguments: FuncArgs) -> Result<hcl::Value, String> {
    let text = arguments[0].as_str().ok_or("base64encode of what is no text")?;
    Ok(BASE64_STANDARD.encode(text).into())
}

pub fn from_base64(value: &Value) -> String {
    let text = value.as_str().unwrap_or_else(|| panic!("{value} is no text"));
    let bytes = BASE64_STANDARD.decode(text).expect("base64");
    String::from_utf8(bytes).expect("UTF-8")
}
