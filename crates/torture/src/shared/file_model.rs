//! One file through all mounts in turn: an array of bytes, a size, attributes. Descriptors stay open for long, on every
//! mount, under names that change.

use super::{
    InTurn, SharedPlan,
    history::History,
    part::{At, Checked, Part, Wrong},
};
use fastrand::Rng;
use rustix::fs::{
    FallocateFlags, SeekFrom, XattrFlags, fallocate, getxattr, listxattr, removexattr, seek, setxattr,
};
use std::{
    collections::BTreeMap,
    fs::{self, File, FileTimes},
    io::{self, Write as _},
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
    path::PathBuf,
    time::{Duration, SystemTime},
};

const BYTES_MAX: usize = 300_000;
const CALL_BYTES_MAX: usize = 40_000;
const HANDLES_MAX: usize = 8;
const NAMES: [&str; 3] = ["one", "two", "three"];

struct Handle {
    mount: usize,
    file: File,
    writes: bool,
    appends: bool,
}

pub(super) struct FileTurns {
    roots: Vec<PathBuf>,
    rng: Rng,
    times: bool,
    may_append: bool,
    may_grow_by_room: bool,
    history: History,
    handles: Vec<Handle>,
    name: &'static str,
    // What the file must be.
    bytes: Vec<u8>,
    mode: u32,
    xattrs: BTreeMap<String, Vec<u8>>,
    /// With `times`, when it was last modified, as it was set or told; `None`: changed since.
    mtime: Option<(i64, i64)>,
    ino: Option<u64>,
}

impl InTurn for FileTurns {
    const PART: Part = Part::File;

    fn new(roots: Vec<PathBuf>, seed: u64, plan: &SharedPlan) -> FileTurns {
        FileTurns {
            roots,
            rng: Rng::with_seed(seed),
            times: plan.times,
            may_append: plan.parts.contains(&Part::Append),
            may_grow_by_room: plan.parts.contains(&Part::Room),
            history: History::default(),
            handles: Vec::new(),
            name: NAMES[0],
            bytes: Vec::new(),
            mode: 0o644,
            xattrs: BTreeMap::new(),
            mtime: None,
            ino: None,
        }
    }

    fn step(&mut self) -> Checked {
        if self.ino.is_none() {
            return self.make();
        }
        match self.rng.u32(..100) {
            0..8 => self.open(),
            8..12 => {
                self.close();
                Ok(())
            }
            12..34 => self.read(),
            34..40 if self.may_append => self.append(),
            34..60 => self.write(),
            60..66 => self.truncate(),
            66..72 => self.fallocate(),
            72..84 => self.stat(),
            84..86 => self.chmod(),
            86..88 => self.utimens(),
            88..93 => self.xattr(),
            93..95 => self.sync(),
            95..97 => self.rename(),
            _ => self.seek_end(),
        }
    }

    fn history(&self) -> String {
        self.history.text()
    }
}

impl FileTurns {
    fn path(&self, mount: usize) -> PathBuf {
        self.roots[mount].join(self.name)
    }

    fn any_mount(&mut self) -> usize {
        self.rng.usize(..self.roots.len())
    }

    fn any_handle(&mut self, is_good: impl Fn(&Handle) -> bool) -> Option<usize> {
        let good: Vec<usize> = (0..self.handles.len()).filter(|&at| is_good(&self.handles[at])).collect();
        good.get(self.rng.usize(..good.len().max(1))).copied()
    }

    /// Through which handle, for people.
    fn shown(&self, at: usize) -> String {
        let handle = &self.handles[at];
        format!("mount {} handle {at}{}", handle.mount, if handle.appends { " (append)" } else { "" })
    }

    fn make(&mut self) -> Checked {
        let mount = self.any_mount();
        self.history.add(format!("mount {mount} make {}", self.name));
        let file =
            File::options().read(true).write(true).create_new(true).open(self.path(mount)).at("make")?;
        file.set_permissions(PermissionsExt::from_mode(self.mode)).at("chmod")?;
        self.ino = Some(file.metadata().at("stat")?.ino());
        Ok(())
    }

