// SPDX-License-Identifier: Apache-2.0
//! A machine's serial console: every line with its time goes to a file, and can be waited for.

use std::fs::File;
use std::io::{Read, Write};
use std::sync::{Arc, Condvar, Mutex, MutexGuard};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// What was said so far, and whether there can be more.
#[derive(Default)]
struct Said {
    lines: Vec<(Duration, String)>,
    over: bool,
}

#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<Said>, Condvar)>);

pub struct Serial {
    shared: Shared,
    reader: Option<JoinHandle<()>>,
    began: Instant,
    /// The first line that no wait has passed yet.
    next: usize,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Said> {
        self.0.0.lock().expect("no reader of a console panics")
    }

    fn push(&self, line: Option<(Duration, String)>) {
        let mut said = self.lock();
        match line {
            Some(line) => said.lines.push(line),
            None => said.over = true,
        }
        self.0.1.notify_all();
    }
}

impl Serial {
    pub fn read(from: impl Read + Send + 'static, log: File) -> Self {
        let shared = Shared::default();
        let (of_thread, began) = (shared.clone(), Instant::now());
        let reader = thread::spawn(move || {
            read_lines(from, |line| {
                let at = began.elapsed();
                // A full disk must not look like a silent machine.
                let _ = writeln!(&log, "{:8.2} {line}", at.as_secs_f64());
                of_thread.push(Some((at, line)));
            });
            of_thread.push(None);
        });
        Self { shared, reader: Some(reader), began, next: 0 }
    }

    /// The next line that holds one of these texts: which, how far into the machine's life, the line.
    pub fn wait_for_any(
        &mut self,
        texts: &[&str],
        limit: Duration,
    ) -> Result<(usize, Duration, String)> {
        let end = Instant::now() + limit;
        let mut said = self.shared.lock();
        loop {
            while let Some((at, line)) = said.lines.get(self.next) {
                self.next += 1;
                if let Some(which) = texts.iter().position(|text| line.contains(text)) {
                    return Ok((which, *at, line.clone()));
                }
            }
            let left = end.saturating_duration_since(Instant::now());
            if said.over || left.is_zero() {
                let why = if said.over { "the machine ended" } else { "the time is over" };
                let last: Vec<_> = said.lines.iter().rev().take(12).map(|line| &*line.1).collect();
                let last: Vec<_> = last.into_iter().rev().collect();
                bail!("{why}, and none of {texts:?} was said; last:\n{}", last.join("\n"));
            }
            said = self.shared.0.1.wait_timeout(said, left).expect("no reader panics").0;
        }
    }

    /// Whether a line so far holds this text.
    pub fn said(&self, text: &str) -> bool {
        self.shared.lock().lines.iter().any(|(_, line)| line.contains(text))
    }

    pub fn count(&self, text: &str) -> usize {
        self.shared.lock().lines.iter().filter(|(_, line)| line.contains(text)).count()
    }

    pub fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    /// Until the machine's end of the console is closed.
    pub fn finish(&mut self) {
        if let Some(reader) = self.reader.take() {
            // It has nothing to give back, and a panic in it was seen as silence.
            let _ = reader.join();
        }
    }
}

/// Lines without what is for terminals only.
fn read_lines(mut from: impl Read, mut take: impl FnMut(String)) {
    let (mut buffer, mut line) = ([0; 4096], Vec::new());
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        for byte in &buffer[..length] {
            match byte {
                b'\n' => {
                    take(String::from_utf8_lossy(&line).into_owned());
                    line.clear();
                }
                b'\r' | 0x1b => {}
                byte => line.push(*byte),
            }
        }
    }
    if !line.is_empty() {
        take(String::from_utf8_lossy(&line).into_owned());
    }
}
