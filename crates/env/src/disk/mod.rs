//! One target directory's disk as a seam: what a store needs of a file system, and no more.
//!
//! Calls block, and say so to the runtime themselves (see [`blocking`]). Names are relative to the directory, with
//! `/` between parts; they are the store's own, never a user's. Knows no formats.

mod real;

pub use real::{PassedFile, RealDisk, raise_descriptor_limit};

use crate::memory::SharedSlice;
use bytes::BytesMut;
use pvfs_types::Timestamp;
use std::{io, os::fd::OwnedFd, path::Path};

/// A directory on a disk.
pub trait Disk: Send + Sync + 'static {
    /// Where it is, for people.
    fn place(&self) -> &Path;

    /// Identifies this run of the machine that holds the page cache: another number means that whatever was not
    /// synced may be gone.
    fn boot(&self) -> io::Result<u64>;

    /// Opens an existing file to read and write.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    /// Opens a file to read and write, creating it when it is not there. Its directory must be.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;

    fn stat(&self, name: &str) -> io::Result<FileStat>;

    /// Makes a directory; one that is there already is fine.
    fn make_dir(&self, name: &str) -> io::Result<()>;

    /// Removes a file.
    fn remove(&self, name: &str) -> io::Result<()>;

    /// Renames a file over another one or none.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;

    /// The names in a directory (`""`: the target directory itself), in no order.
    fn list(&self, dir: &str) -> io::Result<Vec<String>>;

    /// Makes the names in a directory (`""`: the target directory itself) durable.
    fn sync_dir(&self, dir: &str) -> io::Result<()>;

    /// Makes everything written through this disk durable. Also tells of write-backs that failed since the last call.
    fn sync_all(&self) -> io::Result<()>;

    fn usage(&self) -> io::Result<Usage>;

    /// Takes a lock that no two processes hold at once, until the result is dropped; `WouldBlock` when it is held.
    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>>;
}

/// An open file. Any number of threads may use it at once.
pub trait DiskFile: Send + Sync {
    /// Appends to `buf` the file's bytes from `offset`, at most `len`; returns how many. Fewer only at the file's end.
    fn read_at(&self, buf: &mut BytesMut, len: usize, offset: u64) -> io::Result<usize>;

    /// Writes all of `bytes` at `offset`, growing the file where needed. After an error a part may be written.
    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()>;

    /// As [`DiskFile::read_at`], into memory that is shared.
    fn read_to(&self, to: &SharedSlice, offset: u64) -> io::Result<usize> {
        let mut bytes = BytesMut::new();
        let done = self.read_at(&mut bytes, to.len(), offset)?;
        to.part(0, done).copy_from(&bytes);
        Ok(done)
    }

    /// As [`DiskFile::write_at`], from memory that is shared.
    fn write_from(&self, from: &SharedSlice, offset: u64) -> io::Result<()> {
        let mut bytes = vec![0; from.len()];
        from.copy_to(&mut bytes);
        self.write_at(&bytes, offset)
    }

    fn stat(&self) -> io::Result<FileStat>;

    /// Sets the length.
    fn truncate(&self, len: u64) -> io::Result<()>;

    /// Makes the bytes from `offset` on zeros without space for them; never changes the length. `len` is not 0.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the disk cannot: nothing has changed.
    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Has space taken for the bytes from `offset` on; changes none, nor the length. `len` is not 0.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the disk cannot.
    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        let _ = (offset, len);
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Where data lies at `from` or next behind it; `None`: nowhere. A disk that cannot tell takes all for data.
    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        Ok((from < self.stat()?.len).then_some(from))
    }

    /// Where no data lies at `from` or next behind it: at the latest at the end.
    fn next_hole(&self, from: u64) -> io::Result<u64> {
        Ok(self.stat()?.len.max(from))
    }

    /// A descriptor of its own, for another process to read the file: see [`PassedFile`].
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where there is none to give.
    fn to_pass(&self) -> io::Result<OwnedFd> {
        Err(io::ErrorKind::Unsupported.into())
    }

    /// Makes the file's bytes and length durable. An error may be told once only: bytes may be lost for good.
    fn sync(&self) -> io::Result<()>;

    /// The note that [`DiskFile::set_note`] left with the file; `None` where there is none or can be none.
    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        Ok(None)
    }

    /// Keeps a few bytes beside the file's own, in place of those kept before; durable on return, together with all that
    /// [`DiskFile::sync`] makes durable.
    ///
    /// # Errors
    /// [`io::ErrorKind::Unsupported`] where the disk cannot keep any.
    fn set_note(&self, note: &[u8]) -> io::Result<()> {
        let _ = note;
        Err(io::ErrorKind::Unsupported.into())
    }
}

/// A lock held; dropping it gives it back.
pub trait DiskLock: Send + Sync {}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FileStat {
    /// In bytes.
    pub len: u64,
    /// In bytes.
    pub allocated: u64,
    pub mtime: Timestamp,
}

/// Capacity of the file system that holds the directory, in bytes. `free` is what an ordinary user may still take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    pub total: u64,
    pub free: u64,
    /// Tells that file system from others of this machine: directories with the same number share its room.
    pub device: u64,
}

/// Runs what may block the thread for long. On a multi-threaded runtime the other tasks of this worker move to another
/// thread first; on a current-thread runtime (the simulator's) or outside of any it just runs.
///
/// Not for tasks of a `LocalSet` on a multi-threaded runtime: there tokio panics.
pub fn blocking<T>(work: impl FnOnce() -> T) -> T {
    use tokio::runtime::{Handle, RuntimeFlavor};
    match Handle::try_current().map(|runtime| runtime.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => tokio::task::block_in_place(work),
        _ => work(),
    }
}
