//! What is wrong with a configuration is said with the file, the key, and what to do.

#![allow(clippy::unwrap_used, reason = "what goes wrong here fails the test")]

use std::{fs, path::Path, process::Command};

const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
const GOOD: &str =
    "fs = \"6f1f2a3e-0000-4000-8000-000000000001\"\nmgr = [\"127.0.0.1:1\"]\nsecret_file = \"cluster.key\"\n";

/// Runs `pvfs ls` in a world of its own with `text` as the configuration (`None`: none).
#[track_caller]
fn check(text: Option<&str>, key: &str, code: i32, expect: &[&str]) {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("cluster.toml");
    fs::write(dir.path().join("cluster.key"), key).unwrap();
    let mut command = world(dir.path());
    if let Some(text) = text {
        fs::write(&file, text).unwrap();
        command.arg("--cluster").arg(&file);
    }
    let out = command.args(["ls", "/", "--timeout", "1"]).output().unwrap();
    let stderr = String::from_utf8_lossy(&out.stderr);
    assert_eq!(out.status.code(), Some(code), "{stderr}");
    assert!(expect.iter().all(|part| stderr.contains(part)), "{stderr}");
    assert!(!stderr.contains("panic"), "{stderr}");
    assert!(
        text.is_none() || stderr.contains("cluster.toml") || stderr.contains("cluster.key"),
        "no file: {stderr}"
    );
}

fn world(dir: &Path) -> Command {
    let mut command = Command::new(PVFS);
    command.env("XDG_RUNTIME_DIR", dir).env("HOME", dir).env_remove("PVFS_CLUSTER");
    command
}

#[test]
fn keys_that_are_unknown_missing_or_make_no_sense_are_named() {
    let key = "00".repeat(32);
    check(
        Some(&format!("{GOOD}nonsense = 1\n")),
        &key,
        1,
        &[":4: unknown field `nonsense`", "remove that line"],
    );
    check(Some(&GOOD.replace("fs = ", "# ")), &key, 1, &["missing field `fs`"]);
    check(Some(&GOOD.replace("secret_file", "secret")), &key, 1, &["unknown field `secret`"]);
    check(Some(&GOOD.replace(":1\"", "\"")), &key, 1, &["`mgr`", "not host:port"]);
    check(Some("fs = [[["), &key, 1, &["cluster.toml:1:"]);
}

#[test]
fn keys_files_that_are_missing_or_damaged_are_named() {
    check(Some(GOOD), "short", 1, &["cluster.key", "64 hexadecimal digits"]);
    check(Some(&GOOD.replace("cluster.key", "other.key")), "", 1, &["other.key", "No such file"]);
}

#[test]
fn a_cluster_that_is_not_there_is_told_of_with_what_to_do() {
    check(None, "", 1, &["no cluster is known here", "pvfs up", "--cluster FILE"]);
    check(Some(GOOD), &"00".repeat(32), 1, &["cannot reach the cluster", "127.0.0.1:1", "pvfs status"]);
}

#[test]
fn a_named_file_that_is_not_there_says_who_named_it() {
    let dir = tempfile::tempdir().unwrap();
    let out = world(dir.path()).args(["ls", "--cluster", "/no/cluster.toml"]).output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("named by --cluster"));
    let out = world(dir.path()).arg("ls").env("PVFS_CLUSTER", "/no/cluster.toml").output().unwrap();
    assert!(String::from_utf8_lossy(&out.stderr).contains("named by PVFS_CLUSTER"));
}

#[test]
fn wrong_usage_is_exit_status_2_and_help_is_0() {
    let dir = tempfile::tempdir().unwrap();
    let code = |args: &[&str]| world(dir.path()).args(args).output().unwrap().status.code();
    assert_eq!(code(&[]), Some(2));
    assert_eq!(code(&["nonsense"]), Some(2));
    assert_eq!(code(&["ls", "--nonsense"]), Some(2));
    assert_eq!(code(&["up"]), Some(2), "a mount point or --no-mount");
    assert_eq!(code(&["--help"]), Some(0));
    assert_eq!(code(&["put", "--help"]), Some(0));
    assert_eq!(code(&["--version"]), Some(0));
}
