//! Reads bytes of one object into one buffer, which becomes the reply's payload.

use crate::{guard, mgr_time::Admitted, ranges, service::Iod, target};
use bytes::Bytes;
use pvfs_net::{Incoming, Replier};
use pvfs_types::ObjectId;
use pvfs_wire::{
    Access, Refusal, Status,
    msg::data::{Read, ReadDone},
};
use tokio::sync::SemaphorePermit;

/// Bytes read, and the memory they hold of what all reads together may take.
pub struct ReadAnswer<'a> {
    done: ReadDone,
    bytes: Bytes,
    _memory: SemaphorePermit<'a>,
}

impl super::Answer for ReadAnswer<'_> {
    async fn send(self, reply: Replier) {
        reply.ok_payload(&self.done, &[self.bytes]).await;
    }
}

pub async fn serve<'a>(
    iod: &'a Iod,
    request: &Incoming,
    admitted: &Admitted,
) -> Result<ReadAnswer<'a>, Refusal> {
    let req: Read = request.decode()?;
    let target = iod.target(req.target)?;
    guard::check(&req.pass, &iod.key, admitted.now_ms, Access::READ, &[req.slot])?;
    let grant = &req.pass.capability.grant;
    let asked = ranges::expand(&req.ranges, &grant.dist, req.slot)?;
    target.check_store(req.pass.store)?;
    let kib = u32::try_from(asked.bytes.div_ceil(1024)).unwrap_or(u32::MAX);
    let memory = iod.read_memory.acquire_many(kib).await;
    let memory = memory.map_err(|_| Refusal::new(Status::NotNow, "the iod is stopping"))?;
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let store = target.store.generation();
    let read = target.store.read(id, &asked.runs).map_err(|error| target::refusal(&error))?;
    iod.counters.bytes_read.add(read.bytes.len() as u64);
    let done =
        ReadDone { generations: target.generations(store), object_len: read.object_len, exists: read.exists };
    Ok(ReadAnswer { done, bytes: read.bytes, _memory: memory })
}
