//! Sends an access to all targets at once, waits for all of them, merges what they say.
//!
//! A dropped write may have been done, in part or whole, and parts of it may still be done a moment later (until the
//! iod has finished what it had received, or dropped the connection). The client then asks the targets for the size
//! instead of trusting its own.

use crate::{
    ClientError,
    calls::{op_refused, pause_after},
    client::Core,
    error::Result,
    held::{Held, HeldWrite, Object, What},
    holds,
    inode::{Inode, WriteInFlight},
    near,
    plan::{self, Part, SlotRequest},
    retry::{Action, Tries},
};
use bytes::Bytes;
use futures_util::{
    future::join_all,
    stream::{self, StreamExt},
};
use pvfs_env::{BoxFuture, memory::Room};
use pvfs_net::{self as net, AnswerRoom, Load, ReadBody, read_into};
use pvfs_types::{DataGen, Errno, ObjectOffset, SessionId, Slot, TargetId};
use pvfs_wire::{
    Access, Capability, Op, Refusal, Request, encode,
    msg::data::{Acked, Durability, Fill, FillWith, FindData, Pass, Read, ReadDone, Sync, Write, Written},
};
use std::{future::Future, marker, ops::Range, sync::Arc};

/// How often a sync that a target's disk failed is tried again, each time after all that is held was sent again.
pub(crate) const FAILED_SYNCS_MAX: u32 = 2;

/// So much of one call is under way at once. Where many clients send to many targets at once, each link is shared by as many
/// streams as there are clients, of which each gets too little for TCP to share well: one that loses its turn waits for seconds, and
/// its call for it.
const IN_FLIGHT_BYTES: u64 = 4 << 20;
/// But so many slots in any case.
const SIDE_BY_SIDE_MIN: usize = 4;

/// What is asked of a file's targets.
#[derive(Clone, Copy)]
pub(crate) struct Want {
    access: Access,
    /// The end of what is written, as far as limits may not allow it; 0: they do.
    reach: u64,
    /// Not in any other session: what it is written under goes with that.
    only_in: Option<SessionId>,
}

impl From<Access> for Want {
    fn from(access: Access) -> Want {
        Want { access, reach: 0, only_in: None }
    }
}

impl Want {
    fn to_write(reach: u64) -> Want {
        Want { access: Access::WRITE, reach, only_in: None }
    }

    fn check(self, inode: &Inode, capability: Capability) -> Result<()> {
        match self.only_in {
            Some(session) if capability.grant.session != session => {
                Err(ClientError::AppendCut { ino: inode.ino })
            }
            _ => Ok(()),
        }
    }
}

/// What a slot answered to one read request.
pub(crate) struct ReadAnswer {
    /// How long the slot's object is.
    pub object_len: u64,
    pub payload: Bytes,
    /// How many bytes are in the read's room already, instead of in `payload`.
    pub in_room: Option<u64>,
}

/// Reads by `plan`. All answers are of the same data generation, which is returned with them. Iods that have this client's
/// memory leave what they read in `room`, each part where the caller wants it.
pub(crate) async fn read(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    plan: &[SlotRequest],
    room: Option<&Arc<Room>>,
) -> Result<(DataGen, Vec<ReadAnswer>)> {
    loop {
        if let Some((data_gen, data)) = core.read_inline(inode).await? {
            return Ok((data_gen, plan.iter().map(|request| of_inline(request, &data)).collect()));
        }
        let capability = core.fresh_capability(inode, Access::READ, None).await?;
        if inode.with(|state| state.is_inline()) {
            continue;
        }
        let answers = each_slot(plan, |request| read_slot(core, inode, capability, request, room)).await;
        if let Some((data_gen, answers)) = same_generation(answers)? {
            return Ok((data_gen, answers));
        }
    }
}

