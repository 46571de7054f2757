//! A target that is open: who it is, its generation, its place among the targets, the mgr time it followed.

use crate::{
    Identity, Membership, MgrTime, StoreError,
    cache::{Cache, CacheCounters},
    commits::{Commits, Dirty},
    ledger::Ledger,
    mend::Mending,
    objects::SHARDS,
    small_files::{self, load_identity, open_dir, take_lock},
    syncing::{Extent, Syncing},
    tombstones::Tombstones,
};
use pvfs_env::{
    Metrics,
    disk::{Disk, DiskFile, DiskLock, Usage, blocking},
    memory::Board,
};
use pvfs_types::{FsId, TargetId, TargetUuid};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError, atomic::AtomicBool},
};

/// Removed objects that are remembered, so that late writes do not bring them back.
const TOMBSTONES_MAX: usize = 1 << 16;

/// How to open a store.
pub struct StoreOptions {
    /// Objects whose descriptors are kept open (those in use right now come on top).
    pub open_objects_max: usize,
    /// The file that tells the run of the machine; `None`: the kernel's.
    pub boot_id: Option<PathBuf>,
    /// Where clients of this machine see what becomes of objects that they read by themselves; see [`Store::pass`].
    pub board: Option<Arc<Board>>,
    pub metrics: Metrics,
}

impl Default for StoreOptions {
    fn default() -> StoreOptions {
        StoreOptions { open_objects_max: 1024, boot_id: None, board: None, metrics: Metrics::new() }
    }
}

/// The object store of one target. Only one process has it open at a time.
///
/// Any number of threads may use it. Requests on one object: reads and writes run side by side, and where writes
/// overlap, each byte is one of theirs. [`Store::remove`] and [`Store::truncate`] come wholly before or after each read
/// or write. A write after a removal is refused ([`StoreError::Removed`]) as long as this process remembers the removal
/// (the last 65,536 of them): object ids are not used twice, so such a write is a late one.
///
/// # The store generation
///
/// Bytes that [`Store::write`] acknowledged under generation `g` are still there as long as [`Store::generation`] says
/// `g`. It is raised, durably, when the machine died while the store was open, and when a write-back failed; as long as
/// the disk does not take the raised one, [`Store::settled_generation`] fails. So that it cannot be read too new, `write` returns the generation from *before* it wrote, and [`Store::sync`] the one from
/// *after* it synced.
///
/// # Commits
///
/// [`Store::commit`] makes durable all that was written so far. Each write bears the mark of the commit that will cover
/// it ([`crate::Acked`]); a write whose mark [`Store::committed`] has reached, with no newer generation told beside it, is
/// durable. What a client wrote and may have been lost it sends again ([`crate::Write::again`]); cuts and syncs that have
/// overtaken it leave fences with the object, so that old bytes never come back (see `fence.rs`).
///
/// A write-back that failed is noticed by the next `sync` of that object or the next commit, not at once; when the kernel
/// has dropped the inode in between, only by a commit of the whole file system (many objects at once, or
/// [`Store::close`]).
pub struct Store {
    pub(crate) disk: Arc<dyn Disk>,
    pub(crate) ledger: Ledger,
    pub(crate) board: Option<Arc<Board>>,
    pub(crate) syncing: Syncing,
    pub(crate) cache: Cache,
    pub(crate) commits: Commits,
    pub(crate) mending: Mending,
    pub(crate) tombstones: Mutex<Tombstones>,
    /// Shards whose own names this process has made durable.
    pub(crate) durable_shards: Box<[AtomicBool]>,
    identity: Identity,
    membership: Mutex<Option<TargetId>>,
    /// An earlier process of this run of the machine was not closed: what it wrote may not be durable.
    pub(crate) has_predecessor: bool,
    mgr_time_at_open: Option<u64>,
    mgr_time_file: Box<dyn DiskFile>,
    /// That the disk keeps no notes has been told.
    pub(crate) noteless: AtomicBool,
    _lock: Box<dyn DiskLock>,
}

