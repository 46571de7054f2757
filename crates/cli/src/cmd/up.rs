//! `pvfs up`: a whole file system on this machine by one command. Formats on first use, starts the daemons as
//! children, mounts, says what runs where, keeps it running, takes it down.

use crate::{
    args::Global,
    ask::{Asker, first_mgr},
    cmd::format::dir_or_default,
    config::{Cluster, FoundBy},
    context::Context,
    error::{CliError, io_text},
    local,
    mountpoint::{self, MountPointError},
    out, row, running, runtime, show,
    supervise::{Event, Program, Running, StartError},
    unit,
};
use std::{
    ffi::OsString,
    io::{self, Read as _, Write as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
    time::{Duration, Instant},
};
use tokio::sync::watch;

/// How long a port of a daemon that is just ending may stay taken.
const PORT_PATIENCE: Duration = Duration::from_secs(2);
/// How long daemons of an earlier `up` may take to end.
const LEFTOVERS_PATIENCE: Duration = Duration::from_secs(30);
/// How long the table waits for the mgr to have heard of every target.
const TARGETS_PATIENCE: Duration = Duration::from_secs(10);

/// Start a whole file system on this machine and mount it
#[derive(Debug, clap::Args)]
#[command(after_help = "\
On its first use, formats DIR; then starts one mgr and the iods on loopback, mounts, and prints what runs where. A daemon \
that dies is started again at once. Ctrl-C (or `pvfs down`) unmounts and stops everything; the data stays in DIR, and the \
next `pvfs up` finds it.

Mounting needs root, or `fusermount3` (Debian: apt install fuse3); --no-mount needs neither.

Examples:
  pvfs up /mnt/pvfs                     stays in the foreground
  pvfs up --detach /mnt/pvfs            returns when all is ready
  pvfs up --no-mount --iods 2           for `pvfs put`, `pvfs ls` and the like
  pvfs up --dir /scratch/pvfs --iods 8 /mnt/pvfs")]
pub struct Args {
    /// Where to mount it; made if only the last directory is missing
    #[arg(value_name = "MOUNTPOINT", required_unless_present = "no_mount")]
    mountpoint: Option<PathBuf>,
    /// How many iods, with one target each; with more than DIR has, targets are added [default: 4, or what DIR has]
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(1..=1000))]
    iods: Option<u16>,
    /// Where data, keys and logs are [default: the user's data directory, ~/.local/share/pvfs]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// Do not mount
    #[arg(long, conflicts_with = "mountpoint")]
    no_mount: bool,
    /// Return when all is ready; `pvfs down` stops it
    #[arg(long)]
    detach: bool,
    /// The mgr's port; the iods have those that follow [default: 7334, or what DIR has]
    #[arg(long, value_parser = clap::value_parser!(u16).range(1..))]
    port: Option<u16>,
    /// Leave the terminal once ready (what --detach starts)
    #[arg(long, hide = true, conflicts_with = "detach")]
    detached: bool,
}

#[derive(Debug, thiserror::Error)]
pub enum UpError {
    #[error(
        "a `pvfs up` (pid {pid}) runs already from {}: stop it with `pvfs down --dir {}`, or choose another --dir",
        dir.display(), dir.display()
    )]
    Running { dir: PathBuf, pid: u32 },
    #[error("{}: cannot take the lock of this directory: {source}", dir.display())]
    Lock { dir: PathBuf, source: io::Error },
    #[error(
        "daemons that an earlier `pvfs up` from {} left are still ending after {LEFTOVERS_PATIENCE:?}: see what they wait for in {}, or end them with `kill -9`",
        dir.display(), dir.join("log").display()
    )]
    Leftovers { dir: PathBuf },
    #[error(
        "{name} cannot listen on {addr}: {}: see what has the port with `ss -ltnp`, stop that, or choose other ports with --port N (the {count} daemons take N and those that follow)",
        io_text(source)
    )]
    Port { name: String, addr: String, count: usize, source: io::Error },
    #[error(transparent)]
    MountPoint(#[from] MountPointError),
    #[error("the daemons run, but the mount failed: {source}\nTo go without it: pvfs up --no-mount")]
    MountStart { source: StartError },
    #[error("the daemons run, but the mgr does not count all targets as up after {TARGETS_PATIENCE:?}; see the logs in {}", log.display())]
    Targets { log: PathBuf },
    #[error("interrupted while starting: everything is stopped again")]
    Interrupted,
    #[error("{name} did not end within its time and was killed; its log: {}", log.display())]
    Killed { name: String, log: PathBuf },
}

