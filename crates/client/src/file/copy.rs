//! Bytes copied from file to file: by the targets among themselves where both files' strips line up, else by this client.
//!
//! What targets copy they make durable before they answer: nothing of it is held here, so nothing could be sent again.

use super::{File, check_end};
use crate::{
    ClientError,
    error::{Answer, Result},
    held::Held,
    inode::Inode,
    io::{self, FAILED_SYNCS_MAX},
    retry::Tries,
};
use futures_util::future::{join, join_all};
use pvfs_types::{
    DataGen, LogicalOffset, ObjectOffset, Slot, TargetId,
    limits::{COPY_BYTES_MAX, FILE_BYTES_MAX},
};
use pvfs_wire::{
    Access, Capability, Op, Status,
    msg::data::{Copied, Copy, Pass, Sync},
};
use std::{ops::Range, sync::Arc};

/// Fewer bytes are copied here: to make them durable takes longer than to send them.
const BY_TARGETS_BYTES_MIN: u64 = 4 << 20;
/// So much of each target's is copied and made durable before the next.
const SHARE_BYTES: u64 = 64 << 20;
/// What is read and written at a time here.
const PIECE_BYTES: u64 = 4 << 20;

/// Which slot of the one file lies where the first slot of the other does.
#[derive(Clone, Copy)]
struct Shift(u16);

/// What lies in one slot of what is copied.
struct Share {
    from: (Slot, u64),
    to: (Slot, Range<u64>),
    /// The end of what is written of the file.
    reach: u64,
}

/// A share that is copied and durable: in which data generations, and whether the source ended before.
struct Done {
    from_gen: DataGen,
    is_short: bool,
}

