//! Bytes that tell who wrote them and when, and whether they are all there. Pure.

use super::part::{Checked, Wrong};

/// "PvSt": no other bytes of this crate begin so by chance.
const MAGIC: u32 = 0x7453_7650;
pub(crate) const HEAD_BYTES: usize = 24;

/// What the `seq`th write of process `process` is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stamp {
    pub process: u32,
    pub seq: u64,
    /// Of all of it, in bytes; at least [`HEAD_BYTES`].
    pub len: usize,
}

impl Stamp {
    pub fn bytes(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(self.len);
        bytes.extend_from_slice(&MAGIC.to_le_bytes());
        bytes.extend_from_slice(&self.process.to_le_bytes());
        bytes.extend_from_slice(&self.seq.to_le_bytes());
        bytes.extend_from_slice(&(self.len as u64).to_le_bytes());
        let mut body = vec![0; self.len - HEAD_BYTES];
        fastrand::Rng::with_seed(self.seq.rotate_left(32) ^ u64::from(self.process)).fill(&mut body);
        bytes.extend_from_slice(&body);
        bytes
    }

    /// The stamp at the start of `bytes`, whole and with every byte as it was written.
    pub fn read(bytes: &[u8]) -> Checked<Stamp> {
        let number = |at: usize, len: usize| {
            let part = bytes.get(at..at + len)?;
            Some(part.iter().rev().fold(0, |number, &byte| number << 8 | u64::from(byte)))
        };
        let (Some(magic), Some(process), Some(seq), Some(len)) =
            (number(0, 4), number(4, 4), number(8, 8), number(16, 8))
        else {
            return Err(Wrong::lost(format!("{} bytes are no whole head", bytes.len())));
        };
        if magic != u64::from(MAGIC) {
            let zeros = bytes.iter().take(HEAD_BYTES).all(|&byte| byte == 0);
            return Err(if zeros { Wrong::lost("zeros") } else { Wrong::other("no head of ours") });
        }
        let stamp = Stamp {
            process: u32::try_from(process).unwrap_or_default(),
            seq,
            len: usize::try_from(len).unwrap_or(usize::MAX),
        };
        if stamp.len < HEAD_BYTES || stamp.len > bytes.len() {
            let found = bytes.len();
            return Err(Wrong::lost(format!("{stamp} has {len} bytes, {found} are there")));
        }
        let expected = stamp.bytes();
        match expected.iter().zip(bytes).position(|(expected, found)| expected != found) {
            Some(at) => Err(Wrong::other(format!("{stamp} is torn at byte {at} of {len}"))),
            None => Ok(stamp),
        }
    }

    /// As [`Stamp::read`], and there is nothing behind it.
    pub fn read_all(bytes: &[u8]) -> Checked<Stamp> {
        let stamp = Stamp::read(bytes)?;
        if stamp.len == bytes.len() {
            Ok(stamp)
        } else {
            let more = bytes.len() - stamp.len;
            Err(Wrong::other(format!("{stamp} has {} bytes, and {more} lie behind", stamp.len)))
        }
    }
}

impl std::fmt::Display for Stamp {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "write {} of process {}", self.seq, self.process)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stamp_is_read_back_and_every_byte_of_it_counts() {
        let stamp = Stamp { process: 3, seq: 77, len: 200 };
        let bytes = stamp.bytes();
        assert_eq!(Stamp::read_all(&bytes), Ok(stamp));
        for at in 0..bytes.len() {
            let mut spoilt = bytes.clone();
            spoilt[at] ^= 1;
            assert!(Stamp::read_all(&spoilt).is_err(), "byte {at}");
            assert!(Stamp::read(&bytes[..at]).is_err(), "cut at {at}");
        }
        assert!(Stamp::read_all(&[&bytes[..], b"x"].concat()).is_err());
    }
}
