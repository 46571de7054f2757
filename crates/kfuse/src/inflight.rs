//! Requests that were read and have no answer yet, so that each gets exactly one: from its job, or from the interrupt that
//! ended the job.

use crate::{abi::UNIQUE_RESENT, job::Job, way::Way};
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tracing::debug;

/// The requests at work, by `unique`, without the mark of those that came again.
#[derive(Default)]
pub(crate) struct InFlight(Mutex<HashMap<u64, Noted>>);

struct Noted {
    job: Arc<Job>,
    caller: Caller,
    way: Way,
}

/// Who waits for a request's answer.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Caller {
    /// The thread; 0: none that can be seen from here.
    pub pid: u32,
    /// It waits for others to unlock, and any signal ends that (fcntl(2)).
    pub wants_lock: bool,
}

impl InFlight {
    fn with<T>(&self, act: impl FnOnce(&mut HashMap<u64, Noted>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn add(&self, unique: u64, caller: Caller, job: &Arc<Job>, way: Way) {
        self.with(|jobs| jobs.insert(number(unique), Noted { job: Arc::clone(job), caller, way }));
    }

    pub fn find_caller(&self, unique: u64) -> Option<Caller> {
        self.with(|jobs| jobs.get(&number(unique)).map(|noted| noted.caller))
    }

    pub fn contains(&self, unique: u64) -> bool {
        self.with(|jobs| jobs.contains_key(&number(unique)))
    }

    /// Takes a request off. Whoever gets it has to answer it.
    pub fn take(&self, unique: u64) -> Option<(Arc<Job>, Way)> {
        self.with(|jobs| jobs.remove(&number(unique))).map(|noted| (noted.job, noted.way))
    }

    /// All that are left, for good.
    pub fn take_all(&self) -> Vec<Arc<Job>> {
        self.with(|jobs| jobs.drain().map(|(_, noted)| noted.job).collect())
    }

    /// Of all, without the mark of those that came again.
    pub fn numbers(&self) -> Vec<u64> {
        self.with(|jobs| jobs.keys().copied().collect())
    }

    pub fn len(&self) -> usize {
        self.with(|jobs| jobs.len())
    }
}

/// A request over a ring that comes again is interrupted by its first name.
fn number(unique: u64) -> u64 {
    unique & !UNIQUE_RESENT
}

/// The right, and the duty, to answer one request. Dropped without an answer, it answers with `EIO`.
#[must_use]
pub struct Reply {
    unique: u64,
    in_flight: Arc<InFlight>,
    open: bool,
}

impl Reply {
    pub(crate) fn new(unique: u64, in_flight: &Arc<InFlight>) -> Reply {
        Reply { unique, in_flight: Arc::clone(in_flight), open: true }
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
        let Some((_, way)) = self.in_flight.take(self.unique) else {
            // It was interrupted, and answered so.
            return false;
        };
        match way.answer(self.unique, answer) {
            Ok(()) => true,
            Err(error) => {
                debug!(unique = self.unique, %error, "the kernel did not take an answer");
                false
            }
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.open {
            self.send(Err(rustix::io::Errno::IO.raw_os_error()));
        }
    }
}
