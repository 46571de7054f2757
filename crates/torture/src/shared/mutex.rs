//! Mutual exclusion by names: of all processes on all mounts, one at a time has made the name, and sees what the one before
//! left.

use super::{
    part::{At, Checked, Wrong},
    process::{Tally, Turn},
};
use std::{
    fs::{self, File},
    io::{self, ErrorKind},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

#[derive(Clone, Copy)]
enum By {
    Create,
    Link,
    Mkdir,
}

const ALL: [(By, &str); 3] =
    [(By::Create, "mutex-create"), (By::Link, "mutex-link"), (By::Mkdir, "mutex-mkdir")];
/// How often one that is taken is tried again at once.
const TRIES: u32 = 50;
const NOBODY: u64 = 0;

pub(crate) struct Mutexes {
    dir: PathBuf,
    process: u32,
    entered: [u64; 3],
}

/// What the one inside reads and writes: who it is, and how often anybody was.
fn inside(dir: &Path, name: &str) -> PathBuf {
    dir.join(format!("{name}.inside"))
}

pub(crate) fn make(dir: &Path) -> io::Result<()> {
    ALL.iter().try_for_each(|(_, name)| fs::write(inside(dir, name), [0; 16]))
}

impl Mutexes {
    pub fn new(dir: &Path, process: u32) -> Mutexes {
        Mutexes { dir: dir.to_owned(), process, entered: [0; 3] }
    }

    fn try_take(&self, by: By, path: &Path) -> io::Result<()> {
        match by {
            By::Create => File::options().write(true).create_new(true).open(path).map(drop),
            By::Link => fs::hard_link(self.own(), path),
            By::Mkdir => fs::create_dir(path),
        }
    }

    /// What is linked.
    fn own(&self) -> PathBuf {
        self.dir.join(format!("mutex-link.{}", self.process))
    }

    fn take(&self, by: By, path: &Path, rng: &mut fastrand::Rng) -> Checked<bool> {
        for _ in 0..TRIES {
            match self.try_take(by, path) {
                Ok(()) => return Ok(true),
                Err(error) if error.kind() == ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error).at("take a mutex"),
            }
            std::thread::sleep(Duration::from_micros(rng.u64(50..1000)));
        }
        Ok(false)
    }

    fn be_inside(&self, name: &str) -> Checked {
        let file = File::options().read(true).write(true).open(inside(&self.dir, name)).at("open")?;
        let [owner, entries] = read(&file)?;
        if owner != NOBODY {
            return Err(Wrong::doubled(format!("{name}: process {} is inside too", owner - 1)));
        }
        let own = u64::from(self.process) + 1;
        write(&file, [own, entries + 1])?;
        if read(&file)? != [own, entries + 1] {
            return Err(Wrong::doubled(format!("{name}: somebody else wrote inside")));
        }
        write(&file, [NOBODY, entries + 1])
    }
}

impl Turn for Mutexes {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked {
        let which = rng.usize(..ALL.len());
        let (by, name) = ALL[which];
        let path = self.dir.join(name);
        if matches!(by, By::Link) && self.entered[which] == 0 {
            fs::write(self.own(), []).at("make what is linked")?;
        }
        if !self.take(by, &path, rng)? {
            return Ok(());
        }
        self.be_inside(name)?;
        self.entered[which] += 1;
        match by {
            By::Mkdir => fs::remove_dir(&path).at("give a mutex back"),
            By::Create | By::Link => fs::remove_file(&path).at("give a mutex back"),
        }
    }

    fn tally(&self, tally: &mut Tally) {
        ALL.iter().zip(self.entered).for_each(|((_, name), entered)| tally.add(name, entered));
    }
}

pub(crate) fn check(dir: &Path, tallies: &[Tally]) -> Checked {
    for (_, name) in ALL {
        if fs::symlink_metadata(dir.join(name)).is_ok() {
            return Err(Wrong::other(format!("{name} is still taken")));
        }
        let [_, entries] = read(&File::open(inside(dir, name)).at("open")?)?;
        let entered: u64 = tallies.iter().map(|tally| tally.get(name)).sum();
        if entries != entered {
            return Err(Wrong::lost(format!("{name}: {entered} times inside, {entries} counted")));
        }
    }
    Ok(())
}

fn read(file: &File) -> Checked<[u64; 2]> {
    let mut bytes = [0; 16];
    file.read_exact_at(&mut bytes, 0).at("read inside")?;
    let [mut owner, mut entries] = [[0; 8]; 2];
    owner.copy_from_slice(&bytes[..8]);
    entries.copy_from_slice(&bytes[8..]);
    Ok([u64::from_le_bytes(owner), u64::from_le_bytes(entries)])
}

fn write(file: &File, numbers: [u64; 2]) -> Checked {
    file.write_all_at(&numbers.map(u64::to_le_bytes).concat(), 0).at("write inside")
}
