//! Holds plans against a naive model that deals bytes one by one.

use super::*;
use proptest::prelude::*;
use pvfs_types::IodtabGen;
use std::collections::{BTreeMap, BTreeSet};

fn dist(pcount: u16, ssize: u32) -> Distribution {
    Distribution { iodtab: IodtabGen(1), base: 0, pcount, ssize }
}

/// Requests as `slot: object@run+len… <- buffer+len…`.
fn show(requests: &[SlotRequest]) -> Vec<String> {
    let show = |request: &SlotRequest| {
        let runs = match &request.ranges {
            Ranges::List(runs) => {
                runs.iter().map(|run| format!("{}+{}", run.offset.0, run.len)).collect::<Vec<_>>().join(" ")
            }
            Ranges::Strided(pattern) => format!("{} runs", pattern.run_count()),
        };
        let parts = request.parts.iter().map(|part| format!("{}+{}", part.at, part.len)).collect::<Vec<_>>();
        format!("{}: {runs} <- {}", request.slot, parts.join(" "))
    };
    requests.iter().map(show).collect()
}

/// Plans `ranges` over 3 slots with strips of 10 bytes.
#[track_caller]
fn check(ranges: &[(u64, u64)], expect: &[&str]) {
    let plan = list(&dist(3, 10), ranges.iter().map(|&(at, len)| (LogicalOffset(at), len)));
    assert_eq!(show(&plan), expect);
}

fn pattern(start: u64, len: u64, levels: &[(u64, u64)]) -> Pattern {
    let levels = levels.iter().map(|&(count, stride)| Level { count, stride }).collect();
    Pattern { start: LogicalOffset(start), len, levels }
}

#[test]
fn an_aligned_strip_is_one_request_with_one_piece() {
    check(&[(20, 10)], &["slot2: 0+10 <- 0+10"]);
}

#[test]
fn strips_of_one_slot_are_one_run() {
    check(&[(5, 40)], &["slot0: 5+15 <- 0+5 25+10", "slot1: 0+15 <- 5+10 35+5", "slot2: 0+10 <- 15+10"]);
}

#[test]
fn a_list_is_one_request_for_each_slot_it_touches() {
    check(&[(0, 1), (3, 1), (31, 2), (12, 1)], &["slot0: 0+1 3+1 11+2 <- 0+1 1+1 2+2", "slot1: 2+1 <- 4+1"]);
}

#[test]
fn nothing_is_no_request() {
    check(&[], &[]);
    check(&[(7, 0)], &[]);
}

#[test]
fn a_pattern_is_sent_as_it_is() {
    let plan = strided(&dist(3, 10), &pattern(8, 4, &[(3, 10)]));
    assert_eq!(
        show(&plan),
        ["slot0: 3 runs <- 0+2 10+2", "slot1: 3 runs <- 2+2 4+2", "slot2: 3 runs <- 6+2 8+2"]
    );
}

#[test]
fn a_pattern_of_one_run_is_a_list() {
    assert_eq!(
        show(&strided(&dist(3, 10), &pattern(8, 4, &[(1, 99)]))),
        ["slot0: 8+2 <- 0+2", "slot1: 0+2 <- 2+2"]
    );
}

#[test]
fn a_pattern_that_is_too_much_for_a_payload_is_split_at_its_outermost_level() {
    let strip = 1 << 20;
    let p = pattern(0, u64::from(strip), &[(3, 100 << 20), (4, 2 << 20)]);
    let plan = strided(&dist(1, strip), &p);
    let counts: Vec<u64> = plan.iter().map(|request| request.bytes >> 20).collect();
    assert_eq!(counts, [4, 4, 4]);
    assert!(plan.iter().all(|request| matches!(request.ranges, Ranges::Strided(_))));
    assert_eq!(plan[1].parts[0].at, 4 << 20);
}

