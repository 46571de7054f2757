//! Memory that a client shares with the daemons of its own machine: bytes go through it instead of through a socket.
//!
//! The client owns it, all of it: an [`Arena`] of blocks. A daemon maps it ([`Theirs`]) and is told with each request which
//! [`Place`]s of it the request is about, to read from or to write to; with the answer it has nothing to do with them any more.
//! The daemon never looks at such bytes itself, since their client may change them at any time: it hands them to the kernel.

mod arena;
mod board;
mod slice;

pub use arena::{Arena, Block, Room};
pub use board::{Board, BoardView, Cut};
pub use slice::{SharedSlice, Source, Walk};

use rustix::{
    fd::{AsFd, OwnedFd},
    fs::{SealFlags, fcntl_get_seals, fstat},
    mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap},
};
use std::{ffi::c_void, io, ptr::NonNull, sync::Arc};

/// A daemon maps no more than this of one client, in bytes.
const THEIRS_BYTES_MAX: usize = 64 << 30;

/// Some bytes of a shared memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    pub at: u64,
    /// In bytes.
    pub len: u32,
}

/// A file in memory, mapped whole and shared. It is sealed: nobody can cut it.
struct Mapping {
    base: NonNull<c_void>,
    len: usize,
}

// SAFETY: it is memory of the whole process; what is done with it says where it stands why it may.
#[expect(unsafe_code, reason = "a mapping may be used and undone from any thread")]
unsafe impl Send for Mapping {}
// SAFETY: as above.
#[expect(unsafe_code, reason = "a mapping may be used from all threads")]
unsafe impl Sync for Mapping {}

/// What a mapping is for.
#[derive(Clone, Copy)]
enum Access {
    Read,
    Write,
}

/// No shared memory is cut while it is mapped: that would be the death of who touches it.
const SEALS: SealFlags = SealFlags::SHRINK.union(SealFlags::GROW).union(SealFlags::SEAL);

impl Mapping {
    #[expect(unsafe_code, reason = "maps and advises")]
    fn new(fd: impl AsFd, len: usize, access: Access) -> io::Result<Mapping> {
        let prot = match access {
            Access::Read => ProtFlags::READ,
            Access::Write => ProtFlags::READ | ProtFlags::WRITE,
        };
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: a new mapping, at a place that the kernel chooses.
        let base = unsafe { mmap(std::ptr::null_mut(), len, prot, flags, fd, 0) }?;
        let base = NonNull::new(base).ok_or(io::ErrorKind::OutOfMemory)?;
        // SAFETY: the mapping just made, whose content this does not change.
        let _ = unsafe { madvise(base.as_ptr(), len, Advice::LinuxDontDump) };
        Ok(Mapping { base, len })
    }

    /// Where `at` is; `at` lies within.
    #[expect(unsafe_code, reason = "a place within the mapping")]
    fn pointer(&self, at: usize) -> *mut u8 {
        assert!(at <= self.len, "a place within the mapping");
        // SAFETY: within the mapping, or right behind it.
        unsafe { self.base.as_ptr().cast::<u8>().add(at) }
    }

    fn holds(&self, at: usize, len: usize) -> bool {
        at.checked_add(len).is_some_and(|end| end <= self.len)
    }
}

impl Drop for Mapping {
    #[expect(unsafe_code, reason = "unmaps")]
    fn drop(&mut self) {
        // SAFETY: made by `mmap` with this length; whoever points into it holds it.
        let _ = unsafe { munmap(self.base.as_ptr(), self.len) };
    }
}

/// A client's memory, as a daemon sees it.
pub struct Theirs {
    mapping: Arc<Mapping>,
}

impl Theirs {
    /// Maps what a client has sent.
    ///
    /// # Errors
    /// It could be cut, or is too large.
    pub fn map(fd: &OwnedFd) -> io::Result<Theirs> {
        let refused = |text: &str| Err(io::Error::new(io::ErrorKind::InvalidData, text.to_owned()));
        if !fcntl_get_seals(fd).is_ok_and(|seals| seals.contains(SealFlags::SHRINK)) {
            return refused("the memory that a client shares could be cut");
        }
        match usize::try_from(fstat(fd)?.st_size) {
            Ok(len @ 1..=THEIRS_BYTES_MAX) => {
                Ok(Theirs { mapping: Arc::new(Mapping::new(fd, len, Access::Write)?) })
            }
            _ => refused("the memory that a client shares is empty or too large"),
        }
    }

    /// The bytes there; `None`: they lie elsewhere.
    pub fn slice(&self, place: Place) -> Option<SharedSlice> {
        let (at, len) = (usize::try_from(place.at).ok()?, usize::try_from(place.len).ok()?);
        self.mapping.holds(at, len).then(|| SharedSlice::new(Arc::clone(&self.mapping), at, len))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustix::fs::{MemfdFlags, fcntl_add_seals, ftruncate, memfd_create};

    fn memory(len: u64, seals: SealFlags) -> OwnedFd {
        let fd = memfd_create("test", MemfdFlags::ALLOW_SEALING).unwrap();
        ftruncate(&fd, len).unwrap();
        fcntl_add_seals(&fd, seals).unwrap();
        fd
    }

    #[test]
    fn memory_that_its_client_could_cut_is_refused() {
        assert!(Theirs::map(&memory(4096, SealFlags::empty())).is_err());
        assert!(Theirs::map(&memory(4096, SealFlags::GROW)).is_err());
        assert!(Theirs::map(&memory(0, SEALS)).is_err());
        assert!(Theirs::map(&tempfile().into()).is_err(), "a file on a disk");
        assert!(Theirs::map(&memory(4096, SEALS)).is_ok());
    }

    fn tempfile() -> std::fs::File {
        let path = std::env::temp_dir().join(format!("pvfs-env-{}", std::process::id()));
        let file = std::fs::File::options().create(true).truncate(true).read(true).write(true).open(&path);
        std::fs::remove_file(path).unwrap();
        let file = file.unwrap();
        file.set_len(4096).unwrap();
        file
    }

    #[test]
    fn places_outside_of_the_memory_are_none() {
        let theirs = Theirs::map(&memory(8192, SEALS)).unwrap();
        let len_of = |at, len| theirs.slice(Place { at, len }).map(|slice| slice.len());
        assert_eq!(len_of(0, 8192), Some(8192));
        assert_eq!(len_of(8192, 0), Some(0));
        assert_eq!(len_of(1, 8192), None);
        assert_eq!(len_of(u64::MAX, 2), None);
        assert_eq!(len_of(1 << 40, 0), None);
    }

    #[test]
    fn what_one_side_writes_the_other_reads() {
        let arena = Arena::new().unwrap();
        let theirs = Theirs::map(arena.descriptor()).unwrap();
        let mut block = arena.take(100_000).unwrap();
        block[5..8].copy_from_slice(b"abc");
        let bytes = bytes::Bytes::from_owner(block);
        let place = arena.place(&bytes.slice(5..8)).expect("it lies in the arena");
        let mut found = [0; 3];
        theirs.slice(place).unwrap().copy_to(&mut found);
        assert_eq!(&found, b"abc");

        let room = Arc::new(Room::new(arena.take(10).unwrap()));
        theirs.slice(room.place(2..5)).unwrap().copy_from(b"xyz");
        room.write(8, b"!");
        room.clear(5..8);
        assert_eq!(&room.freeze()[2..9], b"xyz\0\0\0!");
    }
}
