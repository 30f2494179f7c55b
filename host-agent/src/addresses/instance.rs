// SPDX-License-Identifier: Apache-2.0
//! EC2's instance types: how many network interfaces and addresses each can
//! have, and how fast it is (data/ec2-instances.csv, compiled in). Numbers only;
//! what follows from them is max_pods.rs', and the node share's.

include!(concat!(env!("OUT_DIR"), "/instances.rs"));

/// One instance type.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instance {
    pub name: &'static str,
    /// Elastic network interfaces on the first network card, which alone serves pods.
    pub enis: u16,
    /// IPv4 addresses of each of them, its own included.
    pub ipv4_per_eni: u16,
    /// None where the table has none.
    pub vcpus: Option<u16>,
    pub hypervisor: Hypervisor,
    pub bare_metal: bool,
    /// Of all interfaces together, in either direction; None where EC2 says no number.
    pub bandwidth: Option<InstanceBandwidth>,
}

/// In Mbit/s.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InstanceBandwidth {
    /// What it can do for ever.
    pub baseline: u32,
    /// What it can do as long as it has credit.
    pub peak: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Hypervisor {
    Nitro,
    Xen,
    /// EC2 names none, as for bare metal.
    Unknown,
}

/// A row of the table; its name begins where the one before ends.
struct Row {
    name_end: u16,
    enis: u16,
    ipv4_per_eni: u16,
    /// 0 where it is not known.
    vcpus: u16,
    hypervisor: Hypervisor,
    bare_metal: bool,
    /// 0 where they are not known.
    baseline: u32,
    peak: u32,
}

impl Instance {
    /// None for a type that is not in the table.
    pub fn find(name: &str) -> Option<Self> {
        let (mut low, mut high) = (0, ROWS.len());
        while low < high {
            let middle = low + (high - low) / 2;
            match name_at(middle).cmp(name) {
                std::cmp::Ordering::Less => low = middle + 1,
                std::cmp::Ordering::Greater => high = middle,
                std::cmp::Ordering::Equal => return Self::at(middle),
            }
        }
        None
    }

    /// The type that this name was meant to be, if it is a slip of the finger. A size that other types have
    /// too is none: it may be of a family that is newer than the table.
    pub fn meant(name: &str) -> Option<Self> {
        let typed = name.to_lowercase();
        let size = |name: &str| name.split_once('.').map(|(_, size)| size.to_owned());
        let distance = |it: &Self| settings_model::distance(&typed, it.name);
        let nearest = Self::all().min_by_key(distance)?;
        let is_size = Self::all().any(|it| size(it.name) == size(&typed));
        let most = if is_size { 0 } else { 2 };
        (distance(&nearest) <= most).then_some(nearest)
    }

    /// Every type, by name.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..ROWS.len()).filter_map(Self::at)
    }

    /// As the VPC CNI has it (pkg/awsutils, IsPrefixDelegationSupported).
    pub fn delegates_prefixes(&self) -> bool {
        self.hypervisor == Hypervisor::Nitro || self.bare_metal
    }

    fn at(index: usize) -> Option<Self> {
        let &Row { enis, ipv4_per_eni, vcpus, hypervisor, bare_metal, baseline, peak, .. } =
            ROWS.get(index)?;
        let vcpus = Some(vcpus).filter(|count| *count > 0);
        let bandwidth = InstanceBandwidth { baseline, peak };
        let bandwidth = Some(bandwidth).filter(|it| it.peak > 0);
        let name = name_at(index);
        Some(Self { name, enis, ipv4_per_eni, vcpus, hypervisor, bare_metal, bandwidth })
    }
}

fn name_at(index: usize) -> &'static str {
    let end = |index: usize| ROWS.get(index).map_or(0, |row| usize::from(row.name_end));
    let start = index.checked_sub(1).map_or(0, end);
    NAMES.get(start..end(index)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const CSV: &str = include_str!("../../../data/ec2-instances.csv");

    /// Read again, by other means than build.rs.
    fn in_file() -> impl Iterator<Item = Instance> {
        CSV.lines().skip(1).map(|line| {
            let mut fields = line.split(',');
            let mut next = || fields.next().unwrap();
            Instance {
                name: next(),
                enis: next().parse().unwrap(),
                ipv4_per_eni: next().parse().unwrap(),
                hypervisor: match next() {
                    "nitro" => Hypervisor::Nitro,
                    "xen" => Hypervisor::Xen,
                    _ => Hypervisor::Unknown,
                },
                bare_metal: next() == "true",
                vcpus: next().parse().ok(),
                bandwidth: next().parse().ok().zip(next().parse().ok()).map(
                    |(baseline, peak): (f64, f64)| InstanceBandwidth {
                        baseline: (baseline * 1000.0).round() as u32,
                        peak: (peak * 1000.0).round() as u32,
                    },
                ),
            }
        })
    }

    #[test]
    fn table_is_what_the_file_says_and_each_type_is_found() {
        // A refreshed table has more.
        assert!(in_file().count() >= 1391);
        assert!(Instance::all().eq(in_file()));
        for instance in in_file() {
            assert_eq!(Instance::find(instance.name), Some(instance));
        }
    }

    #[test]
    fn types_that_are_not_there_are_not_found() {
        for name in
            ["", "t3a", "t3a.mediun", "t3a.medium ", "T3A.MEDIUM", "zz9.large", "a", "\u{0}"]
        {
            assert_eq!(Instance::find(name), None, "{name:?}");
        }
    }

    #[test]
    fn only_bare_metal_and_nitro_delegate_prefixes() {
        let without: Vec<_> = Instance::all().filter(|i| !i.delegates_prefixes()).collect();
        assert_eq!(without.len(), 82);
        assert!(without.iter().all(|i| !i.bare_metal && i.hypervisor != Hypervisor::Nitro));
        let delegates = |name| Instance::find(name).unwrap().delegates_prefixes();
        assert!(delegates("t3a.medium") && delegates("c5n.metal") && delegates("mac1.metal"));
        assert!(!delegates("t1.micro") && !delegates("cr1.8xlarge"));
    }
}
