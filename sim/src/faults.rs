//! What goes wrong in a run, and when: drawn from the seed, one kind of trouble or several at once. In the end all is
//! well again.

use crate::{
    client::ClientSeat,
    cluster::{Cluster, Daemon},
    disk::DiskFaults,
    process::MachineId,
    random::Random,
    trace::event,
};
use std::sync::Arc;
use tokio::{task::JoinSet, time::sleep};

/// A kind of trouble.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    DaemonsDie,
    ClientsDie,
    PowerLosses,
    ConnectionsBreak,
    PathsFallSilent,
    PathsAreSlow,
    ClocksJump,
    DisksFail,
    DisksFill,
    CommitsFail,
}

const ALL: [Kind; 10] = [
    Kind::DaemonsDie,
    Kind::ClientsDie,
    Kind::PowerLosses,
    Kind::ConnectionsBreak,
    Kind::PathsFallSilent,
    Kind::PathsAreSlow,
    Kind::ClocksJump,
    Kind::DisksFail,
    Kind::DisksFill,
    Kind::CommitsFail,
];

/// Which kinds of trouble a run has.
#[derive(Clone, Debug)]
pub struct Kinds(Vec<Kind>);

impl Kinds {
    /// Some runs have none, most have a few, some have all.
    pub fn of(random: &Random) -> Kinds {
        let rarity = *random.pick(&[1, 2, 3, 3, 4, 4, 6, 1000]);
        Kinds(ALL.into_iter().filter(|_| random.one_in(rarity)).collect())
    }

    pub fn has(&self, kind: Kind) -> bool {
        self.0.contains(&kind)
    }

    /// Whether daemons may answer with an error, or end, for their disks' sake.
    pub fn disks_err(&self) -> bool {
        [Kind::DisksFail, Kind::DisksFill, Kind::CommitsFail].into_iter().any(|kind| self.has(kind))
    }
}

impl std::fmt::Display for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.0.is_empty() { f.write_str("no trouble") } else { write!(f, "{:?}", self.0) }
    }
}

/// Makes trouble until it is dropped; then [`heal`] makes all well.
pub fn start(kinds: &Kinds, cluster: &Arc<Cluster>, seats: &[Arc<ClientSeat>], seed: u64) -> JoinSet<()> {
    let mut troubles = JoinSet::new();
    let trouble =
        Trouble { cluster: Arc::clone(cluster), seats: seats.to_vec(), random: Random::of(seed, "faults") };
    for &kind in &kinds.0 {
        let trouble = trouble.clone();
        match kind {
            Kind::DaemonsDie => troubles.spawn(trouble.kill_daemons()),
            Kind::ClientsDie => troubles.spawn(trouble.kill_clients()),
            Kind::PowerLosses => troubles.spawn(trouble.switch_off()),
            Kind::ConnectionsBreak => troubles.spawn(trouble.cut()),
            Kind::PathsFallSilent => troubles.spawn(trouble.silence()),
            Kind::PathsAreSlow => troubles.spawn(trouble.slow()),
            Kind::ClocksJump => troubles.spawn(trouble.jump()),
            Kind::DisksFail => troubles.spawn(trouble.fail_disks()),
            Kind::DisksFill => troubles.spawn(trouble.fill_disks()),
            Kind::CommitsFail => troubles.spawn(trouble.fail_commits()),
        };
    }
    troubles
}

/// Ends all trouble; what is dead comes back by itself.
pub fn heal(cluster: &Cluster, seats: &[Arc<ClientSeat>]) {
    event!(cluster.trace, "run", "all is well from now on");
    let machines = cluster.daemons.len() + seats.len();
    for from in 0..machines {
        for to in 0..machines {
            cluster.net.heal(from, to);
        }
    }
    cluster.engine.fail_one_in(0);
    for daemon in &cluster.daemons {
        if let Some(disk) = &daemon.disk {
            disk.set_faults(|faults| *faults = DiskFaults::default());
        }
        if let Some(process) = daemon.process() {
            process.light_fuse(0);
        }
        daemon.switch_on(&cluster.net);
    }
    for seat in seats {
        seat.light_fuse(0);
    }
}

