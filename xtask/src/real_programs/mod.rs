//! Real programs on a mount: cp, tar, rsync, git, cargo, sqlite3, and suites. What they leave is compared byte by byte.

use crate::{
    deps, leftovers,
    run::{self, Outcome},
    suites,
};
use std::{
    io::Read,
    net::{Ipv4Addr, TcpListener},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::{Duration, Instant},
};

/// From the start of `pvfs up` to a mount that is ready.
const READY_WITHIN: Duration = Duration::from_secs(3);
/// No single program may take longer. (A cargo build takes longest: all crates, beside the daemons.)
const PROGRAM_WITHIN: Duration = Duration::from_mins(15);

/// Builds the binary, runs all programs on a fresh file system, leaves nothing behind.
pub fn build_and_run() -> Outcome {
    run::run(&mut run::command("cargo build --quiet --release --locked --package pvfs-cli --bin pvfs"))?;
    run_with(&run::target_dir().join("release/pvfs"))
}

/// The same with a binary that is there.
pub fn run_with(pvfs: &Path) -> Outcome {
    deps::install_missing()?;
    leftovers::prepare()?;
    let cluster = Cluster::new(pvfs)?;
    let outcome = cluster.up().and_then(|()| programs(&cluster));
    // Also after a failure: stopping may fail as well, but the first error is the one to see.
    let down = cluster.down();
    if outcome.is_err() {
        println!("the daemons' logs are in {}", cluster.keep_logs());
    }
    let _ = std::fs::remove_dir_all(&cluster.dir);
    outcome.and(down)
}

type Program = fn(&Cluster) -> Outcome;

fn programs(cluster: &Cluster) -> Outcome {
    let each: [(&str, Program); 10] = [
        ("cp -r of a source tree and its build", copy),
        ("tar out and in", tar),
        ("rsync there and back, with attributes and ACLs", rsync),
        ("git clone, fsck, status", git),
        ("sqlite3 makes and checks a database", sqlite),
        ("pjdfstest, all that ext4 passes", suites::pjdfstest),
        ("a file of 3 GiB and one byte", large),
        ("cargo build in the mount", cargo),
        ("all is there after a restart", restart),
        ("the README's tour", tour),
    ];
    for (name, program) in each {
        let start = Instant::now();
        program(cluster).map_err(|e| format!("{name}: {e}"))?;
        println!("{:>7.1} s  {name}", start.elapsed().as_secs_f64());
    }
    Ok(())
}

/// A file system of its own, started by `pvfs up`.
pub struct Cluster {
    pvfs: PathBuf,
    dir: PathBuf,
    port: u16,
}

impl Cluster {
    fn new(pvfs: &Path) -> Result<Cluster, String> {
        let dir = leftovers::temp_dir().join("real-programs");
        for name in ["mnt", "data", "run", "local"] {
            std::fs::create_dir_all(dir.join(name)).map_err(|e| format!("{}: {e}", dir.display()))?;
        }
        Ok(Cluster { pvfs: pvfs.to_path_buf(), dir, port: free_ports(5)? })
    }

    pub fn pvfs(&self) -> &Path {
        &self.pvfs
    }

    pub fn mnt(&self) -> PathBuf {
        self.dir.join("mnt")
    }

    pub fn local(&self) -> PathBuf {
        self.dir.join("local")
    }

    /// Any program, with the cluster's context and not the user's own.
    pub fn command(&self, program: impl AsRef<Path>) -> Command {
        let mut command = run::program(program);
        command.env("XDG_RUNTIME_DIR", self.dir.join("run"));
        command
    }

    fn up(&self) -> Outcome {
        let start = Instant::now();
        let mut up = self.command(&self.pvfs);
        up.arg("up").arg(self.mnt()).arg("--detach").arg("--dir").arg(self.dir.join("data"));
        up.args(["--port", &self.port.to_string()]);
        run::run_within(&mut up, Duration::from_mins(1))?;
        let took = start.elapsed();
        println!("{:>7.1} s  pvfs up", took.as_secs_f64());
        if took > READY_WITHIN {
            return Err(format!("`pvfs up` was ready after {took:?}, not within {READY_WITHIN:?}"));
        }
        Ok(())
    }

    fn down(&self) -> Outcome {
        let mut down = self.command(&self.pvfs);
        run::run_within(down.arg("down").arg("--dir").arg(self.dir.join("data")), Duration::from_mins(1))
    }

    /// Runs `program args…` within its time; arguments are split at spaces, `@` stands for the mount, `%` for the
    /// local directory beside it.
    fn run(&self, line: &str) -> Outcome {
        let mut words = line.split(' ');
        let mut command = self.command(words.next().unwrap_or_default());
        let (mnt, local) = (self.mnt().display().to_string(), self.local().display().to_string());
        command.args(words.map(|word| word.replace('@', &mnt).replace('%', &local)));
        run::run_within(&mut command, PROGRAM_WITHIN)
    }

