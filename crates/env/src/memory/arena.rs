//! The client's side: blocks, taken and given back, whose pages stay for the next one who takes them.

use super::{Access, Mapping, Place, SEALS, SharedSlice};
use bytes::Bytes;
use rustix::{
    fd::OwnedFd,
    fs::{FallocateFlags, MemfdFlags, fallocate, fcntl_add_seals, ftruncate, memfd_create},
    mm::{Advice, madvise},
};
use std::{
    collections::{BTreeMap, VecDeque},
    io,
    ops::{Deref, DerefMut, Range},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

/// Address space of an arena, in bytes. For memory see [`KEPT_BYTES`] and [`Arena::trim`].
const ARENA_BYTES: usize = 4 << 30;
/// With more memory than this no pages of free blocks are kept: they go before others come into being.
const KEPT_BYTES: usize = 160 << 20;
const BLOCK_BYTES_MIN: usize = 32 << 10;
const PAGE: usize = 4096;

/// Memory of this process that daemons of this machine may map.
pub struct Arena {
    mapping: Arc<Mapping>,
    fd: OwnedFd,
    blocks: Mutex<Blocks>,
}

#[derive(Default)]
struct Blocks {
    /// Nothing behind this was ever taken.
    end: usize,
    /// Bytes that have pages, or are about to.
    resident: usize,
    /// By size.
    free: BTreeMap<usize, Free>,
}

/// Blocks of one size that nobody has.
#[derive(Default)]
struct Free {
    /// The last one given back is the first one taken: its pages are the likeliest in the processor's cache.
    blocks: VecDeque<Vacant>,
    /// Bytes of them that have pages.
    resident: usize,
    /// The fewest there were since the last trim: so many nobody needed.
    spare: usize,
}

#[derive(Clone, Copy)]
struct Vacant {
    at: usize,
    /// So many bytes of it have pages.
    touched: usize,
}

/// Bytes of an arena, this process' alone. Daemons may read them where they were told the place.
pub struct Block {
    arena: Arc<Arena>,
    vacant: Vacant,
    len: usize,
}

/// A block that daemons may write into, until it is [`Room::freeze`]d.
pub struct Room {
    block: Block,
}

impl Arena {
    /// # Errors
    /// The system gives no such memory: do without.
    pub fn new() -> io::Result<Arc<Arena>> {
        let fd = memfd_create("pvfs-client", MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING)?;
        ftruncate(&fd, ARENA_BYTES as u64)?;
        fcntl_add_seals(&fd, SEALS)?;
        let mapping = Arc::new(Mapping::new(&fd, ARENA_BYTES, Access::Write)?);
        Ok(Arc::new(Arena { mapping, fd, blocks: Mutex::default() }))
    }

    /// What daemons map.
    pub fn descriptor(&self) -> &OwnedFd {
        &self.fd
    }

    /// Room for `len` bytes, which are what they are; it begins on a page, and its pages are there. `None`: there is none left.
    pub fn take(self: &Arc<Self>, len: usize) -> Option<Block> {
        let (vacant, excess) = {
            let mut blocks = self.lock();
            let vacant = blocks.take(class(len), pages(len))?;
            (vacant, blocks.take_excess(KEPT_BYTES))
        };
        self.empty(excess);
        let mut block = Block { arena: Arc::clone(self), vacant, len };
        block.touch();
        Some(block)
    }

    /// Where `bytes` lie; `None`: not in this arena.
    pub fn place(&self, bytes: &[u8]) -> Option<Place> {
        let at = bytes.as_ptr().addr().checked_sub(self.mapping.pointer(0).addr())?;
        let len = u32::try_from(bytes.len()).ok()?;
        self.mapping.holds(at, bytes.len()).then_some(Place { at: at as u64, len })
    }

    /// Gives the pages back of blocks that nobody has needed since the last time. To be called now and then.
    pub fn trim(&self) {
        let spare = self.lock().take_spare();
        self.empty(spare);
    }

    /// Gives the pages of `vacant` blocks back, which nobody can take meanwhile.
    fn empty(&self, vacant: Vec<(usize, Vacant)>) {
        if vacant.is_empty() {
            return;
        }
        for &(_, Vacant { at, touched }) in &vacant {
            let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            // Where that fails they stay.
            let _ = fallocate(&self.fd, flags, at as u64, touched as u64);
        }
        let mut blocks = self.lock();
        for (class, vacant) in vacant {
            let free = blocks.free.entry(class).or_default();
            free.blocks.push_front(Vacant { touched: 0, ..vacant });
        }
    }

    fn lock(&self) -> MutexGuard<'_, Blocks> {
        self.blocks.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Blocks {
    /// A block of which `touched` bytes are to have pages.
    fn take(&mut self, class: usize, touched: usize) -> Option<Vacant> {
        let free = self.free.entry(class).or_default();
        let vacant = if let Some(vacant) = free.blocks.pop_back() {
            free.resident -= vacant.touched;
            free.spare = free.spare.min(free.blocks.len());
            vacant
        } else {
            let at = self.end;
            self.end = at.checked_add(class).filter(|end| *end <= ARENA_BYTES)?;
            Vacant { at, touched: 0 }
        };
        self.resident += touched.saturating_sub(vacant.touched);
        Some(vacant)
    }

    fn give_back(&mut self, class: usize, vacant: Vacant) {
        let free = self.free.entry(class).or_default();
        free.resident += vacant.touched;
        free.blocks.push_back(vacant);
    }

    /// Takes those out that were free all the time, the longest ones, and have pages.
    fn take_spare(&mut self) -> Vec<(usize, Vacant)> {
        let mut spare = Vec::new();
        for (&class, free) in &mut self.free {
            let (with_pages, without): (Vec<_>, Vec<_>) =
                free.blocks.drain(..free.spare).partition(|vacant| vacant.touched > 0);
            for vacant in without {
                free.blocks.push_front(vacant);
            }
            free.spare = free.blocks.len();
            for vacant in with_pages {
                free.resident -= vacant.touched;
                self.resident -= vacant.touched;
                spare.push((class, vacant));
            }
        }
        spare
    }

    /// Takes free ones with pages out until no more than `kept` bytes have some, or none is left: of the size of which most
    /// bytes lie idle, the one that does so longest.
    fn take_excess(&mut self, kept: usize) -> Vec<(usize, Vacant)> {
        let mut excess = Vec::new();
        while self.resident > kept {
            let most = self.free.iter_mut().max_by_key(|(_, free)| free.resident);
            let Some((&class, free)) = most.filter(|(_, free)| free.resident > 0) else { break };
            let Some(at) = free.blocks.iter().position(|vacant| vacant.touched > 0) else { break };
            let Some(vacant) = free.blocks.remove(at) else { break };
            free.resident -= vacant.touched;
            free.spare = free.spare.min(free.blocks.len());
            self.resident -= vacant.touched;
            excess.push((class, vacant));
        }
        excess
    }
}

/// `len` bytes in whole pages.
fn pages(len: usize) -> usize {
    len.next_multiple_of(PAGE)
}

/// The size of the block that `len` bytes get: at most a quarter more, so that few sizes serve all.
fn class(len: usize) -> usize {
    let len = len.max(BLOCK_BYTES_MIN);
    len.next_multiple_of(len.next_power_of_two() / 8)
}

impl Block {
    /// Has its pages there. The kernel does not fetch pages for a process that is being killed: a request that it is copying
    /// into one that is not there would fail, and could have come again to another process.
    #[expect(unsafe_code, reason = "fetches pages")]
    fn touch(&mut self) {
        let len = pages(self.len);
        if self.vacant.touched >= len {
            return;
        }
        let (from, base) = (self.vacant.touched, self.vacant.at);
        let pointer = self.arena.mapping.pointer(base + from);
        // SAFETY: pages of this block, whose content this does not change.
        let populated = unsafe { madvise(pointer.cast(), len - from, Advice::LinuxPopulateWrite) };
        if populated.is_err() {
            // An older kernel.
            let end = self.len;
            self[from..end].chunks_mut(PAGE).for_each(|page| page[0] = 0);
        }
        self.vacant.touched = len;
    }
}

impl Deref for Block {
    type Target = [u8];

    #[expect(unsafe_code, reason = "borrows the block's bytes")]
    fn deref(&self) -> &[u8] {
        // SAFETY: blocks do not overlap, this one is ours; daemons that know its place only read. The mapping lives in the arena.
        unsafe { std::slice::from_raw_parts(self.arena.mapping.pointer(self.vacant.at), self.len) }
    }
}

impl DerefMut for Block {
    #[expect(unsafe_code, reason = "borrows the block's bytes")]
    fn deref_mut(&mut self) -> &mut [u8] {
        // SAFETY: as above, and `self` is borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.arena.mapping.pointer(self.vacant.at), self.len) }
    }
}

impl AsRef<[u8]> for Block {
    fn as_ref(&self) -> &[u8] {
        self
    }
}

impl AsMut<[u8]> for Block {
    fn as_mut(&mut self) -> &mut [u8] {
        self
    }
}

impl std::fmt::Debug for Arena {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Arena").finish_non_exhaustive()
    }
}

impl Drop for Block {
    fn drop(&mut self) {
        self.arena.lock().give_back(class(self.len), self.vacant);
    }
}

impl Room {
    pub fn new(block: Block) -> Room {
        Room { block }
    }

    pub fn place(&self, range: Range<usize>) -> Place {
        let Block { vacant, len, .. } = &self.block;
        assert!(range.start <= range.end && range.end <= *len, "within the room");
        Place {
            at: (vacant.at + range.start) as u64,
            len: u32::try_from(range.len()).expect("a part of a payload"),
        }
    }

    /// A part of it, for what this process has read into it.
    ///
    /// # Panics
    /// It is not within the room.
    pub fn slice(&self, range: Range<usize>) -> SharedSlice {
        assert!(range.start <= range.end && range.end <= self.block.len, "within the room");
        let mapping = Arc::clone(&self.block.arena.mapping);
        SharedSlice::new(mapping, self.block.vacant.at + range.start, range.len())
    }

    /// Puts `bytes` at `at`.
    #[expect(unsafe_code, reason = "writes where a daemon may write too")]
    pub fn write(&self, at: usize, bytes: &[u8]) {
        assert!(at.checked_add(bytes.len()).is_some_and(|end| end <= self.block.len), "within the room");
        let to = self.block.arena.mapping.pointer(self.block.vacant.at + at);
        // SAFETY: within the block, of which nobody holds a reference before it is frozen.
        unsafe { std::ptr::copy(bytes.as_ptr(), to, bytes.len()) }
    }

    /// Puts zeros there.
    #[expect(unsafe_code, reason = "writes where a daemon may write too")]
    pub fn clear(&self, range: Range<usize>) {
        assert!(range.start <= range.end && range.end <= self.block.len, "within the room");
        let to = self.block.arena.mapping.pointer(self.block.vacant.at + range.start);
        // SAFETY: as in `write`.
        unsafe { std::ptr::write_bytes(to, 0, range.len()) }
    }

    /// Its bytes. The caller has seen to it that no daemon writes there any more.
    pub fn freeze(self: Arc<Self>) -> Bytes {
        Bytes::from_owner(Frozen(self))
    }
}

struct Frozen(Arc<Room>);

impl AsRef<[u8]> for Frozen {
    fn as_ref(&self) -> &[u8] {
        &self.0.block
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resident(arena: &Arena) -> u64 {
        u64::try_from(rustix::fs::fstat(&arena.fd).unwrap().st_blocks).unwrap() * 512
    }

    #[test]
    fn a_block_is_at_most_a_quarter_larger_than_what_it_is_for() {
        for len in [1, BLOCK_BYTES_MIN, 100_000, 1 << 20, (1 << 20) + 2 * PAGE, 3 << 20, (4 << 20) - 1] {
            let class = class(len);
            assert!(class >= len && (class <= len + len / 4 || class == BLOCK_BYTES_MIN), "{len}: {class}");
            assert_eq!(class % PAGE, 0);
        }
    }

    #[test]
    fn blocks_do_not_overlap_and_come_back_with_the_last_of_their_bytes() {
        let arena = Arena::new().unwrap();
        let [mut one, mut two] = [70_000, 70_000].map(|len| arena.take(len).unwrap());
        one.fill(1);
        two.fill(2);
        assert!(one.iter().all(|byte| *byte == 1) && two.iter().all(|byte| *byte == 2));
        let at = two.as_ptr();
        let bytes = Bytes::from_owner(two);
        let part = bytes.slice(10..20);
        drop(bytes);
        assert_ne!(arena.take(70_000).unwrap().as_ptr(), at);
        drop(part);
        assert_eq!(arena.take(70_001).unwrap().as_ptr(), at, "the last one given back");
    }

    #[test]
    fn only_bytes_of_the_arena_have_a_place() {
        let arena = Arena::new().unwrap();
        assert_eq!(arena.place(&[0; 10]), None);
        assert_eq!(Arena::new().unwrap().place(&arena.take(10).unwrap()), None);
        let block = arena.take(10).unwrap();
        assert_eq!(arena.place(&block[4..]).map(|place| place.len), Some(6));
    }

    #[test]
    fn what_nobody_needs_goes_back_to_the_system() {
        let arena = Arena::new().unwrap();
        let blocks: Vec<Block> = (0..10).map(|_| arena.take(1 << 20).unwrap()).collect();
        assert_eq!(resident(&arena), 10 << 20, "their pages are there");
        drop(blocks);
        arena.trim();
        assert_eq!(resident(&arena), 10 << 20, "all were in use since the last time");
        let one = arena.take(1 << 20).unwrap();
        arena.trim();
        assert_eq!(resident(&arena), 1 << 20);
        drop(one);
        let again: Vec<Block> = (0..3).map(|_| arena.take(1 << 20).unwrap()).collect();
        assert_eq!(resident(&arena), 3 << 20);
        drop(again);
    }

    #[test]
    fn pages_of_free_blocks_go_before_more_than_is_kept_comes_into_being() {
        let arena = Arena::new().unwrap();
        let of = |len: usize, bytes: usize| -> Vec<Block> {
            (0..bytes / len).map(|_| arena.take(len).unwrap()).collect()
        };
        drop(of(1 << 20, KEPT_BYTES));
        assert_eq!(resident(&arena), KEPT_BYTES as u64, "kept for the next one who takes them");
        for len in [96 << 10, 2 << 20, 768 << 10, 4 << 20] {
            drop(of(len, KEPT_BYTES));
            let now = resident(&arena);
            assert!(now <= KEPT_BYTES as u64, "{now} bytes with blocks of {len}");
        }
        let needed = of(1 << 20, 2 * KEPT_BYTES);
        assert_eq!(resident(&arena), 2 * KEPT_BYTES as u64, "who needs more gets it");
        drop(needed);
        let other = arena.take(64 << 10).unwrap();
        assert!(resident(&arena) <= KEPT_BYTES as u64, "and gives it back");
        drop(other);
        [(); 2].iter().for_each(|()| arena.trim());
        assert_eq!((resident(&arena), arena.lock().resident), (0, 0));
    }

    #[test]
    fn an_arena_that_is_full_says_so() {
        let mut blocks = Blocks { end: ARENA_BYTES - BLOCK_BYTES_MIN, ..Blocks::default() };
        assert!(blocks.take(2 * BLOCK_BYTES_MIN, 0).is_none());
        assert!(blocks.take(BLOCK_BYTES_MIN, 0).is_some());
        assert!(blocks.take(BLOCK_BYTES_MIN, 0).is_none());
        blocks.give_back(BLOCK_BYTES_MIN, Vacant { at: 0, touched: 0 });
        assert!(blocks.take(BLOCK_BYTES_MIN, 0).is_some());
    }
}
