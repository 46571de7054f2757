//! Tells which objects a target has, page by page.

use crate::{service::Iod, target};
use pvfs_net::Incoming;
use pvfs_types::limits::FSCK_PAGE_MAX;
use pvfs_wire::{
    Refusal,
    msg::fsck::{ListObjects, Objects},
};

pub fn serve(iod: &Iod, request: &Incoming) -> Result<Objects, Refusal> {
    let req: ListObjects = request.decode()?;
    let max = usize::try_from(req.max).unwrap_or(FSCK_PAGE_MAX).min(FSCK_PAGE_MAX);
    let listed = iod.target(req.target)?.store.list(req.after, max);
    let mut page = listed.map_err(|error| target::refusal(&error))?;
    page.strangers.truncate(FSCK_PAGE_MAX);
    Ok(Objects { objects: page.objects, strangers: page.strangers, end: page.end })
}