    /// Puts the daemons' logs where they outlive this run.
    fn keep_logs(&self) -> String {
        let to = run::target_dir().join("real-programs-logs");
        let _ = std::fs::remove_dir_all(&to);
        let _ = std::fs::create_dir_all(&to);
        let _ = run::run(run::command("cp -r").arg(self.dir.join("data/log")).arg(&to));
        to.display().to_string()
    }
}

/// The source tree and the documentation that was built from it: thousands of files, small and large.
fn copy(c: &Cluster) -> Outcome {
    let tree = c.local().join("tree");
    std::fs::create_dir_all(&tree).map_err(|e| e.to_string())?;
    let root = run::root();
    for part in ["crates", "docs", "fuzz", "xtask", "Cargo.lock", "Cargo.toml"] {
        run::run(run::command("cp -a").arg(root.join(part)).arg(&tree))?;
    }
    let built = c.pvfs.parent().unwrap_or(&root);
    for part in ["pvfs", "build", ".fingerprint"].map(|part| built.join(part)) {
        if part.exists() {
            run::run(run::command("cp -a").arg(part).arg(&tree))?;
        }
    }
    c.run("cp -a %/tree @/tree")?;
    c.run("diff -r --no-dereference %/tree @/tree")
}

fn tar(c: &Cluster) -> Outcome {
    c.run("tar -C % -cf @/in.tar tree")?;
    c.run("mkdir @/untarred %/untarred")?;
    c.run("tar -C @/untarred -xf @/in.tar")?;
    c.run("diff -r --no-dereference %/tree @/untarred/tree")?;
    c.run("tar -C @/untarred -cf %/out.tar tree")?;
    c.run("tar -C %/untarred -xf %/out.tar")?;
    c.run("diff -r --no-dereference %/tree %/untarred/tree")?;
    c.run("rm -r @/untarred @/in.tar %/untarred %/out.tar")
}

/// With ACLs and attributes on the way back; a second run finds nothing to do.
fn rsync(c: &Cluster) -> Outcome {
    c.run("rsync -aHAX %/tree/crates/ @/synced/")?;
    c.run("setfacl -R -m u:12001:rwX,d:u:12001:rwX @/synced")?;
    c.run("setfattr -h -n user.origin -v rsync @/synced/types @/synced/types/Cargo.toml")?;
    c.run("rsync -aHAX @/synced/ %/synced/")?;
    let (here, there) = (c.mnt().join("synced/"), c.local().join("synced/"));
    let again = run::output(c.command("rsync").args(["-aHAXni", "--delete"]).args([here, there]))?;
    if !again.is_empty() {
        return Err(format!("rsync would do again:\n{again}"));
    }
    c.run("diff -r --no-dereference %/tree/crates @/synced")?;
    c.run("rm -r @/synced %/synced")
}

fn git(c: &Cluster) -> Outcome {
    let clone = format!("git clone --quiet --no-local {} @/clone", run::root().display());
    c.run(&clone)?;
    c.run("git -C @/clone fsck --full --strict --no-progress --no-dangling")?;
    c.run("git -C @/clone diff --quiet HEAD")?;
    c.run("git -C @/clone gc --quiet")?;
    c.run("git -C @/clone fsck --full --strict --no-progress --no-dangling")
}

