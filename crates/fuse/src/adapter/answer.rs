//! Answering the kernel: what each kind of reply makes of an operation's result.

use super::convert::{self, errno, file_attr};
use crate::ops::{Attributes, Entry, NodeId, Opened, Reply};
use bytes::Bytes;
use fuser::INodeNo;
use pvfs_types::Errno;
use std::sync::{Arc, OnceLock};
use tracing::debug;

/// Makes the kernel ask for the inode's attributes before it uses them again.
pub fn attributes_changed(notifier: &OnceLock<fuser::Notifier>, node: INodeNo) {
    if let Some(notifier) = notifier.get()
        && let Err(error) = notifier.inval_inode(node, -1, 0)
    {
        debug!(node = node.0, %error, "attributes not invalidated");
    }
}

/// Answers with nothing, or the error.
pub fn empty(reply: fuser::ReplyEmpty) -> impl FnOnce(Reply<()>) + Send {
    move |answer| match answer {
        Ok(()) => reply.ok(),
        Err(e) => reply.error(errno(e)),
    }
}

pub fn entry(reply: fuser::ReplyEntry) -> impl FnOnce(Reply<Entry>) + Send {
    move |answer| match answer {
        Ok(entry) => {
            reply.entry(&entry.valid, &file_attr(entry.node, &entry.attr), fuser::Generation(0));
        }
        Err(e) => reply.error(errno(e)),
    }
}

pub fn attributes(reply: fuser::ReplyAttr) -> impl FnOnce(Reply<Attributes>) + Send {
    move |answer| match answer {
        // The root of a mount may be another inode than the kernel's number for it: `st_ino` shows the real one.
        Ok(a) => reply.attr(&a.valid, &file_attr(NodeId(a.attr.ino), &a.attr)),
        Err(e) => reply.error(errno(e)),
    }
}

pub fn written(len: usize, reply: fuser::ReplyWrite) -> impl FnOnce(Reply<()>) + Send {
    move |answer| match answer {
        Ok(()) => reply.written(u32::try_from(len).unwrap_or(u32::MAX)),
        Err(e) => reply.error(errno(e)),
    }
}

pub fn data(reply: fuser::ReplyData) -> impl FnOnce(Reply<Bytes>) + Send {
    move |answer| match answer {
        Ok(bytes) => reply.data(&bytes),
        Err(e) => reply.error(errno(e)),
    }
}

/// An extended attribute's answer: its size where `room` is 0, else the bytes where they fit.
pub fn xattr(room: u32, reply: fuser::ReplyXattr) -> impl FnOnce(Reply<Bytes>) + Send {
    move |answer| match answer {
        Ok(bytes) => match u32::try_from(bytes.len()) {
            Ok(len) if room == 0 => reply.size(len),
            Ok(len) if len <= room => reply.data(&bytes),
            _ => reply.error(errno(Errno::ERANGE)),
        },
        Err(e) => reply.error(errno(e)),
    }
}

/// Answers an `open`, after the kernel was told what it holds of the inode that is old.
pub fn opened(
    node: INodeNo,
    notifier: Arc<OnceLock<fuser::Notifier>>,
    reply: fuser::ReplyOpen,
) -> impl FnOnce(Reply<Opened>) + Send {
    move |answer| match answer {
        Ok(opened) => {
            if opened.attributes_changed {
                attributes_changed(&notifier, node);
            }
            reply.opened(fuser::FileHandle(opened.handle.0), convert::open_reply(opened));
        }
        Err(e) => reply.error(errno(e)),
    }
}
