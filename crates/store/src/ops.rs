//! What can be done to objects: read, write, sync, stat, truncate, remove.

use crate::{
    ObjectRead, ObjectRun, ObjectStat, Store, StoreError,
    handle::{Handle, SharedFile},
    objects::{self, OBJECTS_DIR},
};
use bytes::{Bytes, BytesMut};
use pvfs_env::disk::{Disk, DiskFile, blocking};
use pvfs_types::ObjectId;
use std::{
    collections::BTreeSet,
    io,
    sync::{PoisonError, atomic::Ordering},
};

impl Store {
    /// Reads `runs`, in order, into one buffer: of each what lies below the object's end. Allocates no more than that.
    pub fn read(&self, id: ObjectId, runs: &[ObjectRun]) -> Result<ObjectRead, StoreError> {
        let handle = self.cache.get(id);
        let read = || {
            let Some(file) = self.existing(&handle)? else {
                return Ok(ObjectRead { bytes: Bytes::new(), object_len: 0, exists: false });
            };
            // Writes may make it longer meanwhile, but nothing makes it shorter while this read shares it.
            let object_len = file.stat()?.len;
            let mut bytes = BytesMut::with_capacity(runs.iter().map(|run| below(run, object_len)).sum());
            for run in runs {
                let len = below(run, object_len);
                if len > 0 && file.read_at(&mut bytes, len, run.offset.0)? < len {
                    return Err(io::Error::new(
                        io::ErrorKind::UnexpectedEof,
                        "its file was cut from outside",
                    ));
                }
            }
            Ok(ObjectRead { bytes: bytes.freeze(), object_len, exists: true })
        };
        read().map_err(|source| self.failed("read", id, source))
    }

    /// Writes `bytes`, which are as long as `runs` together, run by run; makes the object where it is missing. After an
    /// error a part of the runs may be written. Returns the store generation that holds for these bytes.
    pub fn write(&self, id: ObjectId, runs: &[ObjectRun], bytes: &[u8]) -> Result<u64, StoreError> {
        let generation = self.generation();
        if runs.is_empty() {
            return Ok(generation);
        }
        let handle = self.cache.get(id);
        let file = self.opened(&handle)?;
        let mut rest = bytes;
        for run in runs {
            let (part, after) = rest.split_at(run.len);
            file.write_at(part, run.offset.0).map_err(|source| self.failed("write to", id, source))?;
            rest = after;
        }
        Ok(generation)
    }

    /// Makes durable what was written to the object, its name too; one that is not there has nothing to sync. Returns the
    /// store generation after that: bytes acknowledged under it are durable, bytes of an older one may be lost.
    ///
    /// # Errors
    /// After an error bytes may be lost, and the store generation is raised.
    pub fn sync(&self, id: ObjectId) -> Result<u64, StoreError> {
        blocking(|| {
            let handle = self.cache.get(id);
            let _turn = handle.sync_turn();
            if let Some(file) = self.existing(&handle).map_err(|source| self.failed("open", id, source))? {
                self.sync_file(&handle, &file)?;
            }
            self.ledger.save()?;
            Ok(self.generation())
        })
    }

