//! What comes from strangers and broken peers: refused, never served, never a panic, and the daemon goes on.

use crate::support::{Daemon, client, dialer, identity};
use pvfs_net::{CallError, Identity, NetError};
use pvfs_types::FsId;
use pvfs_wire::{
    FRAME_HEADER_BYTES, FrameKind, Header, Op, Refusal, Status, crc32c, encode,
    msg::{
        hello::{Challenge, Hello, Prove, Role, Secret},
        session::GetTargets,
    },
};
use std::time::Duration;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

const DEADLINE: Duration = Duration::from_secs(5);

async fn call_as(identity: Identity, daemon: &Daemon) -> CallError {
    let peer = dialer(identity).peer(Role::Mgr, vec![daemon.addr.clone()]);
    peer.call_once(&GetTargets {}, DEADLINE).await.expect_err("must be refused")
}

fn refused(error: &CallError) -> Status {
    match error {
        CallError::Unreachable(NetError::Refused { refusal, .. }) => refusal.status,
        other => panic!("not a refusal: {other}"),
    }
}

#[tokio::test]
async fn a_client_with_another_secret_is_refused_and_told_what_to_do() {
    let daemon = Daemon::start().await;
    let error =
        call_as(Identity { cluster_secret: Some(Secret([9; 32])), ..identity(Role::Client) }, &daemon).await;
    assert_eq!(refused(&error), Status::Unauthorized);
    assert!(error.to_string().contains("cluster.key"), "{error}");
}

#[tokio::test]
async fn a_client_cannot_pass_for_a_daemon() {
    let daemon = Daemon::start().await;
    // It knows the cluster's secret, not the daemons'.
    let error =
        call_as(Identity { daemon_secret: Some(crate::support::SECRET), ..identity(Role::Iod) }, &daemon)
            .await;
    assert_eq!(refused(&error), Status::Unauthorized);
}

#[tokio::test]
async fn a_client_of_another_file_system_is_refused() {
    let daemon = Daemon::start().await;
    let error = call_as(Identity { fs: Some(FsId([8; 16])), ..identity(Role::Client) }, &daemon).await;
    assert_eq!(refused(&error), Status::WrongFs);
}

#[tokio::test]
async fn a_listener_that_does_not_know_the_secret_is_found_out() {
    // It says the right words with a made-up proof.
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap().to_string();
    let impostor = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = read_frame(&mut stream).await;
        let challenge = Challenge { version: 1, nonce: [0; 32] };
        send(&mut stream, FrameKind::Reply, Op::Hello.number(), hello.0.request_id, &encode(&challenge))
            .await;
        let prove = read_frame(&mut stream).await;
        let welcome = pvfs_wire::msg::hello::Welcome {
            proof: [0; 32],
            fs: crate::support::FS,
            role: Role::Mgr,
            process: 1,
            label: String::new(),
        };
        send(&mut stream, FrameKind::Reply, Op::Prove.number(), prove.0.request_id, &encode(&welcome)).await;
        stream
    });
    let error = client(&addr).call_once(&GetTargets {}, DEADLINE).await.expect_err("an impostor");
    assert!(matches!(error, CallError::Unreachable(NetError::Impostor { .. })), "{error}");
    drop(impostor.await);
}

async fn send(stream: &mut TcpStream, kind: FrameKind, op: u16, request_id: u64, body: &[u8]) {
    let header = Header {
        version: 1,
        op,
        request_id,
        kind,
        body_bytes: u32::try_from(body.len()).unwrap(),
        payload_bytes: 0,
        body_crc: crc32c(body),
        payload_crc: crc32c(&[]),
    };
    stream.write_all(&header.encode()).await.unwrap();
    stream.write_all(body).await.unwrap();
}

