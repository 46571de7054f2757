//! `set_lock`: a range is locked or unlocked, or waited for.

use crate::lock::{Effects, Granted, Holder, Table, is_deadlock, wait_for};
use crate::{MetaError, OpEnv, Result, inode};
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, LockKind, LockRange, SessionId};
use pvfs_wire::msg::lock::{LockOutcome, SetLock};

/// Locks or unlocks a range, atomically in place of what its owner holds of it. What this frees is granted to those who
/// wait, in order. Asked for again under the same id, a lock that waits keeps its place and one that was granted stays.
///
/// An flock of another mode gives up the one that is held before it looks for others, as in Linux: two that both have
/// one for reading and want to write do not wait for each other.
///
/// # Errors
/// `EINVAL` the range ends before it begins, or it is no regular file; `EDEADLK` who holds it waits for this owner;
/// `ENOLCK` too many locks; `ESTALE` the inode is gone.
pub fn set_lock(txn: &mut impl WriteTxn, req: &SetLock, env: &OpEnv) -> Result<(LockOutcome, Effects)> {
    let SetLock { ref by, ino, owner, id, start, end, mode, pid, wait } = *req;
    if start > end {
        return Err(MetaError::LockRange { start, end });
    }
    if inode::load(txn, ino)?.kind != FileKind::File {
        return Err(MetaError::WrongKind { ino, wanted: "a regular file" });
    }
    let mut table = Table::load(txn, ino)?;
    let me = Holder { session: by.session, owner };
    // What an flock gives up goes first to those who came before.
    let mut granted = Vec::new();
    let (outcome, in_the_way) = match mode {
        None => {
            table.unlock(me, start, end)?;
            (LockOutcome::Granted, Vec::new())
        }
        Some(mode) => {
            let wanted = Wanted { me, id, range: LockRange { start, end, mode, pid }, wait };
            if wanted.is_conversion(&table) {
                table.holders.remove(&me);
                granted = table.serve(txn)?;
            }
            take(txn, &mut table, &wanted, env)?
        }
    };
    granted.extend(table.serve(txn)?);
    // It may have been its own turn: whoever holds something else does not wait behind those who only wait.
    let is_mine = |granted: &Granted| granted.session == me.session && granted.id == id;
    let outcome = if granted.iter().any(is_mine) { LockOutcome::Granted } else { outcome };
    table.save(txn);
    Ok((outcome, Effects { granted, in_the_way }))
}

struct Wanted {
    me: Holder,
    id: u64,
    range: LockRange,
    wait: bool,
}

impl Wanted {
    /// An flock that is new to its owner, not the one it has.
    fn is_conversion(&self, table: &Table) -> bool {
        let Some(held) = table.holders.get(&self.me).filter(|_| self.me.owner.kind == LockKind::Flock) else {
            return false;
        };
        let mut after = held.ranges.clone();
        after.lock(self.range);
        after != held.ranges && table.find_wait(self.me.session, self.id).is_none()
    }
}

fn take(
    txn: &mut impl WriteTxn,
    table: &mut Table,
    wanted: &Wanted,
    env: &OpEnv,
) -> Result<(LockOutcome, Vec<SessionId>)> {
    let Wanted { me, id, range, wait } = *wanted;
    if table.find_wait(me.session, id).is_some() {
        return Ok((LockOutcome::Queued, Vec::new()));
    }
    if table.holders.get(&me).is_some_and(|held| held.granted.iter().any(|grant| grant.id == id)) {
        return Ok((LockOutcome::Granted, Vec::new()));
    }
    // An append's is given up at once.
    if env.is_short && me.owner.kind != LockKind::Append {
        return Err(MetaError::LocksMax { ino: table.ino, what: "locks while the store is full" });
    }
    let asked = wait_for(me, id, range, env.now);
    let in_the_way: Vec<_> = table.blockers(&asked).map(|holder| holder.session).collect();
    // A try takes what is free; a wait stands behind those who came before.
    let is_free = in_the_way.is_empty() && (!wait || table.is_free(txn, &asked, table.queue.len())?);
    if is_free {
        table.grant(me, id, range)?;
        return Ok((LockOutcome::Granted, in_the_way));
    }
    if !wait {
        return Ok((LockOutcome::Held, in_the_way));
    }
    if is_deadlock(txn, table, &asked)? {
        return Err(MetaError::Deadlock { ino: table.ino });
    }
    table.enqueue(txn, asked)?;
    Ok((LockOutcome::Queued, in_the_way))
}
