// SPDX-License-Identifier: Apache-2.0
//! What an ENA tells by counters of its driver: that EC2 has dropped or held what was above the
//! instance's allowance. Each interface counts its own packets; the allowance is the instance's.

use std::collections::BTreeMap;
use std::io;

use bpf::Ethtool;

/// Out and in, as the driver calls them in Linux (drivers/net/ethernet/amazon/ena/ena_ethtool.c) and in
/// its own releases up to 2.17; places differ.
const EXCEEDED: [&str; 2] = ["bw_out_allowance_exceeded", "bw_in_allowance_exceeded"];

/// The driver's own counters.
pub trait Counters {
    fn names(&self, device: &str) -> io::Result<Vec<String>>;
    fn values(&self, device: &str, count: usize) -> io::Result<Vec<u64>>;
}

impl Counters for Ethtool {
    fn names(&self, device: &str) -> io::Result<Vec<String>> {
        self.counter_names(device)
    }

    fn values(&self, device: &str, count: usize) -> io::Result<Vec<u64>> {
        self.counters(device, count)
    }
}

/// What was read of each interface.
#[derive(Default)]
pub struct Enas(BTreeMap<String, Ena>);

struct Ena {
    count: usize,
    places: [usize; 2],
    last: [u64; 2],
}

impl Enas {
    /// Finds the interfaces that count; false where none does.
    pub fn find(&mut self, counters: &impl Counters, devices: &[String]) -> bool {
        self.0.retain(|device, _| devices.contains(device));
        for device in devices {
            if let (false, Some(ena)) = (self.0.contains_key(device), Ena::find(counters, device)) {
                self.0.insert(device.clone(), ena);
            }
        }
        !self.0.is_empty()
    }

    /// Whether one of them has dropped anything since the last time, out and in. One whose counters have
    /// changed their places is found again.
    pub fn exceeded(&mut self, counters: &impl Counters) -> [bool; 2] {
        let mut exceeded = [false; 2];
        for (device, ena) in &mut self.0 {
            match ena.read(counters, device) {
                Some(now) => {
                    for way in [0, 1] {
                        exceeded[way] |= now[way] > ena.last[way];
                    }
                    ena.last = now;
                }
                None => *ena = Ena::find(counters, device).unwrap_or(Ena { count: 0, ..*ena }),
            }
        }
        exceeded
    }
}

impl Ena {
    fn find(counters: &impl Counters, device: &str) -> Option<Self> {
        let names = counters.names(device).ok()?;
        let place = |wanted: &str| names.iter().position(|name| name == wanted);
        let places = [place(EXCEEDED[0])?, place(EXCEEDED[1])?];
        let mut ena = Self { count: names.len(), places, last: [0; 2] };
        ena.last = ena.read(counters, device)?;
        Some(ena)
    }

    fn read(&self, counters: &impl Counters, device: &str) -> Option<[u64; 2]> {
        let values = counters.values(device, self.count).ok()?;
        let value = |place: usize| values.get(place).copied();
        Some([value(self.places[0])?, value(self.places[1])?])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Answers as the driver's release 2.17 does for so many queues: its strings, in its order.
    struct Driver {
        queues: usize,
        out: u64,
        into: u64,
    }

    const BEFORE: &str = "total_resets reset_fail tx_timeout wd_expired admin_q_pause bad_tx_req_id bad_rx_req_id \
        bad_rx_desc_num missing_intr suspected_poll_starvation missing_tx_cmpl rx_desc_malformed tx_desc_malformed \
        invalid_state os_netdev_wd missing_admin_interrupt admin_to device_request_reset missing_first_intr suspend \
        resume interface_down interface_up";
    const AFTER: &str = "pps_allowance_exceeded conntrack_allowance_exceeded linklocal_allowance_exceeded \
        conntrack_allowance_available";

    impl Driver {
        fn all(&self) -> Vec<(String, u64)> {
            let others =
                |names: &'static str| names.split_whitespace().map(|name| (name.into(), 7));
            let exceeded =
                [(EXCEEDED[1].into(), self.into), (EXCEEDED[0].into(), self.out)].into_iter();
            let queues = (0..self.queues).flat_map(|queue| {
                ["tx_bytes", "rx_bytes"].map(|name| (format!("queue_{queue}_{name}"), queue as u64))
            });
            others(BEFORE).chain(exceeded).chain(others(AFTER)).chain(queues).collect()
        }
    }

    impl Counters for Driver {
        fn names(&self, device: &str) -> io::Result<Vec<String>> {
            match device {
                "eth0" | "eth1" => Ok(self.all().into_iter().map(|(name, _)| name).collect()),
                "veth" => Ok(vec!["peer_ifindex".into()]),
                _ => Err(io::ErrorKind::Unsupported.into()),
            }
        }

        fn values(&self, _: &str, count: usize) -> io::Result<Vec<u64>> {
            let values: Vec<u64> = self.all().into_iter().map(|(_, value)| value).collect();
            Some(values).filter(|it| it.len() == count).ok_or(io::ErrorKind::InvalidData.into())
        }
    }

    #[test]
    fn a_counter_that_rises_says_so_once_and_queues_may_change() {
        let devices: Vec<String> = ["lo", "veth", "eth0", "eth1"].map(String::from).into();
        let mut driver = Driver { queues: 2, out: 5, into: 0 };
        let mut enas = Enas::default();
        assert!(!enas.find(&driver, &devices[..2]));
        assert!(enas.find(&driver, &devices));
        assert_eq!(enas.exceeded(&driver), [false, false]);
        driver.out = 6;
        assert_eq!(enas.exceeded(&driver), [true, false]);
        assert_eq!(enas.exceeded(&driver), [false, false]);
        driver.queues = 8;
        assert_eq!(enas.exceeded(&driver), [false, false]);
        driver.into = 1;
        assert_eq!(enas.exceeded(&driver), [false, true]);
        // The device was reset, and counts from 0.
        (driver.out, driver.into) = (0, 0);
        assert_eq!(enas.exceeded(&driver), [false, false]);
        assert!(!enas.find(&driver, &devices[..2]));
    }
}
