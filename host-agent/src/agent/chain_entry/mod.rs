// SPDX-License-Identifier: Apache-2.0
//! Our entry in the active conflist: the VPC CNI replaces its file at every
//! start and merges nothing, so the entry is restored, at once, however often
//! (contest.rs). Where it is not wanted it is taken out.

mod contest;

use std::fs::{self, Metadata};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use settings_model::Settings;

use self::contest::{ANY_WRITER, Advice, CILIUM, Contest, Stamp};
use crate::host::lock::unless_busy;
use crate::host::paths::Paths;
use crate::libcni::conflist::{TextFile, has_cilium, has_entry};
use crate::libcni::edit::{replace, take_out};
use crate::libcni::entry::{
    Upstream, edited, has_plugin, is_chained, plugin, rates_kept, upstream,
};
use crate::libcni::files::active_conflist;
use crate::trouble::code::{self, Code};
use crate::trouble::{Severity, Trouble};

/// Until the next try where another process, a boot, writes files.
const BUSY: Duration = Duration::from_millis(5);

#[derive(Debug, Default)]
pub struct Chain {
    due: Option<Instant>,
    writes: u64,
    contest: Contest,
    /// Whether an entry of the upstream plugin was taken out, and no one has written the file without
    /// one since.
    replaced: bool,
}

impl Chain {
    /// Times that the entry was restored, or taken out as the settings say.
    pub fn writes(&self) -> u64 {
        self.writes
    }

    pub fn look_again(&mut self, now: Instant) {
        self.due = Some(now);
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
        // A boot at the same time would write the same temporary file; should it hang, we do not.
        let alone = match unless_busy(paths.files_lock().take(Duration::ZERO)).transpose() {
            None => {
                self.due = Some(now + BUSY);
                return None;
            }
            Some(alone) => alone,
        };
        let kept = alone.and_then(|_alone| {
            if is_chained(settings) && has_plugin(&plugin(paths, settings)) {
                self.put_in(settings, &dir, now)
            } else if is_chained(settings) {
                self.take_out(&dir).map(|()| Some(no_plugin(paths, settings)))
            } else {
                self.take_out(&dir).map(|()| None)
            }
        });
        Some(
            kept.unwrap_or_else(|e| {
                Some(trouble(code::CONFLIST_NOT_WRITTEN, &dir, format!("{e:#}")))
            }),
        )
    }

    fn put_in(&mut self, settings: &Settings, dir: &Path, now: Instant) -> Result<Option<Trouble>> {
        let read = active_conflist(dir).and_then(|found| Ok((edited(settings, &found)?, found)));
        let (found, edited) = match read {
            Ok((Some(edited), Some(found))) => (found, edited),
            Ok(_) => {
                let what = "there is no CNI configuration yet".into();
                return Ok(Some(trouble(code::CONFLIST_MISSING, dir, what)));
            }
            Err(e) => return Ok(Some(trouble(code::CONFLIST_UNREADABLE, dir, format!("{e:#}")))),
        };
        let upstream = upstream(settings, &found);
        if found.text != edited.text
            && let Some(until) = self.write(settings, &found, &edited.text, now)?
        {
            self.due = Some(until);
            return Ok(Some(contested(&found)));
        }
        Ok(self.beside(upstream, &found.path))
    }