    fn open(&mut self) -> Checked {
        if self.handles.len() == HANDLES_MAX {
            self.close();
        }
        let mount = self.any_mount();
        let kind = self.rng.u8(..if self.may_append { 4 } else { 3 });
        let (writes, appends) = (kind > 0, kind == 3);
        self.history.add(format!("mount {mount} open {} (kind {kind})", self.name));
        let mut options = File::options();
        let file = options.read(true).write(writes).append(appends).open(self.path(mount)).at("open")?;
        self.handles.push(Handle { mount, file, writes, appends });
        Ok(())
    }

    fn close(&mut self) {
        let Some(at) = self.any_handle(|_| true) else { return };
        self.history.add(format!("{} close", self.shown(at)));
        drop(self.handles.swap_remove(at));
    }

    fn read(&mut self) -> Checked {
        let Some(at) = self.any_handle(|_| true) else { return self.open() };
        let offset = self.rng.usize(..=self.bytes.len() + 10);
        let len = self.rng.usize(1..=CALL_BYTES_MAX);
        self.history.add(format!("{} read {len}@{offset}", self.shown(at)));
        let mut found = vec![0; len];
        let got = read_full(&self.handles[at].file, &mut found, offset).at("read")?;
        let start = offset.min(self.bytes.len());
        let expected = &self.bytes[start..(offset + len).clamp(start, self.bytes.len())];
        compare(&found[..got], expected, offset)
    }

    fn write(&mut self) -> Checked {
        let Some(at) = self.any_handle(|handle| handle.writes && !handle.appends) else { return self.open() };
        let end = (self.bytes.len() + CALL_BYTES_MAX / 4).min(BYTES_MAX - CALL_BYTES_MAX);
        let offset = self.rng.usize(..=end);
        let bytes = self.any_bytes();
        self.history.add(format!("{} write {}@{offset}", self.shown(at), bytes.len()));
        self.handles[at].file.write_all_at(&bytes, offset as u64).at("write")?;
        self.change(offset, &bytes);
        Ok(())
    }

    fn any_bytes(&mut self) -> Vec<u8> {
        let most = if self.rng.bool() { 100 } else { CALL_BYTES_MAX };
        let mut bytes = vec![0; self.rng.usize(1..=most)];
        self.rng.fill(&mut bytes);
        bytes
    }

    fn change(&mut self, offset: usize, bytes: &[u8]) {
        if self.bytes.len() < offset + bytes.len() {
            self.bytes.resize(offset + bytes.len(), 0);
        }
        self.bytes[offset..offset + bytes.len()].copy_from_slice(bytes);
        self.mtime = None;
    }

    fn append(&mut self) -> Checked {
        let Some(at) = self.any_handle(|handle| handle.appends) else { return self.open() };
        let bytes = self.any_bytes();
        if self.bytes.len() + bytes.len() > BYTES_MAX {
            return self.truncate();
        }
        self.history.add(format!("{} append {}, to {}", self.shown(at), bytes.len(), self.bytes.len()));
        (&self.handles[at].file).write_all(&bytes).at("append")?;
        self.change(self.bytes.len(), &bytes);
        Ok(())
    }

    fn truncate(&mut self) -> Checked {
        let most = self.bytes.len() + CALL_BYTES_MAX / 4;
        let len = if self.rng.u8(..4) == 0 { 0 } else { self.rng.usize(..=most.min(BYTES_MAX)) };
        let handle = self.any_handle(|handle| handle.writes).filter(|_| self.rng.bool());
        if let Some(at) = handle {
            self.history.add(format!("{} truncate to {len}", self.shown(at)));
            self.handles[at].file.set_len(len as u64).at("truncate")?;
        } else {
            let mount = self.any_mount();
            self.history.add(format!("mount {mount} open and truncate to {len}"));
            let file = File::options().write(true).open(self.path(mount)).at("open")?;
            file.set_len(len as u64).at("truncate")?;
        }
        self.bytes.resize(len, 0);
        self.mtime = None;
        Ok(())
    }

