//! Opening and creating files: one message to the mgr, none to any iod, and a signed capability comes back.

use crate::{
    Client, ClientError, File,
    calls::Reserved,
    client::{Core, Tasks},
    error::{Answer, Result},
    estate::{self, Held},
    file::store_failed,
    inode::{Inode, OpenCount, State},
};
use pvfs_types::{Attr, Cred, Errno, Ino, LayoutHint, Name, mode};
use pvfs_wire::{
    Access, Capability, Op,
    msg::{
        file::{Open, Opened},
        namespace::{CheckAccess, Create},
    },
};
use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// How to open a file that is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OpenOptions {
    pub access: Access,
    /// `O_TRUNC`.
    pub truncate: bool,
    /// The file had a name a moment ago: it is opened also if that has gone since, as long as it is there.
    pub nameless: bool,
}

impl OpenOptions {
    pub const READ: OpenOptions = OpenOptions::of(Access::READ);
    pub const WRITE: OpenOptions = OpenOptions::of(Access::WRITE);
    pub const READ_WRITE: OpenOptions = OpenOptions::of(Access::READ_WRITE);

    pub const fn of(access: Access) -> OpenOptions {
        OpenOptions { access, truncate: false, nameless: false }
    }

    #[must_use]
    pub fn truncate(self) -> OpenOptions {
        OpenOptions { truncate: true, ..self }
    }
}

/// How to create a file, or open it where it is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CreateOptions {
    pub access: Access,
    /// The umask is applied already.
    pub mode: u32,
    /// The mode before the umask, which a directory's default ACL takes the place of. `None`: there was no umask.
    pub unmasked: Option<u32>,
    /// `O_EXCL`: a name that is there is an error.
    pub exclusive: bool,
    /// `O_TRUNC`, where the file was there.
    pub truncate: bool,
    /// Where it shall lie; what this leaves open comes from the directory, then from the system.
    pub layout: LayoutHint,
}

impl Default for CreateOptions {
    /// As `creat` with mode 0644, for reading too.
    fn default() -> CreateOptions {
        CreateOptions {
            access: Access::READ_WRITE,
            mode: 0o644,
            unmasked: None,
            exclusive: false,
            truncate: true,
            layout: LayoutHint::default(),
        }
    }
}

/// What a create gives.
#[derive(Debug)]
pub struct Created {
    pub file: File,
    pub attr: Attr,
    /// False: the file was there.
    pub created: bool,
}

/// Changes of one kind under way and begun, to tell whether one could have crossed something else.
#[derive(Debug, Default)]
pub(crate) struct Crossings {
    begun: AtomicU64,
    ended: AtomicU64,
}

impl Crossings {
    pub fn begin(&self) {
        self.begun.fetch_add(1, Ordering::SeqCst);
    }

    pub fn end(&self) {
        self.ended.fetch_add(1, Ordering::SeqCst);
    }

    /// Begins one that ends when what is returned is dropped.
    pub fn one(&self) -> Crossing<'_> {
        self.begin();
        Crossing(self)
    }

    /// Whether one is under way.
    pub fn any(&self) -> bool {
        self.begun() != self.ended()
    }

    /// How many ended; equal to a later [`Crossings::begun`] if none ran since.
    fn ended(&self) -> u64 {
        self.ended.load(Ordering::SeqCst)
    }

    fn begun(&self) -> u64 {
        self.begun.load(Ordering::SeqCst)
    }
}

/// A change under way.
pub(crate) struct Crossing<'a>(&'a Crossings);

impl Drop for Crossing<'_> {
    fn drop(&mut self) {
        self.0.end();
    }
}

impl Client {
    /// What a predecessor had open counts as open from now on. What it wrote and did not tell of is asked from the targets.
    ///
    /// To be called before the mgr may ask for claims: at once after the client was made.
    pub fn hold(&self, ino: Ino, access: Access) -> Held {
        let mut count = OpenCount::new(&self.core, ino, access);
        count.keep();
        if access.write {
            count.inode.with(State::inherited);
        }
        Held { count, access }
    }

