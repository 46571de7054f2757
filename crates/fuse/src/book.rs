//! What outlives a mount's worker: an anonymous file in memory that the keeper holds and each worker writes.
//!
//! Records of fixed size at fixed places, each written whole by one call, in this machine's byte order: only workers of one
//! mount read it. Knows nothing of what is done with it; see `pvfs_client`'s estate.

use pvfs_client::{
    AppendMark, Estate, GATHER_BYTES_MAX, GATHERS_MAX, GatherMark, Gathered, Journal, LockMark, Mark,
};
use pvfs_kfuse::Agreed;
use pvfs_types::{Ino, LockKind, LockOwner, SessionId};
use std::{
    collections::HashMap,
    fs::File,
    io,
    os::unix::fs::FileExt,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};
use tracing::warn;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// `PVFSbook`, and the layout's version in the last byte's place: a worker of another version does not take it over.
const MAGIC: u64 = u64::from_be_bytes(*b"PVFSbok\x04");
const MARKS_AT: u64 = 4096;
const MARKS: usize = pvfs_types::limits::SESSION_SLOTS as usize;
const NOTE_AT: u64 = 8192;
const NOTE_BYTES_MAX: usize = 8184;
const GATHERS_AT: u64 = 16384;
const GATHERED_AT: u64 = 32768;
const HANDLES_AT: u64 = GATHERED_AT + GATHERS_MAX as u64 * GATHER_BYTES_MAX;
/// What is gathered in places from here on, many at once, gives its memory back.
const GATHERS_KEPT: u16 = 16;

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Head {
    magic: u64,
    /// How many workers there were, the present one included.
    workers: u64,
    client: [u8; 16],
    incarnation: u64,
    /// The inode that is the mount's root; 0: not known yet.
    root: u64,
    agreed_flags: u64,
    agreed_minor: u32,
    agreed_bytes: u32,
}

#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct MarkRecord {
    session: u64,
    seq: u64,
    origin: u64,
    op: u64,
}

/// What stands in one place for bytes that are not sent; `number` 0: nothing.
#[derive(Clone, Copy, Debug, Default, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct GatherRecord {
    number: u64,
    ino: u64,
    session: u64,
    start: u64,
    /// Bytes.
    len: u64,
}

/// In the place of a handle: the record is a lock's. Then the handle by which it was taken, and the owner where an open
/// file has its request. (A file's number is below: it would take 2^19 workers to reach that far.)
const LOCK: u64 = 1 << 63;
/// The lock is an flock.
const FLOCK: u64 = 1 << 62;
/// In the place of a handle, with the inode's number: the record is that of an append under way; then, in the place of the
/// inode, where it goes, and its request. With [`LOCK`]: that of the lock under which this client appends.
const APPEND: u64 = 1 << 61;
/// The append's bytes are written.
const DONE: u64 = 1 << 60;
/// What is left for a handle.
const HANDLE: u64 = APPEND - 1;
/// What is left for an inode's number. (They are given out one after the other.)
const NUMBER: u64 = DONE - 1;

/// An open file; `handle` 0: none.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct OpenRecord {
    pub handle: u64,
    pub ino: u64,
    /// The request that opened it.
    pub request: u64,
}

const _: () = assert!(size_of::<Head>() as u64 <= MARKS_AT);
const _: () = assert!(MARKS_AT + (MARKS * size_of::<MarkRecord>()) as u64 <= NOTE_AT);
const _: () = assert!(NOTE_AT + 8 + NOTE_BYTES_MAX as u64 <= GATHERS_AT);
const _: () = assert!(GATHERS_AT + GATHERS_MAX as u64 * size_of::<GatherRecord>() as u64 <= GATHERED_AT);

/// The book of one mount, in the hands of its present worker.
#[derive(Debug)]
pub struct Book {
    file: File,
    head: Mutex<Head>,
    /// Where each open file's record is.
    places: Mutex<Places>,
    /// Of the former worker.
    inherited_locks: Vec<LockMark>,
    inherited_appends: Vec<AppendMark>,
    inherited_gathers: Vec<Gathered>,
    failed: AtomicU64,
}

