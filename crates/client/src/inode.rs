//! What all handles of one open file share, and the table of open files.
//!
//! An inode counts as open from before its open request leaves until its last handle is closed and its size is told,
//! so that no orphan is given up too early.

use crate::{client::Core, gathers::Gather, near::Near};
use pvfs_types::{
    Attr, Cred, DataGen, Distribution, Errno, Extras, Ino, LogicalOffset, SessionId, Timestamp, mode,
};
use pvfs_wire::{Access, Capability, msg::namespace::Entry};
use std::{
    collections::{BTreeMap, VecDeque},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

/// How long an answer about attributes counts as fresh when a read finds fewer bytes than it asked for.
const FRESH: Duration = Duration::from_secs(1);

/// All open files of a client, by number.
#[derive(Default)]
pub(crate) struct Inodes(Mutex<BTreeMap<Ino, Arc<Inode>>>);

/// An open file.
pub(crate) struct Inode {
    pub ino: Ino,
    state: Mutex<State>,
    /// Counts acknowledged writes that are lost for good.
    losses: AtomicU64,
    /// Held while the mgr is told or asked who writes (open for writing, size reports), so that the record and
    /// `State::recorded` agree.
    pub record: tokio::sync::Mutex<()>,
    /// Held while the attributes are asked for anew, so that many short reads ask once.
    pub validating: tokio::sync::Mutex<()>,
    /// Held by whoever sends what is gathered.
    pub sending: tokio::sync::Mutex<()>,
    /// Held by one append at a time.
    pub appending: Arc<tokio::sync::Mutex<()>>,
    /// The session in which this client certainly holds the file's append lock. Held while it is taken or given up.
    pub append_lock: tokio::sync::Mutex<Option<SessionId>>,
    /// It is about to be given up.
    pub append_lock_goes: AtomicBool,
    /// Others wrote the file when this client was last told whether.
    pub is_shared: AtomicBool,
    /// Its objects on iods of this machine.
    pub near: Near,
}

/// What is known of an open file. Sizes and flags are in the mgr's terms.
#[derive(Default)]
#[expect(clippy::struct_excessive_bools, reason = "each is known by itself")]
pub(crate) struct State {
    opens: u32,
    /// Those of them that are open, not only being opened.
    keeps: u32,
    reads_open: u32,
    pub writes_open: u32,
    pub writes_in_flight: u32,
    pub dist: Option<Distribution>,
    pub data_gen: DataGen,
    read_cap: Option<Capability>,
    write_cap: Option<Capability>,
    /// The end of what the mgr told of and of what this client wrote: never more than the file's size as long as
    /// `size_epoch` holds.
    pub size: u64,
    pub size_epoch: u32,
    /// The end of bytes that targets were seen to hold. Others wrote them, and did not tell the mgr: a target that loses
    /// them loses the file's end, so a sync forgets it.
    found_end: u64,
    /// How often that was.
    forgets: u64,
    /// As many bytes as can have been written, at most: where `size` is more, the file has holes.
    covered: u64,
    /// It has some anyway, or room was taken beforehand.
    pub sparse: bool,
    /// Counts events after which `size` may be too small, though this client could know better: a write whose outcome
    /// is unknown, a truncation by somebody else over own writes.
    doubts: u64,
    doubts_settled: u64,
    /// There were writes that the mgr was not told of.
    pub dirty: bool,
    /// The mgr is being told.
    pub telling: bool,
    /// When this client wrote last, where the mgr was not told.
    pub mtime: Option<Timestamp>,
    /// Who wrote last. What is not root's takes set-user-id bits away.
    pub written_by: Option<Arc<Cred>>,
    /// Small writes that are acknowledged and not sent, in their order.
    pub gathers: VecDeque<Gather>,
    /// The mgr knows this session as a writer of the file.
    pub recorded: Option<SessionId>,
    /// The number of the delegation under which this client has made the file, for writing: as long as that stands and
    /// `recorded` holds, nobody else was told of it.
    pub alone: Option<u64>,
    /// This client has made it, and no target was sent anything of it since.
    pub is_untouched: bool,
    /// The mgr kept its bytes when it was last told of. What it knew then may be told late: see [`State::is_inline`].
    inline: bool,
    /// What was lost last, as an errno.
    lost_as: Option<Errno>,
    /// The newest change of the inode that `inline` and the two next are of.
    change: u64,
    pub extras: Extras,
    /// By its mode a program in it runs as somebody else.
    pub privileged: bool,
    attr_at: Option<Instant>,
    holes_checked_at: Option<Instant>,
}

/// When targets were asked for bytes: an end that these prove stands only if nothing was cut off or forgotten since.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct Asked {
    size_epoch: u32,
    forgets: u64,
}

