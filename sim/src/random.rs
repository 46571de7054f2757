//! All chance of a run, drawn from its seed. One stream for each use, so that what one part draws moves no other.

use std::{
    ops::RangeInclusive,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

/// A stream of random numbers. Clones share it.
#[derive(Clone)]
pub struct Random(Arc<Mutex<fastrand::Rng>>);

impl Random {
    /// The stream of `seed` for `purpose`.
    pub fn of(seed: u64, purpose: &str) -> Random {
        let mixed = purpose.bytes().fold(seed ^ 0x9E37_79B9_7F4A_7C15, |mixed, byte| {
            (mixed ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01B3).rotate_left(29)
        });
        Random(Arc::new(Mutex::new(fastrand::Rng::with_seed(mixed))))
    }

    fn with<T>(&self, draw: impl FnOnce(&mut fastrand::Rng) -> T) -> T {
        draw(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn fill(&self, bytes: &mut [u8]) {
        self.with(|rng| rng.fill(bytes));
    }

    pub fn between(&self, range: RangeInclusive<u64>) -> u64 {
        self.with(|rng| rng.u64(range))
    }

    pub fn below(&self, end: usize) -> usize {
        self.with(|rng| rng.usize(..end))
    }

    /// True in one of `n` cases.
    pub fn one_in(&self, n: u64) -> bool {
        self.with(|rng| rng.u64(..n) == 0)
    }

    /// One of `choices`, which are not empty.
    pub fn pick<'a, T>(&self, choices: &'a [T]) -> &'a T {
        &choices[self.below(choices.len())]
    }

    pub fn millis(&self, range: RangeInclusive<u64>) -> Duration {
        Duration::from_millis(self.between(range))
    }
}