pub fn run(args: &Args, global: &Global) -> Result<(), CliError> {
    if global.cluster.is_some() {
        let text =
            "--cluster does not go with `up`, which has its own cluster: name its directory with --dir DIR";
        return Err(CliError::Usage { text: text.into() });
    }
    if args.detach { detach() } else { runtime::block_on_this_thread(up(args)) }
}

/// Ends what a detached `up` prints to the terminal: all is ready.
const READY_MARK: u8 = 0;

/// Runs the same command again in a session of its own, shows what it prints until it is ready or fails.
fn detach() -> Result<(), CliError> {
    let start = |source| CliError::Runtime { source };
    let exe = std::env::current_exe().map_err(start)?;
    let (mut output, writer) = io::pipe().map_err(start)?;
    let mut command = std::process::Command::new(exe);
    command.args(std::env::args_os().skip(1).filter(|arg| arg != "--detach")).arg("--detached");
    command.stdin(std::process::Stdio::null());
    command.stdout(writer.try_clone().map_err(start)?).stderr(writer);
    own_session(&mut command);
    let mut child = command.spawn().map_err(start)?;
    drop(command); // with its ends of the pipe
    let mut chunk = [0; 4096];
    loop {
        let len = output.read(&mut chunk).map_err(start)?;
        let ready = chunk[..len].contains(&READY_MARK);
        let text: Vec<u8> = chunk[..len].iter().copied().filter(|&byte| byte != READY_MARK).collect();
        // Also when nobody reads it any more (`pvfs up --detach … | head -1`): the daemons must not die of that.
        let _ = io::stdout().write_all(&text);
        if ready {
            return Ok(());
        }
        if len == 0 {
            child.wait().map_err(start)?;
            return Err(CliError::Told);
        }
    }
}

#[expect(unsafe_code, reason = "a session of its own is taken between fork and exec")]
fn own_session(command: &mut std::process::Command) {
    use std::os::unix::process::CommandExt as _;
    let prepare = || rustix::process::setsid().map(drop).map_err(io::Error::from);
    // SAFETY: the closure makes one system call and allocates nothing.
    unsafe { command.pre_exec(prepare) };
}

async fn up(args: &Args) -> Result<(), CliError> {
    let begin = Instant::now();
    let stop = stop_channel()?;
    let dir = dir_or_default(args.dir.as_deref())?;
    local::make_dir(&dir)?;
    let _lock = running::lock(&dir).map_err(|held| match held {
        Ok(pid) => UpError::Running { dir: dir.clone(), pid },
        Err(source) => UpError::Lock { dir: dir.clone(), source },
    })?;
    let _daemons = running::lock_daemons(&dir, LEFTOVERS_PATIENCE)
        .await
        .map_err(|source| UpError::Lock { dir: dir.clone(), source })?
        .ok_or_else(|| UpError::Leftovers { dir: dir.clone() })?;
    let cluster = prepare_files(args, &dir)?;
    let mountpoint = match &args.mountpoint {
        Some(mountpoint) => Some(mountpoint::prepare(mountpoint).map_err(UpError::from)?),
        None => None,
    };
    check_ports(&cluster).await?;
    let log = dir.join("log");
    local::make_dir(&log)?;
    let mut started = Vec::new();
    let ready = tokio::select! {
        biased;
        () = requested(stop.clone()) => Err(UpError::Interrupted.into()),
        ready = start_all(&cluster, mountpoint.as_deref(), &log, &mut started) => ready,
    };
    if let Err(error) = ready {
        let (_, stopping) = watch::channel(true);
        keep_all(started, stopping).await.ok();
        return Err(error);
    }
    let context =
        Context { cluster: cluster.file.clone(), dir, mount: mountpoint.clone(), pid: std::process::id() };
    if let Err(error) = context.store() {
        eprintln!("pvfs up: no context was left ({error}): use --cluster {}", cluster.file.display());
    }
    let capacity = capacity(&cluster);
    out::tell(overview(&context, &cluster, &started, &capacity, begin.elapsed()).trim_end());
    if args.detached {
        leave_terminal(&log.join("up.log")).map_err(|source| CliError::Runtime { source })?;
    }
    let clean = keep_all(started, stop).await;
    context.remove();
    clean?;
    out::tell(format_args!("Stopped. The data stays in {}.", context.dir.display()));
    Ok(())
}

