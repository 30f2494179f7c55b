// SPDX-License-Identifier: Apache-2.0
//! A unit as systemd would load it, out of files alone: `boot` runs before
//! much of systemd's world, and an image has no systemd that runs. Finds the
//! unit, its drop-ins and environment files, and the command that it starts.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use anyhow::Result;

use super::root::{HostRoot, Place};
use super::words;

/// Where units and their drop-ins are looked for, highest first (systemd.unit(5)).
const UNIT_DIRS: [&str; 12] = [
    "/etc/systemd/system.control",
    "/run/systemd/system.control",
    "/run/systemd/transient",
    "/run/systemd/generator.early",
    "/etc/systemd/system",
    "/etc/systemd/system.attached",
    "/run/systemd/system",
    "/run/systemd/system.attached",
    "/run/systemd/generator",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
];

/// A word of a command, and where it stands: in the unit, or in the variable that it comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) place: Place,
}

/// A file of EnvironmentFile=.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct EnvironmentFile {
    pub(super) path: PathBuf,
    /// Without a `-` before its name: the unit fails where it is missing.
    pub(super) is_required: bool,
    pub(super) place: Place,
}

/// What of a service concerns its command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Service {
    pub(super) file: PathBuf,
    /// Its last ExecStart=, which is the only one of a service that stays; the file where it has none.
    pub(super) exec_start: Place,
    pub(super) words: Vec<Word>,
    pub(super) environment_files: Vec<EnvironmentFile>,
    /// What was not followed, and may therefore be missed.
    pub(super) warnings: Vec<String>,
}

/// Which variables are not looked up.
pub(super) struct Unknown<'u> {
    /// They stay in the command as `${NAME}`.
    pub(super) variables: &'u [&'u str],
    /// Files that are not read, since they may be of an earlier start.
    pub(super) files: &'u [&'u str],
}

impl Service {
    /// None where there is no such unit, or a masked one.
    pub(super) fn find(
        root: &HostRoot<'_>,
        name: &str,
        unknown: &Unknown<'_>,
    ) -> Result<Option<Self>> {
        let Some((file, text)) = main_file(root, name)? else { return Ok(None) };
        let mut settings = settings(&file, &text);
        for drop_in in drop_ins(root, name)? {
            let text = root.read_text(&drop_in)?.unwrap_or_default();
            settings.extend(self::settings(&drop_in, &text));
        }
        Self::of(root, file, settings, unknown).map(Some)
    }

    fn of(
        root: &HostRoot<'_>,
        file: PathBuf,
        settings: Vec<Setting>,
        unknown: &Unknown<'_>,
    ) -> Result<Self> {
        let [environment, files, commands] =
            ["Environment", "EnvironmentFile", "ExecStart"].map(|key| in_force(&settings, key));
        let mut variables = Variables { unknown: unknown.variables, known: BTreeMap::new() };
        environment.into_iter().for_each(|setting| variables.set(setting));
        let environment_files: Vec<_> = files.into_iter().filter_map(EnvironmentFile::of).collect();
        let mut warnings = Vec::new();
        for file in &environment_files {
            if file.path.to_string_lossy().contains(['*', '?', '[']) {
                warnings.push(format!(
                    "{}: EnvironmentFile={} is a pattern, which is not followed here",
                    file.place,
                    file.path.display()
                ));
            } else if !unknown.files.iter().any(|f| Path::new(f) == file.path) {
                variables.set_from(root, &file.path)?;
            }
        }
        let command = commands.last();
        let no_command = Place { file: file.clone(), line: 1 };
        let exec_start = command.map_or(no_command, |command| command.place.clone());
        let words = command.map_or_else(Vec::new, |command| variables.command(command));
        Ok(Self { file, exec_start, words, environment_files, warnings })
    }
}

/// The value that a flag has in the end, and where it is given: the last one counts.
pub(super) fn flag(words: &[Word], name: &str) -> Option<Word> {
    flags(words, name).pop()
}

