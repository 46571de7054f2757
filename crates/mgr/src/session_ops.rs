//! Sessions: opened, kept alive, closed.

use crate::mgr::Mgr;
use pvfs_meta::{orphan, session};
use pvfs_types::{SessionId, limits};
use pvfs_wire::{
    Refusal, Status,
    msg::session::{CloseSession, Done, KeepAlive, KeptAlive, OpenSession, SessionOpened},
};
use tracing::info;

/// Orphans told in one keep-alive.
const ORPHANS_MAX: usize = 1000;
/// The longest label that is kept, in bytes.
const LABEL_BYTES_MAX: usize = 256;

pub async fn open(mgr: &Mgr, mut req: OpenSession) -> Result<SessionOpened, Refusal> {
    truncate_label(&mut req.label);
    let (label, takes_delegations) = (req.label.clone(), req.delegations == Some(true));
    let earlier = mgr.read(|txn| session::find_of(txn, &req.client)).map_err(|error| error.refusal())?;
    if let Some((given_up, _)) = earlier.filter(|(_, standing)| standing.incarnation < req.incarnation) {
        // Whoever opens another one goes by nothing any more.
        mgr.delegations.forget(given_up);
    }
    let (before, session, orphans_seen) = mgr
        .sequencer
        .run(move |txn, env| {
            let before = session::find_of(txn, &req.client)?.map(|(session, _)| session);
            Ok((before, session::open(txn, &req, env.now)?, orphan::head(txn)?))
        })
        .await?;
    if let Some(given_up) = before.filter(|before| *before != session) {
        mgr.sessions.give_up(given_up);
        // What its places among those who wait, now gone, have granted to others was not told.
        mgr.locks.forget(given_up);
        mgr.locks.ask_all_again();
        mgr.wakes.locks.notify_one();
        mgr.wakes.reaper.notify_one();
        mgr.wakes.settler.notify_one();
    }
    if takes_delegations {
        mgr.delegations.admit(session, true);
    }
    let is_new = !mgr.sessions.is_known(session);
    let now_ms = mgr.time.now_ms();
    let until_ms = mgr.sessions.admit(session, &label, orphans_seen, now_ms);
    if is_new {
        info!(%session, label, "session opened");
    }
    let orphans_seen = mgr.sessions.find(session).map_or(orphans_seen, |standing| standing.orphans_seen);
    Ok(SessionOpened {
        session,
        slots: limits::SESSION_SLOTS,
        lease: mgr.lease(session, until_ms),
        keep_alive_ms: mgr.keep_alive_ms,
        mgr_time_ms: now_ms,
        now: mgr.now(),
        orphans_seen,
        inline_bytes_max: u32::try_from(mgr.inline_bytes_max).ok(),
    })
}

fn truncate_label(label: &mut String) {
    if label.len() > LABEL_BYTES_MAX {
        let end = (0..=LABEL_BYTES_MAX).rev().find(|&at| label.is_char_boundary(at)).unwrap_or(0);
        label.truncate(end);
    }
}

pub async fn keep_alive(mgr: &Mgr, req: KeepAlive) -> Result<KeptAlive, Refusal> {
    let (session, orphans_seen) = (req.session, req.orphans_seen);
    if !mgr.sessions.is_known(session) {
        return Err(unknown(session));
    }
    let has_releases = !req.releases.is_empty();
    if has_releases || !req.claims.is_empty() {
        mgr.sequencer
            .run(move |txn, _| {
                // It may have ended since: a claim of no session would keep the file for ever.
                session::load(txn, session)?;
                for &ino in &req.claims {
                    orphan::claim(txn, session, ino)?;
                }
                for &ino in &req.releases {
                    orphan::release(txn, session, ino);
                }
                Ok(())
            })
            .await?;
    }
    let now_ms = mgr.time.now_ms();
    let until_ms = mgr.sessions.renew(session, now_ms).ok_or_else(|| unknown(session))?;
    // Only now, with its claims stored, does what it has seen count.
    if mgr.sessions.check_in(session, orphans_seen) || has_releases {
        mgr.wakes.reaper.notify_one();
    }
    let orphans = mgr.read(|txn| orphan::list_after(txn, orphans_seen, ORPHANS_MAX));
    let orphans = orphans.map_err(|error| error.refusal())?;
    Ok(KeptAlive {
        lease: mgr.lease(session, until_ms),
        mgr_time_ms: now_ms,
        now: mgr.now(),
        more: orphans.len() == ORPHANS_MAX,
        orphans,
        targets_version: mgr.targets.version(),
    })
}

pub async fn close(mgr: &Mgr, req: &CloseSession) -> Result<Done, Refusal> {
    let session = req.session;
    mgr.delegations.forget(session);
    let granted = mgr.sequencer.run(move |txn, _| session::close(txn, session)).await?;
    mgr.sessions.close(session);
    mgr.locks.granted(&granted);
    mgr.locks.forget(session);
    info!(%session, "session closed");
    mgr.wakes.reaper.notify_one();
    Ok(Done {})
}

pub fn unknown(session: SessionId) -> Refusal {
    Refusal::new(Status::SessionUnknown, format!("{session} is not known (any more)"))
}
