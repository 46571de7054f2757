//! The outside world as traits with their real versions: clock, disk, network, tasks; and the counters every daemon has.
//!
//! These traits are the seams where tests put faults in. Knows no messages and no formats.

pub mod clock;
pub mod disk;
pub mod memory;
pub mod metrics;
pub mod random;
pub mod task;
pub mod transport;

pub use clock::{Clock, SystemClock};
pub use metrics::{Counter, Gauge, Metrics};
pub use transport::{
    BoxFuture, HostTransport, Line, LineEnd, Listener, Memory, Stream, TcpTransport, Transport,
};
