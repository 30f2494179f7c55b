// SPDX-License-Identifier: Apache-2.0
//! Where a measurement happens: pods and a remote machine, new for each one, so
//! that nothing is remembered from the one before (TCP metrics, qdiscs, slots).

use std::net::IpAddr;
use std::path::PathBuf;

use tests::command::ip;
use tests::flows::End;
use tests::ipv6::add_ipv6;
use tests::node::{Node, Pod};

pub const USUAL_MTU: u32 = 1500;
/// EKS' own beside it.
pub const MTUS: [u32; 2] = [USUAL_MTU, 9001];

/// One end of traffic and its addresses.
pub struct Host {
    pub pod: Pod,
    netns: PathBuf,
    v6: IpAddr,
}

impl Host {
    fn make(node: &Node, name: &str, number: u8, mtu: u32) -> Self {
        let pod = node.pod(name, number);
        pod.set_mtu(mtu);
        let v6 = add_ipv6(&pod).into();
        Self { netns: pod.netns(), v6, pod }
    }

    pub fn v4(&self) -> End<'_> {
        End { netns: &self.netns, address: self.pod.address.into() }
    }

    pub fn v6(&self) -> End<'_> {
        End { netns: &self.netns, address: self.v6 }
    }

    /// At once; a namespace by itself goes some time after its name.
    pub fn remove(&self) {
        ip(&format!("link del {}", self.pod.host_ifname));
        self.pod.delete();
    }
}

/// A pod, and a machine behind an uplink.
pub struct Site<'a> {
    pub node: &'a Node,
    pub pod: Host,
    pub remote: Host,
}

impl<'a> Site<'a> {
    pub fn make(node: &'a Node, mtu: u32) -> Self {
        let [pod, remote] =
            [("pod", 2), ("remote", 9)].map(|(name, number)| Host::make(node, name, number, mtu));
        Self { node, pod, remote }
    }
}

impl Drop for Site<'_> {
    fn drop(&mut self) {
        self.pod.remove();
        self.remote.remove();
    }
}
