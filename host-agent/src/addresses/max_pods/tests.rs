// SPDX-License-Identifier: Apache-2.0
//! The formula for every type, by other arithmetic; edge rows by name.

use proptest::prelude::*;
use proptest::sample::select;

use super::*;

const PREFIXES: &str = "sluice.prefix-delegation.enabled = true\n";
const IPV6: &str = "sluice.prefix-delegation.enabled = true\nsluice.max-pods.ip-family = 'ipv6'\n";
const CUSTOM: &str = "sluice.max-pods.custom-networking = true\n";
const TRUNK: &str = "sluice.max-pods.pod-security-groups = true\n";
const STANDALONE: &str = "sluice.cni.mode = 'standalone'\n";

fn settings(lines: &str) -> Settings {
    settings_model::parse("t", &format!("sluice.version = 1\n{lines}")).unwrap()
}

fn machine(instance_type: &str) -> Machine {
    Machine { instance_type: Some(instance_type.into()), ..Machine::default() }
}

fn of(lines: &str, instance_type: &str) -> MaxPods {
    max_pods(&settings(lines), &machine(instance_type))
}

fn pods(lines: &str, instance_type: &str) -> u16 {
    of(lines, instance_type).max_pods
}

#[test]
fn standard_number_of_every_type_is_awss() {
    for instance in Instance::all() {
        let aws = u64::from(instance.enis * (instance.ipv4_per_eni - 1) + 2);
        let answer = of("", instance.name);
        assert_eq!(answer.standard, Some(aws), "{}", instance.name);
        assert_eq!(u64::from(answer.max_pods), aws.min(1000), "{}", instance.name);
        assert_eq!(answer.cap, None);
    }
}

#[test]
fn max_eni_bounds_what_the_type_has() {
    let one = "sluice.max-pods.max-eni = 1\n";
    assert_eq!(pods(one, "t3a.medium"), 7);
    assert_eq!(pods(&format!("{one}{PREFIXES}"), "t3a.medium"), 82);
    assert_eq!(pods(&format!("{one}{CUSTOM}"), "t3a.medium"), 2);
    assert_eq!(
        of(one, "t3a.medium").steps[0].1,
        "min(3, max-eni 1) ENI × (6 − 1) addresses + 2 = 7"
    );
    for more in ["sluice.max-pods.max-eni = 9\n", "sluice.max-pods.max-eni = 0\n"] {
        assert_eq!(of(more, "t3a.medium"), of("", "t3a.medium"));
    }
}

#[test]
fn prefixes_multiply_and_vcpus_cap() {
    let answer = of(PREFIXES, "t3a.medium");
    assert_eq!((answer.standard, answer.prefix_delegation), (Some(17), Some(242)));
    assert_eq!((answer.max_pods, answer.cap, answer.vcpus), (110, Some(110), Some(2)));
    assert_eq!(
        answer.steps,
        [
            ("standard", "3 ENIs × (6 − 1) addresses + 2 = 17".into()),
            (
                "prefix delegation",
                "3 ENIs × (6 − 1) prefixes × 16 addresses + 2 = 242, capped to 110".into()
            ),
            ("cap", "110 (2 vCPUs; 250 above 30 vCPUs)".into()),
            ("max-pods", "min(242, 110) = 110".into()),
        ]
    );
    assert_eq!(
        answer.source,
        format!(
            "table of {} instance types, t3a.medium: 3 ENIs, 6 IPv4 addresses each, nitro \
             hypervisor, 2 vCPUs",
            Instance::all().count()
        )
    );
    assert_eq!(answer.warnings, [] as [&str; 0]);
    assert_eq!(pods("", "t3a.medium"), 17);
    assert_eq!(pods(PREFIXES, "t3.nano"), 34);
}

