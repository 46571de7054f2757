//! What the iod does with a request: one arm per operation, the work in `ops/`.

use crate::{
    counters::Counters,
    mgr_time::{Admitted, MgrTime},
    ops, status,
    target::Target,
};
use pvfs_env::memory::Board;
use pvfs_net::{Incoming, Replier, Service};
use pvfs_store::StoreError;
use pvfs_types::{TargetId, Timestamp, limits::PAYLOAD_BYTES_MAX};
use pvfs_wire::{MacKey, Op, Refusal, Status, msg::hello::Role};
use std::sync::Arc;
use tokio::{sync::Semaphore, time::Instant};

/// Payloads of read replies that may be in memory at once, in KiB permits: 1 GiB. A connection has at most one, and
/// one whose peer takes nothing is cut by TCP after 30 s.
const READ_KIB_MAX: usize = 1 << 20;
/// More objects than this in one stat leave the connection's own task.
const STATS_INLINE_MAX: usize = 64;

/// A running iod.
pub struct Iod {
    pub targets: Vec<Target>,
    pub key: MacKey,
    pub time: MgrTime,
    pub counters: Counters,
    pub read_memory: Semaphore,
    /// For clients of this machine.
    pub board: Option<Arc<Board>>,
    /// A target with this many uncommitted bytes is committed before its time.
    pub commit_bytes: u64,
    pub label: String,
    pub process: u64,
    pub started: Timestamp,
    pub started_at: Instant,
}

impl Iod {
    pub fn read_memory() -> Semaphore {
        const { assert!(READ_KIB_MAX >= (PAYLOAD_BYTES_MAX / 1024) as usize, "the largest read must fit") };
        Semaphore::new(READ_KIB_MAX)
    }

    /// # Errors
    /// `WrongTarget` when it is not here, or may not serve.
    pub fn target(&self, id: TargetId) -> Result<&Target, Refusal> {
        self.targets.iter().find(|target| target.serves(id)).ok_or_else(|| {
            Refusal::new(Status::WrongTarget, format!("target {id} is not served by {}", self.label))
        })
    }

    /// Makes durable what was written to the target so far. May take long.
    pub fn commit(&self, target: &Target) -> Result<(), StoreError> {
        let begin = Instant::now();
        let done = target.store.commit();
        self.counters.committed(begin.elapsed(), done.is_ok());
        done.map(|_| ())
    }

    /// Follows the mgr's time.
    pub fn follow(&self, now_ms: u64) {
        // In this order: what clients read by themselves is admitted by the board.
        self.board.iter().for_each(|board| board.follow(now_ms));
        self.time.follow(now_ms);
    }

    /// Counts the answer and gives it.
    pub async fn answer<T: ops::Answer>(&self, op: Op, reply: Replier, answer: Result<T, Refusal>) {
        match answer {
            Ok(answer) => {
                self.counters.done(op);
                answer.send(reply).await;
            }
            Err(refusal) => {
                self.counters.refused(op, refusal.status);
                reply.refuse(refusal).await;
            }
        }
    }
}

impl Service for Iod {
    /// Reads and writes run in the connection's own task: a page-cache copy is shorter than a spawn is worth, and a
    /// connection then holds one payload at a time. What waits for the disk by its nature is spawned.
    async fn serve(self: Arc<Self>, request: Incoming, reply: Replier) {
        let op = request.op;
        let admitted = self.time.admit();
        match op {
            Op::Read => {
                let answer = ops::read::serve(&self, &request, &admitted).await;
                drop(admitted);
                self.answer(op, reply, answer).await;
            }
            Op::Write => {
                let answer = ops::write::serve(&self, &request, &admitted);
                drop(admitted);
                drop(request);
                self.answer(op, reply, answer).await;
            }
            // In its order among the writes: what its client writes after it gave up must not be copied over.
            Op::Copy => {
                let answer = pvfs_env::disk::blocking(|| ops::copy::serve(&self, &request, &admitted));
                drop(admitted);
                self.answer(op, reply, answer).await;
            }
            Op::StatObjects => match request.decode() {
                Ok(stat) if ops::stat_objects::count(&stat) <= STATS_INLINE_MAX => {
                    let answer = ops::stat_objects::serve(&self, &stat);
                    self.answer(op, reply, answer).await;
                }
                Ok(stat) => {
                    spawn(self, op, reply, admitted, move |iod, _| ops::stat_objects::serve(iod, &stat));
                }
                Err(refusal) => self.answer::<ops::Never>(op, reply, Err(refusal)).await,
            },
            Op::Fill => spawn(self, op, reply, admitted, move |iod, admitted| {
                ops::fill::serve(iod, &request, admitted)
            }),
            Op::FindData => spawn(self, op, reply, admitted, move |iod, admitted| {
                ops::find_data::serve(iod, &request, admitted)
            }),
            Op::OpenObject => {
                let answer = ops::open_object::serve(&self, &request, &admitted);
                self.answer(op, reply, answer).await;
            }
            Op::Sync => spawn(self, op, reply, admitted, move |iod, admitted| {
                ops::sync::serve(iod, &request, admitted)
            }),
            Op::Commit => spawn(self, op, reply, admitted, move |iod, _| ops::commit::serve(iod, &request)),
            Op::ListObjects => {
                spawn(self, op, reply, admitted, move |iod, _| ops::list_objects::serve(iod, &request));
            }
            Op::RemoveObjects => spawn(self, op, reply, admitted, move |iod, _| {
                mgr_only(&request)?;
                ops::remove_objects::serve(iod, &request)
            }),
            Op::TruncateObjects => spawn(self, op, reply, admitted, move |iod, _| {
                mgr_only(&request)?;
                ops::truncate_objects::serve(iod, &request)
            }),
            Op::PutObject => spawn(self, op, reply, admitted, move |iod, _| {
                mgr_only(&request)?;
                ops::put_object::serve(iod, &request)
            }),
            Op::Status => self.answer(op, reply, Ok(status::of(&self))).await,
            other => {
                let text = format!("an iod does not do `{}`", other.name());
                self.answer::<ops::Never>(op, reply, Err(Refusal::new(Status::UnknownOp, text))).await;
            }
        }
    }

    fn takes_shared(&self, op: Op) -> bool {
        matches!(op, Op::Read | Op::Write)
    }

    /// What would harm if an old copy of it landed on newer bytes.
    fn fences(&self, op: Op) -> bool {
        matches!(
            op,
            Op::Write | Op::Fill | Op::Copy | Op::RemoveObjects | Op::TruncateObjects | Op::PutObject
        )
    }
}

/// Runs `work`, which may block, in a task of its own.
fn spawn<T: ops::Answer + 'static>(
    iod: Arc<Iod>,
    op: Op,
    reply: Replier,
    admitted: Admitted,
    work: impl FnOnce(&Iod, &Admitted) -> Result<T, Refusal> + Send + 'static,
) {
    pvfs_env::task::spawn(async move {
        let answer = pvfs_env::disk::blocking(|| work(&iod, &admitted));
        drop(admitted);
        iod.answer(op, reply, answer).await;
    });
}

/// Objects are removed, cut and made without a capability for mgrs only.
fn mgr_only(request: &Incoming) -> Result<(), Refusal> {
    if request.peer.role == Role::Mgr {
        return Ok(());
    }
    Err(Refusal::new(Status::Unauthorized, format!("`{}` is for mgrs only", request.op.name())))
}
