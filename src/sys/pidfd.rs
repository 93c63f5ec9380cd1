//! Processes by descriptor (pidfd_open(2)): a number may be reused, a pidfd never means another process.

use super::{Called, Error};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use rustix::process::{Pid, PidfdFlags, PidfdGetfdFlags, pidfd_getfd, pidfd_open};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// How a process ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// By exit(2) with this status.
    Exited(i32),
    /// By this signal.
    Killed(i32),
}

impl Ended {
    /// The exit code that a shell, and runc, give for it: the status, or 128 plus the signal.
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
            Ended::Killed(signal) => match nix::sys::signal::Signal::try_from(signal) {
                Ok(name) => write!(f, "killed by {name}"),
                Err(_) => write!(f, "killed by signal {signal}"),
            },
        }
    }
}

/// A descriptor for the process `pid`.
///
/// # Errors
/// `ESRCH` when there is no such process.
pub fn open(pid: i32) -> Result<OwnedFd, Error> {
    Pid::from_raw(pid)
        .ok_or(rustix::io::Errno::SRCH)
        .and_then(|pid| pidfd_open(pid, PidfdFlags::empty()))
        .called("pidfd_open", || pid.to_string())
}

/// Sends `signal` to the process (pidfd_send_signal(2)); 0 only asks whether it is there.
///
/// # Errors
/// `ESRCH` when it has ended and been reaped.
pub fn send_signal(pidfd: BorrowedFd<'_>, signal: i32) -> Result<(), Error> {
    // rustix and nix know only named signals; the interface has numbers up to SIGRTMAX.
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
/// `EPERM` without ptrace rights over it, `EBADF` when it has no such descriptor.
pub fn get_fd(pidfd: BorrowedFd<'_>, fd: i32) -> Result<OwnedFd, Error> {
    pidfd_getfd(pidfd, fd, PidfdGetfdFlags::empty()).called("pidfd_getfd", || fd.to_string())
}

/// Waits until our child ends, and reaps it.
///
/// # Errors
/// `ECHILD` when it is not our child.
pub fn wait(pidfd: BorrowedFd<'_>) -> Result<Ended, Error> {
    loop {
        match waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED | WaitPidFlag::__WALL) {
            Ok(WaitStatus::Exited(_, status)) => return Ok(Ended::Exited(status)),
            Ok(WaitStatus::Signaled(_, signal, _)) => return Ok(Ended::Killed(signal as i32)),
            Ok(_) | Err(nix::errno::Errno::EINTR) => {}
            Err(errno) => return Err(errno).called("waitid", || format!("pidfd {}", pidfd.as_raw_fd())),
        }
    }
}

/// Waits at most `timeout` milliseconds (-1: for ever) for the process to end; does not reap.
///
/// # Errors
/// Those of poll(2).
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
