//! One example or more of every message, with every field set to something that its neighbours are not.
//!
//! Owns the examples behind `golden.txt`. A new message gets its example here; an old example never changes.

mod files;

use pvfs_types::{
    Attr, Cred, DataGen, Distribution, Extras, FileKind, FsId, Ino, IodtabGen, LayoutHint, Level, LockKind,
    LockMode, LockOwner, LockRange, LogicalOffset, Name, ObjectId, ObjectOffset, Pattern, QuotaOwner,
    SessionId, SetAttr as Changes, SetTime, Slot, TargetId, TargetUuid, Timestamp, XattrName,
};
use pvfs_wire::cap::Grant;
use pvfs_wire::msg::admin::*;
use pvfs_wire::msg::data::{self, *};
use pvfs_wire::msg::delegation::*;
use pvfs_wire::msg::file::{Open, Opened};
use pvfs_wire::msg::fsck::*;
use pvfs_wire::msg::hello::*;
use pvfs_wire::msg::lock::*;
use pvfs_wire::msg::namespace::*;
use pvfs_wire::msg::quota::*;
use pvfs_wire::msg::session::*;
use pvfs_wire::msg::xattr::*;
use pvfs_wire::{Access, Capability, FrameError, Lease, MacKey, Op, Request};

/// One encoded message.
pub struct Sample {
    pub op: Op,
    /// `request`, `reply`, or `payload` of a reply.
    pub kind: &'static str,
    pub bytes: Vec<u8>,
    /// Decodes bytes as this message and encodes it again.
    pub reencode: fn(&[u8]) -> Result<Vec<u8>, FrameError>,
}

fn reencode<T>(bytes: &[u8]) -> Result<Vec<u8>, FrameError>
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    Ok(pvfs_wire::encode(&pvfs_wire::decode::<T>(bytes)?))
}

struct Samples(Vec<Sample>);

impl Samples {
    fn request<R: Request>(&mut self, request: &R) {
        let bytes = pvfs_wire::encode(request);
        self.0.push(Sample { op: R::OP, kind: "request", bytes, reencode: reencode::<R> });
    }

    fn reply<R: Request>(&mut self, reply: &R::Reply) {
        let bytes = pvfs_wire::encode(reply);
        self.0.push(Sample { op: R::OP, kind: "reply", bytes, reencode: reencode::<R::Reply> });
    }

    fn payload<R: Request, T>(&mut self, payload: &T)
    where
        T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
    {
        let bytes = pvfs_wire::encode(payload);
        self.0.push(Sample { op: R::OP, kind: "payload", bytes, reencode: reencode::<T> });
    }

    fn both<R: Request>(&mut self, request: &R, reply: &R::Reply) {
        self.request(request);
        self.reply::<R>(reply);
    }
}

/// All examples, in the order of `golden.txt`.
pub fn all() -> Vec<Sample> {
    let mut samples = Samples(Vec::new());
    hello(&mut samples);
    admin(&mut samples);
    session(&mut samples);
    reading(&mut samples);
    changing(&mut samples);
    renaming(&mut samples);
    files::open_files(&mut samples);
    locks(&mut samples);
    delegations(&mut samples);
    bytes(&mut samples);
    fsck(&mut samples);
    xattrs(&mut samples);
    acls(&mut samples);
    quotas(&mut samples);
    samples.0
}

/// A hello and the answer to it; the proofs in `golden.txt` are over these two.
pub fn opening() -> (Hello, Challenge) {
    let hello = Hello {
        version_min: 1,
        version_max: 2,
        fs: Some(FsId([3; 16])),
        role: Role::Iod,
        client: [4; 16],
        connection: 5,
        nonce: [6; 32],
        label: "iod on host7".into(),
    };
    (hello, Challenge { version: 1, nonce: [8; 32] })
}

