//! May this request do this? Decides by the capability and lease it shows and by the mgr's time alone. Pure.

use pvfs_types::{ObjectOffset, Slot};
use pvfs_wire::{Access, MacKey, Refusal, Status, cap::Grant, msg::data::Pass};

/// Whether `pass` allows `wanted` on these slots of its file at mgr time `now_ms`.
///
/// # Errors
/// `CapabilityForged` no mgr of this cluster signed it, or the lease is another session's; `NotNow` the mgr's time is
/// not known; `LeaseExpired` the lease has ended; `CapabilityRights` it does not allow `wanted`; `BadRequest` the file
/// has no such slot.
pub fn check(
    pass: &Pass,
    key: &MacKey,
    now_ms: Option<u64>,
    wanted: Access,
    slots: &[Slot],
) -> Result<(), Refusal> {
    let refuse = |status, text: String| Err(Refusal::new(status, text));
    let (capability, lease) = (&pass.capability, &pass.lease);
    let grant = &capability.grant;
    if !capability.is_genuine(key) {
        return refuse(
            Status::CapabilityForged,
            "the capability was not signed by this cluster's mgr".into(),
        );
    }
    if !lease.is_genuine(key) {
        return refuse(Status::CapabilityForged, "the lease was not signed by this cluster's mgr".into());
    }
    if lease.session != grant.session {
        let text = format!("the capability is of {}, the lease of {}", grant.session, lease.session);
        return refuse(Status::CapabilityForged, text);
    }
    let Some(now_ms) = now_ms else {
        return refuse(
            Status::NotNow,
            "this machine stopped without warning and the iod waits for a mgr to tell the time".into(),
        );
    };
    if lease.until_ms <= now_ms {
        let text = format!("the lease ended {} ms ago", now_ms - lease.until_ms);
        return refuse(Status::LeaseExpired, text);
    }
    if !grant.access.covers(wanted) {
        let text = format!("the capability allows {:?}, wanted is {wanted:?}", grant.access);
        return refuse(Status::CapabilityRights, text);
    }
    if grant.dist.pcount == 0 || grant.dist.ssize == 0 {
        return refuse(Status::BadRequest, "the capability's distribution is void".into());
    }
    match slots.iter().find(|slot| slot.0 >= grant.dist.pcount) {
        Some(slot) => {
            let text = format!("the file has {} slots, {slot} is none of them", grant.dist.pcount);
            refuse(Status::BadRequest, text)
        }
        None => Ok(()),
    }
}

/// Whether what is written up to `end` of the object in `slot` is within what the mgr allowed, and has allowed since limits
/// bind.
///
/// # Errors
/// `CapabilityOld` limits were set since; `CapabilityRights` it is past the end that is allowed.
pub fn may_reach(
    grant: &Grant,
    writes_since_ms: Option<u64>,
    slot: Slot,
    end: ObjectOffset,
) -> Result<(), Refusal> {
    if writes_since_ms.is_some_and(|since_ms| grant.granted_ms.unwrap_or(0) <= since_ms) {
        let text = "a limit was set since the mgr granted this, and may bind the file";
        return Err(Refusal::new(Status::CapabilityOld, text));
    }
    match grant.size_max {
        Some(size_max) if end.0 > grant.dist.object_len(slot, size_max) => {
            let text = format!("the mgr allowed writing up to {size_max}, this is past it");
            Err(Refusal::new(Status::CapabilityRights, text))
        }
        _ => Ok(()),
    }
}

