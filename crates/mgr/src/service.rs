//! What each operation does: one arm per operation, which decodes the request, has the name space answer it (a
//! change through the sequencer, a question on a snapshot), and signs what is given out.

use crate::{
    delegation_ops::{self, read_entry, read_unshared},
    fsck, heartbeat, lock_ops,
    mgr::Mgr,
    quota_ops,
    sequencer::{Answer, Outcome, Replied, Txn},
    session_ops, status,
};
use bytes::Bytes;
use futures_util::FutureExt;
use pvfs_kv::{Overlay, Read};
use pvfs_meta::{MetaError, OpEnv, Outcome as Step, Stat, ops, quota};
use pvfs_net::{Incoming, PeerInfo, Replier, Service};
use pvfs_types::SessionId;
use pvfs_wire::{
    Access, Capability, MacKey, Op, Refusal, Status,
    cap::Grant,
    encode,
    msg::{
        delegation::Changed,
        file::{EndWrites, ListWrites, Open, Opened, PutInline, ReadInline, ReportSize, TouchAtimes},
        hello::Role,
        namespace::{
            AttrSet, CheckAccess, Create, Created, Entry, GetAttr, Link, LinkTarget, Lookup, MkDir, MkNod,
            ReadLink, Rename, RmDir, SetAttr, SetLayout, StatFs, SymLink, TmpFile, Unlink, Unlinked,
        },
        session::{Caller, Done, Mutator},
        xattr::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrNames, XattrValue},
    },
};
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};
use tokio::time::timeout;

/// The mgr as its peers see it.
pub struct MgrService {
    pub mgr: Arc<Mgr>,
}

/// An answer as it is sent.
pub type Reply = Result<Encoded, Refusal>;

/// An encoded reply.
#[derive(Default)]
pub struct Encoded {
    body: Vec<u8>,
    /// Of an answer to a change: [`Changed`].
    payload: Vec<Bytes>,
}

pub fn encoded<T: minicbor::Encode<()>>(reply: &T) -> Encoded {
    Encoded { body: encode(reply), payload: Vec::new() }
}

impl Service for MgrService {
    async fn serve(self: Arc<Self>, request: Incoming, reply: Replier) {
        let mgr = Arc::clone(&self.mgr);
        drop(self);
        if !is_quick(request.op) {
            pvfs_env::task::spawn(async move { send(reply, handle(&mgr, &request).await).await });
            return;
        }
        let mut answer = Box::pin(async move { handle(&mgr, &request).await });
        match (&mut answer).now_or_never() {
            Some(answer) => send(reply, answer).await,
            None => drop(pvfs_env::task::spawn(async move { send(reply, answer.await).await })),
        }
    }

    /// Changes are fenced by their slots. A claim that came late would hold an orphan for ever; a lock that a dead process
    /// of the client had asked for, and that its successor has released, would stand; and what a dead process closed a small file
    /// with would hide what its successor has written to it since.
    fn fences(&self, op: Op) -> bool {
        matches!(op, Op::KeepAlive | Op::SetLock | Op::PutInline)
    }
}

async fn send(reply: Replier, answer: Reply) {
    match answer {
        Ok(Encoded { body, payload }) => reply.ok_encoded(&body, &payload).await,
        Err(refusal) => reply.refuse(refusal).await,
    }
}

/// Answered in microseconds, and seldom after waiting: not worth a task.
fn is_quick(op: Op) -> bool {
    matches!(
        op,
        Op::Lookup
            | Op::GetAttr
            | Op::GetXattr
            | Op::Access
            | Op::ReadLink
            | Op::ReadInline
            | Op::ListWrites
            | Op::StatFs
            | Op::GetTargets
    )
}

