//! `fcntl(2)` as programs call it.

use std::{
    fs::File,
    io,
    os::{fd::AsRawFd, unix::fs::FileExt},
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cmd {
    Try,
    Wait,
    TryOpenFile,
    WaitOpenFile,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Read,
    Write,
    Unlock,
}

fn range(kind: Kind, start: i64, len: i64) -> libc::flock {
    let kind = match kind {
        Kind::Read => libc::F_RDLCK,
        Kind::Write => libc::F_WRLCK,
        Kind::Unlock => libc::F_UNLCK,
    };
    let (l_type, l_whence) = (i16::try_from(kind).unwrap(), i16::try_from(libc::SEEK_SET).unwrap());
    libc::flock { l_type, l_whence, l_start: start, l_len: len, l_pid: 0 }
}

/// `len` 0: to the end of all files.
pub fn lock(file: &File, cmd: Cmd, kind: Kind, start: i64, len: i64) -> io::Result<()> {
    let cmd = match cmd {
        Cmd::Try => libc::F_SETLK,
        Cmd::Wait => libc::F_SETLKW,
        Cmd::TryOpenFile => libc::F_OFD_SETLK,
        Cmd::WaitOpenFile => libc::F_OFD_SETLKW,
    };
    let range = range(kind, start, len);
    // SAFETY: the descriptor is open, and the kernel reads one `flock`.
    #[expect(unsafe_code, reason = "no safe wrapper takes ranges")]
    let done = unsafe { libc::fcntl(file.as_raw_fd(), cmd, &raw const range) };
    if done == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// What `F_GETLK` finds: kind, start, length, pid.
pub fn test_lock(file: &File, kind: Kind, start: i64, len: i64) -> Option<(Kind, i64, i64, i32)> {
    let mut range = range(kind, start, len);
    // SAFETY: the descriptor is open, and the kernel reads and writes one `flock`.
    #[expect(unsafe_code, reason = "no safe wrapper takes ranges")]
    let done = unsafe { libc::fcntl(file.as_raw_fd(), libc::F_GETLK, &raw mut range) };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    let kind = match i32::from(range.l_type) {
        libc::F_RDLCK => Kind::Read,
        libc::F_WRLCK => Kind::Write,
        _ => return None,
    };
    Some((kind, range.l_start, range.l_len, range.l_pid))
}

pub fn errno<T: std::fmt::Debug>(result: io::Result<T>) -> i32 {
    result.expect_err("must be refused").raw_os_error().expect("the kernel's")
}

pub fn read_u64(file: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    file.read_exact_at(&mut bytes, at).expect("reads");
    u64::from_le_bytes(bytes)
}

pub fn write_u64(file: &File, at: u64, value: u64) {
    file.write_all_at(&value.to_le_bytes(), at).expect("writes");
}

/// Has a signal come to this thread after `millis`, which interrupts what it waits in.
pub fn interrupt_after(millis: u64) {
    extern "C" fn nothing(_: libc::c_int) {}
    let handler: extern "C" fn(libc::c_int) = nothing;
    // SAFETY: an action of all zeros is one without flags (no SA_RESTART) and with an empty mask; its handler does nothing.
    #[expect(unsafe_code, reason = "std knows no signals")]
    let done = unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        action.sa_sigaction = handler as usize;
        libc::sigaction(libc::SIGALRM, &raw const action, std::ptr::null_mut())
    };
    assert_eq!(done, 0, "{}", io::Error::last_os_error());
    let link = std::fs::read_link("/proc/thread-self").expect("there is one");
    let waiter: i32 = link.file_name().and_then(|name| name.to_str()?.parse().ok()).expect("a thread id");
    let process = i32::try_from(std::process::id()).expect("a pid");
    std::thread::spawn(move || {
        std::thread::sleep(std::time::Duration::from_millis(millis));
        // SAFETY: it takes numbers; the thread is this process's.
        #[expect(unsafe_code, reason = "no safe wrapper names a thread")]
        let sent = unsafe { libc::syscall(libc::SYS_tgkill, process, waiter, libc::SIGALRM) };
        assert_eq!(sent, 0, "{}", io::Error::last_os_error());
    });
}
