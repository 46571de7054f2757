//! What of a write that is sent again an object still takes: not what a cut or a later sync has overtaken. Pure.
//!
//! A client sends again what it wrote under an older store generation. By then somebody may have cut the object, or
//! written over it and synced. So whoever cuts, and whoever syncs what several clients wrote, leaves a fence in the
//! object's note: all that was acknowledged up to a mark is durable in the object, or was cut off.

/// Bytes of a note.
const NOTE_BYTES: usize = 48;

/// How far a write was acknowledged: under which store generation, up to which mark.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Acked {
    pub generation: u64,
    /// The write is durable once all up to this mark is. [`Acked::DURABLE`]: it is already.
    pub mark: u64,
    /// Only its bytes below this object offset were taken, and are wanted if it is sent once more.
    pub below: u64,
}

impl Acked {
    /// The mark of what need not be sent again, ever.
    pub const DURABLE: u64 = 0;

    /// All of the write was taken.
    pub fn whole(generation: u64, mark: u64) -> Acked {
        Acked { generation, mark, below: u64::MAX }
    }
}

/// What to do with a write that is sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It is durable, or was cut off.
    Done,
    /// Its bytes below this object offset are missing, and wanted.
    Below(u64),
}

/// The fences of one store generation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Era {
    generation: u64,
    /// Of what was acknowledged in this generation, all up to here is durable or was cut off.
    mark: u64,
    /// The shortest that the object was cut to in this generation, in bytes.
    floor: u64,
}

impl Era {
    const NONE: Era = Era { generation: 0, mark: 0, floor: u64::MAX };
}

/// An object's fences: those of the latest generation that has any, and those of the one before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Fences {
    latest: Era,
    before: Era,
}

impl Fences {
    pub(crate) const NONE: Fences = Fences { latest: Era::NONE, before: Era::NONE };

    /// The object was cut to `len` bytes or, without a cut, synced: what was acknowledged up to `up_to` is durable.
    pub(crate) fn add(&mut self, up_to: Acked, len: Option<u64>) {
        if up_to.generation > self.latest.generation {
            // Cuts of eras that are forgotten count for all that is older still.
            let floor = self.latest.floor.min(self.before.floor);
            self.before = Era { floor, ..self.latest };
            self.latest = Era { generation: up_to.generation, ..Era::NONE };
        }
        self.latest.mark = self.latest.mark.max(up_to.mark);
        self.latest.floor = self.latest.floor.min(len.unwrap_or(u64::MAX));
    }

    /// Judges a write that was acknowledged once and is sent again.
    pub(crate) fn judge(&self, acked: Acked) -> Verdict {
        let Fences { latest, before } = self;
        let fenced_in = |era: &Era| acked.generation == era.generation && acked.mark <= era.mark;
        if fenced_in(latest) || fenced_in(before) {
            return Verdict::Done;
        }
        // Its bytes may have been lost with its generation, and every cut of a later one came after it.
        let mut below = acked.below;
        if acked.generation < latest.generation {
            below = below.min(latest.floor);
        }
        if acked.generation < before.generation {
            below = below.min(before.floor);
        }
        if below == 0 { Verdict::Done } else { Verdict::Below(below) }
    }

    pub(crate) fn encode(&self) -> [u8; NOTE_BYTES] {
        let eras = [self.latest, self.before];
        let numbers = eras.iter().flat_map(|era| [era.generation, era.mark, era.floor]);
        let mut note = [0; NOTE_BYTES];
        for (place, number) in note.chunks_exact_mut(8).zip(numbers) {
            place.copy_from_slice(&number.to_le_bytes());
        }
        note
    }

