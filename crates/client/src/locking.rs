//! Locks on files: asked for, waited for, given up. One who gives up waiting does not hold the lock afterwards.
//!
//! All calls of one owner reach the mgr one after the other, in the order in which they began: what is taken back in the
//! background comes before anything else of its owner.

use crate::{
    Client, ClientError,
    calls::{pause_after, refused, shut_down},
    client::Core,
    error::{Answer, Result},
    estate,
    file::store_failed,
    locks::{Key, Turn, Use},
    waits::{WaitsFor, waiting_for},
};
use pvfs_types::{Cred, Ino, LockMode, LockOwner, LockRange, SessionId};
use pvfs_wire::{
    Op, Refusal, Status,
    msg::{
        lock::{AwaitLocks, CancelLock, HeldLock, LockOutcome, LockSet, ReleaseLocks, SetLock, TestLock},
        namespace::{Entry, GetAttr},
    },
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};
use tracing::warn;

/// A lock as it is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LockRequest {
    pub owner: LockOwner,
    pub start: u64,
    /// The last byte.
    pub end: u64,
    pub mode: LockMode,
    /// Who asks, for people and for [`Client::test_lock`]; 0: not known.
    pub pid: u32,
}

impl LockRequest {
    fn range(&self) -> LockRange {
        LockRange { start: self.start, end: self.end, mode: self.mode, pid: self.pid }
    }
}

impl Client {
    /// Locks a range of `ino` for an owner, in place of what that holds of it; waits for others who have it. `handle` is the
    /// caller's number of the open file that it is done by; see [`Client::take_lock_loss`] and
    /// [`Client::release_handle_locks`]. What it gives is to be kept, or the lock is taken back.
    ///
    /// Dropped before its end, the owner will hold what it held before: it is seen to in the background, also when the mgr is
    /// away. A restarted mgr lets everybody keep his place.
    ///
    /// # Errors
    /// `EDEADLK` who has it waits for this owner; `ENOLCK` too many locks; `EINVAL` the range ends before it begins.
    pub fn lock(&self, ino: Ino, handle: u64, request: LockRequest) -> Answer<'_, TakenLock> {
        Box::pin(self.core.lock(ino, handle, request))
    }

    /// As [`Client::lock`], but `None` where others have it.
    pub fn try_lock(&self, ino: Ino, handle: u64, request: LockRequest) -> Answer<'_, Option<TakenLock>> {
        Box::pin(self.core.try_lock(ino, handle, request))
    }

    /// Unlocks a range of `ino` for an owner. One that holds nothing sends nothing. Dropped, it is brought to its end in
    /// the background.
    pub fn unlock(&self, ino: Ino, owner: LockOwner, start: u64, end: u64) -> Answer<'_, ()> {
        Box::pin(self.core.unlock(ino, owner, start, end))
    }

    /// The first lock of another owner that `request` could not stand beside (`F_GETLK`).
    pub fn test_lock<'a>(&'a self, ino: Ino, request: &'a LockRequest) -> Answer<'a, Option<TestedLock>> {
        Box::pin(self.core.test_lock(ino, request))
    }

    /// Gives up all that an owner has locked of `ino`. One that holds nothing sends nothing. Dropped, it is brought to its
    /// end in the background.
    pub fn release_locks(&self, ino: Ino, owner: LockOwner) -> Answer<'_, ()> {
        Box::pin(self.core.release_locks(ino, owner))
    }

    /// The open file `handle` is closed: gives up what was locked by it last, by owners that have locked by no other since.
    pub fn release_handle_locks(&self, ino: Ino, handle: u64) -> Answer<'_, ()> {
        Box::pin(self.core.release_handle_locks(ino, handle))
    }

    /// Whether locks that were taken by `handle` went with a session that the mgr gave up; true once. What is done by it
    /// then must not be done as if they were held.
    pub fn take_lock_loss(&self, handle: u64) -> bool {
        self.core.locks.take_loss(handle)
    }
}

