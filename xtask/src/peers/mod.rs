//! What other file systems do beside ours: the recorded set's lines through mounts, each on all of them in turn.
//!
//! All runs in namespaces of its own (network, mounts, processes), where the other file systems may have the directories and
//! ports that they are built for; whatever ends this ends all of it, and nothing outside is touched. Disks, and all other files,
//! are in memory that is mounted there alone.

mod gluster;
mod moosefs;

use crate::{
    bench::{self, Line, SET},
    cluster::Cluster,
    deps::{self, Need},
    page::Record,
    rings,
    rounds::Rounds,
    run::{self, Outcome},
};
use serde_json::{Value, json};
use std::{
    fs::File,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

const RECORD: Record = Record {
    json: "docs/peers.json",
    page: "docs/performance.md",
    begins: "<!-- the peers: written by `cargo xtask peers --record` -->\n",
    ends: "<!-- the peers end -->\n",
    command: "cargo xtask peers --record",
};

const NEEDS: [Need; 6] = [
    Need::Program("glusterd", "glusterfs-server"),
    Need::Program("gluster", "glusterfs-cli"),
    Need::Program("glusterfs", "glusterfs-client"),
    Need::Program("mfsmaster", "moosefs-master"),
    Need::Program("mfschunkserver", "moosefs-chunkserver"),
    Need::Program("mfsmount", "moosefs-client"),
];

const ROUNDS: u32 = 3;
const PATIENCE: Duration = Duration::from_mins(1);
/// No single line of the set may take longer, its clearing away included.
const LINE_WITHIN: Duration = Duration::from_mins(3);
/// The one machine there is, on its loopback device. Both peers' servers refuse an address of the loopback network.
const HOST: &str = "10.77.0.1";
/// Of each file system: bricks, chunk servers, iods.
const SERVERS: u16 = 4;

const OURS: &str = "PVFS";
const OURS_OVER_TCP: &str = "PVFS over TCP";

/// What is asked for, as words.
struct Asked<'a> {
    record: bool,
    install: bool,
    /// No phase goes on longer.
    secs: &'a str,
}