fn hello(s: &mut Samples) {
    let (hello, challenge) = opening();
    s.both(&hello, &challenge);
    s.request(&Hello {
        version_min: 1,
        version_max: 1,
        fs: None,
        role: Role::Client,
        client: [9; 16],
        connection: 1,
        nonce: [10; 32],
        label: String::new(),
    });
    s.both(
        &Prove { proof: [11; 32] },
        &Welcome {
            proof: [12; 32],
            fs: FsId([13; 16]),
            role: Role::Mgr,
            process: 0x1122_3344_5566_7788,
            label: "mgr".into(),
        },
    );
}

fn admin(s: &mut Samples) {
    s.both(&Ping {}, &Done {});
    let target = TargetStatus {
        id: Some(TargetId(1)),
        uuid: TargetUuid([2; 16]),
        dir: "/data/t1".into(),
        bytes_total: 3 << 40,
        bytes_free: 4 << 30,
        generations: generations(),
    };
    s.both(
        &GetStatus {},
        &DaemonStatus {
            role: Role::Mgr,
            version: "0.1.0".into(),
            pid: 1234,
            started: at(5),
            uptime_ms: 6000,
            process: 7,
            counters: vec![("pvfs_messages_total{dir=\"sent\"}".into(), 8)],
            targets: vec![target.clone(), TargetStatus { id: None, ..target }],
            sessions: vec![SessionStatus {
                id: SessionId(9),
                label: "mount".into(),
                heard_ms_ago: 10,
                lease_ms_left: 11,
            }],
        },
    );
    let report = TargetReport {
        uuid: TargetUuid([1; 16]),
        generations: generations(),
        bytes_total: 2 << 40,
        bytes_free: 1 << 40,
        device: None,
    };
    let heartbeat = |report| Heartbeat {
        addr: "127.0.0.1:7335".into(),
        targets: vec![report],
        mgr_time_ms: 3,
        stopping: true,
    };
    s.both(
        &heartbeat(report.clone()),
        &HeartbeatAnswer { mgr_time_ms: 4, targets: vec![Some(TargetId(5)), None], writes_since_ms: None },
    );
    s.request(&heartbeat(TargetReport { device: Some(6), ..report }));
}

fn session(s: &mut Samples) {
    s.both(
        &OpenSession {
            client: [1; 16],
            incarnation: 2,
            label: "pvfs mount /mnt on host3".into(),
            delegations: None,
        },
        &SessionOpened {
            session: SessionId(4),
            slots: 64,
            lease: lease(),
            keep_alive_ms: 2000,
            mgr_time_ms: 5,
            now: at(6),
            orphans_seen: 7,
            inline_bytes_max: None,
        },
    );
    s.both(
        &KeepAlive {
            session: SessionId(1),
            orphans_seen: 2,
            claims: vec![Ino(3), Ino(4)],
            releases: vec![Ino(5)],
        },
        &KeptAlive {
            lease: lease(),
            mgr_time_ms: 6,
            now: at(7),
            orphans: vec![Orphan { seq: 8, ino: Ino(9) }],
            more: true,
            targets_version: 10,
        },
    );
    s.both(&CloseSession { session: SessionId(1) }, &Done {});
    s.both(
        &GetTargets {},
        &Targets {
            version: 1,
            targets: vec![TargetInfo {
                id: TargetId(2),
                uuid: TargetUuid([3; 16]),
                addr: "127.0.0.1:7335".into(),
                up: true,
                bytes_total: 4 << 40,
                bytes_free: 5 << 30,
                heard_ms_ago: Some(6),
            }],
            iodtabs: vec![Iodtab { generation: IodtabGen(7), targets: vec![TargetId(2), TargetId(1)] }],
        },
    );
}

