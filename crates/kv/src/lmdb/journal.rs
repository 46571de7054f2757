//! The journal: two files of fixed size, written in turn, each a row of records. One is written while LMDB takes what
//! the other holds. `docs/disk-mgr.md` has the format.
//!
//! A record is good when its checksum is, and when its number follows its predecessor's. So what an earlier round
//! left in the file ends the row, and so does a record that a power loss tore. Only the last record can be torn, as each is
//! durable before the next is written: where newer records come after the row's end, the disk has damaged an old one.

use super::{
    checkpoint::{Frozen, Pairs},
    tree::Durability,
};
use crate::{KvError, WriteSet};
use memchr::memmem;
use rustix::{
    fs::{FallocateFlags, fallocate},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io,
    ops::Range,
    os::unix::fs::{FileExt, MetadataExt as _},
    path::{Path, PathBuf},
    sync::Arc,
};
use tracing::debug;

const MAGIC: [u8; 4] = *b"PVj1";
/// Magic, length of the payload (u32), number (u64), CRC-32C of these and the payload (u32); all big-endian.
const HEAD_BYTES: usize = 20;
/// What `stat` counts in.
const BLOCK_BYTES: u64 = 512;
/// In place of a value's length: the key is deleted.
const DELETED: u32 = u32::MAX;

/// The journal, open to be written to.
pub(super) struct Journal {
    segments: [Segment; 2],
    current: usize,
    /// Where the next record goes.
    pub at: u64,
    last: u64,
    segment_bytes: u64,
    durability: Durability,
    /// A sync failed: what the file holds is unknown, and no later sync may pretend to know.
    broken: bool,
}

struct Segment {
    file: File,
    path: PathBuf,
    /// Up to where its blocks were written once.
    written: u64,
}

/// What a journal held that LMDB does not have.
#[derive(Default)]
pub(super) struct Recovered {
    pub frozen: Option<Frozen>,
    pub active: Pairs,
}

/// A record without its number.
pub(super) struct Record(Vec<u8>);

/// What one segment holds: its bytes, and the good records from its start on.
struct Row {
    bytes: Vec<u8>,
    /// Where in `bytes` each record's changes are.
    changes: Vec<Range<usize>>,
    /// Number of the first.
    first: u64,
}

impl Journal {
    /// Opens the journal in `dir`, making it where it is missing. LMDB has all records up to `applied`.
    pub fn open(
        dir: &Path,
        segment_bytes: u64,
        durability: Durability,
        applied: u64,
    ) -> Result<(Journal, Recovered), KvError> {
        let open = |number| Segment::open(dir, number);
        let segments = [open(0)?, open(1)?];
        File::open(dir)
            .and_then(|dir| dir.sync_all())
            .map_err(|source| KvError::Io { what: format!("cannot sync {}", dir.display()), source })?;
        let rows = [segments[0].read(segment_bytes)?, segments[1].read(segment_bytes)?];
        // The newer row is the one that was written last.
        let current = usize::from(rows[1].next() > rows[0].next());
        let mut recovered = Recovered::default();
        let mut last = applied;
        for (row, is_current) in [(&rows[1 - current], false), (&rows[current], true)] {
            if row.next() <= last + 1 {
                continue;
            }
            if row.first > last + 1 {
                let detail = format!(
                    "{} does not follow what LMDB holds: commits {} to {} are missing. Where data.mdb and the journal \
                     come from a backup, restore both from the same one",
                    dir.join("journal").display(),
                    last + 1,
                    row.first - 1
                );
                return Err(KvError::Corrupt { detail });
            }
            let Some(pairs) = row.pairs_from(last + 1) else {
                let detail =
                    format!("the changes of a commit in {} cannot be read", dir.join("journal").display());
                return Err(KvError::Corrupt { detail });
            };
            last = row.next() - 1;
            if is_current {
                recovered.active = pairs;
            } else {
                recovered.frozen = Some(Frozen { pairs, through: last });
            }
        }
        if let Some(beyond) = rows[0].newest_beyond(last).max(rows[1].newest_beyond(last)) {
            let detail = format!(
                "{} is damaged: commits {} to {beyond} were answered and cannot be read as a whole. Restore data.mdb and the \
                 journal from a backup, both from the same one",
                dir.join("journal").display(),
                last + 1,
            );
            return Err(KvError::Corrupt { detail });
        }
        let at = rows[current].end() as u64;
        let journal = Journal { segments, current, at, last, segment_bytes, durability, broken: false };
        Ok((journal, recovered))
    }

