// SPDX-License-Identifier: Apache-2.0

//! `[[settings.sluice.bandwidth.class]]`: limits for the pods that patterns match.
//!
//! Of the classes that match a pod the most precise one applies: most literal characters in the
//! matching namespace pattern, then in the matching pod pattern. Neither order nor name of classes
//! ever matters, because two classes that could tie are refused (`document/rules.rs`).
//! Never knows a pod's annotations; they come before any class.

use std::fmt;

use serde_json::Value;
use toml::de::DeValue;

use crate::sections::bandwidth::{maximum_rows, rate_row, weight_row};
use crate::text::code;
use crate::text::problem::{Refusal, quote};
use crate::text::reader::{Table, wrong_type};
use crate::values::burst::{Burst, some_burst};
use crate::values::pattern::{Patterns, patterns};
use crate::values::rate::{Limit, Rate, some_limit, some_rate};
use crate::values::weight::{Weight, some_weight};

/// Most classes of a node: every two are compared, and no person keeps an eye on more.
pub(crate) const MOST_CLASSES: usize = 128;

pub(crate) const NAME_ALLOWED: &str = "1 to 63 characters of a-z, 0-9 and -, no - first or last";

/// Name of a class: 1 to 63 of `a-z 0-9 -`, no `-` at the ends, as it becomes a metric's label.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ClassName(String);

impl ClassName {
    /// None if the text is no DNS label.
    pub fn new(text: &str) -> Option<Self> {
        let good = |c: u8| c.is_ascii_lowercase() || c.is_ascii_digit() || c == b'-';
        let ends = text.starts_with('-') || text.ends_with('-');
        let fits = (1..=63).contains(&text.len()) && text.bytes().all(good) && !ends;
        fits.then(|| Self(text.to_owned()))
    }

    /// The name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for ClassName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Limits of the pods that its patterns match.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Class {
    /// `name`: how status and metrics call it.
    pub name: ClassName,
    /// `namespaces`: the pod's namespace must match one; has no default.
    pub namespaces: Patterns,
    /// `pods`: the pod's name must match one; default all.
    pub pods: Patterns,
    /// `egress`: what each of its pods may send; the node's default where not given.
    pub egress: Option<Limit>,
    /// `ingress`: what each of its pods may receive; the node's default where not given.
    pub ingress: Option<Limit>,
    /// `max-egress`: what none of its pods may send more than; the node's maximum applies as well.
    pub max_egress: Option<Limit>,
    /// `max-ingress`: what none of its pods may receive more than; the node's applies as well.
    pub max_ingress: Option<Limit>,
    /// `max-burst`: what the burst of none of its pods may be above; the node's applies as well.
    pub max_burst: Option<Burst>,
    /// `weight`: of the part of the node's capacity that each of its pods has; the node's where not given.
    pub weight: Option<Weight>,
    /// `floor-egress`: what each of its pods can send at least, of the node's capacity; default none.
    pub floor_egress: Option<Rate>,
    /// `floor-ingress`: what each of its pods can receive at least; default none.
    pub floor_ingress: Option<Rate>,
}

impl Class {
    fn named(name: ClassName) -> Self {
        Self {
            name,
            namespaces: Patterns::all(),
            pods: Patterns::all(),
            egress: None,
            ingress: None,
            max_egress: None,
            max_ingress: None,
            max_burst: None,
            weight: None,
            floor_egress: None,
            floor_ingress: None,
        }
    }

    /// Whether it promises its pods anything.
    pub fn has_floor(&self) -> bool {
        self.floor_egress.is_some() || self.floor_ingress.is_some()
    }

    /// How precisely it matches a pod, if it does.
    fn precision(&self, namespace: &str, pod: &str) -> Option<(usize, usize)> {
        Some((self.namespaces.precision_for(namespace)?, self.pods.precision_for(pod)?))
    }

