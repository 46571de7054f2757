//! The frame around every message: a fixed header of 40 bytes, a body, a payload.
//!
//! All numbers are little-endian.
//!
//! | bytes | field |
//! |---|---|
//! | 0..4 | magic, `PVF1` |
//! | 4..6 | protocol version |
//! | 6..8 | operation ([`crate::Op`]) |
//! | 8..16 | request id; the reply bears the same |
//! | 16 | kind: 0 request, 1 reply, 2 refusal |
//! | 17..20 | zero |
//! | 20..24 | body length in bytes, at most 1 MiB |
//! | 24..28 | payload length in bytes, at most 4 MiB |
//! | 28..32 | CRC32C of the body |
//! | 32..36 | CRC32C of the payload |
//! | 36..40 | CRC32C of bytes 0..36 |

use pvfs_types::limits::{BODY_BYTES_MAX, PAYLOAD_BYTES_MAX};

pub const FRAME_HEADER_BYTES: usize = 40;
const MAGIC: [u8; 4] = *b"PVF1";

/// What a frame is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameKind {
    Request,
    Reply,
    /// The body is a [`crate::Refusal`].
    Refusal,
}

/// A checked header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    pub version: u16,
    /// The number of the operation; may be one that this build does not know.
    pub op: u16,
    pub request_id: u64,
    pub kind: FrameKind,
    pub body_bytes: u32,
    pub payload_bytes: u32,
    pub body_crc: u32,
    pub payload_crc: u32,
}

/// Why bytes are not a frame. After any of these the connection has lost its framing and is dropped, but for
/// `PayloadCrc`, where the frame was whole and only its payload is void.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FrameError {
    #[error("not a PVFS peer: the frame starts with {found:02x?}, not with \"PVF1\"")]
    Magic { found: [u8; 4] },
    #[error("the frame header is damaged: its checksum is {found:#010x}, computed {computed:#010x}")]
    HeaderCrc { found: u32, computed: u32 },
    #[error("the frame has unknown kind {kind} or non-zero reserved bytes")]
    Kind { kind: u8 },
    #[error("the frame's body of {bytes} bytes is over the limit of {max}")]
    BodyTooLong { bytes: u32, max: u32 },
    #[error("the frame's payload of {bytes} bytes is over the limit of {max}")]
    PayloadTooLong { bytes: u32, max: u32 },
    #[error("the frame's body is damaged: its checksum does not fit")]
    BodyCrc,
    #[error("the frame's payload is damaged: its checksum does not fit")]
    PayloadCrc,
    #[error("the frame is not clear about shared memory: {text}")]
    Lent { text: &'static str },
    #[error("the frame's body does not decode: {text}")]
    Body { text: String },
}

/// CRC32C (Castagnoli, as in iSCSI) of `bytes`.
pub fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).expect("a 32-bit checksum")
}

impl Header {
    pub fn encode(&self) -> [u8; FRAME_HEADER_BYTES] {
        let mut out = [0; FRAME_HEADER_BYTES];
        out[0..4].copy_from_slice(&MAGIC);
        out[4..6].copy_from_slice(&self.version.to_le_bytes());
        out[6..8].copy_from_slice(&self.op.to_le_bytes());
        out[8..16].copy_from_slice(&self.request_id.to_le_bytes());
        out[16] = match self.kind {
            FrameKind::Request => 0,
            FrameKind::Reply => 1,
            FrameKind::Refusal => 2,
        };
        out[20..24].copy_from_slice(&self.body_bytes.to_le_bytes());
        out[24..28].copy_from_slice(&self.payload_bytes.to_le_bytes());
        out[28..32].copy_from_slice(&self.body_crc.to_le_bytes());
        out[32..36].copy_from_slice(&self.payload_crc.to_le_bytes());
        let crc = crc32c(&out[..36]);
        out[36..40].copy_from_slice(&crc.to_le_bytes());
        out
    }