/// Turns true with the first signal to stop.
fn stop_channel() -> Result<watch::Receiver<bool>, CliError> {
    let signal = runtime::stop_signal()?;
    let (tell, stop) = watch::channel(false);
    tokio::spawn(async move {
        signal.await;
        tell.send_replace(true);
        tell.closed().await;
    });
    Ok(stop)
}

async fn requested(mut stop: watch::Receiver<bool>) {
    stop.wait_for(|stop| *stop).await.ok();
}

/// Formats on first use; else adds targets and changes ports as told.
fn prepare_files(args: &Args, dir: &Path) -> Result<Cluster, CliError> {
    let file = dir.join(local::CLUSTER_TOML);
    if file.exists() {
        let adapted = local::adapt(dir, args.iods, args.port)?;
        if adapted.iods_added > 0 {
            let noun = if adapted.iods_added == 1 { "target" } else { "targets" };
            out::tell(format_args!("Added {} {noun} to {}.", adapted.iods_added, dir.display()));
        }
    } else {
        let iods = args.iods.unwrap_or(local::DEFAULT_IODS);
        let fs = local::format(dir, iods, args.port.unwrap_or(local::DEFAULT_PORT))?;
        out::tell(format_args!("Formatted {}: file system {fs}, {iods} targets.", dir.display()));
    }
    Ok(Cluster::load(&file, FoundBy::Flag)?)
}

/// The names and addresses of the daemons that shall run here: the mgr first.
fn listeners(cluster: &Cluster) -> Vec<(String, String)> {
    let local = cluster.local.iter();
    local
        .flat_map(|local| {
            let mgr = local.mgr.iter().map(|mgr| ("mgr".to_owned(), mgr.listen.clone()));
            mgr.chain(local.iod.iter().map(|iod| (iod.name.clone(), iod.listen.clone())))
        })
        .collect()
}

