//! Small writes, gathered before they are sent.
//!
//! A client that is alone with a file keeps what is written to it in small pieces, until that fills a chunk, or a second has
//! passed, or anybody wants the file: this client itself in any other way than by such a write, or another one, for whom the
//! mgr recalls the file first. What is kept stands in the client's journal before it is acknowledged, so that a successor sends
//! it; a client without one gathers nothing.
//!
//! A piece goes behind the one that it follows, else it begins a gather of its own: programs that write records in turn do not
//! come in turn, and one that writes here and there need not wait for each write.
//!
//! What is gathered of a file is sent in its order, where that matters, before anything else of this client to that file.

use crate::{
    ClientError,
    calls::shut_down,
    client::Core,
    delegations::Named,
    error::Result,
    estate::{self, GatherMark, Gathered, Journal},
    inode::{Inode, OpenCount, State},
    io, plan,
};
use bytes::{Bytes, BytesMut};
use pvfs_env::{BoxFuture, Counter, Metrics};
use pvfs_types::{Cred, Ino, LogicalOffset, Name, SessionId};
use pvfs_wire::Access;
use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};
use tokio::{sync::Notify, time::Instant};
use tracing::{error, warn};

/// Most bytes that are gathered before they are sent. They begin anywhere and end, at the latest, at a multiple of it.
pub const GATHER_BYTES_MAX: u64 = 256 << 10;
/// Most gathers of a client: so many places has its journal.
pub const GATHERS_MAX: u16 = 256;
/// Larger writes are sent at once.
const GATHERED_WRITE_BYTES_MAX: u64 = 64 << 10;
/// How long gathered bytes stay here at most, if their targets are there.
const AGE_MAX: Duration = Duration::from_secs(1);
/// Some are on their way while the next ones fill.
const GATHERS_OF_FILE_MAX: usize = 16;
/// When another one begins, so many may still fill; more of them go.
const FILLING_MAX: usize = 8;

/// Bytes of a file that were acknowledged and are not sent.
pub(crate) struct Gather {
    place: u16,
    mark: GatherMark,
    /// Empty once they are on their way.
    bytes: BytesMut,
    len: u64,
    is_on_its_way: bool,
    /// What was known of the file's size when it began; `None`: nothing, a predecessor began it.
    before: Option<Size>,
}

#[derive(Clone, Copy)]
struct Size {
    bytes: u64,
    epoch: u32,
}

/// What came of a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Taken {
    /// So many bytes of it are gathered. What is gathered up to the number `due` should go.
    Bytes { count: usize, due: Option<u64> },
    /// What was gathered before is to be sent first.
    Later,
    /// It is to be sent at once.
    No,
}

/// All gathers of a client.
pub(crate) struct Gathers {
    journal: Option<Arc<dyn Journal>>,
    places: Mutex<Places>,
    begun: Notify,
    /// Writes that were gathered.
    count: Counter,
}

#[derive(Default)]
struct Places {
    free: Vec<u16>,
    last: u64,
    /// By number, so the oldest first: those that nobody has begun to send.
    waiting: BTreeMap<u64, (Instant, Arc<Inode>)>,
}

impl Gather {
    fn end(&self) -> u64 {
        self.mark.start + self.len
    }

    /// How many more bytes fit.
    fn room(&self) -> usize {
        let chunk_end = (self.mark.start / GATHER_BYTES_MAX + 1) * GATHER_BYTES_MAX;
        plan::size(chunk_end - self.end())
    }

    /// Whether a write at `at` in `session` goes on where it ends.
    fn goes_on(&self, at: u64, session: SessionId) -> bool {
        self.end() == at && self.mark.session == session && self.room() > 0 && !self.is_on_its_way
    }

    fn meets(&self, from: u64, to: u64) -> bool {
        self.mark.start < to && from < self.end()
    }
}

