//! Memory of a ring's entries: what the kernel copies requests into, and answers out of.
//!
//! It lies in a file in memory, at an address that is the same in each process that maps it: the kernel finds an entry's
//! memory by its address alone, in whichever process answers. So the next process answers what the last one had, and
//! finds here what that was: the request itself, until an answer is begun, and from then on its copy in the entry's note.

mod note;

use crate::abi::{RingHead, RingInOut};
use note::Note;
use rustix::{
    fs::{fstat, ftruncate},
    io::pread,
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};
use std::{
    ffi::c_void,
    io,
    mem::offset_of,
    os::fd::{AsFd, OwnedFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

pub(crate) use note::Held;

const PAGE: usize = 4096;
/// Far from where the kernel maps what it is not told where to: the first place, and how far the next ones are, for where a
/// process has several sessions.
const BASE: usize = 0x1000_0000_0000;
const BASE_STEP: usize = 1 << 40;
const BASES: usize = 64;
/// What one queue may take of the addresses and of the file.
const QUEUE_BYTES_MAX: usize = 8 << 30;
/// As much of a payload as most requests have: a name, a few attributes, some lines of text.
const FEW_BYTES: usize = 4 * PAGE;

/// What a queue's memory begins with.
#[repr(C)]
struct First {
    /// How many entries there are.
    entries: AtomicU64,
    /// Where it is mapped.
    address: AtomicU64,
}

/// The memory of one queue: a page for [`First`], then the entries, each a page for the head, one for
/// the note, and the payload.
pub(crate) struct Area {
    base: NonNull<c_void>,
    payload_bytes: usize,
    /// So many entries are there as a whole.
    whole: usize,
}

#[expect(unsafe_code, reason = "a mapping may be used and undone from any thread")]
// SAFETY: it is memory of the whole process; who may touch which part of it is what `Held` says.
unsafe impl Send for Area {}
#[expect(unsafe_code, reason = "a mapping may be used from all threads")]
// SAFETY: as above.
unsafe impl Sync for Area {}

/// What a former process left in an entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Left {
    Nothing,
    /// A request without an answer.
    Asked,
    /// An answer that the kernel may have or not.
    Answered,
}

impl Area {
    /// That of the queue `qid` in `file`, with payloads of `payload_bytes`, the first `whole` of which are there from the
    /// start; where it was before, if it was mapped before.
    ///
    /// # Errors
    /// The addresses are taken, or there are too many queues.
    pub fn map(file: &OwnedFd, qid: u16, payload_bytes: usize, whole: usize) -> io::Result<Arc<Area>> {
        let payload_bytes = payload_bytes.next_multiple_of(PAGE);
        let at = usize::from(qid) * QUEUE_BYTES_MAX;
        let (from, end) = (at as u64, (at + QUEUE_BYTES_MAX) as u64);
        if u64::try_from(fstat(file)?.st_size).unwrap_or_default() < end {
            ftruncate(file, end)?;
        }
        let mut address = [0; 8];
        let known = pread(file, &mut address, from + offset_of!(First, address) as u64)? == address.len();
        let area = match usize::try_from(u64::from_ne_bytes(address)) {
            Ok(address) if known && address != 0 => Area::at(file, from, address, payload_bytes, whole)?,
            _ => Area::anywhere(file, from, payload_bytes, whole)?,
        };
        area.fetch(0, PAGE)?;
        area.first().address.store(area.base.as_ptr().addr() as u64, Ordering::SeqCst);
        Ok(Arc::new(area))
    }

    fn anywhere(file: &OwnedFd, from: u64, payload_bytes: usize, whole: usize) -> io::Result<Area> {
        let tries = (0..BASES).map(|n| Area::at(file, from, BASE + n * BASE_STEP, payload_bytes, whole));
        let mut tries =
            tries.skip_while(|tried| matches!(tried, Err(e) if e.raw_os_error() == Some(libc::EEXIST)));
        tries.next().unwrap_or_else(|| Err(io::ErrorKind::AddrInUse.into()))
    }

    fn at(file: &OwnedFd, from: u64, address: usize, payload_bytes: usize, whole: usize) -> io::Result<Area> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE | MapFlags::FIXED_NOREPLACE;
        let address = std::ptr::without_provenance_mut::<c_void>(address);
        #[expect(unsafe_code, reason = "maps memory")]
        // SAFETY: a new mapping, where none is.
        let base = unsafe { mmap(address, QUEUE_BYTES_MAX, prot, flags, file.as_fd(), from) }?;
        let area = Area { base: NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?, payload_bytes, whole };
        #[expect(unsafe_code, reason = "advises")]
        // SAFETY: the mapping just made, whose content this does not change.
        let _ = unsafe { madvise(base, QUEUE_BYTES_MAX, Advice::LinuxDontDump) };
        Ok(area)
    }

    /// How many entries were made, by this process and those before.
    pub fn entries(&self) -> usize {
        usize::try_from(self.first().entries.load(Ordering::SeqCst))
            .unwrap_or(usize::MAX)
            .min(self.entries_max())
    }

    /// Makes up to `more` entries; how many there are then.
    ///
    /// # Errors
    /// There is no memory.
    pub fn grow(&self, more: usize) -> io::Result<usize> {
        let (before, after) = (self.entries(), (self.entries() + more).min(self.entries_max()));
        (before..after).try_for_each(|entry| self.fetch_entry(entry))?;
        self.first().entries.store(after as u64, Ordering::SeqCst);
        Ok(after)
    }

    /// Has the pages of all entries there that are to be there.
    pub fn fetch_all(&self) -> io::Result<()> {
        (0..self.entries()).try_for_each(|entry| self.fetch_entry(entry))
    }

    /// The first entries are there as a whole; of others, which are made where many calls wait at once, as much as nearly
    /// all requests need: memory is not to be had for all of them. (Who writes more into one of these while the worker is killed
    /// may find its call interrupted.)
    fn fetch_entry(&self, entry: usize) -> io::Result<()> {
        let payload_bytes = if entry < self.whole { self.payload_bytes } else { FEW_BYTES };
        self.fetch(self.offset(entry), 2 * PAGE + payload_bytes)
    }

    /// As the kernel wants to be told of an entry: the head, the payload.
    pub fn parts(&self, entry: usize) -> [libc::iovec; 2] {
        let head = self.pointer(self.offset(entry));
        let payload = self.pointer(self.offset(entry) + 2 * PAGE);
        [
            libc::iovec { iov_base: head.as_ptr().cast(), iov_len: size_of::<RingHead>() },
            libc::iovec { iov_base: payload.as_ptr().cast(), iov_len: self.payload_bytes },
        ]
    }

    /// What lies in an entry that nobody has.
    pub fn left(&self, entry: usize) -> Left {
        let RingInOut { commit_id, .. } = self.head(entry).ent;
        let note = self.note(entry);
        if commit_id == 0 || note.is_taken(commit_id) {
            Left::Nothing
        } else if note.is_complete(commit_id) {
            Left::Answered
        } else {
            Left::Asked
        }
    }

    /// The kernel has the answer of `commit_id`, which was in `entry`.
    pub fn set_taken(&self, entry: usize, commit_id: u64) {
        self.note(entry).set_taken(commit_id);
    }

    /// Pages that are not there would not be fetched for a process that is being killed while the kernel copies a request
    /// into them, which would fail then.
    fn fetch(&self, at: usize, len: usize) -> io::Result<()> {
        if len == 0 {
            return Ok(());
        }
        #[expect(unsafe_code, reason = "fetches pages")]
        // SAFETY: within the mapping, whose content this does not change.
        unsafe { madvise(self.pointer(at).as_ptr().cast(), len, Advice::LinuxPopulateWrite) }?;
        Ok(())
    }

    fn entries_max(&self) -> usize {
        (QUEUE_BYTES_MAX - PAGE) / self.entry_bytes()
    }

    fn entry_bytes(&self) -> usize {
        2 * PAGE + self.payload_bytes
    }

    fn offset(&self, entry: usize) -> usize {
        PAGE + entry * self.entry_bytes()
    }

    fn first(&self) -> &First {
        #[expect(unsafe_code, reason = "numbers in the mapping")]
        // SAFETY: they begin the mapping, and are used as these alone.
        unsafe {
            self.base.cast::<First>().as_ref()
        }
    }

    fn head(&self, entry: usize) -> RingHead {
        #[expect(unsafe_code, reason = "reads what the kernel has written")]
        // SAFETY: within the mapping and on a page; any bytes are a head, and the entry is not the kernel's now.
        unsafe {
            self.pointer(self.offset(entry)).cast::<RingHead>().read()
        }
    }

    fn note(&self, entry: usize) -> &Note {
        #[expect(unsafe_code, reason = "a note in the mapping")]
        // SAFETY: within the mapping and on a page of its own; any bytes are a note, all of it cells.
        unsafe {
            self.pointer(self.offset(entry) + PAGE).cast::<Note>().as_ref()
        }
    }

    fn pointer(&self, at: usize) -> NonNull<u8> {
        assert!(at <= QUEUE_BYTES_MAX, "a place within the mapping");
        #[expect(unsafe_code, reason = "a place within the mapping")]
        // SAFETY: checked just now.
        unsafe {
            self.base.cast::<u8>().add(at)
        }
    }
}

impl Drop for Area {
    fn drop(&mut self) {
        #[expect(unsafe_code, reason = "unmaps")]
        // SAFETY: made by `mmap` with this length; whoever points into it holds it.
        let _ = unsafe { munmap(self.base.as_ptr(), QUEUE_BYTES_MAX) };
    }
}