    /// Has blocks allocated for all of it, so that a record finds them there. Where that cannot be had, syncs take longer.
    pub fn allocate(&self) -> Result<(), KvError> {
        for Segment { file, .. } in &self.segments {
            let there = file.metadata().map_err(|source| self.error(source))?;
            // To sync what nothing was done to still waits for what others write to the disk.
            if there.blocks() * BLOCK_BYTES >= self.segment_bytes {
                continue;
            }
            match fallocate(file, FallocateFlags::KEEP_SIZE, 0, self.segment_bytes) {
                Ok(()) if self.durability == Durability::NoSync => {}
                Ok(()) => file.sync_all().map_err(|source| self.error(source))?,
                Err(Errno::OPNOTSUPP | Errno::NOSPC) => {}
                Err(errno) => return Err(self.error(errno.into())),
            }
        }
        Ok(())
    }

    pub fn segment_bytes(&self) -> u64 {
        self.segment_bytes
    }

    /// The number of the last record.
    pub fn last(&self) -> u64 {
        self.last
    }

    /// `set` as a record.
    pub fn record(&self, set: &WriteSet) -> Result<Record, KvError> {
        if self.broken {
            let source = io::Error::other("an earlier write to it failed; restart the mgr");
            return Err(self.error(source));
        }
        Ok(Record(encode(set)))
    }

    /// Whether an empty segment has space for `record`.
    pub fn takes(&self, record: &Record) -> bool {
        record.0.len() as u64 <= self.segment_bytes
    }

    /// Whether the current segment has.
    pub fn has_space(&self, record: &Record) -> bool {
        self.at + record.0.len() as u64 <= self.segment_bytes
    }

    /// Writes `record`, durably.
    pub fn append(&mut self, Record(mut record): Record) -> Result<(), KvError> {
        seal(&mut record, self.last + 1);
        if self.durability == Durability::Sync {
            self.segments[self.current].write_ahead(self.at + record.len() as u64, self.segment_bytes);
        }
        let file = &self.segments[self.current].file;
        let written = file.write_all_at(&record, self.at).and_then(|()| match self.durability {
            Durability::Sync => file.sync_data(),
            Durability::NoSync => Ok(()),
        });
        if let Err(source) = written {
            self.broken = true;
            return Err(self.error(source));
        }
        self.at += record.len() as u64;
        self.last += 1;
        Ok(())
    }

    /// Goes on in the other segment, over what is there: LMDB has all of it.
    pub fn switch(&mut self) {
        self.current = 1 - self.current;
        self.at = 0;
    }

    /// Gives its space back: LMDB has all of it, and nothing more is written.
    pub fn empty(&self) {
        for segment in &self.segments {
            // What stays costs space only.
            let _ = segment.file.set_len(0);
        }
    }

    fn error(&self, source: io::Error) -> KvError {
        KvError::Io {
            what: format!("cannot write to {}", self.segments[self.current].path.display()),
            source,
        }
    }
}

impl Segment {
    fn open(dir: &Path, number: usize) -> Result<Segment, KvError> {
        let path = dir.join(format!("journal.{number}"));
        let error = |source| KvError::Io { what: format!("cannot open {}", path.display()), source };
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .open(&path)
            .map_err(error)?;
        let written = file.metadata().map_err(error)?.len();
        Ok(Segment { file, path, written })
    }

    /// Where a record is to end at `end` and the blocks up to there were never written: writes zeros over these and some more.
    /// To sync a block that is only allocated, a disk's file system has to note too that it is written now: that takes
    /// twice as long.
    fn write_ahead(&mut self, end: u64, segment_bytes: u64) {
        const AHEAD_BYTES: u64 = 1 << 20;
        if end <= self.written {
            return;
        }
        let to = end.next_multiple_of(AHEAD_BYTES).min(segment_bytes);
        let zeros = vec![0; usize::try_from(to - self.written).unwrap_or_default()];
        if let Err(error) = self.file.write_all_at(&zeros, self.written) {
            // The record itself may still find space.
            debug!(%error, "nothing is written ahead in the journal");
        }
        self.written = to;
    }

    /// What it holds, of at most `segment_bytes`.
    fn read(&self, segment_bytes: u64) -> Result<Row, KvError> {
        let error = |source| KvError::Io { what: format!("cannot read {}", self.path.display()), source };
        let len = self.file.metadata().map_err(error)?.len();
        if len > segment_bytes {
            let path = self.path.display();
            let detail = format!("{path} has {len} bytes, and no mgr writes more than {segment_bytes}");
            return Err(KvError::Corrupt { detail });
        }
        let mut bytes = vec![0; usize::try_from(len).unwrap_or(usize::MAX)];
        self.file.read_exact_at(&mut bytes, 0).map_err(error)?;
        Ok(Row::of(bytes))
    }
}

impl Row {
    fn of(bytes: Vec<u8>) -> Row {
        let mut row = Row { bytes, changes: Vec::new(), first: 0 };
        while let Some((number, changes)) = record_at(&row.bytes, row.end()) {
            if row.changes.is_empty() {
                row.first = number;
            } else if number != row.next() {
                break;
            }
            row.changes.push(changes);
        }
        row
    }

