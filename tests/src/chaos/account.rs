// SPDX-License-Identifier: Apache-2.0
//! What the agents of a run have reported of themselves, each before its end.

use std::collections::BTreeSet;

use super::process::{resident_kib, status};

#[derive(Default)]
pub struct Account {
    repairs: u64,
    adopted: u64,
    collected: u64,
    conflist_writes: u64,
    troubles: BTreeSet<String>,
    memory_kib: Vec<u64>,
}

impl Account {
    /// An agent that does not answer has nothing to tell.
    pub fn ask(&mut self, process: u32) {
        let Some(status) = status() else { return };
        let report = &status["agent"]["report"];
        let count = |key: &str| report[key].as_u64().unwrap_or_default();
        self.repairs += count("repairs");
        self.adopted += count("adopted");
        self.collected += count("collected");
        self.conflist_writes += count("conflist_writes");
        let troubles = report["troubles"].as_array().cloned().unwrap_or_default();
        let codes = troubles.iter().filter_map(|trouble| trouble["code"].as_str());
        self.troubles.extend(codes.map(str::to_owned));
        self.memory_kib.push(resident_kib(process));
    }

    pub fn print(&self) {
        let Self { repairs, adopted, collected, conflist_writes, troubles, memory_kib } = self;
        println!(
            "agent: {repairs} repairs, {adopted} adopted, {collected} collected, \
             {conflist_writes} conflists written; troubles now and then: {troubles:?}"
        );
        let [first, last, most] = [memory_kib.first(), memory_kib.last(), memory_kib.iter().max()]
            .map(|kib| kib.copied().unwrap_or_default());
        println!("agent's memory in KiB: first {first}, last {last}, most {most}");
    }
}
