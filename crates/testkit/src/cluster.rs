//! A whole cluster: one mgr, some iods, mounts.

use crate::{
    FsKind, Image, Ports, Process, Proxy, Status, is_mounted, requests_received, unmount_lazily, wait_until,
};
use rustix::process::{Pid, Signal, kill_process};
use std::{
    collections::BTreeMap,
    ffi::OsStr,
    path::{Path, PathBuf},
    process::{Command, Output},
    time::Duration,
};
use tempfile::TempDir;

/// What a cluster shall be like.
#[derive(Clone, Debug)]
pub struct Builder {
    bin: PathBuf,
    iods: u16,
    parent: Option<PathBuf>,
    envs: Vec<(String, String)>,
    proxied: bool,
    images: Vec<(String, FsKind, u64)>,
    iod_args: Vec<String>,
    mgr_args: Vec<String>,
}

/// A running cluster. Dropping it ends all its processes and mounts and removes its files.
#[derive(Debug)]
pub struct TestCluster {
    bin: PathBuf,
    envs: Vec<(String, String)>,
    /// Mounts first: they are dropped before the daemons they need.
    mounts: Vec<(PathBuf, Process)>,
    processes: Vec<Process>,
    /// After the processes that use them.
    images: Vec<(String, Image)>,
    /// Which run of the machine this is.
    boots: u32,
    addrs: BTreeMap<String, String>,
    proxies: BTreeMap<String, Proxy>,
    ports: Ports,
    dir: TempDir,
}

impl Builder {
    /// How many iods, with one target each (default: 2).
    #[must_use]
    pub fn iods(mut self, iods: u16) -> Builder {
        self.iods = iods;
        self
    }

    /// Puts all of it below `dir` (say, a tmpfs) instead of the machine's temporary directory.
    #[must_use]
    pub fn below(mut self, dir: &Path) -> Builder {
        self.parent = Some(dir.to_owned());
        self
    }

    /// Puts a [`Proxy`] before every daemon: mounts reach the mgr, and everybody the iods, through them.
    #[must_use]
    pub fn proxied(mut self) -> Builder {
        self.proxied = true;
        self
    }

    /// An environment variable for all its processes.
    #[must_use]
    pub fn env(mut self, key: &str, value: &str) -> Builder {
        self.envs.push((key.into(), value.into()));
        self
    }

    /// More arguments for every iod.
    #[must_use]
    pub fn iod_args(mut self, args: &[&str]) -> Builder {
        self.iod_args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// More arguments for the mgr.
    #[must_use]
    pub fn mgr_args(mut self, args: &[&str]) -> Builder {
        self.mgr_args.extend(args.iter().map(ToString::to_string));
        self
    }

    /// Puts the store or target of `mgr`, `iod0`, … on a file system of its own with `bytes`.
    #[must_use]
    pub fn image(mut self, name: &str, kind: FsKind, bytes: u64) -> Builder {
        self.images.push((name.into(), kind, bytes));
        self
    }

    /// Formats, starts and waits until every daemon is ready and every target known.
    #[track_caller]
    pub fn start(self) -> TestCluster {
        let dir = match &self.parent {
            Some(parent) => tempfile::Builder::new().prefix("pvfs-test-").tempdir_in(parent),
            None => tempfile::Builder::new().prefix("pvfs-test-").tempdir(),
        }
        .unwrap();
        let ports = Ports::hold(self.iods + 1);
        std::fs::create_dir(dir.path().join("log")).unwrap();
        let mut envs = self.envs;
        // Nothing of the user's own clusters may be found, nor theirs changed.
        envs.push(("XDG_RUNTIME_DIR".into(), dir.path().join("run").display().to_string()));
        envs.push(("PVFS_BOOT_ID_FILE".into(), dir.path().join("boot-id").display().to_string()));
        let mut cluster = TestCluster {
            bin: self.bin,
            envs,
            mounts: Vec::new(),
            processes: Vec::new(),
            images: Vec::new(),
            boots: 0,
            addrs: BTreeMap::new(),
            proxies: BTreeMap::new(),
            ports,
            dir,
        };
        let (data, port, iods) = (cluster.data_dir(), cluster.ports.first.to_string(), self.iods.to_string());
        let args =
            [OsStr::new("--dir"), data.as_os_str(), "--iods".as_ref(), iods.as_ref(), "--port".as_ref()];
        cluster.run_ok("format", args.into_iter().chain([OsStr::new(&port)]));
        cluster.next_boot();
        for (name, kind, bytes) in &self.images {
            cluster.move_to_image(name, *kind, *bytes);
        }
        let mut args = vec!["mgr"];
        args.extend(self.mgr_args.iter().map(String::as_str));
        cluster.spawn("mgr", &args, 0);
        if self.proxied {
            cluster.proxies.insert("mgr".into(), Proxy::start(&cluster.ports.addr(0)));
        }
        for place in 0..self.iods {
            let name = format!("iod{place}");
            let mut args = vec!["iod", "--name", &name];
            args.extend(self.iod_args.iter().map(String::as_str));
            if self.proxied {
                let proxy = Proxy::start(&cluster.ports.addr(place + 1));
                args.extend(["--advertise", proxy.addr()]);
                cluster.spawn(&name, &args, place + 1);
                cluster.addrs.insert(name.clone(), proxy.addr().to_owned());
                cluster.proxies.insert(name, proxy);
            } else {
                cluster.spawn(&name, &args, place + 1);
            }
        }
        cluster.wait_targets_up();
        cluster
    }
}

impl TestCluster {
    /// A cluster run by the `pvfs` executable `bin`; in tests of its own crate `env!("CARGO_BIN_EXE_pvfs")`.
    pub fn builder(bin: impl AsRef<Path>) -> Builder {
        Builder {
            bin: bin.as_ref().to_owned(),
            iods: 2,
            parent: None,
            envs: Vec::new(),
            proxied: false,
            images: Vec::new(),
            iod_args: Vec::new(),
            mgr_args: Vec::new(),
        }
    }

