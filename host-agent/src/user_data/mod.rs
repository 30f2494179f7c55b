// SPDX-License-Identifier: Apache-2.0
//! Where the user data comes from: a file that somebody names, else the first
//! of the node's sources that is there. Gives the TOML document and the name
//! that messages call it by; never reads a setting.

pub mod carrier;
#[cfg(test)]
mod fixtures;
mod mime;
mod packing;

use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result};

use crate::imds;
use crate::layers::Document;
use crate::paths::Paths;

/// Given to a unit by `LoadCredential=` or `ImportCredential=`, and so by SMBIOS too.
const CREDENTIAL: &str = "sluice.user-data";
/// `qemu -fw_cfg name=opt/sluice/user-data,file=FILE`.
const FW_CFG: &str = "/sys/firmware/qemu_fw_cfg/by_name/opt/sluice/user-data/raw";
const LOCAL_FILE: &str = "/var/lib/sluice/user-data.toml";
const IMDS: &str = "imds:user-data";

/// The document of a file, `-` being standard input; None if there is nothing in it for us.
pub fn read(path: &Path) -> Result<Option<Document>> {
    if path == Path::new("-") {
        let raw = read_bounded(io::stdin()).context("read standard input")?;
        return document("standard input", &raw);
    }
    let name = path.display().to_string();
    let raw = read_raw(path).with_context(|| format!("read the user data {name}"))?;
    document(&name, &raw)
}

/// The document of the first source that there is; None if there is none, or nothing in it for us.
pub fn find(paths: &Paths, imds_budget: Duration) -> Result<Option<Document>> {
    let credentials = std::env::var_os("CREDENTIALS_DIRECTORY").map(PathBuf::from);
    for path in files(paths, credentials.as_deref()) {
        match read_raw(&path) {
            Err(e) if e.kind() == io::ErrorKind::NotFound => {}
            raw => {
                let name = path.display().to_string();
                log::info!("user data from {name}");
                return document(
                    &name,
                    &raw.with_context(|| format!("read the user data {name}"))?,
                );
            }
        }
    }
    let raw = imds::user_data(imds_budget, &mut imds::Host::default())
        .context("ask IMDS for the user data")?;
    raw.map_or(Ok(None), |raw| document(IMDS, &raw))
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

fn document(name: &str, raw: &[u8]) -> Result<Option<Document>> {
    let document = carrier::decode(raw).with_context(|| format!("decode the user data {name}"))?;
    if document.is_none() {
        log::info!("{name} has no settings for sluice");
    }
    Ok(document.map(|found| Document { name: found.name(name), text: found.text }))
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
            let found = find(&paths, NO_TIME).expect("user data").expect("a document");
            assert_eq!(found.name, first.display().to_string());
            assert!(found.text.starts_with(&format!("# {}", files[0])));
        }
    }

    #[test]
    fn source_without_settings_hides_the_next() {
        let (_root, paths) = node_with(&[FW_CFG, LOCAL_FILE]);
        fs::write(paths.resolve(Path::new(FW_CFG)), "#!/bin/sh\n").expect("write a script");
        assert_eq!(find(&paths, NO_TIME).expect("user data"), None);
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

    #[test]
    fn endless_file_is_refused_at_the_bound() {
        let error = read(Path::new("/dev/zero")).expect_err("too long");
        assert_eq!(
            format!("{error:#}"),
            "decode the user data /dev/zero: more than 65536 bytes, allowed are 65536 (64 KiB)"
        );
    }
}
