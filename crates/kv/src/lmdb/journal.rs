//! The journal: two files of fixed size, written in turn, each a row of records. One is written while LMDB takes what
//! the other holds. `docs/disk-mgr.md` has the format.
//!
//! A record is good when its checksum is, and when its number follows its predecessor's. So what an earlier round
//! left in the file ends the row, and so does a record that a power loss tore. Only the last record can be torn, as each is
//! durable before the next is written: where newer records come after the row's end, the disk has damaged an old one.

use super::{
    checkpoint::{Frozen, Pairs, extend},
    tree::Durability,
};
use crate::{KvError, WriteSet};
use memchr::memmem;
use rustix::{
    fs::{FallocateFlags, fallocate, seek},
    io::Errno,
};
use std::{
    fs::{File, OpenOptions},
    io::{self, BufReader, Read, Seek as _, SeekFrom},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
};

const MAGIC: [u8; 4] = *b"PVj1";
/// Magic, length of the payload (u32), number (u64), CRC-32C of these and the payload (u32); all big-endian.
const HEAD_BYTES: usize = 20;
/// How much is looked through at a time.
const SCAN_BYTES: usize = 1 << 20;
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
}

/// What a journal held that LMDB does not have.
#[derive(Default)]
pub(super) struct Recovered {
    pub frozen: Option<Frozen>,
    pub active: Pairs,
}

/// A record without its number.
pub(super) struct Record(Vec<u8>);

/// The good records of one segment.
#[derive(Default)]
struct Row {
    sets: Vec<WriteSet>,
    /// Number of the first.
    first: u64,
    end: u64,
}

impl Row {
    /// One past the last record's number.
    fn next(&self) -> u64 {
        self.first + self.sets.len() as u64
    }
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
        let rows = [segments[0].read()?, segments[1].read()?];
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
            let mut pairs = Pairs::new();
            let known = usize::try_from(last + 1 - row.first).unwrap_or(usize::MAX);
            row.sets.iter().skip(known).for_each(|set| extend(&mut pairs, set));
            last = row.next() - 1;
            if is_current {
                recovered.active = pairs;
            } else {
                recovered.frozen = Some(Frozen { pairs, through: last });
            }
        }
        let newest = |segment: &Segment, row: &Row| segment.newest_beyond(row.end, last);
        let (first, second) = (newest(&segments[0], &rows[0])?, newest(&segments[1], &rows[1])?);
        if let Some(beyond) = first.max(second) {
            let detail = format!(
                "{} is damaged: commits {} to {beyond} were answered and cannot be read as a whole. Restore data.mdb and the \
                 journal from a backup, both from the same one",
                dir.join("journal").display(),
                last + 1,
            );
            return Err(KvError::Corrupt { detail });
        }
        let at = rows[current].end;
        let journal = Journal { segments, current, at, last, segment_bytes, durability, broken: false };
        Ok((journal, recovered))
    }

    /// Has blocks allocated for all of it, so that a record finds them there. Where that cannot be had, syncs take longer.
    pub fn allocate(&self) -> Result<(), KvError> {
        for Segment { file, .. } in &self.segments {
            match fallocate(file, FallocateFlags::empty(), 0, self.segment_bytes) {
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
        File::open(dir).and_then(|dir| dir.sync_all()).map_err(error)?;
        Ok(Segment { file, path })
    }

    /// Its good records, from the start on.
    fn read(&self) -> Result<Row, KvError> {
        let error = |source| KvError::Io { what: format!("cannot read {}", self.path.display()), source };
        let bytes = self.file.metadata().map_err(error)?.len();
        let mut from = BufReader::with_capacity(1 << 20, &self.file);
        let mut row = Row::default();
        while let Some((number, set, len)) = read_record(&mut from, bytes - row.end).map_err(error)? {
            if row.sets.is_empty() {
                row.first = number;
            } else if number != row.next() {
                break;
            }
            row.sets.push(set);
            row.end += len;
        }
        Ok(row)
    }

    /// The highest number above `last` of a whole record that begins at `at` or later. What earlier rounds left there is told
    /// by its head alone.
    fn newest_beyond(&self, mut at: u64, last: u64) -> Result<Option<u64>, KvError> {
        let mut look = || {
            let (len, mut newest) = (self.file.metadata()?.len(), None);
            let mut chunk = vec![0; SCAN_BYTES];
            // What was never written is a hole and costs nothing.
            while let Some(from) = self.data_from(at)?.filter(|&from| from + HEAD_BYTES as u64 <= len) {
                let bytes = usize::try_from(len - from).unwrap_or(usize::MAX).min(SCAN_BYTES);
                let chunk = &mut chunk[..bytes];
                self.file.read_exact_at(chunk, from)?;
                // A head that lies across the end of what was read is seen in the next round.
                let whole = bytes - HEAD_BYTES + 1;
                for place in memmem::find_iter(&chunk[..whole + MAGIC.len() - 1], &MAGIC) {
                    if number_of(&chunk[place..]) <= last.max(newest.unwrap_or(0)) {
                        continue;
                    }
                    let begin = from + place as u64;
                    let mut record = &self.file;
                    record.seek(SeekFrom::Start(begin))?;
                    if let Some((number, ..)) = read_record(&mut record, len - begin)? {
                        newest = Some(number);
                    }
                }
                at = from + whole as u64;
            }
            io::Result::Ok(newest)
        };
        look().map_err(|source| KvError::Io { what: format!("cannot read {}", self.path.display()), source })
    }

    /// Where there is data at `at` or later.
    fn data_from(&self, at: u64) -> io::Result<Option<u64>> {
        match seek(&self.file, rustix::fs::SeekFrom::Data(at)) {
            Ok(from) => Ok(Some(from)),
            Err(Errno::NXIO) => Ok(None),
            Err(Errno::INVAL) => Ok(Some(at)),
            Err(errno) => Err(errno.into()),
        }
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

/// The next record of a segment that has `left` more bytes: number, changes, length. `None`: no good one.
fn read_record(from: &mut impl Read, left: u64) -> io::Result<Option<(u64, WriteSet, u64)>> {
    if left < HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut head = [0; HEAD_BYTES];
    from.read_exact(&mut head)?;
    let u32_at = |at: usize| u32::from_be_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]);
    let (len, number, crc) = (u32_at(4), number_of(&head), u32_at(16));
    if head[..4] != MAGIC || u64::from(len) > left - HEAD_BYTES as u64 {
        return Ok(None);
    }
    let mut payload = Vec::new();
    from.take(len.into()).read_to_end(&mut payload)?;
    if checksum(&head[..16], &payload) != crc {
        return Ok(None);
    }
    Ok(decode(&payload).map(|set| (number, set, HEAD_BYTES as u64 + u64::from(len))))
}

fn decode(mut payload: &[u8]) -> Option<WriteSet> {
    let mut set = WriteSet::new();
    while !payload.is_empty() {
        let len = take_u32(&mut payload)?;
        let key = take(&mut payload, len)?;
        match take_u32(&mut payload)? {
            DELETED => set.delete(key),
            len => set.put(key, take(&mut payload, len)?.to_vec()),
        }
    }
    Some(set)
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
