//! How far a file system on slow links fills them: PVFS' own headline, from 1 iod to 32 with as many clients.
//!
//! Each iod and each client is a process in a network of its own, with one link to a switch, shaped both ways to
//! [`RATE_MBIT`]. The switch and the mgr are in one more network. All of that goes with the processes; nothing outside is touched.

use crate::{
    page::Record,
    run::{self, Outcome},
};
use serde_json::{Value, json};
use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    path::{Path, PathBuf},
    process::{Child, ChildStdout, Command, Stdio},
    thread::sleep,
    time::{Duration, Instant},
};

const RECORD: Record = Record {
    json: "docs/links.json",
    page: "docs/performance.md",
    begins: "<!-- the links: written by `cargo xtask links --record` -->\n",
    ends: "<!-- the links end -->\n",
    command: "cargo xtask links --record",
};

/// Fast Ethernet.
const RATE_MBIT: u32 = 100;
/// What a link sends at once, and what waits before it, in bytes: a switch of its time has no more.
const BURST: &str = "70kb";
const WAITING: &str = "1mb";
const COUNTS: [u32; 7] = [1, 2, 4, 8, 16, 24, 32];
/// Of a call for each iod, and of each of a client's two callers in a phase: 22 s of the client's link. (All that 32 of them write is in memory.)
const PIECE_KIB: u32 = 1024;
const CALLER_KIB: u32 = 128 << 10;
const PATIENCE: Duration = Duration::from_mins(1);
const PORT: u16 = 7335;
/// Where the mgr is.
const SWITCH: &str = "10.77.0.1";

/// Makes a network for the switch, and runs all in it.
pub fn run(args: &[&str]) -> Outcome {
    counts(args)?;
    if !rustix::process::geteuid().is_root() {
        return Err("only root makes networks".into());
    }
    run::need(&["unshare", "nsenter", "ip", "tc"], "util-linux iproute2")?;
    run::build_release()?;
    let me = std::env::current_exe().map_err(|e| e.to_string())?;
    let mut switch = run::command("unshare --net --");
    run::run(switch.arg(me).arg("links-inside").args(args))
}

/// As [`run()`], in the switch's network.
pub fn run_inside(args: &[&str]) -> Outcome {
    let (record, counts) = (args == ["--record"], counts(args)?);
    let base = PathBuf::from(format!("/dev/shm/pvfs-links-{}", run::mark()));
    ip("link set lo up")?;
    ip(&format!("addr add {SWITCH}/32 dev lo"))?;
    std::fs::write("/proc/sys/net/ipv4/ip_forward", "1").map_err(|e| format!("ip_forward: {e}"))?;
    let rows: Result<Vec<Value>, String> = {
        let rows = counts.into_iter().map(|count| {
            let row = measure(count, &base.join(count.to_string()))?;
            println!("{row}");
            Ok(row)
        });
        rows.collect()
    };
    let _ = std::fs::remove_dir_all(&base);
    let report = json!({ "mbit_per_s": RATE_MBIT, "rows": rows? });
    println!("{}", table(&report)?);
    if record { RECORD.write(&report, &shown(&report)?) } else { Ok(()) }
}

/// How many iods and clients: all of them where no number is given.
fn counts(args: &[&str]) -> Result<Vec<u32>, String> {
    if matches!(args, [] | ["--record"]) {
        return Ok(COUNTS.to_vec());
    }
    let count = |word: &&str| match word.parse() {
        Ok(count) if (1..=200).contains(&count) => Ok(count),
        _ => Err(format!("`{word}` is no number of iods from 1 to 200")),
    };
    args.iter().map(count).collect()
}

/// `count` iods and as many clients, which all write and then all read.
fn measure(count: u32, dir: &Path) -> Result<Value, String> {
    let rates = measure_on_switch(count, dir)?;
    let wire = f64::from(count) * f64::from(RATE_MBIT) * 1e6 / 8.0;
    let mut row = json!({ "iods": count });
    for (phase, bytes_per_s) in ["write", "read"].into_iter().zip(rates) {
        row[format!("{phase}_mb_per_s")] = (bytes_per_s / 1e6).into();
        row[format!("{phase}_share")] = (bytes_per_s / wire).into();
    }
    Ok(row)
}

