//! An entry in the hands of this process; and the note that outlives the process.
//!
//! An answer is written over its request, so the request is copied into the note before, and the note says how far the answer has got:
//! begun, complete, taken. Who finds it later has the request to do again, or the whole answer to give again.

use super::{Area, Left, PAGE};
use crate::{
    abi::{InHeader, OutHeader, RingHead},
    buffer::Buffer,
    request::Malformed,
};
use std::{
    cell::UnsafeCell,
    io,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering, fence},
    },
};
use zerocopy::{FromBytes, IntoBytes};

/// As much of a payload is kept as an answer takes the place of. Requests with longer payloads have shorter answers.
const KEPT_BYTES_MAX: usize = 3072;

/// What is noted of the answer in an entry.
#[repr(C)]
pub(super) struct Note {
    /// The request, by its commit id, whose copy is here, and whose answer is begun.
    begun: AtomicU64,
    /// The request whose answer is whole.
    complete: AtomicU64,
    /// The request whose answer the kernel has.
    taken: AtomicU64,
    kept: UnsafeCell<Kept>,
}

#[derive(Clone, Copy)]
#[repr(C)]
struct Kept {
    head: RingHead,
    bytes: [u8; KEPT_BYTES_MAX],
}

const _: () = assert!(size_of::<Note>() <= PAGE);

impl Note {
    pub fn is_complete(&self, commit_id: u64) -> bool {
        self.complete.load(Ordering::SeqCst) == commit_id
    }

    pub fn is_taken(&self, commit_id: u64) -> bool {
        self.taken.load(Ordering::SeqCst) == commit_id
    }

    pub fn set_taken(&self, commit_id: u64) {
        self.taken.store(commit_id, Ordering::SeqCst);
    }
}

/// An entry in the hands of this process, with a request in it or its answer.
pub(crate) struct Held {
    pub entry: usize,
    /// By which the kernel knows the request.
    pub commit_id: u64,
    area: Arc<Area>,
}

impl Held {
    /// # Safety
    /// The kernel has completed the command that the entry was handed over with, and nobody else has it.
    #[expect(unsafe_code, reason = "only the ring's thread knows whose an entry is")]
    pub unsafe fn new(area: &Arc<Area>, entry: usize) -> Held {
        Held { entry, commit_id: area.head(entry).ent.commit_id, area: Arc::clone(area) }
    }

    /// Makes the request of a former process whole again, if that had begun to write an answer over it.
    pub fn restore(&mut self) {
        debug_assert_eq!(self.area.left(self.entry), Left::Asked);
        if self.note().begun.load(Ordering::SeqCst) != self.commit_id {
            return;
        }
        #[expect(unsafe_code, reason = "the note of an entry is of who has the entry")]
        // SAFETY: this has the entry.
        let Kept { head, bytes } = unsafe { *self.note().kept.get() };
        let payload = usize::try_from(head.ent.payload_sz).unwrap_or(usize::MAX);
        let room = self.payload_mut();
        let len = payload.min(KEPT_BYTES_MAX).min(room.len());
        room[..len].copy_from_slice(&bytes[..len]);
        self.set_head(&head);
    }

    /// Puts the request together in `buffer`, as the device gives it; its length.
    pub fn read(&self, buffer: &mut Buffer) -> Result<usize, Malformed> {
        const HEAD: usize = size_of::<InHeader>();
        let head = self.area.head(self.entry);
        let Ok((fixed, _)) = InHeader::read_from_prefix(head.in_out.as_bytes()) else {
            return Err(Malformed { unique: None, opcode: None });
        };
        let malformed = Malformed { unique: Some(fixed.unique), opcode: Some(fixed.opcode) };
        let bytes = |n: u32| usize::try_from(n).map_err(|_| malformed);
        let (len, payload) = (bytes(fixed.len)?, bytes(head.ent.payload_sz)?);
        // What is not in the payload is the operation's own.
        let own = payload.checked_add(HEAD).and_then(|rest| len.checked_sub(rest)).ok_or(malformed)?;
        let own = head.op_in.as_bytes().get(..own).ok_or(malformed)?;
        let payload = self.payload().get(..payload).ok_or(malformed)?;
        let room = buffer.get_mut(..len).ok_or(malformed)?;
        let (a, rest) = room.split_at_mut(HEAD);
        let (b, c) = rest.split_at_mut(own.len());
        a.copy_from_slice(fixed.as_bytes());
        b.copy_from_slice(own);
        c.copy_from_slice(payload);
        Ok(len)
    }

