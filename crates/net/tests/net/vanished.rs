//! A machine that vanishes without a word, and comes back: two network name spaces, and the link between them goes down.

use crate::support::{Desk, identity};
use pvfs_env::{Metrics, TcpTransport};
use pvfs_net::{Dialer, Server};
use pvfs_wire::msg::{hello::Role, session::GetTargets};
use rustix::thread::{Pid, UnshareFlags, gettid};
use std::{
    process::Command,
    sync::{Arc, mpsc},
    time::Duration,
};

const VANISHED_AFTER: Duration = Duration::from_secs(3);
const LIMIT: Duration = Duration::from_secs(40);
const ADDR: &str = "10.77.0.2:7334";

/// Runs `ip` in the calling thread's network.
fn ip(args: &str) {
    let out = Command::new("ip").args(args.split(' ')).output().expect("iproute2 is installed");
    assert!(out.status.success(), "ip {args}: {}", String::from_utf8_lossy(&out.stderr));
}

/// Gives the calling thread a network of its own, which goes with its threads and sockets.
fn own_network() {
    // SAFETY: only the thread's network changes; nothing here relies on which one that is.
    #[expect(unsafe_code, reason = "there is no safe wrapper")]
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNET) }.unwrap();
}

/// Sockets are made on the thread that runs it, so they are in that thread's network.
fn block_on(work: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(LIMIT, work).await.expect("in time") });
}

/// The other machine: told `true`, it is linked, `false`, not. Each is answered when done.
fn far_machine(
    is_there: &mpsc::Sender<Pid>,
    mut orders: tokio::sync::mpsc::Receiver<bool>,
    done: &mpsc::Sender<()>,
) {
    own_network();
    is_there.send(gettid()).unwrap();
    block_on(async {
        orders.recv().await.unwrap();
        ip("addr add 10.77.0.2/24 dev far");
        ip("link set far up");
        let transport = TcpTransport::noticing_after(VANISHED_AFTER);
        let server = Server::bind(transport, ADDR, identity(Role::Mgr), Metrics::new()).await.unwrap();
        let desk: Arc<Desk> = Arc::default();
        tokio::spawn(server.run(desk, std::future::pending()));
        done.send(()).unwrap();
        while let Some(linked) = orders.recv().await {
            ip(if linked { "link set far up" } else { "link set far down" });
            done.send(()).unwrap();
        }
    });
}

#[test]
fn a_machine_that_vanished_without_a_word_is_noticed_idle_or_not_and_asked_again_when_it_is_back() {
    if !rustix::process::geteuid().is_root() {
        eprintln!("skipped: not root: cannot make networks");
        return;
    }
    let (tell_there, there) = mpsc::channel();
    let (order, orders) = tokio::sync::mpsc::channel(1);
    let (tell_done, done) = mpsc::channel();
    let far = std::thread::spawn(move || far_machine(&tell_there, orders, &tell_done));
    let near = std::thread::spawn(move || {
        own_network();
        let far = there.recv().unwrap();
        ip(&format!("link add near type veth peer name far netns {}", far.as_raw_nonzero()));
        ip("addr add 10.77.0.1/24 dev near");
        ip("link set near up");
        block_on(async {
            let link = async |linked: bool| {
                order.send(linked).await.unwrap();
                done.recv().unwrap();
            };
            link(true).await;
            let peer = || {
                let transport = TcpTransport::noticing_after(VANISHED_AFTER);
                let dialer = Dialer::new(transport, identity(Role::Client), Metrics::new());
                dialer.peer(Role::Mgr, vec![ADDR.to_owned()])
            };
            let (idle, busy) = (peer(), peer());
            for peer in [&idle, &busy] {
                peer.call(&GetTargets {}).await.unwrap();
            }
            link(false).await;
            let asking = tokio::spawn({
                let busy = Arc::clone(&busy);
                async move { busy.call(&GetTargets {}).await.unwrap() }
            });
            tokio::join!(idle.broken(), busy.broken());
            assert!(!asking.is_finished(), "nobody can have answered");
            link(true).await;
            asking.await.unwrap();
            idle.call(&GetTargets {}).await.unwrap();
        });
    });
    near.join().unwrap();
    far.join().unwrap();
}