async fn read_frame(stream: &mut TcpStream) -> (Header, Vec<u8>) {
    let mut header = [0; FRAME_HEADER_BYTES];
    stream.read_exact(&mut header).await.expect("a header");
    let header = Header::decode(&header).expect("a frame");
    let mut rest = vec![0; usize::try_from(header.body_bytes + header.payload_bytes).unwrap()];
    stream.read_exact(&mut rest).await.expect("the rest of the frame");
    (header, rest)
}

fn hello() -> Hello {
    Hello {
        version_min: 1,
        version_max: 1,
        fs: None,
        role: Role::Client,
        client: [1; 16],
        connection: 1,
        nonce: [2; 32],
        label: "raw".into(),
    }
}

/// Sends `bytes` as a connection's first; gives what comes back until the daemon closes.
async fn answer_to(daemon: &Daemon, bytes: &[u8]) -> Vec<u8> {
    let mut stream = TcpStream::connect(&daemon.addr).await.unwrap();
    stream.write_all(bytes).await.unwrap();
    stream.shutdown().await.unwrap();
    let mut answer = Vec::new();
    // A reset is as good as an end: the daemon had unread bytes.
    let _ = stream.read_to_end(&mut answer).await;
    answer
}

async fn still_serves(daemon: &Daemon) {
    client(&daemon.addr).call(&GetTargets {}).await.expect("the daemon goes on");
}

#[tokio::test]
async fn garbage_is_answered_with_nothing() {
    let daemon = Daemon::start().await;
    for bytes in
        [&b"GET / HTTP/1.1\r\nHost: x\r\nAccept: */*\r\n\r\n"[..], &[0; 4096], &[0xff; 100], b"P", b"PVF1"]
    {
        assert_eq!(answer_to(&daemon, bytes).await, b"", "{}", bytes.escape_ascii());
    }
    still_serves(&daemon).await;
}

#[tokio::test]
async fn oversized_and_truncated_hellos_get_nothing() {
    let daemon = Daemon::start().await;
    let body = encode(&hello());
    let frame = |body_bytes: u32, payload_bytes: u32| {
        let header = Header {
            version: 1,
            op: Op::Hello.number(),
            request_id: 0,
            kind: FrameKind::Request,
            body_bytes,
            payload_bytes,
            body_crc: crc32c(&body),
            payload_crc: crc32c(&[]),
        };
        [&header.encode()[..], &body].concat()
    };
    let len = u32::try_from(body.len()).unwrap();
    assert_eq!(answer_to(&daemon, &frame(1 << 20, 0)).await, b"", "a body that is too long for a hello");
    assert_eq!(answer_to(&daemon, &frame(u32::MAX, 0)).await, b"", "a body over every limit");
    assert_eq!(answer_to(&daemon, &frame(len, 4 << 20)).await, b"", "a payload in a hello");
    assert_eq!(answer_to(&daemon, &frame(len + 10, 0)).await, b"", "a body that ends early");
    let whole = frame(len, 0);
    for end in 1..whole.len() {
        assert_eq!(answer_to(&daemon, &whole[..end]).await, b"", "cut after {end} bytes");
    }
    assert_ne!(answer_to(&daemon, &whole).await, b"", "the whole hello is answered");
    still_serves(&daemon).await;
}

#[tokio::test]
async fn requests_before_the_proof_get_a_refusal_and_nothing_else() {
    let daemon = Daemon::start().await;
    let mut stream = TcpStream::connect(&daemon.addr).await.unwrap();
    send(&mut stream, FrameKind::Request, Op::GetTargets.number(), 5, &encode(&GetTargets {})).await;
    let (header, body) = read_frame(&mut stream).await;
    assert_eq!(header.kind, FrameKind::Refusal);
    assert_eq!(pvfs_wire::decode::<Refusal>(&body).unwrap().status, Status::Unauthorized);
    assert_eq!(stream.read(&mut [0; 1]).await.unwrap(), 0, "and the connection ends");
    still_serves(&daemon).await;
}

