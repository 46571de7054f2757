//! Whether this mgr's store is older than what targets have heard from it. Then nothing is changed until
//! `pvfs fsck --repair` has settled it: what was dealt out since would be dealt out twice.
//!
//! A store put back from a backup that is younger than the stored high-water runs ahead (a minute at most) passes.

use pvfs_meta::rollback::RolledBack;
use pvfs_types::Errno;
use pvfs_wire::{Refusal, Status};
use std::sync::{Mutex, PoisonError};

#[derive(Debug)]
pub struct Rollback {
    /// The mgr's time that the store held when this mgr opened it: no earlier mgr has told a later one.
    stored_ms: u64,
    noted: Mutex<Option<RolledBack>>,
}

impl Rollback {
    /// `noted`: what an earlier mgr found.
    pub fn new(stored_ms: u64, noted: Option<RolledBack>) -> Rollback {
        Rollback { stored_ms, noted: Mutex::new(noted) }
    }

    fn with<T>(&self, act: impl FnOnce(&mut Option<RolledBack>) -> T) -> T {
        act(&mut self.noted.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A target follows `heard_ms`; this mgr has told times from `start_ms` to `now_ms`. `Some`: that says for the first
    /// time that the store is old.
    pub fn heard(&self, heard_ms: u64, start_ms: u64, now_ms: u64) -> Option<RolledBack> {
        if heard_ms <= self.stored_ms || (start_ms..=now_ms).contains(&heard_ms) {
            return None;
        }
        self.with(|noted| {
            let is_first = noted.is_none();
            let found = *noted.get_or_insert(RolledBack { stored_ms: self.stored_ms, heard_ms });
            is_first.then_some(found)
        })
    }

    pub fn is_noted(&self) -> bool {
        self.with(|noted| noted.is_some())
    }

    /// # Errors
    /// `EROFS` until it is settled.
    pub fn refuse_changes(&self) -> Result<(), Refusal> {
        if !self.is_noted() {
            return Ok(());
        }
        let text = "the mgr's store is older than its targets (put back from a backup?): `pvfs fsck` tells more, \
                    `pvfs fsck --repair` lets it go on";
        Err(Refusal::new(Status::Errno(Errno::EROFS), text))
    }

    pub fn settled(&self) {
        self.with(|noted| *noted = None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A mgr whose store held 100, which tells times from 1000 on and is at 1010.
    fn noted(heard_ms: u64) -> bool {
        let rollback = Rollback::new(100, None);
        rollback.heard(heard_ms, 1000, 1010);
        rollback.is_noted()
    }

    #[test]
    fn a_time_that_no_mgr_of_this_store_told_gives_it_away() {
        assert!(!noted(0), "a target that knows none");
        assert!(!noted(100), "told by an earlier mgr");
        assert!(noted(101) && noted(999), "told from a newer store");
        assert!(!noted(1000) && !noted(1010), "told by this mgr");
        assert!(noted(1011), "told by nobody of this store");
    }

    #[test]
    fn it_is_said_once_and_holds_until_it_is_settled() {
        let rollback = Rollback::new(100, None);
        assert!(rollback.refuse_changes().is_ok());
        assert_eq!(rollback.heard(500, 1000, 1000), Some(RolledBack { stored_ms: 100, heard_ms: 500 }));
        assert_eq!(rollback.heard(600, 1000, 1000), None, "known already");
        assert!(rollback.refuse_changes().is_err());
        rollback.settled();
        assert!(rollback.refuse_changes().is_ok());
        let noted_before = Rollback::new(2000, Some(RolledBack { stored_ms: 100, heard_ms: 500 }));
        assert!(noted_before.refuse_changes().is_err(), "an earlier mgr found it");
    }
}
