//! Who waits for what: every call of this client, by whom, on which file, since when, for which daemons. And how long a
//! call may wait, where the user set a bound.
//!
//! A call within a call (an append's write) is part of the outer one. What runs on in the background after its caller
//! gave up is no call any more.

use crate::{
    ClientError,
    client::Core,
    error::{Answer, Result},
};
use futures_util::{FutureExt as _, future::Either};
use pvfs_types::{Ino, TargetId};
use pvfs_wire::Op;
use std::{
    collections::BTreeMap,
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

tokio::task_local! {
    static ASKER: u32;
    static CALL: Arc<Call>;
}

/// Does `work` in the name of process `pid`, which [`crate::Client::status`] then names as the one that waits.
pub async fn asked_by<F: Future>(pid: u32, work: F) -> F::Output {
    ASKER.scope(pid, work).await
}

/// Whom a call waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum WaitsFor {
    Mgr,
    Target(TargetId),
    /// Whoever holds a lock.
    Lock,
}

/// A call that has not ended.
#[derive(Debug)]
pub(crate) struct Call {
    pub op: Op,
    pub ino: Option<Ino>,
    pub pid: Option<u32>,
    pub since: Instant,
    on: Mutex<Vec<WaitsFor>>,
}

impl Call {
    fn with<T>(&self, act: impl FnOnce(&mut Vec<WaitsFor>) -> T) -> T {
        act(&mut self.on.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The daemons asked and not heard now.
    pub fn waits_for(&self) -> Vec<WaitsFor> {
        let mut on = self.with(|on| on.clone());
        on.sort_unstable();
        on.dedup();
        on
    }
}

/// All calls that wait for something, those first that have waited longest.
#[derive(Debug, Default)]
pub(crate) struct Waits {
    calls: Mutex<BTreeMap<u64, Arc<Call>>>,
    next: AtomicU64,
}

impl Waits {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<u64, Arc<Call>>) -> T) -> T {
        act(&mut self.calls.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Does `work` as a call, which is in the table from when it first has to wait.
    async fn enter<F: Future>(&self, op: Op, ino: Option<Ino>, work: F) -> F::Output {
        let pid = ASKER.try_with(|pid| *pid).ok().filter(|&pid| pid != 0);
        let call = Arc::new(Call { op, ino, pid, since: Instant::now(), on: Mutex::default() });
        let mut work = pin!(CALL.scope(Arc::clone(&call), work));
        let mut entered = None;
        poll_fn(|cx| {
            let polled = work.as_mut().poll(cx);
            if polled.is_pending() {
                entered.get_or_insert_with(|| self.insert(&call));
            }
            polled
        })
        .await
    }

    fn insert(&self, call: &Arc<Call>) -> Entered<'_> {
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        self.with(|calls| calls.insert(number, Arc::clone(call)));
        Entered { waits: self, number }
    }

    /// Those under way for at least `since`.
    pub fn since(&self, since: Duration) -> Vec<Arc<Call>> {
        let is_old = |call: &&Arc<Call>| call.since.elapsed() >= since;
        self.with(|calls| calls.values().filter(is_old).cloned().collect())
    }
}

/// A call while it is in the table.
struct Entered<'a> {
    waits: &'a Waits,
    number: u64,
}

impl Drop for Entered<'_> {
    fn drop(&mut self) {
        self.waits.with(|calls| calls.remove(&self.number));
    }
}

impl Core {
    /// Does `work` as one call, seen by [`crate::Client::status`], within the user's bound.
    ///
    /// # Errors
    /// [`ClientError::TimedOut`] the bound is reached. A change is then brought to its end in the background, under the
    /// same number; other work has been given up.
    pub fn call<'a, T: Send + 'a>(
        &'a self,
        op: Op,
        ino: Option<Ino>,
        work: impl Future<Output = Result<T>> + Send + 'a,
    ) -> Answer<'a, T> {
        let work: Answer<'a, T> = Box::pin(work);
        Box::pin(async move {
            if CALL.try_with(|_| ()).is_ok() {
                return work.await;
            }
            within(op, self.timeo, self.waits.enter(op, ino, work)).await
        })
    }

    /// As [`Core::call`], but it may last for ever: what it waits for is other clients. Its questions to servers are
    /// [`Core::bounded`].
    pub fn call_patiently<T>(
        &self,
        op: Op,
        ino: Option<Ino>,
        work: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        self.waits.enter(op, ino, work)
    }

    /// Bounds a part of a patient call as the user wants it.
    pub fn bounded<T>(
        &self,
        op: Op,
        work: impl Future<Output = Result<T>>,
    ) -> impl Future<Output = Result<T>> {
        within(op, self.timeo, work)
    }
}

fn within<T>(
    op: Op,
    timeo: Option<Duration>,
    work: impl Future<Output = Result<T>>,
) -> impl Future<Output = Result<T>> {
    match timeo {
        None => Either::Left(work),
        Some(after) => {
            let bounded = tokio::time::timeout(after, work);
            Either::Right(bounded.map(move |done| done.unwrap_or(Err(ClientError::TimedOut { op, after }))))
        }
    }
}

/// `work` as part of the call that this is part of, also where it runs as a task of its own.
pub(crate) fn inherited<F: Future>(work: F) -> impl Future<Output = F::Output> {
    let call = CALL.try_with(Arc::clone).ok();
    async move {
        match call {
            Some(call) => CALL.scope(call, work).await,
            None => work.await,
        }
    }
}

/// Notes, while `work` runs, that this call waits for `server`.
pub(crate) async fn waiting_for<F: Future>(server: WaitsFor, work: F) -> F::Output {
    let _noted = CALL.try_with(Arc::clone).ok().map(|call| Noted::new(call, server));
    work.await
}

struct Noted {
    call: Arc<Call>,
    server: WaitsFor,
}

impl Noted {
    fn new(call: Arc<Call>, server: WaitsFor) -> Noted {
        call.with(|on| on.push(server));
        Noted { call, server }
    }
}

impl Drop for Noted {
    fn drop(&mut self) {
        self.call.with(|on| {
            if let Some(place) = on.iter().position(|server| *server == self.server) {
                on.swap_remove(place);
            }
        });
    }
}
