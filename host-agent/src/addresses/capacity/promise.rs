// SPDX-License-Identifier: Apache-2.0
//! What settings and max-pods say of the node's addresses, and what of the ENIs'
//! addresses is for pods. Plain arithmetic on plain data.

use settings_model::{CniMode, IpFamily, MaxPods, PrefixDelegation, Settings};

use crate::addresses::instance::Instance;
use crate::addresses::max_pods::{HOST_NETWORK_PODS, PREFIX_ADDRESSES};
use crate::imds::eni::Eni;
use crate::settings::in_force::MaxPodsInForce;

/// EKS' own bound for small nodes; what prefixes carry beyond that is no loss.
const MOST_PODS: u64 = 110;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promise {
    pub in_force: MaxPodsInForce,
    pub standalone: bool,
    delegation: PrefixDelegation,
    max_pods: MaxPods,
}

/// Addresses for pods that the node has now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pool {
    pub addresses: u64,
    pub prefixes: u64,
    /// EFA-only ENIs in the places of others.
    pub efa_only: u64,
}

impl Promise {
    pub fn of(settings: &Settings, in_force: &MaxPodsInForce) -> Self {
        Self {
            in_force: in_force.clone(),
            standalone: settings.cni.mode == CniMode::Standalone,
            delegation: settings.prefix_delegation,
            max_pods: settings.max_pods,
        }
    }

    /// What pods can have of these. In standalone mode that is prefixes of the primary ENI alone.
    pub fn pool(&self, enis: &[Eni]) -> Pool {
        let carries = |eni: &&Eni| match self.standalone {
            true => eni.primary,
            false => eni.card == 0 && !(eni.primary && self.max_pods.custom_networking),
        };
        let efa_only = enis.iter().filter(|eni| eni.card == 0 && eni.efa_only).count() as u64;
        let enis: Vec<&Eni> = enis.iter().filter(carries).collect();
        let v4 = enis.iter().flat_map(|eni| &eni.prefixes).map(|net| 32 - net.prefix_len());
        let v6 = enis.iter().flat_map(|eni| &eni.prefixes_v6).map(|net| 128 - net.prefix_len());
        let (v4, v6): (Vec<u8>, Vec<u8>) = (v4.collect(), v6.collect());
        let is_v6 = match self.standalone {
            // A pod has one of each family that there is, so IPv4 runs out first.
            true => v4.is_empty() && !v6.is_empty(),
            false => self.max_pods.ip_family == IpFamily::Ipv6,
        };
        let secondary = match self.standalone || is_v6 {
            true => 0,
            false => enis.iter().map(|eni| eni.secondary_addresses).sum(),
        };
        let bits = if is_v6 { v6 } else { v4 };
        let of_prefixes = bits.iter().map(|bits| 1u64.checked_shl((*bits).into()));
        let addresses = of_prefixes.fold(secondary, |sum: u64, of_prefix| {
            sum.saturating_add(of_prefix.unwrap_or(u64::MAX))
        });
        Pool { addresses, prefixes: bits.len() as u64, efa_only }
    }

    /// Pods that max-pods allows and that want an address.
    pub fn demand(&self) -> u64 {
        u64::from(self.in_force.pods).saturating_sub(HOST_NETWORK_PODS)
    }

    /// As many addresses as the ENIs can carry. In standalone mode nothing adds to those that are there.
    pub fn full(&self, pool: &Pool) -> Option<u64> {
        if self.standalone {
            return (pool.addresses > 0).then_some(pool.addresses);
        }
        let prefixes_too = pool.prefixes > 0 && !self.delegation.enabled;
        let times = if prefixes_too { PREFIX_ADDRESSES } else { 1 };
        let carried = self.in_force.capacity.map(|capacity| self.without_efa(capacity, pool));
        let full = carried.map(|carried| carried.saturating_mul(times));
        // The table of types may be older than the type.
        full.map(|full| full.max(pool.addresses))
    }

