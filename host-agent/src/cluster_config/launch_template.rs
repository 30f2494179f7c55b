// SPDX-License-Identifier: Apache-2.0
//! What `aws ec2 create-launch-template --launch-template-data` takes.

use base64::prelude::{BASE64_STANDARD, Engine};
use serde_json::{Value, json};

use super::cluster::Cluster;
use super::user_data::{self, Os};
use super::{ClusterNeeds, Error, HOP_LIMIT, Network, Prefixes};

/// What a network interface in a launch template means for the rest of it.
pub const SECURITY_GROUPS: &str = "A launch template with a network interface has its security \
     groups there, and nowhere else.";

/// With a line end; JSON has no comments.
pub fn text(
    wanted: &ClusterNeeds,
    os: Os,
    cluster: &Cluster,
    image_id: &str,
) -> Result<String, Error> {
    let user_data = user_data::text(wanted, os, Some(cluster));
    let mut data = json!({
        "ImageId": image_id,
        "MetadataOptions": {
            "HttpEndpoint": "enabled",
            "HttpTokens": "required",
            "HttpPutResponseHopLimit": HOP_LIMIT,
        },
        "UserData": BASE64_STANDARD.encode(user_data),
    });
    if let Network::Standalone(prefixes) = wanted.network {
        data["NetworkInterfaces"] = json!([interface(prefixes)?]);
    }
    Ok(format!("{data:#}\n"))
}

/// What JSON has no place for.
pub fn notes(wanted: &ClusterNeeds) -> Vec<String> {
    let groups = match wanted.network {
        Network::AwsNode(_) => None,
        Network::Standalone(_) => Some(SECURITY_GROUPS.into()),
    };
    wanted.notes.iter().cloned().chain(groups).collect()
}

fn interface(prefixes: Prefixes) -> Result<Value, Error> {
    let key = match prefixes {
        Prefixes::Ipv4(_) => "Ipv4PrefixCount",
        Prefixes::Ipv6 => "Ipv6PrefixCount",
    };
    Ok(json!({ "DeviceIndex": 0, key: prefixes.count()? }))
}