impl Store {
    /// Opens the target in `dir`, which must be one of the file system `fs`.
    pub fn open(dir: &Path, fs: FsId, options: &StoreOptions) -> Result<Store, StoreError> {
        let disk = open_dir(dir)?;
        let disk = match &options.boot_id {
            Some(file) => disk.with_boot_id(file),
            None => disk,
        };
        Store::open_disk(Arc::new(disk), fs, options)
    }

    /// As [`Store::open`], on a directory that is open already.
    pub fn open_disk(disk: Arc<dyn Disk>, fs: FsId, options: &StoreOptions) -> Result<Store, StoreError> {
        // The identity first: nothing is written to a directory that is not this file system's target.
        let identity = load_identity(&*disk, fs)?;
        let lock = take_lock(&*disk)?;
        let (ledger, before) = Ledger::open(Arc::clone(&disk), options.board.clone())?;
        let (syncing, interrupted) = Syncing::open(&*disk, ledger.boot())?;
        let membership = load_membership(&*disk, &identity)?;
        let mgr_time = small_files::load(&*disk, MgrTime::FILE)?.and_then(|b| MgrTime::decode(&b).ok());
        let mgr_time_at_open = match (membership, mgr_time) {
            (None, _) => Some(0),
            (Some(_), Some(time)) if before.clean || time.boot == ledger.boot() => Some(time.time_ms),
            (Some(_), _) => None,
        };
        let mgr_time_file = disk.create(MgrTime::FILE).map_err(|source| StoreError::Io {
            dir: disk.place().to_owned(),
            what: "open the target's records",
            source,
        })?;
        let event = |event| options.metrics.counter("pvfs_iod_object_cache_total", &[("event", event)]);
        let counters = CacheCounters { hits: event("hit"), misses: event("miss"), evictions: event("evict") };
        let store = Store {
            has_predecessor: !before.clean && before.boot == ledger.boot(),
            commits: Commits::new(ledger.run(), before.clean),
            mending: Mending::default(),
            noteless: AtomicBool::new(false),
            ledger,
            board: options.board.clone(),
            syncing,
            cache: Cache::new(options.open_objects_max, counters),
            tombstones: Mutex::new(Tombstones::new(TOMBSTONES_MAX)),
            durable_shards: (0..SHARDS).map(|_| AtomicBool::new(false)).collect(),
            identity,
            membership: Mutex::new(membership),
            mgr_time_at_open,
            mgr_time_file,
            _lock: lock,
            disk,
        };
        if store.ledger.is_unmended() {
            store.mending.add_all();
        }
        if let Some(interrupted) = interrupted {
            blocking(|| store.settle(&interrupted))?;
        }
        Ok(store)
    }

    /// What [`StoreOptions::board`] was.
    pub fn board(&self) -> Option<&Arc<Board>> {
        self.board.as_ref()
    }

    /// Syncs everything and notes that nothing is missing. Nobody may write to the store any more; what is written after
    /// this all the same is not covered by the generation.
    ///
    /// # Errors
    /// After an error the target counts as not closed: if the machine stops, its generation will be raised.
    pub fn close(&self) -> Result<(), StoreError> {
        let _turn = self.commits.turn();
        self.mend_all()?;
        self.sync_all()?;
        self.ledger.close()
    }

    fn sync_all(&self) -> Result<(), StoreError> {
        let _sync = self.begin_sync(Extent::All)?;
        self.disk.sync_all().map_err(|source| {
            // Nobody says which objects it was.
            self.cache
                .all()
                .iter()
                .filter(|handle| !handle.unsynced().is_empty())
                .for_each(|h| self.mending.add(h));
            self.failed_somewhere(&source);
            self.io("sync the target", source)
        })
    }

    /// Makes durable what was written to all objects before the call. Gives the mark up to which all is durable now.
    ///
    /// # Errors
    /// After an error bytes may be lost, and the store generation is raised.
    pub fn commit(&self) -> Result<u64, StoreError> {
        blocking(|| {
            let wanted = self.commits.mark();
            let _turn = self.commits.turn();
            let committed = self.commits.committed();
            if committed >= wanted {
                // Another caller's commit began after this call and has covered it.
                return Ok(committed);
            }
            self.mend_all()?;
            let (mark, dirty) = self.commits.begin();
            let synced = match dirty {
                Dirty::Few(handles) => {
                    let synced = self.begin_sync(Extent::Objects).and_then(|_sync| {
                        handles.iter().try_for_each(|handle| self.sync_handle(handle, None))
                    });
                    drop(handles);
                    self.cache.trim();
                    synced
                }
                Dirty::Many => self.sync_all(),
            };
            synced.and_then(|()| self.ledger.save()).inspect_err(|_| self.commits.failed())?;
            self.commits.end(mark);
            self.ledger.mended(|| self.mending.is_done());
            Ok(mark)
        })
    }

