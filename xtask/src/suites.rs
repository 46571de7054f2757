//! Suites that others wrote, run on a mount: pjdfstest, every errno and time stamp that POSIX asks of names and attributes.
//!
//! What ext4 passes on the same machine PVFS must pass: ext4 is run beside it, on an image.

use crate::{
    cluster::Cluster,
    leftovers,
    run::{self, Outcome},
};
use std::{
    collections::BTreeMap,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

const PJDFSTEST: (&str, &str) = ("pjdfstest", "0.2.2");

/// Run by the tests of the command line.
const FSX: (&str, &str) = ("fsx", "0.3.2");

/// Tests that no FUSE file system can be given, each with the reason.
const NOT_FOR_FUSE: &[(&str, &str)] =
    &[("link::link_count_max", "the C library tells LINK_MAX only of file systems whose names it knows")];

/// Fewer tests than this means that the suite did not run.
const TESTS_MIN: usize = 390;

const CONFIG: &str = "\
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.01
allow_remount = REMOUNT
[dummy_auth]
entries = [[\"nobody\", \"nogroup\"], [\"daemon\", \"daemon\"]]
";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Verdict {
    Ok,
    Failed,
    Skipped,
}

/// By test, what became of it, and what the suite said.
type Verdicts = BTreeMap<String, (Verdict, String)>;

/// All of pjdfstest, on PVFS and on ext4.
pub fn pjdfstest(cluster: &Cluster) -> Outcome {
    if !rustix::process::geteuid().is_root() {
        println!("          not root: pjdfstest has to be, and was not run");
        return Ok(());
    }
    let suite = installed(PJDFSTEST)?;
    let (image, beside) = (cluster.local().join("ext4.img"), cluster.local().join("ext4"));
    std::fs::create_dir_all(&beside).map_err(|e| e.to_string())?;
    run::run(run::command("truncate -s 1G").arg(&image))?;
    run::run(run::command("mkfs.ext4 -q").arg(&image))?;
    run::run(run::command("mount -o loop").arg(&image).arg(&beside))?;
    let ext4 = verdicts(&suite, cluster, &beside, None);
    let unmounted = run::run(run::command("umount").arg(&beside));
    let bin = own_mount(cluster)?;
    let ours = verdicts(&suite, cluster, &cluster.mnt(), Some(&bin));
    unmounted?;
    judged(&ext4?, &ours?)
}

/// Everything at once; but the tests that turn the file system read only by themselves, for by then the suite has
/// descriptors of its other tests open, which make that impossible (`EBUSY`), on ext4 too.
fn verdicts(suite: &Path, cluster: &Cluster, on: &Path, bin: Option<&Path>) -> Result<Verdicts, String> {
    let mut all = run_suite(suite, cluster, on, bin, false)?;
    all.extend(run_suite(suite, cluster, on, bin, true)?);
    Ok(all)
}

fn run_suite(
    suite: &Path,
    cluster: &Cluster,
    on: &Path,
    bin: Option<&Path>,
    remounts: bool,
) -> Result<Verdicts, String> {
    let config = cluster.local().join("pjdfstest.toml");
    std::fs::write(&config, CONFIG.replace("REMOUNT", &remounts.to_string())).map_err(|e| e.to_string())?;
    let mut command: Command = cluster.command(suite);
    command.arg("-c").arg(&config).arg("-s").arg(cluster.local()).arg("-p").arg(on);
    if remounts {
        command.arg("erofs");
    }
    if let Some(bin) = bin {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let dirs = std::iter::once(bin.to_owned()).chain(std::env::split_paths(&path));
        command.env("PATH", std::env::join_paths(dirs).map_err(|e| e.to_string())?);
    }
    // Its exit status says no more than its lines.
    let out = command.stderr(Stdio::inherit()).output().map_err(|e| format!("{}: {e}", suite.display()))?;
    let said = String::from_utf8_lossy(&out.stdout).into_owned();
    if !said.contains("Summary:") {
        return Err(format!("pjdfstest ended early ({}):\n{said}", out.status));
    }
    Ok(read(&said))
}

/// Lines as `chmod::eloop   ok`, those between them belonging to the one before.
fn read(said: &str) -> Verdicts {
    let mut verdicts = Verdicts::new();
    let mut last: Option<String> = None;
    for line in said.lines() {
        let words: Vec<&str> = line.split_whitespace().collect();
        let verdict = match words[..] {
            [name, "ok"] if name.contains("::") => Some((name, Verdict::Ok)),
            [name, "FAILED"] => Some((name, Verdict::Failed)),
            [name, "skipped"] => Some((name, Verdict::Skipped)),
            _ => None,
        };
        if let Some((name, verdict)) = verdict {
            verdicts.insert(name.to_owned(), (verdict, String::new()));
            last = Some(name.to_owned());
        } else if let Some((_, text)) = last.as_ref().and_then(|name| verdicts.get_mut(name)) {
            text.push_str(line.trim());
            text.push(' ');
        }
    }
    verdicts
}

/// Whether `ours` passes what `ext4` passes.
fn judged(ext4: &Verdicts, ours: &Verdicts) -> Outcome {
    let passed = |verdicts: &Verdicts| verdicts.values().filter(|(v, _)| *v == Verdict::Ok).count();
    println!("          pjdfstest: ext4 passes {}, PVFS {}", passed(ext4), passed(ours));
    for (name, why) in NOT_FOR_FUSE {
        println!("          not asked of PVFS: {name}: {why}");
    }
    if passed(ext4) < TESTS_MIN {
        return Err(format!("ext4 passes only {} tests: the suite did not run whole", passed(ext4)));
    }
    let excused = |name: &str| NOT_FOR_FUSE.iter().any(|(test, _)| *test == name);
    let missed: Vec<String> = ext4
        .iter()
        .filter(|(name, (verdict, _))| *verdict == Verdict::Ok && !excused(name))
        .filter_map(|(name, _)| match ours.get(name) {
            Some((Verdict::Ok, _)) => None,
            Some((verdict, said)) => Some(format!("{name}: {verdict:?}: {said}")),
            None => Some(format!("{name}: not run")),
        })
        .collect();
    if missed.is_empty() {
        Ok(())
    } else {
        Err(format!("ext4 passes, PVFS does not:\n{}", missed.join("\n")))
    }
}

/// A directory, the first of a `PATH`, with a `mount` that has us remount: mount(8) would want a link in `/sbin` for that.
fn own_mount(cluster: &Cluster) -> Result<PathBuf, String> {
    let bin = cluster.local().join("bin");
    std::fs::create_dir_all(&bin).map_err(|e| e.to_string())?;
    let script = bin.join("mount");
    let ours = cluster.pvfs().display();
    let text = format!(
        "#!/bin/sh\ncase \"$*\" in *remount*) exec {ours} mount \"$@\" ;; esac\nPATH=${{PATH#*:}} exec mount \"$@\"\n"
    );
    std::fs::write(&script, text).map_err(|e| e.to_string())?;
    run::run(run::command("chmod 755").arg(&script))?;
    Ok(bin)
}

/// Builds what is not there yet.
pub fn install() -> Outcome {
    [PJDFSTEST, FSX].into_iter().try_for_each(|suite| installed(suite).map(drop))
}

/// The program of a crate, built once into the target directory.
fn installed((name, version): (&str, &str)) -> Result<PathBuf, String> {
    let root = run::target_dir().join("tools");
    let program = root.join("bin").join(name);
    if !program.is_file() {
        println!("installing {name} {version}");
        let line = format!("cargo install {name} --version {version} --locked --quiet --root");
        // Not into the run's own build, which may be under way.
        let built = leftovers::temp_dir().join("build-tools");
        run::run(run::command(&line).arg(&root).env("CARGO_TARGET_DIR", &built))?;
        std::fs::remove_dir_all(&built).map_err(|e| e.to_string())?;
    }
    Ok(program)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SAID: &str = "\
chmod::a                  ok
chmod::b                  FAILED
\tassertion failed
chmod::c                  skipped
\trequires features: x

Summary: 1 failed, 1 skipped, 1 passed, 0 expected failures, 3 total
";

    #[test]
    fn each_test_has_its_verdict_and_what_was_said_of_it() {
        let verdicts = read(SAID);
        assert_eq!(verdicts.len(), 3);
        assert_eq!(verdicts["chmod::a"].0, Verdict::Ok);
        assert_eq!(verdicts["chmod::b"], (Verdict::Failed, "assertion failed ".to_owned()));
        assert_eq!(verdicts["chmod::c"].0, Verdict::Skipped);
    }

    #[test]
    fn what_ext4_passes_must_be_passed_and_nothing_else() {
        let all = |verdict: Verdict| -> Verdicts {
            (0..TESTS_MIN).map(|n| (format!("t::{n}"), (verdict, String::new()))).collect()
        };
        let (good, mut ours) = (all(Verdict::Ok), all(Verdict::Ok));
        assert!(judged(&good, &ours).is_ok());
        ours.insert("t::5".into(), (Verdict::Skipped, String::new()));
        assert!(judged(&good, &ours).unwrap_err().contains("t::5"));
        ours.remove("t::5");
        assert!(judged(&good, &ours).unwrap_err().contains("not run"));
        assert!(judged(&all(Verdict::Failed), &ours).unwrap_err().contains("did not run whole"));
    }
}
