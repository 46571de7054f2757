//! Which signals a thread that waits in a request was sent, as its `/proc/PID/status` shows them until it takes them.
//!
//! The kernel tells only that there was one, once for each request. Local disks end no call for a signal that a program
//! catches (a timer's, a child's), and programs rely on that.

/// The weightiest of what waits to be taken. Later ones weigh more.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Pending {
    /// Nothing that asks for an end: what is caught goes on after it, what stops the thread stops it later.
    Other,
    /// One that the program catches, and that is sent to have it end.
    Asking,
    /// One that ends the program whatever it does.
    Deadly,
}

const HUP: u32 = 1;
const INT: u32 = 2;
const QUIT: u32 = 3;
const KILL: u32 = 9;
const TERM: u32 = 15;
/// Without a handler they end nothing: SIGCHLD, SIGCONT, SIGSTOP, SIGTSTP, SIGTTIN, SIGTTOU, SIGURG, SIGWINCH.
const HARMLESS: [u32; 8] = [17, 18, 19, 20, 21, 22, 23, 28];

/// `None`: the thread cannot be seen, as it is gone, or in a pid namespace that is not this process's.
pub(crate) fn pending(thread: u32) -> Option<Pending> {
    judge(&std::fs::read_to_string(format!("/proc/{thread}/status")).ok()?)
}

fn judge(status: &str) -> Option<Pending> {
    let mask = |name: &str| {
        let value = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
        u64::from_str_radix(value.trim(), 16).ok()
    };
    let bits = |signals: &[u32]| signals.iter().fold(0_u64, |bits, signal| bits | 1 << (signal - 1));
    let sent = mask("SigPnd")? | mask("ShdPnd")?;
    let (taken, caught) = (sent & !mask("SigBlk")? & !mask("SigIgn")?, mask("SigCgt")?);
    Some(if sent & bits(&[KILL]) != 0 || taken & !caught & !bits(&HARMLESS) != 0 {
        Pending::Deadly
    } else if taken & caught & bits(&[HUP, INT, QUIT, TERM]) != 0 {
        Pending::Asking
    } else {
        Pending::Other
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check([own, shared, blocked, ignored, caught]: [u64; 5], pending: Pending) {
        let status = format!(
            "Name:\tx\nSigQ:\t1/2\nSigPnd:\t{own:016x}\nShdPnd:\t{shared:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\t{ignored:016x}\nSigCgt:\t{caught:016x}\nCapInh:\t0\n"
        );
        assert_eq!(judge(&status), Some(pending));
    }

    const ALRM: u64 = 1 << 13;
    const TERM: u64 = 1 << 14;
    const QUIT: u64 = 1 << 2;
    const KILL: u64 = 1 << 8;
    const CHLD: u64 = 1 << 16;
    const TSTP: u64 = 1 << 19;

    #[test]
    fn what_nobody_catches_is_deadly_unless_it_only_stops_or_is_let_pass() {
        check([KILL, 0, !0, 0, 0], Pending::Deadly);
        check([0, QUIT, 0, 0, ALRM], Pending::Deadly);
        check([ALRM, TERM, 0, 0, TERM], Pending::Deadly);
        check([CHLD, TSTP, 0, 0, 0], Pending::Other);
        check([0, TERM, TERM, 0, 0], Pending::Other);
        check([0, TERM, 0, TERM, 0], Pending::Other);
        check([0; 5], Pending::Other);
    }

    #[test]
    fn what_is_caught_asks_for_an_end_or_for_nothing() {
        check([ALRM, 0, 0, 0, ALRM], Pending::Other);
        check([ALRM, TERM, 0, 0, ALRM | TERM], Pending::Asking);
        check([0, 1 << 33, 0, 0, 1 << 33], Pending::Other);
    }

    #[test]
    fn a_thread_that_is_not_there_has_no_status() {
        assert_eq!(pending(std::process::id()), Some(Pending::Other));
        assert_eq!(pending(0), None);
        assert_eq!(judge("Name:\tx\n"), None);
    }
}
