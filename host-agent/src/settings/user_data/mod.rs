// SPDX-License-Identifier: Apache-2.0
//! Where the user data comes from: a file that is named, else the first
//! of the node's sources that is there. Gives the TOML document, nodeadm's
//! NodeConfigs and the names that messages call them by; never reads a setting.

pub mod carrier;
mod error;
#[cfg(test)]
mod fixtures;
mod mime;
mod packing;
mod recognition;
mod wide;

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::host::paths::Paths;
use crate::imds;
use crate::imds::firmware::Firmware;
use crate::settings::document::{Document, NodeConfig, UserData};

/// Given to a unit by `LoadCredential=` or `ImportCredential=`, and so by SMBIOS too.
const CREDENTIAL: &str = "sluice.user-data";
/// `qemu -fw_cfg name=opt/sluice/user-data,file=FILE`.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/sluice/user-data/raw";
const LOCAL_FILE: &str = "/var/lib/sluice/user-data.toml";
const IMDS: &str = "imds:user-data";

/// Our document could not be had, but nodeadm's may be: they count for kubelet all the same.
#[derive(Debug)]
pub struct Undecoded {
    name: String,
    pub node_configs: Vec<NodeConfig>,
}

impl fmt::Display for Undecoded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "decode the user data {}", self.name)
    }
}

/// Whether this error of `read` or `find` is of the source, and not of what it holds.
pub fn is_unreadable(error: &anyhow::Error) -> bool {
    !error.is::<Undecoded>() && !error.is::<carrier::CarrierError>()
}

/// What is known of nodeadm's part where `read` or `find` gave this error.
pub fn node_configs_beside(error: &anyhow::Error) -> Vec<NodeConfig> {
    match error.downcast_ref::<Undecoded>() {
        Some(undecoded) => undecoded.node_configs.clone(),
        None => {
            let text = Err("it could not be had".into());
            vec![NodeConfig { name: "the user data".into(), text }]
        }
    }
}

/// How messages name a file, `-` being standard input.
pub fn name_of(path: &Path) -> String {
    match path == Path::new("-") {
        true => "standard input".into(),
        false => path.display().to_string(),
    }
}

/// What a file holds.
pub fn read(path: &Path) -> Result<UserData> {
    Ok(logged(&name_of(path), read_unlogged(path)?))
}

/// The same, and the caller says where there are no settings.
pub fn read_unlogged(path: &Path) -> Result<UserData> {
    let name = name_of(path);
    let raw = match path == Path::new("-") {
        true => read_bounded(io::stdin()).context("read standard input")?,
        false => read_raw(path).with_context(|| format!("read the user data {name}"))?,
    };
    taken_apart(&name, &raw)
}

/// What the first source that there is holds; nothing if there is none.
pub fn find(paths: &Paths, imds_budget: Duration) -> Result<UserData> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    for path in files(paths, credentials.as_deref()) {
        match read_raw(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            raw => {
                let name = path.display().to_string();
                log::info!("user data from {name}");
                return content(&name, &raw.with_context(|| format!("read the user data {name}"))?);
            }
        }
    }
    if let Firmware::Other(vendor) = Firmware::read(paths) {
        log::info!("no user data: IMDS is EC2's, and this machine is of {vendor}");
        return Ok(UserData::default());
    }
    let raw = imds::user_data(imds_budget, &mut imds::Host::default())
        .context("ask IMDS for the user data")?;
    raw.map_or(Ok(UserData::default()), |raw| content(IMDS, &raw))
}

/// The sources that are files, in the order in which they are looked for.
fn files(paths: &Paths, credentials: Option<&Path>) -> Vec<PathBuf> {
    let credential = credentials.map(|dir| paths.resolve(&dir.join(CREDENTIAL)));
    let fixed = [FW_CFG, LOCAL_FILE].map(|path| paths.resolve(Path::new(path)));
    credential.into_iter().chain(fixed).collect()
}

/// One byte more than allowed is enough to refuse a file, however long it is.
fn read_bounded(source: impl Read) -> io::Result<Vec<u8>> {
    let mut raw = Vec::new();
    source.take(carrier::MOST_RAW as u64 + 1).read_to_end(&mut raw)?;
    Ok(raw)
}

fn read_raw(path: &Path) -> io::Result<Vec<u8>> {
    read_bounded(File::open(path)?)
}

/// What a text from somewhere else holds.
pub fn content(name: &str, raw: &[u8]) -> Result<UserData> {
    Ok(logged(name, taken_apart(name, raw)?))
}

fn logged(name: &str, user_data: UserData) -> UserData {
    if user_data.document.is_none() {
        log::info!("{name} has no settings for sluice");
    }
    user_data
}

fn taken_apart(name: &str, raw: &[u8]) -> Result<UserData> {
    let carrier::Content { document, node_configs } = carrier::decode(raw);
    let named = node_configs.into_iter().map(|found| NodeConfig::of(name, found));
    let node_configs: Vec<_> = named.collect();
    let document = document
        .with_context(|| Undecoded { name: name.to_owned(), node_configs: node_configs.clone() })?;
    let document = document.map(|found| Document { name: found.name(name), text: found.text });
    Ok(UserData { document, node_configs })
}

impl NodeConfig {
    /// All that a file of nodeadm's holds: like user data it may be a MIME message.
    pub fn all_of(name: &str, raw: &[u8]) -> Vec<Self> {
        let found = carrier::decode(raw).node_configs;
        found.into_iter().map(|found| Self::of(name, found)).collect()
    }