impl File {
    /// Copies `len` bytes from `from` on of `source` to `at`; fewer only where `source` ends before. Gives how many. Holes may
    /// become zeros. After an error nothing is said of the bytes; where some are copied before it, their count is the answer.
    ///
    /// It is no one moment's copy: what others write to `source` meanwhile is in it or not.
    ///
    /// # Errors
    /// `EINVAL` the ranges are of one file and overlap; `EBADF` `source` is not open for reading or this not for writing;
    /// else as [`File::write_at`].
    pub fn copy_from<'a>(&'a self, at: u64, source: &'a File, from: u64, len: u64) -> Answer<'a, u64> {
        self.core.call(Op::Copy, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            source.need(Access::READ, "reading")?;
            check_end(at, len)?;
            if from > FILE_BYTES_MAX {
                return Err(ClientError::BadOffset { offset: from });
            }
            self.core.send_gathered(&self.inode).await?;
            source.core.send_gathered(&source.inode).await?;
            let size = source.core.refresh_attr(source.ino()).await?.size;
            let len = len.min(size.saturating_sub(from));
            if self.ino() == source.ino() && from < at + len && at < from + len {
                return Err(ClientError::Overlap { from, at, len });
            }
            if len >= BY_TARGETS_BYTES_MIN
                && let Some(shift) = self.lines_up(at, source, from).await?
            {
                return self.copy_by_targets(at, source, from, len, shift).await;
            }
            self.copy_here(at, source, from, len).await
        })
    }

    /// Whether each byte goes to the target that it is on.
    async fn lines_up(&self, at: u64, source: &File, from: u64) -> Result<Option<Shift>> {
        let (theirs, ours) = (source.distribution()?, self.distribution()?);
        let (ssize, pcount) = (u64::from(ours.ssize), u64::from(ours.pcount));
        let is_same = (theirs.ssize, theirs.pcount) == (ours.ssize, ours.pcount);
        if !is_same || at % ssize != from % ssize || !Arc::ptr_eq(&self.core, &source.core) {
            return Ok(None);
        }
        let shift = Shift(narrow((at / ssize % pcount + pcount - from / ssize % pcount) % pcount));
        for slot in theirs.slots() {
            let there = self.core.targets.locate(&theirs, slot).await;
            if there != self.core.targets.locate(&ours, shift.of(slot, ours.pcount)).await {
                return Ok(None);
            }
        }
        Ok(Some(shift))
    }

    /// Reads and writes; the next piece is read while one is written.
    async fn copy_here(&self, at: u64, source: &File, from: u64, len: u64) -> Result<u64> {
        let read = |done: u64| Box::pin(source.read_at(from + done, PIECE_BYTES.min(len - done)));
        let (mut done, mut piece) = (0, read(0).await?);
        while !piece.is_empty() {
            let end = done + piece.len() as u64;
            let (written, next) = join(Box::pin(self.write_at(at + done, piece)), read(end)).await;
            match written {
                Err(error) if done == 0 => return Err(error),
                Err(_) => return Ok(done),
                Ok(()) => done = end,
            }
            let Ok(next) = next else { return Ok(done) };
            piece = next;
        }
        Ok(done)
    }

    async fn copy_by_targets(
        &self,
        at: u64,
        source: &File,
        from: u64,
        len: u64,
        shift: Shift,
    ) -> Result<u64> {
        let pcount = u64::from(self.distribution()?.pcount);
        let mut done = 0;
        while done < len {
            let end = len.min(done + SHARE_BYTES * pcount);
            match self.copy_shares(at + done, source, from + done, end - done, shift).await {
                Err(error) if done == 0 => return Err(error),
                Err(_) => break,
                Ok(()) => done = end,
            }
        }
        Ok(done)
    }

    async fn copy_shares(&self, at: u64, source: &File, from: u64, len: u64, shift: Shift) -> Result<()> {
        loop {
            let (in_flight, to_cap) = io::begin_write(&self.core, &self.inode, at + len).await?;
            let from_cap = self.core.fresh_capability(&source.inode, Access::READ, None).await?;
            let (theirs, ours) = (from_cap.grant.dist, to_cap.grant.dist);
            let shares = theirs.slots().filter_map(|slot| {
                let to = shift.of(slot, ours.pcount);
                let range = ours.object_len(to, at)..ours.object_len(to, at + len);
                let share =
                    Share { from: (slot, theirs.object_len(slot, from)), to: (to, range), reach: at + len };
                (!share.to.1.is_empty()).then_some(share)
            });
            let copied = shares.map(|share| self.copy_share(source, share, from_cap, to_cap));
            let Some((_, done)) = io::same_generation(join_all(copied).await)? else { continue };
            let is_short = done.iter().any(|share| share.is_short);
            if is_short {
                source.core.refresh_attr(source.ino()).await?;
            }
            let from_gen = source.inode.with(|state| state.data_gen);
            if done.iter().any(|share| share.from_gen != from_gen) {
                // All of its bytes were replaced.
                continue;
            }
            let is_sparse = is_short || source.inode.with(|state| state.has_holes());
            self.inode.with(|state| state.sparse |= is_sparse);
            in_flight.done(len, LogicalOffset(at + len), self.core.session.now(), &self.cred);
            if is_short {
                // No target knows of a size that only a hole reaches.
                self.core.report(&self.inode, None).await?;
            }
            return Ok(());
        }
    }

    /// Copies what lies in one slot, until it is durable as it was copied.
    async fn copy_share(
        &self,
        source: &File,
        share: Share,
        mut from_cap: Capability,
        mut to_cap: Capability,
    ) -> Result<(DataGen, Done)> {
        let core = &self.core;
        let (slot, range) = share.to.clone();
        let target = core.targets.locate(&to_cap.grant.dist, slot).await;
        let hold = core.holds.of(target);
        let mut failures = 0;
        loop {
            let next = hold.look(Held::next);
            let (mut generations, mut source_len, mut at) = (Vec::new(), u64::MAX, range.start);
            let source_start = share.from.1;
            while at < range.end {
                let end = range.end.min(at + COPY_BYTES_MAX);
                let from_start = ObjectOffset(source_start + (at - range.start));
                let make = |target, pass, from| Copy {
                    target,
                    pass,
                    slot,
                    start: ObjectOffset(at),
                    end: ObjectOffset(end),
                    from,
                    from_slot: share.from.0,
                    from_start,
                };
                if !to_cap.grant.reaches(share.reach) {
                    to_cap = core.capability_to(&self.inode, share.reach).await?;
                }
                let copied = self.copy_piece(&source.inode, slot, &mut from_cap, &mut to_cap, make).await?;
                generations.push((copied.generations.store, to_cap.grant.data_gen));
                source_len = source_len.min(copied.source_len);
                at = end;
            }
            let make = |target, pass| Sync { target, pass, slots: vec![slot] };
            match io::call_slot(core, &self.inode, to_cap, Access::WRITE, slot, &[], make).await {
                Ok((data_gen, (synced, _))) => {
                    let store = synced.generations.store;
                    let object = (self.inode.ino, data_gen, slot);
                    // Own writes from before it, which are durable now, must not be sent again over it.
                    let is_held = hold.change(|held| held.synced(object, next, store)).is_none();
                    if !is_held && generations.iter().all(|&copied| copied == (store, data_gen)) {
                        let is_short = source_len < source_start + (range.end - range.start);
                        return Ok((data_gen, Done { from_gen: from_cap.grant.data_gen, is_short }));
                    }
                }
                Err(ClientError::Refused { .. }) if failures < FAILED_SYNCS_MAX => failures += 1,
                Err(error) => return Err(error),
            }
        }
    }

    /// Asks the iod until it is done or refused for good.
    async fn copy_piece(
        &self,
        source: &Arc<Inode>,
        slot: Slot,
        from_cap: &mut Capability,
        to_cap: &mut Capability,
        make: impl Fn(TargetId, Pass, Capability) -> Copy,
    ) -> Result<Copied> {
        let core = &self.core;
        let mut tries = Tries::default();
        loop {
            let target = core.targets.locate(&to_cap.grant.dist, slot).await;
            let pass =
                Pass { capability: *to_cap, lease: core.session.lease(), store: core.holds.known(target) };
            let refusal = match core.targets.call(target, &make(target, pass, *from_cap), &[]).await {
                Ok((copied, _)) => return Ok(copied),
                Err(refusal) => refusal,
            };
            core.counters.resent.inc();
            let is_old = matches!(refusal.status, Status::CapabilityForged | Status::CapabilityOld);
            let (inode, access) = (&self.inode, Access::WRITE);
            io::mend(core, inode, access, &mut tries, (target, Op::Copy), pass, to_cap, refusal).await?;
            // It does not say which of the two.
            *from_cap = core.fresh_capability(source, Access::READ, is_old.then_some(*from_cap)).await?;
        }
    }
}

impl Shift {
    fn of(self, slot: Slot, pcount: u16) -> Slot {
        Slot(narrow((u64::from(slot.0) + u64::from(self.0)) % u64::from(pcount)))
    }
}

fn narrow(remainder: u64) -> u16 {
    u16::try_from(remainder).expect("a remainder by pcount, which is a u16")
}
