// SPDX-License-Identifier: Apache-2.0
//! One look after the other: what IMDS shows is put in force, in an order in
//! which no pod ever has an address that is not yet, or no longer, routed and
//! translated. Nothing that was known is given up because IMDS is silent.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, anyhow};
use settings_model::{CniMode, Settings};

use super::known::Known;
use super::removal::{remove, take_off};
use super::{network, nft, store};
use crate::host::file;
use crate::host::lock::private_directory;
use crate::host::paths::Paths;
use crate::imds::interface::{Interface, InterfaceError};
use crate::imds::{Host, jittered};
use crate::libcni::files::OF_STANDALONE_MODE as CONFLIST;
use crate::libcni::files::active_conflist;
use crate::netlink::{Link, Netlink};
use crate::trouble::{Trouble, code};

/// From one look to the next, on average.
const PAUSE: Duration = Duration::from_secs(60);
/// As long as the node has no network.
const PAUSE_WITHOUT_NETWORK: Duration = Duration::from_secs(4);
/// For all that is asked of IMDS in one look.
const BUDGET: Duration = Duration::from_secs(10);

pub struct Keeper {
    paths: Paths,
    imds: Host,
    /// As this agent has last put it in force.
    ruleset: Option<String>,
    reported: Option<Trouble>,
}

impl Keeper {
    pub fn new(paths: &Paths) -> Self {
        Self { paths: paths.clone(), imds: Host::default(), ruleset: None, reported: None }
    }

    /// Looks at everything: what is wrong, and when to look again if no one asks for it before.
    pub fn look(&mut self, settings: &Settings) -> (Option<Trouble>, Option<Duration>) {
        let trouble = self.keep(settings);
        self.log(&trouble);
        let done = settings.cni.mode != CniMode::Standalone && trouble.is_none();
        let pause = (!done).then(|| self.pause());
        (trouble, pause)
    }

    fn pause(&mut self) -> Duration {
        let known = self.paths.network_file().exists();
        jittered(if known { PAUSE } else { PAUSE_WITHOUT_NETWORK }, &mut self.imds)
    }

    fn log(&mut self, trouble: &Option<Trouble>) {
        if *trouble == self.reported {
            return;
        }
        match trouble {
            Some(Trouble { what, next_step, .. }) => log::warn!("{what}; {next_step}"),
            None => log::info!("standalone: what was wrong is put right"),
        }
        self.reported.clone_from(trouble);
    }

    fn keep(&mut self, settings: &Settings) -> Option<Trouble> {
        if settings.cni.mode == CniMode::Standalone {
            self.make(settings).unwrap_or_else(|e| Some(failed(&e)))
        } else {
            self.ruleset = None;
            take_off(&self.paths).err().map(|e| failed(&e.context("leave standalone mode")))
        }
    }

    /// Puts in force what IMDS shows, or what it last did; gives what is wrong nevertheless.
    fn make(&mut self, settings: &Settings) -> Result<Option<Trouble>> {
        let known = Known::read(&self.paths)?;
        let dir = self.paths.resolve(settings.cni.conf_dir.as_ref());
        let other = other_network(&dir)?;
        let (interface, trouble) = match (Interface::read(BUDGET, &mut self.imds), &known) {
            (Err(e), Some(known)) => (known.interface.clone(), Some(no_imds(e))),
            (Err(e), None) => return Ok(Some(no_imds(e))),
            (Ok(shown), _) if shown.has_prefixes() => (shown, None),
            (Ok(shown), None) => return Ok(Some(no_prefixes(&shown))),
            // Pods that are there need the conflist for their end.
            (Ok(shown), Some(_)) => {
                let trouble = no_prefixes(&shown);
                (shown, Some(trouble))
            }
        };
        if known.is_none() && other.is_some() {
            return Ok(other);
        }
        let known_before = known.as_ref();
        let now = Known::after(known_before, interface, dir.join(CONFLIST));
        let router = self.put(settings, known_before, &now)?;
        for address in store::free_leaked(&self.store(), &self.paths.result_cache())? {
            log::info!("{address}: given back, the ADD that took it came to nothing");
        }
        Ok(other.or(trouble).or(router))
    }

    fn store(&self) -> PathBuf {
        self.paths.resolve(Path::new(network::STORE)).join(network::NAME)
    }