fn reading(s: &mut Samples) {
    s.both(&Lookup { caller: caller(), dir: Ino(1), name: Some(name("file")) }, &file_entry());
    s.both(&Lookup { caller: caller(), dir: Ino(2), name: None }, &dir_entry());
    s.both(&GetAttr { caller: caller(), ino: Ino(2) }, &dir_entry());
    s.both(&ReadLink { caller: caller(), ino: Ino(3) }, &LinkTarget { target: b"../else\xffwhere".to_vec() });
    s.both(
        &ReadDir { caller: caller(), dir: Ino(1), cookie: 4, entries_max: 100, plus: true },
        &DirEntries {
            entries: vec![
                DirEntry {
                    name: name("a"),
                    ino: Ino(5),
                    kind: FileKind::Symlink,
                    cookie: i64::MAX.cast_unsigned(),
                    entry: None,
                },
                DirEntry {
                    name: name("b"),
                    ino: Ino(7),
                    kind: FileKind::File,
                    cookie: 3,
                    entry: Some(file_entry()),
                },
            ],
            end: true,
        },
    );
    let usage = FsUsage { bytes_total: 1 << 50, bytes_free: 1 << 49, inodes: 12, inodes_max: None };
    s.both(&StatFs { at: None }, &usage);
    s.both(&CheckAccess { caller: caller(), ino: Ino(1), mask: 5 }, &Done {});
}

fn changing(s: &mut Samples) {
    s.both(
        &SetAttr {
            by: mutator(),
            ino: Ino(1),
            changes: Changes {
                mode: Some(0o4755),
                uid: Some(2),
                gid: Some(3),
                size: Some(4),
                atime: Some(SetTime::Now),
                mtime: Some(SetTime::At(at(5))),
            },
            by_handle: true,
            want: Some(Access::READ_WRITE),
            drop_privileges: None,
        },
        &AttrSet { entry: file_entry(), capability: Some(capability()) },
    );
    s.both(
        &SetAttr {
            by: mutator(),
            ino: Ino(1),
            changes: Changes::default(),
            by_handle: false,
            want: None,
            drop_privileges: None,
        },
        &AttrSet { entry: dir_entry(), capability: None },
    );
    s.both(
        &Create {
            by: mutator(),
            dir: Ino(1),
            name: name("new"),
            mode: 0o640,
            exclusive: true,
            open: Some(Access::WRITE),
            truncate: true,
            layout: layout(),
            unmasked: None,
        },
        &Created { entry: file_entry(), capability: Some(capability()), created: true },
    );
    s.both(
        &TmpFile {
            by: mutator(),
            dir: Ino(1),
            mode: 0o600,
            unmasked: Some(0o666),
            open: Access::READ_WRITE,
            linkable: true,
            layout: layout(),
        },
        &Created { entry: file_entry(), capability: Some(capability()), created: true },
    );
    s.both(
        &MkDir { by: mutator(), dir: Ino(1), name: name("dir"), mode: 0o755, unmasked: None },
        &dir_entry(),
    );
    s.both(
        &MkNod {
            by: mutator(),
            dir: Ino(1),
            name: name("null"),
            mode: 0o666,
            kind: FileKind::CharDev,
            rdev: (1, 3),
            unmasked: None,
        },
        &Entry {
            attr: Attr { kind: FileKind::CharDev, rdev: (1, 3), ..dir_entry().attr },
            has_writers: false,
            delegated: None,
        },
    );
    s.both(
        &SymLink { by: mutator(), dir: Ino(1), name: name("link"), target: b"target".to_vec() },
        &dir_entry(),
    );
    s.both(
        &SetLayout { by: mutator(), ino: Ino(2), layout: layout() },
        &Entry {
            attr: Attr { layout: Some(layout()), ..dir_entry().attr },
            has_writers: false,
            delegated: None,
        },
    );
}

fn renaming(s: &mut Samples) {
    s.both(&Link { by: mutator(), ino: Ino(1), dir: Ino(2), name: name("second") }, &file_entry());
    s.both(
        &Unlink { by: mutator(), dir: Ino(1), name: name("gone") },
        &Unlinked { orphan: Some(Orphan { seq: 2, ino: Ino(3) }) },
    );
    s.both(&RmDir { by: mutator(), dir: Ino(1), name: name("empty") }, &Done {});
    let rename = Rename {
        by: mutator(),
        dir: Ino(1),
        name: name("old"),
        new_dir: Ino(2),
        new_name: name("new"),
        mode: RenameMode::Replace,
    };
    s.both(&rename, &Unlinked { orphan: None });
    s.request(&Rename { mode: RenameMode::NoReplace, ..rename.clone() });
    s.request(&Rename { mode: RenameMode::Exchange, ..rename });
}