async fn handle(mgr: &Mgr, request: &Incoming) -> Reply {
    check_role(request.op, &request.peer)?;
    match request.op {
        Op::Status => Ok(encoded(&status::status(mgr))),
        Op::Heartbeat => Ok(encoded(&heartbeat::heartbeat(mgr, &request.decode()?).await?)),

        Op::OpenSession => Ok(encoded(&session_ops::open(mgr, request.decode()?).await?)),
        Op::KeepAlive => Ok(encoded(&session_ops::keep_alive(mgr, request.decode()?).await?)),
        Op::CloseSession => Ok(encoded(&session_ops::close(mgr, &request.decode()?).await?)),
        Op::GetTargets => Ok(encoded(&mgr.targets.map())),
        Op::StatFs => Ok(encoded(&status::usage(mgr, request.decode::<StatFs>()?.at)?)),

        Op::Lookup => {
            let req: Lookup = request.decode()?;
            read_entry(mgr, &req.caller, |txn| ops::lookup(txn, &req)).await
        }
        Op::GetAttr => {
            let req: GetAttr = request.decode()?;
            read_entry(mgr, &req.caller, |txn| ops::getattr(txn, &req)).await
        }
        Op::Access => {
            let req: CheckAccess = request.decode()?;
            read(mgr, &req.caller, |txn| ops::check_access(txn, &req).map(|()| Done {}))
        }
        Op::ReadLink => {
            let req: ReadLink = request.decode()?;
            read(mgr, &req.caller, |txn| Ok(LinkTarget { target: ops::readlink(txn, &req)? }))
        }
        Op::ReadDir => delegation_ops::readdir(mgr, &request.decode()?),

        Op::SetAttr => set_attr(mgr, request.decode()?).await,
        Op::Create => create(mgr, request.decode()?).await,
        Op::TmpFile => tmpfile(mgr, request.decode()?).await,
        Op::Open => open(mgr, request.decode()?).await,
        Op::MkDir => {
            let req: MkDir = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::mkdir(txn, &req, env)?))).await
        }
        Op::MkNod => {
            let req: MkNod = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::mknod(txn, &req, env)?))).await
        }
        Op::SymLink => {
            let req: SymLink = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::symlink(txn, &req, env)?))).await
        }
        Op::Link => {
            let req: Link = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::link(txn, &req, env)?))).await
        }
        Op::Unlink => {
            let req: Unlink = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(Unlinked { orphan: ops::unlink(txn, &req, env)? }))
                .await
        }
        Op::RmDir => {
            let req: RmDir = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| ops::rmdir(txn, &req, env).map(|()| Done {})).await
        }
        Op::Rename => {
            let req: Rename = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(Unlinked { orphan: ops::rename(txn, &req, env)? }))
                .await
        }
        Op::SetLayout => {
            let req: SetLayout = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::set_layout(txn, &req, env)?))).await
        }
        Op::ReportSize => report_size(mgr, request.decode()?).await,

        Op::PutInline | Op::ReadInline => inline(mgr, request).await,

        Op::EndWrites | Op::ListWrites => writers(mgr, request).await,

        Op::TouchAtimes => {
            let req: TouchAtimes = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| ops::touch_atimes(txn, &req, env).map(|()| Done {}))
                .await
        }

        Op::TestLock | Op::SetLock | Op::AwaitLocks | Op::CancelLock | Op::ReleaseLocks => {
            lock_ops::handle(mgr, request).await
        }
        Op::AwaitRecalls | Op::Recalled | Op::HoldDelegations => delegation_ops::handle(mgr, request).await,
        Op::GetXattr | Op::ListXattr | Op::SetXattr | Op::RemoveXattr => xattr(mgr, request).await,

        Op::GetQuotas | Op::SetQuota => quota_ops::handle(mgr, request).await,

        Op::CheckStore | Op::ListFiles | Op::JudgeObjects | Op::Repair => fsck::handle(mgr, request).await,

        Op::Hello
        | Op::Prove
        | Op::Ping
        | Op::Read
        | Op::Write
        | Op::Fill
        | Op::Copy
        | Op::FindData
        | Op::OpenObject
        | Op::Sync
        | Op::Commit
        | Op::StatObjects
        | Op::ListObjects
        | Op::RemoveObjects
        | Op::TruncateObjects
        | Op::PutObject => Err(not_here(request.op)),
    }
}

