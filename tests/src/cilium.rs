// SPDX-License-Identifier: Apache-2.0
//! A double of Cilium's agent: its limit on the card, and what it does with CNI configurations
//! (daemon/cmd/cni/config.go of 01990e1cc062, 1.17 in the making; the same since 1.12): at its start
//! it writes its own list, alone or made of another network's; with cni.exclusive it
//! renames all others, and does both again after each event of the directory.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use nix::sys::inotify::AddWatchFlags;

use crate::command::{run, tc};
use crate::conflist::{Watched, list};
use crate::node::CONF_DIR;

const NAME: &str = "05-cilium.conflist";
const SET_ASIDE: &str = ".cilium_bak";
const EDT: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/edt.bpf.o"));
const ENTRY: &str =
    r#"{"type": "cilium-cni", "enable-debug": false, "log-file": "/run/cilium.log"}"#;

#[derive(Clone, Copy, Debug)]
pub struct Cilium {
    pub exclusive: bool,
    /// The network that it is chained to (cni.chainingTarget).
    pub chained_to: Option<&'static str>,
}

pub fn conflist() -> PathBuf {
    Path::new(CONF_DIR).join(NAME)
}

impl Cilium {
    /// setupCNIConfFile; gives whether it has written its list.
    pub fn start(&self) -> bool {
        let text = self.render();
        let is_there = fs::read_to_string(conflist()).is_ok_and(|there| there == text);
        if !is_there {
            let temporary = Path::new(CONF_DIR).join(format!(".{NAME}123"));
            fs::write(&temporary, text).expect("write");
            fs::rename(&temporary, conflist()).expect("rename");
        }
        if self.exclusive {
            set_aside_others();
        }
        !is_there
    }

    /// From its start on, until it is over: how often it has written its list.
    pub fn run(&self, over: &AtomicBool) -> u64 {
        let watched = Watched::begin();
        let mut writes = u64::from(self.start());
        while !over.load(Ordering::SeqCst) {
            let events = watched.events();
            if self.exclusive && events.iter().any(|(mask, _)| is_heard(*mask)) {
                writes += u64::from(self.start());
            }
            thread::sleep(Duration::from_millis(1));
        }
        writes
    }

    fn render(&self) -> String {
        match self.chained_to {
            Some(network) => chained(network),
            None => format!(
                "{{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"cilium\",\n  \"plugins\": [{ENTRY}]\n}}"
            ),
        }
    }
}

/// mergeExistingCNIConfig: the first list of that network, those set aside included, with Cilium's entry
/// as the last one; every other byte stays.
fn chained(network: &str) -> String {
    let others = names().into_iter().filter(|name| name != NAME);
    let lists = others.filter(|name| is_list(name.trim_end_matches(SET_ASIDE)));
    let mut texts =
        lists.filter_map(|name| fs::read_to_string(Path::new(CONF_DIR).join(name)).ok());
    let found = texts.find(|text| list(text)["name"] == network);
    let mut text = found.unwrap_or_else(|| panic!("no network {network}"));
    let end = text.rfind(']').expect("a list of plugins");
    text.insert_str(end, &format!(",{ENTRY}"));
    text
}

/// cleanupOtherCNI.
fn set_aside_others() {
    for name in names().into_iter().filter(|name| name != NAME && is_list(name)) {
        let path = Path::new(CONF_DIR).join(&name);
        // Gone since.
        let _ = fs::rename(&path, Path::new(CONF_DIR).join(format!("{name}{SET_ASIDE}")));
    }
}

fn is_list(name: &str) -> bool {
    [".conf", ".conflist", ".json"].iter().any(|extension| name.ends_with(extension))
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(CONF_DIR).expect("the directory").flatten();
    let mut names: Vec<_> =
        entries.map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    names
}

/// What fsnotify asks for.
fn is_heard(mask: AddWatchFlags) -> bool {
    let heard = AddWatchFlags::IN_CREATE
        | AddWatchFlags::IN_MODIFY
        | AddWatchFlags::IN_ATTRIB
        | AddWatchFlags::IN_DELETE
        | AddWatchFlags::IN_MOVED_FROM
        | AddWatchFlags::IN_MOVED_TO;
    mask.intersects(heard)
}

/// Its bandwidth manager with one limit: fq on the card, a program in front of it that stamps
/// (bpf/lib/edt.h), and the map that tells of it.
pub fn limit_on_card(card: &str, bits_per_sec: u64) {
    let (programs, maps) = ("/sys/fs/bpf/cilium_edt", "/sys/fs/bpf/cilium_edt_maps");
    let object = "/run/edt.bpf.o";
    fs::write(object, EDT).expect("write the object");
    fs::create_dir_all("/sys/fs/bpf/tc/globals").expect("Cilium's directory");
    run("bpftool", &["prog", "loadall", object, programs, "pinmaps", maps]);
    let bytes = (bits_per_sec / 8).to_ne_bytes().map(|byte| byte.to_string());
    let value = bytes.join(" ") + &" 0".repeat(8);
    let update = format!("map update pinned {maps}/edt_limits key 0 0 0 0 value {value}");
    run("bpftool", &update.split(' ').collect::<Vec<_>>());
    let pin = format!("map pin pinned {maps}/edt_limits /sys/fs/bpf/tc/globals/cilium_throttle");
    run("bpftool", &pin.split(' ').collect::<Vec<_>>());
    tc(&format!("qdisc replace dev {card} root fq"));
    tc(&format!("qdisc add dev {card} clsact"));
    tc(&format!(
        "filter add dev {card} egress prio 1 handle 1 bpf da object-pinned {programs}/edt"
    ));
}
