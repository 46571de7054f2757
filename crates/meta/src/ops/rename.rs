//! `rename`: an inode changes its name or directory, takes the place of another, or swaps places with it.

use super::unlink::drop_name;
use crate::{Inode, MetaError, OpEnv, Result, access, dentry, inode, quota};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Cred, Ino, Timestamp};
use pvfs_wire::msg::{
    namespace::{Rename, RenameMode},
    session::Orphan,
};

/// Moves `req.dir`/`req.name` to `req.new_dir`/`req.new_name`. Answers the orphan, where what was there lost its last
/// name. Two names of one inode stay as they are.
///
/// # Errors
/// `ENOENT` no such name (with `Exchange`: either); `EEXIST` with `NoReplace`; `EACCES`; `EPERM` a sticky directory;
/// `EINVAL` a directory into its own subtree; `ENOTEMPTY` what is to be replaced; `ENOTDIR` a directory over something
/// else; `EISDIR` something else over a directory; `EMLINK`; `EXDEV` from one tree to another; `ESTALE` a directory is
/// gone.
pub fn rename(txn: &mut impl WriteTxn, req: &Rename, env: &OpEnv) -> Result<Option<Orphan>> {
    let cred = &req.by.cred;
    let dirs = (inode::load_dir(txn, req.dir)?, inode::load_dir(txn, req.new_dir)?);
    access::may_search(&dirs.0, cred)?;
    access::may_search(&dirs.1, cred)?;
    let no_entry = |dir, name: &pvfs_types::Name| MetaError::NoEntry { dir, name: name.clone() };
    let source = dentry::find(txn, req.dir, &req.name)?.ok_or_else(|| no_entry(req.dir, &req.name))?;
    let source = inode::load_named(txn, source.ino)?;
    let there = match dentry::find(txn, req.new_dir, &req.new_name)? {
        Some(entry) => Some(inode::load_named(txn, entry.ino)?),
        None => None,
    };
    match (req.mode, &there) {
        (RenameMode::NoReplace, Some(_)) => {
            return Err(MetaError::Exists { dir: req.new_dir, name: req.new_name.clone() });
        }
        (RenameMode::Exchange, None) => return Err(no_entry(req.new_dir, &req.new_name)),
        _ => {}
    }
    refuse_loops(txn, req, &source, there.as_ref())?;
    if there.as_ref().is_some_and(|there| there.ino == source.ino) {
        return Ok(None);
    }
    quota::same_tree(&dirs.1, &source, dirs.0.tree)?;
    may_rename(req, &dirs.0, &dirs.1, &source, there.as_ref(), cred)?;
    let (mut from, mut to) = (dirs.0, dirs.1);
    let orphan = match there {
        Some(there) if req.mode == RenameMode::Exchange => {
            exchange(txn, req, source, there, (&mut from, &mut to), env.now)?;
            None
        }
        there => replace(txn, req, source, there, (&mut from, &mut to), env.now)?,
    };
    put_dirs(txn, from, &to, env.now)?;
    Ok(orphan)
}

/// A directory moves into no directory below it; and nothing moves over a directory it lies below, which cannot be
/// empty.
fn refuse_loops(
    txn: &(impl Read + ?Sized),
    req: &Rename,
    source: &Inode,
    there: Option<&Inode>,
) -> Result<()> {
    if source.is_dir() && is_below(txn, req.new_dir, source.ino)? {
        return Err(MetaError::IntoItself { dir: source.ino });
    }
    if let Some(there) = there
        && there.is_dir()
        && is_below(txn, req.dir, there.ino)?
    {
        return Err(match req.mode {
            RenameMode::Exchange => MetaError::IntoItself { dir: there.ino },
            RenameMode::Replace | RenameMode::NoReplace => MetaError::NotEmpty { dir: there.ino },
        });
    }
    Ok(())
}

/// Whether directory `dir` is `top` or lies below it.
fn is_below(txn: &(impl Read + ?Sized), dir: Ino, top: Ino) -> Result<bool> {
    let mut at = dir;
    // Nobody nests so deep: a longer way is a loop, which is damage.
    for _ in 0..1_000_000u32 {
        if at == top {
            return Ok(true);
        }
        if at == Ino::ROOT {
            return Ok(false);
        }
        let inode = inode::load_named(txn, at)?;
        let Some(parent) = inode.parent else { break };
        at = parent;
    }
    Err(MetaError::Corrupt { what: "inode", detail: format!("directory {dir} does not lead to the root") })
}

