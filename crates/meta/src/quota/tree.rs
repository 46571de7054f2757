//! Trees: a directory with a limit, and all below it. What is made in a tree is of it; nothing moves or is linked from one
//! tree to another; trees do not lie in one another.

use crate::record::Inode;
use crate::{MetaError, Result, dentry, inode};
use pvfs_kv::{Read, WriteTxn};
use pvfs_types::{Ino, limits::TREE_INODES_MAX};
use std::collections::BTreeMap;
use std::ops::ControlFlow;

/// # Errors
/// `EXDEV`: a name of `inode` in `dir` would lead from one tree to another.
pub(crate) fn same_tree(dir: &Inode, inode: &Inode, tree: Option<Ino>) -> Result<()> {
    if dir.tree == tree { Ok(()) } else { Err(MetaError::OtherTree { ino: inode.ino, dir: dir.ino }) }
}

/// Has `top`, and all below it, be of the tree `to` from now on. Without effect where it is already.
///
/// # Errors
/// `EINVAL` it is in another tree, or another one is in it; `E2BIG` it is too much at once; `EXDEV` an inode below it has
/// names elsewhere.
pub(crate) fn adopt(txn: &mut impl WriteTxn, top: Ino, to: Option<Ino>) -> Result<()> {
    let from = inode::load_dir(txn, top)?.tree;
    if from == to {
        return Ok(());
    }
    if let Some(tree) = from.filter(|tree| *tree != top) {
        return Err(MetaError::TreeInTree { ino: top, tree });
    }
    for mut inode in gather(txn, top, from)? {
        inode.tree = to;
        inode::put(txn, &inode)?;
    }
    Ok(())
}

/// `top` and all below it, each once.
fn gather(txn: &(impl Read + ?Sized), top: Ino, from: Option<Ino>) -> Result<Vec<Inode>> {
    let mut found = vec![inode::load_dir(txn, top)?];
    // Of what is no directory: how many of its names were met.
    let mut names: BTreeMap<Ino, u32> = BTreeMap::new();
    let mut dirs = vec![top];
    while let Some(dir) = dirs.pop() {
        let mut entries = Vec::new();
        dentry::each_after(txn, dir, 0, |_, _, entry| {
            entries.push(entry.ino);
            let too_many = found.len() + entries.len() > TREE_INODES_MAX;
            Ok(if too_many { ControlFlow::Break(()) } else { ControlFlow::Continue(()) })
        })?;
        if found.len() + entries.len() > TREE_INODES_MAX {
            return Err(MetaError::TreeTooLarge { top });
        }
        for ino in entries {
            let met = names.entry(ino).or_default();
            *met += 1;
            if *met > 1 {
                continue;
            }
            let inode = inode::load_named(txn, ino)?;
            if let Some(tree) = inode.tree.filter(|_| inode.tree != from) {
                return Err(MetaError::TreeInTree { ino, tree });
            }
            if inode.is_dir() {
                dirs.push(ino);
            }
            found.push(inode);
        }
    }
    let outside = found.iter().find(|inode| !inode.is_dir() && names.get(&inode.ino) != Some(&inode.nlink));
    match outside {
        Some(inode) => Err(MetaError::TreeHasLinksOutside { top, ino: inode.ino }),
        None => Ok(found),
    }
}