fn locks(s: &mut Samples) {
    let owner = LockOwner { kind: LockKind::Posix, id: 1 << 50 };
    let test =
        TestLock { caller: caller(), ino: Ino(7), owner, start: 5, end: u64::MAX, mode: LockMode::Write };
    let range = LockRange { start: 1, end: 9, mode: LockMode::Read, pid: 4711 };
    let held = HeldLock { session: SessionId(4), range };
    s.both(&test, &LockTested { held: Some(held) });
    s.reply::<TestLock>(&LockTested { held: None });
    let set = SetLock {
        by: mutator(),
        ino: Ino(7),
        owner,
        id: 99,
        start: 5,
        end: 1 << 33,
        mode: Some(LockMode::Read),
        pid: 4711,
        wait: true,
    };
    s.both(&set, &LockSet { outcome: LockOutcome::Granted, entry: Some(file_entry()) });
    let flock = LockOwner { kind: LockKind::Flock, id: 3 };
    s.request(&SetLock { owner: flock, mode: None, wait: false, ..set.clone() });
    s.request(&SetLock {
        owner: LockOwner::APPEND,
        start: 0,
        end: u64::MAX,
        mode: Some(LockMode::Write),
        ..set
    });
    s.reply::<SetLock>(&LockSet { outcome: LockOutcome::Queued, entry: None });
    s.reply::<SetLock>(&LockSet { outcome: LockOutcome::Held, entry: None });
    s.both(
        &AwaitLocks { session: SessionId(3), mgr: 1 << 40, seen: 6 },
        &LocksGranted { mgr: 1 << 41, seen: 7, ids: vec![99, 1 << 40], ask_again: true },
    );
    s.both(&CancelLock { by: mutator(), ino: Ino(7), owner, id: 99, start: 5, end: 1 << 33 }, &Done {});
    s.both(&ReleaseLocks { by: mutator(), ino: Ino(7), owner: flock }, &Done {});
}

fn delegations(s: &mut Samples) {
    let recalls = vec![Recall { id: 9, ino: Ino(7) }, Recall { id: 1 << 40, ino: Ino(1) }];
    s.both(
        &AwaitRecalls { session: SessionId(3), mgr: 1 << 40, after: 8 },
        &Recalls { mgr: 1 << 41, recalls, unknown: true },
    );
    s.both(&Recalled { session: SessionId(3), mgr: 1 << 41, ids: vec![9, 1 << 40] }, &Done {});
    s.both(
        &HoldDelegations { session: SessionId(3), mgr: 1 << 41, inos: vec![Ino(7), Ino(1)], last: true },
        &Done {},
    );
    s.reply::<GetAttr>(&Entry { delegated: Some(true), ..dir_entry() });
    let inodes =
        vec![Entry { has_writers: false, ..dir_entry() }, Entry { delegated: Some(true), ..file_entry() }];
    s.payload::<Create, _>(&Changed { inodes });
    let opened = OpenSession { client: [1; 16], incarnation: 2, label: "m".into(), delegations: Some(true) };
    s.request(&opened);
    s.reply::<OpenSession>(&SessionOpened {
        session: SessionId(4),
        slots: 64,
        lease: lease(),
        keep_alive_ms: 2000,
        mgr_time_ms: 5,
        now: at(6),
        orphans_seen: 7,
        inline_bytes_max: Some(4096),
    });
}

