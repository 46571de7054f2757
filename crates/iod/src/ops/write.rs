//! Writes the payload to one object.

use crate::{guard, mgr_time::Admitted, ranges, service::Iod};
use pvfs_env::memory::Source;
use pvfs_net::{Incoming, Shared};
use pvfs_types::{ObjectId, ObjectOffset};
use pvfs_wire::{
    Access, Refusal,
    msg::data::{Write, Written},
};

pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<Written, Refusal> {
    let req: Write = request.decode()?;
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::WRITE, &[req.slot])?;
    let grant = &req.pass.capability.grant;
    let source = match &request.shared {
        Shared::Payload(parts) => Source::Shared(parts),
        Shared::Nothing | Shared::Room(_) => Source::Own(&request.payload),
    };
    let asked = ranges::expand_payload(&req.ranges, &grant.dist, req.slot, source.len())?;
    // What was acknowledged once was allowed then.
    if req.again.is_none() {
        let end = asked.runs.iter().map(|run| run.offset.0 + run.len as u64).max().unwrap_or(0);
        guard::may_reach(grant, iod.time.writes_since_ms(), req.slot, ObjectOffset(end))?;
    }
    target.check_store(req.pass.store)?;
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let again = req.again.map(super::acked);
    let makes = guard::may_make(grant, iod.time.first_told_ms());
    let write = pvfs_store::Write { runs: &asked.runs, writer: grant.session.0, again, makes: makes.is_ok() };
    // Before it is written: what is lost meanwhile must not pass for committed.
    let committed = target.store.committed();
    let written = target.store.write_from(id, &write, source);
    let acked = super::made(written, makes)?;
    iod.counters.bytes_written.add(asked.bytes as u64);
    if target.store.uncommitted_bytes() >= iod.commit_bytes {
        target.commit_soon.notify_one();
    }
    Ok(super::written(target, acked, committed))
}
