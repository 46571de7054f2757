//! The hello on both sides: versions, file system, mutual proof of the secret. See `pvfs_wire::msg::hello`.

use crate::{
    NetError,
    framing::{FrameReader, FrameWriter, Head, ReadError},
};
use pvfs_types::FsId;
use pvfs_wire::{
    FrameError, FrameKind, Header, Op, PROTOCOL_VERSION, PROTOCOL_VERSION_MIN, Refusal, Request, Status,
    decode, encode,
    msg::hello::{Challenge, Hello, Prove, Role, Secret, Welcome, negotiate},
};

/// The longest body in a handshake, in bytes: no stranger makes a daemon hold more.
const HELLO_BYTES_MAX: u32 = 4096;

/// Who this process is, to its peers.
#[derive(Clone, Debug)]
pub struct Identity {
    pub role: Role,
    /// Daemons know their file system; a client may learn it from the first daemon that proves itself.
    pub fs: Option<FsId>,
    /// Random, drawn at the start of the process (or of the client in it).
    pub client: [u8; 16],
    /// For people: program and host.
    pub label: String,
    /// What clients prove themselves with, and what daemons prove themselves to clients with.
    pub cluster_secret: Option<Secret>,
    /// What daemons prove themselves with to each other.
    pub daemon_secret: Option<Secret>,
}

impl Identity {
    fn secret_for(&self, dialler: Role) -> Result<Secret, NetError> {
        if dialler.is_daemon() {
            self.daemon_secret
                .ok_or(NetError::NoSecret { hint: "daemons need the daemons' secret (daemon.key)" })
        } else {
            self.cluster_secret
                .ok_or(NetError::NoSecret { hint: "clients need the cluster's secret (cluster.key)" })
        }
    }
}

/// Dials: proves this side, checks the other. Gives the negotiated version and what the listener told of itself.
pub async fn dial(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    me: &Identity,
    connection: u64,
    peer: &str,
) -> Result<(u16, Welcome), NetError> {
    let secret = me.secret_for(me.role)?;
    let hello = Hello {
        version_min: PROTOCOL_VERSION_MIN,
        version_max: PROTOCOL_VERSION,
        fs: me.fs,
        role: me.role,
        client: me.client,
        connection,
        nonce: pvfs_env::random::bytes(),
        label: me.label.clone(),
    };
    let challenge = exchange(reader, writer, PROTOCOL_VERSION_MIN, 0, &hello, peer).await?;
    let prove = Prove { proof: secret.dialler_proof(&hello, &challenge) };
    let welcome = exchange(reader, writer, challenge.version, 1, &prove, peer).await?;
    if !secret.is_listener_proof(&welcome.proof, &hello, &challenge)
        || me.fs.is_some_and(|fs| fs != welcome.fs)
    {
        return Err(NetError::Impostor { peer: peer.to_owned() });
    }
    Ok((challenge.version, welcome))
}

async fn exchange<R: Request>(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    version: u16,
    request_id: u64,
    request: &R,
    peer: &str,
) -> Result<R::Reply, NetError> {
    let head = Head::new(version, R::OP.number(), request_id, FrameKind::Request, &encode(request), &[]);
    writer.write(&head, &[]).await.map_err(|source| NetError::Broken { peer: peer.to_owned(), source })?;
    let (header, body) = small_frame(reader).await.map_err(|e| e.for_peer(peer))?;
    let frame_error = |source| NetError::Frame { peer: peer.to_owned(), source };
    match header.kind {
        FrameKind::Reply if header.op == R::OP.number() => decode(&body).map_err(frame_error),
        FrameKind::Refusal => {
            let refusal = decode(&body).map_err(frame_error)?;
            Err(NetError::Refused { peer: peer.to_owned(), refusal })
        }
        FrameKind::Reply | FrameKind::Request => {
            Err(frame_error(FrameError::Body { text: "not an answer to the hello".into() }))
        }
    }
}

async fn small_frame(reader: &mut FrameReader) -> Result<(Header, bytes::Bytes), ReadError> {
    let header = reader.header().await?;
    if header.body_bytes > HELLO_BYTES_MAX {
        return Err(FrameError::BodyTooLong { bytes: header.body_bytes, max: HELLO_BYTES_MAX }.into());
    }
    if header.payload_bytes > 0 {
        return Err(FrameError::PayloadTooLong { bytes: header.payload_bytes, max: 0 }.into());
    }
    let frame = reader.rest(header).await?;
    Ok((header, frame.body))
}

