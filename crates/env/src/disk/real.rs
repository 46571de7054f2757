//! The real disk: a directory of the local file system.

use super::{Disk, DiskFile, DiskLock, FileStat, Usage, blocking};
use crate::memory::SharedSlice;
use bytes::BytesMut;
use pvfs_types::Timestamp;
use rustix::{
    fd::{AsRawFd, OwnedFd},
    fs::{self, AtFlags, CWD, FallocateFlags, FlockOperation, Mode, OFlags, SeekFrom},
    io::Errno,
    process::{Resource, Rlimit, getrlimit, setrlimit},
};
use std::{
    io,
    path::{Path, PathBuf},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Writes from this many bytes on leave the async worker: about what a page-cache copy of some 10 µs takes.
const WRITE_BYTES_INLINE_MAX: usize = 64 << 10;
/// `f_type` of tmpfs, see statfs(2): its files never wait for a device.
const TMPFS_MAGIC: u64 = 0x0102_1994;

/// Where Linux says which run of the machine this is.
const BOOT_ID_FILE: &str = "/proc/sys/kernel/random/boot_id";
/// The extended attribute that holds a file's note.
const NOTE: &str = "user.pvfs.note";
/// Longer notes are not ours.
const NOTE_BYTES_MAX: usize = 256;

/// A directory, held open: it stays the same one even when it is renamed or mounted over.
pub struct RealDisk {
    path: PathBuf,
    boot_id: PathBuf,
    dir: OwnedFd,
    traits: Arc<Traits>,
}

/// What the file system under a disk is like.
struct Traits {
    /// Its files are memory.
    memory: bool,
    /// It cannot say whether a read would wait (`RWF_NOWAIT`); learned from the first answer.
    no_nowait: AtomicBool,
}

struct RealFile {
    fd: OwnedFd,
    traits: Arc<Traits>,
}

/// A file that another process has opened for this one, to read what need not be waited for.
pub struct PassedFile(RealFile);

struct RealLock {
    /// Closing it gives the lock back.
    _fd: OwnedFd,
}

impl Traits {
    fn of(file: &OwnedFd) -> io::Result<Traits> {
        let kind = fs::fstatfs(file)?.f_type;
        let memory = u64::try_from(kind).is_ok_and(|kind| kind == TMPFS_MAGIC);
        Ok(Traits { memory, no_nowait: AtomicBool::new(false) })
    }
}

impl RealDisk {
    /// Opens the existing directory `path`.
    pub fn open(path: &Path) -> io::Result<RealDisk> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let dir = fs::openat(CWD, path, flags, Mode::empty())?;
        let traits = Arc::new(Traits::of(&dir)?);
        Ok(RealDisk { path: path.to_owned(), boot_id: BOOT_ID_FILE.into(), dir, traits })
    }

    /// Lets the run of the machine be read from `file` instead of from the kernel: for a machine whose disks outlive less
    /// than the kernel does, and for tests.
    #[must_use]
    pub fn with_boot_id(mut self, file: &Path) -> RealDisk {
        file.clone_into(&mut self.boot_id);
        self
    }

    fn open_file(&self, name: &str, more: OFlags) -> io::Result<OwnedFd> {
        let flags = OFlags::RDWR | OFlags::CLOEXEC | OFlags::NOFOLLOW | more;
        Ok(fs::openat(&self.dir, name, flags, Mode::RUSR | Mode::WUSR)?)
    }

    fn open_dir(&self, name: &str) -> io::Result<OwnedFd> {
        let name = if name.is_empty() { "." } else { name };
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok(fs::openat(&self.dir, name, flags, Mode::empty())?)
    }
}

impl Disk for RealDisk {
    fn place(&self) -> &Path {
        &self.path
    }

    fn boot(&self) -> io::Result<u64> {
        let text = std::fs::read_to_string(&self.boot_id)?;
        let hex: String = text.trim().chars().filter(|&c| c != '-').take(16).collect();
        u64::from_str_radix(&hex, 16).map_err(|e| io::Error::new(io::ErrorKind::InvalidData, e))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let fd = self.open_file(name, OFlags::empty())?;
        Ok(Box::new(RealFile { fd, traits: Arc::clone(&self.traits) }))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let fd = self.open_file(name, OFlags::CREATE)?;
        Ok(Box::new(RealFile { fd, traits: Arc::clone(&self.traits) }))
    }

    fn stat(&self, name: &str) -> io::Result<FileStat> {
        Ok(file_stat(&fs::statat(&self.dir, name, AtFlags::SYMLINK_NOFOLLOW)?))
    }

