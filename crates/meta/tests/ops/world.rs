//! A file system in memory with one session, a clock that ticks with each operation, and short words for requests.

use pvfs_kv::{Engine, MemEngine, Overlay, Read, WriteSet};
use pvfs_meta::{
    MetaError, OpEnv, Outcome, Placement, Result, Stat, check, iodtab, ops, orphan, session, superblock,
};
use pvfs_types::{
    Cred, Distribution, Errno, FileKind, FsId, Ino, LayoutHint, Name, QuotaOwner, SessionId, SetAttr,
    TargetUuid, Timestamp, XattrName, limits,
};
use pvfs_wire::Access;
use pvfs_wire::msg::file::{Open, PutInline, ReadInline, ReportSize};
use pvfs_wire::msg::namespace as msg;
use pvfs_wire::msg::quota::{GetQuotas, LimitChange, Quota, SetQuota};
use pvfs_wire::msg::session::{Caller, Mutator, OpenSession, Orphan};
use pvfs_wire::msg::xattr::{GetXattr, ListXattr, RemoveXattr, SetXattr, XattrMode};
use std::cell::Cell;

pub const TARGETS: u16 = 4;
pub const ROOT: Ino = Ino::ROOT;

/// Over all targets of the newest iodtab, or as wished.
struct AllTargets {
    iodtab: Option<pvfs_wire::msg::session::Iodtab>,
}

impl Placement for AllTargets {
    fn choose(&self, hint: LayoutHint) -> Result<Distribution> {
        let iodtab = self.iodtab.as_ref().ok_or(MetaError::NoTargets)?;
        hint.check(iodtab.targets.len())?;
        Ok(Distribution {
            iodtab: iodtab.generation,
            base: hint.base.unwrap_or(0),
            pcount: hint.pcount.unwrap_or(u16::try_from(iodtab.targets.len()).expect("few targets")),
            ssize: hint.ssize.unwrap_or(limits::STRIP_BYTES_DEFAULT),
        })
    }
}

pub struct World {
    engine: MemEngine,
    pub session: SessionId,
    pub cred: Cred,
    seq: Cell<u64>,
    now: Cell<u64>,
    /// The store has only its reserve left.
    pub is_short: Cell<bool>,
    /// The test damages the store on purpose.
    pub damaged: bool,
}

/// A name that is one.
pub fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

pub fn user(uid: u32) -> Cred {
    Cred { uid, gid: uid, groups: vec![] }
}

pub fn xattr_name(text: &str) -> XattrName {
    XattrName::new(text).expect("an attribute's name")
}

/// The errno of a failure; panics at success.
pub fn errno<T: std::fmt::Debug>(result: Result<T>) -> Errno {
    result.expect_err("must be refused").errno()
}

pub fn done<T: std::fmt::Debug>(outcome: Outcome<T>) -> T {
    match outcome {
        Outcome::Done(done) => done,
        Outcome::Pending(intent) => panic!("waits for {intent:?}"),
    }
}

pub fn target_uuids(count: u16) -> Vec<TargetUuid> {
    (0..count).map(|n| TargetUuid([u8::try_from(n).expect("few"); 16])).collect()
}

impl World {
    /// The root directory is open to everybody.
    pub fn new() -> World {
        World::with_targets(TARGETS)
    }

    pub fn with_targets(count: u16) -> World {
        let mut world = World {
            engine: MemEngine::new(),
            session: SessionId(0),
            cred: Cred::root(),
            seq: Cell::new(0),
            now: Cell::new(1_000),
            is_short: Cell::new(false),
            damaged: false,
        };
        world
            .run(|txn, env| {
                superblock::init(txn, FsId([9; 16]), &target_uuids(count), &Cred::root(), env.now)
            })
            .expect("formats");
        world.session = world.open_session(1);
        world.chmod(ROOT, 0o777).expect("chmods");
        world
    }

    pub fn open_session(&self, client: u8) -> SessionId {
        let req =
            OpenSession { client: [client; 16], incarnation: 1, label: "test".to_owned(), delegations: None };
        self.run(|txn, env| session::open(txn, &req, env.now)).expect("opens a session")
    }

    /// Runs one transaction; a failed one leaves nothing.
    pub fn run<T>(
        &self,
        op: impl FnOnce(&mut Overlay<'_, dyn Read + Send + '_>, &OpEnv) -> Result<T>,
    ) -> Result<T> {
        self.now.set(self.now.get() + 1);
        let snapshot = self.engine.snapshot().expect("a snapshot");
        let placement = AllTargets { iodtab: iodtab::latest(&*snapshot)? };
        let env = OpEnv {
            now: Timestamp::from_millis(self.now.get()),
            is_short: self.is_short.get(),
            placement: &placement,
        };
        let mut txn = Overlay::new(&*snapshot);
        let result = op(&mut txn, &env)?;
        let set = txn.into_set();
        drop(snapshot);
        self.engine.commit(&set).expect("commits");
        Ok(result)
    }

