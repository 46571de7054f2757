//! Memory that a client lends with a request: it goes and comes through no socket, and comes back only when nobody is at it.

use crate::support::{FS, identity, until};
use bytes::Bytes;
use pvfs_env::{
    HostTransport, Metrics, TcpTransport, Transport,
    memory::{Arena, Block, Room, SharedSlice},
};
use pvfs_net::{AnswerRoom, Dialer, Incoming, Load, Peer, Replier, Server, Service, Shared};
use pvfs_wire::{Op, Refusal, Status, decode, msg::hello::Role};
use std::{
    pin::Pin,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    task::Poll,
};
use tokio::sync::Semaphore;

const LEN: usize = 100_000;

/// A daemon that takes its time: each request is begun, and done when there is a permit.
struct Slow {
    begun: AtomicU64,
    gate: Semaphore,
    written: Mutex<Vec<Vec<u8>>>,
    takes: bool,
    /// It takes no further request before the last one is done.
    one_by_one: AtomicBool,
}

impl Service for Slow {
    async fn serve(self: Arc<Self>, request: Incoming, reply: Replier) {
        let one_by_one = self.one_by_one.load(Ordering::SeqCst);
        let done = tokio::spawn(async move {
            self.begun.fetch_add(1, Ordering::SeqCst);
            self.gate.acquire().await.expect("never closed").forget();
            match (request.op, &request.shared) {
                (Op::Write, Shared::Payload(parts)) => {
                    self.written.lock().unwrap().push(parts.iter().flat_map(copied).collect());
                    reply.ok(&1u8).await;
                }
                (Op::Write, _) => {
                    self.written.lock().unwrap().push(request.payload.to_vec());
                    reply.ok(&0u8).await;
                }
                (_, Shared::Room(parts)) => {
                    let bytes: usize = parts.iter().map(SharedSlice::len).sum();
                    for part in parts {
                        part.copy_from(&vec![7; part.len()]);
                    }
                    reply.ok_in_room(&1u8, u32::try_from(bytes).unwrap()).await;
                }
                _ => reply.ok_payload(&0u8, &[Bytes::from(vec![7; 10])]).await,
            }
        });
        if one_by_one {
            done.await.expect("it does not panic");
        }
    }

    fn fences(&self, op: Op) -> bool {
        op == Op::Write
    }

    fn takes_shared(&self, op: Op) -> bool {
        self.takes && matches!(op, Op::Read | Op::Write)
    }
}

fn copied(part: &SharedSlice) -> Vec<u8> {
    let mut bytes = vec![0; part.len()];
    part.copy_to(&mut bytes);
    bytes
}

struct World {
    slow: Arc<Slow>,
    peer: Arc<Peer>,
    arena: Arc<Arena>,
}

impl World {
    async fn new(transport: Arc<dyn Transport>, takes: bool) -> World {
        let (begun, written) = (AtomicU64::new(0), Mutex::default());
        let (gate, one_by_one) = (Semaphore::new(0), AtomicBool::new(false));
        let slow = Arc::new(Slow { begun, gate, written, takes, one_by_one });
        let server = Server::bind(transport, "127.0.0.1:0", identity(Role::Iod), Metrics::new()).await;
        let server = server.expect("binds");
        let addr = server.local_addr();
        tokio::spawn(server.run(Arc::clone(&slow), std::future::pending()));
        let client = HostTransport::sharing();
        let arena = Arc::clone(client.memory().expect("this system gives some"));
        let dialer = Dialer::new(Arc::new(client), identity(Role::Client), Metrics::new());
        assert_eq!(dialer.identity().fs, Some(FS));
        World { slow, peer: dialer.peer(Role::Iod, vec![addr]), arena }
    }

    async fn within_the_machine() -> World {
        World::new(Arc::new(HostTransport::default()), true).await
    }

    fn block(&self, fill: u8) -> Block {
        let mut block = self.arena.take(LEN).expect("room");
        block.fill(fill);
        block
    }

