//! The bytes of every record are pinned, and no bytes at all panic a decoder.

use proptest::prelude::*;
use pvfs_meta::record::{
    By, Client, Counter, Dentry, Grant, Inline, Inode, InodeNumbers, Intent, IodtabEntry, LockHeld, LockWait,
    Mark, MgrTime, OrphanEntry, QuotaLimits, QuotaUsage, Record, Reply, RolledBack, Session, Superblock,
    Target, TargetNumber, Writer, Xattr, XattrTotals,
};
use pvfs_types::{
    Acl, DataGen, Distribution, FileKind, FsId, Ino, IodtabGen, LayoutHint, LockKind, LockMode, LockOwner,
    LockRange, Locked, SessionId, TargetId, TargetUuid, Timestamp,
};
use std::fmt::Debug;
use std::fmt::Write;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("into a String");
        text
    })
}

/// `record` has exactly the bytes `golden`, and those give it back.
#[track_caller]
fn check<T: Record + PartialEq + Debug>(record: &T, golden: &str) {
    let bytes = record.to_bytes();
    assert_eq!(hex(&bytes), golden, "{} is written in other bytes than the disks have", T::KIND);
    assert_eq!(T::from_bytes(&bytes).expect("its own bytes"), *record);
}

const AT: Timestamp = Timestamp { secs: 1_000_000_000, nanos: 5 };
const DIST: Distribution = Distribution { iodtab: IodtabGen(1), base: 2, pcount: 4, ssize: 1 << 20 };
const BY: By = By { session: SessionId(3), slot: 63, seq: 300 };

fn inode() -> Inode {
    Inode {
        ino: Ino(1234),
        kind: FileKind::File,
        mode: 0o644,
        uid: 1000,
        gid: 100,
        nlink: 1,
        size: 1 << 33,
        size_epoch: 2,
        atime: AT,
        mtime: AT,
        ctime: AT,
        btime: AT,
        rdev: (0, 0),
        change: 9,
        dist: Some(DIST),
        data_gen: DataGen(2),
        layout: None,
        parent: None,
        target: None,
        orphan_seq: None,
        truncated_by: None,
        acl: None,
        default_acl: None,
        xattrs: None,
        tree: None,
        allowed: None,
        allocated: None,
        inline: None,
    }
}

#[test]
fn files_directories_symlinks_and_orphans_are_written_like_this() {
    check(
        &inode(),
        "01901904d2001901a41903e81864011b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009840102041a0010000002",
    );
    let layout = Some(LayoutHint { base: None, pcount: Some(2), ssize: Some(65536) });
    let dir = Inode { kind: FileKind::Dir, dist: None, layout, parent: Some(Ino::ROOT), ..inode() };
    check(
        &dir,
        "01921904d2011901a41903e81864011b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009f60283f6021a0001000001",
    );
    check(
        &Inode { kind: FileKind::Symlink, dist: None, target: Some(b"to".to_vec()), ..inode() },
        "01931904d2021901a41903e81864011b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009f602f6f642746f",
    );
    check(
        &Inode { nlink: 0, orphan_seq: Some(7), truncated_by: Some(BY), ..inode() },
        "01951904d2001901a41903e81864001b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009840102041a0010000002f6f6f6078303183f19012c",
    );
}

#[test]
fn acls_and_what_attributes_come_to_are_written_at_an_inodes_end() {
    let acl = |hex: &str| {
        let bytes: Vec<u8> = (0..hex.len())
            .step_by(2)
            .map(|at| u8::from_str_radix(&hex[at..at + 2], 16).expect("hex"))
            .collect();
        Acl::from_xattr(&bytes).expect("an ACL")
    };
    let acl = acl("0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff");
    let xattrs = Some(XattrTotals { count: 2, list_bytes: 300, file_caps: true });
    check(
        &Inode { acl: acl.clone(), xattrs, ..inode() },
        "0198181904d2001901a41903e81864011b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009840102041a0010000002f6f6f6f6f6582c0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400fffffffff6830219012cf5",
    );
    let dir = Inode { kind: FileKind::Dir, dist: None, parent: Some(Ino::ROOT), ..inode() };
    check(
        &Inode { default_acl: acl, ..dir },
        "01971904d2011901a41903e81864011b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009f602f601f6f6f6f6582c0200000001000600ffffffff02000400e803000004000400ffffffff10000400ffffffff20000400ffffffff",
    );
    check(&Xattr { value: b"text/plain".to_vec() }, "01814a746578742f706c61696e");
}

