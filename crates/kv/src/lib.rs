//! An ordered key-value store with atomic, durable commits: what the metadata lives in.
//!
//! Owns the traits ([`Read`], [`WriteTxn`], [`Engine`]), the engines and the suite they all pass. Knows nothing of
//! inodes: keys and values are bytes.
//!
//! There are no transactions with conflicts here. One writer reads through an [`Overlay`] over a snapshot, gathers a
//! [`WriteSet`] and has it committed in one step.

mod engine;
mod error;
mod lmdb;
mod mem;
mod overlay;
mod reserve;
mod write_set;

#[cfg(any(test, feature = "conformance"))]
pub mod conformance;

pub use engine::{ENGINE_KEY, Engine, KEY_BYTES_MAX, Read, Visit, WriteTxn};
pub use error::KvError;
pub use lmdb::{Durability, LmdbEngine};
pub use mem::{MemEngine, MemStore};
pub use overlay::Overlay;
pub use write_set::WriteSet;
