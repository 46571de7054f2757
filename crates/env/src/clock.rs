//! The wall clock as a seam. Durations and time-outs go through `tokio::time`, which a simulator can pause.

use std::time::SystemTime;

/// Tells the wall clock's time. It may jump; nothing but file times and the mgr's time base may depend on it.
pub trait Clock: Send + Sync {
    fn wall(&self) -> SystemTime;
}

/// The machine's own clock.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}
