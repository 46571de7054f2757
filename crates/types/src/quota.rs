//! Whose use of the file system is counted, and may be limited.

use crate::Ino;
use minicbor::{Decode, Encode};
use std::fmt;

/// Who is charged for an inode: its user, its group and, where it is in one, its tree.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
pub enum QuotaOwner {
    #[n(0)]
    Group(#[n(0)] u32),
    /// All below a directory, and the directory. Named by its inode.
    #[n(1)]
    Tree(#[n(0)] Ino),
    #[n(2)]
    User(#[n(0)] u32),
}

impl QuotaOwner {
    /// Root, as a user and as a group, has no limits.
    pub fn is_root(self) -> bool {
        matches!(self, QuotaOwner::User(0) | QuotaOwner::Group(0))
    }

    pub fn is_tree(self) -> bool {
        matches!(self, QuotaOwner::Tree(_))
    }
}

impl fmt::Display for QuotaOwner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            QuotaOwner::Group(gid) => write!(f, "group {gid}"),
            QuotaOwner::Tree(top) => write!(f, "tree {top}"),
            QuotaOwner::User(uid) => write!(f, "user {uid}"),
        }
    }
}
