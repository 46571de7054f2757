//! Copies bytes from one object to another: through memory, a piece at a time, so that no lock of one is held while that of the
//! other is waited for.

use crate::{Acked, Copied, Copy, Fill, FillWith, ObjectRun, Store, StoreError, Write};
use pvfs_types::{ObjectId, ObjectOffset};
use std::ops::Range;

/// So much is in memory at a time.
const CHUNK_BYTES: u64 = 1 << 20;

/// Where the copy of a byte goes, and what its acknowledgement is worth so far.
struct Writing<'a> {
    store: &'a Store,
    to: ObjectId,
    copy: &'a Copy,
    acked: Acked,
}

impl Store {
    /// Makes a range of `to` as that of `from` is. Where `from` has no data, or ends before, `to` has zeros as far as it reaches
    /// (a hole, where the disk can). It is no one moment's copy: what others write meanwhile is in it or not. After an error a
    /// part may be done.
    pub fn copy(&self, from: ObjectId, to: ObjectId, copy: &Copy) -> Result<Copied, StoreError> {
        let acked = Acked::whole(self.generation(), Acked::DURABLE);
        let mut writing = Writing { store: self, to, copy, acked };
        let Range { start: mut at, end } = copy.range;
        let mut source_len = self.stat(from)?.map_or(0, |stat| stat.len);
        while at < end {
            let data = self.next_data(from, at)?.map_or(end, |data| data.clamp(at, end));
            if at < data {
                writing.zero(at..data)?;
                at = data;
                continue;
            }
            let stop = self.next_hole(from, at)?.clamp(at + 1, end).min(at + CHUNK_BYTES);
            let len = usize::try_from(stop - at).unwrap_or(usize::MAX);
            let read = self.read(from, &[ObjectRun { offset: ObjectOffset(at), len }])?;
            writing.write(at, &read.bytes)?;
            at += read.bytes.len() as u64;
            if at < stop {
                // Cut meanwhile.
                source_len = source_len.min(read.object_len);
                writing.zero(at..stop)?;
                at = stop;
            }
        }
        Ok(Copied { acked: writing.acked, source_len })
    }
}

impl Writing<'_> {
    fn to(&self, at: u64) -> u64 {
        self.copy.to + (at - self.copy.range.start)
    }

    fn write(&mut self, at: u64, bytes: &[u8]) -> Result<(), StoreError> {
        let runs = [ObjectRun { offset: ObjectOffset(self.to(at)), len: bytes.len() }];
        let Copy { writer, makes, .. } = *self.copy;
        if !bytes.is_empty() {
            self.done(self.store.write(
                self.to,
                &Write { runs: &runs, writer, again: None, makes },
                bytes,
            )?);
        }
        Ok(())
    }

    fn zero(&mut self, range: Range<u64>) -> Result<(), StoreError> {
        let range = self.to(range.start)..self.to(range.end);
        let Copy { writer, makes, .. } = *self.copy;
        let fill = Fill { range, with: FillWith::Zeros, writer, again: None, makes };
        self.done(self.store.fill(self.to, &fill)?);
        Ok(())
    }

    /// All of it is worth what the part is that is worth the least.
    fn done(&mut self, part: Acked) {
        self.acked.generation = self.acked.generation.min(part.generation);
        self.acked.mark = self.acked.mark.max(part.mark);
    }
}