    pub fn read<T>(&self, op: impl FnOnce(&(dyn Read + Send)) -> Result<T>) -> Result<T> {
        op(&*self.engine.snapshot().expect("a snapshot"))
    }

    /// The time of the last transaction.
    pub fn now(&self) -> Timestamp {
        Timestamp::from_millis(self.now.get())
    }

    pub fn commit(&self, set: &WriteSet) {
        self.engine.commit(set).expect("commits");
    }

    pub fn by(&self) -> Mutator {
        self.seq.set(self.seq.get() + 1);
        Mutator { session: self.session, slot: 0, seq: self.seq.get(), cred: self.cred.clone() }
    }

    pub fn caller(&self) -> Caller {
        Caller { session: self.session, cred: self.cred.clone() }
    }

    /// Does `act` as somebody else.
    pub fn as_user<T>(&mut self, cred: Cred, act: impl FnOnce(&World) -> T) -> T {
        let before = std::mem::replace(&mut self.cred, cred);
        let result = act(self);
        self.cred = before;
        result
    }

    /// Does `act` in another session.
    pub fn in_session<T>(&mut self, session: SessionId, act: impl FnOnce(&World) -> T) -> T {
        let before = std::mem::replace(&mut self.session, session);
        let result = act(self);
        self.session = before;
        result
    }

    pub fn create_req(&self, dir: Ino, text: &str) -> msg::Create {
        msg::Create {
            by: self.by(),
            dir,
            name: name(text),
            mode: 0o644,
            exclusive: true,
            open: None,
            truncate: false,
            layout: LayoutHint::default(),
            unmasked: None,
        }
    }

    pub fn create(&self, req: &msg::Create) -> Result<Outcome<ops::Created>> {
        self.run(|txn, env| ops::create(txn, req, env))
    }

    /// A new file, not open.
    pub fn file(&self, dir: Ino, text: &str) -> Ino {
        done(self.create(&self.create_req(dir, text)).expect("creates")).stat.attr.ino
    }

    pub fn try_file(&self, dir: Ino, text: &str, mode: u32) -> Result<Ino> {
        let req = msg::Create { mode, ..self.create_req(dir, text) };
        self.create(&req).map(|outcome| done(outcome).stat.attr.ino)
    }

    pub fn mkdir(&self, dir: Ino, text: &str, mode: u32) -> Result<Ino> {
        let req = msg::MkDir { by: self.by(), dir, name: name(text), mode, unmasked: None };
        self.run(|txn, env| ops::mkdir(txn, &req, env)).map(|stat| stat.attr.ino)
    }

    pub fn dir(&self, dir: Ino, text: &str) -> Ino {
        self.mkdir(dir, text, 0o755).expect("makes a directory")
    }

    pub fn mknod(&self, dir: Ino, text: &str, kind: FileKind) -> Result<Stat> {
        let (by, rdev) = (self.by(), (1, 3));
        let req = msg::MkNod { by, dir, name: name(text), mode: 0o644, kind, rdev, unmasked: None };
        self.run(|txn, env| ops::mknod(txn, &req, env))
    }

    pub fn symlink(&self, dir: Ino, text: &str, target: &[u8]) -> Result<Ino> {
        let req = msg::SymLink { by: self.by(), dir, name: name(text), target: target.to_vec() };
        self.run(|txn, env| ops::symlink(txn, &req, env)).map(|stat| stat.attr.ino)
    }

    pub fn readlink(&self, ino: Ino) -> Result<Vec<u8>> {
        let req = msg::ReadLink { caller: self.caller(), ino };
        self.read(|txn| ops::readlink(txn, &req))
    }

    pub fn link(&self, ino: Ino, dir: Ino, text: &str) -> Result<Stat> {
        let req = msg::Link { by: self.by(), ino, dir, name: name(text) };
        self.run(|txn, env| ops::link(txn, &req, env))
    }

    pub fn unlink(&self, dir: Ino, text: &str) -> Result<Option<Orphan>> {
        let req = msg::Unlink { by: self.by(), dir, name: name(text) };
        self.run(|txn, env| ops::unlink(txn, &req, env))
    }

