//! A session's slots: each mutating request holds one, under a number that rises, until it is answered.

use std::sync::{Arc, Mutex, PoisonError};
use tokio::sync::Semaphore;

/// The slots of one session that no request is using.
pub(crate) struct Slots {
    /// `(slot, sequence number of its last request)`, the one used last on top.
    free: Mutex<Vec<(u16, u64)>>,
    /// One permit for each free slot.
    permits: Semaphore,
    count: usize,
}

/// The session of the slots is over.
#[derive(Debug)]
pub(crate) struct Over;

/// A slot that this request alone uses. If it is dropped after [`Slot::sent`] and before [`Slot::answered`], nobody
/// knows what became of its request, and the slot is never used again.
pub(crate) struct Slot {
    slots: Arc<Slots>,
    number: u16,
    seq: u64,
    open_ended: bool,
}

impl Slots {
    pub fn new(count: u16) -> Arc<Slots> {
        let free = (0..count).rev().map(|number| (number, 0)).collect();
        let count = usize::from(count);
        Arc::new(Slots { free: Mutex::new(free), permits: Semaphore::new(count), count })
    }

    /// Waits for a free slot.
    pub async fn acquire(self: &Arc<Self>) -> Result<Slot, Over> {
        self.permits.acquire().await.map_err(|_| Over)?.forget();
        let (number, last) = self.with(Vec::pop).expect("as many free slots as permits");
        Ok(Slot { slots: Arc::clone(self), number, seq: last + 1, open_ended: false })
    }

    /// Ends the wait of everybody: the session is over.
    pub fn close(&self) {
        self.permits.close();
    }

    /// How many slots are in use.
    pub fn in_flight(&self) -> usize {
        self.count - self.permits.available_permits().min(self.count)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Vec<(u16, u64)>) -> T) -> T {
        act(&mut self.free.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Slot {
    pub fn number(&self) -> u16 {
        self.number
    }

    pub fn seq(&self) -> u64 {
        self.seq
    }

    /// The request may have left.
    pub fn sent(&mut self) {
        self.open_ended = true;
    }

    /// The request was answered, or surely never left: the slot is free for the next one.
    pub fn answered(mut self) {
        self.open_ended = false;
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.open_ended {
            self.slots.with(|free| free.push((self.number, self.seq)));
            self.slots.permits.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn numbers_rise_in_each_slot_and_no_slot_is_held_twice() {
        let slots = Slots::new(2);
        let (a, b) = (slots.acquire().await.expect("free"), slots.acquire().await.expect("free"));
        assert_ne!(a.number(), b.number());
        assert_eq!((a.seq(), b.seq()), (1, 1));
        let number = a.number();
        a.answered();
        let again = slots.acquire().await.expect("free");
        assert_eq!((again.number(), again.seq()), (number, 2));
    }

    #[tokio::test]
    async fn the_next_waits_until_a_slot_is_free() {
        let slots = Slots::new(1);
        let held = slots.acquire().await.expect("free");
        let waiter = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.acquire().await.map(|slot| slot.seq()) }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        held.answered();
        assert!(matches!(waiter.await.expect("no panic"), Ok(2)));
    }

    #[tokio::test]
    async fn a_slot_whose_request_has_no_answer_is_never_used_again() {
        let slots = Slots::new(2);
        let mut lost = slots.acquire().await.expect("free");
        lost.sent();
        let number = lost.number();
        drop(lost);
        assert_eq!(slots.in_flight(), 1);
        assert_ne!(slots.acquire().await.expect("free").number(), number);
    }

    #[tokio::test]
    async fn waiters_learn_that_the_session_is_over() {
        let slots = Slots::new(1);
        let _held = slots.acquire().await.expect("free");
        slots.close();
        assert!(slots.acquire().await.is_err());
    }
}
