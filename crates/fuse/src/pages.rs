//! Which pages the kernel may hold of a file, by the delegation under which they were read. Pure.
//!
//! A file that is open goes through the kernel's page cache as long as it lives, also when it becomes shared. What makes that
//! right: before each read the kernel asks for the attributes, if it does not hold them as valid, and drops its pages where
//! the time of change is another than it had. So who reads is told a time that goes with the delegation, and without one a
//! time that was never told before.
//!
//! Attributes are valid without being asked for, until the kernel is told otherwise, only where that telling cannot overtake
//! an answer with news: the kernel takes no notice of such an answer. So a reader must have come back once first.

use pvfs_types::Ino;
use std::{
    collections::HashMap,
    sync::{Mutex, MutexGuard, PoisonError},
};

/// When there are more files, those that are not open are forgotten: their pages count as old.
const FILES_MAX: usize = 1 << 18;

/// The pages of all files that were opened through the page cache.
#[derive(Debug, Default)]
pub struct Pages {
    files: Mutex<HashMap<Ino, FilePages>>,
}

#[derive(Debug)]
struct FilePages {
    /// Handles that are open through the page cache.
    handles: u32,
    /// The delegation under which every page was read; `None`: there may be others.
    under: Option<u64>,
    /// A delegation, the thread that was told of the attributes first under it, and whether it has taken notice.
    told: Option<(u64, u32, bool)>,
    /// The kernel may go by attributes without asking.
    is_trusted: bool,
    /// A former worker's handles are among them: the kernel may go by what that told it, or wait for news that it asked that for.
    is_inherited: bool,
}

/// How it is taken back that the kernel goes by attributes of an inode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TakeBack {
    /// It does not.
    Nothing,
    /// By a notice.
    Notice,
    /// It goes by nothing but what a former worker told it, which times out. A notice may overtake news.
    TimesOut,
}

/// What a reader is to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reader {
    /// The attributes, by which the kernel may go from now on.
    Trusts,
    /// The attributes; the pages are good.
    Asks,
    /// The attributes with the delegation's own time of change: the pages may be old when it is first told.
    Tagged,
}

impl FilePages {
    fn new(is_trusted: bool, is_inherited: bool) -> FilePages {
        FilePages { handles: 0, under: None, told: None, is_trusted, is_inherited }
    }
}

impl Pages {
    fn files(&self) -> MutexGuard<'_, HashMap<Ino, FilePages>> {
        self.files.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A handle of `ino` is given to the kernel, which drops what pages it has unless this says that it may keep them.
    /// `is_trusted`: it may go by attributes of `ino` already.
    pub fn opened(&self, ino: Ino, delegation: Option<u64>, is_trusted: bool) -> bool {
        let mut files = self.files();
        if files.len() >= FILES_MAX && !files.contains_key(&ino) {
            // Of what is not known here, the kernel may hold anything.
            files.retain(|_, file| file.handles > 0);
        }
        let file = files.entry(ino).or_insert_with(|| FilePages::new(is_trusted, false));
        let keeps = file.under.is_some() && file.under == delegation;
        if !keeps && file.handles == 0 {
            // No page can come before the old ones are gone.
            file.under = delegation;
        }
        file.handles += 1;
        keeps
    }

    /// Whether all pages that the kernel has of `ino` are good.
    pub fn are_good(&self, ino: Ino, delegation: Option<u64>) -> bool {
        delegation.is_some() && self.files().get(&ino).is_some_and(|file| file.under == delegation)
    }

    /// A former worker gave the kernel a handle of `ino`, through the page cache or past it.
    pub fn inherited(&self, ino: Ino, through_pages: bool) {
        let mut files = self.files();
        files.entry(ino).or_insert_with(|| FilePages::new(false, true)).handles += u32::from(through_pages);
    }

    /// A handle is closed. The kernel goes on holding the pages.
    pub fn closed(&self, ino: Ino) {
        if let Some(file) = self.files().get_mut(&ino) {
            file.handles = file.handles.saturating_sub(1);
        }
    }

    /// The kernel may get pages of `ino` that were read under `delegation`. To be called before it gets them.
    pub fn filled(&self, ino: Ino, delegation: Option<u64>) {
        if let Some(file) = self.files().get_mut(&ino)
            && file.under != delegation
        {
            file.under = None;
        }
    }

    /// The thread `tid` asks before it reads `ino`, and is told what is known under `delegation`.
    pub fn read(&self, ino: Ino, delegation: u64, tid: u32) -> Reader {
        let mut files = self.files();
        let Some(file) = files.get_mut(&ino) else { return Reader::Tagged };
        if file.under != Some(delegation) {
            return Reader::Tagged;
        }
        let told = file.told.filter(|(of, ..)| *of == delegation);
        let (_, first, noticed) = told.unwrap_or((delegation, tid, false));
        // It has taken notice of the first answer, else it would not ask again. (0: nobody knows which thread it is.)
        let noticed = noticed || told.is_some() && first == tid && tid != 0;
        file.told = Some((delegation, first, noticed));
        file.is_trusted |= noticed;
        if noticed { Reader::Trusts } else { Reader::Asks }
    }

