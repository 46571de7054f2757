//! How long to wait before the next try: pure. From 1 ms doubling to 1 s, each drawn from the upper half, so that a
//! bounce costs little and ten thousand clients do not come back in the same instant.

use std::time::Duration;

const FIRST_US: u64 = 1_000;
const MAX_US: u64 = 1_000_000;

/// Counts failed tries in a row.
#[derive(Clone, Copy, Debug, Default)]
pub struct Backoff {
    tries: u32,
}

impl Backoff {
    pub fn tries(self) -> u32 {
        self.tries
    }

    /// Notes a failed try; gives the time to wait before the next, given a random number.
    pub fn fail(&mut self, random: u64) -> Duration {
        let ceiling = FIRST_US.saturating_mul(1 << self.tries.min(20)).min(MAX_US);
        self.tries = self.tries.saturating_add(1);
        Duration::from_micros(ceiling / 2 + random % (ceiling / 2 + 1))
    }

    /// Notes a success.
    pub fn reset(&mut self) {
        self.tries = 0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_from_a_millisecond_to_a_second() {
        let mut backoff = Backoff::default();
        let shortest: Vec<u128> = (0..12).map(|_| backoff.fail(0).as_micros()).collect();
        assert_eq!(shortest[..4], [500, 1000, 2000, 4000]);
        assert_eq!(shortest[11], 500_000);
        backoff.reset();
        assert!(backoff.fail(0) <= Duration::from_millis(1));
    }

    #[test]
    fn waits_stay_in_the_upper_half() {
        for random in [0, 1, 12_345, u64::MAX] {
            let mut backoff = Backoff { tries: 40 };
            let wait = backoff.fail(random);
            assert!((500_000..=1_000_000).contains(&wait.as_micros()), "{wait:?}");
        }
    }
}
