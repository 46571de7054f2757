//! Extended attributes and POSIX ACLs through real mounts: by system calls, by the programs that people use, under kills.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::{TestCluster, can_mount, wait_until};
use rustix::{
    fs::{XattrFlags, getxattr, listxattr, lsetxattr, removexattr, setxattr},
    io::Errno,
    process::{Pid, Signal, kill_process},
};
use std::{
    fs::{self, File, Permissions},
    io::Write as _,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        process::CommandExt as _,
    },
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const LIMIT: Duration = Duration::from_mins(1);
const ACCESS: &str = "system.posix_acl_access";
const CAPS: &str = "security.capability";
/// Users that no file of the tests belongs to.
const ANN: u32 = 12_001;
const BOB: u32 = 12_002;

/// A cluster with a mount that every user can get at. `None`: not here.
fn start() -> Option<(TestCluster, PathBuf)> {
    if !can_mount() || !rustix::process::geteuid().is_root() {
        eprintln!("needs a mount and root");
        return None;
    }
    let mut cluster = TestCluster::builder(PVFS).iods(2).start();
    fs::set_permissions(cluster.dir(), Permissions::from_mode(0o755)).unwrap();
    let mount = cluster.mount(&[]);
    Some((cluster, mount))
}

fn shell(dir: &Path, script: &str) -> Command {
    let mut shell = Command::new("sh");
    shell.args(["-euc", script]).current_dir(dir).env("LC_ALL", "C");
    shell
}

#[track_caller]
fn said(script: &str, output: &Output) -> String {
    let stderr = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{script}: {}: {stderr}", output.status);
    String::from_utf8(output.stdout.clone()).unwrap()
}

/// What a script that must succeed writes to stdout.
#[track_caller]
fn sh(dir: &Path, script: &str) -> String {
    said(script, &shell(dir, script).output().unwrap())
}

fn as_user(uid: u32, dir: &Path, script: &str) -> Output {
    // (The standard library also drops the groups.)
    shell(dir, script).uid(uid).gid(uid).output().unwrap()
}

#[track_caller]
fn may(uid: u32, dir: &Path, script: &str) -> String {
    said(script, &as_user(uid, dir, script))
}

#[track_caller]
fn may_not(uid: u32, dir: &Path, script: &str) {
    let output = as_user(uid, dir, script);
    let stderr = String::from_utf8_lossy(&output.stderr);
    let refused = ["Permission denied", "Operation not permitted"].iter().any(|why| stderr.contains(why));
    assert!(!output.status.success() && refused, "{script}: {}: {stderr}", output.status);
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().mode() & 0o7777
}

fn get(path: &Path, name: &str) -> Result<Vec<u8>, Errno> {
    let mut value = vec![0; 1 << 16];
    let len = getxattr(path, name, &mut value)?;
    value.truncate(len);
    Ok(value)
}

fn set(path: &Path, name: &str, value: &[u8]) -> Result<(), Errno> {
    setxattr(path, name, value, XattrFlags::empty())
}

#[test]
fn getfattr_shows_what_setfattr_set() {
    let Some((_cluster, mount)) = start() else { return };
    sh(&mount, "umask 022; echo bytes > f; setfattr -n user.text -v 'a value' f");
    sh(&mount, "setfattr -n user.bytes -v 0x00ff f; setfattr -n trusted.t -v 1 f; setfattr -n user.none f");
    let shown = sh(&mount, "getfattr -d -m - -e hex f");
    let expected = "# file: f\ntrusted.t=0x31\nuser.bytes=0x00ff\nuser.none\nuser.text=0x612076616c7565\n\n";
    assert_eq!(shown.replace("user.none=0x\n", "user.none\n"), expected);
    let shown = may(ANN, &mount, "getfattr -d -m - f");
    assert!(shown.contains("user.text=\"a value\"") && !shown.contains("trusted"), "{shown}");
    may_not(ANN, &mount, "setfattr -n user.text -v mine f");
    may_not(ANN, &mount, "setfattr -n security.x -v mine f");
    sh(&mount, "setfattr -x user.text f; setfattr -x trusted.t f");
    assert_eq!(sh(&mount, "getfattr f"), "# file: f\nuser.bytes\nuser.none\n\n");
}

