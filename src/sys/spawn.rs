//! Makes processes: clone3(2), execve(2), and the rules of the fork boundary.
//!
//! The child is a forked copy of a process with one thread. No other thread can hold a lock in it, so ordinary Rust
//! (allocation, anyhow, serde) is sound in it. That is why [`spawn`] refuses to run in a process with more threads.

use super::{Called, Error, check, ns::Flags};
use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

/// Puts the child into the cgroup of `clone_args.cgroup`. libc's constant of this name overflows to 0.
const CLONE_INTO_CGROUP: u64 = 0x2_0000_0000;

/// The arguments of clone3(2), up to `cgroup`.
#[repr(C)]
#[derive(Default)]
struct CloneArgs {
    flags: u64,
    pidfd: u64,
    child_tid: u64,
    parent_tid: u64,
    exit_signal: u64,
    stack: u64,
    stack_size: u64,
    tls: u64,
    set_tid: u64,
    set_tid_size: u64,
    cgroup: u64,
}

impl CloneArgs {
    /// For a child of ours, in `cgroup` if given. The kernel writes its descriptor to `pidfd`.
    fn new(flags: libc::c_int, pidfd: *mut libc::c_int, cgroup: Option<BorrowedFd<'_>>) -> Self {
        let into = if cgroup.is_some() { CLONE_INTO_CGROUP } else { 0 };
        Self {
            flags: flags as u64 | libc::CLONE_PIDFD as u64 | into,
            pidfd: pidfd as u64,
            exit_signal: libc::SIGCHLD as u64,
            cgroup: cgroup.map_or(0, |cgroup| cgroup.as_raw_fd() as u64),
            ..Self::default()
        }
    }
}

/// A process that [`spawn`] made.
#[derive(Debug)]
pub struct Child {
    /// Its id in our pid namespace.
    pub pid: i32,
    /// Its descriptor.
    pub pidfd: OwnedFd,
}

impl Child {
    /// The process `pid`, which `maker`, another process of ours, has made for us (CLONE_PARENT).
    ///
    /// # Errors
    /// The process is not our child, or it is the maker itself. A container's message must not make the runtime wait
    /// for, or kill, a process of the host.
    pub fn made_for_us(pid: i32, maker: i32) -> Result<Self, Error> {
        let pidfd = super::pidfd::open(pid)?;
        match pid != maker && super::pidfd::is_child(pidfd.as_fd()) {
            true => Ok(Self { pid, pidfd }),
            false => {
                Err(Error::new("waitid", format!("process {pid}, which is not our child"), libc::ECHILD))
            }
        }
    }
}

/// Whose child the new process is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parentage {
    /// The caller's own.
    Child,
    /// The caller's sibling (CLONE_PARENT): the caller's parent can wait for it.
    Sibling,
}

/// Clones the process into new namespaces of the kinds `flags`, into `cgroup` if given, and runs `child` in the copy.
///
/// The child never returns into the caller's frames. It ends by `_exit` with the result of `child`, or with 1 if that
/// panics; the panic hook handles the panic's text.
///
/// # Errors
/// `EINVAL` for a process with more than one thread; else clone3(2)'s.
pub fn spawn(
    flags: Flags,
    parentage: Parentage,
    cgroup: Option<BorrowedFd<'_>>,
    child: impl FnOnce() -> i32,
) -> Result<Child, Error> {
    assert_single_threaded()?;
    let mut pidfd: libc::c_int = -1;
    let mut args = CloneArgs::new(flags.bits(), &raw mut pidfd, cgroup);
    if parentage == Parentage::Sibling {
        // The kernel then uses our own exit signal, and refuses another one.
        args.flags |= libc::CLONE_PARENT as u64;
        args.exit_signal = 0;
    }
    // SAFETY: `args` is a valid clone_args of the size passed, and `pidfd` outlives the call. There is no stack and
    // no CLONE_VM: that is no kind of namespace, so it cannot be in `flags`. So the child goes on in a copy of our
    // memory, as after fork(2). We have one thread (checked above): no lock can be held by a thread that the copy
    // lacks.
    let pid = unsafe { libc::syscall(libc::SYS_clone3, &raw const args, size_of::<CloneArgs>()) };
    match check(pid) {
        Ok(0) => {
            let code = std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(1);
            exit(code)
        }
        Ok(pid) => {
            // SAFETY: clone3(2) succeeded with CLONE_PIDFD, so `pidfd` is a new descriptor without another owner.
            let pidfd = unsafe { OwnedFd::from_raw_fd(pidfd) };
            Ok(Child { pid: pid as i32, pidfd })
        }
        Err(error) => Err(error).called("clone3", || flag_names(flags.names(), cgroup)),
    }
}

