// SPDX-License-Identifier: Apache-2.0
//! The agent's second thread, for all that the loop must not wait for: IMDS, nft,
//! and foreign files. The loop gives it orders; between them it looks again at
//! times of its own. It gives back what it has found, and changes nothing of the
//! loop's.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use settings_model::Settings;

use crate::addresses::capacity::{CapacityLook, Promise, Watch};
use crate::host::paths::Paths;
use crate::imds::Host;
use crate::imds::firmware::Firmware;
use crate::settings::in_force::MaxPodsInForce;
use crate::standalone::Keeper;
use crate::trouble::Trouble;

/// What to go by from now on.
#[derive(Clone, Debug)]
pub struct Order {
    pub settings: Settings,
    /// None where no one has asked for max-pods.
    pub max_pods: Option<MaxPodsInForce>,
}

/// What applies now.
#[derive(Clone, Debug, Default)]
pub struct Findings {
    /// What is wrong in standalone mode.
    pub standalone: Option<Trouble>,
    pub capacity: CapacityLook,
}

/// The agent's end of the thread.
pub struct Background {
    orders: Sender<Order>,
    findings: Receiver<Findings>,
    /// Can be read when there are findings to receive.
    waker: UnixStream,
    /// Keeps that open when the thread has ended.
    _alive: UnixStream,
}

impl Background {
    /// Does nothing before the first order.
    pub fn start(paths: &Paths) -> Result<Self> {
        let start = || -> io::Result<Self> {
            let (waker, mut teller) = UnixStream::pair()?;
            waker.set_nonblocking(true)?;
            let alive = teller.try_clone()?;
            let (orders, received) = channel();
            let (tell, findings) = channel();
            let mut work = Work::new(paths);
            let work = move || {
                work.run(&received, |found| {
                    // The loop that listened has ended, so this thread ends too.
                    let _ = tell.send(found).map(|()| teller.write(&[0]));
                });
            };
            thread::Builder::new().name("background".into()).spawn(work)?;
            Ok(Self { orders, findings, waker, _alive: alive })
        };
        start().context("start the agent's second thread")
    }

    /// Has everything looked at, at once.
    pub fn look(&self, order: Order) {
        // Its thread ends with the process.
        let _ = self.orders.send(order);
    }

    /// What has been found since the last call; the last one is what applies.
    pub fn read(&mut self) -> Option<Findings> {
        // Whether there was a byte does not matter: the channel says what was found.
        let _ = self.waker.read(&mut [0; 64]);
        self.findings.try_iter().last()
    }
}

impl AsFd for Background {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.waker.as_fd()
    }
}

struct Work {
    keeper: Keeper,
    watch: Watch,
    imds: Host,
    /// Addresses are IMDS' to show, so only an instance can have too few.
    may_be_instance: bool,
    found: Findings,
    /// When each is to look again without an order.
    keeper_due: Option<Instant>,
    watch_due: Option<Instant>,
}

impl Work {
    fn new(paths: &Paths) -> Self {
        Self {
            keeper: Keeper::new(paths),
            watch: Watch::new(paths),
            imds: Host::default(),
            may_be_instance: !matches!(Firmware::read(paths), Firmware::Other(_)),
            found: Findings::default(),
            keeper_due: None,
            watch_due: None,
        }
    }

    /// Works until no one gives orders any more. Of several orders that wait the last one counts.
    fn run(&mut self, orders: &Receiver<Order>, mut tell: impl FnMut(Findings)) {
        let mut order = match orders.recv() {
            Ok(order) => self.accept(order),
            Err(_) => return,
        };
        loop {
            order = orders.try_iter().last().map_or(order, |new| self.accept(new));
            if is_due(self.keeper_due) {
                let (trouble, pause) = self.keeper.look(&order.settings);
                self.found.standalone = trouble;
                self.keeper_due = after(pause);
                tell(self.found.clone());
            }
            if is_due(self.watch_due) {
                self.found.capacity = self.watch.look(self.promise(&order), &mut self.imds);
                self.watch_due = after(self.found.capacity.pause);
                tell(self.found.clone());
            }
            match wait(orders, self.next()) {
                Ok(new) => order = self.accept(new),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return,
            }
        }
    }

    fn accept(&mut self, order: Order) -> Order {
        let now = Some(Instant::now());
        (self.keeper_due, self.watch_due) = (now, now);
        order
    }

    fn promise(&self, order: &Order) -> Option<Promise> {
        let in_force = order.max_pods.as_ref().filter(|_| self.may_be_instance)?;
        Some(Promise::of(&order.settings, in_force))
    }

    fn next(&self) -> Option<Instant> {
        [self.keeper_due, self.watch_due].into_iter().flatten().min()
    }
}

fn is_due(when: Option<Instant>) -> bool {
    when.is_some_and(|when| when <= Instant::now())
}

fn after(pause: Option<Duration>) -> Option<Instant> {
    pause.map(|pause| Instant::now() + pause)
}

fn wait(orders: &Receiver<Order>, until: Option<Instant>) -> Result<Order, RecvTimeoutError> {
    match until {
        None => orders.recv().map_err(|_| RecvTimeoutError::Disconnected),
        Some(until) => orders.recv_timeout(until.saturating_duration_since(Instant::now())),
    }
}
