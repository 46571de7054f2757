//! "A sync is under way": a word that a process leaves for the next one, in case that it is killed in the middle of it.
//!
//! The kernel tells an error of a write-back once, and takes the pages for written. A process that is killed before it has
//! taken note of that leaves a target of which nobody knows that something is missing on the disk. What is in memory is
//! whole, so this alone is no reason to have everything sent again, in whatever order: the next process asks the disk. An
//! object's sync takes away that object's error, not the file system's; a sync of all takes away the file system's, not
//! those of the objects.
//!
//! The word is written over in place and never synced: the machine's death raises the generation anyway.

use crate::{Store, StoreError, objects, records::Witness, small_files};
use pvfs_env::disk::{Disk, DiskFile};
use pvfs_types::{ObjectId, Timestamp};
use std::{
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};
use tracing::{error, info};

/// What was changed so long before a sync of all began, by the disk's clock, was synced by an earlier one. In seconds.
const CHANGED_BEFORE_SECS: i64 = 3600;
/// Objects looked at in one go.
const PAGE: usize = 4096;

/// What is being synced.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Extent {
    Nothing,
    /// Objects, one by one.
    Objects,
    /// All that is on the file system, in one go.
    All,
}

pub(crate) struct Syncing {
    file: Box<dyn DiskFile>,
    /// For each extent.
    words: [String; 3],
    under_way: Mutex<UnderWay>,
}

struct UnderWay {
    objects: u32,
    all: u32,
    written: Extent,
}

/// What the process before left under way.
pub(crate) struct Interrupted {
    extent: Extent,
    since: Timestamp,
}

/// A sync under way, until it is dropped: whoever has found out that it failed notes that before.
pub(crate) struct Sync<'a> {
    syncing: &'a Syncing,
    extent: Extent,
}

impl Syncing {
    /// Also gives what the process before, in this run of the machine, was killed in.
    pub(crate) fn open(disk: &dyn Disk, boot: u64) -> Result<(Syncing, Option<Interrupted>), StoreError> {
        let io = |what| move |source| StoreError::Io { dir: disk.place().to_owned(), what, source };
        let left = small_files::load(disk, Witness::FILE)?.and_then(|bytes| Witness::decode(&bytes).ok());
        let extent = left.filter(|left| left.boot == boot).map_or(Extent::Nothing, |left| left.extent);
        let file = disk.create(Witness::FILE).map_err(io("open the target's records"))?;
        let interrupted = if extent == Extent::Nothing {
            None
        } else {
            let since = file.stat().map_err(io("read the target's records"))?.mtime;
            Some(Interrupted { extent, since })
        };
        let words =
            [Extent::Nothing, Extent::Objects, Extent::All].map(|extent| Witness { boot, extent }.encode());
        let syncing =
            Syncing { file, words, under_way: Mutex::new(UnderWay { objects: 0, all: 0, written: extent }) };
        // It has its room from now on.
        if extent == Extent::Nothing {
            syncing.write(Extent::Nothing).map_err(io("write the target's records"))?;
        }
        Ok((syncing, interrupted))
    }

    /// A sync begins.
    ///
    /// # Errors
    /// The word cannot be left: nothing must be synced.
    pub(crate) fn begin(&self, extent: Extent) -> io::Result<Sync<'_>> {
        let mut under_way = self.lock();
        under_way.count(extent, 1);
        let sync = Sync { syncing: self, extent };
        let told = self.tell(&mut under_way);
        drop(under_way);
        told.map(|()| sync)
    }

    fn tell(&self, under_way: &mut UnderWay) -> io::Result<()> {
        let extent = under_way.extent();
        if under_way.written == extent {
            return Ok(());
        }
        self.write(extent)?;
        under_way.written = extent;
        Ok(())
    }

    fn write(&self, extent: Extent) -> io::Result<()> {
        let word = match extent {
            Extent::Nothing => &self.words[0],
            Extent::Objects => &self.words[1],
            Extent::All => &self.words[2],
        };
        self.file.write_at(word.as_bytes(), 0)
    }

    fn lock(&self) -> MutexGuard<'_, UnderWay> {
        self.under_way.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UnderWay {
    fn count(&mut self, extent: Extent, by: i32) {
        let count = match extent {
            Extent::Nothing => return,
            Extent::Objects => &mut self.objects,
            Extent::All => &mut self.all,
        };
        *count = count.saturating_add_signed(by);
    }

    fn extent(&self) -> Extent {
        match self {
            UnderWay { all: 1.., .. } => Extent::All,
            UnderWay { objects: 1.., .. } => Extent::Objects,
            UnderWay { .. } => Extent::Nothing,
        }
    }
}

impl Drop for Sync<'_> {
    fn drop(&mut self) {
        let mut under_way = self.syncing.lock();
        under_way.count(self.extent, -1);
        if let Err(error) = self.syncing.tell(&mut under_way) {
            // The next process then looks for nothing; the next sync tries again.
            info!(%error, "it cannot be noted that a sync has ended");
        }
    }
}

impl Store {
    /// A sync of objects begins; see [`Syncing::begin`].
    pub(crate) fn begin_sync(&self, extent: Extent) -> Result<Sync<'_>, StoreError> {
        self.syncing.begin(extent).map_err(|source| self.io("note that a sync begins", source))
    }

    /// Finds out whether the sync failed in which the process before was killed, and takes note of it then.
    pub(crate) fn settle(&self, interrupted: &Interrupted) -> Result<(), StoreError> {
        let dir = self.dir().display();
        info!(%dir, "the process before was killed in a sync: looking whether it failed");
        // This may take away errors as that one did.
        let _sync = self.begin_sync(Extent::All)?;
        if let Err(error) = self.disk.sync_all() {
            self.failed_somewhere(&error);
        }
        if interrupted.extent == Extent::All
            && let Err(error) = self.sync_changed_since(interrupted.since)
        {
            error!(%dir, %error, "not every object could be looked at");
            self.failed_somewhere(&error);
        }
        Ok(())
    }

    /// Syncs every object that was changed lately, one by one: each tells of its own error, if nobody was told yet.
    fn sync_changed_since(&self, since: Timestamp) -> Result<(), StoreError> {
        let mut after = None;
        loop {
            let page = self.list(after, PAGE)?;
            for &id in &page.objects {
                let changed =
                    self.stat(id)?.is_some_and(|s| s.mtime.secs >= since.secs - CHANGED_BEFORE_SECS);
                if changed {
                    self.sync_or_raise(id)?;
                }
            }
            match page.objects.last() {
                Some(&last) if !page.end => after = Some(last),
                Some(_) | None => return Ok(()),
            }
        }
    }

    fn sync_or_raise(&self, id: ObjectId) -> Result<(), StoreError> {
        let handle = self.cache.get(id);
        let Some(file) = self.existing(&handle).map_err(|source| self.failed("open", id, source))? else {
            return Ok(());
        };
        if let Err(error) = file.sync() {
            // Nobody knows where it was written: all of it goes to the disk once more.
            handle.is_unsynced(0..file.stat().map_err(|source| self.failed("stat", id, source))?.len);
            self.mending.add(&handle);
            error!(object = %objects::file_name(id), "what a dead process wrote did not reach the disk");
            self.ledger.raise(&error);
        }
        Ok(())
    }
}
