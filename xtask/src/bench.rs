//! The recorded set of benchmarks: what the file system does beside what the machine could do, on one page.
//!
//! Each line of the set is one `pvfs bench` on a fresh local cluster; all lines are run in turn, several rounds of them, so that
//! whatever else the machine does falls on all alike. What is recorded are medians.

use crate::{
    cluster::Cluster,
    leftovers, memory,
    page::{self, Record},
    rings,
    rounds::Rounds,
    run::{self, Outcome},
};
use serde_json::{Value, json};
use std::{
    fmt::Write as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

const RECORD: Record = Record {
    json: "docs/performance.json",
    page: "docs/performance.md",
    begins: "<!-- the table: written by `cargo xtask bench --record` -->\n",
    ends: "<!-- the table ends -->\n",
    command: "cargo xtask bench --record",
};
const PICTURE: &str = "docs/performance.svg";

const ROUNDS: u32 = 5;
/// More than a line that moves bytes needs, in the disks' memory and the kernel's cache; and one of names.
const MEMORY_OF_BYTES: usize = 5 << 29;
const MEMORY_OF_NAMES: usize = 1 << 29;

/// One `pvfs bench`. `@` stands for the mount, `&` for one whose requests come by the device although the kernel offers
/// rings, `%` for a directory on the disk of the targets.
pub struct Line {
    pub name: &'static str,
    pub args: &'static str,
}

pub const SET: [Line; 16] = [
    Line { name: "own files, 1 MiB calls", args: "--pattern ior-easy -b 512M --limits-dir %" },
    Line { name: "own files, 1 MiB calls, over TCP", args: "--tcp --pattern ior-easy -b 512M --no-limits" },
    Line { name: "own files, 1 MiB calls", args: "--pattern ior-easy -b 512M --path @ --no-limits" },
    Line {
        name: "own files, 1 MiB calls, by the device",
        args: "--pattern ior-easy -b 512M --path & --no-limits",
    },
    Line {
        name: "own files, 1 MiB calls, opened for both",
        args: "--run write --read-write -b 512M --path @ --no-limits",
    },
    Line { name: "one file, 1 MiB calls", args: "--run write,read --shared -b 512M --path @ --no-limits" },
    Line { name: "one file, 47,008-byte records", args: "--pattern ior-hard -b 256M --no-limits" },
    Line { name: "one file, 47,008-byte records", args: "--pattern ior-hard -b 256M --path @ --no-limits" },
    Line {
        name: "one file, 47,008-byte records, by the device",
        args: "--pattern ior-hard -b 256M --path & --no-limits",
    },
    Line { name: "4 KiB anywhere", args: "--run write,random-read -b 256M --path @ --no-limits" },
    Line {
        name: "4 KiB anywhere, by the device",
        args: "--run write,random-read -b 256M --path & --no-limits",
    },
    Line {
        name: "empty files, own directories",
        args: "--pattern mdtest-easy -n 10000 --path @ --no-limits",
    },
    Line {
        name: "empty files, own directories, by the device",
        args: "--pattern mdtest-easy -n 10000 --path & --no-limits",
    },
    Line {
        name: "3,901-byte files, one directory",
        args: "--pattern mdtest-hard -n 5000 --path @ --no-limits",
    },
    Line {
        name: "3,901-byte files, one directory, by the device",
        args: "--pattern mdtest-hard -n 5000 --path & --no-limits",
    },
    Line { name: "empty files, 16 callers", args: "--run create,stat,remove -r 16 -n 40000 --no-limits" },
];

impl Line {
    /// Has as much free memory as it needs used a moment ago. A virtual machine gives free memory back to its host after a while, and
    /// takes ten times as long for a page that it must get again: that would be the cost of whoever is measured after an idle moment.
    pub fn use_memory(&self) {
        let moves_bytes = self.args.contains(" -b ");
        let mut memory = vec![0_u8; if moves_bytes { MEMORY_OF_BYTES } else { MEMORY_OF_NAMES }];
        memory.iter_mut().step_by(4096).for_each(|byte| *byte = 1);
        drop(std::hint::black_box(memory));
    }
}

/// Runs the set and shows its medians; `record`: writes them down too. The daemons' disks are in `dir`, on tmpfs unless told
/// otherwise.
pub fn run(record: bool, dir: Option<&str>) -> Outcome {
    run::build_release()?;
    leftovers::prepare()?;
    let base = dir.map_or_else(|| PathBuf::from("/dev/shm"), PathBuf::from);
    let pvfs = run::release();
    let cluster = Cluster::new(&pvfs, base.join(format!("pvfs-xtask-bench-{}", std::process::id())))?;
    let rings = rings::offer();
    let measured = cluster.up().and_then(|()| {
        if rings.is_some() {
            cluster.mount_other(&["mount", "/", "-o", "no_io_uring"])?;
        }
        let watch = memory::Watch::start(&cluster)?;
        let rows = measure(&cluster, rings.is_some());
        Ok((rows?, watch.stop()))
    });
    let umounted = if rings.is_some() { cluster.umount_other() } else { Ok(()) };
    let down = cluster.down();
    let _ = std::fs::remove_dir_all(cluster.dir());
    let (rows, memory) = measured?;
    umounted.and(down)?;
    let report = json!({
        "machine": machine(), "io_uring": rings.is_some(), "rounds": ROUNDS, "rows": rows, "memory": memory,
    });
    println!("{}", tables(&report)?);
    if !record {
        return Ok(());
    }
    page::write(PICTURE, &picture(&report)?)?;
    RECORD.write(&report, &shown(&report)?)
}

fn tables(report: &Value) -> Result<String, String> {
    Ok(table(report)? + "\n" + &memory::table(report)?)
}

/// The picture and the tables.
fn shown(report: &Value) -> Result<String, String> {
    Ok(format!(
        "\n![MiB/s of each phase that moves bytes](performance.svg)\n\n{}\nAll of it: [performance.json](performance.json).\n\n",
        tables(report)?
    ))
}

fn bench(cluster: &Cluster, line: &Line) -> Result<Value, String> {
    let mut bench = cluster.command(cluster.pvfs());
    bench.args(["bench", "--json"]).args(line.args.split(' ').map(|word| cluster.placed(word)));
    let text = run::output(&mut bench)?;
    serde_json::from_str(&text).map_err(|e| format!("pvfs bench {}: {e}", line.args))
}

/// `over_rings`: the mount's requests come so, and the other one's do not.
fn measure(cluster: &Cluster, over_rings: bool) -> Result<Vec<Value>, String> {
    let lines = || SET.iter().filter(|line| over_rings || !line.args.contains('&'));
    let mut rounds = Rounds::default();
    for round in 0..=ROUNDS {
        for line in lines() {
            line.use_memory();
            wait_for_rest();
            let report = bench(cluster, line)?;
            for row in report["rows"].as_array().into_iter().flatten() {
                rounds.take(line.name, row["where"].as_str().unwrap_or_default(), row, round > 0);
            }
        }
        println!("round {round} of {ROUNDS}");
    }
    Ok(rounds.medians())
}

/// Waits until next to nothing runs: daemons go on for a while with what the line before has left to be cleared away.
fn wait_for_rest() {
    const LOOK: Duration = Duration::from_millis(250);
    let end = Instant::now() + Duration::from_secs(20);
    loop {
        let before = ticks();
        std::thread::sleep(LOOK);
        let (idle, all) = ticks();
        // The kernel may count time that was spent waiting for disks back.
        let [idle, all] = [idle.saturating_sub(before.0), all.saturating_sub(before.1)];
        if idle * 100 >= all * 95 || Instant::now() > end {
            return;
        }
    }
}

/// Of all processors, since the machine's start: idle ones, and all.
fn ticks() -> (u64, u64) {
    let stat = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let ticks = stat.lines().next().unwrap_or_default().split_whitespace().skip(1);
    let ticks: Vec<u64> = ticks.filter_map(|word| word.parse().ok()).collect();
    // Waiting for a disk is idle too.
    (ticks.iter().skip(3).take(2).sum(), ticks.iter().sum())
}

/// What the figures are of.
pub fn machine() -> Value {
    let first = |path: &str, key: &str| {
        let text = std::fs::read_to_string(path).unwrap_or_default();
        let line = text.lines().find(|line| line.starts_with(key)).unwrap_or_default().to_owned();
        line.split_once(':').map_or(line.clone(), |(_, value)| value.trim().to_owned())
    };
    let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    json!({
        "processor": first("/proc/cpuinfo", "model name"),
        "cores": cores,
        "memory": first("/proc/meminfo", "MemTotal"),
        "linux": kernel.trim(),
    })
}

fn table(report: &Value) -> Result<String, String> {
    let mut text = String::from(
        "| what | phase | where | MiB/s | calls/s | CPU s/GiB | µs, median | µs, 99 % |\n|---|---|---|---:|---:|---:|---:|---:|\n",
    );
    for row in report["rows"].as_array().ok_or("no rows")? {
        let number = |figure: &str, digits: usize| {
            row[figure].as_f64().map_or_else(|| "–".to_owned(), |value| grouped(value, digits))
        };
        let word = |field: &str| row[field].as_str().unwrap_or_default().replace('-', " ");
        writeln!(
            text,
            "| {} | {} | {} | {} | {} | {} | {} | {} |",
            row["name"].as_str().unwrap_or_default(),
            word("workload"),
            shown_place(row),
            number("mib_per_s", 0),
            number("calls_per_s", 0),
            number("cpu_secs_per_gib", 2),
            number("latency_us_p50", 0),
            number("latency_us_p99", 0),
        )
        .map_err(|e| e.to_string())?;
    }
    Ok(text)
}

fn shown_place(row: &Value) -> &str {
    match row["where"].as_str().unwrap_or_default() {
        "path" => "mount",
        other => other,
    }
}

/// With commas between thousands.
pub fn grouped(value: f64, digits: usize) -> String {
    let text = format!("{value:.digits$}");
    let (whole, rest) = text.find('.').map_or((text.as_str(), ""), |at| text.split_at(at));
    let mut out = String::new();
    for (at, digit) in whole.chars().enumerate() {
        if at > 0 && (whole.len() - at).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out + rest
}

/// Bars of the rates in MiB/s, what the machine could do among them.
fn picture(report: &Value) -> Result<String, String> {
    const BAR: f64 = 20.0;
    const LEFT: f64 = 330.0;
    const WIDTH: f64 = 420.0;
    let rows = report["rows"].as_array().ok_or("no rows")?;
    let rates: Vec<(&Value, f64)> =
        rows.iter().filter_map(|row| Some((row, row["mib_per_s"].as_f64()?))).collect();
    // A directory in memory is no limit to come near to: it would make all else small.
    let rates: Vec<_> = rates.into_iter().filter(|(row, _)| row["where"] != "local dir").collect();
    let most = rates.iter().map(|(_, rate)| *rate).fold(1.0, f64::max);
    let height = rates.iter().map(|_| BAR).sum::<f64>() + BAR;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {} {height}\" font-family=\"sans-serif\" font-size=\"12\">\n\
         <rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n",
        LEFT + WIDTH + 80.0
    );
    let mut y = BAR / 2.0;
    for (row, rate) in rates {
        let colour = if row["where"] == "bare TCP" { "#999999" } else { "#2a6f97" };
        let name = format!(
            "{}, {} ({})",
            row["name"].as_str().unwrap_or_default(),
            row["workload"].as_str().unwrap_or_default(),
            shown_place(row)
        );
        let (width, text_y) = (WIDTH * rate / most, y + BAR * 0.7);
        writeln!(
            svg,
            "<text x=\"{}\" y=\"{text_y}\" text-anchor=\"end\">{name}</text>\
             <rect x=\"{LEFT}\" y=\"{}\" width=\"{width:.1}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{:.1}\" y=\"{text_y}\">{} MiB/s</text>",
            LEFT - 8.0,
            y + 2.0,
            BAR - 4.0,
            LEFT + width + 6.0,
            grouped(rate, 0),
        )
        .map_err(|e| e.to_string())?;
        y += BAR;
    }
    svg.push_str("</svg>\n");
    Ok(svg)
}

/// For `tidy`: the page's tables are those of the recorded figures.
pub fn check_page(root: &Path) -> Outcome {
    RECORD.check(root, shown)
}