fn may_rename(
    req: &Rename,
    from: &Inode,
    to: &Inode,
    source: &Inode,
    there: Option<&Inode>,
    cred: &Cred,
) -> Result<()> {
    let moves = from.ino != to.ino;
    let exchanges = req.mode == RenameMode::Exchange;
    access::may_take_name(from, &req.name, source, cred)?;
    match there {
        Some(there) => {
            access::may_take_name(to, &req.new_name, there, cred)?;
            if !exchanges && source.is_dir() && !there.is_dir() {
                return Err(MetaError::NotDir { ino: there.ino });
            }
            if !exchanges && !source.is_dir() && there.is_dir() {
                return Err(MetaError::IsDir { ino: there.ino });
            }
            if exchanges && moves && there.is_dir() {
                access::may_write(there, cred)?;
            }
        }
        None => access::may_change_entries(to, cred)?,
    }
    // Its `..` changes.
    if moves && source.is_dir() { access::may_write(source, cred) } else { Ok(()) }
}

/// `source` gets the name of `there` (if that was taken), and loses its own.
fn replace(
    txn: &mut impl WriteTxn,
    req: &Rename,
    source: Inode,
    there: Option<Inode>,
    (from, to): (&mut Inode, &mut Inode),
    now: Timestamp,
) -> Result<Option<Orphan>> {
    let mut orphan = None;
    if let Some(there) = there {
        if there.is_dir() {
            if !dentry::is_empty(txn, there.ino)? {
                return Err(MetaError::NotEmpty { dir: there.ino });
            }
            inode::remove(txn, &there)?;
            dir_of(from, to, req.new_dir).drop_link()?;
        } else {
            orphan = drop_name(txn, there, now)?;
        }
    }
    dentry::delete(txn, req.dir, &req.name);
    dentry::put(txn, req.new_dir, &req.new_name, source.ino, source.kind);
    arrive(txn, source, (req.dir, req.new_dir), (from, to), now)?;
    Ok(orphan)
}

/// `source` and `there` swap names.
fn exchange(
    txn: &mut impl WriteTxn,
    req: &Rename,
    source: Inode,
    there: Inode,
    (from, to): (&mut Inode, &mut Inode),
    now: Timestamp,
) -> Result<()> {
    dentry::put(txn, req.dir, &req.name, there.ino, there.kind);
    dentry::put(txn, req.new_dir, &req.new_name, source.ino, source.kind);
    // Those that leave go first, so that a directory that is full of links has room again.
    if source.is_dir() && there.is_dir() && req.dir != req.new_dir {
        set_parent(txn, source, req.new_dir, now)?;
        return set_parent(txn, there, req.dir, now);
    }
    arrive(txn, source, (req.dir, req.new_dir), (from, to), now)?;
    arrive(txn, there, (req.new_dir, req.dir), (from, to), now)
}

/// Writes that `inode` lies in another directory now (or under another name), with the link counts of both.
fn arrive(
    txn: &mut impl WriteTxn,
    inode: Inode,
    (old_dir, new_dir): (Ino, Ino),
    (from, to): (&mut Inode, &mut Inode),
    now: Timestamp,
) -> Result<()> {
    if inode.is_dir() && old_dir != new_dir {
        dir_of(from, to, old_dir).drop_link()?;
        dir_of(from, to, new_dir).add_link()?;
    }
    set_parent(txn, inode, new_dir, now)
}

fn set_parent(txn: &mut impl WriteTxn, mut inode: Inode, dir: Ino, now: Timestamp) -> Result<()> {
    if inode.is_dir() {
        inode.parent = Some(dir);
    }
    inode.touch(now);
    inode::put(txn, &inode)
}

/// The one copy of directory `ino` that counts: `from`, where both are the same directory.
fn dir_of<'a>(from: &'a mut Inode, to: &'a mut Inode, ino: Ino) -> &'a mut Inode {
    if ino == from.ino { from } else { to }
}

fn put_dirs(txn: &mut impl WriteTxn, mut from: Inode, to: &Inode, now: Timestamp) -> Result<()> {
    from.touch_content(now);
    inode::put(txn, &from)?;
    if to.ino != from.ino {
        let mut to = to.clone();
        to.touch_content(now);
        inode::put(txn, &to)?;
    }
    Ok(())
}
