// SPDX-License-Identifier: Apache-2.0
//! `bench rows KEY=VALUE,…`: chosen rows of the comparison under load, printed
//! as a table, for whoever tunes the shaping.

use anyhow::{Context, Result, bail};
use serde::de::DeserializeOwned;

use crate::guest;
use crate::jobs::Job;
use crate::row::{Direction, Row, RowPlan};
use crate::setups::Setup;
use crate::site::USUAL_MTU;

pub const USAGE: &str = "bench rows [setups=sluice,cake,none,tbf-fq-codel,upstream,upstream-32kb,\
cilium-edt] [directions=egress,ingress] [flows=1,8,32] [congestion=cubic,bbr] [mbit=20] [mtu=1500] [seconds=6]";

struct Choice {
    setups: Vec<Setup>,
    directions: Vec<Direction>,
    flows: Vec<usize>,
    congestion: Vec<String>,
    mbit: u64,
    mtu: u32,
    seconds: usize,
}

pub fn run(words: &[String]) -> Result<()> {
    let plans = Choice::parse(words)?.plans();
    println!("{}", Row::head());
    let jobs: Vec<Job> = plans.into_iter().map(Job::Row).collect();
    guest::measure(&jobs)?;
    Ok(())
}

impl Choice {
    fn parse(words: &[String]) -> Result<Self> {
        let mut choice = Self {
            setups: vec![Setup::Sluice, Setup::Cake],
            directions: vec![Direction::Egress, Direction::Ingress],
            flows: vec![1, 8, 32],
            congestion: vec!["cubic".into()],
            mbit: 20,
            mtu: USUAL_MTU,
            seconds: 6,
        };
        for word in words {
            let (key, value) = word.split_once('=').with_context(|| format!("usage: {USAGE}"))?;
            match key {
                "setups" => choice.setups = names(value)?,
                "directions" => choice.directions = names(value)?,
                "flows" => {
                    choice.flows = value.split(',').map(str::parse).collect::<Result<_, _>>()?
                }
                "congestion" => choice.congestion = names(value)?,
                "mbit" => choice.mbit = value.parse()?,
                "mtu" => choice.mtu = value.parse()?,
                "seconds" => choice.seconds = value.parse()?,
                _ => bail!("{key}? usage: {USAGE}"),
            }
        }
        Ok(choice)
    }

    fn plans(&self) -> Vec<RowPlan> {
        let mut plans = Vec::new();
        for direction in &self.directions {
            for congestion in &self.congestion {
                for flows in &self.flows {
                    plans.extend(self.setups.iter().map(|setup| RowPlan {
                        setup: *setup,
                        direction: *direction,
                        flows: *flows,
                        congestion: congestion.clone(),
                        rate_bps: self.mbit * 1_000_000,
                        mtu: self.mtu,
                        seconds: self.seconds,
                    }));
                }
            }
        }
        plans
    }
}

fn names<T: DeserializeOwned>(list: &str) -> Result<Vec<T>> {
    let parse = |name| serde_json::from_value(serde_json::Value::from(name));
    list.split(',').map(parse).collect::<Result<_, _>>().with_context(|| format!("usage: {USAGE}"))
}
