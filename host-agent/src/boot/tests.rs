// SPDX-License-Identifier: Apache-2.0
//! A whole boot of a node below a directory: what it writes and removes is what
//! `plan` shows, and what fails leaves everything as it was.

use std::fs;
use std::path::PathBuf;

use super::*;
use crate::boot::preview::preview;

/// Of standalone mode, before the node started.
const EARLIER: &str = "etc/cni/net.d/10-sluice.conflist";
const LIST: &str = r#"{"name":"main","plugins":[{"type":"ptp"}]}"#;

struct Node {
    root: tempfile::TempDir,
    paths: Paths,
    plugin: PathBuf,
}

impl Node {
    fn with(files: &[(&str, &str)]) -> Self {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        let plugin = paths.shipped_plugin();
        let node = Self { root, paths, plugin };
        let shipped = [("usr/libexec/sluice/sluice-cni", "shipped")];
        files.iter().chain(&shipped).for_each(|(path, text)| node.write(path, text));
        node
    }

    fn write(&self, path: &str, text: &str) {
        let path = self.root.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    }

    fn read(&self, path: &str) -> Option<String> {
        fs::read_to_string(self.root.path().join(path)).ok()
    }

    fn boot(&self) -> Boot<'_> {
        Boot { paths: &self.paths, plugin: &self.plugin }
    }

    /// What `sluice plan` prints, without the directory.
    fn plan(&self) -> String {
        let settings = merge(&Layers::of_image(&self.paths).unwrap().documents()).unwrap().settings;
        let changes = preview(&self.boot().plan(&settings, &[])).unwrap();
        changes.concat().replace(&self.root.path().display().to_string(), "")
    }

    /// Codes of what could not be done.
    fn run(&self) -> Vec<String> {
        let layers = Layers::of_image(&self.paths);
        let in_force = self.boot().run(layers, Duration::ZERO).unwrap().in_force;
        in_force.unmet.into_iter().map(|trouble| trouble.code().to_owned()).collect()
    }
}

#[test]
fn conflist_of_an_earlier_network_goes_as_planned() {
    let node =
        Node::with(&[(EARLIER, "{\"plugins\":[]}\n"), ("etc/cni/net.d/20-main.conflist", LIST)]);
    let shown = format!("--- /{EARLIER}\n+++ /dev/null\n");
    assert!(node.plan().contains(&shown), "{}", node.plan());
    assert_eq!(node.run(), [""; 0]);
    assert_eq!(node.read(EARLIER), None);
    assert_eq!(node.plan(), "");
}

#[test]
fn boot_that_cannot_install_its_plugin_leaves_the_conflists_as_they_were() {
    let files = [
        (EARLIER, "{\"plugins\":[]}\n"),
        ("etc/cni/net.d/20-main.conflist", LIST),
        ("opt/cni", "a file"),
    ];
    let node = Node::with(&files);
    assert_eq!(node.run(), ["plugin-not-installed"]);
    for (path, text) in files {
        assert_eq!(node.read(path).as_deref(), Some(text), "{path}");
    }
}

#[test]
fn no_chain_names_a_plugin_that_is_not_there() {
    let main = "etc/cni/net.d/20-main.conflist";
    let listed = crate::libcni::conflist::add(LIST).unwrap();
    let node = Node::with(&[(main, &listed), ("opt/cni", "a file")]);
    assert_eq!(node.run(), ["plugin-not-installed"]);
    assert_eq!(node.read(main).as_deref(), Some(LIST));
}
