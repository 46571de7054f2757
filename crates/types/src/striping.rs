//! Striping: which bytes of a file lie where. Pure arithmetic, and the only place that does it.
//!
//! Strip `n` of a file (its bytes `n * ssize .. (n + 1) * ssize`) lies in slot `n % pcount`, there as strip
//! `n / pcount`; slot `i` is on the target at place `(base + i) % len` of the file's iodtab. Source: the simple
//! striping of PVFS (base, pcount, ssize).

use crate::{Errno, IodtabGen, Slot, limits};
use minicbor::{Decode, Encode};

/// A position in a file, in bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct LogicalOffset(#[n(0)] pub u64);

/// A position in one target's object, in bytes. Never compare it with a [`LogicalOffset`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Encode, Decode)]
#[cbor(transparent)]
pub struct ObjectOffset(#[n(0)] pub u64);

/// How one file's bytes are dealt to targets. Set at creation, never changed: twelve bytes, whatever the
/// cluster's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Encode, Decode)]
pub struct Distribution {
    /// The list of targets that `base` counts in.
    #[n(0)]
    pub iodtab: IodtabGen,
    /// The place in the iodtab of the target that holds the first strip.
    #[n(1)]
    pub base: u16,
    /// Over how many targets; at least 1.
    #[n(2)]
    pub pcount: u16,
    /// Strip size in bytes; a multiple of 4 KiB.
    #[n(3)]
    pub ssize: u32,
}

/// A wish for the distribution of new files; `None` leaves the choice to the system.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Encode, Decode)]
pub struct LayoutHint {
    #[n(0)]
    pub base: Option<u16>,
    #[n(1)]
    pub pcount: Option<u16>,
    #[n(2)]
    pub ssize: Option<u32>,
}

/// Why a wished layout cannot be had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    #[error("strip size {ssize} is not allowed: it must be a multiple of 4096 from 4096 to 1073741824 bytes")]
    StripSize { ssize: u32 },
    #[error("pcount {pcount} is not allowed: it must be from 1 to the number of targets, {targets}")]
    Pcount { pcount: u16, targets: usize },
    #[error("base {base} is out of range: the iodtab has {targets} targets, counted from 0")]
    Base { base: u16, targets: usize },
}

impl LayoutError {
    pub fn errno(self) -> Errno {
        Errno::EINVAL
    }
}

impl LayoutHint {
    /// Whether a file system with `targets` targets can serve this wish.
    pub fn check(&self, targets: usize) -> Result<(), LayoutError> {
        if let Some(ssize) = self.ssize
            && (!(limits::STRIP_BYTES_MIN..=limits::STRIP_BYTES_MAX).contains(&ssize)
                || !ssize.is_multiple_of(limits::STRIP_BYTES_MIN))
        {
            return Err(LayoutError::StripSize { ssize });
        }
        if let Some(pcount) = self.pcount
            && (pcount == 0 || pcount > limits::PCOUNT_MAX || usize::from(pcount) > targets)
        {
            return Err(LayoutError::Pcount { pcount, targets });
        }
        if let Some(base) = self.base
            && usize::from(base) >= targets
        {
            return Err(LayoutError::Base { base, targets });
        }
        Ok(())
    }

    /// `self`, with what it leaves open taken from `parent`.
    #[must_use]
    pub fn or(self, parent: LayoutHint) -> LayoutHint {
        LayoutHint {
            base: self.base.or(parent.base),
            pcount: self.pcount.or(parent.pcount),
            ssize: self.ssize.or(parent.ssize),
        }
    }
}

/// A run of a file's bytes that lies in one object without a gap.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Piece {
    pub slot: Slot,
    pub object: ObjectOffset,
    pub logical: LogicalOffset,
    pub len: u64,
}

