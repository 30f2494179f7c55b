// SPDX-License-Identifier: Apache-2.0
//! A figure against what it must be, and the report that holds them all.

use serde::Serialize;
use serde_json::{Map, Value};

use crate::site::USUAL_MTU;

/// Which side of `must` and `aim` is good.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Bound {
    AtMost,
    AtLeast,
}

#[derive(Serialize)]
pub struct Figure {
    pub id: String,
    pub name: String,
    pub value: f64,
    pub unit: &'static str,
    /// At most (or at least) this, or the figure is not good enough.
    pub must: f64,
    pub aim: f64,
    pub ok: bool,
    pub aim_ok: bool,
    /// Which case the value is of, where it is the worst of several.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub detail: String,
    pub peers: Map<String, Value>,
}

impl Figure {
    pub fn new(id: impl Into<String>, name: impl Into<String>, unit: &'static str) -> Self {
        let (id, name, nan) = (id.into(), name.into(), f64::NAN);
        let (must, aim, detail) = (nan, nan, String::new());
        Self {
            id,
            name,
            value: nan,
            unit,
            must,
            aim,
            ok: false,
            aim_ok: false,
            detail,
            peers: Map::new(),
        }
    }

    pub fn judge(mut self, value: f64, bound: Bound, [must, aim]: [f64; 2]) -> Self {
        let holds = |limit: f64| match bound {
            Bound::AtMost => value <= limit,
            Bound::AtLeast => value >= limit,
        };
        (self.value, self.must, self.aim) = (value, must, aim);
        (self.ok, self.aim_ok) = (holds(must), holds(aim));
        self
    }

    /// The same by frames of this MTU: a figure of its own.
    pub fn at_mtu(mut self, mtu: u32) -> Self {
        if mtu != USUAL_MTU {
            self.id = format!("{}-{mtu}", self.id);
        }
        self
    }

    pub fn detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = detail.into();
        self
    }

    pub fn peer(mut self, name: impl Into<String>, value: impl Into<Value>) -> Self {
        self.peers.insert(name.into(), value.into());
        self
    }

    pub fn print(&self) {
        let Self { id, name, value, unit, must, aim, .. } = self;
        let verdict = match (self.ok, self.aim_ok) {
            (true, true) => "ok, as aimed for",
            (true, false) => "ok",
            _ => "NOT OK",
        };
        let detail = if self.detail.is_empty() { "" } else { &format!(" ({})", self.detail) };
        println!(
            "{id:<31} {value:>9.3} {unit:<8} must {must} aim {aim}: {verdict}: {name}{detail}"
        );
    }
}