async fn check_ports(cluster: &Cluster) -> Result<(), UpError> {
    let listeners = listeners(cluster);
    let begin = Instant::now();
    for (name, addr) in &listeners {
        while let Err(source) = std::net::TcpListener::bind(addr) {
            // The daemons of an `up` that was killed are just ending, perhaps.
            if source.kind() != io::ErrorKind::AddrInUse || begin.elapsed() > PORT_PATIENCE {
                return Err(UpError::Port {
                    name: name.clone(),
                    addr: addr.clone(),
                    count: listeners.len(),
                    source,
                });
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    }
    Ok(())
}

/// The daemons' command lines.
fn programs(cluster: &Cluster, log: &Path) -> Vec<Program> {
    let program = |name: &str, args: &[&str]| {
        let args = args.iter().map(OsString::from);
        let cluster = ["--cluster".into(), cluster.file.clone().into_os_string()];
        Program {
            name: name.to_owned(),
            args: args.chain(cluster).collect(),
            log: log.join(format!("{name}.log")),
            may_end: false,
            before_restart: None,
        }
    };
    listeners(cluster)
        .iter()
        .map(
            |(name, _)| {
                if name == "mgr" { program("mgr", &["mgr"]) } else { program(name, &["iod", "--name", name]) }
            },
        )
        .collect()
}

fn mount_program(cluster: &Cluster, mountpoint: &Path, log: &Path) -> Program {
    let spec = format!("pvfs://{}/", cluster.mgr.join(","));
    let mut args: Vec<OsString> = vec!["mount".into(), "--foreground".into(), "--cluster".into()];
    args.extend([cluster.file.clone().into(), spec.into(), mountpoint.as_os_str().to_owned()]);
    Program {
        name: "mount".into(),
        args,
        log: log.join("mount.log"),
        may_end: true,
        before_restart: Some(|program| {
            if let Some(mountpoint) = program.args.last() {
                mountpoint::clear_dead(Path::new(mountpoint)).ok();
            }
        }),
    }
}

/// Starts everything; what runs is in `started`, also after an error.
async fn start_all(
    cluster: &Cluster,
    mountpoint: Option<&Path>,
    log: &Path,
    started: &mut Vec<(Program, Running)>,
) -> Result<(), CliError> {
    let mut starting = tokio::task::JoinSet::new();
    for (place, program) in programs(cluster, log).into_iter().enumerate() {
        starting.spawn(async move { (place, program.start().await, program) });
    }
    let mut results = starting.join_all().await;
    results.sort_by_key(|(place, ..)| *place);
    let mut failed = None;
    for (_, result, program) in results {
        match result {
            Ok(running) => started.push((program, running)),
            Err(error) => failed = failed.or(Some(error)),
        }
    }
    if let Some(error) = failed {
        return Err(error.into());
    }
    wait_for_targets(cluster, log).await?;
    if let Some(mountpoint) = mountpoint {
        let program = mount_program(cluster, mountpoint, log);
        let running = program.start().await.map_err(|source| UpError::MountStart { source })?;
        started.push((program, running));
    }
    Ok(())
}

/// Waits until the mgr has heard of every target.
async fn wait_for_targets(cluster: &Cluster, log: &Path) -> Result<(), CliError> {
    let want: usize = cluster.local.iter().flat_map(|local| &local.iod).map(|iod| iod.targets.len()).sum();
    let asker = Asker::new(cluster, None)?;
    let begin = Instant::now();
    loop {
        let known = first_mgr(cluster, async |mgr| asker.targets(mgr).await).await;
        if known.is_ok_and(|(_, known)| known.targets.iter().filter(|target| target.up).count() >= want) {
            return Ok(());
        }
        if begin.elapsed() > TARGETS_PATIENCE {
            return Err(UpError::Targets { log: log.to_owned() }.into());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// For people. Targets on one disk share its room: it counts once.
fn capacity(cluster: &Cluster) -> String {
    let dirs = cluster.local.iter().flat_map(|local| &local.iod).flat_map(|iod| &iod.targets);
    let mut disks = std::collections::HashMap::new();
    for dir in dirs {
        if let (Ok(meta), Ok(room)) = (std::fs::metadata(dir), rustix::fs::statvfs(dir)) {
            disks.insert(meta.dev(), (room.f_bavail * room.f_frsize, room.f_blocks * room.f_frsize));
        }
    }
    let (free, total) = disks.values().fold((0, 0), |sum, room| (sum.0 + room.0, sum.1 + room.1));
    let noun = if disks.len() == 1 { "1 disk".to_owned() } else { format!("{} disks", disks.len()) };
    format!("{} free of {} on {noun}", unit::show_bytes(free), unit::show_bytes(total))
}

/// What runs where, and what to try next.
fn overview(
    context: &Context,
    cluster: &Cluster,
    started: &[(Program, Running)],
    capacity: &str,
    took: Duration,
) -> String {
    let mut rows = vec![row!["DAEMON", "ADDRESS", "PID", "DATA"]];
    for (program, running) in started {
        let local = cluster.local.as_ref();
        let data = match program.name.as_str() {
            "mgr" => local.and_then(|local| local.mgr.as_ref()).map(|mgr| mgr.store.display().to_string()),
            name => local.and_then(|local| local.iod.iter().find(|iod| iod.name == name)).map(|iod| {
                iod.targets.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>().join(", ")
            }),
        };
        let addr = if program.name == "mount" { "-" } else { &running.addr };
        let data = data.or_else(|| context.mount.as_ref().map(|dir| dir.display().to_string()));
        rows.push(row![program.name, addr, running.pid, data.unwrap_or_default()]);
    }
    let mount = context.mount.as_ref().map(|dir| dir.display().to_string());
    let facts = vec![
        row!["File system", cluster.fs],
        row!["Capacity", capacity],
        row!["Mount point", mount.as_deref().unwrap_or("none (--no-mount)")],
        row!["Directory", context.dir.display()],
        row!["Logs", context.dir.join("log").display()],
    ];
    let mut tries = vec![row!["  pvfs status", "how every daemon is"]];
    tries.push(match &mount {
        Some(dir) => row![format!("  cp -r . {dir}/"), "use it as any directory"],
        None => row!["  pvfs put FILE /", "copy a file into it"],
    });
    tries.push(row!["  pvfs ls -l /", "look into it without a mount"]);
    tries.push(row!["  pvfs down", "stop it (or Ctrl-C here)"]);
    format!(
        "PVFS is up ({} ms).\n\n{}\n{}\nTry next:\n{}",
        took.as_millis(),
        show::table(&rows, &[2]),
        show::table(&facts, &[]),
        show::table(&tries, &[])
    )
}

/// Keeps all running until `stop`, then stops the mount, then the iods, then the mgr: each may still need the next.
async fn keep_all(started: Vec<(Program, Running)>, stop: watch::Receiver<bool>) -> Result<(), UpError> {
    let mut groups: Vec<_> = (0..3).map(|_| (watch::channel(false).0, tokio::task::JoinSet::new())).collect();
    for (program, running) in started {
        let rank = match program.name.as_str() {
            "mount" => 0,
            "mgr" => 2,
            _ => 1,
        };
        let (stop, tasks) = &mut groups[rank];
        let stop = stop.subscribe();
        tasks.spawn(async move { (program.keep(running, stop, tell).await, program) });
    }
    requested(stop).await;
    let mut result = Ok(());
    for (stop, tasks) in groups {
        stop.send_replace(true);
        for (clean, program) in tasks.join_all().await {
            if !clean {
                result = Err(UpError::Killed { name: program.name, log: program.log });
            }
        }
    }
    result
}

fn tell(event: Event) {
    match event {
        Event::Died { name, ended, log } => {
            eprintln!("pvfs up: {name} {ended}; starting it again. Its log: {}", log.display());
        }
        Event::Back { name, pid } => eprintln!("pvfs up: {name} runs again (pid {pid})."),
        Event::NotBack { name, error, again_in } => {
            eprintln!("pvfs up: {name} cannot be started: {error}\nNext try in {again_in:?}.");
        }
        Event::EndedByItself { name } => {
            eprintln!(
                "pvfs up: the {name} was unmounted; the daemons run on. Mount again with `pvfs mount`."
            );
        }
    }
}

/// Says that all is ready; from now on messages go to `log`.
fn leave_terminal(log: &Path) -> io::Result<()> {
    let log = std::fs::File::options().create(true).append(true).open(log)?;
    io::stdout().write_all(&[READY_MARK])?;
    io::stdout().flush()?;
    rustix::stdio::dup2_stdout(&log)?;
    rustix::stdio::dup2_stderr(&log)?;
    Ok(())
}
