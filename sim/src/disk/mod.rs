//! A target's disk: a page cache over a platter, in memory. A process's death loses nothing; a machine's loses what was
//! not synced, or tears it. As on the file systems this runs on, an unsynced name and unsynced bytes are two things.

mod image;

use crate::random::Random;
use crate::{
    process::Process,
    trace::{Trace, event},
};
use bytes::BytesMut;
pub use image::DiskFaults;
use image::{FileId, Image, NameOp};
use pvfs_env::{
    Clock,
    disk::{Disk, DiskFile, DiskLock, FileStat, Usage},
};
use pvfs_types::Timestamp;
use std::{
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
};

/// A disk as it lies in its machine; outlives every process. Clones are the same one.
#[derive(Clone)]
pub struct DiskImage {
    image: Arc<Mutex<Image>>,
    clock: Arc<dyn Clock>,
    trace: Trace,
    place: PathBuf,
}

impl DiskImage {
    /// An empty disk of `bytes_total` bytes.
    pub fn new(
        place: &str,
        bytes_total: u64,
        random: Random,
        clock: Arc<dyn Clock>,
        trace: &Trace,
    ) -> DiskImage {
        let image = Arc::new(Mutex::new(Image::new(bytes_total, random)));
        DiskImage { image, clock, trace: trace.clone(), place: place.into() }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Image) -> T) -> T {
        act(&mut self.image.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// As `process` sees it.
    pub fn open(&self, process: &Arc<Process>) -> SimDisk {
        SimDisk { disk: self.clone(), process: Arc::clone(process) }
    }

    /// The machine loses its power: of what was not synced, chance keeps what it likes. Then it is switched on again.
    pub fn power_loss(&self) {
        let lost = self.with(Image::power_loss);
        event!(self.trace, self.name(), "power loss: {lost}");
    }

    pub fn set_faults(&self, set: impl FnOnce(&mut DiskFaults)) {
        let faults = self.with(|image| {
            set(&mut image.faults);
            image.faults
        });
        event!(self.trace, self.name(), "{faults:?}");
    }

    /// The names of all files, in order.
    pub fn files(&self) -> Vec<String> {
        self.with(|image| image.names.keys().cloned().collect())
    }

    /// The files that processes have open, once for each descriptor.
    pub fn open_files(&self) -> Vec<String> {
        self.with(|image| image.descriptors.clone())
    }

    /// How often unsynced bytes may have been lost.
    pub fn losses(&self) -> u64 {
        self.with(|image| image.losses)
    }

    fn name(&self) -> String {
        self.place.display().to_string()
    }
}

/// A process's way to its disk.
pub struct SimDisk {
    disk: DiskImage,
    process: Arc<Process>,
}

struct SimFile {
    disk: DiskImage,
    process: Arc<Process>,
    id: FileId,
    name: String,
}

struct SimLock {
    disk: DiskImage,
    process: Arc<Process>,
}

fn dead() -> io::Error {
    io::Error::other("the process is dead")
}

impl SimDisk {
    fn read<T>(&self, act: impl FnOnce(&mut Image) -> io::Result<T>) -> io::Result<T> {
        if !self.process.is_alive() {
            return Err(dead());
        }
        self.disk.with(act)
    }

    fn change(
        &self,
        what: &str,
        name: &str,
        act: impl FnOnce(&mut Image) -> io::Result<()>,
    ) -> io::Result<()> {
        if !self.process.effect() {
            return Err(dead());
        }
        let done = self.disk.with(act);
        event!(self.disk.trace, self.process.name, "{what} {name}: {}", Shown(&done));
        done
    }

    fn descriptor(&self, name: &str, id: FileId) -> Box<dyn DiskFile> {
        self.disk.with(|image| image.descriptors.push(name.to_owned()));
        Box::new(SimFile {
            disk: self.disk.clone(),
            process: Arc::clone(&self.process),
            id,
            name: name.to_owned(),
        })
    }
}

/// How something went, in a trace.
struct Shown<'a>(&'a io::Result<()>);

impl std::fmt::Display for Shown<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.0 {
            Ok(()) => f.write_str("ok"),
            Err(error) => write!(f, "{error}"),
        }
    }
}

impl Disk for SimDisk {
    fn place(&self) -> &Path {
        &self.disk.place
    }

