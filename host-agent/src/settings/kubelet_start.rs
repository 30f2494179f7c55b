// SPDX-License-Identifier: Apache-2.0
//! Whether kubelet has started, and so read its number of pods, since the node
//! did: systemd keeps the invocation of every running unit as a link (src/core/
//! unit.c, unit_export_invocation_id). No clock is asked, so none can be wrong.

use std::fs;
use std::path::Path;

use serde::{Deserialize, Serialize};

use crate::host::paths::Paths;

const UNITS: &str = "/run/systemd/units";
const INVOCATION: &str = "/run/systemd/units/invocation:kubelet.service";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Started {
    No,
    /// In this invocation of its unit.
    As(String),
    /// systemd does not run here.
    Unknown,
}

/// The number of pods that kubelet read when it started, before another one was written.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Earlier {
    /// None where it was given none then.
    pub pods: Option<u16>,
    invocation: Option<String>,
}

impl Started {
    pub fn find(paths: &Paths) -> Self {
        match fs::read_link(paths.resolve(Path::new(INVOCATION))) {
            Ok(invocation) => Self::As(invocation.to_string_lossy().into_owned()),
            Err(_) if paths.resolve(Path::new(UNITS)).is_dir() => Self::No,
            Err(_) => Self::Unknown,
        }
    }

    /// What kubelet has is this number from now on; None where it has not started.
    pub fn earlier(&self, pods: Option<u16>) -> Option<Earlier> {
        let invocation = match self {
            Self::No => return None,
            Self::As(invocation) => Some(invocation.clone()),
            Self::Unknown => None,
        };
        Some(Earlier { pods, invocation })
    }
}

impl Earlier {
    /// Whether kubelet still has that number. nodeadm writes kubelet's configuration at boot only.
    pub fn lasts(&self, by_nodeadm: bool, started: &Started) -> bool {
        match started {
            _ if by_nodeadm => true,
            Started::No => false,
            Started::As(invocation) => self.invocation.as_ref() == Some(invocation),
            Started::Unknown => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn number_of_before_lasts_until_kubelet_restarts_or_with_nodeadm_the_node() {
        let first = Started::As("1".into());
        let earlier = first.earlier(Some(12)).unwrap();
        for (by_nodeadm, started, lasts) in [
            (false, &first, true),
            (false, &Started::As("2".into()), false),
            (false, &Started::No, false),
            (true, &Started::As("2".into()), true),
            (true, &Started::No, true),
        ] {
            assert_eq!(earlier.lasts(by_nodeadm, started), lasts, "{by_nodeadm} {started:?}");
        }
        assert_eq!(Started::No.earlier(Some(12)), None);
        assert!(Started::Unknown.earlier(None).unwrap().lasts(false, &Started::Unknown));
    }
}