impl Gathers {
    /// `inherited`: what a predecessor had gathered.
    pub fn new(journal: Option<Arc<dyn Journal>>, inherited: &[Gathered], metrics: &Metrics) -> Gathers {
        let is_taken = |place: &u16| inherited.iter().any(|gathered| gathered.place == *place);
        let places = Places {
            free: (0..GATHERS_MAX).rev().filter(|place| !is_taken(place)).collect(),
            last: inherited.iter().map(|gathered| gathered.mark.number).max().unwrap_or(0),
            waiting: BTreeMap::new(),
        };
        let count = metrics.counter("pvfs_client_gathered_writes_total", &[]);
        Gathers { journal, places: Mutex::new(places), begun: Notify::new(), count }
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.places.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A place, and a number above all others'.
    fn take(&self) -> Option<(u16, u64)> {
        let mut places = self.places();
        let place = places.free.pop()?;
        places.last += 1;
        Some((place, places.last))
    }

    fn give_back(&self, place: u16) {
        if let Some(journal) = &self.journal {
            journal.gather_over(place);
        }
        self.places().free.push(place);
    }

    /// From now on it ages.
    fn waits(&self, number: u64, inode: &Arc<Inode>) {
        self.places().waiting.insert(number, (Instant::now(), Arc::clone(inode)));
        self.begun.notify_one();
    }

    fn is_on_its_way(&self, number: u64) {
        self.places().waiting.remove(&number);
    }

    fn oldest(&self) -> Option<(u64, Instant)> {
        self.places().waiting.first_key_value().map(|(number, (since, _))| (*number, *since))
    }

    fn take_oldest(&self) -> Option<Arc<Inode>> {
        self.places().waiting.pop_first().map(|(_, (_, inode))| inode)
    }
}

impl State {
    /// Bytes were acknowledged that the targets may not have.
    pub fn has_gathered(&self) -> bool {
        !self.gathers.is_empty()
    }

    /// The file's size without what is gathered.
    pub fn size_sent(&self) -> u64 {
        match self.gathers.front().and_then(|first| first.before) {
            Some(before) if before.epoch == self.size_epoch => before.bytes,
            _ => self.size,
        }
    }

    /// The end of what a predecessor had gathered.
    pub fn inherited_end(&self) -> u64 {
        let inherited = self.gathers.iter().filter(|gather| gather.before.is_none());
        inherited.map(Gather::end).max().unwrap_or(0)
    }

    /// All bytes of the file, if they are gathered, and none is on its way; and the session in which they were written.
    pub fn gathered_whole(&self) -> Option<(SessionId, &[u8])> {
        let only = self.gathers.front().filter(|_| self.gathers.len() == 1)?;
        let is_whole = only.mark.start == 0 && only.len == self.size && self.size_sent() == 0;
        (is_whole && !only.is_on_its_way).then(|| (only.mark.session, &only.bytes[..]))
    }

    /// The oldest one is being given to somebody, or is not after all; its bytes stay here until that is certain.
    pub fn first_is_on_its_way(&mut self, is_on_its_way: bool) {
        if let Some(first) = self.gathers.front_mut() {
            first.is_on_its_way = is_on_its_way;
        }
    }

    /// Gathers the front of a write in `session`, as much as fits.
    fn gather(
        &mut self,
        gathers: &Gathers,
        inode: &Arc<Inode>,
        session: SessionId,
        at: u64,
        data: &[u8],
    ) -> Taken {
        let Some(journal) = &gathers.journal else { return Taken::No };
        let found = match self.goes_behind(at, at + data.len() as u64, session) {
            Some(index) => Ok((index, None)),
            None => self.begin_gather(gathers, inode, session, at),
        };
        let (index, mut due) = match found {
            Ok(found) => found,
            Err(taken) => return taken,
        };
        let gather = &mut self.gathers[index];
        let count = gather.room().min(data.len());
        if !journal.gathers(gather.place, gather.mark, plan::size(gather.len), &data[..count]) {
            return Taken::No;
        }
        gather.bytes.extend_from_slice(&data[..count]);
        gather.len += count as u64;
        if gather.room() == 0 {
            due = due.max(Some(gather.mark.number));
        }
        Taken::Bytes { count, due }
    }