    /// Has `ino` count as open for reading, without a question. `None`: that may not keep it, for its last name may have gone
    /// and the mgr been told that it is not open here.
    pub fn hold_known(&self, ino: Ino) -> Option<Held> {
        let access = Access::READ;
        let mut count = OpenCount::new(&self.core, ino, access);
        if !count.is_kept() && !self.core.delegations.has_name(ino) {
            return None;
        }
        count.keep();
        Some(Held { count, access })
    }

    /// Opens what is held, as a predecessor did: nobody's rights are asked for again.
    ///
    /// # Errors
    /// `ESTALE` the file is gone.
    pub fn open_held<'a>(&'a self, cred: &Cred, held: &'a Held) -> Answer<'a, File> {
        let (core, tasks, cred) = (Arc::clone(&self.core), Arc::clone(&self.tasks), cred.clone());
        let (ino, access) = (held.ino(), held.access());
        let work = Arc::clone(&core);
        Box::pin(estate::apart(async move {
            core.finish(async move {
                let count = OpenCount::new(&work, ino, access);
                if let Some(entry) = work.known_inline(ino).filter(|_| !access.write) {
                    // What is to be asked for is the bytes themselves.
                    return Ok(File::new(Arc::clone(&work), tasks, count, access, &cred, entry).untold());
                }
                let inode = Arc::clone(&count.inode);
                let _record = inode.record.lock().await;
                let opened = work.open_once_more(&inode, access, None).await?;
                let file = File::new(Arc::clone(&work), tasks, count, access, &cred, opened.entry);
                Ok(file.untold())
            })
            .await
        }))
    }

    /// Opens a regular file. The open is brought to its end also when dropped, and the file then closed.
    ///
    /// # Errors
    /// `EACCES` as POSIX has it; `EISDIR` it is a directory; `EINVAL` for neither reading nor writing; `ESTALE` it is gone, or
    /// has no name and is not open here.
    pub fn open<'a>(&'a self, cred: &'a Cred, ino: Ino, options: OpenOptions) -> Answer<'a, File> {
        self.core.call(Op::Open, Some(ino), async move {
            if options.access == Access::default() {
                return Err(ClientError::NoAccess);
            }
            let (core, tasks, cred) = (Arc::clone(&self.core), Arc::clone(&self.tasks), cred.clone());
            if !options.access.write && !options.truncate {
                // Nothing is recorded, so nothing is left behind by giving up.
                return core.open_here(tasks, &cred, ino, options).await;
            }
            let work = Arc::clone(&core);
            core.finish(async move { work.open_here(tasks, &cred, ino, options).await }).await
        })
    }

    /// Creates the regular file `name` in `dir` and opens it, in one message.
    ///
    /// # Errors
    /// `EEXIST` with `exclusive`; `EACCES`, `ENOENT`, `ENOTDIR`, `ENOSPC` as POSIX has them; `EINVAL` for a layout
    /// that cannot be had.
    pub fn create<'a>(
        &'a self,
        cred: &'a Cred,
        dir: Ino,
        name: &'a Name,
        options: CreateOptions,
    ) -> Answer<'a, Created> {
        self.core.call(Op::Create, Some(dir), async move {
            if options.access == Access::default() {
                return Err(ClientError::NoAccess);
            }
            let (core, tasks, cred, name) =
                (Arc::clone(&self.core), Arc::clone(&self.tasks), cred.clone(), name.clone());
            let reserved = core.reserve(Op::Create).await?;
            let work = Arc::clone(&core);
            core.finish(async move { work.create_here(tasks, reserved, &cred, (dir, name), options).await })
                .await
        })
    }
}

/// A create under way, for the orphans' sake.
pub(crate) struct CreateUnderWay<'a> {
    core: &'a Core,
    number: u64,
}

impl CreateUnderWay<'_> {
    pub fn new(core: &Core) -> CreateUnderWay<'_> {
        CreateUnderWay { core, number: core.session.orphans(crate::orphans::Orphans::create_begins) }
    }
}

impl Drop for CreateUnderWay<'_> {
    fn drop(&mut self) {
        self.core.session.orphans(|orphans| orphans.create_ended(self.number));
    }
}

