// SPDX-License-Identifier: Apache-2.0
//! What is promised to all pods of the node together: never more than the node
//! can do. What pods ask for themselves comes first; classes have what it leaves.

use settings_model::Rate;

use crate::pod::direction::Direction;
use crate::pod::limit::{Floor, Limit, Origin};
use crate::pod::wanted::Wanted;

/// In one direction, in bit/s.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Floors {
    of_annotations: u64,
    of_classes: u64,
    capacity: u64,
}

impl Floors {
    fn add(&mut self, limit: &Limit) {
        let Some(part) = limit.part else { return };
        self.capacity = part.capacity.bits_per_sec();
        let Some(floor) = part.floor else { return };
        let sum = match floor.origin {
            Origin::PodAnnotation => &mut self.of_annotations,
            _ => &mut self.of_classes,
        };
        *sum = sum.saturating_add(floor.rate.bits_per_sec());
    }

    /// What is left for the floors of classes, and what they add up to.
    fn left(&self) -> (u64, u64) {
        (self.capacity.saturating_sub(self.of_annotations), self.of_classes)
    }

    /// As much of it as can be kept.
    fn kept(&self, floor: Floor) -> Option<Floor> {
        let (most, sum) = match floor.origin {
            Origin::PodAnnotation => (self.capacity, self.of_annotations),
            _ => self.left(),
        };
        if sum <= most {
            return Some(floor);
        }
        let bits = u128::from(floor.rate.bits_per_sec()) * u128::from(most) / u128::from(sum);
        let rate = Rate::from_bits_per_sec(bits as u64)?;
        Some(Floor { rate, ..floor })
    }

    /// Why floors were lowered, if they were.
    fn lowered(&self) -> Option<String> {
        let (left, of_classes) = self.left();
        let text = |bits: u64| Rate::from_bits_per_sec(bits).map_or("0".into(), |r| r.to_string());
        let capacity = text(self.capacity);
        if self.of_annotations > self.capacity {
            let sum = text(self.of_annotations);
            return Some(format!("annotations ask for {sum} of {capacity}; all are lowered"));
        }
        (of_classes > left).then(|| {
            let sum = text(of_classes);
            format!("those of classes add up to {sum}, {} of {capacity} is left", text(left))
        })
    }
}

/// Of both directions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct NodeFloors {
    egress: Floors,
    ingress: Floors,
}

impl NodeFloors {
    /// Of all pods of the node.
    pub fn of(pods: impl Iterator<Item = Wanted>) -> Self {
        let mut all = Self::default();
        for wanted in pods {
            wanted.egress.iter().for_each(|limit| all.egress.add(limit));
            wanted.ingress.iter().for_each(|limit| all.ingress.add(limit));
        }
        all
    }

    /// This pod's limits with floors that can be kept.
    pub fn kept(&self, mut wanted: Wanted) -> Wanted {
        let ways = [(&mut wanted.egress, self.egress), (&mut wanted.ingress, self.ingress)];
        for (limit, floors) in ways {
            let part = limit.as_mut().and_then(|limit| limit.part.as_mut());
            if let Some(part) = part {
                part.floor = part.floor.and_then(|floor| floors.kept(floor));
            }
        }
        wanted
    }

    /// What they add up to when they are kept, in egress and ingress.
    pub fn promised(&self) -> [Option<Rate>; 2] {
        [self.egress, self.ingress].map(|floors| {
            let (left, of_classes) = floors.left();
            let kept = floors.of_annotations.min(floors.capacity) + of_classes.min(left);
            Rate::from_bits_per_sec(kept)
        })
    }

    /// Why another pod, with its own annotation, cannot have its floor beside these.
    pub fn refuse(&self, wanted: &Wanted) -> Option<String> {
        let ways = [
            (Direction::Egress, wanted.egress, self.egress),
            (Direction::Ingress, wanted.ingress, self.ingress),
        ];
        ways.into_iter().find_map(|(direction, limit, floors)| {
            let part = limit?.part?;
            let floor = part.floor.filter(|floor| floor.origin == Origin::PodAnnotation)?.rate;
            let left = part.capacity.bits_per_sec().saturating_sub(floors.of_annotations);
            (floor.bits_per_sec() > left).then(|| {
                let left = Rate::from_bits_per_sec(left).map_or("none".into(), |r| r.to_string());
                format!(
                    "annotation sluice.dev/{0}-floor: {floor} cannot be promised, {left} of the \
                     node's {1} is left; use at most that, or another node",
                    direction.name(),
                    part.capacity
                )
            })
        })
    }