    /// Rules come before the conflist that needs them.
    fn put(
        &mut self,
        settings: &Settings,
        before: Option<&Known>,
        now: &Known,
    ) -> Result<Option<Trouble>> {
        let device = device_of(&now.interface.mac)?;
        let mut interface = now.interface.clone();
        let trouble = match interface.prefixes_v6.is_empty() {
            true => None,
            false => stay_routed(&self.paths, &device.name).err(),
        };
        if trouble.is_some() {
            interface.prefixes_v6.clear();
        }
        let limits = settings.bandwidth.enabled;
        let conflist = network::conflist(&interface, device.mtu, limits)?;
        self.put_ruleset(network::ruleset(&interface, &now.prefixes)?)?;
        if !interface.has_prefixes() && before.is_none() {
            return Ok(trouble);
        }
        if before != Some(now) {
            now.write(&self.paths)?;
        }
        // host-local locks a file in there; by itself it would let everybody in.
        let ipam = self.paths.resolve(Path::new(network::STORE));
        private_directory(&ipam).with_context(|| format!("create {}", ipam.display()))?;
        write(&now.conflist, &conflist)?;
        // Settings have named another directory.
        before.filter(|b| b.conflist != now.conflist).map_or(Ok(()), |b| remove(&b.conflist))?;
        Ok(trouble)
    }

    fn put_ruleset(&mut self, ruleset: String) -> Result<()> {
        let wants_table = ruleset != network::NO_TABLE;
        if self.ruleset.as_ref() == Some(&ruleset) && nft::has_table()? == wants_table {
            return Ok(());
        }
        nft::run(&ruleset)?;
        self.ruleset = Some(ruleset);
        Ok(())
    }
}

fn write(conflist: &Path, text: &str) -> Result<()> {
    match fs::read(conflist) {
        Ok(there) if there == text.as_bytes() => return Ok(()),
        Err(e) if e.kind() != io::ErrorKind::NotFound => {
            return Err(e).with_context(|| format!("read {}", conflist.display()));
        }
        _ => {}
    }
    let dir = conflist.parent().unwrap_or(conflist);
    fs::create_dir_all(dir).with_context(|| format!("create {}", dir.display()))?;
    file::replace(conflist, text.as_bytes(), 0o644)?;
    log::info!("wrote {}", conflist.display());
    Ok(())
}

/// The device on the host that has this MAC address; of several the first, on which others lie.
fn device_of(mac: &str) -> Result<Link> {
    let links = Netlink::open()?.links()?;
    let of_mac = links.into_iter().filter(|link| text_of(&link.address) == mac);
    of_mac
        .min_by_key(|link| link.index)
        .with_context(|| format!("IMDS names interface {mac}, but no device has that address"))
}

fn text_of(address: &[u8]) -> String {
    address.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(":")
}

/// ptp makes the node an IPv6 router at the first pod. A router takes no router advertisements, and so
/// loses its default route, unless `accept_ra` is 2; 0 is a network manager's that reads them itself.
fn stay_routed(paths: &Paths, device: &str) -> Result<(), Trouble> {
    let path = paths.resolve(format!("/proc/sys/net/ipv6/conf/{device}/accept_ra").as_ref());
    let stay = || match fs::read_to_string(&path)?.trim() {
        "1" => fs::write(&path, "2"),
        _ => Ok(()),
    };
    stay().map_err(|e| {
        let what = format!("{e} ({}): pods get no IPv6 addresses", path.display());
        Trouble::new(code::ACCEPT_RA, device, what).with_next_step(format!(
            "set net.ipv6.conf.{device}.accept_ra=2 in the image (sysctl.d)"
        ))
    })
}

/// The runtime takes the first conflist by name, so ours would be of no effect.
fn other_network(dir: &Path) -> Result<Option<Trouble>> {
    let active = active_conflist(dir)?.map(|found| found.path);
    let first = active.filter(|path| *path < dir.join(CONFLIST));
    Ok(first.map(|path| {
        let path = path.display().to_string();
        let what = format!("{path} is there, which runtimes take before {CONFLIST}");
        Trouble::new(code::OTHER_NETWORK, path, what)
    }))
}

fn no_prefixes(interface: &Interface) -> Trouble {
    let macs = format!("network/interfaces/macs/{}", interface.mac);
    let what =
        format!("IMDS shows no prefix for pods: nothing at {macs}/ipv4-prefix or ipv6-prefix");
    Trouble::new(code::NO_PREFIXES, "cni.mode", what)
}

fn no_imds(error: InterfaceError) -> Trouble {
    let what = format!("{:#}", anyhow!(error).context("look for delegated prefixes"));
    Trouble::new(code::NO_IMDS, "cni.mode", what)
}

fn failed(error: &anyhow::Error) -> Trouble {
    Trouble::new(code::STANDALONE, "cni.mode", format!("{error:#}"))
}
