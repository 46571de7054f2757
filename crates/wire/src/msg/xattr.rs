//! Extended attributes, POSIX ACLs among them: client to mgr.
//!
//! Who may do what is as xattr(7) has it. `user.` takes read and write permission, and there are such of regular files and
//! directories only (in a sticky directory's own attributes only its owner's hand); `trusted.` is root's, and nobody else sees
//! it; `security.` everybody reads and root changes; the two ACLs, in Linux's own form, everybody reads and the owner changes.

use super::{
    namespace::Entry,
    request,
    session::{Caller, Mutator},
};
use minicbor::{Decode, Encode};
use pvfs_types::{Ino, XattrName};

/// Asks for the value of one attribute.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct GetXattr {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub name: XattrName,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct XattrValue {
    /// At most 64 KiB.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub value: Vec<u8>,
}

/// Asks for the names of all attributes that the caller may know of.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct ListXattr {
    #[n(0)]
    pub caller: Caller,
    #[n(1)]
    pub ino: Ino,
}

#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct XattrNames {
    /// At most 64 KiB, with a closing NUL each.
    #[n(0)]
    pub names: Vec<XattrName>,
}

/// How `setxattr` treats an attribute that is there: as `setxattr(2)`. An ACL is always replaced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum XattrMode {
    #[n(0)]
    Set,
    #[n(1)]
    Create,
    #[n(2)]
    Replace,
}

/// Gives `ino` an attribute. An access ACL changes the mode too.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct SetXattr {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub name: XattrName,
    /// At most 64 KiB.
    #[cbor(n(3), with = "minicbor::bytes")]
    pub value: Vec<u8>,
    #[n(4)]
    pub mode: XattrMode,
}

/// Takes an attribute away. That of an ACL which is not there is no error.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct RemoveXattr {
    #[n(0)]
    pub by: Mutator,
    #[n(1)]
    pub ino: Ino,
    #[n(2)]
    pub name: XattrName,
}

request! {
    GetXattr => GetXattr, XattrValue;
    ListXattr => ListXattr, XattrNames;
    SetXattr => SetXattr, Entry;
    RemoveXattr => RemoveXattr, Entry;
}
