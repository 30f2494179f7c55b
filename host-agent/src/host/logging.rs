// SPDX-License-Identifier: Apache-2.0
//! Log lines go to the journal when systemd connected us to it, else to
//! standard error. What a line is about goes with it as fields, e.g.
//! `info!(POD_NAMESPACE = "a", POD_NAME = "b"; "a/b: limits changed")`: in the
//! journal they are fields of the entry (`journalctl POD_NAME=b`), on standard
//! error they are left out, so the text must be enough for people.
//!
//! Names are the journal's: capitals, digits and underscores. POD_NAMESPACE,
//! POD_NAME, DIRECTION (egress, ingress, guard) and CODE (of a problem or CNI
//! error) are in use.

use anyhow::{Context, Result};
use log::{Level, LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

/// `stderr`: not to the journal's own socket, for journald copies to the console only what it gets
/// from a service's standard error (`StandardError=journal+console`).
const SINK: &str = "SLUICE_LOG";

/// Standard error, for people or for journald.
enum Stderr {
    Plain,
    /// With the priority in front, as sd-daemon(3) says.
    ToJournald,
}

impl Log for Stderr {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        match self {
            Self::Plain => {
                let level = record.level().as_str().to_lowercase();
                eprintln!("sluice: {level}: {}", harmless(&record.args().to_string()));
            }
            Self::ToJournald => {
                let text = harmless(&record.args().to_string());
                eprintln!("<{}>{text}", priority(record.level()));
            }
        }
    }

    fn flush(&self) {}
}

/// The journal's own socket.
struct Journal(JournalLog);

impl Log for Journal {
    fn enabled(&self, metadata: &Metadata) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record) {
        let text = harmless(&record.args().to_string());
        self.0.log(&record.to_builder().args(format_args!("{text}")).build());
    }

    fn flush(&self) {
        self.0.flush();
    }
}

/// One line of text that can do nothing to a terminal: pods choose the names of their devices, and
/// whoever asks the runtime those of pods. Written as JSON writes them, so that JSON stays JSON.
pub fn harmless(text: &str) -> String {
    let show = |c: char| match acts_on_a_terminal(c) {
        true => c.encode_utf16(&mut [0; 2]).iter().map(|unit| format!("\\u{unit:04x}")).collect(),
        false => c.to_string(),
    };
    text.chars().map(show).collect()
}

/// The same for several lines, which may have tabs.
pub fn harmless_lines(text: &str) -> String {
    let lines: Vec<_> = text
        .split('\n')
        .map(|line| line.split('\t').map(harmless).collect::<Vec<_>>().join("\t"))
        .collect();
    lines.join("\n")
}

/// Control characters, and those that change the direction of what follows.
fn acts_on_a_terminal(c: char) -> bool {
    let direction = ['\u{61c}', '\u{200e}', '\u{200f}', '\u{2028}', '\u{2029}'];
    let embedding = matches!(c, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}');
    c.is_control() || embedding || direction.contains(&c)
}

/// The same numbers as systemd-journal-logger's.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 5,
        Level::Debug => 6,
        Level::Trace => 7,
    }
}

pub fn init() -> Result<()> {
    log::set_max_level(LevelFilter::Info);
    let by_stderr = std::env::var_os(SINK).is_some_and(|sink| sink == "stderr");
    match (connected_to_journal(), by_stderr) {
        (true, false) => {
            let journal = JournalLog::new().context("connect to the journal")?;
            let journal = Journal(journal.with_syslog_identifier("sluice".into()));
            log::set_boxed_logger(Box::new(journal)).context("log to the journal")
        }
        (true, true) => log::set_logger(&Stderr::ToJournald).context("log to standard error"),
        (false, _) => log::set_logger(&Stderr::Plain).context("log to standard error"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_is_printed_acts_on_a_terminal() {
        let evil = "\x1b[31mEVIL\x1b[2J \x07\u{9b}1m \u{202e}txt\r\n<3>forged\t\x7f";
        let expected = "\\u001b[31mEVIL\\u001b[2J \\u0007\\u009b1m \\u202etxt\\u000d";
        assert_eq!(harmless(evil), format!("{expected}\\u000a<3>forged\\u0009\\u007f"));
        assert_eq!(harmless_lines(evil), format!("{expected}\n<3>forged\t\\u007f"));
        assert_eq!(harmless_lines("a\n\tb é 漢\n"), "a\n\tb é 漢\n");
    }

    #[test]
    fn json_that_is_printed_means_the_same() {
        let name = "\u{9b}31m\u{7f}";
        let text = harmless_lines(&serde_json::to_string(name).unwrap());
        assert!(text.is_ascii());
        assert_eq!(serde_json::from_str::<String>(&text).unwrap(), name);
    }
}
