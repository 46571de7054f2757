//! A program that uses the file system: random operations in a directory of its own, through one client or through
//! several in turn, each answer held against the model.

use crate::{
    client::{CallError, ClientSeat, Hands},
    cluster::Cluster,
    model::{Content, Loss, Model, NodeId, Place},
    random::Random,
    trace::event,
};
use bytes::Bytes;
use pvfs_client::{Access, ClientError, CreateOptions, OpenOptions, RenameMode};
use pvfs_types::{Cred, Errno, FileKind, Ino, LayoutHint, Name};
use std::{
    collections::{BTreeMap, BTreeSet},
    future::Future,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};
use tokio::time::Instant;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];
const DIRS_MAX: usize = 6;
const HANDLES_MAX: usize = 4;
/// Files reach over some strips of the smallest size.
const OFFSET_MAX: u64 = 40_000;
const WRITE_MAX: u64 = 12_000;
/// Versions of one file that are remembered before it is synced.
const EARLIER_MAX: usize = 12;
/// After a client died, this long until nothing of it is on its way any more.
const ALL_ARRIVED: Duration = Duration::from_secs(60);

/// How long a client may go by what it knows of a size, where it reads past the end of it.
const SIZE_IS_FRESH: Duration = Duration::from_secs(2);

/// Ends a run of operations early.
#[derive(Debug)]
pub enum Stop {
    /// The client that did it died.
    Died,
    /// A promise was broken.
    Broken(String),
}

impl From<String> for Stop {
    fn from(what: String) -> Stop {
        Stop::Broken(what)
    }
}

pub type Done = Result<(), Stop>;

struct Handle {
    node: NodeId,
    seat: usize,
    writes: bool,
}

/// See the module.
pub struct Actor {
    pub name: String,
    cluster: Arc<Cluster>,
    seats: Vec<Arc<ClientSeat>>,
    /// How often each client had been started when it was last used.
    runs: Vec<u64>,
    random: Random,
    model: Model,
    /// What the operation under way may have changed.
    under_way: Option<Change>,
    /// The file whose bytes it may have changed.
    touched: Option<NodeId>,
    handles: BTreeMap<u64, Handle>,
    /// Who may still see a file as it was before another client truncated it: until opened again.
    stale: BTreeSet<(usize, NodeId)>,
    /// Which client changed a file last, and when.
    changed: BTreeMap<NodeId, (usize, Instant)>,
    next_handle: u64,
    /// Written bytes tell who wrote them when.
    stamp: u8,
    power_losses: u64,
    ops: u64,
    now: Arc<Progress>,
}

/// What an actor is doing, for those who wait for it.
#[derive(Default)]
pub struct Progress {
    doing: Mutex<String>,
    pub ops: AtomicU64,
}

impl Progress {
    fn set(&self, doing: &str) {
        doing.clone_into(&mut self.doing.lock().unwrap_or_else(PoisonError::into_inner));
    }

