//! Of which inodes the kernel goes by attributes without asking, and how long at most. Pure.
//!
//! An answer that lets it do so may still be on its way when that is taken back. If the kernel holds the inode, it takes no
//! notice of such an answer; if the answer brings the inode, there is nothing yet to take back, and it is to be tried again.

use pvfs_types::Ino;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::time::Instant;

const SWEEP_MIN: usize = 1024;

/// What the kernel was told lately.
#[derive(Debug)]
pub struct Trusted {
    /// Until then the kernel may go by what a former worker told it.
    inherited_until: Instant,
    inodes: Mutex<Inodes>,
}

#[derive(Debug)]
struct Inodes {
    told: HashMap<Ino, Told>,
    sweep_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Told {
    until: Instant,
    /// Answers that may have brought the inode.
    lookups: u64,
}

impl Trusted {
    /// `inherited`: for so long the kernel may go by what a former worker told it.
    pub fn new(inherited: Duration) -> Trusted {
        let inodes = Inodes { told: HashMap::new(), sweep_at: SWEEP_MIN };
        Trusted { inherited_until: Instant::now() + inherited, inodes: Mutex::new(inodes) }
    }

    fn inodes(&self) -> MutexGuard<'_, Inodes> {
        self.inodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The kernel is about to be told attributes of `ino` that count for `valid`; `by_name`: in answer to a lookup or a create.
    pub fn tell(&self, ino: Ino, valid: Duration, by_name: bool) {
        if valid.is_zero() {
            return;
        }
        let now = Instant::now();
        let inodes = &mut *self.inodes();
        let told = inodes.told.entry(ino).or_insert(Told { until: now, lookups: 0 });
        told.until = told.until.max(now + valid);
        told.lookups += u64::from(by_name);
        if inodes.told.len() >= inodes.sweep_at {
            inodes.told.retain(|_, told| told.until > now);
            inodes.sweep_at = (inodes.told.len() * 2).max(SWEEP_MIN);
        }
    }

    /// The kernel has dropped the inode that so many answers had brought.
    pub fn forgotten(&self, ino: Ino, lookups: u64) {
        let told = &mut self.inodes().told;
        if told.get(&ino).is_some_and(|told| told.lookups <= lookups) {
            told.remove(&ino);
        }
    }

    /// Whether the kernel may go by attributes of `ino` now.
    pub fn is_told(&self, ino: Ino) -> bool {
        let until = self.inodes().told.get(&ino).map_or(self.inherited_until, |told| told.until);
        until > Instant::now()
    }

    /// Until when the kernel may go by what this worker told it of `ino`, if it may now; that is taken back.
    pub fn take(&self, ino: Ino) -> Option<Instant> {
        let told = self.inodes().told.remove(&ino);
        told.map(|told| told.until).filter(|until| *until > Instant::now())
    }

    /// Until when the kernel may go by what a former worker told it, of whatever inode.
    pub fn inherited_until(&self) -> Option<Instant> {
        Some(self.inherited_until).filter(|until| *until > Instant::now())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const X: Ino = Ino(5);
    const SECOND: Duration = Duration::from_secs(1);

    #[tokio::test(start_paused = true)]
    async fn what_the_kernel_was_told_is_to_be_taken_back_until_it_has_timed_out() {
        let trusted = Trusted::new(Duration::ZERO);
        trusted.tell(X, Duration::ZERO, true);
        assert!(!trusted.is_told(X));
        trusted.tell(X, SECOND, false);
        trusted.tell(X, SECOND / 2, false);
        assert!(trusted.is_told(X));
        assert_eq!(trusted.take(X), Some(Instant::now() + SECOND), "the longest counts");
        assert!(!trusted.is_told(X) && trusted.take(X).is_none());
        trusted.tell(X, SECOND, false);
        tokio::time::advance(SECOND).await;
        assert_eq!(trusted.take(X), None);
    }

    #[tokio::test(start_paused = true)]
    async fn an_inode_that_the_kernel_has_dropped_may_be_brought_again_by_an_answer_under_way() {
        let trusted = Trusted::new(Duration::ZERO);
        trusted.tell(X, SECOND, true);
        trusted.tell(X, SECOND, true);
        trusted.forgotten(X, 1);
        assert!(trusted.is_told(X), "of two answers it has taken one");
        trusted.forgotten(X, 2);
        assert!(!trusted.is_told(X));
    }

    #[tokio::test(start_paused = true)]
    async fn a_former_workers_words_count_for_a_while_and_memory_is_bounded() {
        let trusted = Trusted::new(SECOND);
        assert!(trusted.is_told(X) && trusted.inherited_until().is_some());
        assert_eq!(trusted.take(X), None, "that is not this worker's");
        tokio::time::advance(SECOND).await;
        assert!(!trusted.is_told(X) && trusted.inherited_until().is_none());
        for ino in 0..100_000 {
            trusted.tell(Ino(ino), SECOND, true);
            if ino % 1000 == 0 {
                tokio::time::advance(SECOND).await;
            }
        }
        assert!(trusted.inodes().told.len() <= 4 * SWEEP_MIN);
    }
}
