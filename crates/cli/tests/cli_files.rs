//! Files without a mount: what goes in by `put` comes out by `get`, `cat` and `cp`, and `ls`, `stat`, `rm` tell the
//! truth.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use pvfs_testkit::TestCluster;
use std::{
    fs,
    os::unix::fs::{MetadataExt, PermissionsExt, symlink},
    path::Path,
    process::Output,
};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const STRIP: usize = 65536;

/// Bytes that differ from place to place, so that a strip in the wrong place is found.
fn bytes(len: usize) -> Vec<u8> {
    (0..len).map(|at| u8::try_from((at / 7 + at / 4096 * 31) % 251).expect("below 256")).collect()
}

fn stderr(out: &Output) -> String {
    String::from_utf8_lossy(&out.stderr).into_owned()
}

#[test]
fn files_of_every_edge_size_come_back_exact() {
    let cluster = TestCluster::start(PVFS);
    let (source, target) = (cluster.dir().join("source"), cluster.dir().join("target"));
    fs::create_dir(&source).unwrap();
    let stripe = 2 * STRIP;
    for len in [0, 1, STRIP - 1, STRIP, STRIP + 1, stripe - 1, stripe, stripe + 1, 9_000_001] {
        fs::write(source.join(len.to_string()), bytes(len)).unwrap();
    }
    cluster.run_ok("put", ["-r", "--strip-size", "64K", source.to_str().unwrap(), "/tree"]);
    cluster.run_ok("get", ["-r", "/tree", target.to_str().unwrap()]);
    for entry in fs::read_dir(&source).unwrap() {
        let name = entry.unwrap().file_name();
        assert!(
            fs::read(source.join(&name)).unwrap() == fs::read(target.join(&name)).unwrap(),
            "{name:?} differs"
        );
    }
    let whole = cluster.run("cat", ["/tree/9000001", "/tree/1"]);
    assert!(whole.stdout == [bytes(9_000_001), bytes(1)].concat(), "cat gives other bytes");
}

#[test]
fn trees_keep_modes_times_links_and_odd_names() {
    let cluster = TestCluster::start(PVFS);
    let (source, target) = (cluster.dir().join("source"), cluster.dir().join("target"));
    fs::create_dir_all(source.join("a/b")).unwrap();
    fs::write(source.join("a/b/f"), "text").unwrap();
    fs::write(source.join("a/ödd \n name"), "odd").unwrap();
    symlink("no/where", source.join("a/link")).unwrap();
    fs::set_permissions(source.join("a/b/f"), fs::Permissions::from_mode(0o640)).unwrap();
    let old = fs::File::open(source.join("a/b/f")).unwrap();
    old.set_modified(std::time::UNIX_EPOCH + std::time::Duration::new(1_000_000_000, 123_456_789)).unwrap();
    fs::set_permissions(source.join("a/b"), fs::Permissions::from_mode(0o555)).unwrap();

    cluster.run_ok("cp", ["-r", source.to_str().unwrap(), "pvfs:/tree"]);
    cluster.run_ok("cp", ["-r", "pvfs:/tree", "pvfs:/tree2"]);
    cluster.run_ok("cp", ["-r", "pvfs:/tree2", target.to_str().unwrap()]);

    let facts = |dir: &Path, name: &str| {
        let meta = fs::symlink_metadata(dir.join(name)).unwrap();
        (meta.mode(), meta.mtime(), meta.mtime_nsec())
    };
    for name in ["a", "a/b", "a/b/f", "a/ödd \n name"] {
        assert_eq!(facts(&source, name), facts(&target, name), "{name}");
    }
    assert_eq!(fs::read_link(target.join("a/link")).unwrap(), Path::new("no/where"));
    assert_eq!(fs::read(target.join("a/ödd \n name")).unwrap(), b"odd");
    for dir in [&source, &target] {
        fs::set_permissions(dir.join("a/b"), fs::Permissions::from_mode(0o755)).unwrap(); // so that it can be removed
    }
}

