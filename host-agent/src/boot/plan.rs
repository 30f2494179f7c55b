// SPDX-License-Identifier: Apache-2.0
//! Settings and facts in, everything to be written out. Pure: it reads nothing
//! of the host, so what it decides can be tested by comparing values.

use std::path::PathBuf;

use anyhow::{Error, Result};
use settings_model::{KubeletConfig, PodLimit, Settings};

use crate::addresses::max_pods::{Machine, max_pods};
use crate::boot::facts::Facts;
use crate::boot::kubelet::{Assignment, Kubelet};
use crate::boot::part::{FileContent, Part, Plugin};
use crate::boot::unmet;
use crate::host::paths::Paths;
use crate::libcni::entry::{self, Upstream, is_chained, upstream};
use crate::settings::in_force::MaxPodsInForce;
use crate::trouble::Trouble;

/// What is to be written, in this order. A part that fails keeps no other one from being in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plan {
    pub plugin: Part,
    /// What the plugin reads.
    pub settings: Part,
    pub kubelet: Part,
    /// Our entry, or none. Comes last: once a runtime sees it, plugin and settings are there.
    pub conflist: Part,
    /// In place of that where runtimes find no plugin: they start no pod by a chain that names one.
    pub without_plugin: Part,
    /// What cannot be as it was asked for, whatever is written.
    pub unmet: Vec<Trouble>,
    /// Whose entry in the conflist is the upstream plugin's, and what becomes of it.
    pub upstream: Option<(PathBuf, Upstream)>,
    /// None where nothing says how many pods the node takes.
    pub max_pods: Option<MaxPodsInForce>,
    /// What is as planned, but may surprise the operator.
    pub warnings: Vec<String>,
}

impl Plan {
    pub fn of(settings: &Settings, facts: &Facts) -> Self {
        let to = entry::plugin(&facts.paths, settings);
        let plugin = Plugin { from: facts.plugin.clone(), to };
        let path = facts.paths.settings_in_force();
        let file = FileContent { path, content: settings.to_toml().into(), mode: 0o644 };
        let mut plan = Self {
            plugin: Part { plugin: Some(plugin), ..Part::default() },
            settings: Part { files: vec![file], ..Part::default() },
            ..Self::default()
        };
        if let Err(why) = plan.find_entry(settings, facts) {
            plan.unmet.push(unmet::conflist(format!("{why:#}")));
        }
        let kubelet = known(&facts.kubelet).and_then(|kubelet| {
            plan.clone().and_max_pods(settings, facts.machine.as_ref(), kubelet)
        });
        kubelet.unwrap_or_else(|why| {
            plan.unmet.push(unmet::kubelet(format!("{why:#}")));
            plan
        })
    }

    fn find_entry(&mut self, settings: &Settings, facts: &Facts) -> Result<()> {
        self.conflist.obsolete.extend(known(&facts.earlier_network)?.clone());
        let without = known(&facts.with_entry)?.iter().map(entry::without);
        let without: Vec<_> = without.collect::<Result<_>>()?;
        self.without_plugin.files.extend(without.into_iter().map(FileContent::of));
        if !is_chained(settings) {
            self.conflist.files.clone_from(&self.without_plugin.files);
            self.without_plugin = self.conflist.clone();
            return Ok(());
        }
        let found = known(&facts.conflist)?;
        self.conflist.files.extend(entry::edited(settings, found)?.map(FileContent::of));
        self.upstream = found.as_ref().and_then(|f| Some((f.path.clone(), upstream(settings, f)?)));
        Ok(())
    }

    /// The same plan with kubelet's number of pods. What a machine takes that is no EC2 instance only
    /// the settings know; kubelet is left to itself then.
    fn and_max_pods(
        mut self,
        settings: &Settings,
        machine: Option<&Machine>,
        kubelet: &Kubelet,
    ) -> Result<Self> {
        let by_user = matches!(settings.max_pods.value, PodLimit::Count(_));
        if machine.is_none() && !by_user {
            return Ok(self.and_kubelet(&kubelet.assign(KubeletConfig::None, 0, false)?));
        }
        let answer = max_pods(settings, machine.unwrap_or(&Machine::default()));
        let assignment = kubelet.assign(settings.max_pods.kubelet, answer.max_pods, by_user)?;
        self = self.and_kubelet(&assignment);
        self.unmet.extend(assignment.refused.iter().map(|why| unmet::max_pods(why.to_string())));
        let explicit =
            assignment.explicit.and_then(|explicit| Some((explicit.pods?, explicit.place)));
        self.warnings = match &explicit {
            // Ours is not in force, so neither is what there would be to say of it.
            Some((pods, place)) => answer.against(*pods, place).into_iter().collect(),
            None => answer.warnings.clone(),
        };
        self.warnings.extend(assignment.warnings);
        self.warnings.extend(kubelet.unreserved(answer.standard));
        self.max_pods = Some(MaxPodsInForce {
            pods: explicit.map_or(answer.max_pods, |(pods, _)| pods),
            summary: assignment.summary,
            instance_type: answer.instance_type,
            capacity: answer.capacity,
            delegates_prefixes: answer.prefix_delegation_supported,
            by_nodeadm: assignment.flavour == KubeletConfig::Nodeadm,
            earlier: None,
        });
        Ok(self)
    }

