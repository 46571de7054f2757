//! What a refusal means for the request that got it. Pure.

use pvfs_wire::Status;

/// What to do before the request is sent again, if it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Action {
    /// Open a new session.
    NewSession,
    /// Have the lease renewed by a keep-alive.
    RenewLease,
    /// Open the file again for a fresh capability.
    FreshCapability,
    /// Ask the mgr where the target is.
    RefreshTargets,
    /// Send again first what is held for the target.
    SendAgain { generation: u64 },
    /// Wait a little.
    Later,
    /// Nothing helps: the caller gets the refusal.
    GiveUp,
}

/// How often a capability fetched for this very request may be refused, before it is clear that fetching does not help
/// (the mgr signs with another key than the iod checks with, say).
const FRESH_CAPABILITIES_MAX: u32 = 4;

/// What one request went through.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Tries {
    fresh_capabilities: u32,
    /// Refusals in a row that only waiting can mend.
    pub waits: u32,
}

impl Tries {
    /// Decides on a refusal with `status`.
    pub fn refused(&mut self, status: Status) -> Action {
        match status {
            Status::SessionUnknown => Action::NewSession,
            Status::LeaseExpired => {
                self.waits += 1;
                Action::RenewLease
            }
            Status::CapabilityForged | Status::CapabilityRights => {
                self.fresh_capabilities += 1;
                if self.fresh_capabilities > FRESH_CAPABILITIES_MAX {
                    Action::GiveUp
                } else {
                    Action::FreshCapability
                }
            }
            Status::CapabilityOld => {
                self.waits += 1;
                Action::FreshCapability
            }
            Status::WrongTarget => {
                self.waits += 1;
                Action::RefreshTargets
            }
            Status::NotNow | Status::PayloadDamaged => {
                self.waits += 1;
                Action::Later
            }
            Status::StoreRaised(generation) => Action::SendAgain { generation },
            Status::Errno(_)
            | Status::SlotStale
            | Status::BadRequest
            | Status::UnknownOp
            | Status::Version
            | Status::WrongFs
            | Status::Unauthorized => Action::GiveUp,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::Errno;

    #[test]
    fn what_the_file_system_answers_goes_to_the_caller() {
        assert_eq!(Tries::default().refused(Status::Errno(Errno::ENOSPC)), Action::GiveUp);
    }

    #[test]
    fn each_refusal_that_can_be_mended_is() {
        let check = |status, action| assert_eq!(Tries::default().refused(status), action);
        check(Status::SessionUnknown, Action::NewSession);
        check(Status::LeaseExpired, Action::RenewLease);
        check(Status::CapabilityForged, Action::FreshCapability);
        check(Status::CapabilityRights, Action::FreshCapability);
        check(Status::CapabilityOld, Action::FreshCapability);
        check(Status::WrongTarget, Action::RefreshTargets);
        check(Status::NotNow, Action::Later);
        check(Status::PayloadDamaged, Action::Later);
        check(Status::StoreRaised(7), Action::SendAgain { generation: 7 });
    }

    #[test]
    fn a_lease_is_renewed_however_often_it_runs_out() {
        let mut tries = Tries::default();
        for _ in 0..10_000 {
            assert_eq!(tries.refused(Status::LeaseExpired), Action::RenewLease);
        }
    }

    #[test]
    fn capabilities_that_are_refused_freshly_signed_are_an_error_in_the_end() {
        let mut tries = Tries::default();
        let actions: Vec<Action> = (0..5).map(|_| tries.refused(Status::CapabilityForged)).collect();
        assert_eq!(actions[..4], [Action::FreshCapability; 4]);
        assert_eq!(actions[4], Action::GiveUp);
    }

    #[test]
    fn what_makes_no_sense_is_not_sent_again() {
        for status in [Status::BadRequest, Status::UnknownOp, Status::SlotStale, Status::Unauthorized] {
            assert_eq!(Tries::default().refused(status), Action::GiveUp);
        }
    }
}
