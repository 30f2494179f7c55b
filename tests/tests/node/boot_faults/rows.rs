// SPDX-License-Identifier: Apache-2.0
//! The kinds of fault, each with how it is made and corrected, and what is to
//! be seen of it.

use std::fs;

use nix::mount::{MsFlags, mount, umount};
use tests::node::{BIN_DIR, CONF_DIR, CONFLIST};

pub const PINS: &str = "/sys/fs/bpf/sluice";
pub const DISK: &str = "/var/lib/sluice";
pub const KUBELET_DIR: &str = "/run/node/kubelet.d";
const KUBELET_UNIT: &str = "/run/systemd/system/kubelet.service";
pub const DROP_IN: &str = "/run/node/kubelet.d/00-sluice.conf";

/// User data with these lines more.
pub fn settings(more: &str) -> String {
    format!(
        "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\nconf-dir = \"{CONF_DIR}\"\n\
         bin-dir = \"{BIN_DIR}\"\n[settings.sluice.bandwidth]\ndefault-egress = \"10Mbit\"\n\
         [settings.sluice.max-pods]\nvalue = 58\n{more}\n"
    )
}

/// One kind of fault.
pub struct Row {
    pub name: &'static str,
    /// Makes it, before `boot`.
    pub fault: fn(),
    pub user_data: String,
    /// What `boot` exits with.
    pub status: i32,
    /// Code in `sluice status`, and words that console and status have in common; empty: none.
    pub code: &'static str,
    pub said: &'static str,
    /// Whether the user data's settings are in force all the same.
    pub in_force: bool,
    /// Whether kubelet has its number all the same.
    pub kubelet: bool,
    /// Whether pods come to us.
    pub chained: bool,
    pub correct: fn(),
}

impl Row {
    fn new(name: &'static str, fault: fn(), correct: fn()) -> Self {
        Self {
            name,
            fault,
            user_data: settings(""),
            status: 0,
            code: "",
            said: "",
            in_force: true,
            kubelet: true,
            chained: true,
            correct,
        }
    }

    fn status(self, status: i32, code: &'static str, said: &'static str) -> Self {
        Self { status, code, said, ..self }
    }
}

