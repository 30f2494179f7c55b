// SPDX-License-Identifier: Apache-2.0
//! The commands about settings: judging a document anywhere, and showing what
//! is in force on this node and where each value comes from.

use std::io::IsTerminal;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use clap::{Args, Subcommand};
use serde_json::{Value, json};
use settings_model::{Effective, Entry, Origin, Problems, Warning, code};

use super::output::{or_json, print, show, to_json};
use crate::boot::kubelet::{self, NotForKubelet};
use crate::host::logging::harmless_lines;
use crate::host::paths::Paths;
use crate::settings::document::Document;
use crate::settings::generation::Generations;
use crate::settings::in_force::InForce;
use crate::settings::in_words::limits;
use crate::settings::layers::{Layers, merge};
use crate::settings::user_data;

#[derive(Args)]
pub struct Check {
    /// User data or another document of settings; `-` is standard input
    file: PathBuf,
    /// Problems and warnings as JSON, with stable codes
    #[arg(long)]
    json: bool,
    /// Exit with status 78 also where there are no settings for Sluice
    #[arg(long)]
    require_settings: bool,
}

#[derive(Subcommand)]
pub enum SettingsCommand {
    /// Show the settings in force, or those that a document would give on this node
    Show {
        /// User data, above the image's own settings; `-` is standard input
        #[arg(long, value_name = "FILE")]
        user_data: Option<PathBuf>,
        /// Say for each value where it comes from
        #[arg(long)]
        origin: bool,
        /// Print JSON instead of text
        #[arg(long)]
        json: bool,
    },
    /// Print the JSON Schema of a document of settings
    Schema,
    /// Explain a key: meaning, what is allowed, default, example
    Explain {
        /// Path inside our table, e.g. bandwidth.burst
        key: String,
    },
}

/// Exit status 0 for settings that can be used, 78 for others.
pub fn check(asked: &Check) -> Result<u8> {
    or_json(judged(asked), asked.json)
}

fn judged(asked: &Check) -> Result<u8> {
    let user_data = user_data::read_unlogged(&asked.file)?;
    let name = user_data::name_of(&asked.file);
    let document = user_data.document.unwrap_or(Document { name, text: String::new() });
    let merged = merge(std::slice::from_ref(&document));
    let settings = merged.as_ref().ok().map(|effective| &effective.settings);
    let refused = settings.and_then(|it| kubelet::contradiction(it, &user_data.node_configs));
    if asked.json {
        print(&to_json(&verdict(&merged, refused.as_ref()))?)?;
        return match (merged, refused) {
            (Ok(effective), None) => tell_what_was_read(&effective, &document.name, asked),
            _ => Ok(78),
        };
    }
    match merged {
        Ok(effective) => {
            tell(&effective.warnings, &document);
            match refused {
                None => tell_what_was_read(&effective, &document.name, asked),
                Some(why) => Err(why.into()),
            }
        }
        Err(problems) if std::io::stderr().is_terminal() => {
            let text = [(document.name.as_str(), document.text.as_str())];
            eprint!("{}", harmless_lines(&problems.render_with_caret(&text)));
            Ok(78)
        }
        Err(problems) => Err(problems.into()),
    }
}

pub fn run(paths: &Paths, command: SettingsCommand) -> Result<()> {
    match command {
        SettingsCommand::Show { user_data, origin, json } => {
            let effective = merge(&documents(paths, user_data.as_deref())?)?;
            match (json, origin) {
                (true, true) => print(&to_json(&origins(&effective.entries()))?),
                (true, false) => print(&to_json(&effective.settings.to_json())?),
                (false, true) => show(&with_origin(&effective.entries())),
                (false, false) => print(&effective.settings.to_toml()),
            }
        }
        SettingsCommand::Schema => print(&format!("{:#}\n", settings_model::schema())),
        SettingsCommand::Explain { key } => {
            let text = settings_model::explain(&key).with_context(|| {
                let advice = match settings_model::meant(&key) {
                    Some(meant) => format!("did you mean {meant}?"),
                    None => "docs/settings.md and `sluice settings schema` list them".into(),
                };
                format!("explain {key:?}: no such key; {advice}")
            })?;
            show(&text)
        }
    }
}

