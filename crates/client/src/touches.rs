//! Which inodes each change is about, so that this client does not go by what it knew of them meanwhile.

use pvfs_types::{Ino, Name};
use pvfs_wire::msg::{
    file::{EndWrites, Open, PutInline, ReportSize, TouchAtimes},
    lock::{CancelLock, ReleaseLocks, SetLock},
    namespace::{Create, Link, MkDir, MkNod, Rename, RmDir, SetAttr, SetLayout, SymLink, TmpFile, Unlink},
    quota::SetQuota,
    xattr::{RemoveXattr, SetXattr},
};

/// What a change is about.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Touched {
    /// Inodes of which everything may change.
    pub inos: Vec<Ino>,
    /// Directories in which names change: who may do what in them stays as it is.
    pub dirs: Vec<Ino>,
    /// Names that come or go: what they name is changed too. True: there may be something of that name before.
    pub names: Vec<(Ino, Name, bool)>,
}

/// A request that changes something.
pub(crate) trait Touches {
    fn touched(&self) -> Touched;
}

/// Requests that change inodes.
macro_rules! inodes {
    ($($request:ident: $($ino:ident)*;)*) => {
        $(impl Touches for $request {
            fn touched(&self) -> Touched {
                Touched { inos: vec![$(self.$ino),*], ..Touched::default() }
            }
        })*
    };
}

inodes! {
    SetAttr: ino;
    SetLayout: ino;
    SetXattr: ino;
    RemoveXattr: ino;
    Open: ino;
    ReportSize: ino;
    PutInline: ino;
    // Makes an inode that nobody knows, and changes no directory.
    TmpFile: ;
    // Who writes is nobody's own to know; locks change no inode, and quotas nothing of one that is told.
    EndWrites: ;
    SetLock: ;
    CancelLock: ;
    ReleaseLocks: ;
    SetQuota: ;
}

impl Touches for TouchAtimes {
    fn touched(&self) -> Touched {
        Touched { inos: self.read.iter().map(|read| read.ino).collect(), ..Touched::default() }
    }
}

/// Requests that change one name in a directory, and whether something may have that name before.
macro_rules! names {
    ($($request:ident: $goes:literal;)*) => {
        $(impl Touches for $request {
            fn touched(&self) -> Touched {
                let names = vec![(self.dir, self.name.clone(), $goes)];
                Touched { dirs: vec![self.dir], names, ..Touched::default() }
            }
        })*
    };
}

names! {
    // What it opens instead, if the name is there and was not known: see `create_here`.
    Create: false;
    MkDir: false;
    MkNod: false;
    SymLink: false;
    Unlink: true;
    RmDir: true;
}

impl Touches for Link {
    fn touched(&self) -> Touched {
        let names = vec![(self.dir, self.name.clone(), false)];
        Touched { inos: vec![self.ino], dirs: vec![self.dir], names }
    }
}

impl Touches for Rename {
    fn touched(&self) -> Touched {
        let names = vec![(self.dir, self.name.clone(), true), (self.new_dir, self.new_name.clone(), true)];
        Touched { dirs: vec![self.dir, self.new_dir], names, ..Touched::default() }
    }
}