    /// Writes the answer over the request: `parts`, one after the other, or the (positive) `errno`.
    pub fn write(&mut self, answer: Result<&[&[u8]], i32>) {
        let parts = answer.unwrap_or_default();
        let len: usize = parts.iter().map(|part| part.len()).sum();
        if self.begin(len).is_err() {
            return self.end(0, rustix::io::Errno::IO.raw_os_error());
        }
        let mut room = self.payload_mut();
        for part in parts {
            let (here, rest) = room.split_at_mut(part.len());
            here.copy_from_slice(part);
            room = rest;
        }
        self.end(len, answer.err().map_or(0, |errno| errno.clamp(1, 511)));
    }

    /// Keeps what an answer of `len` bytes will take the place of.
    fn begin(&mut self, len: usize) -> io::Result<()> {
        let head = self.area.head(self.entry);
        let payload = usize::try_from(head.ent.payload_sz).map_err(io::Error::other)?;
        let lost = payload.min(len);
        if len > self.payload().len() || lost > KEPT_BYTES_MAX {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let note = self.note();
        #[expect(unsafe_code, reason = "the note of an entry is of who has the entry")]
        // SAFETY: this has the entry, and no other reference into the note's cell is alive.
        let kept = unsafe { &mut *note.kept.get() };
        kept.head = head;
        kept.bytes[..lost].copy_from_slice(&self.payload()[..lost]);
        note.begun.store(self.commit_id, Ordering::SeqCst);
        fence(Ordering::SeqCst);
        Ok(())
    }

    /// Makes the answer whole, of `len` bytes that are written.
    fn end(&mut self, len: usize, errno: i32) {
        let mut head = self.area.head(self.entry);
        let bytes = |len: usize| u32::try_from(len).unwrap_or_default();
        let out = OutHeader {
            len: bytes(size_of::<OutHeader>() + len),
            error: -errno,
            // Without the mark of a request that came again, of which the kernel knows nothing here.
            unique: self.commit_id,
        };
        head.in_out.as_mut_bytes()[..size_of::<OutHeader>()].copy_from_slice(out.as_bytes());
        head.ent.payload_sz = bytes(len);
        self.set_head(&head);
        fence(Ordering::SeqCst);
        self.note().complete.store(self.commit_id, Ordering::SeqCst);
    }

    fn note(&self) -> &Note {
        self.area.note(self.entry)
    }

    fn set_head(&mut self, head: &RingHead) {
        #[expect(unsafe_code, reason = "writes what the kernel reads next")]
        // SAFETY: within the mapping and on a page; the entry is this process's alone.
        unsafe {
            self.area.pointer(self.area.offset(self.entry)).cast::<RingHead>().write(*head);
        }
    }

    fn payload(&self) -> &[u8] {
        let [_, payload] = self.area.parts(self.entry);
        #[expect(unsafe_code, reason = "reads what the kernel has written")]
        // SAFETY: within the mapping, which is initialised, and this process's alone.
        unsafe {
            std::slice::from_raw_parts(payload.iov_base.cast(), payload.iov_len)
        }
    }

    fn payload_mut(&mut self) -> &mut [u8] {
        let [_, payload] = self.area.parts(self.entry);
        #[expect(unsafe_code, reason = "writes what the kernel reads next")]
        // SAFETY: within the mapping, which is initialised, and this process's alone.
        unsafe {
            std::slice::from_raw_parts_mut(payload.iov_base.cast(), payload.iov_len)
        }
    }
}
