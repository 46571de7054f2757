//! The mgr's time, in which leases end: milliseconds that never go back, not even over a restart.
//!
//! It starts at the later of the wall clock and the stored high-water, and runs with the monotonic clock as long as this
//! process does: while the process or its machine is stopped it stands still, for nobody could renew a lease then. The
//! high-water is stored ahead of it; the time never passes what is stored, it stands still before it does.

use std::{
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
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
    start_ms: u64,
    beat: Mutex<Beat>,
    step: Duration,
    high_water_ms: AtomicU64,
}

/// A moment at which this process ran.
#[derive(Debug)]
struct Beat {
    at: Instant,
    /// The time then, but for the high-water.
    ms: u64,
}

impl MgrTime {
    /// The time of a mgr that starts now. It stands still until [`MgrTime::stored`] is told of a later high-water, and `step`
    /// after a [`MgrTime::beat`] until the next one.
    pub fn start(wall_ms: u64, stored_ms: u64, step: Duration) -> MgrTime {
        let start_ms = wall_ms.max(stored_ms);
        MgrTime {
            start_ms,
            beat: Mutex::new(Beat { at: Instant::now(), ms: start_ms }),
            step,
            high_water_ms: AtomicU64::new(start_ms),
        }
    }

    /// When this mgr started, in its own time. Whatever an earlier mgr dated in its past ended before it.
    pub fn start_ms(&self) -> u64 {
        self.start_ms
    }

    pub fn now_ms(&self) -> u64 {
        self.unbounded_ms(&self.last_beat()).min(self.high_water_ms.load(Ordering::Acquire))
    }

    /// This process runs. To be said several times in each step.
    pub fn beat(&self) {
        let mut beat = self.last_beat();
        *beat = Beat { ms: self.unbounded_ms(&beat), at: Instant::now() };
    }

    /// How often to say so.
    pub fn beat_pause(&self) -> Duration {
        self.step / 4
    }

    fn last_beat(&self) -> MutexGuard<'_, Beat> {
        self.beat.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn unbounded_ms(&self, beat: &Beat) -> u64 {
        let since_beat = beat.at.elapsed().min(self.step);
        beat.ms.saturating_add(u64::try_from(since_beat.as_millis()).unwrap_or(u64::MAX))
    }

    /// `until_ms` as a point of the monotonic clock: the time is not there earlier.
    pub fn instant(&self, until_ms: u64) -> Instant {
        let beat = self.last_beat();
        let since_beat = Duration::from_millis(until_ms.saturating_sub(beat.ms));
        beat.at.checked_add(since_beat).unwrap_or(beat.at + FOR_EVER)
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

    const STEP: Duration = Duration::from_secs(3);

    async fn run_for(time: &MgrTime, secs: u64) {
        for _ in 0..secs {
            tokio::time::advance(Duration::from_secs(1)).await;
            time.beat();
        }
    }

    #[tokio::test(start_paused = true)]
    async fn time_never_passes_what_is_stored() {
        let time = MgrTime::start(1_000_000, 0, STEP);
        assert_eq!(time.now_ms(), 1_000_000);
        run_for(&time, 5).await;
        assert_eq!(time.now_ms(), 1_000_000, "nothing is stored yet");
        time.stored(1_060_000);
        assert_eq!(time.now_ms(), 1_005_000);
        assert_eq!(time.next_high_water(), (1_110_000, time.instant(1_050_000)));
        run_for(&time, 100).await;
        assert_eq!(time.now_ms(), 1_060_000, "it stands still");
    }

    #[tokio::test(start_paused = true)]
    async fn time_stands_still_while_the_mgr_does() {
        let time = MgrTime::start(1_000_000, 0, STEP);
        time.stored(2_000_000);
        run_for(&time, 10).await;
        tokio::time::advance(Duration::from_hours(1)).await;
        assert_eq!(time.now_ms(), 1_013_000, "a step at most, also before the first beat after it");
        run_for(&time, 10).await;
        assert_eq!(time.now_ms(), 1_022_000);
        assert_eq!(time.instant(1_023_000), Instant::now() + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn time_goes_on_over_a_restart_with_a_wall_clock_set_back() {
        assert_eq!(MgrTime::start(500, 1_060_000, STEP).now_ms(), 1_060_000);
    }
}
