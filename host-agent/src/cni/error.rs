// SPDX-License-Identifier: Apache-2.0
//! Errors as the CNI spec has them: JSON on standard output, exit status 1.
//! Codes 1 to 99 are the spec's, those from 100 on are Sluice's (docs/reference.md).

use serde_json::json;

/// What a runtime, or the person who reads its log, is to make of an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CniCode {
    IncompatibleVersion = 1,
    InvalidEnvironment = 4,
    Io = 5,
    Decode = 6,
    InvalidConfig = 7,
    TryAgainLater = 11,
    /// STATUS only: the plugin cannot serve ADD requests.
    NotAvailable = 50,
    /// The pod's network namespace or its interface cannot be found.
    NoInterface = 100,
    /// The shaper cannot be put on the veth pair.
    Attach = 101,
    /// No slot is free.
    Full = 102,
    /// CHECK only: something of what ADD attached is no longer there.
    Missing = 103,
    /// The pod asks to be promised more than the node has left.
    Promised = 104,
}

#[derive(Debug)]
pub struct Error {
    pub code: CniCode,
    pub source: anyhow::Error,
}

impl Error {
    /// For `map_err`: gives every error of a step this code.
    pub fn with<E: Into<anyhow::Error>>(code: CniCode) -> impl Fn(E) -> Self {
        move |source| Self { code, source: source.into() }
    }

    pub fn new(code: CniCode, message: impl Into<String>) -> Self {
        Self { code, source: anyhow::Error::msg(message.into()) }
    }

    /// `msg` is the attempt, `details` the chain of causes below it. Runtimes print both.
    pub fn to_json(&self, cni_version: &str) -> String {
        let causes: Vec<String> = self.source.chain().skip(1).map(ToString::to_string).collect();
        json!({
            "cniVersion": cni_version,
            "code": self.code as u32,
            "msg": format!("sluice: {}", self.source),
            "details": causes.join(": "),
        })
        .to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn json_has_the_attempt_and_its_causes() {
        let source = anyhow::anyhow!("no such file").context("open the pin x").context("attach");
        let json = Error { code: CniCode::Attach, source }.to_json("0.4.0");
        assert_eq!(
            json,
            r#"{"cniVersion":"0.4.0","code":101,"details":"open the pin x: no such file","msg":"sluice: attach"}"#
        );
    }
}
