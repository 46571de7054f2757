//! Delegations: given with answers, recalled, told of again after a restart.

use crate::{
    delegations::Given,
    mgr::Mgr,
    service::{Reply, check_session, encoded, news, not_here},
};
use pvfs_kv::Read;
use pvfs_meta::{MetaError, Stat, ops, writer};
use pvfs_net::Incoming;
use pvfs_types::{Ino, SessionId};
use pvfs_wire::{
    Op, Refusal, Status,
    msg::{
        delegation::{AwaitRecalls, HoldDelegations, Recalled, Recalls},
        namespace::{DirEntry, Entry, ReadDir},
        session::{Caller, Done},
    },
};
use std::collections::HashMap;

/// Answers the operations on delegations.
pub async fn handle(mgr: &Mgr, request: &Incoming) -> Reply {
    match request.op {
        Op::AwaitRecalls => wait(mgr, &request.decode()?).await,
        Op::Recalled => {
            let req: Recalled = request.decode()?;
            check_session(mgr, req.session)?;
            mgr.delegations.recalled(&req);
            Ok(encoded(&Done {}))
        }
        Op::HoldDelegations => {
            let req: HoldDelegations = request.decode()?;
            check_session(mgr, req.session)?;
            mgr.delegations.held(&req);
            Ok(encoded(&Done {}))
        }
        other => Err(not_here(other)),
    }
}

async fn wait(mgr: &Mgr, req: &AwaitRecalls) -> Reply {
    check_session(mgr, req.session)?;
    let nothing = || Recalls { mgr: mgr.process, recalls: Vec::new(), unknown: false };
    let told = news(mgr, mgr.delegations.wait(req), "the mgr is stopping").await?;
    Ok(encoded(&told.unwrap_or_else(nothing)))
}

/// Answers a question about one inode, with its delegation where that can be had.
pub async fn read_entry(
    mgr: &Mgr,
    caller: &Caller,
    question: impl Fn(&dyn Read) -> Result<Stat, MetaError>,
) -> Reply {
    loop {
        let stat = read_unshared(mgr, caller.session, &question).await?;
        if let Some(entry) = delegate(mgr, caller.session, stat, &question)? {
            return Ok(encoded(&entry));
        }
    }
}

/// What an inode is, once no other session is alone with it.
pub async fn read_unshared(
    mgr: &Mgr,
    session: SessionId,
    question: impl Fn(&dyn Read) -> Result<Stat, MetaError>,
) -> Result<Stat, Refusal> {
    loop {
        check_session(mgr, session)?;
        let read = |txn: &dyn Read| {
            let stat = question(txn)?;
            let writers = if stat.has_writers { writer::list(txn, stat.attr.ino)? } else { Vec::new() };
            Ok((stat, writers))
        };
        let (stat, writers) = mgr.read(read).map_err(|error: MetaError| error.refusal())?;
        let ino = stat.attr.ino;
        if !mgr.delegations.is_alone(ino, &writers, session) {
            return Ok(stat);
        }
        let recalled = mgr.delegations.recall_alone(ino, &writers, session).await;
        recalled.map_err(|_| Refusal::new(Status::NotNow, "the mgr is stopping"))?;
    }
}

/// The answer to `question` that `stat` is, or a newer one, delegated if that can be had. `None`: somebody has begun to write the
/// inode since, or it is another one.
fn delegate(
    mgr: &Mgr,
    session: SessionId,
    stat: Stat,
    question: impl Fn(&dyn Read) -> Result<Stat, MetaError>,
) -> Result<Option<Entry>, Refusal> {
    let ino = stat.attr.ino;
    let given = if stat.has_writers { Given::No } else { mgr.delegations.delegate(session, ino) };
    if given == Given::No {
        return Ok(Some(stat.into()));
    }
    let undo = || {
        if given == Given::Now {
            mgr.delegations.take_back(session, ino);
        }
    };
    // Only what is read from now on cannot have changed unnoticed.
    let now = mgr.read(&question).map_err(|error| error.refusal()).inspect_err(|_| undo())?;
    if now.has_writers || now.attr.ino != ino {
        undo();
        return Ok(None);
    }
    Ok(Some(Entry { delegated: Some(true), ..now.into() }))
}

/// Answers a listing; with attributes, delegates what it tells of as far as that can be had.
pub fn readdir(mgr: &Mgr, req: &ReadDir) -> Reply {
    let session = req.caller.session;
    check_session(mgr, session)?;
    let ask = || mgr.read(|txn| ops::readdir(txn, req)).map_err(|error| error.refusal());
    let page = ask()?;
    let alone = |entry: &DirEntry| entry.entry.as_ref().is_some_and(|entry| !entry.has_writers);
    let mut given: HashMap<Ino, Given> = HashMap::new();
    for entry in page.entries.iter().filter(|entry| alone(entry)) {
        given.entry(entry.ino).or_insert_with(|| mgr.delegations.delegate(session, entry.ino));
    }
    given.retain(|_, given| *given != Given::No);
    if given.is_empty() {
        return Ok(encoded(&page));
    }
    // As above.
    let mut now = ask();
    let mut untold = given.clone();
    for entry in now.iter_mut().flat_map(|page| &mut page.entries).filter(|entry| alone(entry)) {
        if let Some(told) = entry.entry.as_mut().filter(|_| given.contains_key(&entry.ino)) {
            told.delegated = Some(true);
            untold.remove(&entry.ino);
        }
    }
    for (ino, _) in untold.into_iter().filter(|(_, given)| *given == Given::Now) {
        mgr.delegations.take_back(session, ino);
    }
    Ok(encoded(&now?))
}
