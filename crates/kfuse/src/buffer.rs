//! Buffers that requests are read into. The bytes of a large write begin on a page, so that whoever gets them as [`Bytes`]
//! needs no copy; when the last of them is gone, the buffer goes back to where it came from.

use crate::abi::WRITE_HEAD_BYTES;
use bytes::Bytes;
use std::{
    ops::{Deref, DerefMut, Range},
    sync::{Arc, Mutex, PoisonError},
};

const PAGE: usize = 4096;
/// Buffers kept for the next request. More may be in use: as many as writes wait for their answers.
const KEPT_MAX: usize = 16;
/// Copies of this length and more lie where buffers do.
const COPY_BYTES_MIN: usize = 32 << 10;

/// Where buffers come from.
pub trait Memory: Send + Sync {
    /// `len` bytes, whatever they are, whose pages are there. Else a process that is killed while the kernel copies a request
    /// into them would fail that request (the kernel does not fetch pages for the dying), which could have come again to
    /// another process.
    fn take(&self, len: usize) -> Box<dyn Room>;
}

/// Some memory; dropped, it goes back.
pub trait Room: AsRef<[u8]> + AsMut<[u8]> + Send + Sync {}

impl<T: AsRef<[u8]> + AsMut<[u8]> + Send + Sync> Room for T {}

/// This process' own memory; keeps some of the length that it takes to be that of requests.
pub struct Heap {
    kept: Arc<Kept>,
}

struct Kept {
    len: usize,
    free: Mutex<Vec<Vec<u8>>>,
}

struct HeapRoom {
    bytes: Vec<u8>,
    kept: Arc<Kept>,
}

impl Heap {
    /// Keeps such of `len` bytes.
    pub fn new(len: usize) -> Heap {
        Heap { kept: Arc::new(Kept { len, free: Mutex::default() }) }
    }
}

impl Memory for Heap {
    fn take(&self, len: usize) -> Box<dyn Room> {
        let kept = (len == self.kept.len).then(|| self.kept.with(Vec::pop)).flatten();
        let bytes = kept.unwrap_or_else(|| touched(len));
        Box::new(HeapRoom { bytes, kept: Arc::clone(&self.kept) })
    }
}