/// Whether a write under `grant` may make an object. What objects were removed is known to the process that removed them:
/// where the file may have lost this data generation before this process was told the mgr's time first, at
/// `first_told_ms`, it may not.
///
/// # Errors
/// `NotNow` no mgr was heard yet; `CapabilityOld` the grant is not younger than that.
pub fn may_make(grant: &Grant, first_told_ms: Option<u64>) -> Result<(), Refusal> {
    let Some(granted_ms) = grant.granted_ms else { return Ok(()) };
    let Some(first_told_ms) = first_told_ms else {
        let text = "the iod waits for a mgr, to make no object that was removed before it started";
        return Err(Refusal::new(Status::NotNow, text));
    };
    if granted_ms <= first_told_ms {
        let text = "the object is not there, and may have been removed before this iod started";
        return Err(Refusal::new(Status::CapabilityOld, text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use pvfs_types::{DataGen, Distribution, Ino, IodtabGen, SessionId};
    use pvfs_wire::{Capability, Lease, cap::Grant};

    const NOW: u64 = 5_000;

    fn key() -> MacKey {
        MacKey::from_daemon_secret(&[1; 32])
    }

    fn grant(access: Access) -> Grant {
        Grant {
            session: SessionId(3),
            ino: Ino(7),
            data_gen: DataGen(1),
            dist: Distribution { iodtab: IodtabGen(1), base: 0, pcount: 4, ssize: 65536 },
            access,
            granted_ms: Some(NOW),
            size_max: None,
        }
    }

    fn pass(access: Access) -> Pass {
        Pass {
            capability: Capability::sign(grant(access), &key()),
            lease: Lease::sign(SessionId(3), NOW + 1, &key()),
            store: None,
        }
    }

    #[track_caller]
    fn check_status(pass: &Pass, wanted: Access, slot: u16, expect: Option<Status>) {
        let answer = check(pass, &key(), Some(NOW), wanted, &[Slot(slot)]);
        assert_eq!(answer.err().map(|refusal| refusal.status), expect);
    }

    #[test]
    fn a_good_pass_is_taken() {
        check_status(&pass(Access::READ_WRITE), Access::WRITE, 3, None);
        check_status(&pass(Access::READ), Access::READ, 0, None);
    }

    #[test]
    fn a_capability_changed_to_another_file_is_forged() {
        let mut forged = pass(Access::READ);
        forged.capability.grant.ino = Ino(8);
        check_status(&forged, Access::READ, 0, Some(Status::CapabilityForged));
    }

    #[test]
    fn a_capability_of_another_cluster_is_forged() {
        let mut foreign = pass(Access::READ);
        let other_key = MacKey::from_daemon_secret(&[2; 32]);
        foreign.capability = Capability::sign(grant(Access::READ), &other_key);
        check_status(&foreign, Access::READ, 0, Some(Status::CapabilityForged));
    }

    #[test]
    fn a_lease_of_another_session_or_prolonged_by_hand_is_forged() {
        let mut borrowed = pass(Access::READ);
        borrowed.lease = Lease::sign(SessionId(4), NOW + 1, &key());
        check_status(&borrowed, Access::READ, 0, Some(Status::CapabilityForged));
        let mut prolonged = pass(Access::READ);
        prolonged.lease.until_ms += 1000;
        check_status(&prolonged, Access::READ, 0, Some(Status::CapabilityForged));
    }

    #[test]
    fn a_lease_ends_in_the_mgr_s_time() {
        let good = pass(Access::READ);
        let at = |now_ms| check(&good, &key(), now_ms, Access::READ, &[Slot(0)]).map_err(|r| r.status);
        assert_eq!(at(Some(NOW)), Ok(()));
        assert_eq!(at(Some(NOW + 1)), Err(Status::LeaseExpired));
        assert_eq!(at(None), Err(Status::NotNow), "nobody told the time since the machine died");
    }

    #[test]
    fn a_read_only_capability_does_not_write() {
        check_status(&pass(Access::READ), Access::WRITE, 0, Some(Status::CapabilityRights));
        check_status(&pass(Access::WRITE), Access::READ, 0, Some(Status::CapabilityRights));
    }

    #[test]
    fn only_what_was_granted_since_the_iod_heard_a_mgr_makes_objects() {
        let may_make = |granted_ms, told_ms| {
            may_make(&Grant { granted_ms, ..grant(Access::WRITE) }, told_ms).map_err(|refusal| refusal.status)
        };
        assert_eq!(may_make(Some(NOW), Some(NOW - 1)), Ok(()));
        assert_eq!(may_make(Some(NOW), Some(NOW)), Err(Status::CapabilityOld), "maybe before it");
        assert_eq!(may_make(Some(NOW), None), Err(Status::NotNow));
        assert_eq!(may_make(None, Some(NOW)), Ok(()), "a mgr that does not say");
    }

    #[test]
    fn nothing_is_written_past_what_was_allowed_or_under_what_was_granted_before_a_limit() {
        let check = |size_max, since_ms, slot, end| {
            let grant = Grant { size_max, ..grant(Access::WRITE) };
            may_reach(&grant, since_ms, Slot(slot), ObjectOffset(end)).map_err(|refusal| refusal.status)
        };
        assert_eq!(check(None, None, 0, u64::MAX), Ok(()));
        let size_max = Some(65536 + 100);
        assert_eq!(check(size_max, None, 0, 65536), Ok(()));
        assert_eq!(check(size_max, None, 0, 65537), Err(Status::CapabilityRights));
        assert_eq!(check(size_max, None, 1, 100), Ok(()));
        assert_eq!(check(size_max, None, 1, 101), Err(Status::CapabilityRights));
        assert_eq!(check(size_max, None, 2, 1), Err(Status::CapabilityRights));
        assert_eq!(check(None, Some(NOW - 1), 0, 1), Ok(()));
        assert_eq!(check(None, Some(NOW), 0, 1), Err(Status::CapabilityOld));
    }

    #[test]
    fn a_slot_past_pcount_is_refused() {
        check_status(&pass(Access::READ), Access::READ, 4, Some(Status::BadRequest));
    }

    #[test]
    fn a_signed_distribution_that_is_void_does_not_divide_by_zero() {
        for (pcount, ssize) in [(0, 4096), (1, 0)] {
            let mut void = grant(Access::READ);
            (void.dist.pcount, void.dist.ssize) = (pcount, ssize);
            let capability = Capability::sign(void, &key());
            let pass = Pass { capability, ..pass(Access::READ) };
            check_status(&pass, Access::READ, 0, Some(Status::BadRequest));
        }
    }
}