/// [`spawn`] of a sibling in the same namespaces and the same cgroup, behind a seccomp filter of a container's. By clone(2),
/// which profiles allow where they answer clone3(2) with ENOSYS, for its arguments are out of a filter's sight.
///
/// A filter may also answer in place of the kernel. If it says 0, this process takes itself for the child, and says so on the
/// wire: the parent knows better, and kills it.
///
/// # Errors
/// What the filter says.
pub fn behind_filter(child: impl FnOnce() -> i32) -> Result<i32, Error> {
    let flags = (libc::CLONE_PARENT | libc::SIGCHLD) as libc::c_ulong;
    let none: libc::c_ulong = 0;
    // The order of the first two arguments depends on the architecture.
    let (first, second) = if cfg!(target_arch = "s390x") { (none, flags) } else { (flags, none) };
    // SAFETY: without CLONE_VM and a stack the child goes on in a copy of our memory, as after fork(2). No pointer is
    // passed. This process has one thread: it is itself a child of `spawn`, which checks that, and makes no thread.
    let pid = unsafe { libc::syscall(libc::SYS_clone, first, second, none, none, none) };
    match check(pid) {
        Ok(0) => exit(std::panic::catch_unwind(std::panic::AssertUnwindSafe(child)).unwrap_or(1)),
        Ok(pid) => Ok(pid as i32),
        Err(error) => Err(error).called("clone", || "(CLONE_PARENT)".into()),
    }
}

/// Enters cgroups of version 1: writes `0`, which means "myself", into each `tasks` file. Only for a process with one
/// thread. That makes it fast, because the kernel need not stop forks everywhere.
///
/// # Errors
/// The kernel refuses, for example a cpuset without CPUs.
pub fn join_cgroups(tasks: &[OwnedFd]) -> Result<(), Error> {
    for fd in tasks {
        rustix::io::retry_on_intr(|| rustix::io::write(fd.as_fd(), b"0"))
            .called("write", || "\"tasks\" \"0\" of the container's cgroup".to_owned())?;
    }
    Ok(())
}

/// Ends this process at once, without destructors and atexit handlers: they belong to the process that it is a copy
/// of.
///
/// It ends for certain. A container's filter may refuse exit_group(2) and exit(2). Then musl repeats the call for
/// ever, and glibc ends in its own way. No filter can refuse a fault: the kernel resets the signal's action to the
/// default and kills the process, even the first one of a pid namespace.
pub fn exit(code: i32) -> ! {
    // SAFETY: both calls take an integer and touch no memory. The process has one thread, so exit(2) ends it, too.
    unsafe {
        libc::syscall(libc::SYS_exit_group, code);
        libc::syscall(libc::SYS_exit, code);
    }
    fault()
}

/// The signal that kills a process which may not end in another way.
pub const FAULT: i32 = if cfg!(target_arch = "powerpc64") { libc::SIGTRAP } else { libc::SIGILL };

