// SPDX-License-Identifier: Apache-2.0
//! GC: takes away what is left of attachments that the runtime no longer knows.
//! The spec allows no ADD or DEL under way meanwhile; each container is held all
//! the same, because an orphaned ADD asks no runtime.

use std::collections::BTreeSet;

use bpf::Pins;
use serde::{Deserialize, Deserializer};

use super::error::{CniCode, Error};
use super::interface::{complain, lock_error, take_off};
use crate::host::paths::Paths;
use crate::pod::record::{Claim, Key, Record, Records, VERBS_WAIT};

/// The attachments to one network that are to stay.
#[derive(Debug)]
pub struct Valid {
    network: String,
    attachments: BTreeSet<Key>,
}

#[derive(Deserialize)]
struct GcConfig {
    name: Option<String>,
    #[serde(default, rename = "cni.dev/valid-attachments", deserialize_with = "listed")]
    valid: Option<Vec<Attachment>>,
    /// What libcni 1.2.0 to 1.2.2 called the same; newer ones send both.
    #[serde(default, rename = "cni.dev/attachments", deserialize_with = "listed")]
    formerly: Option<Vec<Attachment>>,
}

#[derive(Deserialize)]
struct Attachment {
    #[serde(rename = "containerID")]
    container_id: String,
    ifname: String,
}

/// A null is how libcni, in Go, writes a list without entries.
fn listed<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<Attachment>>, D::Error> {
    Option::deserialize(from).map(Option::unwrap_or_default).map(Some)
}

impl Valid {
    /// The spec has the runtime give the list, and says that a plugin *may* remove what is not in it.
    /// Without the key nothing is known to be stale: that is reported as an error, and removes nothing.
    /// An empty list is a list: then nothing of this network is valid.
    pub fn decode(stdin: &str) -> Result<Self, Error> {
        let config: GcConfig = serde_json::from_str(stdin)
            .map_err(|e| anyhow::Error::from(e).context("decode the network configuration"))
            .map_err(Error::with(CniCode::Decode))?;
        let missing = |key: &str| {
            let text = format!("{key} is missing, so nothing is known to be stale or was removed");
            Error::new(CniCode::InvalidConfig, text)
        };
        let network = config.name.filter(|name| !name.is_empty()).ok_or_else(|| missing("name"))?;
        let attachments = config.valid.or(config.formerly);
        let attachments = attachments.ok_or_else(|| missing("cni.dev/valid-attachments"))?;
        let key = |a: Attachment| Key { container_id: a.container_id, ifname: a.ifname };
        Ok(Self { network, attachments: attachments.into_iter().map(key).collect() })
    }

    /// The runtime names the interfaces that it asked for, not those that came along, and of one
    /// network: another one's are another GC's affair.
    fn keeps(&self, key: &Key, record: &Record) -> bool {
        let ifname = record.main.clone().unwrap_or_else(|| key.ifname.clone());
        let main = Key { container_id: key.container_id.clone(), ifname };
        record.network.as_ref() != Some(&self.network) || self.attachments.contains(&main)
    }
}

/// Goes on after a failure, and reports all that was left.
pub fn gc(paths: &Paths, valid: &Valid) -> Result<(), Error> {
    let records = Records::new(paths);
    if !records.is_there() {
        return Ok(());
    }
    let shared = records.share().map_err(lock_error)?;
    let pins = Pins::open(&paths.pin_dir()).ok();
    let mut left = Vec::new();
    for Stale { claim, shares_device, .. } in stale(&records, valid)? {
        let _held = records.hold(&claim.key.container_id, VERBS_WAIT).map_err(lock_error)?;
        if !claim.is_there() {
            continue;
        }
        let complaints = match shares_device {
            true => records.release(&claim).err().map(|e| format!("{e:#}")).into_iter().collect(),
            false => take_off(pins.as_ref(), &records, &claim),
        };
        let ifname = &claim.key.ifname;
        let of_container = format!("{ifname} of container {}", claim.key.container_id);
        left.extend(complaints.iter().map(|complaint| format!("{of_container}: {complaint}")));
    }
    drop(shared);
    let _seized = records.seize(VERBS_WAIT).map_err(lock_error)?;
    left.extend(records.tidy_all().err().map(|e| format!("{e:#}")));
    if left.is_empty() { Ok(()) } else { Err(Error::new(CniCode::Attach, left.join("; "))) }
}

struct Stale {
    claim: Claim,
    is_main: bool,
    /// A valid attachment has its shaper on the same device; only the record goes then.
    shares_device: bool,
}

/// Those that came along go first, so that no slot is free while it is in use.
fn stale(records: &Records, valid: &Valid) -> Result<Vec<Stale>, Error> {
    let (mut kept, mut others) = (BTreeSet::new(), Vec::new());
    for claim in records.list().map_err(Error::with(CniCode::Io))? {
        match claim.read() {
            Ok(record) if valid.keeps(&claim.key, &record) => {
                kept.extend(record.host.map(|host| host.ifindex));
            }
            Ok(record) => others.push((claim, record)),
            // Whose it is cannot be known; DEL of its container takes it away.
            Err(e) => complain(format!("{e:#}")),
        }
    }
    let stale = others.into_iter().map(|(claim, record)| Stale {
        claim,
        is_main: record.main.is_none(),
        shares_device: record.host.is_some_and(|host| kept.contains(&host.ifindex)),
    });
    let mut stale: Vec<_> = stale.collect();
    stale.sort_by_key(|stale| stale.is_main);
    Ok(stale)
}
