//! What is written: bytes that say where they belong, so that a wrong one is known when it is read.

use crate::{BenchError, Runs, Verify};

/// Distance of the stamps, and what runs must be a multiple of to be stamped instead of filled.
const STAMP_EVERY: u64 = 4096;

/// The content of one file: the byte at each offset follows from the offset and the file's seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Content {
    pub seed: u64,
    pub verify: Verify,
}

impl Content {
    /// The eight bytes at `offset`, a multiple of 8.
    fn word(self, offset: u64) -> [u8; 8] {
        let mixed = (offset ^ self.seed).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed ^ (mixed >> 29)).to_le_bytes()
    }

    fn byte(self, offset: u64) -> u8 {
        self.word(offset & !7)[usize::try_from(offset % 8).unwrap_or(0)]
    }

    /// Whether eight bytes a block are enough.
    fn is_stamped(self, runs: Runs) -> bool {
        self.verify == Verify::Stamps
            && [runs.start, runs.len, runs.stride].iter().all(|n| n % STAMP_EVERY == 0)
    }

    /// Makes `data` what belongs to `runs`.
    pub fn put(self, runs: Runs, data: &mut [u8]) {
        if self.verify == Verify::Off {
            return;
        }
        let step = if self.is_stamped(runs) { STAMP_EVERY } else { 8 };
        for (start, run) in runs.slices_mut(data) {
            let (mut offset, end) = (start, start + run.len() as u64);
            while offset < end {
                // Not at a word's start: the rest of that word, byte by byte.
                let word_end = ((offset & !7) + 8).min(end);
                if let (0, Some(room)) = (offset % 8, room(run, start, offset)) {
                    *room = self.word(offset);
                    offset += step;
                } else {
                    for at in offset..word_end {
                        run[index(start, at)] = self.byte(at);
                    }
                    offset = word_end;
                }
            }
        }
    }

    /// Whether `data`, read from `runs`, is what was put there.
    pub fn check(self, name: &str, runs: Runs, data: &[u8]) -> Result<(), BenchError> {
        if data.len() as u64 != runs.bytes() {
            let (offset, wanted, found) = (runs.start, runs.bytes(), data.len() as u64);
            return Err(BenchError::Short { name: name.to_owned(), offset, wanted, found });
        }
        if self.verify == Verify::Off {
            return Ok(());
        }
        let step = if self.is_stamped(runs) { STAMP_EVERY } else { 8 };
        for (start, run) in runs.slices(data) {
            let mut offset = start;
            while offset < start + run.len() as u64 {
                let within = index(start, offset);
                if offset % 8 == 0
                    && run.get(within..within + 8).is_some_and(|found| found == self.word(offset))
                {
                    offset += step;
                    continue;
                }
                let word_end = ((offset & !7) + 8).min(start + run.len() as u64);
                for at in offset..word_end {
                    let (found, expected) = (run[index(start, at)], self.byte(at));
                    if found != expected {
                        return Err(BenchError::WrongByte {
                            name: name.to_owned(),
                            offset: at,
                            expected,
                            found,
                        });
                    }
                }
                offset = word_end;
            }
        }
        Ok(())
    }
}

fn index(start: u64, at: u64) -> usize {
    usize::try_from(at - start).unwrap_or(usize::MAX)
}

/// The eight bytes at `offset` of a run that starts at `start`, if they lie within it.
fn room(run: &mut [u8], start: u64, offset: u64) -> Option<&mut [u8; 8]> {
    let within = index(start, offset);
    run.get_mut(within..within + 8)?.first_chunk_mut()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(verify: Verify, runs: Runs) {
        let content = Content { seed: 7, verify };
        let mut data = vec![0xaa; usize::try_from(runs.bytes()).expect("small")];
        content.put(runs, &mut data);
        content.check("f", runs, &data).expect("what was put is there");
        if verify == Verify::Full || !content.is_stamped(runs) {
            for at in [0, data.len() / 2, data.len() - 1] {
                let mut wrong = data.clone();
                wrong[at] ^= 1;
                assert!(content.check("f", runs, &wrong).is_err(), "{runs:?}: byte {at}");
            }
        }
        let elsewhere = Runs { start: runs.start + 4096, ..runs };
        assert!(content.check("f", elsewhere, &data).is_err(), "{runs:?}: bytes from another place");
        let other_file = Content { seed: 8, verify };
        assert!(other_file.check("g", runs, &data).is_err(), "{runs:?}: bytes from another file");
    }

    #[test]
    fn wrong_missing_and_misplaced_bytes_are_found() {
        for verify in [Verify::Stamps, Verify::Full] {
            check(verify, Runs::one(0, 1 << 16));
            check(verify, Runs::one(8192, 4096));
            check(verify, Runs::one(13, 4099));
            check(verify, Runs { start: 5, len: 47, stride: 100, count: 9 });
            check(verify, Runs { start: 4096, len: 8192, stride: 65536, count: 3 });
        }
    }

    #[test]
    fn a_short_read_is_an_error_even_unverified() {
        let content = Content { seed: 1, verify: Verify::Off };
        assert!(matches!(
            content.check("f", Runs::one(0, 10), &[0; 9]),
            Err(BenchError::Short { found: 9, .. })
        ));
    }
}
