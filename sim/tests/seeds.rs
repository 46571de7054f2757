//! Seeds that have found something, each under the promise that was broken. What a seed does changes with the programs
//! and faults of the simulator; the fault itself is mended, and has a test of its own where it can have one.
#![cfg(tokio_unstable)] // see `docs/simulator.md`

#[track_caller]
fn keeps_its_promises(seed: u64) {
    let report = pvfs_sim::run(seed, false);
    assert!(report.failures.is_empty(), "cargo xtask sim --seed {seed}\n{report:#?}");
    assert!(report.ops > 0, "seed {seed} does nothing");
}

/// The mgr's store refused the report of a close, and the client forgot what it alone knew.
#[test]
fn a_close_that_the_store_refuses_leaves_the_true_size() {
    [155, 178, 193].into_iter().for_each(keeps_its_promises);
}

/// A close beside a report under way took it for told; it then failed.
#[test]
fn a_close_beside_a_report_that_fails_leaves_the_true_size() {
    [230, 1275, 1405].into_iter().for_each(keeps_its_promises);
}

/// An fsync went by what its own client knew of the size.
#[test]
fn an_fsync_reaches_what_other_clients_wrote() {
    keeps_its_promises(90);
}

/// A generation that the disk did not take was told to the mgr; the next process fell behind it, and was refused for good.
#[test]
fn a_target_whose_raised_generation_was_not_written_comes_back() {
    [2369, 2390].into_iter().for_each(keeps_its_promises);
}

/// The store refuses the last step of a truncation, which is carried out all the same; the client that asked went on with
/// the old size, and read zeros past the end.
#[test]
fn a_truncation_that_errs_leaves_no_old_size() {
    keeps_its_promises(725);
}

/// The same of a create that truncates a file which the client has open already.
#[test]
fn a_create_that_errs_leaves_no_old_size() {
    keeps_its_promises(49_418);
}

/// A write failed at one of its targets, and had made the file longer at another; the client that wrote read nothing there.
#[test]
fn a_write_that_failed_in_part_leaves_no_old_size() {
    [10_176, 16_798].into_iter().for_each(keeps_its_promises);
}

/// A client synced what another one had written, and wrote over it; after a loss the other one sent its bytes again.
#[test]
fn what_one_client_writes_after_its_sync_is_not_written_over_by_what_another_wrote_before() {
    keeps_its_promises(11_052);
}

/// The sync of a cut failed, and the cut was not made again: the disk had the old length, and it came back with the power.
#[test]
fn a_cut_whose_sync_failed_is_made_again() {
    [15_943, 16_062, 18_518].into_iter().for_each(keeps_its_promises);
}

/// A client did not know yet that the mgr had given its file new objects; after a loss it sent bytes of the old one again, to an
/// iod that had been started since it removed that.
#[test]
fn bytes_sent_again_make_no_object_that_nobody_removes() {
    keeps_its_promises(23_388);
}

/// A mgr died while its cut was on its way; the next one had it made, bytes were written past it, and then the first one landed.
#[test]
fn a_dead_mgrs_cut_does_not_land_on_what_was_written_since() {
    keeps_its_promises(30_803);
}

/// A full disk did not take the raised generation, and the iod died: the next process called synced what was lost.
#[test]
fn a_raised_generation_that_the_disk_did_not_take_is_known_to_the_next_process() {
    keeps_its_promises(36_294);
}

/// A dead iod's heartbeat came late, behind its successor's, to a mgr that had not heard of it before: two iods in turn, it
/// seemed, and the target was refused for good.
#[test]
fn a_late_heartbeat_gets_no_target_refused() {
    keeps_its_promises(57134);
}

/// A write was in flight over the removal of its object and the iod's restart, and made the object anew, for nobody to remove. Or
/// an unlinked file was opened again, to send bytes again, by a client that had checked in without it.
#[test]
fn a_write_that_was_under_way_leaves_no_object_behind() {
    [57801, 4327, 8007].into_iter().for_each(keeps_its_promises);
}