    /// Begins one at `at`. Gives where it stands, and up to which number others should go.
    fn begin_gather(
        &mut self,
        gathers: &Gathers,
        inode: &Arc<Inode>,
        session: SessionId,
        at: u64,
    ) -> std::result::Result<(usize, Option<u64>), Taken> {
        if self.gathers.len() >= GATHERS_OF_FILE_MAX {
            return Err(Taken::Later);
        }
        let (place, number) = gathers.take().ok_or(Taken::No)?;
        let filling = self.gathers.iter().filter(|gather| !gather.is_on_its_way);
        let due = filling.map(|gather| gather.mark.number).nth(FILLING_MAX - 1);
        self.gathers.push_back(Gather {
            place,
            mark: GatherMark { ino: inode.ino, session, number, start: at },
            bytes: BytesMut::new(),
            len: 0,
            is_on_its_way: false,
            before: Some(Size { bytes: self.size, epoch: self.size_epoch }),
        });
        gathers.waits(number, inode);
        Ok((self.gathers.len() - 1, due))
    }

    /// Which one the bytes `from..to` go behind: not one that is sent before another that has some of them.
    fn goes_behind(&self, from: u64, to: u64, session: SessionId) -> Option<usize> {
        for (index, gather) in self.gathers.iter().enumerate().rev() {
            if gather.goes_on(from, session) {
                return Some(index);
            }
            if gather.meets(from, to) {
                return None;
            }
        }
        None
    }

    /// The oldest ones up to `number`, as many as do not meet and were written in one session, to be sent together.
    fn send_first(&mut self, number: u64) -> Vec<(GatherMark, Bytes)> {
        let apart = (0..self.gathers.len())
            .take_while(|&index| {
                let next = &self.gathers[index];
                let goes_not_with = |earlier: &Gather| {
                    next.meets(earlier.mark.start, earlier.end()) || next.mark.session != earlier.mark.session
                };
                next.mark.number <= number && !self.gathers.range(..index).any(goes_not_with)
            })
            .count();
        let first = self.gathers.range_mut(..apart);
        first
            .map(|gather| {
                gather.is_on_its_way = true;
                (gather.mark, gather.bytes.split().freeze())
            })
            .collect()
    }

    /// The oldest one is sent, or cannot be. Gives its place.
    fn end_first(&mut self, is_sent: bool) -> Option<u16> {
        let first = self.gathers.pop_front()?;
        match first.before {
            _ if is_sent => {}
            // What it has made of the size is not so.
            Some(before) if before.epoch == self.size_epoch && self.size == first.end() => {
                self.size = before.bytes;
                self.doubt();
            }
            _ => self.doubt(),
        }
        Some(first.place)
    }
}

impl Core {
    /// Gathers the front of a write, if this client is alone with the file. Gives how many bytes; before the others, what is
    /// gathered is to be sent.
    pub async fn gather(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        at: u64,
        data: &[u8],
        by: &Arc<Cred>,
    ) -> Result<usize> {
        let mut done = 0;
        if data.len() as u64 > GATHERED_WRITE_BYTES_MAX {
            return Ok(done);
        }
        while done < data.len() {
            match self.gather_part(inode, at + done as u64, &data[done..], by) {
                Taken::Bytes { count, due } => {
                    done += count;
                    if let Some(number) = due {
                        self.send_gathered_soon(inode, number);
                    }
                }
                Taken::Later => self.send_gathered(inode).await?,
                Taken::No => break,
            }
        }
        Ok(done)
    }

    fn gather_part(&self, inode: &Arc<Inode>, at: u64, data: &[u8], by: &Arc<Cred>) -> Taken {
        inode.with(|state| {
            let delegation = || self.delegations.of(inode.ino).map(|delegation| delegation.number);
            // Under this lock, so that who recalls it finds what is gathered.
            if state.alone.is_none() || state.alone != delegation() {
                return Taken::No;
            }
            let capability = state.may_write(at + data.len() as u64);
            let Some(session) = capability.map(|capability| capability.grant.session) else {
                return Taken::No;
            };
            if session != self.session.standing().id {
                return Taken::No;
            }
            let taken = state.gather(&self.gathers, inode, session, at, data);
            if let Taken::Bytes { count, .. } = taken {
                self.gathers.count.inc();
                let end = LogicalOffset(at + count as u64);
                state.wrote(count as u64, end, self.session.now(), by);
            }
            taken
        })
    }

