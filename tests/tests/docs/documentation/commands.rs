// SPDX-License-Identifier: Apache-2.0
//! Blocks of code are what they seem: settings and user data that `sluice check` takes, commands that run as written,
//! with stand-ins for what a test cannot have. Every call of `sluice` and `make`, in text too, is one that they know.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

use tests::cluster_config::CLUSTER;
use tests::command::{executable, output, run, text};

use super::page::{Block, Page};
use super::repository;

/// Programs that do nothing here, and why.
const STAND_INS: [(&str, &[&str]); 4] = [
    ("need a cluster, AWS or the network", &["aws", "helm", "kubectl", "packer"]),
    ("change the machine", &["apt", "dnf", "install", "systemctl", "systemd-sysext"]),
    ("need what takes minutes to build", &["gpgv", "make", "packaging/sign", "sbverify", "sha256sum"]),
    ("need a node", &["curl", "journalctl"]),
];

/// What is run, and of `sluice` what needs no node.
const REAL: [&str; 2] = ["cut", "jq"];

/// `cluster-config --check` needs an aws-node; the test `cluster_config` has some.
const SLUICE: &str = "case \"$*\" in
cluster-config*--check*) ;;
check*|cluster-config*--user-data*|max-pods*--instance-type*|settings*) exec SLUICE --root ROOT \"$@\" ;;
esac";

/// What a reader puts in their place.
const PLACEHOLDERS: [(&str, &str); 2] =
    [("ami-…", "ami-0123456789abcdef0"), ("lt-…", "lt-0123456789abcdef0")];

/// A directory like the repository's root, as far as commands need it, and programs.
struct Desk(tempfile::TempDir);

impl Desk {
    fn new() -> Self {
        let desk = Self(tempfile::tempdir().expect("make a directory"));
        let path = |name: &str| desk.0.path().join(name);
        for folder in ["bin", "root", "packaging"] {
            fs::create_dir(path(folder)).expect("make a directory");
        }
        let examples = repository().join("examples");
        run("cp", &["-r", examples.to_str().expect("UTF-8"), desk.path()]);
        let settings = "[settings.sluice]\nversion = 1\n";
        fs::write(path("user-data.toml"), settings).expect("write settings");
        fs::copy(path("examples/launch-template/user-data.mime"), path("user-data.mime"))
            .expect("copy");
        fs::write(path("cluster.json"), CLUSTER).expect("write a cluster");
        for name in STAND_INS.iter().flat_map(|(_, names)| *names) {
            desk.put(name, "");
        }
        desk.put("aws", &format!("case \"$*\" in *describe-cluster*) echo '{CLUSTER}' ;; esac"));
        let sluice = executable("sluice").display().to_string();
        let root = path("root").display().to_string();
        desk.put("sluice", &SLUICE.replace("SLUICE", &sluice).replace("ROOT", &root));
        for name in REAL {
            let real = run("sh", &["-c", &format!("command -v {name}")]);
            desk.put(name, &format!("exec {} \"$@\"", real.trim()));
        }
        desk
    }

    fn path(&self) -> &str {
        self.0.path().to_str().expect("path is UTF-8")
    }

    fn put(&self, name: &str, script: &str) {
        let folder = if name.contains('/') { "" } else { "bin" };
        let path = self.0.path().join(folder).join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("write a program");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("make it a program");
    }

    /// No other program can be called by its name: these are someone's words, run as root.
    fn run(&self, folder: &str, script: &str) -> Output {
        let put = |script: String, (found, real): &(&str, &str)| script.replace(found, real);
        let script = PLACEHOLDERS.iter().fold(script.to_owned(), put);
        let mut bash = Command::new("/bin/bash");
        bash.args(["-euo", "pipefail", "-c", &script]).current_dir(self.0.path().join(folder));
        bash.env_clear().env("PATH", self.0.path().join("bin")).output().expect("run bash")
    }

    fn check(&self, document: &str) -> Output {
        let file = self.0.path().join("document");
        fs::write(&file, document).expect("write a document");
        let sluice = executable("sluice").display().to_string();
        output(&sluice, &["check", "--require-settings", file.to_str().expect("UTF-8")])
    }
}

enum Kind {
    Settings(String),
    UserData,
    /// What a shell is given, and what it answers where a prompt tells the two apart.
    Commands(String, String),
    Other,
}

impl Kind {
    fn of(block: &Block) -> Self {
        let first = block.text.lines().next().unwrap_or_default();
        let is_settings = first.starts_with("[settings.") || first.starts_with("[[settings.");
        match block.language.as_deref() {
            Some("toml") => Self::settings(&block.text),
            Some("sh" | "console") => Self::commands(&block.text),
            Some("text") => Self::Other,
            Some(other) => panic!("{}: {other:?}: use toml, sh, console or text", block.place),
            None if is_settings => Self::settings(&block.text),
            None if first.starts_with("MIME-Version:") => Self::UserData,
            None if is_command(first) => Self::commands(&block.text),
            None => Self::Other,
        }
    }

    /// A part of a document has no version.
    fn settings(text: &str) -> Self {
        let head = if text.contains("version = 1") { "" } else { "settings.sluice.version = 1\n" };
        Self::Settings(format!("{head}{text}"))
    }

    fn commands(text: &str) -> Self {
        if !text.starts_with("$ ") {
            return Self::Commands(text.into(), String::new());
        }
        let (given, answer): (Vec<_>, Vec<_>) =
            text.lines().partition(|line| line.starts_with("$ "));
        let given: Vec<_> = given.iter().map(|line| &line[2..]).collect();
        Self::Commands(given.join("\n"), answer.join("\n") + "\n")
    }
}