    fn fallocate(&mut self) -> Checked {
        let Some(at) = self.any_handle(|handle| handle.writes) else { return self.open() };
        let keep = FallocateFlags::KEEP_SIZE;
        let (flags, what) = match self.rng.u8(..5) {
            0 if self.may_grow_by_room => (FallocateFlags::empty(), "room"),
            0 | 1 => (keep, "room behind the end"),
            2 | 3 => (keep | FallocateFlags::PUNCH_HOLE, "a hole"),
            _ if self.may_grow_by_room => (FallocateFlags::ZERO_RANGE, "zeros"),
            _ => (keep | FallocateFlags::ZERO_RANGE, "zeros up to the end"),
        };
        let offset = self.rng.usize(..=self.bytes.len().min(BYTES_MAX - CALL_BYTES_MAX));
        let len = self.rng.usize(1..=CALL_BYTES_MAX);
        self.history.add(format!("{} fallocate {what} {len}@{offset}", self.shown(at)));
        match fallocate(&self.handles[at].file, flags, offset as u64, len as u64) {
            Err(rustix::io::Errno::OPNOTSUPP) => return Ok(()),
            done => done.at("fallocate")?,
        }
        if !flags.contains(keep) && self.bytes.len() < offset + len {
            self.bytes.resize(offset + len, 0);
        }
        if flags.intersects(FallocateFlags::PUNCH_HOLE | FallocateFlags::ZERO_RANGE) {
            let end = (offset + len).min(self.bytes.len());
            self.bytes[offset.min(end)..end].fill(0);
        }
        self.mtime = None;
        Ok(())
    }

    /// What every mount, and every open descriptor, says of it.
    fn stat(&mut self) -> Checked {
        for mount in 0..self.roots.len() {
            self.history.add(format!("mount {mount} stat"));
            let found = fs::metadata(self.path(mount)).at("stat")?;
            self.check_stat(&found)?;
        }
        if let Some(at) = self.any_handle(|_| true) {
            self.history.add(format!("{} fstat", self.shown(at)));
            let found = self.handles[at].file.metadata().at("fstat")?;
            self.check_stat(&found)?;
        }
        Ok(())
    }

    fn check_stat(&mut self, found: &fs::Metadata) -> Checked {
        let told = (Some(found.ino()), found.len(), found.mode() & 0o7777, found.nlink());
        let expected = (self.ino, self.bytes.len() as u64, self.mode, 1);
        if told != expected {
            return Err(Wrong::other(format!("(ino, size, mode, links) are {told:?}, must be {expected:?}")));
        }
        let mtime = (found.mtime(), found.mtime_nsec());
        match self.mtime {
            Some(expected) if expected != mtime => {
                Err(Wrong::other(format!("mtime is {mtime:?}, and was {expected:?} without a change since")))
            }
            Some(_) => Ok(()),
            None => {
                self.mtime = self.times.then_some(mtime);
                Ok(())
            }
        }
    }

    fn chmod(&mut self) -> Checked {
        let mount = self.any_mount();
        let mode = [0o644, 0o600, 0o666, 0o640][self.rng.usize(..4)];
        self.history.add(format!("mount {mount} chmod {mode:o}"));
        fs::set_permissions(self.path(mount), PermissionsExt::from_mode(mode)).at("chmod")?;
        self.mode = mode;
        Ok(())
    }

    fn utimens(&mut self) -> Checked {
        let Some(at) = self.any_handle(|handle| handle.writes) else { return self.open() };
        let (secs, nanos) = (self.rng.u32(..2_000_000_000), self.rng.u32(..1_000_000_000));
        self.history.add(format!("{} utimens {secs}.{nanos:09}", self.shown(at)));
        let time = SystemTime::UNIX_EPOCH + Duration::new(secs.into(), nanos);
        self.handles[at].file.set_times(FileTimes::new().set_modified(time)).at("utimens")?;
        self.mtime = self.times.then_some((secs.into(), nanos.into()));
        Ok(())
    }

