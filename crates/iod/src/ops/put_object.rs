//! Makes an object of what the mgr has kept of a small file.

use crate::{service::Iod, target};
use pvfs_net::Incoming;
use pvfs_store::{ObjectRun, Write};
use pvfs_types::{ObjectOffset, limits::INLINE_BYTES_MAX};
use pvfs_wire::{
    Refusal, Status,
    msg::{data::PutObject, session::Done},
};

/// The writer that no session is.
const MGR: u64 = 0;

pub fn serve(iod: &Iod, request: &Incoming) -> Result<Done, Refusal> {
    let req: PutObject = request.decode()?;
    if req.data.len() > INLINE_BYTES_MAX {
        let text =
            format!("{} bytes, at most {INLINE_BYTES_MAX} of a file are kept by a mgr", req.data.len());
        return Err(Refusal::new(Status::BadRequest, text));
    }
    let store = &iod.target(req.target)?.store;
    let refused = |error| target::refusal(&error);
    let runs = [ObjectRun { offset: ObjectOffset(0), len: req.data.len() }];
    // The mgr's, who knows that it was not removed.
    let write = Write { runs: &runs, writer: MGR, again: None, makes: true };
    let acked = store.write(req.object, &write, &req.data).map_err(refused)?;
    let synced = store.sync(req.object, MGR).map_err(refused)?;
    if synced != acked.generation {
        return Err(Refusal::new(Status::NotNow, "the disk failed meanwhile: the bytes may be lost"));
    }
    Ok(Done {})
}
