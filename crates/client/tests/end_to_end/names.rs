//! Names and paths through the client.

use crate::cluster::{Cluster, ROOT, create, layout, name};
use pvfs_client::{ClientError, CreateOptions, OpenOptions, RenameMode};
use pvfs_types::{Cred, Errno, FileKind, Ino, mode};

fn errno<T>(result: Result<T, ClientError>) -> Errno {
    result.err().expect("must be refused").errno()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn paths_lead_over_symbolic_links() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let a = client.mkdir(&ROOT, Ino::ROOT, &name("a"), 0o755).await.unwrap().ino;
    let b = client.mkdir(&ROOT, a, &name("b"), 0o755).await.unwrap().ino;
    client.symlink(&ROOT, Ino::ROOT, &name("l"), b"a/b").await.unwrap();
    client.symlink(&ROOT, b, &name("up"), b"../..").await.unwrap();
    client.symlink(&ROOT, b, &name("abs"), b"/a").await.unwrap();
    client.symlink(&ROOT, Ino::ROOT, &name("loop"), b"loop").await.unwrap();
    client.symlink(&ROOT, Ino::ROOT, &name("nowhere"), b"a/new").await.unwrap();
    let made = client.create_path(&ROOT, "/l/file", CreateOptions::default()).await.unwrap();
    let ino = made.file.ino();
    made.file.close().await.unwrap();
    for path in
        ["a/b/file", "/a/./b//file", "l/file", "l/up/l/file", "l/abs/b/file", "a/../a/b/file", "../l/file"]
    {
        assert_eq!(client.resolve(&ROOT, path, true).await.unwrap().ino, ino, "{path}");
    }
    assert_eq!(client.resolve(&ROOT, "/", true).await.unwrap().ino, Ino::ROOT);
    assert_eq!(client.resolve(&ROOT, "l", false).await.unwrap().kind, FileKind::Symlink);
    assert_eq!(client.resolve(&ROOT, "l/", false).await.unwrap().ino, b, "a slash at the end follows");
    assert_eq!(errno(client.resolve(&ROOT, "loop", true).await), Errno::ELOOP);
    assert_eq!(errno(client.resolve(&ROOT, "loop/x", true).await), Errno::ELOOP);
    assert_eq!(errno(client.resolve(&ROOT, "l/file/", true).await), Errno::ENOTDIR);
    assert_eq!(errno(client.resolve(&ROOT, "l/file/x", true).await), Errno::ENOTDIR);
    assert_eq!(errno(client.resolve(&ROOT, "nowhere", true).await), Errno::ENOENT);
    assert_eq!(errno(client.resolve(&ROOT, "", true).await), Errno::ENOENT);
    assert_eq!(errno(client.resolve(&ROOT, vec![b'x'; 4096], true).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(client.resolve(&ROOT, vec![b'x'; 256], true).await), Errno::ENAMETOOLONG);
    assert_eq!(errno(client.open_path(&ROOT, "a", OpenOptions::READ).await), Errno::EISDIR);
    assert_eq!(errno(client.create_path(&ROOT, "a/", CreateOptions::default()).await), Errno::EISDIR);
    let through = client.create_path(&ROOT, "nowhere", CreateOptions::default()).await.unwrap();
    assert!(through.created, "a link's missing target is made");
    assert_eq!(client.resolve(&ROOT, "a/new", false).await.unwrap().ino, through.file.ino());
    let exclusive = CreateOptions { exclusive: true, ..CreateOptions::default() };
    assert_eq!(errno(client.create_path(&ROOT, "nowhere", exclusive).await), Errno::EEXIST);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_name_operation_does_what_it_says() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    let root = Ino::ROOT;
    let file = create(&client, "f", layout(1, 4096)).await;
    let ino = file.ino();
    assert_eq!(client.link(&ROOT, ino, root, &name("g")).await.unwrap().nlink, 2);
    client.rename(&ROOT, (root, &name("f")), (root, &name("h")), RenameMode::Replace).await.unwrap();
    assert_eq!(errno(client.lookup(&ROOT, root, &name("f")).await), Errno::ENOENT);
    let noreplace = client.rename(&ROOT, (root, &name("h")), (root, &name("g")), RenameMode::NoReplace).await;
    assert_eq!(errno(noreplace), Errno::EEXIST);
    client.unlink(&ROOT, root, &name("g")).await.unwrap();
    assert_eq!(client.lookup(&ROOT, root, &name("h")).await.unwrap().ino, ino);
    let fifo = client.mknod(&ROOT, root, &name("p"), FileKind::Fifo, 0o600, (0, 0)).await.unwrap();
    assert_eq!(fifo.kind, FileKind::Fifo);
    let dir = client.mkdir(&ROOT, root, &name("d"), 0o700).await.unwrap();
    assert_eq!(client.lookup_parent(&ROOT, dir.ino).await.unwrap().ino, root);
    client.symlink(&ROOT, dir.ino, &name("s"), b"to").await.unwrap();
    assert_eq!(errno(client.rmdir(&ROOT, root, &name("d")).await), Errno::ENOTEMPTY);
    let link = client.lookup(&ROOT, dir.ino, &name("s")).await.unwrap();
    assert_eq!(client.readlink(&ROOT, link.ino).await.unwrap(), b"to");
    client.unlink(&ROOT, dir.ino, &name("s")).await.unwrap();
    let user = Cred { uid: 7, gid: 7, groups: vec![] };
    assert_eq!(errno(client.access(&user, dir.ino, mode::R).await), Errno::EACCES);
    client.access(&ROOT, dir.ino, mode::R).await.unwrap();
    client.rmdir(&ROOT, root, &name("d")).await.unwrap();
    let mut names: Vec<String> =
        client.readdir_all(&ROOT, root, false).await.unwrap().iter().map(|e| e.name.to_string()).collect();
    names.sort_unstable();
    assert_eq!(names, ["h", "p"]);
    assert!(client.statfs(None).await.unwrap().bytes_total > 0);
    file.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_directories_are_listed_whole_page_by_page() {
    let cluster = Cluster::start(1).await;
    let client = cluster.client().await;
    for n in 0..300 {
        client.mknod(&ROOT, Ino::ROOT, &name(&format!("n{n}")), FileKind::Fifo, 0o600, (0, 0)).await.unwrap();
    }
    let (mut seen, mut cookie) = (std::collections::BTreeSet::new(), 0);
    loop {
        let page = client.readdir(&ROOT, Ino::ROOT, cookie, 7, false).await.unwrap();
        cookie = page.entries.last().map_or(cookie, |entry| entry.cookie);
        seen.extend(page.entries.into_iter().map(|entry| entry.name.to_string()));
        if page.end {
            break;
        }
    }
    assert_eq!(seen.len(), 300);
}
