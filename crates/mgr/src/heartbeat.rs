//! Heartbeats of iods: targets join, move, come and go.

use crate::mgr::Mgr;
use pvfs_meta::{iodtab, rollback, target};
use pvfs_types::{TargetId, TargetUuid};
use pvfs_wire::{
    Refusal,
    msg::admin::{Heartbeat, HeartbeatAnswer},
};
use tracing::{error, info};

/// Takes the reports; targets that are new to the file system join first, all at once.
pub async fn heartbeat(mgr: &Mgr, req: &Heartbeat) -> Result<HeartbeatAnswer, Refusal> {
    note_rollback(mgr, req).await?;
    let uuids = req.targets.iter().map(|report| report.uuid);
    let new: Vec<TargetUuid> = uuids.filter(|uuid| !mgr.targets.is_known(*uuid)).collect();
    if !new.is_empty() {
        join(mgr, new).await?;
    }
    let report = |report| mgr.targets.report(&req.addr, report, req.mgr_time_ms, req.stopping);
    let targets: Vec<Option<TargetId>> = req.targets.iter().map(report).collect();
    for target in targets.iter().flatten() {
        mgr.wakes.garbage.target(*target);
    }
    mgr.wakes.locks.notify_one();
    Ok(HeartbeatAnswer { mgr_time_ms: mgr.time.now_ms(), targets, writes_since_ms: mgr.writes_since.told() })
}

/// Before the targets' addresses are taken: an old truncation must not be carried out on newer bytes.
async fn note_rollback(mgr: &Mgr, req: &Heartbeat) -> Result<(), Refusal> {
    let Some(found) = mgr.rollback.heard(req.mgr_time_ms, mgr.time.start_ms(), mgr.time.now_ms()) else {
        return Ok(());
    };
    error!(
        stored_ms = found.stored_ms,
        heard_ms = found.heard_ms,
        iod = req.addr,
        "the store is older than what this iod's targets have heard from it: nothing is changed before `pvfs fsck --repair`"
    );
    mgr.sequencer
        .run(move |txn, _| {
            rollback::note(txn, found);
            Ok(())
        })
        .await?;
    Ok(())
}

async fn join(mgr: &Mgr, uuids: Vec<TargetUuid>) -> Result<(), Refusal> {
    info!(?uuids, "targets join: new files can lie on them");
    mgr.sequencer.run(move |txn, _| target::join(txn, &uuids)).await?;
    load_targets(mgr).map_err(|error| error.refusal())
}

/// Takes over the targets and iodtabs that the store holds.
pub fn load_targets(mgr: &Mgr) -> Result<(), pvfs_meta::MetaError> {
    let (targets, iodtabs) = mgr.read(|txn| Ok((target::list(txn)?, iodtab::all(txn)?)))?;
    mgr.targets.load(targets, iodtabs);
    Ok(())
}
