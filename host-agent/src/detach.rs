// SPDX-License-Identifier: Apache-2.0
//! `sluice detach`: takes everything off the node that is ours, found by record
//! and by handle, and nothing else. Settings stay, and so does the plugin's
//! binary: pods that were made with it in their chain are deleted with it.

use anyhow::{Context, Result};
use bpf::{Direction, Pins};
use settings_model::Settings;

use crate::agent;
use crate::attach::{End, Veth};
use crate::file;
use crate::live::in_force;
use crate::netlink::{FILTER_HANDLE, Netlink, ROOT_HANDLE};
use crate::paths::Paths;
use crate::reconcile::{adopt, chain};
use crate::record::Records;
use crate::shape;
use crate::standalone;

/// What could not be taken off is told, and the rest is; the number of pod interfaces is given back.
pub fn detach(paths: &Paths) -> Result<usize> {
    let _alone = agent::lock(paths).context("detach needs the agent to be stopped")?;
    standalone::take_off(paths)?;
    remove_entry(paths)?;
    let records = Records::new(paths.pods_dir());
    let _seized = records.seize()?;
    let pins = Pins::open(&paths.pin_dir()).ok();
    let claims = records.list()?;
    let mut left = Vec::new();
    for claim in &claims {
        let netns = claim.read().map(|record| record.netns).unwrap_or_default();
        let mut veth = Veth::find(&netns, &claim.key.ifname).ok();
        left.extend(shape::remove(pins.as_ref(), claim, veth.as_mut()));
        records.release(claim)?;
    }
    left.extend(sweep_pods(paths)?);
    left.extend(sweep_host()?);
    drop(pins);
    bpf::remove_all_layouts(&paths.bpffs())?;
    if !left.is_empty() {
        anyhow::bail!("detached, but for: {}", left.join("; "));
    }
    Ok(claims.len())
}

/// First, so that no new pod comes meanwhile.
fn remove_entry(paths: &Paths) -> Result<()> {
    let settings = in_force(paths).unwrap_or_else(|_| Settings::default());
    let dir = paths.resolve(settings.cni.conf_dir.as_ref());
    let _alone = file::lock_directory(&dir)?;
    chain::take_out(&dir).map(|_| ())
}

/// Pods that no record names, as after a crash: the runtime knows them.
fn sweep_pods(paths: &Paths) -> Result<Vec<String>> {
    let mut left = Vec::new();
    for cached in adopt::read_all(&paths.result_cache())? {
        let record = cached.record();
        let Ok(mut veth) = Veth::find(&record.netns, &cached.key.ifname) else { continue };
        if !veth.has_egress_of_ours()? {
            continue;
        }
        let before = veth.pod.link.gso;
        let errors = veth.detach(Direction::Egress, before);
        left.extend(errors.iter().map(ToString::to_string));
    }
    Ok(left)
}

/// Devices of the host with a root qdisc or a filter that carries our handle.
fn sweep_host() -> Result<Vec<String>> {
    let mut netlink = Netlink::open()?;
    let roots = netlink.roots()?;
    let mut errors = Vec::new();
    for link in netlink.links()? {
        if roots.get(&link.index).is_some_and(|root| root.major == ROOT_HANDLE) {
            errors.extend(netlink.delete_root(&link).err());
        }
        // A device without clsact has no such list.
        let filters = netlink.ingress_filters(&link).unwrap_or_default();
        if filters.iter().any(|filter| filter.handle == FILTER_HANDLE) {
            let mut end = End { netlink: Netlink::open()?, link };
            errors.extend(end.netlink.delete_ingress_filter(&end.link).err());
        }
    }
    Ok(errors.iter().map(ToString::to_string).collect())
}
