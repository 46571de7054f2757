//! Requests are read into memory that iods of this machine can get at: what is written goes to them without a copy.

use pvfs_env::memory::Arena;
use pvfs_kfuse::{Heap, Memory, Room};
use std::sync::Arc;

struct Shared {
    arena: Arc<Arena>,
    /// Where the arena is full.
    own: Heap,
}

/// Memory of `arena`, or `None` for the process' own.
pub(crate) fn of(arena: Option<&Arc<Arena>>) -> Option<Arc<dyn Memory>> {
    let arena = Arc::clone(arena?);
    Some(Arc::new(Shared { arena, own: Heap::new(0) }))
}

impl Memory for Shared {
    fn take(&self, len: usize) -> Box<dyn Room> {
        match self.arena.take(len) {
            Some(block) => Box::new(block),
            None => self.own.take(len),
        }
    }
}