    /// `None`: not a note of this version.
    pub(crate) fn decode(note: &[u8]) -> Option<Fences> {
        let note: &[u8; NOTE_BYTES] = note.try_into().ok()?;
        let mut numbers = note.chunks_exact(8).map(|at| at.try_into().map_or(0, u64::from_le_bytes));
        let mut era =
            || Some(Era { generation: numbers.next()?, mark: numbers.next()?, floor: numbers.next()? });
        Some(Fences { latest: era()?, before: era()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn acked(generation: u64, mark: u64) -> Acked {
        Acked::whole(generation, mark)
    }

    #[track_caller]
    fn check(fences: &Fences, generation: u64, mark: u64, expect: Verdict) {
        assert_eq!(fences.judge(acked(generation, mark)), expect);
    }

    const ALL: Verdict = Verdict::Below(u64::MAX);

    #[test]
    fn without_fences_all_is_taken() {
        check(&Fences::NONE, 1, 1, ALL);
    }

    #[test]
    fn what_a_cut_or_sync_has_overtaken_is_done_and_what_came_after_is_not() {
        let mut fences = Fences::NONE;
        fences.add(acked(5, 10), Some(100));
        check(&fences, 5, 10, Verdict::Done);
        check(&fences, 5, 11, ALL);
        fences.add(acked(5, 20), None);
        check(&fences, 5, 20, Verdict::Done);
        check(&fences, 5, 21, ALL);
    }

    #[test]
    fn what_was_lost_before_the_cut_comes_back_below_the_cut_only() {
        let mut fences = Fences::NONE;
        // Acknowledged in generation 5, lost; then the object was cut twice, then synced.
        fences.add(acked(6, 30), Some(100));
        fences.add(acked(6, 40), Some(70));
        fences.add(acked(6, 50), None);
        check(&fences, 5, 20, Verdict::Below(70));
        check(&fences, 6, 50, Verdict::Done);
        check(&fences, 6, 51, ALL);
    }

    #[test]
    fn a_cut_to_nothing_leaves_nothing_to_bring_back() {
        let mut fences = Fences::NONE;
        fences.add(acked(6, 30), Some(0));
        check(&fences, 5, 20, Verdict::Done);
    }

    #[test]
    fn a_fence_counts_for_its_own_generation_also_after_later_losses() {
        let mut fences = Fences::NONE;
        fences.add(acked(5, 10), Some(0));
        fences.add(acked(6, 30), Some(100));
        check(&fences, 5, 10, Verdict::Done);
        check(&fences, 5, 11, Verdict::Below(100));
        fences.add(acked(7, 50), None);
        // Two losses ago: both cuts that are known of may have come after it.
        check(&fences, 4, 1, Verdict::Done);
        check(&fences, 6, 31, ALL);
    }

    #[test]
    fn golden_note() {
        let mut fences = Fences::NONE;
        fences.add(acked(1, 2), Some(3));
        let number = |n: u8| [n, 0, 0, 0, 0, 0, 0, 0];
        let note = [number(1), number(2), number(3), number(0), number(0), [0xff; 8]];
        assert_eq!(fences.encode()[..], note.concat());
        assert_eq!(Fences::decode(&fences.encode()), Some(fences));
        assert_eq!(Fences::decode(b"short"), None);
    }

    /// What happens to an object's first two bytes: written, synced, cut off, lost with the machine.
    #[derive(Clone, Copy, Debug)]
    enum Step {
        Write,
        Sync,
        Cut,
        CutBetween,
        Lose,
        SendAgain,
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            3 => Just(Step::Write), 2 => Just(Step::Sync), 1 => Just(Step::Cut), 1 => Just(Step::CutBetween),
            2 => Just(Step::Lose), 3 => Just(Step::SendAgain),
        ]
    }

    proptest! {
        /// One client writes both bytes, any number of others cut and sync: after the client has sent again what it
        /// holds, each byte is what the last write or cut left, whatever was lost in between.
        #[test]
        fn bytes_are_what_the_last_write_or_cut_left(steps in proptest::collection::vec(step(), 0..30)) {
            let (mut generation, mut mark) = (1, 1);
            let mut fences = Fences::NONE;
            // Values: 0 is a hole. What the page cache, the disk and the truth have; what the client holds.
            let (mut cache, mut disk, mut truth, mut next) = ([0; 2], [0; 2], [0; 2], 1);
            let mut held: Vec<(u32, Acked)> = Vec::new();
            // A loss is followed by the client's answer before the next loss, as long as one note remembers.
            for step in steps.into_iter().chain([Step::SendAgain]) {
                let is_caught_up = held.iter().all(|(_, acked)| acked.generation == generation);
                match step {
                    // A client writes only when it has sent again what it holds.
                    Step::Write if is_caught_up => {
                        (cache, truth) = ([next; 2], [next; 2]);
                        held.push((next, acked(generation, mark)));
                        next += 1;
                    }
                    Step::Lose if is_caught_up => {
                        cache = disk;
                        generation += 1;
                        mark += 100;
                    }
                    Step::Write | Step::Lose => {}
                    Step::Sync => {
                        disk = cache;
                        fences.add(acked(generation, mark), None);
                        mark += 1;
                    }
                    Step::Cut | Step::CutBetween => {
                        let len = usize::from(matches!(step, Step::CutBetween));
                        cache[len..].fill(0);
                        truth[len..].fill(0);
                        disk = cache;
                        fences.add(acked(generation, mark), Some(len as u64));
                        mark += 1;
                    }
                    Step::SendAgain => {
                        held.retain_mut(|(value, acked_as)| {
                            if acked_as.generation == generation {
                                return true;
                            }
                            let Verdict::Below(below) = fences.judge(*acked_as) else { return false };
                            cache[..usize::try_from(below.min(2)).unwrap()].fill(*value);
                            *acked_as = Acked { generation, mark, below };
                            true
                        });
                        prop_assert_eq!(cache, truth);
                    }
                }
            }
        }
    }
}