/// Executes an instruction that no processor of the architecture knows.
fn fault() -> ! {
    #[cfg(any(target_arch = "x86_64", target_arch = "x86"))]
    // SAFETY: ud2 is always undefined; the process does not survive it.
    unsafe {
        std::arch::asm!("ud2", options(noreturn, nomem, nostack))
    }
    #[cfg(any(target_arch = "aarch64", target_arch = "arm"))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("udf #0", options(noreturn, nomem, nostack))
    }
    // An instruction of zeros is undefined on these architectures.
    #[cfg(any(target_arch = "riscv64", target_arch = "loongarch64", target_arch = "s390x"))]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!(".long 0", options(noreturn, nomem, nostack))
    }
    #[cfg(target_arch = "powerpc64")]
    // SAFETY: as above.
    unsafe {
        std::arch::asm!("trap", options(noreturn, nomem, nostack))
    }
}

/// The C library's `_exit`, in place of musl's, which repeats the call for ever if a filter refuses it. std calls it
/// in a copy of init that cannot execute a hook, after the container's filter is loaded.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn _Exit(code: libc::c_int) -> ! {
    exit(code)
}

/// The C library's `abort`, in place of musl's, for example when memory runs out. musl sends SIGABRT to the thread
/// number that it remembers. In a process that [`spawn`] has made, that number is still our parent's, or another
/// process's.
#[cfg(target_env = "musl")]
#[unsafe(no_mangle)]
extern "C" fn abort() -> ! {
    exit(128 + libc::SIGABRT)
}

/// Lets the usual signals end this process although it is the first of its pid namespace. For such a process the
/// kernel drops signals without a handler. So a created container can be ended like a running one. execve(2) removes
/// the handlers.
pub fn end_on_signals() -> Result<(), Error> {
    extern "C" fn end(signal: libc::c_int) {
        exit(128 + signal);
    }
    let action = nix::sys::signal::SigAction::new(
        nix::sys::signal::SigHandler::Handler(end),
        nix::sys::signal::SaFlags::empty(),
        nix::sys::signal::SigSet::empty(),
    );
    use nix::sys::signal::Signal;
    for signal in [Signal::SIGHUP, Signal::SIGINT, Signal::SIGQUIT, Signal::SIGTERM] {
        // SAFETY: the handler makes one system call, _exit(2), which is async-signal-safe.
        unsafe { nix::sys::signal::sigaction(signal, &action) }
            .map(drop)
            .called("sigaction", || signal.to_string())?;
    }
    Ok(())
}

/// Makes the child of `command` inherit no descriptors except 0, 1 and 2, and restores the caller's umask in it.
pub fn without_inherited(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    // SAFETY: the closure makes system calls on plain numbers and allocates nothing. A thread that talks to systemd
    // may have held the allocator's lock when this process was copied.
    unsafe {
        command.pre_exec(|| {
            // A container's filter may refuse this call. A caller with a filter has made the call before it loaded
            // the filter.
            let _ = super::fd::cloexec_from(3);
            super::umask::callers();
            Ok(())
        })
    }
}

/// Has the program of `command` killed when this process dies. The program's own children live on.
pub fn dies_with_us(command: &mut std::process::Command) -> &mut std::process::Command {
    use std::os::unix::process::CommandExt;
    let parent = std::process::id();
    // SAFETY: the closure makes two system calls on plain numbers, and allocates nothing.
    unsafe {
        command.pre_exec(move || {
            // A container's filter may refuse this call to the hooks that init runs behind it.
            if nix::sys::prctl::set_pdeathsig(nix::sys::signal::Signal::SIGKILL).is_err() {
                return Ok(());
            }
            // The parent may have died before. 0: it is in another pid namespace; negative: a filter refuses the call.
            let now = libc::getppid();
            match now <= 0 || now.unsigned_abs() == parent {
                true => Ok(()),
                false => Err(std::io::Error::from_raw_os_error(libc::ESRCH)),
            }
        })
    }
}

