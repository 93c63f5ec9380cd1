//! The injector: it runs one command under ptrace(2), counts the system calls of all its processes that change
//! something, and interferes at one of them.
//!
//! `strace --inject` counts the calls of each process separately. But the processes of a runtime take turns: only one
//! count over all of them gives each state of the host a number.
//!
//! A caller stands between the injector and the command, as an engine does. It holds the other ends of the command's
//! stdout and stderr, and waits for the command. Its own calls do not count, but the injector can kill it as well.

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Command, Stdio};

/// What happens at the chosen call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// Kill the process that the caller started, before the call.
    KillMain,
    /// Kill the caller. The command goes on alone, and no process holds the other ends of its stdout and stderr.
    KillCaller,
    /// Kill all processes of the command, and the caller.
    KillAll,
    /// The call is not made, and fails with this errno.
    Fail(Errno),
}

impl How {
    pub const ALL: [(&'static str, How); 7] = [
        ("main", How::KillMain),
        ("caller", How::KillCaller),
        ("all", How::KillAll),
        ("ENOMEM", How::Fail(Errno::ENOMEM)),
        ("ENOSPC", How::Fail(Errno::ENOSPC)),
        ("EIO", How::Fail(Errno::EIO)),
        ("EINTR", How::Fail(Errno::EINTR)),
    ];

    pub fn of(name: &str) -> Result<Self> {
        let found = Self::ALL.iter().find(|row| row.0 == name);
        Ok(found.with_context(|| format!("{name}: not one of {NAMES}"))?.1)
    }

    /// True if the command itself is killed, so that the sweep must not look at how it ended.
    pub fn kills(self) -> bool {
        matches!(self, How::KillMain | How::KillAll)
    }
}

impl std::fmt::Display for How {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let found = Self::ALL.iter().find(|row| row.1 == *self);
        f.write_str(found.map_or("?", |row| row.0))
    }
}

/// The names, for the usage text.
pub const NAMES: &str = "main,caller,all,ENOMEM,ENOSPC,EIO,EINTR";

/// The result of one run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Report {
    /// How many calls changed something.
    pub points: u32,
    /// The call that was interfered with.
    pub fired: Option<String>,
    /// The names of all calls, if none was interfered with.
    pub calls: Vec<String>,
}

struct Tracer {
    caller: Pid,
    /// The process that the caller started, as soon as it executes the runtime.
    main: Option<Pid>,
    /// The runtime under test.
    runtime: std::path::PathBuf,
    tracees: BTreeSet<Pid>,
    at: u32,
    how: How,
    /// Processes whose present call must fail.
    failing: BTreeMap<Pid, Errno>,
    report: Report,
}

/// Runs `line` as user `uid` and interferes at call number `at` (0: at none). Returns the exit status of the command;
/// 128 + signal if a signal killed it.
///
/// It must run in a process of its own: when that process ends, it releases everything that still runs.
pub fn run(at: u32, how: How, report: &Path, uid: &str, line: &[String]) -> Result<i32> {
    let mut caller = Command::new(std::env::current_exe()?);
    caller.args(["call", uid]).args(line).process_group(0);
    let child = caller.spawn().context("the caller")?;
    let caller = Pid::from_raw(i32::try_from(child.id())?);
    // The caller stays stopped until the injector traces it, so that no call is missed.
    match waitpid(caller, Some(WaitPidFlag::WUNTRACED))? {
        WaitStatus::Stopped(_, Signal::SIGSTOP) => {}
        other => bail!("{line:?}: {other:?} before it could be traced"),
    }
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    ptrace::seize(caller, options)?;
    kill(caller, Signal::SIGCONT)?;
    let mut tracer = Tracer {
        caller,
        main: None,
        runtime: line.first().context("no command")?.into(),
        tracees: BTreeSet::from([caller]),
        at,
        how,
        failing: BTreeMap::new(),
        report: Report::default(),
    };
    let code = tracer.serve()?;
    std::fs::write(report, serde_json::to_vec(&tracer.report)?)?;
    Ok(code)
}

