//! The client's standing with the mgr: the session, its lease, keep-alives, the mgr's clock.
//!
//! A session that the mgr gave up is opened anew; then every open file fetches a fresh capability before its next
//! bytes, files with unreported writes are recorded as written again at once, and claims on unlinked files are told
//! again. Nobody's open file dies of it.

use crate::{
    ClientError,
    calls::{refused, shut_down},
    client::Core,
    error::Result,
    estate::{Estate, Journal, Mark},
    inode::Inode,
    orphans::Orphans,
    slots::Slots,
    waits::{WaitsFor, waiting_for},
};
use pvfs_env::BoxFuture;
use pvfs_net::{CallError, NetError, Peer};
use pvfs_types::{Ino, SessionId, Timestamp, limits};
use pvfs_wire::{
    Lease, Refusal, Status,
    msg::session::{CloseSession, KeepAlive, KeptAlive, OpenSession, SessionOpened},
};
use std::{
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};
use tokio::{
    sync::{Notify, watch},
    time::Instant,
};
use tracing::{info, warn};

/// How long after an unlink the client checks in early, so that the space comes free soon and many unlinks share a
/// message.
const EARLY_CHECK_IN: Duration = Duration::from_millis(50);
/// How long one try to open the first session may take.
const FIRST_TRY: Duration = Duration::from_secs(5);
/// How long after a predecessor's end its calls may come again. (They come before any new one: at once.)
pub(crate) const CALLS_COME_AGAIN: Duration = Duration::from_secs(10);
/// Keep-alives come no closer than this, whatever the mgr says.
const KEEP_ALIVE_MS_MIN: u64 = 10;

/// One opened session.
pub(crate) struct Standing {
    pub id: SessionId,
    incarnation: u64,
    pub slots: Arc<Slots>,
    /// The mgr keeps the bytes of new files that are no longer.
    pub inline_bytes_max: u64,
}

/// Who opens sessions.
pub(crate) struct Who {
    pub client: [u8; 16],
    pub label: String,
    /// It takes delegations.
    pub delegations: bool,
}

impl Who {
    fn open(&self, incarnation: u64) -> OpenSession {
        let Who { client, ref label, delegations } = *self;
        OpenSession { client, incarnation, label: label.clone(), delegations: delegations.then_some(true) }
    }
}

/// The current session and what hangs on it.
pub(crate) struct Session {
    who: Who,
    standing: Mutex<Arc<Standing>>,
    lease: watch::Sender<Lease>,
    clock: Mutex<MgrClock>,
    keep_alive: Mutex<Duration>,
    /// Held by whoever opens a new session, or ends the last one. True: it was ended.
    renewing: tokio::sync::Mutex<bool>,
    orphans: Mutex<Orphans>,
    /// Held while the mgr is told of claims.
    checking_in: tokio::sync::Mutex<()>,
    journal: Option<Arc<dyn Journal>>,
    /// A create that a predecessor may have had in flight, till it is sure that it does not come again.
    inherited_create: Option<u64>,
    check_in_soon: Notify,
    check_in_now: Notify,
}

/// The mgr's wall clock, as of the last time it told.
#[derive(Clone, Copy)]
struct MgrClock {
    told_at: Instant,
    told: Timestamp,
}

impl MgrClock {
    fn told(told: Timestamp) -> MgrClock {
        MgrClock { told_at: Instant::now(), told }
    }

    fn now(self) -> Timestamp {
        let told = self.told.to_system();
        Timestamp::from_system(told.checked_add(self.told_at.elapsed()).unwrap_or(told))
    }
}

fn locked<T, R>(mutex: &Mutex<T>, act: impl FnOnce(&mut T) -> R) -> R {
    act(&mut mutex.lock().unwrap_or_else(PoisonError::into_inner))
}