    #[track_caller]
    pub fn start(bin: impl AsRef<Path>) -> TestCluster {
        TestCluster::builder(bin).start()
    }

    /// Its temporary directory, where tests may keep their own files too.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// What `format` made: cluster.toml, keys, `mgr`, `iod0`, …
    pub fn data_dir(&self) -> PathBuf {
        self.dir.path().join("data")
    }

    pub fn cluster_toml(&self) -> PathBuf {
        self.data_dir().join("cluster.toml")
    }

    /// What clients prove to know: the contents of `cluster.key`.
    pub fn cluster_secret(&self) -> [u8; 32] {
        let text = std::fs::read_to_string(self.data_dir().join("cluster.key")).unwrap();
        std::array::from_fn(|at| u8::from_str_radix(&text[at * 2..at * 2 + 2], 16).unwrap())
    }

    /// Names of all iods: `iod0`, …
    pub fn iods(&self) -> impl Iterator<Item = &str> {
        self.addrs.keys().map(String::as_str).filter(|name| name.starts_with("iod"))
    }

    /// `host:port` of `mgr`, `iod0`, …; of an iod behind a proxy, the proxy's.
    #[track_caller]
    pub fn addr(&self, name: &str) -> &str {
        self.addrs.get(name).unwrap_or_else(|| panic!("no daemon {name}"))
    }

    /// The proxy before `mgr`, `iod0`, … of a cluster that was built so.
    #[track_caller]
    pub fn proxy(&self, name: &str) -> &Proxy {
        self.proxies.get(name).unwrap_or_else(|| panic!("no proxy before {name}"))
    }

    fn spawn(&mut self, name: &str, args: &[&str], place: u16) {
        let mut all: Vec<String> = args.iter().map(ToString::to_string).collect();
        all.extend(["--cluster".into(), self.cluster_toml().display().to_string()]);
        let log_dir = self.dir.path().join("log");
        self.addrs.insert(name.into(), self.ports.addr(place));
        self.processes.push(Process::start(name, &self.bin, all, self.envs.clone(), &log_dir));
    }

    #[track_caller]
    pub fn process(&mut self, name: &str) -> &mut Process {
        let all = self.processes.iter_mut().chain(self.mounts.iter_mut().map(|(_, process)| process));
        all.into_iter().find(|process| process.name() == name).unwrap_or_else(|| panic!("no process {name}"))
    }

    /// SIGKILL to `mgr`, `iod0`, `mount0`, …
    #[track_caller]
    pub fn kill9(&mut self, name: &str) {
        self.process(name).kill9();
    }