/// What the target of a slot would answer if it had the bytes that the mgr keeps. They are no more than a strip.
fn of_inline(request: &SlotRequest, data: &Bytes) -> ReadAnswer {
    if request.slot != Slot(0) {
        return ReadAnswer { object_len: 0, payload: Bytes::new(), in_room: None };
    }
    let below = |at: u64| plan::size(at.min(data.len() as u64));
    let part = |part: &plan::Part| data.slice(below(part.object.0)..below(part.object.0 + part.len));
    let payload = match &request.parts[..] {
        [only] => part(only),
        parts => parts.iter().flat_map(part).collect(),
    };
    ReadAnswer { object_len: data.len() as u64, payload, in_room: None }
}

/// Writes by `plan`, from `data`, nothing behind `end`. The size is known to this client before it is told to anybody.
/// With `only_in`, nothing is sent in another session than that.
pub(crate) async fn write(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    plan: &[SlotRequest],
    data: &Bytes,
    end: u64,
    only_in: Option<SessionId>,
) -> Result<WriteInFlight> {
    let want = Want { only_in, ..Want::to_write(end) };
    let (in_flight, mut capability) = begin_write(core, inode, end).await?;
    loop {
        let answers =
            each_slot(plan, |request| write_slot(core, inode, (capability, want), request, data)).await;
        if same_generation(answers)?.is_some() {
            return Ok(in_flight);
        }
        capability = core.capability_to(inode, end).await?;
    }
}

/// Makes sure that the mgr knows of the writer, and allows what it writes, before the first byte leaves.
pub(crate) async fn begin_write(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    end: u64,
) -> Result<(WriteInFlight, Capability)> {
    loop {
        if let Some(begun) = inode.begin_write(end) {
            return Ok(begun);
        }
        core.capability_to(inode, end).await?;
    }
}

/// Makes durable what lies in `slots`.
///
/// # Errors
/// A target's disk failed, also when all that this client holds was sent again.
pub(crate) async fn sync(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    access: Access,
    slots: Vec<Slot>,
) -> Result<()> {
    if slots.is_empty() {
        return Ok(());
    }
    let capability = match inode.capability(access) {
        Some(capability) => capability,
        None => core.fresh_capability(inode, access, None).await?,
    };
    let synced = slots.into_iter().map(|slot| sync_slot(core, inode, capability, access, slot));
    join_all(synced).await.into_iter().collect()
}

/// Syncs until the target says so under the store generation that all held writes were acknowledged under.
async fn sync_slot(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    capability: Capability,
    access: Access,
    slot: Slot,
) -> Result<()> {
    let target = core.targets.locate(&capability.grant.dist, slot).await;
    let hold = core.holds.of(target);
    let mut failures = 0;
    loop {
        let next = hold.look(Held::next);
        let make = |target, pass| Sync { target, pass, slots: vec![slot] };
        match call_slot(core, inode, capability, access, slot, &[], make).await {
            Ok((data_gen, (written, _))) => {
                let object = (inode.ino, data_gen, slot);
                let synced = hold.change(|held| held.synced(object, next, written.generations.store));
                if synced.is_some() {
                    return Ok(());
                }
            }
            // The iod has raised the generation: the next try sends again first what may be lost.
            Err(ClientError::Refused { .. }) if failures < FAILED_SYNCS_MAX => failures += 1,
            Err(error) => return Err(error),
        }
    }
}

