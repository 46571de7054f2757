//! Sends again what a target may have lost, before anything else of this client reaches it; and looks after targets
//! for which something is held.
//!
//! An iod refuses whoever knows only an older store generation. So whatever this client is about to do on the target
//! waits here until all it holds was sent again, in order; then it is sent with the new generation. Files that are not
//! open any more are opened for that, as an application would.

use crate::{
    ClientError,
    calls::{pause_after, shut_down},
    client::Core,
    file::store_failed,
    held::{HeldWrite, What},
    holds::Hold,
    inode::{Inode, OpenCount},
    io::mend,
    retry::{Action, Tries},
};
use futures_util::{StreamExt, stream};
use pvfs_env::BoxFuture;
use pvfs_types::{Errno, TargetId};
use pvfs_wire::{
    Access, Op, Refusal, Status,
    msg::data::{Acked, Commit, Fill, FillWith, Pass, Write, Written},
};
use std::{sync::Arc, time::Duration};
use tracing::{error, info, warn};

/// How often a target is asked what is durable, while something is held for it. It also finds out that the target has
/// lost what is held when nobody uses it.
const ASK_PERIOD: Duration = Duration::from_secs(1);
/// Objects that are sent again side by side.
const OBJECTS_AT_ONCE: usize = 16;
/// Commits in a row that a target may fail, each after all was sent again, before what it should have committed counts
/// as lost.
const FAILED_COMMITS_MAX: u32 = 5;
/// Failures in a row of a disk to take an object's bytes again, or of the mgr's store to note that it is written, before
/// what should have been sent again counts as lost.
const FAILED_WRITES_MAX: u32 = 5;

/// Why a write was not sent again.
enum Unsent {
    /// The target has lost bytes once more, under this generation.
    Raised(u64),
    /// Nobody would read it: the file, or these bytes of it, are gone.
    Obsolete,
    Failed(ClientError),
}

