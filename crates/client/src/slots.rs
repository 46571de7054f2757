//! A session's slots: each mutating request holds one, under a number that rises, until it is answered.

use crate::estate::{Journal, Mark};
use pvfs_types::SessionId;
use pvfs_wire::Op;
use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError},
};
use tokio::sync::Semaphore;

/// The slots of one session that no request is using.
pub(crate) struct Slots {
    session: SessionId,
    /// `(slot, sequence number of its last request)`, the one used last on top.
    free: Mutex<Vec<(u16, u64)>>,
    /// Slots whose last request a predecessor sent for a call that may come again, by that call.
    inherited: Mutex<HashMap<u64, (u16, Mark)>>,
    /// One permit for each free slot.
    permits: Semaphore,
    count: usize,
    journal: Option<Arc<dyn Journal>>,
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
    /// The journal names the call that it is used for.
    marked: bool,
}

impl Slots {
    /// `marks`: what a predecessor did in the same session.
    pub fn new(
        session: SessionId,
        count: u16,
        marks: &[Mark],
        journal: Option<Arc<dyn Journal>>,
    ) -> Arc<Slots> {
        let mark = |number: u16| {
            let mark = marks.get(usize::from(number)).copied().unwrap_or_default();
            if mark.session == session { mark } else { Mark::default() }
        };
        let (calls, free): (Vec<_>, Vec<_>) =
            (0..count).rev().map(|number| (number, mark(number))).partition(|(_, mark)| mark.origin != 0);
        let inherited = calls.into_iter().map(|(number, mark)| (mark.origin, (number, mark))).collect();
        let free: Vec<_> = free.into_iter().map(|(number, mark)| (number, mark.seq)).collect();
        Arc::new(Slots {
            session,
            permits: Semaphore::new(free.len()),
            free: Mutex::new(free),
            inherited: Mutex::new(inherited),
            count: usize::from(count),
            journal,
        })
    }

    /// Waits for a free slot.
    pub async fn acquire(self: &Arc<Self>) -> Result<Slot, Over> {
        self.permits.acquire().await.map_err(|_| Over)?.forget();
        let (number, last) = self.with(Vec::pop).expect("as many free slots as permits");
        Ok(self.slot(number, last + 1))
    }

    /// The slot and number under which a predecessor did `op` for the same call.
    pub fn inherit(self: &Arc<Self>, origin: u64, op: Op) -> Option<Slot> {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        let (number, mark) = inherited.get(&origin).copied().filter(|(_, mark)| mark.op == op.number())?;
        inherited.remove(&origin);
        Some(self.slot(number, mark.seq))
    }

    /// A predecessor's call is answered: its slot is free, also where its change was not asked for again.
    pub fn forget_call(self: &Arc<Self>, origin: u64) {
        let left = self.inherited.lock().unwrap_or_else(PoisonError::into_inner).remove(&origin);
        if let Some(left) = left {
            self.free(left);
        }
    }