    /// Sends what is gathered of a file by now, and waits until it is sent. Brought to its end also when dropped. What cannot be
    /// sent is lost, and told as such.
    pub async fn send_gathered(self: &Arc<Self>, inode: &Arc<Inode>) -> Result<()> {
        match inode.with(|state| state.gathers.back().map(|last| last.mark.number)) {
            Some(newest) => self.send_up_to(Arc::clone(inode), newest).await,
            None => Ok(()),
        }
    }

    /// Boxed: to send may be to tell the mgr of the file, and that to send.
    fn send_up_to(self: &Arc<Self>, inode: Arc<Inode>, number: u64) -> BoxFuture<'_, Result<()>> {
        let core = Arc::clone(self);
        Box::pin(estate::apart(self.finish(async move { core.send_gathered_here(&inode, number).await })))
    }

    pub fn has_gathered(&self, ino: Ino) -> bool {
        self.inodes.find(ino).is_some_and(|inode| inode.with(|state| state.has_gathered()))
    }

    /// The files of which something is gathered.
    pub fn gathered_files(&self) -> Vec<Ino> {
        let all = self.inodes.all();
        all.iter().map(|inode| inode.ino).filter(|&ino| self.has_gathered(ino)).collect()
    }

    /// As [`Core::send_gathered`].
    pub async fn send_gathered_of(self: &Arc<Self>, ino: Ino) -> Result<()> {
        let counted = OpenCount::new(self, ino, Access::default());
        self.send_gathered(&counted.inode).await
    }

    /// As [`Core::send_gathered`], of the file that has that name; where that is not known, of all.
    pub async fn send_gathered_of_named(self: &Arc<Self>, dir: Ino, name: &Name) -> Result<()> {
        let files = match self.delegations.step(&Cred::root(), dir, name) {
            Some(Named::Nothing) => Vec::new(),
            Some(Named::Inode(attr)) => vec![attr.ino],
            None => self.gathered_files(),
        };
        for ino in files {
            self.send_gathered_of(ino).await?;
        }
        Ok(())
    }

    /// Has what is gathered up to `number` sent in the background.
    fn send_gathered_soon(self: &Arc<Self>, inode: &Arc<Inode>, number: u64) {
        let count = OpenCount::new(self, inode.ino, Access::default());
        let (core, inode) = (Arc::clone(self), Arc::clone(inode));
        pvfs_env::task::spawn(async move {
            // An error: the client was shut down.
            let _ = core.send_up_to(inode, number).await;
            drop(count);
        });
    }

    async fn send_gathered_here(self: &Arc<Self>, inode: &Arc<Inode>, number: u64) -> Result<()> {
        let _turn = inode.sending.lock().await;
        loop {
            let first = inode.with(|state| state.send_first(number));
            if first.is_empty() {
                return Ok(());
            }
            for (mark, _) in &first {
                self.gathers.is_on_its_way(mark.number);
            }
            let sent = self.send(inode, &first).await;
            match &sent {
                Ok(()) => {}
                Err(ClientError::ShutDown) => return sent,
                Err(error) => {
                    error!(ino = %inode.ino, %error, "written bytes are lost: they could not be sent later");
                    let lost = first.iter().map(|(_, bytes)| bytes.len() as u64).sum();
                    self.holds.counters().lost_bytes.add(lost);
                    inode.lost(error.errno());
                }
            }
            for _ in first {
                let place = inode.with(|state| state.end_first(sent.is_ok()));
                place.inspect(|&place| self.gathers.give_back(place));
            }
        }
    }

    /// What was gathered of a file first is where it belongs.
    pub fn first_is_sent(&self, inode: &Inode) {
        let sent = inode.with(|state| {
            let number = state.gathers.front()?.mark.number;
            state.end_first(true).map(|place| (number, place))
        });
        if let Some((number, place)) = sent {
            self.gathers.is_on_its_way(number);
            self.gathers.give_back(place);
        }
    }

