//! What the kernel is told under `cache=coherent`, and how it forgets what is recalled.

use super::PvfsFs;
use crate::{
    CacheMode, creds,
    openfile::OpenFile,
    ops::{Attributes, Context, NodeId, OpenFlags},
    pages::Reader,
};
use pvfs_client::{Access, Delegation, KERNEL_VALID_MAX};
use pvfs_kfuse::Notifier;
use pvfs_types::{Cred, Ino};
use std::sync::{
    Arc, Weak,
    atomic::{AtomicU64, Ordering},
};
use tracing::warn;

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

impl PvfsFs {
    /// What takes back from the kernel what it was told.
    pub fn set_notifier(self: &Arc<Self>, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
        self.tell_atimes();
        let fs = Arc::downgrade(self);
        self.client.on_recall(Box::new(move |inos| {
            let fs = Weak::clone(&fs);
            Box::pin(async move {
                if let Some(fs) = fs.upgrade() {
                    let notifier = fs.notifier.wait().await.clone();
                    let trusted = inos.into_iter().filter(|ino| fs.pages.recalled(*ino));
                    outdate(notifier, trusted.map(|ino| fs.node(ino)).collect()).await;
                }
            })
        }));
    }

    /// The number of the delegation of `ino`, if there is one.
    pub(super) fn delegation(&self, ino: Ino) -> Option<u64> {
        self.client.delegation(ino).map(|delegation| delegation.number)
    }

    /// The attributes of `ino` are at hand.
    pub(super) fn is_known(&self, ino: Ino) -> bool {
        self.client.delegation(ino).is_some_and(|delegation| delegation.known)
    }

    /// Attributes of `ino` for the kernel. It may go by them as long as nobody else changes the inode, where its pages are as
    /// good as they are; `reader`: the thread that is about to read pages, if that is why they are asked for.
    pub(super) fn tell_delegated(&self, ino: Ino, told: Attributes, reader: Option<u32>) -> Attributes {
        let delegation = self.client.delegation(ino).filter(|delegation| delegation.known);
        match (delegation, reader) {
            (Some(of), Some(tid)) => match self.pages.read(ino, of.number, tid) {
                Reader::Trusts => trusted(told, of),
                Reader::Asks => told,
                Reader::Tagged => with_time_of(told, 2 * of.number + 1),
            },
            (None, Some(_)) => {
                static COUNT: AtomicU64 = AtomicU64::new(1);
                with_time_of(told, 2 * COUNT.fetch_add(1, Ordering::Relaxed))
            }
            (Some(of), None) if !self.pages.has(ino) => trusted(told, of),
            (_, None) => told,
        }
    }

    /// Opens `ino` for reading without a question, where it is delegated and the caller certainly may. The mgr gives the
    /// right to read the targets when that is first wanted.
    pub(super) fn open_by_delegation(&self, ctx: &Context, ino: Ino, flags: OpenFlags) -> Option<OpenFile> {
        if self.cache != CacheMode::Coherent || !flags.read || flags.write || flags.truncate {
            return None;
        }
        let alone = Cred { uid: ctx.uid, gid: ctx.gid, groups: Vec::new() };
        let may = |cred: &Cred| self.client.may_read(cred, ino);
        if !may(&alone) && (ctx.uid == 0 || !may(&creds::whole(ctx))) {
            return None;
        }
        let held = self.client.hold(ino, Access::READ);
        // Else its last name may have gone before it counted as open.
        self.client.delegation(ino).map(|_| OpenFile::held(held, self.way(flags, false)))
    }
}

/// The kernel forgets all that it holds of these. Waits for reads of them that are under way.
async fn outdate(notifier: Notifier, nodes: Vec<NodeId>) {
    let outdate = move || {
        for node in nodes {
            if let Err(error) = notifier.data_changed(node.0, 0) {
                warn!(node = node.0, %error, "the kernel does not forget what it holds");
            }
        }
    };
    // Not by a thread that answers reads.
    let _ = tokio::task::spawn_blocking(outdate).await;
}

/// `told`, by which the kernel may go until that is recalled.
fn trusted(told: Attributes, of: Delegation) -> Attributes {
    Attributes { valid: of.left.min(KERNEL_VALID_MAX), ..told }
}

/// `told` with a time of change that goes with `tag`: another than with others.
fn with_time_of(mut told: Attributes, tag: u64) -> Attributes {
    let nanos = (u64::from(told.attr.mtime.nanos) + tag) % SECOND_NS;
    told.attr.mtime.nanos = u32::try_from(nanos).unwrap_or_default();
    told
}
