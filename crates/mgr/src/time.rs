//! The mgr's time, in which leases end: milliseconds that never go back, not even over a restart.
//!
//! It starts at the later of the wall clock and the stored high-water, and runs with the monotonic clock. The
//! high-water is stored ahead of it; the time never passes what is stored, it stands still before it does.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};
use tokio::time::Instant;

/// How far ahead the high-water is stored.
pub const AHEAD_MS: u64 = 60_000;
/// When less than this is left of it, the next one is stored.
pub const MARGIN_MS: u64 = 10_000;

const FOR_EVER: Duration = Duration::from_hours(100 * 365 * 24);

#[derive(Debug)]
pub struct MgrTime {
    base_ms: u64,
    started: Instant,
    high_water_ms: AtomicU64,
}

impl MgrTime {
    /// The time of a mgr that starts now. It stands still until [`MgrTime::stored`] is told of a later high-water.
    pub fn start(wall_ms: u64, stored_ms: u64) -> MgrTime {
        MgrTime {
            base_ms: wall_ms.max(stored_ms),
            started: Instant::now(),
            high_water_ms: AtomicU64::new(wall_ms.max(stored_ms)),
        }
    }

    /// When this mgr started, in its own time. Whatever an earlier mgr dated in its past ended before it.
    pub fn start_ms(&self) -> u64 {
        self.base_ms
    }

    pub fn now_ms(&self) -> u64 {
        let elapsed_ms = u64::try_from(self.started.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.base_ms.saturating_add(elapsed_ms).min(self.high_water_ms.load(Ordering::Acquire))
    }

    /// `until_ms` as a point of the monotonic clock.
    pub fn instant(&self, until_ms: u64) -> Instant {
        let since_start = Duration::from_millis(until_ms.saturating_sub(self.base_ms));
        self.started.checked_add(since_start).unwrap_or(self.started + FOR_EVER)
    }

    /// The high-water to store next, and when to do it.
    pub fn next_high_water(&self) -> (u64, Instant) {
        let stored_ms = self.high_water_ms.load(Ordering::Acquire);
        (stored_ms.saturating_add(AHEAD_MS - MARGIN_MS), self.instant(stored_ms.saturating_sub(MARGIN_MS)))
    }

    /// The store now holds `high_water_ms`.
    pub fn stored(&self, high_water_ms: u64) {
        self.high_water_ms.fetch_max(high_water_ms, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn time_never_passes_what_is_stored() {
        let time = MgrTime::start(1_000_000, 0);
        assert_eq!(time.now_ms(), 1_000_000);
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(time.now_ms(), 1_000_000, "nothing is stored yet");
        time.stored(1_060_000);
        assert_eq!(time.now_ms(), 1_005_000);
        assert_eq!(time.next_high_water(), (1_110_000, time.instant(1_050_000)));
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_eq!(time.now_ms(), 1_060_000, "it stands still");
    }

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_over_a_restart_with_a_wall_clock_set_back() {
        assert_eq!(MgrTime::start(500, 1_060_000).now_ms(), 1_060_000);
    }
}
