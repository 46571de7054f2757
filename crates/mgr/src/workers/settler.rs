//! Settles the sizes of files whose writer died without a report: asks the targets, stores what they say, removes the
//! writer's record. Until then readers ask the targets themselves.

use super::expel::expel;
use crate::mgr::Mgr;
use pvfs_meta::{Inode, Settled, inode, settle, writer};
use pvfs_types::{Ino, ObjectId, SessionId, Timestamp};
use pvfs_wire::msg::data::StatObjects;
use std::{sync::Arc, time::Duration};
use tokio::time::sleep;
use tracing::{debug, info, warn};

const STAT_DEADLINE: Duration = Duration::from_secs(5);
/// Between looks at files whose targets are not all there.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

pub async fn work(mgr: Arc<Mgr>) {
    loop {
        if settle_all(&mgr).await {
            mgr.wakes.settler.notified().await;
        } else {
            sleep(RETRY_PAUSE).await;
        }
    }
}

/// Gives whether nothing is left to settle.
async fn settle_all(mgr: &Mgr) -> bool {
    let writers = match mgr.read(|txn| writer::sessions(txn)) {
        Ok(writers) => writers,
        Err(error) => {
            warn!(%error, "writer records cannot be read");
            return false;
        }
    };
    let now_ms = mgr.time.now_ms();
    let is_dead = |session| mgr.sessions.find(session).is_none_or(|standing| standing.has_run_out(now_ms));
    let mut all_settled = true;
    for session in writers.into_iter().filter(|session| is_dead(*session)) {
        // Expelled first: a session that came back with its record gone would write unseen.
        if !expel(mgr, session, "its files' sizes are to be settled").await {
            continue;
        }
        for ino in mgr.read(|txn| writer::list_of(txn, session)).unwrap_or_default() {
            match settle_one(mgr, ino, session).await {
                Ok(()) => info!(%ino, %session, "size settled after its writer's death"),
                Err(why) => {
                    debug!(%ino, %session, why, "size not settled yet");
                    all_settled = false;
                }
            }
        }
    }
    all_settled
}

async fn settle_one(mgr: &Mgr, ino: Ino, session: SessionId) -> Result<(), String> {
    let found = match mgr.read(|txn| inode::find(txn, ino)).map_err(|e| e.to_string())? {
        Some(inode) => ask_targets(mgr, &inode).await?,
        None => Found { size: 0, size_epoch: 0, mtime: None },
    };
    let settled = mgr
        .sequencer
        .run(move |txn, _| settle(txn, ino, session, found.size, found.size_epoch, found.mtime))
        .await
        .map_err(|e| e.to_string())?;
    match settled {
        Settled::Done(granted) => {
            mgr.locks.granted(&granted);
            Ok(())
        }
        Settled::AskAgain => Err("a truncation came between".into()),
    }
}

/// What the targets know of a file.
#[derive(Clone, Copy)]
struct Found {
    size: u64,
    size_epoch: u32,
    mtime: Option<Timestamp>,
}

async fn ask_targets(mgr: &Mgr, inode: &Inode) -> Result<Found, String> {
    let dist = inode.dist.ok_or("it is no regular file")?;
    let places = mgr.targets.places(&dist).ok_or("its targets are not known")?;
    let until_ms = mgr.sessions.expelled_until_ms();
    if let Some(place) = places.iter().find(|place| !mgr.targets.refuses_leases_until(place.target, until_ms))
    {
        return Err(format!("{} is down, or may still take late writes", place.target));
    }
    let mut found = Found { size: 0, size_epoch: inode.size_epoch, mtime: None };
    for place in places {
        let object = ObjectId { ino: inode.ino, data_gen: inode.data_gen, slot: place.slot };
        let request = StatObjects { target: place.target, objects: vec![object], store: None };
        let answer = place.peer.call_once(&request, STAT_DEADLINE).await.map_err(|e| e.to_string())?;
        for stat in answer.objects.into_iter().flatten() {
            found.size = found.size.max(dist.size_from_object(place.slot, stat.len));
            found.mtime = found.mtime.max(Some(stat.mtime));
        }
    }
    Ok(found)
}
