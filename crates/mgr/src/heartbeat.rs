//! Heartbeats of iods: targets join, move, come and go.

use crate::{mgr::Mgr, targets::Registration};
use pvfs_meta::{iodtab, target};
use pvfs_types::{TargetId, TargetUuid};
use pvfs_wire::{
    Refusal, Status,
    msg::admin::{Heartbeat, HeartbeatAnswer, TargetReport},
};
use tracing::info;

pub async fn heartbeat(mgr: &Mgr, req: &Heartbeat) -> Result<HeartbeatAnswer, Refusal> {
    let mut targets = Vec::with_capacity(req.targets.len());
    for report in &req.targets {
        targets.push(register(mgr, req, report).await?);
    }
    for target in targets.iter().flatten() {
        mgr.wakes.garbage.target(*target);
    }
    Ok(HeartbeatAnswer { mgr_time_ms: mgr.time.now_ms(), targets })
}

/// Takes one target's report; one that is new to the file system joins it first. `None`: refused.
async fn register(mgr: &Mgr, req: &Heartbeat, report: &TargetReport) -> Result<Option<TargetId>, Refusal> {
    let take = || mgr.targets.report(&req.addr, report, req.mgr_time_ms, req.stopping);
    if take() == Registration::Unknown {
        join(mgr, report.uuid).await?;
    }
    match take() {
        Registration::Known(id) => Ok(Some(id)),
        Registration::Refused => Ok(None),
        Registration::Unknown => Err(Refusal::new(Status::NotNow, "the target joined, but is not known yet")),
    }
}

async fn join(mgr: &Mgr, uuid: TargetUuid) -> Result<(), Refusal> {
    let joined = mgr.sequencer.run(move |txn, _| target::join(txn, &[uuid])).await?;
    load_targets(mgr).map_err(|error| error.refusal())?;
    info!(%uuid, ids = ?joined.ids, "target joined: new files can lie on it");
    Ok(())
}

/// Takes over the targets and iodtabs that the store holds.
pub fn load_targets(mgr: &Mgr) -> Result<(), pvfs_meta::MetaError> {
    let (targets, iodtabs) = mgr.read(|txn| Ok((target::list(txn)?, iodtab::all(txn)?)))?;
    mgr.targets.load(targets, iodtabs);
    Ok(())
}
