//! Why a benchmark has no result.

use std::{io, path::PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum BenchError {
    #[error("{call} {name}: {source}")]
    Call { call: &'static str, name: String, source: io::Error },
    #[error(
        "wrong byte read back: {name} at offset {offset} holds {found:#04x}, {expected:#04x} was written"
    )]
    WrongByte { name: String, offset: u64, expected: u8, found: u8 },
    #[error("{name} ended at {found} bytes of a read of {wanted} at offset {offset}")]
    Short { name: String, offset: u64, wanted: u64, found: u64 },
    #[error("the loopback limit at {}: {source}", dir.display())]
    Loopback { dir: PathBuf, source: io::Error },
    #[error("{text}")]
    Spec { text: String },
    #[error("a rank ended without a result")]
    RankLost,
}

impl BenchError {
    /// For `map_err` after a call on `name`.
    pub fn at(call: &'static str, name: &str) -> impl FnOnce(io::Error) -> BenchError {
        let name = name.to_owned();
        move |source| BenchError::Call { call, name, source }
    }
}
