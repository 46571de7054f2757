//! What can be done to objects: read, write, sync, stat, truncate, remove.

use crate::{
    Acked, ObjectFilled, ObjectRead, ObjectRun, ObjectStat, Store, StoreError, Write,
    fence::{Fences, Verdict},
    format::FIRST_GENERATION,
    handle::{Handle, SharedFile},
    objects::{self, OBJECTS_DIR},
    syncing::Extent,
};
use bytes::BytesMut;
use pvfs_env::{
    disk::{Disk, DiskFile, blocking},
    memory::{Board, SharedSlice, Source, Walk},
};
use pvfs_types::ObjectId;
use std::{
    collections::BTreeSet,
    io,
    os::fd::OwnedFd,
    sync::{Arc, PoisonError, atomic::Ordering},
};
use tracing::warn;

impl Store {
    /// Reads `runs`, in order, into one buffer: of each what lies below the object's end. Allocates no more than that.
    pub fn read(&self, id: ObjectId, runs: &[ObjectRun]) -> Result<ObjectRead, StoreError> {
        let mut bytes = BytesMut::new();
        let ObjectFilled { object_len, exists, .. } = self.read_object(id, |file, object_len| {
            bytes = BytesMut::with_capacity(runs.iter().map(|run| below(run, object_len)).sum());
            for run in runs {
                let len = below(run, object_len);
                if len > 0 && file.read_at(&mut bytes, len, run.offset.0)? < len {
                    return Err(cut_from_outside());
                }
            }
            Ok(bytes.len())
        })?;
        Ok(ObjectRead { bytes: bytes.freeze(), object_len, exists })
    }

    /// As [`Store::read`], into `room`, which is as long as `runs` together: each byte to its own place, whether those before
    /// it lie below the object's end or not. What there is none for stays as it is.
    pub fn read_to(
        &self,
        id: ObjectId,
        runs: &[ObjectRun],
        room: &[SharedSlice],
    ) -> Result<ObjectFilled, StoreError> {
        self.read_object(id, |file, object_len| {
            let mut filled = 0;
            each_below(runs, room, object_len, |place, at| {
                if file.read_to(place, at)? < place.len() {
                    return Err(cut_from_outside());
                }
                filled += place.len();
                Ok(())
            })?;
            Ok(filled)
        })
    }

    /// A descriptor of the object for a client of this machine to read it by itself, as [`Store::read`] does, but for what the
    /// board is there for: a cut that comes in between, and acknowledged bytes that are lost. That the object was removed
    /// shows by its having no name. `None`: there is no such object.
    ///
    /// # Errors
    /// `EOPNOTSUPP`: this disk passes none, or there is no board.
    pub fn pass(&self, id: ObjectId) -> Result<Option<OwnedFd>, StoreError> {
        let pass = || {
            if self.board.is_none() {
                return Err(io::ErrorKind::Unsupported.into());
            }
            self.with_descriptors(|| {
                let handle = self.cache.get(id);
                let file = handle.existing(&*self.disk)?;
                file.map(|file| file.to_pass()).transpose()
            })
        };
        pass().map_err(|error: io::Error| {
            let is_unsupported = error.kind() == io::ErrorKind::Unsupported;
            let source = if is_unsupported { io::Error::from_raw_os_error(libc::EOPNOTSUPP) } else { error };
            self.failed("open", id, source)
        })
    }

    /// Has `read` read of the object, which is as long as it is told; it tells how many bytes it has read.
    fn read_object(
        &self,
        id: ObjectId,
        read: impl FnOnce(&dyn DiskFile, u64) -> io::Result<usize>,
    ) -> Result<ObjectFilled, StoreError> {
        let handle = self.cache.get(id);
        let read = || {
            let Some(file) = self.existing(&handle)? else {
                return Ok(ObjectFilled { filled: 0, object_len: 0, exists: false });
            };
            // Writes may make it longer meanwhile, but nothing makes it shorter while this read shares it.
            let object_len = file.stat()?.len;
            Ok(ObjectFilled { filled: read(&*file, object_len)?, object_len, exists: true })
        };
        read().map_err(|source| self.failed("read", id, source))
    }

    /// Writes `bytes`, which are as long as `write.runs` together, run by run. After an error a part of the runs may be written.
    /// Tells what the acknowledgement is worth.
    pub fn write(&self, id: ObjectId, write: &Write<'_>, bytes: &[u8]) -> Result<Acked, StoreError> {
        self.write_from(id, write, Source::Own(bytes))
    }

