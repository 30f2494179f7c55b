// SPDX-License-Identifier: Apache-2.0
//! Every command with good and bad input. What is expected here is what an extension made with
//! bottlerocket-settings-sdk 0.1.0-alpha.2 and argh 0.1.12 printed for the same call, with the same model.

use super::*;

const LIMIT: &str = r#"{"bandwidth":{"default-egress":"500Mbit"}}"#;
const MISSPELT: &str = r#"{"bandwidth":{"defualt-egress":"500Mbit"}}"#;
const CONTRADICTION: &str = r#"{"bandwidth":{"default-egress":"2Gbit","max-egress":"1Gbit"}}"#;
const WHY_MISSPELT: &str =
    "settings.sluice.bandwidth.defualt-egress: unknown key; did you mean \"default-egress\"?";
const WHY_CONTRADICTION: &str = "settings.sluice.bandwidth.default-egress: \"2Gbit\" is above \
                                 bandwidth.max-egress = \"1Gbit\"; use at most \"1Gbit\"";

fn call(arguments: &[&str]) -> Answer {
    let arguments = [&["proto1"], arguments].concat();
    answer(&arguments.into_iter().map(str::to_owned).collect::<Vec<_>>())
}

fn done(text: &str) -> Answer {
    Answer::Done(text.to_owned())
}

fn refused(text: String) -> Answer {
    Answer::Refused(text)
}

fn misused(text: &str) -> Answer {
    Answer::Misused(text.to_owned())
}

/// Of a value that is no model.
fn no_model(operation: &str, input: &str) -> Answer {
    let value = "{\n  \"bandwidth\": {\n    \"defualt-egress\": \"500Mbit\"\n  }\n}";
    refused(format!(
        "{operation} operation failed: Failed to deserialize '{input}' input as settings value version \
         'v1': {WHY_MISSPELT}\nValue: {value}"
    ))
}

const UNKNOWN_VERSION: &str = "Requested model version 'v2' not found";

#[test]
fn set_takes_what_goes_together_and_says_nothing() {
    let set = |more: &[&str]| call(&[&["set", "--setting-version", "v1"], more].concat());
    assert_eq!(set(&["--value", LIMIT]), done(""));
    assert_eq!(set(&["--value", LIMIT, "--current-value", "{}"]), done(""));
    assert_eq!(set(&["--value", MISSPELT]), no_model("Set", "target-value"));
    assert_eq!(
        set(&["--value", LIMIT, "--current-value", MISSPELT]),
        no_model("Set", "current-value")
    );
    assert_eq!(
        set(&["--value", CONTRADICTION]),
        refused(format!(
            "Set operation failed: Failed to run 'set' on setting version 'v1': {WHY_CONTRADICTION}"
        ))
    );
    assert_eq!(
        set(&["--value", "5"]),
        refused(
            "Set operation failed: Failed to deserialize 'target-value' input as settings value \
             version 'v1': invalid type: integer `5`, expected a map\nValue: 5"
                .into()
        )
    );
    let other = call(&["set", "--setting-version", "v2", "--value", LIMIT]);
    assert_eq!(other, refused(UNKNOWN_VERSION.into()));
}