#[test]
fn sparse_files_keep_their_size_and_their_bytes() {
    let cluster = TestCluster::start(PVFS);
    let (source, target) = (cluster.dir().join("sparse"), cluster.dir().join("back"));
    let file = fs::File::create(&source).unwrap();
    std::os::unix::fs::FileExt::write_all_at(&file, b"middle", 20_000_000).unwrap();
    file.set_len(50_000_001).unwrap();
    cluster.run_ok("put", [source.to_str().unwrap(), "/sparse"]);
    cluster.run_ok("get", ["/sparse", target.to_str().unwrap()]);
    assert!(fs::read(&source).unwrap() == fs::read(&target).unwrap(), "other bytes");
}

#[test]
fn put_takes_the_distribution_it_is_told_and_stat_shows_it() {
    let cluster = TestCluster::builder(PVFS).iods(3).start();
    let file = cluster.dir().join("f");
    fs::write(&file, bytes(300_000)).unwrap();
    let file = file.to_str().unwrap();
    cluster.run_ok("put", ["--strip-size", "64K", "--pcount", "2", "--base", "1", file, "/f"]);
    let stat: serde_json::Value = serde_json::from_str(&cluster.run_ok("stat", ["--json", "/f"])).unwrap();
    let dist = &stat["distribution"];
    assert_eq!((&dist["strip_bytes"], &dist["pcount"], &dist["base"]), (&65536.into(), &2.into(), &1.into()));
    assert_eq!(dist["targets"].as_array().unwrap().len(), 2);
    assert_eq!(stat["size"], 300_000);

    cluster.run_ok("mkdir", ["-p", "/dir/sub"]);
    cluster.run_ok("layout", ["set", "/dir", "--pcount", "1", "--strip-size", "8K"]);
    cluster.run_ok("put", [file, "/dir/"]);
    let shown = cluster.run_ok("layout", ["get", "/dir/f", "/dir"]);
    assert!(
        shown.contains("8192 (8.0 KiB)") && shown.contains("base any, pcount 1, strip size 8.0 KiB"),
        "{shown}"
    );
}

#[test]
fn layouts_that_cannot_be_are_refused_with_their_bounds() {
    let cluster = TestCluster::start(PVFS);
    let file = cluster.dir().join("f");
    fs::write(&file, "x").unwrap();
    let file = file.to_str().unwrap();
    let check = |args: &[&str], code: i32, expect: &str| {
        let out = cluster.run("put", args.iter().chain(&[file, "/f"]));
        assert_eq!(out.status.code(), Some(code), "{}", stderr(&out));
        assert!(stderr(&out).contains(expect), "{}", stderr(&out));
    };
    check(&["--strip-size", "0"], 2, "a multiple of 4K from 4K to 1G");
    check(&["--strip-size", "4097"], 2, "a multiple of 4K from 4K to 1G");
    check(&["--strip-size", "2G"], 2, "a multiple of 4K from 4K to 1G");
    check(&["--pcount", "0"], 2, "0 is not in 1..");
    check(&["--pcount", "3"], 1, "from 1 to the number of targets, 2");
    check(&["--base", "2"], 1, "the iodtab has 2 targets, counted from 0");
    assert!(!cluster.run("stat", ["/f"]).status.success(), "nothing was made");
}

