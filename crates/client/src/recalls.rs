//! Recalls of delegations: waited for as long as the client lives, obeyed at once.

use crate::{
    calls::{pause_after, refused, shut_down},
    client::Core,
    error::Result,
};
use pvfs_types::{Ino, SessionId};
use pvfs_wire::{
    Refusal, Status,
    msg::delegation::{AwaitRecalls, HoldDelegations, Recall, Recalled, Recalls},
};
use std::{sync::Arc, time::Duration};
use tracing::{info, warn};

/// How long a kernel may be told to go by an answer, at most: for so long it may after the death of who told it, and others wait
/// that change what it may go by. Then it asks its own worker again, which needs no message.
pub const KERNEL_VALID_MAX: Duration = Duration::from_millis(50);

/// Delegations told of in one message.
const TOLD_MAX: usize = 1 << 14;

impl Core {
    /// Runs until the client is shut down.
    pub async fn recalls_task(self: Arc<Self>) {
        let mut closed = self.closed.subscribe();
        let work = async {
            let (mut mgr, mut after, mut failed) = (0, 0, 0);
            loop {
                let session = self.session.standing().id;
                let obeyed = match self.mgr.call(&AwaitRecalls { session, mgr, after }).await {
                    Ok(told) => {
                        if told.mgr != mgr {
                            (mgr, after) = (told.mgr, 0);
                        }
                        after = told.recalls.iter().map(|recall| recall.id).fold(after, u64::max);
                        self.obey(session, &told).await
                    }
                    Err(refusal) => Err(refusal),
                };
                match obeyed {
                    Ok(()) => failed = 0,
                    Err(refusal) => {
                        if let Err(error) = self.mend_recalls(session, refusal).await {
                            warn!(%error, "the mgr does not tell of recalls");
                        }
                        tokio::time::sleep(pause_after(failed)).await;
                        failed += 1;
                    }
                }
            }
        };
        tokio::select! {
            biased;
            () = shut_down(&mut closed) => {}
            () = work => {}
        }
    }

    async fn obey(self: &Arc<Self>, session: SessionId, told: &Recalls) -> std::result::Result<(), Refusal> {
        if told.unknown {
            self.tell_what_is_held(session, told.mgr).await?;
        }
        if told.recalls.is_empty() {
            return Ok(());
        }
        for recall in &told.recalls {
            self.delegations.forget(recall.ino);
        }
        if let Some(forgetter) = &self.forgetter {
            let inos = told.recalls.iter().map(|recall| recall.ino).collect();
            forgetter.wait().await(inos).await;
        }
        let mgr = told.mgr;
        let is_busy = |ino| self.appends.keep_out(ino) || self.has_gathered(ino);
        let (kept, free): (Vec<Recall>, Vec<Recall>) =
            told.recalls.iter().copied().partition(|recall| is_busy(recall.ino));
        for Recall { id, ino } in kept {
            // Not to be waited for here: others' recalls come behind it.
            let core = Arc::clone(self);
            pvfs_env::task::spawn(async move {
                let work = Arc::clone(&core);
                let given_up = core.finish(async move {
                    if work.appends.keep_out(ino) {
                        work.lock_for_appends(ino).await;
                    }
                    work.send_gathered_of(ino).await?;
                    work.mgr
                        .call(&Recalled { session, mgr, ids: vec![id] })
                        .await
                        .map_err(refused::<Recalled>)
                });
                if let Err(error) = given_up.await {
                    warn!(%ino, %error, "the mgr does not hear that a delegation is given up");
                }
            });
        }
        let ids: Vec<u64> = free.iter().map(|recall| recall.id).collect();
        if ids.is_empty() {
            return Ok(());
        }
        self.mgr.call(&Recalled { session, mgr, ids }).await.map(|_| ())
    }

    /// Another mgr process is there, and does not know.
    async fn tell_what_is_held(&self, session: SessionId, mgr: u64) -> std::result::Result<(), Refusal> {
        if self.session.is_inherited() {
            // The kernel may go by what a predecessor knew.
            tokio::time::sleep_until(self.started + KERNEL_VALID_MAX).await;
        }
        let mut held = self.delegations.list();
        // Of these others must be kept from appending, whatever is known of them.
        held.extend(self.appends.keep_out_of());
        // And from these, before it is sent.
        held.extend(self.gathered_files());
        info!(delegations = held.len(), "the mgr is told what this client goes by");
        let mut parts: Vec<Vec<Ino>> = held.chunks(TOLD_MAX).map(<[Ino]>::to_vec).collect();
        let rest = parts.pop().unwrap_or_default();
        for inos in parts {
            self.mgr.call(&HoldDelegations { session, mgr, inos, last: false }).await?;
        }
        self.mgr.call(&HoldDelegations { session, mgr, inos: rest, last: true }).await.map(|_| ())
    }

    async fn mend_recalls(self: &Arc<Self>, session: SessionId, refusal: Refusal) -> Result<()> {
        match refusal.status {
            Status::SessionUnknown => self.renew_session(session).await,
            Status::NotNow => Ok(()),
            _ => Err(refused::<AwaitRecalls>(refusal)),
        }
    }
}