/// Runs a helper program to its end, with an empty stdin, and collects its output.
///
/// # Errors
/// It cannot be executed; or `ETIMEDOUT` if it had to be killed after `patience`.
pub fn output(
    command: &mut std::process::Command,
    patience: std::time::Duration,
) -> std::io::Result<std::process::Output> {
    use std::io::{Read, Seek};
    // Files, not pipes: a pipe must be emptied meanwhile, and other processes may hold it open.
    let file =
        |name: &str| rustix::fs::memfd_create(name, rustix::fs::MemfdFlags::CLOEXEC).map(std::fs::File::from);
    let (mut stdout, mut stderr) = (file("stdout")?, file("stderr")?);
    command.stdin(std::process::Stdio::null()).stdout(stdout.try_clone()?).stderr(stderr.try_clone()?);
    super::signal::reset_in(without_inherited(command));
    let mut child = command.spawn()?;
    let pid = rustix::process::Pid::from_child(&child);
    let ended = rustix::process::pidfd_open(pid, rustix::process::PidfdFlags::empty()).and_then(|pidfd| {
        let milliseconds = i32::try_from(patience.as_millis()).unwrap_or(i32::MAX);
        let ended = super::pidfd::poll_ended(pidfd.as_fd(), milliseconds);
        ended.map_err(|error| rustix::io::Errno::from_raw_os_error(error.errno()))
    });
    if ended != Ok(true) {
        child.kill()?;
    }
    let status = child.wait()?;
    if !ended? {
        return Err(std::io::Error::from_raw_os_error(libc::ETIMEDOUT));
    }
    let read = |file: &mut std::fs::File| -> std::io::Result<Vec<u8>> {
        let mut text = Vec::new();
        file.rewind()?;
        file.read_to_end(&mut text).map(|_| text)
    };
    Ok(std::process::Output { status, stdout: read(&mut stdout)?, stderr: read(&mut stderr)? })
}

/// Whether this process may execute `file` (faccessat2(2)). The kernel checks with the effective ids, as execve(2)
/// does, and checks the mount, which may have noexec.
///
/// # Errors
/// EACCES: it may not.
pub fn may_execute(file: BorrowedFd<'_>) -> Result<(), rustix::io::Errno> {
    let flags = libc::AT_EACCESS | libc::AT_EMPTY_PATH;
    // SAFETY: the path is a C string; the call changes nothing.
    let result =
        unsafe { libc::syscall(libc::SYS_faccessat2, file.as_raw_fd(), c"".as_ptr(), libc::X_OK, flags) };
    match check(result) {
        Ok(_) => Ok(()),
        Err(error) => Err(rustix::io::Errno::from_raw_os_error(error.raw_os_error().unwrap_or(libc::EIO))),
    }
}

/// Replaces this process by the program in `file` (execve(2)). It returns only if that fails.
pub fn execve(file: &CStr, args: &[CString], env: &[CString]) -> Error {
    let pointers = |all: &[CString]| -> Vec<*const libc::c_char> {
        all.iter().map(|text| text.as_ptr()).chain(std::iter::once(std::ptr::null())).collect()
    };
    let (argv, envp) = (pointers(args), pointers(env));
    // SAFETY: both arrays end with null and point to C strings that outlive the call.
    unsafe { libc::execve(file.as_ptr(), argv.as_ptr(), envp.as_ptr()) };
    let errno = nix::errno::Errno::last_raw();
    // Users of engines know this word from runc.
    Error::new("exec", file.to_string_lossy(), errno)
}

/// Refuses a process with more than one thread.
fn assert_single_threaded() -> Result<(), Error> {
    // unshare(2) with CLONE_THREAD has no effect in a process with one thread, and fails in others. This is ten times
    // as fast as a file of /proc. The link count of /proc/self/task is 2 plus the number of threads.
    // SAFETY: no memory is passed, and nothing changes.
    if unsafe { libc::unshare(libc::CLONE_THREAD) } == 0 {
        return Ok(());
    }
    match rustix::fs::stat("/proc/self/task") {
        Ok(task) if task.st_nlink > 3 => {
            let threads = task.st_nlink - 2;
            Err(Error::new("clone3", format!("in a process with {threads} threads"), libc::EINVAL))
        }
        _ => Ok(()),
    }
}

