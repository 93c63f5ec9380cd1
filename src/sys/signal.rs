//! Signals by the kernel's numbers. A C library keeps some of them for its threads (glibc 32 and 33, musl 34 too) and
//! leaves them out of each set that it makes; but who sends one to `orlop run` means the container.

use super::{Called, Error, check};
use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd};

/// The lowest real-time signal that programs may use, as glibc, kill(1) and engines count (signal(7)).
pub const RTMIN: i32 = 34;
/// The highest signal there is.
pub const RTMAX: i32 = 64;

/// A set of signals as the kernel has it: bit n - 1 stands for signal n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mask(u64);

impl Mask {
    /// Every signal. The kernel blocks SIGKILL and SIGSTOP for nobody.
    pub const ALL: Self = Self(!0);
}

/// Blocks these signals and no others, and gives those that were blocked before (rt_sigprocmask(2)).
///
/// # Errors
/// rt_sigprocmask(2)'s.
pub fn block(mask: Mask) -> Result<Mask, Error> {
    let mut before = Mask::default();
    // SAFETY: both are sets of the size that is given, one to be read and one to be written.
    let result = unsafe {
        libc::syscall(
            libc::SYS_rt_sigprocmask,
            libc::SIG_SETMASK,
            &raw const mask.0,
            &raw mut before.0,
            size_of::<u64>(),
        )
    };
    check(result).called("rt_sigprocmask", || format!("{:#x}", mask.0))?;
    Ok(before)
}

/// A descriptor to read these signals from while they are blocked (signalfd(2)); it never waits.
///
/// # Errors
/// signalfd(2)'s.
pub fn collect(mask: Mask) -> Result<OwnedFd, Error> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the set is read, and has the size that is given.
    let result =
        unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask.0, size_of::<u64>(), flags) };
    let fd = check(result).called("signalfd4", || format!("{:#x}", mask.0))?;
    // SAFETY: the kernel has just made it for us.
    Ok(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Sends `signal` to this process.
///
/// # Errors
/// EINVAL: there is no such signal.
pub fn raise(signal: i32) -> Result<(), Error> {
    // SAFETY: kill(2) passes no memory.
    check(unsafe { libc::kill(libc::getpid(), signal) }.into())
        .map(drop)
        .called("kill", || format!("our own process {}", name(signal)))
}

/// The name of a signal: `SIGTERM`, or its number where it has none.
pub fn name(signal: i32) -> String {
    nix::sys::signal::Signal::try_from(signal)
        .map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

/// The next signal that has come, if there is one.
pub fn next(collected: BorrowedFd<'_>) -> Option<i32> {
    // A whole record or nothing (signalfd(2)); it begins with the signal's number.
    let mut record = [0; size_of::<libc::signalfd_siginfo>()];
    let length = rustix::io::read(collected, &mut record).ok()?;
    let number = record.first_chunk().copied().map(i32::from_ne_bytes);
    number.filter(|_| length == record.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn each_signal_is_collected_also_those_that_a_c_library_keeps() {
        let before = block(Mask::ALL).unwrap();
        assert_eq!(block(Mask::ALL).unwrap().0 | 1 << 8 | 1 << 18, !0, "KILL and STOP are never blocked");
        let collected = collect(Mask::ALL).unwrap();
        // SAFETY: no memory is passed.
        let (process, thread) = unsafe { (libc::getpid(), libc::syscall(libc::SYS_gettid)) };
        for signal in [libc::SIGTERM, 33, RTMIN, RTMAX] {
            assert_eq!(next(collected.as_fd()), None);
            // SAFETY: no memory is passed; the signal is blocked, and read next.
            assert_eq!(unsafe { libc::syscall(libc::SYS_tgkill, process, thread, signal) }, 0);
            assert_eq!(next(collected.as_fd()), Some(signal));
        }
        block(before).unwrap();
    }
}