impl<'a> Asked<'a> {
    fn read(args: &[&'a str]) -> Result<Asked<'a>, String> {
        let (mut asked, mut args) = (Asked { record: false, install: false, secs: "10" }, args.iter());
        while let Some(&arg) = args.next() {
            match arg {
                "--record" => asked.record = true,
                "--install" => asked.install = true,
                "--secs" => asked.secs = args.next().ok_or("--secs SECONDS")?,
                _ => return Err(format!("`{arg}` means nothing here")),
            }
        }
        asked.secs.parse::<f64>().map_err(|_| format!("`{}` is no number of seconds", asked.secs))?;
        Ok(asked)
    }
}

/// `[--record] [--install] [--secs SECONDS]`: makes the namespaces, and runs all in them.
pub fn run(args: &[&str]) -> Outcome {
    let asked = Asked::read(args)?;
    if !rustix::process::geteuid().is_root() {
        return Err("only root makes networks and mounts, which the peers' daemons need".into());
    }
    run::need(&["setpriv", "unshare", "mount", "ip"], "util-linux mount iproute2")?;
    if asked.install {
        deps::install_without_services(NEEDS.into_iter())?;
    }
    let missing: Vec<&str> = NEEDS.into_iter().filter(|need| !need.is_there()).map(Need::package).collect();
    if !missing.is_empty() {
        return Err(format!(
            "{} are missing: `cargo xtask peers --install` installs them",
            missing.join(", ")
        ));
    }
    run::build_release()?;
    // The peers' mounts know nothing of it.
    let _rings = rings::offer();
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    // Killed when this ends, however it ends; and with it goes every process of the namespace.
    let mut inside = run::command(
        "setpriv --pdeathsig KILL unshare --net --mount --pid --fork --kill-child --mount-proc --",
    );
    run::run(inside.arg(me).arg("peers-inside").args(args))
}

/// As [`run()`], in the namespaces.
pub fn run_inside(args: &[&str]) -> Outcome {
    let asked = Asked::read(args)?;
    // As much of the memory as daemons and caches leave: some peers give room back late.
    mount_memory(Path::new("/run"), "75%")?;
    let base = Path::new("/run/pvfs-peers");
    run::run(&mut run::command("ip link set lo up"))?;
    run::run(&mut run::command(&format!("ip addr add {HOST}/32 dev lo")))?;
    let cluster = Cluster::new(&run::release(), base.join("pvfs"))?;
    let mut places = start_ours(&cluster)?;
    places.push(gluster::start(&base.join("gluster"))?);
    places.push(moosefs::start(&base.join("moosefs"))?);
    let rows = measure(&cluster, &places, asked.secs);
    for place in &places {
        let _ = run::run(run::command("umount --lazy").arg(&place.dir));
    }
    let _ = cluster.down();
    let peers = [gluster::about()?, moosefs::about()?];
    let report = json!({
        "machine": bench::machine(), "rounds": ROUNDS, "secs": asked.secs, "peers": peers, "rows": rows?,
    });
    println!("{}", shown(&report)?);
    if asked.record { RECORD.write(&report, &shown(&report)?) } else { Ok(()) }
}

fn mount_memory(dir: &Path, size: &str) -> Outcome {
    run::run(run::command(&format!("mount -t tmpfs -o size={size},mode=755 none")).arg(dir))
}

/// A mounted file system, ready to be measured.
struct Place {
    name: &'static str,
    dir: PathBuf,
    /// Those whose processes are its daemons and mounts.
    programs: &'static [&'static str],
}

/// As `pvfs up` makes it; and once more, as a mount has it that is on another machine than the iods.
fn start_ours(cluster: &Cluster) -> Result<Vec<Place>, String> {
    cluster.up()?;
    cluster.mount_other(&["--tcp", "mount", "/"])?;
    let place = |name, dir| Place { name, dir, programs: &["pvfs"] };
    Ok(vec![place(OURS, cluster.mnt()), place(OURS_OVER_TCP, cluster.other())])
}

fn measure(cluster: &Cluster, places: &[Place], secs: &str) -> Result<Vec<Value>, String> {
    let lines = || SET.iter().filter(|line| line.args.contains('@'));
    let mut rounds = Rounds::default();
    for round in 0..=ROUNDS {
        for line in lines() {
            // Each comes after each other one now and then.
            for place in places.iter().cycle().skip(round as usize % places.len()).take(places.len()) {
                let rows = measure_line(cluster, place, line, secs)?;
                // A line of random reads writes only what it reads, as another line does.
                let is_means = |row: &Value| row["workload"] == "write" && line.args.contains("random-read");
                for row in rows.iter().filter(|row| !is_means(row)) {
                    rounds.take(line.name, place.name, row, round > 0);
                }
            }
        }
        println!("round {round} of {ROUNDS}");
    }
    Ok(rounds.medians())
}

fn measure_line(cluster: &Cluster, place: &Place, line: &Line, secs: &str) -> Result<Vec<Value>, String> {
    line.use_memory();
    let dir = place.dir.display().to_string();
    let pids: Vec<String> = pids_of(place.programs).iter().map(u32::to_string).collect();
    let said = cluster.dir().join("bench.json");
    let mut bench = cluster.command(cluster.pvfs());
    bench.args(["bench", "--json", "--secs", secs, "--pids", &pids.join(",")]);
    bench.args(line.args.split(' ').map(|word| word.replace('@', &dir)));
    let failed = |e: &dyn std::fmt::Display| format!("{}, {}: {e}", place.name, line.name);
    bench.stdout(File::create(&said).map_err(|e| failed(&e))?);
    run::run_within(&mut bench, LINE_WITHIN).map_err(|e| failed(&e))?;
    let text = std::fs::read_to_string(&said).map_err(|e| failed(&e))?;
    let report: Value = serde_json::from_str(&text).map_err(|e| failed(&e))?;
    report["rows"].as_array().cloned().ok_or_else(|| failed(&"no rows"))
}

/// Every process here that runs one of `programs`.
fn pids_of(programs: &[&str]) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").into_iter().flatten().flatten();
    let pids = entries.filter_map(|entry| entry.file_name().to_str()?.parse::<u32>().ok());
    let runs = |pid: &u32| {
        let exe = std::fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        exe.file_name().is_some_and(|name| programs.iter().any(|program| name == *program))
    };
    pids.filter(runs).collect()
}

/// Runs it to its end within [`PATIENCE`]. What it says, and what daemons say that it leaves behind, is shown only if it fails.
fn quietly(command: &mut Command, log: &Path) -> Outcome {
    let failed = |e: std::io::Error| format!("{}: {e}", log.display());
    let file = File::options().create(true).append(true).open(log).map_err(failed)?;
    command.stdout(file.try_clone().map_err(failed)?).stderr(file);
    run::run_within(command, PATIENCE)
        .map_err(|e| format!("{e}; it said:\n{}", std::fs::read_to_string(log).unwrap_or_default()))
}

/// Waits until `is_so`; an error says that `what` did not come.
fn wait_until(what: &str, mut is_so: impl FnMut() -> bool) -> Outcome {
    let end = Instant::now() + PATIENCE;
    while !is_so() {
        if Instant::now() > end {
            return Err(format!("{what}: not within {PATIENCE:?}"));
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

/// For the record: which version of a peer was measured, and how it was set up.
fn about(name: &str, package: &str, settings: &str) -> Result<Value, String> {
    let version =
        run::output(&mut run::command(&format!("dpkg-query --show --showformat=${{Version}} {package}")))?;
    Ok(json!({ "name": name, "package": package, "version": version, "settings": settings }))
}

/// One phase of one line, on all file systems.
struct Compared<'a> {
    name: &'a str,
    phase: &'a str,
    rows: Vec<&'a Value>,
}

impl Compared<'_> {
    fn figure(&self, place: &str, figure: &str) -> Option<f64> {
        self.rows.iter().find(|row| row["where"] == place)?[figure].as_f64()
    }

    /// The rows of `report`, by what they are of.
    fn all(report: &Value) -> Result<Vec<Compared<'_>>, String> {
        let mut all: Vec<Compared> = Vec::new();
        for row in report["rows"].as_array().ok_or("no rows")? {
            let text = |field: &str| row[field].as_str().unwrap_or_default();
            let (name, phase) = (text("name"), text("workload"));
            match all.iter_mut().find(|other| (other.name, other.phase) == (name, phase)) {
                Some(known) => known.rows.push(row),
                None => all.push(Compared { name, phase, rows: vec![row] }),
            }
        }
        Ok(all)
    }
}

