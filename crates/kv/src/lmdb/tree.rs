//! LMDB itself: one data file in one directory, memory-mapped, copy-on-write pages.
//!
//! A kill -9 or a power loss at any moment leaves the state of the last commit; opening needs no recovery.

use crate::{
    ENGINE_KEY, KvError, Read, Visit,
    reserve::{RESERVE_BYTES, Reserve},
};
use heed::types::Bytes;
use heed::{Database, Env, EnvFlags, EnvOpenOptions, MdbError, RoTxn, WithoutTls};
use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::ops::Bound;
use std::os::fd::AsFd;
use std::path::Path;

/// Whether a commit waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// A commit that returned survives a power loss.
    Sync,
    /// A commit that returned survives the death of the process, not that of the machine; that may damage the
    /// store. For tests and throw-away file systems.
    NoSync,
}

/// How many snapshots may be held at once.
const READERS_MAX: u32 = 1024;
/// What LMDB takes for a page on every machine this runs on, or less.
const PAGE_BYTES: u64 = 4096;
const LOCK_FILE: &str = "pvfs.lock";

/// An LMDB environment.
///
/// On a full disk, commits go on out of a reserve (8 MiB), and [`Tree::is_short`] says so until it is whole again or the
/// store has as much free in its own file. A map that is used up has no reserve.
pub(super) struct Tree {
    // Dropped in this order: the lock goes last.
    env: Env<WithoutTls>,
    pairs: Database<Bytes, Bytes>,
    reserve: Reserve,
    lock: File,
}

impl Tree {
    /// Opens or makes the store in `dir`, to grow to `map_bytes` (rounded up to a page).
    ///
    /// # Errors
    /// [`KvError::InUse`]: another process, or another engine in this one, has it open.
    pub fn open(dir: &Path, map_bytes: usize, durability: Durability) -> Result<Tree, KvError> {
        let at = |what: &str| format!("{what} {}", dir.display());
        std::fs::create_dir_all(dir).map_err(|source| KvError::Io {
            what: at("cannot create the metadata store's directory"),
            source,
        })?;
        let lock = lock(dir)?;
        let reserve = Reserve::open(dir)
            .map_err(|source| KvError::Io { what: at("cannot keep space back in"), source })?;
        let page_bytes = rustix::param::page_size();
        let mut options = EnvOpenOptions::new().read_txn_without_tls();
        options.map_size(map_bytes.max(page_bytes).next_multiple_of(page_bytes));
        options.max_readers(READERS_MAX);
        if durability == Durability::NoSync {
            // SAFETY: NO_SYNC can damage the store when the machine dies, as `Durability::NoSync` says; it harms no memory.
            #[expect(unsafe_code, reason = "heed marks all flags unsafe")]
            unsafe {
                options.flags(EnvFlags::NO_SYNC);
            }
        }
        // SAFETY: a mapped file must not be changed by others. The lock above keeps out every other daemon, and this
        // process too, from opening it a second time.
        #[expect(unsafe_code, reason = "LMDB maps a file")]
        let env = unsafe { options.open(dir) }
            .map_err(|e| kv_error(e, &at("cannot open the metadata store in")))?;
        let mut txn =
            env.write_txn().map_err(|e| kv_error(e, &at("cannot write to the metadata store in")))?;
        let pairs = env
            .create_database::<Bytes, Bytes>(&mut txn, None)
            .map_err(|e| kv_error(e, &at("cannot open the metadata store in")))?;
        txn.commit().map_err(|e| kv_error(e, &at("cannot write to the metadata store in")))?;
        Ok(Tree { env, pairs, reserve, lock })
    }

    /// The number that the last commit gave; 0 in a new store.
    pub fn applied(&self) -> Result<u64, KvError> {
        let applied = self.snapshot()?.get(ENGINE_KEY)?;
        let Some(applied) = applied else { return Ok(0) };
        let applied = applied.try_into().map_err(|_| KvError::Corrupt {
            detail: "the number of the last commit cannot be read".to_owned(),
        })?;
        Ok(u64::from_be_bytes(applied))
    }

    /// Makes `changes` so, and `applied` the number that [`Tree::applied`] gives; or nothing of it. Durable on return.
    pub fn commit<'a, I>(&self, changes: impl Fn() -> I, applied: u64) -> Result<(), KvError>
    where
        I: Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
    {
        loop {
            let Err(error) = self.put_all(changes(), applied) else { return Ok(()) };
            let is_disk = matches!(error, heed::Error::Io(_));
            let error = match kv_error(error, "cannot write to the metadata store") {
                KvError::Io { source, .. } if self.disk_is_full() => {
                    KvError::Full { detail: format!("its disk has no space left: {source}") }
                }
                other => other,
            };
            if !(is_disk && matches!(error, KvError::Full { .. }) && self.reserve.take()) {
                return Err(error);
            }
        }
    }

