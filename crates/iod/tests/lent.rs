//! What an iod does with memory that a client of its machine lends it.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

mod support;

use bytes::{Bytes, BytesMut};
use pvfs_env::{
    HostTransport, Metrics, Transport,
    disk::PassedFile,
    memory::{Arena, BoardView, Room},
};
use pvfs_net::{AnswerRoom, Dialer, Load, Peer, read as reply_of, read_into};
use pvfs_types::{Errno, Slot};
use pvfs_wire::{
    Access, Refusal, Request, Status, encode,
    msg::{
        data::{OpenObject, Ranges, Read, ReadDone, Write},
        hello::Role,
    },
};
use std::{ops::Range, os::unix::fs::FileExt as _, sync::Arc};
use support::{Joined, TARGET, identity, list, pass};

struct Lender {
    peer: Arc<Peer>,
    arena: Arc<Arena>,
}

impl Lender {
    fn new(addr: &str) -> Lender {
        let transport = HostTransport::sharing();
        let arena = Arc::clone(transport.memory().expect("this system gives some"));
        let dialer = Dialer::new(Arc::new(transport), identity(Role::Client), Metrics::new());
        Lender { peer: dialer.peer(Role::Iod, vec![addr.to_owned()]), arena }
    }

    async fn call<R: Request>(&self, request: &R, load: Load<'_>) -> Result<R::Reply, Refusal> {
        let mut reply = None;
        self.peer.call_encoded(R::OP, encode(request), load, &mut read_into(&mut reply)).await?;
        Ok(reply_of(reply))
    }

    /// Writes `parts`, which are lent.
    async fn write(&self, access: Access, ranges: Ranges, parts: &[&[u8]]) -> Result<(), Refusal> {
        let lend = |part: &&[u8]| {
            let mut block = self.arena.take(part.len()).unwrap();
            block.copy_from_slice(part);
            Bytes::from_owner(block)
        };
        let payload: Vec<Bytes> = parts.iter().map(lend).collect();
        let req = Write { target: TARGET, pass: pass(access), slot: Slot(1), ranges, again: None };
        self.call(&req, (&payload).into()).await.map(drop)
    }

    /// Reads into `parts` of a room that is full of `.`.
    async fn read(
        &self,
        access: Access,
        ranges: Ranges,
        parts: &[Range<usize>],
    ) -> (Result<ReadDone, Refusal>, Option<u64>, Bytes) {
        let room = Arc::new(Room::new(self.arena.take(20).unwrap()));
        room.write(0, &[b'.'; 20]);
        let answer = AnswerRoom::new(&room, parts.iter().cloned()).expect("few parts");
        let req = Read { target: TARGET, pass: pass(access), slot: Slot(1), ranges };
        let done = self.call(&req, Load { payload: &[], room: Some(&answer) }).await;
        (done, answer.filled(), room.freeze())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lent_bytes_are_written_and_lent_room_is_filled() {
    let it = Joined::start().await;
    let lender = Lender::new(&it.iod.addr);
    lender.write(Access::WRITE, list(&[(4, 3), (0, 2)]), &[b"xy", b"zab"]).await.unwrap();
    assert!(lender.peer.lends(), "no socket has seen them");
    assert_eq!(&it.client.read(0, 9).await.unwrap()[..], b"ab\0\0xyz", "a client over TCP reads them");
    let (done, filled, bytes) = lender.read(Access::READ, list(&[(5, 4), (0, 3)]), &[10..15, 2..4]).await;
    let done = done.unwrap();
    assert_eq!((done.object_len, done.exists, filled), (7, true, Some(5)));
    assert_eq!(&bytes[..], b"..b\0......yz..a.....");
    assert_eq!(it.iod.count("pvfs_iod_bytes_total{dir=\"written\"}"), 5);
    it.iod.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_descriptor_to_read_is_passed_with_the_right_to_read_and_is_void_when_the_target_must_not_serve() {
    let it = Joined::start().await;
    let lender = Lender::new(&it.iod.addr);
    let open =
        |access, slot, number| OpenObject { target: TARGET, pass: pass(access), slot: Slot(slot), number };
    let nothing = Load::default;
    let refused = lender.call(&open(Access::READ, 1, 1), nothing()).await.expect_err("refused");
    assert_eq!(refused.status, Status::Errno(Errno::ENOENT), "there is no such object yet");
    lender.write(Access::WRITE, list(&[(0, 5)]), &[b"abcde"]).await.unwrap();
    let refused = lender.call(&open(Access::WRITE, 1, 2), nothing()).await.expect_err("refused");
    assert_eq!(refused.status, Status::CapabilityRights);
    assert!(lender.peer.passed(1).is_none() && lender.peer.passed(2).is_none());

    let opened = lender.call(&open(Access::READ, 1, 3), nothing()).await.unwrap();
    let (line, [object, board]) = lender.peer.passed(3).expect("it was passed");
    let twin = std::fs::File::from(object.try_clone().unwrap());
    assert!(twin.write_at(b"x", 0).is_err(), "to read only");
    let file = PassedFile::new(object).unwrap();
    let mut bytes = BytesMut::new();
    file.read_at(&mut bytes, 4, 1).unwrap();
    assert_eq!((&bytes[..], file.len().unwrap()), (&b"bcde"[..], Some(5)));

    let board = BoardView::map(&board).unwrap();
    let ended = board.cuts_ended();
    assert!(board.is_quiet(opened.epoch, ended, u64::MAX));
    assert!(!board.is_quiet(opened.epoch, ended, 1), "the mgr's time is shown");
    it.mgr_tells(None).await;
    assert!(board.is_void(opened.epoch));
    assert!(!line.is_broken());
    it.iod.stop().await;
    assert!(line.is_broken());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_may_not_be_done_leaves_lent_memory_alone() {
    let it = Joined::start().await;
    let lender = Lender::new(&it.iod.addr);
    lender.write(Access::WRITE, list(&[(0, 5)]), &[b"abcde"]).await.unwrap();
    let refused = lender.write(Access::READ, list(&[(0, 5)]), &[b"ABCDE"]).await.expect_err("refused");
    assert_eq!(refused.status, Status::CapabilityRights);
    let refused = lender.write(Access::WRITE, list(&[(0, 4)]), &[b"ABCDE"]).await.expect_err("refused");
    assert_eq!(refused.status, Status::BadRequest, "the ranges are not as long as the bytes");
    for (access, part, status) in [
        (Access::WRITE, 0..5, Status::CapabilityRights),
        (Access::READ, 0..4, Status::BadRequest),
        (Access::READ, 0..6, Status::BadRequest),
    ] {
        let (refused, filled, bytes) = lender.read(access, list(&[(0, 5)]), &[part]).await;
        assert_eq!((refused.expect_err("refused").status, filled), (status, None));
        assert_eq!(&bytes[..], [b'.'; 20]);
    }
    assert_eq!(&it.client.read(0, 9).await.unwrap()[..], b"abcde");
    it.iod.stop().await;
}
