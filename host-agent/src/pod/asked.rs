// SPDX-License-Identifier: Apache-2.0
//! What was asked for one pod, beside the settings: by its annotations, and by
//! an operator for a while. Plain data; a record keeps it.

use serde::{Deserialize, Serialize};
use settings_model::{Burst, LatencyTarget, Limit as Choice, Rate, Weight};

/// Limits from the pod's annotations, and how they queue; None where it has none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Annotated {
    #[serde(with = "as_text")]
    pub egress: Option<Rate>,
    #[serde(with = "as_text")]
    pub egress_burst: Option<Burst>,
    #[serde(with = "as_text")]
    pub ingress: Option<Rate>,
    #[serde(with = "as_text")]
    pub ingress_burst: Option<Burst>,
    /// Absent from records of older versions.
    #[serde(with = "as_text", default)]
    pub latency_target: Option<LatencyTarget>,
    /// Of its part of the node's line. The same.
    #[serde(with = "as_text", default)]
    pub weight: Option<Weight>,
    /// What it is promised of that line. The same.
    #[serde(with = "as_text", default)]
    pub egress_floor: Option<Rate>,
    #[serde(with = "as_text", default)]
    pub ingress_floor: Option<Rate>,
}

impl Annotated {
    pub fn has_floor(&self) -> bool {
        self.egress_floor.is_some() || self.ingress_floor.is_some()
    }
}

/// Limits that an operator set on a living pod (`sluice limit set`), above all others; None where
/// the direction was left alone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Override {
    #[serde(with = "as_text")]
    pub egress: Option<Choice>,
    #[serde(with = "as_text")]
    pub ingress: Option<Choice>,
    /// Seconds since 1970 at which it ends.
    pub until: u64,
}

/// A quantity as people write it, so that a record can be read and outlives a change of units.
pub mod as_text {
    use std::fmt::Display;
    use std::str::FromStr;

    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub fn serialize<T: Display, S: Serializer>(
        value: &Option<T>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        value.as_ref().map(T::to_string).serialize(to)
    }

    pub fn deserialize<'de, T: FromStr, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<T>, D::Error>
    where
        T::Err: Display,
    {
        let text = Option::<String>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}
