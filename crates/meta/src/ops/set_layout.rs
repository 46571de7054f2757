//! `set_layout`: what files made in a directory inherit.

use crate::{OpEnv, Result, Stat, access, inode, iodtab};
use pvfs_kv::WriteTxn;
use pvfs_types::LayoutHint;
use pvfs_wire::msg::namespace::SetLayout;

/// # Errors
/// `EPERM` not the owner; `EINVAL` no file could have that layout; `ENOTDIR`; `ESTALE` the directory is gone.
pub fn set_layout(txn: &mut impl WriteTxn, req: &SetLayout, env: &OpEnv) -> Result<Stat> {
    let mut dir = inode::load_dir(txn, req.ino)?;
    access::may_administer(&dir, &req.by.cred)?;
    let targets = iodtab::latest(txn)?.map_or(0, |latest| latest.targets.len());
    req.layout.check(targets)?;
    dir.layout = (req.layout != LayoutHint::default()).then_some(req.layout);
    dir.touch(env.now);
    inode::put(txn, &dir)?;
    inode::stat(txn, &dir, req.by.session)
}