    fn make_dir(&self, name: &str) -> io::Result<()> {
        match fs::mkdirat(&self.dir, name, Mode::RWXU) {
            Ok(()) | Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        Ok(fs::unlinkat(&self.dir, name, AtFlags::empty())?)
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        Ok(fs::renameat(&self.dir, from, &self.dir, to)?)
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in fs::Dir::read_from(self.open_dir(dir)?)? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name != "." && name != ".." {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        let dir = self.open_dir(dir)?;
        Ok(blocking(|| fs::fsync(&dir))?)
    }

    fn sync_all(&self) -> io::Result<()> {
        Ok(blocking(|| fs::syncfs(&self.dir))?)
    }

    fn usage(&self) -> io::Result<Usage> {
        let stat = fs::fstatvfs(&self.dir)?;
        Ok(Usage {
            total: stat.f_blocks.saturating_mul(stat.f_frsize),
            free: stat.f_bavail.saturating_mul(stat.f_frsize),
            device: fs::fstat(&self.dir)?.st_dev,
        })
    }

    fn lock(&self, name: &str) -> io::Result<Box<dyn DiskLock>> {
        let fd = self.open_file(name, OFlags::CREATE)?;
        fs::flock(&fd, FlockOperation::NonBlockingLockExclusive)?;
        Ok(Box::new(RealLock { _fd: fd }))
    }
}

impl DiskFile for RealFile {
    #[expect(
        unsafe_code,
        reason = "reads into memory that is not initialised yet, to save clearing it first"
    )]
    fn read_at(&self, buf: &mut BytesMut, len: usize, offset: u64) -> io::Result<usize> {
        buf.reserve(len);
        let room = buf.spare_capacity_mut();
        // SAFETY: spare capacity of `buf`, borrowed exclusively, which is `len` or more.
        let done = unsafe { self.read_raw(room.as_mut_ptr().cast(), len, offset) }?;
        // SAFETY: the kernel has initialised so many bytes of it.
        unsafe { buf.set_len(buf.len() + done) };
        Ok(done)
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        // SAFETY: `bytes` is borrowed as long as that.
        #[expect(unsafe_code, reason = "hands borrowed bytes to the kernel")]
        unsafe {
            self.write_raw(bytes.as_ptr(), bytes.len(), offset)
        }
    }

    fn read_to(&self, to: &SharedSlice, offset: u64) -> io::Result<usize> {
        // SAFETY: the slice keeps its memory mapped; nobody here holds a reference to it.
        #[expect(unsafe_code, reason = "hands memory that is shared to the kernel")]
        unsafe {
            self.read_raw(to.pointer(), to.len(), offset)
        }
    }

    fn write_from(&self, from: &SharedSlice, offset: u64) -> io::Result<()> {
        // SAFETY: the slice keeps its memory mapped; whatever the bytes are when the kernel takes them, they are written.
        #[expect(unsafe_code, reason = "hands memory that is shared to the kernel")]
        unsafe {
            self.write_raw(from.pointer(), from.len(), offset)
        }
    }

    fn stat(&self) -> io::Result<FileStat> {
        Ok(file_stat(&fs::fstat(&self.fd)?))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        Ok(blocking(|| fs::ftruncate(&self.fd, len))?)
    }