impl Core {
    pub async fn lock(self: &Arc<Self>, ino: Ino, handle: u64, request: LockRequest) -> Result<TakenLock> {
        self.call_patiently(Op::SetLock, Some(ino), self.lock_here(ino, handle, request)).await
    }

    /// As part of a call.
    pub async fn lock_here(
        self: &Arc<Self>,
        ino: Ino,
        handle: u64,
        request: LockRequest,
    ) -> Result<TakenLock> {
        let mut taking = Taking::begin(self, ino, handle, request);
        let mut news = self.locks.wait(taking.id);
        loop {
            news.mark_unchanged();
            if self.locks.begins_polling() {
                pvfs_env::task::spawn(Arc::clone(self).await_locks_task());
            }
            let set = taking.ask(true).await?;
            if set.outcome == LockOutcome::Granted {
                return taking.taken(set.entry).await;
            }
            // Its sender goes with this call.
            let _ = waiting_for(WaitsFor::Lock, news.changed()).await;
            let granted = news.borrow_and_update().granted;
            if granted.is_some_and(|session| taking.was_granted(session)) {
                return taking.taken(None).await;
            }
        }
    }

    pub async fn try_lock(
        self: &Arc<Self>,
        ino: Ino,
        handle: u64,
        request: LockRequest,
    ) -> Result<Option<TakenLock>> {
        let work = async {
            let mut taking = Taking::begin(self, ino, handle, request);
            let set = taking.ask(false).await?;
            if set.outcome == LockOutcome::Granted {
                return taking.taken(set.entry).await.map(Some);
            }
            taking.is_over = true;
            Ok(None)
        };
        self.call(Op::SetLock, Some(ino), work).await
    }

    pub async fn unlock(self: &Arc<Self>, ino: Ino, owner: LockOwner, start: u64, end: u64) -> Result<()> {
        let core = self;
        core.call(Op::SetLock, Some(ino), async {
            let Some(mut turn) = core.locks.turn((ino, owner), None) else { return Ok(()) };
            let (id, work) = (core.locks.next_id(), Arc::clone(core));
            core.finish(async move {
                turn.come().await;
                let make = |by| SetLock { by, ino, owner, id, start, end, mode: None, pid: 0, wait: false };
                estate::apart(work.mutate_here(&Cred::root(), make)).await?;
                work.locks.unlocked((ino, owner), start, end);
                Ok(())
            })
            .await
        })
        .await
    }

    pub async fn test_lock(self: &Arc<Self>, ino: Ino, request: &LockRequest) -> Result<Option<TestedLock>> {
        let core = self;
        core.call(Op::TestLock, Some(ino), async {
            let LockRequest { owner, start, end, mode, .. } = *request;
            let tested =
                core.ask(&Cred::root(), |caller| TestLock { caller, ino, owner, start, end, mode }).await?;
            let own = core.session.standing().id;
            Ok(tested.held.map(|HeldLock { session, range }| TestedLock { is_own: session == own, range }))
        })
        .await
    }

    pub async fn release_handle_locks(self: &Arc<Self>, ino: Ino, handle: u64) -> Result<()> {
        let mut result = Ok(());
        for owner in self.locks.owners_by(ino, handle) {
            result = result.and(self.release_locks(ino, owner).await);
        }
        self.locks.take_loss(handle);
        result
    }
}

/// A lock that is in somebody's way.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TestedLock {
    /// This client's: its pid is one of this machine.
    pub is_own: bool,
    pub range: LockRange,
}

/// A lock that is held. Dropped without [`TakenLock::keep`], it is taken back: nobody knows of it.
#[must_use]
pub struct TakenLock {
    entry: Entry,
    taking: Taking,
}

impl TakenLock {
    /// The file as it is now.
    pub fn entry(&self) -> &Entry {
        &self.entry
    }

    /// Whoever wanted it knows that he has it.
    pub fn keep(mut self) {
        self.taking.is_over = true;
    }
}