    pub fn doing(&self) -> String {
        self.doing.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn root() -> Cred {
    Cred::root()
}

fn name(name: &str) -> Name {
    Name::new(name).expect("a good name")
}

impl Actor {
    /// The `number`th of a run; its handles are numbered apart from the others', with whom it may share a client.
    pub fn new(
        number: u64,
        name: &str,
        cluster: &Arc<Cluster>,
        seats: Vec<Arc<ClientSeat>>,
        random: Random,
    ) -> Actor {
        let model = Model::new(Ino::ROOT);
        Actor {
            name: name.to_owned(),
            cluster: Arc::clone(cluster),
            runs: vec![0; seats.len()],
            seats,
            random,
            under_way: None,
            touched: None,
            model,
            handles: BTreeMap::new(),
            stale: BTreeSet::new(),
            changed: BTreeMap::new(),
            next_handle: number * 1000 + 1,
            stamp: 0,
            power_losses: 0,
            ops: 0,
            now: Arc::default(),
        }
    }

    pub fn progress(&self) -> Arc<Progress> {
        Arc::clone(&self.now)
    }

    /// Works until `enough`, then closes everything and looks at all it has made.
    pub async fn work(mut self, enough: impl Fn() -> bool) -> Result<Actor, String> {
        self.make_own_dir().await?;
        while !enough() {
            self.random_step().await?;
            if self.random.one_in(3) {
                tokio::time::sleep(self.random.millis(0..=200)).await;
            }
        }
        while let Some(&handle) = self.handles.keys().next() {
            let done = self.close(handle).await;
            self.outcome(done).await?;
        }
        self.settle_all().await?;
        self.notice_new_clients().await;
        self.look_at_all().await?;
        event!(self.cluster.trace, self.name, "ends after {} operations", self.ops);
        Ok(self)
    }

    async fn make_own_dir(&mut self) -> Result<(), String> {
        loop {
            self.notice_new_clients().await;
            let own = name(&self.name);
            let made = self
                .call(0, "makes its directory".into(), move |hands| async move {
                    match hands.client().mkdir(&root(), Ino::ROOT, &own, 0o755).await {
                        Err(error) if error.errno() == Errno::EEXIST => {
                            hands.client().lookup(&root(), Ino::ROOT, &own).await
                        }
                        made => made,
                    }
                })
                .await;
            match made {
                Ok(attr) => {
                    self.model = Model::new(attr.ino);
                    return Ok(());
                }
                Err(CallError::Died) => {}
                Err(CallError::Refused(error)) if self.may_fail(&error) => {}
                Err(CallError::Refused(error)) => return Err(format!("{} got {error}", self.name)),
            }
        }
    }

    /// Does `work` in one of its clients.
    async fn call<T, W>(
        &self,
        seat: usize,
        what: String,
        work: impl FnOnce(Hands) -> W,
    ) -> Result<T, CallError>
    where
        T: Send + 'static,
        W: Future<Output = Result<T, ClientError>> + Send + 'static,
    {
        let (number, seat) = (seat, &self.seats[seat]);
        self.now.set(&format!("{} {what} by {}", self.name, seat.name));
        event!(self.cluster.trace, self.name, "{what} by {}", seat.name);
        let done = seat.call(self.runs[number], work).await;
        match &done {
            Ok(_) => event!(self.cluster.trace, self.name, "  ok"),
            Err(error) => event!(self.cluster.trace, self.name, "  {error}"),
        }
        done
    }

    /// Whether a daemon may answer so because its disk fails.
    fn may_fail(&self, error: &ClientError) -> bool {
        self.cluster.disks_fail.load(Ordering::SeqCst)
            && matches!(error.errno(), Errno::EIO | Errno::ENOSPC | Errno::ESTALE)
    }

    /// One operation, and what follows from its end.
    async fn random_step(&mut self) -> Result<(), String> {
        self.notice_new_clients().await;
        (self.under_way, self.touched) = (None, None);
        self.ops += 1;
        self.now.ops.store(self.ops, Ordering::Relaxed);
        let done = self.random_op().await;
        self.outcome(done).await
    }

    async fn outcome(&mut self, done: Done) -> Result<(), String> {
        match done {
            Err(Stop::Broken(what)) => return Err(format!("{}: {what}", self.now.doing())),
            Err(Stop::Died) => self.recover().await?,
            Ok(()) => {}
        }
        if self.power_losses != self.cluster.power_losses() {
            self.note_power_losses();
        }
        if self.model.files().iter().any(|&file| self.model.content(file).is_some_and(|c| c.loose)) {
            self.settle_all().await?;
        }
        Ok(())
    }

    fn note_power_losses(&mut self) {
        self.power_losses = self.cluster.power_losses();
        let syncs_fail = self.cluster.syncs_fail.load(Ordering::SeqCst);
        self.model.power_lost(match self.seats.len() {
            _ if syncs_fail => Loss::Any,
            1 => Loss::Unsynced,
            _ => Loss::UnsyncedUnclear,
        });
    }

    /// A client that is not the one it was has none of its files open any more.
    async fn notice_new_clients(&mut self) {
        for seat in 0..self.seats.len() {
            let runs = loop {
                if let Ok(run) = self.seats[seat].run().await {
                    break run;
                }
            };
            if self.runs[seat] != runs {
                self.runs[seat] = runs;
                let lost: Vec<u64> = self
                    .handles
                    .iter()
                    .filter(|(_, handle)| handle.seat == seat)
                    .map(|(id, _)| *id)
                    .collect();
                for id in lost {
                    self.forget_handle(id);
                }
            }
        }
    }

    fn forget_handle(&mut self, id: u64) {
        if let Some(handle) = self.handles.remove(&id) {
            self.model.closed(handle.node);
        }
    }

    async fn random_op(&mut self) -> Done {
        let handles: Vec<u64> = self.handles.keys().copied().collect();
        if !handles.is_empty() && !self.random.one_in(3) {
            return self.file_op(*self.random.pick(&handles)).await;
        }
        self.name_op().await
    }

    fn any_seat(&self) -> usize {
        self.random.below(self.seats.len())
    }

    fn any_place(&self) -> (NodeId, &'static str) {
        let dirs = self.model.dirs();
        (*self.random.pick(&dirs), *self.random.pick(&NAMES))
    }

    /// Holds an answer against what the model says; true: done.
    fn hold<T>(&self, got: Result<T, CallError>, wanted: Result<(), Errno>) -> Result<Option<T>, Stop> {
        match (got, wanted) {
            (Ok(value), Ok(())) => Ok(Some(value)),
            (Err(CallError::Died), _) => Err(Stop::Died),
            (Err(CallError::Refused(error)), Err(errno)) if error.errno() == errno => Ok(None),
            (Err(CallError::Refused(error)), _) if self.may_fail(&error) => Ok(None),
            (Err(CallError::Refused(error)), wanted) => {
                Err(Stop::Broken(format!("got {error}, {wanted:?} is right")))
            }
            (Ok(_), Err(errno)) => Err(Stop::Broken(format!("was done, {errno} is right"))),
        }
    }

    async fn name_op(&mut self) -> Done {
        match self.random.below(10) {
            0..=2 => self.create().await,
            3 => self.open().await,
            4 => self.make_dir().await,
            5 => self.remove_dir().await,
            6 => self.unlink().await,
            7 => self.link().await,
            8 => self.rename().await,
            _ => {
                let dirs = self.model.dirs();
                let dir = *self.random.pick(&dirs);
                let seat = self.any_seat();
                self.look_at_dir(seat, dir).await
            }
        }
    }

    async fn create(&mut self) -> Done {
        let ((dir, new), seat) = (self.any_place(), self.any_seat());
        if self.handles.len() >= HANDLES_MAX {
            return Ok(());
        }
        let there = self.model.find((dir, new));
        let exclusive = self.random.one_in(2);
        let truncate = !exclusive && self.random.one_in(3);
        let layout = LayoutHint {
            pcount: self.random.one_in(2).then_some(1),
            ssize: Some(4096),
            ..LayoutHint::default()
        };
        let options = CreateOptions { access: Access::READ_WRITE, mode: 0o644, exclusive, truncate, layout };
        let wanted = match there {
            Some(_) if exclusive => Err(Errno::EEXIST),
            Some(id) if self.model.content(id).is_none() => Err(Errno::EISDIR),
            _ => Ok(()),
        };
        // In case it is never told how it went.
        if wanted.is_ok()
            && truncate
            && let Some(id) = there
        {
            self.change_size(seat, id, 0);
        }
        self.under_way = Some(Change::Make(dir, new));
        let (ino, handle) = (self.model.ino(dir), self.next_handle);
        let what = format!("creates {ino}/{new} as {handle} exclusive={exclusive} truncate={truncate}");
        let made = self
            .call(seat, what, move |hands| async move {
                let made = hands.client().create(&root(), ino, &name(new), options).await?;
                hands.keep(handle, made.file);
                Ok((made.attr, made.created))
            })
            .await;
        let Some((attr, created)) = self.hold(made, wanted)? else {
            if truncate && wanted.is_ok() {
                self.loosen(there)
            }
            return Ok(());
        };
        if created != there.is_none() {
            return Err(Stop::Broken(format!("created is {created}")));
        }
        let node = match there {
            Some(node) => node,
            None => self.model.make_file((dir, new), attr.ino),
        };
        self.opened(node, handle, seat, true);
        self.check_attr(node, &attr)
    }

    fn opened(&mut self, node: NodeId, handle: u64, seat: usize, writes: bool) {
        self.next_handle += 1;
        self.handles.insert(handle, Handle { node, seat, writes });
        self.stale.remove(&(seat, node));
        self.model.opened(node);
    }

    /// Takes note of a change that is about to be tried through `seat`.
    fn change_content(&mut self, seat: usize, node: NodeId, change: impl FnOnce(&mut Content)) {
        self.changed.insert(node, (seat, Instant::now()));
        self.touched = Some(node);
        let content = self.model.file(node);
        content.begin_change();
        change(content);
    }

    /// As [`Actor::change_content`]; what other clients read of the file before they open it again is not promised.
    fn change_size(&mut self, seat: usize, node: NodeId, len: usize) {
        self.change_content(seat, node, |content| content.bytes.resize(len, 0));
        let others = (0..self.seats.len()).filter(|&other| other != seat);
        self.stale.extend(others.map(|other| (other, node)));
    }

    /// A change may have been done, or a part of it.
    fn loosen(&mut self, node: Option<NodeId>) {
        if let Some(node) = node {
            self.model.file(node).loose = true;
        }
    }

    async fn open(&mut self) -> Done {
        let ((dir, old), seat) = (self.any_place(), self.any_seat());
        let Some(node) = self.model.find((dir, old)).filter(|_| self.handles.len() < HANDLES_MAX) else {
            return Ok(());
        };
        let writes = self.random.one_in(2);
        let truncate = writes && self.random.one_in(4);
        let access = if writes { Access::READ_WRITE } else { Access::READ };
        let is_dir = self.model.content(node).is_none();
        let wanted = if is_dir { Err(Errno::EISDIR) } else { Ok(()) };
        if truncate && !is_dir {
            self.change_size(seat, node, 0);
        }
        let (ino, handle) = (self.model.ino(node), self.next_handle);
        let what = format!("opens {ino} as {handle} writes={writes} truncate={truncate}");
        let opened = self
            .call(seat, what, move |hands| async move {
                let file = hands.client().open(&root(), ino, OpenOptions { access, truncate }).await?;
                hands.keep(handle, file);
                Ok(())
            })
            .await;
        if self.hold(opened, wanted)?.is_some() {
            self.opened(node, handle, seat, writes);
        } else if truncate && !is_dir {
            self.loosen(Some(node));
        }
        Ok(())
    }

    async fn make_dir(&mut self) -> Done {
        let ((dir, new), seat) = (self.any_place(), self.any_seat());
        if self.model.dirs().len() >= DIRS_MAX {
            return Ok(());
        }
        let (ino, wanted) = (self.model.ino(dir), self.model.may_make((dir, new)));
        self.under_way = Some(Change::Make(dir, new));
        let made = self
            .call(seat, format!("makes directory {ino}/{new}"), move |hands| async move {
                hands.client().mkdir(&root(), ino, &name(new), 0o755).await
            })
            .await;
        if let Some(attr) = self.hold(made, wanted)? {
            self.model.make_dir((dir, new), attr.ino);
        }
        Ok(())
    }

    async fn remove_dir(&mut self) -> Done {
        let ((dir, old), seat, ino) = self.place_and_seat();
        let wanted = self.model.clone().remove_dir((dir, old));
        self.under_way = Some(Change::RemoveDir(dir, old));
        let gone = self
            .call(seat, format!("removes directory {ino}/{old}"), move |hands| async move {
                hands.client().rmdir(&root(), ino, &name(old)).await
            })
            .await;
        if self.hold(gone, wanted)?.is_some() {
            let _ = self.model.remove_dir((dir, old));
        }
        Ok(())
    }

    fn place_and_seat(&self) -> ((NodeId, &'static str), usize, Ino) {
        let (place, seat) = (self.any_place(), self.any_seat());
        (place, seat, self.model.ino(place.0))
    }

    async fn unlink(&mut self) -> Done {
        let ((dir, old), seat, ino) = self.place_and_seat();
        let wanted = self.model.clone().unlink((dir, old));
        self.under_way = Some(Change::Unlink(dir, old));
        let gone = self
            .call(seat, format!("unlinks {ino}/{old}"), move |hands| async move {
                hands.client().unlink(&root(), ino, &name(old)).await
            })
            .await;
        if self.hold(gone, wanted)?.is_some() {
            let _ = self.model.unlink((dir, old));
        }
        Ok(())
    }

    async fn link(&mut self) -> Done {
        let ((dir, new), seat, ino) = self.place_and_seat();
        let files = self.model.files();
        let named: Vec<NodeId> = files.into_iter().filter(|&file| self.model.node(file).names > 0).collect();
        if named.is_empty() {
            return Ok(());
        }
        let node = *self.random.pick(&named);
        let (target, wanted) = (self.model.ino(node), self.model.may_make((dir, new)));
        self.under_way = Some(Change::Link(node, dir, new));
        let made = self
            .call(seat, format!("links {target} as {ino}/{new}"), move |hands| async move {
                hands.client().link(&root(), target, ino, &name(new)).await
            })
            .await;
        if let Some(attr) = self.hold(made, wanted)? {
            let _ = self.model.link(node, (dir, new));
            self.check_attr(node, &attr)?;
        }
        Ok(())
    }

    async fn rename(&mut self) -> Done {
        let ((dir, old), seat, ino) = self.place_and_seat();
        let (new_dir, new) = self.any_place();
        let new_ino = self.model.ino(new_dir);
        let mode = *self.random.pick(&[
            RenameMode::Replace,
            RenameMode::Replace,
            RenameMode::NoReplace,
            RenameMode::Exchange,
        ]);
        let wanted = self.model.clone().rename((dir, old), (new_dir, new), mode);
        self.under_way = Some(Change::Rename((dir, old), (new_dir, new), mode));
        let what = format!("renames {ino}/{old} to {new_ino}/{new} {mode:?}");
        let renamed = self
            .call(seat, what, move |hands| async move {
                hands.client().rename(&root(), (ino, &name(old)), (new_ino, &name(new)), mode).await
            })
            .await;
        if self.hold(renamed, wanted)?.is_some() {
            let _ = self.model.rename((dir, old), (new_dir, new), mode);
        }
        Ok(())
    }

    async fn look_at_dir(&mut self, seat: usize, dir: NodeId) -> Done {
        let ino = self.model.ino(dir);
        let listed = self
            .call(seat, format!("lists {ino}"), move |hands| async move {
                hands.client().readdir_all(&root(), ino, false).await
            })
            .await;
        let Some(items) = self.hold(listed, Ok(()))? else { return Ok(()) };
        let mut found: Vec<(String, Ino)> = items
            .into_iter()
            .map(|item| (String::from_utf8_lossy(item.name.as_bytes()).into_owned(), item.ino))
            .collect();
        found.sort();
        let entries = self.model.entries(dir);
        let wanted: Vec<(String, Ino)> =
            entries.iter().map(|(name, &node)| (name.clone(), self.model.ino(node))).collect();
        if found != wanted {
            return Err(Stop::Broken(format!("found {found:?}, {wanted:?} is right")));
        }
        Ok(())
    }

    async fn file_op(&mut self, handle: u64) -> Done {
        let writes = self.handles[&handle].writes;
        match self.random.below(12) {
            0..=3 if writes => self.write(handle, false).await,
            4 if writes => self.write(handle, true).await,
            5 if writes => self.truncate(handle).await,
            6 => self.sync(handle).await,
            7 => self.close(handle).await,
            8 => self.stat(handle).await,
            _ => self.read(handle).await,
        }
    }

    async fn write(&mut self, handle: u64, append: bool) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        if self.model.content(node).is_some_and(|content| content.earlier.len() >= EARLIER_MAX) {
            return self.sync(handle).await;
        }
        let len = usize::try_from(self.random.between(1..=WRITE_MAX)).expect("small");
        let end = self.model.file(node).bytes.len();
        if append && self.model.file(node).unknown {
            return self.sync(handle).await;
        }
        let offset = if append { end as u64 } else { self.random.between(0..=OFFSET_MAX - WRITE_MAX) };
        if append && end as u64 + WRITE_MAX > OFFSET_MAX {
            return self.truncate(handle).await;
        }
        let at = usize::try_from(offset).expect("small");
        self.stamp = self.stamp % 250 + 1;
        let data: Vec<u8> = vec![self.stamp; len];
        self.change_content(seat, node, |content| content.write(at, &data));
        let data = Bytes::from(data);
        let stamp = self.stamp;
        let what = format!("writes {len} bytes {stamp:#04x} at {offset} to {handle} append={append}");
        let written = self
            .call(seat, what, move |hands| async move {
                let file = hands.file(handle);
                if append {
                    file.append(data).await.map(Some)
                } else {
                    file.write_at(offset, data).await.map(|()| None)
                }
            })
            .await;
        match self.hold(written, Ok(()))? {
            Some(Some(at)) if at != offset => Err(Stop::Broken(format!("appended at {at}"))),
            Some(_) => Ok(()),
            None => {
                self.loosen(Some(node));
                Ok(())
            }
        }
    }

    async fn truncate(&mut self, handle: u64) -> Done {
        let Handle { node, seat, writes } = self.handles[&handle];
        if !writes {
            return Ok(());
        }
        let size = if self.random.one_in(3) { 0 } else { self.random.between(0..=OFFSET_MAX / 2) };
        let len = usize::try_from(size).expect("small");
        self.change_size(seat, node, len);
        let cut = self
            .call(seat, format!("truncates {handle} to {size}"), move |hands| async move {
                hands.file(handle).truncate(size).await
            })
            .await;
        match self.hold(cut, Ok(()))? {
            Some(attr) => self.check_attr(node, &attr),
            None => {
                self.loosen(Some(node));
                Ok(())
            }
        }
    }

    async fn sync(&mut self, handle: u64) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        let losses = self.cluster.power_losses();
        let synced =
            self.call(seat, format!("syncs {handle}"), move |hands| async move {
                hands.file(handle).sync().await
            })
            .await;
        match self.hold(synced, Ok(()))? {
            Some(()) => {
                // What was lost before it was synced is not there now.
                if losses == self.cluster.power_losses() && losses == self.power_losses {
                    self.model.file(node).synced();
                }
            }
            None => self.loosen(Some(node)),
        }
        Ok(())
    }

    async fn close(&mut self, handle: u64) -> Done {
        let seat = self.handles[&handle].seat;
        let closed =
            self.call(seat, format!("closes {handle}"), move |hands| async move {
                hands.take(handle).close().await
            })
            .await;
        let node = self.handles[&handle].node;
        if self.hold(closed, Ok(()))?.is_none() {
            self.loosen(Some(node));
        }
        self.forget_handle(handle);
        Ok(())
    }

    async fn stat(&mut self, handle: u64) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        let found =
            self.call(seat, format!("stats {handle}"), move |hands| async move {
                hands.file(handle).attr().await
            })
            .await;
        match self.hold(found, Ok(()))? {
            Some(attr) => self.check_attr(node, &attr),
            None => Ok(()),
        }
    }

