//! The wire's promises: old bytes keep their meaning, newer peers are understood, garbage is an error.
//!
//! `golden.txt` holds one encoded example or more of every message. A changed line there is a broken protocol: give
//! the message a new `Option` field at its end instead. To add the lines of a *new* message:
//! `PVFS_BLESS=1 cargo test -p pvfs-wire --test golden`.

mod samples;

use proptest::prelude::*;
use pvfs_types::Errno;
use pvfs_wire::msg::hello::Secret;
use pvfs_wire::{FRAME_HEADER_BYTES, FrameKind, Header, Op, Refusal, Status};
use samples::Sample;
use std::fmt::Write as _;

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        write!(text, "{byte:02x}").expect("into a String");
        text
    })
}

/// Every status a refusal can bear.
fn refusals() -> Vec<Refusal> {
    [
        Status::Errno(Errno::ENOENT),
        Status::SessionUnknown,
        Status::SlotStale,
        Status::LeaseExpired,
        Status::CapabilityForged,
        Status::CapabilityRights,
        Status::WrongTarget,
        Status::NotNow,
        Status::PayloadDamaged,
        Status::BadRequest,
        Status::UnknownOp,
        Status::Version,
        Status::WrongFs,
        Status::Unauthorized,
        Status::StoreRaised(7),
        Status::CapabilityOld,
    ]
    .map(|status| Refusal::new(status, "why"))
    .to_vec()
}

/// What `golden.txt` must say: `number name kind bytes`, one line an example.
fn golden_text() -> String {
    let mut text = String::from("# Written by tests/golden.rs. Lines are added, never changed.\n");
    for sample in samples::all() {
        let (number, name) = (sample.op.number(), sample.op.name());
        writeln!(text, "{number:#05x} {name} {} {}", sample.kind, hex(&sample.bytes)).expect("into a String");
    }
    for refusal in refusals() {
        writeln!(text, "----- any refusal {}", hex(&pvfs_wire::encode(&refusal))).expect("into a String");
    }
    let (secret, (hello, challenge)) = (Secret([42; 32]), samples::opening());
    for (side, proof) in [
        ("dialler", secret.dialler_proof(&hello, &challenge)),
        ("listener", secret.listener_proof(&hello, &challenge)),
    ] {
        writeln!(text, "----- {side} proof {}", hex(&proof)).expect("into a String");
    }
    text
}

#[test]
fn every_message_is_encoded_as_it_always_was() {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/golden.txt");
    let now = golden_text();
    if std::env::var_os("PVFS_BLESS").is_some() {
        let was = std::fs::read_to_string(path).unwrap_or_default();
        for line in was.lines() {
            assert!(
                now.lines().any(|new| new == line),
                "blessing only adds lines; this one would go: {line}"
            );
        }
        std::fs::write(path, &now).expect("golden.txt can be written");
    }
    let golden = std::fs::read_to_string(path).expect("golden.txt is there");
    for (line, (was, is)) in golden.lines().zip(now.lines()).enumerate() {
        assert_eq!(was, is, "golden.txt line {}: this message's bytes have changed", line + 1);
    }
    assert_eq!(
        golden.lines().count(),
        now.lines().count(),
        "an example without its golden line, or the reverse"
    );
}

#[test]
fn every_operation_has_examples_of_request_and_reply() {
    let samples = samples::all();
    for &op in Op::ALL {
        for kind in ["request", "reply"] {
            assert!(
                samples.iter().any(|sample| sample.op == op && sample.kind == kind),
                "no {kind} of {} in tests/samples/mod.rs",
                op.name()
            );
        }
    }
}

#[test]
fn operation_numbers_and_names_are_unique_and_survive_the_way_back() {
    for (at, &op) in Op::ALL.iter().enumerate() {
        assert_eq!(Op::from_number(op.number()), Some(op));
        assert!(Op::ALL[at + 1..].iter().all(|other| other.name() != op.name()), "{} twice", op.name());
    }
    assert_eq!(Op::from_number(0), None);
}

#[test]
fn what_was_encoded_decodes_to_the_same_message() {
    for Sample { op, kind, bytes, reencode } in samples::all() {
        let again = reencode(&bytes).unwrap_or_else(|e| panic!("{} {kind}: {e}", op.name()));
        assert_eq!(hex(&again), hex(&bytes), "{} {kind}", op.name());
    }
    for refusal in refusals() {
        assert_eq!(pvfs_wire::decode::<Refusal>(&pvfs_wire::encode(&refusal)), Ok(refusal));
    }
}

