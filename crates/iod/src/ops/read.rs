//! Reads bytes of one object into one buffer, which becomes the reply's payload; or into room that the client lends for it.

use crate::{guard, mgr_time::Admitted, ranges, service::Iod, target};
use bytes::Bytes;
use pvfs_env::memory::SharedSlice;
use pvfs_net::{Incoming, Replier, Shared};
use pvfs_types::ObjectId;
use pvfs_wire::{
    Access, Refusal, Status,
    msg::data::{Read, ReadDone},
};
use tokio::sync::SemaphorePermit;

pub struct ReadAnswer<'a> {
    done: ReadDone,
    found: Found<'a>,
}

/// Where the bytes are.
enum Found<'a> {
    /// Here; with the memory they hold of what all reads together may take.
    Here(Bytes, SemaphorePermit<'a>),
    /// So many are in the client's room.
    InRoom(u32),
}

impl super::Answer for ReadAnswer<'_> {
    async fn send(self, reply: Replier) {
        match self.found {
            Found::Here(bytes, _memory) => reply.ok_payload(&self.done, &[bytes]).await,
            Found::InRoom(bytes) => reply.ok_in_room(&self.done, bytes).await,
        }
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
    let id = ObjectId { ino: grant.ino, data_gen: grant.data_gen, slot: req.slot };
    let store = target.store.generation();
    let failed = |error| target::refusal(&error);
    let (found, object_len, exists, bytes) = if let Some(room) = room(request, asked.bytes)? {
        let read = target.store.read_to(id, &asked.runs, room).map_err(failed)?;
        let filled = u32::try_from(read.filled).expect("within a payload's length");
        (Found::InRoom(filled), read.object_len, read.exists, read.filled)
    } else {
        let kib = u32::try_from(asked.bytes.div_ceil(1024)).unwrap_or(u32::MAX);
        let memory = iod.read_memory.acquire_many(kib).await;
        let memory = memory.map_err(|_| Refusal::new(Status::NotNow, "the iod is stopping"))?;
        let read = target.store.read(id, &asked.runs).map_err(failed)?;
        let bytes = read.bytes.len();
        (Found::Here(read.bytes, memory), read.object_len, read.exists, bytes)
    };
    iod.counters.bytes_read.add(bytes as u64);
    let done = ReadDone { generations: target.generations(store), object_len, exists };
    Ok(ReadAnswer { done, found })
}

/// The room that came with the request, which must be as long as what it asks for.
fn room(request: &Incoming, asked: usize) -> Result<Option<&[SharedSlice]>, Refusal> {
    let Shared::Room(room) = &request.shared else { return Ok(None) };
    let bytes: usize = room.iter().map(SharedSlice::len).sum();
    if bytes == asked {
        return Ok(Some(room));
    }
    let text = format!("the room of {bytes} bytes does not fit the {asked} that are asked for");
    Err(Refusal::new(Status::BadRequest, text))
}
