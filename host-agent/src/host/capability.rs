// SPDX-License-Identifier: Apache-2.0
//! A capability for the length of one call. The kernel requires CAP_SYS_ADMIN for entering a
//! pod's network namespace and for opening a map by its number, and CAP_SYS_PTRACE for reading which
//! namespaces a process is in. Both allow so much else that the agent holds them as permitted, not as
//! effective. Capabilities belong to threads: this changes the caller's only.

use caps::{CapSet, Capability};

/// Runs `call` with the capability in force. Whoever may not have it gets the call's own error.
pub fn with<T>(capability: Capability, call: impl FnOnce() -> T) -> T {
    let held = caps::has_cap(None, CapSet::Effective, capability).unwrap_or(false);
    if held || caps::raise(None, CapSet::Effective, capability).is_err() {
        return call();
    }
    let result = call();
    if let Err(e) = caps::drop(None, CapSet::Effective, capability) {
        log::warn!("put {capability} down again: {e}");
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    const SYS_ADMIN: Capability = Capability::CAP_SYS_ADMIN;

    fn is_effective() -> bool {
        caps::has_cap(None, CapSet::Effective, SYS_ADMIN).unwrap()
    }

    #[test]
    fn capability_is_in_force_within_the_call_only() {
        if !caps::has_cap(None, CapSet::Permitted, SYS_ADMIN).unwrap() {
            assert!(!with(SYS_ADMIN, is_effective));
            return;
        }
        std::thread::spawn(|| {
            assert!(with(SYS_ADMIN, is_effective), "held before, and so left alone");
            caps::drop(None, CapSet::Effective, SYS_ADMIN).unwrap();
            assert!(with(SYS_ADMIN, is_effective));
            assert!(!is_effective());
        })
        .join()
        .unwrap();
    }
}
