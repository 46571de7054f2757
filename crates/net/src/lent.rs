//! Memory of the client that goes along with a request, instead of bytes: where both ends have it.
//!
//! A client lends what its request is about, bytes to write or room for what is read, until the answer has come. If the
//! connection breaks before, the server may still be at it: then it stays lent until the same server has welcomed the next
//! connection. By then it has ended what it did for the one before.
//!
//! On a connection with such memory each frame's header is followed by 8 bytes, little-endian: what is lent (0 nothing, 1 the
//! payload, 2 room for the answer's payload; in a reply 3: the payload is in that room), and how many places follow. A place is
//! where it begins in the memory, 8 bytes, and how long it is, 4. Such a payload is not in the frame, and has no checksum: it
//! stays in the memory of one machine.

use bytes::{Buf, Bytes};
use pvfs_env::memory::{Place, Room};
use pvfs_wire::FrameError;
use std::{
    ops::Range,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

/// More places than this are not lent: the bytes are sent.
pub const PLACES_MAX: usize = 64;
pub const LENT_HEAD_BYTES: usize = 8;
pub const PLACE_BYTES: usize = 12;

/// What a frame says of memory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Lent {
    Nothing,
    Payload(Vec<Place>),
    Room(Vec<Place>),
    /// An answer's payload is in the room that its request lent.
    InRoom,
}

impl Lent {
    pub fn encode(&self, out: &mut Vec<u8>) {
        let (kind, places): (u32, &[Place]) = match self {
            Lent::Nothing => (0, &[]),
            Lent::Payload(places) => (1, places),
            Lent::Room(places) => (2, places),
            Lent::InRoom => (3, &[]),
        };
        out.extend_from_slice(&kind.to_le_bytes());
        out.extend_from_slice(&u32::try_from(places.len()).expect("few places").to_le_bytes());
        for Place { at, len } in places {
            out.extend_from_slice(&at.to_le_bytes());
            out.extend_from_slice(&len.to_le_bytes());
        }
    }

    /// How many places follow.
    pub fn count(mut head: &[u8]) -> Result<usize, FrameError> {
        head.advance(4);
        let count = usize::try_from(head.get_u32_le()).unwrap_or(usize::MAX);
        if count <= PLACES_MAX { Ok(count) } else { Err(FrameError::Lent { text: "too many places" }) }
    }

    /// What `head` and the places that follow it say, in a frame with `payload_bytes`.
    pub fn decode(mut head: &[u8], mut rest: &[u8], payload_bytes: u32) -> Result<Lent, FrameError> {
        let wrong = |text| Err(FrameError::Lent { text });
        let mut places = Vec::with_capacity(rest.len() / PLACE_BYTES);
        while rest.len() >= PLACE_BYTES {
            places.push(Place { at: rest.get_u64_le(), len: rest.get_u32_le() });
        }
        let bytes: u64 = places.iter().map(|place| u64::from(place.len)).sum();
        match (head.get_u32_le(), places.is_empty()) {
            (0, true) => Ok(Lent::Nothing),
            (1, false) if bytes == u64::from(payload_bytes) => Ok(Lent::Payload(places)),
            (1, false) => wrong("the places are not as long as the payload"),
            (2, false) if payload_bytes == 0 => Ok(Lent::Room(places)),
            (3, true) => Ok(Lent::InRoom),
            _ => wrong("nothing that could be lent"),
        }
    }

    /// The payload is elsewhere than in the frame.
    pub fn has_payload(&self) -> bool {
        matches!(self, Lent::Payload(_) | Lent::InRoom)
    }
}

/// What goes with a request beside its body.
#[derive(Clone, Copy, Default)]
pub struct Load<'a> {
    pub payload: &'a [Bytes],
    /// Where the answer's payload may go. If the server does not have that memory, the payload comes as it always does.
    pub room: Option<&'a AnswerRoom>,
}

impl<'a> From<&'a [Bytes]> for Load<'a> {
    fn from(payload: &'a [Bytes]) -> Load<'a> {
        Load { payload, room: None }
    }
}

impl<'a, const N: usize> From<&'a [Bytes; N]> for Load<'a> {
    fn from(payload: &'a [Bytes; N]) -> Load<'a> {
        Load { payload, room: None }
    }
}

impl<'a> From<&'a Vec<Bytes>> for Load<'a> {
    fn from(payload: &'a Vec<Bytes>) -> Load<'a> {
        Load { payload, room: None }
    }
}

/// Room for the payload of one answer.
pub struct AnswerRoom {
    room: Arc<Room>,
    places: Vec<Place>,
    /// How many bytes came.
    filled: AtomicU64,
}