    /// One past the last record's number.
    fn next(&self) -> u64 {
        self.first + self.changes.len() as u64
    }

    /// Where the next record would begin.
    fn end(&self) -> usize {
        self.changes.last().map_or(0, |changes| changes.end)
    }

    /// What the records from `number` on, at least the first, have changed. `None`: they cannot be read.
    fn pairs_from(&self, number: u64) -> Option<Pairs> {
        let known = usize::try_from(number - self.first).unwrap_or(usize::MAX);
        let mut changes = Vec::new();
        for record in self.changes.iter().skip(known) {
            decode(&self.bytes[record.clone()], &mut changes)?;
        }
        // Most keys are changed again and again, and the last change counts: sorted, they are put there once.
        changes.reverse();
        changes.sort_by_key(|&(key, _)| key);
        changes.dedup_by_key(|&mut (key, _)| key);
        Some(changes.into_iter().map(|(key, value)| (Arc::from(key), value.map(Arc::from))).collect())
    }

    /// The highest number above `last` of a whole record after the row's end. What earlier rounds left there is told by its
    /// head alone.
    fn newest_beyond(&self, last: u64) -> Option<u64> {
        let mut newest = None;
        for place in memmem::find_iter(&self.bytes[self.end()..], &MAGIC) {
            let begin = self.end() + place;
            let number = self.bytes.get(begin..begin + HEAD_BYTES).map(number_of);
            if number.is_some_and(|number| number > last.max(newest.unwrap_or(0))) {
                newest = record_at(&self.bytes, begin).map(|(number, _)| number).or(newest);
            }
        }
        newest
    }
}

fn encode(set: &WriteSet) -> Vec<u8> {
    let mut out = Vec::with_capacity(HEAD_BYTES + set.byte_count() + 8 * set.len());
    out.resize(HEAD_BYTES, 0);
    let put_len = |out: &mut Vec<u8>, len: usize| {
        out.extend(u32::try_from(len).unwrap_or(DELETED).to_be_bytes());
    };
    for (key, value) in set.iter() {
        put_len(&mut out, key.len());
        out.extend(key);
        match value {
            Some(value) => {
                put_len(&mut out, value.len());
                out.extend(value);
            }
            None => out.extend(DELETED.to_be_bytes()),
        }
    }
    out
}

/// Fills the head in.
fn seal(record: &mut [u8], number: u64) {
    let payload_bytes = u32::try_from(record.len() - HEAD_BYTES).expect("a segment holds less than 4 GiB");
    record[0..4].copy_from_slice(&MAGIC);
    record[4..8].copy_from_slice(&payload_bytes.to_be_bytes());
    record[8..16].copy_from_slice(&number.to_be_bytes());
    let crc = checksum(&record[..16], &record[HEAD_BYTES..]);
    record[16..20].copy_from_slice(&crc.to_be_bytes());
}

/// The number in a record's head.
fn number_of(head: &[u8]) -> u64 {
    head[8..16].iter().fold(0, |number, &byte| number << 8 | u64::from(byte))
}

fn checksum(head: &[u8], payload: &[u8]) -> u32 {
    let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
    digest.update(head);
    digest.update(payload);
    u32::try_from(digest.finalize()).expect("a 32-bit checksum")
}

/// The record that begins at `begin`: its number, and where its changes are. `None`: no good one.
fn record_at(bytes: &[u8], begin: usize) -> Option<(u64, Range<usize>)> {
    let (head, rest) = bytes.get(begin..)?.split_at_checked(HEAD_BYTES)?;
    let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (len, crc) = (usize::try_from(u32_at(4)).ok()?, u32_at(16));
    if head[..4] != MAGIC || checksum(&head[..16], rest.get(..len)?) != crc {
        return None;
    }
    let changes = begin + HEAD_BYTES;
    Some((number_of(head), changes..changes + len))
}

/// Adds a record's changes to `changes`.
fn decode<'a>(mut record: &'a [u8], changes: &mut Vec<(&'a [u8], Option<&'a [u8]>)>) -> Option<()> {
    while !record.is_empty() {
        let len = take_u32(&mut record)?;
        let key = take(&mut record, len)?;
        let value = match take_u32(&mut record)? {
            DELETED => None,
            len => Some(take(&mut record, len)?),
        };
        changes.push((key, value));
    }
    Some(())
}

fn take<'a>(from: &mut &'a [u8], len: u32) -> Option<&'a [u8]> {
    let (taken, rest) = from.split_at_checked(usize::try_from(len).ok()?)?;
    *from = rest;
    Some(taken)
}

fn take_u32(from: &mut &[u8]) -> Option<u32> {
    let (taken, rest) = from.split_first_chunk::<4>()?;
    *from = rest;
    Some(u32::from_be_bytes(*taken))
}
