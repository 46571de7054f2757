//! What is open through the mount, by the numbers the kernel calls it.

use crate::ops::{Handle, Reply};
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
#[derive(Clone, Copy, Debug)]
pub struct Opening {
    pub read: bool,
    pub write: bool,
    pub dir: bool,
}

impl Opening {
    const BITS: u32 = 3;

    fn number(self, count: u64) -> Handle {
        let bits = u64::from(self.read) | u64::from(self.write) << 1 | u64::from(self.dir) << 2;
        Handle(count << Opening::BITS | bits)
    }
}

/// Open things of one kind.
#[derive(Debug)]
pub struct Handles<T> {
    count: AtomicU64,
    open: RwLock<HashMap<Handle, Arc<T>>>,
}

impl<T> Default for Handles<T> {
    fn default() -> Handles<T> {
        Handles { count: AtomicU64::new(1), open: RwLock::default() }
    }
}

impl<T> Handles<T> {
    pub fn add(&self, opening: Opening, thing: T) -> Handle {
        let handle = opening.number(self.count.fetch_add(1, Ordering::Relaxed));
        let mut open = self.open.write().unwrap_or_else(PoisonError::into_inner);
        open.insert(handle, Arc::new(thing));
        handle
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
        let handles = Handles::default();
        let opening = Opening { read: true, write: false, dir: true };
        let first = handles.add(opening, "first");
        let second = handles.add(Opening { read: false, write: true, dir: false }, "second");
        assert_eq!((first.0 & 7, second.0 & 7), (0b101, 0b010));
        assert_ne!(first, second);
        assert_eq!(handles.load(second).map(|t| *t), Ok("second"));
        assert_eq!(handles.remove(first).map(|t| *t), Some("first"));
        assert_eq!(handles.load(first), Err(Errno::EBADF));
        assert_ne!(handles.add(opening, "third"), first);
    }
}
