//! Which unlinked files this client still has open, and what of it the mgr knows. Pure bookkeeping.
//!
//! An unlinked inode lives as long as a session claims it. The client answers for every orphan the mgr names: it is
//! open here (claim) or it is not. While a create is in flight, its inode has no known number; so an orphan that was
//! named meanwhile is answered for only after that create's reply.

use pvfs_types::Ino;
use pvfs_wire::msg::session::Orphan;
use std::collections::{BTreeSet, HashSet};

/// The state of a session's claims.
#[derive(Debug, Default)]
pub(crate) struct Orphans {
    /// Every orphan up to this number has been answered for.
    seen: u64,
    undecided: Vec<Undecided>,
    /// Orphans up to this number may be claimed by a predecessor in this session.
    inherited: u64,
    to_claim: HashSet<Ino>,
    claimed: HashSet<Ino>,
    creates: BTreeSet<u64>,
    next_create: u64,
}

#[derive(Debug)]
struct Undecided {
    orphan: Orphan,
    /// Creates below this number had begun when the orphan was named.
    creates_below: u64,
}

/// What the next keep-alive says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub seen: u64,
    pub claims: Vec<Ino>,
    pub releases: Vec<Ino>,
}

impl Orphans {
    /// A create is about to leave; tell of its end by [`Orphans::create_ended`].
    pub fn create_begins(&mut self) -> u64 {
        self.next_create += 1;
        self.creates.insert(self.next_create);
        self.next_create
    }

    /// The create has its answer, and the file counts as open if it is.
    pub fn create_ended(&mut self, number: u64) {
        self.creates.remove(&number);
    }

    /// The mgr named these orphans.
    pub fn named(&mut self, orphans: &[Orphan]) {
        let known = self.undecided.last().map_or(self.seen, |last| last.orphan.seq);
        let creates_below = self.next_create + 1;
        let new = orphans.iter().filter(|orphan| orphan.seq > known);
        self.undecided.extend(new.map(|&orphan| Undecided { orphan, creates_below }));
    }

    /// What to say in the next keep-alive.
    pub fn answer(&mut self, is_open: impl Fn(Ino) -> bool) -> Answer {
        let first_create = self.creates.first().copied().unwrap_or(u64::MAX);
        let decided = self.undecided.iter().take_while(|u| u.creates_below <= first_create).count();
        for undecided in self.undecided.drain(..decided) {
            self.seen = self.seen.max(undecided.orphan.seq);
            if is_open(undecided.orphan.ino) {
                self.to_claim.insert(undecided.orphan.ino);
            } else if undecided.orphan.seq <= self.inherited {
                // A claim that nobody needs any more is released below.
                self.claimed.insert(undecided.orphan.ino);
            }
        }
        let sorted = |mut inos: Vec<Ino>| {
            inos.sort_unstable();
            inos
        };
        Answer {
            seen: self.seen,
            claims: sorted(self.to_claim.iter().copied().collect()),
            releases: sorted(self.claimed.iter().copied().filter(|&ino| !is_open(ino)).collect()),
        }
    }

    /// The mgr took `answer`.
    pub fn taken(&mut self, answer: &Answer) {
        for ino in &answer.claims {
            self.to_claim.remove(ino);
            self.claimed.insert(*ino);
        }
        for ino in &answer.releases {
            self.claimed.remove(ino);
        }
    }

    /// An open file turned out to have no name: it is claimed with the next keep-alive.
    pub fn claim(&mut self, ino: Ino) {
        if !self.claimed.contains(&ino) {
            self.to_claim.insert(ino);
        }
    }

    /// As [`Orphans::claim`], of a file that this client may be giving up right now: it is claimed once more after that.
    pub fn claim_anew(&mut self, ino: Ino) {
        self.to_claim.insert(ino);
    }

    /// Whether the mgr keeps this inode for this client.
    pub fn is_claimed(&self, ino: Ino) -> bool {
        self.claimed.contains(&ino) || self.to_claim.contains(&ino)
    }

    /// Orphans that wait for this client's answer, or claims that wait to be told.
    pub fn is_pending(&self) -> bool {
        !self.undecided.is_empty() || !self.to_claim.is_empty()
    }

