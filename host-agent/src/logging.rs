// SPDX-License-Identifier: Apache-2.0
//! Log lines go to the journal when systemd connected us to it, else to
//! standard error.

use anyhow::{Context, Result};
use log::{LevelFilter, Log, Metadata, Record};
use systemd_journal_logger::{JournalLog, connected_to_journal};

struct Stderr;

impl Log for Stderr {
    fn enabled(&self, _: &Metadata) -> bool {
        true
    }

    fn log(&self, record: &Record) {
        eprintln!("sluice: {}: {}", record.level().as_str().to_lowercase(), record.args());
    }

    fn flush(&self) {}
}

pub fn init() -> Result<()> {
    log::set_max_level(LevelFilter::Info);
    if connected_to_journal() {
        let journal = JournalLog::new().context("connect to the journal")?;
        journal.with_syslog_identifier("sluice".into()).install().context("log to the journal")
    } else {
        log::set_logger(&Stderr).context("log to standard error")
    }
}
