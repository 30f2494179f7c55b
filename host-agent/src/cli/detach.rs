// SPDX-License-Identifier: Apache-2.0
//! `sluice detach`: removes everything from the node that is ours, found by record
//! and by handle, and nothing else. Settings stay, and so does the plugin's
//! binary unless it is asked for: pods that were made with it in their chain
//! may be deleted with it.

use std::fs;

use anyhow::{Context, Result};
use bpf::Pins;
use settings_model::{KubeletConfig, Settings};

use crate::agent;
use crate::agent::reconcile::adopt;
use crate::boot::apply::{self, apply};
use crate::boot::kubelet::Kubelet;
use crate::boot::part::Part;
use crate::host::paths::Paths;
use crate::libcni::edit::take_out;
use crate::netlink::Netlink;
use crate::pod::direction::Direction;
use crate::pod::record::{Key, Records, VERBS_WAIT};
use crate::pod::shaper;
use crate::pod::veth::{End, Veth};
use crate::settings::in_force::in_force;
use crate::standalone;

/// What could not be removed is reported, and the rest is removed; gives the number of pod interfaces.
pub fn detach(paths: &Paths) -> Result<usize> {
    let _alone = agent::lock(paths).context("detach needs the agent to be stopped")?;
    standalone::take_off(paths)?;
    remove_entry(paths)?;
    leave_kubelet(paths)?;
    let records = Records::new(paths);
    // Verbs that are under way have then ended, and no chain names us any more.
    drop(records.seize(VERBS_WAIT)?);
    let pins = Pins::open(&paths.pin_dir()).ok();
    let claims = records.list()?;
    let mut left = Vec::new();
    for claim in &claims {
        let _held = records.hold(&claim.key.container_id, VERBS_WAIT)?;
        let netns = claim.read().map(|record| record.netns).unwrap_or_default();
        let found = Veth::find(&netns, &claim.key.ifname);
        if let Err(error) = &found
            && End::in_pod(&netns, &claim.key.ifname).is_ok()
        {
            let Key { container_id, ifname } = &claim.key;
            left.push(format!(
                "{ifname} of {container_id}: {error:#}; is this the node's own network namespace?"
            ));
        }
        left.extend(shaper::remove(pins.as_ref(), claim, found.ok().as_mut()));
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

/// The copy of the plugin that `boot` made; a file of that name that never was ours stays. A runtime
/// that deletes pods by the chain they were made with, as CRI-O does, misses it.
pub fn remove_plugin(paths: &Paths) -> Result<()> {
    let booted = in_force(paths);
    let is_ours_by_name = booted.is_ok();
    let settings = booted.unwrap_or_default();
    let path = paths.resolve(settings.cni.bin_dir.as_ref()).join("sluice");
    let Ok(content) = fs::read(&path) else { return Ok(()) };
    let shipped = fs::read(paths.shipped_plugin()).ok();
    if is_ours_by_name || shipped == Some(content) {
        fs::remove_file(&path).with_context(|| format!("remove {}", path.display()))?;
    }
    Ok(())
}

/// From its next start on it takes as many pods as it would without us.
fn leave_kubelet(paths: &Paths) -> Result<()> {
    let assignment = Kubelet::probe(paths, &[])?.assign(KubeletConfig::None, 0, false)?;
    apply(
        &Part { files: assignment.files, obsolete: assignment.obsolete, ..Part::default() },
        &paths.files_lock(),
    )
    .map(|_| ())
}

/// First, so that no new pod comes meanwhile.
fn remove_entry(paths: &Paths) -> Result<()> {
    let settings = in_force(paths).unwrap_or_else(|_| Settings::default());
    let dir = paths.resolve(settings.cni.conf_dir.as_ref());
    let _alone = paths.files_lock().take(apply::PATIENCE)?;
    take_out(&dir).map(|_| ())
}

/// Pods that no record names, as after a crash: the runtime knows them.
fn sweep_pods(paths: &Paths) -> Result<Vec<String>> {
    let mut left = Vec::new();
    let found = adopt::read_all(&paths.result_cache())?;
    for cached in found.into_iter().filter_map(|file| file.cached) {
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
    let roots = netlink.roots_of_ours()?;
    let mut errors = Vec::new();
    // Only ends that lead out of this namespace can ever have been ours.
    let links =
        netlink.links()?.into_iter().filter(|link| link.is_pair() && link.peer_netns.is_some());
    for link in links {
        if roots.contains(&link.index) {
            errors.extend(netlink.delete_root(&link).err());
        }
        if netlink.ingress_filter(&link)?.is_some() {
            errors.extend(netlink.delete_ingress_filter(&link).err());
        }
    }
    Ok(errors.iter().map(ToString::to_string).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A node whose packages brought "ours", with this as the CNI directory's `sluice`.
    fn node(installed: &str) -> (tempfile::TempDir, Paths, std::path::PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let plugin = root.path().join("opt/cni/bin/sluice");
        for (path, content) in [(paths.shipped_plugin(), "ours"), (plugin.clone(), installed)] {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        (root, paths, plugin)
    }

    #[test]
    fn plugin_goes_whatever_version_it_is_of_once_boot_has_been_here() {
        let (root, paths, plugin) = node("ours of before");
        fs::create_dir_all(root.path().join("run/sluice")).unwrap();
        fs::write(paths.settings_in_force(), Settings::default().to_toml()).unwrap();
        remove_plugin(&paths).unwrap();
        assert!(!plugin.exists());
    }

    #[test]
    fn kubelets_file_goes_and_so_does_the_directory_made_for_it() {
        let (root, paths, _) = node("ours");
        let unit = root.path().join("usr/lib/systemd/system/nodeadm-run.service");
        let text = "[Service]\nExecStart=/usr/bin/nodeadm init --config-source \
                    file:///etc/eks/nodeadm.d/\n";
        fs::create_dir_all(unit.parent().unwrap()).unwrap();
        fs::write(&unit, text).unwrap();
        let kubelet = Kubelet::probe(&paths, &[]).unwrap();
        let assignment = kubelet.assign(KubeletConfig::Nodeadm, 17, false).unwrap();
        apply(&Part { files: assignment.files, ..Part::default() }, &paths.files_lock()).unwrap();
        assert!(root.path().join("etc/eks/nodeadm.d/00-sluice.yaml").exists());
        leave_kubelet(&paths).unwrap();
        assert!(!root.path().join("etc/eks").exists());
        assert!(unit.exists());
    }

    #[test]
    fn file_of_the_plugins_name_stays_where_it_never_was_ours() {
        let (_root, paths, plugin) = node("a foreign file");
        remove_plugin(&paths).unwrap();
        assert_eq!(fs::read_to_string(&plugin).unwrap(), "a foreign file");
        fs::write(&plugin, "ours").unwrap();
        remove_plugin(&paths).unwrap();
        assert!(!plugin.exists());
        remove_plugin(&paths).unwrap();
    }
}
