//! Bytes that iods of this machine get, and give, without their going through a socket: see [`pvfs_env::memory`].

use crate::{
    calls::shut_down,
    client::Core,
    held,
    inode::Inode,
    plan::{self, SlotRequest},
};
use bytes::{Bytes, BytesMut};
use pvfs_env::memory::Room;
use pvfs_types::TargetId;
use std::{sync::Arc, time::Duration};

/// Less is sent through the socket: a block is larger than this, and held writes are counted by their bytes.
const LENT_BYTES_MIN: u64 = 32 << 10;
/// Blocks that nobody has needed for so long go back to the system.
const SPARE_AFTER: Duration = Duration::from_secs(5);

impl Core {
    /// `payload`, `bytes` long, where the iod of `target` can get at it if that is of this machine; copied once where it is not
    /// there yet.
    pub fn lent(&self, target: TargetId, payload: Vec<Bytes>, bytes: u64) -> Vec<Bytes> {
        let Some(arena) = &self.arena else { return payload };
        let is_there = || payload.iter().all(|part| arena.place(part).is_some());
        if bytes < LENT_BYTES_MIN || !self.targets.lends(target) || is_there() {
            return payload;
        }
        vec![self.together(payload.iter())]
    }

    /// `payload`, `bytes` long, of a write of `data`: see [`held::own`].
    pub fn own(&self, payload: Vec<Bytes>, bytes: u64, data: &Bytes) -> Vec<Bytes> {
        let is_of_it = payload.first().is_some_and(|part| data.as_ptr_range().contains(&part.as_ptr()));
        let whole = if is_of_it { data.len() as u64 } else { bytes };
        held::own(payload, bytes, whole, |parts| self.together(parts.iter()))
    }

    /// `parts` one behind the other.
    pub fn joined<'a>(&self, mut parts: impl ExactSizeIterator<Item = &'a Bytes> + Clone) -> Bytes {
        if parts.len() > 1 { self.together(parts) } else { parts.next().cloned().unwrap_or_default() }
    }

    /// A copy of `parts`, one behind the other, where iods of this machine can get at it if it is worth it.
    fn together<'a>(&self, parts: impl Iterator<Item = &'a Bytes> + Clone) -> Bytes {
        let len = parts.clone().map(Bytes::len).sum();
        let arena = self.arena.as_ref().filter(|_| len as u64 >= LENT_BYTES_MIN);
        let Some(mut block) = arena.and_then(|arena| arena.take(len)) else {
            let mut bytes = BytesMut::with_capacity(len);
            parts.for_each(|part| bytes.extend_from_slice(part));
            return bytes.freeze();
        };
        let mut at = 0;
        for part in parts {
            block[at..at + part.len()].copy_from_slice(part);
            at += part.len();
        }
        Bytes::from_owner(block)
    }

    /// Room for the `total` bytes of a read, if an iod that it asks has this client's memory.
    pub fn room(&self, inode: &Inode, plan: &[SlotRequest], total: u64) -> Option<Arc<Room>> {
        let arena = self.arena.as_ref()?;
        let dist = inode.with(|state| state.dist)?;
        let lends = |request: &SlotRequest| {
            self.targets.view().target(&dist, request.slot).is_some_and(|target| self.targets.lends(target))
        };
        if total < LENT_BYTES_MIN || !plan.iter().any(lends) {
            return None;
        }
        Some(Arc::new(Room::new(arena.take(plan::size(total))?)))
    }

    /// Gives memory back to the system when it has not been needed for a while.
    pub async fn trim_memory(self: Arc<Self>) {
        let Some(arena) = self.arena.clone() else { return };
        let mut closed = self.closed.subscribe();
        loop {
            tokio::select! {
                biased;
                () = shut_down(&mut closed) => return,
                () = tokio::time::sleep(SPARE_AFTER) => arena.trim(),
            }
        }
    }
}