fn bytes(s: &mut Samples) {
    let list = Ranges::List(vec![
        Run { offset: ObjectOffset(0), len: 1 },
        Run { offset: ObjectOffset(1 << 40), len: 1 << 20 },
    ]);
    let strided = Ranges::Strided(Pattern {
        start: LogicalOffset(1),
        len: 2,
        levels: vec![Level { count: 3, stride: 400 }, Level { count: 5, stride: 60 }],
    });
    let read =
        data::Read { target: TargetId(1), pass: pass(), slot: Slot(2), ranges: Ranges::List(Vec::new()) };
    s.both(&read, &ReadDone { generations: generations(), object_len: 3, exists: true });
    s.request(&data::Read { ranges: list.clone(), ..read.clone() });
    s.request(&data::Read { ranges: strided.clone(), ..read });
    let write = data::Write { target: TargetId(1), pass: pass(), slot: Slot(2), ranges: list, again: None };
    s.both(&write, &Written { generations: generations(), durability: None });
    s.request(&data::Write { ranges: strided, ..write.clone() });
    s.both(
        &data::Sync { target: TargetId(1), pass: pass(), slots: vec![Slot(0), Slot(2)] },
        &Written { generations: generations(), durability: None },
    );
    s.both(
        &StatObjects { target: TargetId(1), objects: vec![object()], store: None },
        &ObjectStats {
            generations: generations(),
            objects: vec![Some(ObjectStat { len: 1, allocated: 4096, mtime: at(2) }), None],
        },
    );
    s.both(&RemoveObjects { target: TargetId(1), objects: vec![object()] }, &Done {});
    s.both(&TruncateObjects { target: TargetId(1), objects: vec![(object(), 5)] }, &Done {});
    s.both(&PutObject { target: TargetId(1), object: object(), data: b"small".to_vec() }, &Done {});
    let known = Pass { store: Some(7), ..pass() };
    let acked = Acked { generation: 6, mark: 9, below: None };
    let again = |acked| data::Write { pass: known, again: Some(acked), ..write.clone() };
    s.request(&again(acked));
    s.request(&again(Acked { below: Some(4096), ..acked }));
    let durability = Durability { mark: 10, committed: 8, below: None };
    let written = |durability| Written { generations: generations(), durability: Some(durability) };
    s.reply::<data::Write>(&written(durability));
    s.reply::<data::Write>(&written(Durability { below: Some(4096), ..durability }));
    s.request(&StatObjects { target: TargetId(1), objects: vec![object()], store: Some(7) });
    let (start, end) = (ObjectOffset(4096), ObjectOffset(1 << 40));
    let zeros = Fill {
        target: TargetId(1),
        pass: known,
        slot: Slot(2),
        start,
        end,
        with: FillWith::Zeros,
        again: None,
    };
    s.both(&zeros, &written(durability));
    s.request(&Fill { with: FillWith::Room, again: Some(acked), ..zeros });
    let copy = data::Copy {
        target: TargetId(1),
        pass: known,
        slot: Slot(2),
        start,
        end: ObjectOffset(4096 + 77),
        from: capability(),
        from_slot: Slot(3),
        from_start: ObjectOffset(0),
    };
    s.both(&copy, &Copied { generations: generations(), durability: Some(durability), source_len: 5 });
    let find = FindData { target: TargetId(1), pass: known, slot: Slot(2), from: start, hole: false };
    s.both(&find, &DataFound { generations: generations(), at: Some(end) });
    s.both(&FindData { hole: true, ..find }, &DataFound { generations: generations(), at: None });
    let open = OpenObject { target: TargetId(1), pass: known, slot: Slot(2), number: 9 };
    s.both(&open, &ObjectOpened { generations: generations(), epoch: 3 });
    s.both(&data::Commit { target: TargetId(1), store: Some(7), now: true }, &written(durability));
}

fn at(secs: i64) -> Timestamp {
    Timestamp { secs, nanos: 999_999_999 }
}

fn name(text: &str) -> Name {
    Name::new(text).expect("a name")
}

fn cred() -> Cred {
    Cred { uid: 1000, gid: 1001, groups: vec![27, 1001] }
}

fn caller() -> Caller {
    Caller { session: SessionId(17), cred: cred() }
}

fn mutator() -> Mutator {
    Mutator { session: SessionId(17), slot: 63, seq: 1 << 40, cred: cred() }
}

fn key() -> MacKey {
    MacKey::from_daemon_secret(&[42; 32])
}

