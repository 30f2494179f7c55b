// SPDX-License-Identifier: Apache-2.0
//! Our entry in the active conflist: the VPC CNI writes its file anew at every
//! start and merges nothing, so the entry is put back. Who takes it out again
//! and again is left alone for a while.

use std::fs;
use std::path::Path;
use std::time::Instant;

use anyhow::Result;
use settings_model::Settings;

use super::health::Health;
use crate::facts::active_conflist;
use crate::file;
use crate::paths::Paths;
use crate::plan::{FileContent, conflist_file, is_chained};
use crate::report::Trouble;

#[derive(Debug, Default)]
pub struct Chain {
    due: Option<Instant>,
    writes: u64,
    health: Health,
}

enum Written {
    Nothing,
    Entry,
    NotThere,
}

impl Chain {
    /// Times that the entry was put back, or taken out as the settings say.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    pub fn look_again(&mut self, now: Instant) {
        self.due = Some(self.health.quiet_until().map_or(now, |quiet| quiet.max(now)));
    }

    pub fn next(&self) -> Option<Instant> {
        self.due
    }

    /// Looks if it is time to, and writes if it must; gives what is wrong now, if it has looked.
    pub fn keep(
        &mut self,
        paths: &Paths,
        settings: &Settings,
        now: Instant,
    ) -> Option<Option<Trouble>> {
        self.due.take_if(|due| *due <= now)?;
        let dir = paths.resolve(settings.cni.conf_dir.as_ref());
        Some(match self.write(settings, &dir) {
            Ok(Written::Nothing) => None,
            Ok(Written::NotThere) if !is_chained(settings) => None,
            Ok(Written::NotThere) => {
                let what = "there is no CNI configuration yet".into();
                let next_step = "the main CNI plugin writes it; the entry is added then";
                Some(trouble("no-conflist", &dir, what, next_step))
            }
            Ok(Written::Entry) => self.wrote(&dir, now),
            Err(e) => {
                let what = format!("{e:#}");
                let next_step = "new pods get no limit from the chain until this is put right";
                Some(trouble("conflist", &dir, what, next_step))
            }
        })
    }

    fn write(&mut self, settings: &Settings, dir: &Path) -> Result<Written> {
        let found = active_conflist(dir)?;
        let Some(FileContent { path, content, mode }) = conflist_file(settings, &found)? else {
            return Ok(Written::NotThere);
        };
        if found.is_some_and(|found| found.text.as_bytes() == content) {
            return Ok(Written::Nothing);
        }
        let mode = fs::metadata(&path).map_or(mode, |meta| {
            use std::os::unix::fs::PermissionsExt;
            meta.permissions().mode() & 0o777
        });
        file::replace(&path, &content, mode)?;
        log::info!("wrote {}", path.display());
        Ok(Written::Entry)
    }

    fn wrote(&mut self, dir: &Path, now: Instant) -> Option<Trouble> {
        self.writes += 1;
        let quiet = self.health.mended(now)?;
        self.due = Some(quiet);
        let what = "somebody takes our entry out again and again".into();
        let next_step = "find who else edits the conflist; until then pods are adopted instead";
        Some(trouble("contested", dir, what, next_step))
    }
}

fn trouble(code: &str, dir: &Path, what: String, next_step: &str) -> Trouble {
    let subject = dir.display().to_string();
    Trouble { code: code.into(), subject, what, next_step: next_step.into() }
}
