//! An open file: reads and writes at offsets, lists and strided patterns, sync, close.

mod append;
mod copy;
mod holes;

use crate::{
    ClientError,
    calls::pause_after,
    client::{Core, Tasks},
    error::{Answer, Result},
    inode::{Inode, OpenCount, State},
    io,
    plan::{self, Gap, SlotRequest},
};
use bytes::Bytes;
use pvfs_env::memory::Room;
use pvfs_types::{
    Attr, Cred, DataGen, Distribution, Errno, Ino, LogicalOffset, Pattern, SetAttr, Slot, limits,
};
use pvfs_wire::{Access, Op, msg::namespace::Entry};
use std::sync::{
    Arc, Mutex, OnceLock, PoisonError,
    atomic::{AtomicU64, Ordering},
};
use tracing::warn;

/// Reads longer than this are held against the file's size before memory is taken for them.
const UNCHECKED_READ_BYTES_MAX: u64 = 64 << 20;

/// An open file. All methods take `&self`; share it by `Arc`.
///
/// Reads and writes go to the targets at once and in parallel, and to nobody else. A call waits for targets that are
/// away; dropped, it gives up: a read leaves nothing behind, a write may have been done in part.
///
/// A write that was answered is seen by every later read of any client. Sizes and times are told to the mgr by
/// [`File::flush`], [`File::sync`] and [`File::close`]; other clients see them before that by asking the targets.
///
/// Dropping the handle closes it in the background, where errors can only be logged: call [`File::close`].
pub struct File {
    core: Arc<Core>,
    tasks: Arc<Tasks>,
    inode: Arc<Inode>,
    access: Access,
    /// Who opened it.
    cred: Arc<Cred>,
    at_open: Entry,
    /// The losses that its user has been told of.
    losses_told: AtomicU64,
    /// `None`: closed.
    count: Mutex<Option<OpenCount>>,
    /// Its number among those who lock; none before it does.
    lock_handle: OnceLock<u64>,
}

/// What a read brought.
struct Gathered {
    /// All bytes asked for, zeros where none came; or, of a read of one run, those that came.
    buffer: Bytes,
    gaps: Vec<Gap>,
    /// What the answers prove the file's size to be at least.
    size_min: u64,
}

/// A finished read: where the file ended, if it ended within what was asked for.
struct Found {
    buffer: Bytes,
    end_of_file: Option<u64>,
}

impl File {
    pub(crate) fn new(
        core: Arc<Core>,
        tasks: Arc<Tasks>,
        mut count: OpenCount,
        access: Access,
        cred: &Cred,
        at_open: Entry,
    ) -> File {
        count.keep();
        let inode = Arc::clone(&count.inode);
        File {
            losses_told: AtomicU64::new(inode.losses()),
            core,
            tasks,
            inode,
            access,
            cred: Arc::new(cred.clone()),
            at_open,
            count: Mutex::new(Some(count)),
            lock_handle: OnceLock::new(),
        }
    }

    /// Its user was told of no losses yet, of those before it was opened here neither.
    pub(crate) fn untold(mut self) -> File {
        self.losses_told = AtomicU64::new(0);
        self
    }

    pub fn ino(&self) -> Ino {
        self.inode.ino
    }

    pub(crate) fn core(&self) -> &Arc<Core> {
        &self.core
    }

    pub(crate) fn inode(&self) -> &Arc<Inode> {
        &self.inode
    }

    /// What the file was opened for.
    pub fn access(&self) -> Access {
        self.access
    }

    /// What the mgr told of the file when it was opened; of its size it may not know what `has_writers` wrote. Asks
    /// nobody.
    pub fn at_open(&self) -> &Entry {
        &self.at_open
    }

    /// How the file's bytes are dealt to targets.
    pub fn distribution(&self) -> Result<Distribution> {
        self.inode.with(|state| state.dist).ok_or(ClientError::Gone { ino: self.inode.ino })
    }