/// Of a program that is known here. A line with a text behind it that is no comment belongs to a list of commands.
fn is_command(line: &str) -> bool {
    let first = line.trim_start_matches("$ ").split(' ').next().unwrap_or_default();
    let known = STAND_INS.iter().flat_map(|(_, names)| *names).chain(&REAL);
    let is_known =
        ["cd", "sluice"].contains(&first) || known.into_iter().any(|name| *name == first);
    let explained =
        line.split_once("  ").is_some_and(|(_, text)| !text.trim_start().starts_with('#'));
    is_known && !explained
}

#[test]
fn settings_are_valid_and_commands_run_as_they_are_written() {
    let (mut seen, mut bad) = ([0; 3], Vec::new());
    let pages = Page::all();
    for (page, block) in pages.iter().flat_map(|page| page.blocks.iter().map(move |b| (page, b))) {
        // What one has made is not there for the next.
        let desk = Desk::new();
        let (kind, output, answer) = match Kind::of(block) {
            Kind::Settings(document) => (0, desk.check(&document), String::new()),
            Kind::UserData => (1, desk.check(&block.text), String::new()),
            Kind::Commands(script, answer) => {
                (2, desk.run(page.example().unwrap_or(""), &script), answer)
            }
            Kind::Other => continue,
        };
        seen[kind] += 1;
        let said = String::from_utf8_lossy(&output.stdout);
        // What needs a node says nothing here.
        let differs = kind == 2 && !answer.is_empty() && !said.is_empty() && said != answer;
        if !output.status.success() || differs {
            bad.push(format!("{}:\n{}\n{}", block.place, block.text, text(&output)));
        }
    }
    assert!(seen[0] >= 10 && seen[1] >= 1 && seen[2] >= 25, "{seen:?}");
    assert!(bad.is_empty(), "{}", bad.join("\n"));
}

/// Each `sluice …` and `make …` in a line, up to what ends a command.
fn calls<'l>(line: &'l str, program: &str) -> Vec<Vec<&'l str>> {
    let mut calls: Vec<Vec<&str>> = Vec::new();
    let (mut is_open, mut before) = (false, "$");
    for word in line.split_whitespace() {
        let begins = ["$", "|", "||", "&&", "--all"].contains(&before) || before.ends_with(',');
        before = word;
        if word == program && begins {
            calls.push(Vec::new());
            is_open = true;
        } else if ["|", "||", "&&", "#"].contains(&word) || word.starts_with('>') {
            is_open = false;
        } else if let Some(call) = calls.last_mut().filter(|_| is_open) {
            call.push(word.trim_matches(['[', ']', '(', ')', ',', ':', ';', '"']));
        }
    }
    calls
}

/// What `--help` says, by the command; None where there is no such command.
#[derive(Default)]
struct Helps(BTreeMap<String, Option<String>>);

impl Helps {
    fn of(&mut self, command: &str) -> Option<&str> {
        let ask = || {
            let words: Vec<_> = command.split_whitespace().chain(["--help"]).collect();
            let said = output(&executable("sluice").display().to_string(), &words);
            said.status.success().then(|| String::from_utf8_lossy(&said.stdout).into_owned())
        };
        self.0.entry(command.to_owned()).or_insert_with(ask).as_deref()
    }

    /// The first word that `sluice` does not know. Words in capitals stand for others.
    fn unknown<'c>(&mut self, call: &[&'c str]) -> Option<&'c str> {
        let mut command = String::new();
        for &word in call {
            let help = self.of(&command).expect("it was found before");
            if word.starts_with('-') && word != "-" {
                let option = word.split('=').next();
                let mut known = help.split([' ', '\n', ',', '=']);
                if !known.any(|known| Some(known) == option) {
                    return Some(word);
                }
            } else if help.contains("\nCommands:\n")
                && word.starts_with(|c: char| c.is_ascii_lowercase())
            {
                command = format!("{command} {word}");
                if self.of(&command).is_none() {
                    return Some(word);
                }
            }
        }
        None
    }
}

/// Of blocks, with lines that are continued as one, and spans of code.
fn lines_of_code(page: &Page) -> Vec<String> {
    let blocks = page.blocks.iter().flat_map(|block| {
        let text = block.text.replace("\\\n", " ");
        // In a list of commands the text goes on below itself.
        let text = if is_command(text.trim_start_matches("$ ").lines().next().unwrap_or("")) {
            text
        } else {
            text.replace("\n ", " ")
        };
        text.lines().map(str::to_owned).collect::<Vec<_>>()
    });
    blocks.chain(page.spans().1).collect()
}

#[test]
fn every_command_and_option_that_a_document_names_is_known() {
    let makefile = fs::read_to_string(repository().join("Makefile")).expect("the Makefile");
    let verbs = makefile.lines().find_map(|line| line.strip_prefix(".PHONY:")).expect("its verbs");
    let verbs: Vec<_> = verbs.split_whitespace().collect();
    let (mut seen, mut bad, mut helps) = (0, Vec::new(), Helps::default());
    for page in Page::current() {
        for line in lines_of_code(&page) {
            for call in calls(&line, "sluice") {
                seen += 1;
                let unknown = helps.unknown(&call);
                bad.extend(unknown.map(|word| format!("{}: {line}: {word}", page.path.display())));
            }
            let made = line.strip_prefix("make ").and_then(|_| calls(&line, "make").pop());
            let made = made.into_iter().flatten().filter(|word| !word.contains(['=', '"']));
            let unknown = made.filter(|word| !verbs.contains(word));
            bad.extend(unknown.map(|word| format!("{}: {line}: {word}", page.path.display())));
        }
    }
    assert!(seen > 100 && bad.is_empty(), "of {seen} calls: {bad:#?}");
}
