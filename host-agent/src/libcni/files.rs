// SPDX-License-Identifier: Apache-2.0
//! The directory of CNI configurations, as runtimes read it.

use std::ffi::OsStr;
use std::fs::{self, OpenOptions};
use std::io::{ErrorKind, Read};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Error, Result};
use nix::fcntl::OFlag;

use super::conflist::{self, TextFile};

/// What standalone mode writes; by its name, whatever it holds.
pub const OF_STANDALONE_MODE: &str = "10-sluice.conflist";

/// Whether this conflist is that one, in which nothing else has an entry.
pub fn is_of_standalone_mode(conflist: &Path) -> bool {
    conflist.file_name().is_some_and(|name| name == OF_STANDALONE_MODE)
}

/// The one that new pods go through; as go-cni does it, of all .conf, .conflist and .json files the
/// first by name, but for multus', which runs another one. Standalone mode's own is left out: it has
/// another writer.
pub fn active_conflist(dir: &Path) -> Result<Option<TextFile>> {
    let mut files = conflists(dir)?;
    files.retain(|file| !file.as_ref().is_ok_and(|file| is_of_standalone_mode(&file.path)));
    conflist::choose(dir, &files).map(Option::<&TextFile>::cloned).map_err(Error::msg)
}

/// Those that our entry is in, whether in use or not. A broken one has none.
pub fn with_entry(dir: &Path) -> Result<Vec<TextFile>> {
    let lists = conflists(dir)?.into_iter().flatten();
    let lists =
        lists.filter(|file| conflist::is_list(&file.path) && !is_of_standalone_mode(&file.path));
    Ok(lists.filter(|file| conflist::has_entry(&file.text).unwrap_or(false)).collect())
}

/// Every file that a runtime considers, in its order (libcni/conf.go, ConfFiles), or why it cannot
/// be read.
pub fn conflists(dir: &Path) -> Result<Vec<Result<TextFile, String>>> {
    let attempt = || format!("list the CNI configurations in {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Ok(entries) => entries,
        Err(e) if e.kind() == ErrorKind::NotFound => return Ok(Vec::new()),
        Err(e) => return Err(e).with_context(attempt),
    };
    let mut candidates = Vec::new();
    for entry in entries {
        let entry = entry.with_context(attempt)?;
        // A link to a directory counts for a file there.
        let is_dir = entry.file_type().is_ok_and(|kind| kind.is_dir());
        if !is_dir && is_considered(&entry.file_name()) {
            candidates.push(entry.path());
        }
    }
    candidates.sort();
    let files = candidates.into_iter().filter_map(|path| match read(&path) {
        // Gone since.
        Err(e) if is_missing(&e) => None,
        text => Some(text.map(|text| TextFile { path, text }).map_err(|e| format!("{e:#}"))),
    });
    Ok(files.collect())
}

/// What stands behind the last dot counts, even if that is the first character.
fn is_considered(name: &OsStr) -> bool {
    let mut parts = name.as_bytes().rsplitn(2, |byte| *byte == b'.');
    let (extension, rest) = (parts.next(), parts.next());
    rest.is_some() && matches!(extension, Some(b"conf" | b"conflist" | b"json"))
}

fn read(path: &Path) -> Result<String> {
    let attempt = || format!("read {}", path.display());
    let mut options = OpenOptions::new();
    // A pipe of this name keeps no one waiting.
    options.read(true).custom_flags(OFlag::O_NONBLOCK.bits());
    let mut bytes = Vec::new();
    let most = conflist::MOST_BYTES as u64 + 1;
    let file = options.open(path).with_context(attempt)?;
    file.take(most).read_to_end(&mut bytes).with_context(attempt)?;
    conflist::decode(bytes).with_context(attempt)
}

