//! What a mount's kernel may keep of what it was told. Each mode is named for what it gives up. Pure.

use pvfs_client::Delegating;
use std::time::Duration;

/// How far the kernel goes by what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// By nothing: every call goes out, and what it answers is what the servers have.
    None,
    /// Nothing: what a call returned on one mount is what the next call on any other sees. The kernel goes by attributes and
    /// pages of what is delegated.
    #[default]
    Coherent,
    /// Close-to-open: an open asks; between opens, another mount's changes may be seen a second late.
    Open,
    /// By everything: this mount alone uses the tree. Another one's changes may be seen a minute late.
    Private,
}

impl CacheMode {
    /// The value of the mount option `cache`.
    pub fn parse(value: &str) -> Option<CacheMode> {
        match value {
            "none" => Some(CacheMode::None),
            "coherent" => Some(CacheMode::Coherent),
            "open" => Some(CacheMode::Open),
            "private" => Some(CacheMode::Private),
            _ => None,
        }
    }

    /// How long names and attributes count that are not delegated.
    pub fn valid(self) -> Duration {
        match self {
            CacheMode::None | CacheMode::Coherent => Duration::ZERO,
            CacheMode::Open => Duration::from_secs(1),
            CacheMode::Private => Duration::from_mins(1),
        }
    }

    /// What the client takes for the kernel.
    pub fn delegating(self) -> Delegating {
        if self == CacheMode::Coherent { Delegating::ForKernel } else { Delegating::No }
    }

    /// Whether a file that others write now is read and written past the page cache.
    pub fn is_direct(self, others_write: bool) -> bool {
        match self {
            CacheMode::None => true,
            CacheMode::Coherent => others_write,
            CacheMode::Open | CacheMode::Private => false,
        }
    }

    /// Whether every call sees what the last one on any mount did.
    pub fn is_strict(self) -> bool {
        matches!(self, CacheMode::None | CacheMode::Coherent)
    }
}
