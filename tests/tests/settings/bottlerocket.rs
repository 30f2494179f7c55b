// SPDX-License-Identifier: Apache-2.0
//! The executable as Bottlerocket's extension for `settings.sluice`, called as Bottlerocket calls it, and the
//! files beside it in a kit. Every command with good and bad input: `cli/settings_extension/tests.rs`.

use std::os::unix::fs::symlink;
use std::process::Command;

use tests::cluster_config::Desk;
use tests::command::{executable, json};

const KIT: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../packaging/bottlerocket/");

/// Standard output, standard error and status of a call by the link of the kit.
fn call(arguments: &[&str]) -> (String, String, Option<i32>) {
    let dir = tempfile::tempdir().expect("make a directory");
    let link = dir.path().join("sluice");
    symlink(executable("sluice"), &link).expect("link the extension");
    let output = Command::new(link).args(arguments).output().expect("call the extension");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (text(output.stdout), text(output.stderr), output.status.code())
}

#[test]
fn answers_are_on_the_stream_and_with_the_status_of_the_protocol() {
    let set = |value| call(&["proto1", "set", "--setting-version", "v1", "--value", value]);
    assert_eq!(set("{}"), ("\n".into(), String::new(), Some(0)));
    let (out, err, status) = set(r#"{"cni":{"mode":"of"}}"#);
    let why = "Set operation failed: Failed to deserialize 'target-value' input as settings value version \
               'v1': settings.sluice.cni.mode: \"of\" is not allowed; use \"chain\", \"standalone\" or \
               \"off\"\nValue: {\n  \"cni\": {\n    \"mode\": \"of\"\n  }\n}\n";
    assert_eq!((out.as_str(), err.as_str(), status), (why, "", Some(1)));
    let misused =
        "Required options not provided:\n    --value\n\nRun sluice --help for more information.\n";
    let nothing = call(&["proto1", "set", "--setting-version", "v1"]);
    assert_eq!(nothing, (String::new(), misused.into(), Some(1)));
    let (help, err, status) = call(&["proto1", "set", "--help"]);
    assert!(help.starts_with("Settings extension of Bottlerocket"), "{help}");
    assert_eq!((err.as_str(), status), ("", Some(0)));
    let generate = ["proto1", "generate", "--setting-version", "v1"];
    let named = [&["settings-extension"][..], &generate].concat();
    assert_eq!(call(&generate), call(&named));
    assert_eq!(json(&call(&generate).0)["Complete"]["version"], 1);
}

#[test]
fn the_kit_names_the_version_that_the_extension_has() {
    let config = std::fs::read_to_string(format!("{KIT}sluice.toml")).expect("read the kit");
    assert!(
        config.contains("\nsupported-versions = [\"v1\"]\ndefault-version = \"v1\"\n"),
        "{config}"
    );
    let template = std::fs::read_to_string(format!("{KIT}sluice-toml")).expect("read the kit");
    assert!(template.starts_with("[required-extensions]\nsluice = \"v1\"\n"), "{template}");
}

/// As Bottlerocket's schnauzer does it: `toml_encode` of a map is an inline table.
#[test]
fn the_kits_template_gives_settings_that_sluice_reads() {
    let template = std::fs::read_to_string(format!("{KIT}sluice-toml")).expect("read the kit");
    let body = template.split("+++\n").nth(1).expect("a body");
    let settings = r#"{ bandwidth = { class = [{ egress = "5Mbit", name = "batch", namespaces = ["jobs"] }], default-egress = "500Mbit" }, version = 1 }"#;
    let lines = body.lines().filter(|line| !line.starts_with("{{"));
    let rendered: String = lines.map(|line| format!("{line}\n")).collect();
    let rendered = rendered.replace("{{ toml_encode settings.sluice }}", settings);
    let read = Desk::with("sluice.version = 1\n").settings_of(&rendered);
    assert_eq!(read["bandwidth"]["default-egress"], "500Mbit");
    assert_eq!(read["bandwidth"]["class"][0]["egress"], "5Mbit");
}
