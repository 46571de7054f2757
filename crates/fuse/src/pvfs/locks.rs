//! Locks of open files, over the whole cluster.

use super::{PvfsFs, of_inode};
use crate::{
    creds,
    openfile::OpenFile,
    ops::{Context, Handle, Lock, Locked, Reply},
};
use pvfs_client::LockRequest;
use pvfs_types::{Errno, Ino, LockKind, LockMode, LockOwner};
use std::sync::Arc;

fn ino(open: &OpenFile) -> Reply<Ino> {
    open.ino().ok_or(Errno::EBADF)
}

fn request(lock: &Lock, mode: LockMode) -> LockRequest {
    let owner = LockOwner { kind: lock.kind, id: lock.owner };
    LockRequest { owner, start: lock.start, end: lock.end, mode, pid: lock.pid }
}

impl PvfsFs {
    /// An open file that is about to be used.
    ///
    /// # Errors
    /// `EBADF`; and `EIO`, once, if locks that were taken by it were lost: nothing is done as if they were held.
    pub(super) fn usable(&self, handle: Handle) -> Reply<Arc<OpenFile>> {
        let open = self.files.load(handle)?;
        if self.client.take_lock_loss(handle.0) { Err(Errno::EIO) } else { Ok(open) }
    }

    pub(super) async fn set_lock(
        &self,
        _ctx: &Context,
        handle: Handle,
        lock: Lock,
        wait: bool,
    ) -> Reply<Locked> {
        let open = self.usable(handle)?;
        let ino = ino(&open)?;
        self.twins.locked(ino);
        let Some(mode) = lock.mode else {
            if self.is_shared(ino) && self.twins.may_be_changed(ino) {
                self.settle_maps(ino).await;
            }
            let owner = LockOwner { kind: lock.kind, id: lock.owner };
            self.client.unlock(ino, owner, lock.start, lock.end).await.map_err(|e| of_inode(&e))?;
            return Ok(Locked::default());
        };
        let request = request(&lock, mode);
        let taken = if wait {
            self.client.lock(ino, handle.0, request).await.map_err(|e| of_inode(&e))?
        } else {
            let taken = self.client.try_lock(ino, handle.0, request).await.map_err(|e| of_inode(&e))?;
            taken.ok_or(Errno::EAGAIN)?
        };
        let entry = taken.entry();
        let settles = entry.has_writers && self.twins.may_be_changed(ino);
        if settles {
            self.settle_maps(ino).await;
        }
        Ok(Locked {
            data_changed: entry.has_writers && !settles,
            attributes_changed: self.told.is_old(self.node(ino), &entry.attr, entry.has_writers),
            keep: Some(Box::new(move || taken.keep())),
        })
    }

    /// The pid is told of locks of this mount; another one's processes may be on another machine.
    pub(super) async fn test_lock(&self, _ctx: &Context, handle: Handle, lock: Lock) -> Reply<Option<Lock>> {
        let open = self.usable(handle)?;
        let Some(mode) = lock.mode else { return Err(Errno::EINVAL) };
        let found = self.client.test_lock(ino(&open)?, &request(&lock, mode)).await;
        Ok(found.map_err(|e| of_inode(&e))?.map(|found| Lock {
            start: found.range.start,
            end: found.range.end,
            mode: Some(found.range.mode),
            pid: if found.is_own { found.range.pid } else { 0 },
            ..lock
        }))
    }

    /// An owner gives up all its locks of an open file.
    pub(super) async fn release_owner(&self, open: &OpenFile, kind: LockKind, id: u64) -> Reply<()> {
        let released = self.client.release_locks(ino(open)?, LockOwner { kind, id }).await;
        released.map_err(|e| of_inode(&e))
    }

    /// The open file is closed: so are the locks whose owner it is itself (OFD).
    pub(super) async fn release_rest(&self, open: &OpenFile, handle: Handle) -> Reply<()> {
        self.client.release_handle_locks(ino(open)?, handle.0).await.map_err(|e| of_inode(&e))
    }

    pub(super) async fn flush_file(&self, ctx: &Context, handle: Handle, open: &OpenFile) -> Reply<()> {
        if self.client.take_lock_loss(handle.0) {
            return Err(Errno::EIO);
        }
        if !open.access().is_some_and(|access| access.write) {
            return Ok(());
        }
        let file = open.load(&self.client, || creds::whole(ctx)).await.map_err(|e| super::errno(&e))?;
        file.flush().await.map_err(|e| super::errno(&e))
    }
}
