//! Which bytes of one object a request is about: expands its [`Ranges`] to runs, with all bounds checked. Pure.
//!
//! However large the numbers in a request, the work is bounded: a list by its own length, a pattern by
//! `PATTERN_RUNS_MAX` runs over all slots, and what falls to the slot by `PIECES_MAX` runs and `PAYLOAD_BYTES_MAX` bytes.

use pvfs_store::ObjectRun;
use pvfs_types::{
    Distribution, Errno, LogicalOffset, ObjectOffset, Pattern, PatternError, Slot,
    limits::{FILE_BYTES_MAX, PATTERN_RUNS_MAX, PAYLOAD_BYTES_MAX, PIECES_MAX},
};
use pvfs_wire::{
    Refusal, Status,
    msg::data::{Ranges, Run},
};
use std::ops::Range;

const PAYLOAD_MAX: usize = PAYLOAD_BYTES_MAX as usize;

/// The runs of a request, in the order of its payload; runs that touch are one.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ObjectRuns {
    pub runs: Vec<ObjectRun>,
    /// All runs together; at most `PAYLOAD_BYTES_MAX`.
    pub bytes: usize,
}

/// Why ranges are refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RangesError {
    #[error("the range at object offset {offset} is empty")]
    Empty { offset: u64 },
    #[error("a range ends past the largest file size")]
    TooFar,
    #[error("a request has at most {max} pieces: split it")]
    TooManyPieces { max: usize },
    #[error("a pattern has at most {max} runs, this one has {runs}: split it")]
    TooManyRuns { runs: u64, max: u64 },
    #[error("a request is for at most {max} bytes of one slot: split it")]
    TooManyBytes { max: usize },
    #[error("the ranges are {ranges} bytes together, the payload is {payload}")]
    PayloadLength { ranges: usize, payload: usize },
    #[error("{0}")]
    Pattern(PatternError),
}

impl From<RangesError> for Refusal {
    fn from(error: RangesError) -> Refusal {
        let status = match error {
            RangesError::TooFar => Status::Errno(Errno::EFBIG),
            RangesError::Empty { .. }
            | RangesError::TooManyPieces { .. }
            | RangesError::TooManyRuns { .. }
            | RangesError::TooManyBytes { .. }
            | RangesError::PayloadLength { .. }
            | RangesError::Pattern(_) => Status::BadRequest,
        };
        Refusal::new(status, error.to_string())
    }
}

/// Expands `ranges` to runs of the object in `slot`, which is below `dist.pcount`. `ssize` is not 0.
pub fn expand(ranges: &Ranges, dist: &Distribution, slot: Slot) -> Result<ObjectRuns, RangesError> {
    match ranges {
        Ranges::List(list) => expand_list(list, dist, slot),
        Ranges::Strided(pattern) => expand_pattern(pattern, dist, slot),
    }
}

/// As [`expand`], for a request with a payload, which must be as long as the runs together.
pub fn expand_payload(
    ranges: &Ranges,
    dist: &Distribution,
    slot: Slot,
    payload: usize,
) -> Result<ObjectRuns, RangesError> {
    let runs = expand(ranges, dist, slot)?;
    if runs.bytes != payload {
        return Err(RangesError::PayloadLength { ranges: runs.bytes, payload });
    }
    Ok(runs)
}

/// `start..end` of the object in `slot`: not empty, and within the largest file.
pub fn one(
    start: ObjectOffset,
    end: ObjectOffset,
    dist: &Distribution,
    slot: Slot,
) -> Result<Range<u64>, RangesError> {
    if start >= end {
        return Err(RangesError::Empty { offset: start.0 });
    }
    match dist.logical(slot, ObjectOffset(end.0 - 1)) {
        Some(last) if last.0 < FILE_BYTES_MAX => Ok(start.0..end.0),
        _ => Err(RangesError::TooFar),
    }
}

