//! What a server tells the kernel of its own accord.

use crate::{
    abi::{self, notify},
    device::Device,
};
use std::{io, sync::Arc};
use zerocopy::IntoBytes;

/// Tells the kernel that what it holds is old, or that it is to send requests again.
#[derive(Clone, Debug)]
pub struct Notifier {
    device: Arc<Device>,
}

impl Notifier {
    pub(crate) fn new(device: Arc<Device>) -> Notifier {
        Notifier { device }
    }

    /// The attributes of `node` are old. False: the kernel does not hold it.
    pub fn attributes_changed(&self, node: u64) -> io::Result<bool> {
        // A negative offset: no pages, which might have to be waited for.
        self.inval_inode(&abi::InvalInodeOut { ino: node, off: -1, len: 0 })
    }

    /// The attributes of `node` and its bytes from `offset` on are old. Waits for reads of those bytes: not to be called
    /// by what answers them. False: the kernel does not hold it.
    pub fn data_changed(&self, node: u64, offset: u64) -> io::Result<bool> {
        let off = i64::try_from(offset).unwrap_or(i64::MAX);
        self.inval_inode(&abi::InvalInodeOut { ino: node, off, len: 0 })
    }

    /// What `name` in `dir` names may have changed. Waits for changes of `dir` that are under way: not to be called by what
    /// answers them.
    pub fn entry_changed(&self, dir: u64, name: &[u8]) -> io::Result<()> {
        let out = abi::InvalEntryOut { parent: dir, namelen: name_len(name)?, flags: 0 };
        found(self.device.notify(notify::INVAL_ENTRY, &[out.as_bytes(), name, b"\0"])).map(drop)
    }

    /// `name` in `dir`, which named `node`, is gone. Waits as [`Notifier::entry_changed`].
    pub fn entry_deleted(&self, dir: u64, name: &[u8], node: u64) -> io::Result<()> {
        let out = abi::DeleteOut { parent: dir, child: node, namelen: name_len(name)?, padding: 0 };
        found(self.device.notify(notify::DELETE, &[out.as_bytes(), name, b"\0"])).map(drop)
    }

    /// Every request that was read and not answered comes again.
    pub(crate) fn resend(&self) -> io::Result<()> {
        self.device.notify(notify::RESEND, &[])
    }

    fn inval_inode(&self, out: &abi::InvalInodeOut) -> io::Result<bool> {
        found(self.device.notify(notify::INVAL_INODE, &[out.as_bytes()]))
    }
}

fn name_len(name: &[u8]) -> io::Result<u32> {
    u32::try_from(name.len()).map_err(|_| io::ErrorKind::InvalidInput.into())
}

/// What the kernel does not hold need not be dropped.
fn found(told: io::Result<()>) -> io::Result<bool> {
    match told {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}