impl Core {
    async fn open_here(
        self: &Arc<Self>,
        tasks: Arc<Tasks>,
        cred: &Cred,
        ino: Ino,
        OpenOptions { access, truncate, nameless }: OpenOptions,
    ) -> Result<File> {
        let count = OpenCount::new(self, ino, access);
        let inode = Arc::clone(&count.inode);
        let make = |by| Open { by, ino, access, truncate, again: false, grow_to: None };
        if truncate {
            self.send_gathered(&inode).await?;
        }
        let _emptying = truncate.then(|| self.emptyings.one());
        let opened = if access.write || truncate {
            let _record = inode.record.lock().await;
            self.ends.take_back(ino).await;
            self.mutate_here(cred, make).await.inspect_err(|error| {
                if truncate && store_failed(error) {
                    inode.with(State::maybe_truncated);
                }
            })
        } else {
            self.ask_without_slot(cred, make).await
        };
        match opened {
            Ok(opened) => {
                inode.opened(&opened.entry, Some(opened.capability));
                Ok(File::new(Arc::clone(self), tasks, count, access, cred, opened.entry))
            }
            Err(ClientError::Refused { errno: Errno::ESTALE, .. }) if nameless || count.is_kept() => {
                self.open_nameless(tasks, cred, count, truncate).await
            }
            Err(error) => Err(error),
        }
    }

    /// Opens a file that has no name any more: to the mgr it is as gone, but for those who have it open.
    async fn open_nameless(
        self: &Arc<Self>,
        tasks: Arc<Tasks>,
        cred: &Cred,
        count: OpenCount,
        truncate: bool,
    ) -> Result<File> {
        let (inode, access) = (Arc::clone(&count.inode), count.access());
        let read = if access.read { mode::R } else { 0 };
        let mask = if access.write || truncate { read | mode::W } else { read };
        if !count.is_kept() {
            // The mgr may have been told that it is not open here.
            self.claim(inode.ino).await?;
        }
        self.ask(cred, |caller| CheckAccess { caller, ino: inode.ino, mask }).await?;
        let opened = {
            let _record = inode.record.lock().await;
            self.open_once_more(&inode, access, None).await?
        };
        let file = File::new(Arc::clone(self), tasks, count, access, cred, opened.entry);
        if truncate {
            file.truncate(0).await?;
        }
        Ok(file)
    }

    async fn create_here(
        self: &Arc<Self>,
        tasks: Arc<Tasks>,
        reserved: Reserved,
        cred: &Cred,
        (dir, name): (Ino, Name),
        options: CreateOptions,
    ) -> Result<Created> {
        let CreateOptions { access, mode, unmasked, exclusive, truncate, layout } = options;
        let under_way = CreateUnderWay::new(self);
        let closes = self.closes.ended();
        let make = |by| Create {
            by,
            dir,
            name: name.clone(),
            mode,
            exclusive,
            open: Some(access),
            truncate,
            layout,
            unmasked,
        };
        if truncate && !exclusive {
            self.send_gathered_of_named(dir, &name).await?;
        }
        let emptying = truncate.then(|| self.emptyings.one());
        let made = self.mutate_in(reserved, cred, make).await.inspect_err(|error| {
            if truncate && store_failed(error) {
                // Nobody told which file it was: any that is open here.
                self.inodes.all().iter().for_each(|inode| inode.with(State::maybe_truncated));
            }
        })?;
        let count = OpenCount::new(self, made.entry.attr.ino, access);
        drop(under_way);
        let inode = Arc::clone(&count.inode);
        inode.opened(&made.entry, made.capability);
        if made.created {
            self.has_made(&inode, access);
        }
        drop(emptying);
        if !made.created {
            self.delegations.outdate(made.entry.attr.ino);
        }
        if !made.created && self.closes.begun() != closes {
            // A close of the same file may have taken back the record that this open made: the first write makes sure.
            inode.with(crate::inode::State::end_record);
        }
        let attr = self.complete(made.entry.clone()).await?;
        let file = File::new(Arc::clone(self), tasks, count, access, cred, made.entry);
        Ok(Created { file, attr, created: made.created })
    }