fn flag_names(flags: impl Iterator<Item = &'static str>, cgroup: Option<BorrowedFd<'_>>) -> String {
    let names: Vec<_> = flags.chain(cgroup.map(|_| "CLONE_INTO_CGROUP")).collect();
    format!("({})", names.join(" | "))
}

#[cfg(test)]
mod tests {
    use super::super::pidfd::Ended;
    use super::*;

    #[test]
    fn into_cgroup_is_the_kernels_bit_33() {
        assert_eq!(CLONE_INTO_CGROUP, 1 << 33);
    }

    #[test]
    fn the_output_of_a_helper_is_collected_and_a_stuck_one_is_killed() {
        let run = |script: &str, patience| {
            let mut command = std::process::Command::new("sh");
            output(command.args(["-c", script]), std::time::Duration::from_millis(patience))
        };
        // A process that keeps the output open does not make us wait.
        let ended = run("sleep 5 & echo out; echo err >&2; exit 3", 4000).unwrap();
        assert_eq!((ended.stdout.as_slice(), ended.stderr.as_slice()), (&b"out\n"[..], &b"err\n"[..]));
        assert_eq!(ended.status.code(), Some(3));
        assert_eq!(run("exec sleep 5", 50).unwrap_err().raw_os_error(), Some(libc::ETIMEDOUT));
    }

    #[test]
    fn a_helper_begins_with_no_signal_blocked_and_the_standard_streams_only() {
        crate::sys::prctl::testing::in_child(|| {
            super::super::signal::block(super::super::signal::Mask::ALL)?;
            let inherited = std::fs::File::open("/dev/null")?;
            rustix::io::fcntl_setfd(&inherited, rustix::io::FdFlags::empty())?;
            let script = format!("grep SigBlk /proc/self/status; test -e /dev/fd/{}", inherited.as_raw_fd());
            let mut command = std::process::Command::new("sh");
            let ended = output(command.args(["-c", &script]), std::time::Duration::from_secs(20))?;
            anyhow::ensure!(ended.stdout == b"SigBlk:\t0000000000000000\n", "{ended:?}");
            anyhow::ensure!(!ended.status.success(), "the descriptor is there");
            Ok(())
        });
    }

    #[test]
    fn a_process_whose_filter_refuses_every_call_ends_all_the_same() {
        // The process is also the first of a pid namespace: for it the kernel drops signals that other processes
        // send.
        const REFUSE: u32 = 0x0005_0000 | libc::EPERM as u32;
        let refuse = super::super::seccomp::Instruction { code: 6, jt: 0, jf: 0, k: REFUSE };
        crate::sys::prctl::testing::in_child(|| {
            let kinds = match crate::sys::prctl::capget()?.effective & (1 << 21) {
                0 => [Flags::USER | Flags::PID, Flags::NONE],
                _ => [Flags::PID, Flags::NONE],
            };
            for kinds in kinds {
                let child = spawn(kinds, Parentage::Child, None, || {
                    let ready = crate::sys::prctl::set_no_new_privs();
                    ready.and_then(|()| super::super::seccomp::set_filter(&[refuse], 0)).map_or(9, |_| 0)
                })?;
                let ended = super::super::pidfd::poll_ended(child.pidfd.as_fd(), 10_000)?;
                if !ended {
                    super::super::pidfd::end(child.pidfd.as_fd(), 1000)?;
                }
                anyhow::ensure!(ended, "it is still there");
                let ended = super::super::pidfd::wait(child.pidfd.as_fd())?;
                anyhow::ensure!(ended == Ended::Killed(FAULT), "{ended:?}");
            }
            Ok(())
        });
    }

    #[test]
    fn a_threaded_process_is_refused() {
        // The test harness runs this test in a thread of its own, so this very process is threaded.
        let error = spawn(Flags::NONE, Parentage::Child, None, || 0).unwrap_err();
        assert_eq!(error.errno(), libc::EINVAL);
    }
}