#[test]
fn huge_ranges_are_cut_to_payloads() {
    let plan = list(&dist(1, 1 << 30), [(LogicalOffset(5), 10 << 20)]);
    assert_eq!(plan.iter().map(|request| request.bytes >> 20).collect::<Vec<_>>(), [4, 4, 2]);
}

#[test]
fn a_list_of_more_pieces_than_a_request_may_carry_is_split() {
    let ranges = (0..=limits::PIECES_MAX as u64).map(|n| (LogicalOffset(2 * n), 1));
    let plan = list(&dist(1, 1 << 20), ranges);
    assert_eq!(plan.iter().map(|request| request.parts.len()).collect::<Vec<_>>(), [limits::PIECES_MAX, 1]);
}

#[test]
fn large_pieces_are_sliced_and_small_ones_gathered() {
    let data = Bytes::from(vec![7; 64 << 10]);
    let plan = list(&dist(2, 8 << 10), [(LogicalOffset(0), 64 << 10)]);
    let payload = plan[0].payload(&data);
    assert_eq!(payload.len(), 4);
    assert_eq!(payload[1].as_ptr(), data[16 << 10..].as_ptr(), "not copied");
    let ranges = (0..100).map(|n| (LogicalOffset(10 * n), 2));
    let plan = list(&dist(1, 8 << 10), ranges);
    assert_eq!(plan[0].payload(&data.slice(..200)).len(), 1);
}

#[test]
fn answers_of_another_length_than_they_claim_are_refused() {
    let plan = list(&dist(1, 4096), [(LogicalOffset(0), 10)]);
    let deal = |object_len, payload: &[u8]| plan[0].deal(object_len, payload, |_, _| {}, |_| {});
    assert_eq!(deal(10, &[0; 10]), Ok(()));
    assert_eq!(deal(4, &[0; 4]), Ok(()));
    assert_eq!(deal(10, &[0; 9]), Err(Misfit { expected: 10, got: 9 }));
    assert_eq!(deal(0, &[0; 1]), Err(Misfit { expected: 0, got: 1 }));
}

/// Where each byte of the buffer must go: `(slot, object offset)`, in the order of the buffer.
fn model(dist: &Distribution, ranges: &[(u64, u64)]) -> Vec<(Slot, u64)> {
    let bytes = ranges.iter().flat_map(|&(start, len)| start..start + len);
    bytes
        .map(|at| {
            let piece = dist.split(LogicalOffset(at), 1).next().unwrap();
            (piece.slot, piece.object.0)
        })
        .collect()
}

/// As [`model`], by the plan; checks what must hold of each request.
fn planned(dist: &Distribution, plan: &[SlotRequest], total: usize) -> Vec<(Slot, u64)> {
    let mut placed = vec![None; total];
    for request in plan {
        let mut payload = expand(dist, request);
        assert_eq!(payload.len() as u64, request.bytes);
        assert!(request.bytes > 0 && request.bytes <= PAYLOAD);
        for part in &request.parts {
            for n in 0..part.len {
                let object = payload.remove(0);
                assert_eq!(object, part.object.0 + n);
                let at = usize::try_from(part.at + n).unwrap();
                assert_eq!(placed[at].replace((request.slot, object)), None, "planned twice");
            }
        }
    }
    placed.into_iter().map(|byte| byte.expect("planned")).collect()
}

/// The object offsets of a request's payload, byte by byte, as an iod understands them.
fn expand(dist: &Distribution, request: &SlotRequest) -> Vec<u64> {
    match &request.ranges {
        Ranges::List(runs) => {
            runs.iter().flat_map(|run| run.offset.0..run.offset.0 + u64::from(run.len)).collect()
        }
        Ranges::Strided(pattern) => pattern
            .runs()
            .flat_map(|(start, len)| dist.split(start, len))
            .filter(|piece| piece.slot == request.slot)
            .flat_map(|piece| piece.object.0..piece.object.0 + piece.len)
            .collect(),
    }
}