#[test]
fn what_setfacl_grants_that_user_gets_and_nobody_else() {
    let Some((_cluster, mount)) = start() else { return };
    sh(&mount, "umask 022; echo one > f; chmod 600 f; mkdir d; echo two > d/g; chmod 700 d");
    may_not(ANN, &mount, "cat f");
    sh(&mount, &format!("setfacl -m u:{ANN}:rw f; setfacl -m u:{ANN}:rx d"));
    assert_eq!(may(ANN, &mount, "echo three >> f; cat f d/g; ls d"), "one\nthree\ntwo\ng\n");
    may_not(ANN, &mount, "touch d/new");
    for script in ["cat f", "cat d/g", "ls d"] {
        may_not(BOB, &mount, script);
    }
    assert_eq!(
        sh(&mount, "getfacl -cn f d"),
        format!(
            "user::rw-\nuser:{ANN}:rw-\ngroup::---\nmask::rw-\nother::---\n\n\
             user::rwx\nuser:{ANN}:r-x\ngroup::---\nmask::r-x\nother::---\n\n"
        )
    );
    assert_eq!(mode(&mount.join("f")), 0o660, "the mask");
    sh(&mount, "chmod g-w f");
    may_not(ANN, &mount, "echo four >> f");
    may_not(ANN, &mount, "setfacl -b f");
    sh(&mount, "setfacl -b f d; chmod 700 d");
    may_not(ANN, &mount, "cat f");
    may_not(ANN, &mount, "cat d/g");
    assert!(!sh(&mount, "ls -l f").contains('+'));
}

#[test]
fn new_entries_get_their_directorys_default_acl_in_place_of_the_umask() {
    let Some((_cluster, mount)) = start() else { return };
    sh(&mount, &format!("umask 022; mkdir d plain; setfacl -d -m u:{ANN}:rwx,o::- d"));
    sh(&mount, "umask 077; echo > d/file; mkdir d/sub; mkfifo d/fifo; ln -s file d/link; echo > plain/file");
    let entries = |mask: &str, effective: &str, group: &str| {
        format!("user::rw-\nuser:{ANN}:rwx{effective}\ngroup::r-x{group}\nmask::{mask}\nother::---\n\n")
    };
    let cut = entries("rw-", "\t#effective:rw-", "\t#effective:r--");
    assert_eq!(sh(&mount, "getfacl -cn d/file"), cut);
    assert_eq!(sh(&mount, "getfacl -cn d/fifo"), cut);
    let all = format!("user::rwx\nuser:{ANN}:rwx\ngroup::r-x\nmask::rwx\nother::---\n");
    let default = all.lines().map(|line| format!("default:{line}\n")).collect::<Vec<_>>().concat();
    assert_eq!(sh(&mount, "getfacl -cn d/sub"), format!("{all}{default}\n"));
    assert_eq!(mode(&mount.join("plain/file")), 0o600, "without one the umask counts");
    may(ANN, &mount, "cat d/file; touch d/sub/new; rm d/sub/new");
    may_not(BOB, &mount, "cat d/file");
}

/// Everything that `getfattr` and `getfacl` tell of the tree at `dir`.
#[track_caller]
fn told(dir: &Path) -> String {
    // (A default ACL is among the attributes too; tar orders hard links as it likes.)
    sh(dir, "getfattr -Rhd -m - -e hex . | sort; getfacl -Rpn . | sort")
}

#[test]
fn tar_and_rsync_carry_attributes_and_acls_there_and_back() {
    let Some((cluster, mount)) = start() else { return };
    let local = cluster.dir().join("local");
    fs::create_dir(&local).unwrap();
    let tree = mount.join("a");
    fs::create_dir(&tree).unwrap();
    sh(
        &tree,
        &format!(
            "umask 022; mkdir d d/e; echo 1 > f; echo 2 > d/g; ln -s f l; ln f h
             setfattr -n user.one -v 1 f; setfattr -n user.two -v 0x0102 d; setfattr -n user.long -v {} d/g
             setfacl -m u:{ANN}:rw,g:{BOB}:r f; setfacl -m u:{ANN}:rx d; setfacl -d -m u:{BOB}:rwx d
             setfattr -n trusted.three -v 3 d/e",
            "x".repeat(2_000)
        ),
    );
    let expected = told(&tree);
    assert!(expected.contains("user.two=0x0102") && expected.contains(&format!("default:user:{BOB}:rwx")));
    let (here, there) = (mount.display(), local.display());
    sh(&tree, &format!("tar --xattrs --xattrs-include='*' --acls -cf {there}/a.tar ."));
    sh(
        &mount,
        &format!("mkdir tarred; tar -C tarred --xattrs --xattrs-include='*' --acls -xf {there}/a.tar"),
    );
    assert!(told(&mount.join("tarred")) == expected, "tar there and back");
    sh(&mount, &format!("rsync -aHAX a/ {there}/b/; rsync -aHAX {there}/b/ {here}/synced/"));
    assert!(told(&mount.join("synced")) == expected, "rsync there and back");
    // A second time nothing is different.
    let again = sh(&mount, &format!("rsync -aHAXi {there}/b/ {here}/synced/"));
    assert_eq!(again, "", "rsync finds nothing to do");
}

