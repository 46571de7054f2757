//! Frames on a byte stream: reading with bounds and checksums, writing without copying payloads.

use crate::{
    NetError,
    lent::{LENT_HEAD_BYTES, Lent, PLACE_BYTES},
};
use bytes::{Buf, Bytes, BytesMut};
use pvfs_wire::{FRAME_HEADER_BYTES, FrameError, FrameKind, Header, crc32c};
use std::io::{self, IoSlice};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read ahead of what is asked: small, so that little of a payload is copied through it.
const READ_AHEAD_BYTES: usize = 16 << 10;

/// One frame as it came.
pub struct Frame {
    pub header: Header,
    pub lent: Lent,
    pub body: Bytes,
    /// What came of it in the frame itself.
    pub payload: Bytes,
    /// The payload came whole but its checksum does not fit.
    pub payload_damaged: bool,
}

/// Why no frame came.
pub enum ReadError {
    /// The peer closed the stream between two frames.
    Closed,
    Io(io::Error),
    Frame(FrameError),
}

impl From<io::Error> for ReadError {
    fn from(error: io::Error) -> Self {
        ReadError::Io(error)
    }
}

impl From<FrameError> for ReadError {
    fn from(error: FrameError) -> Self {
        ReadError::Frame(error)
    }
}

impl ReadError {
    pub fn for_peer(self, peer: &str) -> NetError {
        let peer = peer.to_owned();
        match self {
            ReadError::Closed => NetError::Broken { peer, source: io::ErrorKind::UnexpectedEof.into() },
            ReadError::Io(source) => NetError::Broken { peer, source },
            ReadError::Frame(source) => NetError::Frame { peer, source },
        }
    }
}

pub struct FrameReader {
    stream: Box<dyn AsyncRead + Send + Unpin>,
    ahead: BytesMut,
    /// Frames say what is lent.
    lends: bool,
}

impl FrameReader {
    pub fn new(stream: Box<dyn AsyncRead + Send + Unpin>) -> FrameReader {
        FrameReader { stream, ahead: BytesMut::with_capacity(READ_AHEAD_BYTES), lends: false }
    }

    /// From the next frame on, frames say what is lent.
    pub fn lends(&mut self, lends: bool) {
        self.lends = lends;
    }

    /// Reads a header. Allocates nothing that the peer asked for.
    pub async fn header(&mut self) -> Result<Header, ReadError> {
        while self.ahead.len() < FRAME_HEADER_BYTES {
            self.ahead.reserve(READ_AHEAD_BYTES);
            if self.stream.read_buf(&mut self.ahead).await? == 0 {
                return Err(if self.ahead.is_empty() {
                    ReadError::Closed
                } else {
                    ReadError::Io(io::ErrorKind::UnexpectedEof.into())
                });
            }
        }
        let mut bytes = [0; FRAME_HEADER_BYTES];
        self.ahead.copy_to_slice(&mut bytes);
        Ok(Header::decode(&bytes)?)
    }

    /// Reads what follows `header`: at most the lengths that [`Header::decode`] let through.
    pub async fn rest(&mut self, header: Header) -> Result<Frame, ReadError> {
        let lent = if self.lends { self.lent(&header).await? } else { Lent::Nothing };
        let body = self.exactly(size(header.body_bytes)).await?;
        let payload_bytes = if lent.has_payload() { 0 } else { size(header.payload_bytes) };
        let payload = self.exactly(payload_bytes).await?;
        if crc32c(&body) != header.body_crc {
            return Err(FrameError::BodyCrc.into());
        }
        let payload_damaged = !lent.has_payload() && crc32c(&payload) != header.payload_crc;
        Ok(Frame { header, lent, body, payload, payload_damaged })
    }

    async fn lent(&mut self, header: &Header) -> Result<Lent, ReadError> {
        let head = self.exactly(LENT_HEAD_BYTES).await?;
        let places = self.exactly(Lent::count(&head)? * PLACE_BYTES).await?;
        Ok(Lent::decode(&head, &places, header.payload_bytes)?)
    }

