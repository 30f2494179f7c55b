// SPDX-License-Identifier: Apache-2.0
//! All that was measured: figures and what they come from, written as JSON.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde::Serialize;

use crate::crowd::{self, Crowd};
use crate::figure::Figure;
use crate::jobs::Outcome;
use crate::packets::{self, Packets};
use crate::rate::Rate;
use crate::row::Row;
use crate::share::Share;
use crate::{rate_kept, share_figures, share_plots, under_load};

const REPORT: &str = "target/report/bench.json";

#[derive(Default, Serialize)]
pub struct Report {
    pub figures: Vec<Figure>,
    pub rows: Vec<Row>,
    pub rates: Vec<Rate>,
    pub packets: Vec<Packets>,
    pub crowds: Vec<Crowd>,
    pub shares: Vec<Share>,
}

impl Report {
    /// What guests measured, and the figures that follow.
    pub fn take(&mut self, outcomes: Vec<Outcome>) {
        for outcome in outcomes {
            match outcome {
                Outcome::Row(row) => self.rows.push(row),
                Outcome::Rate(rate) => self.rates.push(rate),
                Outcome::Packets(packets) => self.packets.push(packets),
                Outcome::Crowd(crowd) => self.crowds.push(crowd),
                Outcome::Share(share) => self.shares.push(share),
            }
        }
        self.rows.sort_by_key(|row| row.plan.order());
        if !self.packets.is_empty() {
            self.figures.push(packets::figure(&self.packets));
        }
        if !self.rates.is_empty() {
            self.figures.extend(rate_kept::figures(&self.rates));
        }
        if !self.rows.is_empty() {
            self.figures.extend(under_load::figures(&self.rows));
        }
        self.crowds.sort_by_key(|crowd| crowd.plan);
        if !self.crowds.is_empty() {
            self.figures.extend(crowd::figures(&self.crowds));
        }
        self.figures.extend(share_figures::figures(&self.shares));
    }

    pub fn take_processors(&mut self, outcomes: &[Outcome]) {
        let rates: Vec<Rate> = outcomes
            .iter()
            .filter_map(|outcome| match outcome {
                Outcome::Rate(rate) => Some(rate.clone()),
                _ => None,
            })
            .collect();
        self.figures.push(rate_kept::processors(&rates));
    }

    /// Prints the figures and writes the JSON; false when one is not what it must be.
    pub fn finish(&self) -> Result<bool> {
        println!();
        self.figures.iter().for_each(Figure::print);
        let path = Path::new(REPORT);
        fs::create_dir_all(path.parent().unwrap_or(Path::new(".")))?;
        fs::write(path, serde_json::to_string_pretty(self)? + "\n")
            .with_context(|| format!("write {REPORT}"))?;
        for (name, _, svg) in share_plots::all(&self.shares) {
            fs::write(path.with_file_name(format!("{name}.svg")), svg).context("write a plot")?;
        }
        println!("written: {REPORT}");
        Ok(self.figures.iter().all(|figure| figure.ok))
    }
}
