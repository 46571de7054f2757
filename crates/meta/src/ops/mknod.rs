//! `mknod`: a FIFO, socket, device node or unopened regular file.

use super::{add_entry, load_dir_for_new};
use crate::{MetaError, OpEnv, Result, Stat, inode, inode::New};
use pvfs_kv::WriteTxn;
use pvfs_types::{FileKind, LayoutHint};
use pvfs_wire::msg::namespace::MkNod;

/// # Errors
/// `EEXIST`; `EACCES`; `EPERM` a device node, and the caller is not root; `EINVAL` a directory or symbolic link;
/// `ESTALE` `dir` is gone.
pub fn mknod(txn: &mut impl WriteTxn, req: &MkNod, env: &OpEnv) -> Result<Stat> {
    let cred = &req.by.cred;
    let dir = load_dir_for_new(txn, req.dir, &req.name, cred)?;
    let mut new = New::of(req.kind, super::mode_asked(req.mode, req.unmasked));
    match req.kind {
        FileKind::File => {
            new.dist = Some(env.placement.choose(LayoutHint::default().or(dir.layout.unwrap_or_default()))?);
        }
        FileKind::Fifo | FileKind::Socket => {}
        FileKind::CharDev | FileKind::BlockDev if !cred.is_root() => return Err(MetaError::DeviceNode),
        FileKind::CharDev | FileKind::BlockDev => new.rdev = req.rdev,
        FileKind::Dir | FileKind::Symlink => return Err(MetaError::BadKind),
    }
    let node = inode::make(txn, &dir, new, cred, env.now)?;
    add_entry(txn, dir, &req.name, &node, env)?;
    inode::stat(txn, &node, req.by.session)
}
