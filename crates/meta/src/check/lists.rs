//! Everything beside the names: sessions, writers, orphans, garbage, intents, targets.

use super::{
    Findings,
    content::{Content, LockPlace},
};
use pvfs_types::{FileKind, Ino, SessionId};
use std::collections::BTreeSet;

pub(super) fn check(content: &Content, findings: &mut Findings) {
    sessions(content, findings);
    writers(content, findings);
    orphans(content, findings);
    objects(content, findings);
    targets(content, findings);
    locks(content, findings);
}

fn sessions(content: &Content, findings: &mut Findings) {
    for (id, session) in &content.sessions {
        let stands = content.clients.get(&session.client) == Some(id);
        findings.expect(stands, id, "its client does not lead back to it");
        findings.expect(id.0 <= content.last_session, id, "has a number not dealt out yet");
    }
    for id in content.clients.values() {
        findings.expect(content.sessions.contains_key(id), id, "a client leads to it, it is gone");
    }
    for id in &content.reply_sessions {
        findings.expect(content.sessions.contains_key(id), id, "has replies, it is gone");
    }
}

/// Both indexes hold the same pairs. (Of writers whose session is gone, too: they are to be settled.)
fn pairs(
    what: &str,
    by_ino: &BTreeSet<(Ino, SessionId)>,
    by_session: &BTreeSet<(Ino, SessionId)>,
    findings: &mut Findings,
) {
    for (ino, session) in by_ino.symmetric_difference(by_session) {
        findings.add(format!("inode {ino}, {session}"), format!("a {what} in one index only"));
    }
}

fn writers(content: &Content, findings: &mut Findings) {
    pairs("writer", &content.writers, &content.session_writers, findings);
    for (ino, session) in &content.writers {
        let is_file = content.inodes.get(ino).is_some_and(|inode| inode.kind == FileKind::File);
        findings.expect(is_file, format!("inode {ino}, {session}"), "a writer of what is no file");
        let dealt = session.0 <= content.last_session;
        findings.expect(dealt, format!("inode {ino}, {session}"), "a writer's session was never opened");
    }
}

fn orphans(content: &Content, findings: &mut Findings) {
    for (&seq, ino) in &content.orphans {
        let about = format!("orphan {seq}");
        let place = content.inodes.get(ino).and_then(|inode| inode.orphan_seq);
        findings.expect(place == Some(seq), &about, format!("inode {ino} does not lead back to it"));
        findings.expect(seq <= content.last_orphan, &about, "has a number not dealt out yet");
    }
    for inode in content.inodes.values() {
        if let Some(seq) = inode.orphan_seq {
            let listed = content.orphans.get(&seq) == Some(&inode.ino);
            findings.expect(listed, format!("inode {}", inode.ino), "an orphan that is not listed");
        }
    }
    pairs("claim", &content.claims, &content.session_claims, findings);
    for (ino, session) in &content.claims {
        let about = format!("inode {ino}, {session}");
        let is_orphan = content.inodes.get(ino).is_some_and(|inode| inode.orphan_seq.is_some());
        findings.expect(is_orphan, &about, "a claim on what is no orphan");
        findings.expect(content.sessions.contains_key(session), &about, "a claim of a session that is gone");
    }
}

/// No object that a file has is garbage; no intent is about a file that has changed since.
fn objects(content: &Content, findings: &mut Findings) {
    for (target, object) in &content.garbage {
        let about = format!("object {object} on {target}");
        findings.expect(content.targets.contains_key(target), &about, "there is no such target");
        let live = content.inodes.get(&object.ino).is_some_and(|inode| inode.data_gen == object.data_gen);
        findings.expect(!live, &about, "is garbage, and a file has it");
    }
    for intent in &content.intents {
        let inode = content.inodes.get(&intent.ino);
        let fits = inode.is_some_and(|i| i.data_gen == intent.data_gen && i.dist == Some(intent.dist));
        findings.expect(fits, format!("intent on inode {}", intent.ino), "its file is not as it says");
    }
}

fn targets(content: &Content, findings: &mut Findings) {
    for (id, uuid) in &content.targets {
        findings.expect(content.target_uuids.get(uuid) == Some(id), id, "its identity leads elsewhere");
    }
    for (uuid, id) in &content.target_uuids {
        findings.expect(content.targets.get(id) == Some(uuid), uuid, "leads to another target");
    }
    for (generation, listed) in &content.iodtabs {
        let about = format!("iodtab {generation}");
        findings.expect(!listed.is_empty(), &about, "lists no targets");
        let known = listed.iter().all(|id| content.targets.contains_key(id));
        findings.expect(known, &about, "lists a target that never joined");
        let once: BTreeSet<_> = listed.iter().collect();
        findings.expect(once.len() == listed.len(), &about, "lists a target twice");
    }
}

/// Locks are of files that are there and of sessions that are or were; who waits is alive. Two that cannot stand beside
/// each other do not.
fn locks(content: &Content, findings: &mut Findings) {
    let about =
        |(ino, session, owner): &LockPlace| format!("inode {ino}, {session}, lock owner {:x}", owner.id);
    let mut listed: BTreeSet<LockPlace> = content.locks.keys().copied().collect();
    for (ino, number, wait) in &content.lock_waits {
        let place = (*ino, wait.session, wait.owner);
        listed.insert(place);
        findings.expect(
            *number <= content.last_lock_wait,
            about(&place),
            "waits with a number not dealt out yet",
        );
        findings.expect(wait.range.start <= wait.range.end, about(&place), "waits for no range");
        findings.expect(
            content.sessions.contains_key(&wait.session),
            about(&place),
            "waits, its session is gone",
        );
    }
    for place in listed.symmetric_difference(&content.session_locks) {
        findings.add(about(place), "a lock in one index only");
    }
    for place in &listed {
        let is_file = content.inodes.get(&place.0).is_some_and(|inode| inode.kind == FileKind::File);
        findings.expect(is_file, about(place), "a lock of what is no file");
        findings.expect(place.1.0 <= content.last_session, about(place), "a lock's session was never opened");
    }
    for (place, held) in &content.locks {
        let whole = held.ranges.is_well_formed() && !held.ranges.is_empty();
        findings.expect(whole, about(place), "locked ranges that do not fit each other");
        let of_file = content.locks.range((place.0, SessionId(0), pvfs_types::LockOwner::FIRST)..);
        let others = of_file.take_while(|(other, _)| other.0 == place.0);
        let rivals = others.filter(|(other, _)| *other > place && other.2.kind == place.2.kind);
        for (other, rival) in rivals {
            let conflict = held
                .ranges
                .ranges()
                .iter()
                .any(|range| rival.ranges.conflict(range.start, range.end, range.mode).is_some());
            findings.expect(!conflict, about(place), format!("holds what {} holds too", about(other)));
        }
    }
}