    async fn exactly(&mut self, bytes: usize) -> Result<Bytes, ReadError> {
        if self.ahead.len() >= bytes {
            return Ok(self.ahead.split_to(bytes).freeze());
        }
        let mut buffer = BytesMut::with_capacity(bytes);
        buffer.extend_from_slice(&self.ahead.split());
        while buffer.len() < bytes {
            let missing = u64::try_from(bytes - buffer.len()).expect("a u64 holds a usize");
            if (&mut self.stream).take(missing).read_buf(&mut buffer).await? == 0 {
                return Err(ReadError::Io(io::ErrorKind::UnexpectedEof.into()));
            }
        }
        Ok(buffer.freeze())
    }
}

fn size(bytes: u32) -> usize {
    usize::try_from(bytes).expect("a usize holds 32 bits")
}

/// The fixed parts of a frame to send.
pub struct Head {
    bytes: Vec<u8>,
}

impl Head {
    /// Header and body of a frame that carries `payload`, which must be within the limits: it is our own.
    pub fn new(
        version: u16,
        op: u16,
        request_id: u64,
        kind: FrameKind,
        body: &[u8],
        payload: &[Bytes],
    ) -> Head {
        Head::lending(version, op, request_id, kind, body, payload, None)
    }

    /// On connections whose frames say what is lent. A payload that is lent is so many bytes long, and `payload` is empty.
    pub fn lending(
        version: u16,
        op: u16,
        request_id: u64,
        kind: FrameKind,
        body: &[u8],
        payload: &[Bytes],
        lent: Option<(&Lent, u32)>,
    ) -> Head {
        let carried: usize = payload.iter().map(Bytes::len).sum();
        let payload_bytes = match lent {
            Some((lent, bytes)) if lent.has_payload() => bytes,
            _ => u32::try_from(carried).expect("a payload within the limits"),
        };
        let header = Header {
            version,
            op,
            request_id,
            kind,
            body_bytes: u32::try_from(body.len()).expect("a body within the limits"),
            payload_bytes,
            body_crc: crc32c(body),
            payload_crc: payload_crc(payload),
        };
        let mut bytes = Vec::with_capacity(FRAME_HEADER_BYTES + body.len());
        bytes.extend_from_slice(&header.encode());
        if let Some((lent, _)) = lent {
            lent.encode(&mut bytes);
        }
        bytes.extend_from_slice(body);
        Head { bytes }
    }
}

fn payload_crc(payload: &[Bytes]) -> u32 {
    match payload {
        [] => crc32c(&[]),
        [one] => crc32c(one),
        many => {
            let mut digest = crc_fast::Digest::new(crc_fast::CrcAlgorithm::Crc32Iscsi);
            for part in many {
                digest.update(part);
            }
            u32::try_from(digest.finalize()).expect("a 32-bit checksum")
        }
    }
}

/// The sending side of a stream. A write that was begun and not ended leaves it unusable.
pub struct FrameWriter {
    stream: Box<dyn AsyncWrite + Send + Unpin>,
    /// A frame is under way; still set at the next write, that one was dropped in the middle.
    torn: bool,
}

impl FrameWriter {
    pub fn new(stream: Box<dyn AsyncWrite + Send + Unpin>) -> FrameWriter {
        FrameWriter { stream, torn: false }
    }

    pub fn is_torn(&self) -> bool {
        self.torn
    }

    pub async fn write(&mut self, head: &Head, payload: &[Bytes]) -> io::Result<()> {
        if self.torn {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        self.torn = true;
        let mut parts: Vec<IoSlice<'_>> = std::iter::once(&head.bytes[..])
            .chain(payload.iter().map(|part| &part[..]))
            .filter(|part| !part.is_empty())
            .map(IoSlice::new)
            .collect();
        let mut left = &mut parts[..];
        while !left.is_empty() {
            let written = self.stream.write_vectored(left).await?;
            if written == 0 {
                return Err(io::ErrorKind::WriteZero.into());
            }
            IoSlice::advance_slices(&mut left, written);
        }
        self.stream.flush().await?;
        self.torn = false;
        Ok(())
    }
}