    /// All up to this mark is durable, as long as [`Store::generation`], asked *after* this, is not newer than what was
    /// acknowledged.
    pub fn committed(&self) -> u64 {
        self.commits.committed()
    }

    /// Bytes written since the last commit began.
    pub fn uncommitted_bytes(&self) -> u64 {
        self.commits.bytes()
    }

    /// Whether a commit would have anything to do.
    pub fn is_dirty(&self) -> bool {
        self.commits.is_dirty()
    }

    pub fn dir(&self) -> &Path {
        self.disk.place()
    }

    pub fn uuid(&self) -> TargetUuid {
        self.identity.target
    }

    /// The store generation; see [`Store`].
    pub fn generation(&self) -> u64 {
        self.ledger.generation()
    }

    /// The store generation, once it covers all losses known until now.
    ///
    /// # Errors
    /// The disk does not take a raised generation: what was acknowledged under [`Store::generation`] may be lost.
    pub fn settled_generation(&self) -> Result<u64, StoreError> {
        if self.ledger.is_raised() { self.ledger.save() } else { Ok(self.generation()) }
    }

    /// The run of the machine.
    pub fn boot(&self) -> u64 {
        self.ledger.boot()
    }

    pub fn usage(&self) -> Result<Usage, StoreError> {
        self.disk.usage().map_err(|source| self.io("read the capacity", source))
    }

    /// The number the mgr gave this target; `None` as long as it never joined.
    pub fn target_id(&self) -> Option<TargetId> {
        *self.membership.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps the number that the mgr told, durably.
    ///
    /// # Errors
    /// [`StoreError::OtherTargetId`] when it was told another one before.
    pub fn join(&self, told: TargetId) -> Result<(), StoreError> {
        let mut membership = self.membership.lock().unwrap_or_else(PoisonError::into_inner);
        match *membership {
            Some(found) if found == told => Ok(()),
            Some(found) => Err(StoreError::OtherTargetId { dir: self.dir().to_owned(), found, told }),
            None => {
                let record = Membership { target: self.identity.target, id: told };
                small_files::store(&*self.disk, Membership::FILE, &record.encode())?;
                *membership = Some(told);
                Ok(())
            }
        }
    }

    /// The mgr time in milliseconds that this target had followed when it was opened: leases that ended before it stay
    /// refused. `None`: unknown, because the machine died.
    pub fn mgr_time_at_open(&self) -> Option<u64> {
        self.mgr_time_at_open
    }

    /// Remembers the mgr time for a process that may come after this one. Not durable by itself.
    pub fn follow_mgr_time(&self, time_ms: u64) -> Result<(), StoreError> {
        let text = MgrTime { boot: self.boot(), time_ms }.encode();
        self.mgr_time_file
            .write_at(text.as_bytes(), 0)
            .map_err(|source| self.io("write the followed mgr time", source))
    }

    pub(crate) fn io(&self, what: &'static str, source: io::Error) -> StoreError {
        StoreError::Io { dir: self.dir().to_owned(), what, source }
    }
}

fn load_membership(disk: &dyn Disk, identity: &Identity) -> Result<Option<TargetId>, StoreError> {
    let Some(bytes) = small_files::load(disk, Membership::FILE)? else { return Ok(None) };
    let file = Membership::FILE;
    let dir = || disk.place().to_owned();
    let record =
        Membership::decode(&bytes).map_err(|source| StoreError::Damaged { dir: dir(), file, source })?;
    if record.target != identity.target {
        let (found, wanted) = (record.target, identity.target);
        return Err(StoreError::OtherTarget { dir: dir(), file, found, wanted });
    }
    Ok(Some(record.id))
}