fn lease() -> Lease {
    Lease::sign(SessionId(17), 30_000, &key())
}

fn dist() -> Distribution {
    Distribution { iodtab: IodtabGen(1), base: 2, pcount: 3, ssize: 65536 }
}

fn layout() -> LayoutHint {
    LayoutHint { base: None, pcount: Some(2), ssize: Some(4096) }
}

fn capability() -> Capability {
    let grant = Grant {
        session: SessionId(17),
        ino: Ino(7),
        data_gen: DataGen(2),
        dist: dist(),
        access: Access::READ_WRITE,
        granted_ms: None,
        size_max: None,
    };
    Capability::sign(grant, &key())
}

fn pass() -> Pass {
    Pass { capability: capability(), lease: lease(), store: None }
}

fn generations() -> Generations {
    Generations { process: 101, boot: 102, store: 103 }
}

fn object() -> ObjectId {
    ObjectId { ino: Ino(7), data_gen: DataGen(2), slot: Slot(1) }
}

fn file_entry() -> Entry {
    let attr = Attr {
        ino: Ino(7),
        kind: FileKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 1001,
        nlink: 2,
        size: 1 << 32,
        size_epoch: 3,
        atime: at(-1),
        mtime: at(2),
        ctime: at(3),
        btime: at(4),
        rdev: (0, 0),
        change: 5,
        dist: Some(dist()),
        data_gen: DataGen(2),
        layout: None,
        extras: None,
        allocated: None,
        inline: None,
    };
    Entry { attr, has_writers: true, delegated: None }
}

fn dir_entry() -> Entry {
    let attr = Attr {
        ino: Ino(2),
        kind: FileKind::Dir,
        mode: 0o1777,
        dist: None,
        data_gen: DataGen(0),
        ..file_entry().attr
    };
    Entry { attr, has_writers: false, delegated: None }
}

fn fsck(s: &mut Samples) {
    let cred = Cred { uid: 1, gid: 2, groups: vec![3] };
    let object = |ino| ObjectId { ino: Ino(ino), data_gen: DataGen(5), slot: Slot(6) };
    s.both(
        &ListObjects { target: TargetId(1), after: Some(object(2)), max: 3 },
        &Objects { objects: vec![object(4), object(7)], strangers: vec!["objects/000/x".into()], end: true },
    );
    s.both(
        &CheckStore { cred: cred.clone() },
        &StoreChecked {
            findings: vec![("inode 7".into(), "counts 2 links, has 1".into())],
            findings_total: 8,
            inodes: 9,
            sessions: 10,
            writers: 11,
            orphans: 12,
            garbage: 13,
            intents: 14,
            rolled_back: Some(RolledBack { stored_ms: 15, heard_ms: 16 }),
        },
    );
    let dist = Distribution { iodtab: IodtabGen(1), base: 2, pcount: 3, ssize: 4096 };
    let file = FileInfo {
        ino: Ino(6),
        dist,
        data_gen: DataGen(7),
        size: 8,
        size_epoch: 9,
        busy: true,
        orphan: false,
        allocated: None,
        inline: None,
    };
    s.both(
        &ListFiles { cred: cred.clone(), after: Ino(4), max: 5 },
        &Files { files: vec![file], end: false },
    );
    s.reply::<ListFiles>(&Files { files: vec![FileInfo { allocated: Some(10), ..file }], end: true });
    s.reply::<ListFiles>(&Files { files: vec![FileInfo { inline: Some(true), ..file }], end: true });
    s.both(
        &JudgeObjects { cred: cred.clone(), target: TargetId(1), objects: vec![object(2)] },
        &Judged {
            verdicts: vec![
                Verdict::Live,
                Verdict::Garbage,
                Verdict::Nobodys,
                Verdict::Newer,
                Verdict::Misplaced,
            ],
        },
    );
    s.both(
        &Repair {
            cred,
            fixes: vec![
                Fix::Counts,
                Fix::Remove(TargetId(1), object(2)),
                Fix::Grow { ino: Ino(3), size_epoch: 4, size: 5 },
                Fix::Pass(object(6)),
                Fix::Settle,
            ],
        },
        &Repaired { changed: vec![1, 0, 2] },
    );
}

