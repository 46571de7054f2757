//! `open`: a permission check, and for writers a record. Readers leave no trace. Nor do who open a file for writing whose bytes are kept
//! here, until they say how far they are about to write: then they wait until a target has the bytes.

use crate::{
    Inode, MetaError, OpEnv, Outcome, Result, Stat, access, inode, intent, orphan, truncate, writer,
};
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, limits};
use pvfs_wire::Access;
use pvfs_wire::msg::{file::Open, session::Mutator};

/// Opens the regular file `req.ino`. With write access the session is recorded as a writer, but for a file whose bytes are kept here,
/// as long as `req` does not say how far it is about to be written.
///
/// # Errors
/// `EACCES`; `EISDIR`, `ELOOP`, `ENXIO` not a regular file; `EINVAL` for nothing to do; `ESTALE` the inode is gone, or
/// is an orphan that this client had not open; `EDQUOT` it may not be written as far as `req.grow_to`; `EFBIG`.
pub fn open(txn: &mut impl WriteTxn, req: &Open, env: &OpEnv) -> Result<Outcome<Stat>> {
    let inode = inode::load(txn, req.ino)?;
    if !req.again {
        if inode.nlink == 0 {
            return Err(MetaError::Unlinked { ino: req.ino });
        }
        if inode.is_dir() {
            return Err(MetaError::IsDir { ino: req.ino });
        }
        access::may_open(&inode, &req.by.cred, req.access, req.truncate)?;
    }
    if req.access == Access::default() {
        return Err(MetaError::NoAccessAsked);
    }
    if let Some(size) = req.grow_to.filter(|&to| to > limits::FILE_BYTES_MAX) {
        return Err(MetaError::SizeTooBig { size });
    }
    open_inode(txn, inode, &req.by, req.access, req.truncate, req.grow_to, env)
}

/// Opens what the caller may open. `access` may be none: then only the kind is looked at, and the file truncated.
pub(super) fn open_inode(
    txn: &mut impl WriteTxn,
    mut inode: Inode,
    by: &Mutator,
    access: Access,
    truncate: bool,
    grow_to: Option<u64>,
    env: &OpEnv,
) -> Result<Outcome<Stat>> {
    let ino = inode.ino;
    match inode.kind {
        FileKind::File => {}
        FileKind::Dir => return Err(MetaError::IsDir { ino }),
        FileKind::Symlink => return Err(MetaError::IsSymlink { ino }),
        FileKind::Fifo | FileKind::Socket | FileKind::CharDev | FileKind::BlockDev => {
            return Err(MetaError::Special { ino });
        }
    }
    if truncate {
        if let Some(intent) = truncate::truncate(txn, &mut inode, 0, by, env)? {
            return Ok(Outcome::Pending(intent));
        }
        inode::put(txn, &inode)?;
    }
    let is_inline = inode.inline.is_some();
    if access.write && is_inline && grow_to.is_some() {
        return intent::spill(txn, &inode, by, env.now).map(Outcome::Pending);
    }
    if access.write && !is_inline {
        writer::add(txn, &mut inode, by.session, grow_to, env.now)?;
        if inode.orphan_seq.is_some() {
            // The session may have checked in already, when it did not have the orphan open.
            orphan::claim(txn, by.session, ino)?;
        }
    }
    Ok(Outcome::Done(inode::stat(txn, &inode, by.session)?))
}
