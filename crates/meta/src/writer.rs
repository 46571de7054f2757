//! Who has which file open for writing. Records of sessions that are gone count until they are settled.

pub use crate::record::Writer;

use crate::record::{self, Inode};
use crate::scan::{self, MORE};
use crate::{Result, keys, quota, session};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Ino, SessionId, Timestamp};

/// The writers of a file, as one session sees them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Writers {
    /// That session writes.
    pub own: bool,
    /// Another one does.
    pub foreign: bool,
}

impl Writers {
    pub fn any(self) -> bool {
        self.own || self.foreign
    }
}

pub fn of(txn: &(impl Read + ?Sized), ino: Ino, session: SessionId) -> Result<Writers> {
    let mut writers = Writers::default();
    for writer in list(txn, ino)? {
        if writer == session {
            writers.own = true;
        } else {
            writers.foreign = true;
        }
    }
    Ok(writers)
}

/// The sessions that write `ino`.
pub fn list(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Vec<SessionId>> {
    scan::collect(txn, &keys::writers(ino), |mut key, _| {
        let session = key.ino().and_then(|_| key.session());
        Ok(key.whole(session))
    })
}

/// The files that `session` writes.
pub fn list_of(txn: &(impl Read + ?Sized), session: SessionId) -> Result<Vec<Ino>> {
    scan::collect(txn, &keys::session_writers(session), |key, _| Ok(file_of(key)))
}

/// The file that a key of [`keys::session_writers`] is of.
pub(crate) fn file_of(mut key: keys::Parts<'_>) -> Option<Ino> {
    let ino = key.session().and_then(|_| key.ino());
    key.whole(ino)
}

/// Whether a session that is gone wrote `ino`, and is not settled: what it sent last may still come.
pub fn has_dead(txn: &(impl Read + ?Sized), ino: Ino) -> Result<bool> {
    for session in list(txn, ino)? {
        if session::find(txn, session)?.is_none() {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Up to `max` records of sessions that are gone: to be settled.
pub fn list_dead(txn: &(impl Read + ?Sized), max: usize) -> Result<Vec<(SessionId, Ino)>> {
    let mut dead = Vec::new();
    for session in sessions(txn)? {
        if dead.len() >= max {
            break;
        }
        if session::find(txn, session)?.is_none() {
            dead.extend(list_of(txn, session)?.into_iter().map(|ino| (session, ino)));
        }
    }
    dead.truncate(max);
    Ok(dead)
}

/// Every session that has a writer record, alive or not.
pub fn sessions(txn: &(impl Read + ?Sized)) -> Result<Vec<SessionId>> {
    let mut sessions = Vec::new();
    let end = keys::prefix_end(&keys::all(keys::space::SESSION_WRITER));
    let mut from = keys::all(keys::space::SESSION_WRITER);
    // Jumps from session to session: there are few, with maybe many files each.
    loop {
        let mut found = None;
        scan::range(txn, &from, &end, |key, _| {
            found = Some(keys::Parts::of(key).session().ok_or_else(|| scan::bad_key(key))?);
            Ok(std::ops::ControlFlow::Break(()))
        })?;
        let Some(session) = found else { return Ok(sessions) };
        sessions.push(session);
        from = keys::prefix_end(&keys::session_writers(session));
    }
}

/// Records `session` as a writer of `file`, if it is not one yet, and says in `file`, and puts it, how far it may be written:
/// with `need` so far at least.
///
/// # Errors
/// `EDQUOT` no limit leaves room for `need`.
pub(crate) fn add(
    txn: &mut impl WriteTxn,
    file: &mut Inode,
    session: SessionId,
    need: Option<u64>,
    now: Timestamp,
) -> Result<()> {
    let key = keys::writer(file.ino, session);
    if txn.get(&key)?.is_none() {
        record::put(txn, &key, &Writer { since: now });
        record::put(txn, &keys::session_writer(session, file.ino), &record::Mark {});
    }
    quota::allow(txn, file, need)
}

pub(crate) fn remove(txn: &mut impl WriteTxn, ino: Ino, session: SessionId) -> Result<()> {
    txn.delete(&keys::writer(ino, session));
    txn.delete(&keys::session_writer(session, ino));
    quota::release(txn, ino)
}

/// Removes all records on `ino`.
pub(crate) fn remove_all(txn: &mut impl WriteTxn, ino: Ino) -> Result<()> {
    for session in list(txn, ino)? {
        remove(txn, ino, session)?;
    }
    Ok(())
}

/// Since when `session` has written `ino`.
pub fn find(txn: &(impl Read + ?Sized), ino: Ino, session: SessionId) -> Result<Option<Writer>> {
    record::find(txn, &keys::writer(ino, session))
}

/// Counts every record.
pub fn count(txn: &(impl Read + ?Sized)) -> Result<u64> {
    let mut count = 0;
    scan::prefix(txn, &keys::all(keys::space::WRITER), |_, _| {
        count += 1;
        MORE
    })?;
    Ok(count)
}