impl Core {
    /// The store generation of `target` has risen to `generation`: returns when all that is held was sent again. Brought
    /// to its end also when dropped.
    pub fn send_again(
        self: &Arc<Self>,
        target: TargetId,
        generation: u64,
    ) -> BoxFuture<'_, crate::error::Result<()>> {
        let (core, hold) = (Arc::clone(self), self.holds.of(target));
        Box::pin(self.finish(async move {
            core.send_again_here(&hold, generation).await;
            Ok(())
        }))
    }

    async fn send_again_here(self: &Arc<Self>, hold: &Hold, mut generation: u64) {
        let _turn = hold.sending_again.lock().await;
        if hold.look(|held| held.known().is_none_or(|known| known >= generation)) {
            return;
        }
        let (writes, bytes) = hold.look(|held| (held.count(), held.bytes()));
        let target = hold.target;
        warn!(%target, generation, writes, bytes, "the target may have lost acknowledged bytes: sending them again");
        self.holds.counters().replays.inc();
        loop {
            let objects = hold.look(|held| held.stale(generation));
            let sent = objects.into_iter().map(|writes| self.send_object_again(hold, writes, generation));
            let raised: Vec<Option<u64>> =
                stream::iter(sent).buffer_unordered(OBJECTS_AT_ONCE).collect().await;
            if let Some(raised) = raised.into_iter().flatten().max() {
                generation = generation.max(raised);
            } else if hold.change(|held| held.caught_up(generation)) {
                return info!(%target, generation, "all was sent again");
            }
        }
    }

    /// Sends the writes of one object again, in order. Gives the generation that interrupted it.
    async fn send_object_again(
        self: &Arc<Self>,
        hold: &Hold,
        writes: Vec<(u64, HeldWrite)>,
        generation: u64,
    ) -> Option<u64> {
        let ino = writes.first()?.1.ino;
        let mut count = OpenCount::new(self, ino, Access::WRITE);
        let (mut raised, mut failed) = (None, 0);
        for (number, write) in writes {
            match self.send_write_again(&count.inode, hold.target, &write, generation, &mut failed).await {
                Ok(acked) => {
                    failed = 0;
                    self.holds.counters().replayed_bytes.add(write.bytes);
                    hold.change(|held| held.sent_again(number, acked));
                }
                Err(Unsent::Raised(generation)) => {
                    raised = Some(generation);
                    break;
                }
                Err(Unsent::Obsolete) => hold.change(|held| held.forget(number)),
                Err(Unsent::Failed(error)) => {
                    self.lost(hold.target, &write, &error);
                    hold.change(|held| held.forget(number));
                }
            }
        }
        count.stop_access();
        let core = Arc::clone(self);
        pvfs_env::task::spawn(async move {
            if let Err(error) = core.report(&count.inode, Some(0)).await {
                warn!(%ino, %error, "the size of a file whose bytes were sent again could not be told");
            }
        });
        raised
    }

    /// `failed` counts the failures of disks in a row over the writes of one object.
    async fn send_write_again(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        target: TargetId,
        write: &HeldWrite,
        generation: u64,
        failed: &mut u32,
    ) -> Result<Acked, Unsent> {
        let unsent = |error| match error {
            ClientError::Gone { .. } => Unsent::Obsolete,
            error => Unsent::Failed(error),
        };
        let mut tries = Tries::default();
        // The mgr may have given the file new objects, and the old ones may be removed; an iod that was started since does
        // not know of that, and would make an object that nobody removes.
        let doubted = if self.emptyings.any() { inode.capability(Access::WRITE) } else { None };
        let mut capability = loop {
            match self.fresh_capability(inode, Access::WRITE, doubted).await {
                Ok(capability) => break capability,
                Err(error) if store_failed(&error) && *failed < FAILED_WRITES_MAX => {
                    *failed += 1;
                    tokio::time::sleep(pause_after(*failed)).await;
                }
                Err(error) => return Err(unsent(error)),
            }
        };
        loop {
            if capability.grant.data_gen != write.data_gen {
                return Err(Unsent::Obsolete);
            }
            let pass = Pass { capability, lease: self.session.lease(), store: Some(generation) };
            let refusal = match self.call_again(target, pass, write).await {
                Ok(written) => {
                    let (mark, below) = written
                        .durability
                        .map_or((0, None), |durability| (durability.mark, durability.below));
                    return Ok(Acked { generation: written.generations.store, mark, below });
                }
                Err(refusal) => refusal,
            };
            match refusal.status {
                Status::StoreRaised(raised) => return Err(Unsent::Raised(raised)),
                Status::Errno(Errno::ESTALE) => return Err(Unsent::Obsolete),
                Status::Errno(Errno::EIO | Errno::ENOSPC) if *failed < FAILED_WRITES_MAX => {
                    *failed += 1;
                    tokio::time::sleep(pause_after(*failed)).await;
                }
                _ => {
                    let (what, access) = ((target, Op::Write), Access::WRITE);
                    mend(self, inode, access, &mut tries, what, pass, &mut capability, refusal)
                        .await
                        .map_err(unsent)?;
                }
            }
        }
    }

    /// Sends a held write once more.
    async fn call_again(&self, target: TargetId, pass: Pass, write: &HeldWrite) -> Result<Written, Refusal> {
        let (slot, again) = (write.slot, Some(write.acked));
        let answer = match &write.what {
            What::Bytes { ranges, payload } => {
                let ranges = ranges.clone();
                self.targets.call(target, &Write { target, pass, slot, ranges, again }, payload).await
            }
            &What::Zeros { start, end } => {
                let request = Fill { target, pass, slot, start, end, with: FillWith::Zeros, again };
                self.targets.call(target, &request, &[]).await
            }
        };
        answer.map(|(written, _)| written)
    }

    /// What nobody holds any more is lost: whoever has the file open for writing hears of it.
    fn lost(&self, target: TargetId, write: &HeldWrite, error: &ClientError) {
        let HeldWrite { ino, bytes, .. } = *write;
        error!(%target, %ino, bytes, %error, "acknowledged bytes are lost");
        self.holds.counters().lost_bytes.add(bytes);
        if let Some(inode) = self.inodes.find(ino) {
            inode.lost(Errno::EIO);
        }
    }

    /// Looks after `hold` as long as something is held.
    pub fn look_after(self: &Arc<Self>, hold: Arc<Hold>) {
        let core = Arc::clone(self);
        pvfs_env::task::spawn(async move {
            let mut closed = core.closed.subscribe();
            tokio::select! {
                biased;
                () = shut_down(&mut closed) => {}
                () = core.release(&hold) => {}
            }
        });
    }

    /// Asks the target what is durable, now and then or when room is needed, until nothing is held.
    async fn release(self: &Arc<Self>, hold: &Hold) {
        let (mut tries, mut failed) = (Tries::default(), 0);
        while !hold.let_go() {
            let asked = tokio::time::timeout(ASK_PERIOD, hold.urgent.notified()).await.is_ok();
            // Nobody may have written here for long, and others have come to need the room.
            let now = asked || hold.is_crowded();
            let store = hold.look(crate::held::Held::known);
            if store.is_none() {
                continue;
            }
            match self.targets.call(hold.target, &Commit { target: hold.target, store, now }, &[]).await {
                Ok((written, _)) => {
                    tries = Tries::default();
                    failed = if now { 0 } else { failed };
                    hold.told(&written);
                }
                Err(refusal) => self.release_refused(hold, &mut tries, &mut failed, refusal).await,
            }
        }
    }

    async fn release_refused(
        self: &Arc<Self>,
        hold: &Hold,
        tries: &mut Tries,
        failed: &mut u32,
        refusal: Refusal,
    ) {
        match tries.refused(refusal.status) {
            Action::SendAgain { generation } => {
                // Ends early only when the client is shut down.
                let _ = self.send_again(hold.target, generation).await;
                // Whoever waited for room still does.
                hold.urgent.notify_one();
            }
            Action::RefreshTargets => {
                tokio::time::sleep(pause_after(tries.waits)).await;
                self.targets.refresh().await;
            }
            Action::Later => tokio::time::sleep(pause_after(tries.waits)).await,
            Action::NewSession | Action::RenewLease | Action::FreshCapability | Action::GiveUp => {
                *failed += 1;
                let error = crate::calls::refused::<Commit>(refusal);
                if *failed >= FAILED_COMMITS_MAX {
                    *failed = 0;
                    hold.change(crate::held::Held::clear)
                        .iter()
                        .for_each(|write| self.lost(hold.target, write, &error));
                } else {
                    warn!(target = %hold.target, %error, "the target cannot make durable what was written");
                    tokio::time::sleep(pause_after(*failed)).await;
                    hold.urgent.notify_one();
                }
            }
        }
    }
}
