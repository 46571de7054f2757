//! Every operation that changes something × everything a network or a killed daemon can do to one message: the same
//! answer and the same tree as without the fault. Real daemons, real clients, a proxy between them.
//!
//! [`cases::of`] matches every operation of the wire without a wildcard: a new operation does not compile until its
//! cases, or why it has none, stand there.

mod cases;
mod data;
mod fault;
mod locks;
mod names;
mod quotas;
mod sessions;
mod tree;
mod world;
mod xattrs;

use cases::{Asked, Case, of};
use fault::Fault;
use pvfs_wire::Op;
use world::World;

/// Runs all cells of `asked`, each beside a run of its case without a fault.
#[track_caller]
fn run_all(asked: Asked) {
    let mut world = World::start();
    let (mut cells, mut wrong) = (0, Vec::new());
    for &op in Op::ALL {
        for case in of(op).iter().filter(|case| case.asked == asked) {
            let expected = world.run(op, case, Fault::None);
            assert!(!expected.is_empty(), "{}: a case that shows nothing proves nothing", case.name);
            for fault in Fault::ALL.into_iter().filter(|fault| fault.applies(op, case)) {
                let found = world.run(op, case, fault);
                cells += 1;
                if found != expected {
                    wrong.push(format!(
                        "{} × {fault:?}:\n--- without the fault\n{expected}\n--- with it\n{found}",
                        case.name
                    ));
                }
            }
        }
    }
    println!("{cells} cells");
    assert!(wrong.is_empty(), "{} of {cells} cells differ:\n{}", wrong.len(), wrong.join("\n"));
    world.end();
}

#[test]
fn every_change_at_the_mgr_is_made_exactly_once_whatever_befalls_its_messages() {
    run_all(Asked::Mgr);
}

#[test]
fn every_change_at_an_iod_has_its_effect_once_whatever_befalls_its_messages() {
    run_all(Asked::Iod);
}

#[test]
fn every_operation_that_changes_something_has_a_case() {
    // What `cases::of` leaves without one is named here too, so that nobody gives up an operation's cases unseen.
    let without: Vec<&str> = Op::ALL.iter().filter(|op| of(**op).is_empty()).map(|op| op.name()).collect();
    let harmless = [
        "hello",
        "prove",
        "ping",
        "status",
        "get_targets",
        "lookup",
        "getattr",
        "readlink",
        "readdir",
        "statfs",
        "access",
        "getxattr",
        "listxattr",
        "get_quotas",
        "read_inline",
        "list_writes",
        "test_lock",
        "await_locks",
        "await_recalls",
        "recalled",
        "hold_delegations",
        "stat_objects",
        "commit",
        "find_data",
        "open_object",
        "list_objects",
        "check_store",
        "list_files",
        "judge_objects",
        "repair",
        "heartbeat",
    ];
    assert_eq!(without, harmless);
}

/// What a case's name shows in a failure.
impl std::fmt::Debug for Case {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.name)
    }
}
