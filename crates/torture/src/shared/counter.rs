//! A number in a file that processes read and write under a lock: no step of anyone is lost.

use super::{
    part::{At, Checked, Part, Wrong},
    process::{Tally, Turn},
};
use rustix::fs::{FlockOperation, fcntl_lock, flock};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

pub(crate) struct Counter {
    path: PathBuf,
    part: Part,
    file: Option<File>,
    added: u64,
    last: u64,
}

pub(crate) fn make(dir: &Path, part: Part) -> std::io::Result<()> {
    std::fs::write(dir.join(part.name()), [0; 8])
}

impl Counter {
    pub fn new(dir: &Path, part: Part) -> Counter {
        Counter { path: dir.join(part.name()), part, file: None, added: 0, last: 0 }
    }

    fn lock(&self, file: &File, operation: FlockOperation) -> rustix::io::Result<()> {
        loop {
            let done = match self.part {
                Part::Fcntl => fcntl_lock(file, operation),
                _ => flock(file, operation),
            };
            if done != Err(rustix::io::Errno::INTR) {
                return done;
            }
        }
    }
}

impl Turn for Counter {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked {
        if rng.u8(..8) == 0 {
            self.file = None;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().read(true).write(true).open(&self.path).at("open")?,
        };
        self.lock(&file, FlockOperation::LockExclusive).at("lock")?;
        let found = read(&file)?;
        if found < self.last {
            let (part, last) = (self.part.name(), self.last);
            return Err(Wrong::lost(format!("the {part} counter is {found}, and was {last} already")));
        }
        file.write_all_at(&(found + 1).to_le_bytes(), 0).at("write")?;
        let again = read(&file)?;
        if again != found + 1 {
            return Err(Wrong::other(format!("wrote {} under a lock, and read {again}", found + 1)));
        }
        self.lock(&file, FlockOperation::Unlock).at("unlock")?;
        (self.added, self.last) = (self.added + 1, found + 1);
        self.file = Some(file);
        Ok(())
    }

    fn tally(&self, tally: &mut Tally) {
        tally.add("added", self.added);
    }
}

fn read(file: &File) -> Checked<u64> {
    let mut number = [0; 8];
    file.read_exact_at(&mut number, 0).at("read")?;
    Ok(u64::from_le_bytes(number))
}

/// In the end, through any mount.
pub(crate) fn check(dir: &Path, part: Part, tallies: &[Tally]) -> Checked {
    let found = read(&File::open(dir.join(part.name())).at("open")?)?;
    let added: u64 = tallies.iter().map(|tally| tally.get("added")).sum();
    match found.cmp(&added) {
        std::cmp::Ordering::Less => Err(Wrong::lost(format!("{added} were added, {found} are there"))),
        std::cmp::Ordering::Greater => Err(Wrong::doubled(format!("{added} were added, {found} are there"))),
        std::cmp::Ordering::Equal => Ok(()),
    }
}
