// SPDX-License-Identifier: Apache-2.0
//! What the CNI plugin receives, in any bytes: five lines of environment, then
//! standard input; and the same bytes as the runtime's cache keeps them. There
//! is an answer for all of it, nothing that a key could lead out of the records'
//! directory with, and nothing is made of what was refused.
#![no_main]

use host_agent::plugin::Paths;
use host_agent::plugin::{CNI_VERSIONS, CniCode, Command, Environment, Error, Request, Valid, run};
use host_agent::readers::Annotated;
use host_agent::readers::CAPABILITY;
use host_agent::readers::annotated;
use libfuzzer_sys::fuzz_target;
use serde_json::Value;

/// Nothing is there, so every verb ends with what it has decoded.
const NOWHERE: &str = "/proc/self/fdinfo/nowhere";

fuzz_target!(|bytes: &[u8]| {
    let text = String::from_utf8_lossy(bytes);
    let mut parts = text.splitn(6, '\n');
    let mut next = || parts.next().unwrap_or_default().to_owned();
    let environment = Environment {
        command: next(),
        container_id: next(),
        netns: next(),
        ifname: next(),
        args: next(),
    };
    let stdin = next();
    request(&environment, &stdin);
    cached(&stdin);
    if let Err(error) = Valid::decode(&stdin) {
        reported(&error);
    }
    answered(&environment, &stdin);
});

fn request(environment: &Environment, stdin: &str) {
    match Request::decode(environment, stdin) {
        Ok(request) => {
            let key = &request.key;
            let name = format!("1@{}@{}.json", key.container_id, key.ifname);
            assert!(!name.contains(['/', '\0']) && !key.ifname.starts_with('.'), "{name:?}");
            assert!(!environment.netns.is_empty());
            assert!(stdin.contains(request.prev_result.get()), "the result is not as it came");
            round_trip(&request.annotated);
        }
        Err(error) => reported(&error),
    }
}

/// libcni keeps the same two values in its cache, so the same comes of them.
fn cached(stdin: &str) {
    let Ok(value) = serde_json::from_str::<Value>(stdin) else { return };
    let raw = |key: &str| value["runtimeConfig"].get(key).map(Value::to_string);
    let (bandwidth, annotations) = (raw("bandwidth"), raw(CAPABILITY));
    if let Ok(annotated) = annotated(bandwidth.as_deref(), annotations.as_deref()) {
        round_trip(&annotated);
    }
    // As annotations only, whatever it is.
    let _ = annotated(None, Some(stdin));
}

fn round_trip(annotated: &Annotated) {
    let text = serde_json::to_string(annotated).expect("what was read can be written");
    let again: Annotated = serde_json::from_str(&text).expect("and is read again");
    assert_eq!(again, *annotated, "{text}");
}

fn reported(error: &Error) {
    let json: Value = serde_json::from_str(&error.to_json("1.0.0")).expect("an error in JSON");
    assert!(json["code"].as_u64().is_some_and(|code| code > 0));
    assert!(json["msg"].as_str().is_some_and(|msg| msg.len() > "sluice: ".len()));
}

/// On a node where nothing of Sluice's is: VERSION and STATUS have an answer, ADD asks to try again at
/// best, DEL has nothing to do.
fn answered(environment: &Environment, stdin: &str) {
    let answer = run(&Paths::below(NOWHERE), environment, stdin);
    let command = environment.command().ok();
    match (&answer, command) {
        (Ok(said), Some(Command::Version)) => {
            let said: Value = serde_json::from_str(said).expect("JSON");
            assert_eq!(
                said["supportedVersions"].as_array().map(Vec::len),
                Some(CNI_VERSIONS.len())
            );
        }
        (Ok(said), Some(Command::Del | Command::Gc)) => assert!(said.is_empty()),
        (Ok(said), _) => panic!("{command:?} succeeded where nothing is: {said}"),
        (Err(said), _) => {
            let said: Value = serde_json::from_str(said).expect("JSON");
            let known = said["code"].as_u64().is_some_and(|code| code <= CniCode::Missing as u64);
            assert!(known && said["msg"].is_string(), "{said}");
        }
    }
}