    /// An EFA-only ENI takes the place of one that would carry as many as the others; the primary is none.
    fn without_efa(&self, capacity: u64, pool: &Pool) -> u64 {
        let instance = self.in_force.instance_type.as_deref().and_then(Instance::find);
        if self.max_pods.ip_family == IpFamily::Ipv6 {
            return capacity;
        }
        let places = instance.map_or(0, |instance| u64::from(instance.ipv4_per_eni) - 1);
        let delegates = self.delegation.enabled && self.in_force.delegates_prefixes == Some(true);
        let each = places * if delegates { PREFIX_ADDRESSES } else { 1 };
        let primary = if self.max_pods.custom_networking { 0 } else { each };
        capacity.saturating_sub(pool.efa_only.saturating_mul(each)).max(primary.min(capacity))
    }

    /// Up to how many addresses aws-node should fill the pool for so many pods.
    pub fn target(&self, used: u64, pool: &Pool) -> u64 {
        let delegation = &self.delegation;
        let warm = match (delegation.warm_ip_target, delegation.enabled) {
            (0, true) => u64::from(delegation.warm_prefix_target.prefixes()) * PREFIX_ADDRESSES,
            (0, false) => 1,
            (addresses, _) => addresses.into(),
        };
        let wanted = (used + warm).max(delegation.minimum_ip_target.into());
        // It stops at max-pods (ipamd.go, TotalIPs >= maxPods).
        let most = self.demand().max(used);
        wanted.min(most).min(self.full(pool).unwrap_or(u64::MAX))
    }

    /// Whether settings say that there are prefixes, and there are none. Standalone mode reports that itself.
    pub fn misses_prefixes(&self, pool: &Pool) -> bool {
        self.delegation.enabled && !self.standalone && pool.prefixes == 0
    }

    pub fn wants_prefixes(&self) -> bool {
        self.delegation.enabled
    }

    pub fn cannot_delegate(&self) -> bool {
        self.delegation.enabled
            && !self.standalone
            && self.in_force.delegates_prefixes == Some(false)
    }

    /// Whether there are prefixes against the settings, and max-pods is less than half of what they carry.
    pub fn wastes_prefixes(&self, pool: &Pool) -> bool {
        let unexpected = pool.prefixes > 0 && !self.delegation.enabled && !self.standalone;
        let carried = self.full(pool).unwrap_or(pool.addresses).min(MOST_PODS);
        unexpected && 2 * u64::from(self.in_force.pods) < carried
    }

    pub fn overpromises(&self, pool: &Pool) -> bool {
        self.full(pool).is_some_and(|full| self.demand() > full)
    }
}

#[cfg(test)]
pub mod tests {
    use super::*;

