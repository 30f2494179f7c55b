// SPDX-License-Identifier: Apache-2.0
//! The documents that settings come from, lowest first: the image's defaults,
//! the machine's own files, the user data. Beside them what the same user data
//! holds for nodeadm. Reads files; judges nothing.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use settings_model::{Effective, Problems};

use crate::host::paths::Paths;
use crate::settings::document::{Document, NodeConfig, UserData};
use crate::settings::k3s::Dirs;

/// What there is below the user data, and the user data.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Layers {
    image: Vec<Document>,
    user_data: Option<Document>,
    /// Of this boot's user data, whichever settings apply in the end: nodeadm reads them again at
    /// each start, so no generation keeps them.
    node_configs: Vec<NodeConfig>,
}

impl Layers {
    /// What k3s has, /usr/share/sluice/defaults.toml, /etc/sluice/settings.toml and settings.d/*.toml by name.
    pub fn of_image(paths: &Paths) -> Result<Self> {
        let mut files = vec![paths.defaults_file(), paths.settings_file()];
        files.extend(toml_files(&paths.settings_dir())?);
        let read = files.iter().map(|file| read(file)).collect::<Result<Vec<_>>>()?;
        let k3s = Dirs::find(paths).map(|dirs| dirs.document());
        Ok(Self {
            image: k3s.into_iter().chain(read.into_iter().flatten()).collect(),
            ..Self::default()
        })
    }

    /// Of documents as they were in force, lowest first.
    pub fn of(documents: Vec<Document>) -> Self {
        Self { image: documents, ..Self::default() }
    }

    pub fn with_user_data(self, user_data: UserData) -> Self {
        let UserData { document, node_configs } = user_data;
        Self { user_data: document, node_configs, ..self }
    }

    /// The settings below it; what it holds for nodeadm counts all the same.
    pub fn without_user_data(&self) -> Self {
        Self { user_data: None, ..self.clone() }
    }

    /// Where the user data as a whole could not be had.
    pub fn with_node_configs(self, node_configs: Vec<NodeConfig>) -> Self {
        Self { node_configs, ..self }
    }

    /// What the user data gives nodeadm, a later one winning.
    pub fn node_configs(&self) -> &[NodeConfig] {
        &self.node_configs
    }

    /// Lowest first.
    pub fn documents(&self) -> Vec<Document> {
        self.image.iter().chain(&self.user_data).cloned().collect()
    }
}

/// The settings that all documents together give, lowest first.
pub fn merge(documents: &[Document]) -> Result<Effective, Problems> {
    let layers: Vec<_> = documents.iter().map(|d| (d.name.as_str(), d.text.as_str())).collect();
    settings_model::merge(&layers)
}

/// None where there is no such file.
fn read(path: &Path) -> Result<Option<Document>> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(Document { name: path.display().to_string(), text })),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(e).with_context(|| format!("read {}", path.display())),
    }
}

fn toml_files(dir: &Path) -> Result<Vec<PathBuf>> {
    let attempt = || format!("list {}", dir.display());
    let entries = match fs::read_dir(dir) {
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => return Ok(Vec::new()),
        entries => entries.with_context(attempt)?,
    };
    let paths = entries.map(|entry| entry.map(|entry| entry.path()));
    let mut paths = paths.collect::<std::io::Result<Vec<_>>>().with_context(attempt)?;
    paths.retain(|path| path.extension().is_some_and(|extension| extension == "toml"));
    paths.sort();
    Ok(paths)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nodeadms_part_of_the_user_data_counts_whichever_settings_hold() {
        let document = Document { name: "user-data".into(), text: String::new() };
        let text = Ok("kind: NodeConfig".into());
        let node_configs = vec![NodeConfig { name: "user-data part 1".into(), text }];
        let user_data = UserData { document: Some(document), node_configs };
        let layers = Layers::default().with_user_data(user_data.clone());
        let below = layers.without_user_data();
        assert_eq!((layers.documents().len(), below.documents().len()), (1, 0));
        assert_eq!(layers.node_configs(), user_data.node_configs);
        assert_eq!(below.node_configs(), user_data.node_configs);
    }
}
