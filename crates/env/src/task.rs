//! Tasks as a seam: what a process spawns belongs to it, so that a simulator that runs several processes in one can
//! kill one of them at any await, and choose the order in which tasks run.
//!
//! Outside of a simulation there is one process, the real one, and [`spawn`] is `tokio::spawn`.

use crate::BoxFuture;
use std::{
    cell::RefCell,
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};
use tokio::task::{AbortHandle, JoinHandle, JoinSet};

/// A process among several in one. Its tasks are those that its tasks spawn.
pub trait Process: Send + Sync {
    /// Takes note of a task, to abort it when the process is killed.
    fn adopt(&self, task: AbortHandle);

    /// Is asked before each turn of each task.
    fn turn(&self) -> Turn;
}

/// What a task may do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    Run,
    /// Others first: the task is queued again.
    Yield,
    /// The process is dead: what the task holds is dropped, and it never ends.
    Dead,
}

thread_local! {
    static CURRENT: RefCell<Option<Arc<dyn Process>>> = const { RefCell::new(None) };
}

/// Spawns a task of the current process.
pub fn spawn<T: Send + 'static>(future: impl Future<Output = T> + Send + 'static) -> JoinHandle<T> {
    spawn_boxed(current(), Box::pin(future))
}

/// As [`spawn`], for a task that ends with `set`.
pub fn spawn_in<T: Send + 'static>(set: &mut JoinSet<T>, future: impl Future<Output = T> + Send + 'static) {
    let future: BoxFuture<'static, T> = Box::pin(future);
    match current() {
        None => set.spawn(future),
        Some(process) => set.spawn(Member { process, future: Some(future) }),
    };
}

/// Spawns a task of `process`: its first one, say.
pub fn spawn_as<T: Send + 'static>(
    process: Arc<dyn Process>,
    future: impl Future<Output = T> + Send + 'static,
) -> JoinHandle<T> {
    spawn_boxed(Some(process), Box::pin(future))
}

/// Of one type for all futures: what makes a task of one is compiled once for each kind of output, not for each future.
fn spawn_boxed<T: Send + 'static>(
    process: Option<Arc<dyn Process>>,
    future: BoxFuture<'static, T>,
) -> JoinHandle<T> {
    let Some(process) = process else { return tokio::spawn(future) };
    let task = tokio::spawn(Member { process: Arc::clone(&process), future: Some(future) });
    process.adopt(task.abort_handle());
    task
}

/// Runs `work` where this is awaited, and to its end also when this is dropped before: the rest is a task of the process then.
/// (Dropped outside of a runtime, it ends there.)
pub fn to_the_end<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> impl Future<Output = T> + Send {
    ToTheEnd { process: current(), work: Some(Box::pin(work)) }
}

struct ToTheEnd<T: Send + 'static> {
    process: Option<Arc<dyn Process>>,
    /// `None`: it has ended.
    work: Option<BoxFuture<'static, T>>,
}

impl<T: Send + 'static> Future for ToTheEnd<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        // Taken out, so that what panics does not go on.
        let Some(mut work) = self.work.take() else { return Poll::Pending };
        let polled = work.as_mut().poll(cx);
        if polled.is_pending() {
            self.work = Some(work);
        }
        polled
    }
}

impl<T: Send + 'static> Drop for ToTheEnd<T> {
    fn drop(&mut self) {
        let Some(work) = self.work.take() else { return };
        let process = self.process.take();
        if process.is_some() || tokio::runtime::Handle::try_current().is_ok() {
            drop(spawn_boxed(process, work));
        }
    }
}

fn current() -> Option<Arc<dyn Process>> {
    CURRENT.with_borrow(Clone::clone)
}

/// A task's future, and whose it is.
struct Member<T> {
    process: Arc<dyn Process>,
    /// `None`: it was dropped with its process.
    future: Option<BoxFuture<'static, T>>,
}

impl<T> Future for Member<T> {
    type Output = T;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<T> {
        match self.process.turn() {
            Turn::Run => {
                let _inside = Inside::enter(&self.process);
                self.future.as_mut().map_or(Poll::Pending, |future| future.as_mut().poll(cx))
            }
            Turn::Yield => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
            Turn::Dead => {
                self.drop_future();
                Poll::Pending
            }
        }
    }
}

impl<T> Member<T> {
    /// What is dropped may spawn; that belongs to the process too.
    fn drop_future(&mut self) {
        let _inside = Inside::enter(&self.process);
        self.future = None;
    }
}

impl<T> Drop for Member<T> {
    fn drop(&mut self) {
        self.drop_future();
    }
}

/// While it lives, the thread works for a process.
struct Inside {
    before: Option<Arc<dyn Process>>,
}

impl Inside {
    fn enter(process: &Arc<dyn Process>) -> Inside {
        Inside { before: CURRENT.replace(Some(Arc::clone(process))) }
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        CURRENT.set(self.before.take());
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::{
        Mutex,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    };

    #[derive(Default)]
    struct Mortal {
        dead: AtomicBool,
        tasks: Mutex<Vec<AbortHandle>>,
    }

    impl Process for Mortal {
        fn adopt(&self, task: AbortHandle) {
            self.tasks.lock().unwrap().push(task);
        }

        fn turn(&self) -> Turn {
            if self.dead.load(Ordering::SeqCst) { Turn::Dead } else { Turn::Run }
        }
    }

    struct CountDrop(Arc<AtomicUsize>);

    impl Drop for CountDrop {
        fn drop(&mut self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[tokio::test]
    async fn a_killed_process_takes_along_what_its_tasks_spawned() {
        let process = Arc::new(Mortal::default());
        let (dropped, ran_late) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::new(false)));
        let (held, late) = (Arc::clone(&dropped), Arc::clone(&ran_late));
        spawn_as(Arc::clone(&process) as _, async move {
            let inner = CountDrop(Arc::clone(&held));
            spawn(async move {
                let _inner = inner;
                tokio::task::yield_now().await;
                std::future::pending::<()>().await;
            });
            let mut set = JoinSet::new();
            let member = CountDrop(held);
            spawn_in(&mut set, async move {
                let _member = member;
                spawn(async move {
                    tokio::time::sleep(std::time::Duration::from_millis(1)).await;
                    late.store(true, Ordering::SeqCst);
                });
                std::future::pending::<()>().await;
            });
            set.join_next().await;
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert_eq!(process.tasks.lock().unwrap().len(), 3, "those of the set end with it");
        process.dead.store(true, Ordering::SeqCst);
        process.tasks.lock().unwrap().iter().for_each(AbortHandle::abort);
        tokio::time::sleep(std::time::Duration::from_millis(5)).await;
        assert_eq!(dropped.load(Ordering::SeqCst), 2);
        assert!(!ran_late.load(Ordering::SeqCst));
        let outside = spawn(async { 7 });
        assert_eq!(outside.await.expect("ends"), 7);
        assert_eq!(process.tasks.lock().unwrap().len(), 3, "the test itself is not of the process");
    }

    #[tokio::test]
    async fn what_is_to_come_to_its_end_does_so_wherever_its_caller_drops_it() {
        let (go, going) = tokio::sync::oneshot::channel::<u8>();
        let (tell, told) = tokio::sync::oneshot::channel();
        let work = to_the_end(async move {
            let number = going.await.expect("the test says go");
            tell.send(number).expect("the test waits");
        });
        // Polled once, and dropped.
        assert!(tokio::time::timeout(std::time::Duration::ZERO, work).await.is_err());
        go.send(7).expect("it goes on");
        assert_eq!(told.await, Ok(7));
        assert_eq!(to_the_end(async { 8 }).await, 8);
    }
}
