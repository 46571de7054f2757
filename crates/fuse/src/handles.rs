//! What is open through the mount, by the numbers the kernel calls it.

use crate::{
    openfile::Way,
    ops::{Handle, Reply},
};
use pvfs_types::Errno;
use std::{
    collections::HashMap,
    sync::{
        Arc, PoisonError, RwLock,
        atomic::{AtomicU64, Ordering},
    },
};

/// How an open thing was opened. Its bits are the low bits of its number, so that the number alone says how to open it
/// again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opening {
    pub read: bool,
    pub write: bool,
    pub dir: bool,
    pub way: Way,
}

impl Opening {
    const BITS: u32 = 4;

    /// How the thing with that number was opened.
    pub fn of(handle: Handle) -> Opening {
        let bit = |at: u32| handle.0 >> at & 1 != 0;
        let way = if bit(3) { Way::Direct } else { Way::Pages };
        Opening { read: bit(0), write: bit(1), dir: bit(2), way }
    }

    fn number(self, count: u64) -> Handle {
        let Opening { read, write, dir, way } = self;
        let bits = [read, write, dir, way == Way::Direct]
            .into_iter()
            .rev()
            .fold(0, |bits, bit| bits << 1 | u64::from(bit));
        Handle(count << Opening::BITS | bits)
    }
}

/// Each worker may give so many numbers, as a power of two.
const WORKER_SHIFT: u32 = 40;

/// Open things of one kind.
#[derive(Debug)]
pub struct Handles<T> {
    count: AtomicU64,
    open: RwLock<HashMap<Handle, Arc<T>>>,
}

impl<T> Handles<T> {
    /// For the worker of that number, of those that serve one mount one after the other: none gives another one's numbers.
    pub fn of_worker(number: u64) -> Handles<T> {
        Handles { count: AtomicU64::new((number << WORKER_SHIFT) + 1), open: RwLock::default() }
    }

    pub fn add(&self, opening: Opening, thing: T) -> Handle {
        let handle = opening.number(self.count.fetch_add(1, Ordering::Relaxed));
        self.put(handle, Arc::new(thing));
        handle
    }

    /// What another worker gave that number, or `thing`.
    pub fn put(&self, handle: Handle, thing: Arc<T>) {
        self.open.write().unwrap_or_else(PoisonError::into_inner).insert(handle, thing);
    }

    /// # Errors
    /// `EBADF`: nothing open has that number.
    pub fn load(&self, handle: Handle) -> Reply<Arc<T>> {
        let open = self.open.read().unwrap_or_else(PoisonError::into_inner);
        open.get(&handle).cloned().ok_or(Errno::EBADF)
    }

    pub fn remove(&self, handle: Handle) -> Option<Arc<T>> {
        self.open.write().unwrap_or_else(PoisonError::into_inner).remove(&handle)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_handle_tells_how_it_was_opened_and_is_never_given_twice() {
        let handles = Handles::of_worker(1);
        let opening = Opening { read: true, write: false, dir: true, way: Way::Pages };
        let first = handles.add(opening, "first");
        let second =
            handles.add(Opening { read: false, write: true, dir: false, way: Way::Direct }, "second");
        assert_eq!((first.0 & 15, second.0 & 15), (0b0101, 0b1010));
        assert_ne!(first, second);
        assert_eq!(Opening::of(first), opening);
        assert_eq!(handles.load(second).map(|t| *t), Ok("second"));
        assert_eq!(handles.remove(first).map(|t| *t), Some("first"));
        assert_eq!(handles.load(first), Err(Errno::EBADF));
        assert_ne!(handles.add(opening, "third"), first);
    }

    #[test]
    fn workers_of_one_mount_give_no_number_twice_and_know_each_others() {
        let opening = Opening { read: true, write: true, dir: false, way: Way::Pages };
        let (first, second) = (Handles::of_worker(1), Handles::of_worker(2));
        let old = first.add(opening, "old");
        assert_ne!(second.add(opening, "new"), old);
        second.put(old, Arc::new("old"));
        assert_eq!(second.load(old).map(|t| *t), Ok("old"));
    }
}
