//! What must hold for any bytes: one function a target, run by libFuzzer and, shortly, by every `cargo test`.
//!
//! A target takes bytes from a stranger and panics where a promise is broken. It owns no corpus: seeds come from the
//! checked-in goldens (`wire_seeds`), so that a new message is fuzzed as soon as it has its golden line.

mod disk;
mod kernel;
mod mutate;

pub use disk::{meta_record, meta_seeds, target_record, target_seeds};
pub use kernel::{kfuse_request, kfuse_seeds};
pub use mutate::{Rng, mutated};

use pvfs_types::{Distribution, IodtabGen, LogicalOffset, Pattern};
use pvfs_wire::msg::{
    Op, Request, admin, data, delegation, file, fsck, hello, lock, namespace, quota, session, xattr,
};
use pvfs_wire::{FRAME_HEADER_BYTES, Header, Refusal};

/// A target: its name, what it does with bytes, and what to start from.
pub struct Target {
    pub name: &'static str,
    pub run: fn(&[u8]),
    pub seeds: fn() -> Vec<Vec<u8>>,
}

/// All targets. Each has its file in `fuzz_targets/` too.
pub const TARGETS: &[Target] = &[
    Target { name: "wire_header", run: wire_header, seeds: header_seeds },
    Target { name: "wire_body", run: wire_body, seeds: wire_seeds },
    Target { name: "meta_record", run: meta_record, seeds: meta_seeds },
    Target { name: "target_record", run: target_record, seeds: target_seeds },
    Target { name: "kfuse_request", run: kfuse_request, seeds: kfuse_seeds },
    Target { name: "pattern", run: pattern, seeds: pattern_seeds },
];

/// A frame header decodes to an error, or to a header that is encoded as the same bytes.
pub fn wire_header(data: &[u8]) {
    let Some(head) = data.first_chunk::<FRAME_HEADER_BYTES>() else { return };
    // Once as it is, and once with its checksum mended, so that the fields behind it are reached.
    let mut mended = *head;
    let crc = pvfs_wire::crc32c(&mended[..FRAME_HEADER_BYTES - 4]);
    mended[FRAME_HEADER_BYTES - 4..].copy_from_slice(&crc.to_le_bytes());
    for head in [head, &mended] {
        if let Ok(header) = Header::decode(head) {
            assert_eq!(&header.encode(), head, "two headers for one meaning");
        }
    }
}

/// A body decodes to an error, or to a message that survives the way there and back. The first two bytes choose the
/// operation, the third one request or reply.
pub fn wire_body(data: &[u8]) {
    let Some(([low, high, kind], body)) = data.split_first_chunk::<3>() else { return };
    survives_the_way_back::<Refusal>(body);
    let Some(op) = Op::from_number(u16::from_le_bytes([*low, *high])) else { return };
    if kind % 2 == 0 { as_request(op, body) } else { as_reply(op, body) }
}

/// A described access that passes its check has ascending runs, and dealing them loses no byte.
pub fn pattern(data: &[u8]) {
    let Ok(pattern) = pvfs_wire::decode::<Pattern>(data) else { return };
    let Ok(extent) = pattern.check() else { return };
    let dist = Distribution { iodtab: IodtabGen(1), base: 0, pcount: 3, ssize: 4096 };
    let mut end = 0;
    for (at, len) in pattern.runs().take(100) {
        assert!(at.0 >= end, "runs overlap");
        end = at.0 + len;
        assert!(end - pattern.start.0 <= extent, "a run past the extent");
        let dealt: u64 = dist.split(at, len.min(1 << 20)).map(|piece| piece.len).sum();
        assert_eq!(dealt, len.min(1 << 20), "dealt bytes");
        for piece in dist.split(LogicalOffset(at.0), len.min(1 << 20)) {
            assert_eq!(dist.logical(piece.slot, piece.object), Some(piece.logical), "there and back");
        }
    }
}

