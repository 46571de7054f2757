//! Tells what of a target is durable; makes it so first, if that is asked for.

use crate::{service::Iod, target};
use pvfs_net::Incoming;
use pvfs_wire::{
    Refusal,
    msg::data::{Commit, Written},
};

pub fn serve(iod: &Iod, request: &Incoming) -> Result<Written, Refusal> {
    let req: Commit = request.decode()?;
    let target = iod.target(req.target)?;
    target.check_store(req.store)?;
    if req.now {
        iod.commit(target).map_err(|error| target::refusal(&error))?;
    }
    Ok(target.committed())
}
