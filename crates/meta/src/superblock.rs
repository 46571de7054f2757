//! The file system as a whole: formatting, its identity, how many inodes there are.

use crate::record::{self, InodeNumbers, Superblock};
use crate::{MetaError, Result, inode, keys, target};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Cred, FsId, Ino, TargetUuid, Timestamp};

/// The key space that a new store has, and one in which nothing is counted by owner.
pub const FORMAT: u16 = 1;
/// What owners use is counted: a build that does not count must not change it.
pub const FORMAT_COUNTED: u16 = 2;

/// Makes an empty file system: its identity, the root directory (mode 755, of `owner`), and `targets` as the first
/// iodtab (none, if they are to join later).
///
/// # Errors
/// [`MetaError::FormattedAlready`].
pub fn init(
    txn: &mut impl WriteTxn,
    fs: FsId,
    targets: &[TargetUuid],
    owner: &Cred,
    now: Timestamp,
) -> Result<()> {
    if find(txn)?.is_some() {
        return Err(MetaError::FormattedAlready);
    }
    record::put(txn, &keys::superblock(), &Superblock { fs, format: FORMAT, created: now });
    record::put(txn, &keys::inode_numbers(), &InodeNumbers { next: Ino::ROOT.0 + 1, in_use: 1 });
    inode::put(txn, &inode::root(owner, now))?;
    target::join(txn, targets)?;
    Ok(())
}

/// `None`: not formatted yet.
pub fn find(txn: &(impl Read + ?Sized)) -> Result<Option<Superblock>> {
    let found: Option<Superblock> = record::find(txn, &keys::superblock())?;
    match found {
        Some(newer) if !is_known(newer.format) => Err(MetaError::Corrupt {
            what: "superblock",
            detail: format!(
                "format {} is not known to this build, which knows {FORMAT} and {FORMAT_COUNTED}",
                newer.format
            ),
        }),
        found => Ok(found),
    }
}

pub fn is_known(format: u16) -> bool {
    matches!(format, FORMAT | FORMAT_COUNTED)
}

/// # Errors
/// [`MetaError::NotFormatted`].
pub fn load(txn: &(impl Read + ?Sized)) -> Result<Superblock> {
    find(txn)?.ok_or(MetaError::NotFormatted)
}

/// How many inodes there are, orphans included.
pub fn inodes_in_use(txn: &(impl Read + ?Sized)) -> Result<u64> {
    Ok(load_numbers(txn)?.in_use)
}

/// Deals out a number for a new inode. Never the same twice.
pub(crate) fn next_ino(txn: &mut impl WriteTxn) -> Result<Ino> {
    let numbers = load_numbers(txn)?;
    let next = numbers.next.checked_add(1).ok_or(MetaError::NumbersUsedUp { what: "inode numbers" })?;
    record::put(txn, &keys::inode_numbers(), &InodeNumbers { next, in_use: numbers.in_use + 1 });
    Ok(Ino(numbers.next))
}

/// Numbers below `next` are dealt out no more. Gives whether that changed anything.
pub(crate) fn pass(txn: &mut impl WriteTxn, next: u64) -> Result<u64> {
    let numbers = load_numbers(txn)?;
    if numbers.next >= next {
        return Ok(0);
    }
    record::put(txn, &keys::inode_numbers(), &InodeNumbers { next, ..numbers });
    Ok(1)
}

/// Counts an inode out.
pub(crate) fn inode_removed(txn: &mut impl WriteTxn) -> Result<()> {
    let mut numbers = load_numbers(txn)?;
    numbers.in_use = numbers.in_use.saturating_sub(1);
    record::put(txn, &keys::inode_numbers(), &numbers);
    Ok(())
}

pub(crate) fn load_numbers(txn: &(impl Read + ?Sized)) -> Result<InodeNumbers> {
    record::find(txn, &keys::inode_numbers())?.ok_or(MetaError::NotFormatted)
}