fn survives_the_way_back<T>(body: &[u8])
where
    T: minicbor::Encode<()> + for<'b> minicbor::Decode<'b, ()>,
{
    let Ok(message) = pvfs_wire::decode::<T>(body) else { return };
    let bytes = pvfs_wire::encode(&message);
    let again = pvfs_wire::decode::<T>(&bytes).expect("what we encode, we decode");
    assert_eq!(pvfs_wire::encode(&again), bytes, "one encoding for one message");
}

fn as_request(op: Op, body: &[u8]) {
    each_op(op, &mut Side { body, reply: false });
}

fn as_reply(op: Op, body: &[u8]) {
    survives_the_way_back::<delegation::Changed>(body);
    each_op(op, &mut Side { body, reply: true });
}

struct Side<'a> {
    body: &'a [u8],
    reply: bool,
}

impl Side<'_> {
    fn of<R: Request>(&mut self) {
        if self.reply {
            survives_the_way_back::<R::Reply>(self.body);
        } else {
            survives_the_way_back::<R>(self.body);
        }
    }
}

/// Decodes as the request or reply of `op`. Without `_`: an operation cannot be forgotten here.
fn each_op(op: Op, side: &mut Side<'_>) {
    match op {
        Op::Hello => side.of::<hello::Hello>(),
        Op::Prove => side.of::<hello::Prove>(),
        Op::Ping => side.of::<admin::Ping>(),
        Op::Status => side.of::<admin::GetStatus>(),
        Op::OpenSession => side.of::<session::OpenSession>(),
        Op::KeepAlive => side.of::<session::KeepAlive>(),
        Op::CloseSession => side.of::<session::CloseSession>(),
        Op::GetTargets => side.of::<session::GetTargets>(),
        Op::Lookup => side.of::<namespace::Lookup>(),
        Op::GetAttr => side.of::<namespace::GetAttr>(),
        Op::ReadLink => side.of::<namespace::ReadLink>(),
        Op::ReadDir => side.of::<namespace::ReadDir>(),
        Op::StatFs => side.of::<namespace::StatFs>(),
        Op::Access => side.of::<namespace::CheckAccess>(),
        Op::GetXattr => side.of::<xattr::GetXattr>(),
        Op::ListXattr => side.of::<xattr::ListXattr>(),
        Op::GetQuotas => side.of::<quota::GetQuotas>(),
        Op::SetAttr => side.of::<namespace::SetAttr>(),
        Op::Create => side.of::<namespace::Create>(),
        Op::TmpFile => side.of::<namespace::TmpFile>(),
        Op::MkDir => side.of::<namespace::MkDir>(),
        Op::MkNod => side.of::<namespace::MkNod>(),
        Op::SymLink => side.of::<namespace::SymLink>(),
        Op::Link => side.of::<namespace::Link>(),
        Op::Unlink => side.of::<namespace::Unlink>(),
        Op::RmDir => side.of::<namespace::RmDir>(),
        Op::Rename => side.of::<namespace::Rename>(),
        Op::SetLayout => side.of::<namespace::SetLayout>(),
        Op::SetXattr => side.of::<xattr::SetXattr>(),
        Op::RemoveXattr => side.of::<xattr::RemoveXattr>(),
        Op::SetQuota => side.of::<quota::SetQuota>(),
        Op::Open => side.of::<file::Open>(),
        Op::ReportSize => side.of::<file::ReportSize>(),
        Op::PutInline => side.of::<file::PutInline>(),
        Op::ReadInline => side.of::<file::ReadInline>(),
        Op::ListWrites => side.of::<file::ListWrites>(),
        Op::EndWrites => side.of::<file::EndWrites>(),
        Op::TouchAtimes => side.of::<file::TouchAtimes>(),
        Op::TestLock => side.of::<lock::TestLock>(),
        Op::SetLock => side.of::<lock::SetLock>(),
        Op::AwaitLocks => side.of::<lock::AwaitLocks>(),
        Op::CancelLock => side.of::<lock::CancelLock>(),
        Op::ReleaseLocks => side.of::<lock::ReleaseLocks>(),
        Op::AwaitRecalls => side.of::<delegation::AwaitRecalls>(),
        Op::Recalled => side.of::<delegation::Recalled>(),
        Op::HoldDelegations => side.of::<delegation::HoldDelegations>(),
        Op::Read => side.of::<data::Read>(),
        Op::Write => side.of::<data::Write>(),
        Op::Fill => side.of::<data::Fill>(),
        Op::Copy => side.of::<data::Copy>(),
        Op::FindData => side.of::<data::FindData>(),
        Op::OpenObject => side.of::<data::OpenObject>(),
        Op::Sync => side.of::<data::Sync>(),
        Op::StatObjects => side.of::<data::StatObjects>(),
        Op::Commit => side.of::<data::Commit>(),
        Op::RemoveObjects => side.of::<data::RemoveObjects>(),
        Op::TruncateObjects => side.of::<data::TruncateObjects>(),
        Op::PutObject => side.of::<data::PutObject>(),
        Op::Heartbeat => side.of::<admin::Heartbeat>(),
        Op::ListObjects => side.of::<fsck::ListObjects>(),
        Op::CheckStore => side.of::<fsck::CheckStore>(),
        Op::ListFiles => side.of::<fsck::ListFiles>(),
        Op::JudgeObjects => side.of::<fsck::JudgeObjects>(),
        Op::Repair => side.of::<fsck::Repair>(),
    }
}

