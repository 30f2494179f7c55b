// SPDX-License-Identifier: Apache-2.0
//! What a plan would change, as a unified diff. Reads, and changes nothing.

use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result};
use similar::TextDiff;

use crate::plan::{FileContent, Plan};

/// Empty where the node is as planned.
pub fn preview(plan: &Plan) -> Result<String> {
    let differences = plan.files.iter().map(difference).collect::<Result<Vec<_>>>()?;
    Ok(differences.concat())
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
        let mut line = String::new();
        // Writing to a String cannot fail.
        let _ = writeln!(line, "binary {path}: {} bytes, now {}", wanted.content.len(), old.len());
        return Ok(line);
    };
    let diff = TextDiff::from_lines(before, after);
    Ok(diff.unified_diff().header(&old_name, &path.to_string()).to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

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
        let plan = Plan {
            files: vec![file("same", "x\n"), file("changed", "a\nc\n"), file("new", "n\n")],
            ..Plan::default()
        };
        let text = preview(&plan).unwrap().replace(&dir.path().display().to_string(), "");
        assert_eq!(
            text,
            "--- /changed\n+++ /changed\n@@ -1,2 +1,2 @@\n a\n-b\n+c\n--- /dev/null\n+++ /new\n\
             @@ -0,0 +1 @@\n+n\n"
        );
    }
}