    pub(crate) fn rows(&self) -> Vec<(&'static str, Value)> {
        let list = |patterns: &Patterns| patterns.iter().map(|p| p.as_str()).collect();
        let mut rows = vec![
            ("name", self.name.as_str().into()),
            ("namespaces", list(&self.namespaces)),
            ("pods", list(&self.pods)),
        ];
        let limits = [("egress", self.egress), ("ingress", self.ingress)];
        let given = limits.into_iter().filter_map(|(key, limit)| Some((key, limit?)));
        rows.extend(given.map(|(key, limit)| (key, limit.to_string().into())));
        rows.extend(maximum_rows(self.max_egress, self.max_ingress, self.max_burst));
        rows.extend(weight_row("weight", self.weight));
        rows.extend(rate_row("floor-egress", self.floor_egress));
        rows.extend(rate_row("floor-ingress", self.floor_ingress));
        rows
    }
}

/// The classes of a node, sorted by name; no two of them match one pod equally well.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Classes(Vec<Class>);

impl Classes {
    /// The classes, sorted by name.
    pub fn iter(&self) -> std::slice::Iter<'_, Class> {
        self.0.iter()
    }

    /// The class of a pod: the most precise one of those that match.
    pub fn class_for(&self, namespace: &str, pod: &str) -> Option<&Class> {
        let matching = |class| Some((Class::precision(class, namespace, pod)?, class));
        let best = self.iter().filter_map(matching).max_by_key(|(precision, _)| *precision);
        best.map(|(_, class)| class)
    }

    /// The class of this name, a new one if there is none.
    fn named(&mut self, name: &ClassName) -> Option<&mut Class> {
        let at = self.0.binary_search_by(|class| class.name.cmp(name));
        let at = at.unwrap_or_else(|at| {
            self.0.insert(at, Class::named(name.clone()));
            at
        });
        self.0.get_mut(at)
    }
}

/// Reads one class into those of lower layers: keys given here replace those of the same name.
pub(crate) fn read(table: &mut Table<'_, '_>, classes: &mut Classes) {
    let layer = table.notes.layer;
    let first = table.given("name").map(|given| given.place);
    let name = table.require("name", "a name, e.g. name = \"batch\"", name);
    if let Some((first, name)) = first.filter(|first| first.layer == layer).zip(name.as_ref()) {
        let before = format!("\"{name}\" is given twice in one document, first");
        table.refuse("name", Refusal::beside(code::DUPLICATE_CLASS, before, first, "; keep one"));
    }
    // Without a name there is nothing to merge with, but the other keys are judged all the same.
    let mut nameless = Class::named(ClassName(String::new()));
    let class = name.and_then(|name| classes.named(&name)).unwrap_or(&mut nameless);
    table.set("namespaces", patterns, &mut class.namespaces);
    table.set("pods", patterns, &mut class.pods);
    table.set("egress", some_limit, &mut class.egress);
    table.set("ingress", some_limit, &mut class.ingress);
    table.set("max-egress", some_limit, &mut class.max_egress);
    table.set("max-ingress", some_limit, &mut class.max_ingress);
    table.set("max-burst", some_burst, &mut class.max_burst);
    table.set("weight", some_weight, &mut class.weight);
    table.set("floor-egress", some_rate, &mut class.floor_egress);
    table.set("floor-ingress", some_rate, &mut class.floor_ingress);
}