fn sqlite(c: &Cluster) -> Outcome {
    let database = c.mnt().join("test.db");
    let sql = |text: &str| {
        let mut sqlite = c.command("sqlite3");
        run::output(sqlite.arg("-bail").arg(&database).arg(text))
    };
    sql("create table t (id integer primary key, body text);
         begin; with recursive n(i) as (select 1 union all select i + 1 from n where i < 20000)
         insert into t select i, hex(randomblob(50)) || i from n; commit;")?;
    for round in 0..20 {
        sql(&format!("update t set body = 'round {round}' where id % 20 = {round};"))?;
    }
    sql("delete from t where id > 10000; vacuum;")?;
    let check = sql(
        "pragma integrity_check; select count(*) from t; select count(*) from t where body like 'round %';",
    )?;
    if check == "ok\n10000\n10000\n" { Ok(()) } else { Err(format!("sqlite3 says: {check}")) }
}

/// Longer than 32 bits count, and by one byte longer than all strips and pages. Written through the mount, read through
/// the mount and through the native client.
fn large(c: &Cluster) -> Outcome {
    const BYTES: u64 = (3 << 30) + 1;
    let path = c.mnt().join("large");
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = std::fs::File::create(&path).map_err(fail)?;
    std::io::copy(&mut Offsets::default().take(BYTES), &mut file).map_err(fail)?;
    drop(file);
    same(std::fs::File::open(&path).map_err(fail)?, BYTES)?;
    let mut cat = c.command(&c.pvfs);
    let mut cat = cat.args(["cat", "/large"]).stdout(Stdio::piped()).spawn().map_err(fail)?;
    let compared = same(cat.stdout.take().ok_or("no pipe")?, BYTES);
    let ended = cat.wait().map_err(fail)?;
    compared?;
    if !ended.success() {
        return Err(format!("pvfs cat: {ended}"));
    }
    std::fs::remove_file(&path).map_err(fail)
}

/// Endless bytes that tell their own place: every 8 are the offset of the first of them.
#[derive(Default)]
struct Offsets {
    at: u64,
}

impl Read for Offsets {
    fn read(&mut self, buffer: &mut [u8]) -> std::io::Result<usize> {
        for byte in buffer.iter_mut() {
            *byte = (self.at & !7).to_le_bytes()[usize::try_from(self.at & 7).expect("below 8")];
            self.at += 1;
        }
        Ok(buffer.len())
    }
}

/// Whether `found` has `bytes` bytes of [`Offsets`], and no more.
fn same(found: impl Read, bytes: u64) -> Outcome {
    let (mut found, mut expected) = (found, Offsets::default().take(bytes));
    let (mut a, mut b) = (vec![0; 1 << 20], vec![0; 1 << 20]);
    let mut at = 0u64;
    loop {
        let fill = |from: &mut dyn Read, into: &mut [u8]| -> std::io::Result<usize> {
            let mut filled = 0;
            while filled < into.len() {
                match from.read(&mut into[filled..])? {
                    0 => break,
                    more => filled += more,
                }
            }
            Ok(filled)
        };
        let got = fill(&mut found, &mut a).map_err(|e| format!("at {at}: {e}"))?;
        let due = fill(&mut expected, &mut b).map_err(|e| format!("at {at}: {e}"))?;
        if a[..got] != b[..due] {
            return Err(format!("the bytes from {at} on ({got} read, {due} due) are not what was written"));
        }
        if got == 0 {
            return Ok(());
        }
        at += got as u64;
    }
}

fn cargo(c: &Cluster) -> Outcome {
    let clone = c.mnt().join("clone");
    let mut build = c.command("cargo");
    build.args(["build", "--quiet", "--offline", "--locked", "--package", "pvfs-cli", "--bin", "pvfs"]);
    build.current_dir(&clone).env("CARGO_TARGET_DIR", clone.join("target"));
    run::run_within(&mut build, PROGRAM_WITHIN)?;
    let version = run::output(c.command(clone.join("target/debug/pvfs")).arg("--version"))?;
    if version.starts_with("pvfs ") { Ok(()) } else { Err(format!("the built binary says: {version}")) }
}

/// `down` and `up` again: the same names, the same bytes.
fn restart(c: &Cluster) -> Outcome {
    c.down()?;
    c.up()?;
    c.run("diff -r --no-dereference %/tree @/tree")?;
    c.run("git -C @/clone fsck --full --strict --no-progress --no-dangling")?;
    c.run("rm -r @/tree @/clone @/test.db")
}

/// Every command of the README's tour, as it stands there, but for the first and the last: `up` and `down`.
fn tour(c: &Cluster) -> Outcome {
    let readme = run::root().join("README.md");
    let text = std::fs::read_to_string(&readme).map_err(|e| format!("{}: {e}", readme.display()))?;
    let commands = text
        .split_once("## A quick tour")
        .and_then(|(_, rest)| rest.split_once("```sh\n"))
        .and_then(|(_, block)| block.split_once("```"))
        .map(|(block, _)| block)
        .ok_or("the README has no tour")?;
    let is_elsewhere =
        |line: &&str| ["alias pvfs=", "pvfs up ", "pvfs down"].iter().any(|c| line.starts_with(c));
    let script: String = commands
        .lines()
        .filter(|line| !is_elsewhere(line))
        .map(|line| line.replace("/mnt/pvfs", &c.mnt().display().to_string()) + "\n")
        .collect();
    let mut shell = c.command("sh");
    shell.args(["-e", "-u", "-c"]).arg("pvfs() { \"$PVFS\" \"$@\"; }\n".to_owned() + &script);
    shell.current_dir(run::root()).env("PVFS", &c.pvfs).stdout(Stdio::null());
    run::run_within(&mut shell, PROGRAM_WITHIN)
}

/// The first of `count` ports in a row that nobody has now.
fn free_ports(count: u16) -> Result<u16, String> {
    let from = 20_000 + u16::try_from(std::process::id() % 10_000).unwrap_or(0);
    (from..40_000)
        .step_by(usize::from(count))
        .find(|&first| {
            (first..first + count).all(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        })
        .ok_or_else(|| "no free ports".to_string())
}
