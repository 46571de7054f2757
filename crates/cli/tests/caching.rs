//! What a mount's kernel keeps, and what another mount's changes do to it.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount};
use std::{
    fs::{self, File},
    io::ErrorKind,
    os::unix::fs::{FileExt, MetadataExt, PermissionsExt},
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");

#[test]
fn without_caches_each_call_sees_what_the_last_one_on_another_mount_did() {
    if !can_mount() {
        return;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    let (one, two) = (cluster.mount(&["-o", "cache=none"]), cluster.mount(&["-o", "cache=none"]));
    fs::write(one.join("f"), "first").unwrap();
    let there = File::options().read(true).write(true).open(two.join("f")).unwrap();
    let here = File::options().read(true).write(true).open(one.join("f")).unwrap();
    let read = |file: &File| {
        let mut bytes = [0; 100];
        let len = file.read_at(&mut bytes, 0).unwrap();
        String::from_utf8_lossy(&bytes[..len]).into_owned()
    };
    for round in 0..20 {
        let (path, other) = (one.join(format!("n{round}")), two.join(format!("n{round}")));
        assert_eq!(fs::metadata(&other).unwrap_err().kind(), ErrorKind::NotFound);
        fs::create_dir(&path).unwrap();
        assert_eq!(
            fs::metadata(&other).unwrap().mode() & 0o777,
            0o755,
            "a name that was not there a moment ago"
        );
        fs::set_permissions(&path, PermissionsExt::from_mode(0o700)).unwrap();
        assert_eq!(fs::metadata(&other).unwrap().mode() & 0o777, 0o700);
        fs::rename(&path, one.join("moved")).unwrap();
        assert_eq!(fs::metadata(&other).unwrap_err().kind(), ErrorKind::NotFound);
        fs::remove_dir(two.join("moved")).unwrap();
        assert_eq!(fs::metadata(one.join("moved")).unwrap_err().kind(), ErrorKind::NotFound);

        let text = format!("round {round}, as long as it is");
        here.set_len(0).unwrap();
        assert_eq!((read(&there).as_str(), there.metadata().unwrap().len()), ("", 0));
        here.write_all_at(text.as_bytes(), 0).unwrap();
        assert_eq!((read(&there), there.metadata().unwrap().len()), (text.clone(), text.len() as u64));
        there.write_all_at(b"ROUND", 0).unwrap();
        assert_eq!(read(&here), text.replace("round", "ROUND"), "also to who wrote there before");

        fs::write(one.join("whole"), &text).unwrap();
        let reader = File::open(two.join("whole")).unwrap();
        assert_eq!(read(&reader), text);
        fs::write(one.join("whole"), "new").unwrap();
        assert_eq!(read(&reader), "new", "all bytes were replaced under an open reader");
    }
}
