//! Sessions, exactly once over connections and restarts, and who may ask what.

use crate::world::{GENERATIONS, World};
use pvfs_types::{Errno, Ino, SessionId};
use pvfs_wire::{
    Access, Status,
    cap::MacKey,
    msg::{
        admin::{GetStatus, Heartbeat, TargetReport},
        data::RemoveObjects,
        hello::Role,
        namespace::GetAttr,
        session::{Caller, CloseSession, GetTargets},
    },
};

#[tokio::test]
async fn a_create_sent_again_after_a_restart_gets_the_first_answer() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let request = client.create("a");
    let first = client.peer.call(&request).await.expect("creates");
    assert_eq!(client.peer.call(&request).await.expect("repeats"), first);
    let clash = client.create("a");
    let refused = client.peer.call(&clash).await.expect_err("is there");
    assert_eq!(refused.status, Status::Errno(Errno::EEXIST));
    mgr.stop().await;

    let mgr = world.start_mgr().await;
    client.follow(&mgr);
    assert_eq!(client.peer.call(&clash).await.expect_err("is there"), refused);
    assert_eq!(client.peer.call(&request).await.expect_err("late").status, Status::SlotStale);
    let again = client.reopen(1).await.expect("the same session");
    assert_eq!(again.session, client.session());
    mgr.stop().await;
}

#[tokio::test]
async fn capabilities_and_leases_are_signed_with_the_daemons_key() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let (iod, to_mgr) = (world.iod().await, world.peer(&mgr, Role::Iod));
    iod.reports(&to_mgr).await;
    let client = world.client(&mgr).await;
    let key = MacKey::from_daemon_secret(&[2; 32]);
    assert!(client.opened.lease.is_genuine(&key));
    let made = client.created("a").await;
    let capability = made.capability.expect("asked for");
    assert!(capability.is_genuine(&key));
    assert_eq!(capability.grant.access, Access::READ_WRITE);
    assert_eq!((capability.grant.ino, capability.grant.session), (made.entry.attr.ino, client.session()));
    let opened = client.open(made.entry.attr.ino, Access::READ, false).await.expect("opens");
    assert!(opened.capability.is_genuine(&key));
    assert_eq!(opened.capability.grant.access, Access::READ);
    mgr.stop().await;
}

#[tokio::test]
async fn a_strange_session_gets_nothing() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let client = world.client(&mgr).await;
    let caller = Caller { session: SessionId(99), ..client.caller() };
    let refused = client.peer.call(&GetAttr { caller, ino: Ino::ROOT }).await.expect_err("unknown");
    assert_eq!(refused.status, Status::SessionUnknown);
    client.peer.call(&CloseSession { session: client.session() }).await.expect("closes");
    assert_eq!(client.getattr(Ino::ROOT).await.expect_err("closed").status, Status::SessionUnknown);
    mgr.stop().await;
}

#[tokio::test]
async fn only_an_iod_may_send_heartbeats_and_a_mgr_is_no_iod() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let iod = world.iod().await;
    let report = TargetReport {
        uuid: iod.uuid,
        generations: GENERATIONS,
        bytes_total: 1,
        bytes_free: 1,
        device: None,
    };
    let heartbeat =
        Heartbeat { addr: iod.addr.clone(), targets: vec![report], mgr_time_ms: 0, stopping: false };
    for role in [Role::Client, Role::Mgr] {
        let refused = world.peer(&mgr, role).call(&heartbeat).await.expect_err("not for this role");
        assert_eq!(refused.status, Status::Unauthorized, "{role:?}");
    }
    let client = world.peer(&mgr, Role::Client);
    assert!(client.call(&GetTargets {}).await.expect("answers").targets.is_empty(), "nothing joined");
    let misplaced = RemoveObjects { target: pvfs_types::TargetId(1), objects: Vec::new() };
    assert_eq!(client.call(&misplaced).await.expect_err("no iod").status, Status::BadRequest);
    mgr.stop().await;
}

#[tokio::test]
async fn status_tells_of_sessions_and_counters() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let client = world.client(&mgr).await;
    let status = client.peer.call(&GetStatus {}).await.expect("answers");
    assert_eq!(status.role, Role::Mgr);
    assert_eq!(status.sessions.len(), 1);
    assert_eq!((status.sessions[0].id, status.sessions[0].label.as_str()), (client.session(), "test"));
    let counter = |name: &str| status.counters.iter().find(|(n, _)| n == name).map(|(_, value)| *value);
    assert_eq!(counter("pvfs_sessions"), Some(1));
    assert_eq!(counter("pvfs_orphans"), Some(0));
    assert!(counter("pvfs_sequencer_batches_total") >= Some(1));
    mgr.stop().await;
}