/// The golden messages, each with its operation and kind before it.
pub fn wire_seeds() -> Vec<Vec<u8>> {
    let golden = include_str!("../../crates/wire/tests/golden.txt");
    golden.lines().filter_map(seed_of_golden_line).collect()
}

/// `number name kind hex` as [`wire_body`] wants it; `None` for comments and for what is no operation.
fn seed_of_golden_line(line: &str) -> Option<Vec<u8>> {
    let mut words = line.split(' ');
    let number = u16::from_str_radix(words.next()?.strip_prefix("0x")?, 16).ok()?;
    let kind = u8::from(words.nth(1)? == "reply");
    let [low, high] = number.to_le_bytes();
    let mut seed = vec![low, high, kind];
    seed.extend(from_hex(words.next()?)?);
    Some(seed)
}

/// Bytes written as pairs of hexadecimal digits; `None` for any other text.
fn from_hex(text: &str) -> Option<Vec<u8>> {
    let pairs = text.as_bytes().chunks(2).map(|pair| std::str::from_utf8(pair).ok().filter(|p| p.len() == 2));
    pairs.map(|pair| u8::from_str_radix(pair?, 16).ok()).collect()
}

fn header_seeds() -> Vec<Vec<u8>> {
    let header = Header {
        version: 1,
        op: 0x502,
        request_id: 77,
        kind: pvfs_wire::FrameKind::Request,
        body_bytes: 200,
        payload_bytes: 1 << 20,
        body_crc: 1,
        payload_crc: 2,
    };
    vec![header.encode().to_vec()]
}

fn pattern_seeds() -> Vec<Vec<u8>> {
    let levels =
        vec![pvfs_types::Level { count: 3, stride: 900 }, pvfs_types::Level { count: 2, stride: 50 }];
    vec![pvfs_wire::encode(&Pattern { start: LogicalOffset(3), len: 40, levels })]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_operation_is_among_the_seeds() {
        let seeds = wire_seeds();
        for op in Op::ALL {
            let [low, high] = op.number().to_le_bytes();
            assert!(seeds.iter().any(|seed| seed[..2] == [low, high]), "no seed for {}", op.name());
        }
    }

    #[test]
    fn every_target_has_its_file() {
        for target in TARGETS {
            let path = format!("{}/fuzz_targets/{}.rs", env!("CARGO_MANIFEST_DIR"), target.name);
            assert!(std::path::Path::new(&path).exists(), "{path} is missing");
        }
    }
}
