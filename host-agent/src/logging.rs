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
                eprintln!("sluice: {}: {}", record.level().as_str().to_lowercase(), record.args());
            }
            Self::ToJournald => eprintln!("<{}>{}", priority(record.level()), record.args()),
        }
    }

    fn flush(&self) {}
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
            journal.with_syslog_identifier("sluice".into()).install().context("log to the journal")
        }
        (true, true) => log::set_logger(&Stderr::ToJournald).context("log to standard error"),
        (false, _) => log::set_logger(&Stderr::Plain).context("log to standard error"),
    }
}