    /// Why floors were lowered, by direction.
    pub fn lowered(&self) -> Option<String> {
        let ways = [("egress", self.egress), ("ingress", self.ingress)];
        let texts = ways
            .into_iter()
            .filter_map(|(name, floors)| floors.lowered().map(|text| format!("{name}: {text}")));
        let texts: Vec<_> = texts.collect();
        (!texts.is_empty()).then(|| texts.join("; "))
    }
}

#[cfg(test)]
mod tests {
    use settings_model::Bandwidth;

    use super::*;
    use crate::pod::asked::Annotated;

    fn bandwidth() -> Bandwidth {
        let text = "sluice.version = 1\n[sluice.bandwidth]\nnode-share = true\n\
                    node-egress = '100Mbit'\nmax-floor = '60Mbit'\n\
                    [[sluice.bandwidth.class]]\nname = 'a'\nnamespaces = ['a']\n\
                    floor-egress = '40Mbit'\negress = '50Mbit'\n";
        settings_model::parse("t", text).unwrap().bandwidth
    }

    fn wanted(namespace: &str, floor: Option<&str>) -> Wanted {
        let egress_floor = floor.and_then(|floor| floor.parse().ok());
        let annotated = Annotated { egress_floor, ..Annotated::default() };
        Wanted::of(&bandwidth(), namespace, "x", &annotated, None)
    }

    fn floor(wanted: Wanted) -> Option<String> {
        Some(wanted.egress?.part?.floor?.rate.to_string())
    }

    #[test]
    fn what_can_be_kept_is_promised_as_it_is() {
        let pods = [wanted("a", None), wanted("b", Some("30Mbit")), wanted("b", None)];
        let floors = NodeFloors::of(pods.into_iter());
        assert_eq!(
            pods.map(|pod| floor(floors.kept(pod))),
            [Some("40Mbit".into()), Some("30Mbit".into()), None]
        );
        assert_eq!(floors.lowered(), None);
        assert_eq!(floors.refuse(&wanted("b", Some("60Mbit"))), None);
    }

    #[test]
    fn floors_of_classes_share_what_annotations_leave() {
        let pods = [wanted("a", None), wanted("a", None), wanted("b", Some("60Mbit"))];
        let floors = NodeFloors::of(pods.into_iter());
        assert_eq!(
            pods.map(|pod| floor(floors.kept(pod)).unwrap()),
            ["20Mbit", "20Mbit", "60Mbit"]
        );
        let text = "egress: those of classes add up to 80Mbit, 40Mbit of 100Mbit is left";
        assert_eq!(floors.lowered().as_deref(), Some(text));
    }

    #[test]
    fn annotation_that_asks_for_more_than_is_left_is_refused_and_one_above_the_maximum_lowered() {
        let held = wanted("b", Some("90Mbit"));
        assert_eq!(floor(held).as_deref(), Some("60Mbit"));
        let floors = NodeFloors::of([held].into_iter());
        let text = "annotation sluice.dev/egress-floor: 50Mbit cannot be promised, 40Mbit of the \
                    node's 100Mbit is left; use at most that, or another node";
        assert_eq!(floors.refuse(&wanted("b", Some("50Mbit"))).as_deref(), Some(text));
        assert_eq!(floors.refuse(&wanted("b", Some("40Mbit"))), None);
    }

    #[test]
    fn annotations_that_were_promised_too_much_are_lowered_alike_and_classes_have_none() {
        let pods = [wanted("a", None), wanted("b", Some("60Mbit")), wanted("b", Some("60Mbit"))];
        let floors = NodeFloors::of(pods.into_iter());
        assert_eq!(
            pods.map(|pod| floor(floors.kept(pod))),
            [None, Some("50Mbit".into()), Some("50Mbit".into())]
        );
    }

    #[test]
    fn floor_is_never_above_the_pods_own_limit() {
        let pod = wanted("a", Some("60Mbit"));
        assert_eq!(floor(pod).as_deref(), Some("50Mbit"));
    }
}
