// SPDX-License-Identifier: Apache-2.0
//! What a guest is asked to measure, and what it answers: both travel as JSON.

use serde::{Deserialize, Serialize};
use tests::node::Node;

use crate::row::{Row, RowPlan};

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Job {
    Row(RowPlan),
}

#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Outcome {
    Row(Row),
}

impl Job {
    pub fn run(&self, node: &Node) -> Outcome {
        match self {
            Self::Row(plan) => Outcome::Row(plan.run(node)),
        }
    }

    /// Rough seconds of this machine's time, to share the jobs out.
    pub fn weight(&self) -> f64 {
        match self {
            Self::Row(plan) => 5.0 + plan.flows as f64 / 16.0,
        }
    }
}

impl std::fmt::Display for Outcome {
    fn fmt(&self, f: &mut std::fmt::Formatter) -> std::fmt::Result {
        match self {
            Self::Row(row) => row.fmt(f),
        }
    }
}
