//! What a disk holds: the state that programs see, and the changes of it that no sync has made durable yet.

use crate::{process::Process, random::Random};
use bytes::BytesMut;
use pvfs_env::disk::{FileStat, Usage};
use pvfs_types::Timestamp;
use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    sync::Arc,
};

pub type FileId = u64;

/// What a disk loses or keeps at once.
const SECTOR_BYTES: usize = 512;

/// How a disk fails: in one of that many cases each; 0: never.
#[derive(Clone, Copy, Debug, Default)]
pub struct DiskFaults {
    pub read_one_in: u64,
    pub write_one_in: u64,
    /// The bytes that were to be synced are lost to the platter for good, as on Linux.
    pub sync_one_in: u64,
    /// Nothing may grow.
    pub full: bool,
}

/// A change of names.
#[derive(Clone, Debug)]
pub enum NameOp {
    Create(String, FileId),
    Remove(String),
    Rename(String, String),
    MakeDir(String),
}

impl NameOp {
    fn is_in(&self, dir: &str) -> bool {
        match self {
            NameOp::Create(name, _) | NameOp::Remove(name) | NameOp::MakeDir(name) => parent(name) == dir,
            NameOp::Rename(from, to) => parent(from) == dir || parent(to) == dir,
        }
    }
}

fn parent(name: &str) -> &str {
    name.rsplit_once('/').map_or("", |(dir, _)| dir)
}

#[derive(Clone, Default)]
struct Names {
    files: BTreeMap<String, FileId>,
    dirs: BTreeSet<String>,
}

impl Names {
    /// Does what can be done of `op`: what it is about may be lost already.
    fn apply(&mut self, op: &NameOp) {
        match op {
            NameOp::Create(name, id) => {
                self.files.insert(name.clone(), *id);
            }
            NameOp::MakeDir(name) => {
                self.dirs.insert(name.clone());
            }
            NameOp::Remove(name) => {
                self.files.remove(name);
            }
            NameOp::Rename(from, to) => {
                if let Some(id) = self.files.remove(from) {
                    self.files.insert(to.clone(), id);
                }
            }
        }
    }

    /// What lies in a directory whose own name is lost is lost.
    fn drop_unreachable(&mut self) {
        let dirs = &self.dirs;
        self.files.retain(|name, _| parent(name).is_empty() || dirs.contains(parent(name)));
    }
}

enum FileOp {
    Write { offset: usize, bytes: Vec<u8> },
    Truncate(usize),
    Note(Vec<u8>),
}

/// A file's bytes, and its note.
#[derive(Clone, Default)]
struct Content {
    bytes: Vec<u8>,
    note: Option<Vec<u8>>,
}

impl Content {
    fn apply(&mut self, op: &FileOp) {
        match op {
            FileOp::Write { offset, bytes } => {
                let end = offset + bytes.len();
                if self.bytes.len() < end {
                    self.bytes.resize(end, 0);
                }
                self.bytes[*offset..end].copy_from_slice(bytes);
            }
            FileOp::Truncate(len) => self.bytes.resize(*len, 0),
            FileOp::Note(note) => self.note = Some(note.clone()),
        }
    }
}

struct FileState {
    seen: Content,
    durable: Content,
    unsynced: Vec<FileOp>,
    /// A sync of all lost bytes of it: its own next sync tells of that.
    has_untold: bool,
    mtime: Timestamp,
}

pub struct Image {
    pub names: BTreeMap<String, FileId>,
    dirs: BTreeSet<String>,
    durable: Names,
    unsynced: Vec<NameOp>,
    files: BTreeMap<FileId, FileState>,
    next_file: FileId,
    bytes_total: u64,
    pub boot: u64,
    pub faults: DiskFaults,
    pub locked_by: Option<Arc<Process>>,
    /// Names of open files, one for each descriptor.
    pub descriptors: Vec<String>,
    /// Syncs and notes that failed, and power losses: after each an iod takes unsynced bytes for lost, and has them sent
    /// again.
    pub losses: u64,
    /// A file's sync failed: the next sync of all tells of that, as on Linux.
    has_untold: bool,
    random: Random,
}

fn errno(number: i32) -> io::Error {
    io::Error::from_raw_os_error(number)
}

