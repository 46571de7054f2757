//! How large a file is while it is written: the mgr's record, what the targets hold, what this client wrote itself.
//! And how the mgr is told.

use crate::{
    ClientError,
    calls::{pause_after, refused},
    client::Core,
    error::Result,
    inode::{Inode, State},
    retry::{Action, Tries},
};
use futures_util::future::join_all;
use pvfs_types::{
    Attr, Cred, DataGen, Distribution, Errno, FileKind, Ino, ObjectId, SessionId, Slot, Timestamp,
};
use pvfs_wire::msg::{
    data::{ObjectStat, StatObjects},
    file::ReportSize,
    namespace::Entry,
};
use std::{sync::Arc, time::Duration};

/// What the targets tell of a file.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Extent {
    pub size: u64,
    pub mtime: Option<Timestamp>,
    /// Bytes on the targets' disks.
    pub allocated: u64,
}

/// How long a close waits at most to be told what the targets' disks hold of a file with holes.
const ALLOCATED_WAIT: Duration = Duration::from_secs(1);

/// What a report tells.
struct Report {
    /// Whose writes these were.
    cred: Arc<Cred>,
    size: u64,
    epoch: u32,
    mtime: Option<Timestamp>,
    close: bool,
    /// The standing as a writer that `close` ends.
    recorded: Option<SessionId>,
}

impl Core {
    /// The whole truth about an inode: the mgr's answer, completed by the targets where somebody else writes the file,
    /// and by what this client wrote.
    pub async fn complete(self: &Arc<Self>, entry: Entry) -> Result<Attr> {
        let mut attr = entry.attr;
        if attr.kind != FileKind::File {
            return Ok(attr);
        }
        let inode = self.inodes.find(attr.ino);
        let before = inode.as_ref().map(|inode| {
            inode.with(|state| {
                state.absorb(&attr);
                (state.asked(), state.doubts())
            })
        });
        let doubts = before.and_then(|(_, doubts)| doubts);
        if let Some(dist) = attr.dist.filter(|_| entry.has_writers || doubts.is_some()) {
            let extent = self.extent(attr.ino, attr.data_gen, dist).await?;
            if let (Some(inode), Some((asked, doubts))) = (&inode, before) {
                inode.with(|state| state.found_whole(attr.data_gen, asked, doubts, extent.size));
            }
            attr.size = attr.size.max(extent.size);
            attr.mtime = extent.mtime.filter(|_| entry.has_writers).unwrap_or_default().max(attr.mtime);
            attr.allocated = Some(extent.allocated).filter(|_| entry.has_writers).or(attr.allocated);
        }
        if let Some(inode) = &inode {
            inode.with(|state| {
                state.end_is_known();
                state.overlay(&mut attr);
            });
        }
        Ok(attr)
    }

    /// Asks all targets of a file how far it reaches.
    pub async fn extent(self: &Arc<Self>, ino: Ino, data_gen: DataGen, dist: Distribution) -> Result<Extent> {
        let asked = dist.slots().map(|slot| self.object(dist, ObjectId { ino, data_gen, slot }));
        let mut extent = Extent::default();
        for answer in join_all(asked).await {
            let (slot, Some(object)) = answer? else { continue };
            extent.size = extent.size.max(dist.size_from_object(slot, object.len));
            extent.mtime = extent.mtime.max(Some(object.mtime));
            extent.allocated = extent.allocated.saturating_add(object.allocated);
        }
        Ok(extent)
    }

    async fn object(
        self: &Arc<Self>,
        dist: Distribution,
        object: ObjectId,
    ) -> Result<(Slot, Option<ObjectStat>)> {
        let mut tries = Tries::default();
        loop {
            let target = self.targets.locate(&dist, object.slot).await;
            let store = self.holds.known(target);
            let request = StatObjects { target, objects: vec![object], store };
            match self.targets.call(target, &request, &[]).await {
                Ok((reply, _)) => return Ok((object.slot, reply.objects.first().copied().flatten())),
                Err(refusal) => match tries.refused(refusal.status) {
                    Action::RefreshTargets => {
                        tokio::time::sleep(pause_after(tries.waits)).await;
                        self.targets.refresh().await;
                    }
                    Action::Later => tokio::time::sleep(pause_after(tries.waits)).await,
                    Action::SendAgain { generation } => self.send_again(target, generation).await?,
                    Action::NewSession | Action::RenewLease | Action::FreshCapability | Action::GiveUp => {
                        return Err(refused::<StatObjects>(refusal));
                    }
                },
            }
        }
    }

    /// Tells the mgr what was written, if it does not know. With `closing`, also ends this client's standing as a
    /// writer, unless other handles than that many are open for writing. Runs to its end, also when dropped.
    pub async fn report(self: &Arc<Self>, inode: &Arc<Inode>, closing: Option<u32>) -> Result<()> {
        if !closing.is_some_and(|mine| self.is_small(inode, mine)) {
            self.send_gathered(inode).await?;
        }
        self.report_sent(inode, closing).await
    }

