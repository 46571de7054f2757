//! Once more to the disk with what a failed sync left in memory.
//!
//! After a failed write-back the kernel takes the pages for written: no later sync writes them, and it succeeds. Who wrote
//! them sends them again as long as it lives; for the others, before the next sync, they are read and written once more,
//! so that this sync does what it says. Where nobody knows what they were (a process before this one had the failure, or a
//! sync of all failed), that is each object as a whole, before its next sync.

use crate::{Store, StoreError, handle::Handle};
use bytes::BytesMut;
use pvfs_env::disk::DiskFile;
use pvfs_types::ObjectId;
use std::{
    collections::HashSet,
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};
use tracing::{error, warn};

/// Objects that are kept for that. Their descriptors stay open.
const OBJECTS_MAX: usize = 1024;
/// Objects of which it is remembered that they were written as a whole. Past that, they may be once more.
const WHOLE_MAX: usize = 1 << 16;
/// Written at a time, in bytes.
const CHUNK_BYTES: u64 = 1 << 20;

/// What is to be written once more.
#[derive(Default)]
pub(crate) struct Mending(Mutex<ToDo>);

#[derive(Default)]
struct ToDo {
    /// Objects whose last sync failed.
    handles: Vec<Arc<Handle>>,
    /// Those that are being written.
    under_way: usize,
    /// Any object may miss something on the disk, except these.
    all_but: Option<HashSet<ObjectId>>,
}

enum Part {
    Nothing,
    Unsynced,
    Whole,
}

impl Mending {
    fn lock(&self) -> MutexGuard<'_, ToDo> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The object's sync failed.
    pub(crate) fn add(&self, handle: &Arc<Handle>) {
        self.lock().add(handle);
    }

    /// A sync failed, and nobody knows of which objects.
    pub(crate) fn add_all(&self) {
        self.lock().all_but = Some(HashSet::new());
    }

    /// Nothing is left to be written.
    pub(crate) fn is_done(&self) -> bool {
        let todo = self.lock();
        todo.handles.is_empty() && todo.under_way == 0 && todo.all_but.is_none()
    }

    fn begin_all(&self) -> Vec<Arc<Handle>> {
        let mut todo = self.lock();
        todo.under_way += todo.handles.len();
        std::mem::take(&mut todo.handles)
    }

    fn begin(&self, handle: &Arc<Handle>) -> Part {
        let mut todo = self.lock();
        let place = todo.handles.iter().position(|listed| Arc::ptr_eq(listed, handle));
        if let Some(place) = place {
            todo.handles.swap_remove(place);
        }
        let part = match (&todo.all_but, place) {
            (Some(but), _) if !but.contains(&handle.id) => Part::Whole,
            (_, Some(_)) => Part::Unsynced,
            (_, None) => return Part::Nothing,
        };
        todo.under_way += 1;
        part
    }

    fn end(&self, handle: &Arc<Handle>, part: &Part, is_done: bool) {
        let mut todo = self.lock();
        todo.under_way -= 1;
        match (part, &mut todo.all_but) {
            (Part::Whole, Some(but)) if is_done => {
                if but.len() == WHOLE_MAX {
                    but.clear();
                }
                but.insert(handle.id);
            }
            (Part::Unsynced, _) if !is_done => todo.add(handle),
            _ => {}
        }
    }
}

impl ToDo {
    fn add(&mut self, handle: &Arc<Handle>) {
        if self.handles.iter().any(|listed| Arc::ptr_eq(listed, handle)) {
            return;
        }
        if self.handles.len() == OBJECTS_MAX {
            error!(object = %self.handles.remove(0).id, "too many failed syncs: each object is written once more before its next");
            self.all_but.get_or_insert_default();
        }
        self.handles.push(Arc::clone(handle));
    }
}

impl Store {
    /// Writes once more what failed syncs left in memory, of all objects known. To be called before they are synced.
    pub(crate) fn mend_all(&self) -> Result<(), StoreError> {
        let handles = self.mending.begin_all();
        // All of them, so that one that cannot be mended keeps no other one from it.
        let mended: Vec<_> = handles.iter().map(|handle| self.mend_part(handle, &Part::Unsynced)).collect();
        mended.into_iter().collect()
    }

    /// A sync failed, and nobody knows of which objects.
    pub(crate) fn failed_somewhere(&self, why: &dyn std::fmt::Display) {
        self.mending.add_all();
        self.ledger.raise(why);
    }

    /// Of this object.
    pub(crate) fn mend(&self, handle: &Arc<Handle>) -> Result<(), StoreError> {
        match self.mending.begin(handle) {
            Part::Nothing => Ok(()),
            part => self.mend_part(handle, &part),
        }
    }

    fn mend_part(&self, handle: &Arc<Handle>, part: &Part) -> Result<(), StoreError> {
        let written = self.write_once_more(handle, part);
        self.mending.end(handle, part, written.is_ok());
        written.map_err(|error| {
            warn!(object = %handle.id, %error, "what a failed sync left cannot be written once more");
            // Whatever the reason: what was acknowledged is not on the disk.
            self.failed("sync", handle.id, io::Error::from_raw_os_error(libc::EIO))
        })
    }

    fn write_once_more(&self, handle: &Arc<Handle>, part: &Part) -> io::Result<()> {
        if matches!(part, Part::Whole) {
            let Some(file) = self.existing(handle)? else { return Ok(()) };
            handle.is_unsynced(0..file.stat()?.len);
        }
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

/// Writes what lies in `range` of the file, but for its holes.
fn write_again(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    let mut from = range.start;
    while let Some(data) = file.next_data(from)?.filter(|&data| data < range.end) {
        from = file.next_hole(data)?.min(range.end);
        write_run_again(file, data..from)?;
    }
    Ok(())
}

fn write_run_again(file: &dyn DiskFile, run: Range<u64>) -> io::Result<()> {
    let mut at = run.start;
    while at < run.end {
        let len = (run.end - at).min(CHUNK_BYTES);
        let mut bytes = BytesMut::new();
        // What is in memory no more, and cannot be read, cannot be mended either.
        if file.read_at(&mut bytes, usize::try_from(len).unwrap_or(usize::MAX), at).is_ok() {
            file.write_at(&bytes, at)?;
        }
        at += len;
    }
    Ok(())
}