/// None came this way.
const NOT_FILLED: u64 = u64::MAX;

impl AnswerRoom {
    /// The parts of `room` that the answer goes to, in its order; `None`: they are too many.
    pub fn new(room: &Arc<Room>, parts: impl ExactSizeIterator<Item = Range<usize>>) -> Option<AnswerRoom> {
        if parts.len() == 0 || parts.len() > PLACES_MAX {
            return None;
        }
        let places = parts.map(|part| room.place(part)).collect();
        Some(AnswerRoom { room: Arc::clone(room), places, filled: AtomicU64::new(NOT_FILLED) })
    }

    pub(crate) fn lend(&self) -> (Lent, Kept) {
        self.filled.store(NOT_FILLED, Ordering::Relaxed);
        (Lent::Room(self.places.clone()), Kept::Room(Arc::clone(&self.room)))
    }

    pub(crate) fn is_filled(&self, bytes: u32) {
        self.filled.store(bytes.into(), Ordering::Relaxed);
    }

    /// How many bytes of the answer are in the room; `None`: its payload came along with it.
    pub fn filled(&self) -> Option<u64> {
        Some(self.filled.load(Ordering::Relaxed)).filter(|filled| *filled != NOT_FILLED)
    }
}

/// Keeps memory from being used otherwise.
#[expect(dead_code, reason = "held, not read")]
pub enum Kept {
    Nothing,
    Payload(Vec<Bytes>),
    Room(Arc<Room>),
}

/// What was lent to a server over connections that broke, until it has welcomed the next one.
#[derive(Clone, Default)]
pub struct Limbo(Arc<Mutex<Vec<Kept>>>);

impl Limbo {
    pub fn add(&self, kept: impl IntoIterator<Item = Kept>) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(kept.into_iter().filter(|kept| !matches!(kept, Kept::Nothing)));
    }

    /// The server has ended whatever it did for earlier connections.
    pub fn clear(&self) {
        // Freed outside of the lock.
        drop(std::mem::take(&mut *self.0.lock().unwrap_or_else(PoisonError::into_inner)));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decoded(bytes: &[u8], payload_bytes: u32) -> Result<Lent, FrameError> {
        let (head, rest) = bytes.split_at(LENT_HEAD_BYTES);
        assert_eq!(Lent::count(head)? * PLACE_BYTES, rest.len());
        Lent::decode(head, rest, payload_bytes)
    }

    #[test]
    fn what_is_lent_survives_the_way_there_and_back() {
        let places = vec![Place { at: 1 << 33, len: 70_000 }, Place { at: 5, len: 1 }];
        for (lent, payload_bytes) in [
            (Lent::Nothing, 0),
            (Lent::Nothing, 100),
            (Lent::Payload(places.clone()), 70_001),
            (Lent::Room(places), 0),
            (Lent::InRoom, 70_001),
        ] {
            let mut bytes = Vec::new();
            lent.encode(&mut bytes);
            assert_eq!(decoded(&bytes, payload_bytes), Ok(lent));
        }
    }

    #[test]
    fn golden_bytes() {
        let mut bytes = Vec::new();
        Lent::Room(vec![Place { at: 0x0102_0304_0506_0708, len: 0x1112_1314 }]).encode(&mut bytes);
        assert_eq!(bytes, [2, 0, 0, 0, 1, 0, 0, 0, 8, 7, 6, 5, 4, 3, 2, 1, 0x14, 0x13, 0x12, 0x11]);
    }

    #[test]
    fn what_cannot_be_is_refused() {
        let one = |kind: u8, count: u8| {
            let mut bytes = vec![kind, 0, 0, 0, count, 0, 0, 0];
            bytes.extend(std::iter::repeat_n(1, usize::from(count) * PLACE_BYTES));
            bytes
        };
        assert!(decoded(&one(1, 1), 5).is_err(), "not as long as the payload");
        assert!(decoded(&one(1, 0), 0).is_err(), "no places");
        assert!(decoded(&one(2, 1), 1).is_err(), "a payload and room for the answer's");
        assert!(decoded(&one(2, 0), 0).is_err());
        assert!(decoded(&one(0, 1), 0).is_err() && decoded(&one(3, 1), 0).is_err(), "places of nothing");
        assert!(decoded(&one(4, 1), 0).is_err());
        assert!(Lent::count(&[1, 0, 0, 0, 65, 0, 0, 0]).is_err());
        assert!(Lent::count(&[1, 0, 0, 0, 255, 255, 255, 255]).is_err());
    }
}
