//! One object as this process knows it: its descriptor, and who may do what to it at the same time.
//!
//! Reads and writes share an object; a removal and a cut have it alone for a moment. So each read or write request is
//! wholly before or wholly after a removal or cut, and never lands in a file that lost its name in between.

use crate::{objects, unsynced::Unsynced};
use pvfs_env::disk::{Disk, DiskFile, blocking};
use pvfs_types::ObjectId;
use std::{
    io,
    ops::{Deref, Range},
    sync::{
        Mutex, MutexGuard, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard, TryLockError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

/// No writer since the last fence.
const NOBODY: u64 = 0;
/// More than one writer since the last fence, or nobody knows.
const SEVERAL: u64 = u64::MAX;

pub(crate) type File = Option<Box<dyn DiskFile>>;

/// There is at most one handle of an object at a time; the cache sees to that.
pub(crate) struct Handle {
    pub(crate) id: ObjectId,
    pub(crate) name: String,
    /// `None`: not opened yet, or there is no such object.
    file: RwLock<File>,
    /// This process has synced the directory since the file was opened, so that its name is durable.
    name_durable: AtomicBool,
    syncing: Mutex<()>,
    /// Under which mark it was last put on the list of what the next commit syncs.
    pub(crate) dirty_in: AtomicU64,
    writer: AtomicU64,
    unsynced: Mutex<Unsynced>,
}

/// An object's file, shared: it stays the object's file until this is dropped.
pub(crate) struct SharedFile<'a>(RwLockReadGuard<'a, File>);

impl Handle {
    pub(crate) fn new(id: ObjectId) -> Handle {
        Handle {
            id,
            name: objects::file_name(id),
            file: RwLock::new(None),
            name_durable: AtomicBool::new(false),
            syncing: Mutex::new(()),
            dirty_in: AtomicU64::new(0),
            writer: AtomicU64::new(SEVERAL),
            unsynced: Mutex::default(),
        }
    }

    /// These bytes are about to be written.
    pub(crate) fn is_unsynced(&self, range: Range<u64>) {
        self.lock_unsynced().add(range);
    }

    /// Where it was written since a sync last succeeded.
    pub(crate) fn unsynced(&self) -> Vec<Range<u64>> {
        self.lock_unsynced().ranges().to_vec()
    }

    /// A sync begins: gives what it is to make durable.
    pub(crate) fn take_unsynced(&self) -> Unsynced {
        std::mem::take(&mut self.lock_unsynced())
    }

    /// The sync failed.
    pub(crate) fn give_back_unsynced(&self, unsynced: &Unsynced) {
        let mut now = self.lock_unsynced();
        unsynced.ranges().iter().for_each(|range| now.add(range.clone()));
    }

    fn lock_unsynced(&self) -> MutexGuard<'_, Unsynced> {
        self.unsynced.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object is empty and has lost nothing: there is no writer to know of.
    pub(crate) fn is_new(&self) {
        self.writer.store(NOBODY, Ordering::SeqCst);
    }

    /// `writer` has written to it.
    pub(crate) fn written_by(&self, writer: u64) {
        let writer = one_of(writer);
        let mut known = self.writer.load(Ordering::SeqCst);
        while known != writer && known != SEVERAL {
            let now = if known == NOBODY { writer } else { SEVERAL };
            match self.writer.compare_exchange(known, now, Ordering::SeqCst, Ordering::SeqCst) {
                Ok(_) => return,
                Err(found) => known = found,
            }
        }
    }

    /// Whether others than `by` may have written since the last fence; with `None`, whether several may have. The caller
    /// makes the next one now, if so.
    pub(crate) fn take_others(&self, by: Option<u64>) -> bool {
        let is_other =
            |known| known == SEVERAL || by.is_some_and(|by| known != NOBODY && known != one_of(by));
        let take = |known| is_other(known).then_some(NOBODY);
        self.writer.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    }

    /// That fence was not made.
    pub(crate) fn is_unfenced(&self) {
        self.writer.store(SEVERAL, Ordering::SeqCst);
    }

    /// The object's file where there is one.
    pub(crate) fn existing(&self, disk: &dyn Disk) -> io::Result<Option<SharedFile<'_>>> {
        match self.opened(|| disk.open(&self.name)) {
            Ok(file) => Ok(Some(file)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The object's file; where there is none yet, the one that `open` gives.
    pub(crate) fn opened(
        &self,
        open: impl FnOnce() -> io::Result<Box<dyn DiskFile>>,
    ) -> io::Result<SharedFile<'_>> {
        let shared = self.shared();
        if shared.is_some() {
            return Ok(SharedFile(shared));
        }
        drop(shared);
        let mut alone = self.alone();
        if alone.is_none() {
            *alone = Some(open()?);
            self.name_durable.store(false, Ordering::Release);
        }
        Ok(SharedFile(RwLockWriteGuard::downgrade(alone)))
    }

    /// The object alone: no read or write runs meanwhile.
    pub(crate) fn alone(&self) -> RwLockWriteGuard<'_, File> {
        match self.file.try_write() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                blocking(|| self.file.write().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }

    /// One sync of an object at a time. Linux tells a write-back error to one caller only: whoever comes after it must
    /// find the store generation raised already.
    pub(crate) fn sync_turn(&self) -> MutexGuard<'_, ()> {
        self.syncing.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn is_name_durable(&self) -> bool {
        self.name_durable.load(Ordering::Acquire)
    }

    pub(crate) fn name_is_durable(&self) {
        self.name_durable.store(true, Ordering::Release);
    }

    fn shared(&self) -> RwLockReadGuard<'_, File> {
        match self.file.try_read() {
            Ok(guard) => guard,
            Err(TryLockError::Poisoned(poisoned)) => poisoned.into_inner(),
            Err(TryLockError::WouldBlock) => {
                blocking(|| self.file.read().unwrap_or_else(PoisonError::into_inner))
            }
        }
    }
}

/// `writer`, told apart from nobody and from several.
fn one_of(writer: u64) -> u64 {
    writer.clamp(NOBODY + 1, SEVERAL - 1)
}

impl Deref for SharedFile<'_> {
    type Target = dyn DiskFile;

    fn deref(&self) -> &Self::Target {
        &**self.0.as_ref().expect("a SharedFile is only made of an open file")
    }
}