/// `bytes`, a message in array form, as a peer sends it that knows `extra` further fields.
fn with_extra_fields(bytes: &[u8], fields_known: u64, extra: &[&[u8]]) -> Vec<u8> {
    let mut decoder = minicbor::Decoder::new(bytes);
    let fields = decoder.array().expect("messages are arrays").expect("of definite length");
    let content = &bytes[decoder.position()..];
    let mut out = Vec::new();
    let mut encoder = minicbor::Encoder::new(&mut out);
    encoder.array(fields_known + extra.len() as u64).expect("into a Vec");
    out.extend_from_slice(content);
    // Trailing fields that were `None` may have been left out: they stand as nulls before newer ones.
    out.extend((fields..fields_known).map(|_| 0xf6));
    out.extend(extra.iter().copied().flatten());
    out
}

#[test]
fn a_newer_peers_extra_fields_are_skipped() {
    // A number, a text, a nested list, a map, null.
    let extra: [&[u8]; 5] =
        [&[0x18, 0x2a], &[0x62, b'h', b'i'], &[0x82, 0x01, 0x81, 0x02], &[0xa1, 1, 2], &[0xf6]];
    // No message has more fields than this; the fields between are ones this build does not know either.
    let fields_known = 24;
    for Sample { op, kind, bytes, reencode } in samples::all() {
        let newer = with_extra_fields(&bytes, fields_known, &extra);
        let read = reencode(&newer).unwrap_or_else(|e| panic!("{} {kind}: {e}", op.name()));
        assert_eq!(hex(&read), hex(&bytes), "{} {kind}", op.name());
    }
}

#[test]
fn bytes_after_a_message_and_messages_cut_short_are_errors() {
    for Sample { op, kind, bytes, reencode } in samples::all() {
        let mut longer = bytes.clone();
        longer.push(0);
        assert!(reencode(&longer).is_err(), "{} {kind} with a byte after it", op.name());
        for len in 0..bytes.len() {
            assert!(reencode(&bytes[..len]).is_err(), "{} {kind} cut to {len} bytes", op.name());
        }
    }
}

#[test]
fn a_list_that_claims_to_be_long_costs_no_memory() {
    // An array of one field, which is a list said to have 2^60 items, and then nothing.
    let lying = [0x81, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0];
    for Sample { reencode, .. } in samples::all() {
        let _ = reencode(&lying);
    }
    // The same inside a message that is whole up to there: `GetTargets`' reply is (version, targets, …).
    let lying = [0x83, 0x01, 0x9b, 0x10, 0, 0, 0, 0, 0, 0, 0];
    assert!(pvfs_wire::decode::<pvfs_wire::msg::session::Targets>(&lying).is_err());
}

/// Decodes `bytes` as everything there is. Returns how many messages they were.
fn decode_as_everything(bytes: &[u8], samples: &[Sample]) -> usize {
    if let Some(head) = bytes.first_chunk::<FRAME_HEADER_BYTES>() {
        let _ = Header::decode(head);
    }
    let _ = pvfs_wire::decode::<Refusal>(bytes);
    samples.iter().filter(|sample| (sample.reencode)(bytes).is_ok()).count()
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn random_bytes_never_panic_a_decoder(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        decode_as_everything(&bytes, &samples::all());
    }

    #[test]
    fn mutated_messages_never_panic_a_decoder(
        which in any::<prop::sample::Index>(),
        changes in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
        cut in any::<prop::sample::Index>(),
    ) {
        let samples = samples::all();
        let mut bytes = which.get(&samples).bytes.clone();
        for (at, value) in changes {
            let at = at.index(bytes.len());
            bytes[at] = value;
        }
        decode_as_everything(&bytes, &samples);
        bytes.truncate(cut.index(bytes.len() + 1));
        decode_as_everything(&bytes, &samples);
    }

    #[test]
    fn headers_survive_the_way_there_and_back(
        version: u16, op: u16, request_id: u64, kind in 0..3usize,
        body_bytes in 0..=1u32 << 20, payload_bytes in 0..=4u32 << 20, body_crc: u32, payload_crc: u32,
    ) {
        let kind = [FrameKind::Request, FrameKind::Reply, FrameKind::Refusal][kind];
        let header =
            Header { version, op, request_id, kind, body_bytes, payload_bytes, body_crc, payload_crc };
        prop_assert_eq!(Header::decode(&header.encode()), Ok(header));
    }
}
