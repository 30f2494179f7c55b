// SPDX-License-Identifier: Apache-2.0
//! The Butane config, in types that know its fields.

use std::collections::BTreeMap;
use std::fs::{self, DirEntry};

use serde::Deserialize;

use crate::{commands, document, example, expect_bash, expect_limits, read};

/// Butane's variant for Flatcar, version 1.1.0, as far as it is used here.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Butane {
    variant: String,
    version: String,
    storage: Storage,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Storage {
    files: Vec<File>,
    links: Vec<Link>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    path: String,
    contents: Contents,
}

#[derive(Deserialize)]
#[serde(untagged, deny_unknown_fields)]
enum Contents {
    Fetched { source: String, verification: Verification },
    Local { local: String },
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Verification {
    hash: String,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Link {
    path: String,
    target: String,
}

#[test]
fn flatcar_gets_the_extension_under_its_name_its_settings_and_both_units() {
    let source = read("flatcar/sluice.bu");
    expect_bash(&commands(&source, "#   "));
    let Butane { variant, version, storage } = document(&source);
    assert_eq!((&*variant, &*version), ("flatcar", "1.1.0"));
    let files: BTreeMap<_, _> = storage.files.iter().map(|f| (&*f.path, &f.contents)).collect();
    let links: BTreeMap<_, _> = storage.links.iter().map(|l| (&*l.path, &*l.target)).collect();
    assert_eq!((files.len(), links.len()), (storage.files.len(), storage.links.len()));

    let image = links["/etc/extensions/sluice.raw"];
    let Contents::Fetched { source, verification } = files[image] else { panic!("not fetched") };
    assert!(source.starts_with("https://") && source.ends_with(".sysext/sluice.raw"), "{source}");
    let digits = verification.hash.strip_prefix("sha256-").expect("the digest of SHA256SUMS");
    assert!(digits.len() == 64 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()));

    let Contents::Local { local } = files["/etc/sluice/settings.toml"] else { panic!("not local") };
    expect_limits(&read(&format!("flatcar/{local}")));

    let units = example("../packaging/systemd").read_dir().expect("list the units");
    let units = units.map(|unit| unit.expect("an entry"));
    // The others are started by those.
    let installed = |unit: &DirEntry| {
        let text = fs::read_to_string(unit.path()).expect("read the unit");
        text.lines().any(|line| line == "[Install]")
    };
    let units = units.filter(installed);
    let units = units.map(|unit| unit.file_name().into_string().expect("UTF-8"));
    let enabled = units.map(|unit| {
        let wanted = format!("/etc/systemd/system/multi-user.target.wants/{unit}");
        (wanted, format!("/usr/lib/systemd/system/{unit}"))
    });
    for (path, target) in enabled {
        assert_eq!(links.get(&*path), Some(&&*target), "{path}");
    }
}