    pub fn decode(bytes: &[u8; FRAME_HEADER_BYTES]) -> Result<Header, FrameError> {
        let u16_at = |at: usize| u16::from_le_bytes([bytes[at], bytes[at + 1]]);
        let u32_at = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        let magic = [bytes[0], bytes[1], bytes[2], bytes[3]];
        if magic != MAGIC {
            return Err(FrameError::Magic { found: magic });
        }
        let (found, computed) = (u32_at(36), crc32c(&bytes[..36]));
        if found != computed {
            return Err(FrameError::HeaderCrc { found, computed });
        }
        let kind = match bytes[16..20] {
            [0, 0, 0, 0] => FrameKind::Request,
            [1, 0, 0, 0] => FrameKind::Reply,
            [2, 0, 0, 0] => FrameKind::Refusal,
            _ => return Err(FrameError::Kind { kind: bytes[16] }),
        };
        let header = Header {
            version: u16_at(4),
            op: u16_at(6),
            request_id: u64::from(u32_at(8)) | u64::from(u32_at(12)) << 32,
            kind,
            body_bytes: u32_at(20),
            payload_bytes: u32_at(24),
            body_crc: u32_at(28),
            payload_crc: u32_at(32),
        };
        if header.body_bytes > BODY_BYTES_MAX {
            return Err(FrameError::BodyTooLong { bytes: header.body_bytes, max: BODY_BYTES_MAX });
        }
        if header.payload_bytes > PAYLOAD_BYTES_MAX {
            return Err(FrameError::PayloadTooLong { bytes: header.payload_bytes, max: PAYLOAD_BYTES_MAX });
        }
        Ok(header)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn header() -> Header {
        Header {
            version: 1,
            op: 0x102,
            request_id: 0x1122_3344_5566_7788,
            kind: FrameKind::Reply,
            body_bytes: 5,
            payload_bytes: 4096,
            body_crc: 7,
            payload_crc: 8,
        }
    }

    /// Changes `bytes[at]`, mends the header's checksum, decodes.
    fn decode_with(at: usize, value: u8) -> Result<Header, FrameError> {
        let mut bytes = header().encode();
        bytes[at] = value;
        let crc = crc32c(&bytes[..36]);
        bytes[36..].copy_from_slice(&crc.to_le_bytes());
        Header::decode(&bytes)
    }

    #[test]
    fn the_checksum_is_crc32c() {
        assert_eq!(crc32c(b"123456789"), 0xe306_9283, "the check value of CRC-32/ISCSI");
    }

    #[test]
    fn golden_header() {
        assert_eq!(
            header().encode().map(|b| format!("{b:02x}")).concat(),
            "505646310100020188776655443322110100000005000000001000000700000008000000f16ffbb3"
        );
    }

    #[test]
    fn header_survives_the_way_there_and_back() {
        assert_eq!(Header::decode(&header().encode()), Ok(header()));
    }

    #[test]
    fn every_damaged_bit_of_a_header_is_found() {
        for bit in 0..FRAME_HEADER_BYTES * 8 {
            let mut bytes = header().encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert!(Header::decode(&bytes).is_err(), "bit {bit}");
        }
    }

    #[test]
    fn lengths_over_the_limits_are_refused_before_anything_is_allocated() {
        assert!(matches!(decode_with(23, 0x7f), Err(FrameError::BodyTooLong { .. })));
        assert!(matches!(decode_with(27, 0x7f), Err(FrameError::PayloadTooLong { .. })));
    }

    #[test]
    fn unknown_kinds_and_magics_are_refused() {
        assert!(matches!(decode_with(16, 3), Err(FrameError::Kind { kind: 3 })));
        assert!(matches!(decode_with(18, 1), Err(FrameError::Kind { .. })));
        assert!(matches!(decode_with(0, b'H'), Err(FrameError::Magic { .. })));
    }
}
