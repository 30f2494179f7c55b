// SPDX-License-Identifier: Apache-2.0
//! Where the commands about a running node have their answers from: the agent
//! if there is one, else records and maps, which root can read itself.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use nix::unistd::Uid;

use crate::api::client::Client;
use crate::host::paths::Paths;
use crate::status::Pods;
use crate::status::Status;
use crate::status::rates::measure;

pub struct Source<'a> {
    paths: &'a Paths,
    client: Client,
}

/// `NAMESPACE/POD`.
#[derive(Clone, Debug)]
pub struct PodName {
    pub namespace: String,
    pub pod: String,
}

impl std::str::FromStr for PodName {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let parts = text.split_once('/').filter(|(namespace, pod)| {
            !namespace.is_empty() && !pod.is_empty() && !pod.contains('/')
        });
        let (namespace, pod) = parts.ok_or("use NAMESPACE/POD, e.g. default/web-0")?;
        Ok(Self { namespace: namespace.into(), pod: pod.into() })
    }
}

impl<'a> Source<'a> {
    pub fn new(paths: &'a Paths) -> Self {
        Self { paths, client: Client::new(paths.socket()) }
    }

    /// Everything; for root with a look at the pods' devices, which the agent does not do for others.
    pub fn status(&self) -> Result<Status> {
        let mut status = match self.client.status()? {
            Some(status) => status,
            None => Status::read(self.paths, None).context(ROOT_OR_AGENT)?,
        };
        if Uid::effective().is_root() {
            status.look_at_devices(self.paths)?;
        }
        Ok(status)
    }

    /// The pods' counters, cheaply.
    pub fn counters(&self) -> Result<Pods> {
        match self.client.pods()? {
            Some(pods) => Ok(pods),
            None => {
                let all = Status::read(self.paths, None);
                all.map(Pods::of).context(ROOT_OR_AGENT)
            }
        }
    }

    /// Everything, with rates over this time. Without pods there is nothing to wait for.
    pub fn measured(&self, interval: Duration) -> Result<Status> {
        let before = self.counters()?;
        if !before.pods.is_empty() {
            std::thread::sleep(interval);
        }
        let mut after = self.status()?;
        measure(&before, after.at_ns, &mut after.pods);
        Ok(after)
    }

    /// What only an agent can do.
    pub fn agent<T>(&self, answer: impl FnOnce(&Client) -> Result<Option<T>>) -> Result<T> {
        match answer(&self.client)? {
            Some(answer) => Ok(answer),
            None => bail!(
                "no agent answers on {}: start it (systemctl start sluice)",
                self.paths.socket().display()
            ),
        }
    }
}

const ROOT_OR_AGENT: &str =
    "no agent runs, and without one only root can look: be root, or start the agent";
