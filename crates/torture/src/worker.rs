//! One worker: random operations in a directory of its own, each answer held against the model.

use crate::{
    content::{self, BLOCK_BYTES},
    model::Model,
    record::{FaultKind, OpKind, Recorder},
};
use fastrand::Rng;
use std::{
    fs::{File, OpenOptions},
    io,
    os::unix::fs::{FileExt, MetadataExt},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
};

const FILES_MAX: usize = 60;
const BLOCKS_MAX: usize = 300;
const HANDLES_MAX: usize = 12;
const DIRS_MAX: usize = 6;
/// Blocks of one call.
const CALL_BLOCKS_MAX: usize = 40;

pub(crate) struct Worker<'a> {
    dir: PathBuf,
    rng: Rng,
    model: Model,
    /// Open files by number. They stay open over every kill.
    handles: Vec<(u64, File)>,
    recorder: &'a Recorder,
}

impl<'a> Worker<'a> {
    pub fn new(dir: &Path, rng: Rng, recorder: &'a Recorder) -> Worker<'a> {
        Worker { dir: dir.to_owned(), rng, model: Model::default(), handles: Vec::new(), recorder }
    }

    /// Works until `over`, then looks at everything once more.
    pub fn work(mut self, over: &AtomicBool) {
        let dir = self.dir.clone();
        if self.done(OpKind::Mkdir, &dir, || std::fs::create_dir(&dir)).is_none() {
            return;
        }
        while !over.load(Ordering::Relaxed) {
            self.step();
        }
        self.check_all();
    }

    fn step(&mut self) {
        match self.rng.u32(..100) {
            0..10 => self.create(),
            10..14 => self.open(),
            14..36 => self.write(),
            36..58 => self.read(),
            58..64 => self.append(),
            64..68 => self.truncate(),
            68..71 => self.sync(),
            71..75 => self.close(),
            75..81 => self.stat(),
            81..85 => self.readdir(),
            85..87 => self.mkdir(),
            87..88 => self.rmdir(),
            88..89 => self.symlink(),
            89..91 => self.link(),
            91..95 => self.rename(),
            _ => self.unlink(),
        }
    }

    /// Takes the time of `work`; an error is a fault.
    fn done<T>(&self, op: OpKind, path: &Path, work: impl FnOnce() -> io::Result<T>) -> Option<T> {
        match self.recorder.timed(op, work) {
            Ok(done) => Some(done),
            Err(error) => {
                let kind = match error.kind() {
                    // Each worker is alone in its directory and knows what is there.
                    io::ErrorKind::AlreadyExists => FaultKind::Doubled,
                    io::ErrorKind::NotFound => FaultKind::Lost,
                    _ => FaultKind::Error,
                };
                self.recorder.fault(op, kind, &format!("{}: {error}", path.display()));
                None
            }
        }
    }

    fn fault(&self, op: OpKind, kind: FaultKind, text: &str) {
        self.recorder.fault(op, kind, &format!("{}: {text}", self.dir.display()));
    }

    /// After a failed operation nobody knows what is there: this file is not looked at any more.
    fn give_up(&mut self, file: u64) {
        self.handles.retain(|(open, _)| *open != file);
        if let Some(gone) = self.model.files.remove(&file) {
            for name in gone.names {
                self.model.names.remove(&name);
                let _ = std::fs::remove_file(self.dir.join(name));
            }
        }
    }

    fn any_name(&mut self) -> Option<(String, u64)> {
        let at = self.rng.usize(..self.model.names.len().max(1));
        self.model.names.iter().nth(at).map(|(name, file)| (name.clone(), *file))
    }

    fn any_dir(&mut self) -> String {
        let at = self.rng.usize(..=self.model.dirs.len());
        self.model.dirs.iter().nth(at).cloned().unwrap_or_default()
    }

    /// A path that is free: a new one, or one that was there before.
    fn free_path(&mut self) -> String {
        let dir = self.any_dir();
        let fresh = self.model.fresh();
        let number = if self.rng.bool() { fresh } else { self.rng.u64(..=fresh) };
        let join = |number| if dir.is_empty() { format!("f{number}") } else { format!("{dir}/f{number}") };
        let path = join(number);
        let taken = self.model.names.contains_key(&path) || self.model.symlinks.contains_key(&path);
        if taken { join(fresh) } else { path }
    }

    fn any_handle(&mut self) -> Option<usize> {
        (!self.handles.is_empty()).then(|| self.rng.usize(..self.handles.len()))
    }

    fn create(&mut self) {
        if self.model.names.len() >= FILES_MAX {
            return self.unlink();
        }
        let name = self.free_path();
        let path = self.dir.join(&name);
        let make = || OpenOptions::new().read(true).write(true).create_new(true).open(&path);
        if let Some(handle) = self.done(OpKind::Create, &path, make) {
            let file = self.model.created(&name);
            self.keep(file, handle);
        }
    }

    fn open(&mut self) {
        let Some((name, file)) = self.any_name() else { return };
        let path = self.dir.join(&name);
        let open = || OpenOptions::new().read(true).write(true).open(&path);
        match self.done(OpKind::Open, &path, open) {
            Some(handle) => self.keep(file, handle),
            None => self.give_up(file),
        }
    }

    fn keep(&mut self, file: u64, handle: File) {
        self.model.opened(file);
        self.handles.push((file, handle));
        if self.handles.len() > HANDLES_MAX {
            self.close();
        }
    }

    fn close(&mut self) {
        let Some(at) = self.any_handle() else { return };
        let (file, handle) = self.handles.swap_remove(at);
        self.recorder.timed(OpKind::Close, || drop(handle));
        self.model.closed(file);
    }

    fn write(&mut self) {
        self.write_at(OpKind::Write, |blocks, rng| rng.usize(..=blocks.min(BLOCKS_MAX - CALL_BLOCKS_MAX)));
    }

    fn append(&mut self) {
        self.write_at(OpKind::Append, |blocks, _| blocks);
    }

    fn write_at(&mut self, op: OpKind, place: impl FnOnce(usize, &mut Rng) -> usize) {
        let Some(at) = self.any_handle() else { return };
        let file = self.handles[at].0;
        let Some(model) = self.model.files.get_mut(&file) else { return };
        let first = place(model.blocks.len(), &mut self.rng);
        let count = self.rng.usize(1..=CALL_BLOCKS_MAX).min(BLOCKS_MAX.saturating_sub(first));
        if count == 0 {
            return;
        }
        model.writes += 1;
        let write = model.writes;
        let mut bytes = vec![0; count * BLOCK_BYTES];
        for (block, bytes) in (first..).zip(bytes.chunks_mut(BLOCK_BYTES)) {
            content::fill(bytes, file, block as u64, write);
        }
        let handle = &self.handles[at].1;
        let work = || handle.write_all_at(&bytes, (first * BLOCK_BYTES) as u64);
        if self.done(op, &self.dir, work).is_none() {
            return self.give_up(file);
        }
        let Some(model) = self.model.files.get_mut(&file) else { return };
        if model.blocks.len() < first + count {
            model.blocks.resize(first + count, 0);
        }
        model.blocks[first..first + count].fill(write);
    }

    fn read(&mut self) {
        let Some(at) = self.any_handle() else { return };
        let file = self.handles[at].0;
        let Some(model) = self.model.files.get(&file) else { return };
        let first = self.rng.usize(..=model.blocks.len());
        let count = self.rng.usize(1..=CALL_BLOCKS_MAX);
        self.check_blocks(at, first, count);
    }

    /// Reads `count` blocks from `first` on through the handle at `at`, which may end before.
    fn check_blocks(&mut self, at: usize, first: usize, count: usize) {
        let (file, handle) = (self.handles[at].0, &self.handles[at].1);
        let mut bytes = vec![0; count * BLOCK_BYTES];
        let read = || read_full(handle, &mut bytes, (first * BLOCK_BYTES) as u64);
        let Some(len) = self.done(OpKind::Read, &self.dir, read) else { return self.give_up(file) };
        let Some(model) = self.model.files.get(&file) else { return };
        let expected = model.blocks.len().saturating_sub(first).min(count) * BLOCK_BYTES;
        if len != expected {
            let kind = if len < expected { FaultKind::Lost } else { FaultKind::Wrong };
            let text = format!("file {file} from block {first}: read {len} bytes, expected {expected}");
            self.fault(OpKind::Read, kind, &text);
            return self.give_up(file);
        }
        let blocks = model.blocks.iter().enumerate().skip(first);
        let wrong = blocks
            .zip(bytes[..len].chunks(BLOCK_BYTES))
            .find_map(|((block, &write), bytes)| content::check(bytes, file, block as u64, write).err());
        if let Some((kind, text)) = wrong {
            self.fault(OpKind::Read, kind, &text);
            self.give_up(file);
        }
    }

    fn truncate(&mut self) {
        let Some(at) = self.any_handle() else { return };
        let (file, handle) = (self.handles[at].0, &self.handles[at].1);
        let Some(blocks) = self.model.files.get(&file).map(|model| model.blocks.len()) else { return };
        let to = self.rng.usize(..=(blocks + 10).min(BLOCKS_MAX));
        let work = || handle.set_len((to * BLOCK_BYTES) as u64);
        match (self.done(OpKind::Truncate, &self.dir, work), self.model.files.get_mut(&file)) {
            (Some(()), Some(model)) => model.blocks.resize(to, 0),
            _ => self.give_up(file),
        }
    }

    fn sync(&mut self) {
        let Some(at) = self.any_handle() else { return };
        let (file, handle) = (self.handles[at].0, &self.handles[at].1);
        if self.done(OpKind::Sync, &self.dir, || handle.sync_all()).is_none() {
            self.give_up(file);
        }
    }

    fn stat(&mut self) {
        if self.rng.bool()
            && let Some(at) = self.any_handle()
        {
            let (file, handle) = (self.handles[at].0, &self.handles[at].1);
            let told = self.done(OpKind::Stat, &self.dir, || handle.metadata());
            return self.check_stat(file, told);
        }
        let Some((name, file)) = self.any_name() else { return };
        let path = self.dir.join(&name);
        let told = self.done(OpKind::Stat, &path, || std::fs::metadata(&path));
        self.check_stat(file, told);
    }

    fn check_stat(&mut self, file: u64, told: Option<std::fs::Metadata>) {
        let Some(told) = told else { return self.give_up(file) };
        let Some(model) = self.model.files.get(&file) else { return };
        let expected = ((model.blocks.len() * BLOCK_BYTES) as u64, model.names.len() as u64);
        let found = (told.len(), told.nlink());
        if found != expected {
            let kind = if found < expected { FaultKind::Lost } else { FaultKind::Wrong };
            let text = format!("file {file}: size and links are {found:?}, expected {expected:?}");
            self.fault(OpKind::Stat, kind, &text);
            self.give_up(file);
        }
    }

    fn readdir(&mut self) {
        let dir = self.any_dir();
        self.check_entries(&dir);
    }

    fn check_entries(&self, dir: &str) {
        let path = self.dir.join(dir);
        let list = || {
            let entries = std::fs::read_dir(&path)?;
            entries.map(|entry| Ok(entry?.file_name().to_string_lossy().into_owned())).collect()
        };
        let Some(mut found): Option<Vec<String>> = self.done(OpKind::Readdir, &path, list) else { return };
        found.sort();
        let expected = self.model.entries(dir);
        let fault = |kind, name: &String| {
            self.fault(OpKind::Readdir, kind, &format!("{dir}/{name}"));
        };
        found
            .windows(2)
            .filter(|pair| pair[0] == pair[1])
            .for_each(|pair| fault(FaultKind::Doubled, &pair[0]));
        expected.iter().filter(|name| !found.contains(name)).for_each(|name| fault(FaultKind::Lost, name));
        found.iter().filter(|name| !expected.contains(name)).for_each(|name| fault(FaultKind::Wrong, name));
    }

    fn mkdir(&mut self) {
        if self.model.dirs.len() >= DIRS_MAX {
            return self.rmdir();
        }
        let name = format!("d{}", self.model.fresh());
        let path = self.dir.join(&name);
        if self.done(OpKind::Mkdir, &path, || std::fs::create_dir(&path)).is_some() {
            self.model.dirs.insert(name);
        }
    }

    fn rmdir(&mut self) {
        let dirs = &self.model.dirs;
        let Some(dir) = dirs.iter().find(|dir| self.model.entries(dir).is_empty()).cloned() else { return };
        let path = self.dir.join(&dir);
        if self.done(OpKind::Rmdir, &path, || std::fs::remove_dir(&path)).is_some() {
            self.model.dirs.remove(&dir);
        }
    }

    fn symlink(&mut self) {
        if self.model.symlinks.len() >= FILES_MAX / 4 {
            let Some(name) = self.model.symlinks.keys().next().cloned() else { return };
            let path = self.dir.join(&name);
            self.done(OpKind::Unlink, &path, || std::fs::remove_file(&path));
            self.model.symlinks.remove(&name);
            return;
        }
        let (name, target) = (self.free_path(), format!("target {}", self.rng.u64(..)));
        let path = self.dir.join(&name);
        if self.done(OpKind::Symlink, &path, || std::os::unix::fs::symlink(&target, &path)).is_some() {
            self.model.symlinks.insert(name, target);
        }
    }

    fn link(&mut self) {
        let Some((from, file)) = self.any_name() else { return };
        let to = self.free_path();
        let (from, path) = (self.dir.join(from), self.dir.join(&to));
        if self.done(OpKind::Link, &path, || std::fs::hard_link(&from, &path)).is_some() {
            self.model.linked(file, &to);
        } else {
            self.give_up(file);
        }
    }

    fn rename(&mut self) {
        let Some((from, file)) = self.any_name() else { return };
        let over = if self.rng.bool() { self.any_name() } else { None };
        let to = over.map_or_else(|| self.free_path(), |(name, _)| name);
        let (source, path) = (self.dir.join(&from), self.dir.join(&to));
        if self.done(OpKind::Rename, &path, || std::fs::rename(&source, &path)).is_some() {
            self.model.renamed(&from, &to);
        } else {
            self.give_up(file);
        }
    }

    fn unlink(&mut self) {
        let Some((name, file)) = self.any_name() else { return };
        let path = self.dir.join(&name);
        if self.done(OpKind::Unlink, &path, || std::fs::remove_file(&path)).is_some() {
            self.model.unlinked(&name);
        } else {
            self.give_up(file);
        }
    }

    /// Every byte, through the descriptors that were open all the time and through new ones; every name.
    fn check_all(&mut self) {
        for dir in std::iter::once(String::new()).chain(self.model.dirs.clone()) {
            self.check_entries(&dir);
        }
        for (name, target) in &self.model.symlinks {
            let path = self.dir.join(name);
            let found = self.done(OpKind::Read, &path, || std::fs::read_link(&path));
            if found.is_some_and(|found| found.as_os_str() != target.as_str()) {
                self.fault(OpKind::Symlink, FaultKind::Wrong, name);
            }
        }
        let named: Vec<(String, u64)> = self.model.names.clone().into_iter().collect();
        for (name, file) in named {
            let path = self.dir.join(&name);
            let Some(handle) = self.done(OpKind::Open, &path, || File::open(&path)) else { continue };
            let told = self.done(OpKind::Stat, &path, || handle.metadata());
            self.check_stat(file, told);
            self.handles.push((file, handle));
            self.check_blocks(self.handles.len() - 1, 0, BLOCKS_MAX + 1);
        }
        while let Some(at) = self.handles.len().checked_sub(1) {
            self.check_blocks(at, 0, BLOCKS_MAX + 1);
            // A fault took the handle away.
            if self.handles.len() == at + 1 {
                self.handles.pop();
            }
        }
    }
}

/// Reads until `bytes` is full or the file ends.
fn read_full(file: &File, bytes: &mut [u8], at: u64) -> io::Result<usize> {
    let mut len = 0;
    while len < bytes.len() {
        match file.read_at(&mut bytes[len..], at + len as u64)? {
            0 => break,
            more => len += more,
        }
    }
    Ok(len)
}
