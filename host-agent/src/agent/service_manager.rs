// SPDX-License-Identifier: Apache-2.0
//! What the agent reports to the service manager: that it is ready, how it fares in
//! one line, that it is alive. Does nothing where no one asked (NOTIFY_SOCKET is
//! not set). There is no timer here: [`Notify::alive`] belongs into the loop that
//! does the work, so that a loop that hangs is a watchdog that bites.

use std::time::Duration;

use log::warn;
use sd_notify::NotifyState;

/// The service manager, if there is one.
#[derive(Debug)]
pub struct Notify {
    watchdog: Option<Duration>,
}

impl Notify {
    /// NOTIFY_SOCKET, and WATCHDOG_USEC if it is meant for this process (WATCHDOG_PID).
    pub fn from_environment() -> Self {
        Self { watchdog: sd_notify::watchdog_enabled() }
    }

    /// How often [`Self::alive`] is due: twice in the time after which the service manager ends us.
    pub fn watchdog_interval(&self) -> Option<Duration> {
        self.watchdog.map(|limit| limit / 2)
    }

    /// What is needed is there: pods can come. Also ends what [`Self::reloading`] began.
    pub fn ready(&self) {
        tell(&[NotifyState::Ready]);
    }

    /// One line for `systemctl status`.
    pub fn status(&self, line: &str) {
        // A second line would be a second message.
        let line = line.replace('\n', " ");
        tell(&[NotifyState::Status(&line)]);
    }

    /// One turn of the work is done.
    pub fn alive(&self) {
        if self.watchdog.is_some() {
            tell(&[NotifyState::Watchdog]);
        }
    }

    /// The settings are being read again; [`Self::ready`] says that it is over.
    pub fn reloading(&self) {
        // systemd 253 and later needs the time with it.
        match NotifyState::monotonic_usec_now() {
            Ok(now) => tell(&[NotifyState::Reloading, now]),
            Err(e) => warn!("notify the service manager of a reload: {e}"),
        }
    }

    pub fn stopping(&self) {
        tell(&[NotifyState::Stopping]);
    }
}

/// A service manager that does not listen is no reason to stop working.
fn tell(states: &[NotifyState]) {
    if let Err(e) = sd_notify::notify(states) {
        warn!("notify the service manager: {e}");
    }
}