    /// Reads `len` bytes from `offset` on; fewer only at the end of the file.
    ///
    /// # Errors
    /// `EINVAL` the offset is past the largest file size; `EBADF` not open for reading.
    pub fn read_at(&self, offset: u64, len: u64) -> Answer<'_, Bytes> {
        self.core.call(Op::Read, Some(self.inode.ino), async move {
            self.need(Access::READ, "reading")?;
            if offset > limits::FILE_BYTES_MAX {
                return Err(ClientError::BadOffset { offset });
            }
            let len = self.bounded(offset, len.min(limits::FILE_BYTES_MAX - offset)).await?;
            if len == 0 {
                return Ok(Bytes::new());
            }
            let plan = plan::list(&self.distribution()?, [(LogicalOffset(offset), len)]);
            let Found { buffer, end_of_file } = self.read_plan(&plan, len).await?;
            let wanted = end_of_file.map_or(len, |size| size.saturating_sub(offset).min(len));
            Ok(cut(buffer, wanted))
        })
    }

    /// Writes `data` at `offset`; the file grows where it ends before. Done whole or, after an error, in part.
    ///
    /// # Errors
    /// `EFBIG` it would end past the largest file size; `ENOSPC` a target is full; `EDQUOT` limits do not leave room; `EBADF` not open for writing.
    ///
    /// # Examples
    /// ```no_run
    /// # async fn example(file: &pvfs_client::File) -> Result<(), pvfs_client::ClientError> {
    /// file.write_at(1 << 20, "behind the first strip".into()).await?;
    /// assert_eq!(file.read_at(0, 4).await?, [0; 4].as_slice(), "a hole reads as zeros");
    /// # Ok(())
    /// # }
    /// ```
    pub fn write_at(&self, offset: u64, data: Bytes) -> Answer<'_, ()> {
        self.core.call(Op::Write, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            let len = data.len() as u64;
            check_end(offset, len)?;
            let gathered = self.core.gather(&self.inode, offset, &data, &self.cred).await?;
            let (at, rest) = (offset + gathered as u64, data.slice(gathered..));
            if gathered > 0 && rest.is_empty() {
                return Ok(());
            }
            let plan = plan::list(&self.distribution()?, [(LogicalOffset(at), rest.len() as u64)]);
            self.write_plan(&plan, &rest, offset + len).await
        })
    }

    /// Reads several ranges, `(offset, length)` each, in one request per target touched. Gives the bytes of each
    /// range, fewer only at the end of the file.
    ///
    /// # Errors
    /// `EINVAL` a range ends past the largest file size; `ENOMEM` they are too much for memory.
    pub fn read_list<'a>(&'a self, ranges: &'a [(u64, u64)]) -> Answer<'a, Vec<Bytes>> {
        self.core.call(Op::Read, Some(self.inode.ino), async move {
            self.need(Access::READ, "reading")?;
            let total = total(ranges)?;
            if total == 0 {
                return Ok(vec![Bytes::new(); ranges.len()]);
            }
            let plan =
                plan::list(&self.distribution()?, ranges.iter().map(|&(at, len)| (LogicalOffset(at), len)));
            let Found { buffer, end_of_file } = self.read_plan(&plan, total).await?;
            let buffer = extended(buffer, total);
            let mut rest = buffer;
            let cut = ranges.iter().map(|&(offset, len)| {
                let mut bytes = rest.split_to(plan::size(len));
                let present = end_of_file.map_or(len, |size| size.saturating_sub(offset).min(len));
                bytes.truncate(plan::size(present));
                bytes
            });
            Ok(cut.collect())
        })
    }

    /// Writes `data` to several ranges, `(offset, length)` each, in their order, in one request per target touched.
    /// What ranges that overlap leave is not defined.
    ///
    /// # Errors
    /// `EINVAL` the lengths do not sum to that of `data`; else as [`File::write_at`].
    pub fn write_list<'a>(&'a self, ranges: &'a [(u64, u64)], data: Bytes) -> Answer<'a, ()> {
        self.core.call(Op::Write, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            let total = total(ranges)?;
            check_length(total, &data)?;
            let end = ranges.iter().filter(|(_, len)| *len > 0).map(|(at, len)| at + len).max().unwrap_or(0);
            let plan =
                plan::list(&self.distribution()?, ranges.iter().map(|&(at, len)| (LogicalOffset(at), len)));
            self.write_plan(&plan, &data, end).await
        })
    }

    /// Reads the runs of `pattern`, packed, in one request per target touched. The pattern travels as it is, not as a
    /// list. Fewer bytes come only where the pattern reaches past the end of the file.
    ///
    /// # Examples
    /// The third column of a matrix of 1,000 rows and 100 columns of doubles:
    /// ```no_run
    /// # async fn example(file: &pvfs_client::File) -> Result<(), pvfs_client::ClientError> {
    /// use pvfs_types::{Level, LogicalOffset, Pattern};
    /// let levels = vec![Level { count: 1_000, stride: 100 * 8 }];
    /// let column = Pattern { start: LogicalOffset(2 * 8), len: 8, levels };
    /// let bytes = file.read_strided(&column).await?;
    /// # Ok(())
    /// # }
    /// ```
    pub fn read_strided<'a>(&'a self, pattern: &'a Pattern) -> Answer<'a, Bytes> {
        self.core.call(Op::Read, Some(self.inode.ino), async move {
            self.need(Access::READ, "reading")?;
            pattern.check()?;
            let total = pattern.byte_count();
            let plan = plan::strided(&self.distribution()?, pattern);
            let Found { buffer, end_of_file } = self.read_plan(&plan, total).await?;
            let wanted = end_of_file.map_or(total, |size| bytes_below(pattern, size));
            Ok(cut(buffer, wanted))
        })
    }

    /// Writes `data` to the runs of `pattern`, in one request per target touched.
    pub fn write_strided<'a>(&'a self, pattern: &'a Pattern, data: Bytes) -> Answer<'a, ()> {
        self.core.call(Op::Write, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            let end = pattern.start.0 + pattern.check()?;
            check_length(pattern.byte_count(), &data)?;
            let plan = plan::strided(&self.distribution()?, pattern);
            self.write_plan(&plan, &data, end).await
        })
    }

    /// Makes durable, on all targets, what anybody wrote to the file, and tells the mgr of this client's writes.
    pub fn sync(&self) -> Answer<'_, ()> {
        self.core.call(Op::Sync, Some(self.inode.ino), async move {
            let synced = self.sync_here().await;
            // Whichever error it is, its user has been told.
            let told = self.tell_losses();
            synced.and(told)
        })
    }

    async fn sync_here(&self) -> Result<()> {
        self.need(Access::default(), "syncing")?;
        self.core.send_gathered(&self.inode).await?;
        let access = if self.access.write { Access::WRITE } else { Access::READ };
        let known = self.written_slots(0)?;
        // Others may have written where this client knows of no bytes.
        let (synced, attr) = futures_util::future::join(
            io::sync(&self.core, &self.inode, access, known.clone()),
            self.core.refresh_attr(self.inode.ino),
        )
        .await;
        synced?;
        let mut rest = self.written_slots(attr?.size)?;
        rest.retain(|slot| !known.contains(slot));
        if !rest.is_empty() {
            io::sync(&self.core, &self.inode, access, rest).await?;
        }
        self.inode.with(State::synced);
        self.core.report(&self.inode, None).await
    }

    /// Tells the mgr what this client wrote, as each `close(2)` of a duplicated descriptor must. If no other handle of
    /// this client is open for writing, also ends its standing as a writer; a later write takes it up again.
    ///
    /// After a write that was given up, only the targets know the size, and they may be away: they are asked in the
    /// background, so that who gave up waiting for them does not wait again. Till then others ask them too.
    pub fn flush(&self) -> Answer<'_, ()> {
        self.core.call(Op::ReportSize, Some(self.inode.ino), async move {
            if !self.access.write {
                return Ok(());
            }
            self.need(Access::default(), "flushing")?;
            if self.inode.with(|state| state.doubts().is_some()) {
                self.report_in_background();
            } else {
                self.core.report(&self.inode, Some(1)).await?;
            }
            self.tell_losses()
        })
    }

    fn report_in_background(&self) {
        let (core, tasks, inode) = (Arc::clone(&self.core), Arc::clone(&self.tasks), Arc::clone(&self.inode));
        pvfs_env::task::spawn(async move {
            if let Err(error) = core.report(&inode, Some(1)).await {
                warn!(ino = %inode.ino, %error, "the size after a write that was given up could not be told");
            }
            drop(tasks);
        });
    }

    /// Sets the file's size.
    pub fn truncate(&self, size: u64) -> Answer<'_, Attr> {
        self.core.call(Op::SetAttr, Some(self.inode.ino), async move {
            self.need(Access::WRITE, "writing")?;
            check_end(size, 0)?;
            let changes = SetAttr { size: Some(size), ..SetAttr::default() };
            let ino = self.inode.ino;
            self.core.set_attributes(&self.cred, ino, changes, true, Some(self.access)).await
        })
    }

    /// The file's attributes, its true size and time of the last write included.
    pub fn attr(&self) -> Answer<'_, Attr> {
        self.core.call(Op::GetAttr, Some(self.inode.ino), async move {
            self.core.refresh_attr(self.inode.ino).await
        })
    }

    /// Tells the mgr what was written and gives the handle up; later calls get `EBADF`. After reading only, nothing is
    /// sent. Dropped, it is brought to its end in the background. A second close does nothing.
    pub fn close(&self) -> Answer<'_, ()> {
        self.core.call(Op::ReportSize, Some(self.inode.ino), async move {
            let Some(count) = self.take_count() else { return Ok(()) };
            let (core, tasks, write) = (Arc::clone(&self.core), Arc::clone(&self.tasks), self.access.write);
            let (ino, handle) = (self.inode.ino, self.lock_handle.get().copied());
            if !write && handle.is_none() {
                return Ok(());
            }
            let lost = self.tell_losses();
            let work = Arc::clone(&core);
            let close = async move {
                let told = if write { close_writer(Arc::clone(&work), tasks, count).await } else { Ok(()) };
                let Some(handle) = handle else { return told };
                told.and(work.release_handle_locks(ino, handle).await)
            };
            core.finish(close).await.and(lost)
        })
    }

    /// An error, once for each handle, if bytes were acknowledged and then lost for good: each who could have written
    /// them is told.
    fn tell_losses(&self) -> Result<()> {
        let losses = self.inode.losses();
        let told = self.losses_told.swap(losses, Ordering::SeqCst);
        if self.access.write && told < losses {
            return Err(ClientError::Lost { ino: self.inode.ino, errno: self.inode.lost_as() });
        }
        Ok(())
    }

    fn take_count(&self) -> Option<OpenCount> {
        self.count.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// # Errors
    /// `EBADF`; and `EIO`, once, if its locks were lost.
    pub(crate) fn need(&self, access: Access, wanted: &'static str) -> Result<()> {
        let open = self.count.lock().unwrap_or_else(PoisonError::into_inner).is_some();
        if !open || !self.access.covers(access) {
            return Err(ClientError::NotOpenFor { wanted });
        }
        match self.lock_handle.get() {
            Some(&handle) if self.core.locks.take_loss(handle) => {
                Err(ClientError::LocksLost { ino: self.inode.ino })
            }
            _ => Ok(()),
        }
    }

    pub(crate) fn lock_handle(&self) -> u64 {
        *self.lock_handle.get_or_init(|| self.core.locks.next_id())
    }

    pub(crate) fn lock_client(&self) -> &Arc<Core> {
        &self.core
    }

    /// The slots that can hold data of the file, as far as this client knows, or if it reaches to `size`.
    fn written_slots(&self, size: u64) -> Result<Vec<Slot>> {
        let dist = self.distribution()?;
        let (known, doubt, is_inline) =
            self.inode.with(|state| (state.end(), state.doubts().is_some(), state.is_inline()));
        if is_inline && !self.inode.has_unreported() {
            // What the mgr keeps is durable.
            return Ok(Vec::new());
        }
        let size = size.max(known);
        Ok(dist.slots().filter(|&slot| doubt || dist.object_len(slot, size) > 0).collect())
    }

    /// `len`, cut at the end of the file where it is so large that it must not be trusted.
    async fn bounded(&self, offset: u64, len: u64) -> Result<u64> {
        if len <= UNCHECKED_READ_BYTES_MAX || offset + len <= self.inode.with(|state| state.end()) {
            return Ok(len);
        }
        let size = self.core.refresh_attr(self.inode.ino).await?.size;
        Ok(len.min(size.saturating_sub(offset)))
    }

    async fn write_plan(&self, plan: &[SlotRequest], data: &Bytes, end: u64) -> Result<()> {
        if plan.is_empty() {
            return Ok(());
        }
        self.core.send_gathered(&self.inode).await?;
        let in_flight = io::write(&self.core, &self.inode, plan, data, end, None).await?;
        in_flight.done(data.len() as u64, LogicalOffset(end), self.core.session.now(), &self.cred);
        Ok(())
    }

    /// Reads by `plan` until what came is sure to be the file's bytes: all that was asked for, or the file's size
    /// tells the holes from the end.
    async fn read_plan(&self, plan: &[SlotRequest], total: u64) -> Result<Found> {
        self.core.send_gathered(&self.inode).await?;
        loop {
            let (size_before, asked) = self.inode.with(|state| (state.end(), state.asked()));
            let room = self.core.room(&self.inode, plan, total);
            let (data_gen, answers) = io::read(&self.core, &self.inode, plan, room.as_ref()).await?;
            let Gathered { buffer, gaps, size_min } = self.gather(plan, &answers, total, room)?;
            self.inode.with(|state| state.found(data_gen, asked, size_min));
            if gaps.is_empty() {
                return Ok(Found { buffer, end_of_file: None });
            }
            let size_known = size_before.max(size_min);
            if let Some(size) = self.judge(data_gen, &gaps, size_known).await? {
                return Ok(Found { buffer, end_of_file: Some(size) });
            }
        }
    }

    fn gather(
        &self,
        plan: &[SlotRequest],
        answers: &[io::ReadAnswer],
        total: u64,
        room: Option<Arc<Room>>,
    ) -> Result<Gathered> {
        let dist = self.distribution()?;
        let mut gaps = Vec::new();
        let ends = plan.iter().zip(answers);
        let ends = ends.map(|(request, answer)| dist.size_from_object(request.slot, answer.object_len));
        let size_min = ends.max().unwrap_or(0);
        let deal = |request: &SlotRequest,
                    answer: &io::ReadAnswer,
                    found: &mut dyn FnMut(u64, &[u8]),
                    gaps: &mut _| {
            let gaps: &mut Vec<Gap> = gaps;
            request
                .deal(answer.object_len, &answer.payload, found, |gap| gaps.push(gap))
                .map_err(|misfit| io::misfit(Op::Read, misfit))
        };
        if let Some(room) = room {
            for (request, answer) in plan.iter().zip(answers) {
                match answer.in_room {
                    Some(got) => request
                        .gaps(answer.object_len, got, |gap| gaps.push(gap))
                        .map_err(|misfit| io::misfit(Op::Read, misfit))?,
                    None => {
                        deal(request, answer, &mut |at, bytes| room.write(plan::size(at), bytes), &mut gaps)?;
                    }
                }
            }
            for gap in &gaps {
                room.clear(plan::size(gap.at)..plan::size(gap.at + gap.len));
            }
            return Ok(Gathered { buffer: room.freeze(), gaps, size_min });
        }
        if let ([request], [answer]) = (plan, answers)
            && request.parts.len() == 1
        {
            deal(request, answer, &mut |_, _| {}, &mut gaps)?;
            return Ok(Gathered { buffer: answer.payload.clone(), gaps, size_min });
        }
        let mut buffer = zeros(total)?;
        for (request, answer) in plan.iter().zip(answers) {
            let mut found = |at: u64, bytes: &[u8]| {
                let at = plan::size(at);
                buffer[at..at + bytes.len()].copy_from_slice(bytes);
            };
            deal(request, answer, &mut found, &mut gaps)?;
        }
        Ok(Gathered { buffer: buffer.into(), gaps, size_min })
    }

    /// Fewer bytes came than were asked for, in data generation `data_gen`, when the file was known to reach to
    /// `size_known`. Gives the size that makes the missing bytes zeros below it and nothing past it; `None`: the file
    /// has changed, read again.
    async fn judge(&self, data_gen: DataGen, gaps: &[Gap], size_known: u64) -> Result<Option<u64>> {
        let holes = gaps.iter().any(|gap| gap.logical.0 < size_known);
        let is_fresh =
            || self.inode.with(|state| if holes { state.holes_are_fresh() } else { state.attr_is_fresh() });
        if !is_fresh() {
            let _turn = self.inode.validating.lock().await;
            if !is_fresh() {
                self.core.refresh_attr(self.inode.ino).await?;
                self.inode.with(State::holes_checked);
            }
        }
        let (now_gen, size) = self.inode.with(|state| (state.data_gen, state.end()));
        let grown =
            gaps.iter().any(|gap| gap.logical.0.max(size_known) < (gap.logical.0 + gap.len).min(size));
        Ok((now_gen == data_gen && !grown).then_some(size))
    }
}