impl Distribution {
    /// Deals the logical bytes `start..start + len` to slots, in file order, one piece a strip touched.
    ///
    /// The lengths sum to `len`. `start + len` must fit in `u64` (the edges answer `EFBIG` otherwise).
    pub fn split(&self, start: LogicalOffset, len: u64) -> impl Iterator<Item = Piece> + use<> {
        let (ssize, pcount) = (u64::from(self.ssize), u64::from(self.pcount));
        let (mut at, end) = (start.0, start.0 + len);
        std::iter::from_fn(move || {
            if at >= end {
                return None;
            }
            let (strip, within) = (at / ssize, at % ssize);
            let piece_len = (ssize - within).min(end - at);
            let piece = Piece {
                slot: slot_of(strip % pcount),
                object: ObjectOffset(strip / pcount * ssize + within),
                logical: LogicalOffset(at),
                len: piece_len,
            };
            at += piece_len;
            Some(piece)
        })
    }

    /// The pieces of [`Distribution::split`] that lie in `slot`, without walking over the others. Start and end are at
    /// most `limits::FILE_BYTES_MAX`.
    pub fn split_slot(
        &self,
        start: LogicalOffset,
        len: u64,
        slot: Slot,
    ) -> impl Iterator<Item = Piece> + use<> {
        let (ssize, pcount) = (u64::from(self.ssize), u64::from(self.pcount));
        let (start, end) = (start.0, start.0 + len);
        let first = start / ssize;
        let to_mine = (u64::from(slot.0) + pcount - first % pcount) % pcount;
        let strips =
            (0..).map(move |n| first + to_mine + n * pcount).take_while(move |strip| strip * ssize < end);
        strips.map(move |strip| {
            let (from, to) = (start.max(strip * ssize), end.min((strip + 1) * ssize));
            Piece {
                slot,
                object: ObjectOffset(strip / pcount * ssize + from % ssize),
                logical: LogicalOffset(from),
                len: to - from,
            }
        })
    }

    /// The position in the file of byte `offset` of the object in `slot`; `None` where that is past `u64`.
    pub fn logical(&self, slot: Slot, offset: ObjectOffset) -> Option<LogicalOffset> {
        let (ssize, pcount) = (u64::from(self.ssize), u64::from(self.pcount));
        let strip = (offset.0 / ssize).checked_mul(pcount)?.checked_add(u64::from(slot.0))?;
        Some(LogicalOffset(strip.checked_mul(ssize)?.checked_add(offset.0 % ssize)?))
    }

    /// How long a file is of which the object in `slot` is `object_len` bytes long and no other object reaches
    /// further: the end of that object's last byte. 0 for an empty object; `u64::MAX` where it would overflow.
    pub fn size_from_object(&self, slot: Slot, object_len: u64) -> u64 {
        let Some(last) = object_len.checked_sub(1) else { return 0 };
        self.logical(slot, ObjectOffset(last)).and_then(|at| at.0.checked_add(1)).unwrap_or(u64::MAX)
    }

    /// How long the object in `slot` may be in a file of `size` bytes: what a truncation to `size` leaves of it.
    pub fn object_len(&self, slot: Slot, size: u64) -> u64 {
        let (ssize, pcount) = (u64::from(self.ssize), u64::from(self.pcount));
        let (full_strips, rest) = (size / ssize, size % ssize);
        let (rounds, last_slot) = (full_strips / pcount, full_strips % pcount);
        let mine = u64::from(slot.0);
        rounds * ssize
            + match mine.cmp(&last_slot) {
                std::cmp::Ordering::Less => ssize,
                std::cmp::Ordering::Equal => rest,
                std::cmp::Ordering::Greater => 0,
            }
    }

    /// All slots of the file.
    pub fn slots(&self) -> impl Iterator<Item = Slot> + use<> {
        (0..self.pcount).map(Slot)
    }

    /// The place of `slot`'s target in an iodtab of `targets` entries. `targets` is not 0.
    pub fn place(&self, slot: Slot, targets: usize) -> usize {
        (usize::from(self.base) + usize::from(slot.0)) % targets
    }
}