    /// `None`: there is no such object.
    pub fn stat(&self, id: ObjectId) -> Result<Option<ObjectStat>, StoreError> {
        match self.disk.stat(&objects::file_name(id)) {
            Ok(s) => Ok(Some(ObjectStat { len: s.len, allocated: s.allocated, mtime: s.mtime })),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.failed("stat", id, source)),
        }
    }

    /// Cuts the object to at most `len` bytes, durably. Never makes it longer, never makes one that is not there.
    pub fn truncate(&self, id: ObjectId, len: u64) -> Result<(), StoreError> {
        blocking(|| {
            let handle = self.cache.get(id);
            let _turn = handle.sync_turn();
            if self.existing(&handle).map_err(|source| self.failed("open", id, source))?.is_none() {
                return Ok(());
            }
            if let Some(file) = &*handle.alone() {
                cut(&**file, len).map_err(|source| self.failed("truncate", id, source))?;
            }
            // Also where nothing was cut: an earlier try may have cut and died before its sync.
            match self.existing(&handle).map_err(|source| self.failed("open", id, source))? {
                Some(file) => self.sync_file(&handle, &file),
                None => Ok(()),
            }
        })
    }

    /// Removes objects, durably; one that is not there is fine. After an error some of them may be removed.
    pub fn remove(&self, ids: &[ObjectId]) -> Result<(), StoreError> {
        blocking(|| {
            for &id in ids {
                self.remove_one(id)?;
            }
            // Also where nothing was there: an earlier try may have removed and died before its sync.
            let shards: BTreeSet<usize> = ids.iter().map(|&id| objects::shard(id)).collect();
            for shard in shards {
                match self.disk.sync_dir(&objects::shard_dir(shard)) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => {
                        self.ledger.raise(&error);
                        return Err(self.io("sync an objects' directory", error));
                    }
                    Ok(()) | Err(_) => {}
                }
            }
            Ok(())
        })
    }

    fn remove_one(&self, id: ObjectId) -> Result<(), StoreError> {
        let handle = self.cache.get(id);
        let mut alone = handle.alone();
        self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).insert(id);
        match self.disk.remove(&handle.name) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                return Err(self.failed("remove", id, error));
            }
            Ok(()) | Err(_) => {}
        }
        let file = alone.take();
        drop(alone);
        // Closing it gives its blocks back, which may take long: not while others wait for the object.
        drop(file);
        Ok(())
    }

    /// Syncs the file, and the names that lead to it where that is not done yet.
    fn sync_file(&self, handle: &Handle, file: &SharedFile<'_>) -> Result<(), StoreError> {
        let shard = objects::shard(handle.id);
        let sync = || {
            file.sync()?;
            if !handle.is_name_durable() {
                self.disk.sync_dir(&objects::shard_dir(shard))?;
                if !self.durable_shards[shard].load(Ordering::Acquire) {
                    self.disk.sync_dir(OBJECTS_DIR)?;
                    self.durable_shards[shard].store(true, Ordering::Release);
                }
                handle.name_is_durable();
            }
            io::Result::Ok(())
        };
        sync().map_err(|source| {
            self.ledger.raise(&source);
            self.failed("sync", handle.id, source)
        })
    }

    fn existing<'h>(&self, handle: &'h Handle) -> io::Result<Option<SharedFile<'h>>> {
        self.with_descriptors(|| handle.existing(&*self.disk))
    }

    /// The object's file, made where it is missing, but not where it was removed.
    fn opened<'h>(&self, handle: &'h Handle) -> Result<SharedFile<'h>, StoreError> {
        let id = handle.id;
        let mut removed = false;
        let opened = self.with_descriptors(|| {
            handle.opened(|| {
                removed = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
                if removed { self.disk.open(&handle.name) } else { create(&*self.disk, handle) }
            })
        });
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if removed => StoreError::Removed { id },
            _ => self.failed("open", id, source),
        })
    }

    /// Runs `open`; if the process has no descriptor left, closes the idle ones and runs it once more.
    fn with_descriptors<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.cache.evict_idle();
                open()
            }
            other => other,
        }
    }

    fn failed(&self, what: &'static str, id: ObjectId, source: io::Error) -> StoreError {
        StoreError::Object { dir: self.dir().to_owned(), what, id, source }
    }
}

fn create(disk: &dyn Disk, handle: &Handle) -> io::Result<Box<dyn DiskFile>> {
    match disk.create(&handle.name) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            disk.make_dir(&objects::shard_dir(objects::shard(handle.id)))?;
            disk.create(&handle.name)
        }
        other => other,
    }
}

fn cut(file: &dyn DiskFile, len: u64) -> io::Result<()> {
    if file.stat()?.len > len { file.truncate(len) } else { Ok(()) }
}

/// How much of `run` lies below `object_len`, in bytes.
fn below(run: &ObjectRun, object_len: u64) -> usize {
    usize::try_from(object_len.saturating_sub(run.offset.0)).map_or(run.len, |len| len.min(run.len))
}
