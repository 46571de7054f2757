//! Once more to the disk with what a failed sync left in memory.
//!
//! After a failed write-back the kernel takes the pages for written: no later sync writes them, and it succeeds. Who wrote
//! them sends them again as long as it lives; for the others, before the next sync, they are read and written once more,
//! so that this sync does what it says.

use crate::{Store, StoreError, handle::Handle};
use bytes::BytesMut;
use pvfs_env::disk::DiskFile;
use std::{
    io,
    ops::Range,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::{error, warn};

/// Objects that are kept for that. Their descriptors stay open.
const OBJECTS_MAX: usize = 1024;
/// Written at a time, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// Objects whose last sync failed.
#[derive(Default)]
pub(crate) struct Mending(Mutex<Vec<Arc<Handle>>>);

impl Mending {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Arc<Handle>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub(crate) fn add(&self, handle: &Arc<Handle>) {
        self.with(|handles| {
            if handles.iter().any(|listed| Arc::ptr_eq(listed, handle)) {
                return;
            }
            if handles.len() == OBJECTS_MAX {
                error!(object = %handles.remove(0).id, "too many failed syncs: what nobody sends again may be lost");
            }
            handles.push(Arc::clone(handle));
        });
    }
}

impl Store {
    /// Writes once more what failed syncs left in memory, of all objects. To be called before they are synced.
    pub(crate) fn mend_all(&self) -> Result<(), StoreError> {
        let handles = self.mending.with(std::mem::take);
        // All of them, so that one that cannot be mended keeps no other one from it.
        let mended: Vec<_> = handles.iter().map(|handle| self.mend_one(handle)).collect();
        mended.into_iter().collect()
    }

    /// Of this object.
    pub(crate) fn mend(&self, handle: &Arc<Handle>) -> Result<(), StoreError> {
        let place = |handles: &mut Vec<Arc<Handle>>| {
            let place = handles.iter().position(|listed| Arc::ptr_eq(listed, handle))?;
            Some(handles.swap_remove(place))
        };
        self.mending.with(place).map_or(Ok(()), |handle| self.mend_one(&handle))
    }

    fn mend_one(&self, handle: &Arc<Handle>) -> Result<(), StoreError> {
        self.write_once_more(handle).map_err(|error| {
            self.mending.add(handle);
            warn!(object = %handle.id, %error, "what a failed sync left cannot be written once more");
            // Whatever the reason: what was acknowledged is not on the disk.
            self.failed("sync", handle.id, io::Error::from_raw_os_error(libc::EIO))
        })
    }

    fn write_once_more(&self, handle: &Arc<Handle>) -> io::Result<()> {
        // Alone, so that nothing newer is written over.
        let alone = handle.alone();
        let Some(file) = &*alone else { return Ok(()) };
        let (ranges, len) = (handle.unsynced(), file.stat()?.len);
        warn!(object = %handle.id, ranges = ranges.len(), "writing once more what a failed sync left");
        for range in ranges {
            write_again(&**file, range.start..range.end.min(len))?;
        }
        self.commits.written(handle, 0);
        Ok(())
    }
}

fn write_again(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut at = range.start;
    while at < range.end {
        let len = (range.end - at).min(CHUNK_BYTES);
        let mut bytes = BytesMut::new();
        // What is in memory no more, and cannot be read, cannot be mended either.
        if file.read_at(&mut bytes, usize::try_from(len).unwrap_or(usize::MAX), at).is_ok() {
            file.write_at(&bytes, at)?;
        }
        at += len;
    }
    Ok(())
}
