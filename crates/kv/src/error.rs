//! What can go wrong with a store.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum KvError {
    /// Nothing has changed; the store goes on.
    #[error("the metadata store is full ({detail}): free space or give it a larger map")]
    Full { detail: String },
    #[error("the metadata store in {} is in use by another daemon: stop that one first", dir.display())]
    InUse { dir: PathBuf },
    #[error("{what}: {source}")]
    Io { what: String, source: io::Error },
    #[error("a key has 1 to 511 bytes, this one has {bytes}")]
    KeySize { bytes: usize },
    #[error("the key of one zero byte is the engine's own")]
    ReservedKey,
    /// The store's own structure is damaged, or is not one this build can read.
    #[error("the metadata store is damaged: {detail}")]
    Corrupt { detail: String },
    /// The engine refused for a reason of its own (too many readers, a transaction too big).
    #[error("the metadata store's engine refused: {detail}")]
    Engine { detail: String },
}
