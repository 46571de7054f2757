//! Native clients of a cluster under test, and what they write.

use pvfs_client::{Client, ClientConfig, CreateOptions, File, OpenOptions};
use pvfs_testkit::TestCluster;
use pvfs_types::{Cred, Ino, LayoutHint, Name};
use pvfs_wire::msg::hello::Secret;
use std::{sync::Arc, time::Duration};

pub const PVFS: &str = env!("CARGO_BIN_EXE_pvfs");
/// Whatever is waited for comes within this, or the test fails.
pub const LIMIT: Duration = Duration::from_mins(1);
pub const ROOT: Cred = Cred::root();
pub const STRIP: u32 = 64 << 10;

/// How to connect to the mgr itself, whether it has a proxy or not.
pub fn config(cluster: &TestCluster) -> ClientConfig {
    ClientConfig::new(vec![cluster.addr("mgr").to_owned()], Secret(cluster.cluster_secret()))
}

pub async fn connect(cluster: &TestCluster) -> Arc<Client> {
    Client::connect(config(cluster)).await.unwrap()
}

/// Connects to the mgr through its proxy.
pub async fn connect_by_proxy(cluster: &TestCluster) -> Arc<Client> {
    let mgr = vec![cluster.proxy("mgr").addr().to_owned()];
    Client::connect(ClientConfig { mgr, ..config(cluster) }).await.unwrap()
}

pub fn name(text: &str) -> Name {
    Name::new(text).unwrap()
}

/// A new file over `pcount` targets from `base` on.
pub async fn create(client: &Client, path: &str, base: Option<u16>, pcount: u16) -> File {
    let layout = LayoutHint { base, pcount: Some(pcount), ssize: Some(STRIP) };
    let options = CreateOptions { layout, exclusive: true, ..CreateOptions::default() };
    client.create_path(&ROOT, path, options).await.unwrap().file
}

/// All of a file.
pub async fn read(client: &Client, path: &str) -> Vec<u8> {
    let file = client.open_path(&ROOT, path, OpenOptions::READ).await.unwrap();
    let bytes = file.read_at(0, 64 << 20).await.unwrap();
    file.close().await.unwrap();
    bytes.into()
}

/// All names in the root directory, in order.
pub async fn list(client: &Client) -> Vec<String> {
    let mut names: Vec<String> = client
        .readdir_all(&ROOT, Ino::ROOT, false)
        .await
        .unwrap()
        .into_iter()
        .map(|item| String::from_utf8(item.name.as_bytes().to_vec()).unwrap())
        .collect();
    names.sort();
    names
}

/// A counter of the client's.
pub fn count(client: &Client, name: &str) -> u64 {
    client.metrics().snapshot().into_iter().find(|(of, _)| of == name).map_or(0, |(_, n)| n)
}

/// `len` bytes that repeat nowhere near.
pub fn bytes(len: usize, seed: u64) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()
    };
    (0..len.div_ceil(8)).flat_map(|_| next()).take(len).collect()
}

/// Fails instead of hanging. Daemons are started and stopped in between, so on one thread of its own.
pub fn run(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, work).await.expect("in time") });
}

/// Waits until `condition` holds, and lets the clients of this runtime go on meanwhile.
pub async fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let all = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(LIMIT, all).await.unwrap_or_else(|_| panic!("never: {what}"));
}

/// Waits until a call of `client` waits for a daemon.
pub async fn until_it_waits(client: &Client) {
    eventually("a call waits for a daemon", || !client.status().waiting.is_empty()).await;
}

/// A new file on one target, the `base`th.
pub async fn create_on(client: &Client, path: &str, base: u16) -> File {
    let layout = LayoutHint { base: Some(base), pcount: Some(1), ssize: None };
    let options = CreateOptions { layout, ..CreateOptions::default() };
    client.create_path(&ROOT, path, options).await.unwrap().file
}
