//! `create`: a new regular file, open from the start, in one transaction; or an open of the one that is there.

use super::{add_entry, open::open_inode};
use crate::{MetaError, OpEnv, Outcome, Result, Stat, access, dentry, inode, inode::New, writer};
use pvfs_kv::WriteTxn;
use pvfs_types::FileKind;
use pvfs_wire::{Access, msg::namespace::Create};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Created {
    pub stat: Stat,
    /// False: the name was there.
    pub created: bool,
}

/// Creates the regular file `req.name` in `req.dir`, or, where the name is there and `req` is not exclusive, opens it
/// as `open` would. With write access the session is recorded as a writer.
///
/// # Errors
/// `EEXIST` the name is taken; `EACCES` no permission on `dir`, or on the file that is there; `EISDIR`, `ELOOP`,
/// `ENXIO` what is there is no regular file; `EINVAL` the layout cannot be had; `ENOSPC` no target is up; `EDQUOT` an
/// owner of a new file has as many inodes as it may have; `ESTALE` `dir` is gone.
pub fn create(txn: &mut impl WriteTxn, req: &Create, env: &OpEnv) -> Result<Outcome<Created>> {
    let dir = inode::load_dir(txn, req.dir)?;
    let cred = &req.by.cred;
    access::may_search(&dir, cred)?;
    if let Some(entry) = dentry::find(txn, req.dir, &req.name)? {
        if req.exclusive {
            return Err(MetaError::Exists { dir: req.dir, name: req.name.clone() });
        }
        let there = inode::load_named(txn, entry.ino)?;
        let access = req.open.unwrap_or_default();
        access::may_open(&there, cred, access, req.truncate)?;
        return Ok(match open_inode(txn, there, &req.by, access, req.truncate, None, env)? {
            Outcome::Done(stat) => {
                if stat.has_writers {
                    // One of them may be alone with it: that ends first.
                    inode::touch(txn, stat.attr.ino)?;
                }
                Outcome::Done(Created { stat, created: false })
            }
            Outcome::Pending(intent) => Outcome::Pending(intent),
        });
    }
    access::may_change_entries(&dir, cred)?;
    let dist = env.placement.choose(req.layout.or(dir.layout.unwrap_or_default()))?;
    let new = New { dist: Some(dist), ..New::of(FileKind::File, super::mode_asked(req.mode, req.unmasked)) };
    let mut file = inode::make(txn, &dir, new, cred, env.now)?;
    add_entry(txn, dir, &req.name, &file, env)?;
    if req.open.is_some_and(|access| access.covers(Access::WRITE)) {
        writer::add(txn, &mut file, req.by.session, None, env.now)?;
    }
    Ok(Outcome::Done(Created {
        stat: Stat { attr: file.attr(), has_writers: false, allowed: file.allowed },
        created: true,
    }))
}