    /// SIGKILL to the worker of `mount0`, …, once there is one.
    #[track_caller]
    pub fn kill_worker(&mut self, mount: &str) {
        self.signal_worker(mount, Signal::KILL);
    }

    #[track_caller]
    pub fn signal_worker(&mut self, mount: &str, signal: Signal) {
        let mut worker = None;
        wait_until("there is a worker", Duration::from_mins(1), || {
            worker = self.process(mount).children().first().and_then(|&pid| Pid::from_raw(pid.cast_signed()));
            worker.is_some()
        });
        // One that has died by itself meanwhile is as good.
        let _ = kill_process(worker.expect("waited for"), signal);
    }

    /// SIGTERM, and waits for its end.
    #[track_caller]
    pub fn terminate(&mut self, name: &str) {
        let ended = self.process(name).terminate();
        assert!(ended.is_none_or(|status| status.success()), "{name} ended with {ended:?}");
    }

    /// Starts a killed daemon again and waits until it is ready.
    #[track_caller]
    pub fn restart(&mut self, name: &str) {
        self.process(name).restart();
    }

    /// The file system of its own that `name` has.
    #[track_caller]
    pub fn image(&self, name: &str) -> &Image {
        let image = self.images.iter().find(|(of, _)| of == name);
        &image.unwrap_or_else(|| panic!("{name} has no image")).1
    }

    /// The machine of `name`, a daemon with an image, loses its power: what was not synced is gone. The disk is there
    /// again, the daemon is not.
    #[track_caller]
    pub fn lose_power(&mut self, name: &str) {
        self.image(name).cut_power();
        self.kill9(name);
        self.image(name).remount();
        self.next_boot();
    }

    /// Every daemon that is started from now on finds itself in a new run of the machine.
    fn next_boot(&mut self) {
        self.boots += 1;
        std::fs::write(self.dir.path().join("boot-id"), format!("{:016x}\n", self.boots)).unwrap();
    }

    /// What `format` made for `name` goes to a new file system, mounted in its place.
    fn move_to_image(&mut self, name: &str, kind: FsKind, bytes: u64) {
        let (dir, file) = (self.data_dir().join(name), self.dir.path().join(format!("{name}.image")));
        let aside = self.dir.path().join(format!("{name}.formatted"));
        std::fs::rename(&dir, &aside).unwrap();
        std::fs::create_dir(&dir).unwrap();
        self.images.push((name.into(), Image::new(kind, &file, &dir, bytes)));
        let copied =
            Command::new("cp").args(["-a".as_ref(), aside.join(".").as_os_str(), dir.as_os_str()]).status();
        assert!(copied.unwrap().success(), "cp");
        std::fs::remove_dir_all(&aside).unwrap();
        rustix::fs::syncfs(std::fs::File::open(&dir).unwrap()).unwrap();
    }

    #[track_caller]
    pub fn signal(&mut self, name: &str, signal: Signal) {
        self.process(name).signal(signal);
    }

    /// SIGSTOP to `name`, which hangs from now on, until SIGCONT.
    #[track_caller]
    pub fn stop(&mut self, name: &str) {
        self.process(name).stop();
    }

    /// A command line tool on this cluster, to be run.
    pub fn command<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Command {
        let mut command = Command::new(&self.bin);
        command.arg(name).args(args).envs(self.envs.iter().map(|(key, value)| (key, value)));
        if name != "format" {
            command.arg("--cluster").arg(self.cluster_toml());
        }
        command
    }

    /// Runs `pvfs NAME ARGS…` on this cluster.
    #[track_caller]
    pub fn run<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> Output {
        self.command(name, args).output().unwrap()
    }

    /// Runs `pvfs NAME ARGS…`, which must succeed, and gives its stdout.
    #[track_caller]
    pub fn run_ok<S: AsRef<OsStr>>(&self, name: &str, args: impl IntoIterator<Item = S>) -> String {
        let out = self.run(name, args);
        let stderr = String::from_utf8_lossy(&out.stderr);
        assert!(out.status.success(), "pvfs {name}: {}: {stderr}", out.status);
        String::from_utf8_lossy(&out.stdout).into_owned()
    }

