//! One target of this iod: its store, and whether its mgr lets it serve.

use pvfs_env::memory::Board;
use pvfs_store::{Store, StoreError};
use pvfs_types::{Errno, TargetId};
use pvfs_wire::{
    Refusal, Status,
    msg::data::{Durability, Generations, Written},
};
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::Notify;
use tracing::{error, info, warn};

pub struct Target {
    pub store: Store,
    /// The process generation of this iod.
    process: u64,
    /// The mgr refuses this target, or calls it by another number than it was told before.
    suspended: AtomicBool,
    /// So much was written that the next commit should not wait for its time.
    pub commit_soon: Notify,
}

impl Target {
    pub fn new(store: Store, process: u64) -> Target {
        Target { store, process, suspended: AtomicBool::new(false), commit_soon: Notify::new() }
    }

    /// Whether this is the target `id`, and may serve.
    pub fn serves(&self, id: TargetId) -> bool {
        self.store.target_id() == Some(id) && !self.suspended.load(Ordering::Acquire)
    }

    /// What answers bear, with the store generation `store`.
    pub fn generations(&self, store: u64) -> Generations {
        Generations { process: self.process, boot: self.store.boot(), store }
    }

    /// Refuses a client that holds bytes of an older store generation than this target has now: it sends them first.
    pub fn check_store(&self, known: Option<u64>) -> Result<(), Refusal> {
        let Some(known) = known else { return Ok(()) };
        let generation = self.store.settled_generation().map_err(|error| {
            Refusal::new(
                Status::NotNow,
                format!("acknowledged bytes may be lost, and the disk does not take that: {error}"),
            )
        })?;
        if known >= generation {
            return Ok(());
        }
        Err(Refusal::new(Status::StoreRaised(generation), "acknowledged bytes may be lost: send them again"))
    }

    /// The answer that tells what is durable now.
    pub fn committed(&self) -> Written {
        // In this order: bytes that were lost after a commit must not pass for committed.
        let committed = self.store.committed();
        let generations = self.generations(self.store.generation());
        Written { generations, durability: Some(Durability { mark: 0, committed, below: None }) }
    }

    /// The mgr answered a heartbeat: what number this target has, or that it is refused.
    /// What clients read by themselves ends on `board` with its service.
    pub fn told(&self, id: Option<TargetId>, board: Option<&Board>) {
        let dir = self.store.dir().display();
        let known = self.store.target_id();
        let trouble = match id.map(|id| self.store.join(id)) {
            Some(Ok(())) => None,
            Some(Err(error)) => Some(error.to_string()),
            None => Some("the mgr refuses this target; its log says why".to_owned()),
        };
        let was_suspended = self.suspended.swap(trouble.is_some(), Ordering::AcqRel);
        if let Some(board) = board.filter(|_| trouble.is_some() && !was_suspended) {
            board.void();
        }
        match trouble {
            Some(trouble) if !was_suspended => warn!(%dir, trouble, "target does not serve"),
            None if was_suspended => info!(%dir, "target serves again"),
            None if known.is_none() => {
                info!(%dir, id = ?self.store.target_id(), uuid = %self.store.uuid(), "target joined the file system");
            }
            Some(_) | None => {}
        }
    }
}

/// What a client gets to see of an error of the store. What points at a sick disk is logged.
pub fn refusal(error: &StoreError) -> Refusal {
    let errno = error.errno();
    match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG | Errno::ESTALE | Errno::EOPNOTSUPP => {}
        // They come back as soon as somebody closes some: no application's business.
        Errno::EMFILE => {
            warn!(%error, "out of descriptors");
            return Refusal::new(Status::NotNow, error.to_string());
        }
        _ => error!(%error, "the store failed"),
    }
    Refusal::new(Status::Errno(errno), error.to_string())
}