/// The caller: starts `line` as user `uid`, waits for its end, and passes on what the command has printed until then.
pub fn call(uid: &str, line: &[String]) -> Result<i32> {
    nix::sys::signal::raise(Signal::SIGSTOP)?;
    let (program, args) = line.split_first().context("no command")?;
    let uid = uid.parse()?;
    let mut command = Command::new(program);
    command.args(args).stdout(Stdio::piped()).stderr(Stdio::piped());
    if uid != 0 {
        command.uid(uid).gid(uid);
    }
    let mut child = command.spawn().with_context(|| program.clone())?;
    let status = child.wait()?;
    if let (Some(mut out), Some(mut err)) = (child.stdout.take(), child.stderr.take()) {
        pass_on(&mut out, &mut std::io::stdout())?;
        pass_on(&mut err, &mut std::io::stderr())?;
    }
    Ok(status.code().unwrap_or(128 + status.signal().unwrap_or_default()))
}

/// Copies what is there now. A container may keep the other end open, so this does not wait for the end.
fn pass_on(from: &mut (impl Read + std::os::fd::AsFd), to: &mut impl Write) -> Result<()> {
    rustix::io::ioctl_fionbio(&from, true)?;
    let mut text = Vec::new();
    match from.read_to_end(&mut text) {
        Err(error) if error.kind() != std::io::ErrorKind::WouldBlock => Err(error.into()),
        _ => Ok(to.write_all(&text)?),
    }
}

impl Tracer {
    fn serve(&mut self) -> Result<i32> {
        let (mut code, mut alone) = (None, false);
        loop {
            let status = match waitpid(None::<Pid>, Some(WaitPidFlag::__WALL)) {
                Err(Errno::EINTR) => continue,
                // All processes are gone.
                Err(Errno::ECHILD) => return code.context("the command was never waited for"),
                other => other?,
            };
            let Some(pid) = status.pid() else { continue };
            let ended = match status {
                WaitStatus::Exited(_, status) => Some(status),
                WaitStatus::Signaled(_, signal, _) => Some(128 + signal as i32),
                _ => None,
            };
            if let Some(ended) = ended {
                self.tracees.remove(&pid);
                alone |= pid == self.caller;
                code = (Some(pid) == self.main).then_some(ended).or(code);
            }
            match status {
                WaitStatus::PtraceSyscall(_) => self.at_call(pid)?,
                WaitStatus::PtraceEvent(_, _, event) => {
                    self.tracees.insert(pid);
                    if event == ptrace::Event::PTRACE_EVENT_EXEC as i32 && self.main.is_none() {
                        let found = std::fs::read_link(format!("/proc/{pid}/exe"));
                        self.main = found.is_ok_and(|found| found == self.runtime).then_some(pid);
                    }
                    self.resume(pid, None)?;
                }
                WaitStatus::Stopped(_, Signal::SIGCONT) if self.main.is_none() => self.resume(pid, None)?,
                WaitStatus::Stopped(_, signal) => {
                    self.tracees.insert(pid);
                    self.resume(pid, Some(signal))?;
                }
                _ => {}
            }
            // After killing everything, wait for all processes: one that was just being cloned must die, too.
            let all = self.how == How::KillAll && self.report.fired.is_some();
            match code {
                Some(code) if alone && !all => return Ok(code),
                _ => {}
            }
        }
    }

    /// A traced process may be killed at any time. That it is gone is never an error.
    fn resume(&self, pid: Pid, signal: Option<Signal>) -> Result<()> {
        if self.how == How::KillAll && self.report.fired.is_some() {
            let _ = kill(pid, Signal::SIGKILL);
        }
        let counts = self.main.is_some() && pid != self.caller && self.report.fired.is_none();
        let done = match counts || self.failing.contains_key(&pid) {
            true => ptrace::syscall(pid, signal),
            false => ptrace::cont(pid, signal),
        };
        match done {
            Err(Errno::ESRCH) => Ok(()),
            other => Ok(other?),
        }
    }

    fn at_call(&mut self, pid: Pid) -> Result<()> {
        if let Some(errno) = self.failing.remove(&pid) {
            set(pid, |regs| regs.rax = (-(errno as i64)) as u64)?;
            return self.resume(pid, None);
        }
        let entry = match ptrace::syscall_info(pid) {
            Err(Errno::ESRCH) => return Ok(()),
            other => other?.op == nix::libc::PTRACE_SYSCALL_INFO_ENTRY,
        };
        if entry
            && self.report.fired.is_none()
            && let Some(name) = change(pid, self.how)
        {
            self.report.points += 1;
            if self.at == 0 {
                self.report.calls.push(name.to_owned());
            }
            if self.report.points == self.at {
                let who = if Some(pid) == self.main { "main" } else { "child" };
                self.report.fired = Some(format!("{name} in {who}"));
                match self.how {
                    How::KillMain => {
                        let _ = kill(self.main.unwrap_or(pid), Signal::SIGKILL);
                    }
                    How::KillCaller => {
                        let _ = kill(self.caller, Signal::SIGKILL);
                    }
                    How::KillAll => {
                        for pid in &self.tracees {
                            let _ = kill(*pid, Signal::SIGKILL);
                        }
                    }
                    How::Fail(errno) => {
                        set(pid, |regs| regs.orig_rax = u64::MAX)?;
                        self.failing.insert(pid, errno);
                    }
                }
            }
        }
        self.resume(pid, None)
    }
}

