//! Where a new file shall lie: pure choice over what is known of the targets. Knows no clock and no network.

use pvfs_types::{Distribution, IodtabGen, LayoutError, LayoutHint, limits};

/// What is known of the target at one place of the iodtab.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seat {
    /// It reports, or may yet report (the mgr has only just started).
    pub up: bool,
    /// It is nearly full; see [`is_nearly_full`].
    pub nearly_full: bool,
}

/// Below this many free bytes, or 2 % of the target where that is less, a target counts as nearly full.
const FREE_BYTES_MIN: u64 = 64 << 20;

/// Whether new files should go elsewhere. A target of unknown size is not full.
pub fn is_nearly_full(bytes_total: u64, bytes_free: u64) -> bool {
    bytes_total > 0 && bytes_free < (bytes_total / 50).min(FREE_BYTES_MIN)
}

/// Why there is no place for a new file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PlacementError {
    #[error(transparent)]
    Layout(#[from] LayoutError),
    #[error("the file system has no targets yet")]
    NoTargets,
}

/// Chooses the distribution of a new file over the targets at `seats` (the places of `iodtab`, in order).
///
/// What `hint` names is kept. What it leaves open is chosen so that the file avoids targets that are down or nearly
/// full: without a `pcount`, the longest run of good targets (the iodtab is a ring); with one, the run with the most
/// good targets. Where several are equally good, `turn` rotates among them. Where no target is good, those that are
/// at least up count as good, then all do: a create asks no iod, and whoever writes will wait or learn `ENOSPC`.
pub fn choose(
    iodtab: IodtabGen,
    seats: &[Seat],
    hint: LayoutHint,
    turn: usize,
) -> Result<Distribution, PlacementError> {
    if seats.is_empty() {
        return Err(PlacementError::NoTargets);
    }
    hint.check(seats.len())?;
    let good = good_seats(seats);
    let most = seats.len().min(usize::from(limits::PCOUNT_MAX));
    let (base, pcount) = match (hint.base, hint.pcount) {
        (Some(base), Some(pcount)) => (usize::from(base), usize::from(pcount)),
        (Some(base), None) => (usize::from(base), run_lengths(&good, most)[usize::from(base)].max(1)),
        (None, Some(pcount)) => {
            let pcount = usize::from(pcount);
            (best(&good_in_windows(&good, pcount), turn), pcount)
        }
        (None, None) => {
            let lengths = run_lengths(&good, most);
            let base = best(&lengths, turn);
            (base, lengths[base])
        }
    };
    Ok(Distribution {
        iodtab,
        base: narrow(base),
        pcount: narrow(pcount),
        ssize: hint.ssize.unwrap_or(limits::STRIP_BYTES_DEFAULT),
    })
}

/// Which seats to use: the best kind there is.
fn good_seats(seats: &[Seat]) -> Vec<bool> {
    let kinds: [fn(&Seat) -> bool; 3] = [|s| s.up && !s.nearly_full, |s| s.up, |_| true];
    kinds
        .into_iter()
        .map(|kind| seats.iter().map(kind).collect::<Vec<_>>())
        .find(|good| good.contains(&true))
        .unwrap_or_default()
}

/// For each place, how many good ones follow without a gap from it on, around the ring, counted up to `most`.
fn run_lengths(good: &[bool], most: usize) -> Vec<usize> {
    let mut lengths = vec![0; good.len()];
    let mut run = 0;
    for at in (0..good.len()).rev().chain((0..good.len()).rev()) {
        run = if good[at] { (run + 1).min(most) } else { 0 };
        lengths[at] = run;
    }
    lengths
}

/// For each place, how many of the `pcount` places from it on, around the ring, are good.
fn good_in_windows(good: &[bool], pcount: usize) -> Vec<usize> {
    let is_good = |at: usize| usize::from(good[at % good.len()]);
    let mut count: usize = (0..pcount).map(is_good).sum();
    (0..good.len())
        .map(|start| {
            let here = count;
            count = count + is_good(start + pcount) - is_good(start);
            here
        })
        .collect()
}

