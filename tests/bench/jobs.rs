// SPDX-License-Identifier: Apache-2.0
//! What a guest is asked to measure, and what it answers: both travel as JSON.

use std::fmt;

use serde::{Deserialize, Serialize};
use tests::node::Node;

use crate::crowd::{Crowd, CrowdPlan};
use crate::packets::{self, Packets};
use crate::rate::{Rate, RatePlan};
use crate::row::{Row, RowPlan};
use crate::setups::Setup;
use crate::share::{Share, SharePlan};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    Row(RowPlan),
    Rate(RatePlan),
    Packets(Setup),
    Crowd(CrowdPlan),
    Share(SharePlan),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    Row(Row),
    Rate(Rate),
    Packets(Packets),
    Crowd(Crowd),
    Share(Share),
}

impl Job {
    pub fn run(&self, node: &Node) -> Outcome {
        match self {
            Self::Row(plan) => Outcome::Row(plan.run(node)),
            Self::Rate(plan) => Outcome::Rate(plan.run(node)),
            Self::Packets(setup) => Outcome::Packets(packets::run(*setup, node)),
            Self::Crowd(plan) => Outcome::Crowd(plan.run(node)),
            Self::Share(plan) => Outcome::Share(plan.run(node)),
        }
    }

    /// Rough seconds of this machine's time, to share the jobs out.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Row(plan) => 5.0 + plan.flows as f64 / 16.0,
            Self::Rate(plan) => 2.0 + plan.rate_bps as f64 / 5e6,
            Self::Packets(_) => 10.0,
            Self::Crowd(plan) => 10.0 + plan.flows as f64 / 1000.0,
            Self::Share(plan) => 10.0 + plan.pods.len() as f64,
        }
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter) -> fmt::Result {
        match self {
            Self::Row(row) => row.fmt(f),
            Self::Rate(rate) => rate.fmt(f),
            Self::Packets(packets) => packets.fmt(f),
            Self::Crowd(crowd) => crowd.fmt(f),
            Self::Share(share) => share.fmt(f),
        }
    }
}