    fn begun(&self) -> u64 {
        self.slow.begun.load(Ordering::SeqCst)
    }
}

/// The first byte of the answer's body, which is a number, and the payload.
async fn call(peer: &Peer, op: Op, load: Load<'_>) -> Result<(u8, Bytes), Refusal> {
    let mut number = 0;
    let mut read = |body: &[u8]| {
        number = decode(body)?;
        Ok(())
    };
    let payload = peer.call_encoded(op, Vec::new(), load, &mut read).await?;
    Ok((number, payload))
}

#[tokio::test]
async fn bytes_in_shared_memory_go_and_come_through_no_socket() {
    let it = World::within_the_machine().await;
    it.slow.gate.add_permits(10);
    let bytes = Bytes::from_owner(it.block(3));
    let parts = [bytes.slice(10..20), bytes.slice(50..LEN)];
    assert_eq!(call(&it.peer, Op::Write, (&parts).into()).await.unwrap().0, 1, "it was lent");
    assert_eq!(*it.slow.written.lock().unwrap(), [vec![3; LEN - 40]]);
    assert!(it.peer.lends());

    let room = Arc::new(Room::new(it.block(0)));
    let answer = AnswerRoom::new(&room, [5..10, 20..LEN].into_iter()).expect("few parts");
    let load = Load { payload: &[], room: Some(&answer) };
    let (number, payload) = call(&it.peer, Op::Read, load).await.unwrap();
    assert_eq!((number, payload.len(), answer.filled()), (1, 0, Some(LEN as u64 - 15)));
    let found = room.freeze();
    assert!(found[5..10].iter().chain(&found[20..]).all(|byte| *byte == 7));
    assert!(found[..5].iter().chain(&found[10..20]).all(|byte| *byte == 0), "only where it was told");
}

#[tokio::test]
async fn bytes_elsewhere_and_what_other_machines_get_are_sent() {
    let it = World::within_the_machine().await;
    it.slow.gate.add_permits(10);
    let parts = [Bytes::from(vec![5; LEN])];
    assert_eq!(call(&it.peer, Op::Write, (&parts).into()).await.unwrap().0, 0, "they are not in the arena");
    assert_eq!(*it.slow.written.lock().unwrap(), [vec![5; LEN]]);

    let it = World::new(Arc::new(TcpTransport), true).await;
    it.slow.gate.add_permits(10);
    let parts = [Bytes::from_owner(it.block(3))];
    assert_eq!(
        call(&it.peer, Op::Write, (&parts).into()).await.unwrap().0,
        0,
        "the server is reached over TCP"
    );
    assert_eq!(*it.slow.written.lock().unwrap(), [vec![3; LEN]]);
    assert!(!it.peer.lends());
    let room = Arc::new(Room::new(it.block(0)));
    let answer = AnswerRoom::new(&room, std::iter::once(0..LEN)).expect("few parts");
    let load = Load { payload: &[], room: Some(&answer) };
    let (number, payload) = call(&it.peer, Op::Read, load).await.unwrap();
    assert_eq!((number, &payload[..], answer.filled()), (0, &[7; 10][..], None));
}

#[tokio::test]
async fn a_server_that_takes_no_memory_says_so() {
    let it = World::new(Arc::new(HostTransport::default()), false).await;
    let parts = [Bytes::from_owner(it.block(3))];
    let refused = call(&it.peer, Op::Write, (&parts).into()).await.expect_err("refused");
    assert_eq!(refused.status, Status::BadRequest);
    assert_eq!(it.begun(), 0);
}