/// One reason for a file to count as open.
pub(crate) struct OpenCount {
    pub inode: Arc<Inode>,
    core: Arc<Core>,
    access: Access,
    /// It is open, not only being opened.
    keeps: bool,
}

/// A write on its way. Dropped before [`WriteInFlight::done`], it leaves a doubt about the size.
pub(crate) struct WriteInFlight {
    inode: Arc<Inode>,
    pub epoch: u32,
    done: bool,
}

impl Inodes {
    fn with<T>(&self, act: impl FnOnce(&mut BTreeMap<Ino, Arc<Inode>>) -> T) -> T {
        act(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    pub fn find(&self, ino: Ino) -> Option<Arc<Inode>> {
        self.with(|inodes| inodes.get(&ino).cloned())
    }

    pub fn is_open(&self, ino: Ino) -> bool {
        self.with(|inodes| inodes.contains_key(&ino))
    }

    pub fn all(&self) -> Vec<Arc<Inode>> {
        self.with(|inodes| inodes.values().cloned().collect())
    }
}

impl OpenCount {
    /// Counts `ino` as open for `access`.
    pub fn new(core: &Arc<Core>, ino: Ino, access: Access) -> OpenCount {
        let inode = core.inodes.with(|inodes| {
            let inode = inodes.entry(ino).or_insert_with(|| Arc::new(Inode::new(ino)));
            inode.with(|state| {
                state.opens += 1;
                state.reads_open += u32::from(access.read);
                state.writes_open += u32::from(access.write);
            });
            Arc::clone(inode)
        });
        OpenCount { inode, core: Arc::clone(core), access, keeps: false }
    }

    pub fn access(&self) -> Access {
        self.access
    }

    /// It is open: from now on the mgr keeps the file for this client, until that is closed.
    pub fn keep(&mut self) {
        if !self.keeps {
            self.keeps = true;
            self.inode.with(|state| state.keeps += 1);
        }
    }

    /// The mgr keeps the file for this client anyway, if this count was there before.
    pub fn is_kept(&self) -> bool {
        self.inode.with(|state| state.keeps > 0)
    }

    /// The handle is closed for the application; what is left to do runs under this count.
    pub fn stop_access(&mut self) {
        let access = std::mem::take(&mut self.access);
        self.inode.with(|state| {
            state.reads_open -= u32::from(access.read);
            state.writes_open -= u32::from(access.write);
        });
    }
}

impl Drop for OpenCount {
    fn drop(&mut self) {
        self.stop_access();
        let ino = self.inode.ino;
        let last = self.core.inodes.with(|inodes| {
            let last = self.inode.with(|state| {
                state.opens -= 1;
                state.keeps -= u32::from(self.keeps);
                state.opens == 0
            });
            if last {
                inodes.remove(&ino);
            }
            last
        });
        if last && self.core.session.orphans(|orphans| orphans.is_claimed(ino)) {
            self.core.session.check_in_soon();
        }
    }
}

impl Inode {
    pub fn new(ino: Ino) -> Inode {
        Inode {
            ino,
            state: Mutex::default(),
            losses: AtomicU64::new(0),
            record: tokio::sync::Mutex::default(),
            validating: tokio::sync::Mutex::default(),
            sending: tokio::sync::Mutex::default(),
            appending: Arc::default(),
            append_lock: tokio::sync::Mutex::default(),
            append_lock_goes: AtomicBool::new(false),
            is_shared: AtomicBool::new(false),
            near: Near::default(),
        }
    }

    pub fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        act(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Acknowledged bytes are lost for good.
    pub fn lost(&self, errno: Errno) {
        self.with(|state| state.lost_as = Some(errno));
        self.losses.fetch_add(1, Ordering::SeqCst);
    }

    /// Rises with each [`Inode::lost`].
    pub fn losses(&self) -> u64 {
        self.losses.load(Ordering::SeqCst)
    }

    /// Why, the last time.
    pub fn lost_as(&self) -> Errno {
        self.with(|state| state.lost_as).unwrap_or(Errno::EIO)
    }

    pub fn absorb(&self, entry: &Entry) {
        self.with(|state| state.absorb_entry(entry));
    }

    /// The answer to an open: attributes and capability belong together.
    pub fn opened(&self, entry: &Entry, capability: Option<Capability>) {
        self.is_shared.store(entry.has_writers, Ordering::Relaxed);
        self.with(|state| {
            state.absorb_entry(entry);
            if let Some(capability) = capability {
                state.put_capability(capability);
                if capability.grant.access.write {
                    state.recorded = Some(capability.grant.session);
                }
            }
        });
    }

    /// The answer to this client's own change of attributes; with `resized`, of the size too.
    pub fn truncated(&self, attr: &Attr, resized: bool) {
        self.with(|state| {
            let certain = state.doubts().is_none() || attr.size_epoch > state.size_epoch;
            state.absorb(attr);
            if resized && certain && state.writes_in_flight == 0 {
                state.doubts_settled = state.doubts;
            }
        });
    }

    /// The capability for `access`, where one is at hand.
    pub fn capability(&self, access: Access) -> Option<Capability> {
        self.with(|state| state.capability(access))
    }

    /// A write up to `end` begins, if the mgr knows this session as a writer and a capability for that is at hand.
    pub fn begin_write(self: &Arc<Self>, end: u64) -> Option<(WriteInFlight, Capability)> {
        self.with(|state| {
            let capability = state.may_write(end)?;
            state.is_untouched = false;
            state.writes_in_flight += 1;
            let in_flight = WriteInFlight { inode: Arc::clone(self), epoch: state.size_epoch, done: false };
            Some((in_flight, capability))
        })
    }

    /// The session is gone, and with it every capability and the writer record.
    pub fn session_lost(&self) {
        self.with(|state| {
            state.read_cap = None;
            state.write_cap = None;
            state.end_record();
        });
    }

    pub fn has_unreported(&self) -> bool {
        self.with(|state| state.dirty || state.writes_in_flight > 0)
    }

    /// What open handles of this file want to do; `None` without any.
    pub fn wanted_access(&self) -> Option<Access> {
        let access = self.with(|state| Access { read: state.reads_open > 0, write: state.writes_open > 0 });
        (access.read || access.write).then_some(access)
    }
}

impl State {
    /// The capability for a write up to `end`, if the mgr knows this session as a writer.
    pub fn may_write(&self, end: u64) -> Option<Capability> {
        let capability = self.capability(Access::WRITE).filter(|found| found.grant.reaches(end))?;
        self.recorded.filter(|&session| session == capability.grant.session)?;
        Some(capability)
    }

    /// The mgr does not know this session as a writer any more: whoever asks it for the file is told. Gives what it knew.
    pub fn end_record(&mut self) -> Option<SessionId> {
        self.alone = None;
        self.recorded.take()
    }

    /// `bytes` bytes were written up to `end`, at `now`, and acknowledged.
    pub fn wrote(&mut self, bytes: u64, end: LogicalOffset, now: Timestamp, by: &Arc<Cred>) {
        self.dirty = true;
        self.mtime = Some(now);
        self.covered = self.covered.saturating_add(bytes);
        self.size = self.size.max(end.0);
        if !self.written_by.as_ref().is_some_and(|cred| Arc::ptr_eq(cred, by)) {
            self.written_by = Some(Arc::clone(by));
        }
    }

    fn capability(&self, access: Access) -> Option<Capability> {
        let capability = if access.write { self.write_cap } else { self.read_cap };
        capability.filter(|capability| capability.grant.access.covers(access))
    }

    pub fn put_capability(&mut self, capability: Capability) {
        let grant = capability.grant;
        if grant.data_gen < self.data_gen {
            return;
        }
        if grant.access.read {
            self.read_cap = Some(capability);
        }
        if grant.access.write {
            self.write_cap = Some(capability);
        }
    }

    /// Other limits may bind the file now: the next write asks.
    pub fn forget_write_capability(&mut self) {
        self.write_cap = None;
    }

    /// Learns from an answer of the mgr. Answers may overtake each other; older ones change nothing.
    pub fn absorb(&mut self, attr: &Attr) {
        if self.dist.is_none() || attr.data_gen > self.data_gen {
            self.data_gen = attr.data_gen;
            self.read_cap = None;
            self.write_cap = None;
            self.holes_checked_at = None;
        }
        if self.dist.is_none() {
            self.size_epoch = attr.size_epoch;
            self.size = attr.size;
            self.covered = self.covered.saturating_add(attr.size);
            self.sparse |= attr.allocated.is_some();
        } else if attr.size_epoch > self.size_epoch {
            self.size_epoch = attr.size_epoch;
            self.size = attr.size;
            self.found_end = 0;
            self.covered = attr.size;
            self.sparse = attr.allocated.is_some();
            if self.dirty || self.telling || self.writes_in_flight > 0 {
                self.doubt();
            }
        } else if attr.size_epoch == self.size_epoch {
            self.covered = self.covered.saturating_add(attr.size.saturating_sub(self.end()));
            self.size = self.size.max(attr.size);
            self.sparse |= attr.allocated.is_some();
        }
        self.dist = attr.dist;
        if attr.change >= self.change {
            self.change = attr.change;
            self.extras = attr.extras.unwrap_or_default();
            self.inline = attr.is_inline();
            let group_runs_it = attr.mode & mode::SGID != 0 && attr.mode & (mode::X << 3) != 0;
            self.privileged = attr.mode & mode::SUID != 0 || group_runs_it;
        }
    }

    /// As [`State::absorb`]; where nobody else writes the file, that is all there is to know.
    pub fn absorb_entry(&mut self, entry: &Entry) {
        self.absorb(&entry.attr);
        if !entry.has_writers {
            self.end_is_known();
        }
    }

    /// Everybody was asked who may know of the file's end.
    pub fn end_is_known(&mut self) {
        self.attr_at = Some(Instant::now());
    }

    /// The mgr may keep its bytes: not if it knows this client as a writer, for what it keeps nobody writes.
    pub fn is_inline(&self) -> bool {
        self.inline && self.recorded.is_none()
    }

    /// The mgr has told of it at some time.
    pub fn attr_is_known(&self) -> bool {
        self.change > 0
    }

    /// The end of the last byte known to be in the file.
    pub fn end(&self) -> u64 {
        self.size.max(self.found_end)
    }

    /// Targets are about to be asked for bytes.
    pub fn asked(&self) -> Asked {
        Asked { size_epoch: self.size_epoch, forgets: self.forgets }
    }

    /// Bytes were found that prove the file of `data_gen` to reach to `end` at least.
    pub fn found(&mut self, data_gen: DataGen, asked: Asked, end: u64) {
        if data_gen == self.data_gen && asked == self.asked() {
            self.covered = self.covered.saturating_add(end.saturating_sub(self.end()));
            self.found_end = self.found_end.max(end);
        }
    }

    /// All targets of the file of `data_gen` were asked: it reaches to `end`. Where there were `doubts`, that may be this
    /// client's own writes, and the mgr is to be told.
    pub fn found_whole(&mut self, data_gen: DataGen, asked: Asked, doubts: Option<u64>, end: u64) {
        let Some(doubts) = doubts else { return self.found(data_gen, asked, end) };
        if (data_gen, asked.size_epoch) == (self.data_gen, self.size_epoch) {
            self.covered = self.covered.saturating_add(end.saturating_sub(self.end()));
            self.size = self.size.max(end);
        }
        self.doubts_settled = self.doubts_settled.max(doubts);
    }

    /// Targets have synced what they hold: what they had lost before that is no part of the file any more, whatever was seen
    /// of it earlier.
    pub fn synced(&mut self) {
        self.forgets += 1;
        if self.found_end > self.size {
            self.outdated();
        }
        self.found_end = 0;
    }

    /// Its size and what the targets' disks hold of it may be two numbers.
    pub fn has_holes(&self) -> bool {
        self.sparse || self.end() > self.covered
    }

    /// A predecessor had it open for writing: what it wrote may not have been told.
    pub fn inherited(&mut self) {
        self.dirty = true;
        self.doubt();
    }

    pub fn doubt(&mut self) {
        self.doubts += 1;
    }

    /// A truncation erred: it may have been made, or be carried on with later. Nothing that was known of the size stands.
    pub fn maybe_truncated(&mut self) {
        self.doubt();
        self.attr_at = None;
        self.holes_checked_at = None;
    }

    /// The doubt about the size, if there is one, to be given back to [`State::found_whole`].
    pub fn doubts(&self) -> Option<u64> {
        (self.doubts != self.doubts_settled).then_some(self.doubts)
    }

    /// Others write the file: what was learned of its end and of its holes does not stand.
    pub fn outdated(&mut self) {
        self.attr_at = None;
        self.holes_checked_at = None;
    }

    /// The attributes were asked for, for the sake of a hole.
    pub fn holes_checked(&mut self) {
        self.holes_checked_at = Some(Instant::now());
    }

    /// Never while the size is in doubt.
    pub fn attr_is_fresh(&self) -> bool {
        self.attr_at.is_some_and(|at| at.elapsed() < FRESH) && self.doubts().is_none()
    }

    /// As [`State::attr_is_fresh`].
    pub fn holes_are_fresh(&self) -> bool {
        self.holes_checked_at.is_some_and(|at| at.elapsed() < FRESH) && self.doubts().is_none()
    }

    /// `attr` of the mgr, with what only this client knows.
    pub fn overlay(&self, attr: &mut Attr) {
        if self.size_epoch > attr.size_epoch {
            attr.size = self.end();
        } else if self.size_epoch == attr.size_epoch {
            attr.size = attr.size.max(self.end()).max(self.inherited_end());
        }
        if attr.allocated.is_none() && attr.size > self.covered {
            attr.allocated = Some(self.covered);
        }
        if let Some(mtime) = self.mtime {
            attr.mtime = mtime;
            attr.ctime = attr.ctime.max(mtime);
        }
    }
}

impl WriteInFlight {
    /// The write of `bytes` bytes to `..end` was acknowledged by all targets, at `now`.
    pub fn done(mut self, bytes: u64, end: LogicalOffset, now: Timestamp, by: &Arc<Cred>) {
        self.done = true;
        let epoch = self.epoch;
        self.inode.with(|state| {
            let size = state.size;
            state.wrote(bytes, end, now, by);
            if state.size_epoch != epoch {
                state.size = size;
                state.doubt();
            }
        });
    }

    /// What was acknowledged before, up to `end`, is sent.
    pub fn sent(mut self, end: u64) {
        self.done = true;
        let epoch = self.epoch;
        self.inode.with(|state| {
            if state.size_epoch == epoch {
                state.size = state.size.max(end);
            } else {
                state.doubt();
            }
        });
    }
}

impl Drop for WriteInFlight {
    fn drop(&mut self) {
        let done = self.done;
        self.inode.with(|state| {
            state.writes_in_flight -= 1;
            if !done {
                state.dirty = true;
                state.doubt();
            }
        });
    }
}
