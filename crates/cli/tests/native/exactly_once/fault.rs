//! What befalls a message, and when.

use super::cases::Case;
use pvfs_testkit::{Caught, Fate, Proxy, TestCluster, Way};
use pvfs_wire::Op;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    None,
    /// The request is lost with its connection.
    RequestLost,
    /// Half of the request arrives.
    RequestTorn,
    /// The reply is lost with its connection.
    ReplyLost,
    /// Half of the reply arrives.
    ReplyTorn,
    RequestDoubled,
    ReplyDoubled,
    /// The request stays in a connection that the daemon believes to be open; it arrives after it was sent again on a
    /// new one.
    DelayedPastReconnect,
    /// As before, but it arrives after the same client has undone it.
    DelayedPastOpposite,
    /// A copy arrives on the live connection after the same client has undone it.
    CopyPastOpposite,
    /// The request's payload is damaged.
    RequestFlipped,
    /// The reply's payload is damaged.
    ReplyFlipped,
    /// The daemon is killed before the request arrives.
    KilledBefore,
    /// The daemon is killed with the request in its hands.
    KilledMeanwhile,
    /// The daemon is killed when the change is made and the reply on its way.
    KilledAfter,
}

impl Fault {
    pub const ALL: [Fault; 14] = [
        Fault::RequestLost,
        Fault::RequestTorn,
        Fault::ReplyLost,
        Fault::ReplyTorn,
        Fault::RequestDoubled,
        Fault::ReplyDoubled,
        Fault::DelayedPastReconnect,
        Fault::DelayedPastOpposite,
        Fault::CopyPastOpposite,
        Fault::RequestFlipped,
        Fault::ReplyFlipped,
        Fault::KilledBefore,
        Fault::KilledMeanwhile,
        Fault::KilledAfter,
    ];

    /// Left out: damage where there is no payload, and copies on a live connection of what is fenced by connections
    /// (a newer one ends the older) and not by slots: TCP itself doubles nothing.
    pub fn applies(self, op: Op, case: &Case) -> bool {
        match self {
            Fault::RequestFlipped => op == Op::Write,
            Fault::ReplyFlipped => op == Op::Read,
            Fault::CopyPastOpposite => case.in_slot,
            _ => true,
        }
    }

    /// Lays the trap.
    pub fn plan(self, proxy: &Proxy, op: Op) -> Option<Caught> {
        let (way, fate) = match self {
            Fault::None => return None,
            Fault::RequestLost => (Way::Request, Fate::Lose),
            Fault::RequestTorn => (Way::Request, Fate::Tear),
            Fault::ReplyLost => (Way::Reply, Fate::Lose),
            Fault::ReplyTorn => (Way::Reply, Fate::Tear),
            Fault::RequestDoubled => (Way::Request, Fate::Double),
            Fault::ReplyDoubled => (Way::Reply, Fate::Double),
            Fault::RequestFlipped => (Way::Request, Fate::Flip),
            Fault::ReplyFlipped => (Way::Reply, Fate::Flip),
            Fault::DelayedPastReconnect | Fault::DelayedPastOpposite | Fault::KilledBefore => {
                (Way::Request, Fate::Hold)
            }
            Fault::CopyPastOpposite | Fault::KilledMeanwhile => (Way::Request, Fate::Pass),
            Fault::KilledAfter => (Way::Reply, Fate::Hold),
        };
        Some(proxy.plan(way, op, 1, fate))
    }

    /// What happens beside the message while the client waits for its answer.
    pub fn strike(self, cluster: &mut TestCluster, daemon: &str) {
        match self {
            Fault::DelayedPastReconnect | Fault::DelayedPastOpposite => cluster.proxy(daemon).cut_clients(),
            Fault::KilledBefore | Fault::KilledMeanwhile | Fault::KilledAfter => {
                cluster.kill9(daemon);
                cluster.restart(daemon);
            }
            _ => {}
        }
    }
}
