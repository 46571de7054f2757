//! Delegations: given with answers, recalled, told of again after a restart.

use crate::{
    mgr::Mgr,
    service::{Reply, check_session, not_here},
};
use pvfs_kv::Read;
use pvfs_meta::{MetaError, Stat};
use pvfs_net::Incoming;
use pvfs_wire::{
    Op, Refusal, Status, encode,
    msg::{
        delegation::{AwaitRecalls, HoldDelegations, Recalled, Recalls},
        namespace::Entry,
        session::{Caller, Done},
    },
};
use std::time::Duration;
use tokio::time::timeout;

/// Answers the operations on delegations.
pub async fn handle(mgr: &Mgr, request: &Incoming) -> Reply {
    match request.op {
        Op::AwaitRecalls => wait(mgr, &request.decode()?).await,
        Op::Recalled => {
            let req: Recalled = request.decode()?;
            check_session(mgr, req.session)?;
            mgr.delegations.recalled(&req);
            Ok(encode(&Done {}))
        }
        Op::HoldDelegations => {
            let req: HoldDelegations = request.decode()?;
            check_session(mgr, req.session)?;
            mgr.delegations.held(&req);
            Ok(encode(&Done {}))
        }
        other => Err(not_here(other)),
    }
}

async fn wait(mgr: &Mgr, req: &AwaitRecalls) -> Reply {
    check_session(mgr, req.session)?;
    // A client that is gone takes no answer: its question must not stay for ever.
    let longest = Duration::from_millis(mgr.sessions.lease_ms());
    let nothing = || Recalls { mgr: mgr.process, recalls: Vec::new(), unknown: false };
    let mut stopping = mgr.stopping.clone();
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => Err(Refusal::new(Status::NotNow, "the mgr is stopping")),
        told = timeout(longest, mgr.delegations.wait(req)) => Ok(encode(&told.unwrap_or_else(|_| nothing()))),
    }
}

/// Answers a question about one inode, with its delegation where that can be had.
pub fn read_entry(
    mgr: &Mgr,
    caller: &Caller,
    question: impl Fn(&dyn Read) -> Result<Stat, MetaError>,
) -> Reply {
    check_session(mgr, caller.session)?;
    let ask = || mgr.read(&question).map_err(|error| error.refusal());
    let stat = ask()?;
    let ino = stat.attr.ino;
    if stat.has_writers || !mgr.delegations.delegate(caller.session, ino) {
        return Ok(encode(&Entry::from(stat)));
    }
    // Only what is read from now on cannot have changed unnoticed.
    let now = ask().inspect_err(|_| mgr.delegations.take_back(caller.session, ino))?;
    if now.has_writers || now.attr.ino != ino {
        mgr.delegations.take_back(caller.session, ino);
        return Ok(encode(&Entry::from(now)));
    }
    Ok(encode(&Entry { delegated: Some(true), ..now.into() }))
}
