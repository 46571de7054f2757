//! Requests that were read and have no answer yet, so that each gets exactly one: from its job, or from the interrupt that
//! ended the job. Those that are answered at once are in no table.

use crate::{abi::UNIQUE_RESENT, job::Job, way::Way};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::debug;

/// The requests at work that have to wait, by `unique`, without the mark of those that came again.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashMap<u64, Arc<Asked>>>);

/// A request at work.
pub(crate) struct Asked {
    unique: u64,
    pub caller: Caller,
    pub job: Arc<Job>,
    answer: Mutex<Answer>,
}

struct Answer {
    /// By which it goes; `None`: it has gone.
    way: Option<Way>,
    /// The request is in [`InFlight`].
    noted: bool,
}

/// Who waits for a request's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The thread; 0: none that can be seen from here.
    pub pid: u32,
    /// It waits for others to unlock, and any signal ends that (fcntl(2)).
    pub wants_lock: bool,
}

impl Asked {
    pub fn new(unique: u64, caller: Caller, job: Arc<Job>, way: Way) -> Arc<Asked> {
        let answer = Mutex::new(Answer { way: Some(way), noted: false });
        Arc::new(Asked { unique, caller, job, answer })
    }

    fn with<T>(&self, act: impl FnOnce(&mut Answer) -> T) -> T {
        act(&mut self.answer.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl InFlight {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u64, Arc<Asked>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Notes a request that was not answered at once.
    pub fn add(&self, asked: &Arc<Asked>) {
        self.with(|all| {
            let waits = asked.with(|answer| {
                answer.noted = answer.way.is_some();
                answer.noted
            });
            if waits {
                all.insert(number(asked.unique), Arc::clone(asked));
            }
        });
    }

    /// Takes a request off. Whoever gets its way has to answer it; `None`: somebody else has.
    pub fn take(&self, asked: &Asked) -> Option<Way> {
        let (way, noted) = asked.with(|answer| (answer.way.take(), answer.noted));
        if noted {
            self.with(|all| all.remove(&number(asked.unique)));
        }
        way
    }

    pub fn find(&self, unique: u64) -> Option<Arc<Asked>> {
        self.with(|all| all.get(&number(unique)).cloned())
    }

    /// All that are left, for good.
    pub fn take_all(&self) -> Vec<Arc<Job>> {
        self.with(|all| all.drain().map(|(_, asked)| Arc::clone(&asked.job)).collect())
    }

    /// Of all, without the mark of those that came again.
    pub fn numbers(&self) -> Vec<u64> {
        self.with(|all| all.keys().copied().collect())
    }

    pub fn len(&self) -> usize {
        self.with(|all| all.len())
    }
}

/// A request over a ring that comes again is interrupted by its first name.
fn number(unique: u64) -> u64 {
    unique & !UNIQUE_RESENT
}

/// The right, and the duty, to answer one request. Dropped without an answer, it answers with `EIO`.
#[must_use]
pub struct Reply {
    asked: Arc<Asked>,
    in_flight: Arc<InFlight>,
    open: bool,
}

impl Reply {
    pub(crate) fn new(asked: Arc<Asked>, in_flight: &Arc<InFlight>) -> Reply {
        Reply { asked, in_flight: Arc::clone(in_flight), open: true }
    }

    /// Answers with `parts`, one after the other. False: nobody waits any more, and the kernel knows nothing of what it
    /// would have been given (a handle, say).
    pub fn ok(mut self, parts: &[&[u8]]) -> bool {
        self.send(Ok(parts))
    }

    /// Answers with a (positive) errno.
    pub fn error(mut self, errno: i32) {
        self.send(Err(errno));
    }

    fn send(&mut self, answer: Result<&[&[u8]], i32>) -> bool {
        self.open = false;
        let Some(way) = self.in_flight.take(&self.asked) else {
            // It was interrupted, and answered so.
            return false;
        };
        let sent = way.answer(self.asked.unique, answer);
        sent.inspect_err(|error| debug!(self.asked.unique, %error, "the kernel did not take an answer"))
            .is_ok()
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.open {
            self.send(Err(rustix::io::Errno::IO.raw_os_error()));
        }
    }
}
