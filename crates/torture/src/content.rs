//! What is in a block: bytes that tell which file, which block and which write they are of.

use crate::FaultKind;

/// No divisor of any strip, so that blocks lie across targets.
pub(crate) const BLOCK_BYTES: usize = 5000;
const HEAD_BYTES: usize = 24;

/// The bytes of the `version`th write of block `block` of `file`; version 0 is a hole.
pub(crate) fn fill(bytes: &mut [u8], file: u64, block: u64, version: u64) {
    if version == 0 {
        bytes.fill(0);
        return;
    }
    bytes[..8].copy_from_slice(&file.to_le_bytes());
    bytes[8..16].copy_from_slice(&block.to_le_bytes());
    bytes[16..HEAD_BYTES].copy_from_slice(&version.to_le_bytes());
    let mut rng = fastrand::Rng::with_seed(file ^ block.rotate_left(24) ^ version.rotate_left(44));
    rng.fill(&mut bytes[HEAD_BYTES..]);
}

/// Whether `found` is the `version`th write of that block; else what it is.
pub(crate) fn check(found: &[u8], file: u64, block: u64, version: u64) -> Result<(), (FaultKind, String)> {
    let mut expected = [0; BLOCK_BYTES];
    fill(&mut expected, file, block, version);
    let Some(at) = found.iter().zip(&expected).position(|(found, expected)| found != expected) else {
        return Ok(());
    };
    let u64_at = |at: usize| u64::from_le_bytes(found[at..at + 8].try_into().unwrap_or_default());
    let is_zero = found.iter().all(|&byte| byte == 0);
    let older = (u64_at(0), u64_at(8)) == (file, block) && (1..version).contains(&u64_at(16));
    let what = format!("file {file} block {block}, byte {at} of it: expected write {version}, found ");
    Err(if is_zero {
        (FaultKind::Lost, what + "zeros")
    } else if older {
        (FaultKind::Lost, format!("{what}write {}", u64_at(16)))
    } else {
        let head = (u64_at(0), u64_at(8), u64_at(16));
        (
            FaultKind::Wrong,
            format!("{what}file {} block {} write {}, or none of them", head.0, head.1, head.2),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn kind_of(found: (u64, u64, u64), expected: (u64, u64, u64)) -> Option<FaultKind> {
        let mut bytes = vec![0; BLOCK_BYTES];
        fill(&mut bytes, found.0, found.1, found.2);
        check(&bytes, expected.0, expected.1, expected.2).err().map(|(kind, _)| kind)
    }

    #[test]
    fn older_bytes_are_lost_writes_others_are_wrong() {
        assert_eq!(kind_of((7, 3, 2), (7, 3, 2)), None);
        assert_eq!(kind_of((7, 3, 0), (7, 3, 0)), None);
        assert_eq!(kind_of((7, 3, 1), (7, 3, 2)), Some(FaultKind::Lost));
        assert_eq!(kind_of((7, 3, 0), (7, 3, 2)), Some(FaultKind::Lost));
        assert_eq!(kind_of((7, 3, 3), (7, 3, 2)), Some(FaultKind::Wrong));
        assert_eq!(kind_of((7, 4, 1), (7, 3, 2)), Some(FaultKind::Wrong));
        assert_eq!(kind_of((7, 3, 1), (7, 3, 0)), Some(FaultKind::Wrong));
    }

    #[test]
    fn one_byte_is_enough() {
        let mut bytes = vec![0; BLOCK_BYTES];
        fill(&mut bytes, 1, 1, 1);
        bytes[BLOCK_BYTES - 1] ^= 1;
        assert_eq!(check(&bytes, 1, 1, 1).err().map(|(kind, _)| kind), Some(FaultKind::Wrong));
    }
}
