// SPDX-License-Identifier: Apache-2.0
//! The protocol `proto1` of Bottlerocket's settings extensions, byte for byte as its SDK speaks it
//! (bottlerocket-settings-sdk 0.1.0-alpha.2, argh 0.1.12): what an operation has to say goes to standard
//! output, what is wrong with the call to standard error, and the status is 0 or 1.
//! Never decides what a setting may be; settings-model does.

use std::collections::BTreeMap;
use std::ffi::OsString;

use anyhow::Result;
use serde_json::{Value, json};
use settings_model::SluiceSettingsV1;

use super::output::{print, print_error};

/// The one version of the model.
const VERSION: &str = SluiceSettingsV1::VERSION;

/// What a call gets to see.
#[derive(Debug, PartialEq, Eq)]
enum Answer {
    Done(String),
    Refused(String),
    Help(String),
    Misused(String),
}

/// Answers the call that this process is, from the protocol on; gives the exit status. Not by way of clap, which
/// would take a `--` out of it.
pub fn run() -> Result<u8> {
    let names = ["proto1", "settings-extension"];
    let called = std::env::args_os().skip_while(|it| !names.iter().any(|name| it == name));
    let mut called = called.peekable();
    called.next_if(|it| it == "settings-extension");
    let arguments = called.map(OsString::into_string).collect::<Result<Vec<_>, _>>();
    let answer = match arguments {
        Ok(arguments) => answer(&arguments),
        Err(bad) => {
            print_error(&format!("Invalid utf8: {}\n", bad.to_string_lossy()))?;
            return Ok(1);
        }
    };
    match answer {
        Answer::Done(text) | Answer::Help(text) => print(&(text + "\n")).map(|()| 0),
        Answer::Refused(text) => print(&(text + "\n")).map(|()| 1),
        Answer::Misused(text) => {
            print_error(&format!("{text}\nRun sluice --help for more information.\n")).map(|()| 1)
        }
    }
}

/// What a command was given: each option's values.
type Given = BTreeMap<&'static str, Vec<Value>>;

/// A command, its options in the order of the SDK, and what it does.
struct Operation {
    name: &'static str,
    options: &'static [Parameter],
    answer: fn(&Given) -> Result<String, String>,
}

#[derive(Clone, Copy)]
struct Parameter {
    name: &'static str,
    is_json: bool,
    count: Count,
}

#[derive(Clone, Copy, PartialEq)]
enum Count {
    One,
    AtMostOne,
    Any,
}

const fn text(name: &'static str) -> Parameter {
    Parameter { name, is_json: false, count: Count::One }
}

const fn json_value(name: &'static str, count: Count) -> Parameter {
    Parameter { name, is_json: true, count }
}

const SET_VERSION: Parameter = text("--setting-version");
const VALUE: Parameter = json_value("--value", Count::One);
const REQUIRED: Parameter = json_value("--required-settings", Count::AtMostOne);
const FROM: Parameter = text("--from-version");

const OPERATIONS: [Operation; 6] = [
    Operation {
        name: "set",
        options: &[SET_VERSION, VALUE, json_value("--current-value", Count::AtMostOne)],
        answer: set,
    },
    Operation {
        name: "generate",
        options: &[SET_VERSION, json_value("--existing-partial", Count::AtMostOne), REQUIRED],
        answer: generate,
    },
    Operation { name: "validate", options: &[SET_VERSION, VALUE, REQUIRED], answer: validate },
    Operation {
        name: "migrate",
        options: &[VALUE, FROM, text("--target-version")],
        answer: migrate,
    },
    Operation { name: "flood-migrate", options: &[VALUE, FROM], answer: flood_migrate },
    Operation {
        name: "helper",
        options: &[SET_VERSION, text("--helper-name"), json_value("--arg", Count::Any)],
        answer: helper,
    },
];

/// Takes a call apart as argh does, and answers it.
fn answer(arguments: &[String]) -> Answer {
    let (mut protocol, mut operation): (bool, Option<&Operation>) = (false, None);
    let (mut given, mut help, mut options_ended) = (Given::new(), false, false);
    let mut rest = arguments.iter();
    while let Some(argument) = rest.next() {
        let named = OPERATIONS.iter().find(|operation| operation.name == argument);
        match (argument.as_str(), operation) {
            ("--help" | "help", _) if !options_ended => help = true,
            ("--", _) if !options_ended => options_ended = true,
            (option, _) if option.starts_with('-') && !options_ended && help => {
                return Answer::Misused("Trailing arguments are not allowed after `help`.".into());
            }
            (option, Some(operation)) if option.starts_with('-') && !options_ended => {
                if let Err(why) = take(operation, option, rest.next(), &mut given) {
                    return Answer::Misused(why);
                }
            }
            ("proto1", None) if !protocol => (protocol, options_ended) = (true, false),
            (_, None) if protocol && named.is_some() => (operation, options_ended) = (named, false),
            (other, _) => return Answer::Misused(unrecognized(other)),
        }
    }
    match (help, operation) {
        (true, _) => Answer::Help(usage()),
        (false, Some(operation)) => perform(operation, &given),
        (false, None) if protocol => missing_command(OPERATIONS.map(|operation| operation.name)),
        (false, None) => missing_command(["proto1"]),
    }
}

fn unrecognized(argument: &str) -> String {
    format!("Unrecognized argument: {argument}\n")
}

fn missing_command<const N: usize>(names: [&str; N]) -> Answer {
    let names = names.map(|name| format!("    {name}\n")).concat();
    Answer::Misused(format!("One of the following subcommands must be present:\n    help\n{names}"))
}