/// Who writes what.
async fn writers(mgr: &Mgr, request: &Incoming) -> Reply {
    if request.op == Op::EndWrites {
        let req: EndWrites = request.decode()?;
        return change(mgr, req.by.clone(), move |txn, _| ops::end_writes(txn, &req).map(|()| Done {})).await;
    }
    let req: ListWrites = request.decode()?;
    check_session(mgr, req.session)?;
    let listed = mgr.read(|txn| ops::list_writes(txn, &req)).map_err(|error: MetaError| error.refusal())?;
    Ok(encoded(&listed))
}

/// Small files that are kept here.
async fn inline(mgr: &Mgr, request: &Incoming) -> Reply {
    if request.op == Op::PutInline {
        return put_inline(mgr, request.decode()?).await;
    }
    let req: ReadInline = request.decode()?;
    read(mgr, &req.caller, |txn| ops::read_inline(txn, &req))
}

/// Extended attributes and ACLs.
async fn xattr(mgr: &Mgr, request: &Incoming) -> Reply {
    match request.op {
        Op::GetXattr => {
            let req: GetXattr = request.decode()?;
            read(mgr, &req.caller, |txn| Ok(XattrValue { value: ops::getxattr(txn, &req)? }))
        }
        Op::ListXattr => {
            let req: ListXattr = request.decode()?;
            read(mgr, &req.caller, |txn| Ok(XattrNames { names: ops::listxattr(txn, &req)? }))
        }
        Op::SetXattr => {
            let req: SetXattr = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::setxattr(txn, &req, env)?))).await
        }
        Op::RemoveXattr => {
            let req: RemoveXattr = request.decode()?;
            change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::removexattr(txn, &req, env)?))).await
        }
        op => Err(not_here(op)),
    }
}

/// Whether a peer of that role may ask for it at all. Clients and daemons alike may use the file system.
fn check_role(op: Op, peer: &PeerInfo) -> Result<(), Refusal> {
    if op == Op::Heartbeat && peer.role != Role::Iod {
        let text = format!("{} is for iods, {} is none", op.name(), peer.addr);
        return Err(Refusal::new(Status::Unauthorized, text));
    }
    Ok(())
}

pub fn not_here(op: Op) -> Refusal {
    Refusal::new(Status::BadRequest, format!("{} is not an operation of a mgr", op.name()))
}

fn entry(stat: Stat) -> Entry {
    stat.into()
}

/// Answers a question on a snapshot.
pub fn read<T: minicbor::Encode<()>>(
    mgr: &Mgr,
    caller: &Caller,
    question: impl FnOnce(&dyn Read) -> Result<T, MetaError>,
) -> Reply {
    check_session(mgr, caller.session)?;
    Ok(encoded(&mgr.read(question).map_err(|error| error.refusal())?))
}

pub fn check_session(mgr: &Mgr, session: SessionId) -> Result<(), Refusal> {
    if mgr.sessions.hear(session, mgr.time.now_ms()) { Ok(()) } else { Err(session_ops::unknown(session)) }
}

/// Waits for news for a session, for a lease at most: a client that is gone takes no answer, and its question must not stay for
/// ever. `None`: there are none yet.
///
/// # Errors
/// The mgr stops, told by `stops`.
pub async fn news<T>(mgr: &Mgr, told: impl Future<Output = T>, stops: &str) -> Result<Option<T>, Refusal> {
    let longest = Duration::from_millis(mgr.sessions.lease_ms());
    let mut stopping = mgr.stopping.clone();
    tokio::select! {
        biased;
        _ = stopping.wait_for(|stopping| *stopping) => Err(Refusal::new(Status::NotNow, stops)),
        told = timeout(longest, told) => Ok(told.ok()),
    }
}

/// Makes a change that waits for nothing but the store.
pub async fn change<T: minicbor::Encode<()>>(
    mgr: &Mgr,
    by: Mutator,
    change: impl Fn(&mut Txn<'_>, &OpEnv<'_>) -> Result<T, MetaError> + Send + Sync + 'static,
) -> Reply {
    let change = Arc::new(move |txn: &mut Txn<'_>, env: &OpEnv<'_>| change(txn, env).map(Step::Done));
    change_in_steps(mgr, by, change).await
}

