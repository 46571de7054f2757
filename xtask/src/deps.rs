//! The Debian packages that the tests need.

use crate::run::{self, Outcome};

/// A program that must be there, and the package that brings it.
const NEEDED: &[(&str, &str)] = &[
    ("cc", "gcc"),
    ("ld", "binutils"),
    ("git", "git"),
    ("tar", "tar"),
    ("diff", "diffutils"),
    ("fusermount3", "fuse3"),
    ("sqlite3", "sqlite3"),
    ("fio", "fio"),
    ("ip", "iproute2"),
    ("getfacl", "acl"),
    ("getfattr", "attr"),
    ("rsync", "rsync"),
    ("mkfs.ext4", "e2fsprogs"),
];

/// Installs what is missing, where we are root on a Debian; else names it.
pub fn install_missing() -> Outcome {
    let missing: Vec<&str> = NEEDED
        .iter()
        .filter(|(program, _)| !run::is_installed(program))
        .map(|(_, package)| *package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let packages = missing.join(" ");
    if !rustix::process::geteuid().is_root() || !run::is_installed("apt-get") {
        return Err(format!("Debian packages are missing, install them as root: apt-get install {packages}"));
    }
    println!("installing Debian packages: {packages}");
    run::run(run::command("apt-get -qq update").env("DEBIAN_FRONTEND", "noninteractive"))?;
    run::run(
        run::command(&format!("apt-get -qq install -y --no-install-recommends {packages}"))
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// Makes sure that cargo-nextest is there.
pub fn install_nextest() -> Outcome {
    if run::is_installed("cargo-nextest") {
        return Ok(());
    }
    println!("installing cargo-nextest");
    run::run(&mut run::command("cargo install cargo-nextest --locked --quiet"))
}