    /// As [`Core::report`], but for what is gathered.
    pub async fn report_sent(self: &Arc<Self>, inode: &Arc<Inode>, closing: Option<u32>) -> Result<()> {
        // A report under way may fail, and leave what it was to tell to this one.
        if let Ok(_record) = inode.record.try_lock() {
            if !inode.with(|state| state.dirty || closing.is_some_and(|mine| state.closes(mine))) {
                return Ok(());
            }
            if inode.with(|state| state.is_clean()) {
                if closing == Some(0) && inode.with(State::end_clean) {
                    self.ends.add(inode.ino);
                }
                return Ok(());
            }
        }
        let (core, inode) = (Arc::clone(self), Arc::clone(inode));
        self.finish(async move { core.report_here(&inode, closing).await }).await
    }

    async fn report_here(self: &Arc<Self>, inode: &Arc<Inode>, closing: Option<u32>) -> Result<()> {
        if let Some(mine) = closing
            && self.put_inline(inode, mine).await?
        {
            return Ok(());
        }
        let mut must_close = false;
        loop {
            if closing.is_some() {
                self.send_gathered(inode).await?;
            }
            // Not under the lock: what it asks of the targets may wait until bytes were sent again, for which this very
            // file may have to be opened.
            self.settle_doubts(inode).await?;
            let allocated = if closing.is_some() { self.allocated(inode).await } else { None };
            let _record = inode.record.lock().await;
            let is_over = closing == Some(0);
            if inode.with(|state| state.doubts().is_some() || is_over && state.has_gathered()) {
                continue;
            }
            let Some(report) = inode.with(|state| state.take_report(closing, must_close)) else {
                return Ok(());
            };
            let (ino, Report { cred, size, epoch: size_epoch, mtime, close, recorded }) = (inode.ino, report);
            let make = |by| ReportSize { by, ino, size, size_epoch, mtime, close, allocated };
            if close {
                self.closes.begin();
            }
            let told = self.mutate_here(&cred, make).await;
            if close {
                self.closes.end();
            }
            inode.with(|state| state.telling = false);
            match told {
                Ok(entry) if entry.attr.size_epoch == size_epoch => {
                    inode.absorb(&entry);
                    return Ok(());
                }
                // A truncation came between: the size was not taken.
                Ok(entry) => {
                    must_close |= close;
                    inode.with(|state| {
                        state.dirty = true;
                        state.absorb(&entry.attr);
                        state.doubt();
                    });
                }
                Err(error) => {
                    inode.with(|state| state.untold(mtime, recorded));
                    return Err(error);
                }
            }
        }
    }

    /// Asks the targets how much of the file their disks hold, if that may be another number than its size. Who is closed
    /// does not wait long for it: it is for people.
    async fn allocated(self: &Arc<Self>, inode: &Inode) -> Option<u64> {
        let (dist, data_gen) =
            inode.with(|state| (state.dist.filter(|_| state.dirty && state.has_holes()), state.data_gen));
        let asked = tokio::time::timeout(ALLOCATED_WAIT, self.extent(inode.ino, data_gen, dist?)).await;
        Some(asked.ok()?.ok()?.allocated)
    }

    /// Asks the targets how far the file reaches, if this client cannot know.
    async fn settle_doubts(self: &Arc<Self>, inode: &Inode) -> Result<()> {
        if inode.with(|state| state.doubts().is_some() && state.dist.is_none()) {
            // A predecessor had it open, and it was not opened since.
            inode.absorb(&self.ask_entry(inode.ino).await?);
        }
        let (doubts, dist, data_gen, asked) =
            inode.with(|state| (state.doubts(), state.dist, state.data_gen, state.asked()));
        if let (Some(_), Some(dist)) = (doubts, dist) {
            let extent = self.extent(inode.ino, data_gen, dist).await?;
            inode.with(|state| {
                state.found_whole(data_gen, asked, doubts, extent.size);
                if state.dirty {
                    state.mtime = state.mtime.or(extent.mtime);
                }
            });
        }
        Ok(())
    }

    /// Asks the mgr (and the targets, where they know better) for the attributes of an open file.
    pub async fn refresh_attr(self: &Arc<Self>, ino: Ino) -> Result<Attr> {
        match self.delegations.attr(ino).and_then(|attr| self.known(attr)) {
            Some(attr) => Ok(attr),
            None => self.complete(self.ask_entry(ino).await?).await,
        }
    }

    /// As [`Core::refresh_attr`], of a file that nobody else writes; `None`: somebody does.
    pub async fn attr_if_alone(self: &Arc<Self>, ino: Ino) -> Result<Option<Attr>> {
        if let Some(attr) = self.delegations.attr(ino).and_then(|attr| self.known(attr)) {
            return Ok(Some(attr));
        }
        let entry = self.ask_entry(ino).await?;
        if entry.has_writers { Ok(None) } else { self.complete(entry).await.map(Some) }
    }

