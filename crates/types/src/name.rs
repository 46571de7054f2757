//! The name of one directory entry: 1 to 255 bytes, no slash, no NUL, not `.` and not `..`.

use crate::{Errno, limits::NAME_BYTES_MAX};
use std::fmt;

/// A checked directory entry name: bytes, not necessarily UTF-8, as Linux has it.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Vec<u8>);

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    #[error("a name must not be empty")]
    Empty,
    #[error("a name has at most 255 bytes, this one has {bytes}")]
    TooLong { bytes: usize },
    #[error("a name must not contain the byte {byte:#04x} (slash or NUL)")]
    BadByte { byte: u8 },
    #[error("`.` and `..` name no entry of their own")]
    Dots,
}

impl NameError {
    /// The errno POSIX gives for such a name.
    pub fn errno(self) -> Errno {
        match self {
            NameError::Empty => Errno::ENOENT,
            NameError::TooLong { .. } => Errno::ENAMETOOLONG,
            NameError::BadByte { .. } | NameError::Dots => Errno::EINVAL,
        }
    }
}

impl Name {
    /// Checks `bytes` and keeps a copy of them.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<Name, NameError> {
        let bytes = bytes.into();
        if bytes.is_empty() {
            return Err(NameError::Empty);
        }
        if bytes.len() > NAME_BYTES_MAX {
            return Err(NameError::TooLong { bytes: bytes.len() });
        }
        if let Some(&byte) = bytes.iter().find(|byte| matches!(byte, b'/' | 0)) {
            return Err(NameError::BadByte { byte });
        }
        if bytes == b"." || bytes == b".." {
            return Err(NameError::Dots);
        }
        Ok(Name(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<C> minicbor::Encode<C> for Name {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

/// Decoding checks: no name comes off the wire or a disk that [`Name::new`] would refuse.
impl<'b, C> minicbor::Decode<'b, C> for Name {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        Name::new(d.bytes()?).map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_posix_refuses_are_refused_with_its_errno() {
        let check = |bytes: &[u8], errno| {
            assert_eq!(Name::new(bytes).expect_err("must be refused").errno(), errno);
        };
        check(b"", Errno::ENOENT);
        check(&[b'a'; 256], Errno::ENAMETOOLONG);
        check(b".", Errno::EINVAL);
        check(b"..", Errno::EINVAL);
        check(b"a/b", Errno::EINVAL);
        check(b"a\0b", Errno::EINVAL);
    }

    #[test]
    fn any_other_bytes_are_a_name() {
        for bytes in [&b"a"[..], b"...", b".a", &[0xff, 0xfe], &[b'n'; 255], "grün".as_bytes()] {
            assert_eq!(Name::new(bytes).expect("a name").as_bytes(), bytes);
        }
    }

    #[test]
    fn decoding_refuses_what_new_refuses() {
        let mut bytes = Vec::new();
        minicbor::Encoder::new(&mut bytes).bytes(b"a/b").expect("into a Vec");
        assert!(minicbor::decode::<Name>(&bytes).is_err());
    }
}
