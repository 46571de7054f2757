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
use std::{sync::Arc, time::Duration};
use tokio::{task::JoinSet, time::sleep};

/// Which kinds of trouble a run has.
#[derive(Clone, Copy, Debug)]
pub struct Kinds {
    pub daemons_die: bool,
    pub clients_die: bool,
    pub power_losses: bool,
    pub connections_break: bool,
    pub paths_fall_silent: bool,
    pub paths_are_slow: bool,
    pub clocks_jump: bool,
    pub disks_fail: bool,
    pub disks_fill: bool,
    pub commits_fail: bool,
}

impl Kinds {
    /// Some runs have none, most have a few, some have all.
    pub fn of(random: &Random) -> Kinds {
        let rarity = *random.pick(&[1, 2, 3, 3, 4, 4, 6, 1000]);
        let has = || random.one_in(rarity);
        Kinds {
            daemons_die: has(),
            clients_die: has(),
            power_losses: has(),
            connections_break: has(),
            paths_fall_silent: has(),
            paths_are_slow: has(),
            clocks_jump: has(),
            disks_fail: has(),
            disks_fill: has(),
            commits_fail: has(),
        }
    }

    fn named(&self) -> [(&'static str, bool); 10] {
        [
            ("daemons die", self.daemons_die),
            ("clients die", self.clients_die),
            ("power losses", self.power_losses),
            ("connections break", self.connections_break),
            ("paths fall silent", self.paths_fall_silent),
            ("paths are slow", self.paths_are_slow),
            ("clocks jump", self.clocks_jump),
            ("disks fail", self.disks_fail),
            ("disks fill", self.disks_fill),
            ("commits fail", self.commits_fail),
        ]
    }

    /// Whether daemons may answer with an error, or end, for their disks' sake.
    pub fn disks_err(&self) -> bool {
        self.disks_fail || self.disks_fill || self.commits_fail
    }
}

impl std::fmt::Display for Kinds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let names: Vec<&str> =
            self.named().into_iter().filter(|(_, has)| *has).map(|(name, _)| name).collect();
        f.write_str(if names.is_empty() { "no faults".to_owned() } else { names.join(", ") }.as_str())
    }
}

/// Makes trouble until it is dropped; then [`heal`] makes all well.
pub fn start(kinds: Kinds, cluster: &Arc<Cluster>, seats: &[Arc<ClientSeat>], seed: u64) -> JoinSet<()> {
    let mut troubles = JoinSet::new();
    let trouble =
        Trouble { cluster: Arc::clone(cluster), seats: seats.to_vec(), random: Random::of(seed, "faults") };
    if kinds.daemons_die {
        troubles.spawn(trouble.clone().kill_daemons());
    }
    if kinds.clients_die {
        troubles.spawn(trouble.clone().kill_clients());
    }
    if kinds.power_losses {
        troubles.spawn(trouble.clone().switch_off());
    }
    if kinds.connections_break {
        troubles.spawn(trouble.clone().cut());
    }
    if kinds.paths_fall_silent {
        troubles.spawn(trouble.clone().silence());
    }
    if kinds.paths_are_slow {
        troubles.spawn(trouble.clone().slow());
    }
    if kinds.clocks_jump {
        troubles.spawn(trouble.clone().jump());
    }
    if kinds.disks_fail || kinds.disks_fill {
        troubles.spawn(trouble.clone().spoil_disks(kinds));
    }
    if kinds.commits_fail {
        troubles.spawn(trouble.fail_commits());
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
            disk.set_faults(DiskFaults::default());
        }
        if let Some(process) = daemon.process() {
            process.light_fuse(0);
        }
        daemon.switch_on(&cluster.net);
    }
    seats.iter().for_each(|seat| seat.light_fuse(0));
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

    async fn spoil_disks(self, kinds: Kinds) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            let Some(disk) = self.daemon().disk.clone() else { continue };
            let mut rate =
                || if kinds.disks_fail && self.random.one_in(2) { self.random.between(2..=30) } else { 0 };
            let faults = DiskFaults {
                read_one_in: rate(),
                write_one_in: rate(),
                sync_one_in: rate(),
                full: kinds.disks_fill && self.random.one_in(2),
            };
            disk.set_faults(faults);
            sleep(self.random.millis(100..=3000)).await;
            disk.set_faults(DiskFaults::default());
        }
    }

    async fn fail_commits(self) {
        loop {
            sleep(self.random.millis(500..=6000)).await;
            self.cluster.engine.fail_one_in(self.random.between(1..=6));
            sleep(Duration::min(self.random.millis(10..=2000), Duration::from_secs(2))).await;
            self.cluster.engine.fail_one_in(0);
        }
    }
}