    pub fn rmdir(&self, dir: Ino, text: &str) -> Result<()> {
        let req = msg::RmDir { by: self.by(), dir, name: name(text) };
        self.run(|txn, env| ops::rmdir(txn, &req, env))
    }

    pub fn rename_as(
        &self,
        from: (Ino, &str),
        to: (Ino, &str),
        mode: msg::RenameMode,
    ) -> Result<Option<Orphan>> {
        let (dir, new_dir) = (from.0, to.0);
        let req = msg::Rename { by: self.by(), dir, name: name(from.1), new_dir, new_name: name(to.1), mode };
        self.run(|txn, env| ops::rename(txn, &req, env))
    }

    pub fn rename(&self, from: (Ino, &str), to: (Ino, &str)) -> Result<Option<Orphan>> {
        self.rename_as(from, to, msg::RenameMode::Replace)
    }

    pub fn lookup(&self, dir: Ino, text: &str) -> Result<Ino> {
        let req = msg::Lookup { caller: self.caller(), dir, name: Some(name(text)) };
        self.read(|txn| ops::lookup(txn, &req)).map(|stat| stat.attr.ino)
    }

    pub fn parent(&self, dir: Ino) -> Result<Ino> {
        let req = msg::Lookup { caller: self.caller(), dir, name: None };
        self.read(|txn| ops::lookup(txn, &req)).map(|stat| stat.attr.ino)
    }

    pub fn stat(&self, ino: Ino) -> Result<Stat> {
        let req = msg::GetAttr { caller: self.caller(), ino };
        self.read(|txn| ops::getattr(txn, &req))
    }

    pub fn attr(&self, ino: Ino) -> pvfs_types::Attr {
        self.stat(ino).expect("is there").attr
    }

    pub fn access(&self, ino: Ino, mask: u32) -> Result<()> {
        let req = msg::CheckAccess { caller: self.caller(), ino, mask };
        self.read(|txn| ops::check_access(txn, &req))
    }

    pub fn readdir(&self, dir: Ino, cookie: u64, entries_max: u32) -> Result<msg::DirEntries> {
        let req = msg::ReadDir { caller: self.caller(), dir, cookie, entries_max, plus: true };
        self.read(|txn| ops::readdir(txn, &req))
    }

    /// The names in `dir`, sorted.
    pub fn names(&self, dir: Ino) -> Vec<String> {
        let listed = self.readdir(dir, 0, u32::MAX).expect("lists");
        assert!(listed.end, "a directory too large for one reply");
        let mut names: Vec<_> = listed.entries.iter().map(|entry| entry.name.to_string()).collect();
        names.sort();
        names
    }

    pub fn set_xattr_as(&self, ino: Ino, name: &str, value: &[u8], mode: XattrMode) -> Result<Stat> {
        let req = SetXattr { by: self.by(), ino, name: xattr_name(name), value: value.to_vec(), mode };
        self.run(|txn, env| ops::setxattr(txn, &req, env))
    }

    pub fn set_xattr(&self, ino: Ino, name: &str, value: &[u8]) -> Result<Stat> {
        self.set_xattr_as(ino, name, value, XattrMode::Set)
    }

    pub fn xattr(&self, ino: Ino, name: &str) -> Result<Vec<u8>> {
        let req = GetXattr { caller: self.caller(), ino, name: xattr_name(name) };
        self.read(|txn| ops::getxattr(txn, &req))
    }

    pub fn remove_xattr(&self, ino: Ino, name: &str) -> Result<Stat> {
        let req = RemoveXattr { by: self.by(), ino, name: xattr_name(name) };
        self.run(|txn, env| ops::removexattr(txn, &req, env))
    }

    /// The names of the attributes, in the order of the answer.
    pub fn xattrs(&self, ino: Ino) -> Vec<String> {
        let req = ListXattr { caller: self.caller(), ino };
        let names = self.read(|txn| ops::listxattr(txn, &req)).expect("lists");
        names.iter().map(ToString::to_string).collect()
    }

    pub fn setattr_req(&self, ino: Ino, changes: SetAttr) -> msg::SetAttr {
        msg::SetAttr { by: self.by(), ino, changes, by_handle: false, want: None, drop_privileges: None }
    }

    pub fn setattr(&self, req: &msg::SetAttr) -> Result<Outcome<Stat>> {
        self.run(|txn, env| ops::setattr(txn, req, env))
    }

    pub fn set(&self, ino: Ino, changes: SetAttr) -> Result<Outcome<Stat>> {
        self.setattr(&self.setattr_req(ino, changes))
    }