    /// The settings of a cluster, and what boot has made of them for a t3a.medium: three ENIs of six.
    pub struct Case<'a> {
        pub settings: &'a str,
        pub pods: u16,
        pub capacity: u64,
    }

    pub const SECONDARY: Case<'static> = Case { settings: "", pods: 17, capacity: 15 };
    pub const PREFIXES: Case<'static> =
        Case { settings: "[sluice.prefix-delegation]\nenabled = true", pods: 110, capacity: 240 };

    pub fn promise(case: &Case) -> Promise {
        let text = format!("[sluice]\nversion = 1\n{}\n", case.settings);
        let in_force = MaxPodsInForce {
            pods: case.pods,
            summary: "by a test".into(),
            instance_type: Some("t3a.medium".into()),
            capacity: Some(case.capacity),
            delegates_prefixes: Some(true),
            by_nodeadm: false,
            earlier: None,
        };
        Promise::of(&settings_model::parse("settings", &text).unwrap(), &in_force)
    }

    fn with(settings: &str) -> Promise {
        promise(&Case { settings, ..PREFIXES })
    }

    fn pool(addresses: u64, prefixes: u64) -> Pool {
        Pool { addresses, prefixes, ..Pool::default() }
    }

    fn eni(primary: bool, prefixes: &[&str], secondary_addresses: u64) -> Eni {
        let v4 = prefixes.iter().filter_map(|net| net.parse().ok()).collect();
        let v6 = prefixes.iter().filter_map(|net| net.parse().ok()).collect();
        Eni { primary, prefixes: v4, prefixes_v6: v6, secondary_addresses, ..Eni::default() }
    }

    #[test]
    fn pods_have_what_the_mode_gives_them() {
        let enis = [
            eni(true, &["10.0.1.16/28", "2001:db8:1:2:3::/80"], 2),
            eni(false, &["10.0.2.0/28", "10.0.2.16/28"], 3),
        ];
        let table = [
            ("", pool(53, 3)),
            ("[sluice.max-pods]\ncustom-networking = true", pool(35, 2)),
            ("[sluice.cni]\nmode = \"standalone\"", pool(16, 1)),
            (
                "[sluice.max-pods]\nip-family = \"ipv6\"\n[sluice.prefix-delegation]\nenabled = true",
                pool(1 << 48, 1),
            ),
        ];
        table.iter().for_each(|(settings, pool)| {
            assert_eq!(with(settings).pool(&enis), *pool, "{settings}");
        });
        let only_v6 = [eni(true, &["2001:db8:1:2:3::/80"], 0)];
        let standalone = with("[sluice.cni]\nmode = \"standalone\"");
        assert_eq!(standalone.pool(&only_v6), pool(1 << 48, 1));
        let everything = [eni(true, &["::/0", "::/64"], 0)];
        assert_eq!(standalone.pool(&everything).addresses, u64::MAX);
    }

    #[test]
    fn target_is_what_aws_node_goes_for() {
        let delegating =
            |line: &str| with(&format!("[sluice.prefix-delegation]\nenabled = true\n{line}"));
        let pool = pool(16, 1);
        let table = [
            ("", 5, 21),
            ("warm-prefix-target = 3", 5, 53),
            ("warm-ip-target = 2", 5, 7),
            ("warm-ip-target = 2\nminimum-ip-target = 20", 5, 20),
            // max-pods, without the two that need no address.
            ("", 100, 108),
        ];
        for (line, used, target) in table {
            assert_eq!(delegating(line).target(used, &pool), target, "{line}");
        }
        assert_eq!(promise(&SECONDARY).target(5, &Pool::default()), 6);
        assert_eq!(promise(&SECONDARY).target(15, &Pool::default()), 15);
    }

    #[test]
    fn in_standalone_mode_nobody_adds_to_what_is_there() {
        let promise = with("[sluice.cni]\nmode = \"standalone\"");
        let pool = pool(16, 1);
        assert_eq!((promise.full(&pool), promise.target(16, &pool)), (Some(16), 16));
        assert!(promise.overpromises(&pool) && !promise.overpromises(&Pool::default()));
    }

    #[test]
    fn efa_only_interface_takes_the_place_of_one_that_carries_pods() {
        let of = |instance_type: &str, case: Case, enis: &[Eni]| {
            let mut promise = promise(&case);
            promise.in_force.instance_type = Some(instance_type.into());
            let pool = promise.pool(enis);
            (promise.full(&pool), promise.overpromises(&pool))
        };
        let efa = |card| Eni { card, efa_only: true, ..Eni::default() };
        let p5 = || Case { settings: "", pods: 100, capacity: 98 };
        let first = eni(true, &[], 0);
        assert_eq!(of("p5.48xlarge", p5(), &[first.clone(), efa(1)]), (Some(98), false));
        assert_eq!(of("p5.48xlarge", p5(), &[first.clone(), efa(0), efa(1)]), (Some(49), true));
        let fits = Case { pods: 51, ..p5() };
        assert_eq!(of("p5.48xlarge", fits, &[first.clone(), efa(0)]), (Some(49), false));
        // Three ENIs of six; prefixes; the primary stays.
        assert_eq!(of("t3a.medium", PREFIXES, &[first.clone(), efa(0)]).0, Some(160));
        assert_eq!(of("t3a.medium", PREFIXES, &[first, efa(0), efa(0), efa(0)]).0, Some(80));
    }
}