prop_compose! {
    fn any_pattern()(
        start in 0u64..100, len in 1u64..20, steps in proptest::collection::vec((1u64..5, 0u64..30), 0..4),
    ) -> Pattern {
        let mut levels = Vec::new();
        let mut extent = len;
        for (count, gap) in steps {
            let stride = extent + gap;
            levels.insert(0, Level { count, stride });
            extent += (count - 1) * stride;
        }
        Pattern { start: LogicalOffset(start), len, levels }
    }
}

proptest! {
    #[test]
    fn lists_are_planned_as_dealing_each_byte_gives(
        ranges in proptest::collection::vec((0u64..200, 0u64..60), 0..8), pcount in 1u16..6, ssize in 1u32..30,
    ) {
        let dist = dist(pcount, ssize);
        let expect = model(&dist, &ranges);
        let plan = list(&dist, ranges.iter().map(|&(at, len)| (LogicalOffset(at), len)));
        let slots: BTreeSet<Slot> = expect.iter().map(|(slot, _)| *slot).collect();
        prop_assert_eq!(plan.len(), slots.len(), "one request for each slot touched");
        prop_assert_eq!(planned(&dist, &plan, expect.len()), expect);
    }

    #[test]
    fn patterns_are_planned_as_dealing_each_byte_gives(
        pattern in any_pattern(), pcount in 1u16..6, ssize in 1u32..30,
    ) {
        let dist = dist(pcount, ssize);
        let ranges: Vec<(u64, u64)> = pattern.runs().map(|(start, len)| (start.0, len)).collect();
        let expect = model(&dist, &ranges);
        let plan = strided(&dist, &pattern);
        let slots: BTreeSet<Slot> = expect.iter().map(|(slot, _)| *slot).collect();
        prop_assert_eq!(plan.len(), slots.len(), "one request for each slot touched");
        prop_assert_eq!(planned(&dist, &plan, expect.len()), expect);
    }

    #[test]
    fn what_is_written_is_read_back_with_its_gaps(
        ranges in proptest::collection::vec((0u64..200, 1u64..60), 1..6), file_size in 0u64..260, pcount in 1u16..6,
        ssize in 1u32..30,
    ) {
        // Objects of a file of `file_size` bytes, each byte telling its place in the file.
        let dist = dist(pcount, ssize);
        let mut objects: BTreeMap<Slot, Vec<u8>> = BTreeMap::new();
        for at in 0..file_size {
            let piece = dist.split(LogicalOffset(at), 1).next().unwrap();
            objects.entry(piece.slot).or_default().push(u8::try_from(at).unwrap_or(255));
        }
        let plan = list(&dist, ranges.iter().map(|&(at, len)| (LogicalOffset(at), len)));
        let total: u64 = ranges.iter().map(|(_, len)| len).sum();
        let (mut buffer, mut missing) = (vec![None; size(total)], 0);
        for request in &plan {
            let none = Vec::new();
            let object = objects.get(&request.slot).unwrap_or(&none);
            let present = expand(&dist, request).into_iter().filter_map(|at| object.get(size(at)).copied());
            let payload: Vec<u8> = present.collect();
            let found = |at: u64, bytes: &[u8]| {
                for (n, byte) in bytes.iter().enumerate() {
                    buffer[size(at) + n] = Some(*byte);
                }
            };
            let gap = |gap: Gap| {
                assert!(gap.logical.0 >= file_size);
                missing += gap.len;
            };
            request.deal(object.len() as u64, &payload, found, gap).unwrap();
        }
        let expect = ranges.iter().flat_map(|&(start, len)| start..start + len);
        let expect: Vec<Option<u8>> =
            expect.map(|at| (at < file_size).then(|| u8::try_from(at).unwrap_or(255))).collect();
        prop_assert_eq!(buffer.iter().filter(|byte| byte.is_none()).count() as u64, missing);
        prop_assert_eq!(buffer, expect);
    }
}
