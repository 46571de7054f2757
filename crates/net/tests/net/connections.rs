//! What a `Peer` and a `Server` promise while connections come and go.

use crate::support::{Daemon, client, dialer, identity, until};
use bytes::Bytes;
use pvfs_net::{CallError, NetError};
use pvfs_types::{DataGen, Distribution, Ino, IodtabGen, ObjectOffset, SessionId, Slot, TargetId};
use pvfs_wire::{
    Access, Capability, Lease, MacKey, Refusal, Status,
    cap::Grant,
    msg::{
        data::{Pass, Ranges, Run, Write},
        hello::Role,
        namespace::StatFs,
        session::GetTargets,
    },
};
use std::{
    sync::{Arc, atomic::Ordering},
    time::Duration,
};
use tokio::sync::Semaphore;

fn write() -> Write {
    let key = MacKey::from_daemon_secret(&[0; 32]);
    let dist = Distribution { iodtab: IodtabGen(1), base: 0, pcount: 1, ssize: 4096 };
    let grant = Grant {
        session: SessionId(1),
        ino: Ino(2),
        data_gen: DataGen(0),
        dist,
        access: Access::READ_WRITE,
        granted_ms: None,
        size_max: None,
    };
    let pass = Pass {
        capability: Capability::sign(grant, &key),
        lease: Lease::sign(SessionId(1), 0, &key),
        store: None,
    };
    let ranges = Ranges::List(vec![Run { offset: ObjectOffset(0), len: 3 }]);
    Write { target: TargetId(1), pass, slot: Slot(0), ranges, again: None }
}

#[tokio::test]
async fn a_call_to_a_server_that_is_not_there_yet_waits_for_it() {
    let daemon = Daemon::start().await;
    let (addr, desk) = daemon.kill();
    let peer = client(&addr);
    let call = tokio::spawn({
        let peer = Arc::clone(&peer);
        async move { peer.call(&GetTargets {}).await }
    });
    until(|| peer.waiting().is_some_and(|waiting| waiting.tries >= 3)).await;
    let _daemon = Daemon::start_at(&addr, desk).await;
    assert_eq!(call.await.unwrap().expect("answered in the end").version, 1);
    assert!(peer.waiting().is_none(), "nobody waits any more");
}

#[tokio::test]
async fn a_request_in_flight_when_the_server_dies_is_sent_again() {
    let daemon = Daemon::start().await;
    *daemon.desk.gate.lock().unwrap() = Some(Arc::new(Semaphore::new(0)));
    let peer = client(&daemon.addr);
    let call = tokio::spawn(async move { peer.call_payload_raw().await });
    until(|| daemon.desk.begun.load(Ordering::SeqCst) == 1).await;
    let (addr, _) = daemon.kill();
    let reborn = Daemon::start_at(&addr, Arc::default()).await;
    call.await.unwrap();
    assert_eq!(*reborn.desk.written.lock().unwrap(), [Bytes::from_static(b"abc")]);
}

/// A `Write` whose reply this test's daemon leaves to be a bare number.
trait RawWrite {
    async fn call_payload_raw(&self);
}

impl RawWrite for pvfs_net::Peer {
    async fn call_payload_raw(&self) {
        // The daemon's answer is no `Written`: that it came at all is what counts.
        let answer = self.call_payload(&write(), &[Bytes::from_static(b"abc")]).await;
        assert!(matches!(answer, Err(Refusal { status: Status::Errno(_), .. })), "{answer:?}");
    }
}

#[tokio::test]
async fn not_now_and_dropped_requests_are_asked_again() {
    let daemon = Daemon::start().await;
    daemon.desk.not_now.store(2, Ordering::SeqCst);
    daemon.desk.forgetful.store(2, Ordering::SeqCst);
    let peer = client(&daemon.addr);
    assert_eq!(peer.call(&GetTargets {}).await.expect("answered").version, 1);
    assert!(peer.waiting().is_none());
}

#[tokio::test]
async fn other_refusals_come_back_at_once_and_leave_the_connection_whole() {
    let daemon = Daemon::start().await;
    let peer = client(&daemon.addr);
    let refusal = peer.call(&StatFs::default()).await.expect_err("not in this test");
    assert_eq!(refusal.status, Status::BadRequest);
    assert_eq!(peer.call(&GetTargets {}).await.expect("answered").version, 1);
    assert_eq!(
        metric(
            &daemon,
            "pvfs_messages_total{dir=\"received\",kind=\"request\",op=\"statfs\",peer=\"client\"}"
        ),
        1
    );
    assert_eq!(
        metric(
            &daemon,
            "pvfs_messages_total{dir=\"sent\",kind=\"reply\",op=\"get_targets\",peer=\"client\"}"
        ),
        1
    );
}

fn metric(daemon: &Daemon, series: &str) -> u64 {
    daemon.metrics.snapshot().into_iter().find(|(name, _)| name == series).map_or(0, |(_, value)| value)
}

