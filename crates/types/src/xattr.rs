//! The names of extended attributes and the name spaces they stand in, as xattr(7) has them.
//!
//! Owns what a name may be. Knows no values, and not who may read or change what.

use crate::{Errno, limits::XATTR_NAME_BYTES_MAX};
use std::fmt;

/// Which file capabilities a program runs with: the one attribute of `security.` that a write takes away.
pub const FILE_CAPS: &[u8] = b"security.capability";
/// Who may do what, in the form of [`crate::acl`].
pub const ACL_ACCESS: &[u8] = b"system.posix_acl_access";
/// What new entries of a directory get for an access ACL.
pub const ACL_DEFAULT: &[u8] = b"system.posix_acl_default";

/// A checked name of an attribute with its name space: 1 to 255 bytes without NUL.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct XattrName(Vec<u8>);

/// A name space; each has rules of its own about who may do what.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrSpace {
    User,
    Trusted,
    Security,
    Acl(AclKind),
}

/// One of the two ACLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AclKind {
    Access,
    Default,
}

/// Why bytes are not a name of an attribute that there can be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum XattrNameError {
    #[error("an attribute's name has 1 to 255 bytes, this one has {bytes}")]
    Length { bytes: usize },
    #[error("an attribute's name must not contain NUL")]
    Nul,
    #[error("the name space alone names no attribute")]
    SpaceOnly,
    #[error("there is no such name space of attributes")]
    UnknownSpace,
}

impl XattrNameError {
    /// The errno Linux gives for such a name.
    pub fn errno(self) -> Errno {
        match self {
            XattrNameError::Length { .. } => Errno::ERANGE,
            XattrNameError::Nul | XattrNameError::SpaceOnly => Errno::EINVAL,
            XattrNameError::UnknownSpace => Errno::EOPNOTSUPP,
        }
    }
}

impl XattrName {
    /// Checks `bytes` and keeps a copy of them. The name space may be one that there is not.
    pub fn new(bytes: impl Into<Vec<u8>>) -> Result<XattrName, XattrNameError> {
        let bytes = bytes.into();
        if !(1..=XATTR_NAME_BYTES_MAX).contains(&bytes.len()) {
            return Err(XattrNameError::Length { bytes: bytes.len() });
        }
        if bytes.contains(&0) {
            return Err(XattrNameError::Nul);
        }
        Ok(XattrName(bytes))
    }

    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    pub fn is_file_caps(&self) -> bool {
        self.0 == FILE_CAPS
    }

    /// # Errors
    /// [`XattrNameError::UnknownSpace`], [`XattrNameError::SpaceOnly`].
    pub fn space(&self) -> Result<XattrSpace, XattrNameError> {
        match &self.0[..] {
            ACL_ACCESS => return Ok(XattrSpace::Acl(AclKind::Access)),
            ACL_DEFAULT => return Ok(XattrSpace::Acl(AclKind::Default)),
            _ => {}
        }
        let spaces = [
            (&b"user."[..], XattrSpace::User),
            (b"trusted.", XattrSpace::Trusted),
            (b"security.", XattrSpace::Security),
        ];
        let found = spaces.into_iter().find(|(prefix, _)| self.0.starts_with(prefix));
        let (prefix, space) = found.ok_or(XattrNameError::UnknownSpace)?;
        if self.0.len() == prefix.len() { Err(XattrNameError::SpaceOnly) } else { Ok(space) }
    }

    /// What the name takes in a list, with its closing NUL, in bytes.
    pub fn list_bytes(&self) -> usize {
        self.0.len() + 1
    }
}

impl AclKind {
    /// The attribute that the ACL is read and set by.
    pub fn name(self) -> &'static [u8] {
        match self {
            AclKind::Access => ACL_ACCESS,
            AclKind::Default => ACL_DEFAULT,
        }
    }
}

impl fmt::Display for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0.escape_ascii())
    }
}

impl fmt::Debug for XattrName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{self}\"")
    }
}

impl<C> minicbor::Encode<C> for XattrName {
    fn encode<W: minicbor::encode::Write>(
        &self,
        e: &mut minicbor::Encoder<W>,
        _: &mut C,
    ) -> Result<(), minicbor::encode::Error<W::Error>> {
        e.bytes(&self.0)?.ok()
    }
}

/// Decoding checks: no name comes off the wire or a disk that [`XattrName::new`] would refuse.
impl<'b, C> minicbor::Decode<'b, C> for XattrName {
    fn decode(d: &mut minicbor::Decoder<'b>, _: &mut C) -> Result<Self, minicbor::decode::Error> {
        XattrName::new(d.bytes()?).map_err(minicbor::decode::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_stand_in_one_of_four_spaces() {
        let check = |name: &[u8], space| {
            assert_eq!(XattrName::new(name).and_then(|name| name.space()), space, "{}", name.escape_ascii());
        };
        check(b"user.a", Ok(XattrSpace::User));
        check(b"user.\xff\xfe", Ok(XattrSpace::User));
        check(b"trusted.x.y", Ok(XattrSpace::Trusted));
        check(FILE_CAPS, Ok(XattrSpace::Security));
        check(ACL_ACCESS, Ok(XattrSpace::Acl(AclKind::Access)));
        check(ACL_DEFAULT, Ok(XattrSpace::Acl(AclKind::Default)));
        for unknown in [&b"system.other"[..], b"user", b"User.a", b"btrfs.compression", b"."] {
            check(unknown, Err(XattrNameError::UnknownSpace));
        }
        for alone in [&b"user."[..], b"trusted.", b"security."] {
            check(alone, Err(XattrNameError::SpaceOnly));
        }
    }

    #[test]
    fn names_that_linux_refuses_are_refused_with_its_errno() {
        let check = |name: Vec<u8>, errno| {
            assert_eq!(XattrName::new(name).map_err(XattrNameError::errno), Err(errno));
        };
        check(vec![], Errno::ERANGE);
        check([b"user.", &[b'n'; 251][..]].concat(), Errno::ERANGE);
        check(b"user.a\0b".to_vec(), Errno::EINVAL);
        assert!(XattrName::new([b"user.", &[b'n'; 250][..]].concat()).is_ok());
    }

    #[test]
    fn decoding_refuses_what_new_refuses() {
        let mut bytes = Vec::new();
        minicbor::Encoder::new(&mut bytes).bytes(&[b'n'; 256]).expect("into a Vec");
        assert!(minicbor::decode::<XattrName>(&bytes).is_err());
    }
}
