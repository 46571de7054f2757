//! Wall clocks: simulated time plus each machine's error, which may jump.

use pvfs_env::Clock;
use std::{
    sync::{
        Arc,
        atomic::{AtomicI64, Ordering},
    },
    time::{Duration, SystemTime},
};
use tokio::time::Instant;

/// What the wall clocks of right machines show when a run begins.
const EPOCH: Duration = Duration::from_hours(500_000);

/// A machine's wall clock. Clones are the same one.
#[derive(Clone)]
pub struct SimClock {
    start: Instant,
    error_ms: Arc<AtomicI64>,
}

impl SimClock {
    /// A clock that is `error_ms` fast.
    pub fn new(start: Instant, error_ms: i64) -> SimClock {
        SimClock { start, error_ms: Arc::new(AtomicI64::new(error_ms)) }
    }

    /// From now on it is `error_ms` fast.
    pub fn jump(&self, error_ms: i64) {
        self.error_ms.store(error_ms, Ordering::Relaxed);
    }
}

impl Clock for SimClock {
    fn wall(&self) -> SystemTime {
        let error_ms = self.error_ms.load(Ordering::Relaxed);
        let error = Duration::from_millis(error_ms.unsigned_abs());
        let right = EPOCH + self.start.elapsed();
        SystemTime::UNIX_EPOCH + if error_ms < 0 { right.saturating_sub(error) } else { right + error }
    }
}