/// Makes a change that may have to wait for targets to be truncated: as often as it says so, waits for that and
/// begins again.
async fn change_in_steps<T, F>(mgr: &Mgr, by: Mutator, change: Arc<F>) -> Reply
where
    T: minicbor::Encode<()>,
    F: Fn(&mut Txn<'_>, &OpEnv<'_>) -> Result<Step<T>, MetaError> + Send + Sync + 'static,
{
    check_session(mgr, by.session)?;
    mgr.rollback.refuse_changes()?;
    loop {
        let change = Arc::clone(&change);
        let work = move |txn: &mut Txn<'_>, env: &OpEnv<'_>| {
            Ok(match change(txn, env)? {
                Step::Done(reply) => Answer::Reply(encode(&reply)),
                Step::Pending(intent) => Answer::Pending(intent.ino),
            })
        };
        match mgr.sequencer.change(&by, Arc::new(work)).await? {
            Outcome::Reply(Replied { body, changed }) if changed.is_empty() => {
                return Ok(Encoded { body, payload: Vec::new() });
            }
            Outcome::Reply(Replied { body, changed }) => {
                let payload = vec![Bytes::from(encode(&Changed { inodes: changed }))];
                return Ok(Encoded { body, payload });
            }
            Outcome::Refused(refusal) => return Err(refusal),
            Outcome::Pending(ino) => {
                let mut carried_out = mgr.wakes.truncater.carry_out(ino);
                let mut stopping = mgr.stopping.clone();
                tokio::select! {
                    biased;
                    _ = stopping.wait_for(|stopping| *stopping) => {
                        return Err(Refusal::new(Status::NotNow, "the mgr is stopping; the truncation goes on later"));
                    }
                    // It says nothing, it closes.
                    _ = carried_out.changed() => {}
                }
            }
        }
    }
}

/// A truncation may have left objects behind.
fn wake_garbage(mgr: &Mgr, reply: Reply) -> Reply {
    mgr.wakes.garbage.all();
    reply
}

/// Signs what a session may do.
struct Signer {
    key: MacKey,
    session: SessionId,
    /// When it was made, in the mgr's time.
    since_ms: u64,
}

impl Signer {
    /// To be made before the name space is looked at: see [`Grant::granted_ms`].
    fn new(mgr: &Mgr, session: SessionId) -> Signer {
        Signer { key: mgr.key.clone(), session, since_ms: mgr.time.now_ms() }
    }

    /// What the session may do with the regular file of `stat`.
    /// A file that is kept here is written by nobody: who is about to asks once more.
    fn grant(&self, stat: &Stat, access: Access) -> Option<Capability> {
        let attr = &stat.attr;
        let access = Access { write: access.write && !attr.is_inline(), ..access };
        let grant = Grant {
            session: self.session,
            ino: attr.ino,
            data_gen: attr.data_gen,
            dist: attr.dist?,
            access,
            granted_ms: Some(self.since_ms),
            size_max: stat.allowed.map(|allowed| allowed.max(attr.size)),
        };
        Some(Capability::sign(grant, &self.key))
    }
}

async fn set_attr(mgr: &Mgr, req: SetAttr) -> Reply {
    let (by, truncates) = (req.by.clone(), req.changes.size.is_some());
    let is_given_away = req.changes.uid.is_some() || req.changes.gid.is_some();
    let signer = Signer::new(mgr, by.session);
    let newly_bound = Arc::new(AtomicBool::new(false));
    let found_bound = Arc::clone(&newly_bound);
    let work = move |txn: &mut Txn<'_>, env: &OpEnv<'_>| {
        Ok(match ops::setattr(txn, &req, env)? {
            Step::Done(stat) => {
                if is_given_away && stat.has_writers && quota::is_bound(txn, req.ino)? {
                    found_bound.store(true, Ordering::SeqCst);
                }
                let capability = req.want.and_then(|access| signer.grant(&stat, access));
                Step::Done(AttrSet { capability, entry: entry(stat) })
            }
            Step::Pending(intent) => Step::Pending(intent),
        })
    };
    let reply = change_in_steps(mgr, by, Arc::new(work)).await;
    if newly_bound.load(Ordering::SeqCst) {
        mgr.writes_since.raise(mgr.time.now_ms());
    }
    if truncates { wake_garbage(mgr, reply) } else { reply }
}

