//! The lock under which this client appends to a file that others write too ([`LockOwner::APPEND`]): taken, given up, taken
//! in the place of a delegation that is recalled, taken over from a predecessor.

use crate::{
    ClientError,
    calls::pause_after,
    client::Core,
    error::Result,
    inode::{Inode, OpenCount},
    locking::LockRequest,
};
use pvfs_types::{Cred, Errno, Ino, LockMode, LockOwner, SessionId};
use pvfs_wire::{
    Access,
    msg::namespace::{Entry, GetAttr},
};
use std::{
    collections::BTreeSet,
    sync::{Arc, atomic::Ordering},
};
use tracing::warn;

impl Core {
    /// Takes the append lock of a file and gives its session, if it is not held already. Dropped before its end, the lock is
    /// taken back.
    pub async fn take_append_lock(self: &Arc<Self>, ino: Ino) -> Result<(SessionId, Entry)> {
        loop {
            let session = self.session.standing().id;
            let owner = LockOwner::APPEND;
            let request = LockRequest { owner, start: 0, end: u64::MAX, mode: LockMode::Write, pid: 0 };
            let taken = self.lock_here(ino, 0, request).await?;
            let entry = taken.entry().clone();
            taken.keep();
            if self.session.standing().id == session {
                return Ok((session, entry));
            }
        }
    }

    /// Has the append lock of a file given up, if it may be held, after those appends that wait for their turn now.
    pub fn give_append_lock_up(self: &Arc<Self>, inode: &Arc<Inode>) {
        let key = (inode.ino, LockOwner::APPEND);
        if !self.locks.is_known(key) || inode.append_lock_goes.swap(true, Ordering::SeqCst) {
            return;
        }
        let count = OpenCount::new(self, inode.ino, Access::default());
        let core = Arc::clone(self);
        pvfs_env::task::spawn(async move {
            let mut failed = 0;
            loop {
                let (work, inode) = (Arc::clone(&core), Arc::clone(&count.inode));
                let given_up = core.finish(async move { work.give_append_lock_up_in_turn(&inode).await });
                match given_up.await {
                    Ok(()) | Err(ClientError::ShutDown) => break,
                    Err(error) if failed == 0 => {
                        warn!(ino = %count.inode.ino, %error, "others cannot append: the lock is given up later");
                    }
                    Err(_) => {}
                }
                tokio::time::sleep(pause_after(failed)).await;
                failed += 1;
            }
        });
    }

    /// After those appends that wait for their turn now.
    async fn give_append_lock_up_in_turn(self: &Arc<Self>, inode: &Inode) -> Result<()> {
        // Those have no turn yet.
        self.appends.inherited_over(inode.ino).await;
        let _turn = inode.appending.lock().await;
        inode.append_lock_goes.store(false, Ordering::SeqCst);
        let mut lock = inode.append_lock.lock().await;
        *lock = None;
        self.release_locks(inode.ino, LockOwner::APPEND).await
    }

    /// Appends to `ino` go by its delegation, which is recalled: waits until they are over, or others are kept out by the
    /// lock.
    pub async fn lock_for_appends(self: &Arc<Self>, ino: Ino) {
        let count = OpenCount::new(self, ino, Access::default());
        let locked = async {
            let mut lock = count.inode.append_lock.lock().await;
            if *lock != Some(self.session.standing().id) {
                let (session, _) = self.take_append_lock(ino).await?;
                *lock = Some(session);
            }
            Ok::<_, ClientError>(())
        };
        let locked = tokio::select! {
            biased;
            () = self.appends.over(ino) => Ok(()),
            locked = locked => locked,
        };
        if let Err(error) = locked {
            warn!(%ino, %error, "appends are waited for: the file could not be locked");
            self.appends.over(ino).await;
        }
        self.give_append_lock_up(&count.inode);
    }

    /// What a predecessor was appending to `ino`, but for `call`, does not come again: whoever does is the next one. Nothing of
    /// it is under way afterwards.
    pub async fn settle_appends(self: &Arc<Self>, ino: Ino, call: Option<u64>) -> Result<()> {
        let marks = self.appends.inherited(Some(ino), call);
        if marks.iter().any(|mark| !mark.is_done) {
            let asked = self.ask(&Cred::root(), |caller| GetAttr { caller, ino }).await;
            match asked {
                // A target that answers this process has thrown away what its predecessor had sent.
                Ok(Entry { attr, .. }) => {
                    if let Some(dist) = attr.dist {
                        self.extent(ino, attr.data_gen, dist).await?;
                    }
                }
                Err(ClientError::Refused { errno: Errno::ENOENT | Errno::ESTALE, .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for mark in marks {
            self.appends.forget_inherited(mark.call);
            if let Some(journal) = &self.appends.journal {
                journal.append_over(mark.call);
            }
        }
        Ok(())
    }

    /// No call of a predecessor comes any more.
    pub async fn settle_all_appends(self: &Arc<Self>) {
        let files: BTreeSet<Ino> = self.appends.inherited(None, None).iter().map(|mark| mark.ino).collect();
        for ino in files {
            if let Err(error) = self.settle_appends(ino, None).await {
                warn!(%ino, %error, "an append that this mount's last worker had begun is not settled");
            }
        }
    }

    /// Gives up the append locks that a predecessor may have held, each when what it had begun is made again.
    pub fn give_inherited_append_locks_up(self: &Arc<Self>) {
        for ino in self.locks.files_of(LockOwner::APPEND) {
            let count = OpenCount::new(self, ino, Access::default());
            self.give_append_lock_up(&count.inode);
        }
    }
}