    fn check_attr(&self, node: NodeId, attr: &pvfs_types::Attr) -> Done {
        let Some(content) = self.model.content(node) else { return Ok(()) };
        let (least, most) = content.lengths();
        let size = usize::try_from(attr.size).unwrap_or(usize::MAX);
        let names = self.model.node(node).names;
        let loose = self.cluster.power_losses() != self.power_losses;
        if (size < least || size > most) && !loose {
            return Err(Stop::Broken(format!("size is {size}, {least} to {most} is right")));
        }
        if attr.nlink != names || attr.kind != FileKind::File {
            return Err(Stop::Broken(format!(
                "{:?} with {} names, {names} are right",
                attr.kind, attr.nlink
            )));
        }
        Ok(())
    }

    async fn read(&mut self, handle: u64) -> Done {
        let Handle { node, seat, .. } = self.handles[&handle];
        let offset = self.random.between(0..=OFFSET_MAX);
        let len = self.random.between(1..=OFFSET_MAX);
        let read = self
            .call(seat, format!("reads {len} bytes at {offset} of {handle}"), move |hands| async move {
                hands.file(handle).read_at(offset, len).await
            })
            .await;
        let Some(found) = self.hold(read, Ok(()))? else { return Ok(()) };
        if self.cluster.power_losses() != self.power_losses {
            // What it shows is looked at when it is settled what was lost.
            return Ok(());
        }
        if self.stale.contains(&(seat, node)) {
            return Ok(());
        }
        let grown =
            self.changed.get(&node).is_some_and(|(by, at)| *by != seat && at.elapsed() < SIZE_IS_FRESH);
        let content = self.model.file(node);
        let at = usize::try_from(offset).expect("small");
        let wanted = content.bytes.len().saturating_sub(at).min(usize::try_from(len).expect("small"));
        if !content.loose && !content.unknown && found.len() != wanted && !(grown && found.len() < wanted) {
            return Err(Stop::Broken(format!("found {} bytes, {wanted} are right", found.len())));
        }
        Ok(content.check(at, &found)?)
    }