    pub fn chmod(&self, ino: Ino, mode: u32) -> Result<()> {
        self.set(ino, SetAttr { mode: Some(mode), ..SetAttr::default() })
            .map(|outcome| assert!(matches!(outcome, Outcome::Done(_))))
    }

    pub fn chown(&self, ino: Ino, uid: Option<u32>, gid: Option<u32>) -> Result<()> {
        self.set(ino, SetAttr { uid, gid, ..SetAttr::default() })
            .map(|outcome| assert!(matches!(outcome, Outcome::Done(_))))
    }

    pub fn truncate(&self, ino: Ino, size: u64) -> Result<Outcome<Stat>> {
        self.set(ino, SetAttr { size: Some(size), ..SetAttr::default() })
    }

    pub fn open_req(&self, ino: Ino, access: Access) -> Open {
        Open { by: self.by(), ino, access, truncate: false, again: false, grow_to: None }
    }

    pub fn try_open(&self, req: &Open) -> Result<Outcome<Stat>> {
        self.run(|txn, env| ops::open(txn, req, env))
    }

    pub fn open(&self, ino: Ino, access: Access) -> Result<Stat> {
        self.try_open(&self.open_req(ino, access)).map(done)
    }

    pub fn report_req(&self, ino: Ino, size: u64, close: bool) -> ReportSize {
        let size_epoch = self.attr(ino).size_epoch;
        ReportSize { by: self.by(), ino, size, size_epoch, mtime: None, close, allocated: None }
    }

    pub fn try_report(&self, req: &ReportSize) -> Result<Outcome<Stat>> {
        self.run(|txn, env| ops::report_size(txn, req, env))
    }

    /// Closes a file that is open for writing, with `data` to be kept here. Gives whether it is.
    pub fn put_inline(&self, ino: Ino, data: &[u8]) -> Result<bool> {
        let size_epoch = self.attr(ino).size_epoch;
        let req = PutInline { by: self.by(), ino, data: data.to_vec(), size_epoch, mtime: Some(self.now()) };
        self.run(|txn, env| ops::put_inline(txn, &req, env)).map(|stat| stat.attr.is_inline())
    }

    /// What is kept of a file.
    pub fn read_inline(&self, ino: Ino) -> Option<Vec<u8>> {
        let req = ReadInline { caller: self.caller(), ino };
        self.read(|txn| ops::read_inline(txn, &req)).expect("reads").data
    }

    /// Writes `size` bytes and closes.
    pub fn write(&self, ino: Ino, size: u64) {
        self.open(ino, Access::WRITE).expect("opens");
        done(self.try_report(&self.report_req(ino, size, true)).expect("reports"));
    }

    /// Sets both limits, or takes them away.
    pub fn set_quota(&self, owner: QuotaOwner, bytes: Option<u64>, inodes: Option<u64>) -> Result<Quota> {
        let change = |limit: Option<u64>| limit.map_or(LimitChange::Clear, LimitChange::Set);
        let req = SetQuota { by: self.by(), owner, bytes: change(bytes), inodes: change(inodes) };
        self.run(|txn, _| ops::set_quota(txn, &req))
    }

    pub fn quota(&self, owner: QuotaOwner) -> Result<Quota> {
        let req = GetQuotas { caller: self.caller(), owner: Some(owner), after: None, max: 1 };
        self.read(|txn| ops::get_quotas(txn, &req)).map(|mut found| found.quotas.remove(0))
    }

    pub fn finish(&self, ino: Ino) {
        self.run(|txn, env| pvfs_meta::intent::finish(txn, ino, env.now)).expect("finishes");
    }

    pub fn reap(&self, orphan: Orphan) -> bool {
        self.run(|txn, _| orphan::reap(txn, orphan.seq, orphan.ino)).expect("reaps")
    }

    pub fn inodes_in_use(&self) -> u64 {
        self.read(|txn| superblock::inodes_in_use(txn)).expect("is told")
    }

    pub fn garbage_count(&self) -> usize {
        self.read(|txn| {
            let mut count = 0;
            for (target, _) in pvfs_meta::target::list(txn)? {
                count += pvfs_meta::garbage::list(txn, target, usize::MAX)?.len();
            }
            Ok(count)
        })
        .expect("lists")
    }

    pub fn findings(&self) -> Vec<String> {
        let findings = self.read(|txn| check::check(txn)).expect("checks");
        findings.iter().map(ToString::to_string).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if !self.damaged && !std::thread::panicking() {
            assert_eq!(self.findings(), [""; 0], "the key space is as it should be");
        }
    }
}