/// Bytes a second of the writes and of the reads.
fn measure_on_switch(count: u32, dir: &Path) -> Result<[f64; 2], String> {
    let pvfs = run::release();
    let shown = dir.display();
    run::output(run::program(&pvfs).args(["format", "--iods", &count.to_string(), "--dir"]).arg(dir))?;
    let file = dir.join("cluster.toml");
    let text = std::fs::read_to_string(&file).map_err(|e| format!("{shown}: {e}"))?;
    let text = text.replacen("127.0.0.1:7334", &format!("{SWITCH}:7334"), 1);
    std::fs::write(&file, text).map_err(|e| format!("{shown}: {e}"))?;
    let program = |words: &str| {
        let mut command = run::program("sh");
        // It begins when its network is there.
        command.args(["-c", "read go && exec \"$@\"", "sh"]).arg(&pvfs).args(words.split_whitespace());
        command.arg("--cluster").arg(&file);
        command
    };
    let mut mgr = Node::start(program(&format!("mgr --store {shown}/mgr --listen {SWITCH}:7334")))?;
    mgr.go()?;
    mgr.is_ready()?;
    let mut iods = Vec::new();
    for number in 0..count {
        let addr = format!("10.77.1.{}", number + 1);
        let words = format!("iod --target {shown}/iod{number} --listen {addr}:{PORT}");
        let mut iod = Node::start(apart(&program(&words)))?;
        iod.link(&format!("{count}i{number}"), &addr)?;
        iod.go()?;
        iods.push(iod);
    }
    iods.iter_mut().try_for_each(Node::is_ready)?;
    all_are_up(run::program(&pvfs).args(["status", "--json", "--cluster"]).arg(&file), count)?;
    let mut clients = Vec::new();
    for number in 0..count {
        // Calls that go to all iods at once, as PVFS was measured.
        let call_kib = PIECE_KIB * count;
        let words = format!(
            "bench --run write,read --ranks 2 --transfer {call_kib}K --bytes {}K --secs 0 --no-limits --json --pids 1",
            CALLER_KIB / call_kib * call_kib,
        );
        let client = Node::start(apart(&program(&words)))?;
        client.link(&format!("{count}c{number}"), &format!("10.77.2.{}", number + 1))?;
        clients.push(client);
    }
    clients.iter_mut().try_for_each(Node::go)?;
    let mut sums = [(0.0, 0.0f64); 2];
    for client in &mut clients {
        let report: Value = serde_json::from_str(&client.said()?).map_err(|e| format!("pvfs bench: {e}"))?;
        for (sum, row) in sums.iter_mut().zip(report["rows"].as_array().into_iter().flatten()) {
            let figure = |name: &str| row[name].as_f64().ok_or(format!("pvfs bench tells no {name}"));
            *sum = (sum.0 + figure("bytes")?, sum.1.max(figure("secs")?));
        }
    }
    // Until the last one was done.
    Ok(sums.map(|(bytes, secs)| bytes / secs.max(1e-9)))
}

/// Waits until the mgr has heard all iods: files made before that avoid the others.
fn all_are_up(status: &mut Command, count: u32) -> Outcome {
    let end = Instant::now() + PATIENCE;
    loop {
        // It fails as long as a daemon is away.
        let out = status.stderr(Stdio::null()).output().map_err(|e| e.to_string())?;
        let said: Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let targets = said["targets"].as_array().into_iter().flatten();
        let up = targets.filter(|target| target["up"] == true).count();
        if up == count as usize {
            return Ok(());
        }
        if Instant::now() > end {
            return Err(format!("{up} of {count} targets are up after {PATIENCE:?}"));
        }
        sleep(Duration::from_millis(100));
    }
}

/// A process, killed when this is dropped; its network goes with it.
struct Node {
    child: Child,
    said: BufReader<ChildStdout>,
}

