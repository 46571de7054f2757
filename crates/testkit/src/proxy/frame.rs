//! One frame as it travels: its bytes, and its header read. Knows the frame's format, not its body.

use pvfs_wire::{FRAME_HEADER_BYTES, Header};
use std::io::Read;

/// A whole frame: header, body, payload.
#[derive(Clone, Debug)]
pub struct RawFrame {
    header: Header,
    bytes: Vec<u8>,
}

impl RawFrame {
    /// Reads the next one; `None` at the stream's end, and where it is no frame.
    pub(crate) fn read(from: &mut impl Read) -> Option<RawFrame> {
        let mut head = [0; FRAME_HEADER_BYTES];
        from.read_exact(&mut head).ok()?;
        let header = Header::decode(&head).ok()?;
        let rest = usize::try_from(u64::from(header.body_bytes) + u64::from(header.payload_bytes)).ok()?;
        let mut bytes = head.to_vec();
        bytes.resize(FRAME_HEADER_BYTES + rest, 0);
        from.read_exact(&mut bytes[FRAME_HEADER_BYTES..]).ok()?;
        Some(RawFrame { header, bytes })
    }

    pub fn header(&self) -> &Header {
        &self.header
    }

    /// The encoded message.
    pub fn body(&self) -> &[u8] {
        &self.bytes[FRAME_HEADER_BYTES..][..self.header.body_bytes as usize]
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.bytes
    }

    /// The same under another id.
    pub(crate) fn with_request_id(&self, request_id: u64) -> RawFrame {
        let header = Header { request_id, ..self.header };
        let mut bytes = self.bytes.clone();
        bytes[..FRAME_HEADER_BYTES].copy_from_slice(&header.encode());
        RawFrame { header, bytes }
    }

    /// Header and body whole, one bit of the payload wrong.
    #[track_caller]
    pub(crate) fn with_a_flipped_payload_bit(&self) -> RawFrame {
        assert!(self.header.payload_bytes > 0, "a frame without payload has none to damage");
        let mut damaged = self.clone();
        *damaged.bytes.last_mut().unwrap() ^= 1;
        damaged
    }
}
