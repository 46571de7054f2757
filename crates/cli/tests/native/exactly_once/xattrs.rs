//! The cases of extended attributes and ACLs.

use super::{
    cases::Case,
    names::{at_mgr, ino, put, said, step},
    world::{Cell, ROOT},
};
use pvfs_client::XattrMode;

const NAME: &[u8] = b"user.case";
const ACL: &[u8] = b"system.posix_acl_access";
/// `u::rw- u:7:rwx g::r-- m::rwx o::---`
const NAMED: &[u8] = b"\x02\0\0\0\x01\0\x06\0\xff\xff\xff\xff\x02\0\x07\0\x07\0\0\0\x04\0\x04\0\xff\xff\xff\xff\x10\0\x07\0\xff\xff\xff\xff\x20\0\0\0\xff\xff\xff\xff";

async fn set(cell: &Cell, name: &[u8], value: &[u8], mode: XattrMode) -> String {
    said(cell.actor.setxattr(&ROOT, ino(cell, "f").await, name, value, mode).await)
}

async fn remove(cell: &Cell, name: &[u8]) -> String {
    said(cell.actor.removexattr(&ROOT, ino(cell, "f").await, name).await)
}

/// A file with an attribute of the helper's.
async fn with_attribute(cell: &Cell) -> String {
    let file = put(cell, "f", "bytes").await;
    said(cell.helper.setxattr(&ROOT, file, NAME, b"first", XattrMode::Create).await)
}

pub const SET_XATTR: &[Case] = &[
    at_mgr(
        "setxattr of a new attribute only",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "bytes").await))),
        step!(|cell| set(&cell, NAME, b"first", XattrMode::Create).await),
        step!(|cell| remove(&cell, NAME).await),
    ),
    at_mgr(
        "setxattr over a value",
        step!(|cell| with_attribute(&cell).await),
        step!(|cell| set(&cell, NAME, b"second", XattrMode::Replace).await),
        step!(|cell| set(&cell, NAME, b"third", XattrMode::Set).await),
    ),
    at_mgr(
        "setxattr of an ACL",
        step!(|cell| said(Ok::<_, ()>(put(&cell, "f", "bytes").await))),
        step!(|cell| set(&cell, ACL, NAMED, XattrMode::Set).await),
        step!(|cell| remove(&cell, ACL).await),
    ),
];

pub const REMOVE_XATTR: &[Case] = &[at_mgr(
    "removexattr",
    step!(|cell| with_attribute(&cell).await),
    step!(|cell| remove(&cell, NAME).await),
    // The name is there again: a late copy must not take it away.
    step!(|cell| set(&cell, NAME, b"another", XattrMode::Create).await),
)];
