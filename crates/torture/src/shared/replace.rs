//! A file that is written aside and renamed over the last one: who has it open keeps it whole, who opens it sees a whole one,
//! never an older one than it has seen.

use super::{
    part::{At, Checked, Wrong, unless_stale},
    process::{STALE, Tally, Turn},
    stamp::{HEAD_BYTES, Stamp},
};
use std::{
    collections::HashMap,
    fs::{self, File},
    io::Read as _,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const FILE: &str = "published";
const BYTES_MAX: usize = 150_000;
const HELD_MAX: usize = 4;

pub(crate) struct Publisher {
    dir: PathBuf,
    process: u32,
    seq: u64,
    stale: u64,
    /// The latest that was seen, by process.
    seen: HashMap<u32, u64>,
    /// Open since, and what was read then.
    held: Vec<(File, Stamp)>,
}

pub(crate) fn make(dir: &Path) -> std::io::Result<()> {
    fs::write(dir.join(FILE), Stamp { process: 0, seq: 0, len: HEAD_BYTES }.bytes())
}

impl Publisher {
    pub fn new(dir: &Path, process: u32) -> Publisher {
        Publisher { dir: dir.to_owned(), process, seq: 0, stale: 0, seen: HashMap::new(), held: Vec::new() }
    }

    fn publish(&mut self, rng: &mut fastrand::Rng) -> Checked {
        let stamp = Stamp { process: self.process, seq: self.seq + 1, len: rng.usize(HEAD_BYTES..BYTES_MAX) };
        let aside = self.dir.join(format!("{FILE}.{}", self.process));
        fs::write(&aside, stamp.bytes()).at("write aside")?;
        fs::rename(&aside, self.dir.join(FILE)).at("rename over")?;
        self.seq += 1;
        self.seen.insert(self.process, self.seq);
        Ok(())
    }

    fn open(&mut self) -> Checked {
        let mut file = unless_stale(&mut self.stale, || File::open(self.dir.join(FILE))).at("open")?;
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at("read")?;
        let stamp = Stamp::read_all(&bytes).at("opened")?;
        let seen = self.seen.entry(stamp.process).or_default();
        if stamp.seq < *seen {
            return Err(Wrong::lost(format!("opened {stamp}, after {seen} was seen")));
        }
        *seen = stamp.seq;
        if self.held.len() < HELD_MAX {
            self.held.push((file, stamp));
        }
        Ok(())
    }

    fn look(&mut self, rng: &mut fastrand::Rng) -> Checked {
        if self.held.is_empty() {
            return self.open();
        }
        let at = rng.usize(..self.held.len());
        let (file, stamp) = &self.held[at];
        let mut bytes = vec![0; stamp.len + 1];
        let mut len = 0;
        while len < bytes.len() {
            match file.read_at(&mut bytes[len..], len as u64).at("read what is open")? {
                0 => break,
                more => len += more,
            }
        }
        let found = Stamp::read_all(&bytes[..len]).at("what was open")?;
        if found != *stamp {
            return Err(Wrong::other(format!("{stamp} was open, and became {found}")));
        }
        if rng.bool() {
            self.held.swap_remove(at);
        }
        Ok(())
    }
}

impl Turn for Publisher {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked {
        match rng.u8(..4) {
            0 => self.publish(rng),
            1 | 2 => self.look(rng),
            _ => self.open(),
        }
    }

    fn tally(&self, tally: &mut Tally) {
        tally.add("published", self.seq);
        tally.add(STALE, self.stale);
    }
}

pub(crate) fn check(dir: &Path, tallies: &[Tally]) -> Checked {
    let bytes = fs::read(dir.join(FILE)).at("read")?;
    let stamp = Stamp::read_all(&bytes)?;
    let published = tallies.get(stamp.process as usize).map_or(0, |tally| tally.get("published"));
    // Who published it may have published nothing later: else that one, or another process's, were there.
    if stamp.seq != published {
        return Err(Wrong::lost(format!("{stamp} is there, and {published} was published after it")));
    }
    Ok(())
}