/// Notes an option's value.
fn take(
    operation: &Operation,
    name: &str,
    value: Option<&String>,
    given: &mut Given,
) -> Result<(), String> {
    let option = operation.options.iter().find(|option| option.name == name);
    let option = option.ok_or_else(|| unrecognized(name))?;
    let value = value.ok_or_else(|| format!("No value provided for option '{name}'.\n"))?;
    let values = given.entry(option.name).or_default();
    let parsed = match option.is_json {
        _ if option.count != Count::Any && !values.is_empty() => {
            Err("duplicate values provided".to_owned())
        }
        true => value.parse::<Value>().map_err(|e| e.to_string()),
        false => Ok(Value::from(value.as_str())),
    };
    let error = |why| format!("Error parsing option '{name}' with value '{value}': {why}\n");
    values.push(parsed.map_err(error)?);
    Ok(())
}

fn perform(operation: &Operation, given: &Given) -> Answer {
    let needed = operation.options.iter().filter(|option| option.count == Count::One);
    let missing = needed.filter(|option| !given.contains_key(option.name));
    let missing: String = missing.map(|option| format!("\n    {}", option.name)).collect();
    match missing.is_empty() {
        false => Answer::Misused(format!("Required options not provided:{missing}\n")),
        true => (operation.answer)(given).map_or_else(Answer::Refused, Answer::Done),
    }
}

fn usage() -> String {
    let of = |operation: &Operation| {
        let options = operation.options.iter().map(|option| {
            let word = option.name.trim_start_matches('-');
            match option.count {
                Count::One => format!(" {} <{word}>", option.name),
                Count::AtMostOne => format!(" [{} <{word}>]", option.name),
                Count::Any => format!(" [{} <{word}...>]", option.name),
            }
        });
        format!("\n  sluice proto1 {}{}", operation.name, options.collect::<String>())
    };
    let calls: String = OPERATIONS.iter().map(of).collect();
    format!(
        "Settings extension of Bottlerocket for settings.sluice, protocol proto1.\n\nUsage:{calls}"
    )
}

/// The one value of an option.
fn value<'g>(given: &'g Given, name: &str) -> Option<&'g Value> {
    given.get(name)?.first()
}

fn word<'g>(given: &'g Given, name: &str) -> &'g str {
    value(given, name).and_then(Value::as_str).unwrap_or_default()
}

fn check_version(given: &Given, option: &str) -> Result<(), String> {
    match word(given, option) {
        VERSION => Ok(()),
        other => Err(format!("Requested model version '{other}' not found")),
    }
}

fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

/// Reads a value as the model; `input` is what the SDK calls it.
fn model(given: &Given, name: &str, input: &str) -> Result<Option<SluiceSettingsV1>, String> {
    let Some(value) = value(given, name) else { return Ok(None) };
    let read = serde_json::from_value(value.clone()).map_err(|e| {
        let what = format!("'{input}' input as settings value version '{VERSION}'");
        format!("Failed to deserialize {what}: {e}\nValue: {}", pretty(value))
    });
    read.map(Some)
}

fn set(given: &Given) -> Result<String, String> {
    check_version(given, "--setting-version")?;
    let read = model(given, "--current-value", "current-value")
        .and_then(|_| model(given, "--value", "target-value"));
    judge(read, None, "Set operation", "set")
}

fn validate(given: &Given) -> Result<String, String> {
    check_version(given, "--setting-version")?;
    let read = model(given, "--value", "value");
    judge(read, value(given, "--required-settings"), "Validate operation", "validate")
}

/// Whether what was read goes together.
fn judge(
    read: Result<Option<SluiceSettingsV1>, String>,
    others: Option<&Value>,
    operation: &str,
    name: &str,
) -> Result<String, String> {
    let checked = read.and_then(|model| {
        let checked = model.unwrap_or_default().check(others);
        checked.map_err(|e| format!("Failed to run '{name}' on setting version '{VERSION}': {e}"))
    });
    checked.map(|()| String::new()).map_err(|why| format!("{operation} failed: {why}"))
}

fn generate(given: &Given) -> Result<String, String> {
    check_version(given, "--setting-version")?;
    let partial = model(given, "--existing-partial", "existing-partial");
    let partial = partial.map_err(|why| format!("Generate operation failed: {why}"))?;
    Ok(pretty(&json!({ "Complete": partial.unwrap_or_default().complete() })))
}

/// The value to migrate, which must be one of the version that it is from.
fn migrated(given: &Given) -> Result<SluiceSettingsV1, String> {
    check_version(given, "--from-version")?;
    let value = value(given, "--value").cloned().unwrap_or_default();
    serde_json::from_value(value).map_err(|e| {
        let why = format!("Failed to parse setting value (version '{VERSION}') from JSON: {e}");
        format!("Failed to parse input as requested model version '{VERSION}': {why}")
    })
}

fn migrate(given: &Given) -> Result<String, String> {
    let model = migrated(given)?;
    match word(given, "--target-version") {
        VERSION => Ok(pretty(&json!(model))),
        target => Err(format!(
            "Migrate operation failed: No migration route found for '{VERSION}' to '{target}'"
        )),
    }
}

fn flood_migrate(given: &Given) -> Result<String, String> {
    Ok(pretty(&json!([{ "version": VERSION, "value": migrated(given)? }])))
}

/// There is none: the template that Sluice ships needs a standard helper only.
fn helper(given: &Given) -> Result<String, String> {
    check_version(given, "--setting-version")?;
    let helper = format!("'{}@{VERSION}'", word(given, "--helper-name"));
    let why = format!("Failed to find template helper {helper} from settings extension");
    Err(format!("Template helper execution failed: {why}"))
}

#[cfg(test)]
mod tests;