pub fn rows() -> Vec<Row> {
    let nothing = || {};
    let max_pods = |more: &str| settings("").replace("value = 58", more);
    vec![
        Row::new("nothing", nothing, nothing),
        Row {
            user_data: settings("bandwith = 1"),
            in_force: false,
            kubelet: false,
            ..Row::new("settings with a typo", nothing, nothing).status(
                78,
                "settings-not-as-asked",
                "unknown key",
            )
        },
        Row {
            user_data: "[settings.sluice\n".into(),
            in_force: false,
            kubelet: false,
            ..Row::new("settings that are no TOML", nothing, nothing).status(
                78,
                "settings-not-as-asked",
                "not valid TOML",
            )
        },
        Row {
            kubelet: false,
            ..Row::new(
                "kubelet's directory is read-only",
                || read_only(KUBELET_DIR),
                || umount(KUBELET_DIR).expect("unmount"),
            )
            .status(1, "kubelet-not-configured", "ReadWritePaths=")
        },
        Row {
            kubelet: false,
            ..Row::new(
                "kubelet's directory is a file",
                || {
                    fs::remove_dir_all(KUBELET_DIR).expect("remove");
                    fs::write(KUBELET_DIR, "").expect("write");
                },
                || fs::remove_file(KUBELET_DIR).expect("remove"),
            )
            .status(1, "kubelet-not-configured", DROP_IN)
        },
        Row::new(
            "kubelet's directory is missing",
            || fs::remove_dir_all(KUBELET_DIR).expect("remove"),
            nothing,
        ),
        Row {
            kubelet: false,
            ..Row::new(
                "kubelet's unit cannot be read",
                || {
                    fs::remove_file(KUBELET_UNIT).expect("remove");
                    fs::create_dir(KUBELET_UNIT).expect("make a directory");
                },
                || fs::remove_dir(KUBELET_UNIT).expect("remove"),
            )
            .status(1, "kubelet-not-configured", KUBELET_UNIT)
        },
        Row {
            kubelet: false,
            ..Row::new(
                "a foreign drop-in contradicts max-pods",
                || {
                    fs::write(format!("{KUBELET_DIR}/50-site.conf"), "maxPods: 35\n")
                        .expect("write")
                },
                || fs::remove_file(format!("{KUBELET_DIR}/50-site.conf")).expect("remove"),
            )
            .status(78, "max-pods", "50-site.conf:1 (maxPods) gives it 35")
        },
        Row {
            user_data: max_pods("value = 58\nkubelet = \"env-file\""),
            kubelet: false,
            ..Row::new("kubelet does not read what max-pods.kubelet asks for", nothing, nothing)
                .status(78, "max-pods", "has no EnvironmentFile=")
        },
        Row {
            chained: false,
            ..Row::new(
                "the conflist is cut off",
                || fs::write(CONFLIST, "{\"plugins\": [").expect("w"),
                main_conflist,
            )
            .status(1, "conflist-unreadable", "not JSON")
        },
        Row {
            chained: false,
            ..Row::new(
                "the conflist is one plugin's",
                || fs::write(CONFLIST, r#"{"type":"ptp"}"#).expect("w"),
                main_conflist,
            )
            .status(1, "conflist-unreadable", "no \"plugins\"")
        },
        Row {
            chained: false,
            ..Row::new(
                "the conflist is not there yet",
                || fs::remove_file(CONFLIST).expect("rm"),
                main_conflist,
            )
            .status(0, "conflist-missing", "")
        },
        Row {
            chained: false,
            ..Row::new(
                "the conflist's directory is read-only",
                || read_only(CONF_DIR),
                || umount(CONF_DIR).expect("unmount"),
            )
            .status(1, "conflist-not-written", "Read-only file system")
        },
        Row {
            chained: false,
            ..Row::new(
                "the plugin cannot be installed",
                || read_only(BIN_DIR),
                || umount(BIN_DIR).expect("unmount"),
            )
            .status(1, "plugin-not-installed", "Read-only file system")
        },
        Row::new("/var is read-only", || read_only(DISK), || umount(DISK).expect("unmount"))
            .status(0, "settings-not-stored", "Read-only file system"),
        Row::new("/var is full", full_disk, || umount(DISK).expect("unmount")).status(
            0,
            "settings-not-stored",
            "No space left on device",
        ),
        Row::new(
            "/var holds something else",
            || {
                fs::create_dir_all(DISK).expect("make");
                fs::write(format!("{DISK}/generations"), "").expect("write");
            },
            nothing,
        )
        .status(0, "settings-not-stored", "generations"),
    ]
}

pub fn read_only(dir: &str) {
    let none = None::<&str>;
    fs::create_dir_all(dir).expect("make a directory");
    mount(Some(dir), dir, none, MsFlags::MS_BIND, none).expect("bind");
    let read_only = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
    mount(none, dir, none, read_only, none).expect("remount read-only");
}

fn full_disk() {
    fs::create_dir_all(DISK).expect("make a directory");
    let size = Some("size=4k");
    mount(Some("tmpfs"), DISK, Some("tmpfs"), MsFlags::empty(), size).expect("mount a tmpfs");
    fs::write(format!("{DISK}/full"), [0; 4096]).expect("fill it");
}

fn main_conflist() {
    let text = r#"{"cniVersion":"1.1.0","name":"main","plugins":[{"type":"ptp"}]}"#;
    fs::write(CONFLIST, text).expect("write the conflist");
}

/// As after a restart of the node: nothing is attached, /run is empty, and so is the disk.
pub fn fresh() {
    for dir in ["/run/sluice", PINS, DISK] {
        if fs::exists(dir).expect("look") {
            fs::remove_dir_all(dir).expect("remove");
        }
    }
    for file in [format!("{BIN_DIR}/sluice"), DROP_IN.into()] {
        if fs::exists(&file).expect("look") {
            fs::remove_file(&file).expect("remove");
        }
    }
    fs::create_dir_all(KUBELET_DIR).expect("make a directory");
    fs::create_dir_all("/run/systemd/system").expect("make a directory");
    let unit = format!("[Service]\nExecStart=/usr/bin/kubelet --config-dir={KUBELET_DIR}\n");
    fs::write(KUBELET_UNIT, unit).expect("write a unit");
    main_conflist();
}