/// Every value of a flag, `--name=value` or `--name value`, in order; `_` is as good as `-` to pflag.
pub(super) fn flags(words: &[Word], name: &str) -> Vec<Word> {
    let found = words.iter().enumerate().filter_map(|(at, word)| {
        let flag = word.text.strip_prefix("--")?;
        let (found, value) = match flag.split_once('=') {
            Some((found, value)) => (found, Some(value)),
            None => (flag, None),
        };
        let next = || words.get(at + 1).map(|next| next.text.as_str()).unwrap_or_default();
        (found.replace('_', "-") == name).then(|| Word {
            text: value.unwrap_or_else(next).to_owned(),
            place: word.place.clone(),
        })
    });
    found.collect()
}

fn main_file(root: &HostRoot<'_>, name: &str) -> Result<Option<(PathBuf, String)>> {
    for dir in UNIT_DIRS {
        let path = Path::new(dir).join(name);
        if root.is_masked(&path) {
            return Ok(None);
        }
        if let Some(text) = root.read_text(&path)? {
            return Ok(Some((path, text)));
        }
    }
    Ok(None)
}

/// In the order in which they are read: by file name, wherever they lie. Of one name the highest
/// directory's counts, and the most precise one's: nodeadm-run.service.d is before
/// nodeadm-.service.d and that before service.d.
fn drop_ins(root: &HostRoot<'_>, name: &str) -> Result<Vec<PathBuf>> {
    let mut found: BTreeMap<String, PathBuf> = BTreeMap::new();
    for directory in drop_in_directories(name) {
        for dir in UNIT_DIRS {
            let dir = Path::new(dir).join(&directory);
            for (file, is_dir) in root.list(&dir)? {
                if file.ends_with(".conf") && !is_dir {
                    found.entry(file.clone()).or_insert_with(|| dir.join(file));
                }
            }
        }
    }
    Ok(found.into_values().filter(|path| !root.is_masked(path)).collect())
}

fn drop_in_directories(name: &str) -> Vec<String> {
    let stem = name.strip_suffix(".service").unwrap_or(name);
    let prefixes =
        stem.match_indices('-').rev().filter_map(|(at, dash)| stem.get(..at + dash.len()));
    let stems = std::iter::once(stem).chain(prefixes).map(|stem| format!("{stem}.service.d"));
    stems.chain(["service.d".to_owned()]).collect()
}

/// `Key=value` of the [Service] section, and where it begins.
#[derive(Clone, Debug)]
struct Setting {
    key: String,
    value: String,
    place: Place,
}

/// Those of one key that count: an empty value takes back all before it.
fn in_force<'s>(settings: &'s [Setting], key: &str) -> Vec<&'s Setting> {
    let of_key: Vec<_> = settings.iter().filter(|setting| setting.key == key).collect();
    let reset = of_key.iter().rposition(|setting| setting.value.is_empty());
    of_key.into_iter().skip(reset.map_or(0, |at| at + 1)).collect()
}

fn settings(file: &Path, text: &str) -> Vec<Setting> {
    let mut settings = Vec::new();
    let mut is_service = false;
    for (line, text) in logical_lines(text) {
        if let Some(section) = text.strip_prefix('[') {
            is_service = section.trim_end() == "Service]";
        } else if let (true, Some((key, value))) = (is_service, text.split_once('=')) {
            let place = Place { file: file.to_owned(), line };
            let (key, value) = (key.trim().to_owned(), value.trim().to_owned());
            settings.push(Setting { key, value, place });
        }
    }
    settings
}

/// Lines with what a `\` at their end joins to them, and the number of the first. A comment between
/// joined lines is left out.
fn logical_lines(text: &str) -> Vec<(usize, String)> {
    let mut lines = Vec::new();
    let mut open: Option<(usize, String)> = None;
    for (line, number) in text.lines().zip(1..) {
        let is_comment = line.trim_start().starts_with(['#', ';']);
        if is_comment || (open.is_none() && line.trim().is_empty()) {
            continue;
        }
        let (number, mut joined) = open.take().unwrap_or((number, String::new()));
        match line.trim_end().strip_suffix('\\') {
            Some(start) => open = Some((number, joined + start + " ")),
            None => {
                joined += line;
                lines.push((number, joined.trim().to_owned()));
            }
        }
    }
    lines.extend(open.map(|(number, joined)| (number, joined.trim().to_owned())));
    lines
}

