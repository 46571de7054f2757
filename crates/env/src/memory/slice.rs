//! Shared bytes, as whoever does not own them alone sees them.

use super::Mapping;
use std::sync::Arc;

/// Shared bytes that another process may change at any time. Never borrowed: handed to the kernel, or copied.
#[derive(Clone)]
pub struct SharedSlice {
    mapping: Arc<Mapping>,
    at: usize,
    len: usize,
}

impl SharedSlice {
    pub(super) fn new(mapping: Arc<Mapping>, at: usize, len: usize) -> SharedSlice {
        SharedSlice { mapping, at, len }
    }

    pub fn len(&self) -> usize {
        self.len
    }

    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// `len` bytes of it from `from` on.
    ///
    /// # Panics
    /// There are not so many.
    #[must_use]
    pub fn part(&self, from: usize, len: usize) -> SharedSlice {
        assert!(from.checked_add(len).is_some_and(|end| end <= self.len), "a part of a slice");
        SharedSlice { mapping: Arc::clone(&self.mapping), at: self.at + from, len }
    }

    /// Where it begins, for the kernel, as long as `self` lives.
    pub(crate) fn pointer(&self) -> *mut u8 {
        self.mapping.pointer(self.at)
    }

    /// # Panics
    /// The lengths differ.
    #[expect(unsafe_code, reason = "reads what another process may write")]
    pub fn copy_to(&self, to: &mut [u8]) {
        assert_eq!(to.len(), self.len);
        // SAFETY: within the mapping; whatever the bytes are, they are copied.
        unsafe { std::ptr::copy(self.pointer(), to.as_mut_ptr(), self.len) }
    }

    /// # Panics
    /// The lengths differ.
    #[expect(unsafe_code, reason = "writes what another process may read")]
    pub fn copy_from(&self, from: &[u8]) {
        assert_eq!(from.len(), self.len);
        // SAFETY: within the mapping, of which this process holds no reference.
        unsafe { std::ptr::copy(from.as_ptr(), self.pointer(), self.len) }
    }
}

/// Bytes to write: this process' own, or shared ones, one part after the other.
#[derive(Clone, Copy)]
pub enum Source<'a> {
    Own(&'a [u8]),
    Shared(&'a [SharedSlice]),
}

impl Source<'_> {
    pub fn len(&self) -> usize {
        match self {
            Source::Own(bytes) => bytes.len(),
            Source::Shared(parts) => parts.iter().map(SharedSlice::len).sum(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Walks along shared parts.
pub struct Walk<'a> {
    parts: &'a [SharedSlice],
    /// Of the first part so many bytes are behind.
    skip: usize,
}

impl<'a> Walk<'a> {
    pub fn new(parts: &'a [SharedSlice]) -> Walk<'a> {
        Walk { parts, skip: 0 }
    }

    /// The next bytes, at most `max`; `None`: there are no more.
    pub fn next(&mut self, max: usize) -> Option<SharedSlice> {
        while let [first, rest @ ..] = self.parts {
            let len = (first.len() - self.skip).min(max);
            if self.skip == first.len() {
                (self.parts, self.skip) = (rest, 0);
                continue;
            }
            let part = first.part(self.skip, len);
            self.skip += len;
            return Some(part);
        }
        None
    }
}
