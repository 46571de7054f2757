//! Splits an access to a file into requests to its slots, and puts what reads bring back together. Pure.
//!
//! A contiguous range or a list of ranges becomes, for each slot it touches, one request with a list of runs; a
//! strided pattern becomes one request that bears the pattern itself, which the iod expands. Where more bytes than
//! one payload holds fall to a slot, it gets several requests. Nothing is copied but where many small pieces are
//! gathered for one payload.

use bytes::{Bytes, BytesMut};
use pvfs_types::{Distribution, Level, LogicalOffset, ObjectOffset, Pattern, Piece, Slot, limits};
use pvfs_wire::msg::data::{Ranges, Run};
use std::ops::Range;

const PAYLOAD: u64 = limits::PAYLOAD_BYTES_MAX as u64;
/// Below this mean length pieces of a write are gathered by copying, above it they are sent from where they lie.
const GATHER_BYTES: usize = 4096;

/// One request to one slot.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct SlotRequest {
    pub slot: Slot,
    pub ranges: Ranges,
    /// Length of the payload.
    pub bytes: u64,
    /// The payload's pieces, in its order.
    pub parts: Vec<Part>,
}

/// A run of a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where it lies in the caller's buffer.
    pub at: u64,
    pub object: ObjectOffset,
    pub logical: LogicalOffset,
    pub len: u64,
}

impl Part {
    /// Where it lies in the caller's buffer.
    pub fn place(&self) -> Range<usize> {
        size(self.at)..size(self.at + self.len)
    }

    /// How many bytes of it lie below the object's end.
    pub fn present(&self, object_len: u64) -> u64 {
        object_len.saturating_sub(self.object.0).min(self.len)
    }
}

/// Bytes of the file that a read did not bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Gap {
    pub logical: LogicalOffset,
    pub len: u64,
    /// Where they would be in the caller's buffer.
    pub at: u64,
}

/// An iod's answer does not fit the question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Misfit {
    pub expected: u64,
    pub got: u64,
}

/// Splits ranges that lie one after the other in the caller's buffer. Each must end below 2^63.
pub(crate) fn list(
    dist: &Distribution,
    ranges: impl IntoIterator<Item = (LogicalOffset, u64)>,
) -> Vec<SlotRequest> {
    let mut plan = ListPlan { requests: Vec::new(), latest: vec![None; usize::from(dist.pcount)] };
    let mut at = 0;
    for (start, len) in ranges {
        for piece in dist.split(start, len) {
            plan.add(at + (piece.logical.0 - start.0), piece);
        }
        at += len;
    }
    plan.requests
}

struct ListPlan {
    requests: Vec<SlotRequest>,
    /// By slot: its latest request.
    latest: Vec<Option<usize>>,
}

impl ListPlan {
    fn add(&mut self, mut at: u64, mut piece: Piece) {
        while piece.len > 0 {
            let request = self.open_request(piece.slot);
            let len = piece.len.min(PAYLOAD - request.bytes);
            request.push(at, Piece { len, ..piece });
            at += len;
            piece.len -= len;
            piece.object.0 += len;
            piece.logical.0 += len;
        }
    }

    /// The request for `slot` that has room.
    fn open_request(&mut self, slot: Slot) -> &mut SlotRequest {
        let latest = &mut self.latest[usize::from(slot.0)];
        let index = match *latest {
            Some(index) if self.requests[index].has_room() => index,
            _ => {
                self.requests.push(SlotRequest {
                    slot,
                    ranges: Ranges::List(Vec::new()),
                    bytes: 0,
                    parts: Vec::new(),
                });
                *latest.insert(self.requests.len() - 1)
            }
        };
        &mut self.requests[index]
    }
}

impl SlotRequest {
    fn has_room(&self) -> bool {
        let Ranges::List(runs) = &self.ranges else { return false };
        self.bytes < PAYLOAD && runs.len() < limits::PIECES_MAX
    }

    fn push(&mut self, at: u64, piece: Piece) {
        let Ranges::List(runs) = &mut self.ranges else { return };
        let len = u32::try_from(piece.len).expect("cut to a payload's length");
        self.bytes += piece.len;
        match runs.last_mut() {
            Some(run) if run.offset.0 + u64::from(run.len) == piece.object.0 => run.len += len,
            _ => runs.push(Run { offset: piece.object, len }),
        }
        push_part(&mut self.parts, at, piece);
    }

    /// The payload of a write: slices of `data`, or one copy where they would be many and small.
    pub fn payload(&self, data: &Bytes) -> Vec<Bytes> {
        let piece = |part: &Part| data.slice(size(part.at)..size(part.at + part.len));
        if self.parts.len() > 1 && size(self.bytes) / self.parts.len() < GATHER_BYTES {
            let mut gathered = BytesMut::with_capacity(size(self.bytes));
            self.parts.iter().for_each(|part| gathered.extend_from_slice(&piece(part)));
            return vec![gathered.freeze()];
        }
        self.parts.iter().map(piece).collect()
    }

