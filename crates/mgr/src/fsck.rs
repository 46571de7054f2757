//! What `pvfs fsck` asks of the mgr: questions on a snapshot, and repairs. They need no session, and are for root and the
//! owner of the root directory.

use crate::{
    mgr::Mgr,
    service::{Reply, encoded, not_here},
};
use pvfs_kv::Read;
use pvfs_meta::{MetaError, ops};
use pvfs_net::Incoming;
use pvfs_wire::{
    Op,
    msg::fsck::{CheckStore, Fix, JudgeObjects, ListFiles, Repair},
};
use tracing::warn;

pub async fn handle(mgr: &Mgr, request: &Incoming) -> Reply {
    match request.op {
        Op::CheckStore => {
            let req: CheckStore = request.decode()?;
            look(mgr, |txn| ops::check_store(txn, &req))
        }
        Op::ListFiles => {
            let req: ListFiles = request.decode()?;
            look(mgr, |txn| ops::list_files(txn, &req))
        }
        Op::JudgeObjects => {
            let req: JudgeObjects = request.decode()?;
            look(mgr, |txn| ops::judge_objects(txn, &req))
        }
        Op::Repair => repair(mgr, request.decode()?).await,
        other => Err(not_here(other)),
    }
}

/// Answers a question that may take long.
fn look<T: minicbor::Encode<()>>(
    mgr: &Mgr,
    question: impl FnOnce(&dyn Read) -> Result<T, MetaError>,
) -> Reply {
    let reply = pvfs_env::disk::blocking(|| mgr.read(question));
    Ok(encoded(&reply.map_err(|error| error.refusal())?))
}

/// Mends what a check found. What it puts on the garbage list goes at once; sessions that it ended are forgotten.
async fn repair(mgr: &Mgr, req: Repair) -> Reply {
    let settles = req.fixes.contains(&Fix::Settle);
    let repaired = mgr.sequencer.run(move |txn, env| ops::repair(txn, &req, env.now)).await?;
    let changed: u64 = repaired.changed.iter().sum();
    warn!(changed, "records mended for pvfs fsck");
    if settles && mgr.rollback.is_noted() {
        mgr.rollback.settled();
        for (session, _) in mgr.sessions.all() {
            mgr.sessions.close(session);
        }
    }
    mgr.wakes.garbage.all();
    Ok(encoded(&repaired))
}