/// Types by name, without and with prefixes.
#[test]
fn edge_rows() {
    let table = [
        // The smallest, and too old for prefixes.
        ("t1.micro", 4, 4),
        ("m5.24xlarge", 737, 250),
        // Bare metal names no hypervisor, yet has prefixes.
        ("c5n.metal", 737, 250),
        // Of 64 ENIs on 32 cards two are on the first.
        ("p5.48xlarge", 100, 250),
        ("mac1.metal", 234, 110),
        ("mac2-m1ultra.metal", 234, 110),
        // vCPUs unknown: the lower cap.
        ("mac-m3ultra.metal", 234, 110),
        // More than the settings and the shaper take.
        ("x8i.metal-96xl", 1000, 250),
        ("cr1.8xlarge", 234, 234),
    ];
    for (name, standard, with_prefixes) in table {
        assert_eq!((pods("", name), pods(PREFIXES, name)), (standard, with_prefixes), "{name}");
    }
    assert_eq!(of("", "x8i.metal-96xl").standard, Some(1514));
}

#[test]
fn cap_changes_after_thirty_vcpus() {
    let with = |vcpus| {
        let machine = Machine { vcpus, ..machine("mac-m3ultra.metal") };
        max_pods(&settings(PREFIXES), &machine).max_pods
    };
    assert_eq!([with(Some(30)), with(Some(31)), with(None)], [110, 250, 110]);
    // The table comes before the kernel, which may have been limited to fewer.
    let machine = Machine { vcpus: Some(2), ..machine("m5.24xlarge") };
    assert_eq!(max_pods(&settings(PREFIXES), &machine).max_pods, 250);
}

#[test]
fn custom_networking_and_a_trunk_cost_an_eni_each() {
    assert_eq!(pods(CUSTOM, "t3a.medium"), 12);
    assert_eq!(pods(TRUNK, "t3a.medium"), 12);
    assert_eq!(pods(&(CUSTOM.to_owned() + TRUNK), "t3a.medium"), 7);
    let both = of(&(PREFIXES.to_owned() + CUSTOM + TRUNK), "t3a.medium");
    assert_eq!(both.max_pods, 82);
    let formula =
        "(3 − 1 (custom networking) − 1 (trunk)) ENIs × (6 − 1) prefixes × 16 addresses + 2 = 82";
    assert_eq!(both.steps[1], ("prefix delegation", formula.into()));
    let none_left = of(&(CUSTOM.to_owned() + TRUNK), "t1.micro");
    assert_eq!(none_left.max_pods, 2);
    let warning = "custom networking and trunk leave t1.micro no ENI for pods: only those with the \
                   node's address start";
    assert_eq!(none_left.warnings, [warning]);
}

#[test]
fn ipv6_is_limited_by_the_cap_alone() {
    assert_eq!(pods(IPV6, "t3.nano"), 110);
    assert_eq!(pods(IPV6, "m5.24xlarge"), 250);
    let old = of(IPV6, "t1.micro");
    assert_eq!(old.max_pods, 4);
    let warning = "t1.micro cannot have delegated prefixes (xen hypervisor), and aws-node does not \
                   start on it with IPv6";
    assert_eq!(old.warnings, [warning]);
}

#[test]
fn prefixes_on_a_type_without_them_are_warned_of() {
    let warning = "t1.micro cannot have delegated prefixes (xen hypervisor): pods have secondary \
                   addresses, which are fewer";
    assert_eq!(of(PREFIXES, "t1.micro").warnings, [warning]);
    assert_eq!(of("", "t1.micro").warnings, [] as [&str; 0]);
}

#[test]
fn standalone_mode_has_the_prefixes_of_the_primary_eni_alone() {
    assert_eq!(pods(STANDALONE, "t3a.medium"), 82);
    assert_eq!(pods(&(STANDALONE.to_owned() + CUSTOM), "t3a.medium"), 82);
    let old = of(STANDALONE, "t1.micro");
    assert_eq!(old.max_pods, 2);
    let warning =
        "t1.micro cannot have delegated prefixes (xen hypervisor): no pod gets an address";
    assert_eq!(old.warnings, [warning]);
}

