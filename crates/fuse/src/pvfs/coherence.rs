//! What the kernel is told under `cache=coherent`, and how it forgets what is recalled.

use super::PvfsFs;
use crate::{
    CacheMode, creds,
    openfile::OpenFile,
    ops::{Attributes, Context, NodeId, OpenFlags},
    pages::{Reader, TakeBack},
};
use pvfs_client::KERNEL_VALID_MAX;
use pvfs_kfuse::{Notifier, Waiting};
use pvfs_types::{Attr, Cred, Ino};
use std::{
    io,
    sync::{
        Arc, Weak,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;
use tracing::{debug, warn};

/// Nanoseconds of a second.
const SECOND_NS: u64 = 1_000_000_000;

/// When to look again whether the kernel holds by now what an answer has brought.
const COMES_AGAIN: Duration = Duration::from_millis(2);

impl PvfsFs {
    /// What takes back from the kernel what it was told.
    pub fn set_notifier(self: &Arc<Self>, notifier: Notifier) {
        let _ = self.notifier.set(notifier);
        self.tell_atimes();
        let fs = Arc::downgrade(self);
        self.client.on_recall(Box::new({
            let fs = Weak::clone(&fs);
            move |inos| {
                let fs = Weak::clone(&fs);
                Box::pin(async move {
                    if let Some(fs) = fs.upgrade() {
                        fs.forget_recalled(inos).await;
                    }
                })
            }
        }));
        self.client.on_own_change(Box::new(move |ino| {
            if let Some(fs) = fs.upgrade() {
                fs.forget_changed(ino);
            }
        }));
    }

    /// The kernel forgets all that it holds of these. Waits for reads of them that are under way, and until what a former worker
    /// told of open files has timed out.
    async fn forget_recalled(&self, inos: Vec<Ino>) {
        let notifier = self.notifier.wait().await;
        let inherited_until = self.trusted.inherited_until();
        let (mut known, mut times_out) = (Vec::new(), false);
        for ino in inos {
            let (node, told) = (self.node(ino), self.trusted.take(ino));
            match self.pages.recalled(ino) {
                TakeBack::Notice => known.push((node, told.or(inherited_until))),
                TakeBack::Nothing => known.extend(told.map(|until| (node, Some(until)))),
                TakeBack::TimesOut => times_out = true,
            }
            if self.twins.may_be_changed(ino) {
                self.settle_maps(ino).await;
            }
        }
        let mut left = outdate(notifier, known).await;
        // An answer that is on its way may bring what the kernel does not hold yet.
        while !left.is_empty() {
            tokio::time::sleep(COMES_AGAIN).await;
            left = outdate(notifier, left).await;
        }
        if let Some(until) = inherited_until.filter(|_| times_out) {
            tokio::time::sleep_until(until).await;
        }
    }

    /// This mount has changed `ino`: an answer from before, if it comes to the kernel after this one's, must not count.
    /// (Those of a former worker have come.)
    fn forget_changed(&self, ino: Ino) {
        if self.trusted.take(ino).is_some()
            && let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.attributes_changed(self.node(ino).0)
        {
            debug!(%ino, %error, "the kernel asks later");
        }
    }

    /// The kernel forgets what it holds of `len` bytes of `ino` from `offset` on, which were written past its pages: who read them in
    /// that moment may have brought what was there before. Waits for such reads.
    pub(super) async fn forget_range(&self, ino: Ino, offset: u64, len: u64) {
        let (notifier, node) = (self.notifier.wait().await, self.node(ino).0);
        let forget = move |kernel: &Waiting<'_>| kernel.range_changed(node, offset, len);
        if let Err(error) = notifier.apart(forget).await.flatten() {
            warn!(%ino, %error, "the kernel does not forget what was written over");
        }
    }

    /// Others may have the file open and change it without a recall.
    pub(super) fn is_shared(&self, ino: Ino) -> bool {
        match self.cache {
            CacheMode::Coherent => self.delegation(ino).is_none(),
            CacheMode::None | CacheMode::Open => true,
            CacheMode::Private => false,
        }
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
    pub(super) fn tell_delegated(&self, attr: &Attr, told: Attributes, reader: Option<u32>) -> Attributes {
        let ino = attr.ino;
        let delegation = self.client.delegation(ino).filter(|delegation| delegation.known);
        match (delegation, reader) {
            (Some(of), Some(tid)) => match self.pages.read(ino, of.number, tid) {
                Reader::Trusts => self.trust(attr, told, false),
                Reader::Asks => told,
                Reader::Tagged => with_time_of(told, 2 * of.number + 1),
            },
            (None, Some(_)) => {
                static COUNT: AtomicU64 = AtomicU64::new(1);
                with_time_of(told, 2 * COUNT.fetch_add(1, Ordering::Relaxed))
            }
            (Some(_), None) if !self.pages.has(ino) => self.trust(attr, told, false),
            (_, None) => told,
        }
    }

    /// As [`PvfsFs::tell_delegated`], in answer to a lookup or a create.
    pub(super) fn tell_by_name(&self, attr: &Attr, told: Attributes) -> Attributes {
        let may_trust = self.cache == CacheMode::Coherent && !self.pages.has(attr.ino);
        if may_trust { self.trust(attr, told, true) } else { told }
    }

    /// `told`, by which the kernel may go until that is recalled, if it still stands.
    fn trust(&self, attr: &Attr, told: Attributes, by_name: bool) -> Attributes {
        let Some(of) = self.client.stands(attr) else { return told };
        let valid = of.left.min(KERNEL_VALID_MAX);
        self.trusted.tell(attr.ino, valid, by_name);
        // Else it may have been recalled before that was noted.
        if self.client.stands(attr).is_none_or(|now| now.number != of.number) {
            return told;
        }
        Attributes { valid, ..told }
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
        Some(OpenFile::held(self.client.hold_known(ino)?, self.way(ino, flags, false)))
    }
}

/// A node, and until when the kernel may go by attributes of it that are on their way.
type Known = (NodeId, Option<Instant>);

/// The kernel forgets all that it holds of `nodes`. Gives those that it does not hold, but may be about to.
async fn outdate(notifier: &Notifier, nodes: Vec<Known>) -> Vec<Known> {
    let numbers: Vec<u64> = nodes.iter().map(|(node, _)| node.0).collect();
    let forget = move |kernel: &Waiting<'_>| -> Vec<io::Result<bool>> {
        numbers.into_iter().map(|node| kernel.data_changed(node, 0)).collect()
    };
    let told = match notifier.apart(forget).await {
        Ok(told) => told,
        Err(error) => {
            warn!(%error, "the kernel is told once more what to forget");
            return nodes;
        }
    };
    let may_come = |((node, until), told): (Known, io::Result<bool>)| {
        let is_held = told.unwrap_or_else(|error| {
            warn!(node = node.0, %error, "the kernel does not forget what it holds");
            true
        });
        (!is_held && until.is_some_and(|until| until > Instant::now())).then_some((node, until))
    };
    nodes.into_iter().zip(told).filter_map(may_come).collect()
}

/// `told` with a time of change that goes with `tag`: another than with others.
fn with_time_of(mut told: Attributes, tag: u64) -> Attributes {
    let nanos = (u64::from(told.attr.mtime.nanos) + tag) % SECOND_NS;
    told.attr.mtime.nanos = u32::try_from(nanos).unwrap_or_default();
    told
}
