//! What a store must offer: `get`, `range`, `commit(write set)`.

use crate::{KvError, WriteSet};
use std::ops::ControlFlow;

/// The longest key, in bytes (LMDB's own bound). Keys are not empty.
pub const KEY_BYTES_MAX: usize = 511;

/// The one key that nobody may use: an engine keeps there what it must remember.
pub const ENGINE_KEY: &[u8] = &[0];

/// Is shown key and value; breaks when it has seen enough.
pub type Visit<'v> = dyn FnMut(&[u8], &[u8]) -> ControlFlow<()> + 'v;

/// A view that does not change while it is read (but by its own writes, if it is a [`WriteTxn`]).
pub trait Read {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError>;

    /// Shows the pairs with `from <= key < to`, in key order, until `visit` breaks. Empty where `from >= to`.
    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError>;
}

/// A view that sees its own writes.
pub trait WriteTxn: Read {
    fn put(&mut self, key: &[u8], value: Vec<u8>);
    fn delete(&mut self, key: &[u8]);
}

/// A store. One process has it open at a time.
pub trait Engine: Send + Sync + 'static {
    /// The state after the last commit that returned, and no later one.
    ///
    /// Holding one for long keeps its pages from being used again: take it, read, drop it.
    fn snapshot(&self) -> Result<Box<dyn Read + Send + '_>, KvError>;

    /// Makes all of `set` so, or nothing of it; durable on return.
    ///
    /// # Errors
    /// [`KvError::Full`]: no room; nothing has changed, the store goes on, a smaller set may still fit.
    fn commit(&self, set: &WriteSet) -> Result<(), KvError>;

    /// Whether only what is kept back for removals is left. Whoever adds anything should not, then; commits that make
    /// room still fit.
    fn is_short(&self) -> bool {
        false
    }

    /// About how many bytes the pairs take in the store.
    fn used_bytes(&self) -> Result<u64, KvError>;
}

impl<T: Read + ?Sized> Read for &T {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        (**self).get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        (**self).range(from, to, visit)
    }
}

impl<T: Read + ?Sized> Read for Box<T> {
    fn get(&self, key: &[u8]) -> Result<Option<Vec<u8>>, KvError> {
        (**self).get(key)
    }

    fn range(&self, from: &[u8], to: &[u8], visit: &mut Visit<'_>) -> Result<(), KvError> {
        (**self).range(from, to, visit)
    }
}