fn slot_of(number: u64) -> Slot {
    Slot(u16::try_from(number).expect("a remainder by pcount, which is a u16"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn dist(pcount: u16, ssize: u32) -> Distribution {
        Distribution { iodtab: IodtabGen(1), base: 0, pcount, ssize }
    }

    /// Pieces of `start..start + len` over 3 slots with strips of 10, as `slot@object+len`.
    fn check(start: u64, len: u64, expect: &str) {
        let shown: Vec<String> = dist(3, 10)
            .split(LogicalOffset(start), len)
            .map(|p| format!("{}@{}+{}", p.slot, p.object.0, p.len))
            .collect();
        assert_eq!(shown.join(" "), expect);
    }

    #[test]
    fn range_in_one_strip_is_one_piece() {
        check(12, 5, "slot1@2+5");
    }

    #[test]
    fn range_over_a_stripe_returns_to_the_first_target() {
        check(28, 5, "slot2@8+2 slot0@10+3");
    }

    #[test]
    fn empty_range_has_no_pieces() {
        check(28, 0, "");
    }

    #[test]
    fn truncation_leaves_each_object_its_share() {
        let d = dist(3, 10);
        let shares = |size| d.slots().map(|s| d.object_len(s, size)).collect::<Vec<_>>();
        assert_eq!(shares(0), [0, 0, 0]);
        assert_eq!(shares(1), [1, 0, 0]);
        assert_eq!(shares(10), [10, 0, 0]);
        assert_eq!(shares(31), [11, 10, 10]);
        assert_eq!(shares(59), [20, 20, 19]);
    }

    #[test]
    fn wishes_that_cannot_be_served_are_refused() {
        let check = |base, pcount, ssize, ok: bool| {
            assert_eq!(
                LayoutHint { base, pcount, ssize }.check(4).is_ok(),
                ok,
                "{base:?} {pcount:?} {ssize:?}"
            );
        };
        check(None, None, None, true);
        check(Some(3), Some(4), Some(65536), true);
        check(None, None, Some(0), false);
        check(None, None, Some(4097), false);
        check(None, None, Some(u32::MAX), false);
        check(None, Some(0), None, false);
        check(None, Some(5), None, false);
        check(Some(4), None, None, false);
    }

    prop_compose! {
        fn any_dist()(pcount in 1u16..=32, pages in 1u32..=512) -> Distribution {
            dist(pcount, pages * 4096)
        }
    }

    proptest! {
        #[test]
        fn pieces_cover_the_range_once_and_in_order(
            d in any_dist(), start in 0u64..=1 << 40, len in 0u64..=100 << 20,
        ) {
            let mut at = start;
            for p in d.split(LogicalOffset(start), len) {
                prop_assert_eq!(p.logical.0, at);
                prop_assert!(p.len > 0 && p.len <= u64::from(d.ssize));
                prop_assert_eq!(d.logical(p.slot, p.object), Some(p.logical));
                let last = ObjectOffset(p.object.0 + p.len - 1);
                prop_assert_eq!(d.logical(p.slot, last), Some(LogicalOffset(at + p.len - 1)));
                at += p.len;
            }
            prop_assert_eq!(at, start + len);
        }

        #[test]
        fn a_slot_s_pieces_are_those_of_the_whole_split(
            d in any_dist(), start in 0u64..=1 << 40, len in 0u64..=100 << 20,
        ) {
            for slot in d.slots() {
                let of_all: Vec<_> = d.split(LogicalOffset(start), len).filter(|p| p.slot == slot).collect();
                prop_assert_eq!(d.split_slot(LogicalOffset(start), len, slot).collect::<Vec<_>>(), of_all);
            }
        }

        #[test]
        fn object_lengths_and_file_size_agree(d in any_dist(), size in 0u64..=1 << 45) {
            let lens: Vec<u64> = d.slots().map(|s| d.object_len(s, size)).collect();
            prop_assert_eq!(lens.iter().sum::<u64>(), size);
            let back = d.slots().zip(&lens).map(|(s, &len)| d.size_from_object(s, len)).max();
            prop_assert_eq!(back, Some(size));
        }

        #[test]
        fn sizes_at_the_edge_of_u64_do_not_overflow(d in any_dist(), back in 0u64..=1 << 20, slot in 0u16..32) {
            let offset = u64::MAX - back;
            d.size_from_object(Slot(slot), offset);
            d.object_len(Slot(slot), offset);
            prop_assert_eq!(d.split(LogicalOffset(offset), back).map(|p| p.len).sum::<u64>(), back);
        }
    }
}
