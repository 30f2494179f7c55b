// SPDX-License-Identifier: Apache-2.0
//! What the commands print: text for other programs as it is, and screens that
//! fit the terminal, in colours where it has any.

use std::io::{self, IsTerminal, Write};

use anyhow::{Context, Result};
use crossterm::style::{Color, Stylize};
use crossterm::terminal::size;
use serde::Serialize;

use crate::boot::{kubelet, lines};
use crate::host::logging::harmless_lines;
use crate::settings::user_data::carrier::CarrierError;

/// Logs the error, or each problem of the settings as an entry of its own; gives the exit status.
pub fn report(error: &anyhow::Error) -> u8 {
    lines(error).iter().for_each(|line| log::error!("{line}"));
    let settings = error.is::<settings_model::Problems>() || error.is::<CarrierError>();
    let kubelet = error.is::<kubelet::NotForKubelet>();
    let newer = matches!(error.downcast_ref(), Some(bpf::Error::NewerLayout { .. }));
    match error.is::<WrongUsage>() {
        true => 2,
        false if settings || kubelet || newer => 78,
        false => 1,
    }
}

/// An option's value that is none, which only its command can know.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct WrongUsage(pub String);

/// What every `--json` prints is an object that begins with this. Another number when a field goes or means
/// something else; a new field has no number.
const SCHEMA: u32 = 1;

#[derive(Serialize)]
struct Versioned<'v, T> {
    schema: u32,
    #[serde(flatten)]
    value: &'v T,
}

/// As every `--json` prints it.
pub fn to_json(value: &impl Serialize) -> Result<String> {
    Ok(serde_json::to_string_pretty(&Versioned { schema: SCHEMA, value })? + "\n")
}

/// What went wrong, on standard output too where JSON was asked for; the exit status tells it apart.
pub fn or_json<T>(result: Result<T>, json: bool) -> Result<T> {
    if let (Err(error), true) = (&result, json) {
        print(&to_json(&serde_json::json!({ "error": format!("{error:#}") }))?)?;
    }
    result
}

/// To standard output. A reader that has seen enough (`| head`) is no trouble.
pub fn print(text: &str) -> Result<()> {
    write(&harmless_lines(text))
}

/// To standard error, for a program that must find certain bytes there.
pub fn print_error(text: &str) -> Result<()> {
    io::stderr().write_all(harmless_lines(text).as_bytes()).context("write to standard error")
}

/// The same for people: no line is longer than the terminal is wide.
pub fn show(text: &str) -> Result<()> {
    let safe = harmless_lines(text);
    let Some(width) = width() else { return write(&safe) };
    let lines = safe.lines().flat_map(|line| wrapped(line, width));
    write(&lines.map(|line| painted(&line) + "\n").collect::<String>())
}

fn write(text: &str) -> Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(e) if e.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        result => result.context("write to standard output"),
    }
}

/// Columns of the terminal; None where there is none.
pub fn width() -> Option<usize> {
    io::stdout().is_terminal().then(|| terminal_size().0.into())
}

/// Columns and lines.
pub fn terminal_size() -> (u16, u16) {
    // Some know no size, e.g. a serial line.
    size().ok().filter(|size| *size != (0, 0)).unwrap_or((80, 24))
}

/// At spaces, the rest below where the text of the line begins.
pub fn wrapped(line: &str, width: usize) -> Vec<String> {
    let indent = (line.len() - line.trim_start().len()).min(width / 3);
    let hang = Some(hang(line)).filter(|hang| *hang <= width / 2).unwrap_or(indent + 2);
    let (mut lines, mut current) = (Vec::new(), String::new());
    let mut is_first = true;
    for word in line.trim_start().split(' ') {
        let mut word: Vec<char> = word.chars().collect();
        let space = usize::from(!is_first);
        if current.chars().count() + space + word.len() > width && !is_first {
            lines.push(std::mem::take(&mut current));
            is_first = true;
        }
        if is_first {
            current = " ".repeat(if lines.is_empty() { indent } else { hang });
        } else {
            current.push(' ');
        }
        while current.chars().count() + word.len() > width {
            let rest = word.split_off(width - current.chars().count());
            current.extend(word);
            lines.push(std::mem::replace(&mut current, " ".repeat(hang)));
            word = rest;
        }
        current.extend(word);
        is_first = false;
    }
    lines.push(current);
    lines.iter().map(|line| line.trim_end().to_owned()).collect()
}

/// Behind the name of what follows: one with a colon, or with space enough to stand in a column.
fn hang(line: &str) -> usize {
    let text = line.trim_start();
    let indent = line.len() - text.len();
    let end_of_name = match text.split_once(' ') {
        Some((name, _)) if name.ends_with(':') => Some(name.len()),
        _ => text.find("  "),
    };
    end_of_name.map_or(indent + 2, |end| {
        let name = text[..end].chars().count();
        indent + name + (text.len() - end - text[end..].trim_start().len())
    })
}

/// A line that begins or ends with how bad something is.
pub fn painted(line: &str) -> String {
    if std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty())
        || std::env::var_os("TERM").is_some_and(|terminal| terminal == "dumb")
    {
        return line.into();
    }
    let first = line.split(' ').next().unwrap_or_default();
    let last = line.rsplit(' ').next().unwrap_or_default();
    match (colour(first.trim_end_matches(':')), colour(last)) {
        _ if line == "degraded: nothing" => line.with(Color::Green).to_string(),
        (Some(colour), _) => format!("{}{}", first.with(colour), &line[first.len()..]),
        (None, Some(colour)) => {
            format!("{}{}", &line[..line.len() - last.len()], last.with(colour))
        }
        (None, None) => line.into(),
    }
}

fn colour(word: &str) -> Option<Color> {
    match word {
        "fault" | "FAULT" | "broken" => Some(Color::Red),
        "degraded" | "DEGRADED" | "policed" | "guarded" => Some(Color::Yellow),
        "ok" => Some(Color::Green),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_lines_go_on_below_where_their_text_begins() {
        for (line, expected) in [
            ("short", &["short"][..]),
            ("", &[""]),
            (
                "agent:    ready, version 0.1.0; 12 passes",
                &["agent:    ready, version 0.1.0;", "          12 passes"],
            ),
            (
                "    next: find what does it and remove it",
                &["    next: find what does it and", "          remove it"],
            ),
            (
                "some words that go on for longer than it is wide",
                &["some words that go on for longer", "  than it is wide"],
            ),
            (
                "a /very/long/path/that/has/no/space/at/all/in/it",
                &["a", "  /very/long/path/that/has/no/sp", "  ace/at/all/in/it"],
            ),
        ] {
            assert_eq!(wrapped(line, 32), expected);
        }
    }
}
