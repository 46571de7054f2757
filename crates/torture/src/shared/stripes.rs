//! One file whose blocks belong to one process each: nobody's writes touch a neighbour's.

use super::{
    part::{At, Checked, Wrong},
    process::{Tally, Turn},
};
use crate::content::{self, BLOCK_BYTES};
use std::{
    fs::File,
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const FILE: &str = "stripes";
/// The number that its blocks bear.
const NUMBER: u64 = 1;
/// Of each process.
const BLOCKS: u64 = 40;

pub(crate) struct Stripes {
    path: PathBuf,
    process: u64,
    of: u64,
    /// Of each own block.
    versions: Vec<u64>,
    file: Option<File>,
}

pub(crate) fn make(dir: &Path) -> std::io::Result<()> {
    std::fs::write(dir.join(FILE), [])
}

impl Stripes {
    pub fn new(dir: &Path, process: u32, of: u32) -> Stripes {
        let versions = vec![0; usize::try_from(BLOCKS).unwrap_or_default()];
        Stripes { path: dir.join(FILE), process: process.into(), of: of.into(), versions, file: None }
    }
}

fn check_block(file: &File, block: u64, version: u64) -> Checked {
    let mut bytes = [0; BLOCK_BYTES];
    let mut len = 0;
    while len < BLOCK_BYTES {
        match file.read_at(&mut bytes[len..], block * BLOCK_BYTES as u64 + len as u64).at("read")? {
            0 => break,
            more => len += more,
        }
    }
    if version > 0 && len < BLOCK_BYTES {
        return Err(Wrong::lost(format!("block {block}: only {len} bytes came")));
    }
    // What was never written may lie behind the end.
    content::check(&bytes[..len], NUMBER, block, version).map_err(|(kind, text)| Wrong::new(kind, text))
}

impl Turn for Stripes {
    fn step(&mut self, rng: &mut fastrand::Rng) -> Checked {
        if rng.u8(..8) == 0 {
            self.file = None;
        }
        let file = match self.file.take() {
            Some(file) => file,
            None => File::options().read(true).write(true).open(&self.path).at("open")?,
        };
        let own = rng.usize(..self.versions.len());
        let block = own as u64 * self.of + self.process;
        if rng.bool() {
            let mut bytes = [0; BLOCK_BYTES];
            content::fill(&mut bytes, NUMBER, block, self.versions[own] + 1);
            file.write_all_at(&bytes, block * BLOCK_BYTES as u64).at("write")?;
            self.versions[own] += 1;
        } else {
            check_block(&file, block, self.versions[own])?;
        }
        self.file = Some(file);
        Ok(())
    }

    fn tally(&self, tally: &mut Tally) {
        self.versions.iter().zip(0_u64..).for_each(|(&version, own)| tally.add(&own.to_string(), version));
    }
}

pub(crate) fn check(dir: &Path, tallies: &[Tally]) -> Checked {
    let file = File::open(dir.join(FILE)).at("open")?;
    for (tally, process) in tallies.iter().zip(0..) {
        for own in 0..BLOCKS {
            let block = own * tallies.len() as u64 + process;
            check_block(&file, block, tally.get(&own.to_string())).at(&format!("process {process}"))?;
        }
    }
    Ok(())
}
