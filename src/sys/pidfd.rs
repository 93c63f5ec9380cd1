//! Processes by descriptor (pidfd_open(2)): the kernel may reuse a number, but a pidfd never means another process.

use super::{Called, Error};
use rustix::process::{
    Pid, PidfdFlags, PidfdGetfdFlags, WaitId, WaitIdOptions, pidfd_getfd, pidfd_open, waitid,
};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit(2) with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit code that a shell and runc use for it: the status, or 128 plus the signal.
    pub fn code(self) -> i32 {
        match self {
            Ended::Exited(status) => status,
            Ended::Killed(signal) => 128 + signal,
        }
    }
}

impl std::fmt::Display for Ended {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match *self {
            Ended::Exited(status) => write!(f, "exit status {status}"),
            Ended::Killed(signal) => write!(f, "killed by {}", super::signal::name(signal)),
        }
    }
}

/// A descriptor for the process `pid`.
///
/// # Errors
/// `ESRCH` if there is no such process.
pub fn open(pid: i32) -> Result<OwnedFd, Error> {
    Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .called("pidfd_open", || pid.to_string())
}

/// A descriptor for one thread (PIDFD_THREAD, since Linux 6.9).
///
/// # Errors
/// `ESRCH` if there is no such thread, `EINVAL` before Linux 6.9.
pub fn open_thread(tid: i32) -> Result<OwnedFd, Error> {
    // PIDFD_THREAD is O_EXCL.
    let thread = PidfdFlags::from_bits_retain(libc::O_EXCL.unsigned_abs());
    Pid::from_raw(tid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|tid| pidfd_open(tid, thread))
        .called("pidfd_open", || format!("{tid} (PIDFD_THREAD)"))
}

/// Sends `signal` to the process (pidfd_send_signal(2)). Signal 0 only checks that the process exists.
///
/// # Errors
/// `ESRCH` if it has ended and been reaped.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Error> {
    // Not by rustix or nix: they know only named signals, and config.json has numbers up to SIGRTMAX.
    // SAFETY: no memory is passed: siginfo is null.
    super::check(unsafe {
        libc::syscall(
            libc::SYS_pidfd_send_signal,
            pidfd.as_raw_fd(),
            signal,
            std::ptr::null::<libc::siginfo_t>(),
            0,
        )
    })
    .map(drop)
    .called("pidfd_send_signal", || format!("signal {signal}"))
}

/// A copy of descriptor `fd` of that process (pidfd_getfd(2)).
///
/// # Errors
/// `EPERM` without ptrace rights over it, `EBADF` if it has no such descriptor.
pub fn get_fd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Error> {
    pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).called("pidfd_getfd", || fd.to_string())
}

/// Reaps our child, which has ended (see [`poll_ended`]).
///
/// # Errors
/// `ECHILD` if it is not our child; those of [`reap_in_time`].
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended, Error> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    // Not by nix: it does not know real-time signals, and they can end a process.
    let status = reap_in_time(|| {
        rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options))
            .called("waitid", || format!("pidfd {}", pidfd.as_raw_fd()))
    })?;
    let exited = status.exit_status().map(Ended::Exited);
    let ended = exited.or(status.terminating_signal().map(Ended::Killed));
    ended.ok_or_else(|| Error::new("waitid", "without an exit status", libc::ECHILD))
}

/// Calls `ask` until it gives the status of a child that has ended, for about a second. `ask` must not wait.
///
/// A process of the container may trace the child. The kernel then reports the child's end to us only when the tracer
/// has waited for the child or has let it go, which it may never do.
///
/// # Errors
/// Those of `ask`; `EBUSY` after a second.
pub fn reap_in_time<T>(mut ask: impl FnMut() -> Result<Option<T>, Error>) -> Result<T, Error> {
    const PAUSES: [i64; 21] =
        [1, 2, 4, 8, 16, 32, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64, 64];
    for milliseconds in PAUSES {
        if let Some(status) = ask()? {
            return Ok(status);
        }
        // Not std's sleep: it panics where a container's filter refuses nanosleep(2), and init runs hooks behind one.
        let pause = rustix::event::Timespec { tv_sec: 0, tv_nsec: milliseconds * 1_000_000 };
        let _ = rustix::event::poll(&mut [], Some(&pause));
    }
    let text = "waitid: the process has ended, but a process that traces it keeps its exit status";
    Err(Error::told(text.into(), libc::EBUSY))
}

/// Whether it is a child of ours that has not been reaped yet.
pub fn is_child(pidfd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options)).is_ok()
}

/// Whether our child is stopped (by SIGSTOP, for example). A child that has ended is not; the kernel says ECHILD
/// then.
pub fn is_stopped(pidfd: BorrowedFd<'_>) -> bool {
    let options = WaitIdOptions::STOPPED | WaitIdOptions::NOHANG | WaitIdOptions::NOWAIT;
    let status = rustix::io::retry_on_intr(|| waitid(WaitId::PidFd(pidfd), options));
    status.is_ok_and(|status| status.is_some())
}

/// Kills our child, waits at most `timeout` milliseconds for its end, and reaps it. `false` if it lives on, because
/// it is frozen or waits for a device.
pub fn end(pidfd: BorrowedFd<'_>, timeout: i32) -> Result<bool, Error> {
    match send_signal(pidfd, libc::SIGKILL) {
        Err(error) if error.errno() == libc::ESRCH => return Ok(true),
        other => other?,
    }
    let ended = poll_ended(pidfd, timeout)?;
    if ended {
        wait(pidfd)?;
    }
    Ok(ended)
}

/// One of our children that has ended and is not reaped yet. This does not reap it.
pub fn ended_child() -> Option<i32> {
    // SAFETY: an all-zero siginfo_t is valid, and waitid(2) only writes to it.
    let mut info: libc::siginfo_t = unsafe { std::mem::zeroed() };
    let options = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
    // SAFETY: `info` outlives the call; with WNOHANG and no ended child its pid stays 0.
    let result = unsafe { libc::waitid(libc::P_ALL, 0, &raw mut info, options) };
    // SAFETY: waitid(2) has filled in the members of a child's siginfo, or left them 0.
    (result == 0).then(|| unsafe { info.si_pid() }).filter(|pid| *pid != 0)
}

/// Reaps our child `pid`, which has ended.
pub fn reap(pid: i32) {
    // SAFETY: a null status is allowed; the kernel writes nothing.
    unsafe { libc::waitpid(pid, std::ptr::null_mut(), libc::WNOHANG) };
}

/// Waits at most `timeout` milliseconds (-1: without a limit) for the process to end. It does not reap. A process
/// ends with its last thread, not with its first one.
pub fn poll_ended(pidfd: BorrowedFd<'_>, timeout: i32) -> Result<bool, Error> {
    use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
    let timeout = PollTimeout::try_from(timeout).unwrap_or(PollTimeout::NONE);
    loop {
        match poll(&mut [PollFd::new(pidfd, PollFlags::POLLIN)], timeout) {
            Err(nix::errno::Errno::EINTR) => {}
            other => return other.map(|ready| ready > 0).called("poll", || "pidfd".into()),
        }
    }
}
