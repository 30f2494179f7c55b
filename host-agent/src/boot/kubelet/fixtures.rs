// SPDX-License-Identifier: Apache-2.0
//! Every testdata/kubelet/*/ through `probe` and `assign` against its `expected`.
//! `node/` is the node's tree, `user-data` its user data if it has any, and
//! each line of `asks` is what is asked for: the way, the number, and `by-user`
//! where the settings give it. `UPDATE_GOLDEN=1` rewrites.

use std::fmt::Write;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Result;
use settings_model::KubeletConfig;

use super::{Assignment, Explicit, Kubelet};
use crate::host::paths::Paths;
use crate::settings::document::NodeConfig;

/// A node and what is asked of it.
pub(super) struct Case {
    folder: PathBuf,
    pub(super) node_configs: Vec<NodeConfig>,
    pub(super) asks: Vec<Ask>,
}

pub(super) struct Ask {
    pub(super) line: String,
    pub(super) way: KubeletConfig,
    pub(super) pods: u16,
    pub(super) by_user: bool,
}

impl Case {
    pub(super) fn all() -> Vec<Self> {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kubelet");
        let entries = fs::read_dir(folder).expect("read the fixture folder");
        let mut folders: Vec<_> = entries.map(|entry| entry.expect("an entry").path()).collect();
        folders.sort();
        folders.into_iter().map(Self::read).collect()
    }

    fn read(folder: PathBuf) -> Self {
        let asks = fs::read_to_string(folder.join("asks")).expect("what is asked for");
        let asks = asks.lines().map(Ask::read).collect();
        let user_data = fs::read(folder.join("user-data")).unwrap_or_default();
        Self { node_configs: NodeConfig::all_of("user-data", &user_data), folder, asks }
    }

    pub(super) fn name(&self) -> String {
        self.folder.file_name().expect("a name").to_string_lossy().into_owned()
    }

    pub(super) fn node(&self) -> PathBuf {
        self.folder.join("node")
    }

    pub(super) fn assign(&self, root: &Path, ask: &Ask) -> Result<Assignment> {
        let kubelet = Kubelet::probe(&Paths::below(root), &self.node_configs)?;
        kubelet.assign(ask.way, ask.pods, ask.by_user)
    }

    fn described(&self) -> String {
        let asked =
            |ask: &Ask| format!("== {}\n{}", ask.line, describe(&self.assign(&self.node(), ask)));
        let all: Vec<_> = self.asks.iter().map(asked).collect();
        all.join("\n").replace(&self.node().display().to_string(), "")
    }

    /// What is wrong with it, if anything.
    fn check(&self) -> Option<String> {
        let (actual, path) = (self.described(), self.folder.join("expected"));
        if std::env::var_os("UPDATE_GOLDEN").is_some_and(|value| value == "1") {
            fs::write(&path, &actual).expect("write the expected file");
        }
        let expected = fs::read_to_string(&path).unwrap_or_default();
        let path = path.display();
        (expected != actual)
            .then(|| format!("{path}\n--- expected\n{expected}--- actual\n{actual}"))
    }
}

impl Ask {
    fn read(line: &str) -> Self {
        let mut words = line.split(' ');
        let way = match words.next() {
            Some("auto") => KubeletConfig::Auto,
            Some("nodeadm") => KubeletConfig::Nodeadm,
            Some("config-dir") => KubeletConfig::ConfigDir,
            Some("env-file") => KubeletConfig::EnvFile,
            Some("none") => KubeletConfig::None,
            other => panic!("{other:?} is no way of telling"),
        };
        let pods = words.next().expect("a number").parse().expect("a number");
        Self { line: line.to_owned(), way, pods, by_user: words.next() == Some("by-user") }
    }
}

fn describe(assignment: &Result<Assignment>) -> String {
    let Assignment { flavour, summary, files, obsolete, explicit, refused, warnings } =
        match assignment {
            Ok(assignment) => assignment,
            Err(error) => return format!("error: {error:#}\n"),
        };
    let mut text = format!("flavour: {flavour}\nsummary: {summary}\n");
    if let Some(Explicit { pods, place }) = explicit {
        writeln!(text, "explicit: {pods:?} at {place}").unwrap();
    }
    refused.iter().for_each(|why| writeln!(text, "refused: {why}").unwrap());
    warnings.iter().for_each(|warning| writeln!(text, "warning: {warning}").unwrap());
    for file in files {
        writeln!(text, "writes {} {:o}:", file.path.display(), file.mode).unwrap();
        let content = String::from_utf8_lossy(&file.content);
        content.lines().for_each(|line| writeln!(text, "    {line}").unwrap());
    }
    obsolete.iter().for_each(|path| writeln!(text, "removes {}", path.display()).unwrap());
    text
}

#[test]
fn each_node_is_told_as_it_reads_and_says_what_was_seen() {
    let cases = Case::all();
    let wrong: Vec<_> = cases.iter().filter_map(Case::check).collect();
    assert!(wrong.is_empty(), "{}\nUPDATE_GOLDEN=1 rewrites", wrong.join("\n"));
    assert!(cases.len() >= 20, "only {} fixtures", cases.len());
}