impl EnvironmentFile {
    fn of(setting: &Setting) -> Option<Self> {
        // Quotes are none of systemd's here, but people write them.
        let value = words::split(&setting.value).into_iter().next()?;
        let path = value.strip_prefix('-').unwrap_or(&value);
        let is_required = path.len() == value.len();
        Some(Self { path: path.into(), is_required, place: setting.place.clone() })
    }
}

/// Of the unit's environment what it says itself; a later value takes the place of an earlier one.
struct Variables<'u> {
    unknown: &'u [&'u str],
    known: BTreeMap<String, (String, Place)>,
}

impl Variables<'_> {
    fn set(&mut self, setting: &Setting) {
        for word in words::split(&setting.value) {
            if let Some((key, value)) = word.split_once('=') {
                let value = (value.replace("%%", "%"), setting.place.clone());
                self.known.insert(key.to_owned(), value);
            }
        }
    }

    fn set_from(&mut self, root: &HostRoot<'_>, file: &Path) -> Result<()> {
        let text = root.read_text(file)?.unwrap_or_default();
        for words::KeyValue { key, value, line } in words::environment_file(&text) {
            self.known.insert(key, (value, Place { file: file.to_owned(), line }));
        }
        Ok(())
    }

    /// The words of ExecStart= after systemd's expansion, and of a script in it after the shell's.
    fn command(&self, setting: &Setting) -> Vec<Word> {
        let prefix = |c| matches!(c, '-' | '@' | ':' | '+' | '!' | '|');
        let line = setting.value.trim_start_matches(prefix);
        let given = words::split(&line.replace("%%", "%"));
        let given = given.iter().flat_map(|word| self.expand(word, &setting.place));
        let mut words: Vec<Word> = given.collect();
        let script = script(&words).map(|script| self.expand_script(script, &setting.place));
        words.extend(script.into_iter().flatten());
        words
    }

    /// `$NAME` alone is as many words as are in it; `${NAME}` stays within its word.
    fn expand(&self, word: &str, place: &Place) -> Vec<Word> {
        let alone = word.strip_prefix('$').filter(|name| !name.starts_with(['{', '$']));
        let Some(name) = alone else {
            return vec![self.substitute(word, place, false)];
        };
        if self.unknown.contains(&name) {
            return vec![Word { text: format!("${{{name}}}"), place: place.clone() }];
        }
        let Some((value, place)) = self.known.get(name) else { return Vec::new() };
        let words = words::split(value).into_iter();
        words.map(|text| Word { text, place: place.clone() }).collect()
    }

    fn expand_script(&self, script: &str, place: &Place) -> Vec<Word> {
        let word = self.substitute(script, place, true);
        words::split(&word.text)
            .into_iter()
            .map(|text| Word { text, place: place.clone() })
            .collect()
    }

    /// With the values in place of `${NAME}`, and for a shell of `$NAME`; the place is the last
    /// value's.
    fn substitute(&self, word: &str, place: &Place, is_shell: bool) -> Word {
        let (mut text, mut place) = (String::new(), place);
        let mut rest = word;
        while let Some((before, after)) = rest.split_once('$') {
            text += before;
            let (name, behind) = variable(after, is_shell);
            rest = behind;
            match name {
                Some(name) if self.unknown.contains(&name) => text += &format!("${{{name}}}"),
                Some(name) => {
                    if let Some((value, from)) = self.known.get(name) {
                        text += value;
                        place = from;
                    }
                }
                None => text.push('$'),
            }
        }
        Word { text: text + rest, place: place.clone() }
    }
}

