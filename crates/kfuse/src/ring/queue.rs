//! Answers on their way to the thread that hands a queue's entries to the kernel.

use super::area::Held;
use rustix::event::{EventfdFlags, eventfd};
use std::{
    io,
    os::fd::OwnedFd,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicU32, Ordering},
    },
};

/// What those who answer share with a ring's thread.
pub(crate) struct Queue {
    ready: Mutex<Ready>,
    /// Wakes the thread.
    bell: OwnedFd,
    /// The thread whose calls only serve to have the kernel send a request; 0: none.
    caller: AtomicU32,
}

#[derive(Default)]
struct Ready {
    answered: Vec<Held>,
    /// The thread has seen all there is, and waits, or is about to.
    asleep: bool,
}

impl Queue {
    pub fn new() -> io::Result<Queue> {
        let bell = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)?;
        Ok(Queue { ready: Mutex::default(), bell, caller: AtomicU32::new(0) })
    }

    pub fn bell(&self) -> &OwnedFd {
        &self.bell
    }

    /// Answers the request in `held`.
    pub fn answer(&self, mut held: Held, answer: Result<&[&[u8]], i32>) {
        held.write(answer);
        let wake = self.with(|ready| {
            ready.answered.push(held);
            std::mem::take(&mut ready.asleep)
        });
        if wake {
            // It counts up only, and not so far as to be full.
            let _ = rustix::io::write(&self.bell, &1_u64.to_ne_bytes());
        }
    }

    pub fn set_caller(&self, thread: u32) {
        self.caller.store(thread, Ordering::SeqCst);
    }

    pub fn is_caller(&self, thread: u32) -> bool {
        thread != 0 && self.caller.load(Ordering::SeqCst) == thread
    }

    /// Moves what is answered to `to`; whoever answers from now on rings the bell.
    pub fn rest(&self, to: &mut Vec<Held>) {
        self.with(|ready| {
            ready.asleep = true;
            to.append(&mut ready.answered);
        });
    }

    /// The thread looks again before it rests: no bell.
    pub fn awake(&self) {
        self.with(|ready| ready.asleep = false);
    }

    fn with<T>(&self, act: impl FnOnce(&mut Ready) -> T) -> T {
        act(&mut self.ready.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