/// A lock on its way to be held. Dropped before it is, it is taken back.
struct Taking {
    core: Arc<Core>,
    key: Key,
    handle: u64,
    id: u64,
    range: LockRange,
    was_asked: bool,
    _use: Use,
    /// Nothing is to be taken back.
    is_over: bool,
}

impl Taking {
    fn begin(core: &Arc<Core>, ino: Ino, handle: u64, request: LockRequest) -> Taking {
        Taking {
            core: Arc::clone(core),
            key: (ino, request.owner),
            handle,
            // The same when the call comes again to a successor.
            id: estate::call_id().unwrap_or_else(|| core.locks.next_id()),
            range: request.range(),
            was_asked: false,
            _use: core.locks.begin_use((ino, request.owner), handle),
            is_over: false,
        }
    }

    /// Asks for it. What is refused is not to be taken back.
    async fn ask(&mut self, wait: bool) -> Result<LockSet> {
        self.was_asked = true;
        let turn = self.core.locks.turn(self.key, Some(self.handle));
        let asked = ask_in_turn(Arc::clone(&self.core), turn, (self.key, self.id, self.range, wait));
        let answer = self.core.bounded(Op::SetLock, self.core.finish(asked)).await;
        if matches!(answer, Err(ClientError::Refused { .. })) {
            self.is_over = true;
        }
        answer
    }

    /// The mgr has told that it was granted in `session`. False: that session is over.
    fn was_granted(&self, session: SessionId) -> bool {
        let is_present = || self.core.session.standing().id == session;
        self.core.locks.locked(self.key, self.range, is_present)
    }

    /// The lock is held: what others wrote under it before is to be seen from now on.
    async fn taken(self, entry: Option<Entry>) -> Result<TakenLock> {
        let ino = self.key.0;
        let entry = match entry {
            Some(entry) => entry,
            None => self.core.ask(&Cred::root(), |caller| GetAttr { caller, ino }).await?,
        };
        if let Some(inode) = self.core.inodes.find(ino) {
            inode.with(|state| {
                state.absorb_entry(&entry);
                if entry.has_writers {
                    state.outdated();
                }
            });
        }
        Ok(TakenLock { entry, taking: self })
    }
}

/// Asks in its turn, until it is sure which session answered.
async fn ask_in_turn(
    core: Arc<Core>,
    turn: Option<Turn>,
    (key, id, range, wait): (Key, u64, LockRange, bool),
) -> Result<LockSet> {
    let ((ino, owner), LockRange { start, end, mode, pid }) = (key, range);
    let mut turn = turn;
    if let Some(turn) = &mut turn {
        turn.come().await;
    }
    loop {
        let asked = AtomicU64::new(0);
        let make = |by: pvfs_wire::msg::session::Mutator| {
            asked.store(by.session.0, Ordering::Relaxed);
            SetLock { by, ino, owner, id, start, end, mode: Some(mode), pid, wait }
        };
        let set = estate::apart(core.mutate_here(&Cred::root(), make)).await?;
        if set.outcome != LockOutcome::Granted {
            return Ok(set);
        }
        let session = SessionId(asked.load(Ordering::Relaxed));
        if core.locks.locked(key, range, || core.session.standing().id == session) {
            return Ok(set);
        }
        // That session was given up meanwhile, and the lock with it.
    }
}

impl Drop for Taking {
    fn drop(&mut self) {
        self.core.locks.wait_over(self.id);
        if self.is_over || !self.was_asked {
            return;
        }
        // Now, so that whatever the owner does next comes after it.
        let turn = self.core.locks.turn(self.key, Some(self.handle));
        let Some(turn) = turn.filter(|_| tokio::runtime::Handle::try_current().is_ok()) else {
            return warn!(ino = %self.key.0, "dropped outside of the runtime: the lock stands until the file is closed");
        };
        let take_back = take_back(Arc::clone(&self.core), turn, (self.key, self.id, self.range));
        let (core, ino) = (Arc::clone(&self.core), self.key.0);
        pvfs_env::task::spawn(async move {
            if let Err(error) = core.finish(take_back).await {
                warn!(%ino, %error, "a lock that nobody waits for any more could not be taken back");
            }
        });
    }
}

