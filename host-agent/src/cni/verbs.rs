// SPDX-License-Identifier: Apache-2.0
//! One call of the plugin: which verb it is of, and VERSION.

use serde_json::json;

use super::error::Error;
use super::request::{CNI_VERSIONS, Command, Environment, Request, cni_version};
use super::{add, check, delete, gc, status};
use crate::host::paths::Paths;

/// One call of the plugin: what to print on standard output, and whether it went well.
pub fn run(paths: &Paths, environment: &Environment, stdin: &str) -> Result<String, String> {
    // What is no JSON has no version; the verbs that need a configuration will say so.
    let version = cni_version(stdin).unwrap_or_default();
    let dispatch = || -> Result<String, Error> {
        let command = environment.command()?;
        command.check_version(&version)?;
        let nothing = |()| String::new();
        match command {
            Command::Add => add::add(paths, &Request::decode(environment, stdin)?),
            Command::Del => delete::delete(paths, environment).map(nothing),
            Command::Check => {
                check::check(paths, &Request::decode(environment, stdin)?).map(nothing)
            }
            Command::Gc => gc::gc(paths, &gc::Valid::decode(stdin)?).map(nothing),
            Command::Status => status::status(paths).map(nothing),
            Command::Version => Ok(supported(&version)),
        }
    };
    dispatch()
        .map_err(|e| e.to_json(CNI_VERSIONS.iter().find(|v| **v == version).unwrap_or(&"1.0.0")))
}

fn supported(asked: &str) -> String {
    let answered = if asked.is_empty() { "1.0.0" } else { asked };
    json!({ "cniVersion": answered, "supportedVersions": CNI_VERSIONS }).to_string()
}