    /// After the death of a client: waits until nothing of it is on its way, then finds out whether its last operation
    /// was done.
    async fn recover(&mut self) -> Result<(), String> {
        self.now.set(&format!("{} waits for the last of a dead client", self.name));
        tokio::time::sleep(ALL_ARRIVED).await;
        self.notice_new_clients().await;
        if let Some(node) = self.touched.take().filter(|&node| self.model.has(node)) {
            self.loosen(Some(node));
        }
        let Some(change) = self.under_way.take() else { return Ok(()) };
        let done = self.with_change(&change).await?;
        let undone = std::mem::replace(&mut self.model, done);
        let Err(not_done) = self.look_at_dirs().await else { return Ok(()) };
        self.model = undone;
        self.look_at_dirs().await.map_err(|what| format!("half done: {what}; and {not_done}"))
    }

    /// The model as it is if `change` was done.
    async fn with_change(&mut self, change: &Change) -> Result<Model, String> {
        let mut model = self.model.clone();
        match *change {
            Change::Make(dir, new) if model.find((dir, new)).is_none() => {
                let (ino, new_name) = (model.ino(dir), name(new));
                let found = loop {
                    let (new_name, what) = (new_name.clone(), format!("looks for {ino}/{new}"));
                    let found = self.call(0, what, move |hands| async move {
                        hands.client().lookup(&root(), ino, &new_name).await
                    });
                    match found.await {
                        Ok(attr) => break Some(attr),
                        Err(CallError::Refused(error)) if error.errno() == Errno::ENOENT => break None,
                        Err(CallError::Refused(error)) => return Err(error.to_string()),
                        Err(CallError::Died) => self.notice_new_clients().await,
                    }
                };
                match found {
                    Some(attr) if attr.kind == FileKind::Dir => model.make_dir((dir, new), attr.ino),
                    Some(attr) => {
                        model.make_file((dir, new), attr.ino);
                    }
                    None => {}
                }
            }
            Change::Make(..) => {}
            Change::Unlink(dir, old) => drop(model.unlink((dir, old))),
            Change::RemoveDir(dir, old) => drop(model.remove_dir((dir, old))),
            Change::Link(node, dir, new) => drop(model.link(node, (dir, new))),
            Change::Rename(from, to, mode) => drop(model.rename(from, to, mode)),
        }
        Ok(model)
    }