    /// Sends what belongs together, in one request to each target.
    async fn send(self: &Arc<Self>, inode: &Arc<Inode>, gathered: &[(GatherMark, Bytes)]) -> Result<()> {
        let mut gathered: Vec<_> = gathered.iter().filter(|(_, bytes)| !bytes.is_empty()).collect();
        let Some((GatherMark { session, .. }, _)) = gathered.first() else { return Ok(()) };
        // Pieces that touch become one run.
        gathered.sort_by_key(|(mark, _)| mark.start);
        let ranges = gathered.iter().map(|(mark, bytes)| (LogicalOffset(mark.start), bytes.len() as u64));
        let end = ranges.clone().map(|(start, len)| start.0 + len).max().unwrap_or(0);
        let bytes = self.joined(gathered.iter().map(|(_, bytes)| bytes));
        if inode.with(|state| state.dist.is_none()) {
            self.capability_to(inode, end).await?;
        }
        let dist = inode.with(|state| state.dist).ok_or(ClientError::Gone { ino: inode.ino })?;
        let plan = plan::list(&dist, ranges);
        io::write(self, inode, &plan, &bytes, end, Some(*session)).await?.sent(end);
        Ok(())
    }

    /// Sends what a predecessor had gathered, and tells the mgr. To be called before the mgr may recall anything.
    pub fn inherit_gathers(self: &Arc<Self>, mut inherited: Vec<Gathered>) {
        inherited.sort_by_key(|gathered| gathered.mark.number);
        for Gathered { place, mark, bytes } in inherited {
            let count = OpenCount::new(self, mark.ino, Access::WRITE);
            let (len, bytes) = (bytes.len() as u64, BytesMut::from(&bytes[..]));
            count.inode.with(|state| {
                state.inherited();
                let gather = Gather { place, mark, bytes, len, is_on_its_way: false, before: None };
                state.gathers.push_back(gather);
            });
            let core = Arc::clone(self);
            pvfs_env::task::spawn(async move {
                if let Err(error) = core.report(&count.inode, Some(1)).await {
                    warn!(ino = %mark.ino, %error, "the size that a predecessor's writes have made could not be told");
                }
            });
        }
    }

    /// Sends what has been gathered for long, until the client is shut down.
    pub async fn gathers_task(self: Arc<Self>) {
        let mut closed = self.closed.subscribe();
        let work = async {
            loop {
                let Some((number, since)) = self.gathers.oldest() else {
                    self.gathers.begun.notified().await;
                    continue;
                };
                tokio::time::sleep_until(since + AGE_MAX).await;
                if self.gathers.oldest().is_some_and(|(oldest, _)| oldest == number)
                    && let Some(inode) = self.gathers.take_oldest()
                {
                    self.send_gathered_soon(&inode, number);
                }
            }
        };
        tokio::select! {
            biased;
            () = shut_down(&mut closed) => {}
            () = work => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::MemJournal;

    #[test]
    fn pieces_that_meet_are_sent_one_after_the_other_and_the_newest_last() {
        let gathers = Gathers::new(Some(MemJournal::new([1; 16])), &[], &Metrics::new());
        let inode = Arc::new(Inode::new(Ino(2)));
        let write = |at, data: &[u8]| {
            inode.with(|state| state.gather(&gathers, &inode, SessionId(1), at, data));
        };
        write(0, b"aaaa");
        write(6, b"bbbb");
        // It goes on where the first one ends, but that is sent before the second, which has some of these bytes.
        write(4, b"cccc");
        write(10, b"dd");
        write(8, b"ee");
        let mut turns = Vec::new();
        loop {
            let turn = inode.with(|state| state.send_first(u64::MAX));
            if turn.is_empty() {
                break;
            }
            turns.push(turn.iter().map(|(mark, bytes)| (mark.start, bytes.to_vec())).collect::<Vec<_>>());
            for _ in turn {
                inode.with(|state| state.end_first(true));
            }
        }
        let wanted = [vec![(0, b"aaaa".to_vec()), (6, b"bbbbdd".to_vec())], vec![(4, b"ccccee".to_vec())]];
        assert_eq!(turns, wanted);
    }
}
