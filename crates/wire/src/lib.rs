//! What travels: frames, messages, their codec, status numbers, signed capabilities.
//!
//! Owns the format (drawn in `docs/wire.md`). Knows no sockets and no disk formats. Every decoder here takes
//! bytes from strangers: it answers an error, never panics, and allocates no more than it was handed.

pub mod cap;
pub mod frame;
pub mod msg;
pub mod status;

pub use cap::{Access, Capability, Lease, MacKey};
pub use frame::{FRAME_HEADER_BYTES, FrameError, FrameKind, Header, crc32c};
pub use msg::{Op, Request};
pub use status::{Refusal, Status};

use minicbor::{Decode, Encode};

/// The newest protocol version this build speaks. Each side names its range in the hello; the highest common
/// one is used.
pub const PROTOCOL_VERSION: u16 = 1;
/// The oldest protocol version this build speaks.
pub const PROTOCOL_VERSION_MIN: u16 = 1;

/// Encodes a body.
pub fn encode<T: Encode<()>>(message: &T) -> Vec<u8> {
    let mut body = Vec::with_capacity(128);
    minicbor::encode(message, &mut body).expect("encoding into a Vec cannot fail");
    body
}

/// Decodes a whole body. Fields that a newer peer added at the end are skipped; bytes after the message are an error.
pub fn decode<'b, T: Decode<'b, ()>>(body: &'b [u8]) -> Result<T, FrameError> {
    let mut decoder = minicbor::Decoder::new(body);
    let message = decoder.decode().map_err(|e| FrameError::Body { text: e.to_string() })?;
    if decoder.position() != body.len() {
        return Err(FrameError::Body {
            text: format!("{} bytes after the message", body.len() - decoder.position()),
        });
    }
    Ok(message)
}
