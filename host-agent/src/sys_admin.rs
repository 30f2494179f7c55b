// SPDX-License-Identifier: Apache-2.0
//! CAP_SYS_ADMIN for the length of one call. The kernel wants it for entering a
//! pod's network namespace and for opening a map by its number, and it would
//! allow so much else that the agent holds it as permitted, not as effective.
//! Capabilities belong to threads: this changes the caller's only.

use caps::{CapSet, Capability};

const SYS_ADMIN: Capability = Capability::CAP_SYS_ADMIN;

/// Runs `call` with CAP_SYS_ADMIN in force. Whoever may not have it gets the call's own EPERM.
pub fn with<T>(call: impl FnOnce() -> T) -> T {
    let held = caps::has_cap(None, CapSet::Effective, SYS_ADMIN).unwrap_or(false);
    if held || caps::raise(None, CapSet::Effective, SYS_ADMIN).is_err() {
        return call();
    }
    let result = call();
    if let Err(e) = caps::drop(None, CapSet::Effective, SYS_ADMIN) {
        log::warn!("put CAP_SYS_ADMIN down again: {e}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_effective() -> bool {
        caps::has_cap(None, CapSet::Effective, SYS_ADMIN).unwrap()
    }

    #[test]
    fn capability_is_in_force_within_the_call_only() {
        if !caps::has_cap(None, CapSet::Permitted, SYS_ADMIN).unwrap() {
            assert!(!with(is_effective));
            return;
        }
        std::thread::spawn(|| {
            assert!(with(is_effective), "held before, and so left alone");
            caps::drop(None, CapSet::Effective, SYS_ADMIN).unwrap();
            assert!(with(is_effective));
            assert!(!is_effective());
        })
        .join()
        .unwrap();
    }
}
