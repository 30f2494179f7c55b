// SPDX-License-Identifier: Apache-2.0
//! The terminal while `sluice top` has it: a screen of its own, keys without
//! Enter. What it was before comes back at the end, however that comes about.

use std::io::{self, IsTerminal, Write};
use std::os::fd::AsFd;
use std::time::Duration;

use crossterm::cursor::{Hide, MoveTo, Show};
use crossterm::style::{Attribute, Print, SetAttribute};
use crossterm::terminal::{
    Clear, ClearType, EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use crossterm::{execute, queue};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};

use crate::cli::output::{painted, terminal_size};

/// Lines above the rows; the last has the headings.
pub const HEAD: usize = 4;

pub struct Terminal(());

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    Quit,
    Up,
    Down,
    PageUp,
    PageDown,
    Home,
    End,
    Enter,
    Escape,
    Backspace,
    Letter(char),
}

impl Terminal {
    pub fn open() -> io::Result<Self> {
        if !io::stdout().is_terminal() || !io::stdin().is_terminal() {
            let instead = "top needs a terminal; for scripts use \"sluice top --once\" or --json";
            return Err(io::Error::other(instead));
        }
        enable_raw_mode()?;
        let terminal = Self(());
        execute!(io::stdout(), EnterAlternateScreen, Hide)?;
        Ok(terminal)
    }

    /// Columns and lines.
    pub fn size(&self) -> (usize, usize) {
        let (width, height) = terminal_size();
        (width.into(), height.into())
    }

    /// A screen; the last of so many lines of its head has the headings.
    pub fn show(&self, lines: &[String], head: usize) -> io::Result<()> {
        let mut out = io::stdout().lock();
        for (number, line) in lines.iter().enumerate() {
            queue!(out, MoveTo(0, number as u16))?;
            match number + 1 == head {
                true => queue!(out, SetAttribute(Attribute::Reverse), Print(line))?,
                false => queue!(out, Print(painted(line)))?,
            }
            queue!(out, SetAttribute(Attribute::Reset), Clear(ClearType::UntilNewLine))?;
        }
        if let Some(last) = lines.len().checked_sub(1).filter(|_| lines.len() < self.size().1) {
            queue!(out, MoveTo(0, last as u16 + 1), Clear(ClearType::FromCursorDown))?;
        }
        out.flush()
    }

    /// The keys that are pressed, if any are in this time.
    pub fn keys(&self, within: Duration) -> io::Result<Vec<Key>> {
        let stdin = io::stdin();
        let mut fds = [PollFd::new(stdin.as_fd(), PollFlags::POLLIN)];
        // Rounded up, or the last millisecond would be spent drawing.
        let within = within + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(within).unwrap_or(PollTimeout::MAX);
        match poll(&mut fds, timeout) {
            // A change of the window's size is a reason to draw again.
            Ok(0) | Err(Errno::EINTR) => return Ok(Vec::new()),
            Ok(_) => {}
            Err(e) => return Err(e.into()),
        }
        let mut bytes = [0; 64];
        // Past std's buffer, which poll does not see.
        let length = nix::unistd::read(&stdin, &mut bytes)?;
        Ok(keys(&bytes[..length]))
    }
}

/// What a terminal sends for keys. Its end is the end.
fn keys(mut bytes: &[u8]) -> Vec<Key> {
    if bytes.is_empty() {
        return vec![Key::Quit];
    }
    let mut keys = Vec::new();
    while let Some((&byte, rest)) = bytes.split_first() {
        let is_sequence = byte == ESCAPE && matches!(rest.first(), Some(b'[' | b'O'));
        let length = match is_sequence {
            true => bytes.iter().skip(2).position(|it| (b'@'..=b'~').contains(it)).map(|n| n + 3),
            false => Some(1),
        };
        let (key, rest) = bytes.split_at(length.unwrap_or(bytes.len()));
        keys.extend(one_key(key));
        bytes = rest;
    }
    keys
}

const ESCAPE: u8 = 0x1b;

fn one_key(bytes: &[u8]) -> Option<Key> {
    const CONTROL_C: u8 = 3;
    match bytes {
        [CONTROL_C] => Some(Key::Quit),
        [b'\r' | b'\n'] => Some(Key::Enter),
        [8 | 127] => Some(Key::Backspace),
        [ESCAPE] => Some(Key::Escape),
        b"\x1b[A" | b"\x1bOA" => Some(Key::Up),
        b"\x1b[B" | b"\x1bOB" => Some(Key::Down),
        b"\x1b[5~" => Some(Key::PageUp),
        b"\x1b[6~" => Some(Key::PageDown),
        b"\x1b[H" | b"\x1bOH" | b"\x1b[1~" | b"\x1b[7~" => Some(Key::Home),
        b"\x1b[F" | b"\x1bOF" | b"\x1b[4~" | b"\x1b[8~" => Some(Key::End),
        [letter] if letter.is_ascii_graphic() => Some(Key::Letter((*letter).into())),
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
        assert_eq!(keys(b""), [Key::Quit]);
        assert_eq!(keys(b"\x03q"), [Key::Quit, Key::Letter('q')]);
        assert_eq!(
            keys(b"\x1b[A\x1bOB\x1b[5~\x1b[6~"),
            [Key::Up, Key::Down, Key::PageUp, Key::PageDown]
        );
        assert_eq!(keys(b"\x1b[H\x1bOF\x1b"), [Key::Home, Key::End, Key::Escape]);
        assert_eq!(keys(b"d\x7f\r"), [Key::Letter('d'), Key::Backspace, Key::Enter]);
        assert_eq!(keys(b"\x1b[15;2~\xff/"), [Key::Letter('/')]);
    }
}