/// `program` in a network of its own.
fn apart(program: &Command) -> Command {
    let mut apart = run::command("unshare --net --");
    apart.arg(program.get_program()).args(program.get_args());
    apart
}

impl Node {
    fn start(mut command: Command) -> Result<Node, String> {
        let child = command.stdin(Stdio::piped()).stdout(Stdio::piped()).env("PVFS_LOG", "warn").spawn();
        let mut child =
            child.map_err(|e| format!("{} does not start: {e}", command.get_program().display()))?;
        let said = BufReader::new(child.stdout.take().expect("piped"));
        Ok(Node { child, said })
    }

    /// Gives it a link to the switch, called `port` there, and an address.
    fn link(&self, port: &str, addr: &str) -> Outcome {
        let pid = self.child.id();
        let of = |pid: &str| std::fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let end = Instant::now() + PATIENCE;
        while of(&pid.to_string()) == of("self") {
            if Instant::now() > end {
                return Err(format!("{port} got no network of its own"));
            }
            sleep(Duration::from_millis(1));
        }
        let inside =
            |words: String| run::run(&mut run::command(&format!("nsenter --net=/proc/{pid}/ns/net {words}")));
        ip(&format!("link add {port} type veth peer name wire netns {pid}"))?;
        ip(&format!("link set {port} up"))?;
        ip(&format!("route replace {addr}/32 dev {port}"))?;
        inside(format!("ip addr add {addr}/32 dev wire"))?;
        inside("ip link set wire up".to_owned())?;
        // Each knows the switch only: a machine knows some 1,000 neighbours, over all networks in it.
        inside(format!("ip route add default via {SWITCH} dev wire onlink"))?;
        let shaped = |dev: &str| {
            format!("tc qdisc add dev {dev} root tbf rate {RATE_MBIT}mbit burst {BURST} limit {WAITING}")
        };
        inside(shaped("wire"))?;
        run::run(&mut run::command(&shaped(port)))
    }

    /// Lets it begin.
    fn go(&mut self) -> Outcome {
        let mut stdin = self.child.stdin.take().ok_or("it has begun before")?;
        stdin.write_all(b"go\n").map_err(|e| e.to_string())
    }

    /// Waits until a daemon listens.
    fn is_ready(&mut self) -> Outcome {
        let mut line = String::new();
        self.said.read_line(&mut line).map_err(|e| e.to_string())?;
        if line.starts_with("ready") {
            Ok(())
        } else {
            Err(format!("a daemon did not start; it said `{line}`"))
        }
    }

    /// All that it says until it ends.
    fn said(&mut self) -> Result<String, String> {
        let mut said = String::new();
        self.said.read_to_string(&mut said).map_err(|e| e.to_string())?;
        let status = self.child.wait().map_err(|e| e.to_string())?;
        if status.success() { Ok(said) } else { Err(format!("a client: {status}")) }
    }
}

impl Drop for Node {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn ip(words: &str) -> Outcome {
    run::run(&mut run::command(&format!("ip {words}")))
}

fn table(report: &Value) -> Result<String, String> {
    let mut text = String::from(
        "| iods, and clients | written, MB/s | of the wire | read, MB/s | of the wire |\n|---:|---:|---:|---:|---:|\n",
    );
    for row in report["rows"].as_array().ok_or("no rows")? {
        let figure = |name: &str| row[name].as_f64().ok_or(format!("no {name}"));
        let line = format!(
            "| {} | {:.1} | {:.3} | {:.1} | {:.3} |\n",
            row["iods"],
            figure("write_mb_per_s")?,
            figure("write_share")?,
            figure("read_mb_per_s")?,
            figure("read_share")?
        );
        text.push_str(&line);
    }
    Ok(text)
}

/// The table as the page has it.
fn shown(report: &Value) -> Result<String, String> {
    Ok(format!("\n{}\n", table(report)?))
}

/// For `tidy`: the page's table is that of the recorded figures.
pub fn check_page(root: &Path) -> Outcome {
    RECORD.check(root, shown)
}
