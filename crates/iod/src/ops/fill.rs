//! Fills a range of one object with zeros, or gives it room.

use crate::{guard, mgr_time::Admitted, ranges, service::Iod};
use pvfs_net::Incoming;
use pvfs_types::ObjectId;
use pvfs_wire::{
    Access, Refusal,
    msg::data::{Fill, FillWith, Written},
};

pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<Written, Refusal> {
    let req: Fill = request.decode()?;
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::WRITE, &[req.slot])?;
    let grant = &req.pass.capability.grant;
    let range = ranges::one(req.start, req.end, &grant.dist, req.slot)?;
    if req.with == FillWith::Room {
        // Zeros past the end take no space.
        guard::may_reach(grant, iod.time.writes_since_ms(), req.slot, req.end)?;
    }
    target.check_store(req.pass.store)?;
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let makes = guard::may_make(grant, iod.time.first_told_ms());
    let fill = pvfs_store::Fill {
        range,
        with: match req.with {
            FillWith::Zeros => pvfs_store::FillWith::Zeros,
            FillWith::Room => pvfs_store::FillWith::Room,
        },
        writer: grant.session.0,
        again: req.again.map(super::acked),
        makes: makes.is_ok(),
    };
    // Before it is filled: what is lost meanwhile must not pass for committed.
    let committed = target.store.committed();
    let acked = super::made(target.store.fill(id, &fill), makes)?;
    Ok(super::written(target, acked, committed))
}