#[tokio::test]
async fn versions_without_overlap_are_refused_with_both_ranges() {
    let daemon = Daemon::start().await;
    let mut stream = TcpStream::connect(&daemon.addr).await.unwrap();
    let body = encode(&Hello { version_min: 1000, version_max: 1001, ..hello() });
    send(&mut stream, FrameKind::Request, Op::Hello.number(), 0, &body).await;
    let (_, body) = read_frame(&mut stream).await;
    let refusal: Refusal = pvfs_wire::decode(&body).unwrap();
    assert_eq!(refusal.status, Status::Version);
    assert!(refusal.text.contains("1000 to 1001"), "{refusal}");
}

/// A connection that has passed the hello, by hand.
async fn let_in(daemon: &Daemon) -> TcpStream {
    let mut stream = TcpStream::connect(&daemon.addr).await.unwrap();
    send(&mut stream, FrameKind::Request, Op::Hello.number(), 0, &encode(&hello())).await;
    let challenge: Challenge = pvfs_wire::decode(&read_frame(&mut stream).await.1).unwrap();
    let prove = Prove { proof: crate::support::SECRET.dialler_proof(&hello(), &challenge) };
    send(&mut stream, FrameKind::Request, Op::Prove.number(), 1, &encode(&prove)).await;
    assert_eq!(read_frame(&mut stream).await.0.kind, FrameKind::Reply);
    stream
}

#[tokio::test]
async fn unknown_operations_are_refused_and_the_connection_goes_on() {
    let daemon = Daemon::start().await;
    let mut stream = let_in(&daemon).await;
    send(&mut stream, FrameKind::Request, 0xfff0, 9, b"whatever").await;
    let (header, body) = read_frame(&mut stream).await;
    assert_eq!(
        (header.request_id, pvfs_wire::decode::<Refusal>(&body).unwrap().status),
        (9, Status::UnknownOp)
    );
    send(&mut stream, FrameKind::Request, Op::GetTargets.number(), 10, b"\xff\xff").await;
    let (_, body) = read_frame(&mut stream).await;
    assert_eq!(
        pvfs_wire::decode::<Refusal>(&body).unwrap().status,
        Status::BadRequest,
        "a body that does not decode"
    );
    send(&mut stream, FrameKind::Request, Op::Ping.number(), 11, &encode(&pvfs_wire::msg::admin::Ping {}))
        .await;
    assert_eq!(read_frame(&mut stream).await.0.request_id, 11);
}

#[tokio::test]
async fn a_damaged_payload_is_refused_and_may_be_sent_again() {
    let daemon = Daemon::start().await;
    let mut stream = let_in(&daemon).await;
    for (crc, expect) in [(crc32c(b"abc") ^ 1, FrameKind::Refusal), (crc32c(b"abc"), FrameKind::Reply)] {
        let header = Header {
            version: 1,
            op: Op::Write.number(),
            request_id: 20,
            kind: FrameKind::Request,
            body_bytes: 0,
            payload_bytes: 3,
            body_crc: crc32c(&[]),
            payload_crc: crc,
        };
        stream.write_all(&header.encode()).await.unwrap();
        stream.write_all(b"abc").await.unwrap();
        assert_eq!(read_frame(&mut stream).await.0.kind, expect);
    }
    assert_eq!(daemon.desk.written.lock().unwrap().len(), 1, "the damaged one was not done");
}

#[tokio::test]
async fn a_frame_that_breaks_off_or_loses_its_framing_ends_only_that_connection() {
    let daemon = Daemon::start().await;
    let mut stream = let_in(&daemon).await;
    stream.write_all(&[0xee; 400]).await.unwrap();
    assert!(matches!(stream.read(&mut [0; 1]).await, Ok(0) | Err(_)), "closed");
    let mut stream = let_in(&daemon).await;
    stream.write_all(b"PVF1").await.unwrap();
    drop(stream);
    still_serves(&daemon).await;
}