/// A dialler that has proved itself but was not welcomed yet.
pub struct Proven {
    pub hello: Hello,
    pub version: u16,
    challenge: Challenge,
    secret: Secret,
    request_id: u64,
}

/// Listens: checks the dialler. Whoever is refused is told why, and nothing else.
pub async fn accept(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    me: &Identity,
    peer: &str,
) -> Result<Proven, NetError> {
    let (header, hello): (_, Hello) = receive(reader, writer, peer).await?;
    let checked = negotiate(&hello).and_then(|version| {
        if hello.fs.is_some() && hello.fs != me.fs {
            let text = format!(
                "this daemon serves file system {}, not {}: check the address and the cluster file",
                me.fs.map_or_else(String::new, |fs| fs.to_string()),
                hello.fs.map_or_else(String::new, |fs| fs.to_string()),
            );
            return Err(Refusal::new(Status::WrongFs, text));
        }
        Ok(version)
    });
    let version = match checked {
        Ok(version) => version,
        Err(refusal) => return refuse(writer, header, refusal, peer).await,
    };
    let secret = me.secret_for(hello.role)?;
    let challenge = Challenge { version, nonce: pvfs_env::random::bytes() };
    reply(writer, header, version, &challenge, peer).await?;

    let (header, prove): (_, Prove) = receive(reader, writer, peer).await?;
    if !secret.is_dialler_proof(&prove.proof, &hello, &challenge) {
        let which = if hello.role.is_daemon() {
            "daemons' secret (daemon.key)"
        } else {
            "cluster's secret (cluster.key)"
        };
        let text = format!("the proof is wrong: both sides need the same {which}, as `pvfs format` made it");
        return refuse(writer, header, Refusal::new(Status::Unauthorized, text), peer).await;
    }
    Ok(Proven { hello, version, challenge, secret, request_id: header.request_id })
}

impl Proven {
    /// Lets the dialler in.
    pub async fn welcome(
        &self,
        writer: &mut FrameWriter,
        me: &Identity,
        fs: FsId,
        process: u64,
        peer: &str,
    ) -> Result<(), NetError> {
        let proof = self.secret.listener_proof(&self.hello, &self.challenge);
        let welcome = Welcome { proof, fs, role: me.role, process, label: me.label.clone() };
        let head = Head::new(
            self.version,
            Op::Prove.number(),
            self.request_id,
            FrameKind::Reply,
            &encode(&welcome),
            &[],
        );
        writer.write(&head, &[]).await.map_err(|source| NetError::Broken { peer: peer.to_owned(), source })
    }

    /// Turns the dialler away after all.
    pub async fn refuse(&self, writer: &mut FrameWriter, refusal: Refusal, peer: &str) -> NetError {
        let head = Head::new(
            self.version,
            Op::Prove.number(),
            self.request_id,
            FrameKind::Refusal,
            &encode(&refusal),
            &[],
        );
        let _ = writer.write(&head, &[]).await;
        NetError::Refused { peer: peer.to_owned(), refusal }
    }
}

async fn receive<R: Request>(
    reader: &mut FrameReader,
    writer: &mut FrameWriter,
    peer: &str,
) -> Result<(Header, R), NetError> {
    let (header, body) = small_frame(reader).await.map_err(|e| e.for_peer(peer))?;
    if header.op != R::OP.number() || header.kind != FrameKind::Request {
        let refusal =
            Refusal::new(Status::Unauthorized, format!("a connection starts with {}", R::OP.name()));
        return refuse(writer, header, refusal, peer).await;
    }
    match decode(&body) {
        Ok(message) => Ok((header, message)),
        Err(e) => refuse(writer, header, Refusal::new(Status::BadRequest, e.to_string()), peer).await,
    }
}

async fn reply<T: minicbor::Encode<()>>(
    writer: &mut FrameWriter,
    to: Header,
    version: u16,
    message: &T,
    peer: &str,
) -> Result<(), NetError> {
    let head = Head::new(version, to.op, to.request_id, FrameKind::Reply, &encode(message), &[]);
    writer.write(&head, &[]).await.map_err(|source| NetError::Broken { peer: peer.to_owned(), source })
}

async fn refuse<T>(
    writer: &mut FrameWriter,
    to: Header,
    refusal: Refusal,
    peer: &str,
) -> Result<T, NetError> {
    let version = to.version.clamp(PROTOCOL_VERSION_MIN, PROTOCOL_VERSION);
    let head = Head::new(version, to.op, to.request_id, FrameKind::Refusal, &encode(&refusal), &[]);
    let _ = writer.write(&head, &[]).await;
    Err(NetError::Refused { peer: peer.to_owned(), refusal })
}
