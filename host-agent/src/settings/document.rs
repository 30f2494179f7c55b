// SPDX-License-Identifier: Apache-2.0
//! What settings are read from, as text: documents of ours, and beside them
//! what the same user data holds for nodeadm. Plain data.

use serde::{Deserialize, Serialize};

/// A text of settings, and how messages name it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Document {
    pub name: String,
    pub text: String,
}

/// What one source of user data holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct UserData {
    /// Our settings; None if there is nothing in it for us.
    pub document: Option<Document>,
    /// nodeadm's, a later one winning.
    pub node_configs: Vec<NodeConfig>,
}

/// A text that nodeadm reads, for what it gives kubelet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeConfig {
    /// How messages name it: `imds:user-data part 2`.
    pub name: String,
    /// Or why it cannot be had.
    pub text: Result<String, String>,
}
