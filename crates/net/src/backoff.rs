//! How long to wait before the next try: pure. A fourth of what was waited already, at least 1 ms and at most 1 s, each
//! drawn from the upper half: a bounce costs little more than the daemon's own start, a long outage costs few tries, and
//! ten thousand clients do not come back in the same instant.

use std::time::Duration;

const MIN_US: u64 = 1_000;
const MAX_US: u64 = 1_000_000;
/// Which part of the outage so far the next wait may add to it.
const PART: u64 = 4;

/// Counts failed tries in a row, and what was waited between them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    tries: u32,
    waited_us: u64,
}

impl Backoff {
    pub fn tries(self) -> u32 {
        self.tries
    }

    /// Notes a failed try; gives the time to wait before the next, given a random number.
    pub fn fail(&mut self, random: u64) -> Duration {
        let ceiling = (self.waited_us / PART).clamp(MIN_US, MAX_US);
        let wait = ceiling / 2 + random % (ceiling / 2 + 1);
        self.tries = self.tries.saturating_add(1);
        self.waited_us = self.waited_us.saturating_add(wait);
        Duration::from_micros(wait)
    }

    /// Notes a success.
    pub fn reset(&mut self) {
        *self = Backoff::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The waits until `total` is over, with the random number `random`.
    fn waits(total: Duration, random: u64) -> Vec<Duration> {
        let (mut backoff, mut waits) = (Backoff::default(), Vec::new());
        while waits.iter().sum::<Duration>() < total {
            waits.push(backoff.fail(random));
        }
        waits
    }

    #[test]
    fn a_wait_adds_at_most_a_fourth_to_the_outage() {
        for random in [0, 1, 12_345, u64::MAX] {
            let mut before = Duration::ZERO;
            for wait in waits(Duration::from_secs(10), random) {
                assert!(wait <= (before / 4).max(Duration::from_millis(1)), "{wait:?} after {before:?}");
                before += wait;
            }
        }
    }

    #[test]
    fn an_outage_costs_few_tries() {
        // `u64::MAX` is no draw of the longest waits; any draw is at least half of the ceiling.
        assert!(waits(Duration::from_secs(1), 0).len() <= 60, "{}", waits(Duration::from_secs(1), 0).len());
        let in_a_minute = waits(Duration::from_mins(1), 0).len();
        assert!(in_a_minute <= 60 + 2 * 60, "{in_a_minute}");
    }

    #[test]
    fn waits_stay_between_half_a_millisecond_and_a_second() {
        for random in [0, 1, 12_345, u64::MAX] {
            for wait in waits(Duration::from_mins(1), random) {
                assert!((500..=1_000_000).contains(&wait.as_micros()), "{wait:?}");
            }
        }
    }

    #[test]
    fn a_success_begins_anew() {
        let mut backoff = Backoff::default();
        for _ in 0..100 {
            backoff.fail(0);
        }
        backoff.reset();
        assert_eq!(backoff.tries(), 0);
        assert!(backoff.fail(0) <= Duration::from_millis(1));
    }
}
