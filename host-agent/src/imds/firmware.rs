// SPDX-License-Identifier: Apache-2.0
//! What firmware and hypervisor say of the machine: only an EC2 instance has an
//! IMDS to wait for.

use std::fs;
use std::path::Path;

use crate::host::paths::Paths;

const VENDOR: &str = "/sys/class/dmi/id/sys_vendor";
const PRODUCT: &str = "/sys/class/dmi/id/product_name";
const XEN_UUID: &str = "/sys/hypervisor/uuid";

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Firmware {
    /// With its type on nitro and bare metal; Xen names none.
    Instance(Option<String>),
    /// Another machine, by its vendor.
    Other(String),
    /// Neither says what this is.
    Silent,
}

impl Firmware {
    pub fn read(paths: &Paths) -> Self {
        let is_xen_of_ec2 = || line(paths, XEN_UUID).is_some_and(|uuid| uuid.starts_with("ec2"));
        match line(paths, VENDOR) {
            Some(vendor) if vendor == "Amazon EC2" => Self::Instance(line(paths, PRODUCT)),
            _ if is_xen_of_ec2() => Self::Instance(None),
            Some(vendor) => Self::Other(vendor),
            None => Self::Silent,
        }
    }
}

fn line(paths: &Paths, path: &str) -> Option<String> {
    let text = fs::read_to_string(paths.resolve(Path::new(path))).ok()?;
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn firmware(files: &[(&str, &str)]) -> Firmware {
        let root = tempfile::tempdir().unwrap();
        let paths = Paths::below(root.path());
        for (file, text) in files {
            let path = paths.resolve(Path::new(file));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        Firmware::read(&paths)
    }

    #[test]
    fn instances_are_known_by_their_vendor_or_by_xens_number() {
        let nitro = firmware(&[(VENDOR, "Amazon EC2\n"), (PRODUCT, "t3a.medium\n")]);
        assert_eq!(nitro, Firmware::Instance(Some("t3a.medium".into())));
        let xen = firmware(&[(VENDOR, "Xen\n"), (XEN_UUID, "ec2e1916-9099\n")]);
        assert_eq!(xen, Firmware::Instance(None));
        let other = firmware(&[(VENDOR, "Xen\n"), (XEN_UUID, "4df5-1\n")]);
        assert_eq!(other, Firmware::Other("Xen".into()));
        let other = firmware(&[(VENDOR, "QEMU\n"), (PRODUCT, "Standard PC\n")]);
        assert_eq!(other, Firmware::Other("QEMU".into()));
        assert_eq!(firmware(&[]), Firmware::Silent);
    }
}
