// SPDX-License-Identifier: Apache-2.0
//! What firmware, kernel and EC2's metadata service say of the machine. On
//! nitro and bare metal the firmware names the instance type, so that no one
//! waits for the network; Xen's names none.

use std::fs;
use std::path::Path;
use std::time::Duration;

use crate::addresses::instance::Instance;
use crate::addresses::max_pods::{Machine, PREFIX_ADDRESSES};
use crate::host::paths::Paths;
use crate::imds::eni::Eni;
use crate::imds::firmware::Firmware;
use crate::imds::{Client, Host, ImdsError};

const PROCESSORS: &str = "/sys/devices/system/cpu/online";
const INSTANCE_TYPE: &str = "/latest/meta-data/instance-type";
/// The user data has been waited for already, where it came from there.
const BUDGET: Duration = Duration::from_secs(5);

/// None on a machine that is no EC2 instance.
pub fn probe(paths: &Paths) -> Option<Machine> {
    let Firmware::Instance(firmware) = Firmware::read(paths) else { return None };
    let instance_type = firmware.or_else(|| answered(asked_type()));
    let is_known = instance_type.as_deref().is_some_and(|name| Instance::find(name).is_some());
    let vcpus = line(paths, PROCESSORS).and_then(|list| count(&list));
    let shown = if is_known { None } else { shown() };
    Some(Machine { instance_type, vcpus, shown })
}

fn line(paths: &Paths, path: &str) -> Option<String> {
    let text = fs::read_to_string(paths.resolve(Path::new(path))).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

fn asked_type() -> Result<Option<Vec<u8>>, ImdsError> {
    Client::new(BUDGET, &mut Host::default()).get(INSTANCE_TYPE)
}

/// That it is not known is reported with what follows from it.
fn answered(answer: Result<Option<Vec<u8>>, ImdsError>) -> Option<String> {
    let body = answer.map_err(|e| log::warn!("ask IMDS for the instance type: {e}")).ok()??;
    Some(String::from_utf8_lossy(&body).trim().to_owned()).filter(|name| !name.is_empty())
}

fn shown() -> Option<u64> {
    let enis = Eni::read_all(BUDGET, &mut Host::default());
    for_pods(&enis.map_err(|e| log::warn!("{:#}", anyhow::Error::new(e))).ok()?)
}

/// Addresses beside each interface's own; None where there are none yet, which says nothing.
fn for_pods(enis: &[Eni]) -> Option<u64> {
    let prefixes: usize = enis.iter().map(|eni| eni.prefixes.len()).sum();
    let secondary: u64 = enis.iter().map(|eni| eni.secondary_addresses).sum();
    Some(prefixes as u64 * PREFIX_ADDRESSES + secondary).filter(|addresses| *addresses > 0)
}

/// Of a list as the kernel writes it, e.g. `0-3,8`.
fn count(list: &str) -> Option<u16> {
    let range = |range: &str| {
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        let (first, last): (u16, u16) = (first.parse().ok()?, last.parse().ok()?);
        last.checked_sub(first)?.checked_add(1)
    };
    list.split(',').map(range).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    const VENDOR: &str = "/sys/class/dmi/id/sys_vendor";
    const PRODUCT: &str = "/sys/class/dmi/id/product_name";

    fn node(files: &[(&str, &str)]) -> (tempfile::TempDir, Paths) {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for (file, text) in files {
            let path = paths.resolve(Path::new(file));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        (root, paths)
    }

    #[test]
    fn firmware_of_nitro_names_the_type() {
        let (_root, paths) =
            node(&[(VENDOR, "Amazon EC2\n"), (PRODUCT, "t3a.medium\n"), (PROCESSORS, "0-1\n")]);
        let expected =
            Machine { instance_type: Some("t3a.medium".into()), vcpus: Some(2), shown: None };
        assert_eq!(probe(&paths), Some(expected));
    }

    #[test]
    fn other_machines_are_no_instances() {
        let (_root, paths) = node(&[(VENDOR, "QEMU\n"), (PRODUCT, "Standard PC\n")]);
        assert_eq!(probe(&paths), None);
        assert_eq!(probe(&node(&[]).1), None);
    }

    #[test]
    fn addresses_of_all_interfaces_are_for_pods_and_none_says_nothing() {
        let bare = Eni { primary: true, ..Eni::default() };
        assert_eq!(for_pods(std::slice::from_ref(&bare)), None);
        let prefixes = vec!["10.0.1.16/28".parse().unwrap(), "10.0.1.32/28".parse().unwrap()];
        let second = Eni { prefixes, secondary_addresses: 3, ..Eni::default() };
        assert_eq!(for_pods(&[bare, second]), Some(35));
    }

    #[test]
    fn processors_are_counted_as_the_kernel_lists_them() {
        assert_eq!(["0", "0-3", "0-3,8,10-11"].map(count), [Some(1), Some(4), Some(7)]);
        assert_eq!(["", "x", "3-1", "0-"].map(count), [None; 4]);
    }
}
