//! What a running iod does, over real connections.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use pvfs_iod::IodError;
use pvfs_store::{StoreError, format_target};
use pvfs_types::{
    Errno, Level, LogicalOffset, ObjectOffset, Pattern, SessionId, Slot, TargetId,
    limits::{COPY_BYTES_MAX, PAYLOAD_BYTES_MAX, PIECES_MAX},
};
use pvfs_wire::{
    Access, Capability, Lease, Status,
    cap::Grant,
    msg::{
        admin::GetStatus,
        data::{
            Acked, Commit, Copy, Fill, FillWith, Pass, Ranges, Read, RemoveObjects, StatObjects, Sync,
            TruncateObjects,
        },
        hello::Role,
    },
};
use std::time::Duration;
use support::{FS, FakeMgr, Joined, TARGET, TestIod, config, grant, key, list, object, pass, refused};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_written_are_read_back_run_by_run() {
    let it = Joined::start().await;
    let written =
        it.client.write_with(pass(Access::WRITE), 1, list(&[(4, 3), (0, 2)]), b"xyzab").await.unwrap();
    let (done, bytes) = it.client.read_with(pass(Access::READ), 1, list(&[(5, 100), (0, 5)])).await.unwrap();
    assert_eq!(&bytes[..], b"yzab\0\0x");
    assert_eq!((done.object_len, done.exists, done.generations), (7, true, written));
    let (done, bytes) = it.client.read_with(pass(Access::READ), 2, list(&[(0, 9)])).await.unwrap();
    assert_eq!((done.object_len, done.exists, bytes.len()), (0, false, 0));
    assert_eq!(it.iod.count("pvfs_iod_bytes_total{dir=\"written\"}"), 5);
    assert_eq!(it.iod.count("pvfs_iod_bytes_total{dir=\"read\"}"), 7);
    it.iod.stop().await;
}

