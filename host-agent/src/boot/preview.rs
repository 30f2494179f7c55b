// SPDX-License-Identifier: Apache-2.0
//! What a plan would change, as a unified diff. Reads, and changes nothing.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, Result};
use similar::TextDiff;

use crate::boot::part::{FileContent, Plugin};
use crate::boot::plan::Plan;
use crate::host::file;

/// One text for each file or directory; none where the node is as planned.
pub fn preview(plan: &Plan) -> Result<Vec<String>> {
    let mut changes = Vec::new();
    for part in plan.parts() {
        let plugin = part.plugin.iter().map(plugin);
        let differences = part.files.iter().map(difference);
        let removals = part.obsolete.iter().map(|path| removal(path, &part.obsolete));
        changes.extend(plugin.chain(differences).chain(removals).collect::<Result<Vec<_>>>()?);
    }
    changes.retain(|change| !change.is_empty());
    Ok(changes)
}

fn removal(path: &Path, obsolete: &[PathBuf]) -> Result<String> {
    let name = path.display();
    if path.is_dir() {
        let entries = fs::read_dir(path).with_context(|| format!("list {name}"))?;
        let is_kept = |entry: io::Result<fs::DirEntry>| {
            entry.is_ok_and(|entry| !obsolete.contains(&entry.path()))
        };
        let stays = entries.into_iter().any(is_kept);
        return Ok(if stays { String::new() } else { format!("directory {name}: removed\n") });
    }
    let old = match fs::read(path) {
        Ok(old) => old,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(String::new()),
        Err(e) => return Err(e).with_context(|| format!("read {name}")),
    };
    let Ok(before) = str::from_utf8(&old) else {
        return Ok(format!("binary {name}: removed, {} bytes\n", old.len()));
    };
    let diff = TextDiff::from_lines(before, "");
    Ok(diff.unified_diff().header(&name.to_string(), "/dev/null").to_string())
}

fn plugin(wanted: &Plugin) -> Result<String> {
    let Plugin { from, to } = wanted;
    let attempt = || format!("compare {} with {}", to.display(), from.display());
    if file::same(from, to).with_context(attempt)? {
        return Ok(String::new());
    }
    let length = |path| fs::metadata(path).map_or(0, |metadata| metadata.len() as usize);
    Ok(binary(to, length(from), length(to)))
}

fn binary(path: &Path, wanted: usize, old: usize) -> String {
    format!("binary {}: {wanted} bytes, now {old}\n", path.display())
}

fn difference(wanted: &FileContent) -> Result<String> {
    let path = wanted.path.display();
    let (old, old_name) = match fs::read(&wanted.path) {
        Ok(old) if old == wanted.content => return Ok(String::new()),
        Ok(old) => (old, path.to_string()),
        Err(e) if e.kind() == std::io::ErrorKind::NotFound => (Vec::new(), "/dev/null".into()),
        Err(e) => return Err(e).with_context(|| format!("read {path}")),
    };
    let (Ok(before), Ok(after)) = (str::from_utf8(&old), str::from_utf8(&wanted.content)) else {
        return Ok(binary(&wanted.path, wanted.content.len(), old.len()));
    };
    let diff = TextDiff::from_lines(before, after);
    Ok(diff.unified_diff().header(&old_name, &path.to_string()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::boot::part::Part;

    fn shown(plan: &Plan, dir: &Path) -> String {
        preview(plan).unwrap().concat().replace(&dir.display().to_string(), "")
    }

    #[test]
    fn what_goes_shows_as_a_diff_to_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let [empty, shared] = ["empty", "shared"].map(|name| dir.path().join(name));
        [&empty, &shared].iter().for_each(|dir| fs::create_dir(dir).unwrap());
        fs::write(empty.join("ours"), "a\n").unwrap();
        fs::write(empty.join("binary"), [0xff]).unwrap();
        fs::write(shared.join("theirs"), "b\n").unwrap();
        let obsolete =
            vec![empty.join("ours"), empty.join("binary"), empty, shared, dir.path().join("none")];
        let kubelet = Part { obsolete, ..Part::default() };
        let plan = Plan { kubelet, ..Plan::default() };
        assert_eq!(
            shown(&plan, dir.path()),
            "--- /empty/ours\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\nbinary /empty/binary: removed, 1 \
             bytes\ndirectory /empty: removed\n"
        );
    }

    #[test]
    fn changed_new_and_unchanged_files_show_as_such() {
        let dir = tempfile::tempdir().unwrap();
        let file = |name: &str, content: &str| FileContent {
            path: dir.path().join(name),
            content: content.into(),
            mode: 0o644,
        };
        fs::write(dir.path().join("same"), "x\n").unwrap();
        fs::write(dir.path().join("changed"), "a\nb\n").unwrap();
        let files = vec![file("same", "x\n"), file("changed", "a\nc\n"), file("new", "n\n")];
        let plan = Plan { settings: Part { files, ..Part::default() }, ..Plan::default() };
        assert_eq!(
            shown(&plan, dir.path()),
            "--- /changed\n+++ /changed\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n--- /dev/null\n+++ /new\n\
             @@ -0,0 +1 @@\n+n\n"
        );
    }
}
