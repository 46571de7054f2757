//! The Debian packages that the tests need, and those that bring programs to run on a mount.

use crate::run::{self, Outcome};
use std::{
    collections::BTreeSet,
    io::Write as _,
    os::unix::fs::OpenOptionsExt as _,
    path::{Path, PathBuf},
    process::Stdio,
};

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

/// What a program that runs on a mount needs, with the Debian package that brings it.
#[derive(Clone, Copy, Debug)]
pub enum Need {
    /// A program in the `PATH`.
    Program(&'static str, &'static str),
    /// A module of the system's Python.
    Module(&'static str, &'static str),
    Postgres,
}

/// The system's Python: the one that Debian's modules are for.
pub const PYTHON: &str = "/usr/bin/python3";

impl Need {
    pub fn is_there(self) -> bool {
        match self {
            Need::Program(name, _) => run::is_installed(name),
            Need::Module(name, _) => {
                let mut import = run::program(PYTHON);
                import.args(["-c", &format!("import {name}")]).stderr(Stdio::null());
                import.status().is_ok_and(|status| status.success())
            }
            Need::Postgres => postgres_programs().is_some(),
        }
    }

    pub fn package(self) -> &'static str {
        match self {
            Need::Program(_, package) | Need::Module(_, package) => package,
            Need::Postgres => "postgresql",
        }
    }
}

/// Where the newest `PostgreSQL`'s programs are, which Debian does not put into the `PATH`.
pub fn postgres_programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest =
        versions.map(|version| version.path().join("bin")).filter(|bin| bin.join("initdb").is_file());
    newest.max_by_key(|bin| {
        bin.to_string_lossy().split('/').nth(4).and_then(|version| version.parse::<u32>().ok())
    })
}

/// Installs what the tests need, where we are root on a Debian; else names it.
pub fn install_missing() -> Outcome {
    let missing = NEEDED.iter().filter(|(program, _)| !run::is_installed(program));
    let packages: Vec<&str> = missing.map(|(_, package)| *package).collect();
    if can_install() {
        return install(&packages);
    }
    if packages.is_empty() {
        return Ok(());
    }
    Err(format!("Debian packages are missing, install them as root: apt-get install {}", packages.join(" ")))
}

/// Installs what is missing of `needs`, where that can be done.
pub fn install_programs(needs: impl Iterator<Item = Need>) -> Outcome {
    if !can_install() {
        return Ok(());
    }
    let packages: BTreeSet<&str> = needs.filter(|need| !need.is_there()).map(Need::package).collect();
    if packages.contains("postgresql") {
        // Else the package makes, and starts, a server of its own.
        let dir = Path::new("/etc/postgresql-common");
        let _ = std::fs::create_dir_all(dir);
        if let Ok(mut file) = std::fs::File::create_new(dir.join("createcluster.conf")) {
            let _ = file.write_all(b"create_main_cluster = false\n");
        }
    }
    install(&packages.into_iter().collect::<Vec<_>>())
}

/// Installs what is missing of `needs`, where we are root on a Debian; no service starts by that.
pub fn install_without_services(needs: impl Iterator<Item = Need>) -> Outcome {
    let packages: BTreeSet<&str> = needs.filter(|need| !need.is_there()).map(Need::package).collect();
    if !can_install() || packages.is_empty() {
        return Ok(());
    }
    // What packages ask before they start a service. Who has one of their own keeps it.
    let policy = Path::new("/usr/sbin/policy-rc.d");
    let made = std::fs::OpenOptions::new().write(true).create_new(true).mode(0o755).open(policy);
    let packages: Vec<&str> = packages.into_iter().collect();
    let Ok(mut file) = made else { return install(&packages) };
    let failed = |e: std::io::Error| format!("{}: {e}", policy.display());
    let written = file.write_all(b"#!/bin/sh\nexit 101\n").map_err(failed);
    drop(file);
    let installed = written.and_then(|()| install(&packages));
    std::fs::remove_file(policy).map_err(failed).and(installed)
}

fn can_install() -> bool {
    rustix::process::geteuid().is_root() && run::is_installed("apt-get")
}

fn install(packages: &[&str]) -> Outcome {
    if packages.is_empty() {
        return Ok(());
    }
    let packages = packages.join(" ");
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
