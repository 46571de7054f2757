//! What a cluster must look like when a test is over.

use crate::{TestCluster, wait_until};
use std::{path::PathBuf, time::Duration};

/// How long what goes on in the background may take.
const PATIENCE: Duration = Duration::from_mins(1);

impl TestCluster {
    /// Runs `pvfs fsck` on the cluster in use: records, files and objects must fit together. All its daemons must run.
    #[track_caller]
    pub fn fsck_finds_nothing(&self) {
        self.wait_targets_up();
        let out = self.run("fsck", ["--json"]);
        let told: serde_json::Value = serde_json::from_slice(&out.stdout)
            .unwrap_or_else(|error| panic!("fsck: {error}: {}", String::from_utf8_lossy(&out.stderr)));
        let is_clean = told["clean"] == true && told["findings"] == serde_json::json!([]);
        assert!(out.status.success() && is_clean, "fsck: {}: {told:#}", out.status);
    }

    /// All object files on the targets of `iod0`, …, in order.
    #[track_caller]
    pub fn objects(&self, iod: &str) -> Vec<PathBuf> {
        let shards = std::fs::read_dir(self.data_dir().join(iod).join("objects")).unwrap();
        let files = shards.flatten().flat_map(|shard| std::fs::read_dir(shard.path()).into_iter().flatten());
        let mut files: Vec<PathBuf> = files.flatten().map(|file| file.path()).collect();
        files.sort();
        files
    }

    /// How many object files there are on all targets.
    #[track_caller]
    pub fn count_objects(&self) -> usize {
        self.iods().map(|iod| self.objects(iod).len()).sum()
    }

    /// Waits until no unlinked file is left, nor an object of one: `left` objects stay on all targets. The mgr must run.
    #[track_caller]
    pub fn wait_objects(&self, left: usize) {
        self.wait_orphans(0);
        wait_until("their objects are gone", PATIENCE, || self.count_objects() == left);
        wait_until("nothing is to be removed", PATIENCE, || self.mgr_gauge("pvfs_garbage_objects") == 0);
    }

    /// Waits until so many unlinked files are left. The mgr must run.
    #[track_caller]
    pub fn wait_orphans(&self, left: u64) {
        wait_until("unlinked files are gone", PATIENCE, || self.mgr_gauge("pvfs_orphans") == left);
    }

    #[track_caller]
    fn mgr_gauge(&self, name: &str) -> u64 {
        self.counters("mgr").get(name).copied().unwrap_or_else(|| panic!("no {name}"))
    }
}