#[tokio::test]
async fn what_is_written_stays_lent_until_its_server_has_ended_it_also_when_its_caller_gave_up() {
    let it = World::within_the_machine().await;
    let block = it.block(3);
    let at = block.as_ptr().addr();
    let parts = [Bytes::from_owner(block)];
    let calling = tokio::spawn({
        let peer = Arc::clone(&it.peer);
        async move { call(&peer, Op::Write, (&parts).into()).await }
    });
    until(|| it.begun() == 1).await;
    calling.abort();
    assert!(calling.await.expect_err("given up").is_cancelled());
    assert_ne!(it.block(4).as_ptr().addr(), at, "the server may still be at it");
    // The next connection is welcomed when the first one's work has ended.
    let again = tokio::spawn({
        let (peer, parts) = (Arc::clone(&it.peer), [Bytes::from(vec![5; 3])]);
        async move { call(&peer, Op::Write, (&parts).into()).await }
    });
    for _ in 0..20 {
        tokio::task::yield_now().await;
        assert_ne!(it.block(4).as_ptr().addr(), at);
    }
    it.slow.gate.add_permits(2);
    assert_eq!(again.await.unwrap().unwrap().0, 0);
    assert_eq!(*it.slow.written.lock().unwrap(), [vec![3; LEN], vec![5; 3]], "what was lent was not touched");
    let taken: Vec<Block> = (0..3).map(|_| it.block(0)).collect();
    assert!(taken.iter().any(|block| block.as_ptr().addr() == at), "it has come back");
}

#[tokio::test]
async fn room_stays_lent_until_the_answer_has_come_also_when_nobody_waits_for_it() {
    let it = World::within_the_machine().await;
    let room = Arc::new(Room::new(it.block(0)));
    let lent = Arc::downgrade(&room);
    let calling = tokio::spawn({
        let peer = Arc::clone(&it.peer);
        async move {
            let answer = AnswerRoom::new(&room, std::iter::once(0..LEN)).expect("few parts");
            drop(room);
            call(&peer, Op::Read, Load { payload: &[], room: Some(&answer) }).await
        }
    });
    until(|| it.begun() == 1).await;
    calling.abort();
    assert!(calling.await.expect_err("given up").is_cancelled());
    assert!(lent.upgrade().is_some(), "the server may still write there");
    it.slow.gate.add_permits(1);
    until(|| lent.upgrade().is_none()).await;
    // The connection is whole.
    it.slow.gate.add_permits(1);
    assert_eq!(call(&it.peer, Op::Read, Load::default()).await.unwrap().0, 0);
}

#[tokio::test]
async fn room_of_a_request_that_was_never_sent_comes_back_at_once() {
    let it = World::within_the_machine().await;
    it.slow.one_by_one.store(true, Ordering::SeqCst);
    let first = tokio::spawn({
        let (peer, parts) = (Arc::clone(&it.peer), [Bytes::from(vec![5; 10])]);
        async move { call(&peer, Op::Write, (&parts).into()).await }
    });
    until(|| it.begun() == 1).await;
    // The server does not read now, and the socket does not take all of this.
    let parts = [Bytes::from(vec![5; 4 << 20])];
    let mut second = Box::pin(call(&it.peer, Op::Write, (&parts).into()));
    assert!(has_to_wait(&mut second).await);
    let room = Arc::new(Room::new(it.block(0)));
    let lent = Arc::downgrade(&room);
    let answer = AnswerRoom::new(&room, std::iter::once(0..LEN)).expect("few parts");
    drop(room);
    let load = Load { payload: &[], room: Some(&answer) };
    let mut reading = Box::pin(call(&it.peer, Op::Read, load));
    assert!(has_to_wait(&mut reading).await, "the second one is being sent");
    drop(reading);
    drop(answer);
    assert!(lent.upgrade().is_none(), "nobody was told of it");
    it.slow.gate.add_permits(2);
    assert_eq!(second.await.unwrap().0, 0);
    assert_eq!(first.await.unwrap().unwrap().0, 0, "on the same connection");
    assert_eq!(it.begun(), 2);
}

/// Goes on with it as far as that goes.
async fn has_to_wait(call: &mut Pin<Box<impl Future<Output = Result<(u8, Bytes), Refusal>>>>) -> bool {
    std::future::poll_fn(|cx| Poll::Ready(call.as_mut().poll(cx).is_pending())).await
}