/// The name behind a `$`, and what comes behind that; no name where the `$` is one.
fn variable(after: &str, is_shell: bool) -> (Option<&str>, &str) {
    if let Some((name, behind)) = after.strip_prefix('{').and_then(|text| text.split_once('}')) {
        // A shell's ${NAME:-default} is as good as its NAME.
        let end = name.find(|c: char| !is_of_name(c)).unwrap_or(name.len());
        return (name.get(..end), behind);
    }
    let end = after.find(|c: char| !is_of_name(c)).unwrap_or(after.len());
    match after.split_at(end) {
        (name, behind) if is_shell && !name.is_empty() => (Some(name), behind),
        _ => (None, after.strip_prefix('$').unwrap_or(after)),
    }
}

fn is_of_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_'
}

/// What `sh -c` is given.
fn script(words: &[Word]) -> Option<&str> {
    let program = Path::new(&words.first()?.text).file_name()?.to_str()?;
    let is_shell = BTreeSet::from(["sh", "bash", "dash", "ash"]).contains(program);
    let at = words.iter().position(|word| word.text == "-c").filter(|_| is_shell)?;
    words.get(at + 1).map(|word| word.text.as_str())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;
    use crate::host::paths::Paths;

    const OURS: Unknown<'_> = Unknown { variables: &["OURS"], files: &["/run/generated.env"] };

    /// A node with these files and kubelet.service among them.
    fn service(files: &[(&str, &str)]) -> (tempfile::TempDir, Option<Service>) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        for (path, text) in files {
            let path = paths.resolve(Path::new(path));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        let found = Service::find(&HostRoot(&paths), "kubelet.service", &OURS).unwrap();
        (dir, found)
    }

    fn command(files: &[(&str, &str)]) -> String {
        let words = service(files).1.expect("a unit").words;
        words.into_iter().map(|word| word.text).collect::<Vec<_>>().join("|")
    }

    #[test]
    fn command_is_what_systemd_would_start() {
        let unit = "/usr/lib/systemd/system/kubelet.service";
        for (exec_start, expected) in [
            ("ExecStart=/k --a --b=c\n", "/k|--a|--b=c"),
            ("ExecStart=-@!/k k \"--a b\"\n", "/k|k|--a b"),
            ("ExecStart=/k \\\n  --a \\\n# no end\n  --b\n", "/k|--a|--b"),
            (
                "ExecStart=/k $ARGS $NONE --x=${X} --y=$X $$X 100%%\n",
                "/k|--one|--two words|--x=x y|--y=$X|$X|100%",
            ),
            ("ExecStart=/old\nExecStart=\nExecStart=/k\n", "/k"),
            ("ExecStart=/k ${OURS} $OURS --pods=${OURS}\n", "/k|${OURS}|${OURS}|--pods=${OURS}"),
            (
                "ExecStart=/bin/sh -c 'exec /k $ARGS --p=$$OURS ${X:-1}'\n",
                "/bin/sh|-c|exec /k $ARGS --p=$OURS x y|exec|/k|--one|--two words|--p=${OURS}|x|y",
            ),
            ("ExecStart=/k $ARGS\nEnvironment=\nEnvironment=Y=1\n", "/k"),
            ("ExecStart=/k $GENERATED\n", "/k"),
            ("", ""),
        ] {
            let head = "[Unit]\nExecStart=/no\n[Service]\nEnvironment=OURS=1 \"X=x y\"\n\
                        Environment='ARGS=--one \"--two words\"'\nEnvironmentFile=/run/generated.env\n";
            let text = format!("{head}{exec_start}[Install]\nExecStart=/no\n");
            let generated = ("/run/generated.env", "GENERATED=--stale\n");
            assert_eq!(command(&[(unit, &text), generated]), expected, "{exec_start}");
        }
    }

    #[test]
    fn files_and_drop_ins_count_in_systemds_order() {
        let unit = "[Service]\nExecStart=/k $A $B $C\nEnvironment=A=unit B=unit C=unit\n";
        let found = command(&[
            ("/usr/lib/systemd/system/kubelet.service", unit),
            ("/etc/systemd/system/kubelet.service.d/20-b.conf", "[Service]\nEnvironment=B=etc\n"),
            (
                "/usr/lib/systemd/system/kubelet.service.d/20-b.conf",
                "[Service]\nEnvironment=B=usr\n",
            ),
            ("/run/systemd/system/kubelet.service.d/10-b.conf", "[Service]\nEnvironment=B=run\n"),
            (
                "/etc/systemd/system/service.d/30-c.conf",
                "[Service]\nEnvironmentFile=-/etc/none\nEnvironmentFile=-/etc/c\n",
            ),
            ("/etc/systemd/system/kubelet.service.d/40.txt", "[Service]\nEnvironment=B=txt\n"),
            ("/etc/c", "C=file\n"),
        ]);
        assert_eq!(found, "/k|unit|etc|file");
        let above = ("/etc/systemd/system/kubelet.service", "[Service]\nExecStart=/above\n");
        assert_eq!(command(&[above, ("/lib/systemd/system/kubelet.service", unit)]), "/above");
    }

    #[test]
    fn masked_unit_is_none() {
        let (dir, _) = service(&[("/usr/lib/systemd/system/kubelet.service", "[Service]\n")]);
        let paths = Paths::below(dir.path());
        fs::create_dir_all(dir.path().join("etc/systemd/system")).unwrap();
        let link = dir.path().join("etc/systemd/system/kubelet.service");
        std::os::unix::fs::symlink("/dev/null", link).unwrap();
        assert_eq!(Service::find(&HostRoot(&paths), "kubelet.service", &OURS).unwrap(), None);
    }

    #[test]
    fn words_know_where_they_are_from() {
        let unit = "[Service]\nEnvironment=A=--a=1\nEnvironmentFile=/etc/b\nExecStart=/k \\\n $A $B --c=${C}\n";
        let (_dir, found) = service(&[
            ("/lib/systemd/system/kubelet.service", unit),
            ("/etc/b", "# b\nB=\"--b 2\"\nC=3\n"),
        ]);
        let found = found.unwrap();
        let given = |name| flag(&found.words, name).map(|w| format!("{} {}", w.text, w.place));
        assert_eq!(given("a").unwrap(), "1 /lib/systemd/system/kubelet.service:2");
        assert_eq!(given("b").unwrap(), "2 /etc/b:2");
        assert_eq!(given("c").unwrap(), "3 /etc/b:3");
        assert_eq!(given("d"), None);
        assert_eq!(found.exec_start.to_string(), "/lib/systemd/system/kubelet.service:4");
        assert!(found.environment_files[0].is_required);
    }

    #[test]
    fn last_of_equal_flags_counts() {
        let unit = "[Service]\nExecStart=/k --max-pods=1 --max_pods 2 -max-pods=3 --max-pods-x=4\n";
        let (_dir, found) = service(&[("/lib/systemd/system/kubelet.service", unit)]);
        assert_eq!(flag(&found.unwrap().words, "max-pods").unwrap().text, "2");
    }

    #[test]
    fn directories_of_drop_ins_go_from_precise_to_general() {
        let expected = ["nodeadm-run.service.d", "nodeadm-.service.d", "service.d"];
        assert_eq!(drop_in_directories("nodeadm-run.service"), expected);
    }

    #[test]
    fn pattern_of_environment_files_is_told() {
        let unit = "[Service]\nEnvironmentFile=-/etc/kubelet.d/*.env\nExecStart=/k\n";
        let (_dir, found) = service(&[("/lib/systemd/system/kubelet.service", unit)]);
        let warning = "/lib/systemd/system/kubelet.service:2: EnvironmentFile=/etc/kubelet.d/*.env is a \
                    pattern, which is not followed here";
        assert_eq!(found.unwrap().warnings, [warning]);
    }
}
