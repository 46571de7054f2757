//! Files that were closed with nothing to report: their writer records end in the background, many in one message.
//!
//! A create without a write is so one message, not two. The price: for a moment longer, others that ask for such a
//! file's size ask the targets too.
//!
//! A file that is opened for writing again must not lose its new record to the old one's end. So an open of a file
//! whose end is on its way waits for that, and a file that has write handles when the message is made is left out (its
//! next close brings it back). A create does not know which file it opens; it looks afterwards (`Crossings`).

use crate::{client::Core, error::Result};
use pvfs_types::{Cred, Ino, limits::END_WRITES_MAX};
use pvfs_wire::msg::file::EndWrites;
use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::sync::{Notify, watch};
use tracing::warn;

/// How long the first of a message's files waits for more.
const GATHER: Duration = Duration::from_millis(20);

/// The files whose writer records are to end.
#[derive(Default)]
pub(crate) struct Ends {
    state: Mutex<State>,
    queued: Notify,
    /// Counts messages that were answered.
    done: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    queue: BTreeSet<Ino>,
    in_flight: BTreeSet<Ino>,
}

impl Ends {
    fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// `ino` has no write handle any more, and nothing to report.
    pub fn add(&self, ino: Ino) {
        self.with(|state| state.queue.insert(ino));
        self.queued.notify_one();
    }

    /// `ino` is about to be opened for writing, and counted as that: its queued end is taken back, one on its way is
    /// waited for.
    pub async fn take_back(&self, ino: Ino) {
        let mut done = self.done.subscribe();
        loop {
            done.borrow_and_update();
            let on_its_way = self.with(|state| {
                state.queue.remove(&ino);
                state.in_flight.contains(&ino)
            });
            if !on_its_way || done.changed().await.is_err() {
                return;
            }
        }
    }

    /// The files of the next message: those that `is_written` does not hold back.
    fn begin(&self, is_written: impl Fn(Ino) -> bool) -> Vec<Ino> {
        self.with(|state| {
            state.queue.retain(|&ino| !is_written(ino));
            let inos: Vec<Ino> = state.queue.iter().copied().take(END_WRITES_MAX).collect();
            for ino in &inos {
                state.queue.remove(ino);
            }
            state.in_flight.extend(&inos);
            inos
        })
    }

    fn end(&self) {
        self.with(|state| state.in_flight.clear());
        self.done.send_modify(|n| *n += 1);
    }
}

impl Core {
    /// Sends what is queued, until the client is closed. (The end of the session ends what is still queued then.)
    pub async fn ends_task(self: Arc<Self>) {
        let mut closed = self.closed.subscribe();
        let work = async {
            loop {
                self.ends.queued.notified().await;
                tokio::time::sleep(GATHER).await;
                while let Some(sent) = self.send_ends().await {
                    if let Err(error) = sent {
                        warn!(%error, "files closed without writing count as written until the session ends");
                    }
                }
            }
        };
        tokio::select! {
            biased;
            _ = closed.wait_for(|closed| *closed) => {}
            () = work => {}
        }
    }

    /// Sends one message; `None`: there is nothing to say.
    async fn send_ends(self: &Arc<Self>) -> Option<Result<()>> {
        let is_written =
            |ino| self.inodes.find(ino).is_some_and(|inode| inode.with(|state| state.writes_open > 0));
        self.closes.begin();
        let inos = self.ends.begin(is_written);
        let sent = if inos.is_empty() {
            None
        } else {
            let make = move |by| EndWrites { by, inos: inos.clone() };
            Some(self.mutate_here(&Cred::root(), make).await.map(|_| ()))
        };
        self.ends.end();
        self.closes.end();
        sent
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_with_write_handles_are_left_out() {
        let ends = Ends::default();
        ends.add(Ino(2));
        ends.add(Ino(3));
        assert_eq!(ends.begin(|ino| ino == Ino(2)), [Ino(3)]);
        ends.end();
        assert_eq!(ends.begin(|_| false), [], "its next close brings the other back");
    }

    #[tokio::test]
    async fn an_open_takes_back_a_queued_end_and_waits_for_one_on_its_way() {
        let ends = Arc::new(Ends::default());
        ends.add(Ino(2));
        ends.take_back(Ino(2)).await;
        assert_eq!(ends.begin(|_| false), []);
        ends.end();

        ends.add(Ino(2));
        assert_eq!(ends.begin(|_| false), [Ino(2)]);
        let opening = tokio::spawn({
            let ends = Arc::clone(&ends);
            async move { ends.take_back(Ino(2)).await }
        });
        for _ in 0..10 {
            tokio::task::yield_now().await;
        }
        assert!(!opening.is_finished());
        ends.end();
        opening.await.expect("goes on once the end was answered");
    }
}