#[test]
fn quotas_are_written_like_this() {
    check(
        &Inode { tree: Some(Ino(12)), allowed: Some(1 << 34), ..inode() },
        "01981a1904d2001901a41903e81864011b000000020000000002821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009840102041a0010000002f6f6f6f6f6f6f6f60c1b0000000400000000",
    );
    check(&QuotaLimits { bytes: Some(1 << 40), inodes: None }, "01811b0000010000000000");
    check(&QuotaUsage { inodes: 3, bytes: (5 << 64) + 7, ahead: 1 << 20 }, "01830382050782001a00100000");
}

#[test]
fn names_are_written_like_this() {
    check(&Dentry { ino: Ino(1234), kind: FileKind::File }, "01821904d200");
}

#[test]
fn sessions_are_written_like_this() {
    let label = "pvfs mount on n1".to_owned();
    check(
        &Session { client: [7; 16], incarnation: 1, label, opened: AT, delegations: None },
        "01845007070707070707070707070707070707017070766673206d6f756e74206f6e206e31821a3b9aca0005",
    );
    check(&Client { session: SessionId(3) }, "018103");
    check(&Reply { seq: 300, reply: b"answer".to_vec() }, "018219012c46616e73776572");
    check(&Writer { since: AT }, "0181821a3b9aca0005");
    check(&OrphanEntry { ino: Ino(1234), linkable: None }, "01811904d2");
    check(&OrphanEntry { ino: Ino(1234), linkable: Some(true) }, "01821904d2f5");
    check(&Mark {}, "0180");
}

#[test]
fn intents_are_written_like_this() {
    let cut = Intent {
        ino: Ino(1234),
        size: 100,
        data_gen: DataGen(2),
        dist: DIST,
        by: BY,
        since: AT,
        spills: None,
    };
    check(&cut, "01861904d2186402840102041a001000008303183f19012c821a3b9aca0005");
    check(
        &Intent { spills: Some(true), ..cut },
        "01871904d2186402840102041a001000008303183f19012c821a3b9aca0005f5",
    );
}

#[test]
fn small_files_that_are_kept_here_are_written_like_this_and_older_builds_read_no_hole() {
    check(&Inline { data: b"small".to_vec() }, "018145736d616c6c");
    check(
        &Inode { size: 5, inline: Some(true), ..inode() },
        "02981c1904d2001901a41903e81864010502821a3b9aca0005821a3b9aca0005821a3b9aca0005821a3b9aca000582000009840102041a0010000002f6f6f6f6f6f6f6f6f6f6f6f5",
    );
}

#[test]
fn locks_are_written_like_this() {
    let range = LockRange { start: 5, end: 1 << 33, mode: LockMode::Write, pid: 4711 };
    let (mut ranges, mut before) = (Locked::default(), Locked::default());
    ranges.lock(range);
    ranges.lock(LockRange { start: 0, end: 1, mode: LockMode::Read, pid: 1 });
    before.lock(LockRange { mode: LockMode::Read, ..range });
    check(
        &LockHeld { ranges, granted: vec![Grant { id: 99, left: before.clone(), before }] },
        "018282840001000184051b000000020000000001191267818318638184051b0000000200000000001912678184051b000000020000000000191267",
    );
    let owner = LockOwner { kind: LockKind::Flock, id: 1 << 40 };
    check(
        &LockWait { session: SessionId(3), owner, id: 99, range, since: AT },
        "01850382011b0000010000000000186384051b000000020000000001191267821a3b9aca0005",
    );
}

