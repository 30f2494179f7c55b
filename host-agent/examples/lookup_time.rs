// SPDX-License-Identifier: Apache-2.0
//! What it takes to look an instance type up: nanoseconds, the median of
//! rounds over every type there is. For `make bench`.

use std::hint::black_box;
use std::time::Instant;

use host_agent::instances::Instance;

const ROUNDS: usize = 101;

fn main() {
    let names: Vec<&str> = Instance::all().map(|instance| instance.name).collect();
    let mut times: Vec<u128> = (0..ROUNDS).map(|_| round(&names)).collect();
    times.sort_unstable();
    println!("{}", times[ROUNDS / 2] as f64 / names.len() as f64);
}

fn round(names: &[&str]) -> u128 {
    let start = Instant::now();
    for name in names {
        black_box(Instance::find(black_box(name)));
    }
    start.elapsed().as_nanos()
}
