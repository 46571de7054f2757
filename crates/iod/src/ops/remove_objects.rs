//! Removes objects, for the mgr's garbage list.

use crate::{service::Iod, target};
use pvfs_net::Incoming;
use pvfs_wire::{
    Refusal,
    msg::{data::RemoveObjects, session::Done},
};

pub fn serve(iod: &Iod, request: &Incoming) -> Result<Done, Refusal> {
    let req: RemoveObjects = request.decode()?;
    super::check_count(req.objects.len())?;
    let target = iod.target(req.target)?;
    target.store.remove(&req.objects).map_err(|error| target::refusal(&error))?;
    Ok(Done {})
}