async fn create(mgr: &Mgr, req: Create) -> Reply {
    let (by, truncates) = (req.by.clone(), req.truncate);
    let signer = Signer::new(mgr, by.session);
    let work = move |txn: &mut Txn<'_>, env: &OpEnv<'_>| {
        Ok(match ops::create(txn, &req, env)? {
            Step::Done(made) => {
                let capability = req.open.and_then(|access| signer.grant(&made.stat, access));
                Step::Done(Created { capability, entry: entry(made.stat), created: made.created })
            }
            Step::Pending(intent) => Step::Pending(intent),
        })
    };
    let reply = change_in_steps(mgr, by, Arc::new(work)).await;
    if truncates { wake_garbage(mgr, reply) } else { reply }
}

async fn tmpfile(mgr: &Mgr, req: TmpFile) -> Reply {
    let signer = Signer::new(mgr, req.by.session);
    change(mgr, req.by.clone(), move |txn, env| {
        let stat = ops::tmpfile(txn, &req, env)?;
        let capability = signer.grant(&stat, req.open);
        Ok(Created { capability, entry: entry(stat), created: true })
    })
    .await
}

async fn report_size(mgr: &Mgr, req: ReportSize) -> Reply {
    let by = req.by.clone();
    let work = move |txn: &mut Txn<'_>, env: &OpEnv<'_>| {
        Ok(match ops::report_size(txn, &req, env)? {
            Step::Done(stat) => Step::Done(entry(stat)),
            Step::Pending(intent) => Step::Pending(intent),
        })
    };
    change_in_steps(mgr, by, Arc::new(work)).await
}

async fn put_inline(mgr: &Mgr, mut req: PutInline) -> Reply {
    if req.data.len() > mgr.inline_bytes_max {
        // What is too long is not kept, as what is nothing.
        req.data.clear();
    }
    change(mgr, req.by.clone(), move |txn, env| Ok(entry(ops::put_inline(txn, &req, env)?))).await
}

/// A reader's open changes nothing, and takes no slot.
async fn open(mgr: &Mgr, req: Open) -> Reply {
    let (by, truncates) = (req.by.clone(), req.truncate);
    let signer = Signer::new(mgr, by.session);
    let opened = move |req: &Open, stat: Stat| {
        let capability = signer
            .grant(&stat, req.access)
            .ok_or(MetaError::WrongKind { ino: req.ino, wanted: "a regular file" })?;
        Ok::<_, MetaError>(Opened { capability, entry: entry(stat) })
    };
    if !req.access.write && !truncates {
        let question = |txn: &dyn Read| {
            let env = OpEnv { now: mgr.now(), is_short: false, placement: &*mgr.targets };
            match ops::open(&mut Overlay::new(txn), &req, &env)? {
                Step::Done(stat) => Ok(stat),
                Step::Pending(intent) => {
                    unreachable!("a reader's open truncates nothing, not {}", intent.ino)
                }
            }
        };
        let stat = read_unshared(mgr, by.session, question).await?;
        return Ok(encoded(&opened(&req, stat).map_err(|error| error.refusal())?));
    }
    let work = move |txn: &mut Txn<'_>, env: &OpEnv<'_>| {
        Ok(match ops::open(txn, &req, env)? {
            Step::Done(stat) => Step::Done(opened(&req, stat)?),
            Step::Pending(intent) => Step::Pending(intent),
        })
    };
    let reply = change_in_steps(mgr, by, Arc::new(work)).await;
    if truncates { wake_garbage(mgr, reply) } else { reply }
}