/// The tables as the page has them, and what was measured.
fn shown(report: &Value) -> Result<String, String> {
    let peers = report["peers"].as_array().ok_or("no peers")?;
    let names: Vec<&str> = peers.iter().filter_map(|peer| peer["name"].as_str()).collect();
    let compared = Compared::all(report)?;
    let about = |peer: &Value| {
        let [name, version, package, settings] =
            ["name", "version", "package", "settings"].map(|field| peer[field].as_str().unwrap_or_default());
        format!("- {name} {version} (Debian's {package}): {settings}\n")
    };
    Ok([
        format!("\n{}\n{}\n", rates(&compared, &names), cpu(&compared, &names)),
        peers.iter().map(about).collect(),
        format!(
            "- Medians of {} rounds, no phase longer than {} s. All of it: [peers.json](peers.json).\n\n",
            report["rounds"],
            report["secs"].as_str().unwrap_or_default()
        ),
    ]
    .concat())
}

fn rates(compared: &[Compared], peers: &[&str]) -> String {
    let places = [OURS, OURS_OVER_TCP].into_iter().chain(peers.iter().copied());
    let mut head = vec!["what", "phase", "unit"];
    head.extend(places.clone());
    head.extend(["to the best peer", "over TCP"]);
    let line = |one: &Compared| {
        let moves_bytes = one.figure(OURS, "mib_per_s").is_some();
        let (unit, figure) = if moves_bytes { ("MiB/s", "mib_per_s") } else { ("calls/s", "calls_per_s") };
        let best = peers.iter().filter_map(|peer| one.figure(peer, figure)).fold(0.0, f64::max);
        let to_best = |ours| one.figure(ours, figure).filter(|_| best > 0.0).map(|rate| rate / best);
        let mut cells = vec![one.name.to_owned(), one.phase.replace('-', " "), unit.to_owned()];
        cells.extend(places.clone().map(|place| cell(one.figure(place, figure), 0)));
        cells.extend([OURS, OURS_OVER_TCP].map(|ours| cell(to_best(ours), 2)));
        cells
    };
    table(&head, 3, compared.iter().map(line))
}

fn cpu(compared: &[Compared], peers: &[&str]) -> String {
    const FIGURE: &str = "cpu_secs_per_gib";
    let places = [OURS, OURS_OVER_TCP].into_iter().chain(peers.iter().copied());
    let mut head = vec!["CPU s/GiB", "phase"];
    head.extend(places.clone());
    let line = |one: &Compared| {
        let mut cells = vec![one.name.to_owned(), one.phase.replace('-', " ")];
        cells.extend(places.clone().map(|place| cell(one.figure(place, FIGURE), 2)));
        cells
    };
    table(&head, 2, compared.iter().filter(|one| one.figure(OURS, FIGURE).is_some()).map(line))
}

/// All columns but the first `words` hold numbers.
fn table(head: &[&str], words: usize, lines: impl Iterator<Item = Vec<String>>) -> String {
    let rule = (0..head.len()).map(|column| if column < words { "---" } else { "---:" });
    let first = format!("| {} |\n|{}|\n", head.join(" | "), rule.collect::<Vec<_>>().join("|"));
    std::iter::once(first).chain(lines.map(|cells| format!("| {} |\n", cells.join(" | ")))).collect()
}

fn cell(value: Option<f64>, digits: usize) -> String {
    value.map_or_else(|| "–".to_owned(), |value| bench::grouped(value, digits))
}

/// For `tidy`: the page's tables are those of the recorded figures.
pub fn check_page(root: &Path) -> Outcome {
    RECORD.check(root, shown)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_held_against_the_best_peer() {
        let row = |place: &str, rate: f64| json!({ "name": "a", "workload": "random-read", "where": place, "mib_per_s": rate });
        let report = json!({ "rows": [row(OURS, 3000.0), row(OURS_OVER_TCP, 500.0), row("X", 1000.0), row("Y", 10.0)] });
        let text = rates(&Compared::all(&report).expect("rows"), &["X", "Y"]);
        let last = text.lines().last().expect("lines");
        assert_eq!(last, "| a | random read | MiB/s | 3,000 | 500 | 1,000 | 10 | 3.00 | 0.50 |");
    }

    #[test]
    fn what_is_asked_for_is_understood_or_refused() {
        let asked = Asked::read(&["--secs", "2.5", "--record"]).expect("understood");
        assert!(asked.record && !asked.install && asked.secs == "2.5");
        for wrong in [&["--secs"][..], &["--secs", "two"], &["all"]] {
            assert!(Asked::read(wrong).is_err(), "{wrong:?}");
        }
    }
}
