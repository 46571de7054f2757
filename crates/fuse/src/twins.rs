//! What the kernel's pages held when it got them, so that of a page that it writes back only those bytes are written that
//! were changed here.
//!
//! Programs on several mounts may map one file, and change different bytes of one page, each under a lock of its own. The kernel
//! writes back whole pages; written as they come, they would undo what others have changed beside. (Distributed shared
//! memory calls this twins and diffs: Carter, Bennett, Zwaenepoel, "Implementation and Performance of Munin", 1991.)
//!
//! Only files that are open for reading and writing can be mapped so. Of each its first MiB is remembered: what is beyond is
//! written back as it comes. Pure.

use pvfs_types::Ino;
use std::{
    collections::{BTreeMap, HashMap},
    iter::once,
    ops::Range,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// The unit in which the kernel is reckoned to get pages and to write them back, in bytes.
pub const PAGE_BYTES: u64 = PAGE as u64;
const PAGE: usize = 4096;
/// From here on nothing is remembered of a file.
const FILE_BYTES_MAX: u64 = 1 << 20;
/// Of all files together.
const PAGES_MAX: usize = 1 << 14;
/// What processors store as one. Bytes between two changed ones of it were changed with them.
const WORD_BYTES: usize = 8;

/// The remembered pages of all files that can be mapped to be changed.
#[derive(Debug, Default)]
pub struct Twins {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    files: HashMap<Ino, FileTwins>,
    /// How many pages of all files are remembered.
    pages: usize,
}

#[derive(Debug, Default)]
struct FileTwins {
    /// Handles for reading and writing.
    handles: u32,
    /// It was locked here: what is changed in memory is for those to see who lock it next.
    is_locked: bool,
    /// A former worker gave the kernel pages of it.
    is_inherited: bool,
    /// By page number.
    pages: BTreeMap<u64, Box<[u8]>>,
}

impl Twins {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle of `ino` for reading and writing is given to the kernel.
    pub fn opened(&self, ino: Ino) {
        self.state().files.entry(ino).or_default().handles += 1;
    }

    /// A former worker gave the kernel such a handle.
    pub fn inherited(&self, ino: Ino) {
        let mut state = self.state();
        let file = state.files.entry(ino).or_default();
        (file.handles, file.is_locked, file.is_inherited) = (file.handles + 1, true, true);
    }

    /// `ino` is locked through this mount.
    pub fn locked(&self, ino: Ino) {
        if let Some(file) = self.state().files.get_mut(&ino) {
            file.is_locked = true;
        }
    }

    /// Such a handle is closed. With the last one all maps are gone, and what was changed by them is written.
    pub fn closed(&self, ino: Ino) {
        let state = &mut *self.state();
        let Some(file) = state.files.get_mut(&ino) else { return };
        file.handles = file.handles.saturating_sub(1);
        if file.handles == 0 {
            state.pages -= file.pages.len();
            state.files.remove(&ino);
        }
    }

    /// Whether the kernel may have pages of `ino` that programs have changed in memory under locks.
    pub fn may_be_changed(&self, ino: Ino) -> bool {
        let state = self.state();
        let file = state.files.get(&ino).filter(|file| file.is_locked);
        file.is_some_and(|file| file.is_inherited || !file.pages.is_empty())
    }

    /// The kernel is about to get `bytes` for its pages of `ino` from `offset` on, and has zeros behind them up to `len` bytes.
    pub fn filled(&self, ino: Ino, offset: u64, bytes: &[u8], len: usize) {
        if offset >= FILE_BYTES_MAX {
            return;
        }
        let state = &mut *self.state();
        let Some(file) = state.files.get_mut(&ino) else { return };
        for (number, range) in pages_of(offset, len) {
            let is_beyond = number * PAGE_BYTES >= FILE_BYTES_MAX || state.pages >= PAGES_MAX;
            if is_beyond && !file.pages.contains_key(&number) {
                continue;
            }
            let mut page = vec![0; PAGE].into_boxed_slice();
            if let Some(found) = bytes.get(range.start..range.end.min(bytes.len())) {
                page[..found.len()].copy_from_slice(found);
            }
            state.pages += usize::from(file.pages.insert(number, page).is_none());
        }
    }

    /// `bytes` were written at `offset`, and stand in the kernel's pages too.
    pub fn wrote(&self, ino: Ino, offset: u64, bytes: &[u8]) {
        if let Some(file) = self.state().files.get_mut(&ino) {
            file.put(offset, bytes);
        }
    }

    /// From `start` to `end` the file, and the kernel's pages of it, hold zeros.
    pub fn zeroed(&self, ino: Ino, start: u64, end: u64) {
        if let Some(file) = self.state().files.get_mut(&ino) {
            for (page, range, _) in file.parts(start, end) {
                page[range].fill(0);
            }
        }
    }

    /// The kernel writes `bytes` of its pages back to `offset`. Gives which of them were changed here, in their order.
    pub fn written_back(&self, ino: Ino, offset: u64, bytes: &[u8]) -> Vec<Range<usize>> {
        let mut state = self.state();
        let Some(file) = state.files.get_mut(&ino) else { return once(0..bytes.len()).collect() };
        let mut runs: Vec<Range<usize>> = Vec::new();
        let mut add = |run: Range<usize>| match runs.last_mut() {
            Some(last) if last.end == run.start => last.end = run.end,
            _ => runs.push(run),
        };
        for (number, range) in pages_of(offset, bytes.len()) {
            let now = &bytes[range.clone()];
            match file.pages.get(&number) {
                Some(then) => changed(then, now, |run| add(range.start + run.start..range.start + run.end)),
                None => add(range),
            }
        }
        file.put(offset, bytes);
        runs
    }
}

impl FileTwins {
    /// What is remembered of the bytes from `start` to `end`: of each page the part, and how far from `start` that begins.
    fn parts(&mut self, start: u64, end: u64) -> impl Iterator<Item = (&mut [u8], Range<usize>, usize)> {
        let numbers = start / PAGE_BYTES..end.max(start).div_ceil(PAGE_BYTES);
        self.pages.range_mut(numbers).map(move |(number, page)| {
            let first = number * PAGE_BYTES;
            let (from, to) = (start.max(first), end.min(first + PAGE_BYTES).max(start.max(first)));
            // All of it lies within the first MiB, or behind `start` by less than a request is long.
            let size = |bytes: u64| usize::try_from(bytes).unwrap_or(usize::MAX);
            (&mut page[..], size(from - first)..size(to - first), size(from - start))
        })
    }

    /// What is remembered of these bytes is as they are now.
    fn put(&mut self, offset: u64, bytes: &[u8]) {
        for (page, range, skip) in self.parts(offset, offset.saturating_add(bytes.len() as u64)) {
            let len = range.len();
            page[range].copy_from_slice(&bytes[skip..skip + len]);
        }
    }
}

/// The pages that `len` bytes from `offset` on touch, by number, each with its part of these bytes. (The kernel begins where a
/// page does.)
fn pages_of(offset: u64, len: usize) -> impl Iterator<Item = (u64, Range<usize>)> {
    (0..len.div_ceil(PAGE))
        .map(move |n| (offset / PAGE_BYTES + n as u64, n * PAGE..(n * PAGE + PAGE).min(len)))
}

/// Calls `found` for each run of bytes that `now` has other than `then`, in order.
fn changed(then: &[u8], now: &[u8], mut found: impl FnMut(Range<usize>)) {
    for (word, bytes) in now.chunks(WORD_BYTES).enumerate() {
        let start = word * WORD_BYTES;
        let differs = |at: &usize| bytes[*at] != then[start + at];
        if let (Some(first), Some(last)) = ((0..bytes.len()).find(differs), (0..bytes.len()).rfind(differs)) {
            found(start + first..start + last + 1);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Ino = Ino(5);

    /// What is to be written of pages that are written back: where it starts, and where it ends.
    fn runs(twins: &Twins, ino: Ino, offset: u64, bytes: &[u8]) -> Vec<(usize, usize)> {
        let runs = twins.written_back(ino, offset, bytes);
        runs.into_iter().map(|run| (run.start, run.end)).collect()
    }

    fn opened() -> Twins {
        let twins = Twins::default();
        twins.opened(F);
        twins
    }

    #[test]
    fn of_a_page_that_is_written_back_only_what_was_changed_here_is_to_be_written() {
        let twins = opened();
        let mut page = vec![7; PAGE];
        twins.filled(F, 0, &page, PAGE);
        assert_eq!(runs(&twins, F, 0, &page), []);
        (page[0], page[17], page[19], page[4095]) = (1, 1, 1, 1);
        assert_eq!(runs(&twins, F, 0, &page), [(0, 1), (17, 20), (4095, 4096)], "one word is changed as one");
        assert_eq!(runs(&twins, F, 0, &page), [], "once");
        page[8..24].fill(2);
        assert_eq!(runs(&twins, F, 0, &page), [(8, 24)]);
    }

    #[test]
    fn behind_what_was_read_a_page_held_zeros() {
        let twins = opened();
        twins.filled(F, 0, &[7; 10], 2 * PAGE);
        let mut pages = vec![0; 2 * PAGE];
        pages[..10].fill(7);
        assert_eq!(runs(&twins, F, 0, &pages), []);
        pages[5000] = 1;
        assert_eq!(runs(&twins, F, 4096, &pages[4096..5100]), [(904, 905)], "up to the file's end");
    }

    #[test]
    fn what_was_written_by_calls_is_not_taken_for_changed_in_memory() {
        let twins = opened();
        twins.filled(F, 0, &[0; 2 * PAGE], 2 * PAGE);
        twins.wrote(F, 4090, b"written over a border");
        twins.zeroed(F, 4100, u64::MAX);
        let mut pages = vec![0; 2 * PAGE];
        pages[4090..4100].copy_from_slice(b"written ov");
        assert_eq!(runs(&twins, F, 0, &pages), []);
        twins.zeroed(F, 0, u64::MAX);
        assert_eq!(runs(&twins, F, 0, &pages), [(4090, 4100)]);
    }

    #[test]
    fn pages_that_are_not_known_are_written_as_they_come() {
        let twins = opened();
        twins.filled(F, 4096, &[0; PAGE], PAGE);
        assert_eq!(runs(&twins, F, 0, &[0; 3 * PAGE]), [(0, 4096), (8192, 12288)]);
        assert_eq!(runs(&twins, Ino(6), 0, &[0; 10]), [(0, 10)]);
        twins.filled(F, FILE_BYTES_MAX, &[0; PAGE], PAGE);
        assert_eq!(runs(&twins, F, FILE_BYTES_MAX, &[0; PAGE]), [(0, PAGE)]);
    }

    #[test]
    fn pages_are_for_others_to_see_where_the_file_is_locked() {
        let twins = opened();
        twins.filled(F, 0, &[0; PAGE], PAGE);
        assert!(!twins.may_be_changed(F));
        twins.locked(F);
        assert!(twins.may_be_changed(F));
        twins.inherited(Ino(6));
        assert!(twins.may_be_changed(Ino(6)), "a former worker's");
    }

    #[test]
    fn memory_is_bounded_and_goes_with_the_last_handle() {
        let twins = opened();
        let mib_of_zeros = vec![0; 1 << 20];
        for ino in 0..100 {
            twins.opened(Ino(ino));
            for mib in 0..2 {
                twins.filled(Ino(ino), mib << 20, &mib_of_zeros, 1 << 20);
            }
        }
        assert_eq!(twins.state().pages, PAGES_MAX);
        twins.closed(F);
        assert!(twins.state().files.contains_key(&F), "another one has it open");
        (0..100).for_each(|ino| twins.closed(Ino(ino)));
        let state = twins.state();
        assert!(state.files.is_empty() && state.pages == 0);
    }
}
