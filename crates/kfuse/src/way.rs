//! The way by which a request came, and its answer goes.

use crate::{
    device::Device,
    ring::{Held, Queue},
};
use std::{io, sync::Arc};

/// Where the answer of one request goes.
pub(crate) enum Way {
    Device(Arc<Device>),
    /// The entry that the request lies in.
    Ring(Arc<Queue>, Held),
}

impl Way {
    /// Answers the request `unique`, which came by it: with `parts`, one after the other, or the (positive) `errno`.
    ///
    /// # Errors
    /// `ENOENT`: nobody waits for it any more. (Of a ring's that is not heard.)
    pub fn answer(self, unique: u64, answer: Result<&[&[u8]], i32>) -> io::Result<()> {
        match self {
            Way::Device(device) => device.answer(unique, answer),
            Way::Ring(queue, held) => {
                queue.answer(held, answer);
                Ok(())
            }
        }
    }

    pub fn is_ring(&self) -> bool {
        matches!(self, Way::Ring(..))
    }

    /// There is nothing to answer.
    pub fn release(self) {
        if let Way::Ring(queue, held) = self {
            queue.answer(held, Ok(&[]));
        }
    }
}
