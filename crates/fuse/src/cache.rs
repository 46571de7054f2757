//! What a mount's kernel may keep of what it was told. Each mode is named for what it gives up. Pure.

use std::time::Duration;

/// How far the kernel goes by what it holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum CacheMode {
    /// By nothing: every call goes out, and what it answers is what the servers have.
    None,
    /// Close-to-open: an open asks; between opens, another mount's changes may be seen a second late.
    #[default]
    Open,
    /// By everything: this mount alone uses the tree. Another one's changes may be seen a minute late.
    Private,
}

impl CacheMode {
    /// The value of the mount option `cache`.
    pub fn parse(value: &str) -> Option<CacheMode> {
        match value {
            "none" => Some(CacheMode::None),
            "open" => Some(CacheMode::Open),
            "private" => Some(CacheMode::Private),
            _ => None,
        }
    }

    /// How long names and attributes count.
    pub fn valid(self) -> Duration {
        match self {
            CacheMode::None => Duration::ZERO,
            CacheMode::Open => Duration::from_secs(1),
            CacheMode::Private => Duration::from_mins(1),
        }
    }

    /// Whether reads and writes of every file go past the page cache.
    pub fn is_direct(self) -> bool {
        self == CacheMode::None
    }
}
