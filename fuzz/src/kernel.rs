//! What the kernel sends to a mount.

use pvfs_kfuse::{Op, abi, decode, encode};

/// A request decodes to an error or to names without NUL, and to no more bytes than it had.
pub fn kfuse_request(data: &[u8]) {
    // Once as it is, and once with its length mended, so that the fields behind it are reached.
    let mut mended = data.to_vec();
    if let (Some(len), Ok(now)) = (mended.first_chunk_mut::<4>(), u32::try_from(data.len())) {
        *len = now.to_ne_bytes();
    }
    for bytes in [data, &mended] {
        let Ok(request) = decode(bytes) else { continue };
        let (names, len) = match &request.op {
            Op::Lookup { name } | Op::Unlink { name } | Op::RmDir { name } | Op::Link { name, .. } => {
                (vec![name], 0)
            }
            Op::SymLink { name, target: other } | Op::Rename { name, new_name: other, .. } => {
                (vec![name, other], 0)
            }
            Op::Write { data, .. } => (vec![], data.len()),
            Op::SetXattr { name, value, .. } => (vec![name], value.len()),
            Op::BatchForget(nodes) => (vec![], nodes.len()),
            _ => (vec![], 0),
        };
        assert!(names.iter().all(|name| !name.contains(&0)), "a name with NUL");
        assert!(names.iter().map(|name| name.len()).sum::<usize>() + len <= bytes.len(), "more than came");
    }
}

/// One request of each operation, with room for its arguments and two names.
pub fn kfuse_seeds() -> Vec<Vec<u8>> {
    let request = |opcode| {
        let head = abi::InHeader { opcode, unique: 2, nodeid: 1, ..abi::InHeader::default() };
        encode(head, &[&[1; 48], b"name\0other\0", &[0; 64]])
    };
    (1..=abi::opcode::COPY_FILE_RANGE_64).map(request).collect()
}
