//! Copies a range of one object to another one of the same target: no byte of it passes through the client.

use crate::{guard, mgr_time::Admitted, ranges, service::Iod, target};
use pvfs_net::Incoming;
use pvfs_store::StoreError;
use pvfs_types::{ObjectId, ObjectOffset, limits::COPY_BYTES_MAX};
use pvfs_wire::{
    Access, Refusal, Status,
    msg::data::{Copied, Copy, Pass, Written},
};

pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<Copied, Refusal> {
    let req: Copy = request.decode()?;
    let target = iod.target(req.target)?;
    let reading = Pass { capability: req.from, ..req.pass };
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::WRITE, &[req.slot])?;
    guard::check(&reading, &iod.key, admitted.now_ms, Access::READ, &[req.from_slot])?;
    let (grant, from) = (&req.pass.capability.grant, &req.from.grant);
    let to = ranges::one(req.start, req.end, &grant.dist, req.slot)?;
    let len = to.end - to.start;
    if len > COPY_BYTES_MAX {
        let text = format!("a copy is of at most {COPY_BYTES_MAX} bytes, this one is of {len}: split it");
        return Err(Refusal::new(Status::BadRequest, text));
    }
    // An end past all numbers is one past the largest file.
    let end = ObjectOffset(req.from_start.0.saturating_add(len));
    let range = ranges::one(req.from_start, end, &from.dist, req.from_slot)?;
    guard::may_reach(grant, iod.time.writes_since_ms(), req.slot, ObjectOffset(to.end))?;
    target.check_store(req.pass.store)?;
    let source = ObjectId { ino: from.ino, data_gen: from.data_gen, slot: req.from_slot };
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let makes = guard::may_make(grant, iod.time.first_told_ms());
    let copy = pvfs_store::Copy { range, to: to.start, writer: grant.session.0, makes: makes.is_ok() };
    // Before it is written: what is lost meanwhile must not pass for committed.
    let committed = target.store.committed();
    let copied = match (target.store.copy(source, id, &copy), makes) {
        (Err(StoreError::Absent { .. }), Err(refusal)) => return Err(refusal),
        (copied, _) => copied.map_err(|error| target::refusal(&error))?,
    };
    iod.counters.bytes_copied.add(len);
    if target.store.uncommitted_bytes() >= iod.commit_bytes {
        target.commit_soon.notify_one();
    }
    let Written { generations, durability } = super::written(target, copied.acked, committed);
    Ok(Copied { generations, durability, source_len: copied.source_len })
}