fn xattr_name(text: &str) -> XattrName {
    XattrName::new(text).expect("a name")
}

fn xattrs(s: &mut Samples) {
    let user = || xattr_name("user.mime_type");
    s.both(
        &GetXattr { caller: caller(), ino: Ino(7), name: user() },
        &XattrValue { value: b"text/\xffplain".to_vec() },
    );
    s.both(
        &ListXattr { caller: caller(), ino: Ino(7) },
        &XattrNames { names: vec![xattr_name("security.capability"), user()] },
    );
    let set = |mode| SetXattr { by: mutator(), ino: Ino(7), name: user(), value: vec![1, 0, 2], mode };
    s.both(&set(XattrMode::Set), &file_entry());
    s.request(&set(XattrMode::Create));
    s.request(&set(XattrMode::Replace));
    let extras = Extras { acl: true, default_acl: false, file_caps: true, others: false };
    let attr = Attr { extras: Some(extras), ..file_entry().attr };
    s.both(
        &RemoveXattr { by: mutator(), ino: Ino(7), name: user() },
        &Entry { attr, has_writers: false, delegated: None },
    );
}

/// What ACLs and file capabilities added to messages that were there.
fn acls(s: &mut Samples) {
    s.request(&SetAttr {
        by: mutator(),
        ino: Ino(7),
        changes: Changes::default(),
        by_handle: true,
        want: None,
        drop_privileges: Some(true),
    });
    s.request(&Create {
        by: mutator(),
        dir: Ino(1),
        name: name("new"),
        mode: 0o640,
        exclusive: false,
        open: None,
        truncate: false,
        layout: layout(),
        unmasked: Some(0o666),
    });
    s.request(&MkDir { by: mutator(), dir: Ino(1), name: name("dir"), mode: 0o755, unmasked: Some(0o777) });
    s.request(&MkNod {
        by: mutator(),
        dir: Ino(1),
        name: name("pipe"),
        mode: 0o644,
        kind: FileKind::Fifo,
        rdev: (0, 0),
        unmasked: Some(0o666),
    });
}

fn quotas(s: &mut Samples) {
    let owners = [QuotaOwner::Group(100), QuotaOwner::Tree(Ino(1 << 40)), QuotaOwner::User(1000)];
    let quota = Quota {
        owner: owners[1],
        bytes: 1 << 42,
        bytes_ahead: 1 << 20,
        bytes_limit: Some(1 << 43),
        inodes: 12,
        inodes_limit: Some(13),
        path: Some(b"/proj/\xff".to_vec()),
    };
    s.both(
        &SetQuota {
            by: mutator(),
            owner: owners[0],
            bytes: LimitChange::Set(1 << 43),
            inodes: LimitChange::Clear,
        },
        &quota,
    );
    s.request(&SetQuota {
        by: mutator(),
        owner: owners[1],
        bytes: LimitChange::Keep,
        inodes: LimitChange::Set(1),
    });
    s.both(
        &GetQuotas { caller: caller(), owner: Some(owners[2]), after: Some(owners[0]), max: 77 },
        &Quotas { counted: true, quotas: vec![quota], end: true },
    );
    let grant = Grant { size_max: Some(1 << 33), ..capability().grant };
    s.reply::<Open>(&Opened { entry: file_entry(), capability: Capability::sign(grant, &key()) });
    s.request(&Open {
        by: mutator(),
        ino: Ino(7),
        access: Access::WRITE,
        truncate: false,
        again: true,
        grow_to: Some(1 << 33),
    });
    s.reply::<Heartbeat>(&HeartbeatAnswer { mgr_time_ms: 4, targets: vec![], writes_since_ms: Some(3) });
    let usage = FsUsage { bytes_total: 1 << 30, bytes_free: 1 << 29, inodes: 12, inodes_max: Some(100) };
    s.both(&StatFs { at: Some(Ino(7)) }, &usage);
}
