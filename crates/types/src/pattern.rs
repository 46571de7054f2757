//! Noncontiguous access, described instead of listed: nested strided patterns, as MPI-IO's vector types make them.

use crate::LogicalOffset;
use minicbor::{Decode, Encode};

/// One level of repetition of a [`Pattern`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Level {
    /// How often; at least 1.
    #[n(0)]
    pub count: u64,
    /// Distance in bytes between the starts of two repetitions.
    #[n(1)]
    pub stride: u64,
}

/// A nested strided set of byte runs of a file: runs of `len` bytes from `start` on, repeated by each level,
/// the outermost level first.
///
/// Runs ascend and do not overlap: every level's stride is at least the extent of what it repeats.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Pattern {
    #[n(0)]
    pub start: LogicalOffset,
    #[n(1)]
    pub len: u64,
    #[n(2)]
    pub levels: Vec<Level>,
}

/// Why a pattern is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    #[error("a pattern has at most {max} levels, this one has {levels}")]
    TooDeep { levels: usize, max: usize },
    #[error("a pattern's run length and counts must not be 0")]
    Empty,
    #[error(
        "a pattern's runs must not overlap: stride {stride} is below the extent {extent} of what it repeats"
    )]
    Overlap { stride: u64, extent: u64 },
    #[error("a pattern must end below 2^63 bytes")]
    TooFar,
}

impl Pattern {
    /// Deepest nesting.
    pub const LEVELS_MAX: usize = 8;

    /// Holds the pattern against its own rules; returns its extent in bytes, from `start` to its last byte's end.
    pub fn check(&self) -> Result<u64, PatternError> {
        if self.levels.len() > Self::LEVELS_MAX {
            return Err(PatternError::TooDeep { levels: self.levels.len(), max: Self::LEVELS_MAX });
        }
        let mut extent = self.len;
        if extent == 0 {
            return Err(PatternError::Empty);
        }
        for level in self.levels.iter().rev() {
            if level.count == 0 {
                return Err(PatternError::Empty);
            }
            if level.count > 1 && level.stride < extent {
                return Err(PatternError::Overlap { stride: level.stride, extent });
            }
            extent = (level.count - 1)
                .checked_mul(level.stride)
                .and_then(|s| s.checked_add(extent))
                .ok_or(PatternError::TooFar)?;
        }
        let end = self.start.0.checked_add(extent).ok_or(PatternError::TooFar)?;
        if end > crate::limits::FILE_BYTES_MAX {
            return Err(PatternError::TooFar);
        }
        Ok(extent)
    }

    /// How many runs; `u64::MAX` where that overflows. The pattern was checked.
    pub fn run_count(&self) -> u64 {
        self.levels.iter().fold(1, |n: u64, level| n.saturating_mul(level.count))
    }

    /// How many bytes in all runs; `u64::MAX` where that overflows.
    pub fn byte_count(&self) -> u64 {
        self.run_count().saturating_mul(self.len)
    }

    /// The runs in ascending order, as `(offset, length)`. The pattern was checked.
    pub fn runs(&self) -> impl Iterator<Item = (LogicalOffset, u64)> + '_ {
        let mut counters = vec![0u64; self.levels.len()];
        let mut done = false;
        std::iter::from_fn(move || {
            if done {
                return None;
            }
            let shift: u64 = counters.iter().zip(&self.levels).map(|(n, level)| n * level.stride).sum();
            let run = (LogicalOffset(self.start.0 + shift), self.len);
            // Count up like an odometer, the innermost level first.
            done = true;
            for (n, level) in counters.iter_mut().zip(&self.levels).rev() {
                *n += 1;
                if *n < level.count {
                    done = false;
                    break;
                }
                *n = 0;
            }
            Some(run)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pattern(start: u64, len: u64, levels: &[(u64, u64)]) -> Pattern {
        let levels = levels.iter().map(|&(count, stride)| Level { count, stride }).collect();
        Pattern { start: LogicalOffset(start), len, levels }
    }

    #[test]
    fn nested_levels_repeat_from_the_outermost() {
        let p = pattern(5, 2, &[(2, 100), (3, 10)]);
        assert_eq!(p.check(), Ok(122));
        let starts: Vec<u64> = p.runs().map(|(at, _)| at.0).collect();
        assert_eq!(starts, [5, 15, 25, 105, 115, 125]);
        assert_eq!((p.run_count(), p.byte_count()), (6, 12));
    }

    #[test]
    fn a_pattern_without_levels_is_one_run() {
        assert_eq!(pattern(7, 3, &[]).runs().collect::<Vec<_>>(), [(LogicalOffset(7), 3)]);
    }

    #[test]
    fn patterns_that_overlap_or_overflow_are_refused() {
        assert_eq!(pattern(0, 0, &[]).check(), Err(PatternError::Empty));
        assert_eq!(pattern(0, 1, &[(0, 1)]).check(), Err(PatternError::Empty));
        assert_eq!(pattern(0, 5, &[(2, 4)]).check(), Err(PatternError::Overlap { stride: 4, extent: 5 }));
        assert_eq!(pattern(0, 1, &[(u64::MAX, u64::MAX)]).check(), Err(PatternError::TooFar));
        assert_eq!(pattern(u64::MAX, 1, &[]).check(), Err(PatternError::TooFar));
        assert!(matches!(pattern(0, 1, &[(1, 1); 9]).check(), Err(PatternError::TooDeep { .. })));
    }
}