async fn take_back(
    core: Arc<Core>,
    mut turn: Turn,
    ((ino, owner), id, range): (Key, u64, LockRange),
) -> Result<()> {
    turn.come().await;
    let LockRange { start, end, .. } = range;
    let make = |by| CancelLock { by, ino, owner, id, start, end };
    estate::apart(core.mutate_here(&Cred::root(), make)).await?;
    // What the table knows as locked may be too much by this; it is never too little.
    Ok(())
}

impl Core {
    /// Gives up all that an owner has locked of `ino`. Where the mgr's store does not take that, it is tried again in the
    /// background: nobody else would ever release them.
    pub async fn release_locks(self: &Arc<Self>, ino: Ino, owner: LockOwner) -> Result<()> {
        let Some(mut turn) = self.locks.turn((ino, owner), None) else { return Ok(()) };
        let work = Arc::clone(self);
        let release = self.finish(async move {
            turn.come().await;
            let released = work.release_locks_in_turn((ino, owner)).await;
            if released.as_ref().is_err_and(store_failed) {
                pvfs_env::task::spawn(async move { work.release_locks_later((ino, owner), turn).await });
            }
            released
        });
        self.call(Op::ReleaseLocks, Some(ino), release).await
    }

    async fn release_locks_in_turn(self: &Arc<Self>, (ino, owner): Key) -> Result<()> {
        let make = |by| ReleaseLocks { by, ino, owner };
        estate::apart(self.mutate_here(&Cred::root(), make)).await?;
        self.locks.unlocked((ino, owner), 0, u64::MAX);
        Ok(())
    }

    /// What the owner does next comes after `turn`.
    async fn release_locks_later(self: Arc<Self>, key: Key, turn: Turn) {
        let mut failed = 0;
        loop {
            tokio::time::sleep(pause_after(failed)).await;
            let work = Arc::clone(&self);
            match self.finish(async move { work.release_locks_in_turn(key).await }).await {
                Err(error) if store_failed(&error) => failed += 1,
                Err(error) => break warn!(ino = %key.0, %error, "locks stand until the session ends"),
                Ok(()) => break,
            }
        }
        drop(turn);
    }

    /// Asks the mgr for grants as long as somebody waits.
    async fn await_locks_task(self: Arc<Self>) {
        let mut closed = self.closed.subscribe();
        let work = async {
            let mut failed = 0;
            while let Some((mgr, seen)) = self.locks.next_poll() {
                let session = self.session.standing().id;
                match self.mgr.call(&AwaitLocks { session, mgr, seen }).await {
                    Ok(told) => {
                        failed = 0;
                        if self.session.standing().id == session {
                            self.locks.told(session, &told);
                        }
                    }
                    Err(refusal) => {
                        // A session that nobody needs is not opened anew: it may have been closed on purpose.
                        if self.locks.next_poll().is_none() {
                            return;
                        }
                        if let Err(error) = self.mend_poll(session, refusal).await {
                            warn!(%error, "the mgr does not tell of locks");
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

    async fn mend_poll(self: &Arc<Self>, session: SessionId, refusal: Refusal) -> Result<()> {
        match refusal.status {
            Status::SessionUnknown => self.renew_session(session).await,
            _ => Err(refused::<AwaitLocks>(refusal)),
        }
    }

    /// The session is gone: who held locks must not go on as if he did.
    pub fn locks_lost(&self) {
        let owners = self.locks.session_lost();
        if owners > 0 {
            warn!(
                owners,
                "locks are lost with the session; what is done next by their open files fails, once"
            );
        }
    }
}
