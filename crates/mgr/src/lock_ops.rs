//! Locks: set, waited for, taken back. What a change grants to others is told once it is durable.

use crate::{
    mgr::Mgr,
    sequencer::Txn,
    service::{Reply, change, check_session, encoded, news, not_here, read},
    session_ops::unknown,
};
use pvfs_meta::{
    MetaError, OpEnv, inode,
    lock::{Effects, Granted},
    ops,
};
use pvfs_net::Incoming;
use pvfs_types::SessionId;
use pvfs_wire::{
    Op,
    msg::{
        lock::{
            AwaitLocks, CancelLock, LockOutcome, LockSet, LockTested, LocksGranted, ReleaseLocks, SetLock,
            TestLock,
        },
        session::{Done, Mutator},
    },
};
use std::sync::{Arc, Mutex, PoisonError};

/// Answers the operations on locks.
pub async fn handle(mgr: &Mgr, request: &Incoming) -> Reply {
    match request.op {
        Op::TestLock => {
            let req: TestLock = request.decode()?;
            read(mgr, &req.caller, |txn| Ok(LockTested { held: ops::test_lock(txn, &req)? }))
        }
        Op::SetLock => set(mgr, request.decode()?).await,
        Op::AwaitLocks => wait(mgr, request.decode()?).await,
        Op::CancelLock => cancel(mgr, request.decode()?).await,
        Op::ReleaseLocks => release(mgr, request.decode()?).await,
        other => Err(not_here(other)),
    }
}

async fn set(mgr: &Mgr, req: SetLock) -> Reply {
    change_locks(mgr, req.by.clone(), move |txn, env| {
        let (outcome, effects) = ops::set_lock(txn, &req, env)?;
        let entry = match outcome {
            LockOutcome::Granted if req.mode.is_some() => {
                let inode = inode::load(txn, req.ino)?;
                Some(inode::stat(txn, &inode, req.by.session)?.into())
            }
            LockOutcome::Granted | LockOutcome::Queued | LockOutcome::Held => None,
        };
        Ok((LockSet { outcome, entry }, effects))
    })
    .await
}

async fn cancel(mgr: &Mgr, req: CancelLock) -> Reply {
    change_locks(mgr, req.by.clone(), move |txn, _| Ok((Done {}, granted(ops::cancel_lock(txn, &req)?))))
        .await
}

async fn release(mgr: &Mgr, req: ReleaseLocks) -> Reply {
    change_locks(mgr, req.by.clone(), move |txn, _| Ok((Done {}, granted(ops::release_locks(txn, &req)?))))
        .await
}

fn granted(granted: Vec<Granted>) -> Effects {
    Effects { granted, in_the_way: Vec::new() }
}

/// Makes a change, and lets those know whom it concerns.
async fn change_locks<T: minicbor::Encode<()>>(
    mgr: &Mgr,
    by: Mutator,
    work: impl Fn(&mut Txn<'_>, &OpEnv<'_>) -> Result<(T, Effects), MetaError> + Send + Sync + 'static,
) -> Reply {
    // Of the run that was committed: a run before a failed commit is over by then.
    let last = Arc::new(Mutex::new(Effects::default()));
    let kept = Arc::clone(&last);
    let reply = change(mgr, by, move |txn, env| {
        let (reply, effects) = work(txn, env)?;
        *kept.lock().unwrap_or_else(PoisonError::into_inner) = effects;
        Ok(reply)
    })
    .await?;
    let effects = std::mem::take(&mut *last.lock().unwrap_or_else(PoisonError::into_inner));
    if mgr.locks.changed(&effects, |session| is_silent(mgr, session)) {
        mgr.wakes.locks.notify_one();
    }
    Ok(reply)
}

/// Its lease has run out, or it is gone.
fn is_silent(mgr: &Mgr, session: SessionId) -> bool {
    let now_ms = mgr.time.now_ms();
    mgr.sessions.find(session).is_none_or(|standing| standing.has_run_out(now_ms))
}

/// Answers once a lock was granted that the session waits for.
async fn wait(mgr: &Mgr, req: AwaitLocks) -> Reply {
    check_session(mgr, req.session)?;
    let nothing = || LocksGranted { mgr: mgr.process, seen: req.seen, ids: Vec::new(), ask_again: false };
    let stops = "the mgr is stopping; locks are waited for at the next one";
    let granted = news(mgr, mgr.locks.wait(&req), stops).await?;
    // Its client may be gone long since: this is no sign of life.
    if !mgr.sessions.is_known(req.session) {
        return Err(unknown(req.session));
    }
    Ok(encoded(&granted.unwrap_or_else(nothing)))
}
