// SPDX-License-Identifier: Apache-2.0
//! A client of the Kubernetes container runtime interface, v1, on a unix socket.
//!
//! Owns the messages (only the fields used here; tags from cri-api's api.proto) and the calls. Each
//! call connects again, so a restarted runtime needs no care. It never starts or stops a runtime,
//! and never retries.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use tonic::client::Grpc;
use tonic::codegen::http::uri::PathAndQuery;
use tonic::transport::Endpoint;
use tonic_prost::ProstCodec;

/// Longer than any plugin in these tests takes, shorter than a patient person.
const CALL_LIMIT: Duration = Duration::from_secs(60);

#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxConfig {
    #[prost(message, optional, tag = "1")]
    pub metadata: Option<PodSandboxMetadata>,
    #[prost(string, tag = "2")]
    pub hostname: String,
    #[prost(string, tag = "3")]
    pub log_directory: String,
    #[prost(map = "string, string", tag = "6")]
    pub labels: HashMap<String, String>,
    #[prost(map = "string, string", tag = "7")]
    pub annotations: HashMap<String, String>,
    #[prost(message, optional, tag = "8")]
    pub linux: Option<LinuxPodSandboxConfig>,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct PodSandboxMetadata {
    #[prost(string, tag = "1")]
    pub name: String,
    #[prost(string, tag = "2")]
    pub uid: String,
    #[prost(string, tag = "3")]
    pub namespace: String,
    #[prost(uint32, tag = "4")]
    pub attempt: u32,
}

#[derive(Clone, PartialEq, prost::Message)]
pub struct LinuxPodSandboxConfig {
    #[prost(string, tag = "1")]
    pub cgroup_parent: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RunPodSandboxRequest {
    #[prost(message, optional, tag = "1")]
    config: Option<PodSandboxConfig>,
    #[prost(string, tag = "2")]
    runtime_handler: String,
}

/// The answer of Run, and the request of Stop and Remove.
#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxId {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxStatusRequest {
    #[prost(string, tag = "1")]
    pod_sandbox_id: String,
    #[prost(bool, tag = "2")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxStatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<PodSandboxStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxStatus {
    #[prost(message, optional, tag = "5")]
    network: Option<PodSandboxNetworkStatus>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandboxNetworkStatus {
    #[prost(string, tag = "1")]
    ip: String,
}

/// Without a filter: all of them.
#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxRequest {}

#[derive(Clone, PartialEq, prost::Message)]
struct ListPodSandboxResponse {
    #[prost(message, repeated, tag = "1")]
    items: Vec<PodSandbox>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct PodSandbox {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(message, optional, tag = "2")]
    metadata: Option<PodSandboxMetadata>,
    /// 0 is SANDBOX_READY, 1 SANDBOX_NOTREADY.
    #[prost(int32, tag = "3")]
    state: i32,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusRequest {
    #[prost(bool, tag = "1")]
    verbose: bool,
}

#[derive(Clone, PartialEq, prost::Message)]
struct StatusResponse {
    #[prost(message, optional, tag = "1")]
    status: Option<RuntimeStatus>,
    #[prost(map = "string, string", tag = "2")]
    info: HashMap<String, String>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeStatus {
    #[prost(message, repeated, tag = "1")]
    conditions: Vec<RuntimeCondition>,
}

#[derive(Clone, PartialEq, prost::Message)]
struct RuntimeCondition {
    #[prost(string, tag = "1")]
    kind: String,
    #[prost(bool, tag = "2")]
    status: bool,
    #[prost(string, tag = "3")]
    reason: String,
    #[prost(string, tag = "4")]
    message: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Version {
    #[prost(string, tag = "3")]
    runtime_version: String,
}

#[derive(Clone, PartialEq, prost::Message)]
struct Empty {}

/// What PodSandboxStatus tells: the address, and the runtime's verbose JSON.
pub struct SandboxStatus {
    pub ip: String,
    pub info: serde_json::Value,
}

/// A line of the runtime's list of pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sandbox {
    pub id: String,
    pub name: String,
    pub ready: bool,
}

/// What the runtime thinks of its network.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkStatus {
    pub ready: bool,
    pub reason: String,
    pub message: String,
    /// "OK", or why the last read of the conflist directory was refused.
    pub last_cni_load: String,
    /// The networks loaded, as JSON text; contains each conflist's text under "Source".
    pub cni_config: String,
}

impl NetworkStatus {
    /// Whether a network was loaded from a conflist with just this text.
    pub fn has_loaded(&self, conflist: &str) -> bool {
        let loaded = serde_json::from_str(&self.cni_config).unwrap_or(serde_json::Value::Null);
        let networks = loaded["Networks"].as_array();
        networks.is_some_and(|all| all.iter().any(|one| one["Config"]["Source"] == conflist))
    }
}

/// Calls one runtime; usable from several threads at once.
pub struct Cri {
    runtime: tokio::runtime::Runtime,
    socket: PathBuf,
}

impl Cri {
    pub fn new(socket: &Path) -> Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start a tokio runtime")?;
        Ok(Self { runtime, socket: socket.to_owned() })
    }