    /// This client has made the file, for `access`.
    pub fn has_made(&self, inode: &Inode, access: Access) {
        if access.write {
            let number = self.delegations.of_made(inode.ino);
            inode.with(|state| (state.alone, state.is_untouched) = (number, true));
        }
    }

    /// A capability for `access` other than the refused one: opens the file again. With write access this client is
    /// recorded as a writer too.
    pub async fn fresh_capability(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        access: Access,
        refused: Option<Capability>,
    ) -> Result<Capability> {
        if let Some(capability) =
            inode.capability(access).filter(|&capability| self.serves(inode, capability, refused))
        {
            return Ok(capability);
        }
        if !access.write {
            return self.open_again(inode, access, refused).await;
        }
        let (core, inode) = (Arc::clone(self), Arc::clone(inode));
        self.finish(async move { core.open_again(&inode, access, refused).await }).await
    }

    /// A capability to write up to `end`, of which limits may not know yet.
    ///
    /// # Errors
    /// `EDQUOT` they do not allow so much.
    pub async fn capability_to(self: &Arc<Self>, inode: &Arc<Inode>, end: u64) -> Result<Capability> {
        let (core, inode) = (Arc::clone(self), Arc::clone(inode));
        // Seldom, and each write would bear its size.
        Box::pin(self.finish(async move {
            match core.ask_for_room(&inode, end).await {
                // What was written before the limit was set may be written over: once the mgr knows that it is there.
                Err(ClientError::Refused { errno: Errno::EDQUOT, .. }) if inode.with(|state| state.dirty) => {
                    core.report_sent(&inode, None).await?;
                    core.ask_for_room(&inode, end).await
                }
                asked => asked,
            }
        }))
        .await
    }

    async fn ask_for_room(self: &Arc<Self>, inode: &Arc<Inode>, end: u64) -> Result<Capability> {
        let _record = inode.record.lock().await;
        let at_hand = inode.capability(Access::WRITE);
        let at_hand = at_hand.filter(|&capability| self.serves(inode, capability, None));
        match at_hand.filter(|capability| capability.grant.reaches(end)) {
            Some(capability) => Ok(capability),
            None => Ok(self.open_once_more(inode, Access::WRITE, Some(end)).await?.capability),
        }
    }

    async fn open_again(
        self: &Arc<Self>,
        inode: &Arc<Inode>,
        access: Access,
        refused: Option<Capability>,
    ) -> Result<Capability> {
        let _record = inode.record.lock().await;
        if let Some(capability) =
            inode.capability(access).filter(|&capability| self.serves(inode, capability, refused))
        {
            return Ok(capability);
        }
        Ok(Box::pin(self.open_once_more(inode, access, None)).await?.capability)
    }

    /// As an open that was done before: without a look at rights. The caller holds `inode.record`.
    pub async fn open_once_more(
        self: &Arc<Self>,
        inode: &Inode,
        access: Access,
        grow_to: Option<u64>,
    ) -> Result<Opened> {
        let ino = inode.ino;
        let make = |by| Open { by, ino, access, truncate: false, again: true, grow_to };
        let opened = if access.write {
            self.ends.take_back(ino).await;
            self.mutate_here(&Cred::root(), make).await
        } else {
            self.ask_without_slot(&Cred::root(), make).await
        };
        let opened = opened.map_err(|error| match error {
            ClientError::Refused { errno: Errno::ENOENT | Errno::ESTALE, .. } => ClientError::Gone { ino },
            error => error,
        })?;
        if opened.entry.attr.nlink == 0 {
            self.session.orphans(|orphans| orphans.claim(ino));
        }
        inode.opened(&opened.entry, Some(opened.capability));
        Ok(opened)
    }

    /// Whether `capability` is good to be used, as far as this client knows.
    fn serves(&self, inode: &Inode, capability: Capability, refused: Option<Capability>) -> bool {
        let recorded = !capability.grant.access.write
            || inode.with(|state| state.recorded) == Some(capability.grant.session);
        recorded && refused != Some(capability) && capability.grant.session == self.session.standing().id
    }
}
