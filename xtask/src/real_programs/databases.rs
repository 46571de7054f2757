//! Databases, which lock, sync and write over themselves: `SQLite`, `PostgreSQL`, `DuckDB`.

use super::{Cluster, PROGRAM_WITHIN};
use crate::{
    deps,
    run::{self, Outcome},
};
use std::{
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

pub fn sqlite(c: &Cluster) -> Outcome {
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

/// Two processes write one database, each through a mount of its own: with a rollback journal, and with a write-ahead log, whose
/// index is memory that both map.
pub fn sqlite_on_two_mounts(c: &Cluster) -> Outcome {
    ["delete", "wal"].into_iter().try_for_each(|journal| sqlite_with(c, journal))
}

fn sqlite_with(c: &Cluster, journal: &str) -> Outcome {
    const ROUNDS: u32 = 60;
    let sql = |dir: &Path, text: &str| {
        let mut sqlite = c.command("sqlite3");
        sqlite.args(["-bail", "-cmd", ".timeout 60000"]).arg(dir.join("shared.db")).arg(text);
        sqlite
    };
    let make = format!(
        "pragma journal_mode = {journal}; create table t (who int, round int, body text);
         create table sums (n int); insert into sums values (0);"
    );
    let mode = run::output(&mut sql(&c.mnt(), &make))?;
    if mode != format!("{journal}\n") {
        return Err(format!("the journal is {mode}, not {journal}"));
    }
    std::thread::scope(|scope| {
        let writers: Vec<_> = [(1, c.mnt()), (2, c.other())]
            .into_iter()
            .map(|(who, dir)| {
                let round = move |round| {
                    let text = format!(
                        "begin immediate; insert into t values ({who}, {round}, hex(randomblob(50 * {round})));
                         update sums set n = n + 1; commit;"
                    );
                    run::run(&mut sql(&dir, &text))
                };
                scope.spawn(move || (1..=ROUNDS).try_for_each(round))
            })
            .collect();
        writers
            .into_iter()
            .try_for_each(|writer| writer.join().map_err(|_| "a writer panicked".to_owned())?)
    })?;
    for dir in [c.mnt(), c.other()] {
        let text = "pragma integrity_check; select count(*), sum(length(body)) from t; select n from sums;";
        let found = run::output(&mut sql(&dir, text))?;
        let (rows, chars) = (2 * ROUNDS, 2 * 100 * (1..=ROUNDS).sum::<u32>());
        if found != format!("ok\n{rows}|{chars}\n{rows}\n") {
            return Err(format!("{journal}: {} has {found}", dir.display()));
        }
    }
    c.run("rm -f @/shared.db @/shared.db-wal @/shared.db-shm")
}

pub fn postgres(c: &Cluster) -> Outcome {
    Postgres::new(c)?.checked(1, 3)
}

pub fn postgres_for_long(c: &Cluster) -> Outcome {
    Postgres::new(c)?.checked(20, 60)
}

/// A server of its own, with its data in the mount.
struct Postgres<'a> {
    cluster: &'a Cluster,
    programs: PathBuf,
    dir: PathBuf,
    socket: PathBuf,
}

impl Postgres<'_> {
    fn new(cluster: &Cluster) -> Result<Postgres<'_>, String> {
        let programs = deps::postgres_programs().ok_or("PostgreSQL is not there")?;
        let (dir, socket) = (cluster.mnt().join("postgres"), cluster.local().join("socket"));
        let postgres = Postgres { cluster, programs, dir, socket };
        for dir in [&postgres.dir, &postgres.socket] {
            std::fs::create_dir_all(dir).map_err(|e| format!("{}: {e}", dir.display()))?;
            if rustix::process::geteuid().is_root() {
                run::run(run::command("chown postgres").arg(dir))?;
            }
        }
        Ok(postgres)
    }

    /// Not as root: the server refuses that.
    fn command(&self, name: &str) -> Command {
        let program = self.programs.join(name);
        let mut command = if rustix::process::geteuid().is_root() {
            let mut command = self.cluster.command("setpriv");
            command.args(["--reuid=postgres", "--regid=postgres", "--init-groups"]).arg(program);
            command
        } else {
            self.cluster.command(program)
        };
        command.current_dir(&self.socket).env("PGHOST", &self.socket).env("PGUSER", "bench");
        command.env("PGDATABASE", "bench").env("PGDATA", self.dir.join("data")).stdout(Stdio::null());
        command
    }

    /// `program args…` of `PostgreSQL`; arguments are split at spaces.
    fn run(&self, line: &str) -> Outcome {
        let mut words = line.split(' ');
        let mut command = self.command(words.next().unwrap_or_default());
        run::run_within(command.args(words), PROGRAM_WITHIN)
    }

    fn sql(&self, text: &str) -> Result<String, String> {
        run::output(
            self.command("psql").args(["-AtqX", "-v", "ON_ERROR_STOP=1", "-c", text]).stdout(Stdio::piped()),
        )
    }

    fn start(&self) -> Outcome {
        let mut start = self.command("pg_ctl");
        start.arg("-l").arg(self.dir.join("log"));
        let options = format!("-c listen_addresses= -k {}", self.socket.display());
        run::run_within(start.args(["-w", "-o", &options, "start"]), PROGRAM_WITHIN)
    }

    fn stop(&self, mode: &str) -> Outcome {
        self.run(&format!("pg_ctl -w -m {mode} stop"))
    }

    fn checked(&self, scale: u32, secs: u32) -> Outcome {
        let outcome = self.work(scale, secs);
        if outcome.is_err() {
            let _ = self.stop("immediate");
            let log = std::fs::read_to_string(self.dir.join("log")).unwrap_or_default();
            println!("the server's log:\n{log}");
        }
        outcome.and_then(|()| run::run(run::command("rm -r").arg(&self.dir).arg(&self.socket)))
    }

    fn work(&self, scale: u32, secs: u32) -> Outcome {
        self.run("initdb --data-checksums --auth=trust --username=bench")?;
        self.start()?;
        self.run("createdb bench")?;
        self.run(&format!("pgbench -i -q -s {scale}"))?;
        self.run(&format!("pgbench -c 4 -j 2 -T {secs}"))?;
        self.fits(true)?;
        let dump = self.dump()?;
        self.stop("fast")?;
        self.run("pg_checksums --check")?;
        self.start()?;
        if self.dump()? != dump {
            return Err("a dump after a restart is another one".to_owned());
        }
        self.crash()?;
        self.start()?;
        self.fits(false)?;
        self.stop("fast")?;
        self.run("pg_checksums --check")
    }

    /// Each transaction of pgbench moves as much in three tables, and notes it in a fourth. Indexes lead to all rows.
    fn fits(&self, from_the_start: bool) -> Outcome {
        let sums = self.sql(
            "select (select sum(abalance) from pgbench_accounts), (select sum(tbalance) from pgbench_tellers),
                    (select sum(bbalance) from pgbench_branches), (select sum(delta) from pgbench_history)",
        )?;
        let sums: Vec<&str> = sums.trim().split('|').collect();
        let compared = if from_the_start { &sums[..] } else { &sums[..3] };
        if sums.len() != 4 || compared.iter().any(|sum| *sum != sums[0]) {
            return Err(format!("sums that should be one: {sums:?}"));
        }
        self.run("pg_amcheck --install-missing --heapallindexed --parent-check bench")
    }

    fn dump(&self) -> Result<String, String> {
        let dump = run::output(self.command("pg_dump").stdout(Stdio::piped()))?;
        // Newer versions guard a dump by a word that is another each time.
        Ok(dump.lines().filter(|line| !line.contains("restrict ")).collect())
    }

    /// In the middle of transactions.
    fn crash(&self) -> Outcome {
        let count =
            || self.sql("select count(*) from pgbench_history").map(|text| text.trim().parse().unwrap_or(0));
        let before: u64 = count()?;
        let mut running = self.command("pgbench");
        running.args(["-n", "-c", "4", "-j", "2", "-T", "600"]).stderr(Stdio::null());
        let mut running = running.spawn().map_err(|e| e.to_string())?;
        let outcome = (|| {
            while count()? < before + 200 {
                if running.try_wait().map_err(|e| e.to_string())?.is_some() {
                    return Err("pgbench ended by itself".to_owned());
                }
            }
            self.stop("immediate")
        })();
        let _ = running.kill();
        let _ = running.wait();
        outcome
    }
}

/// From `PyPI`: Debian has none.
pub fn duckdb(c: &Cluster) -> Outcome {
    let venv = c.local().join("venv");
    run::run(c.command(deps::PYTHON).args(["-m", "venv"]).arg(&venv))?;
    run::run(c.command(venv.join("bin/pip")).args(["install", "--quiet", "duckdb"]))?;
    super::parallel::python(c, &venv.join("bin/python"), "duckdb")?;
    run::run(run::command("rm -r").arg(&venv))
}