/// Runs `send` for all requests: slots side by side, as many as [`IN_FLIGHT_BYTES`] let, the requests of one slot one after the
/// other. Answers come in the order of `plan`.
async fn each_slot<'a, T, F>(plan: &'a [SlotRequest], send: impl Fn(&'a SlotRequest) -> F) -> Vec<Result<T>>
where
    F: Future<Output = Result<T>>,
{
    if let [only] = plan {
        return vec![send(only).await];
    }
    let mut by_slot: Vec<(Slot, Vec<usize>)> = Vec::new();
    for (index, request) in plan.iter().enumerate() {
        match by_slot.iter_mut().find(|(slot, _)| *slot == request.slot) {
            Some((_, indexes)) => indexes.push(index),
            None => by_slot.push((request.slot, vec![index])),
        }
    }
    let largest = plan.iter().map(|request| request.bytes).max().unwrap_or(0).max(1);
    let side_by_side = plan::size(IN_FLIGHT_BYTES / largest).max(SIDE_BY_SIDE_MIN);
    let send = &send;
    let slots = by_slot.into_iter().map(|(_, indexes)| async move {
        let mut answers = Vec::with_capacity(indexes.len());
        for index in indexes {
            answers.push((index, send(&plan[index]).await));
        }
        answers
    });
    let mut answers: Vec<(usize, Result<T>)> =
        stream::iter(slots).buffer_unordered(side_by_side).flat_map(stream::iter).collect().await;
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The answers, if all came under one data generation; the first error, if there is one.
pub(crate) fn same_generation<T>(answers: Vec<Result<(DataGen, T)>>) -> Result<Option<(DataGen, Vec<T>)>> {
    let mut generation = None;
    let mut same = Vec::with_capacity(answers.len());
    let mut mixed = false;
    for answer in answers {
        let (data_gen, answer) = answer?;
        mixed |= *generation.get_or_insert(data_gen) != data_gen;
        same.push(answer);
    }
    Ok(generation.filter(|_| !mixed).map(|data_gen| (data_gen, same)))
}

async fn read_slot(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    capability: Capability,
    request: &SlotRequest,
    room: Option<&Arc<Room>>,
) -> Result<(DataGen, ReadAnswer)> {
    if let Some(answer) = near::read(core, inode, &capability, request, room).await {
        core.counters.bytes_read.add(answer.in_room.unwrap_or(answer.payload.len() as u64));
        return Ok((capability.grant.data_gen, answer));
    }
    let make = |target, pass| Read { target, pass, slot: request.slot, ranges: request.ranges.clone() };
    let room = room.and_then(|room| AnswerRoom::new(room, request.parts.iter().map(Part::place)));
    let load = Load { payload: &[], room: room.as_ref() };
    let (data_gen, (done, payload)): (_, (ReadDone, _)) =
        call_slot(core, inode, capability, Access::READ, request.slot, load, make).await?;
    let in_room = room.and_then(|room| room.filled());
    core.counters.bytes_read.add(in_room.unwrap_or(payload.len() as u64));
    if done.exists {
        near::was_asked(core, inode, capability, request.slot).await;
    }
    Ok((data_gen, ReadAnswer { object_len: done.object_len, payload, in_room }))
}

async fn write_slot(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    (capability, want): (Capability, Want),
    request: &SlotRequest,
    data: &Bytes,
) -> Result<(DataGen, ())> {
    let target = core.targets.locate(&capability.grant.dist, request.slot).await;
    let payload = core.lent(target, request.payload(data), request.bytes);
    let room = core.holds.room(target, request.bytes).await;
    let ranges = || request.ranges.clone();
    let make = |target, pass| Write { target, pass, slot: request.slot, ranges: ranges(), again: None };
    let (data_gen, (written, _)) =
        call_slot(core, inode, capability, want, request.slot, &payload, make).await?;
    core.counters.bytes_written.add(request.bytes);
    let what = What::Bytes { ranges: ranges(), payload: core.own(payload, request.bytes, data) };
    keep(core, (inode.ino, data_gen, request.slot), target, room, what, request.bytes, &written);
    Ok((data_gen, ()))
}

/// Holds what was acknowledged until it is durable.
fn keep(
    core: &Arc<Core>,
    (ino, data_gen, slot): Object,
    target: TargetId,
    room: holds::Room,
    what: What,
    bytes: u64,
    written: &Written,
) {
    // An iod of an earlier version does not tell when to let go of it.
    let Some(Durability { mark, .. }) = written.durability else { return };
    let acked = Acked { generation: written.generations.store, mark, below: None };
    let hold = core.holds.of(target);
    if room.keep(HeldWrite { ino, data_gen, slot, what, bytes, acked }) {
        core.look_after(Arc::clone(&hold));
    }
    hold.told(written);
}

/// Fills the logical bytes `start..end`: with zeros, or with room. The file is to reach to `reach`, or hold room so far.
pub(crate) async fn fill(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    range: Range<u64>,
    with: FillWith,
    reach: u64,
) -> Result<WriteInFlight> {
    let (in_flight, mut capability) = begin_write(core, inode, reach).await?;
    loop {
        let dist = capability.grant.dist;
        let filled = dist.slots().filter_map(|slot| {
            let [start, end] = [range.start, range.end].map(|at| dist.object_len(slot, at));
            (start < end).then(|| fill_slot(core, inode, (capability, reach), slot, start..end, with))
        });
        if same_generation(join_all(filled).await)?.is_some() {
            return Ok(in_flight);
        }
        capability = core.capability_to(inode, reach).await?;
    }
}

async fn fill_slot(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    (capability, reach): (Capability, u64),
    slot: Slot,
    range: Range<u64>,
    with: FillWith,
) -> Result<(DataGen, ())> {
    let target = core.targets.locate(&capability.grant.dist, slot).await;
    let room = core.holds.room(target, 0).await;
    let (start, end) = (ObjectOffset(range.start), ObjectOffset(range.end));
    let make = |target, pass| Fill { target, pass, slot, start, end, with, again: None };
    let want = Want::to_write(reach);
    let (data_gen, (written, _)) = call_slot(core, inode, capability, want, slot, &[], make).await?;
    if with == FillWith::Zeros {
        keep(core, (inode.ino, data_gen, slot), target, room, What::Zeros { start, end }, 0, &written);
    }
    Ok((data_gen, ()))
}

/// Where in the file data, or a hole, lies at `from` or next behind it; `None`: nowhere.
pub(crate) async fn find_data(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    access: Access,
    from: u64,
    hole: bool,
) -> Result<Option<u64>> {
    let capability = match inode.capability(access) {
        Some(capability) => capability,
        None => core.fresh_capability(inode, access, None).await?,
    };
    let dist = capability.grant.dist;
    let asked = dist.slots().map(async |slot| {
        let from = ObjectOffset(dist.object_len(slot, from));
        let make = |target, pass| FindData { target, pass, slot, from, hole };
        let (_, (found, _)) = call_slot(core, inode, capability, access, slot, &[], make).await?;
        Ok(found.at.and_then(|at| dist.logical(slot, at)).map(|at| at.0))
    });
    let found: Result<Vec<Option<u64>>> = join_all(asked).await.into_iter().collect();
    Ok(found?.into_iter().flatten().min())
}

/// Asks the iod that holds `slot` until it is done or refused for good. Gives the data generation it was done in.
pub(crate) async fn call_slot<R: Request>(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    capability: Capability,
    want: impl Into<Want>,
    slot: Slot,
    load: impl Into<Load<'_>>,
    make: impl Fn(TargetId, Pass) -> R + marker::Sync,
) -> Result<(DataGen, (R::Reply, Bytes))> {
    let mut reply = None;
    let call = SlotCall { core, inode, op: R::OP, want: want.into(), slot, load: load.into() };
    let make = |target, pass| encode(&make(target, pass));
    let (data_gen, payload) = call.send(capability, &make, &mut read_into(&mut reply)).await?;
    Ok((data_gen, (net::read(reply), payload)))
}

/// What is asked of the iod that holds `slot`.
struct SlotCall<'a> {
    core: &'a Arc<Core>,
    inode: &'a Arc<Inode>,
    op: Op,
    want: Want,
    slot: Slot,
    load: Load<'a>,
}

impl<'a> SlotCall<'a> {
    /// Boxed and of no request's type, so that it is compiled here, once.
    fn send(
        self,
        mut capability: Capability,
        make: &'a (dyn Fn(TargetId, Pass) -> Vec<u8> + marker::Sync),
        read: ReadBody<'a>,
    ) -> BoxFuture<'a, Result<(DataGen, Bytes)>> {
        let SlotCall { core, inode, op, want, slot, load } = self;
        let Want { access, reach, .. } = want;
        Box::pin(async move {
            let mut tries = Tries::default();
            loop {
                if reach > 0 && !capability.grant.reaches(reach) {
                    capability = core.capability_to(inode, reach).await?;
                }
                want.check(inode, capability)?;
                let target = core.targets.locate(&capability.grant.dist, slot).await;
                let pass = Pass { capability, lease: core.session.lease(), store: core.holds.known(target) };
                match core.targets.call_encoded(target, op, &make(target, pass), load, read).await {
                    Ok(answer) => return Ok((capability.grant.data_gen, answer)),
                    Err(refusal) => {
                        core.counters.resent.inc();
                        mend(core, inode, access, &mut tries, (target, op), pass, &mut capability, refusal)
                            .await?;
                    }
                }
            }
        })
    }
}

