// SPDX-License-Identifier: Apache-2.0
//! Who may say what a pod's limit is, highest first, and what lowers it: the one
//! place that knows the order. `wanted` makes limits of it, and trace shows it.

use settings_model::{
    Bandwidth, Burst, Capacity, Class, LatencyTarget, Limit as Choice, Rate, Weight,
};

use crate::pod::asked::{Annotated, Override};
use crate::pod::direction::Direction;
use crate::pod::limit::{Floor, Limit, Origin, Part};

/// Of one direction of one pod.
pub struct Sources<'s> {
    /// Highest first; the first that says something decides.
    choices: [(Origin, Option<Choice>); 4],
    /// The one whose settings apply to the pod.
    pub class: Option<&'s Class>,
    /// The node's and the class'; the lowest applies.
    maxima: [(Level, Option<Choice>); 2],
    max_bursts: [(Level, Option<Burst>); 2],
    /// The pod's own.
    pub burst: Option<Burst>,
    pub latency_target: Option<LatencyTarget>,
    /// Of the node's line, and who says its weight; None where pods do not share that.
    pub part: Option<(Origin, Part)>,
    /// The floor that the pod asks for, where `max-floor` has lowered it.
    pub asked_floor: Option<Rate>,
    /// The weight that the pod asked for, where `max-weight` has lowered it.
    pub asked_weight: Option<Weight>,
}

/// Whose maximum it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    Node,
    Class,
}

impl<'s> Sources<'s> {
    pub fn of(
        bandwidth: &'s Bandwidth,
        direction: Direction,
        namespace: &str,
        pod: &str,
        annotated: &Annotated,
        live: Option<&Override>,
    ) -> Self {
        let class = bandwidth.classes.class_for(namespace, pod);
        let egress = direction == Direction::Egress;
        let of_class = class.map(|c| match direction {
            Direction::Egress => (c.egress, c.max_egress),
            Direction::Ingress => (c.ingress, c.max_ingress),
        });
        let (of_class, class_max) = of_class.unwrap_or_default();
        let (default, node_max) = match direction {
            Direction::Egress => (bandwidth.default_egress, bandwidth.max_egress),
            Direction::Ingress => (bandwidth.default_ingress, bandwidth.max_ingress),
        };
        let annotation = if egress { annotated.egress } else { annotated.ingress };
        let max_weight = bandwidth.max_weight.unwrap_or(Weight::MOST);
        let own_weight = annotated.weight.map(|weight| weight.min(max_weight));
        let (own_floor, class_floor) = match direction {
            Direction::Egress => (annotated.egress_floor, class.and_then(|c| c.floor_egress)),
            Direction::Ingress => (annotated.ingress_floor, class.and_then(|c| c.floor_ingress)),
        };
        let held_floor = own_floor.map(|own| bandwidth.max_floor.map_or(own, |max| own.min(max)));
        let floors = [(Origin::PodAnnotation, held_floor), (Origin::Class, class_floor)];
        let floor = floors.into_iter().find_map(|(origin, it)| Some(Floor { rate: it?, origin }));
        let by_hand = live.and_then(|live| if egress { live.egress } else { live.ingress });
        Self {
            choices: [
                (Origin::LiveOverride, by_hand),
                (Origin::PodAnnotation, annotation.map(Choice::Rate)),
                (Origin::Class, of_class),
                (Origin::NodeDefault, Some(default)),
            ],
            class,
            maxima: [(Level::Node, node_max), (Level::Class, class_max)],
            max_bursts: [
                (Level::Node, bandwidth.max_burst),
                (Level::Class, class.and_then(|class| class.max_burst)),
            ],
            burst: if egress { annotated.egress_burst } else { annotated.ingress_burst },
            latency_target: annotated.latency_target,
            asked_weight: annotated.weight.filter(|weight| *weight > max_weight),
            part: capacity(bandwidth, direction).map(|capacity| {
                let weights = [
                    (Origin::PodAnnotation, own_weight),
                    (Origin::Class, class.and_then(|class| class.weight)),
                    (Origin::NodeDefault, Some(bandwidth.weight.unwrap_or_default())),
                ];
                let first = weights.into_iter().find_map(|(who, it)| Some((who, it?)));
                let (who, weight) = first.unwrap_or((Origin::NodeDefault, Weight::default()));
                (who, Part { weight, capacity, floor })
            }),
            asked_floor: own_floor.filter(|_| own_floor != held_floor),
        }
    }

    /// All of them, and whether it is the one that decides.
    pub fn in_order(&self) -> impl Iterator<Item = (Origin, Option<Choice>, bool)> {
        let first = self.choices.iter().position(|(_, choice)| choice.is_some());
        let all = self.choices.iter().enumerate();
        all.map(move |(index, (origin, choice))| (*origin, *choice, Some(index) == first))
    }

    /// The lowest one; None where none of them is a limit.
    pub fn maximum(&self) -> Option<(Level, Rate)> {
        let rates = self.maxima.into_iter().filter_map(|(level, limit)| match limit {
            Some(Choice::Rate(rate)) => Some((level, rate)),
            None | Some(Choice::Unlimited) => None,
        });
        rates.min_by_key(|(_, rate)| *rate)
    }

    /// Time and bytes can only be compared at a rate.
    pub fn max_burst_at(&self, rate: Rate) -> Option<(Level, Burst)> {
        let bursts = self.max_bursts.into_iter();
        let bursts = bursts.filter_map(|(level, burst)| Some((level, burst?)));
        bursts.min_by_key(|(_, burst)| burst.ns_at(rate))
    }

    /// None where there is to be none.
    pub fn limit(&self, bandwidth: &Bandwidth) -> Option<Limit> {
        let (origin, choice) =
            self.choices.iter().find_map(|(origin, it)| Some((*origin, (*it)?)))?;
        let max = self.maximum().filter(|_| origin != Origin::LiveOverride).map(|(_, max)| max);
        let asked = match choice {
            Choice::Rate(rate) => Some(rate),
            Choice::Unlimited => None,
        };
        let own = asked.into_iter().chain(max).min();
        let mut part = self.part.map(|(_, part)| part);
        let rate = own.or(part.map(|part| part.capacity)).filter(|_| bandwidth.enabled)?;
        let origin = if own.is_some() { origin } else { Origin::NodeShare };
        // Nothing can be promised above the limit.
        if let Some(floor) = part.as_mut().and_then(|part| part.floor.as_mut()) {
            floor.rate = floor.rate.min(rate);
        }
        let burst = self.burst.unwrap_or(bandwidth.burst);
        let held = self.max_burst_at(rate).map(|(_, max)| max);
        let held = held.filter(|max| max.ns_at(rate) < burst.ns_at(rate));
        Some(Limit {
            rate,
            burst: held.unwrap_or(burst),
            origin,
            latency_target: self.latency_target.unwrap_or(bandwidth.latency_target),
            ecn: bandwidth.ecn,
            guard: bandwidth.guard,
            asked: Some(choice).filter(|choice| own.is_some() && *choice != Choice::Rate(rate)),
            asked_burst: held.map(|_| burst),
            part,
        })
    }
}

/// What pods share; None where node share is off, or what the node can do is not known.
pub fn capacity(bandwidth: &Bandwidth, direction: Direction) -> Option<Rate> {
    let capacity = match direction {
        Direction::Egress => bandwidth.node_egress,
        Direction::Ingress => bandwidth.node_ingress,
    };
    match capacity {
        Capacity::Rate(rate) | Capacity::Found(rate) => {
            Some(rate).filter(|_| bandwidth.node_share == Some(true))
        }
        Capacity::Auto => None,
    }
}
