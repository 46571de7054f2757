//! Where an object was written since its last sync: a few ranges. Pure.

use std::ops::Range;

/// More ranges are not kept: what lies between the two nearest is taken for written.
const RANGES_MAX: usize = 64;

/// In order, apart from each other. In bytes.
#[derive(Debug, Default)]
pub(crate) struct Unsynced(Vec<Range<u64>>);

impl Unsynced {
    /// Adds `range`.
    pub(crate) fn add(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        let touches = |old: &Range<u64>| old.start <= range.end && range.start <= old.end;
        let from = self.0.partition_point(|old| old.end < range.start);
        let touched = self.0[from..].iter().take_while(|old| touches(old)).count();
        let old = &self.0[from..from + touched];
        let start = old.first().map_or(range.start, |first| first.start.min(range.start));
        let end = old.last().map_or(range.end, |last| last.end.max(range.end));
        self.0.splice(from..from + touched, std::iter::once(start..end));
        if self.0.len() > RANGES_MAX {
            self.close_smallest_gap();
        }
    }

    fn close_smallest_gap(&mut self) {
        let gap = |at: usize| self.0[at + 1].start - self.0[at].end;
        if let Some(at) = (0..self.0.len() - 1).min_by_key(|&at| gap(at)) {
            self.0[at].end = self.0.remove(at + 1).end;
        }
    }

    pub(crate) fn ranges(&self) -> &[Range<u64>] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn of(ranges: &[Range<u64>]) -> Vec<Range<u64>> {
        let mut unsynced = Unsynced::default();
        for range in ranges {
            unsynced.add(range.clone());
        }
        unsynced.ranges().to_vec()
    }

    #[test]
    fn ranges_that_touch_become_one() {
        assert_eq!(of(&[0..4, 8..9, 4..8]), vec![0..9; 1]);
        assert_eq!(of(&[8..9, 0..4, 2..3, 5..5]), [0..4, 8..9]);
    }

    #[test]
    fn of_too_many_the_nearest_are_joined() {
        let far = |at: u64| at << 22..(at << 22) + 1;
        let mut ranges: Vec<_> = (0..64).map(far).collect();
        let near = far(3).start + 10..far(3).start + 11;
        ranges.push(near.clone());
        let found = of(&ranges);
        assert_eq!((found.len(), found[3].clone()), (64, far(3).start..near.end));
        ranges[64] = far(64);
        assert_eq!(of(&ranges).len(), 64, "of equal gaps, the first");
        assert_eq!(of(&ranges)[0], far(0).start..far(1).end);
    }

    proptest! {
        #[test]
        fn every_byte_that_was_added_is_in_one_range_and_no_other_is(
            adds in proptest::collection::vec((0..200_u64, 0..20_u64), 0..60),
        ) {
            let mut unsynced = Unsynced::default();
            let mut model = [false; 220];
            for (start, len) in adds {
                unsynced.add(start..start + len);
                (start..start + len).for_each(|at| model[usize::try_from(at).unwrap()] = true);
            }
            let ranges = unsynced.ranges();
            prop_assert!(ranges.windows(2).all(|pair| pair[0].end < pair[1].start));
            for (at, added) in model.iter().enumerate() {
                prop_assert_eq!(ranges.iter().any(|range| range.contains(&(at as u64))), *added);
            }
        }
    }
}