#[track_caller]
fn kill_worker(cluster: &mut TestCluster) {
    let former = cluster.process("mount0").children();
    let pid = *former.first().expect("the mount has a worker");
    kill_process(Pid::from_raw(i32::try_from(pid).unwrap()).unwrap(), Signal::KILL).unwrap();
    wait_until("there is another worker", LIMIT, || {
        cluster.process("mount0").children().into_iter().any(|child| child != pid)
    });
}

#[test]
fn attributes_and_acls_outlive_kills_of_the_mgr_and_of_the_mounts_worker() {
    let Some((mut cluster, mount)) = start() else { return };
    sh(
        &mount,
        &format!("umask 022; echo one > f; chmod 600 f; setfattr -n user.a -v 1 f; setfacl -m u:{ANN}:r f"),
    );
    cluster.kill9("mgr");
    let set = "setfattr -n user.b -v 2 f; setfattr -x user.a f; setfacl -m u:12003:rw f";
    let mut waiting = shell(&mount, set).spawn().unwrap();
    kill_worker(&mut cluster);
    cluster.restart("mgr");
    assert!(waiting.wait().unwrap().success(), "what waited goes on");
    kill_worker(&mut cluster);
    assert_eq!(sh(&mount, "getfattr -d f"), "# file: f\nuser.b=\"2\"\n\n");
    assert_eq!(may(ANN, &mount, "cat f"), "one\n");
    cluster.kill9("mgr");
    cluster.restart("mgr");
    may_not(BOB, &mount, "cat f");
    let acl = format!("user::rw-\nuser:{ANN}:r--\nuser:12003:rw-\ngroup::---\nmask::rw-\nother::---\n\n");
    assert_eq!(sh(&mount, "getfacl -cn f"), acl);
    assert!(cluster.run("fsck", [] as [&str; 0]).status.success(), "everything fits together");
}

#[test]
fn two_mounts_see_each_others_attributes_at_the_next_call_and_a_withdrawn_right_counts_at_once() {
    let Some((mut cluster, one)) = start() else { return };
    let two = cluster.mount(&[]);
    let (a, b) = (one.join("f"), two.join("f"));
    fs::write(&a, "bytes").unwrap();
    fs::set_permissions(&a, Permissions::from_mode(0o600)).unwrap();
    for n in 0..20_u8 {
        set(&a, "user.n", &[n]).unwrap();
        assert_eq!(get(&b, "user.n"), Ok(vec![n]));
        set(&b, "user.m", &[n]).unwrap();
        assert_eq!(get(&a, "user.m"), Ok(vec![n]));
        removexattr(&b, "user.n").unwrap();
        assert_eq!(get(&a, "user.n"), Err(Errno::NODATA));
        let mut names = vec![0; 100];
        let len = listxattr(&a, &mut names).unwrap();
        assert_eq!(&names[..len], b"user.m\0");
    }
    sh(&one, &format!("setfacl -m u:{ANN}:r f"));
    // A kernel goes by ACLs, as by modes, for up to a second.
    wait_until("the other mount lets her in", LIMIT, || as_user(ANN, &two, "cat f").status.success());
    sh(&one, "setfacl -b f");
    may_not(ANN, &two, "cat f");
    wait_until("the other mount shows it", LIMIT, || get(&b, ACCESS) == Err(Errno::NODATA));
}