/// From slot 1 to slot 2 of the same file.
fn copy(from: Access, to: Access, len: u64) -> Copy {
    Copy {
        target: TARGET,
        pass: pass(to),
        slot: Slot(2),
        start: ObjectOffset(4),
        end: ObjectOffset(4 + len),
        from: pass(from).capability,
        from_slot: Slot(1),
        from_start: ObjectOffset(1),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bytes_are_copied_from_object_to_object_where_both_may_be_used_so() {
    let it = Joined::start().await;
    it.client.write(0, b"abcdef").await.unwrap();
    let done = it.client.peer.call(&copy(Access::READ, Access::WRITE, 10)).await.unwrap();
    assert_eq!(done.source_len, 6);
    let (_, bytes) = it.client.read_with(pass(Access::READ), 2, list(&[(0, 100)])).await.unwrap();
    assert_eq!(&bytes[..], b"\0\0\0\0bcdef");
    assert_eq!(it.iod.count("pvfs_iod_bytes_total{dir=\"copied\"}"), 10);

    let good = || copy(Access::READ, Access::WRITE, 10);
    let mut forged = good();
    forged.from.grant.ino.0 += 1;
    let mut foreign = good();
    foreign.from = Capability::sign(Grant { session: SessionId(6), ..grant(Access::READ) }, &key());
    let mut expired = good();
    expired.pass.lease = Lease::sign(SessionId(5), 1, &key());
    for (req, status) in [
        (copy(Access::WRITE, Access::WRITE, 10), Status::CapabilityRights),
        (copy(Access::READ, Access::READ, 10), Status::CapabilityRights),
        (copy(Access::READ, Access::WRITE, 0), Status::BadRequest),
        (copy(Access::READ, Access::WRITE, COPY_BYTES_MAX + 1), Status::BadRequest),
        (Copy { from_slot: Slot(4), ..good() }, Status::BadRequest),
        (Copy { from_start: ObjectOffset(u64::MAX - 3), ..good() }, Status::Errno(Errno::EFBIG)),
        (Copy { end: ObjectOffset(u64::MAX), ..good() }, Status::Errno(Errno::EFBIG)),
        (Copy { target: TargetId(77), ..good() }, Status::WrongTarget),
        (forged, Status::CapabilityForged),
        (foreign, Status::CapabilityForged),
        (expired, Status::LeaseExpired),
    ] {
        assert_eq!(refused(it.client.peer.call(&req).await), status, "{req:?}");
    }
    let (_, bytes) = it.client.read_with(pass(Access::READ), 2, list(&[(0, 100)])).await.unwrap();
    assert_eq!(&bytes[..], b"\0\0\0\0bcdef", "what was refused changed nothing");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_strided_request_reaches_the_slot_s_share() {
    let it = Joined::start().await;
    // 4 slots with strips of 4,096: of each stripe the last 8 bytes of slot 0 and the first 8 of slot 1.
    let pattern = || {
        let levels = vec![Level { count: 3, stride: 4 * 4096 }];
        Ranges::Strided(Pattern { start: LogicalOffset(4096 - 8), len: 16, levels })
    };
    it.client.write_with(pass(Access::WRITE), 1, pattern(), b"aaaaaaaabbbbbbbbcccccccc").await.unwrap();
    let (_, bytes) = it.client.read_with(pass(Access::READ), 1, pattern()).await.unwrap();
    assert_eq!(&bytes[..], b"aaaaaaaabbbbbbbbcccccccc");
    assert_eq!(&it.client.read(4090, 20).await.unwrap()[..], b"\0\0\0\0\0\0bbbbbbbb\0\0\0\0\0\0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_largest_request_goes_through() {
    let it = Joined::start().await;
    let bytes: Vec<u8> = (0..PAYLOAD_BYTES_MAX).map(|n| n.to_le_bytes()[1]).collect();
    it.client.write(0, &bytes).await.unwrap();
    assert!(it.client.read(0, PAYLOAD_BYTES_MAX).await.unwrap() == bytes);
}

#[tokio::test]
async fn an_iod_works_on_a_current_thread_runtime() {
    let it = Joined::start().await;
    it.client.write(0, &vec![7; 100_000]).await.unwrap();
    assert_eq!(it.client.read(99_990, 100).await.unwrap().len(), 10);
    let sync = Sync { target: TARGET, pass: pass(Access::READ), slots: vec![Slot(1)] };
    it.client.peer.call(&sync).await.unwrap();
    it.iod.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_passes_get_typed_refusals_and_keep_their_connection() {
    let it = Joined::start().await;
    let forged_file = {
        let mut pass = pass(Access::READ_WRITE);
        pass.capability.grant.ino.0 += 1;
        pass
    };
    let expired = Pass {
        lease: Lease::sign(pass(Access::READ).lease.session, 1000, &key()),
        ..pass(Access::READ_WRITE)
    };
    let read_only = pass(Access::READ);
    for (pass, expect) in [
        (forged_file, Status::CapabilityForged),
        (expired, Status::LeaseExpired),
        (read_only, Status::CapabilityRights),
    ] {
        assert_eq!(refused(it.client.write_with(pass, 1, list(&[(0, 1)]), b"x").await), expect);
    }
    let past_pcount = it.client.write_with(pass(Access::WRITE), 4, list(&[(0, 1)]), b"x").await;
    assert_eq!(refused(past_pcount), Status::BadRequest);
    it.client.write(0, b"x").await.unwrap();
    assert_eq!(it.iod.count("pvfs_iod_refusals_total{op=\"write\",status=\"lease_expired\"}"), 1);
    assert_eq!(it.iod.count("pvfs_takeovers_total"), 0, "nobody had to connect again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_granted_before_the_iod_started_makes_no_object_but_writes_to_those_that_are_there() {
    let it = Joined::start().await;
    let write = async |granted_ms| {
        let grant = Grant { granted_ms: Some(granted_ms), ..grant(Access::WRITE) };
        let pass = Pass { capability: Capability::sign(grant, &key()), ..pass(Access::WRITE) };
        it.client.write_with(pass, 1, list(&[(0, 1)]), b"x").await
    };
    assert_eq!(refused(write(1000).await), Status::CapabilityOld, "it may have been removed before 1000");
    let stat = StatObjects { target: TARGET, objects: vec![object(1)], store: None };
    assert_eq!(it.client.peer.call(&stat).await.unwrap().objects, [None]);
    write(1001).await.unwrap();
    write(1000).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_limits_do_not_allow_is_not_written_also_by_what_was_granted_before_them() {
    let it = Joined::start().await;
    let write = async |granted_ms, size_max, at| {
        let grant = Grant { granted_ms: Some(granted_ms), size_max, ..grant(Access::WRITE) };
        let pass = Pass { capability: Capability::sign(grant, &key()), ..pass(Access::WRITE) };
        it.client.write_with(pass, 1, list(&[(at, 1)]), b"x").await
    };
    write(1001, Some(4096 + 1), 0).await.unwrap();
    assert_eq!(refused(write(1001, Some(4096 + 1), 1).await), Status::CapabilityRights);
    let room = Fill {
        target: TARGET,
        pass: Pass {
            capability: Capability::sign(
                Grant { granted_ms: Some(1001), size_max: Some(4096 + 1), ..grant(Access::WRITE) },
                &key(),
            ),
            ..pass(Access::WRITE)
        },
        slot: Slot(1),
        start: ObjectOffset(0),
        end: ObjectOffset(2),
        with: FillWith::Room,
        again: None,
    };
    assert_eq!(refused(it.client.peer.call(&room).await), Status::CapabilityRights);
    it.mgr.answer.lock().unwrap().writes_since_ms = Some(1500);
    // The second heartbeat from now on follows an answer that told it.
    it.mgr.hears_next().await;
    it.mgr.hears_next().await;
    assert_eq!(refused(write(1500, None, 0).await), Status::CapabilityOld);
    write(1501, None, 0).await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn bad_ranges_are_refused_and_write_nothing() {
    let it = Joined::start().await;
    let too_many: Vec<(u64, u32)> = (0..=PIECES_MAX as u64).map(|n| (2 * n, 1)).collect();
    for (ranges, expect) in [
        (list(&[(0, 0)]), Status::BadRequest),
        (list(&[(0, 2)]), Status::BadRequest),
        (list(&[(u64::MAX, 1)]), Status::Errno(Errno::EFBIG)),
        (list(&[(i64::MAX.cast_unsigned(), 1)]), Status::Errno(Errno::EFBIG)),
        (list(&too_many), Status::BadRequest),
    ] {
        assert_eq!(refused(it.client.write_with(pass(Access::WRITE), 1, ranges, b"x").await), expect);
    }
    let much = list(&[(0, PAYLOAD_BYTES_MAX), (0, 1)]);
    assert_eq!(refused(it.client.read_with(pass(Access::READ), 1, much).await), Status::BadRequest);
    let stat = StatObjects { target: TARGET, objects: vec![object(1)], store: None };
    assert_eq!(it.client.peer.call(&stat).await.unwrap().objects, [None]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_is_not_here_is_the_wrong_one() {
    let it = Joined::start().await;
    let req = Read { target: TargetId(99), pass: pass(Access::READ), slot: Slot(0), ranges: list(&[(0, 1)]) };
    assert_eq!(refused(it.client.peer.call_payload(&req, &[]).await), Status::WrongTarget);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn objects_are_removed_and_cut_for_mgrs_only() {
    let it = Joined::start().await;
    it.client.write(0, b"hello").await.unwrap();
    let cut = TruncateObjects { target: TARGET, objects: vec![(object(1), 2), (object(2), 2)] };
    let remove = RemoveObjects { target: TARGET, objects: vec![object(1), object(3)] };
    assert_eq!(refused(it.client.peer.call(&cut).await), Status::Unauthorized);
    assert_eq!(refused(it.client.peer.call(&remove).await), Status::Unauthorized);
    assert_eq!(&it.client.read(0, 9).await.unwrap()[..], b"hello");
    let mgr = it.iod.peer(Role::Mgr);
    mgr.call(&cut).await.unwrap();
    assert_eq!(&it.client.read(0, 9).await.unwrap()[..], b"he");
    mgr.call(&remove).await.unwrap();
    mgr.call(&remove).await.expect("also when it is sent again");
    let stat = StatObjects { target: TARGET, objects: vec![object(1), object(2)], store: None };
    assert_eq!(it.client.peer.call(&stat).await.unwrap().objects, [None, None], "a cut makes no object");
    assert_eq!(refused(it.client.write(0, b"late").await), Status::Errno(Errno::ESTALE));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sizes_are_told_to_any_peer() {
    let it = Joined::start().await;
    it.client.write(4090, b"hello").await.unwrap();
    let stat = StatObjects { target: TARGET, objects: vec![object(0), object(1)], store: None };
    let stats = it.client.peer.call(&stat).await.unwrap().objects;
    assert_eq!((stats[0], stats[1].map(|stat| stat.len)), (None, Some(4095)));
    let many = StatObjects { target: TARGET, objects: vec![object(1); 1000], store: None };
    assert_eq!(it.client.peer.call(&many).await.unwrap().objects.len(), 1000);
    let too_many = StatObjects { target: TARGET, objects: vec![object(1); PIECES_MAX + 1], store: None };
    assert_eq!(refused(it.client.peer.call(&too_many).await), Status::BadRequest);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_iod_that_was_killed_serves_open_files_again_without_any_mgr() {
    let it = Joined::start().await;
    let before = it.client.write(0, b"hello").await.unwrap();
    let Joined { mgr, iod, dir, .. } = it;
    drop(mgr);
    iod.kill().await;
    let dirs = [dir.path().to_owned()];
    let again = TestIod::start(&dirs, "127.0.0.1:1").await;
    assert_eq!(&again.client().read(0, 9).await.unwrap()[..], b"hello");
    let after = again.client().write(5, b"!").await.unwrap();
    assert_eq!((after.boot, after.store), (before.boot, before.store), "nothing was lost");
    assert_ne!(after.process, before.process);
    again.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_followed_time_survives_a_restart_without_any_mgr() {
    let it = Joined::start().await;
    it.mgr.answer.lock().unwrap().mgr_time_ms = 2000;
    it.mgr.hears(|beat| beat.mgr_time_ms == 2000).await;
    assert_eq!(refused(it.client.read(0, 1).await), Status::LeaseExpired);
    let Joined { mgr, iod, dir, .. } = it;
    drop(mgr);
    iod.kill().await;
    let dirs = [dir.path().to_owned()];
    let again = TestIod::start(&dirs, "127.0.0.1:1").await;
    assert_eq!(refused(again.client().read(0, 1).await), Status::LeaseExpired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mgr_whose_time_is_behind_does_not_turn_the_clock_back() {
    let it = Joined::start().await;
    it.mgr.answer.lock().unwrap().mgr_time_ms = 3000;
    it.mgr.hears(|beat| beat.mgr_time_ms == 3000).await;
    it.mgr.answer.lock().unwrap().mgr_time_ms = 1500;
    // The second heartbeat from now on knows the answer to the first.
    for _ in 0..2 {
        assert_eq!(it.mgr.hears_next().await.mgr_time_ms, 3000);
    }
    assert_eq!(refused(it.client.read(0, 1).await), Status::LeaseExpired);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_target_serves_once_a_mgr_told_its_number() {
    let dir = tempfile::tempdir().unwrap();
    format_target(dir.path(), support::FS).unwrap();
    let iod = TestIod::start(&[dir.path().to_owned()], "127.0.0.1:1").await;
    assert_eq!(refused(iod.client().read(0, 1).await), Status::WrongTarget);
    let status = iod.client().peer.call(&GetStatus {}).await.unwrap();
    assert_eq!((status.role, status.targets[0].id), (Role::Iod, None));
    assert!(status.targets[0].bytes_total > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_target_that_a_mgr_calls_otherwise_or_refuses_stops_serving_until_it_is_right_again() {
    let it = Joined::start().await;
    it.client.write(0, b"x").await.unwrap();
    for wrong in [Some(TargetId(8)), None] {
        it.mgr_tells(wrong).await;
        assert_eq!(refused(it.client.read(0, 1).await), Status::WrongTarget);
        it.mgr_tells(Some(TARGET)).await;
        assert_eq!(&it.client.read(0, 1).await.unwrap()[..], b"x");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stopping_iod_says_so_and_closes_its_targets() {
    let it = Joined::start().await;
    it.client.write(0, b"x").await.unwrap();
    it.iod.stop().await;
    it.mgr.hears(|beat| beat.stopping).await;
    let state = std::fs::read_to_string(it.dir.path().join("state")).unwrap();
    assert!(state.contains("clean yes"), "{state}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mgr_that_comes_late_is_found() {
    let dir = tempfile::tempdir().unwrap();
    format_target(dir.path(), support::FS).unwrap();
    let addr = FakeMgr::start(1).await.stop().await;
    let iod = TestIod::start(&[dir.path().to_owned()], &addr).await;
    assert_eq!(refused(iod.client().read(0, 1).await), Status::WrongTarget);
    let mgr = FakeMgr::start_at(&addr, 1000).await;
    mgr.hears(|beat| beat.mgr_time_ms == 1000).await;
    assert_eq!(mgr.hears(|_| true).await.addr, iod.addr);
    iod.client().write(0, b"x").await.unwrap();
}

#[tokio::test]
async fn what_an_iod_cannot_start_with_is_said() {
    let dir = tempfile::tempdir().unwrap();
    format_target(dir.path(), support::FS).unwrap();
    let dirs = [dir.path().to_owned()];
    let start = |config| pvfs_iod::run(config, std::future::pending(), |_| {});
    assert!(matches!(start(config(&[], "127.0.0.1:1")).await, Err(IodError::NoTarget)));
    let twice = [dirs[0].clone(), dirs[0].join(".")];
    assert!(matches!(start(config(&twice, "127.0.0.1:1")).await, Err(IodError::TwiceTheTarget { .. })));
    let mut everywhere = config(&dirs, "127.0.0.1:1");
    everywhere.listen = "0.0.0.0:0".into();
    assert!(matches!(start(everywhere).await, Err(IodError::NoAddress { .. })));
    let running = TestIod::start(&dirs, "127.0.0.1:1").await;
    let second = start(config(&dirs, "127.0.0.1:1")).await;
    assert!(matches!(second, Err(IodError::Store(StoreError::InUse { .. }))));
    let other = tempfile::tempdir().unwrap();
    format_target(other.path(), support::FS).unwrap();
    let mut taken = config(&[other.path().to_owned()], "127.0.0.1:1");
    taken.listen.clone_from(&running.addr);
    let error = start(taken).await.unwrap_err().to_string();
    assert!(error.contains(&running.addr) && error.contains("another port"), "{error}");
    running.stop().await;
}

fn commit(store: Option<u64>, now: bool) -> Commit {
    Commit { target: TARGET, store, now }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_is_committed_by_and_by_and_at_once_where_asked_for() {
    let dir = tempfile::tempdir().unwrap();
    format_target(dir.path(), FS).unwrap();
    let mgr = FakeMgr::start(1000).await;
    let mut config = config(&[dir.path().to_owned()], &mgr.addr);
    config.commit_period = Duration::from_millis(50);
    let iod = TestIod::start_with(config.clone()).await;
    mgr.hears(|beat| beat.mgr_time_ms >= 1000).await;
    let client = iod.client();
    let written = client.write_told(b"abc", None).await.unwrap();
    let committed = async || {
        let told = client.peer.call(&commit(Some(written.generations.store), false)).await.unwrap();
        told.durability.unwrap().committed
    };
    let mark = written.durability.unwrap().mark;
    let by_and_by = async {
        while committed().await < mark {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), by_and_by).await.expect("committed by itself");
    assert!(iod.count("pvfs_iod_commits_total{result=\"done\"}") >= 1);
    iod.stop().await;

    config.commit_period = Duration::from_hours(1);
    config.metrics = pvfs_env::Metrics::new();
    let iod = TestIod::start_with(config.clone()).await;
    let client = iod.client();
    let mark = client.write_told(b"abc", None).await.unwrap().durability.unwrap().mark;
    assert!(client.peer.call(&commit(None, false)).await.unwrap().durability.unwrap().committed < mark);
    assert!(client.peer.call(&commit(None, true)).await.unwrap().durability.unwrap().committed >= mark);
    iod.stop().await;

    // Many bytes do not wait for the time.
    config.commit_bytes = 1000;
    config.metrics = pvfs_env::Metrics::new();
    let iod = TestIod::start_with(config).await;
    iod.client().write(0, &[1; 1000]).await.unwrap();
    let early = async {
        while iod.count("pvfs_iod_commits_total{result=\"done\"}") == 0 {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), early).await.expect("committed before its time");
    iod.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_a_machines_death_nothing_is_served_to_who_still_holds_bytes() {
    let dir = tempfile::tempdir().unwrap();
    format_target(dir.path(), FS).unwrap();
    let mgr = FakeMgr::start(1000).await;
    let boot_id = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(&boot_id, "00000000-0000-0001").unwrap();
    let mut config = config(&[dir.path().to_owned()], &mgr.addr);
    config.boot_id = Some(boot_id.path().to_owned());
    let iod = TestIod::start_with(config.clone()).await;
    mgr.hears(|beat| beat.mgr_time_ms >= 1000).await;
    let written = iod.client().write_told(b"abc", None).await.unwrap();
    let (known, mark) = (written.generations.store, written.durability.unwrap().mark);
    iod.kill().await;

    std::fs::write(&boot_id, "00000000-0000-0002").unwrap();
    let iod = TestIod::start_with(config).await;
    let holder = iod.client();
    let raised = Status::StoreRaised(known + 1);
    let pass = |store| Pass { store, ..pass(Access::READ_WRITE) };
    let held = Some(known);
    assert_eq!(refused(holder.write_with(pass(held), 1, list(&[(0, 1)]), b"x").await), raised);
    assert_eq!(refused(holder.read_with(pass(held), 1, list(&[(0, 1)])).await), raised);
    let sync = Sync { target: TARGET, pass: pass(held), slots: vec![Slot(1)] };
    assert_eq!(refused(holder.peer.call(&sync).await), raised);
    let stat = StatObjects { target: TARGET, objects: vec![object(1)], store: held };
    assert_eq!(refused(holder.peer.call(&stat).await), raised);
    assert_eq!(refused(holder.peer.call(&commit(held, true)).await), raised);
    // Who holds nothing is served, and so is who sends again what it holds.
    holder.read_with(pass(None), 1, list(&[(0, 1)])).await.unwrap();
    let again =
        holder.write_told(b"abc", Some(Acked { generation: known, mark, below: None })).await.unwrap();
    assert_eq!(again.generations.store, known + 1);
    holder.read_with(pass(Some(known + 1)), 1, list(&[(0, 1)])).await.unwrap();
    iod.stop().await;
}
