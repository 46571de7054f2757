//! Files without a name, through the client.

use crate::cluster::{Cluster, Pace, ROOT, eventually, in_time, name, sessions};
use pvfs_client::{Access, Client, OpenOptions, TmpFileOptions};
use pvfs_types::{Errno, Ino, LayoutHint, NewMode};

const OPTIONS: TmpFileOptions = TmpFileOptions {
    access: Access::READ_WRITE,
    mode: NewMode { mode: 0o600, unmasked: None },
    linkable: true,
    layout: LayoutHint { base: None, pcount: None, ssize: None },
};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_a_name_is_used_and_named_and_costs_one_message_and_no_iod() {
    let cluster = Cluster::start(2).await;
    let client = cluster.client().await;
    let sent = crate::cluster::Sent::since_now(&client);
    let made = client.tmpfile(&ROOT, Ino::ROOT, OPTIONS).await.unwrap();
    assert_eq!(sent.get(), (1, 0));
    let (file, ino) = (made.file, made.attr.ino);
    file.write_at(0, "bytes".into()).await.unwrap();
    let other = cluster.client().await;
    let refused = other.open(&ROOT, ino, OpenOptions::READ).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::ESTALE, "it is nobody else's");
    client.link(&ROOT, ino, Ino::ROOT, &name("f")).await.unwrap();
    let seen = other.open_path(&ROOT, "f", OpenOptions::READ).await.unwrap();
    assert_eq!(seen.read_at(0, 10).await.unwrap(), "bytes");
    file.close().await.unwrap();
    assert_eq!(client.lookup(&ROOT, Ino::ROOT, &name("f")).await.unwrap().nlink, 1);
    let nothing = TmpFileOptions { access: Access::default(), ..OPTIONS };
    let refused = client.tmpfile(&ROOT, Ino::ROOT, nothing).await.unwrap_err();
    assert_eq!(refused.errno(), Errno::EINVAL);
}

/// The close of such a file is soon told by a keep-alive, which may meet the session's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_ends_leaves_no_session_whatever_its_keep_alives_are_at() {
    let pace = Pace { keep_alive_ms: 10, ..Pace::default() };
    let cluster = Cluster::with_pace(1, pace).await;
    let clients: Vec<_> = futures_util::future::join_all((0..40).map(|_| cluster.client())).await;
    let ended = clients.iter().map(|client| async {
        let made = client.tmpfile(&ROOT, Ino::ROOT, OPTIONS).await.unwrap();
        made.file.close().await.unwrap();
        Client::shutdown(client).await.unwrap();
    });
    in_time(futures_util::future::join_all(ended)).await;
    drop(clients);
    assert_eq!(sessions(&cluster).await, 0);
    let late = std::time::Instant::now();
    eventually("a moment passes", || late.elapsed().as_millis() > 300).await;
    assert_eq!(sessions(&cluster).await, 0, "none was opened after the end");
}
