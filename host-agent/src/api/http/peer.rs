// SPDX-License-Identifier: Apache-2.0
//! The peer at the other end of the unix socket, by what the kernel says of it.
//! Groups are read from the node's own files: a name service over the network
//! could keep the agent waiting.

use std::fs;
use std::os::unix::net::UnixStream;
use std::path::Path;

use anyhow::Result;
use caps::{CapSet, Capability};
use nix::sys::socket::getsockopt;
use nix::sys::socket::sockopt::PeerCredentials;

use crate::host::aide;
use crate::host::capability;
use crate::host::peer::Namespaces;

/// Its members may read what the agent reports.
const NAME: &str = "sluice";

/// The group as the node's files have it when the agent starts; of no members if there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    gid: Option<u32>,
    /// User numbers of those that are listed in it.
    members: Vec<u32>,
}

impl Group {
    /// From /etc/group and /etc/passwd. A file that cannot be read has no one in it.
    pub fn read(group: &Path, passwd: &Path) -> Self {
        let text = |path| fs::read_to_string(path).unwrap_or_default();
        Self::parse(&text(group), &text(passwd))
    }

    fn parse(group: &str, passwd: &str) -> Self {
        let Some(line) = group.lines().find(|line| field(line, 0) == Some(NAME)) else {
            return Self::default();
        };
        let names: Vec<&str> = field(line, 3).unwrap_or_default().split(',').collect();
        let listed =
            passwd.lines().filter(|line| field(line, 0).is_some_and(|n| names.contains(&n)));
        Self { gid: number(line), members: listed.filter_map(number).collect() }
    }

    pub fn gid(&self) -> Option<u32> {
        self.gid
    }

    fn has(&self, uid: u32, gid: u32) -> bool {
        self.gid.is_some_and(|own| own == gid || self.members.contains(&uid))
    }
}

fn field(line: &str, index: usize) -> Option<&str> {
    line.split(':').nth(index)
}

fn number(line: &str) -> Option<u32> {
    field(line, 2)?.parse().ok()
}

/// What a peer may do, and why no more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum May {
    All,
    Read(String),
    Nothing(String),
}

/// CAP_SYS_ADMIN, by its bit. A container may be given everything else of root.
const SYS_ADMIN: u64 = 1 << 21;

/// Which peer is let in.
pub struct Doorkeeper {
    group: Group,
    host: Namespaces,
}

impl Doorkeeper {
    /// While all capabilities are there: systemd is not everybody's to look at.
    pub fn new(group: Group) -> Self {
        Self { group, host: Namespaces::of_this() }
    }

    /// Root of the host everything, and members of the group to read. A peer that cannot be read is neither.
    pub fn may(&self, stream: &UnixStream) -> May {
        let Ok(peer) = getsockopt(stream, PeerCredentials) else {
            return May::Nothing("the kernel does not say who asks".into());
        };
        if peer.uid() != 0 && !self.group.has(peer.uid(), peer.gid()) {
            return May::Nothing("only root and the group sluice may ask".into());
        }
        let pid = peer.pid();
        let capabilities = match self.look(stream) {
            Ok(capabilities) => capabilities,
            Err(why) => return May::Nothing(format!("process {pid}: {why:#}")),
        };
        match (peer.uid(), capabilities & SYS_ADMIN) {
            (0, SYS_ADMIN) => May::All,
            (0, _) => May::Read(format!("process {pid} has no CAP_SYS_ADMIN")),
            (uid, _) => May::Read(format!("process {pid} is of user {uid}")),
        }
    }

    /// By ourselves where we may; the unit leaves it to the aide.
    fn look(&self, stream: &UnixStream) -> Result<u64> {
        let ptrace = Capability::CAP_SYS_PTRACE;
        match caps::has_cap(None, CapSet::Permitted, ptrace) {
            Ok(true) => capability::with(ptrace, || self.host.look(stream)),
            _ => aide::look_at(stream),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn members_are_who_has_the_group_or_is_listed_in_it() {
        let group = Group::parse(
            "root:x:0:\nsluice:x:980:ann,bob\nother:x:981:eve\n",
            "ann:x:1000:100::/:\neve:x:1001:100::/:\nann2:x:1002:100::/:\n",
        );
        assert_eq!(group, Group { gid: Some(980), members: vec![1000] });
        assert!(group.has(1000, 100) && group.has(7, 980));
        assert!(!group.has(1001, 100) && !group.has(1002, 981));
    }

    #[test]
    fn node_without_the_group_lets_in_nobody_by_it() {
        for text in ["", "sluice", "sluice:x", "sluice:x:many:ann", "sluices:x:9:ann"] {
            let group = Group::parse(text, "ann:x:1000:100::/:");
            assert!(group.gid().is_none() && !group.has(1000, 100), "{text:?}");
        }
    }
}