fn verdict(merged: &Result<Effective, Problems>, refused: Option<&NotForKubelet>) -> Value {
    match merged {
        Ok(effective) => {
            let warnings: Vec<_> = effective.warnings.iter().map(Warning::to_json).collect();
            let problems: Vec<_> = refused.iter().map(|why| differs(effective, why)).collect();
            json!({ "problems": problems, "warnings": warnings })
        }
        Err(problems) => json!({ "problems": problems.to_json(), "warnings": [] }),
    }
}

/// The number's place in our table; the other place is in the message.
fn differs(effective: &Effective, why: &NotForKubelet) -> Value {
    let key = "max-pods.value";
    let (file, line) = match effective.origin(key) {
        Origin::Written { source, line } => (source, line),
        Origin::Default => Default::default(),
    };
    let (code, message) = (code::MAX_PODS_DIFFER, why.to_string());
    json!({ "code": code, "file": file, "line": line, "column": 1, "key": key, "message": message })
}

/// One line, so that a document without settings does not pass for one with them; gives the exit status.
fn tell_what_was_read(effective: &Effective, name: &str, asked: &Check) -> Result<u8> {
    let keys = match effective.keys_given() {
        0 => {
            let none = format!("{name} has no settings for sluice");
            return match asked {
                Check { require_settings: true, .. } => {
                    log::error!("{none}");
                    Ok(78)
                }
                Check { json: true, .. } => Ok(0),
                _ => show(&format!("{none}\n")).map(|()| 0),
            };
        }
        1 => "1 key".into(),
        several => format!("{several} keys"),
    };
    if !asked.json {
        let limits = limits(&effective.settings.bandwidth);
        show(&format!("{name} has {keys} for sluice; limits: {limits}\n"))?;
    }
    Ok(0)
}

fn tell(warnings: &[Warning], document: &Document) {
    for warning in warnings {
        match std::io::stderr().is_terminal() {
            true => eprint!("{}", harmless_lines(&warning.render_with_caret(&document.text))),
            false => log::warn!("{warning}"),
        }
    }
}

/// Those of the generation in force, or the image's own and the given one above them.
pub fn documents(paths: &Paths, user_data: Option<&Path>) -> Result<Vec<Document>> {
    if let Some(file) = user_data {
        let layers = Layers::of_image(paths)?.with_user_data(user_data::read(file)?);
        return Ok(layers.documents());
    }
    let in_force = InForce::read(&paths.boot_file())?
        .context("no settings are in force: `sluice boot` has not run on this node")?;
    let Some(number) = in_force.generation else {
        return Ok(Layers::of_image(paths)?.documents());
    };
    let all = Generations::new(paths).list();
    let found = all.into_iter().find(|generation| generation.number == number);
    Ok(found.with_context(|| format!("generation {number} is in force, but not stored"))?.documents)
}

/// A built-in default has neither file nor line.
fn origins(entries: &[Entry]) -> Value {
    let one = |Entry { key, value, origin }: &Entry| {
        let (file, line) = match origin {
            Origin::Written { source, line } => (Some(source), Some(line)),
            Origin::Default => (None, None),
        };
        json!({ "key": key, "value": value, "file": file, "line": line })
    };
    json!({ "settings": entries.iter().map(one).collect::<Vec<_>>() })
}

/// Key, value and place, in columns.
fn with_origin(entries: &[Entry]) -> String {
    let width = |text: fn(&Entry) -> &String| entries.iter().map(|e| text(e).len()).max();
    let key_width = width(|entry| &entry.key).unwrap_or(0);
    let value_width = width(|entry| &entry.value).unwrap_or(0).min(40);
    let line = |Entry { key, value, origin }: &Entry| {
        format!("{key:key_width$}  {value:value_width$}  {origin}\n")
    };
    entries.iter().map(line).collect()
}
