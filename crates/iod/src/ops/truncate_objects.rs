//! Cuts objects, for a truncation that the mgr carries out.

use crate::{service::Iod, target};
use pvfs_net::Incoming;
use pvfs_wire::{
    Refusal,
    msg::{data::TruncateObjects, session::Done},
};

pub fn serve(iod: &Iod, request: &Incoming) -> Result<Done, Refusal> {
    let req: TruncateObjects = request.decode()?;
    super::check_count(req.objects.len())?;
    let target = iod.target(req.target)?;
    for &(id, len) in &req.objects {
        target.store.truncate(id, len).map_err(|error| target::refusal(&error))?;
    }
    Ok(Done {})
}
