//! One operation, one file, the same name in every layer. Requests are the messages of `pvfs_wire::msg`.

mod cancel_lock;
mod check_access;
mod check_store;
mod create;
mod end_writes;
mod get_quotas;
mod getattr;
mod getxattr;
mod judge_objects;
mod link;
mod list_files;
mod list_writes;
mod listxattr;
mod lookup;
mod mkdir;
mod mknod;
mod open;
mod put_inline;
mod read_inline;
mod readdir;
mod readlink;
mod release_locks;
mod removexattr;
mod rename;
mod repair;
mod report_size;
mod rmdir;
mod set_layout;
mod set_lock;
mod set_quota;
mod setattr;
mod setxattr;
mod symlink;
mod test_lock;
mod tmpfile;
mod touch_atimes;
mod unlink;

pub use cancel_lock::cancel_lock;
pub use check_access::check_access;
pub use check_store::check_store;
pub use create::{Created, create};
pub use end_writes::end_writes;
pub use get_quotas::get_quotas;
pub use getattr::getattr;
pub use getxattr::getxattr;
pub use judge_objects::judge_objects;
pub use link::link;
pub use list_files::list_files;
pub use list_writes::list_writes;
pub use listxattr::listxattr;
pub use lookup::lookup;
pub use mkdir::mkdir;
pub use mknod::mknod;
pub use open::open;
pub use put_inline::put_inline;
pub use read_inline::read_inline;
pub use readdir::readdir;
pub use readlink::readlink;
pub use release_locks::release_locks;
pub use removexattr::removexattr;
pub use rename::rename;
pub use repair::repair;
pub use report_size::report_size;
pub use rmdir::rmdir;
pub use set_layout::set_layout;
pub use set_lock::set_lock;
pub use set_quota::set_quota;
pub use setattr::setattr;
pub use setxattr::setxattr;
pub use symlink::symlink;
pub use test_lock::test_lock;
pub use tmpfile::tmpfile;
pub use touch_atimes::touch_atimes;
pub use unlink::unlink;

use crate::{Inode, MetaError, OpEnv, Result, access, dentry, inode};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Cred, Ino, Name, NewMode};

/// Whether `cred` may check and mend the whole file system: root, and who owns the root directory.
fn may_check(txn: &(impl Read + ?Sized), cred: &Cred) -> Result<()> {
    access::may_administer(&inode::load(txn, Ino::ROOT)?, cred)
}

/// What a request says of the permission bits of something new.
fn mode_asked(mode: u32, unmasked: Option<u32>) -> NewMode {
    NewMode { mode, unmasked }
}

/// The directory `ino`, if `name` is free in it and `cred` may make it there.
fn load_dir_for_new(txn: &(impl Read + ?Sized), ino: Ino, name: &Name, cred: &Cred) -> Result<Inode> {
    let dir = inode::load_dir(txn, ino)?;
    access::may_search(&dir, cred)?;
    if dentry::find(txn, ino, name)?.is_some() {
        return Err(MetaError::Exists { dir: ino, name: name.clone() });
    }
    access::may_change_entries(&dir, cred)?;
    Ok(dir)
}

/// The directory `ino` and the inode that `name` stands for in it.
fn load_named(txn: &(impl Read + ?Sized), ino: Ino, name: &Name, cred: &Cred) -> Result<(Inode, Inode)> {
    let dir = inode::load_dir(txn, ino)?;
    access::may_search(&dir, cred)?;
    match dentry::find(txn, ino, name)? {
        Some(entry) => Ok((dir, inode::load_named(txn, entry.ino)?)),
        None => Err(MetaError::NoEntry { dir: ino, name: name.clone() }),
    }
}

/// Gives the new inode `child` its name in `dir`, if the store has room for more names.
fn add_entry(txn: &mut impl WriteTxn, mut dir: Inode, name: &Name, child: &Inode, env: &OpEnv) -> Result<()> {
    if env.is_short {
        return Err(MetaError::StoreShort);
    }
    dentry::put(txn, dir.ino, name, child.ino, child.kind);
    if child.is_dir() {
        dir.add_link()?;
    }
    dir.touch_content(env.now);
    inode::put(txn, &dir)?;
    Ok(())
}
