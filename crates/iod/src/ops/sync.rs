//! Makes slots of one file durable.

use crate::{guard, mgr_time::Admitted, service::Iod, target};
use pvfs_net::Incoming;
use pvfs_types::{ObjectId, Slot};
use pvfs_wire::{
    Access, Refusal,
    msg::data::{Sync, Written},
};
use std::collections::BTreeSet;

/// Whoever may open the file may sync it, as fsync(2) has it.
pub fn serve(iod: &Iod, request: &Incoming, admitted: &Admitted) -> Result<Written, Refusal> {
    let req: Sync = request.decode()?;
    super::check_count(req.slots.len())?;
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::default(), &req.slots)?;
    target.check_store(req.pass.store)?;
    let grant = &req.pass.capability.grant;
    let slots: BTreeSet<Slot> = req.slots.iter().copied().collect();
    for slot in slots {
        let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot };
        target.store.sync(id, grant.session.0).map_err(|error| target::refusal(&error))?;
    }
    // After all of them: what was lost before this moment shows in it.
    Ok(target.committed())
}