    fn of(name: &str, found: carrier::Foreign) -> Self {
        let name = match found.part {
            Some(part) => format!("{name} part {part}"),
            None => name.to_owned(),
        };
        Self { name, text: found.text }
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    const NO_TIME: Duration = Duration::ZERO;

    fn node_with(files: &[&str]) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().expect("make a root");
        let paths = Paths::below(root.path());
        for file in files {
            let path = paths.resolve(Path::new(file));
            fs::create_dir_all(path.parent().expect("a directory")).expect("make directories");
            fs::write(path, format!("# {file}\n[sluice]\nversion = 1\n")).expect("write a source");
        }
        (root, paths)
    }

    #[test]
    fn sources_come_in_the_documented_order() {
        let (_root, paths) = node_with(&[]);
        let found = files(&paths, Some(Path::new("/run/credentials/x")));
        let expected = [
            "/run/credentials/x/sluice.user-data",
            "/sys/firmware/qemu_fw_cfg/by_name/opt/sluice/user-data/raw",
            "/var/lib/sluice/user-data.toml",
        ];
        assert_eq!(found, expected.map(|path| paths.resolve(Path::new(path))));
        assert_eq!(files(&paths, None), found[1..]);
    }

    #[test]
    fn first_source_that_exists_wins() {
        for files in [&[FW_CFG, LOCAL_FILE][..], &[LOCAL_FILE][..]] {
            let (_root, paths) = node_with(files);
            let first = paths.resolve(Path::new(files[0]));
            let found = find(&paths, NO_TIME).expect("user data").document.expect("a document");
            assert_eq!(found.name, first.display().to_string());
            assert!(found.text.starts_with(&format!("# {}", files[0])));
        }
    }

    #[test]
    fn machine_that_is_no_instance_has_no_user_data_and_asks_no_one() {
        let (_root, paths) = node_with(&[]);
        let vendor = paths.resolve(Path::new("/sys/class/dmi/id/sys_vendor"));
        fs::create_dir_all(vendor.parent().expect("a directory")).expect("make directories");
        fs::write(vendor, "QEMU\n").expect("write the vendor");
        assert_eq!(find(&paths, NO_TIME).expect("nothing"), UserData::default());
    }

    #[test]
    fn source_without_settings_hides_the_next() {
        let (_root, paths) = node_with(&[FW_CFG, LOCAL_FILE]);
        fs::write(paths.resolve(Path::new(FW_CFG)), "#!/bin/sh\n").expect("write a script");
        assert_eq!(find(&paths, NO_TIME).expect("user data"), UserData::default());
    }

    #[test]
    fn source_that_cannot_be_read_is_named() {
        let (_root, paths) = node_with(&[]);
        let path = paths.resolve(Path::new(LOCAL_FILE));
        fs::create_dir_all(&path).expect("make a directory in its place");
        let error = find(&paths, NO_TIME).expect_err("a directory");
        assert_eq!(
            format!("{error:#}"),
            format!("read the user data {}: Is a directory (os error 21)", path.display())
        );
    }

    const BESIDE: &str = "MIME-Version: 1.0\nContent-Type: multipart/mixed; boundary=X\n\n--X\n\
                          Content-Type: application/node.eks.aws\n\nkind: NodeConfig\n--X\n\
                          Content-Type: application/toml\nContent-Transfer-Encoding: OURS\n\n\
                          [sluice]\nversion = 1\n--X--\n";

    /// User data of nodeadm's and ours, ours in this transfer encoding.
    fn beside_nodeadm(encoding: &str) -> (Result<UserData>, Vec<NodeConfig>) {
        let (_root, paths) = node_with(&[LOCAL_FILE]);
        let path = paths.resolve(Path::new(LOCAL_FILE));
        fs::write(&path, BESIDE.replace("OURS", encoding)).expect("write user data");
        let text = Ok("kind: NodeConfig".into());
        (
            find(&paths, NO_TIME),
            vec![NodeConfig { name: format!("{} part 1", path.display()), text }],
        )
    }

    #[test]
    fn one_reading_gives_our_document_and_nodeadms() {
        let (found, node_configs) = beside_nodeadm("7bit");
        let found = found.expect("user data");
        assert!(found.document.expect("a document").name.ends_with(".toml part 2"));
        assert_eq!(found.node_configs, node_configs);
    }

    #[test]
    fn nodeadms_part_is_known_where_ours_cannot_be_decoded() {
        let (found, node_configs) = beside_nodeadm("quoted");
        let error = found.expect_err("no such encoding").context("further out");
        assert_eq!(node_configs_beside(&error), node_configs);
        assert!(error.is::<carrier::CarrierError>(), "what the exit status hangs on");
        let why = "part 2: Content-Transfer-Encoding is \"quoted\", allowed are";
        let text = format!("{error:#}");
        assert!(text.starts_with("further out: decode the user data /"), "{text}");
        assert!(text.contains(why), "{text}");
        let unknown = node_configs_beside(&anyhow::anyhow!("no answer"));
        assert_eq!(unknown[0].text, Err("it could not be had".into()));
    }

    #[test]
    fn endless_file_is_refused_at_the_bound() {
        let error = read(Path::new("/dev/zero")).expect_err("too long");
        assert_eq!(
            format!("{error:#}"),
            "decode the user data /dev/zero: more than 65536 bytes, allowed are 65536 (64 KiB)"
        );
    }
}
