//! A cluster of real daemons behind proxies, and one cell of the matrix run in it.

use super::{
    cases::{Asked, Case},
    fault::Fault,
    tree,
};
use pvfs_client::{Client, ClientConfig, File};
use pvfs_testkit::{TestCluster, wait_until};
use pvfs_types::{Cred, Ino, Name};
use pvfs_wire::{Op, msg::hello::Secret};
use std::{
    path::PathBuf,
    sync::{Arc, Mutex},
    time::Duration,
};
use tokio::runtime::Runtime;

pub static ROOT: Cred = Cred::root();
/// Whatever is waited for comes within this, or the test fails.
pub const PATIENCE: Duration = Duration::from_secs(30);

pub struct World {
    cluster: TestCluster,
    runtime: Runtime,
    /// Meets no fault: it prepares and looks.
    helper: Arc<Client>,
    cells: u32,
}

/// What the steps of a case work with.
#[derive(Clone)]
pub struct Cell {
    /// Its messages are meddled with.
    pub actor: Arc<Client>,
    pub helper: Arc<Client>,
    /// How the actor was connected.
    pub config: ClientConfig,
    /// An empty directory of this cell's own.
    pub dir: Ino,
    /// Files held open from step to step.
    pub held: Arc<Mutex<Vec<Arc<File>>>>,
    /// Another client held from step to step.
    pub spare: Arc<Mutex<Option<Arc<Client>>>>,
    /// Where the first iod keeps its objects.
    pub objects: PathBuf,
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

impl Cell {
    pub fn hold(&self, file: File) -> Arc<File> {
        let file = Arc::new(file);
        self.held.lock().unwrap().push(Arc::clone(&file));
        file
    }

    /// The file held last.
    pub fn last(&self) -> Arc<File> {
        Arc::clone(self.held.lock().unwrap().last().unwrap())
    }
}

impl World {
    pub fn start() -> World {
        let cluster = TestCluster::builder(env!("CARGO_BIN_EXE_pvfs")).iods(1).proxied().start();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
        let secret = Secret(cluster.cluster_secret());
        let direct = ClientConfig::new(vec![cluster.addr("mgr").to_owned()], secret);
        let helper = runtime.block_on(Client::connect(direct)).unwrap();
        World { cluster, runtime, helper, cells: 0 }
    }

    /// Runs `case` under `fault`; gives all that can be seen of it.
    #[track_caller]
    pub fn run(&mut self, op: Op, case: &Case, fault: Fault) -> String {
        let daemon = match case.asked {
            Asked::Mgr => "mgr",
            Asked::Iod => "iod0",
        };
        let cell = self.new_cell();
        self.step(&cell, "prepare", case, case.prepare);
        let caught = fault.plan(self.cluster.proxy(daemon), op);
        let acting = self.runtime.spawn((case.act)(cell.clone()));
        if let Some(caught) = &caught {
            caught.wait();
            fault.strike(&mut self.cluster, daemon);
        }
        let acted = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, acting).await });
        let acted = acted.unwrap_or_else(|_| panic!("{} × {fault:?}: hangs", case.name)).unwrap();
        if fault == Fault::DelayedPastReconnect {
            caught.as_ref().unwrap().release();
            self.let_it_arrive(&cell);
        }
        let after = self.tree(&cell);
        let undone = self.step(&cell, "undo", case, case.undo);
        match (fault, &caught) {
            (Fault::DelayedPastOpposite, Some(caught)) => caught.release(),
            (Fault::CopyPastOpposite, Some(caught)) => {
                self.cluster.proxy(daemon).replay(caught);
            }
            _ => {}
        }
        self.let_it_arrive(&cell);
        let last = self.tree(&cell);
        self.leave(&cell);
        format!("answer: {acted}\n{after}then: {undone}\n{last}")
    }

    fn new_cell(&mut self) -> Cell {
        self.cells += 1;
        let secret = Secret(self.cluster.cluster_secret());
        let mut config = ClientConfig::new(vec![self.cluster.proxy("mgr").addr().to_owned()], secret);
        config.label = format!("cell {}", self.cells);
        let dir = name(&config.label);
        let (actor, made) = self.runtime.block_on(async {
            let actor = Client::connect(config.clone()).await.unwrap();
            (actor, self.helper.mkdir(&ROOT, Ino::ROOT, &dir, 0o755).await.unwrap())
        });
        Cell {
            actor,
            helper: Arc::clone(&self.helper),
            config,
            dir: made.ino,
            held: Arc::default(),
            spare: Arc::default(),
            objects: self.cluster.data_dir().join("iod0/objects"),
        }
    }

    fn step(&self, cell: &Cell, what: &str, case: &Case, step: super::cases::Step) -> String {
        let done = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, step(cell.clone())).await });
        done.unwrap_or_else(|_| panic!("{}: {what} hangs", case.name))
    }

    /// A late copy has no answer that could be waited for; some round trips of the same client come after it.
    fn let_it_arrive(&self, cell: &Cell) {
        self.runtime.block_on(async {
            for _ in 0..5 {
                cell.actor.getattr(&ROOT, cell.dir).await.unwrap();
            }
        });
    }

    fn tree(&self, cell: &Cell) -> String {
        self.runtime.block_on(tree::show(&cell.helper, cell.dir))
    }

    fn leave(&self, cell: &Cell) {
        self.runtime.block_on(async {
            let held = std::mem::take(&mut *cell.held.lock().unwrap());
            for file in held {
                file.close().await.unwrap();
            }
            let spare = cell.spare.lock().unwrap().take();
            if let Some(spare) = spare {
                spare.shutdown().await.unwrap();
            }
            cell.actor.shutdown().await.unwrap();
        });
    }

    /// What must hold after all cells: no session is left but the helper's, and everything fits together.
    #[track_caller]
    pub fn end(self) {
        let World { cluster, runtime, helper, .. } = self;
        wait_until("only the helper has a session", PATIENCE, || {
            let status = cluster.status();
            let mgr =
                status.json["daemons"].as_array().unwrap().iter().find(|daemon| daemon["role"] == "mgr");
            mgr.unwrap()["sessions"].as_array().unwrap().len() == 1
        });
        runtime.block_on(helper.shutdown()).unwrap();
        cluster.fsck_finds_nothing();
    }
}
