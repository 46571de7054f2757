//! A page that a daemon writes and clients of its machine read: whether what they do without asking it is still right.

use super::{Access, Mapping, SEALS};
use rustix::{
    fd::OwnedFd,
    fs::{MemfdFlags, SealFlags, fcntl_add_seals, fcntl_get_seals, fstat, ftruncate, memfd_create},
};
use std::{
    io,
    sync::atomic::{AtomicU64, Ordering, fence},
};

const BYTES: usize = 4096;

/// What stands where on it.
#[derive(Clone, Copy)]
enum Word {
    /// Rises when all that was handed out before is void.
    Epoch,
    CutsBegun,
    CutsEnded,
    /// The mgr's time that the daemon follows, in milliseconds.
    Now,
}

/// The daemon's side.
pub struct Board {
    mapping: Mapping,
    fd: OwnedFd,
}

/// The clients' side.
pub struct BoardView(Mapping);

/// A file is being cut, until this is dropped.
pub struct Cut<'a>(&'a Board);

impl Board {
    /// # Errors
    /// The system gives no such memory: do without.
    pub fn new() -> io::Result<Board> {
        let fd = memfd_create("pvfs-board", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, BYTES as u64)?;
        let mapping = Mapping::new(&fd, BYTES, Access::Write)?;
        // Nobody but this mapping writes to it.
        fcntl_add_seals(&fd, SEALS | SealFlags::FUTURE_WRITE)?;
        Ok(Board { mapping, fd })
    }

    /// What clients map.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    pub fn epoch(&self) -> u64 {
        self.word(Word::Epoch).load(Ordering::SeqCst)
    }

    /// Whatever was handed out so far is void: its users ask.
    pub fn void(&self) {
        self.word(Word::Epoch).fetch_add(1, Ordering::SeqCst);
    }

    /// To be held while a file is cut: who reads meanwhile asks.
    pub fn cut(&self) -> Cut<'_> {
        self.word(Word::CutsBegun).fetch_add(1, Ordering::SeqCst);
        Cut(self)
    }

    /// The mgr's time is `now_ms` at least.
    pub fn follow(&self, now_ms: u64) {
        self.word(Word::Now).fetch_max(now_ms, Ordering::SeqCst);
    }

    fn word(&self, word: Word) -> &AtomicU64 {
        word.of(&self.mapping)
    }
}

impl Drop for Cut<'_> {
    fn drop(&mut self) {
        self.0.word(Word::CutsEnded).fetch_add(1, Ordering::SeqCst);
    }
}

impl BoardView {
    /// Maps what a daemon has handed over.
    ///
    /// # Errors
    /// It is no board.
    pub fn map(fd: &OwnedFd) -> io::Result<BoardView> {
        let sealed = fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK));
        if !sealed || usize::try_from(fstat(fd)?.st_size) != Ok(BYTES) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "what a daemon shows is no board"));
        }
        Ok(BoardView(Mapping::new(fd, BYTES, Access::Read)?))
    }

    /// How many cuts have ended. To be asked before what [`BoardView::is_quiet`] is asked of.
    pub fn cuts_ended(&self) -> u64 {
        // Only such loads are good for memory that is read-only; the fences order them.
        let ended = Word::CutsEnded.of(&self.0).load(Ordering::Relaxed);
        fence(Ordering::SeqCst);
        ended
    }

    /// Whether what was handed out in `epoch` is good for nothing any more.
    pub fn is_void(&self, epoch: u64) -> bool {
        Word::Epoch.of(&self.0).load(Ordering::Relaxed) != epoch
    }

    /// Whether nothing was cut since `cuts_ended` were told, what was handed out in `epoch` is good, and the mgr's time was
    /// below `until_ms`: up to now.
    pub fn is_quiet(&self, epoch: u64, cuts_ended: u64, until_ms: u64) -> bool {
        fence(Ordering::SeqCst);
        let of = |word: Word| word.of(&self.0).load(Ordering::Relaxed);
        of(Word::Epoch) == epoch && of(Word::CutsBegun) == cuts_ended && of(Word::Now) < until_ms
    }
}

impl Word {
    #[expect(unsafe_code, reason = "borrows a word of the board")]
    fn of(self, board: &Mapping) -> &AtomicU64 {
        // SAFETY: within the mapping, which begins on a page and lives as long as the borrow; both sides use atomics only.
        unsafe { &*board.base.as_ptr().cast::<AtomicU64>().add(self as usize) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_daemon_notes_its_clients_see() {
        let board = Board::new().unwrap();
        let view = BoardView::map(board.descriptor()).unwrap();
        board.follow(100);
        let (epoch, ended) = (board.epoch(), view.cuts_ended());
        assert!(view.is_quiet(epoch, ended, 101));
        assert!(!view.is_quiet(epoch, ended, 100), "the lease has ended");
        board.follow(50);
        assert!(!view.is_quiet(epoch, ended, 100), "time does not go back");
        {
            let _cut = board.cut();
            assert!(!view.is_quiet(epoch, ended, 101));
            assert!(!view.is_quiet(epoch, view.cuts_ended(), 101), "begun before, and not ended");
        }
        assert!(!view.is_quiet(epoch, ended, 101), "there was one meanwhile");
        let ended = view.cuts_ended();
        assert!(view.is_quiet(epoch, ended, 101));
        board.void();
        assert!(!view.is_quiet(epoch, ended, 101));
        assert!(view.is_quiet(board.epoch(), ended, 101));
    }

    #[test]
    fn nobody_but_the_daemon_writes_on_it() {
        let board = Board::new().unwrap();
        assert!(Mapping::new(board.descriptor(), BYTES, Access::Write).is_err());
        assert!(rustix::io::pwrite(board.descriptor(), &[1], 0).is_err());
    }

    #[test]
    fn what_is_no_board_is_refused() {
        let fd = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, BYTES as u64).unwrap();
        assert!(BoardView::map(&fd).is_err(), "it could be cut");
        ftruncate(&fd, 1).unwrap();
        fcntl_add_seals(&fd, SEALS).unwrap();
        assert!(BoardView::map(&fd).is_err(), "too short");
    }
}
