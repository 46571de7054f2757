//! A request at work: polled at once where it was read, and moved to the runtime only if it has to wait and is woken.
//!
//! So a request that can be answered at once costs no change of threads, and one that waits for a server costs one: to the
//! thread that has the server's answer.

use std::{
    future::Future,
    mem,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll, Wake, Waker},
};
use tokio::{runtime::Handle, task::AbortHandle};

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// A request's work, until it is done or given up.
pub(crate) struct Job {
    runtime: Handle,
    state: Mutex<State>,
}

enum State {
    /// Under its first poll.
    Begun,
    /// Woken during its first poll.
    Woken,
    /// It waits, and is woken through this job.
    Parked(Work),
    /// A task of the runtime.
    Moved(AbortHandle),
    /// Done or given up.
    Over,
}

impl Job {
    pub fn new(runtime: Handle) -> Arc<Job> {
        Arc::new(Job { runtime, state: Mutex::new(State::Begun) })
    }

    /// Polls `work` for the first time, here; if it has to wait, calls `waits` before anybody else goes on with it. The caller is
    /// in the context of the runtime.
    pub fn begin(self: &Arc<Self>, work: impl Future<Output = ()> + Send + 'static, waits: impl FnOnce()) {
        let mut work: Work = Box::pin(work);
        let waker = Waker::from(Arc::clone(self));
        if work.as_mut().poll(&mut Context::from_waker(&waker)) == Poll::Ready(()) {
            self.with(|state| *state = State::Over);
            return;
        }
        waits();
        let given_up = self.with(|state| match state {
            State::Begun => {
                *state = State::Parked(work);
                None
            }
            State::Woken => {
                *state = State::Moved(self.runtime.spawn(work).abort_handle());
                None
            }
            State::Parked(_) | State::Moved(_) | State::Over => Some(work),
        });
        // Its destructors may wake or cancel: not under the lock.
        drop(given_up);
    }

    /// Drops the work where it stands; does nothing to one that is done.
    pub fn give_up(&self) {
        match self.with(|state| mem::replace(state, State::Over)) {
            State::Moved(task) => task.abort(),
            State::Parked(work) => drop(work),
            State::Begun | State::Woken | State::Over => {}
        }
    }

    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Wake for Job {
    fn wake(self: Arc<Self>) {
        self.with(|state| match mem::replace(state, State::Over) {
            State::Begun | State::Woken => *state = State::Woken,
            State::Parked(work) => *state = State::Moved(self.runtime.spawn(work).abort_handle()),
            // A waker of the first poll that is late: the task has its own by now.
            moved @ State::Moved(_) => *state = moved,
            State::Over => {}
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use tokio::sync::{oneshot, watch};

    /// Counts up when dropped.
    struct Dropped(Arc<AtomicUsize>);

    impl Drop for Dropped {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    fn job() -> Arc<Job> {
        Job::new(Handle::current())
    }

    fn begin(job: &Arc<Job>, work: impl Future<Output = ()> + Send + 'static) {
        job.begin(work, || {});
    }

    #[tokio::test]
    async fn what_need_not_wait_is_done_at_once() {
        let (tell, mut told) = oneshot::channel();
        begin(&job(), async move { tell.send(std::thread::current().id()).expect("the test waits") });
        assert_eq!(told.try_recv(), Ok(std::thread::current().id()));
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_waits_goes_on_when_it_is_woken_however_often_and_whenever() {
        for round in 0..2000_usize {
            let (change, mut changes) = watch::channel(0);
            let (tell, told) = oneshot::channel();
            let waking = tokio::spawn(async move {
                for n in 1..=3 {
                    if round % 3 == 0 {
                        tokio::task::yield_now().await;
                    }
                    change.send(n).ok();
                }
                change
            });
            begin(&job(), async move {
                changes.wait_for(|n| *n == 3).await.expect("the sender lives");
                tokio::task::yield_now().await;
                tell.send(round).expect("the test waits");
            });
            assert_eq!(told.await, Ok(round));
            drop(waking.await);
        }
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn what_is_given_up_is_dropped_wherever_it_stands() {
        let drops = Arc::new(AtomicUsize::new(0));
        let waiting = |until: watch::Receiver<bool>| {
            let (mut until, dropped) = (until, Dropped(drops.clone()));
            async move {
                until.wait_for(|go| *go).await.ok();
                std::future::pending::<()>().await;
                drop(dropped);
            }
        };
        let (go, until) = watch::channel(false);
        let parked = job();
        begin(&parked, waiting(until.clone()));
        parked.give_up();
        assert_eq!(drops.load(Ordering::SeqCst), 1);
        let moved = job();
        begin(&moved, waiting(until));
        go.send_replace(true);
        moved.give_up();
        while drops.load(Ordering::SeqCst) < 2 {
            tokio::task::yield_now().await;
        }
        let early = job();
        early.give_up();
        begin(&early, waiting(go.subscribe()));
        assert_eq!(drops.load(Ordering::SeqCst), 3);
    }
}
