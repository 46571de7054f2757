//! Tells where an object has data, or none, next.

use crate::{guard, mgr_time::Admitted, service::Iod, target};
use pvfs_net::Incoming;
use pvfs_types::{ObjectId, ObjectOffset};
use pvfs_wire::{
    Access, Refusal,
    msg::data::{DataFound, FindData},
};

/// Whoever has the file open may ask, as lseek(2) has it.
pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<DataFound, Refusal> {
    let req: FindData = request.decode()?;
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::default(), &[req.slot])?;
    target.check_store(req.pass.store)?;
    let store = target.store.generation();
    let grant = &req.pass.capability.grant;
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let from = req.from.0;
    let found = if i64::try_from(from).is_err() {
        Ok(req.hole.then_some(from))
    } else if req.hole {
        target.store.next_hole(id, from).map(Some)
    } else {
        target.store.next_data(id, from)
    };
    let at = found.map_err(|error| target::refusal(&error))?.map(ObjectOffset);
    Ok(DataFound { generations: target.generations(store), at })
}
