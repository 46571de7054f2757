//! Which store a mgr starts on.

use crate::world::World;
use pvfs_mgr::{MgrConfig, MgrError, format, run};
use pvfs_types::{FsId, TargetUuid};
use pvfs_wire::msg::hello::Secret;
use std::{future, path::Path};
use tokio::sync::oneshot;

fn config(fs: FsId, dir: &Path) -> MgrConfig {
    let mut config = MgrConfig::new(fs, dir, Secret([1; 32]), Secret([2; 32]));
    config.listen = "127.0.0.1:0".into();
    config
}

async fn refusal(config: MgrConfig) -> MgrError {
    run(config, future::pending(), |addr| panic!("serves on {addr}")).await.expect_err("does not start")
}

/// Starts and stops a mgr on a store in `parent`, twice.
async fn check_on(parent: &Path) {
    let dir = tempfile::tempdir_in(parent).expect("a directory");
    let fs = FsId::random();
    format(dir.path(), fs, &[TargetUuid::random()]).expect("formats");
    for _ in 0..2 {
        let (tell, told) = oneshot::channel();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let mgr = tokio::spawn(run(config(fs, dir.path()), shutdown, |addr| tell.send(addr).expect("waits")));
        told.await.expect("serves");
        let second = refusal(config(fs, dir.path())).await;
        assert!(second.to_string().contains("in use by another daemon"), "{second}");
        stop.send(()).expect("runs");
        mgr.await.expect("no panic").expect("no error");
    }
}

#[tokio::test]
async fn a_formatted_store_serves_one_mgr_at_a_time_on_disk_and_on_tmpfs() {
    check_on(&std::env::temp_dir()).await;
    if Path::new("/dev/shm").is_dir() {
        check_on(Path::new("/dev/shm")).await;
    }
}

#[tokio::test]
async fn a_store_that_is_missing_or_of_another_file_system_is_refused() {
    let dir = tempfile::tempdir().expect("a directory");
    let fs = FsId::random();
    let missing = refusal(config(fs, dir.path())).await;
    assert!(matches!(missing, MgrError::NotFormatted { .. }), "{missing}");
    assert_eq!(std::fs::read_dir(dir.path()).expect("is there").count(), 0, "nothing was made");
    format(dir.path(), fs, &[]).expect("formats");
    assert!(matches!(format(dir.path(), fs, &[]), Err(MgrError::FormattedAlready { .. })));
    let other = refusal(config(FsId::random(), dir.path())).await;
    assert!(matches!(other, MgrError::OtherFs { found, .. } if found == fs), "{other}");
}

#[tokio::test]
async fn a_port_in_use_is_said_so() {
    let world = World::new();
    let mgr = world.start_mgr().await;
    let dir = tempfile::tempdir().expect("a directory");
    format(dir.path(), world.fs, &[]).expect("formats");
    let mut config = config(world.fs, dir.path());
    config.listen.clone_from(&mgr.addr);
    let error = refusal(config).await.to_string();
    assert!(error.contains("another program has this port"), "{error}");
    mgr.stop().await;
}
