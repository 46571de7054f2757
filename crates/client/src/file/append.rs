//! Appends: each at the end that the file has when its turn has come, among all clients.
//!
//! What waits may be dropped, and has done nothing then. Once it is known where the bytes go, they are written, all of them,
//! also when nobody waits for that any more: the next one's turn comes afterwards.

use super::{File, check_end};
use crate::{
    ClientError,
    appends::{AppendTurn, Begun, ByDelegation},
    client::{Core, Tasks},
    error::{Answer, Result},
    estate::{self, AppendMark, AppendRecord, Origin},
    inode::Inode,
    io, plan,
    waits::{WaitsFor, waiting_for},
};
use bytes::Bytes;
use pvfs_types::{Cred, LogicalOffset, SessionId};
use pvfs_wire::{Access, Op};
use std::sync::{Arc, atomic::Ordering};

/// Where an append goes, and what keeps others from there.
struct Place {
    at: u64,
    /// In which that holds.
    session: SessionId,
    /// `None`: the file's append lock, or what a predecessor had.
    by_delegation: Option<ByDelegation>,
}

struct Append {
    core: Arc<Core>,
    inode: Arc<Inode>,
    cred: Arc<Cred>,
    /// Of the application, which may come again to a successor.
    origin: Option<Origin>,
}

impl File {
    /// Writes `data` at the end of the file; gives the offset where it went. Appends of all clients come one after the other,
    /// each is there once and whole. (One whose client dies in the middle may be there in part; other clients' bytes are not
    /// touched by it.) Truncations and writes at offsets that go on at the same time are not among them.
    ///
    /// Dropped while it waits for its turn, it does nothing; later, it is brought to its end in the background.
    ///
    /// # Errors
    /// As [`File::write_at`]; and [`ClientError::AppendCut`]: this client was silent for so long that others went on.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(log: &pvfs_client::File) -> Result<(), pvfs_client::ClientError> {
    /// let at = log.append("one line\n".into()).await?;
    /// assert_eq!(log.read_at(at, 4).await?, "one ");
    /// # Ok(())
    /// # }
    /// ```
    pub fn append(&self, data: Bytes) -> Answer<'_, u64> {
        self.core.call(Op::Write, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            if data.is_empty() {
                return Ok(self.core.refresh_attr(self.inode.ino).await?.size);
            }
            let (core, inode) = (Arc::clone(&self.core), Arc::clone(&self.inode));
            let append = Append { core, inode, cred: Arc::clone(&self.cred), origin: Origin::current() };
            Box::pin(estate::apart(append.make(Arc::clone(&self.tasks), data))).await
        })
    }
}

impl Append {
    async fn make(self, tasks: Arc<Tasks>, data: Bytes) -> Result<u64> {
        let (core, ino) = (Arc::clone(&self.core), self.inode.ino);
        let turn = waiting_for(WaitsFor::Lock, AppendTurn::come(&core, &tasks, ino)).await;
        let call = self.origin.as_ref().map(Origin::id);
        core.settle_appends(ino, call).await?;
        let place = match call.map_or(Begun::No, |call| core.appends.begun(call)) {
            Begun::No => self.place().await?,
            Begun::At(at) => self.place_again(at).await?,
            Begun::Lost => return Err(ClientError::AppendCut { ino }),
            Begun::Done(at) => {
                self.record(at, true);
                return Ok(at);
            }
        };
        check_end(place.at, data.len() as u64)?;
        self.record(place.at, false);
        core.finish(async move {
            let written = self.write(&place, &data).await;
            if let (Ok(()), Some(origin)) = (&written, &self.origin) {
                origin.append_is_done();
            }
            if let Some(call) = call {
                self.core.appends.forget_inherited(call);
            }
            let Place { at, by_delegation, .. } = place;
            drop((by_delegation, turn));
            written.map(|()| at)
        })
        .await
    }

    /// Notes, for a successor, where it goes.
    fn record(&self, at: u64, is_done: bool) {
        if let (Some(origin), Some(journal)) = (&self.origin, &self.core.appends.journal) {
            let mark = AppendMark { ino: self.inode.ino, call: origin.id(), at, is_done };
            origin.keep_append(AppendRecord::begin(journal, mark));
        }
    }

    /// Where a predecessor has begun it, if others are still kept out.
    async fn place_again(&self, at: u64) -> Result<Place> {
        let session = self.be_a_writer().await?;
        let call = self.origin.as_ref().map_or(0, Origin::id);
        if self.core.appends.begun(call) != Begun::At(at) {
            return Err(ClientError::AppendCut { ino: self.inode.ino });
        }
        Ok(Place { at, session, by_delegation: None })
    }

    /// Waits until others are kept out, and asks where the file ends then.
    async fn place(&self) -> Result<Place> {
        let (core, inode, ino) = (&self.core, &self.inode, self.inode.ino);
        loop {
            // Known as a writer before anything else: others have lost their delegations by that, and the mgr frees nothing
            // of this session's before it is sure that none of its bytes are under way.
            let session = self.be_a_writer().await?;
            let by_delegation = ByDelegation::begin(core, ino);
            let mut lock = inode.append_lock.lock().await;
            let mut place = Place { at: 0, session, by_delegation: None };
            let is_locked = *lock == Some(session);
            let may_be_delegated =
                core.delegations.is_on() && !(is_locked || inode.is_shared.load(Ordering::Relaxed));
            let alone = if may_be_delegated { core.attr_if_alone(ino).await? } else { None };
            if let Some(attr) = alone.filter(|_| core.delegations.of(ino).is_some()) {
                (place.at, place.by_delegation) = (attr.size, Some(by_delegation));
            } else if is_locked {
                place.at = core.refresh_attr(ino).await?.size;
            } else {
                drop(by_delegation);
                let (locked_in, entry) = core.take_append_lock(ino).await?;
                *lock = Some(locked_in);
                inode.is_shared.store(entry.has_writers, Ordering::Relaxed);
                place.at = core.complete(entry).await?.size;
            }
            let is_kept = place.by_delegation.is_some() || *lock == Some(session);
            let recorded = inode.with(|state| state.recorded);
            if is_kept && recorded == Some(session) && core.session.standing().id == session {
                return Ok(place);
            }
            // The session is another one by now.
        }
    }

    /// Makes sure that the mgr knows this session as a writer of the file.
    async fn be_a_writer(&self) -> Result<SessionId> {
        loop {
            let session = self.core.session.standing().id;
            if self.inode.with(|state| state.recorded) == Some(session) {
                return Ok(session);
            }
            self.core.capability_to(&self.inode, 0).await?;
        }
    }

    async fn write(&self, place: &Place, data: &Bytes) -> Result<()> {
        let Append { core, inode, cred, .. } = self;
        let (at, len) = (place.at, data.len() as u64);
        let gathered = core.gather(inode, at, data, cred).await?;
        if gathered == data.len() {
            return Ok(());
        }
        core.send_gathered(inode).await?;
        let (data, at, len) = (&data.slice(gathered..), at + gathered as u64, len - gathered as u64);
        let dist = inode.with(|state| state.dist).ok_or(ClientError::Gone { ino: inode.ino })?;
        let plan = plan::list(&dist, [(LogicalOffset(at), len)]);
        let in_flight = io::write(core, inode, &plan, data, at + len, Some(place.session)).await?;
        in_flight.done(len, LogicalOffset(at + len), core.session.now(), cred);
        Ok(())
    }
}
