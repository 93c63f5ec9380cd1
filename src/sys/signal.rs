//! Signals by the kernel's numbers.
//!
//! Not by the C library's sets: it keeps some signals for its threads (glibc 32 and 33, musl 34 too) and leaves them
//! out of each set. A user that sends one of them to `orlop run` means the container.

use super::{Called, Error, check};
use std::os::fd::{BorrowedFd, FromRawFd, IntoRawFd, OwnedFd};
use std::sync::atomic::{AtomicI32, Ordering};

/// The lowest real-time signal that programs may use, as glibc, kill(1) and engines count (signal(7)).
pub const RTMIN: i32 = 34;
/// The highest signal there is.
pub const RTMAX: i32 = 64;

/// A set of signals in the kernel's form: bit n - 1 stands for signal n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Mask(u64);

impl Mask {
    /// Every signal. The kernel never blocks SIGKILL and SIGSTOP.
    pub const ALL: Self = Self(!0);
    /// No signal.
    pub const NONE: Self = Self(0);

    /// These signals.
    pub fn of(signals: &[i32]) -> Self {
        Self(signals.iter().fold(0, |mask, signal| mask | 1 << (signal - 1)))
    }
}

/// The signals by which a user, a shell or systemd asks a program to end.
pub const ENDING: [i32; 4] = [libc::SIGHUP, libc::SIGINT, libc::SIGQUIT, libc::SIGTERM];

/// The kernel's form of an action (rt_sigaction(2)), with room for the architectures that have all four fields.
#[repr(C)]
#[derive(Default)]
struct Action {
    handler: libc::sighandler_t,
    flags: libc::c_ulong,
    restorer: usize,
    mask: u64,
}

/// Sets the action of `signal` (`Some`), or only reads it. Returns the former handler.
fn action(signal: i32, new: Option<&Action>) -> Result<libc::sighandler_t, Error> {
    let mut before = Action::default();
    let new = new.map_or(std::ptr::null(), std::ptr::from_ref);
    // SAFETY: both pointers are null or point to an action of the kernel's layout, and the size is that of the
    // kernel's mask. The only action that is set here is SIG_DFL, which runs none of our code.
    let result =
        unsafe { libc::syscall(libc::SYS_rt_sigaction, signal, new, &raw mut before, size_of::<u64>()) };
    check(result).called("rt_sigaction", || signal.to_string())?;
    Ok(before.handler)
}

/// Gives every signal its default action and blocks none: a program expects to begin so.
///
/// execve(2) keeps ignored and blocked signals, and the caller of orlop may ignore any. nohup(1) ignores SIGHUP; a
/// shell without job control ignores SIGINT and SIGQUIT for background jobs. The runtime itself ignores SIGPIPE. To
/// ask which signals are ignored would take as many calls as to set them all.
pub fn reset() -> Result<(), Error> {
    // From now on these signals end this process again.
    END.store(-1, Ordering::Relaxed);
    let default = Action { handler: libc::SIG_DFL, ..Action::default() };
    for signal in (1..=RTMAX).filter(|signal| ![libc::SIGKILL, libc::SIGSTOP].contains(signal)) {
        action(signal, Some(&default))?;
    }
    block(Mask::NONE).map(drop)
}

/// Gives `signal` its default action.
pub fn set_default(signal: i32) -> Result<(), Error> {
    action(signal, Some(&Action { handler: libc::SIG_DFL, ..Action::default() })).map(drop)
}

/// Whether `signal` is ignored.
pub fn is_ignored(signal: i32) -> Result<bool, Error> {
    Ok(action(signal, None)? == libc::SIG_IGN)
}

/// Whether `signal` asks us to end. It does not if our caller ignores it, as nohup(1) does.
pub fn asks_to_end(signal: i32) -> bool {
    ENDING.contains(&signal) && !matches!(is_ignored(signal), Ok(true))
}

/// The descriptor of [`watch_for_end`]; -1 is none.
static END: AtomicI32 = AtomicI32::new(-1);

/// Makes the signals that ask us to end readable at [`end_is_asked`], except those that our caller ignores. Every
/// wait for another process polls that, too, so that the runtime can be ended and still clean up. The signals must be
/// blocked.
pub fn watch_for_end() -> Result<(), Error> {
    watch(end_signals())
}

fn end_signals() -> Mask {
    let watched: Vec<_> = ENDING.into_iter().filter(|signal| asks_to_end(*signal)).collect();
    Mask::of(&watched)
}

fn watch(signals: Mask) -> Result<(), Error> {
    END.store(collect(signals)?.into_raw_fd(), Ordering::Relaxed);
    Ok(())
}

/// [`watch_for_end`] for as long as this lives, for code that does not collect signals anyway.
#[derive(Debug)]
pub struct EndHeldBack(Mask);

impl EndHeldBack {
    /// Blocks the signals that ask us to end, and no others.
    pub fn begin() -> Result<Self, Error> {
        let signals = end_signals();
        let before = Self(block(signals)?);
        watch(signals)?;
        Ok(before)
    }
}

impl Drop for EndHeldBack {
    fn drop(&mut self) {
        // The descriptor stays open until this process ends: `end_is_asked` has lent it for as long.
        END.store(-1, Ordering::Relaxed);
        // An error is impossible: this mask was in force before.
        let _ = block(self.0);
    }
}

