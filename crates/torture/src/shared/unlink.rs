//! Files that somebody unlinks, on whatever mount, while others have them open: their bytes stay until the last one closes
//! them, and each goes once.

use super::{
    part::{At, Checked, Wrong, unless_stale},
    process::{STALE, Tally, Turn},
    stamp::{HEAD_BYTES, Stamp},
};
use std::{
    fs::{self, File},
    io::{ErrorKind, Read as _},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const DIR: &str = "unlinked";
const BYTES_MAX: usize = 40_000;
const HELD_MAX: usize = 6;
/// There are about so many.
const FILES_MAX: usize = 20;

pub(crate) struct Unlinker {
    dir: PathBuf,
    process: u32,
    made: u64,
    unlinked: u64,
    stale: u64,
    held: Vec<(File, Stamp)>,
}

pub(crate) fn make(dir: &Path) -> std::io::Result<()> {
    fs::create_dir(dir.join(DIR))
}

impl Unlinker {
    pub fn new(dir: &Path, process: u32) -> Unlinker {
        Unlinker { dir: dir.join(DIR), process, made: 0, unlinked: 0, stale: 0, held: Vec::new() }
    }

    fn make(&mut self, rng: &mut fastrand::Rng) -> Checked {
        let stamp = Stamp { process: self.process, seq: self.made, len: rng.usize(HEAD_BYTES..BYTES_MAX) };
        let name = format!("{}-{}", self.process, self.made);
        // Aside first: whoever finds it here finds it whole.
        let aside = self.dir.join(format!(".{name}"));
        let file = File::options().read(true).write(true).create_new(true).open(&aside).at("make")?;
        file.write_all_at(&stamp.bytes(), 0).at("write")?;
        fs::rename(&aside, self.dir.join(&name)).at("rename")?;
        self.made += 1;
        self.keep(file, stamp);
        Ok(())
    }

    fn keep(&mut self, file: File, stamp: Stamp) {
        if self.held.len() < HELD_MAX {
            self.held.push((file, stamp));
        }
    }

    fn names(&self) -> Checked<Vec<PathBuf>> {
        let mut names = Vec::new();
        for entry in fs::read_dir(&self.dir).at("list")? {
            let entry = entry.at("list")?;
            if !entry.file_name().as_encoded_bytes().starts_with(b".") {
                names.push(entry.path());
            }
        }
        Ok(names)
    }

    /// Opens one and unlinks it: it, or somebody else, has done so then.
    fn unlink(&mut self, path: &Path) -> Checked {
        let mut file = match unless_stale(&mut self.stale, || File::open(path)) {
            Ok(file) => file,
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            Err(error) => return Err(error).at("open"),
        };
        match fs::remove_file(path) {
            Ok(()) => self.unlinked += 1,
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("unlink"),
        }
        match fs::symlink_metadata(path) {
            Err(error) if error.kind() == ErrorKind::NotFound => {}
            Err(error) => return Err(error).at("stat what was unlinked"),
            Ok(_) => return Err(Wrong::other(format!("{} is there after its unlink", path.display()))),
        }
        let mut bytes = Vec::new();
        file.read_to_end(&mut bytes).at("read what was unlinked")?;
        let stamp = Stamp::read_all(&bytes).at("what was unlinked")?;
        self.keep(file, stamp);
        Ok(())
    }

    fn look(&mut self, rng: &mut fastrand::Rng) -> Checked {
        if self.held.is_empty() {
            return Ok(());
        }
        let at = rng.usize(..self.held.len());
        let (file, stamp) = &self.held[at];
        let mut bytes = vec![0; stamp.len];
        file.read_exact_at(&mut bytes, 0).at(&format!("read {stamp}, which may be unlinked"))?;
        let found = Stamp::read_all(&bytes).at("what may be unlinked")?;
        if found != *stamp {
            return Err(Wrong::other(format!("{stamp} became {found}")));
        }
        if rng.bool() {
            self.held.swap_remove(at);
        }
        Ok(())
    }
}

impl Turn for Unlinker {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked {
        if rng.bool() {
            return self.look(rng);
        }
        let names = self.names()?;
        if names.len() < FILES_MAX && rng.bool() {
            return self.make(rng);
        }
        match names.get(rng.usize(..names.len().max(1))) {
            Some(path) => self.unlink(path),
            None => self.make(rng),
        }
    }

    fn tally(&self, tally: &mut Tally) {
        tally.add("made", self.made);
        tally.add("unlinked", self.unlinked);
        tally.add(STALE, self.stale);
    }
}

pub(crate) fn check(dir: &Path, tallies: &[Tally]) -> Checked {
    let left = fs::read_dir(dir.join(DIR)).at("list")?.count() as u64;
    let sum = |key| tallies.iter().map(|tally| tally.get(key)).sum::<u64>();
    let (made, unlinked) = (sum("made"), sum("unlinked"));
    let text = format!("{made} files were made, {unlinked} unlinked, {left} are there");
    match (made.checked_sub(unlinked), left) {
        (Some(expected), left) if expected == left => Ok(()),
        (Some(expected), left) if expected > left => Err(Wrong::lost(text)),
        (Some(_) | None, _) => Err(Wrong::doubled(text)),
    }
}