#[test]
fn targets_are_written_like_this() {
    check(&Target { uuid: TargetUuid([0xab; 16]) }, "018150abababababababababababababababab");
    check(&TargetNumber { id: TargetId(4) }, "018104");
    check(&IodtabEntry { targets: vec![TargetId(1), TargetId(300)] }, "0181820119012c");
}

#[test]
fn what_concerns_the_whole_file_system_is_written_like_this() {
    check(
        &Superblock { fs: FsId([0xcd; 16]), format: 1, created: AT },
        "018350cdcdcdcdcdcdcdcdcdcdcdcdcdcdcdcd01821a3b9aca0005",
    );
    check(&MgrTime { high_water_ms: 1_000_000 }, "01811a000f4240");
    check(&InodeNumbers { next: 1235, in_use: 1000 }, "01821904d31903e8");
    check(&Counter { last: 3 }, "018103");
    check(&RolledBack { stored_ms: 7, heard_ms: 300 }, "01820719012c");
}

#[test]
fn a_field_that_a_newer_build_added_at_the_end_is_skipped() {
    // An array of two fields where this build knows one.
    assert_eq!(Counter::from_bytes(&[1, 0x82, 3, 4]).expect("reads"), Counter { last: 3 });
    assert!(Counter::from_bytes(&[1, 0x81, 3, 4]).is_err(), "bytes after the record are no field");
    assert!(Counter::from_bytes(&[2, 0x81, 3]).is_err(), "another version");
}

/// Decodes as every record: none may panic. What decodes is written and read again as the same.
fn decode_as_all(bytes: &[u8]) {
    fn one<T: Record + PartialEq + Debug>(bytes: &[u8]) {
        if let Ok(record) = T::from_bytes(bytes) {
            assert_eq!(T::from_bytes(&record.to_bytes()).expect("its own bytes"), record);
        }
    }
    one::<Superblock>(bytes);
    one::<MgrTime>(bytes);
    one::<InodeNumbers>(bytes);
    one::<Counter>(bytes);
    one::<RolledBack>(bytes);
    one::<Inode>(bytes);
    one::<Dentry>(bytes);
    one::<Session>(bytes);
    one::<Client>(bytes);
    one::<Reply>(bytes);
    one::<Writer>(bytes);
    one::<OrphanEntry>(bytes);
    one::<Mark>(bytes);
    one::<Intent>(bytes);
    one::<Target>(bytes);
    one::<TargetNumber>(bytes);
    one::<IodtabEntry>(bytes);
    one::<LockHeld>(bytes);
    one::<LockWait>(bytes);
    one::<Xattr>(bytes);
    one::<QuotaLimits>(bytes);
    one::<QuotaUsage>(bytes);
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic(mut bytes in prop::collection::vec(any::<u8>(), 0..64)) {
        decode_as_all(&bytes);
        // Past the version byte, too.
        bytes.insert(0, 1);
        decode_as_all(&bytes);
    }

    #[test]
    fn damaged_records_never_panic(at in any::<prop::sample::Index>(), byte in any::<u8>(), cut in any::<prop::sample::Index>()) {
        let mut bytes = Inode { orphan_seq: Some(7), target: Some(vec![1; 9]), ..inode() }.to_bytes();
        let at = at.index(bytes.len());
        bytes[at] = byte;
        decode_as_all(&bytes);
        bytes.truncate(cut.index(bytes.len()));
        decode_as_all(&bytes);
    }

    #[test]
    fn a_checker_over_random_bytes_never_panics(
        pairs in prop::collection::vec((prop::collection::vec(any::<u8>(), 2..40), prop::collection::vec(any::<u8>(), 0..40)), 0..20),
        space in prop::sample::select(pvfs_meta::keys::space::ALL.to_vec()),
    ) {
        use pvfs_kv::{Engine, MemEngine, WriteSet};
        let engine = MemEngine::new();
        let mut set = WriteSet::new();
        for (mut key, value) in pairs {
            set.put(&key, value.clone());
            key[0] = space;
            set.put(&key, value);
        }
        engine.commit(&set).expect("commits");
        pvfs_meta::check::check(&*engine.snapshot().expect("a snapshot")).expect("only the store can fail");
    }
}
