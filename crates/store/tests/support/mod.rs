//! What the store's tests share: a target in a temporary directory, and a disk with faults.

#![allow(dead_code, reason = "each test file uses its part")]

use pvfs_env::{
    disk::{Disk, DiskFile, DiskLock, FileStat, RealDisk, Usage},
    memory::Board,
};
use pvfs_store::{ObjectRun, Store, StoreOptions, Write, format_target};
use pvfs_types::{DataGen, FsId, Ino, ObjectId, ObjectOffset, Slot};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
};

pub const FS: FsId = FsId([7; 16]);

pub fn id(ino: u64) -> ObjectId {
    ObjectId { ino: Ino(ino), data_gen: DataGen(0), slot: Slot(0) }
}

pub fn run(offset: u64, len: usize) -> ObjectRun {
    ObjectRun { offset: ObjectOffset(offset), len }
}

/// A write to `runs` by the one writer of most tests.
pub fn writes(runs: &[ObjectRun]) -> Write<'_> {
    Write { runs, writer: 1, again: None, makes: true }
}

/// A formatted target.
pub struct TempTarget(pub tempfile::TempDir);

impl TempTarget {
    pub fn new() -> TempTarget {
        let dir = tempfile::tempdir().expect("a temporary directory");
        format_target(dir.path(), FS).expect("formats");
        TempTarget(dir)
    }

    pub fn path(&self) -> &Path {
        self.0.path()
    }

    pub fn open(&self) -> Store {
        Store::open(self.path(), FS, &StoreOptions::default()).expect("opens")
    }

    pub fn open_faulty(&self) -> (Store, Arc<Faults>) {
        let faults = Arc::new(Faults::default());
        (self.open_with(&faults), faults)
    }

    pub fn open_with(&self, faults: &Arc<Faults>) -> Store {
        self.open_showing(faults, None)
    }

    pub fn open_showing(&self, faults: &Arc<Faults>, board: Option<Arc<Board>>) -> Store {
        faults.is_dead.store(false, Ordering::SeqCst);
        let disk = FaultyDisk {
            real: RealDisk::open(self.path()).expect("is there"),
            faults: Arc::clone(faults),
            tells: faults.untold.swap(false, Ordering::SeqCst).into(),
        };
        let options = StoreOptions { board, ..StoreOptions::default() };
        Store::open_disk(Arc::new(disk), FS, &options).expect("opens")
    }
}

/// What goes wrong on a [`FaultyDisk`], and what was asked of it.
#[derive(Default)]
pub struct Faults {
    /// Added to the boot id: another value is another run of the machine.
    pub boots: AtomicU64,
    /// Files and directories whose next sync fails, by the end of their name.
    pub sync_fails: Mutex<Vec<&'static str>>,
    /// Every sync, by name.
    pub synced: Mutex<Vec<String>>,
    /// Every write to an object, as offset and bytes.
    pub written: Mutex<Vec<(u64, Vec<u8>)>>,
    /// How often files were cut.
    pub cuts: AtomicU64,
    /// The process is killed in the next sync of an object or of all, whether that fails or not.
    pub dies_in_next_sync: AtomicBool,
    /// It was: nothing that it does has any effect.
    is_dead: AtomicBool,
    /// An object's sync failed. As Linux has it, a sync of all by whoever opens the disk next tells of that too, once.
    untold: AtomicBool,
}

impl Faults {
    pub fn fail_next_sync_of(&self, name_end: &'static str) {
        self.sync_fails.lock().unwrap().push(name_end);
    }

    pub fn take_synced(&self) -> Vec<String> {
        std::mem::take(&mut self.synced.lock().unwrap())
    }

    fn sync(&self, name: &str, sync: impl FnOnce() -> io::Result<()>) -> io::Result<()> {
        self.alive()?;
        self.synced.lock().unwrap().push(name.to_owned());
        let synced = if self.takes_failure(name) {
            self.untold.fetch_or(name.ends_with(".0000"), Ordering::SeqCst);
            Err(io::Error::from_raw_os_error(5))
        } else {
            sync()
        };
        if (name == "*" || name.ends_with(".0000")) && self.dies_in_next_sync.swap(false, Ordering::SeqCst) {
            self.is_dead.store(true, Ordering::SeqCst);
        }
        synced
    }

    fn takes_failure(&self, name: &str) -> bool {
        let mut fails = self.sync_fails.lock().unwrap();
        let place = fails.iter().position(|end| name.ends_with(end));
        place.map(|at| fails.remove(at)).is_some()
    }

    fn alive(&self) -> io::Result<()> {
        if self.is_dead.load(Ordering::SeqCst) {
            Err(io::Error::other("the process is dead"))
        } else {
            Ok(())
        }
    }
}

struct FaultyDisk {
    real: RealDisk,
    faults: Arc<Faults>,
    /// Its next sync of all tells of what failed before.
    tells: AtomicBool,
}

struct FaultyFile {
    name: String,
    real: Box<dyn DiskFile>,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    fn wrap(&self, name: &str, real: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        Box::new(FaultyFile { name: name.to_owned(), real, faults: Arc::clone(&self.faults) })
    }
}

impl Disk for FaultyDisk {
    fn place(&self) -> &Path {
        self.real.place()
    }
    fn boot(&self) -> io::Result<u64> {
        Ok(self.real.boot()?.wrapping_add(self.faults.boots.load(Ordering::SeqCst)))
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(name, self.real.open(name)?))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        self.faults.alive()?;
        Ok(self.wrap(name, self.real.create(name)?))
    }
    fn stat(&self, name: &str) -> io::Result<FileStat> {
        self.real.stat(name)
    }
    fn make_dir(&self, name: &str) -> io::Result<()> {
        self.real.make_dir(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.faults.alive()?;
        self.real.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.faults.alive()?;
        self.real.rename(from, to)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.faults.sync(dir, || self.real.sync_dir(dir))
    }
    fn sync_all(&self) -> io::Result<()> {
        let is_told = self.tells.swap(false, Ordering::SeqCst);
        self.faults.sync("*", || if is_told { Err(io::Error::from_raw_os_error(5)) } else { Ok(()) })
    }
    fn usage(&self) -> io::Result<Usage> {
        self.real.usage()
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.real.lock(name)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut bytes::BytesMut, len: usize, offset: u64) -> io::Result<usize> {
        self.real.read_at(buf, len, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        self.faults.alive()?;
        if self.name.contains('/') {
            self.faults.written.lock().unwrap().push((offset, bytes.to_vec()));
        }
        self.real.write_at(bytes, offset)
    }
    fn stat(&self) -> io::Result<FileStat> {
        self.real.stat()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.faults.alive()?;
        self.faults.cuts.fetch_add(1, Ordering::SeqCst);
        self.real.truncate(len)
    }
    fn sync(&self) -> io::Result<()> {
        self.faults.sync(&self.name, || self.real.sync())
    }
    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        self.real.note()
    }
    fn set_note(&self, note: &[u8]) -> io::Result<()> {
        self.faults.sync(&format!("{} note", self.name), || self.real.set_note(note))
    }
}

/// The files of a directory tree, for comparing before and after.
pub fn tree(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(dir).expect("a directory") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(tree(&path));
        }
        found.push(path);
    }
    found.sort();
    found
}
