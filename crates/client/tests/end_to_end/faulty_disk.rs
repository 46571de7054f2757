//! A real disk whose syncs, writes and reads of objects fail when the test says so.

use bytes::BytesMut;
use pvfs_env::disk::{Disk, DiskFile, DiskLock, FileStat, RealDisk, Usage};
use std::{
    io,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
};

const FOR_EVER: u32 = u32::MAX;

/// How many of the next operations fail.
#[derive(Default)]
pub struct Faults {
    syncs: AtomicU32,
    writes: AtomicU32,
    reads: AtomicU32,
    /// Writes that do not fail first.
    spared: AtomicU32,
}

impl Faults {
    pub fn fail_next_sync(&self) {
        self.syncs.store(1, Ordering::SeqCst);
    }

    pub fn fail_syncs(&self) {
        self.syncs.store(FOR_EVER, Ordering::SeqCst);
    }

    pub fn fail_next_write(&self) {
        self.writes.store(1, Ordering::SeqCst);
    }

    pub fn fail_the_write_after_next(&self) {
        self.spared.store(1, Ordering::SeqCst);
        self.fail_next_write();
    }

    pub fn fail_writes(&self) {
        self.writes.store(FOR_EVER, Ordering::SeqCst);
    }

    pub fn fail_reads(&self) {
        self.reads.store(FOR_EVER, Ordering::SeqCst);
    }

    pub fn heal(&self) {
        self.syncs.store(0, Ordering::SeqCst);
        self.writes.store(0, Ordering::SeqCst);
        self.reads.store(0, Ordering::SeqCst);
    }
}

fn check(left: &AtomicU32, errno: i32) -> io::Result<()> {
    let take = |left| match left {
        0 => None,
        FOR_EVER => Some(FOR_EVER),
        left => Some(left - 1),
    };
    match left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take) {
        Ok(_) => Err(io::Error::from_raw_os_error(errno)),
        Err(_) => Ok(()),
    }
}

pub struct FaultyDisk {
    real: RealDisk,
    faults: Arc<Faults>,
}

struct FaultyFile {
    real: Box<dyn DiskFile>,
    /// The target's own records are spared.
    is_object: bool,
    faults: Arc<Faults>,
}

impl FaultyDisk {
    pub fn new(dir: &Path, faults: &Arc<Faults>) -> FaultyDisk {
        FaultyDisk { real: RealDisk::open(dir).unwrap(), faults: Arc::clone(faults) }
    }

    fn wrap(&self, name: &str, real: Box<dyn DiskFile>) -> Box<dyn DiskFile> {
        let is_object = name.starts_with("objects/");
        Box::new(FaultyFile { real, is_object, faults: Arc::clone(&self.faults) })
    }
}

impl Disk for FaultyDisk {
    fn place(&self) -> &Path {
        self.real.place()
    }
    fn boot(&self) -> io::Result<u64> {
        self.real.boot()
    }
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(name, self.real.open(name)?))
    }
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        Ok(self.wrap(name, self.real.create(name)?))
    }
    fn stat(&self, name: &str) -> io::Result<FileStat> {
        self.real.stat(name)
    }
    fn make_dir(&self, name: &str) -> io::Result<()> {
        self.real.make_dir(name)
    }
    fn remove(&self, name: &str) -> io::Result<()> {
        self.real.remove(name)
    }
    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.real.rename(from, to)
    }
    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.real.list(dir)
    }
    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.real.sync_dir(dir)
    }
    fn sync_all(&self) -> io::Result<()> {
        check(&self.faults.syncs, 5)?;
        // The machine's other files are not this test's to wait for.
        Ok(())
    }
    fn usage(&self) -> io::Result<Usage> {
        self.real.usage()
    }
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        self.real.lock(name)
    }
}

impl DiskFile for FaultyFile {
    fn read_at(&self, buf: &mut BytesMut, len: usize, offset: u64) -> io::Result<usize> {
        if self.is_object {
            check(&self.faults.reads, 5)?;
        }
        self.real.read_at(buf, len, offset)
    }
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        if self.is_object && check(&self.faults.spared, 0).is_ok() {
            check(&self.faults.writes, 28)?;
        }
        self.real.write_at(bytes, offset)
    }
    fn stat(&self) -> io::Result<FileStat> {
        self.real.stat()
    }
    fn truncate(&self, len: u64) -> io::Result<()> {
        self.real.truncate(len)
    }
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.real.punch(offset, len)
    }
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.real.allocate(offset, len)
    }
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        self.real.next_data(from)
    }
    fn next_hole(&self, from: u64) -> io::Result<u64> {
        self.real.next_hole(from)
    }
    fn sync(&self) -> io::Result<()> {
        if self.is_object {
            check(&self.faults.syncs, 5)?;
        }
        self.real.sync()
    }
    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        self.real.note()
    }
    fn set_note(&self, note: &[u8]) -> io::Result<()> {
        self.sync()?;
        self.real.set_note(note)
    }
}