    fn punch(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn allocate(&self, offset: u64, len: u64) -> io::Result<()> {
        self.fallocate(FallocateFlags::KEEP_SIZE, offset, len)
    }

    fn next_data(&self, from: u64) -> io::Result<Option<u64>> {
        match fs::seek(&self.fd, SeekFrom::Data(from)) {
            Ok(at) => Ok(Some(at)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok((from < self.stat()?.len).then_some(from)),
            Err(error) => Err(error.into()),
        }
    }

    fn next_hole(&self, from: u64) -> io::Result<u64> {
        match fs::seek(&self.fd, SeekFrom::Hole(from)) {
            Ok(at) => Ok(at),
            Err(Errno::NXIO) => Ok(from),
            Err(Errno::INVAL | Errno::OPNOTSUPP) => Ok(self.stat()?.len.max(from)),
            Err(error) => Err(error.into()),
        }
    }

    fn to_pass(&self) -> io::Result<OwnedFd> {
        // Not a duplicate: that could be written to.
        let path = format!("/proc/self/fd/{}", self.fd.as_raw_fd());
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        fs::open(path, flags, Mode::empty()).map_err(|error| match error {
            // No /proc here.
            Errno::NOENT => io::ErrorKind::Unsupported.into(),
            error => error.into(),
        })
    }

    fn sync(&self) -> io::Result<()> {
        Ok(blocking(|| fs::fdatasync(&self.fd))?)
    }

    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        let mut note = [0; NOTE_BYTES_MAX];
        match fs::fgetxattr(&self.fd, NOTE, &mut note) {
            Ok(len) => Ok(Some(note[..len].to_vec())),
            Err(Errno::NODATA | Errno::OPNOTSUPP) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// fdatasync(2) does not cover attributes.
    fn set_note(&self, note: &[u8]) -> io::Result<()> {
        fs::fsetxattr(&self.fd, NOTE, note, fs::XattrFlags::empty())?;
        Ok(blocking(|| fs::fsync(&self.fd))?)
    }
}

impl DiskLock for RealLock {}

impl PassedFile {
    pub fn new(fd: OwnedFd) -> io::Result<PassedFile> {
        let traits = Arc::new(Traits::of(&fd)?);
        Ok(PassedFile(RealFile { fd, traits }))
    }

    /// Its length in bytes; `None`: it was removed.
    pub fn len(&self) -> io::Result<Option<u64>> {
        let stat = fs::fstat(&self.0.fd)?;
        Ok((stat.st_nlink > 0).then(|| u64::try_from(stat.st_size).unwrap_or(0)))
    }

    /// Appends the `len` bytes from `offset` to `buf`.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`]: not all of them are in memory, or there. What was appended is of no meaning.
    #[expect(unsafe_code, reason = "reads into memory that is not initialised yet")]
    pub fn read_at(&self, buf: &mut BytesMut, len: usize, offset: u64) -> io::Result<()> {
        buf.reserve(len);
        let room = buf.spare_capacity_mut();
        // SAFETY: spare capacity of `buf`, borrowed exclusively, which is `len` or more.
        unsafe { self.read_raw(room.as_mut_ptr().cast(), len, offset) }?;
        // SAFETY: the kernel has initialised so many bytes of it.
        unsafe { buf.set_len(buf.len() + len) };
        Ok(())
    }

    /// As [`PassedFile::read_at`], as many bytes as `to` is long.
    pub fn read_to(&self, to: &SharedSlice, offset: u64) -> io::Result<()> {
        // SAFETY: the slice keeps its memory mapped; nobody here holds a reference to it.
        #[expect(unsafe_code, reason = "hands memory that is shared to the kernel")]
        unsafe {
            self.read_raw(to.pointer(), to.len(), offset)
        }
    }

    /// # Safety
    /// `to` is good for writing `len` bytes.
    #[expect(unsafe_code, reason = "a system call on memory that may not be initialised, or is shared")]
    unsafe fn read_raw(&self, to: *mut u8, len: usize, offset: u64) -> io::Result<()> {
        let flags = if self.0.traits.memory { 0 } else { libc::RWF_NOWAIT };
        // SAFETY: as promised to this function.
        let done = unsafe { self.0.read_some(to, len, offset, flags) }?;
        if done == len { Ok(()) } else { Err(io::ErrorKind::WouldBlock.into()) }
    }
}

impl RealFile {
    /// Tries the page cache first; only where the bytes are not there does the thread wait for the device.
    ///
    /// # Safety
    /// `to` is good for writing `len` bytes.
    #[expect(unsafe_code, reason = "system calls on memory that may not be initialised, or is shared")]
    unsafe fn read_raw(&self, to: *mut u8, len: usize, offset: u64) -> io::Result<usize> {
        // SAFETY: as promised to this function; `done` is never more than `len`.
        let some = |done: usize, flags| unsafe {
            self.read_some(to.add(done), len - done, offset + done as u64, flags)
        };
        let mut done = 0;
        let no_nowait = self.traits.memory || self.traits.no_nowait.load(Ordering::Relaxed);
        if !no_nowait {
            match some(0, libc::RWF_NOWAIT) {
                Ok(0) => return Ok(0),
                Ok(n) => done = n,
                Err(error) => match error.raw_os_error() {
                    Some(libc::EOPNOTSUPP) => self.traits.no_nowait.store(true, Ordering::Relaxed),
                    Some(libc::EAGAIN | libc::EINTR) => {}
                    _ => return Err(error),
                },
            }
        }
        if done == len {
            return Ok(done);
        }
        let mut rest = || {
            while done < len {
                match some(done, 0) {
                    Ok(0) => break,
                    Ok(n) => done += n,
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            Ok(done)
        };
        if self.traits.memory { rest() } else { blocking(rest) }
    }

    /// One preadv2(2) of at most `len` bytes.
    ///
    /// # Safety
    /// `to` is good for writing `len` bytes.
    #[expect(unsafe_code, reason = "a system call on memory that may not be initialised, or is shared")]
    unsafe fn read_some(
        &self,
        to: *mut u8,
        len: usize,
        offset: u64,
        flags: libc::c_int,
    ) -> io::Result<usize> {
        let offset = i64::try_from(offset).map_err(|_| io::Error::from(Errno::OVERFLOW))?;
        let iov = libc::iovec { iov_base: to.cast(), iov_len: len };
        // SAFETY: as promised to this function; the kernel only writes there. The descriptor is open as long as `self` is.
        let n = unsafe { libc::preadv2(self.fd.as_raw_fd(), &raw const iov, 1, offset, flags) };
        usize::try_from(n).map_err(|_| io::Error::last_os_error())
    }

    /// # Safety
    /// `from` is good for reading `len` bytes.
    #[expect(unsafe_code, reason = "system calls on memory that may be shared")]
    unsafe fn write_raw(&self, from: *const u8, len: usize, offset: u64) -> io::Result<()> {
        let write = || {
            let mut done = 0;
            while done < len {
                let at = i64::try_from(offset + done as u64).map_err(|_| io::Error::from(Errno::OVERFLOW))?;
                // SAFETY: as promised to this function, and `done < len`. The descriptor is open as long as `self` is.
                let n = unsafe { libc::pwrite(self.fd.as_raw_fd(), from.add(done).cast(), len - done, at) };
                match usize::try_from(n) {
                    Ok(0) => return Err(Errno::IO.into()),
                    Ok(n) => done += n,
                    Err(_) => match io::Error::last_os_error() {
                        error if error.kind() == io::ErrorKind::Interrupted => {}
                        error => return Err(error),
                    },
                }
            }
            Ok(())
        };
        if self.traits.memory || len < WRITE_BYTES_INLINE_MAX { write() } else { blocking(write) }
    }

    fn fallocate(&self, flags: FallocateFlags, offset: u64, len: u64) -> io::Result<()> {
        blocking(|| fs::fallocate(&self.fd, flags, offset, len)).map_err(|error| match error {
            Errno::OPNOTSUPP | Errno::NOSYS => io::ErrorKind::Unsupported.into(),
            error => error.into(),
        })
    }
}

/// Raises this process's limit of open descriptors as far as it may by itself; returns the limit then.
pub fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
    let current = if setrlimit(Resource::Nofile, raised).is_ok() { limit.maximum } else { limit.current };
    current.unwrap_or(u64::MAX)
}

fn file_stat(stat: &fs::Stat) -> FileStat {
    FileStat {
        len: u64::try_from(stat.st_size).unwrap_or(0),
        allocated: u64::try_from(stat.st_blocks).unwrap_or(0).saturating_mul(512),
        mtime: Timestamp { secs: stat.st_mtime, nanos: u32::try_from(stat.st_mtime_nsec).unwrap_or(0) },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct TempDir(PathBuf);

    impl TempDir {
        fn new(name: &str) -> TempDir {
            let path = std::env::temp_dir().join(format!("pvfs-env-disk-{}-{name}", std::process::id()));
            std::fs::create_dir_all(&path).expect("a temporary directory");
            TempDir(path)
        }
    }

    impl Drop for TempDir {
        fn drop(&mut self) {
            let _ = std::fs::remove_dir_all(&self.0);
        }
    }

    fn read(file: &dyn DiskFile, len: usize, offset: u64) -> Vec<u8> {
        let mut buf = BytesMut::new();
        let n = file.read_at(&mut buf, len, offset).unwrap();
        assert_eq!(n, buf.len());
        buf.to_vec()
    }

    fn check_reads_and_writes(name: &str) {
        let dir = TempDir::new(name);
        let disk = RealDisk::open(&dir.0).unwrap();
        disk.make_dir("d").unwrap();
        disk.make_dir("d").expect("a directory that is there is fine");
        assert_eq!(disk.open("d/f").err().map(|e| e.kind()), Some(io::ErrorKind::NotFound));
        let file = disk.create("d/f").unwrap();
        file.write_at(b"world", 5).unwrap();
        file.write_at(b"hello", 0).unwrap();
        assert_eq!(read(&*file, 100, 0), b"helloworld");
        assert_eq!(read(&*file, 3, 4), b"owo");
        assert_eq!(read(&*file, 3, 10), b"");
        file.truncate(7).unwrap();
        file.sync().unwrap();
        disk.sync_dir("d").unwrap();
        assert_eq!(disk.stat("d/f").unwrap().len, 7);
        assert_eq!(disk.list("d").unwrap(), ["f"]);
        disk.rename("d/f", "d/g").unwrap();
        disk.remove("d/g").unwrap();
        assert_eq!(disk.list("d").unwrap(), Vec::<String>::new());
        assert_eq!(read(&*file, 100, 0), b"hellowo", "an open file outlives its name");
        let big: Vec<u8> = (0..3_000_000u32).map(|n| n.to_le_bytes()[1]).collect();
        file.write_at(&big, 1).unwrap();
        assert!(read(&*file, big.len(), 1) == big);
        let usage = disk.usage().unwrap();
        assert!(usage.total >= usage.free && usage.total > 0);
    }

    #[test]
    fn reads_and_writes_work_outside_of_a_runtime() {
        check_reads_and_writes("plain");
    }

    #[tokio::test]
    async fn reads_and_writes_work_on_a_current_thread_runtime() {
        check_reads_and_writes("current");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn reads_and_writes_work_on_a_multi_threaded_runtime() {
        tokio::spawn(async { check_reads_and_writes("multi") }).await.unwrap();
    }

    #[test]
    fn bytes_that_are_not_in_the_page_cache_are_read_too() {
        let dir = TempDir::new("cold");
        let disk = RealDisk::open(&dir.0).unwrap();
        let data: Vec<u8> = (0..1_000_000u32).map(|n| n.to_le_bytes()[0]).collect();
        let file = disk.create("f").unwrap();
        file.write_at(&data, 0).unwrap();
        file.sync().unwrap();
        let drop = std::fs::File::open(dir.0.join("f")).unwrap();
        fs::fadvise(&drop, 0, None, fs::Advice::DontNeed).unwrap();
        assert!(read(&*file, data.len(), 0) == data);
    }

    #[test]
    fn a_passed_file_is_read_and_not_written_and_tells_when_it_is_removed() {
        let dir = TempDir::new("passed");
        let disk = RealDisk::open(&dir.0).unwrap();
        let file = disk.create("f").unwrap();
        file.write_at(b"hello", 0).unwrap();
        let fd = file.to_pass().unwrap();
        assert!(rustix::io::pwrite(&fd, b"x", 0).is_err());
        let passed = PassedFile::new(fd).unwrap();
        assert_eq!(passed.len().unwrap(), Some(5));
        let read = |len| {
            let mut bytes = BytesMut::new();
            passed.read_at(&mut bytes, len, 1).map(|()| bytes.to_vec())
        };
        assert_eq!(read(4).unwrap(), b"ello");
        assert_eq!(read(5).unwrap_err().kind(), io::ErrorKind::WouldBlock, "it ends before");
        file.write_at(b"J", 0).unwrap();
        file.write_at(b"y", 1).unwrap();
        assert_eq!(read(4).unwrap(), b"yllo");
        disk.remove("f").unwrap();
        assert_eq!(passed.len().unwrap(), None);
    }

    #[test]
    fn a_lock_is_held_once() {
        let dir = TempDir::new("lock");
        let disk = RealDisk::open(&dir.0).unwrap();
        let held = disk.lock("lock").unwrap();
        assert_eq!(disk.lock("lock").err().map(|e| e.kind()), Some(io::ErrorKind::WouldBlock));
        drop(held);
        disk.lock("lock").expect("given back");
    }

    #[test]
    fn the_boot_id_stays_while_the_machine_runs() {
        let disk = RealDisk::open(&std::env::temp_dir()).unwrap();
        assert_eq!(disk.boot().unwrap(), disk.boot().unwrap());
    }

    #[test]
    fn the_boot_id_can_come_from_a_file() {
        let dir = TempDir::new("boot-id");
        let file = dir.0.join("boot_id");
        std::fs::write(&file, "00000000-0000-00ab-0000-000000000000\n").unwrap();
        let disk = RealDisk::open(&dir.0).unwrap().with_boot_id(&file);
        assert_eq!(disk.boot().unwrap(), 0xab);
    }

    #[test]
    fn a_note_is_kept_beside_the_bytes() {
        let dir = TempDir::new("note");
        let disk = RealDisk::open(&dir.0).unwrap();
        let file = disk.create("f").unwrap();
        assert_eq!(file.note().unwrap(), None);
        match file.set_note(b"first") {
            Err(error) if error.kind() == io::ErrorKind::Unsupported => return,
            done => done.unwrap(),
        }
        file.set_note(b"second").unwrap();
        drop(file);
        let file = disk.open("f").unwrap();
        assert_eq!(file.note().unwrap().as_deref(), Some(&b"second"[..]));
        assert_eq!(file.stat().unwrap().len, 0);
    }

    #[test]
    fn the_descriptor_limit_ends_at_the_hard_one() {
        let limit = raise_descriptor_limit();
        assert_eq!(getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX), limit);
    }
}
