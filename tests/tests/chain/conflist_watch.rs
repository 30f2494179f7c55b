// SPDX-License-Identifier: Apache-2.0
//! How soon our entry is back in a conflist that is replaced all the time.
//! Alone in its file, so that no other test takes the processors meanwhile.

use std::fs;
use std::sync::RwLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;
use tests::command::wait_for;
use tests::conflist::{Over, conflist, has_entry, list, number, numbered, write_as_aws_node};
use tests::node::{CONF_DIR, CONFLIST, with_ready_node};

const SOON: Duration = Duration::from_secs(10);

/// What a reader saw in the file, and when: only changes.
struct Seen {
    when: Instant,
    number: u64,
    has_entry: bool,
}

/// Reads the file all the time until `over`; nothing but whole lists may be there, but for what the
/// writer itself leaves for a moment, while it holds `writing`.
fn watch_file(over: &AtomicBool, writing: &RwLock<()>) -> Vec<Seen> {
    let mut seen: Vec<Seen> = Vec::new();
    while !over.load(Ordering::SeqCst) {
        let text = {
            let _whole = writing.read().expect("no panic of the writer");
            conflist()
        };
        let found = list(&text);
        let (number, has_entry) = (number(&found), has_entry(&text));
        if seen.last().is_none_or(|last| (last.number, last.has_entry) != (number, has_entry)) {
            seen.push(Seen { when: Instant::now(), number, has_entry });
        }
        thread::sleep(Duration::from_micros(200));
    }
    seen
}

const REWRITES: u64 = 1000;
/// The promise is 100 ms on a node that has nothing else to do.
const AT_ONCE: Duration = Duration::from_millis(100);

/// Rewrites at random moments, most as aws-node does it, some in place; gives when each was done.
fn rewrite_at_random(writing: &RwLock<()>) -> Vec<Instant> {
    let mut dice = fastrand::Rng::with_seed(6);
    let rewrite = |number: u64| {
        thread::sleep(Duration::from_micros(dice.u64(..60_000)));
        let alone = writing.write().expect("no panic of the reader");
        // In place only where no one is about to replace the file: such a write would be lost for
        // whoever replaces it, not for us alone.
        if number.is_multiple_of(10) && has_entry(&conflist()) {
            fs::write(CONFLIST, numbered(number)).expect("write in place");
        } else {
            write_as_aws_node(&numbered(number));
        }
        drop(alone);
        Instant::now()
    };
    (1..=REWRITES).map(rewrite).collect()
}

/// After each rewrite, how long until it, or a later one, was seen with our entry.
fn latencies(written: &[Instant], seen: &[Seen]) -> Vec<Duration> {
    let answered = |(index, when): (usize, &Instant)| {
        let number = index as u64 + 1;
        let answer = seen.iter().find(|s| s.has_entry && s.number >= number && s.when >= *when);
        answer.unwrap_or_else(|| panic!("rewrite {number} got no entry")).when - *when
    };
    let mut all: Vec<_> = written.iter().enumerate().map(answered).collect();
    all.sort();
    all
}

#[test]
fn entry_is_back_at_once_after_each_of_1000_rewrites_at_random_moments() {
    with_ready_node("", |node| {
        let (over, writing) = (AtomicBool::new(false), RwLock::new(()));
        let (written, seen) = thread::scope(|scope| {
            let reader = scope.spawn(|| watch_file(&over, &writing));
            let end = Over(&over);
            let written = rewrite_at_random(&writing);
            let last = numbered(REWRITES);
            wait_for("the last rewrite with our entry", SOON, || {
                (has_entry(&conflist()) && number(&list(&conflist())) == number(&list(&last)))
                    .then_some(())
            });
            thread::sleep(Duration::from_millis(50));
            drop(end);
            (written, reader.join().expect("the reader saw only whole lists"))
        });
        let latencies = latencies(&written, &seen);
        let at = |share: usize| latencies[latencies.len() * share / 1000];
        let (median, p99, max) = (at(500), at(990), latencies[latencies.len() - 1]);
        println!("{REWRITES} rewrites: p50 {median:?}, p99 {p99:?}, max {max:?}");
        assert!(p99 <= AT_ONCE, "p99 {p99:?}");
        assert_eq!(node.troubles("contested"), Vec::<Value>::new());
        assert_eq!(fs::read_dir(CONF_DIR).expect("the directory").count(), 1, "left over");
    });
}
