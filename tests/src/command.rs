// SPDX-License-Identifier: Apache-2.0
//! Programs run from tests: what they were given, and all they said, is in
//! the panic when they fail.

use std::path::PathBuf;
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// Runs a program to its end and requires its success; gives its standard output.
pub fn run(program: &str, arguments: &[&str]) -> String {
    let output = output(program, arguments);
    assert!(output.status.success(), "{program} {}\n{}", arguments.join(" "), text(&output));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// Runs a program to its end, however that is.
pub fn output(program: &str, arguments: &[&str]) -> Output {
    Command::new(program).args(arguments).output().unwrap_or_else(|e| panic!("run {program}: {e}"))
}

/// One line of words, split at spaces: `ip("link set lo up")`.
pub fn ip(line: &str) -> String {
    run("ip", &line.split_whitespace().collect::<Vec<_>>())
}

pub fn tc(line: &str) -> String {
    run("tc", &line.split_whitespace().collect::<Vec<_>>())
}

pub fn json(text: &str) -> serde_json::Value {
    serde_json::from_str(text).unwrap_or_else(|e| panic!("{e} in {text:?}"))
}

/// Of a program that says what it found with its exit status as well: 1 for a fault, 3 for what is degraded.
pub fn has_looked(output: &Output) -> bool {
    matches!(output.status.code(), Some(0 | 1 | 3)) && !output.stdout.is_empty()
}

/// What a program said, for messages.
pub fn text(output: &Output) -> String {
    format!(
        "{}\nstdout: {}\nstderr: {}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    )
}

/// The project's executables: beside the test binaries, or where SLUICE_BIN says (in a guest).
pub fn executable(name: &str) -> PathBuf {
    if let Some(dir) = std::env::var_os("SLUICE_BIN") {
        return PathBuf::from(dir).join(name);
    }
    let own = std::env::current_exe().expect("know the test's own path");
    let beside = |dir: Option<&std::path::Path>| dir.map(|dir| dir.join(name));
    let parents = [beside(own.parent()), beside(own.parent().and_then(|dir| dir.parent()))];
    parents
        .into_iter()
        .flatten()
        .find(|path| path.exists())
        .unwrap_or_else(|| panic!("{name} is not built: cargo build --workspace"))
}

/// Makes a file two minutes old.
pub fn age(path: impl AsRef<std::path::Path>) {
    let two_minutes_ago = std::time::SystemTime::now() - Duration::from_secs(120);
    let file = std::fs::File::options().write(true).open(path).expect("open the file");
    file.set_modified(two_minutes_ago).expect("set its time");
}

/// Asks again and again until there is an answer; panics with `what` after the deadline.
pub fn wait_for<T>(what: &str, deadline: Duration, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + deadline;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited {deadline:?} for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