impl Kept {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<Vec<u8>>) -> T) -> T {
        act(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

fn touched(len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    bytes.chunks_mut(PAGE).for_each(|page| page[0] = 1);
    bytes
}

impl AsRef<[u8]> for HeapRoom {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl AsMut<[u8]> for HeapRoom {
    fn as_mut(&mut self) -> &mut [u8] {
        &mut self.bytes
    }
}

impl Drop for HeapRoom {
    fn drop(&mut self) {
        let bytes = std::mem::take(&mut self.bytes);
        self.kept.with(|free| {
            if bytes.len() == self.kept.len && free.len() < KEPT_MAX {
                free.push(bytes);
            }
        });
    }
}

/// Gives buffers of one size.
pub(crate) struct Pool {
    request_bytes: usize,
    memory: Arc<dyn Memory>,
}

/// Room for one request.
pub(crate) struct Buffer {
    room: Box<dyn Room>,
    /// Where the request begins: so far before a page as the head of a write is long.
    start: usize,
    pool: Arc<Pool>,
}

impl Pool {
    /// For requests of `request_bytes`; `None`: in memory of this process' own.
    pub fn new(request_bytes: usize, memory: Option<Arc<dyn Memory>>) -> Arc<Pool> {
        let memory = memory.unwrap_or_else(|| Arc::new(Heap::new(buffer_bytes(request_bytes))));
        Arc::new(Pool { request_bytes, memory })
    }

    pub fn take(self: &Arc<Self>) -> Buffer {
        let room = self.memory.take(buffer_bytes(self.request_bytes));
        let start = (*room).as_ref().as_ptr().align_offset(PAGE) + PAGE - WRITE_HEAD_BYTES;
        Buffer { room, start, pool: Arc::clone(self) }
    }
}

/// Two pages more: one to begin on a page, one for the head before it.
fn buffer_bytes(request_bytes: usize) -> usize {
    request_bytes + 2 * PAGE
}

impl Buffer {
    /// The `part` of the request that lies in this buffer. The buffer is given away with it where the part is three quarters
    /// of it or more; `self` is then another one. Less is copied: who keeps the bytes for long, as clients do until they are
    /// durable, keeps at most a third more memory.
    pub fn give(&mut self, part: Range<usize>) -> Bytes {
        if part.len() < COPY_BYTES_MIN {
            return Bytes::copy_from_slice(&self[part]);
        }
        if part.len() < self.len() / 4 * 3 {
            let mut room = self.pool.memory.take(part.len());
            (*room).as_mut().copy_from_slice(&self[part]);
            return Bytes::from_owner(Given(room));
        }
        let fresh = self.pool.take();
        Bytes::from_owner(std::mem::replace(self, fresh)).slice(part)
    }
}

struct Given(Box<dyn Room>);

impl AsRef<[u8]> for Given {
    fn as_ref(&self) -> &[u8] {
        (*self.0).as_ref()
    }
}

impl Deref for Buffer {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        &(*self.room).as_ref()[self.start..self.start + self.pool.request_bytes]
    }
}

impl DerefMut for Buffer {
    fn deref_mut(&mut self) -> &mut [u8] {
        &mut (*self.room).as_mut()[self.start..self.start + self.pool.request_bytes]
    }
}

impl AsRef<[u8]> for Buffer {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WRITE_BYTES: usize = 1 << 20;

    #[test]
    fn the_bytes_of_a_write_begin_on_a_page_and_are_not_copied() {
        let pool = Pool::new(WRITE_HEAD_BYTES + WRITE_BYTES, None);
        for _ in 0..3 {
            let mut buffer = pool.take();
            assert_eq!(buffer.len(), WRITE_HEAD_BYTES + WRITE_BYTES);
            let at = buffer[WRITE_HEAD_BYTES..].as_ptr();
            assert_eq!(at.align_offset(PAGE), 0);
            let data = buffer.give(WRITE_HEAD_BYTES..WRITE_HEAD_BYTES + WRITE_BYTES);
            assert_eq!(data.as_ptr(), at);
            assert_ne!(buffer[WRITE_HEAD_BYTES..].as_ptr(), at, "the next request goes elsewhere");
        }
    }

    #[test]
    fn no_write_keeps_a_buffer_of_more_than_four_thirds_of_its_length() {
        const MOST: usize = WRITE_BYTES / 4 * 3;
        let pool = Pool::new(WRITE_HEAD_BYTES + WRITE_BYTES, None);
        let mut buffer = pool.take();
        for len in [1, PAGE, 64 << 10, WRITE_BYTES / 2, MOST - PAGE, MOST, MOST + PAGE, WRITE_BYTES] {
            let at = buffer[WRITE_HEAD_BYTES..].as_ptr();
            let data = buffer.give(WRITE_HEAD_BYTES..WRITE_HEAD_BYTES + len);
            let keeps_all = data.as_ptr() == at;
            assert!(!keeps_all || len >= MOST, "{len} bytes keep a buffer of {WRITE_BYTES}");
        }
    }

    #[test]
    fn buffers_come_back_with_the_last_of_their_bytes_and_few_are_kept() {
        let heap = Arc::new(Heap::new(buffer_bytes(WRITE_HEAD_BYTES + WRITE_BYTES)));
        let pool = Pool::new(WRITE_HEAD_BYTES + WRITE_BYTES, Some(Arc::clone(&heap) as _));
        let kept = || heap.kept.with(|free| free.len());
        let mut buffer = pool.take();
        let data = buffer.give(WRITE_HEAD_BYTES..WRITE_HEAD_BYTES + WRITE_BYTES);
        let (head, tail) = (data.slice(..10), data.slice(10..));
        drop((data, head));
        assert_eq!(kept(), 0);
        drop(tail);
        assert_eq!(kept(), 1);
        let short = buffer.give(0..10);
        drop(buffer);
        assert_eq!((short.len(), kept()), (10, 2), "short ones are copies");
        drop((0..50).map(|_| pool.take()).collect::<Vec<_>>());
        assert_eq!(kept(), KEPT_MAX);
    }
}