#[test]
fn number_by_hand_is_kept_and_one_without_addresses_is_warned_of() {
    let by_hand = |count: u16| of(&format!("sluice.max-pods.value = {count}\n"), "t3a.medium");
    assert_eq!((by_hand(17).max_pods, by_hand(17).warnings), (17, Vec::new()));
    let warning = "max-pods.value gives kubelet 20 pods, but t3a.medium never has addresses for more \
                   than 17 with these settings: 3 would wait in ContainerCreating";
    assert_eq!((by_hand(20).max_pods, by_hand(20).warnings), (20, vec![warning.to_owned()]));
    let unknown = of("sluice.max-pods.value = 20\n", "zz9.large");
    assert_eq!((unknown.max_pods, unknown.warnings), (20, Vec::new()));
}

#[test]
fn unknown_type_is_named_and_never_given_more_than_imds_shows() {
    let shown = |shown| max_pods(&settings(PREFIXES), &Machine { shown, ..machine("zz9.large") });
    let answer = shown(None);
    assert_eq!(answer.max_pods, 110);
    let warning = format!(
        "instance type \"zz9.large\" is not in this image's table of {}: 110 pods are assumed, \
         which may be more than it has addresses for; give max-pods.value, or take a newer image",
        Instance::all().count()
    );
    assert_eq!(answer.warnings, [warning]);
    assert_eq!([shown(Some(14)).max_pods, shown(Some(1000)).max_pods], [16, 110]);
    let nothing = max_pods(&settings(""), &Machine::default());
    assert_eq!(nothing.max_pods, 110);
    assert!(nothing.warnings[0].starts_with("neither firmware nor IMDS says"), "{nothing:?}");
}

/// Any type and mode.
fn any_mode() -> impl Strategy<Value = (Settings, Instance)> {
    let family = select(&["", PREFIXES, IPV6][..]);
    let rest = (select(&["", CUSTOM][..]), select(&["", TRUNK][..]), select(&["", STANDALONE][..]));
    let types = select(Instance::all().collect::<Vec<_>>());
    (family, rest, types).prop_filter_map("rules of the settings", |(family, rest, instance)| {
        let lines = ["sluice.version = 1\n", family, rest.0, rest.1, rest.2].concat();
        Some((settings_model::parse("t", &lines).ok()?, instance))
    })
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(20_000))]

    /// Counted one by one, as the VPC CNI attaches them.
    #[test]
    fn pods_never_outnumber_the_addresses((settings, instance) in any_mode(), vcpus in any::<Option<u16>>()) {
        let standalone = settings.cni.mode == CniMode::Standalone;
        let mut addresses = 0u64;
        for eni in 0..instance.enis {
            let is_primary = eni == 0;
            let is_trunk = !standalone && settings.max_pods.pod_security_groups && eni + 1 == instance.enis;
            let is_custom = !standalone && settings.max_pods.custom_networking && is_primary;
            if is_custom || is_trunk || (standalone && !is_primary) {
                continue;
            }
            for _ in 1..instance.ipv4_per_eni {
                let prefixes = settings.prefix_delegation.enabled || standalone;
                addresses += match (prefixes, instance.delegates_prefixes()) {
                    (true, true) => 16,
                    (true, false) if standalone => 0,
                    _ => 1,
                };
            }
        }
        if settings.max_pods.ip_family == IpFamily::Ipv6 && instance.delegates_prefixes() {
            addresses = 1 << 48;
        }
        let answer = max_pods(&settings, &Machine { vcpus, ..machine(instance.name) });
        prop_assert!(u64::from(answer.max_pods) <= addresses + 2);
        prop_assert_eq!(answer.capacity, Some(addresses));
        prop_assert!((2..=1000).contains(&answer.max_pods));
    }
}