fn set(pid: Pid, change: impl FnOnce(&mut nix::libc::user_regs_struct)) -> Result<()> {
    let done = ptrace::getregs(pid).and_then(|mut regs| {
        change(&mut regs);
        ptrace::setregs(pid, regs)
    });
    match done {
        Err(Errno::ESRCH) => Ok(()),
        other => Ok(other?),
    }
}

/// The name of the call that `pid` is about to make, if the injector may interfere with it.
fn change(pid: Pid, how: How) -> Option<&'static str> {
    let regs = ptrace::getregs(pid).ok()?;
    let number = regs.orig_rax as i64;
    let name = CHANGES.iter().find(|row| row.0 == number).map(|row| row.1);
    let waits = WAITS.iter().find(|row| row.0 == number).map(|row| row.1);
    let writes =
        |flags: u64| flags & (nix::libc::O_WRONLY | nix::libc::O_RDWR | nix::libc::O_CREAT) as u64 != 0;
    let opened = match number {
        nix::libc::SYS_open => writes(regs.rsi).then_some("open"),
        nix::libc::SYS_openat => writes(regs.rdx).then_some("openat"),
        nix::libc::SYS_openat2 => {
            let flags = ptrace::read(pid, regs.rdx as ptrace::AddressType).ok()? as u64;
            writes(flags).then_some("openat2")
        }
        // Calls that only read: PR_CAPBSET_READ, PR_CAP_AMBIENT_IS_SET and some of the PR_GET ones.
        nix::libc::SYS_prctl => {
            let (option, second) = (regs.rdi as i32, regs.rsi as i32);
            let reads = [2, 3, 7, 21, 23, 25, 27, 39].contains(&option) || (option == 47 && second == 1);
            (!reads).then_some("prctl")
        }
        nix::libc::SYS_prlimit64 => (regs.rdx != 0).then_some("prlimit64"),
        _ => None,
    };
    // A signal interrupts a wait; a wait changes nothing.
    let waits = waits.filter(|_| how == How::Fail(Errno::EINTR));
    name.or(opened).or(waits)
}