#[derive(Debug, Default)]
struct Places {
    of: HashMap<u64, u64>,
    locks: HashMap<(Ino, LockOwner), u64>,
    /// Of appends, by request.
    appends: HashMap<u64, u64>,
    free: Vec<u64>,
    used: u64,
}

impl Book {
    /// An empty book's file.
    pub fn create() -> io::Result<File> {
        Ok(rustix::fs::memfd_create("pvfs-mount", rustix::fs::MemfdFlags::CLOEXEC)?.into())
    }

    /// Takes the book over: its former worker is gone. Gives what that had open too.
    ///
    /// # Errors
    /// A book of another version.
    pub fn take_over(file: File) -> io::Result<(Arc<Book>, Vec<OpenRecord>)> {
        let mut head = read_at(&file, 0)?.unwrap_or_else(Head::default);
        if head.magic == 0 {
            head = Head { magic: MAGIC, client: pvfs_env::random::bytes(), incarnation: 1, ..head };
        } else if head.magic != MAGIC {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "the mount was begun by another version"));
        }
        head.workers += 1;
        let (mut places, mut open) = (Places::default(), Vec::new());
        let (mut inherited_locks, mut inherited_appends) = (Vec::new(), Vec::new());
        while let Some(record) = read_at::<OpenRecord>(&file, Places::at(places.used))? {
            if record.handle == 0 {
                places.free.push(places.used);
            } else if let Some(lock) = record.lock() {
                places.locks.insert((lock.ino, lock.owner), places.used);
                inherited_locks.push(lock);
            } else if let Some(append) = record.append() {
                places.appends.insert(append.call, places.used);
                inherited_appends.push(append);
            } else {
                places.of.insert(record.handle, places.used);
                open.push(record);
            }
            places.used += 1;
        }
        let book = Book {
            inherited_gathers: read_gathers(&file)?,
            file,
            head: Mutex::new(head),
            places: Mutex::new(places),
            inherited_locks,
            inherited_appends,
            failed: AtomicU64::new(0),
        };
        book.write(0, &head);
        Ok((Arc::new(book), open))
    }

    /// How many workers there were, this one included.
    pub fn workers(&self) -> u64 {
        self.with_head(|head| head.workers)
    }

    /// What was agreed on with the kernel; `None`: nothing yet.
    pub fn agreed(&self) -> Option<Agreed> {
        self.with_head(|head| {
            let Head { agreed_minor: minor, agreed_flags: flags, agreed_bytes: request_bytes_max, .. } =
                *head;
            (minor != 0).then_some(Agreed { minor, flags, request_bytes_max })
        })
    }

    pub fn set_agreed(&self, agreed: Agreed) {
        self.change_head(|head| {
            head.agreed_flags = agreed.flags;
            head.agreed_minor = agreed.minor;
            head.agreed_bytes = agreed.request_bytes_max;
        });
    }

    pub fn root(&self) -> Option<Ino> {
        self.with_head(|head| (head.root != 0).then_some(Ino(head.root)))
    }

    pub fn set_root(&self, root: Ino) {
        self.change_head(|head| head.root = root.0);
    }

    /// What the first worker left for the others to know of where and what they serve.
    pub fn note(&self) -> Option<Vec<u8>> {
        let len = read_at::<u64>(&self.file, NOTE_AT).ok()??;
        let len = usize::try_from(len).ok().filter(|len| (1..=NOTE_BYTES_MAX).contains(len))?;
        let mut note = vec![0; len];
        self.file.read_exact_at(&mut note, NOTE_AT + 8).ok()?;
        Some(note)
    }

    /// # Errors
    /// It is too long, or there is no memory.
    pub fn set_note(&self, note: &[u8]) -> io::Result<()> {
        if note.len() > NOTE_BYTES_MAX {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        self.file.write_all_at(note, NOTE_AT + 8)?;
        self.file.write_all_at((note.len() as u64).as_bytes(), NOTE_AT)
    }

    /// As the client core wants it.
    pub fn estate(self: &Arc<Self>) -> Estate {
        let Head { client, incarnation, workers, .. } = self.with_head(|head| *head);
        let mark =
            |slot: u64| read_at::<MarkRecord>(&self.file, mark_at(slot)).ok().flatten().unwrap_or_default();
        let marks = (0..MARKS as u64).map(mark).map(|record| Mark {
            session: SessionId(record.session),
            seq: record.seq,
            origin: record.origin,
            op: u16::try_from(record.op).unwrap_or_default(),
        });
        Estate {
            client,
            incarnation,
            connections_from: (workers << 32) + 1,
            marks: marks.collect(),
            locks: self.inherited_locks.clone(),
            appends: self.inherited_appends.clone(),
            gathered: self.inherited_gathers.clone(),
            inherited: workers > 1,
            journal: Arc::<Book>::clone(self),
        }
    }

    /// An open file; before the kernel hears of it.
    pub fn opened(&self, record: OpenRecord) {
        let place = self.with_places(|places| {
            let place = places.take();
            places.of.insert(record.handle, place);
            place
        });
        self.write(Places::at(place), &record);
    }

    /// It is closed, and the servers know.
    pub fn closed(&self, handle: u64) {
        if let Some(place) = self.with_places(|places| places.of.remove(&handle)) {
            self.free(place);
        }
    }

    fn free(&self, place: u64) {
        self.write(Places::at(place), &OpenRecord::default());
        self.with_places(|places| places.free.push(place));
    }

    fn with_head<T>(&self, act: impl FnOnce(&mut Head) -> T) -> T {
        act(&mut self.head.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn change_head(&self, change: impl FnOnce(&mut Head)) {
        let head = self.with_head(|head| {
            change(head);
            *head
        });
        self.write(0, &head);
    }

    fn with_places<T>(&self, act: impl FnOnce(&mut Places) -> T) -> T {
        act(&mut self.places.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn write(&self, at: u64, record: &(impl IntoBytes + Immutable)) {
        self.write_bytes(at, record.as_bytes());
    }

    /// Whether it is written.
    fn write_bytes(&self, at: u64, bytes: &[u8]) -> bool {
        let written = self.file.write_all_at(bytes, at);
        if let Err(error) = &written
            && self.failed.fetch_add(1, Ordering::Relaxed) == 0
        {
            // No memory: the mount works on, only without a net.
            warn!(%error, "the book of the mount cannot be written: its worker must not die now");
        }
        written.is_ok()
    }
}

impl Journal for Book {
    fn incarnation(&self, incarnation: u64) {
        self.change_head(|head| head.incarnation = incarnation);
    }

    fn mark(&self, slot: u16, Mark { session, seq, origin, op }: Mark) {
        if usize::from(slot) < MARKS {
            self.write(
                mark_at(u64::from(slot)),
                &MarkRecord { session: session.0, seq, origin, op: u64::from(op) },
            );
        }
    }

    fn locked(&self, mark: LockMark) {
        let place = self.with_places(|places| {
            let known = places.locks.get(&(mark.ino, mark.owner)).copied();
            let place = known.unwrap_or_else(|| places.take());
            places.locks.insert((mark.ino, mark.owner), place);
            place
        });
        self.write(Places::at(place), &OpenRecord::of_lock(mark));
    }

    fn unlocked(&self, ino: Ino, owner: LockOwner) {
        if let Some(place) = self.with_places(|places| places.locks.remove(&(ino, owner))) {
            self.free(place);
        }
    }

    fn appends(&self, mark: AppendMark) {
        let place = self.with_places(|places| {
            let known = places.appends.get(&mark.call).copied();
            let place = known.unwrap_or_else(|| places.take());
            places.appends.insert(mark.call, place);
            place
        });
        self.write(Places::at(place), &OpenRecord::of_append(mark));
    }

    fn append_over(&self, call: u64) {
        if let Some(place) = self.with_places(|places| places.appends.remove(&call)) {
            self.free(place);
        }
    }

    fn gathers(&self, place: u16, mark: GatherMark, at: usize, bytes: &[u8]) -> bool {
        let GatherMark { ino, session, number, start } = mark;
        let len = (at + bytes.len()) as u64;
        if place >= GATHERS_MAX || len > GATHER_BYTES_MAX {
            return false;
        }
        let record = GatherRecord { number, ino: ino.0, session: session.0, start, len };
        // In this order: what the record tells of is there.
        self.write_bytes(gathered_at(place) + at as u64, bytes)
            && self.write_bytes(gather_at(place), record.as_bytes())
    }

    fn gather_over(&self, place: u16) {
        self.write(gather_at(place), &GatherRecord::default());
        if place >= GATHERS_KEPT {
            let flags = rustix::fs::FallocateFlags::PUNCH_HOLE | rustix::fs::FallocateFlags::KEEP_SIZE;
            // Else the memory is used again later.
            let _ = rustix::fs::fallocate(&self.file, flags, gathered_at(place), GATHER_BYTES_MAX);
        }
    }
}

/// What a former worker had gathered.
fn read_gathers(file: &File) -> io::Result<Vec<Gathered>> {
    let mut gathers = Vec::new();
    for place in 0..GATHERS_MAX {
        let Some(record) =
            read_at::<GatherRecord>(file, gather_at(place))?.filter(|record| record.number != 0)
        else {
            continue;
        };
        let GatherRecord { number, ino, session, start, len } = record;
        let len = usize::try_from(len.min(GATHER_BYTES_MAX)).unwrap_or_default();
        let mut bytes = vec![0; len];
        file.read_exact_at(&mut bytes, gathered_at(place))?;
        let mark = GatherMark { ino: Ino(ino), session: SessionId(session), number, start };
        gathers.push(Gathered { place, mark, bytes: bytes.into() });
    }
    Ok(gathers)
}

impl OpenRecord {
    fn of_lock(mark: LockMark) -> OpenRecord {
        let kind = match mark.owner.kind {
            LockKind::Posix => LOCK,
            LockKind::Flock => LOCK | FLOCK,
            LockKind::Append => LOCK | APPEND,
        };
        OpenRecord { handle: kind | mark.handle & HANDLE, ino: mark.ino.0, request: mark.owner.id }
    }

    fn lock(&self) -> Option<LockMark> {
        let kind = match self.handle & (LOCK | FLOCK | APPEND) {
            LOCK => LockKind::Posix,
            kind if kind == LOCK | FLOCK => LockKind::Flock,
            kind if kind == LOCK | APPEND => LockKind::Append,
            _ => return None,
        };
        let owner = LockOwner { kind, id: self.request };
        Some(LockMark { ino: Ino(self.ino), owner, handle: self.handle & HANDLE })
    }

    fn of_append(AppendMark { ino, call, at, is_done }: AppendMark) -> OpenRecord {
        let done = if is_done { DONE } else { 0 };
        OpenRecord { handle: APPEND | done | ino.0 & NUMBER, ino: at, request: call }
    }

    fn append(&self) -> Option<AppendMark> {
        let OpenRecord { handle, ino: at, request: call } = *self;
        let mark = AppendMark { ino: Ino(handle & NUMBER), call, at, is_done: handle & DONE != 0 };
        (handle & (LOCK | FLOCK | APPEND) == APPEND).then_some(mark)
    }
}

impl Places {
    fn take(&mut self) -> u64 {
        let place = self.free.pop().unwrap_or(self.used);
        self.used = self.used.max(place + 1);
        place
    }

    fn at(place: u64) -> u64 {
        HANDLES_AT + place * size_of::<OpenRecord>() as u64
    }
}

fn gather_at(place: u16) -> u64 {
    GATHERS_AT + u64::from(place) * size_of::<GatherRecord>() as u64
}

fn gathered_at(place: u16) -> u64 {
    GATHERED_AT + u64::from(place) * GATHER_BYTES_MAX
}

fn mark_at(slot: u64) -> u64 {
    MARKS_AT + slot * size_of::<MarkRecord>() as u64
}

/// `None`: the file ends before.
fn read_at<T: FromBytes + IntoBytes + Immutable>(file: &File, at: u64) -> io::Result<Option<T>> {
    let mut record = T::new_zeroed();
    match file.read_exact_at(record.as_mut_bytes(), at) {
        Ok(()) => Ok(Some(record)),
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => Ok(None),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn open(handle: u64) -> OpenRecord {
        OpenRecord { handle, ino: handle + 100, request: handle + 200 }
    }

    #[test]
    fn a_successor_finds_who_it_was_what_was_open_and_what_was_under_way() {
        let file = Book::create().expect("memory");
        let (first, none) = Book::take_over(file.try_clone().expect("clones")).expect("fresh");
        assert!(none.is_empty() && first.agreed().is_none() && first.root().is_none());
        let agreed = Agreed { minor: 40, flags: 1 << 39, request_bytes_max: 1 << 20 };
        first.set_agreed(agreed);
        first.set_root(Ino(7));
        assert_eq!(first.note(), None);
        first.set_note(b"where").expect("short");
        assert!(first.set_note(&[0; 9000]).is_err());
        let estate = first.estate();
        assert!(!estate.inherited && estate.marks.iter().all(|mark| mark.seq == 0));
        first.incarnation(5);
        let mark = Mark { session: SessionId(3), seq: 9, origin: 11, op: 13 };
        first.mark(63, mark);
        for handle in 1..=5 {
            first.opened(open(handle));
        }
        first.closed(2);
        first.closed(5);
        first.closed(77);
        first.opened(open(6));

        let lock = |id, kind, handle| LockMark { ino: Ino(9), owner: LockOwner { kind, id }, handle };
        first.locked(lock(1, LockKind::Posix, 3));
        first.locked(lock(1, LockKind::Flock, 4));
        first.locked(lock(u64::MAX, LockKind::Posix, 4));
        first.locked(lock(1, LockKind::Posix, 6));
        first.unlocked(Ino(9), lock(1, LockKind::Flock, 0).owner);
        first.locked(lock(0, LockKind::Append, 0));
        let append = |call, is_done| AppendMark { ino: Ino(9), call, at: call * 100, is_done };
        for call in [21, 23, 25] {
            first.appends(append(call, false));
        }
        first.append_over(21);
        first.appends(append(25, true));
        let gather = |number, start| GatherMark { ino: Ino(9), session: SessionId(3), number, start };
        assert!(
            first.gathers(3, gather(31, 1000), 0, b"small") && first.gathers(3, gather(31, 1000), 5, b"er")
        );
        assert!(first.gathers(200, gather(32, 1007), 0, b"sent"));
        first.gather_over(200);
        assert!(
            !first.gathers(0, gather(33, 0), usize::try_from(GATHER_BYTES_MAX).unwrap(), b"x"),
            "too long"
        );

        let (second, mut found) = Book::take_over(file).expect("the same version");
        found.sort_by_key(|record| record.handle);
        assert_eq!(found, [1, 3, 4, 6].map(open));
        assert_eq!((second.agreed(), second.root(), second.workers()), (Some(agreed), Some(Ino(7)), 2));
        assert_eq!(second.note().as_deref(), Some(&b"where"[..]));
        let next = second.estate();
        assert_eq!((next.client, next.incarnation, next.inherited), (estate.client, 5, true));
        assert_eq!(next.marks[63], mark);
        let mut locks = next.locks;
        locks.sort_by_key(|lock| lock.owner.id);
        let of_appends = lock(0, LockKind::Append, 0);
        assert_eq!(locks, [of_appends, lock(1, LockKind::Posix, 6), lock(u64::MAX, LockKind::Posix, 4)]);
        let mut appends = next.appends;
        appends.sort_by_key(|append| append.call);
        assert_eq!(appends, [append(23, false), append(25, true)]);
        let gathered = Gathered { place: 3, mark: gather(31, 1000), bytes: b"smaller".as_slice().into() };
        assert_eq!(next.gathered, [gathered]);
        second.append_over(23);
        second.unlocked(Ino(9), lock(1, LockKind::Posix, 6).owner);
        assert!(next.connections_from > estate.connections_from + (1 << 31));
        second.closed(3);
        second.opened(open(8));
        assert_eq!(second.with_places(|places| places.used), 10, "places are used again");
    }

    #[test]
    fn a_book_of_another_version_is_refused() {
        let file = Book::create().expect("memory");
        file.write_all_at(
            b"anything at all, but no book of this version, and long enough to be one's head....",
            0,
        )
        .expect("writes");
        assert!(Book::take_over(file).is_err());
    }
}