impl Session {
    /// Opens the first session. Refusals that no waiting mends end it; so does `deadline`.
    pub async fn open(
        mgr: &Peer,
        who: Who,
        deadline: Option<Duration>,
        estate: Option<Estate>,
    ) -> Result<Session> {
        let incarnation = estate.as_ref().map_or(1, |estate| estate.incarnation);
        let request = who.open(incarnation);
        let begin = Instant::now();
        let mut pause = Duration::from_millis(2);
        loop {
            let left = deadline.map_or(FIRST_TRY, |deadline| deadline.saturating_sub(begin.elapsed()));
            let error = match mgr.call_once(&request, left.min(FIRST_TRY)).await {
                Ok(opened) => return Ok(Session::new(who, incarnation, &opened, estate)),
                Err(error) => error,
            };
            if let Some(error) = final_error(mgr, &error) {
                return Err(error);
            }
            if deadline.is_some_and(|deadline| begin.elapsed() + pause >= deadline) {
                let servers = mgr.addrs().join(", ");
                return Err(ClientError::Unreachable {
                    servers,
                    after: begin.elapsed(),
                    text: error.to_string(),
                });
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(Duration::from_secs(1));
        }
    }

    fn new(who: Who, incarnation: u64, opened: &SessionOpened, estate: Option<Estate>) -> Session {
        let mut orphans = Orphans::default();
        let mut inherited_create = None;
        let (marks, journal) = match estate {
            Some(Estate { inherited: true, marks, journal, .. }) => {
                orphans.inherited(opened.orphans_seen);
                inherited_create = Some(orphans.create_begins());
                (marks, Some(journal))
            }
            Some(Estate { journal, .. }) => {
                orphans.renewed(opened.orphans_seen);
                (Vec::new(), Some(journal))
            }
            None => {
                orphans.renewed(opened.orphans_seen);
                (Vec::new(), None)
            }
        };
        Session {
            who,
            lease: watch::channel(opened.lease).0,
            clock: Mutex::new(MgrClock::told(opened.now)),
            keep_alive: Mutex::new(keep_alive_interval(opened)),
            standing: Mutex::new(Arc::new(Standing::new(opened, incarnation, &marks, journal.clone()))),
            renewing: tokio::sync::Mutex::default(),
            orphans: Mutex::new(orphans),
            checking_in: tokio::sync::Mutex::default(),
            journal,
            inherited_create,
            check_in_soon: Notify::new(),
            check_in_now: Notify::new(),
        }
    }

    pub fn standing(&self) -> Arc<Standing> {
        locked(&self.standing, |standing| Arc::clone(standing))
    }

    pub fn lease(&self) -> Lease {
        *self.lease.borrow()
    }

    /// The mgr's wall clock now: the one authority for file times.
    pub fn now(&self) -> Timestamp {
        locked(&self.clock, |clock| *clock).now()
    }

    pub fn orphans<R>(&self, act: impl FnOnce(&mut Orphans) -> R) -> R {
        locked(&self.orphans, act)
    }

    /// A predecessor began this session.
    pub fn is_inherited(&self) -> bool {
        self.inherited_create.is_some()
    }

    /// An inode lost its last name, or an unlinked one was closed: tell the mgr soon.
    pub fn check_in_soon(&self) {
        self.check_in_soon.notify_one();
    }

    /// Sends a keep-alive at once.
    pub fn check_in_now(&self) {
        self.check_in_now.notify_one();
    }

    /// Waits for a lease other than the refused one.
    pub async fn renew_lease(&self, refused: Lease) {
        let mut lease = self.lease.subscribe();
        if *lease.borrow_and_update() == refused {
            self.check_in_now.notify_one();
            // The sender lives as long as `self`.
            let _ = waiting_for(WaitsFor::Mgr, lease.wait_for(|lease| *lease != refused)).await;
        }
    }
}

impl Standing {
    fn new(
        opened: &SessionOpened,
        incarnation: u64,
        marks: &[Mark],
        journal: Option<Arc<dyn Journal>>,
    ) -> Standing {
        let count = opened.slots.clamp(1, limits::SESSION_SLOTS);
        let slots = Slots::new(opened.session, count, marks, journal);
        let inline_bytes_max = opened.inline_bytes_max.unwrap_or(0).into();
        Standing { id: opened.session, incarnation, slots, inline_bytes_max }
    }
}

fn keep_alive_interval(opened: &SessionOpened) -> Duration {
    Duration::from_millis(opened.keep_alive_ms.max(KEEP_ALIVE_MS_MIN))
}

/// Why a client that was never let in need not try on.
fn final_error(mgr: &Peer, error: &CallError) -> Option<ClientError> {
    let text = match error {
        CallError::Refused(refusal) => return Some(refused::<OpenSession>(refusal.clone())),
        CallError::Unreachable(NetError::Refused { refusal, .. })
            if matches!(refusal.status, Status::Unauthorized | Status::WrongFs | Status::Version) =>
        {
            refusal.text.clone()
        }
        CallError::Unreachable(error @ (NetError::Impostor { .. } | NetError::NoSecret { .. })) => {
            error.to_string()
        }
        CallError::Unreachable(_) | CallError::TimedOut { .. } => return None,
    };
    Some(ClientError::NotLetIn { server: mgr.name(), text })
}

impl Core {
    /// Opens a new session in place of `stale`, unless somebody did already.
    pub fn renew_session(self: &Arc<Self>, stale: SessionId) -> BoxFuture<'_, Result<()>> {
        Box::pin(self.open_session_anew(stale))
    }

