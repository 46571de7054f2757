//! Which inodes each change is about, so that this client does not go by what it knew of them meanwhile.

use pvfs_types::{Ino, Name};
use pvfs_wire::msg::{
    file::{EndWrites, Open, ReportSize, TouchAtimes},
    lock::{CancelLock, ReleaseLocks, SetLock},
    namespace::{Create, Link, MkDir, MkNod, Rename, RmDir, SetAttr, SetLayout, SymLink, TmpFile, Unlink},
    xattr::{RemoveXattr, SetXattr},
};

/// A request that changes something.
pub(crate) trait Touches {
    /// Inodes that it changes.
    fn inos(&self) -> Vec<Ino> {
        Vec::new()
    }

    /// Names in directories: what they name is changed too.
    fn names(&self) -> Vec<(Ino, Name)> {
        Vec::new()
    }
}

macro_rules! touches {
    ($($request:ident: $($ino:ident)*;)*) => {
        $(impl Touches for $request {
            fn inos(&self) -> Vec<Ino> {
                vec![$(self.$ino),*]
            }
        })*
    };
}

touches! {
    // A create of a name that is there changes its inode too: see `create_here`.
    Create: dir;
    MkDir: dir;
    MkNod: dir;
    SymLink: dir;
    Link: ino dir;
    SetAttr: ino;
    SetLayout: ino;
    SetXattr: ino;
    RemoveXattr: ino;
    Open: ino;
    ReportSize: ino;
}

impl Touches for TouchAtimes {
    fn inos(&self) -> Vec<Ino> {
        self.read.iter().map(|read| read.ino).collect()
    }
}

impl Touches for Unlink {
    fn inos(&self) -> Vec<Ino> {
        vec![self.dir]
    }

    fn names(&self) -> Vec<(Ino, Name)> {
        vec![(self.dir, self.name.clone())]
    }
}

impl Touches for RmDir {
    fn inos(&self) -> Vec<Ino> {
        vec![self.dir]
    }

    fn names(&self) -> Vec<(Ino, Name)> {
        vec![(self.dir, self.name.clone())]
    }
}

impl Touches for Rename {
    fn inos(&self) -> Vec<Ino> {
        vec![self.dir, self.new_dir]
    }

    fn names(&self) -> Vec<(Ino, Name)> {
        vec![(self.dir, self.name.clone()), (self.new_dir, self.new_name.clone())]
    }
}

/// Makes an inode that nobody knows, and changes no directory.
impl Touches for TmpFile {}

/// Who writes is nobody's own to know; locks change no inode.
impl Touches for EndWrites {}
impl Touches for SetLock {}
impl Touches for CancelLock {}
impl Touches for ReleaseLocks {}