    async fn look_at_dirs(&mut self) -> Result<(), String> {
        for dir in self.model.dirs() {
            loop {
                match self.look_at_dir(0, dir).await {
                    Ok(()) => break,
                    Err(Stop::Broken(what)) => return Err(what),
                    Err(Stop::Died) => self.notice_new_clients().await,
                }
            }
        }
        Ok(())
    }

    /// Finds out what files hold of which it is not certain.
    async fn settle_all(&mut self) -> Result<(), String> {
        let mut tries = 0;
        while let Some(node) = self.next_loose() {
            tries += 1;
            if tries > 1000 {
                return Err(format!("{}: nothing can be settled", self.name));
            }
            match self.settle(node).await {
                Ok(()) => {}
                Err(Stop::Broken(what)) => return Err(format!("{}: {what}", self.now.doing())),
                Err(Stop::Died) => {
                    tokio::time::sleep(ALL_ARRIVED).await;
                    self.notice_new_clients().await;
                }
            }
            if self.power_losses != self.cluster.power_losses() {
                self.note_power_losses();
            }
        }
        Ok(())
    }

    fn next_loose(&self) -> Option<NodeId> {
        self.model.files().into_iter().find(|&file| self.model.content(file).is_some_and(|c| c.loose))
    }

    async fn settle(&mut self, node: NodeId) -> Done {
        // Without a name it cannot be opened again.
        let nameless = self.model.node(node).names == 0;
        let handle = self.handles.iter().find(|(_, handle)| nameless && handle.node == node);
        let (handle, seat) = handle.map_or((None, self.any_seat()), |(id, handle)| (Some(*id), handle.seat));
        let (ino, losses) = (self.model.ino(node), self.cluster.power_losses());
        let found = self
            .call(seat, format!("settles {ino}"), move |hands| async move {
                let file = match handle {
                    Some(handle) => hands.file(handle),
                    None => Arc::new(hands.client().open(&root(), ino, OpenOptions::READ).await?),
                };
                file.sync().await?;
                let size = file.attr().await?.size;
                let bytes = file.read_at(0, size).await?;
                if handle.is_none() {
                    file.close().await?;
                }
                Ok((size, bytes))
            })
            .await;
        let Some((size, bytes)) = self.hold(found, Ok(()))? else {
            tokio::time::sleep(Duration::from_secs(1)).await;
            return Ok(());
        };
        if losses != self.cluster.power_losses() {
            return Ok(());
        }
        let content = self.model.file(node);
        let (least, most) = content.lengths();
        if bytes.len() as u64 != size || bytes.len() < least || bytes.len() > most {
            let len = bytes.len();
            return Err(Stop::Broken(format!(
                "size is {size}, {len} bytes came, {least} to {most} is right"
            )));
        }
        content.check(0, &bytes)?;
        content.settle(bytes.into());
        Ok(())
    }

