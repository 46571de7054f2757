//! Ranges without bytes: zeros, room; and where the data of an object lies.

use crate::{Acked, Fill, FillWith, Store, StoreError, fence::Verdict, ops::judge};
use pvfs_env::disk::DiskFile;
use pvfs_types::ObjectId;
use std::{io, ops::Range};

/// Zeros are written so many at a time, where the disk punches no holes.
const CHUNK_BYTES: u64 = 1 << 20;

impl Store {
    /// Fills a range. An object that is not there needs no zeros; for room it is made. Tells what the acknowledgement is worth.
    pub fn fill(&self, id: ObjectId, fill: &Fill) -> Result<Acked, StoreError> {
        let generation = self.generation();
        let durable = Acked::whole(generation, Acked::DURABLE);
        let handle = self.cache.get(id);
        let failed = |source| self.failed("fill", id, source);
        let file = match fill.with {
            FillWith::Zeros => match self.existing(&handle).map_err(failed)? {
                Some(file) => file,
                None => return Ok(durable),
            },
            FillWith::Room => self.opened(&handle, fill.makes)?,
        };
        let Verdict::Below(limit) = judge(&*file, fill.again).map_err(failed)? else {
            return Ok(durable);
        };
        let Range { start, end } = fill.range;
        match fill.with {
            FillWith::Zeros => {
                let end = end.min(limit).min(file.stat().map_err(failed)?.len);
                if start < end {
                    handle.is_unsynced(start..end);
                    zero(&*file, start..end).map_err(failed)?;
                }
            }
            FillWith::Room => file.allocate(start, end - start).map_err(|error| match error.kind() {
                io::ErrorKind::Unsupported => failed(io::Error::from_raw_os_error(libc::EOPNOTSUPP)),
                _ => failed(error),
            })?,
        }
        handle.written_by(fill.writer);
        let mark = self.commits.written(&handle, 0);
        Ok(Acked { generation, mark, below: limit })
    }

    /// Where the object has data at `from` or next behind it; `None`: nowhere.
    pub fn next_data(&self, id: ObjectId, from: u64) -> Result<Option<u64>, StoreError> {
        let handle = self.cache.get(id);
        let found = self.existing(&handle).and_then(|file| match file {
            Some(file) => file.next_data(from),
            None => Ok(None),
        });
        found.map_err(|source| self.failed("look for data in", id, source))
    }

    /// Where it has none. Behind its end all is one hole.
    pub fn next_hole(&self, id: ObjectId, from: u64) -> Result<u64, StoreError> {
        let handle = self.cache.get(id);
        let found = self.existing(&handle).and_then(|file| match file {
            Some(file) => file.next_hole(from),
            None => Ok(from),
        });
        found.map_err(|source| self.failed("look for holes in", id, source))
    }
}

fn zero(file: &dyn DiskFile, range: Range<u64>) -> io::Result<()> {
    match file.punch(range.start, range.end - range.start) {
        Err(error) if error.kind() == io::ErrorKind::Unsupported => {}
        other => return other,
    }
    let zeros = vec![0; usize::try_from(CHUNK_BYTES.min(range.end - range.start)).unwrap_or(usize::MAX)];
    let mut at = range.start;
    while at < range.end {
        let len = zeros.len().min(usize::try_from(range.end - at).unwrap_or(usize::MAX));
        file.write_at(&zeros[..len], at)?;
        at += len as u64;
    }
    Ok(())
}