/// Calls that change something, whatever their arguments are.
#[rustfmt::skip]
const CHANGES: &[(i64, &str)] = &[
    (nix::libc::SYS_write, "write"), (nix::libc::SYS_pwrite64, "pwrite64"), (nix::libc::SYS_writev, "writev"),
    (nix::libc::SYS_mkdir, "mkdir"), (nix::libc::SYS_mkdirat, "mkdirat"), (nix::libc::SYS_mknod, "mknod"),
    (nix::libc::SYS_mknodat, "mknodat"), (nix::libc::SYS_rename, "rename"), (nix::libc::SYS_renameat, "renameat"),
    (nix::libc::SYS_renameat2, "renameat2"), (nix::libc::SYS_unlink, "unlink"),
    (nix::libc::SYS_unlinkat, "unlinkat"), (nix::libc::SYS_rmdir, "rmdir"), (nix::libc::SYS_link, "link"),
    (nix::libc::SYS_linkat, "linkat"), (nix::libc::SYS_symlink, "symlink"), (nix::libc::SYS_symlinkat, "symlinkat"),
    (nix::libc::SYS_chmod, "chmod"), (nix::libc::SYS_fchmod, "fchmod"), (nix::libc::SYS_fchmodat, "fchmodat"),
    (nix::libc::SYS_chown, "chown"), (nix::libc::SYS_fchown, "fchown"), (nix::libc::SYS_lchown, "lchown"),
    (nix::libc::SYS_fchownat, "fchownat"), (nix::libc::SYS_truncate, "truncate"),
    (nix::libc::SYS_ftruncate, "ftruncate"), (nix::libc::SYS_mount, "mount"), (nix::libc::SYS_umount2, "umount2"),
    (nix::libc::SYS_move_mount, "move_mount"), (nix::libc::SYS_open_tree, "open_tree"),
    (nix::libc::SYS_fsopen, "fsopen"), (nix::libc::SYS_fsconfig, "fsconfig"), (nix::libc::SYS_fsmount, "fsmount"),
    (nix::libc::SYS_mount_setattr, "mount_setattr"), (nix::libc::SYS_pivot_root, "pivot_root"),
    (nix::libc::SYS_chroot, "chroot"), (nix::libc::SYS_chdir, "chdir"), (nix::libc::SYS_fchdir, "fchdir"),
    (nix::libc::SYS_fork, "fork"), (nix::libc::SYS_vfork, "vfork"), (nix::libc::SYS_clone, "clone"),
    (nix::libc::SYS_clone3, "clone3"), (nix::libc::SYS_execve, "execve"), (nix::libc::SYS_execveat, "execveat"),
    (nix::libc::SYS_setns, "setns"), (nix::libc::SYS_unshare, "unshare"), (nix::libc::SYS_setsid, "setsid"),
    (nix::libc::SYS_setpgid, "setpgid"), (nix::libc::SYS_setuid, "setuid"), (nix::libc::SYS_setgid, "setgid"),
    (nix::libc::SYS_setresuid, "setresuid"), (nix::libc::SYS_setresgid, "setresgid"),
    (nix::libc::SYS_setgroups, "setgroups"), (nix::libc::SYS_setfsuid, "setfsuid"),
    (nix::libc::SYS_setfsgid, "setfsgid"), (nix::libc::SYS_capset, "capset"), (nix::libc::SYS_seccomp, "seccomp"),
    (nix::libc::SYS_bpf, "bpf"), (nix::libc::SYS_keyctl, "keyctl"), (nix::libc::SYS_kill, "kill"),
    (nix::libc::SYS_tkill, "tkill"), (nix::libc::SYS_tgkill, "tgkill"),
    (nix::libc::SYS_pidfd_send_signal, "pidfd_send_signal"), (nix::libc::SYS_pidfd_open, "pidfd_open"),
    (nix::libc::SYS_pidfd_getfd, "pidfd_getfd"), (nix::libc::SYS_socket, "socket"),
    (nix::libc::SYS_socketpair, "socketpair"), (nix::libc::SYS_connect, "connect"), (nix::libc::SYS_bind, "bind"),
    (nix::libc::SYS_listen, "listen"), (nix::libc::SYS_sendto, "sendto"), (nix::libc::SYS_sendmsg, "sendmsg"),
    (nix::libc::SYS_memfd_create, "memfd_create"), (nix::libc::SYS_sendfile, "sendfile"),
    (nix::libc::SYS_ioctl, "ioctl"), (nix::libc::SYS_setrlimit, "setrlimit"),
    (nix::libc::SYS_sched_setattr, "sched_setattr"), (nix::libc::SYS_sched_setaffinity, "sched_setaffinity"),
    (nix::libc::SYS_sched_setscheduler, "sched_setscheduler"), (nix::libc::SYS_ioprio_set, "ioprio_set"),
    (nix::libc::SYS_personality, "personality"), (nix::libc::SYS_set_mempolicy, "set_mempolicy"),
    (nix::libc::SYS_umask, "umask"), (nix::libc::SYS_dup2, "dup2"), (nix::libc::SYS_dup3, "dup3"),
    (nix::libc::SYS_close_range, "close_range"), (nix::libc::SYS_sethostname, "sethostname"),
    (nix::libc::SYS_setdomainname, "setdomainname"), (nix::libc::SYS_inotify_init1, "inotify_init1"),
    (nix::libc::SYS_inotify_add_watch, "inotify_add_watch"), (nix::libc::SYS_eventfd2, "eventfd2"),
    (nix::libc::SYS_pipe2, "pipe2"),
];

/// Calls that may wait. Only EINTR is injected there.
#[rustfmt::skip]
const WAITS: &[(i64, &str)] = &[
    (nix::libc::SYS_read, "read"), (nix::libc::SYS_poll, "poll"), (nix::libc::SYS_ppoll, "ppoll"),
    (nix::libc::SYS_recvmsg, "recvmsg"), (nix::libc::SYS_recvfrom, "recvfrom"), (nix::libc::SYS_waitid, "waitid"),
    (nix::libc::SYS_wait4, "wait4"), (nix::libc::SYS_flock, "flock"),
];