/// Does what an iod's refusal asks for before the request is sent again; or gives the error.
#[expect(clippy::too_many_arguments, reason = "what was tried, and what to try next")]
pub(crate) async fn mend(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    access: Access,
    tries: &mut Tries,
    (target, op): (TargetId, Op),
    pass: Pass,
    capability: &mut Capability,
    refusal: Refusal,
) -> Result<()> {
    match tries.refused(refusal.status) {
        Action::RenewLease => {
            core.session.renew_lease(pass.lease).await;
            if tries.waits > 1 {
                tokio::time::sleep(pause_after(tries.waits)).await;
            }
            // A new session comes with new leases; its capabilities are others too.
            if core.session.lease().session != capability.grant.session {
                *capability = core.fresh_capability(inode, access, Some(pass.capability)).await?;
            }
        }
        Action::FreshCapability => {
            if tries.waits > 1 {
                tokio::time::sleep(pause_after(tries.waits)).await;
            }
            *capability = core.fresh_capability(inode, access, Some(pass.capability)).await?;
        }
        Action::RefreshTargets => {
            tokio::time::sleep(pause_after(tries.waits)).await;
            core.targets.refresh().await;
        }
        Action::Later => tokio::time::sleep(pause_after(tries.waits)).await,
        Action::SendAgain { generation } => core.send_again(target, generation).await?,
        Action::NewSession | Action::GiveUp => return Err(op_refused(op, refusal)),
    }
    Ok(())
}

