//! What the kernel was told of inodes while it may still go by it, so that an open can see that this is old.
//!
//! Close-to-open: what one client wrote and closed, another that opens the file afterwards must see, also where its
//! kernel has attributes from shortly before. The open brings fresh attributes; where they differ, the kernel is to
//! forget the old ones.

use crate::ops::NodeId;
use pvfs_types::{Attr, Extras};
use std::{
    collections::HashMap,
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

/// Remembers for as long as the kernel may.
#[derive(Debug)]
pub struct Told {
    valid: Duration,
    /// Until then the kernel may hold what a former worker told it.
    unknown_until: Option<Instant>,
    nodes: Mutex<Nodes>,
}

#[derive(Debug)]
struct Nodes {
    told: HashMap<u64, Told1>,
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Told1 {
    size: u64,
    change: u64,
    extras: Extras,
    /// The change that `extras` are of: this mount may have made it since.
    extras_change: u64,
    until: Instant,
}

const SWEEP_MIN: usize = 1024;

impl Told {
    /// For a kernel that holds attributes for `valid`.
    pub fn new(valid: Duration) -> Told {
        let nodes = Nodes { told: HashMap::new(), sweep_at: SWEEP_MIN };
        Told { valid, unknown_until: None, nodes: Mutex::new(nodes) }
    }

    /// As [`Told::new`], where another worker told the kernel things until now.
    pub fn inherited(valid: Duration) -> Told {
        Told { unknown_until: Some(Instant::now() + valid), ..Told::new(valid) }
    }

    /// The kernel is told `attr` now.
    pub fn tell(&self, node: NodeId, attr: &Attr) {
        let now = Instant::now();
        let (size, change, until) = (attr.size, attr.change, now + self.valid);
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        // An answer may be overtaken by that to a change of the attributes.
        let newer = nodes.told.get(&node.0).filter(|told| told.extras_change > change);
        let (extras, extras_change) =
            newer.map_or((attr.extras.unwrap_or_default(), change), |told| (told.extras, told.extras_change));
        let told = Told1 { size, change, extras, extras_change, until };
        nodes.told.insert(node.0, told);
        if nodes.told.len() >= nodes.sweep_at {
            nodes.told.retain(|_, told| told.until > now);
            nodes.sweep_at = (nodes.told.len() * 2).max(SWEEP_MIN);
        }
    }

    /// Which extended attributes the inode had when the kernel was told of it, as long as it goes by that.
    pub fn extras(&self, node: NodeId) -> Option<Extras> {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        nodes.told.get(&node.0).filter(|told| told.until > Instant::now()).map(|told| told.extras)
    }

    /// This mount has changed the inode's extended attributes: these are they, as of `attr`.
    pub fn changed_extras(&self, node: NodeId, attr: &Attr) {
        let mut nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(told) = nodes.told.get_mut(&node.0) {
            told.extras = attr.extras.unwrap_or_default();
            told.extras_change = attr.change;
        }
    }

    /// The kernel may hold attributes that `attr` proves old, or that others who write make so.
    pub fn is_old(&self, node: NodeId, attr: &Attr, has_writers: bool) -> bool {
        let nodes = self.nodes.lock().unwrap_or_else(PoisonError::into_inner);
        match nodes.told.get(&node.0) {
            Some(told) => {
                let same = (told.size, told.change) == (attr.size, attr.change);
                told.until > Instant::now() && (has_writers || !same)
            }
            None => self.unknown_until.is_some_and(|until| until > Instant::now()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{DataGen, FileKind, Ino, Timestamp};

    fn attr(size: u64, change: u64) -> Attr {
        let t = Timestamp::default();
        Attr {
            ino: Ino(5),
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size,
            size_epoch: 0,
            atime: t,
            mtime: t,
            ctime: t,
            btime: t,
            rdev: (0, 0),
            change,
            dist: None,
            data_gen: DataGen(0),
            layout: None,
            extras: None,
            allocated: None,
            inline: None,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn only_what_the_kernel_may_still_hold_and_that_differs_is_old() {
        let told = Told::new(Duration::from_secs(1));
        assert!(!told.is_old(NodeId(5), &attr(1, 1), false), "never told");
        told.tell(NodeId(5), &attr(1, 1));
        assert!(!told.is_old(NodeId(5), &attr(1, 1), false));
        assert!(told.is_old(NodeId(5), &attr(2, 1), false));
        assert!(told.is_old(NodeId(5), &attr(1, 1), true), "somebody writes");
        assert!(told.is_old(NodeId(5), &attr(1, 2), false));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!told.is_old(NodeId(5), &attr(2, 2), false), "timed out there too");
    }

    #[tokio::test(start_paused = true)]
    async fn extras_are_known_as_long_as_the_kernel_goes_by_what_it_was_told() {
        let told = Told::new(Duration::from_secs(1));
        let acl = Extras { acl: true, ..Extras::default() };
        assert_eq!(told.extras(NodeId(5)), None);
        told.changed_extras(NodeId(5), &Attr { extras: Some(acl), ..attr(1, 1) });
        assert_eq!(told.extras(NodeId(5)), None, "the kernel does not know the inode");
        told.tell(NodeId(5), &attr(1, 1));
        assert_eq!(told.extras(NodeId(5)), Some(Extras::default()));
        told.changed_extras(NodeId(5), &Attr { extras: Some(acl), ..attr(1, 2) });
        assert_eq!(told.extras(NodeId(5)), Some(acl));
        assert!(told.is_old(NodeId(5), &attr(1, 2), false), "else it holds what it held");
        told.tell(NodeId(5), &attr(1, 1));
        assert_eq!(told.extras(NodeId(5)), Some(acl), "an answer that was overtaken");
        told.tell(NodeId(5), &attr(1, 3));
        assert_eq!(told.extras(NodeId(5)), Some(Extras::default()));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert_eq!(told.extras(NodeId(5)), None);
    }

    #[tokio::test(start_paused = true)]
    async fn what_a_former_worker_told_counts_as_old_until_it_has_timed_out() {
        let told = Told::inherited(Duration::from_secs(1));
        assert!(told.is_old(NodeId(5), &attr(1, 1), false));
        told.tell(NodeId(5), &attr(1, 1));
        assert!(!told.is_old(NodeId(5), &attr(1, 1), false));
        tokio::time::advance(Duration::from_secs(1)).await;
        assert!(!told.is_old(NodeId(6), &attr(1, 1), false));
    }

    #[tokio::test(start_paused = true)]
    async fn memory_is_bounded_by_what_was_told_lately() {
        let told = Told::new(Duration::from_secs(1));
        for n in 0..100_000 {
            told.tell(NodeId(n), &attr(0, 0));
            if n % 1000 == 0 {
                tokio::time::advance(Duration::from_secs(1)).await;
            }
        }
        assert!(told.nodes.lock().expect("not poisoned").told.len() <= 4 * SWEEP_MIN);
    }
}