fn expand_list(list: &[Run], dist: &Distribution, slot: Slot) -> Result<ObjectRuns, RangesError> {
    if list.len() > PIECES_MAX {
        return Err(RangesError::TooManyPieces { max: PIECES_MAX });
    }
    let mut out = ObjectRuns { runs: Vec::with_capacity(list.len()), bytes: 0 };
    for run in list {
        let (offset, len) = (run.offset.0, u64::from(run.len));
        if len == 0 {
            return Err(RangesError::Empty { offset });
        }
        let last = offset.checked_add(len - 1).ok_or(RangesError::TooFar)?;
        // The last byte's place in the file; its place in the object is never further.
        match dist.logical(slot, ObjectOffset(last)) {
            Some(logical) if logical.0 < FILE_BYTES_MAX => out.push(offset, len)?,
            _ => return Err(RangesError::TooFar),
        }
    }
    Ok(out)
}

fn expand_pattern(pattern: &Pattern, dist: &Distribution, slot: Slot) -> Result<ObjectRuns, RangesError> {
    pattern.check().map_err(|error| match error {
        PatternError::TooFar => RangesError::TooFar,
        error => RangesError::Pattern(error),
    })?;
    let pattern = joined(pattern);
    let runs = pattern.run_count();
    if runs > PATTERN_RUNS_MAX {
        return Err(RangesError::TooManyRuns { runs, max: PATTERN_RUNS_MAX });
    }
    let mut out = ObjectRuns::default();
    for (start, len) in pattern.runs() {
        push_run(&mut out, dist, slot, start, len)?;
    }
    Ok(out)
}

fn push_run(
    out: &mut ObjectRuns,
    dist: &Distribution,
    slot: Slot,
    start: LogicalOffset,
    len: u64,
) -> Result<(), RangesError> {
    for piece in dist.split_slot(start, len, slot) {
        out.push(piece.object.0, piece.len)?;
    }
    Ok(())
}

/// The same bytes with levels taken away that repeat once or without a gap. `pattern` was checked.
fn joined(pattern: &Pattern) -> Pattern {
    let mut pattern = pattern.clone();
    pattern.levels.retain(|level| level.count > 1);
    while let Some(inner) = pattern.levels.last()
        && inner.stride == pattern.len
    {
        pattern.len *= inner.count;
        pattern.levels.pop();
    }
    pattern
}