    /// Of the calls of a predecessor only `origins` will come again: the others' slots are free.
    pub fn forget_calls_but(self: &Arc<Self>, origins: &[u64]) {
        let mut inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner);
        let left: Vec<_> = inherited.extract_if(|origin, _| !origins.contains(origin)).collect();
        drop(inherited);
        for (_, left) in left {
            self.free(left);
        }
    }

    fn free(self: &Arc<Self>, (number, mark): (u16, Mark)) {
        let mut slot = self.slot(number, mark.seq);
        // In the journal too, when it is dropped.
        slot.marked = true;
    }

    fn slot(self: &Arc<Self>, number: u16, seq: u64) -> Slot {
        Slot { slots: Arc::clone(self), number, seq, open_ended: false, marked: false }
    }

    /// Ends the wait of everybody: the session is over.
    pub fn close(&self) {
        self.permits.close();
    }

    /// How many slots are in use.
    pub fn in_flight(&self) -> usize {
        let inherited = self.inherited.lock().unwrap_or_else(PoisonError::into_inner).len();
        (self.count - inherited) - self.permits.available_permits().min(self.count - inherited)
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

    /// Few are left.
    pub fn is_scarce(&self) -> bool {
        self.slots.permits.available_permits() < self.slots.count / 8
    }

    /// The request is about to leave; it is the change of the call `origin`, if that is not 0.
    pub fn sent(&mut self, op: Op, origin: u64) {
        self.open_ended = true;
        self.marked |= origin != 0;
        self.mark(op.number(), origin);
    }

    /// The request was answered, or surely never left: dropped, the slot is free for the next one.
    pub fn answered(&mut self) {
        self.open_ended = false;
    }

    fn mark(&self, op: u16, origin: u64) {
        if let Some(journal) = &self.slots.journal {
            journal.mark(self.number, Mark { session: self.slots.session, seq: self.seq, origin, op });
        }
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        if !self.open_ended {
            if self.marked {
                self.mark(0, 0);
            }
            self.slots.with(|free| free.push((self.number, self.seq)));
            self.slots.permits.add_permits(1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemJournal;
    use futures_util::FutureExt;

    const SESSION: SessionId = SessionId(7);

    fn slots(count: u16) -> Arc<Slots> {
        Slots::new(SESSION, count, &[], None)
    }

    #[tokio::test]
    async fn numbers_rise_in_each_slot_and_no_slot_is_held_twice() {
        let slots = slots(2);
        let (mut a, b) = (slots.acquire().await.expect("free"), slots.acquire().await.expect("free"));
        assert_ne!(a.number(), b.number());
        assert_eq!((a.seq(), b.seq()), (1, 1));
        let number = a.number();
        a.answered();
        drop(a);
        let again = slots.acquire().await.expect("free");
        assert_eq!((again.number(), again.seq()), (number, 2));
    }

    #[tokio::test]
    async fn the_next_waits_until_a_slot_is_free() {
        let slots = slots(1);
        let mut held = slots.acquire().await.expect("free");
        let waiter = tokio::spawn({
            let slots = Arc::clone(&slots);
            async move { slots.acquire().await.map(|slot| slot.seq()) }
        });
        tokio::task::yield_now().await;
        assert!(!waiter.is_finished());
        held.answered();
        drop(held);
        assert!(matches!(waiter.await.expect("no panic"), Ok(2)));
    }

    #[tokio::test]
    async fn a_slot_whose_request_has_no_answer_is_never_used_again() {
        let slots = slots(2);
        let mut lost = slots.acquire().await.expect("free");
        lost.sent(Op::MkDir, 0);
        let number = lost.number();
        drop(lost);
        assert_eq!(slots.in_flight(), 1);
        assert_ne!(slots.acquire().await.expect("free").number(), number);
    }

    #[tokio::test]
    async fn waiters_learn_that_the_session_is_over() {
        let slots = slots(1);
        let _held = slots.acquire().await.expect("free");
        slots.close();
        assert!(slots.acquire().await.is_err());
    }

    #[tokio::test]
    async fn a_call_that_comes_again_gets_the_number_that_its_change_was_sent_under() {
        let notes = MemJournal::new([7; 16]);
        let first = Slots::new(SESSION, 4, &[], Some(notes.clone()));
        let mut called = first.acquire().await.expect("free");
        called.sent(Op::MkDir, 99);
        let mut unnamed = first.acquire().await.expect("free");
        unnamed.sent(Op::ReportSize, 0);
        let mut over = first.acquire().await.expect("free");
        over.sent(Op::Unlink, 98);
        over.answered();
        let (number, seq) = (called.number(), called.seq());
        drop(over);
        // The process dies here.
        let next = Slots::new(SESSION, 4, &notes.estate().marks, Some(notes.clone()));
        assert!(next.inherit(98, Op::Unlink).is_none(), "that call was answered");
        assert!(next.inherit(99, Op::RmDir).is_none(), "not the same change");
        let mut free = Vec::new();
        for _ in 0..3 {
            free.push(next.acquire().await.expect("free"));
        }
        assert!(free.iter().all(|slot| slot.number() != number), "kept for the call");
        let reused = free.iter().find(|slot| slot.number() == unnamed.number()).expect("one of them");
        assert_eq!(reused.seq(), 2, "above what may have been sent");
        let again = next.inherit(99, Op::MkDir).expect("kept");
        assert_eq!((again.number(), again.seq()), (number, seq));
        assert!(next.inherit(99, Op::MkDir).is_none(), "once");
    }

    #[tokio::test]
    async fn a_call_that_comes_again_and_needs_no_change_any_more_leaves_its_slot_to_others() {
        let notes = MemJournal::new([7; 16]);
        let mut sent = Slots::new(SESSION, 1, &[], Some(notes.clone())).acquire().await.expect("free");
        sent.sent(Op::ReportSize, 99);
        // The process dies here.
        let next = Slots::new(SESSION, 1, &notes.estate().marks, Some(notes.clone()));
        next.forget_call(98);
        assert!(next.acquire().now_or_never().is_none(), "kept for the call");
        next.forget_call(99);
        assert_eq!(next.acquire().await.expect("free").seq(), 2);
        assert_eq!(notes.estate().marks[0].origin, 0, "another process need not keep it either");
    }

    #[tokio::test]
    async fn slots_of_calls_that_never_come_again_are_free_in_the_end_and_other_sessions_are_none_of_ours() {
        let mark = Mark { session: SESSION, seq: 5, origin: 99, op: Op::MkDir.number() };
        let slots = Slots::new(SESSION, 1, &[mark], None);
        assert_eq!(slots.in_flight(), 0);
        slots.forget_calls_but(&[98]);
        assert_eq!(slots.acquire().await.expect("free").seq(), 6);
        let other = Slots::new(SessionId(8), 1, &[mark], None);
        assert_eq!(other.acquire().await.expect("free").seq(), 1);
    }
}