#[test]
fn attributes_that_linux_refuses_are_refused_with_its_errno() {
    let Some((_cluster, mount)) = start() else { return };
    let (file, dir, link) = (mount.join("f"), mount.join("d"), mount.join("l"));
    fs::write(&file, "").unwrap();
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("f", &link).unwrap();
    set(&file, "user.most", &vec![1; 65_536]).unwrap();
    assert_eq!(get(&file, "user.most").unwrap().len(), 65_536);
    assert_eq!(getxattr(&file, "user.most", &mut [0_u8; 100]), Err(Errno::RANGE), "no room for the value");
    assert_eq!(listxattr(&file, &mut [0_u8; 5]), Err(Errno::RANGE), "no room for the names");
    assert_eq!(set(&file, "user.more", &vec![1; 65_537]), Err(Errno::TOOBIG));
    assert_eq!(set(&file, &format!("user.{}", "n".repeat(251)), b""), Err(Errno::RANGE));
    assert_eq!(set(&file, "user.", b""), Err(Errno::INVAL));
    assert_eq!(set(&file, "other.a", b""), Err(Errno::OPNOTSUPP));
    assert_eq!(setxattr(&file, "user.most", b"", XattrFlags::CREATE), Err(Errno::EXIST));
    assert_eq!(setxattr(&file, "user.none", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
    assert_eq!(removexattr(&file, "user.none"), Err(Errno::NODATA));
    assert_eq!(lsetxattr(&link, "user.a", b"", XattrFlags::empty()), Err(Errno::PERM));
    let long = |n: usize| format!("user.{n:0250}");
    for n in 0..256 {
        set(&dir, &long(n), b"").unwrap();
    }
    assert_eq!(set(&dir, "user.a", b""), Err(Errno::NOSPC), "the list is full");
    assert_eq!(listxattr(&dir, &mut vec![0_u8; 1 << 16]), Ok(1 << 16));
    // No entry for the others; a version that there is not; a default ACL of a file.
    let acl = |version: u8, tags: &[u8]| {
        let entries = tags.iter().flat_map(|&tag| [tag, 0, 6, 0, 255, 255, 255, 255]);
        [version, 0, 0, 0].into_iter().chain(entries).collect::<Vec<u8>>()
    };
    assert_eq!(set(&file, ACCESS, &acl(2, &[1, 4])), Err(Errno::INVAL));
    assert_eq!(set(&file, ACCESS, &acl(2, &[1, 4, 0x20])[..27]), Err(Errno::INVAL));
    assert_eq!(set(&file, ACCESS, &acl(1, &[1, 4, 0x20])), Err(Errno::OPNOTSUPP));
    assert_eq!(set(&file, "system.posix_acl_default", &acl(2, &[1, 4, 0x20])), Err(Errno::ACCESS));
    assert_eq!(lsetxattr(&link, ACCESS, &acl(2, &[1, 4, 0x20]), XattrFlags::empty()), Err(Errno::OPNOTSUPP));
    set(&file, ACCESS, &acl(2, &[1, 4, 0x20])).unwrap();
    assert_eq!((mode(&file), get(&file, ACCESS)), (0o666, Err(Errno::NODATA)), "it says no more than a mode");
}

#[test]
fn a_write_takes_set_id_bits_and_file_capabilities_away() {
    let Some((_cluster, mount)) = start() else { return };
    let file = mount.join("f");
    fs::write(&file, "bytes").unwrap();
    let privileged = |mode| fs::set_permissions(&file, Permissions::from_mode(mode)).unwrap();
    for script in ["echo more >> f", "dd if=/dev/zero of=f bs=4096 count=1 oflag=direct 2>&1", ": > f"] {
        privileged(0o6777);
        may(ANN, &mount, script);
        assert_eq!(mode(&file), 0o777, "{script}");
    }
    privileged(0o2767);
    may(ANN, &mount, "truncate -s 100 f");
    assert_eq!(mode(&file), 0o2767, "nobody runs it as its group");
    privileged(0o6777);
    sh(&mount, "echo more >> f");
    assert_eq!(mode(&file), 0o6777, "root may keep them");
    sh(&mount, &format!("chown {ANN} f"));
    assert_eq!(mode(&file), 0o777);
    // Version 2: flags, then permitted and inheritable, low and high.
    let caps: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    for script in ["echo more >> f", ": > f", "truncate -s 9 f", "chown 0 f"] {
        set(&file, CAPS, &caps).unwrap();
        assert_eq!(get(&file, CAPS).unwrap(), caps);
        sh(&mount, script);
        assert_eq!(get(&file, CAPS), Err(Errno::NODATA), "{script}");
    }
    set(&file, CAPS, &caps).unwrap();
    may(ANN, &mount, "echo more >> f");
    assert_eq!(get(&file, CAPS), Err(Errno::NODATA), "who may not remove them writes");
}

#[test]
fn a_write_takes_away_what_another_mount_has_set_since_the_file_was_opened() {
    let Some((mut cluster, one)) = start() else { return };
    let two = cluster.mount(&[]);
    fs::write(one.join("f"), "bytes").unwrap();
    let mut open = File::options().append(true).open(one.join("f")).unwrap();
    let caps: Vec<u8> = [0x0200_0001_u32, 1 << 13, 0, 0, 0].into_iter().flat_map(u32::to_le_bytes).collect();
    set(&two.join("f"), CAPS, &caps).unwrap();
    open.write_all(b" and more").unwrap();
    drop(open);
    assert_eq!(get(&two.join("f"), CAPS), Err(Errno::NODATA), "gone at the latest when it is closed");
}
