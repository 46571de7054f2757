//! Sends an access to all targets at once, waits for all of them, merges what they say.
//!
//! A dropped write may have been done, in part or whole, and parts of it may still be done a moment later (until the
//! iod has finished what it had received, or dropped the connection). The client then asks the targets for the size
//! instead of trusting its own.

use crate::{
    ClientError,
    calls::{pause_after, refused},
    client::Core,
    error::Result,
    held::{self, Held, HeldWrite},
    inode::{Inode, WriteInFlight},
    plan::SlotRequest,
    retry::{Action, Tries},
};
use bytes::Bytes;
use futures_util::future::join_all;
use pvfs_types::{DataGen, Errno, Slot, TargetId};
use pvfs_wire::{
    Access, Capability, Op, Refusal, Request,
    msg::data::{Acked, Durability, Pass, Read, ReadDone, Sync, Write},
};
use std::{future::Future, sync::Arc};

/// How often a sync that a target's disk failed is tried again, each time after all that is held was sent again.
const FAILED_SYNCS_MAX: u32 = 2;

/// What a slot answered to one read request.
pub(crate) struct ReadAnswer {
    pub done: ReadDone,
    pub payload: Bytes,
}

/// Reads by `plan`. All answers are of the same data generation, which is returned with them.
pub(crate) async fn read(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    plan: &[SlotRequest],
) -> Result<(DataGen, Vec<ReadAnswer>)> {
    loop {
        let capability = core.fresh_capability(inode, Access::READ, None).await?;
        let answers = each_slot(plan, |request| read_slot(core, inode, capability, request)).await;
        if let Some((data_gen, answers)) = same_generation(answers)? {
            return Ok((data_gen, answers));
        }
    }
}

/// Writes by `plan`, from `data`. The size is known to this client before it is told to anybody.
pub(crate) async fn write(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    plan: &[SlotRequest],
    data: &Bytes,
) -> Result<WriteInFlight> {
    let (in_flight, mut capability) = begin_write(core, inode).await?;
    loop {
        let answers = each_slot(plan, |request| write_slot(core, inode, capability, request, data)).await;
        if same_generation(answers)?.is_some() {
            return Ok(in_flight);
        }
        capability = core.fresh_capability(inode, Access::WRITE, None).await?;
    }
}

/// Makes sure that the mgr knows of the writer, before the first byte leaves.
async fn begin_write(core: &Arc<Core>, inode: &Arc<Inode>) -> Result<(WriteInFlight, Capability)> {
    loop {
        if let Some(begun) = inode.begin_write() {
            return Ok(begun);
        }
        core.fresh_capability(inode, Access::WRITE, None).await?;
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

/// Runs `send` for all requests: slots side by side, the requests of one slot one after the other. Answers come in
/// the order of `plan`.
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
    let send = &send;
    let slots = by_slot.into_iter().map(|(_, indexes)| async move {
        let mut answers = Vec::with_capacity(indexes.len());
        for index in indexes {
            answers.push((index, send(&plan[index]).await));
        }
        answers
    });
    let mut answers: Vec<(usize, Result<T>)> = join_all(slots).await.into_iter().flatten().collect();
    answers.sort_by_key(|(index, _)| *index);
    answers.into_iter().map(|(_, answer)| answer).collect()
}

/// The answers, if all came under one data generation; the first error, if there is one.
fn same_generation<T>(answers: Vec<Result<(DataGen, T)>>) -> Result<Option<(DataGen, Vec<T>)>> {
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
) -> Result<(DataGen, ReadAnswer)> {
    let make = |target, pass| Read { target, pass, slot: request.slot, ranges: request.ranges.clone() };
    let (data_gen, (done, payload)) =
        call_slot(core, inode, capability, Access::READ, request.slot, &[], make).await?;
    core.counters.bytes_read.add(payload.len() as u64);
    Ok((data_gen, ReadAnswer { done, payload }))
}

async fn write_slot(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    capability: Capability,
    request: &SlotRequest,
    data: &Bytes,
) -> Result<(DataGen, ())> {
    let payload = request.payload(data);
    let target = core.targets.locate(&capability.grant.dist, request.slot).await;
    let room = core.holds.room(target, request.bytes).await;
    let ranges = || request.ranges.clone();
    let make = |target, pass| Write { target, pass, slot: request.slot, ranges: ranges(), again: None };
    let (data_gen, (written, _)) =
        call_slot(core, inode, capability, Access::WRITE, request.slot, &payload, make).await?;
    core.counters.bytes_written.add(request.bytes);
    // An iod of an earlier version does not tell when to let go of it.
    let Some(Durability { mark, .. }) = written.durability else { return Ok((data_gen, ())) };
    let held = HeldWrite {
        ino: inode.ino,
        data_gen,
        slot: request.slot,
        ranges: ranges(),
        payload: held::own(payload, request.bytes),
        bytes: request.bytes,
        acked: Acked { generation: written.generations.store, mark, below: None },
    };
    let hold = core.holds.of(target);
    if room.keep(held) {
        core.look_after(Arc::clone(&hold));
    }
    hold.told(&written);
    Ok((data_gen, ()))
}

/// Asks the iod that holds `slot` until it is done or refused for good. Gives the data generation it was done in.
async fn call_slot<R: Request>(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    mut capability: Capability,
    access: Access,
    slot: Slot,
    payload: &[Bytes],
    make: impl Fn(TargetId, Pass) -> R,
) -> Result<(DataGen, (R::Reply, Bytes))> {
    let mut tries = Tries::default();
    loop {
        let target = core.targets.locate(&capability.grant.dist, slot).await;
        let pass = Pass { capability, lease: core.session.lease(), store: core.holds.known(target) };
        match core.targets.call(target, &make(target, pass), payload).await {
            Ok(answer) => return Ok((capability.grant.data_gen, answer)),
            Err(refusal) => {
                core.counters.resent.inc();
                mend::<R>(core, inode, access, &mut tries, target, pass, &mut capability, refusal).await?;
            }
        }
    }
}

/// Does what an iod's refusal asks for before the request is sent again; or gives the error.
#[expect(clippy::too_many_arguments, reason = "what was tried, and what to try next")]
pub(crate) async fn mend<R: Request>(
    core: &Arc<Core>,
    inode: &Arc<Inode>,
    access: Access,
    tries: &mut Tries,
    target: TargetId,
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
        Action::NewSession | Action::GiveUp => return Err(refused::<R>(refusal)),
    }
    Ok(())
}

/// An iod that answers nonsense.
pub(crate) fn misfit(op: Op, misfit: crate::plan::Misfit) -> ClientError {
    let crate::plan::Misfit { expected, got } = misfit;
    let text = format!("an iod sent {got} bytes where {expected} were due");
    ClientError::Refused { op, errno: Errno::EIO, text }
}