    /// Looks at everything it has made, through each of its clients.
    pub async fn look_at_all(&mut self) -> Result<(), String> {
        for seat in 0..self.seats.len() {
            let dirs = self.model.dirs().into_iter().map(Look::Dir);
            let todo: Vec<Look> = dirs.chain(self.model.files().into_iter().map(Look::File)).collect();
            for look in todo {
                let looked = match look {
                    Look::Dir(dir) => self.look_at_dir(seat, dir).await,
                    Look::File(file) => self.look_at_file(seat, file).await,
                };
                match looked {
                    Ok(()) => {}
                    Err(Stop::Broken(what)) => return Err(format!("{}: {what}", self.now.doing())),
                    Err(Stop::Died) => return Err(format!("{}: a client died at the end", self.name)),
                }
            }
        }
        Ok(())
    }

    async fn look_at_file(&mut self, seat: usize, node: NodeId) -> Done {
        let ino = self.model.ino(node);
        let found = self
            .call(seat, format!("looks at {ino}"), move |hands| async move {
                let attr = hands.client().getattr(&root(), ino).await?;
                let file = hands.client().open(&root(), ino, OpenOptions::READ).await?;
                let bytes = file.read_at(0, attr.size + 1).await?;
                file.close().await?;
                Ok((attr, bytes))
            })
            .await;
        let Some((attr, bytes)) = self.hold(found, Ok(()))? else { return Ok(()) };
        self.check_attr(node, &attr)?;
        if bytes.len() as u64 != attr.size {
            return Err(Stop::Broken(format!("{} bytes came of {}", bytes.len(), attr.size)));
        }
        Ok(self.model.file(node).check(0, &bytes)?)
    }
}

/// A change of names.
#[derive(Clone, Copy)]
enum Change {
    Make(NodeId, &'static str),
    Unlink(NodeId, &'static str),
    RemoveDir(NodeId, &'static str),
    Link(NodeId, NodeId, &'static str),
    Rename(Place<'static>, Place<'static>, RenameMode),
}

/// Something to look at.
enum Look {
    Dir(NodeId),
    File(NodeId),
}