    pub fn version(&self) -> Result<String> {
        let answer: Version = self.call("Version", Empty {})?;
        Ok(answer.runtime_version)
    }

    pub fn status(&self) -> Result<NetworkStatus> {
        let answer: StatusResponse = self.call("Status", StatusRequest { verbose: true })?;
        let network = answer
            .status
            .into_iter()
            .flat_map(|status| status.conditions)
            .find(|condition| condition.kind == "NetworkReady")
            .context("read the runtime's status: no condition NetworkReady")?;
        let info = |key: &str| answer.info.get(key).cloned().unwrap_or_default();
        Ok(NetworkStatus {
            ready: network.status,
            reason: network.reason,
            message: network.message,
            last_cni_load: info("lastCNILoadStatus"),
            cni_config: info("cniconfig"),
        })
    }

    /// An empty handler is the runtime's own choice.
    pub fn run_pod_sandbox(&self, config: PodSandboxConfig, handler: &str) -> Result<String> {
        let runtime_handler = handler.to_owned();
        let request = RunPodSandboxRequest { config: Some(config), runtime_handler };
        let answer: PodSandboxId = self.call("RunPodSandbox", request)?;
        Ok(answer.pod_sandbox_id)
    }

    pub fn pod_sandbox_status(&self, id: &str) -> Result<SandboxStatus> {
        let request = PodSandboxStatusRequest { pod_sandbox_id: id.to_owned(), verbose: true };
        let answer: PodSandboxStatusResponse = self.call("PodSandboxStatus", request)?;
        let info = answer.info.get("info").context("read a pod's status: no verbose info")?;
        let network = answer.status.and_then(|status| status.network);
        Ok(SandboxStatus {
            ip: network.map(|network| network.ip).unwrap_or_default(),
            info: serde_json::from_str(info).context("read a pod's verbose info as JSON")?,
        })
    }

    pub fn list_pod_sandboxes(&self) -> Result<Vec<Sandbox>> {
        let answer: ListPodSandboxResponse =
            self.call("ListPodSandbox", ListPodSandboxRequest {})?;
        let sandbox = |item: PodSandbox| {
            let name = item.metadata.unwrap_or_default().name;
            Sandbox { id: item.id, name, ready: item.state == 0 }
        };
        Ok(answer.items.into_iter().map(sandbox).collect())
    }

    pub fn stop_pod_sandbox(&self, id: &str) -> Result<()> {
        let Empty {} =
            self.call("StopPodSandbox", PodSandboxId { pod_sandbox_id: id.to_owned() })?;
        Ok(())
    }

    pub fn remove_pod_sandbox(&self, id: &str) -> Result<()> {
        let Empty {} =
            self.call("RemovePodSandbox", PodSandboxId { pod_sandbox_id: id.to_owned() })?;
        Ok(())
    }

    fn call<Q, A>(&self, method: &'static str, request: Q) -> Result<A>
    where
        Q: prost::Message + Send + Sync + 'static,
        A: prost::Message + Default + Send + Sync + 'static,
    {
        self.runtime.block_on(async {
            tokio::time::timeout(CALL_LIMIT, unary(&self.socket, method, request))
                .await
                .with_context(|| format!("call {method}: no answer in {CALL_LIMIT:?}"))?
        })
    }
}

async fn unary<Q, A>(socket: &Path, method: &str, request: Q) -> Result<A>
where
    Q: prost::Message + Send + Sync + 'static,
    A: prost::Message + Default + Send + Sync + 'static,
{
    let endpoint = Endpoint::from_shared(format!("unix://{}", socket.display()))?;
    let channel = endpoint.connect().await.context("connect to the runtime's socket")?;
    let mut client = Grpc::new(channel);
    client.ready().await.context("wait for the runtime's connection")?;
    let path = PathAndQuery::try_from(format!("/runtime.v1.RuntimeService/{method}"))?;
    // The runtime's own words only: tests compare them.
    let refusal = |status: tonic::Status| anyhow!("{:?}: {}", status.code(), status.message());
    let request = tonic::Request::new(request);
    let answer = client.unary(request, path, ProstCodec::<Q, A>::default()).await;
    Ok(answer.map_err(refusal)?.into_inner())
}