impl Drop for File {
    fn drop(&mut self) {
        let Some(count) = self.take_count() else { return };
        let (write, handle) = (self.access.write, self.lock_handle.get().copied());
        if !write && handle.is_none() {
            return;
        }
        if tokio::runtime::Handle::try_current().is_err() {
            return warn!(ino = %self.inode.ino, "dropped outside of the runtime: the mgr learns the size from the targets");
        }
        let (core, tasks, ino) = (Arc::clone(&self.core), Arc::clone(&self.tasks), self.inode.ino);
        pvfs_env::task::spawn(async move {
            if let Some(handle) = handle
                && let Err(error) = core.release_handle_locks(ino, handle).await
            {
                warn!(%ino, %error, "the locks of a dropped file could not be given up");
            }
            if !write {
                return;
            }
            if let Err(error) = close_writer(core, tasks, count).await {
                warn!(%ino, %error, "the size of a dropped file could not be told");
            }
        });
    }
}

impl std::fmt::Debug for File {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("File")
            .field("ino", &self.inode.ino)
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

/// Tells what was written. The file counts as open until that is done: where the mgr fails to take the report, the
/// caller gets the error, and the mgr is told again in the background, for nobody else knows the size.
pub(crate) async fn close_writer(core: Arc<Core>, tasks: Arc<Tasks>, mut count: OpenCount) -> Result<()> {
    count.stop_access();
    let told = core.report(&count.inode, Some(0)).await;
    if told.as_ref().is_err_and(store_failed) {
        pvfs_env::task::spawn(async move {
            let mut tries = 0;
            while core.report(&count.inode, Some(0)).await.is_err_and(|error| store_failed(&error)) {
                tries += 1;
                tokio::time::sleep(pause_after(tries)).await;
            }
            drop((count, tasks));
        });
    }
    told
}

/// The mgr's store did not take a change that makes sense: a part of it may be made, or be made later.
pub(crate) fn store_failed(error: &ClientError) -> bool {
    matches!(error, ClientError::Refused { errno: Errno::EIO | Errno::ENOSPC, .. })
}

fn check_end(offset: u64, len: u64) -> Result<()> {
    match offset.checked_add(len) {
        Some(end) if end <= limits::FILE_BYTES_MAX => Ok(()),
        _ => Err(ClientError::TooBig { offset, len }),
    }
}

fn check_length(ranges: u64, data: &Bytes) -> Result<()> {
    let data = data.len() as u64;
    if ranges == data { Ok(()) } else { Err(ClientError::LengthMismatch { ranges, data }) }
}

/// The sum of the ranges' lengths, each checked.
fn total(ranges: &[(u64, u64)]) -> Result<u64> {
    ranges.iter().try_fold(0u64, |sum, &(offset, len)| {
        check_end(offset, len)?;
        sum.checked_add(len).ok_or(ClientError::NoMemory { bytes: u64::MAX })
    })
}

/// How many bytes of the pattern's runs lie below `size`.
fn bytes_below(pattern: &Pattern, size: u64) -> u64 {
    let below = pattern.runs().take_while(|(start, _)| start.0 < size);
    below.map(|(start, len)| len.min(size - start.0)).sum()
}

fn zeros(len: u64) -> Result<Vec<u8>> {
    let no_memory = || ClientError::NoMemory { bytes: len };
    let size = usize::try_from(len).map_err(|_| no_memory())?;
    if len <= UNCHECKED_READ_BYTES_MAX {
        return Ok(vec![0; size]);
    }
    let mut zeros = Vec::new();
    zeros.try_reserve_exact(size).map_err(|_| no_memory())?;
    zeros.resize(size, 0);
    Ok(zeros)
}

/// `buffer` with exactly `len` bytes, zeros where it has none.
fn cut(mut buffer: Bytes, len: u64) -> Bytes {
    buffer.truncate(plan::size(len));
    extended(buffer, len)
}

fn extended(buffer: Bytes, len: u64) -> Bytes {
    let len = plan::size(len);
    if buffer.len() >= len {
        return buffer;
    }
    let mut longer = Vec::with_capacity(len);
    longer.extend_from_slice(&buffer);
    longer.resize(len, 0);
    longer.into()
}