const EIO: i32 = 5;
const ENOSPC: i32 = 28;

fn size(bytes: u64) -> usize {
    usize::try_from(bytes).expect("simulated files are small")
}

impl Image {
    pub fn new(bytes_total: u64, random: Random) -> Image {
        Image {
            names: BTreeMap::new(),
            dirs: BTreeSet::new(),
            durable: Names::default(),
            unsynced: Vec::new(),
            files: BTreeMap::new(),
            next_file: 1,
            bytes_total,
            boot: random.between(1..=u64::MAX),
            faults: DiskFaults::default(),
            locked_by: None,
            descriptors: Vec::new(),
            losses: 0,
            has_untold: false,
            random,
        }
    }

    fn fails(&self, one_in: u64) -> io::Result<()> {
        if one_in > 0 && self.random.one_in(one_in) { Err(errno(EIO)) } else { Ok(()) }
    }

    /// As [`Image::fails`], for what an iod takes for a loss.
    fn fails_with_a_loss(&mut self, one_in: u64) -> io::Result<()> {
        self.fails(one_in).inspect_err(|_| self.losses += 1)
    }

    pub fn find(&self, name: &str) -> io::Result<FileId> {
        self.names.get(name).copied().ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    pub fn has_dir(&self, name: &str) -> bool {
        self.dirs.contains(name)
    }

    pub fn new_file(&mut self, now: Timestamp) -> io::Result<FileId> {
        if self.faults.full {
            return Err(errno(ENOSPC));
        }
        self.fails(self.faults.write_one_in)?;
        let id = self.next_file;
        self.next_file += 1;
        let file = FileState {
            seen: Content::default(),
            durable: Content::default(),
            unsynced: Vec::new(),
            has_untold: false,
            mtime: now,
        };
        self.files.insert(id, file);
        Ok(id)
    }

    pub fn change_names(&mut self, op: NameOp) -> io::Result<()> {
        if let NameOp::Create(name, _) | NameOp::MakeDir(name) = &op
            && !parent(name).is_empty()
            && !self.dirs.contains(parent(name))
        {
            return Err(io::ErrorKind::NotFound.into());
        }
        self.fails(self.faults.write_one_in)?;
        let mut names =
            Names { files: std::mem::take(&mut self.names), dirs: std::mem::take(&mut self.dirs) };
        names.apply(&op);
        (self.names, self.dirs) = (names.files, names.dirs);
        self.unsynced.push(op);
        Ok(())
    }

    pub fn list(&self, dir: &str) -> io::Result<Vec<String>> {
        if !dir.is_empty() && !self.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        let all = self.names.keys().chain(&self.dirs);
        let names = all.filter(|name| parent(name) == dir);
        Ok(names.map(|name| name.rsplit('/').next().unwrap_or(name).to_owned()).collect())
    }

    pub fn sync_dir(&mut self, dir: &str) -> io::Result<()> {
        if !dir.is_empty() && !self.dirs.contains(dir) {
            return Err(io::ErrorKind::NotFound.into());
        }
        // At the top lie the iod's own records, and nothing that clients wrote.
        if dir.is_empty() {
            self.fails(self.faults.sync_one_in)?;
        } else {
            self.fails_with_a_loss(self.faults.sync_one_in)?;
        }
        let durable = &mut self.durable;
        self.unsynced.retain(|op| {
            let synced = op.is_in(dir);
            if synced {
                durable.apply(op);
            }
            !synced
        });
        Ok(())
    }

    /// After an error some files have lost bytes to the platter, and tell of it at their own next sync.
    pub fn sync_all(&mut self) -> io::Result<()> {
        if std::mem::take(&mut self.has_untold) {
            self.losses += 1;
            return Err(errno(EIO));
        }
        if let Err(error) = self.fails_with_a_loss(self.faults.sync_one_in) {
            for file in self.files.values_mut().filter(|file| !file.unsynced.is_empty()) {
                if self.random.one_in(2) {
                    file.unsynced.clear();
                    file.has_untold = true;
                }
            }
            return Err(error);
        }
        for op in self.unsynced.drain(..) {
            self.durable.apply(&op);
        }
        for file in self.files.values_mut() {
            file.unsynced.drain(..).for_each(|op| file.durable.apply(&op));
        }
        Ok(())
    }

    pub fn usage(&self) -> Usage {
        let used: usize =
            self.names.values().filter_map(|id| self.files.get(id)).map(|file| file.seen.bytes.len()).sum();
        let free = if self.faults.full { 0 } else { self.bytes_total.saturating_sub(used as u64) };
        Usage { total: self.bytes_total, free, device: 0 }
    }

    fn file(&mut self, id: FileId) -> io::Result<&mut FileState> {
        self.files.get_mut(&id).ok_or_else(|| io::Error::other("no such descriptor"))
    }

    pub fn stat(&mut self, id: FileId) -> io::Result<FileStat> {
        let file = self.file(id)?;
        let len = file.seen.bytes.len() as u64;
        Ok(FileStat { len, allocated: len.next_multiple_of(4096), mtime: file.mtime })
    }

    pub fn read(&mut self, id: FileId, buf: &mut BytesMut, len: usize, offset: u64) -> io::Result<usize> {
        self.fails(self.faults.read_one_in)?;
        let seen = &self.file(id)?.seen.bytes;
        let start = size(offset).min(seen.len());
        let found = &seen[start..(start + len).min(seen.len())];
        buf.extend_from_slice(found);
        Ok(found.len())
    }

    pub fn write(&mut self, id: FileId, bytes: &[u8], offset: u64, now: Timestamp) -> io::Result<()> {
        self.fails(self.faults.write_one_in)?;
        let offset = size(offset);
        if self.faults.full && offset + bytes.len() > self.file(id)?.seen.bytes.len() {
            return Err(errno(ENOSPC));
        }
        self.change(id, FileOp::Write { offset, bytes: bytes.to_vec() }, now)
    }

    pub fn truncate(&mut self, id: FileId, len: u64, now: Timestamp) -> io::Result<()> {
        self.fails(self.faults.write_one_in)?;
        self.change(id, FileOp::Truncate(size(len)), now)
    }

    pub fn note(&mut self, id: FileId) -> io::Result<Option<Vec<u8>>> {
        self.fails(self.faults.read_one_in)?;
        Ok(self.file(id)?.seen.note.clone())
    }

    pub fn set_note(&mut self, id: FileId, note: &[u8], now: Timestamp) -> io::Result<()> {
        self.fails_with_a_loss(self.faults.write_one_in)?;
        self.change(id, FileOp::Note(note.to_vec()), now)?;
        self.sync(id)
    }

    fn change(&mut self, id: FileId, op: FileOp, now: Timestamp) -> io::Result<()> {
        let file = self.file(id)?;
        file.seen.apply(&op);
        file.unsynced.push(op);
        file.mtime = now;
        Ok(())
    }

    pub fn sync(&mut self, id: FileId) -> io::Result<()> {
        let mut failed = self.fails_with_a_loss(self.faults.sync_one_in);
        let file = self.file(id)?;
        if std::mem::take(&mut file.has_untold) && failed.is_ok() {
            failed = Err(errno(EIO));
            self.losses += 1;
        } else if failed.is_err() {
            file.unsynced.clear();
            self.has_untold = true;
        }
        failed?;
        let file = self.file(id)?;
        file.unsynced.drain(..).for_each(|op| file.durable.apply(&op));
        Ok(())
    }

    /// Leaves what was durable, and of the rest what chance keeps. Gives how much was lost, for people.
    pub fn power_loss(&mut self) -> String {
        // A journal keeps the order within a directory.
        let mut broken_off = BTreeSet::new();
        let (mut names_lost, mut writes_lost) = (0, 0);
        let keeps_names = !self.random.one_in(2);
        for op in std::mem::take(&mut self.unsynced) {
            let dirs: Vec<String> = match &op {
                NameOp::Create(name, _) | NameOp::Remove(name) | NameOp::MakeDir(name) => {
                    vec![parent(name).into()]
                }
                NameOp::Rename(from, to) => vec![parent(from).into(), parent(to).into()],
            };
            if dirs.iter().any(|dir| broken_off.contains(dir)) || !keeps_names || self.random.one_in(4) {
                broken_off.extend(dirs);
                names_lost += 1;
            } else {
                self.durable.apply(&op);
            }
        }
        for file in self.files.values_mut() {
            for op in std::mem::take(&mut file.unsynced) {
                match survivor(&self.random, op) {
                    Some(op) => file.durable.apply(&op),
                    None => writes_lost += 1,
                }
            }
            file.seen = file.durable.clone();
            file.has_untold = false;
        }
        self.has_untold = false;
        self.losses += 1;
        self.durable.drop_unreachable();
        (self.names, self.dirs) = (self.durable.files.clone(), self.durable.dirs.clone());
        self.boot = self.random.between(1..=u64::MAX);
        self.locked_by = None;
        format!("{names_lost} names and {writes_lost} writes lost")
    }
}

/// What of an unsynced change is on the platter: nothing, all, or some sectors.
fn survivor(random: &Random, op: FileOp) -> Option<FileOp> {
    match random.below(3) {
        0 => None,
        1 => Some(op),
        _ => match op {
            FileOp::Truncate(_) | FileOp::Note(_) => None,
            FileOp::Write { offset, mut bytes } => {
                let first_cut = SECTOR_BYTES - offset % SECTOR_BYTES;
                let sectors = bytes.len().saturating_sub(first_cut).div_ceil(SECTOR_BYTES);
                let end = first_cut + random.below(sectors + 1) * SECTOR_BYTES;
                bytes.truncate(end);
                Some(FileOp::Write { offset, bytes })
            }
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A disk with the file `d/f`, which holds `synced`, synced with all names, and then `unsynced` over it.
    fn disk(seed: u64, synced: &[u8], unsynced: &[u8]) -> Image {
        let mut image = Image::new(1 << 20, Random::of(seed, "disk"));
        image.change_names(NameOp::MakeDir("d".into())).unwrap();
        let id = image.new_file(Timestamp::default()).unwrap();
        image.change_names(NameOp::Create("d/f".into(), id)).unwrap();
        image.write(id, synced, 0, Timestamp::default()).unwrap();
        image.sync(id).unwrap();
        // The inner directory first: its own name may become durable later.
        image.sync_dir("d").unwrap();
        image.sync_dir("").unwrap();
        image.write(id, unsynced, 0, Timestamp::default()).unwrap();
        image
    }

    fn content(image: &mut Image) -> Vec<u8> {
        let id = image.find("d/f").expect("its name was synced");
        let mut bytes = BytesMut::new();
        image.read(id, &mut bytes, 1 << 20, 0).unwrap();
        bytes.to_vec()
    }

    #[test]
    fn a_power_loss_keeps_what_was_synced_and_keeps_drops_or_tears_the_rest() {
        let (old, new) = (vec![1; 2000], vec![2; 2000]);
        let mut seen = [false; 3];
        for seed in 0..100 {
            let mut image = disk(seed, &old, &new);
            image.power_loss();
            let found = content(&mut image);
            let kept = found.iter().take_while(|&&byte| byte == 2).count();
            assert!(found[kept..].iter().all(|&byte| byte == 1), "seed {seed}");
            assert!(kept == 2000 || kept.is_multiple_of(SECTOR_BYTES), "seed {seed} tears within a sector");
            seen[usize::from(kept > 0) + usize::from(kept == 2000)] = true;
        }
        assert_eq!(seen, [true; 3]);
    }

    #[test]
    fn a_note_outlives_the_power_with_all_that_was_written_before_it() {
        for seed in 0..100 {
            let mut image = disk(seed, b"old", b"new");
            let id = image.find("d/f").unwrap();
            image.set_note(id, b"note", Timestamp::default()).unwrap();
            image.power_loss();
            assert_eq!(content(&mut image), b"new");
            assert_eq!(image.note(id).unwrap().as_deref(), Some(&b"note"[..]));
        }
    }

    #[test]
    fn a_failed_sync_loses_the_bytes_to_the_platter_whatever_is_synced_later() {
        let mut image = disk(1, b"old", b"new");
        let id = image.find("d/f").unwrap();
        image.faults.sync_one_in = 1;
        assert!(image.sync(id).is_err());
        image.faults.sync_one_in = 0;
        image.sync(id).unwrap();
        assert_eq!(content(&mut image), b"new", "the page cache has it");
        image.power_loss();
        assert_eq!(content(&mut image), b"old");
    }
}
