//! Connections: hello and proofs, calls that are sent again until answered, the accept loop, bounds.
//!
//! Knows frames, not what a message means. A [`Peer`] is one server as its user sees it, whatever connections come
//! and go below; a [`Server`] hands each request to a [`Service`] with a [`Replier`] to answer it.

mod backoff;
mod connection;
mod counters;
mod error;
mod framing;
mod handshake;
mod lent;
mod peer;
mod server;

pub use backoff::Backoff;
pub use error::{CallError, NetError};
pub use handshake::Identity;
pub use lent::{AnswerRoom, Load};
pub use peer::{Dialer, Peer, ReadBody, Waiting, read, read_into};
pub use server::{Incoming, PeerInfo, Replier, Server, Service, Shared};