    /// A predecessor's session: all orphans are to be named again, and those up to `seen` may be claimed already.
    pub fn inherited(&mut self, seen: u64) {
        self.inherited = seen;
    }

    /// A new session: it knows no claims, and orphans up to `seen` are none of its concern.
    pub fn renewed(&mut self, seen: u64) {
        self.seen = seen;
        let named = self.undecided.drain(..).map(|undecided| undecided.orphan.ino);
        self.to_claim.extend(named.chain(self.claimed.drain()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn orphan(seq: u64, ino: u64) -> Orphan {
        Orphan { seq, ino: Ino(ino) }
    }

    fn answer(seen: u64, claims: &[u64], releases: &[u64]) -> Answer {
        let inos = |numbers: &[u64]| numbers.iter().copied().map(Ino).collect();
        Answer { seen, claims: inos(claims), releases: inos(releases) }
    }

    #[test]
    fn open_orphans_are_claimed_once_and_released_when_closed() {
        let mut orphans = Orphans::default();
        orphans.named(&[orphan(1, 10), orphan(2, 11)]);
        let first = orphans.answer(|ino| ino == Ino(11));
        assert_eq!(first, answer(2, &[11], &[]));
        orphans.taken(&first);
        assert_eq!(orphans.answer(|ino| ino == Ino(11)), answer(2, &[], &[]));
        let closed = orphans.answer(|_| false);
        assert_eq!(closed, answer(2, &[], &[11]));
        orphans.taken(&closed);
        assert_eq!(orphans.answer(|_| false), answer(2, &[], &[]));
    }

    #[test]
    fn what_is_opened_anew_while_it_is_given_up_is_claimed_after_that() {
        let mut orphans = Orphans::default();
        orphans.named(&[orphan(1, 10)]);
        let first = orphans.answer(|_| true);
        orphans.taken(&first);
        let closed = orphans.answer(|_| false);
        orphans.claim_anew(Ino(10));
        orphans.taken(&closed);
        assert_eq!(orphans.answer(|_| true), answer(1, &[10], &[]));
    }

    #[test]
    fn claims_of_a_predecessor_are_kept_or_released() {
        let mut orphans = Orphans::default();
        orphans.inherited(2);
        orphans.named(&[orphan(1, 10), orphan(2, 11), orphan(3, 12)]);
        assert_eq!(orphans.answer(|ino| ino == Ino(11)), answer(3, &[11], &[10]));
    }

    #[test]
    fn a_claim_whose_keep_alive_was_lost_is_told_again() {
        let mut orphans = Orphans::default();
        orphans.named(&[orphan(1, 10)]);
        assert_eq!(orphans.answer(|_| true), answer(1, &[10], &[]));
        assert_eq!(orphans.answer(|_| true), answer(1, &[10], &[]));
    }

    #[test]
    fn no_orphan_is_answered_for_while_an_older_create_is_in_flight() {
        let mut orphans = Orphans::default();
        let create = orphans.create_begins();
        orphans.named(&[orphan(1, 10)]);
        assert_eq!(orphans.answer(|_| false), answer(0, &[], &[]));
        let later = orphans.create_begins();
        orphans.create_ended(create);
        assert_eq!(orphans.answer(|ino| ino == Ino(10)), answer(1, &[10], &[]), "the create's own file");
        orphans.create_ended(later);
    }

    #[test]
    fn orphans_named_twice_count_once() {
        let mut orphans = Orphans::default();
        orphans.named(&[orphan(1, 10)]);
        orphans.named(&[orphan(1, 10), orphan(2, 11)]);
        assert_eq!(orphans.undecided.len(), 2);
    }

    #[test]
    fn a_new_session_is_told_all_claims_again() {
        let mut orphans = Orphans::default();
        orphans.named(&[orphan(1, 10)]);
        let first = orphans.answer(|_| true);
        orphans.taken(&first);
        orphans.renewed(7);
        assert_eq!(orphans.answer(|_| true), answer(7, &[10], &[]));
    }
}