    /// As [`Store::write`], of bytes that may be shared.
    pub fn write_from(
        &self,
        id: ObjectId,
        write: &Write<'_>,
        source: Source<'_>,
    ) -> Result<Acked, StoreError> {
        let generation = self.generation();
        if write.runs.is_empty() {
            return Ok(Acked::whole(generation, Acked::DURABLE));
        }
        let handle = self.cache.get(id);
        let file = self.opened(&handle, write.makes)?;
        let failed = |source| self.failed("write to", id, source);
        let Verdict::Below(limit) = judge(&*file, write.again).map_err(failed)? else {
            return Ok(Acked::whole(generation, Acked::DURABLE));
        };
        let is_written = |at: u64, len: usize| handle.is_unsynced(at..at + len as u64);
        match source {
            Source::Own(mut rest) => {
                for run in write.runs {
                    let (part, after) = rest.split_at(run.len);
                    let part = &part[..below(run, limit)];
                    if !part.is_empty() {
                        is_written(run.offset.0, part.len());
                        file.write_at(part, run.offset.0).map_err(failed)?;
                    }
                    rest = after;
                }
            }
            Source::Shared(parts) => {
                each_below(write.runs, parts, limit, |part, at| {
                    is_written(at, part.len());
                    file.write_from(part, at)
                })
                .map_err(failed)?;
            }
        }
        handle.written_by(write.writer);
        let mark = self.commits.written(&handle, source.len() as u64);
        Ok(Acked { generation, mark, below: limit })
    }

    /// Makes durable, for the writer `by`, what anybody wrote to the object, its name too; one that is not there has
    /// nothing to sync. Returns the store generation after that: bytes acknowledged under it are durable, bytes of an older
    /// one may be lost.
    ///
    /// # Errors
    /// After an error bytes may be lost, and the store generation is raised.
    pub fn sync(&self, id: ObjectId, by: u64) -> Result<u64, StoreError> {
        blocking(|| {
            let handle = self.cache.get(id);
            self.mend(&handle)?;
            let _sync = self.begin_sync(Extent::Objects)?;
            self.sync_handle(&handle, Some(by))?;
            self.ledger.save()
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

    /// Cuts the object to at most `len` bytes, durably, and leaves a fence: nothing written before comes back past it.
    /// Never makes the object longer. One that is not there stays so, unless it may have been lost.
    pub fn truncate(&self, id: ObjectId, len: u64) -> Result<(), StoreError> {
        blocking(|| {
            let handle = self.cache.get(id);
            let _turn = handle.sync_turn();
            let failed = |source| self.failed("truncate", id, source);
            let Some(file) = self.existing_or_lost(&handle)? else { return Ok(()) };
            let _sync = self.begin_sync(Extent::Objects)?;
            // The bulk of it while others read and write.
            self.sync_file(&handle, &*file)?;
            drop(file);
            let alone = handle.alone();
            let Some(file) = &*alone else { return Ok(()) };
            let _cut = self.board.as_deref().map(Board::cut);
            cut(&**file, len).map_err(failed)?;
            let up_to = self.close_fence()?;
            // Also where nothing was cut: an earlier try may have cut and died before its sync.
            self.sync_file(&handle, &**file)?;
            self.leave_fence(&handle, &**file, up_to, Some(len)).map_err(failed)
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

    /// Makes durable what was written to the object. Where several wrote, or another one than the writer `by` that asks for
    /// it, leaves a fence: neither what one of them synced nor what it writes from now on is written over by what another
    /// one wrote before and sends again.
    pub(crate) fn sync_handle(&self, handle: &Arc<Handle>, by: Option<u64>) -> Result<(), StoreError> {
        let failed = |source| self.failed("sync", handle.id, source);
        let _turn = handle.sync_turn();
        let Some(file) = self.existing(handle).map_err(|source| self.failed("open", handle.id, source))?
        else {
            return Ok(());
        };
        if !handle.take_others(by) {
            return self.sync_file(handle, &*file);
        }
        self.close_fence()
            .and_then(|up_to| {
                self.sync_file(handle, &*file)?;
                self.leave_fence(handle, &*file, up_to, None).map_err(failed)
            })
            .inspect_err(|_| handle.is_unfenced())
    }

    /// Up to where a fence reaches that is left now. Under the latest generation: what a failed sync has lost must not pass
    /// for durable.
    fn close_fence(&self) -> Result<Acked, StoreError> {
        Ok(Acked::whole(self.ledger.save()?, self.commits.close_mark()))
    }

    /// Syncs the file, and the names that lead to it where that is not done yet.
    fn sync_file(&self, handle: &Arc<Handle>, file: &dyn DiskFile) -> Result<(), StoreError> {
        let shard = objects::shard(handle.id);
        let unsynced = handle.take_unsynced();
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
            handle.give_back_unsynced(&unsynced);
            if self.has_predecessor && !handle.is_name_durable() {
                // A dead process may have written to it, nobody knows where: all of it goes to the disk once more.
                handle.is_unsynced(0..file.stat().map_or(0, |stat| stat.len));
            }
            if !handle.unsynced().is_empty() {
                self.mending.add(handle);
            }
            self.ledger.raise(&source);
            self.failed("sync", handle.id, source)
        })
    }

    /// Notes with the object that all up to `up_to` is durable in it, or was cut off at `len`. Durable on return. A disk
    /// that keeps no notes goes without.
    fn leave_fence(
        &self,
        handle: &Arc<Handle>,
        file: &dyn DiskFile,
        up_to: Acked,
        len: Option<u64>,
    ) -> io::Result<()> {
        let mut fences = fences(file)?;
        fences.add(up_to, len);
        match file.set_note(&fences.encode()) {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => {
                if !self.noteless.swap(true, Ordering::Relaxed) {
                    let dir = self.dir().display();
                    warn!(%dir, "the disk keeps no extended attributes: after a power loss, writes that clients send again may undo cuts");
                }
                Ok(())
            }
            Err(error) => {
                // What was written since the object's own sync may have failed with it.
                if !handle.unsynced().is_empty() {
                    self.mending.add(handle);
                }
                self.ledger.raise(&error);
                Err(error)
            }
            Ok(()) => Ok(()),
        }
    }

    /// The object's file. Where it is missing and the target has lost something once, an empty one, to put a fence on:
    /// its writers may still send its bytes again.
    fn existing_or_lost<'h>(&self, handle: &'h Handle) -> Result<Option<SharedFile<'h>>, StoreError> {
        let found = self.existing(handle).map_err(|source| self.failed("open", handle.id, source))?;
        if found.is_some() || !self.may_have_lost() {
            return Ok(found);
        }
        match self.opened(handle, true) {
            Err(StoreError::Removed { .. }) => Ok(None),
            opened => opened.map(Some),
        }
    }

    /// Whether it has ever lost anything.
    fn may_have_lost(&self) -> bool {
        self.generation() != FIRST_GENERATION || self.ledger.is_raised()
    }

    pub(crate) fn existing<'h>(&self, handle: &'h Handle) -> io::Result<Option<SharedFile<'h>>> {
        self.with_descriptors(|| handle.existing(&*self.disk))
    }