fn name(value: &DeValue<'_>) -> Result<ClassName, Refusal> {
    let allowed = format!("{NAME_ALLOWED}, e.g. \"batch\"");
    let Some(text) = value.as_str() else {
        return Err(wrong_type(value, &format!("a string: {allowed}")));
    };
    ClassName::new(text).ok_or_else(|| {
        let message = format!("{} is not a class name; use {allowed}", quote(text));
        Refusal::new(code::BAD_NAME, message)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parse;

    use proptest::prelude::*;

    fn classes(text: &str) -> Classes {
        let text = format!("sluice.version = 1\n{text}");
        parse("t", &text).expect("settings").bandwidth.classes
    }

    fn class(name: &str, namespaces: &[&str], pods: &[&str]) -> String {
        format!(
            "[[sluice.bandwidth.class]]\nname = {name:?}\nnamespaces = {namespaces:?}\n\
             pods = {pods:?}\negress = '1Mbit'\n"
        )
    }

    fn found(classes: &Classes, namespace: &str, pod: &str) -> Option<String> {
        classes.class_for(namespace, pod).map(|class| class.name.to_string())
    }

    #[test]
    fn most_literal_characters_win_in_namespaces_then_in_pods() {
        let text = class("any", &["*"], &["*"])
            + &class("team", &["team-*"], &["*"])
            + &class("team-db", &["team-*"], &["db-*"])
            + &class("long-pod-name", &["*"], &["a-very-long-pod-name-*"]);
        let classes = classes(&text);
        let class = |namespace, pod| found(&classes, namespace, pod);
        assert_eq!(class("x", "y").as_deref(), Some("any"));
        assert_eq!(class("team-a", "y").as_deref(), Some("team"));
        assert_eq!(class("team-a", "db-0").as_deref(), Some("team-db"));
        assert_eq!(class("x", "a-very-long-pod-name-0").as_deref(), Some("long-pod-name"));
        assert_eq!(class("team-a", "a-very-long-pod-name-0").as_deref(), Some("team"));
    }

    #[test]
    fn pod_without_matching_class_has_none() {
        let classes = classes(&class("batch", &["batch-*"], &["*"]));
        assert_eq!(found(&classes, "web", "x"), None);
        assert_eq!(found(&Classes::default(), "batch-1", "x"), None);
    }

    #[test]
    fn name_is_a_label() {
        for bad in ["", "-a", "a-", "A", "a b", "a.b", "ä", &"a".repeat(64)] {
            assert_eq!(ClassName::new(bad), None, "{bad}");
        }
        assert!(ClassName::new(&"a".repeat(63)).is_some());
    }

    prop_compose! {
        fn any_class()(
            namespaces in prop::collection::vec("[ab*?]{1,3}", 1..3),
            pods in prop::collection::vec("[ab*?]{1,3}", 1..3),
        ) -> (Vec<String>, Vec<String>) {
            (namespaces, pods)
        }
    }

    fn document(classes: &[(Vec<String>, Vec<String>)], name: impl Fn(usize) -> String) -> String {
        let written = classes.iter().enumerate().map(|(n, (namespaces, pods))| {
            let [namespaces, pods] =
                [namespaces, pods].map(|list| list.iter().map(String::as_str).collect::<Vec<_>>());
            class(&name(n), &namespaces, &pods)
        });
        format!("sluice.version = 1\n{}", written.collect::<String>())
    }

    proptest! {
        /// Whatever is accepted has exactly one best class for any pod, and neither the names nor
        /// the order of classes change which one that is.
        #[test]
        fn class_of_a_pod_is_unique(
            drafts in prop::collection::vec(any_class(), 1..4),
            namespace in "[ab]{0,3}",
            pod in "[ab]{0,3}",
        ) {
            let Ok(one) = parse("t", &document(&drafts, |n| format!("c{n}"))) else { return Ok(()) };
            let best = one.bandwidth.classes.class_for(&namespace, &pod);
            let precision = |class: &Class| class.precision(&namespace, &pod);
            let ties = one.bandwidth.classes.iter().filter(|class| {
                precision(class).is_some() && precision(class) == best.and_then(precision)
            });
            prop_assert_eq!(ties.count(), usize::from(best.is_some()));

            let mirrored: Vec<_> = drafts.iter().rev().cloned().collect();
            let other = parse("t", &document(&mirrored, |n| format!("d{}", 9 - n))).expect("same rules");
            let other = other.bandwidth.classes;
            let other = other.class_for(&namespace, &pod);
            prop_assert_eq!(
                best.map(|class| (&class.namespaces, &class.pods)),
                other.map(|class| (&class.namespaces, &class.pods))
            );
        }
    }
}