    /// Whether only the reserve is left.
    pub fn is_short(&self) -> bool {
        if self.reserve.refill() {
            return false;
        }
        let file_bytes = self.env.real_disk_size().unwrap_or(0);
        self.used_bytes().is_ok_and(|used| file_bytes.saturating_sub(used) < RESERVE_BYTES)
    }

    fn put_all<'a>(
        &self,
        changes: impl Iterator<Item = (&'a [u8], Option<&'a [u8]>)>,
        applied: u64,
    ) -> Result<(), heed::Error> {
        let mut txn = self.env.write_txn()?;
        for (key, value) in changes {
            match value {
                Some(value) => self.pairs.put(&mut txn, key, value)?,
                None => {
                    self.pairs.delete(&mut txn, key)?;
                }
            }
        }
        self.pairs.put(&mut txn, ENGINE_KEY, &applied.to_be_bytes())?;
        txn.commit()
    }

    pub fn snapshot(&self) -> Result<TreeSnapshot<'_>, KvError> {
        let txn = self.env.read_txn().map_err(|e| kv_error(e, "cannot read the metadata store"))?;
        Ok(TreeSnapshot { txn, pairs: self.pairs })
    }

    /// By how much the store can surely grow, in its map and on its disk, in bytes.
    pub fn room_bytes(&self) -> u64 {
        let info = self.env.info();
        let used = (info.last_page_number as u64 + 1) * PAGE_BYTES;
        (info.map_size as u64).saturating_sub(used).min(self.disk_room_bytes())
    }

    /// About how many bytes the pairs take.
    pub fn used_bytes(&self) -> Result<u64, KvError> {
        let to_kv = |e| kv_error(e, "cannot read the metadata store");
        let txn = self.env.read_txn().map_err(to_kv)?;
        let stat = self.pairs.stat(&txn).map_err(to_kv)?;
        let pages = stat.branch_pages + stat.leaf_pages + stat.overflow_pages;
        Ok(pages as u64 * u64::from(stat.page_size))
    }

    fn disk_room_bytes(&self) -> u64 {
        rustix::fs::fstatvfs(self.lock.as_fd()).map_or(0, |fs| fs.f_bavail * fs.f_frsize)
    }

    /// A full disk can show as a short write, which LMDB reports as EIO: tells the two apart by the free space.
    fn disk_is_full(&self) -> bool {
        const FREE_BYTES_MIN: u64 = 1 << 20;
        self.disk_room_bytes() < FREE_BYTES_MIN
    }
}

/// Takes the lock that says "one daemon at a time". The kernel drops it with the process.
fn lock(dir: &Path) -> Result<File, KvError> {
    let path = dir.join(LOCK_FILE);
    let io_error = |source| KvError::Io { what: format!("cannot lock {}", path.display()), source };
    let file = OpenOptions::new().create(true).truncate(false).write(true).open(&path).map_err(io_error)?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(KvError::InUse { dir: dir.to_path_buf() }),
        Err(TryLockError::Error(source)) => Err(io_error(source)),
    }
}

/// What LMDB held when this was taken.
pub(super) struct TreeSnapshot<'a> {
    txn: RoTxn<'a, WithoutTls>,
    pairs: Database<Bytes, Bytes>,
}

impl Read for TreeSnapshot<'_> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        match self.pairs.get(&self.txn, key) {
            Ok(value) => Ok(value.map(<[u8]>::to_vec)),
            Err(error) => Err(kv_error(error, "cannot read the metadata store")),
        }
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        if from >= to {
            return Ok(());
        }
        let to_kv = |e| kv_error(e, "cannot read the metadata store");
        let bounds = (Bound::Included(from), Bound::Excluded(to));
        for pair in self.pairs.range(&self.txn, &bounds).map_err(to_kv)? {
            let (key, value) = pair.map_err(to_kv)?;
            if key != ENGINE_KEY && visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

fn kv_error(error: heed::Error, what: &str) -> KvError {
    match error {
        heed::Error::Io(source)
            if matches!(source.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded) =>
        {
            KvError::Full { detail: format!("its disk has no space left: {source}") }
        }
        heed::Error::Io(source) => KvError::Io { what: what.to_owned(), source },
        heed::Error::Mdb(MdbError::MapFull) => KvError::Full { detail: "its map is used up".to_owned() },
        heed::Error::Mdb(
            e @ (MdbError::PageNotFound
            | MdbError::Corrupted
            | MdbError::Panic
            | MdbError::VersionMismatch
            | MdbError::Invalid
            | MdbError::Incompatible),
        ) => KvError::Corrupt { detail: format!("{what}: {e}") },
        other => KvError::Engine { detail: format!("{what}: {other}") },
    }
}