    fn xattr(&mut self) -> Checked {
        let mount = self.any_mount();
        let name = format!("user.{}", ["a", "b", "c"][self.rng.usize(..3)]);
        let path = self.path(mount);
        match self.rng.u8(..4) {
            0 => {
                let value = self.rng.u64(..).to_le_bytes()[..self.rng.usize(..8)].to_vec();
                self.history.add(format!("mount {mount} setxattr {name} {value:?}"));
                setxattr(&path, name.as_str(), &value, XattrFlags::empty()).at("setxattr")?;
                self.xattrs.insert(name, value);
                Ok(())
            }
            1 => {
                self.history.add(format!("mount {mount} removexattr {name}"));
                let done = removexattr(&path, name.as_str());
                match (done, self.xattrs.remove(&name)) {
                    (Ok(()), Some(_)) | (Err(rustix::io::Errno::NODATA), None) => Ok(()),
                    (done, was) => Err(Wrong::other(format!("removexattr gave {done:?}, there was {was:?}"))),
                }
            }
            2 => {
                self.history.add(format!("mount {mount} getxattr {name}"));
                let mut value = [0; 64];
                let found = getxattr(&path, name.as_str(), &mut value[..]).map(|len| value[..len].to_vec());
                match (found, self.xattrs.get(&name)) {
                    (Ok(found), Some(expected)) if found == *expected => Ok(()),
                    (Err(rustix::io::Errno::NODATA), None) => Ok(()),
                    (found, expected) => {
                        Err(Wrong::other(format!("getxattr gave {found:?}, must be {expected:?}")))
                    }
                }
            }
            _ => {
                self.history.add(format!("mount {mount} listxattr"));
                let mut list = vec![0; 256];
                let len = listxattr(&path, &mut list[..]).at("listxattr")?;
                let names = list[..len].split(|&byte| byte == 0).filter_map(|name| str::from_utf8(name).ok());
                let mut found: Vec<&str> = names.filter(|name| name.starts_with("user.")).collect();
                found.sort_unstable();
                if found.iter().copied().eq(self.xattrs.keys()) {
                    return Ok(());
                }
                Err(Wrong::other(format!("listxattr gave {found:?}, must be {:?}", self.xattrs.keys())))
            }
        }
    }

    fn sync(&mut self) -> Checked {
        let Some(at) = self.any_handle(|_| true) else { return self.open() };
        self.history.add(format!("{} fsync", self.shown(at)));
        self.handles[at].file.sync_all().at("fsync")
    }

    fn rename(&mut self) -> Checked {
        let mount = self.any_mount();
        let to = NAMES[self.rng.usize(..NAMES.len())];
        self.history.add(format!("mount {mount} rename {} {to}", self.name));
        fs::rename(self.path(mount), self.roots[mount].join(to)).at("rename")?;
        self.name = to;
        Ok(())
    }

    fn seek_end(&mut self) -> Checked {
        let Some(at) = self.any_handle(|handle| !handle.appends) else { return self.open() };
        self.history.add(format!("{} seek to the end", self.shown(at)));
        let found = seek(&self.handles[at].file, SeekFrom::End(0)).at("lseek")?;
        let expected = self.bytes.len() as u64;
        if found == expected {
            return Ok(());
        }
        Err(Wrong::other(format!("the end is at {found}, must be at {expected}")))
    }
}

/// Until the end, or until `bytes` is full.
fn read_full(file: &File, bytes: &mut [u8], offset: usize) -> io::Result<usize> {
    let mut done = 0;
    while done < bytes.len() {
        match file.read_at(&mut bytes[done..], (offset + done) as u64)? {
            0 => break,
            more => done += more,
        }
    }
    Ok(done)
}

fn compare(found: &[u8], expected: &[u8], offset: usize) -> Checked {
    let at = found.iter().zip(expected).position(|(found, expected)| found != expected);
    if let Some(at) = at {
        let until =
            (at..found.len().min(expected.len())).rfind(|&at| found[at] != expected[at]).unwrap_or(at);
        let zeros = found[at..=until].iter().all(|&byte| byte == 0);
        let what = if zeros { "zeros" } else { "other bytes" };
        return Err(Wrong::lost(format!("{what} in {}..{}", offset + at, offset + until + 1)));
    }
    if found.len() != expected.len() {
        let text = format!("{} bytes came from {offset} on, must be {}", found.len(), expected.len());
        return Err(if found.len() < expected.len() { Wrong::lost(text) } else { Wrong::other(text) });
    }
    Ok(())
}