fn is_missing(error: &Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>();
    cause.is_some_and(|cause| cause.kind() == ErrorKind::NotFound)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::libcni::conflist::ENTRY;
    use std::path::PathBuf;

    const LIST: &str = r#"{"name":"main","plugins":[{"type":"ptp"}]}"#;

    /// A directory of these files, at a place whose end is as in the settings.
    fn dir(files: &[(&str, &str)]) -> (tempfile::TempDir, PathBuf) {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("net.d");
        fs::create_dir(&dir).unwrap();
        files.iter().for_each(|(name, text)| fs::write(dir.join(name), text).unwrap());
        (root, dir)
    }

    /// Name of the file to be edited, or the error, without the directory.
    fn chosen(files: &[(&str, &str)]) -> String {
        let (_root, dir) = dir(files);
        let prefix = format!("{}/", dir.display());
        let said = match active_conflist(&dir) {
            Ok(Some(file)) => file.path.display().to_string(),
            Ok(None) => "none".into(),
            Err(e) => format!("{e:#}"),
        };
        said.replace(&prefix, "").replace(&dir.display().to_string(), "DIR")
    }

    #[test]
    fn the_first_file_by_name_with_an_extension_of_the_runtime_is_taken() {
        let others = [("10-a.conflist.tmp", LIST), ("05-b.yaml", LIST), ("conf", LIST)];
        assert_eq!(chosen(&others), "none");
        assert_eq!(chosen(&[("b.conflist", LIST), ("a.conflist", LIST)]), "a.conflist");
        assert_eq!(chosen(&[("9.conflist", LIST), ("10.conflist", LIST)]), "10.conflist");
        assert_eq!(chosen(&[("z.conflist", LIST), (".hidden.conflist", LIST)]), ".hidden.conflist");
        assert_eq!(chosen(&[("z.conflist", LIST), (".conf", "{\"type\":\"x\"}")]), ".conf");
        assert_eq!(chosen(&[("b.conflist", LIST), ("a.json", "{\"type\":\"x\"}")]), "a.json");
    }

    #[test]
    fn directories_and_pipes_of_such_names_keep_nobody_waiting() {
        let (_root, dir) = dir(&[("10-main.conflist", LIST)]);
        fs::create_dir(dir.join("05-dir.conflist")).unwrap();
        assert_eq!(active_conflist(&dir).unwrap().unwrap().path, dir.join("10-main.conflist"));
        let mode = nix::sys::stat::Mode::S_IRUSR;
        nix::unistd::mkfifo(&dir.join("06-pipe.conflist"), mode).unwrap();
        let error = active_conflist(&dir).unwrap_err().to_string();
        assert!(
            error.ends_with(
                "06-pipe.conflist: line 1 column 0: not JSON: EOF while parsing a value"
            ),
            "{error}"
        );
    }

    #[test]
    fn missing_directory_is_no_configuration() {
        assert_eq!(active_conflist(Path::new("/no/such/directory")).unwrap(), None);
    }

    /// No runtime goes on to the next file when the first one is broken.
    #[test]
    fn broken_first_file_is_an_error_that_names_it() {
        let second = ("10-main.conflist", LIST);
        assert_eq!(
            chosen(&[("05-a.conflist", "{\n  \"plugins\": [,]}"), second]),
            "edit 05-a.conflist: line 2 column 15: not JSON: expected value"
        );
        assert_eq!(
            chosen(&[("05-a.conflist", "\u{feff}{}"), second]),
            "read 05-a.conflist: line 1 column 1: a byte order mark; no runtime reads it: only UTF-8 \
             without one is allowed"
        );
        let huge = format!("{LIST}{}", " ".repeat(conflist::MOST_BYTES));
        assert_eq!(
            chosen(&[("05-a.conflist", &huge), second]),
            "read 05-a.conflist: line 1 column 1: more than 1048576 bytes, the most that is read"
        );
    }

    #[test]
    fn multus_is_passed_over_to_the_list_that_it_runs() {
        let main = ("10-main.conflist", LIST);
        let shim = |network: &str| {
            format!(r#"{{"type":"multus-shim","name":"m","clusterNetwork":"{network}"}}"#)
        };
        let thin = r#"{"type":"multus","delegates":[{"plugins":[{"type":"ptp"}]}]}"#;
        let listed = r#"{"plugins":[{"type":"multus","delegates":[]}]}"#;
        for (name, text) in [
            ("00-multus.conf", thin),
            ("00-multus.conflist", listed),
            ("00-multus.conf", &shim("main")),
            ("05-m.conf", &shim("main")),
        ] {
            assert_eq!(chosen(&[(name, text), main]), "10-main.conflist", "{text}");
        }
        // A copy of multus' own that is left over, and what multus does not consider.
        let own = ("00-multus.conflist", listed);
        let json = ("09-x.json", "{}");
        assert_eq!(chosen(&[("00-multus.conf", thin), own, json, main]), "10-main.conflist");
        assert_eq!(
            chosen(&[("00-multus.conf", &shim("other")), main]),
            "00-multus.conf: multus runs \"clusterNetwork\" \"other\"; only a .conflist in DIR can be \
             chained to"
        );
        assert_eq!(
            chosen(&[("00-multus.conf", thin)]),
            "00-multus.conf: multus runs a network that no other file holds; only a .conflist in DIR \
             can be chained to"
        );
    }

    #[test]
    fn path_that_multus_names_is_one_of_its_container() {
        let shim = |path: String| {
            format!(r#"{{"type":"multus-shim","name":"m","clusterNetwork":"{path}"}}"#)
        };
        let (_root, dir) = dir(&[("10-a.conflist", LIST), ("20-b.conflist", LIST)]);
        let chosen = |path: String| {
            fs::write(dir.join("00-multus.conf"), shim(path)).unwrap();
            active_conflist(&dir).map(|file| file.unwrap().path.file_name().unwrap().to_owned())
        };
        let inside = format!("/host{}/20-b.conflist", dir.display());
        assert_eq!(chosen(inside.clone()).unwrap(), "20-b.conflist");
        assert_eq!(chosen(inside.replace("/host", "")).unwrap(), "20-b.conflist");
        for elsewhere in ["/etc/other.d/20-b.conflist".into(), inside.replace("20-b", "30-c")] {
            let error = chosen(elsewhere.clone()).unwrap_err().to_string();
            assert!(error.contains(&format!("\"clusterNetwork\" {elsewhere:?}; only")), "{error}");
        }
    }

    #[test]
    fn every_list_with_our_entry_is_found_beside_broken_ones() {
        let with = format!(r#"{{"plugins":[{{"type":"ptp"}},{ENTRY}]}}"#);
        let (_root, dir) = dir(&[("1.conflist", "{"), ("2.conflist", LIST), ("3.conflist", &with)]);
        let found = with_entry(&dir).unwrap();
        assert_eq!(found.len(), 1);
        assert_eq!(found[0].path, dir.join("3.conflist"));
    }
}