/// The store refused a close's report while an open of the same client told of a truncation: what had been written past the cut
/// was taken for told.
#[test]
fn a_refused_report_hides_no_bytes() {
    keeps_its_promises(5295);
}

/// Its writer was dead when a sync failed; the next sync succeeded, without what the first one could not write.
#[test]
fn a_sync_after_one_that_failed_leaves_nothing_out() {
    keeps_its_promises(13_874);
}

/// The same, and its writer was an iod's process that had been killed, too: the next one did not know what that had written.
#[test]
fn a_sync_after_one_that_failed_leaves_nothing_out_of_a_dead_process() {
    keeps_its_promises(41_831);
}

/// A sync failed, and the iod was killed before it could take note of that; the kernel had told it once, and the next process's sync
/// succeeded.
#[test]
fn a_failed_sync_of_which_nobody_took_note_loses_nothing() {
    keeps_its_promises(28_564);
}

/// A dead client had asked to be told of recalls: its question, and the connection, stayed with the mgr.
#[test]
fn a_dead_clients_question_for_recalls_does_not_stay() {
    [1_000_548, 1_003_060].into_iter().for_each(keeps_its_promises);
}

/// Not the file system: the programs' own waits for dead clients, together with those for leases, passed the bound of a single call.
#[test]
fn every_call_ends_though_all_of_a_programs_calls_together_take_long() {
    [1_001_309, 1_003_084].into_iter().for_each(keeps_its_promises);
}

/// An append's lock whose release the store did not take stood until its holder appended to that file again, and others waited.
#[test]
fn an_append_lock_whose_release_failed_is_given_up_later() {
    keeps_its_promises(1_002_014);
}

/// A dead client had asked to be told of granted locks: its question, and the connection, stayed with the mgr.
#[test]
fn a_dead_clients_question_for_locks_does_not_stay() {
    keeps_its_promises(220);
}

/// A dead client's question was answered in the moment in which its lease ran out, and that counted as a sign of life; when the
/// lease had run out once more, nobody was told.
#[test]
fn a_session_that_runs_out_while_none_is_alive_is_noticed() {
    keeps_its_promises(25_174);
}

/// A truncation by another client went to the targets before the bytes that the file's maker had gathered, which came behind it.
#[test]
fn what_was_gathered_before_a_truncation_by_others_is_cut() {
    keeps_its_promises(2_000_066);
}

/// The same of a truncation by the client itself, by another handle.
#[test]
fn what_was_gathered_before_an_own_truncation_is_cut() {
    keeps_its_promises(2_000_147);
}

/// An iod's sync failed, the disk did not take the new generation, and it was killed: the next process synced with success what a
/// dead client had written, for the kernel took it for written.
#[test]
fn a_sync_after_one_that_failed_under_a_dead_process_makes_durable_what_a_dead_client_wrote() {
    keeps_its_promises(50_113);
}

/// A reader knew a file's end from a target, which then lost it with its writer; a sync of the reader's called it durable.
#[test]
fn a_sync_forgets_ends_that_targets_may_have_lost() {
    keeps_its_promises(55_798);
}

/// A keep-alive's claim came when its session had just ended: nobody was left to give it up, and the file stayed.
#[test]
fn a_claim_that_comes_after_its_sessions_end_keeps_nothing() {
    keeps_its_promises(82_238);
}

/// A client process closed a file while the mgr's store took no report of its size, and was killed: the next one in its seat, whose
/// session still counted as the file's writer, told the size before.
#[test]
fn a_close_that_the_mgr_could_not_store_is_made_up_for_by_the_next_process() {
    keeps_its_promises(3_000_121);
}

/// The mgr's answer to a client's report counted as all there is to know of a file that another one was writing: a read went by the
/// end that the mgr knew.
#[test]
fn the_mgrs_word_alone_is_not_the_end_of_a_file_that_others_write() {
    keeps_its_promises(65_760);
}