/// The descriptor that is readable after a signal has asked us to end; `None` if such a signal ends us directly.
pub fn end_is_asked() -> Option<BorrowedFd<'static>> {
    let fd = END.load(Ordering::Relaxed);
    // SAFETY: the process that made the descriptor never closes it while the number is stored. A forked copy closes
    // it, and has forgotten the number before (`reset`).
    (fd >= 0).then(|| unsafe { BorrowedFd::borrow_raw(fd) })
}

/// The signal that has asked us to end, if one has. It is returned only once.
pub fn take_end() -> Option<i32> {
    end_is_asked().and_then(next).map(|signal| signal.number)
}

/// Calls [`reset`] before the program of `command` begins.
pub fn reset_in(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure makes system calls on plain numbers. It allocates only for an error, and these calls give
    // none: their arguments are constants.
    unsafe { command.pre_exec(|| reset().map_err(|error| std::io::Error::from_raw_os_error(error.errno()))) }
}

/// Makes `call` while the signals that ask us to end have their default action, and blocks them again. For a call that may
/// wait for a container, and that no descriptor can interrupt.
///
/// # Errors
/// EFAULT, which cannot happen: the masks are ours.
pub fn letting_end<T>(call: impl FnOnce() -> T) -> Result<T, Error> {
    let before = block(Mask::ALL)?;
    block(Mask(before.0 & !end_signals().0))?;
    let result = call();
    block(before)?;
    Ok(result)
}

/// Blocks these signals and no others, and returns those that were blocked before (rt_sigprocmask(2)).
pub fn block(mask: Mask) -> Result<Mask, Error> {
    let mut before = Mask::default();
    // SAFETY: both are sets of the size that is passed. The kernel reads the first and writes the second.
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

/// A descriptor to read these signals from while they are blocked (signalfd(2)). Reading never waits.
pub fn collect(mask: Mask) -> Result<OwnedFd, Error> {
    let flags = libc::SFD_CLOEXEC | libc::SFD_NONBLOCK;
    // SAFETY: the kernel reads the set, which has the size that is passed.
    let result =
        unsafe { libc::syscall(libc::SYS_signalfd4, -1, &raw const mask.0, size_of::<u64>(), flags) };
    let fd = check(result).called("signalfd4", || format!("{:#x}", mask.0))?;
    // SAFETY: the descriptor is new and has no other owner.
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

/// The name of `signal`, or its number if it has none.
pub fn name(signal: i32) -> String {
    let named = nix::sys::signal::Signal::try_from(signal);
    named.map_or_else(|_| format!("signal {signal}"), |signal| signal.to_string())
}

/// A signal that has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    /// Its number.
    pub number: i32,
    /// The process that sent it; 0 for the kernel and for a process of another pid namespace.
    pub sender: u32,
}

/// The next signal that has come, if there is one.
pub fn next(collected: BorrowedFd<'_>) -> Option<Collected> {
    // signalfd(2) gives whole records. A record begins with number, errno, code and sender, of 4 bytes each.
    let mut record = [0; size_of::<libc::signalfd_siginfo>()];
    let length = rustix::io::read(collected, &mut record).ok()?;
    if length != record.len() {
        return None;
    }
    let number = i32::from_ne_bytes(*record.first_chunk()?);
    let sender = u32::from_ne_bytes(*record.get(12..16)?.first_chunk()?);
    Some(Collected { number, sender })
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
            let sender = process.unsigned_abs();
            assert_eq!(next(collected.as_fd()), Some(Collected { number: signal, sender }));
        }
        block(before).unwrap();
    }

    #[test]
    fn after_a_reset_nothing_is_ignored_nor_blocked() {
        crate::sys::prctl::testing::in_child(|| {
            block(Mask::ALL)?;
            for signal in [libc::SIGHUP, libc::SIGPIPE, 32, 33, RTMIN, RTMAX] {
                action(signal, Some(&Action { handler: libc::SIG_IGN, ..Action::default() }))?;
                anyhow::ensure!(is_ignored(signal)?, "{signal}");
            }
            reset()?;
            let status = std::fs::read_to_string("/proc/self/status")?;
            for field in ["SigBlk", "SigIgn", "SigCgt"] {
                let line = format!("{field}:\t{:016x}", 0);
                anyhow::ensure!(status.contains(&line), "{status}");
            }
            Ok(())
        });
    }

    #[test]
    fn a_signal_ends_a_call_during_which_it_may() {
        crate::sys::prctl::testing::in_child(|| {
            let child = super::super::spawn::spawn(
                super::super::ns::Flags::NONE,
                super::super::spawn::Parentage::Child,
                None,
                || {
                    let _ = block(Mask::ALL);
                    let _ = letting_end(|| raise(libc::SIGTERM));
                    7
                },
            )?;
            let ended = super::super::pidfd::wait(child.pidfd.as_fd())?;
            anyhow::ensure!(ended == super::super::pidfd::Ended::Killed(libc::SIGTERM), "{ended:?}");
            Ok(())
        });
    }

    #[test]
    fn a_set_has_the_bits_of_its_signals() {
        assert_eq!(Mask::of(&[1, 15, 64]).0, 1 | 1 << 14 | 1 << 63);
    }
}