    /// Holds an answer against the question; calls `found` with each part's bytes there are, `gap` with what is missing.
    pub fn deal(
        &self,
        object_len: u64,
        payload: &[u8],
        mut found: impl FnMut(u64, &[u8]),
        mut gap: impl FnMut(Gap),
    ) -> Result<(), Misfit> {
        self.gaps(object_len, payload.len() as u64, &mut gap)?;
        let mut rest = payload;
        for part in &self.parts {
            let (bytes, others) = rest.split_at(size(part.present(object_len)));
            rest = others;
            found(part.at, bytes);
        }
        Ok(())
    }

    /// As [`SlotRequest::deal`], of an answer whose `got` bytes are where they belong already.
    pub fn gaps(&self, object_len: u64, got: u64, mut gap: impl FnMut(Gap)) -> Result<(), Misfit> {
        let expected = self.parts.iter().map(|part| part.present(object_len)).sum();
        if got != expected {
            return Err(Misfit { expected, got });
        }
        for part in &self.parts {
            let present = part.present(object_len);
            if present < part.len {
                let logical = LogicalOffset(part.logical.0 + present);
                gap(Gap { logical, len: part.len - present, at: part.at + present });
            }
        }
        Ok(())
    }
}

/// Adds a piece to the payload's map, to the last part where it goes on in buffer, object and file alike.
fn push_part(parts: &mut Vec<Part>, at: u64, piece: Piece) {
    if let Some(last) = parts.last_mut()
        && last.at + last.len == at
        && last.object.0 + last.len == piece.object.0
        && last.logical.0 + last.len == piece.logical.0
    {
        last.len += piece.len;
        return;
    }
    parts.push(Part { at, object: piece.object, logical: piece.logical, len: piece.len });
}

/// Splits a checked pattern whose runs lie packed in the caller's buffer.
pub(crate) fn strided(dist: &Distribution, pattern: &Pattern) -> Vec<SlotRequest> {
    let mut requests = Vec::new();
    deal_pattern(dist, pattern.clone(), 0, &mut requests);
    requests
}

/// Plans `pattern`, packed in the buffer from `at` on: whole if each slot's share fits a payload, else in halves.
fn deal_pattern(dist: &Distribution, pattern: Pattern, at: u64, requests: &mut Vec<SlotRequest>) {
    if pattern.run_count() == 1 {
        let mut plan = list(dist, [(pattern.start, pattern.len)]);
        plan.iter_mut().flat_map(|request| &mut request.parts).for_each(|part| part.at += at);
        requests.append(&mut plan);
        return;
    }
    if let Some(mut plan) = described(dist, &pattern, at) {
        requests.append(&mut plan);
        return;
    }
    let (first, second) = halves(pattern);
    let first_bytes = first.byte_count();
    deal_pattern(dist, first, at, requests);
    deal_pattern(dist, second, at + first_bytes, requests);
}

/// One request with the whole pattern for each slot it touches; `None` where a slot's share is too much for one.
fn described(dist: &Distribution, pattern: &Pattern, mut at: u64) -> Option<Vec<SlotRequest>> {
    let too_many = pattern.run_count() > limits::PATTERN_RUNS_MAX;
    if too_many || pattern.byte_count() > PAYLOAD.saturating_mul(u64::from(dist.pcount)) {
        return None;
    }
    let mut requests: Vec<SlotRequest> = Vec::new();
    let mut by_slot: Vec<Option<usize>> = vec![None; usize::from(dist.pcount)];
    for (start, len) in pattern.runs() {
        for piece in dist.split(start, len) {
            let index = *by_slot[usize::from(piece.slot.0)].get_or_insert_with(|| {
                let ranges = Ranges::Strided(pattern.clone());
                requests.push(SlotRequest { slot: piece.slot, ranges, bytes: 0, parts: Vec::new() });
                requests.len() - 1
            });
            let request = &mut requests[index];
            request.bytes += piece.len;
            push_part(&mut request.parts, at, piece);
            at += piece.len;
            if request.bytes > PAYLOAD || request.parts.len() > limits::PIECES_MAX {
                return None;
            }
        }
    }
    Some(requests)
}

/// Splits the outermost level that repeats; there is one.
fn halves(pattern: Pattern) -> (Pattern, Pattern) {
    let outermost = pattern.levels.iter().position(|level| level.count > 1).expect("more than one run");
    let Level { count, stride } = pattern.levels[outermost];
    let (mut first, mut second) = (pattern.clone(), pattern);
    first.levels[outermost].count = count / 2;
    second.levels[outermost].count = count - count / 2;
    second.start.0 += count / 2 * stride;
    (first, second)
}

/// A length in memory. Lengths are held against real buffers before they get here.
pub(crate) fn size(len: u64) -> usize {
    usize::try_from(len).expect("a length in memory fits in usize")
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
