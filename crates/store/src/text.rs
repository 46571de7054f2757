//! The container of a target's small records: lines of text, closed by a checksum. Pure.
//!
//! ```text
//! pvfs identity 1
//! fs 6f1f…
//! target 0b7a…
//! crc32c 89abcdef
//! ```
//!
//! The first line names the kind of record and its format version, the last line is the CRC32C of all bytes before it.
//! These two lines stay the same in every version, so that a newer record is told apart from a damaged one.

use std::fmt::Write;

/// The longest record, in bytes.
pub(crate) const RECORD_BYTES_MAX: usize = 4096;

/// Why bytes are not a record.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RecordError {
    #[error("it is empty")]
    Empty,
    #[error("it is longer than any such record")]
    TooLong,
    #[error("its checksum does not fit")]
    Checksum,
    #[error("it is not a record of kind `{kind}`")]
    Kind { kind: &'static str },
    #[error("it has format version {found}, this build knows only {known}")]
    Version { found: u32, known: u32 },
    #[error("it has no valid line `{key}`")]
    Field { key: &'static str },
}

/// Writes a record of `fields`, in order.
pub(crate) fn encode(kind: &str, version: u32, fields: &[(&str, String)]) -> String {
    let mut text = format!("pvfs {kind} {version}\n");
    for (key, value) in fields {
        writeln!(text, "{key} {value}").expect("into a String");
    }
    let crc = crc32c(text.as_bytes());
    writeln!(text, "crc32c {crc:08x}").expect("into a String");
    text
}

/// A record whose checksum, kind and version were right.
#[derive(Debug)]
pub(crate) struct Fields<'a>(Vec<(&'a str, &'a str)>);

/// Reads a record of that kind and version.
pub(crate) fn decode<'a>(bytes: &'a [u8], kind: &'static str, known: u32) -> Result<Fields<'a>, RecordError> {
    if bytes.is_empty() {
        return Err(RecordError::Empty);
    }
    if bytes.len() > RECORD_BYTES_MAX {
        return Err(RecordError::TooLong);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| RecordError::Checksum)?;
    let close_at = text.trim_end_matches('\n').rfind('\n').map_or(0, |at| at + 1);
    let (content, close) = text.split_at(close_at);
    if close != format!("crc32c {:08x}\n", crc32c(content.as_bytes())) {
        return Err(RecordError::Checksum);
    }
    let mut lines = content.lines();
    let version = lines
        .next()
        .and_then(|line| line.strip_prefix("pvfs ")?.strip_prefix(kind)?.strip_prefix(' '))
        .and_then(|version| version.parse::<u32>().ok())
        .ok_or(RecordError::Kind { kind })?;
    if version != known {
        return Err(RecordError::Version { found: version, known });
    }
    Ok(Fields(lines.filter_map(|line| line.split_once(' ')).collect()))
}

impl Fields<'_> {
    /// The value of `key`, as `parse` makes it.
    pub(crate) fn get<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<T, RecordError> {
        self.find(key, parse)?.ok_or(RecordError::Field { key })
    }

    /// As [`Fields::get`], for a key that may be missing.
    pub(crate) fn find<T>(
        &self,
        key: &'static str,
        parse: impl FnOnce(&str) -> Option<T>,
    ) -> Result<Option<T>, RecordError> {
        let Some((_, value)) = self.0.iter().find(|(k, _)| *k == key) else { return Ok(None) };
        parse(value).map(Some).ok_or(RecordError::Field { key })
    }
}

fn crc32c(bytes: &[u8]) -> u32 {
    u32::try_from(crc_fast::checksum(crc_fast::CrcAlgorithm::Crc32Iscsi, bytes)).expect("a 32-bit checksum")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn record() -> String {
        encode("thing", 3, &[("a", "1".into()), ("b", "x y".into())])
    }

    #[test]
    fn golden_record() {
        assert_eq!(record(), "pvfs thing 3\na 1\nb x y\ncrc32c df8f6477\n");
    }

    #[test]
    fn fields_come_back() {
        let text = record();
        let fields = decode(text.as_bytes(), "thing", 3).unwrap();
        assert_eq!(fields.get("a", |v| v.parse::<u8>().ok()), Ok(1));
        assert_eq!(fields.get("b", |v| Some(v.to_owned())), Ok("x y".to_owned()));
        assert_eq!(fields.get("c", |_| Some(())), Err(RecordError::Field { key: "c" }));
        assert_eq!(fields.get("b", |v| v.parse::<u8>().ok()), Err(RecordError::Field { key: "b" }));
    }

    #[test]
    fn another_version_or_kind_is_told_apart_from_damage() {
        let text = record();
        assert_eq!(
            decode(text.as_bytes(), "thing", 2).unwrap_err(),
            RecordError::Version { found: 3, known: 2 }
        );
        assert_eq!(decode(text.as_bytes(), "other", 3).unwrap_err(), RecordError::Kind { kind: "other" });
        assert_eq!(decode(b"", "thing", 3).unwrap_err(), RecordError::Empty);
        assert_eq!(decode(&[b'a'; 5000], "thing", 3).unwrap_err(), RecordError::TooLong);
    }

    #[test]
    fn every_damaged_bit_and_every_cut_is_found() {
        let text = record().into_bytes();
        for bit in 0..text.len() * 8 {
            let mut damaged = text.clone();
            damaged[bit / 8] ^= 1 << (bit % 8);
            assert!(decode(&damaged, "thing", 3).is_err(), "bit {bit}");
        }
        for len in 0..text.len() {
            assert!(decode(&text[..len], "thing", 3).is_err(), "cut to {len} bytes");
        }
    }

    proptest! {
        #[test]
        fn no_bytes_make_the_decoder_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let _ = decode(&bytes, "thing", 3);
        }
    }
}