    #[track_caller]
    pub fn status(&self) -> Status {
        let out = self.run("status", ["--json"]);
        let text = String::from_utf8_lossy(&out.stdout);
        assert!(!text.is_empty(), "pvfs status: {}", String::from_utf8_lossy(&out.stderr));
        Status::parse(&text)
    }

    /// All counters of `mgr`, `iod0`, …, which must be up.
    #[track_caller]
    pub fn counters(&self, name: &str) -> BTreeMap<String, u64> {
        let status = self.status();
        let daemon = status.at(self.addr(name));
        assert!(daemon.up, "{name} is down");
        daemon.counters.clone()
    }

    /// How many requests of each operation `name` has received from clients, without those that any look at it makes
    /// (hello, prove, ping, status) and without keep-alives and questions about commits.
    #[track_caller]
    pub fn client_requests(&self, name: &str) -> BTreeMap<String, u64> {
        let mut requests = requests_received(&self.counters(name), "client");
        for op in [
            "hello",
            "prove",
            "ping",
            "status",
            "keep_alive",
            "get_targets",
            "open_session",
            "close_session",
            "commit",
        ] {
            requests.remove(op);
        }
        requests
    }

    /// The calls of all its mounts that wait, as `pvfs status --json` has them.
    pub fn waiting_calls(&self) -> Vec<serde_json::Value> {
        let out = self.run("status", ["--json"]);
        let status: serde_json::Value = serde_json::from_slice(&out.stdout).unwrap_or_default();
        let mounts = status["mounts"].as_array().cloned().unwrap_or_default();
        let here = mounts
            .iter()
            .filter(|mount| mount["dir"].as_str().is_some_and(|dir| Path::new(dir).starts_with(self.dir())));
        here.flat_map(|mount| mount["waiting"].as_array().cloned().unwrap_or_default()).collect()
    }

    /// Waits until the mgr says that every target is up.
    #[track_caller]
    pub fn wait_targets_up(&self) {
        let iods = self.iods().count();
        wait_until("all targets are up", Duration::from_secs(20), || {
            let out = self.run("status", ["--json"]);
            let Ok(json) = serde_json::from_slice::<serde_json::Value>(&out.stdout) else { return false };
            let targets = json["targets"].as_array().map(Vec::as_slice).unwrap_or_default();
            targets.len() >= iods && targets.iter().all(|target| target["up"] == true)
        });
    }

    /// Mounts the whole file system and gives the directory. Each mount is a process `mount0`, `mount1`, …
    #[track_caller]
    pub fn mount(&mut self, options: &[&str]) -> PathBuf {
        let name = format!("mount{}", self.mounts.len());
        let dir = self.dir.path().join(&name);
        std::fs::create_dir(&dir).unwrap();
        let mut args: Vec<String> = vec!["mount".into(), "--foreground".into()];
        args.extend(options.iter().map(ToString::to_string));
        let mgr = self.proxies.get("mgr").map_or(self.addr("mgr"), Proxy::addr);
        args.extend([format!("pvfs://{mgr}/"), dir.display().to_string()]);
        args.extend(["--cluster".into(), self.cluster_toml().display().to_string()]);
        let log_dir = self.dir.path().join("log");
        let process = Process::start(&name, &self.bin, args, self.envs.clone(), &log_dir);
        assert!(is_mounted(&dir), "{name} said ready, but {} is no mount point", dir.display());
        self.mounts.push((dir.clone(), process));
        dir
    }

    /// Unmounts `dir` with `pvfs umount` and waits for the end of its process.
    #[track_caller]
    pub fn unmount(&mut self, dir: &Path) {
        self.run_ok("umount", [dir]);
        let place = self.mounts.iter().position(|(at, _)| at == dir).expect("a mount of this cluster");
        let (dir, mut process) = self.mounts.remove(place);
        wait_until("the mount's process ends", Duration::from_secs(20), || !process.is_running());
        assert!(!is_mounted(&dir), "{} is still mounted", dir.display());
    }
}

impl Drop for TestCluster {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let all = self.processes.iter().chain(self.mounts.iter().map(|(_, process)| process));
            for process in all {
                eprintln!("--- the end of the log of {}\n{}", process.name(), process.log_tail());
            }
        }
        for (dir, process) in std::mem::take(&mut self.mounts) {
            drop(process);
            if is_mounted(&dir) {
                unmount_lazily(&dir);
            }
        }
    }
}