/// An iod that answers nonsense.
pub(crate) fn misfit(op: Op, misfit: crate::plan::Misfit) -> ClientError {
    let crate::plan::Misfit { expected, got } = misfit;
    let text = format!("an iod sent {got} bytes where {expected} were due");
    ClientError::Refused { op, errno: Errno::EIO, text }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{Distribution, IodtabGen, LogicalOffset};
    use std::cell::Cell;

    /// A call of `len` bytes over 16 slots: how many requests it makes, and how many of them are under way at most.
    async fn check(len: u64, expected: (usize, usize)) {
        let dist = Distribution { iodtab: IodtabGen(1), base: 3, pcount: 16, ssize: 64 << 10 };
        let plan = plan::list(&dist, [(LogicalOffset(0), len)]);
        let (now, most) = (Cell::new(0), Cell::new(0));
        let send = |request: &SlotRequest| {
            let slot = request.slot;
            now.set(now.get() + 1);
            most.set(most.get().max(now.get()));
            let now = &now;
            async move {
                tokio::task::yield_now().await;
                now.set(now.get() - 1);
                Ok(slot)
            }
        };
        let answers: Vec<Slot> = each_slot(&plan, send).await.into_iter().map(Result::unwrap).collect();
        assert_eq!(
            answers,
            plan.iter().map(|request| request.slot).collect::<Vec<_>>(),
            "in the plan's order"
        );
        assert_eq!((plan.len(), most.get()), expected);
    }

    #[tokio::test]
    async fn a_call_of_many_bytes_goes_to_few_slots_at_once_and_one_of_few_to_all() {
        check(64 << 10, (1, 1)).await;
        check(1 << 20, (16, 16)).await;
        check(16 << 20, (16, 4)).await;
        check(160 << 20, (48, 4)).await;
    }
}
