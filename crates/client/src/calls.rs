//! Requests to the mgr: questions, and changes that are made exactly once, each sent until it is answered.

use crate::{
    ClientError,
    client::Core,
    error::Result,
    estate::{self, Origin},
    retry::{Action, Tries},
    slots::Slot,
    touches::{Touched, Touches},
    waits::{WaitsFor, inherited, waiting_for},
};
use pvfs_env::BoxFuture;
use pvfs_net::{Load, ReadBody, read, read_into};
use pvfs_types::{Cred, SessionId, limits};
use pvfs_wire::{
    Op, Refusal, Request, Status, decode, encode,
    msg::{
        delegation::Changed,
        session::{Caller, Mutator},
    },
};
use std::{future::Future, sync::Arc, time::Duration};
use tokio::sync::watch;

/// A slot of a session, for one request.
pub(crate) struct Reserved {
    session: SessionId,
    slot: Slot,
    /// The call that this is the first change of.
    origin: Option<Origin>,
}

/// A change as it is sent, and what it is about.
struct Encoded {
    body: Vec<u8>,
    touched: Touched,
}

/// The error of a request that was refused for good.
pub(crate) fn refused<R: Request>(refusal: Refusal) -> ClientError {
    op_refused(R::OP, refusal)
}

pub(crate) fn op_refused(op: Op, refusal: Refusal) -> ClientError {
    match refusal.status {
        Status::Errno(errno) => ClientError::Refused { op, errno, text: refusal.text },
        status => ClientError::Rejected { op, status, text: refusal.text },
    }
}

/// `cred` as it is sent: with as many groups as a message may hold.
fn sendable(cred: &Cred) -> Cred {
    let groups = cred.groups.iter().copied().take(limits::GROUPS_SENT_MAX).collect();
    Cred { uid: cred.uid, gid: cred.gid, groups }
}

/// The pause after the `n`th refusal in a row that only waiting mends.
pub(crate) fn pause_after(n: u32) -> Duration {
    Duration::from_millis(5).saturating_mul(1 << n.min(8)).min(Duration::from_secs(1))
}

/// Waits until the client is shut down.
pub(crate) async fn shut_down(closed: &mut watch::Receiver<bool>) {
    // A vanished sender means that nobody is left to work for.
    let _ = closed.wait_for(|closed| *closed).await;
}

impl Core {
    /// Asks the mgr something that changes nothing.
    pub async fn ask<R: Request>(
        self: &Arc<Self>,
        cred: &Cred,
        make: impl Fn(Caller) -> R + Sync,
    ) -> Result<R::Reply> {
        let mut reply = None;
        self.ask_encoded(R::OP, cred, &|by| encode(&make(by)), &mut read_into(&mut reply)).await?;
        Ok(read(reply))
    }