    /// The object's file. Where it is missing it is made with `makes`, but not where it was removed.
    pub(crate) fn opened<'h>(&self, handle: &'h Handle, makes: bool) -> Result<SharedFile<'h>, StoreError> {
        let id = handle.id;
        let mut removed = false;
        let opened = self.with_descriptors(|| {
            handle.opened(|| {
                removed = self.tombstones.lock().unwrap_or_else(PoisonError::into_inner).contains(id);
                if removed || !makes {
                    return self.disk.open(&handle.name);
                }
                let file = create(&*self.disk, handle)?;
                if !self.may_have_lost() && file.stat()?.len == 0 {
                    handle.is_new();
                }
                Ok(file)
            })
        });
        opened.map_err(|source| match source.kind() {
            io::ErrorKind::NotFound if removed => StoreError::Removed { id },
            io::ErrorKind::NotFound if !makes => StoreError::Absent { id },
            _ => self.failed("open", id, source),
        })
    }

    /// Runs `open`; if the process has no descriptor left, closes those that no request uses and runs it once more.
    fn with_descriptors<T>(&self, mut open: impl FnMut() -> io::Result<T>) -> io::Result<T> {
        match open() {
            Err(error) if matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE)) => {
                self.commits.unlist();
                self.cache.evict_idle();
                open()
            }
            other => other,
        }
    }

    pub(crate) fn failed(&self, what: &'static str, id: ObjectId, source: io::Error) -> StoreError {
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

/// Also where it has that length already: an earlier try may have cut it, and the sync after that failed. What such a sync
/// was to write, zeros behind the new end too, is written by none that follows.
fn cut(file: &dyn DiskFile, len: u64) -> io::Result<()> {
    if file.stat()?.len >= len { file.truncate(len) } else { Ok(()) }
}

/// What is wanted of a write that was acknowledged so before; of a new one, all.
pub(crate) fn judge(file: &dyn DiskFile, again: Option<Acked>) -> io::Result<Verdict> {
    again.map_or(Ok(Verdict::Below(u64::MAX)), |acked| Ok(fences(file)?.judge(acked)))
}

/// The object's fences. A note that does not read is none of ours.
fn fences(file: &dyn DiskFile) -> io::Result<Fences> {
    Ok(file.note()?.and_then(|note| Fences::decode(&note)).unwrap_or(Fences::NONE))
}

/// Calls `act` with each piece of `parts`, which are as long as `runs` together, and where it lies in the object; but for what
/// does not lie below `end`.
fn each_below(
    runs: &[ObjectRun],
    parts: &[SharedSlice],
    end: u64,
    mut act: impl FnMut(&SharedSlice, u64) -> io::Result<()>,
) -> io::Result<()> {
    let mut places = Walk::new(parts);
    for run in runs {
        let (mut at, mut left) = (run.offset.0, run.len);
        while let Some(part) = (left > 0).then(|| places.next(left)).flatten() {
            let len = usize::try_from(end.saturating_sub(at)).unwrap_or(usize::MAX).min(part.len());
            if len > 0 {
                act(&part.part(0, len), at)?;
            }
            at += part.len() as u64;
            left -= part.len();
        }
    }
    Ok(())
}

fn cut_from_outside() -> io::Error {
    io::Error::new(io::ErrorKind::UnexpectedEof, "its file was cut from outside")
}

/// How much of `run` lies below `object_len`, in bytes.
fn below(run: &ObjectRun, object_len: u64) -> usize {
    usize::try_from(object_len.saturating_sub(run.offset.0)).map_or(run.len, |len| len.min(run.len))
}
