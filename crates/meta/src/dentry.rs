//! Directory entries, kept in the order of their names' hashes.

pub use crate::record::Dentry;

use crate::record::{self, Record};
use crate::{Result, keys, scan};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{FileKind, Ino, Name};
use std::ops::ControlFlow;

/// Below it: 0 is the start, 1 and 2 are for `.` and `..` of those who show them.
pub const COOKIE_MIN: u64 = 3;

/// Where `name` stands in every directory: 63 bits of its hash, so that it stays while other names come and go.
/// Names may share one.
pub fn cookie(name: &Name) -> u64 {
    let hash = blake3::hash(name.as_bytes());
    let first = hash.as_bytes().first_chunk::<8>().expect("a hash has 32 bytes");
    (u64::from_le_bytes(*first) >> 1).max(COOKIE_MIN)
}

fn key(dir: Ino, name: &Name) -> Vec<u8> {
    keys::dentry(dir, cookie(name), name)
}

pub fn find(txn: &(impl Read + ?Sized), dir: Ino, name: &Name) -> Result<Option<Dentry>> {
    record::find(txn, &key(dir, name))
}

pub(crate) fn put(txn: &mut impl WriteTxn, dir: Ino, name: &Name, ino: Ino, kind: FileKind) {
    record::put(txn, &key(dir, name), &Dentry { ino, kind });
}

pub(crate) fn delete(txn: &mut impl WriteTxn, dir: Ino, name: &Name) {
    txn.delete(&key(dir, name));
}

pub fn is_empty(txn: &(impl Read + ?Sized), dir: Ino) -> Result<bool> {
    let mut empty = true;
    scan::prefix(txn, &keys::dentries(dir), |_, _| {
        empty = false;
        Ok(ControlFlow::Break(()))
    })?;
    Ok(empty)
}

/// Shows the entries of `dir` whose cookie is above `after`, in cookie order, until `visit` breaks.
pub fn each_after(
    txn: &(impl Read + ?Sized),
    dir: Ino,
    after: u64,
    mut visit: impl FnMut(u64, Name, Dentry) -> Result<ControlFlow<()>>,
) -> Result<()> {
    let Some(from) = after.checked_add(1) else { return Ok(()) };
    let end = keys::prefix_end(&keys::dentries(dir));
    scan::range(txn, &keys::dentries_from(dir, from), &end, |key, value| {
        let (_, cookie, name) = parse(key)?;
        visit(cookie, name, Dentry::from_bytes(value)?)
    })
}

/// The directory, cookie and name of an entry's key.
pub(crate) fn parse(key: &[u8]) -> Result<(Ino, u64, Name)> {
    let mut parts = keys::Parts::of(key);
    let parsed = (|| Some((parts.ino()?, parts.u64()?, parts.name()?)))();
    parsed.ok_or_else(|| scan::bad_key(key))
}