    /// Boxed and of no request's type, so that it is compiled here, once.
    fn ask_encoded<'a>(
        self: &'a Arc<Self>,
        op: Op,
        cred: &'a Cred,
        make: &'a (dyn Fn(Caller) -> Vec<u8> + Sync),
        read: ReadBody<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut tries = Tries::default();
            loop {
                let session = self.session.standing().id;
                let body = make(Caller { session, cred: sendable(cred) });
                match waiting_for(WaitsFor::Mgr, self.mgr.call_encoded(op, body, Load::default(), read)).await
                {
                    Ok(_) => return Ok(()),
                    Err(refusal) => self.mend(session, &mut tries, op, refusal).await?,
                }
            }
        })
    }

    /// As [`Core::ask`], for an open of a reader: it names a mutator but needs no slot.
    pub async fn ask_without_slot<R: Request>(
        self: &Arc<Self>,
        cred: &Cred,
        make: impl Fn(Mutator) -> R + Sync,
    ) -> Result<R::Reply> {
        self.ask(cred, |caller| make(Mutator { session: caller.session, slot: 0, seq: 0, cred: caller.cred }))
            .await
    }

    /// Has the mgr change something, once. Dropped before a slot was free, it does nothing; after that, the request is
    /// brought to its end in the background, and only its answer is lost.
    pub async fn mutate<R: Request + Touches>(
        self: &Arc<Self>,
        cred: &Cred,
        make: impl Fn(Mutator) -> R + Send + Sync + 'static,
    ) -> Result<R::Reply> {
        let reserved = self.reserve(R::OP).await?;
        let (core, cred) = (Arc::clone(self), cred.clone());
        self.finish(async move { core.mutate_in(reserved, &cred, make).await }).await
    }

    /// As [`Core::mutate`], but must not be dropped before its end (that would cost a slot).
    pub async fn mutate_here<R: Request + Touches>(
        self: &Arc<Self>,
        cred: &Cred,
        make: impl Fn(Mutator) -> R + Sync,
    ) -> Result<R::Reply> {
        self.mutate_in(self.reserve(R::OP).await?, cred, make).await
    }

    /// Waits for a slot; where a predecessor sent the same `op` for the same call, takes that one's.
    pub async fn reserve(&self, op: Op) -> Result<Reserved> {
        self.reserve_for(op, Origin::of_first_change()).await
    }

    async fn reserve_for(&self, op: Op, origin: Option<Origin>) -> Result<Reserved> {
        loop {
            if *self.closed.borrow() {
                return Err(ClientError::ShutDown);
            }
            let session = self.session.standing();
            if let Some(slot) = origin.as_ref().and_then(|origin| session.slots.inherit(origin.id(), op)) {
                return Ok(Reserved { session: session.id, slot, origin });
            }
            // Else the session ended while this waited: the next round finds its successor.
            if let Ok(slot) = waiting_for(WaitsFor::Mgr, session.slots.acquire()).await {
                return Ok(Reserved { session: session.id, slot, origin });
            }
        }
    }

    /// As [`Core::mutate_here`], in a slot that was waited for already.
    pub async fn mutate_in<R: Request + Touches>(
        self: &Arc<Self>,
        reserved: Reserved,
        cred: &Cred,
        make: impl Fn(Mutator) -> R + Sync,
    ) -> Result<R::Reply> {
        let make = |by| {
            let request = make(by);
            Encoded { body: encode(&request), touched: request.touched() }
        };
        let mut reply = None;
        self.mutate_encoded(R::OP, reserved, cred, &make, &mut read_into(&mut reply)).await?;
        Ok(read(reply))
    }

    /// As [`Core::ask_encoded`].
    fn mutate_encoded<'a>(
        self: &'a Arc<Self>,
        op: Op,
        reserved: Reserved,
        cred: &'a Cred,
        make: &'a (dyn Fn(Mutator) -> Encoded + Sync),
        read: ReadBody<'a>,
    ) -> BoxFuture<'a, Result<()>> {
        Box::pin(async move {
            let mut tries = Tries::default();
            let mut next = reserved;
            let mut own_change = None;
            loop {
                let Reserved { session, mut slot, origin } = next;
                let Encoded { body, touched } =
                    make(Mutator { session, slot: slot.number(), seq: slot.seq(), cred: sendable(cred) });
                let own_change = own_change.get_or_insert_with(|| self.delegations.change(touched));
                slot.sent(op, origin.as_ref().map_or(0, Origin::id));
                let answer =
                    waiting_for(WaitsFor::Mgr, self.mgr.call_encoded(op, body, Load::default(), read)).await;
                slot.answered();
                let mended = match answer {
                    Ok(told) => {
                        if let Ok(changed) = decode::<Changed>(&told) {
                            own_change.made(changed.inodes);
                        }
                        Ok(())
                    }
                    Err(refusal) => match self.mend(session, &mut tries, op, refusal).await {
                        Ok(()) => {
                            drop(slot);
                            next = self.reserve_for(op, origin).await?;
                            continue;
                        }
                        Err(error) => Err(error),
                    },
                };
                if let Some(origin) = origin {
                    origin.keep(slot);
                }
                return mended;
            }
        })
    }

    /// Runs `work` to its end, also when the caller gives up waiting; only [`crate::Client::shutdown`] ends it early.
    pub async fn finish<T: Send + 'static>(
        self: &Arc<Self>,
        work: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        let mut closed = self.closed.subscribe();
        let work = estate::carried(inherited(work));
        pvfs_env::task::to_the_end(async move {
            tokio::select! {
                biased;
                result = work => result,
                () = shut_down(&mut closed) => Err(ClientError::ShutDown),
            }
        })
        .await
    }

    /// Does what a refusal by the mgr asks for before the request is sent again; or gives the error.
    async fn mend(
        self: &Arc<Self>,
        session: SessionId,
        tries: &mut Tries,
        op: Op,
        refusal: Refusal,
    ) -> Result<()> {
        match tries.refused(refusal.status) {
            Action::NewSession => self.renew_session(session).await,
            Action::Later => {
                tokio::time::sleep(pause_after(tries.waits)).await;
                Ok(())
            }
            // The others are an iod's words.
            Action::RenewLease
            | Action::FreshCapability
            | Action::RefreshTargets
            | Action::SendAgain { .. }
            | Action::GiveUp => Err(op_refused(op, refusal)),
        }
    }
}
