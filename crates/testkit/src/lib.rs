//! Clusters of real processes for tests: formatted in a temporary directory, on free loopback ports, killed and
//! started again at will, and gone with the value that stands for them, also when the test panics.
//!
//! A [`Proxy`] before a daemon does to single messages what a bad network does.
//!
//! Knows the `pvfs` command line and the frames of the wire; nothing else of the product.

#![allow(clippy::unwrap_used, reason = "this crate is test code: what goes wrong here fails the test")]

mod aftermath;
mod child;
mod cluster;
mod image;
mod mounts;
mod ports;
mod process;
mod proxy;
mod status;

pub use child::{Child, Half};
pub use cluster::{Builder, TestCluster};
pub use image::{FsKind, Image};
pub use mounts::{IoUringOffered, can_mount, is_mounted, offer_io_uring, unmount_lazily};
pub use ports::Ports;
pub use process::Process;
pub use proxy::{Caught, Fate, Proxy, RawFrame, Way};
pub use status::{Daemon, Status, requests_received};

use std::time::{Duration, Instant};

/// Waits until `condition` holds, looking every few milliseconds; fails the test after `limit`.
#[track_caller]
pub fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "waited {limit:?} in vain until {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