/// The place with the highest score; of several, each in its `turn`.
fn best(scores: &[usize], turn: usize) -> usize {
    let top = scores.iter().max().copied().unwrap_or(0);
    let tops: Vec<usize> = (0..scores.len()).filter(|&at| scores[at] == top).collect();
    tops[turn % tops.len()]
}

fn narrow(number: usize) -> u16 {
    u16::try_from(number).expect("an iodtab has at most limits::TARGETS_MAX places")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANY: LayoutHint = LayoutHint { base: None, pcount: None, ssize: None };

    /// `seats`: `u` up, `d` down, `f` nearly full, `x` both.
    fn seats(seats: &str) -> Vec<Seat> {
        seats
            .chars()
            .map(|c| Seat { up: matches!(c, 'u' | 'f'), nearly_full: matches!(c, 'f' | 'x') })
            .collect()
    }

    /// The choices of four turns, as `base+pcount`.
    fn check(shape: &str, hint: LayoutHint, expect: &str) {
        let chosen: Vec<String> = (0..4)
            .map(|turn| match choose(IodtabGen(3), &seats(shape), hint, turn) {
                Ok(d) => format!("{}+{}", d.base, d.pcount),
                Err(e) => format!("{e:?}"),
            })
            .collect();
        assert_eq!(chosen.join(" "), expect, "{shape} {hint:?}");
    }

    #[test]
    fn without_a_wish_a_file_lies_on_all_targets_and_the_base_rotates() {
        check("uuuu", ANY, "0+4 1+4 2+4 3+4");
        check("u", ANY, "0+1 0+1 0+1 0+1");
    }

    #[test]
    fn targets_that_are_down_or_nearly_full_are_avoided() {
        check("uudu", ANY, "3+3 3+3 3+3 3+3");
        check("fudu", ANY, "1+1 3+1 1+1 3+1");
        check("uudduu", ANY, "4+4 4+4 4+4 4+4");
    }

    #[test]
    fn where_no_target_is_good_the_better_ones_are_used() {
        check("dfd", ANY, "1+1 1+1 1+1 1+1");
        check("dd", ANY, "0+2 1+2 0+2 1+2");
    }

    #[test]
    fn a_wish_is_kept_whatever_is_down() {
        let hint = |base, pcount| LayoutHint { base, pcount, ssize: None };
        check("uudu", hint(Some(2), Some(2)), "2+2 2+2 2+2 2+2");
        check("uudu", hint(None, Some(4)), "0+4 1+4 2+4 3+4");
        check("uudu", hint(None, Some(2)), "0+2 3+2 0+2 3+2");
        check("uudu", hint(Some(3), None), "3+3 3+3 3+3 3+3");
        check("uudu", hint(Some(2), None), "2+1 2+1 2+1 2+1");
    }

    #[test]
    fn a_wish_that_cannot_be_served_is_refused() {
        let hint = LayoutHint { pcount: Some(3), ..ANY };
        let refused = LayoutError::Pcount { pcount: 3, targets: 2 };
        assert_eq!(choose(IodtabGen(1), &seats("uu"), hint, 0), Err(refused.into()));
        assert_eq!(choose(IodtabGen(1), &[], ANY, 0), Err(PlacementError::NoTargets));
    }

    #[test]
    fn a_file_never_lies_on_more_targets_than_allowed() {
        let many = vec![Seat { up: true, nearly_full: false }; 3000];
        let dist = choose(IodtabGen(1), &many, ANY, 2999).unwrap();
        assert_eq!((dist.base, dist.pcount, dist.ssize), (2999, 1024, 1 << 20));
    }

    #[test]
    fn nearly_full_is_two_percent_or_64_mib_whichever_is_less() {
        assert!(!is_nearly_full(0, 0), "not known yet");
        assert!(is_nearly_full(1 << 40, (64 << 20) - 1));
        assert!(!is_nearly_full(1 << 40, 64 << 20));
        assert!(is_nearly_full(1 << 30, (1 << 30) / 50 - 1));
        assert!(!is_nearly_full(1 << 30, (1 << 30) / 50));
    }
}
