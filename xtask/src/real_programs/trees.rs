//! Trees of files and large files: cp, tar, rsync, and 3 GiB through the mount and through the native client.

use super::Cluster;
use crate::run::{self, Outcome};
use std::{io::Read, process::Stdio};

/// The source tree and the documentation that was built from it: thousands of files, small and large.
pub fn copy(c: &Cluster) -> Outcome {
    let tree = c.local().join("tree");
    std::fs::create_dir_all(&tree).map_err(|e| e.to_string())?;
    let root = run::root();
    for part in ["crates", "docs", "fuzz", "xtask", "Cargo.lock", "Cargo.toml"] {
        run::run(run::command("cp -a").arg(root.join(part)).arg(&tree))?;
    }
    let built = c.pvfs().parent().unwrap_or(&root);
    for part in ["pvfs", "build", ".fingerprint"].map(|part| built.join(part)) {
        if part.exists() {
            run::run(run::command("cp -a").arg(part).arg(&tree))?;
        }
    }
    c.run("cp -a %/tree @/tree")?;
    c.run("diff -r --no-dereference %/tree @/tree")
}

pub fn tar(c: &Cluster) -> Outcome {
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
pub fn rsync(c: &Cluster) -> Outcome {
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

/// `down` and `up` again: the same names, the same bytes.
pub fn restart(c: &Cluster) -> Outcome {
    super::down(c)?;
    super::up(c)?;
    c.run("diff -r --no-dereference %/tree @/tree")?;
    c.run("git -C @/clone fsck --full --strict --no-progress --no-dangling")?;
    c.run("rm -r @/tree @/clone @/test.db")
}

/// Longer than 32 bits count, and by one byte longer than all strips and pages. Written through the mount, read through
/// the mount and through the native client.
pub fn large(c: &Cluster) -> Outcome {
    const BYTES: u64 = (3 << 30) + 1;
    let path = c.mnt().join("large");
    let fail = |e: std::io::Error| format!("{}: {e}", path.display());
    let mut file = std::fs::File::create(&path).map_err(fail)?;
    std::io::copy(&mut Offsets::default().take(BYTES), &mut file).map_err(fail)?;
    drop(file);
    same(std::fs::File::open(&path).map_err(fail)?, BYTES)?;
    let mut cat = c.command(c.pvfs());
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