    /// How to take back that the kernel goes by attributes of `ino` without asking. To be asked when that is recalled.
    pub fn recalled(&self, ino: Ino) -> TakeBack {
        match self.files().get_mut(&ino) {
            None => TakeBack::Notice,
            Some(file) if file.is_trusted => {
                file.is_trusted = false;
                TakeBack::Notice
            }
            Some(file) if file.is_inherited => TakeBack::TimesOut,
            Some(_) => TakeBack::Nothing,
        }
    }

    /// Whether `ino` is open through the page cache.
    pub fn are_open(&self, ino: Ino) -> bool {
        self.files().get(&ino).is_some_and(|file| file.handles > 0)
    }

    /// Whether `ino` was opened through the page cache.
    pub fn has(&self, ino: Ino) -> bool {
        self.files().contains_key(&ino)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const F: Ino = Ino(5);

    #[test]
    fn pages_are_kept_over_opens_only_if_all_were_read_under_one_delegation() {
        let pages = Pages::default();
        assert!(!pages.opened(F, Some(1), false), "the kernel may hold any");
        pages.filled(F, Some(1));
        assert!(pages.are_good(F, Some(1)) && !pages.are_good(F, None) && !pages.are_good(Ino(6), Some(1)));
        assert!(pages.opened(F, Some(1), false));
        pages.closed(F);
        assert!(!pages.opened(F, Some(2), false), "those of another delegation");
        assert_eq!(pages.read(F, 2, 7), Reader::Tagged, "the first handle may have read on");
        pages.closed(F);
        pages.closed(F);
        assert!(!pages.opened(F, Some(2), false));
        assert_eq!(pages.read(F, 2, 7), Reader::Asks, "the old ones were dropped first");
        pages.filled(F, None);
        assert_eq!(pages.read(F, 2, 7), Reader::Tagged);
        pages.closed(F);
        assert!(!pages.opened(F, None, false));
        pages.closed(F);
        assert!(!pages.opened(F, None, false), "nothing is known without a delegation");
    }

    #[test]
    fn the_kernel_goes_by_attributes_once_a_reader_has_taken_notice_of_them() {
        let pages = Pages::default();
        assert_eq!(pages.recalled(F), TakeBack::Notice, "it may hold it");
        pages.opened(F, Some(1), true);
        assert_eq!(pages.read(F, 1, 7), Reader::Asks);
        assert_eq!(pages.recalled(F), TakeBack::Notice, "it was told before the open");
        assert_eq!(pages.read(F, 1, 8), Reader::Asks, "the answer to the first may still be under way");
        assert_eq!(pages.recalled(F), TakeBack::Nothing, "it asks each time");
        assert_eq!(pages.read(F, 1, 7), Reader::Trusts);
        assert_eq!(pages.read(F, 1, 8), Reader::Trusts);
        let recalled = [pages.recalled(F), pages.recalled(F)];
        assert_eq!(recalled, [TakeBack::Notice, TakeBack::Nothing], "once is enough");
        pages.closed(F);
        pages.opened(F, Some(2), false);
        assert_eq!(pages.read(F, 2, 0), Reader::Asks, "anew with each delegation");
        assert_eq!(pages.read(F, 2, 0), Reader::Asks, "threads of another pid name space");
    }

    #[test]
    fn what_a_former_worker_told_times_out_where_the_kernel_may_wait_for_news() {
        let pages = Pages::default();
        pages.inherited(F, true);
        assert_eq!(pages.recalled(F), TakeBack::TimesOut);
        assert_eq!(pages.recalled(Ino(6)), TakeBack::Notice, "no descriptor asks for that one");
        assert_eq!(pages.read(F, 1, 7), Reader::Tagged);
        assert!(!pages.opened(F, Some(1), false));
        assert_eq!(pages.read(F, 1, 7), Reader::Tagged);
    }

    #[test]
    fn memory_is_bounded_by_what_is_open() {
        let pages = Pages::default();
        pages.opened(F, Some(1), false);
        for ino in 10..10 + 2 * FILES_MAX as u64 {
            pages.opened(Ino(ino), Some(1), false);
            pages.closed(Ino(ino));
        }
        assert!(pages.files().len() <= FILES_MAX);
        assert!(pages.opened(F, Some(1), false), "what is open is not forgotten");
        assert_eq!(pages.recalled(Ino(10)), TakeBack::Notice, "the kernel is told of what is");
    }
}
