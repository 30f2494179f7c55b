// SPDX-License-Identifier: Apache-2.0
//! The terminal while `sluice top` has it: a screen of its own, keys without
//! Enter. What it was before comes back at the end, however that comes about.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode,
    enable_raw_mode, size,
};
use crossterm::{execute, queue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

pub struct Terminal(());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Quit,
    Up,
    Down,
    Letter(char),
}

impl Terminal {
    pub fn open() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            return Err(io::Error::other("this is none"));
        }
        enable_raw_mode()?;
        let terminal = Self(());
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(terminal)
    }

    /// As much as fits: two lines of headings, and the rows from `first` on.
    pub fn show(&self, lines: &[String], first: usize) -> io::Result<()> {
        // Some know no size, e.g. a serial line.
        let (width, height) = size().ok().filter(|size| *size != (0, 0)).unwrap_or((80, 24));
        let mut out = io::stdout().lock();
        queue!(out, MoveTo(0, 0))?;
        let rows = lines.iter().skip(2).skip(first);
        for (number, line) in lines.iter().take(2).chain(rows).take(height.into()).enumerate() {
            let fitting: String = line.chars().take(width.into()).collect();
            let heading = if number == 1 { Attribute::Reverse } else { Attribute::Reset };
            queue!(out, MoveTo(0, number as u16), SetAttribute(heading), Print(fitting))?;
            queue!(out, SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        queue!(out, Clear(ClearType::FromCursorDown))?;
        out.flush()
    }

    /// A key, if one is pressed in this time.
    pub fn key(&self, within: Duration) -> io::Result<Option<Key>> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        // Rounded up, or the last millisecond would be spent drawing.
        let within = within + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            // A change of the window's size is a reason to draw again.
            Ok(0) | Err(Errno::EINTR) => return Ok(None),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut bytes = [0; 16];
        // Past std's buffer, which poll does not see.
        let length = nix::unistd::read(&stdin, &mut bytes)?;
        Ok(key(&bytes[..length]))
    }
}

/// What a terminal sends for a key. Its end is the end.
fn key(bytes: &[u8]) -> Option<Key> {
    const CONTROL_C: u8 = 3;
    match bytes {
        [] | [b'q' | CONTROL_C, ..] => Some(Key::Quit),
        b"\x1b[A" | b"\x1bOA" | b"k" => Some(Key::Up),
        b"\x1b[B" | b"\x1bOB" | b"j" => Some(Key::Down),
        [letter, ..] if letter.is_ascii_lowercase() => Some(Key::Letter((*letter).into())),
        _ => None,
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Nothing can be done about a terminal that has gone.
        let _ = execute!(io::stdout(), Show, LeaveAlternateScreen);
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_known_by_what_terminals_send() {
        assert_eq!(key(b"q"), Some(Key::Quit));
        assert_eq!(key(b"\x03"), Some(Key::Quit));
        assert_eq!(key(b""), Some(Key::Quit));
        assert_eq!((key(b"\x1b[A"), key(b"\x1bOB")), (Some(Key::Up), Some(Key::Down)));
        assert_eq!(key(b"d"), Some(Key::Letter('d')));
        assert_eq!((key(b"\x1b"), key(b"\x1b[5~"), key(b"\xff")), (None, None, None));
    }
}