impl ObjectRuns {
    /// Adds a run, to the last one where it touches it.
    fn push(&mut self, offset: u64, len: u64) -> Result<(), RangesError> {
        let too_many_bytes = RangesError::TooManyBytes { max: PAYLOAD_MAX };
        let Ok(len) = usize::try_from(len) else { return Err(too_many_bytes) };
        self.bytes = self.bytes.saturating_add(len);
        if self.bytes > PAYLOAD_MAX {
            return Err(too_many_bytes);
        }
        if let Some(last) = self.runs.last_mut()
            && last.offset.0 + last.len as u64 == offset
        {
            last.len += len;
            return Ok(());
        }
        if self.runs.len() == PIECES_MAX {
            return Err(RangesError::TooManyPieces { max: PIECES_MAX });
        }
        self.runs.push(ObjectRun { offset: ObjectOffset(offset), len });
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use pvfs_types::{IodtabGen, Level};

    fn dist(pcount: u16, ssize: u32) -> Distribution {
        Distribution { iodtab: IodtabGen(1), base: 0, pcount, ssize }
    }

    fn list(runs: &[(u64, u32)]) -> Ranges {
        Ranges::List(runs.iter().map(|&(offset, len)| Run { offset: ObjectOffset(offset), len }).collect())
    }

    fn strided(start: u64, len: u64, levels: &[(u64, u64)]) -> Ranges {
        let levels = levels.iter().map(|&(count, stride)| Level { count, stride }).collect();
        Ranges::Strided(Pattern { start: LogicalOffset(start), len, levels })
    }

    fn show(runs: &ObjectRuns) -> String {
        let runs: Vec<String> = runs.runs.iter().map(|run| format!("{}+{}", run.offset.0, run.len)).collect();
        runs.join(" ")
    }

    /// The runs over 4 slots with strips of 10 bytes, in slot 1.
    #[track_caller]
    fn check(ranges: &Ranges, expect: Result<&str, RangesError>) {
        let runs = expand(ranges, &dist(4, 10), Slot(1)).map(|runs| show(&runs));
        assert_eq!(runs, expect.map(str::to_owned));
    }

    #[test]
    fn listed_runs_keep_their_order_and_join_where_they_touch() {
        check(&list(&[(5, 3), (8, 2), (0, 1), (10, 1)]), Ok("5+5 0+1 10+1"));
        check(&list(&[]), Ok(""));
    }

    #[test]
    fn a_pattern_gives_the_slot_its_share_in_file_order() {
        // The file's bytes 10..20 and 50..60 are slot 1's strips 0 and 1.
        check(&strided(0, 60, &[]), Ok("0+20"));
        check(&strided(8, 4, &[(3, 40)]), Ok("0+2 10+2 20+2"));
        check(&strided(20, 5, &[(5, 40)]), Ok(""));
    }

    #[test]
    fn empty_ranges_are_refused() {
        check(&list(&[(5, 3), (9, 0)]), Err(RangesError::Empty { offset: 9 }));
        check(&strided(0, 0, &[]), Err(RangesError::Pattern(PatternError::Empty)));
        check(&strided(0, 1, &[(0, 1)]), Err(RangesError::Pattern(PatternError::Empty)));
    }

    #[test]
    fn ranges_past_the_largest_file_are_too_far() {
        for offset in [u64::MAX, u64::MAX - 3, FILE_BYTES_MAX, FILE_BYTES_MAX / 4] {
            check(&list(&[(offset, 4)]), Err(RangesError::TooFar));
        }
        check(&strided(u64::MAX, 1, &[]), Err(RangesError::TooFar));
        check(&strided(0, 1, &[(u64::MAX, u64::MAX)]), Err(RangesError::TooFar));
        check(&strided(FILE_BYTES_MAX, 1, &[]), Err(RangesError::TooFar));
        assert_eq!(Refusal::from(RangesError::TooFar).status, Status::Errno(Errno::EFBIG));
    }

    #[test]
    fn the_last_byte_of_the_largest_file_can_be_reached() {
        let one = dist(1, 4096);
        let runs = expand(&list(&[(FILE_BYTES_MAX - 1, 1)]), &one, Slot(0));
        assert_eq!(runs.map(|runs| runs.bytes), Ok(1));
        let runs = expand(&strided(FILE_BYTES_MAX - 1, 1, &[]), &one, Slot(0));
        assert_eq!(runs.map(|runs| runs.bytes), Ok(1));
    }

    #[test]
    fn more_pieces_or_bytes_than_the_bounds_are_refused() {
        let apart: Vec<(u64, u32)> = (0..=PIECES_MAX as u64).map(|n| (2 * n, 1)).collect();
        check(&list(&apart), Err(RangesError::TooManyPieces { max: PIECES_MAX }));
        assert!(expand(&list(&apart[1..]), &dist(4, 10), Slot(1)).is_ok());
        let half = PAYLOAD_BYTES_MAX / 2;
        check(&list(&[(0, half), (0, half), (0, 1)]), Err(RangesError::TooManyBytes { max: PAYLOAD_MAX }));
        check(&list(&[(0, u32::MAX)]), Err(RangesError::TooManyBytes { max: PAYLOAD_MAX }));
        check(&strided(0, 1 << 40, &[]), Err(RangesError::TooManyBytes { max: PAYLOAD_MAX }));
    }

    #[test]
    fn a_huge_pattern_is_refused_at_once() {
        let runs = 1 << 50;
        check(&strided(0, 1, &[(runs, 2)]), Err(RangesError::TooManyRuns { runs, max: PATTERN_RUNS_MAX }));
        let deep = strided(0, 1, &[(1 << 30, 1 << 32), (1 << 30, 2)]);
        check(&deep, Err(RangesError::TooManyRuns { runs: 1 << 60, max: PATTERN_RUNS_MAX }));
        // Touching runs are one, however many: only the bytes count.
        check(&strided(0, 1, &[(1 << 40, 1)]), Err(RangesError::TooManyBytes { max: PAYLOAD_MAX }));
        check(
            &strided(0, 1, &[(20, 1), (2, 1)]),
            Err(RangesError::Pattern(PatternError::Overlap { stride: 1, extent: 2 })),
        );
        check(&strided(0, 1, &[(20, 2), (2, 1)]), Ok("0+10"));
    }

    #[test]
    fn a_payload_of_another_length_is_refused() {
        let got = expand_payload(&list(&[(0, 5), (9, 2)]), &dist(4, 10), Slot(1), 8);
        assert_eq!(got, Err(RangesError::PayloadLength { ranges: 7, payload: 8 }));
        assert!(expand_payload(&list(&[(0, 5), (9, 2)]), &dist(4, 10), Slot(1), 7).is_ok());
    }

    /// Every byte of the pattern, one by one, that falls to the slot.
    fn model(pattern: &Pattern, dist: &Distribution, slot: Slot) -> Vec<u64> {
        let bytes = pattern.runs().flat_map(|(start, len)| start.0..start.0 + len);
        let pieces = bytes.flat_map(|at| dist.split(LogicalOffset(at), 1));
        pieces.filter(|piece| piece.slot == slot).map(|piece| piece.object.0).collect()
    }

    prop_compose! {
        fn any_pattern()(
            start in 0u64..200, len in 1u64..40, steps in proptest::collection::vec((1u64..5, 0u64..30), 0..4),
        ) -> Pattern {
            let mut levels = Vec::new();
            let mut extent = len;
            for (count, gap) in steps {
                let stride = extent + gap;
                levels.insert(0, Level { count, stride });
                extent += (count - 1) * stride;
            }
            Pattern { start: LogicalOffset(start), len, levels }
        }
    }

    proptest! {
        #[test]
        fn patterns_expand_to_what_dealing_each_byte_gives(
            pattern in any_pattern(), pcount in 1u16..6, ssize in 1u32..50,
        ) {
            let dist = dist(pcount, ssize);
            for slot in dist.slots() {
                let runs = expand(&Ranges::Strided(pattern.clone()), &dist, slot).unwrap();
                let bytes: Vec<u64> =
                    runs.runs.iter().flat_map(|run| run.offset.0..run.offset.0 + run.len as u64).collect();
                prop_assert_eq!(&bytes, &model(&pattern, &dist, slot));
                prop_assert_eq!(runs.bytes, bytes.len());
                let touching = runs.runs.windows(2).any(|w| w[0].offset.0 + w[0].len as u64 == w[1].offset.0);
                prop_assert!(!touching);
            }
        }

        #[test]
        fn no_numbers_make_the_expansion_panic_or_run_away(
            start: u64, len: u64, levels in proptest::collection::vec((any::<u64>(), any::<u64>()), 0..9),
            offset: u64, run_len: u32, pcount in 1u16.., ssize in 1u32.., slot: u16,
        ) {
            let dist = dist(pcount, ssize);
            let slot = Slot(slot % pcount);
            let _ = expand(&strided(start, len, &levels), &dist, slot);
            let _ = expand(&list(&[(offset, run_len)]), &dist, slot);
        }

        #[test]
        fn listed_runs_expand_to_the_same_bytes(
            runs in proptest::collection::vec((0u64..100, 1u32..20), 0..20), slot in 0u16..4,
        ) {
            let got = expand(&list(&runs), &dist(4, 10), Slot(slot)).unwrap();
            let bytes = |runs: &[(u64, u64)]| -> Vec<u64> { runs.iter().flat_map(|&(o, l)| o..o + l).collect() };
            let merged: Vec<(u64, u64)> = got.runs.iter().map(|run| (run.offset.0, run.len as u64)).collect();
            let asked: Vec<(u64, u64)> = runs.iter().map(|&(o, l)| (o, u64::from(l))).collect();
            prop_assert_eq!(bytes(&merged), bytes(&asked));
        }
    }
}