    /// In the order in which they are put in place.
    pub fn parts(&self) -> [&Part; 4] {
        [&self.plugin, &self.settings, &self.kubelet, &self.conflist]
    }

    /// The same below another root.
    pub fn below(mut self, paths: &Paths) -> Self {
        let entry = [&mut self.conflist, &mut self.without_plugin];
        let parts = [&mut self.plugin, &mut self.settings, &mut self.kubelet];
        for part in parts.into_iter().chain(entry) {
            let plugin = part.plugin.iter_mut().map(|plugin| &mut plugin.to);
            let files = part.files.iter_mut().map(|file| &mut file.path);
            let all = plugin.chain(files).chain(&mut part.obsolete);
            all.for_each(|path| *path = paths.resolve(path));
        }
        self
    }

    fn and_kubelet(mut self, assignment: &Assignment) -> Self {
        self.kubelet.files.clone_from(&assignment.files);
        self.kubelet.obsolete.clone_from(&assignment.obsolete);
        self
    }
}

fn known<T>(fact: &Result<T, String>) -> Result<&T> {
    fact.as_ref().map_err(|why| Error::msg(why.clone()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::libcni::conflist::{self, TextFile};
    use crate::settings::document::NodeConfig;

    const DELEGATING: &str = "sluice = { version = 1, prefix-delegation.enabled = true }";
    const LIST: &str = r#"{"plugins":[{"type":"ptp"}]}"#;

    fn facts(text: Option<&str>) -> Facts {
        let path = PathBuf::from("/n/etc/cni/net.d/10-x.conflist");
        let conflist = text.map(|text| TextFile { path, text: text.into() });
        let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kubelet/no-kubelet/node");
        Facts {
            plugin: "shipped".into(),
            machine: None,
            kubelet: Kubelet::probe(&Paths::below(node), &[]).map_err(|e| e.to_string()),
            earlier_network: Ok(None),
            with_entry: Ok(conflist
                .iter()
                .filter(|f| f.text.contains(conflist::ENTRY))
                .cloned()
                .collect()),
            conflist: Ok(conflist),
            paths: Paths::below("/n"),
        }
    }

    fn plan(settings: &str, text: Option<&str>) -> Plan {
        let settings = settings_model::parse("user-data", settings).unwrap();
        Plan::of(&settings, &facts(text))
    }

    /// What is put in place, in order.
    fn paths(plan: &Plan) -> Vec<&str> {
        let paths = plan.parts().into_iter().flat_map(|part| {
            let plugin = part.plugin.iter().map(|plugin| &plugin.to);
            plugin.chain(part.files.iter().map(|file| &file.path))
        });
        paths.map(|path| path.to_str().unwrap()).collect()
    }

    fn entry(plan: &Plan) -> String {
        String::from_utf8(plan.conflist.files[0].content.clone()).unwrap()
    }

    #[test]
    fn plugin_and_settings_come_before_the_entry_and_kubelet_knows_by_then() {
        let file = FileContent { path: "/n/kubelet".into(), content: Vec::new(), mode: 0o644 };
        let assignment = Assignment {
            flavour: KubeletConfig::EnvFile,
            summary: String::new(),
            files: vec![file],
            obsolete: vec!["before".into()],
            explicit: None,
            refused: None,
            warnings: Vec::new(),
        };
        let plan = plan("", Some(LIST)).and_kubelet(&assignment);
        let settings = "/n/run/sluice/settings.toml";
        let conflist = "/n/etc/cni/net.d/10-x.conflist";
        assert_eq!(paths(&plan), ["/n/opt/cni/bin/sluice", settings, "/n/kubelet", conflist]);
        assert_eq!(
            entry(&plan),
            format!(r#"{{"plugins":[{{"type":"ptp"}},{}]}}"#, conflist::ENTRY)
        );
        assert_eq!(plan.kubelet.obsolete, [PathBuf::from("before")]);
    }

    #[test]
    fn conflist_that_cannot_be_edited_takes_no_other_part_away() {
        let plan = plan("", Some("{"));
        assert_eq!(paths(&plan), ["/n/opt/cni/bin/sluice", "/n/run/sluice/settings.toml"]);
        assert_eq!(plan.unmet.len(), 1, "{:?}", plan.unmet);
        let what = "edit /n/etc/cni/net.d/10-x.conflist: line 1 column 1: not JSON";
        assert!(plan.unmet[0].what.starts_with(what), "{:?}", plan.unmet);
    }

    #[test]
    fn memory_that_nodeadm_keeps_for_fewer_pods_than_it_gives_is_warned_of() {
        let node = Path::new(env!("CARGO_MANIFEST_DIR")).join("testdata/kubelet/al2023/node");
        let warnings = |keys: &str| {
            let text = format!(
                "apiVersion: node.eks.aws/v1alpha1\nkind: NodeConfig\nspec:\n  kubelet:\n{keys}"
            );
            let config = NodeConfig { name: "user-data".into(), text: Ok(text) };
            let kubelet = Kubelet::probe(&Paths::below(&node), &[config]).unwrap();
            let instance_type = Some("t3a.medium".into());
            let machine = Machine { instance_type, ..Machine::default() };
            let settings = settings_model::parse("t", DELEGATING).unwrap();
            let facts = Facts { machine: Some(machine), kubelet: Ok(kubelet), ..facts(None) };
            Plan::of(&settings, &facts).warnings
        };
        let gives = "user-data:6 (spec.kubelet.config.maxPods) gives kubelet 110 pods without \
                     kubeReserved.memory: nodeadm keeps ";
        let pods = "    config:\n      maxPods: 110\n";
        assert_eq!(warnings(pods), [format!("{gives}442Mi, for 17 pods; 110 want 1465Mi")]);
        let fewer = format!("{pods}    maxPodsExpression: \"29\"\n");
        assert_eq!(warnings(&fewer), [format!("{gives}574Mi, for 29 pods; 110 want 1465Mi")]);
        for right in
            ["      kubeReserved:\n        memory: 1465Mi\n", "    maxPodsExpression: \"110\"\n"]
        {
            assert_eq!(warnings(&format!("{pods}{right}")), [""; 0]);
        }
    }

    #[test]
    fn disabled_bandwidth_takes_the_entry_out() {
        let off = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\nenabled = false\n";
        let with_entry = conflist::add(LIST).unwrap();
        assert_eq!(entry(&plan(off, Some(&with_entry))), LIST);
    }

    #[test]
    fn upstream_entry_is_replaced_or_stood_aside_for_as_the_settings_say() {
        let with_upstream = r#"{"plugins":[{"type":"ptp"},{"type":"bandwidth"}]}"#;
        let with_own = LIST.replace("}]}", &format!("}},{}]}}", conflist::ENTRY));
        let both = with_upstream.replace("}]}", &format!("}},{}]}}", conflist::ENTRY));
        let planned = |setting: &str, text: &str| {
            let head = "[settings.sluice]\nversion = 1\n[settings.sluice.cni]\n";
            entry(&plan(&format!("{head}upstream-bandwidth = \"{setting}\"\n"), Some(text)))
        };
        assert_eq!(planned("replace", with_upstream), with_own);
        assert_eq!(planned("replace", &both), with_own);
        assert_eq!(planned("keep", with_upstream), with_upstream);
        assert_eq!(planned("keep", &both), with_upstream);
        assert_eq!(planned("keep", LIST), with_own);
    }

    #[test]
    fn upstream_entry_with_rates_stays_until_the_settings_have_defaults_in_their_place() {
        let text = r#"{"plugins":[{"type":"ptp"},{"type":"bandwidth","egressRate":10000000}]}"#;
        let planned = |keys: &str| {
            let head = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n";
            plan(&format!("{head}{keys}"), Some(text))
        };
        let rates = conflist::upstream_rates(text).unwrap();
        for keys in ["", "default-ingress = \"1Mbit\"\n"] {
            let plan = planned(keys);
            assert_eq!(plan.conflist.files[0].content, text.as_bytes(), "{keys}");
            assert_eq!(plan.upstream.unwrap().1, Upstream::HasRates(rates));
        }
        let plan = planned("default-egress = \"20Mbit\"\n");
        assert_eq!(plan.upstream.unwrap().1, Upstream::Replaced);
        assert!(String::from_utf8_lossy(&plan.conflist.files[0].content).contains(conflist::ENTRY));
    }

    #[test]
    fn one_plugins_configuration_is_refused_by_name() {
        let settings = Settings::default();
        for name in ["10-x.conf", "10-x.json"] {
            let found = TextFile { path: name.into(), text: r#"{"type":"ptp"}"#.into() };
            let error = entry::edited(&settings, &Some(found)).unwrap_err();
            assert_eq!(
                format!("{error:#}"),
                format!(
                    "edit {name}: line 1 column 1: a runtime takes a .conf or .json for one plugin's \
                     configuration, which has no chain; only a .conflist is one, with the plugin in \
                     its \"plugins\""
                )
            );
        }
    }

    #[test]
    fn conflist_that_is_not_there_yet_is_not_written_by_us() {
        let settings = "/n/run/sluice/settings.toml";
        assert_eq!(paths(&plan("", None)), ["/n/opt/cni/bin/sluice", settings]);
    }

    #[test]
    fn settings_reach_the_file_that_the_plugin_reads() {
        let text = "[settings.sluice]\nversion = 1\n[settings.sluice.bandwidth]\n\
                    default-egress = \"10Mbit\"\nburst = \"2ms\"\n";
        let plan = plan(text, Some(LIST));
        let written = String::from_utf8(plan.settings.files[0].content.clone()).unwrap();
        let read = settings_model::parse("settings.toml", &written).unwrap();
        assert_eq!(read, settings_model::parse("user-data", text).unwrap());
    }
}
