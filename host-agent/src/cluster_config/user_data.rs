// SPDX-License-Identifier: Apache-2.0
//! User data with the settings in it, as the node's operating system needs it.

use clap::ValueEnum;

use super::ClusterNeeds;

/// More EC2 does not take.
const MOST_BYTES: usize = 16 * 1024;

/// What the image is built upon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum Os {
    /// Amazon Linux 2023: a MIME part beside nodeadm's
    Al2023,
    /// TOML, beside Bottlerocket's own settings
    Bottlerocket,
}

impl Os {
    /// As Karpenter calls it.
    pub fn ami_family(self) -> &'static str {
        match self {
            Self::Al2023 => "AL2023",
            Self::Bottlerocket => "Bottlerocket",
        }
    }
}

/// The text, before any base64.
pub fn text(wanted: &ClusterNeeds, os: Os) -> String {
    let document = &wanted.document;
    match os {
        // Lines of the document begin with a key or a bracket, so none is a boundary.
        Os::Al2023 => format!(
            "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=\"SLUICE\"\n\n--SLUICE\n\
             Content-Type: application/toml\n\n{document}--SLUICE--\n"
        ),
        Os::Bottlerocket => match wanted.pods_setting {
            // Bottlerocket itself writes kubelet's configuration, and reserves memory by this number.
            Some(pods) => format!("{document}\n[settings.kubernetes]\nmax-pods = {pods}\n"),
            None => document.clone(),
        },
    }
}

/// What is wrong with it, if anything.
pub fn too_long(text: &str) -> Option<String> {
    (text.len() > MOST_BYTES).then(|| {
        let found = text.len();
        format!("the user data has {found} bytes, and EC2 takes {MOST_BYTES}: gzip it, which Sluice reads")
    })
}