    /// Gives until when the file is left as it is, if there is a contest for it.
    fn write(
        &mut self,
        settings: &Settings,
        found: &TextFile,
        text: &str,
        now: Instant,
    ) -> Result<Option<Instant>> {
        let upstream = upstream(settings, found);
        let look = || fs::metadata(&found.path);
        let meta = look().with_context(|| format!("look at {}", found.path.display()))?;
        if !has_entry(&found.text).unwrap_or(false) && !upstream.is_some_and(Upstream::stays) {
            self.replaced = false;
            let by = if has_cilium(&found.text) { CILIUM } else { ANY_WRITER };
            match self.contest.gone(stamp(&meta), by, now) {
                Advice::PutBack => {}
                // Whether it is a contest is to be seen.
                Advice::Hold(until) => {
                    self.due = Some(until);
                    return Ok(None);
                }
                Advice::StandBack(until) => return Ok(Some(until)),
            }
            self.contest.put_back(now);
        }
        let edit = |text: TextFile| {
            let edited = edited(settings, &Some(text))?;
            Ok(edited.map(|edited| edited.text.into_bytes()).unwrap_or_default())
        };
        replace(found, text.as_bytes(), &meta, edit)?;
        self.writes += 1;
        self.replaced |= upstream == Some(Upstream::Replaced);
        let path = found.path.display();
        match upstream {
            None => log::info!("put our entry into {path}"),
            Some(Upstream::Replaced) => log::warn!(
                CODE = code::UPSTREAM_REPLACED.name;
                "put our entry into {path} in the place of the upstream \"bandwidth\" plugin's"
            ),
            Some(Upstream::Kept | Upstream::HasRates(_)) => {
                log::warn!(CODE = code::UPSTREAM_ENTRY.name; "took our entry out of {path}: the upstream \"bandwidth\" plugin is there, and is to be kept");
            }
        }
        Ok(None)
    }

    /// What is to be reported of the upstream plugin.
    fn beside(&self, upstream: Option<Upstream>, path: &Path) -> Option<Trouble> {
        match upstream {
            Some(Upstream::Kept) => {
                let what = "the upstream \"bandwidth\" plugin is in the chain, and we are not: \
                            cni.upstream-bandwidth is \"keep\""
                    .into();
                let next_step = "new pods are limited by it; to have them limited by us, set \
                                 \"replace\", or take it out (VPC CNI: ENABLE_BANDWIDTH_PLUGIN=false)";
                let kept = trouble(code::UPSTREAM_ENTRY, path, what).with_severity(Severity::Note);
                Some(kept.with_next_step(next_step))
            }
            Some(Upstream::HasRates(rates)) => {
                let next_step = format!(
                    "to have pods limited by us, give bandwidth.{rates}, or rates of your own, or take \
                     them out of the entry"
                );
                let kept = trouble(code::UPSTREAM_RATES, path, rates_kept(&rates));
                Some(kept.with_next_step(next_step))
            }
            _ if self.replaced => {
                let what =
                    "the upstream \"bandwidth\" plugin was in the chain; we have its place: \
                            cni.upstream-bandwidth is \"replace\""
                        .into();
                Some(trouble(code::UPSTREAM_REPLACED, path, what))
            }
            _ => None,
        }
    }

    fn take_out(&mut self, dir: &Path) -> Result<()> {
        self.writes += take_out(dir)?;
        (self.contest, self.replaced) = (Contest::default(), false);
        Ok(())
    }
}

/// Another writer removes our entry whenever it appears.
fn contested(found: &TextFile) -> Trouble {
    let (what, next_step) = match has_cilium(&found.text) {
        true => (
            "Cilium writes this file again after each change (cni.exclusive=true)",
            "set cni.exclusive=false in Cilium's chart (cilium-config: cni-exclusive: \"false\"), then \
             kubectl -n kube-system rollout restart ds/cilium; until then pods are adopted instead",
        ),
        false => (
            "another writer removes our entry again and again",
            "find what else edits the conflist; until then pods are adopted instead",
        ),
    };
    trouble(code::CONTESTED, &found.path, what.into()).with_next_step(next_step)
}

/// A chain with our entry would start no pod.
fn no_plugin(paths: &Paths, settings: &Settings) -> Trouble {
    let what = "the plugin's executable is not there, so our entry is not in the conflist".into();
    trouble(code::PLUGIN_MISSING, &plugin(paths, settings), what)
}

fn stamp(meta: &Metadata) -> Stamp {
    (meta.ino(), meta.mtime(), meta.mtime_nsec())
}

fn trouble(code: &Code, subject: &Path, what: String) -> Trouble {
    Trouble::new(code, subject.display().to_string(), what)
}