#[tokio::test]
async fn many_calls_share_one_connection() {
    let daemon = Daemon::start().await;
    let peer = client(&daemon.addr);
    let calls: Vec<_> = (0..200)
        .map(|_| {
            let peer = Arc::clone(&peer);
            tokio::spawn(async move { peer.call(&GetTargets {}).await.expect("answered").version })
        })
        .collect();
    let mut versions = Vec::new();
    for call in calls {
        versions.push(call.await.unwrap());
    }
    versions.sort_unstable();
    assert_eq!(versions, (1..=200).collect::<Vec<u64>>(), "each answer went to its own caller");
}

#[tokio::test]
async fn a_caller_that_gives_up_leaves_the_others_alone() {
    let daemon = Daemon::start().await;
    daemon.desk.silent.store(1, Ordering::SeqCst);
    let peer = client(&daemon.addr);
    let gone = tokio::spawn({
        let peer = Arc::clone(&peer);
        async move { peer.call(&GetTargets {}).await }
    });
    until(|| daemon.desk.unanswered.lock().unwrap().len() == 1).await;
    gone.abort();
    let _ = gone.await;
    assert_eq!(peer.call(&GetTargets {}).await.expect("answered").version, 1);
    assert_eq!(metric(&daemon, "pvfs_takeovers_total"), 0, "on the same connection");
}

#[tokio::test]
async fn a_write_that_was_given_up_is_over_before_the_same_client_is_served_again() {
    let daemon = Daemon::start().await;
    let gate = Arc::new(Semaphore::new(0));
    *daemon.desk.gate.lock().unwrap() = Some(Arc::clone(&gate));
    let peer = client(&daemon.addr);
    let gone = tokio::spawn({
        let peer = Arc::clone(&peer);
        async move { peer.call_payload_raw().await }
    });
    until(|| daemon.desk.begun.load(Ordering::SeqCst) == 1).await;
    gone.abort();
    let _ = gone.await;
    let next = tokio::spawn(async move { peer.call(&GetTargets {}).await });
    until(|| metric(&daemon, "pvfs_takeovers_total") == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!next.is_finished() && daemon.desk.asked.load(Ordering::SeqCst) == 0);
    gate.add_permits(1);
    next.await.unwrap().expect("served once the late write has landed");
    assert_eq!(daemon.desk.written.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn a_newer_connection_is_welcomed_only_when_the_older_ones_writes_have_ended() {
    let daemon = Daemon::start().await;
    let gate = Arc::new(Semaphore::new(0));
    *daemon.desk.gate.lock().unwrap() = Some(Arc::clone(&gate));
    // Two peers of one identity stand for one client that lost its connection without a word.
    let dialer = dialer(identity(Role::Client));
    let [old, new] = [0, 1].map(|_| dialer.peer(Role::Mgr, vec![daemon.addr.clone()]));
    let stuck = tokio::spawn(async move { old.call_payload_raw().await });
    until(|| daemon.desk.begun.load(Ordering::SeqCst) == 1).await;
    let newer = tokio::spawn(async move { new.call(&GetTargets {}).await });
    // The newer one's hello was taken, yet it is not served.
    until(|| metric(&daemon, "pvfs_takeovers_total") == 1).await;
    for _ in 0..100 {
        tokio::task::yield_now().await;
    }
    assert!(!newer.is_finished() && daemon.desk.asked.load(Ordering::SeqCst) == 0);
    stuck.abort();
    gate.add_permits(1);
    newer.await.unwrap().expect("served once the late write has landed");
    assert_eq!(daemon.desk.written.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn one_try_says_what_failed() {
    let daemon = Daemon::start().await;
    let peer = client(&daemon.addr);
    peer.call_once(&GetTargets {}, Duration::from_secs(5)).await.expect("answered");
    let (addr, _) = daemon.kill();
    let gone = client(&addr).call_once(&GetTargets {}, Duration::from_secs(5)).await;
    assert!(matches!(gone, Err(CallError::Unreachable(NetError::Connect { .. }))), "{gone:?}");
}

#[tokio::test]
async fn the_next_connection_goes_to_the_new_address() {
    let daemon = Daemon::start().await;
    let peer = client("127.0.0.1:1");
    let mut failures = peer.unreachable();
    let call = tokio::spawn({
        let peer = Arc::clone(&peer);
        async move { peer.call(&GetTargets {}).await }
    });
    failures.changed().await.expect("a failed connect is told");
    peer.set_addrs(vec![daemon.addr.clone()]);
    call.await.unwrap().expect("answered at the new address");
}

#[tokio::test]
async fn a_port_in_use_is_said_plainly() {
    let daemon = Daemon::start().await;
    let again = pvfs_net::Server::bind(
        Arc::new(pvfs_env::TcpTransport),
        &daemon.addr,
        identity(Role::Mgr),
        pvfs_env::Metrics::new(),
    );
    let error = again.await.err().expect("the port is taken").to_string();
    assert!(error.contains(&daemon.addr) && error.contains("choose another port"), "{error}");
}
