// SPDX-License-Identifier: Apache-2.0
//! Looks at every measured pod, over and over, and judges its seconds.

use std::sync::atomic::Ordering;
use std::thread;
use std::time::{Duration, Instant};

use super::judge;
use super::measured::Measured;
use super::run::Run;

/// A second is judged so much later: what was gone in it has been seen by then.
const LATER: Duration = Duration::from_millis(500);

pub fn work(run: &Run, pods: &[Measured]) {
    let mut last = Instant::now();
    run.watched.store(true, Ordering::Relaxed);
    while !pods.iter().all(|pod| pod.progress[0].is_over()) {
        thread::sleep(run.pace.look_every);
        run.tick();
        for pod in pods {
            pod.watch(run);
            judge::judge(run, pod, Instant::now() - LATER);
        }
        run.took("between two looks", last.elapsed());
        last = Instant::now();
    }
    run.watched.store(false, Ordering::Relaxed);
}