#[test]
fn names_are_made_listed_moved_linked_and_removed() {
    let cluster = TestCluster::start(PVFS);
    let file = cluster.dir().join("f");
    fs::write(&file, "five\n").unwrap();
    cluster.run_ok("mkdir", ["-p", "/d/e"]);
    cluster.run_ok("put", [file.to_str().unwrap(), "/d/f"]);
    cluster.run_ok("ln", ["/d/f", "/hard"]);
    cluster.run_ok("ln", ["-s", "d/f", "/soft"]);
    cluster.run_ok("mv", ["/d/f", "/d/e"]);
    assert_eq!(cluster.run_ok("ls", ["/"]), "d\nhard\nsoft\n");
    assert_eq!(cluster.run_ok("ls", ["/d/e"]), "f\n");
    let long = cluster.run_ok("ls", ["-l", "/"]);
    assert!(
        long.lines().any(|line| line.starts_with("-rw") && line.contains("  2  ") && line.ends_with("hard")),
        "{long}"
    );
    assert!(long.contains("soft -> d/f"), "{long}");
    assert_eq!(cluster.run_ok("cat", ["/hard"]), "five\n");

    let refused = cluster.run("rm", ["/d"]);
    assert!(stderr(&refused).contains("pvfs rm: /d: is a directory"), "{}", stderr(&refused));
    cluster.run_ok("rm", ["-r", "/d", "/soft"]);
    assert_eq!(cluster.run_ok("ls", ["/"]), "hard\n");
    assert_eq!(cluster.run_ok("cat", ["/hard"]), "five\n", "the other name went, not the bytes");
    cluster.run_ok("rm", ["-f", "/d"]);
}

#[test]
fn errors_name_the_path_and_the_reason_and_set_the_exit_status() {
    let cluster = TestCluster::start(PVFS);
    let check = |name: &str, args: &[&str], code: i32, expect: &str| {
        let out = cluster.run(name, args);
        assert_eq!(out.status.code(), Some(code), "pvfs {name} {args:?}: {}", stderr(&out));
        assert!(stderr(&out).contains(expect), "pvfs {name} {args:?}: {}", stderr(&out));
    };
    let long = format!("/{}", "n".repeat(256));
    let deep = format!("/{}", "d/".repeat(2100));
    check("ls", &["/x"], 1, "pvfs ls: /x: No such file or directory");
    check("ls", &["relative"], 2, "write /path, pvfs:/path or pvfs://host:port/path");
    check("mkdir", &[long.as_str()], 1, "255 bytes");
    check("mkdir", &[deep.as_str()], 1, "4095 bytes");
    check("mkdir", &["/"], 1, "pvfs mkdir: /: ");
    check("cat", &["/"], 1, "pvfs cat: /: Is a directory");
    check("put", &["/no/such/file", "/"], 1, "pvfs put: /no/such/file: No such file or directory");
    check("put", &["/etc", "/"], 1, "pvfs put: /etc: is a directory: copy it with -r");
    check("get", &["/x", "/tmp"], 1, "pvfs get: /x: No such file or directory");
    check("cp", &["/a", "/b"], 2, "none of these paths is in PVFS: paths in PVFS start with `pvfs:`");
    check("mv", &["/x", "/y"], 1, "pvfs mv: /x to /y: No such file or directory");
}

#[test]
fn a_copy_onto_or_into_itself_is_refused() {
    let cluster = TestCluster::start(PVFS);
    let file = cluster.dir().join("f");
    fs::write(&file, "kept").unwrap();
    cluster.run_ok("mkdir", ["/d"]);
    cluster.run_ok("put", [file.to_str().unwrap(), "/d/f"]);
    let out = cluster.run("cp", ["pvfs:/d/f", "pvfs:/d/f"]);
    assert!(stderr(&out).contains("the same file"), "{}", stderr(&out));
    let out = cluster.run("cp", ["-r", "pvfs:/d", "pvfs:/d/inner"]);
    assert!(stderr(&out).contains("cannot be copied into itself"), "{}", stderr(&out));
    assert_eq!(cluster.run_ok("cat", ["/d/f"]), "kept");
}

#[test]
fn what_nobody_reads_ends_a_command_without_a_word() {
    let cluster = TestCluster::start(PVFS);
    cluster.run_ok("mkdir", ["/dir"]);
    for line in [
        "status",
        "status --json",
        "df",
        "df --json",
        "ping",
        "fsck",
        "ls -l /",
        "stat /dir",
        "layout get /dir",
    ] {
        let mut words = line.split(' ');
        let mut command = cluster.command(words.next().unwrap(), words);
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let out = command.stdout(writer).output().unwrap();
        assert_eq!((stderr(&out).as_str(), out.status.code()), ("", Some(1)), "pvfs {line}");
    }
}
