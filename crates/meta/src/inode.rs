//! Inodes: loading, making, removing; and what `stat` tells of them.

pub use crate::record::Inode;

use crate::record::{self, By};
use crate::{MetaError, Result, access, keys, lock, quota, superblock, writer, xattr};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{
    Attr, Cred, DataGen, Distribution, Extras, FileKind, Ino, NewMode, SessionId, Timestamp, limits, mode,
};
use pvfs_wire::msg::{namespace::Entry, session::Mutator};

/// What `stat` needs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stat {
    pub attr: Attr,
    /// A session other than the asking one has the file open for writing: `attr.size` may be too small.
    pub has_writers: bool,
    /// How far writers may write, where that is limited.
    pub allowed: Option<u64>,
}

impl From<Stat> for Entry {
    fn from(stat: Stat) -> Entry {
        Entry { attr: stat.attr, has_writers: stat.has_writers, delegated: None }
    }
}

impl From<&Mutator> for By {
    fn from(by: &Mutator) -> By {
        By { session: by.session, slot: by.slot, seq: by.seq }
    }
}

pub fn find(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Option<Inode>> {
    record::find(txn, &keys::inode(ino))
}

/// # Errors
/// [`MetaError::Gone`].
pub fn load(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Inode> {
    find(txn, ino)?.ok_or(MetaError::Gone { ino })
}

/// # Errors
/// [`MetaError::Gone`], [`MetaError::NotDir`].
pub fn load_dir(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Inode> {
    let inode = load(txn, ino)?;
    if inode.kind == FileKind::Dir { Ok(inode) } else { Err(MetaError::NotDir { ino }) }
}

/// The inode that a directory entry or another record names: that it is missing is damage.
pub(crate) fn load_named(txn: &(impl Read + ?Sized), ino: Ino) -> Result<Inode> {
    find(txn, ino)?.ok_or_else(|| MetaError::Corrupt {
        what: "inode",
        detail: format!("inode {ino} is missing though it has a name"),
    })
}

/// Every change of an inode goes this way, so that what owners use is counted.
pub(crate) fn put(txn: &mut impl WriteTxn, inode: &Inode) -> Result<()> {
    quota::count(txn, inode.ino, Some(inode))?;
    record::put(txn, &keys::inode(inode.ino), inode);
    Ok(())
}

/// Puts an inode as it is: it counts as changed, for who goes by what it knows of it.
pub(crate) fn touch(txn: &mut impl WriteTxn, ino: Ino) -> Result<()> {
    let inode = load(txn, ino)?;
    record::put(txn, &keys::inode(ino), &inode);
    Ok(())
}

/// What is particular to a new inode.
pub(crate) struct New {
    pub kind: FileKind,
    pub mode: NewMode,
    pub rdev: (u32, u32),
    pub dist: Option<Distribution>,
    pub target: Option<Vec<u8>>,
}

impl New {
    pub fn of(kind: FileKind, mode: NewMode) -> New {
        New { kind, mode, rdev: (0, 0), dist: None, target: None }
    }
}

/// Makes an inode in `dir`, with one name to come (a directory counts its own `.` too), owned by `cred` and by the
/// group that `dir` says. Puts it; `dir` and the entry are the caller's to put.
///
/// # Errors
/// `EDQUOT` an owner of it has as many inodes as it may have.
pub(crate) fn make(
    txn: &mut impl WriteTxn,
    dir: &Inode,
    new: New,
    cred: &Cred,
    now: Timestamp,
) -> Result<Inode> {
    let ino = superblock::next_ino(txn)?;
    let access::Inherited { mode, gid, acl, default_acl } = access::inherit(dir, new.kind, new.mode, cred);
    let is_dir = new.kind == FileKind::Dir;
    let inode = Inode {
        kind: new.kind,
        mode,
        gid,
        nlink: if is_dir { 2 } else { 1 },
        size: new.target.as_ref().map_or(0, |target| target.len() as u64),
        rdev: new.rdev,
        dist: new.dist,
        layout: if is_dir { dir.layout } else { None },
        parent: is_dir.then_some(dir.ino),
        target: new.target,
        acl,
        default_acl,
        tree: dir.tree,
        ..blank(ino, cred, now)
    };
    quota::may_make(txn, &inode, cred)?;
    put(txn, &inode)?;
    Ok(inode)
}

/// The root directory of a new file system.
pub(crate) fn root(owner: &Cred, now: Timestamp) -> Inode {
    Inode { parent: Some(Ino::ROOT), ..blank(Ino::ROOT, owner, now) }
}

/// A directory of `cred` with mode 755 and no parent.
fn blank(ino: Ino, cred: &Cred, now: Timestamp) -> Inode {
    Inode {
        ino,
        kind: FileKind::Dir,
        mode: 0o755,
        uid: cred.uid,
        gid: cred.gid,
        nlink: 2,
        size: 0,
        size_epoch: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        rdev: (0, 0),
        change: Attr::CHANGE_FIRST,
        dist: None,
        data_gen: DataGen(1),
        layout: None,
        parent: None,
        target: None,
        orphan_seq: None,
        truncated_by: None,
        acl: None,
        default_acl: None,
        xattrs: None,
        tree: None,
        allowed: None,
        allocated: None,
        inline: None,
    }
}

/// Removes the inode's record, its locks, its attributes and what is kept of its bytes. Its names, objects and list entries are the caller's.
pub(crate) fn remove(txn: &mut impl WriteTxn, inode: &Inode) -> Result<()> {
    lock::remove_all(txn, inode.ino)?;
    if inode.xattrs.is_some() {
        xattr::remove_all(txn, inode.ino)?;
    }
    if inode.inline.is_some() {
        txn.delete(&keys::inline(inode.ino));
    }
    quota::count(txn, inode.ino, None)?;
    txn.delete(&keys::inode(inode.ino));
    superblock::inode_removed(txn)
}

pub fn stat(txn: &(impl Read + ?Sized), inode: &Inode, asker: SessionId) -> Result<Stat> {
    let has_writers = inode.kind == FileKind::File && writer::of(txn, inode.ino, asker)?.foreign;
    Ok(Stat { attr: inode.attr(), has_writers, allowed: inode.allowed })
}

impl Inode {
    pub fn is_dir(&self) -> bool {
        self.kind == FileKind::Dir
    }

    pub fn attr(&self) -> Attr {
        Attr {
            ino: self.ino,
            kind: self.kind,
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            nlink: self.nlink,
            size: self.size,
            size_epoch: self.size_epoch,
            atime: self.atime,
            mtime: self.mtime,
            ctime: self.ctime,
            btime: self.btime,
            rdev: self.rdev,
            change: self.change,
            dist: self.dist,
            data_gen: self.data_gen,
            layout: self.layout,
            extras: self.extras(),
            allocated: self.allocated,
            inline: self.inline,
        }
    }

    fn extras(&self) -> Option<Extras> {
        let totals = self.xattrs.unwrap_or_default();
        let extras = Extras {
            acl: self.acl.is_some(),
            default_acl: self.default_acl.is_some(),
            file_caps: totals.file_caps,
            others: totals.count > u32::from(totals.file_caps),
        };
        (extras != Extras::default()).then_some(extras)
    }

    /// The distribution of a regular file.
    pub(crate) fn load_dist(&self) -> Result<Distribution> {
        self.dist.ok_or_else(|| MetaError::Corrupt {
            what: "inode",
            detail: format!("file {} has no distribution", self.ino),
        })
    }

    /// The file has another size now. What is new is a hole; what was cut may have been one.
    pub(crate) fn resize(&mut self, size: u64) {
        let held = self.allocated.unwrap_or(self.size);
        self.allocated = if size > held { Some(held) } else { None };
        self.size = size;
    }

    /// The targets' disks hold so many bytes of the file. What they round up, or take beforehand for a while, is not kept.
    pub(crate) fn set_allocated(&mut self, bytes: u64) {
        const SLACK_BYTES: u64 = 64 << 10;
        let slots = self.dist.map_or(1, |dist| u64::from(dist.pcount));
        let is_whole = (self.size..=self.size.saturating_add(slots * SLACK_BYTES)).contains(&bytes);
        self.allocated = (!is_whole).then_some(bytes);
    }

    /// Attributes changed: `ctime` is now.
    pub(crate) fn touch(&mut self, now: Timestamp) {
        self.ctime = now;
        self.change = self.change.wrapping_add(1);
    }

    /// Contents changed (of a directory: its entries).
    pub(crate) fn touch_content(&mut self, now: Timestamp) {
        self.mtime = now;
        self.touch(now);
    }

    pub(crate) fn add_link(&mut self) -> Result<()> {
        if self.nlink >= limits::LINK_MAX {
            return Err(MetaError::LinksMax { ino: self.ino });
        }
        self.nlink += 1;
        Ok(())
    }

    pub(crate) fn drop_link(&mut self) -> Result<()> {
        self.nlink = self.nlink.checked_sub(1).ok_or_else(|| MetaError::Corrupt {
            what: "inode",
            detail: format!("inode {} lost a name it did not count", self.ino),
        })?;
        Ok(())
    }

    pub(crate) fn next_epoch(&mut self) -> Result<()> {
        self.size_epoch =
            self.size_epoch.checked_add(1).ok_or(MetaError::NumbersUsedUp { what: "size epochs" })?;
        Ok(())
    }

    /// What a write or truncation by someone who is not root takes away.
    pub(crate) fn drop_privileges(&mut self) {
        self.mode &= !mode::SUID;
        if self.mode & (mode::X << 3) != 0 {
            self.mode &= !mode::SGID;
        }
    }
}