    async fn open_session_anew(self: &Arc<Self>, stale: SessionId) -> Result<()> {
        let session = &self.session;
        let is_ended = session.renewing.lock().await;
        let old = session.standing();
        if old.id != stale {
            return Ok(());
        }
        if *is_ended || *self.closed.borrow() {
            return Err(ClientError::ShutDown);
        }
        let incarnation = old.incarnation + 1;
        if let Some(journal) = &session.journal {
            journal.incarnation(incarnation);
        }
        let request = session.who.open(incarnation);
        let opened = self.mgr.call(&request).await.map_err(refused::<OpenSession>)?;
        warn!(old = %stale, new = %opened.session, "the mgr gave up this client's session; opened a new one");
        self.adopt_session(&old, &opened, incarnation);
        pvfs_env::task::spawn(Arc::clone(self).reassert());
        Ok(())
    }

    fn adopt_session(&self, old: &Standing, opened: &SessionOpened, incarnation: u64) {
        let session = &self.session;
        let new = Arc::new(Standing::new(opened, incarnation, &[], session.journal.clone()));
        locked(&session.clock, |clock| *clock = MgrClock::told(opened.now));
        locked(&session.keep_alive, |interval| *interval = keep_alive_interval(opened));
        session.orphans(|orphans| orphans.renewed(opened.orphans_seen));
        // First: whoever finds the new session finds that.
        self.appends.session_lost();
        locked(&session.standing, |standing| *standing = new);
        for inode in self.inodes.all() {
            inode.session_lost();
        }
        self.locks_lost();
        self.delegations.forget_all();
        session.lease.send_replace(opened.lease);
        old.slots.close();
    }

    /// Tells a new session what this client has open: claims first, then every file, writers above all.
    async fn reassert(self: Arc<Self>) {
        self.session.check_in_now.notify_one();
        let mut inodes: Vec<Arc<Inode>> = self.inodes.all();
        inodes.sort_by_key(|inode| !inode.has_unreported());
        for inode in inodes {
            let Some(access) = inode.wanted_access() else { continue };
            if let Err(error) = self.fresh_capability(&inode, access, None).await {
                warn!(ino = %inode.ino, %error, "an open file could not be opened again in the new session");
            }
        }
    }

