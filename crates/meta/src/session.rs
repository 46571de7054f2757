//! Sessions: one client's standing with the mgr. Leases live in the mgr's memory, not here.

pub use crate::record::Session;

use crate::lock::Granted;
use crate::record::{self, Client, Counter, Record};
use crate::scan::{self, MORE};
use crate::{MetaError, Result, keys, lock, orphan, slot, writer};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{SessionId, Timestamp};
use pvfs_wire::msg::session::OpenSession;

/// Of a session's label, which is for people, so much is kept.
const LABEL_CHARS_MAX: usize = 200;

/// Opens a session; the same request again gives the same one. A higher incarnation of a client expels the session
/// that its earlier one had.
///
/// # Errors
/// [`MetaError::SessionUnknown`]: a late copy of a request for a session that the client has given up since.
pub fn open(txn: &mut impl WriteTxn, req: &OpenSession, now: Timestamp) -> Result<SessionId> {
    if let Some((id, standing)) = find_of(txn, &req.client)? {
        match req.incarnation.cmp(&standing.incarnation) {
            std::cmp::Ordering::Equal => return Ok(id),
            std::cmp::Ordering::Less => return Err(MetaError::SessionUnknown { session: id }),
            std::cmp::Ordering::Greater => drop(expel(txn, id)?),
        }
    }
    let id = next_id(txn)?;
    let label = req.label.chars().take(LABEL_CHARS_MAX).collect();
    let session = Session {
        client: req.client,
        incarnation: req.incarnation,
        label,
        opened: now,
        delegations: req.delegations,
    };
    record::put(txn, &keys::session(id), &session);
    record::put(txn, &keys::client(&req.client), &Client { session: id });
    Ok(id)
}

/// The session that stands for a client.
pub fn find_of(txn: &(impl Read + ?Sized), client: &[u8; 16]) -> Result<Option<(SessionId, Session)>> {
    let Some(client) = record::find::<Client>(txn, &keys::client(client))? else { return Ok(None) };
    Ok(find(txn, client.session)?.map(|session| (client.session, session)))
}

pub fn find(txn: &(impl Read + ?Sized), id: SessionId) -> Result<Option<Session>> {
    record::find(txn, &keys::session(id))
}

/// # Errors
/// [`MetaError::SessionUnknown`].
pub fn load(txn: &(impl Read + ?Sized), id: SessionId) -> Result<Session> {
    find(txn, id)?.ok_or(MetaError::SessionUnknown { session: id })
}

pub fn list(txn: &(impl Read + ?Sized)) -> Result<Vec<(SessionId, Session)>> {
    scan::collect(txn, &keys::all(keys::space::SESSION), |mut key, value| {
        let session = Session::from_bytes(value)?;
        let id = key.session();
        Ok(key.whole(id.map(|id| (id, session))))
    })
}

/// Ends a session at its client's wish: with its claims, writer records and locks. One that is gone stays so. Gives the
/// locks of others that were granted by it, here and below.
pub fn close(txn: &mut impl WriteTxn, id: SessionId) -> Result<Vec<Granted>> {
    for ino in writer::list_of(txn, id)? {
        writer::remove(txn, ino, id)?;
    }
    let mut granted = Vec::new();
    if find(txn, id)?.is_some() {
        granted = lock::end_session(txn, id, true)?;
        granted.extend(expel(txn, id)?);
    }
    Ok(granted)
}

/// Ends a session whose client is silent: with its claims, and its places among those who wait for locks. Its writer
/// records and its locks stay and count, until they are settled. One that is gone stays so.
pub fn expel(txn: &mut impl WriteTxn, id: SessionId) -> Result<Vec<Granted>> {
    let Some(session) = find(txn, id)? else { return Ok(Vec::new()) };
    let standing: Option<Client> = record::find(txn, &keys::client(&session.client))?;
    if standing.is_some_and(|client| client.session == id) {
        txn.delete(&keys::client(&session.client));
    }
    for ino in orphan::claims_of(txn, id)? {
        orphan::release(txn, id, ino);
    }
    slot::remove_all(txn, id)?;
    let granted = lock::end_session(txn, id, false)?;
    txn.delete(&keys::session(id));
    Ok(granted)
}

fn next_id(txn: &mut impl WriteTxn) -> Result<SessionId> {
    let counter: Counter = record::find(txn, &keys::session_numbers())?.unwrap_or_default();
    let last = counter.last.checked_add(1).ok_or(MetaError::NumbersUsedUp { what: "session numbers" })?;
    record::put(txn, &keys::session_numbers(), &Counter { last });
    Ok(SessionId(last))
}

/// How many sessions there are.
pub fn count(txn: &(impl Read + ?Sized)) -> Result<u64> {
    let mut count = 0;
    scan::prefix(txn, &keys::all(keys::space::SESSION), |_, _| {
        count += 1;
        MORE
    })?;
    Ok(count)
}