    fn boot(&self) -> io::Result<u64> {
        self.read(|image| Ok(image.boot))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let id = self.read(|image| image.find(name))?;
        Ok(self.descriptor(name, id))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        if let Ok(id) = self.read(|image| image.find(name)) {
            return Ok(self.descriptor(name, id));
        }
        let now = Timestamp::from_system(self.disk.clock.wall());
        self.change("create", name, |image| {
            let id = image.new_file(now)?;
            image.change_names(NameOp::Create(name.to_owned(), id))
        })?;
        let id = self.read(|image| image.find(name))?;
        Ok(self.descriptor(name, id))
    }

    fn stat(&self, name: &str) -> io::Result<FileStat> {
        self.read(|image| {
            let id = image.find(name)?;
            image.stat(id)
        })
    }

    fn make_dir(&self, name: &str) -> io::Result<()> {
        if self.read(|image| Ok(image.has_dir(name)))? {
            return Ok(());
        }
        self.change("mkdir", name, |image| image.change_names(NameOp::MakeDir(name.to_owned())))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.change("remove", name, |image| {
            image.find(name)?;
            image.change_names(NameOp::Remove(name.to_owned()))
        })
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        self.change("rename", to, |image| {
            image.find(from)?;
            image.change_names(NameOp::Rename(from.to_owned(), to.to_owned()))
        })
    }

    fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        self.read(|image| image.list(dir))
    }

    fn sync_dir(&self, dir: &str) -> io::Result<()> {
        self.change("sync dir", dir, |image| image.sync_dir(dir))
    }

    fn sync_all(&self) -> io::Result<()> {
        self.change("sync all", "", Image::sync_all)
    }

    fn usage(&self) -> io::Result<Usage> {
        self.read(|image| Ok(image.usage()))
    }

    fn lock(&self, _: &str) -> io::Result<Box<dyn DiskLock>> {
        let lock = SimLock { disk: self.disk.clone(), process: Arc::clone(&self.process) };
        self.read(|image| {
            if image.locked_by.as_ref().is_some_and(|holder| holder.is_alive()) {
                return Err(io::ErrorKind::WouldBlock.into());
            }
            image.locked_by = Some(Arc::clone(&lock.process));
            Ok(Box::new(lock) as Box<dyn DiskLock>)
        })
    }
}

impl DiskFile for SimFile {
    fn read_at(&self, buf: &mut BytesMut, len: usize, offset: u64) -> io::Result<usize> {
        if !self.process.is_alive() {
            return Err(dead());
        }
        self.disk.with(|image| image.read(self.id, buf, len, offset))
    }

    fn write_at(&self, bytes: &[u8], offset: u64) -> io::Result<()> {
        let now = Timestamp::from_system(self.disk.clock.wall());
        self.change(&format!("write {}@{offset}", bytes.len()), |image| {
            image.write(self.id, bytes, offset, now)
        })
    }

    fn stat(&self) -> io::Result<FileStat> {
        self.disk.with(|image| image.stat(self.id))
    }

    fn truncate(&self, len: u64) -> io::Result<()> {
        let now = Timestamp::from_system(self.disk.clock.wall());
        self.change(&format!("truncate {len}"), |image| image.truncate(self.id, len, now))
    }

    fn sync(&self) -> io::Result<()> {
        self.change("sync", |image| image.sync(self.id))
    }

    fn note(&self) -> io::Result<Option<Vec<u8>>> {
        if !self.process.is_alive() {
            return Err(dead());
        }
        self.disk.with(|image| image.note(self.id))
    }

    fn set_note(&self, note: &[u8]) -> io::Result<()> {
        let now = Timestamp::from_system(self.disk.clock.wall());
        self.change("note", |image| image.set_note(self.id, note, now))
    }
}

impl SimFile {
    fn change(&self, what: &str, act: impl FnOnce(&mut Image) -> io::Result<()>) -> io::Result<()> {
        if !self.process.effect() {
            return Err(dead());
        }
        let done = self.disk.with(act);
        event!(self.disk.trace, self.process.name, "{what} {}: {}", self.name, Shown(&done));
        done
    }
}

impl Drop for SimFile {
    fn drop(&mut self) {
        self.disk.with(|image| {
            let closed = image.descriptors.iter().position(|open| *open == self.name);
            closed.map(|place| image.descriptors.swap_remove(place));
        });
    }
}

impl DiskLock for SimLock {}

impl Drop for SimLock {
    fn drop(&mut self) {
        self.disk.with(|image| {
            if image.locked_by.as_ref().is_some_and(|holder| Arc::ptr_eq(holder, &self.process)) {
                image.locked_by = None;
            }
        });
    }
}
