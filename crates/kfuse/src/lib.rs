//! Sessions with the kernel's FUSE: its requests read and decoded, each at work beside the others, answered once.
//!
//! Owns the kernel's ABI ([`abi`]), the handshake, interrupts, notifications, and going on with a session that another
//! process began. Knows no file system: what a request means is for [`Serve`] to say.
//!
//! The ways of a request: a reading thread takes it off the device into a pooled buffer, decodes it, notes it, and polls its
//! work for the first time right there. What has to wait is moved to the runtime when it is woken. The answer goes out
//! from whatever thread has it, by one `writev`.

pub mod abi;
mod buffer;
mod device;
mod inflight;
mod job;
mod notify;
mod request;
mod ring;
mod session;
mod signals;
mod way;

pub use buffer::{Heap, Memory, Room};
pub use inflight::Reply;
pub use notify::{Notifier, Waiting};
pub use request::{Init, Lock, Malformed, Name, Op, Request, decode, encode};
pub use session::{Agreed, Control, INTERRUPT_GRACE, Serve, Session, Wanted};