#[test]
fn validate_looks_at_other_settings_too() {
    let validate = |more: &[&str]| call(&[&["validate", "--setting-version", "v1"], more].concat());
    let value = r#"{"max-pods":{"value":58}}"#;
    let with = |count| format!(r#"{{"kubernetes":{{"max-pods":{count}}}}}"#);
    assert_eq!(validate(&["--value", value]), done(""));
    assert_eq!(validate(&["--value", value, "--required-settings", &with(58)]), done(""));
    assert_eq!(
        validate(&["--value", value, "--required-settings", &with(60)]),
        refused(
            "Validate operation failed: Failed to run 'validate' on setting version 'v1': \
             settings.sluice.max-pods.value: found 58, but settings.kubernetes.max-pods is 60; keep \
             one of the two or make them equal"
                .into()
        )
    );
    assert_eq!(validate(&["--value", MISSPELT]), no_model("Validate", "value"));
    let other = call(&["validate", "--setting-version", "v2", "--value", LIMIT]);
    assert_eq!(other, refused(UNKNOWN_VERSION.into()));
}

#[test]
fn generate_completes_what_is_there() {
    let generate = |more: &[&str]| call(&[&["generate", "--setting-version", "v1"], more].concat());
    assert_eq!(generate(&[]), done("{\n  \"Complete\": {\n    \"version\": 1\n  }\n}"));
    let completed = "{\n  \"Complete\": {\n    \"bandwidth\": {\n      \"default-egress\": \
                     \"500Mbit\"\n    },\n    \"version\": 1\n  }\n}";
    assert_eq!(
        generate(&["--existing-partial", LIMIT, "--required-settings", "{}"]),
        done(completed)
    );
    assert_eq!(
        generate(&["--existing-partial", MISSPELT]),
        no_model("Generate", "existing-partial")
    );
    assert_eq!(call(&["generate", "--setting-version", "v2"]), refused(UNKNOWN_VERSION.into()));
}

#[test]
fn migrations_lead_from_the_one_version_to_itself() {
    let value = "{\n  \"bandwidth\": {\n    \"default-egress\": \"500Mbit\"\n  }\n}";
    let migrate = |from, to| {
        call(&["migrate", "--value", LIMIT, "--from-version", from, "--target-version", to])
    };
    assert_eq!(migrate("v1", "v1"), done(value));
    let no_route = "Migrate operation failed: No migration route found for 'v1' to 'v2'";
    assert_eq!(migrate("v1", "v2"), refused(no_route.into()));
    assert_eq!(migrate("v2", "v1"), refused(UNKNOWN_VERSION.into()));
    let flood = |value, from| call(&["flood-migrate", "--value", value, "--from-version", from]);
    let all = "[\n  {\n    \"value\": {\n      \"bandwidth\": {\n        \"default-egress\": \
               \"500Mbit\"\n      }\n    },\n    \"version\": \"v1\"\n  }\n]";
    assert_eq!(flood(LIMIT, "v1"), done(all));
    assert_eq!(flood(LIMIT, "v2"), refused(UNKNOWN_VERSION.into()));
    let bad = refused(format!(
        "Failed to parse input as requested model version 'v1': Failed to parse setting value \
         (version 'v1') from JSON: {WHY_MISSPELT}"
    ));
    assert_eq!(flood(MISSPELT, "v1"), bad);
    assert_eq!(
        call(&["migrate", "--value", MISSPELT, "--from-version", "v1", "--target-version", "v1"]),
        bad
    );
}

#[test]
fn there_is_no_helper() {
    let helper = |version| {
        let call = ["helper", "--setting-version", version, "--helper-name", "x"];
        super::tests::call(&[&call[..], &["--arg", "1", "--arg", "{}"]].concat())
    };
    let none = "Template helper execution failed: Failed to find template helper 'x@v1' from \
                settings extension";
    assert_eq!(helper("v1"), refused(none.into()));
    assert_eq!(helper("v2"), refused(UNKNOWN_VERSION.into()));
}

#[test]
fn a_call_that_is_none_says_what_is_wrong_with_it() {
    for (arguments, expected) in [
        (&["set"][..], "Required options not provided:\n    --setting-version\n    --value\n"),
        (&["generate"], "Required options not provided:\n    --setting-version\n"),
        (
            &["migrate", "--from-version", "v1"],
            "Required options not provided:\n    --value\n    --target-version\n",
        ),
        (
            &["helper", "--arg", "1"],
            "Required options not provided:\n    --setting-version\n    --helper-name\n",
        ),
        (&["set", "--value"], "No value provided for option '--value'.\n"),
        (
            &["set", "--value", "{"],
            "Error parsing option '--value' with value '{': EOF while parsing an object at line 1 \
             column 1\n",
        ),
        (
            &["set", "--value", "1", "--value", "2"],
            "Error parsing option '--value' with value '2': duplicate values provided\n",
        ),
        (&["set", "--wings", "2"], "Unrecognized argument: --wings\n"),
        (&["set", "--value=1"], "Unrecognized argument: --value=1\n"),
        (&["set", "wings"], "Unrecognized argument: wings\n"),
        (&["set", "--", "--value"], "Unrecognized argument: --value\n"),
        (&["set", "set"], "Unrecognized argument: set\n"),
        (&["fly"], "Unrecognized argument: fly\n"),
        (&["--value", "set"], "Unrecognized argument: --value\n"),
        (&["set", "help", "--value", "1"], "Trailing arguments are not allowed after `help`."),
        (
            &[],
            "One of the following subcommands must be present:\n    help\n    set\n    generate\n    \
             validate\n    migrate\n    flood-migrate\n    helper\n",
        ),
    ] {
        assert_eq!(call(arguments), misused(expected), "{arguments:?}");
    }
    let other = |arguments: &[&str]| {
        answer(&arguments.iter().map(|&argument| argument.to_owned()).collect::<Vec<_>>())
    };
    let protocols = "One of the following subcommands must be present:\n    help\n    proto1\n";
    assert_eq!(other(&[]), misused(protocols));
    assert_eq!(other(&["proto2"]), misused("Unrecognized argument: proto2\n"));
}

#[test]
fn help_names_every_call() {
    let Answer::Help(text) = call(&["help"]) else { panic!("no help") };
    assert_eq!(call(&["help", "set"]), Answer::Help(text.clone()));
    assert_eq!(call(&["set", "--help"]), Answer::Help(text.clone()));
    let call = "\n  sluice proto1 helper --setting-version <setting-version> --helper-name <helper-name> \
                [--arg <arg...>]";
    assert!(text.ends_with(call), "{text}");
    assert_eq!(text.lines().count(), 3 + OPERATIONS.len());
}