    /// What the mgr says of an open file.
    async fn ask_entry(self: &Arc<Self>, ino: Ino) -> Result<Entry> {
        let asking = self.delegations.ask();
        let asked =
            self.ask(&Cred::root(), |caller| pvfs_wire::msg::namespace::GetAttr { caller, ino }).await;
        match asked {
            Ok(entry) => {
                asking.learn(&entry);
                Ok(entry)
            }
            Err(ClientError::Refused { errno: Errno::ENOENT | Errno::ESTALE, .. }) => {
                Err(ClientError::Gone { ino })
            }
            Err(error) => Err(error),
        }
    }
}

impl State {
    /// There is nothing that the mgr should be told.
    fn is_clean(&self) -> bool {
        !self.dirty && self.writes_in_flight == 0 && self.doubts().is_none() && !self.has_gathered()
    }

    /// Ends the standing as a writer of a file with nothing to report, where the last write handle is closed. True: the
    /// mgr is to hear of it.
    fn end_clean(&mut self) -> bool {
        self.closes(0) && self.end_record().is_some()
    }

    /// Whether a close of `mine` write handles ends this client's standing as a writer.
    fn closes(&self, mine: u32) -> bool {
        let is_last = self.writes_open <= mine && self.writes_in_flight == 0 && !self.has_gathered();
        self.recorded.is_some() && is_last
    }

    fn take_report(&mut self, closing: Option<u32>, must_close: bool) -> Option<Report> {
        // A handle that was opened since the mgr refused the report has its own standing.
        let close = (must_close && self.recorded.is_none()) || closing.is_some_and(|mine| self.closes(mine));
        if !self.dirty && !close {
            return None;
        }
        let recorded = if close { self.end_record() } else { None };
        (self.dirty, self.telling) = (self.has_gathered(), true);
        let cred = self.written_by.clone().unwrap_or_default();
        let (size, epoch, mtime) = (self.size_sent(), self.size_epoch, self.mtime.take());
        Some(Report { cred, size, epoch, mtime, close, recorded })
    }

    /// The mgr did not take the report.
    pub fn untold(&mut self, mtime: Option<Timestamp>, recorded: Option<SessionId>) {
        self.dirty = true;
        self.mtime = self.mtime.or(mtime);
        self.recorded = self.recorded.or(recorded);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::IodtabGen;

    fn told(size: u64, size_epoch: u32) -> Attr {
        let dist = Distribution { iodtab: IodtabGen(1), base: 0, pcount: 1, ssize: 4096 };
        let at = Timestamp::default();
        Attr {
            ino: Ino(7),
            kind: FileKind::File,
            mode: 0o644,
            uid: 0,
            gid: 0,
            nlink: 1,
            size,
            size_epoch,
            atime: at,
            mtime: at,
            ctime: at,
            btime: at,
            rdev: (0, 0),
            change: 1,
            dist: Some(dist),
            data_gen: DataGen(1),
            layout: None,
            extras: None,
            allocated: None,
            inline: None,
        }
    }

    #[test]
    fn a_truncation_that_becomes_known_during_a_report_leaves_a_doubt() {
        let mut state = State::default();
        state.dirty = true;
        state.absorb(&told(10, 2));
        let report = state.take_report(None, false).unwrap();
        state.absorb(&told(5, 3));
        assert!(state.doubts().is_some(), "what was written may lie past the cut");
        state.telling = false;
        state.untold(report.mtime, report.recorded);
        assert!(state.doubts().is_some());
    }

    #[test]
    fn a_sync_forgets_the_end_that_a_target_was_seen_to_hold() {
        let mut state = State::default();
        state.absorb(&told(10, 2));
        let asked = state.asked();
        state.found(DataGen(1), asked, 30);
        state.end_is_known();
        assert_eq!((state.end(), state.attr_is_fresh()), (30, true));
        state.synced();
        assert_eq!(
            state.end(),
            10,
            "who wrote the rest may be dead, and the target have lost it before the sync"
        );
        assert!(!state.attr_is_fresh(), "whether it is there is to be asked");
        state.found(DataGen(1), asked, 30);
        assert_eq!(state.end(), 10, "seen before the sync");
    }

    #[test]
    fn what_the_mgr_tells_of_a_file_that_others_write_is_not_its_end() {
        let mut state = State::default();
        let entry = |has_writers| Entry { attr: told(10, 2), has_writers, delegated: None };
        state.absorb_entry(&entry(true));
        assert!(!state.attr_is_fresh(), "a target may have more");
        state.absorb_entry(&entry(false));
        assert!(state.attr_is_fresh());
    }

    #[test]
    fn a_sync_forgets_no_end_that_this_client_is_to_tell() {
        let mut state = State::default();
        state.absorb(&told(10, 2));
        state.inherited();
        let (asked, doubts) = (state.asked(), state.doubts());
        state.found_whole(DataGen(1), asked, doubts, 30);
        state.synced();
        assert_eq!((state.end(), state.doubts()), (30, None));
        assert_eq!(state.take_report(None, false).unwrap().size, 30);
    }

    #[test]
    fn a_truncation_of_a_file_that_this_client_did_not_write_is_believed() {
        let mut state = State::default();
        state.absorb(&told(10, 2));
        state.absorb(&told(5, 3));
        assert_eq!((state.doubts(), state.size), (None, 5));
    }
}
