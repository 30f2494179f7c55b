// SPDX-License-Identifier: Apache-2.0
//! Overrides of the limits of running pods: written into their records, from
//! where they reach the shaper as any other limit does, and taken out again
//! when their time is up.

use std::time::Duration;

use anyhow::Result;

use crate::agent::reconcile::Reconciler;
use crate::api::LimitRefused;
use crate::host::paths::Paths;
use crate::pod::asked::Override;
use crate::pod::record::{Claim, Records, Shaping};
use crate::settings::in_force::in_force;

/// A verb of the pod that takes longer hangs.
const PATIENCE: Duration = Duration::from_millis(500);

/// Gives every interface of a pod this override, or removes it, and applies that. Says how
/// many interfaces have it now, or had one.
pub fn set(
    paths: &Paths,
    reconciler: &mut Reconciler,
    namespace: &str,
    pod: &str,
    limit: Option<Override>,
) -> Result<usize> {
    if limit.is_some() && !in_force(paths)?.bandwidth.enabled {
        return Err(LimitRefused::ShapingIsOff.into());
    }
    let claims = write(paths, namespace, pod, limit)?;
    let changed = claims.len();
    reconciler.bring_now(claims)?;
    if limit.is_some() {
        check(paths, namespace, pod)?;
    }
    Ok(changed)
}

fn write(paths: &Paths, namespace: &str, pod: &str, limit: Option<Override>) -> Result<Vec<Claim>> {
    let records = Records::new(paths);
    let (mut known, mut changed) = (false, Vec::new());
    for claim in records.list()? {
        let Ok(record) = claim.read() else { continue };
        if record.namespace != namespace || record.pod != pod {
            continue;
        }
        known = true;
        let _held = records.hold(&claim.key.container_id, PATIENCE)?;
        let Ok(mut record) = claim.read() else { continue };
        if record.live.is_some() || limit.is_some() {
            record.live = limit;
            records.rewrite(&claim, &record)?;
            changed.push(claim);
        }
    }
    let no_pod = || LimitRefused::NoPod { namespace: namespace.into(), pod: pod.into() };
    known.then_some(changed).ok_or_else(|| no_pod().into())
}

/// What could not be changed has been logged; here it must not pass for done.
fn check(paths: &Paths, namespace: &str, pod: &str) -> Result<()> {
    let bandwidth = in_force(paths)?.bandwidth;
    for claim in Records::new(paths).list()? {
        let Ok(record) = claim.read() else { continue };
        if record.namespace != namespace || record.pod != pod {
            continue;
        }
        let wanted = record.wanted(&bandwidth);
        let held = [(&record.egress, wanted.egress), (&record.ingress, wanted.ingress)];
        let in_force = held.iter().all(|(shaping, limit)| match (shaping, limit) {
            (Shaping::Unlimited, None) => true,
            (Shaping::Limited { bits_per_sec, mode: Some(_), .. }, Some(limit)) => {
                *bits_per_sec == limit.rate.bits_per_sec()
            }
            _ => false,
        });
        if !in_force {
            anyhow::bail!(
                "the limit is noted, but could not be put in force on {}; the log says why",
                claim.key.ifname
            );
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pod::record::{Arrival, Key, Record};

    fn record(pod: &str) -> Record {
        Record {
            namespace: "default".into(),
            pod: pod.into(),
            netns: "/run/netns/x".into(),
            ..Record::blank(Arrival::Adopted { beside_upstream: false })
        }
    }

    fn node(pods: &[&str]) -> (tempfile::TempDir, Paths) {
        let dir = tempfile::tempdir().unwrap();
        let paths = Paths::below(dir.path());
        let records = Records::new(&paths);
        for (n, pod) in pods.iter().enumerate() {
            let key = Key { container_id: format!("c{n}"), ifname: format!("eth{n}") };
            records.claim(key, &record(pod)).unwrap();
        }
        (dir, paths)
    }

    fn until(until: u64) -> Option<Override> {
        Some(Override { egress: "1Mbit".parse().ok(), ingress: None, until })
    }

    #[test]
    fn every_interface_of_the_pod_and_no_other_gets_the_limit() {
        let (_dir, paths) = node(&["web", "web", "db"]);
        assert_eq!(write(&paths, "default", "web", until(9)).unwrap().len(), 2);
        let lives: Vec<_> = Records::new(&paths).list().unwrap();
        let lives: Vec<_> = lives.iter().map(|claim| claim.read().unwrap().live).collect();
        assert_eq!(lives, [until(9), until(9), None]);
        assert_eq!(write(&paths, "default", "web", None).unwrap().len(), 2);
        assert_eq!(write(&paths, "default", "web", None).unwrap().len(), 0);
    }

    #[test]
    fn unknown_pod_is_refused_by_name() {
        let (_dir, paths) = node(&["web"]);
        let error = write(&paths, "other", "web", until(9)).unwrap_err();
        assert_eq!(error.to_string(), "no pod other/web on this node");
    }
}