#[derive(Clone)]
struct Trouble {
    cluster: Arc<Cluster>,
    seats: Vec<Arc<ClientSeat>>,
    random: Random,
}

impl Trouble {
    fn daemon(&self) -> &Arc<Daemon> {
        self.random.pick(&self.cluster.daemons)
    }

    /// Two machines of which one is a daemon's.
    fn path(&self) -> (MachineId, MachineId) {
        let daemon = self.daemon().machine;
        let machines = self.cluster.daemons.len() + self.seats.len();
        let other = (daemon + 1 + self.random.below(machines - 1)) % machines;
        if self.random.one_in(2) { (daemon, other) } else { (other, daemon) }
    }

    /// Mostly in the middle of something.
    async fn kill_daemons(self) {
        loop {
            sleep(self.random.millis(0..=4000)).await;
            let Some(process) = self.daemon().process() else { continue };
            if self.random.one_in(4) {
                process.kill();
            } else {
                process.light_fuse(self.random.between(1..=40));
            }
        }
    }

    async fn kill_clients(self) {
        loop {
            sleep(self.random.millis(1000..=20_000)).await;
            let seat = self.random.pick(&self.seats);
            if self.random.one_in(4) {
                seat.kill();
            } else {
                seat.light_fuse(self.random.between(1..=20));
            }
        }
    }

    async fn switch_off(self) {
        loop {
            sleep(self.random.millis(500..=10_000)).await;
            let off = if self.random.one_in(4) {
                self.random.millis(0..=40_000)
            } else {
                self.random.millis(100..=3000)
            };
            let daemon = Arc::clone(self.daemon());
            self.cluster.lose_power(&daemon, off).await;
        }
    }

    async fn cut(self) {
        loop {
            sleep(self.random.millis(0..=1000)).await;
            self.cluster.net.cut_one();
        }
    }

    /// One direction or both.
    async fn silence(self) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            let (from, to) = self.path();
            let both = self.random.one_in(2);
            self.cluster.net.block(from, to);
            if both {
                self.cluster.net.block(to, from);
            }
            let long = self.random.one_in(5);
            sleep(if long { self.random.millis(10_000..=50_000) } else { self.random.millis(10..=4000) })
                .await;
            self.cluster.net.unblock(from, to);
            if both {
                self.cluster.net.unblock(to, from);
            }
        }
    }

    async fn slow(self) {
        loop {
            sleep(self.random.millis(0..=4000)).await;
            let (from, to) = self.path();
            self.cluster.net.slow(from, to, self.random.between(20..=1500));
            sleep(self.random.millis(100..=8000)).await;
            self.cluster.net.slow(from, to, 0);
        }
    }

    async fn jump(self) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            let daemon = self.daemon();
            let error_ms = i64::try_from(self.random.between(0..=200_000_000)).unwrap_or(0) - 100_000_000;
            event!(self.cluster.trace, daemon.name, "wall clock jumps: it is {error_ms} ms fast");
            daemon.clock.jump(error_ms);
        }
    }

    async fn fail_disks(self) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            let Some(disk) = &self.daemon().disk else { continue };
            let rate = || if self.random.one_in(2) { self.random.between(2..=30) } else { 0 };
            let (read_one_in, write_one_in, sync_one_in) = (rate(), rate(), rate());
            disk.set_faults(|faults| {
                *faults = DiskFaults { read_one_in, write_one_in, sync_one_in, full: faults.full };
            });
            sleep(self.random.millis(100..=3000)).await;
            disk.set_faults(|faults| *faults = DiskFaults { full: faults.full, ..DiskFaults::default() });
        }
    }

    async fn fill_disks(self) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            let Some(disk) = &self.daemon().disk else { continue };
            disk.set_faults(|faults| faults.full = true);
            sleep(self.random.millis(100..=3000)).await;
            disk.set_faults(|faults| faults.full = false);
        }
    }

    async fn fail_commits(self) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            self.cluster.engine.fail_one_in(self.random.between(1..=6));
            sleep(self.random.millis(10..=2000)).await;
            self.cluster.engine.fail_one_in(0);
        }
    }
}
