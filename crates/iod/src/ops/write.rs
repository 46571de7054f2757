//! Writes the payload to one object.

use crate::{guard, mgr_time::Admitted, ranges, service::Iod, target};
use pvfs_net::Incoming;
use pvfs_types::ObjectId;
use pvfs_wire::{
    Access, Refusal,
    msg::data::{Write, Written},
};

pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<Written, Refusal> {
    let req: Write = request.decode()?;
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::WRITE, &[req.slot])?;
    let grant = &req.pass.capability.grant;
    let asked = ranges::expand_payload(&req.ranges, &grant.dist, req.slot, request.payload.len())?;
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let written = target.store.write(id, &asked.runs, &request.payload);
    let store = written.map_err(|error| target::refusal(&error))?;
    iod.counters.bytes_written.add(asked.bytes as u64);
    Ok(Written { generations: target.generations(store) })
}
