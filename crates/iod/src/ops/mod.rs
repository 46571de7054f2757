//! The operations, one file each: check the request, do it on the store, say how it went.

pub mod commit;
pub mod copy;
pub mod fill;
pub mod find_data;
pub mod list_objects;
pub mod open_object;
pub mod put_object;
pub mod read;
pub mod remove_objects;
pub mod stat_objects;
pub mod sync;
pub mod truncate_objects;
pub mod write;

use crate::target::{self, Target};
use pvfs_net::Replier;
use pvfs_store::StoreError;
use pvfs_types::limits::PIECES_MAX;
use pvfs_wire::{
    Refusal, Status,
    msg::{
        admin::DaemonStatus,
        data::{Acked, Copied, DataFound, Durability, ObjectStats, Written},
        fsck::Objects,
        session::Done,
    },
};

/// What an operation answers when it is done.
pub trait Answer: Send {
    fn send(self, reply: Replier) -> impl Future<Output = ()> + Send;
}

macro_rules! plain_answers {
    ($($reply:ty),*) => {
        $(impl Answer for $reply {
            async fn send(self, reply: Replier) {
                reply.ok(&self).await;
            }
        })*
    };
}

plain_answers!(Written, Copied, DataFound, ObjectStats, Objects, Done, DaemonStatus);

/// The answer of what is always refused.
pub enum Never {}

impl Answer for Never {
    async fn send(self, _: Replier) {
        match self {}
    }
}

/// How far a write was acknowledged, for the store.
fn acked(acked: Acked) -> pvfs_store::Acked {
    let Acked { generation, mark, below } = acked;
    pvfs_store::Acked { generation, mark, below: below.unwrap_or(u64::MAX) }
}

/// What became of a write that may have needed to make its object: `makes` says why it was not to.
fn made(
    done: Result<pvfs_store::Acked, StoreError>,
    makes: Result<(), Refusal>,
) -> Result<pvfs_store::Acked, Refusal> {
    match (done, makes) {
        (Err(StoreError::Absent { .. }), Err(refusal)) => Err(refusal),
        (done, _) => done.map_err(|error| target::refusal(&error)),
    }
}

/// The answer to a write; `committed` was read before it was made.
fn written(target: &Target, acked: pvfs_store::Acked, committed: u64) -> Written {
    let pvfs_store::Acked { generation, mark, below } = acked;
    let durability = Some(Durability { mark, committed, below: (below < u64::MAX).then_some(below) });
    Written { generations: target.generations(generation), durability }
}

/// Requests about many objects name at most `PIECES_MAX` of them.
fn check_count(count: usize) -> Result<(), Refusal> {
    if count <= PIECES_MAX {
        return Ok(());
    }
    let text = format!("a request is about at most {PIECES_MAX} objects, this one names {count}: split it");
    Err(Refusal::new(Status::BadRequest, text))
}