    /// Waits until no call of a predecessor can come any more; then orphans are answered for.
    pub async fn settle_inheritance(self: Arc<Self>) {
        tokio::time::sleep(CALLS_COME_AGAIN).await;
        self.settle_all_appends().await;
        if let Some(create) = self.session.inherited_create {
            self.session.orphans(|orphans| orphans.create_ended(create));
        }
        self.session.check_in_now.notify_one();
    }

    /// Keeps the session alive until the client is closed.
    pub async fn keep_alive_task(self: Arc<Self>) {
        let mut closed = self.closed.subscribe();
        let session = &self.session;
        loop {
            let interval = locked(&session.keep_alive, |interval| *interval);
            let round = async {
                let early = tokio::select! {
                    biased;
                    () = session.check_in_now.notified() => false,
                    () = session.check_in_soon.notified() => true,
                    () = tokio::time::sleep(interval) => false,
                };
                if early {
                    tokio::time::sleep(EARLY_CHECK_IN).await;
                }
                self.check_in(early).await;
            };
            tokio::select! {
                biased;
                () = shut_down(&mut closed) => return,
                () = round => {}
            }
        }
    }

    /// Sends keep-alives until the mgr has no more to tell; an early one also brings this client's answer about the
    /// orphans it has just learnt of.
    async fn check_in(self: &Arc<Self>, early: bool) {
        let mut again = early;
        loop {
            let more = match self.keep_alive_once().await {
                Ok(more) => more,
                Err(error) => return warn!(%error, "keep-alive refused"),
            };
            let pending = again && self.session.orphans(|orphans| orphans.is_pending());
            again = false;
            if !more && !pending {
                return;
            }
        }
    }

    /// Has the mgr keep the file `ino`, which counts as open, if it is there and has no name.
    pub async fn claim(self: &Arc<Self>, ino: Ino) -> Result<()> {
        self.session.orphans(|orphans| orphans.claim_anew(ino));
        self.keep_alive_once().await.map(drop)
    }

    /// One keep-alive. True: the mgr has more orphans to name.
    async fn keep_alive_once(self: &Arc<Self>) -> Result<bool> {
        // What one gives up must not overtake what the next one claims.
        let _turn = self.session.checking_in.lock().await;
        let session = self.session.standing().id;
        let answer = self.session.orphans(|orphans| orphans.answer(|ino| self.inodes.is_open(ino)));
        let request = KeepAlive {
            session,
            orphans_seen: answer.seen,
            claims: answer.claims.clone(),
            releases: answer.releases.clone(),
        };
        let sent = Instant::now();
        match self.mgr.call(&request).await {
            Ok(kept) => {
                let more = kept.more;
                if self.session.standing().id == session {
                    self.session.orphans(|orphans| orphans.taken(&answer));
                    self.take_kept_alive(&kept);
                    let lease_ms = kept.lease.until_ms.saturating_sub(kept.mgr_time_ms);
                    self.delegations.lease_until(sent + Duration::from_millis(lease_ms));
                }
                Ok(more)
            }
            Err(Refusal { status: Status::SessionUnknown, .. }) => {
                self.renew_session(session).await?;
                Ok(false)
            }
            Err(refusal) => Err(refused::<KeepAlive>(refusal)),
        }
    }

    fn take_kept_alive(&self, kept: &KeptAlive) {
        locked(&self.session.clock, |clock| *clock = MgrClock::told(kept.now));
        self.session.orphans(|orphans| orphans.named(&kept.orphans));
        self.session.lease.send_replace(kept.lease);
        self.targets.version_is(kept.targets_version);
    }

    /// Ends the session cleanly.
    pub async fn close_session(self: &Arc<Self>) -> Result<()> {
        // A keep-alive that comes after it finds no session, and must not open another.
        *self.session.renewing.lock().await = true;
        let session = self.session.standing().id;
        match self.mgr.call(&CloseSession { session }).await {
            Ok(_) => {}
            Err(Refusal { status: Status::SessionUnknown, .. }) => info!("the session was gone already"),
            Err(refusal) => return Err(refused::<CloseSession>(refusal)),
        }
        Ok(())
    }
}
