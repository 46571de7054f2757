//! Tells how long objects are.

use crate::{service::Iod, target};
use pvfs_wire::{
    Refusal,
    msg::data::{ObjectStat, ObjectStats, StatObjects},
};

pub fn count(req: &StatObjects) -> usize {
    req.objects.len()
}

pub fn serve(iod: &Iod, req: &StatObjects) -> Result<ObjectStats, Refusal> {
    super::check_count(req.objects.len())?;
    let target = iod.target(req.target)?;
    target.check_store(req.store)?;
    let store = target.store.generation();
    let mut objects = Vec::with_capacity(req.objects.len());
    for &id in &req.objects {
        let stat = target.store.stat(id).map_err(|error| target::refusal(&error))?;
        objects.push(stat.map(|s| ObjectStat { len: s.len, allocated: s.allocated, mtime: s.mtime }));
    }
    Ok(ObjectStats { generations: target.generations(store), objects })
}
