//! Bytes that go to and from objects through memory that a client shares: the same as through the store's own.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use proptest::prelude::*;
use pvfs_env::memory::{Arena, Block, Place, SharedSlice, Source, Theirs};
use pvfs_store::{Store, Write};
use std::sync::Arc;
use support::{TempTarget, id, run, writes};

/// What a client has, and how its daemon sees it.
struct Memory {
    arena: Arc<Arena>,
    theirs: Theirs,
}

impl Memory {
    fn new() -> Memory {
        let arena = Arena::new().unwrap();
        let theirs = Theirs::map(arena.descriptor()).unwrap();
        Memory { arena, theirs }
    }

    /// A block with `bytes`, and slices of it in parts of these lengths; the last one has the rest.
    fn lend(&self, bytes: &[u8], lens: &[usize]) -> (Block, Vec<SharedSlice>) {
        let mut block = self.arena.take(bytes.len()).unwrap();
        block.copy_from_slice(bytes);
        let Place { at, .. } = self.arena.place(&block).unwrap();
        let (mut parts, mut from) = (Vec::new(), 0);
        for len in lens.iter().copied().chain([usize::MAX]) {
            let len = len.min(bytes.len() - from);
            if len > 0 {
                let place = Place { at: at + from as u64, len: u32::try_from(len).unwrap() };
                parts.push(self.theirs.slice(place).unwrap());
            }
            from += len;
        }
        (block, parts)
    }
}

fn read(store: &Store, len: usize) -> Vec<u8> {
    store.read(id(1), &[run(0, len)]).unwrap().bytes.to_vec()
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn shared_bytes_are_written_and_read_like_others(
        runs in proptest::collection::vec((0u64..20_000, 1usize..9_000), 1..5),
        lens in proptest::collection::vec(1usize..6_000, 0..5),
        fill in any::<u8>(),
        reads in proptest::collection::vec((0u64..30_000, 1usize..9_000), 1..5),
    ) {
        let (target, memory) = (TempTarget::new(), Memory::new());
        let store = target.open();
        let runs: Vec<_> = runs.iter().map(|&(offset, len)| run(offset, len)).collect();
        let total: usize = runs.iter().map(|run| run.len).sum();
        let bytes: Vec<u8> = (0..total).map(|n| u8::try_from(n % 251).unwrap() ^ fill).collect();
        let (_block, parts) = memory.lend(&bytes, &lens);
        store.write_from(id(1), &writes(&runs), Source::Shared(&parts)).unwrap();
        let other_target = TempTarget::new();
        let other_store = other_target.open();
        other_store.write(id(1), &writes(&runs), &bytes).unwrap();
        prop_assert_eq!(read(&store, 40_000), read(&other_store, 40_000));

        // Each byte in its place; where there are none, the room is as it was.
        let asked: Vec<_> = reads.iter().map(|&(offset, len)| run(offset, len)).collect();
        let total: usize = asked.iter().map(|run| run.len).sum();
        let (block, room) = memory.lend(&vec![0xee; total], &lens);
        let found = store.read_to(id(1), &asked, &room).unwrap();
        let whole = read(&store, 40_000);
        let expected: Vec<u8> = asked
            .iter()
            .flat_map(|run| (0..run.len).map(move |n| run.offset.0 + n as u64))
            .map(|at| whole.get(usize::try_from(at).unwrap()).copied().unwrap_or(0xee))
            .collect();
        prop_assert_eq!(&block[..], &expected[..]);
        prop_assert_eq!(found.object_len, whole.len() as u64);
        let there = asked.iter().flat_map(|run| (0..run.len).map(move |n| run.offset.0 + n as u64));
        prop_assert_eq!(found.filled, there.filter(|at| *at < whole.len() as u64).count());
    }
}

#[test]
fn an_object_that_is_not_there_fills_nothing() {
    let (target, memory) = (TempTarget::new(), Memory::new());
    let (block, room) = memory.lend(&[1; 100], &[]);
    let found = target.open().read_to(id(1), &[run(0, 100)], &room).unwrap();
    assert_eq!((found.filled, found.object_len, found.exists), (0, 0, false));
    assert_eq!(block[..], [1; 100]);
}

#[test]
fn shared_bytes_that_are_sent_again_stay_below_a_cut_too() {
    let (target, memory) = (TempTarget::new(), Memory::new());
    let store = target.open();
    let first = store.write(id(1), &writes(&[run(0, 100)]), &[1; 100]).unwrap();
    store.truncate(id(1), 50).unwrap();
    let runs = [run(0, 100)];
    let again = Write { again: Some(first), ..writes(&runs) };
    let (_block, parts) = memory.lend(&[1; 100], &[30, 40]);
    store.write_from(id(1), &again, Source::Shared(&parts)).unwrap();
    assert_eq!(read(&store, 200), [1; 50], "what was cut stays cut");
}
