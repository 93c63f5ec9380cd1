//! Processes, identified by number and start time, and opened as pidfds.
//!
//! The number alone is not enough: the kernel gives it to another process later.

use crate::sys::{self, Called, pidfd};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// A process, told from a later one of the same number by its start time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id; 0 means none.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: when it started, in clock ticks since boot.
    pub start: u64,
}

impl Process {
    /// The calling process.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn own() -> Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The process that has this number now.
    ///
    /// # Errors
    /// No process has it, or /proc cannot be read.
    pub fn of(pid: i32) -> Result<Self> {
        let found = stat(pid)?;
        let found = found.with_context(|| format!("process {pid}: {}", sys::strerror(libc::ESRCH)))?;
        Ok(Self { pid, start: found.start })
    }

    /// Returns true if it still runs: a process has its number and start time, and at least one thread lives.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn alive(&self) -> Result<bool> {
        Ok(self.look()?.is_some())
    }

    /// Which program it runs; `None` if it has ended.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn look(&self) -> Result<Option<Run>> {
        Ok(self.living()?.map(|found| found.run))
    }

    fn living(&self) -> Result<Option<Stat>> {
        let is_it = |found: &Stat| found.start == self.start;
        let Some(found) = stat(self.pid)?.filter(is_it) else { return Ok(None) };
        if !found.leader_ended() {
            return Ok(Some(found));
        }
        // The first thread has ended. Other threads may live, or one of them is in execve(2) and takes its place: only
        // a pidfd can tell. The number may have been reused before the pidfd was opened, so read the start time again.
        let Some(pidfd) = self.descriptor()? else { return Ok(None) };
        let found = stat(self.pid)?.filter(is_it);
        Ok(if pidfd::poll_ended(pidfd.as_fd(), 0)? { None } else { found })
    }

    /// Returns true if it is about to end: the kernel is ending it, or SIGKILL is pending.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn is_ending(&self) -> Result<bool> {
        let Some(found) = self.living()? else { return Ok(false) };
        // A first thread that has ended says nothing about the other threads.
        Ok((found.exiting && !found.leader_ended()) || self.is_killed()?)
    }

    fn is_killed(&self) -> Result<bool> {
        let path = format!("/proc/{}/status", self.pid);
        let Some(text) = present(sys::fd::read_proc(&path)).called("read", || path)? else {
            return Ok(false);
        };
        // The kernel escapes a line feed in the process's name, so no line can be forged through it.
        let mut masks = text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"SigPnd:\t").or_else(|| line.strip_prefix(b"ShdPnd:\t")))
            .filter_map(|mask| u64::from_str_radix(std::str::from_utf8(mask).ok()?, 16).ok());
        Ok(masks.any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0))
    }

    /// A descriptor that setns(2) accepts. Usually this is `pidfd`, which must be of this process. If the first thread
    /// has ended, it has no namespaces any more; then it is a descriptor of a living thread.
    ///
    /// # Errors
    /// The process has ended; or its first thread has, and the kernel is older than Linux 6.9 and has no pidfds of
    /// threads.
    pub fn to_join(&self, pidfd: OwnedFd) -> Result<OwnedFd> {
        match self.living_thread()? {
            first if first == self.pid => Ok(pidfd),
            other => {
                pidfd::open_thread(other).context("the first thread of the container's process has ended")
            }
        }
    }

    /// The number of its first thread; if that has ended, the number of a living thread.
    ///
    /// # Errors
    /// All threads have ended.
    pub fn living_thread(&self) -> Result<i32> {
        if !self.living()?.is_some_and(|found| found.leader_ended()) {
            return Ok(self.pid);
        }
        let path = format!("/proc/{}/task", self.pid);
        let threads = std::fs::read_dir(&path).called("opendir", || path.clone())?;
        let tids = threads.flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok());
        let lives = |tid: &i32| {
            *tid != self.pid && stat(*tid).is_ok_and(|found| found.is_some_and(|found| !found.leader_ended()))
        };
        let found = { tids }.find(lives);
        found.with_context(|| format!("{path}: {}", sys::strerror(libc::ESRCH)))
    }

    /// Opens a pidfd of it; `None` if it has ended.
    ///
    /// # Errors
    /// /proc cannot be read, or no descriptors are left.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let pidfd = self.descriptor()?;
        // The number may have been reused before the pidfd was opened. So compare the start time after opening.
        Ok(if pidfd.is_some() && self.alive()? { pidfd } else { None })
    }

    /// Opens a pidfd of the process that has its number now. If [`alive`](Self::alive) is true afterwards, the pidfd is
    /// of this process.
    ///
    /// # Errors
    /// No descriptors are left.
    pub fn descriptor(&self) -> Result<Option<OwnedFd>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        match pidfd::open(self.pid) {
            Err(error) if error.errno() == libc::ESRCH => Ok(None),
            other => Ok(Some(other?)),
        }
    }
}

/// Which program a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// The program of its parent, as after fork(2). An init that waits for `start` does so.
    Forked,
    /// A program of its own, by execve(2).
    Executed,
}

impl Run {
    /// Which program a child of ours runs, or has run: a zombie still has an entry in /proc.
    ///
    /// # Errors
    /// /proc cannot be read, or there is no such process.
    pub fn of_child(pid: i32) -> Result<Self> {
        let found = stat(pid)?.with_context(|| format!("process {pid}: {}", sys::strerror(libc::ESRCH)))?;
        Ok(found.run)
    }
}

/// Fields of /proc/PID/stat (proc_pid_stat(5)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// The state letter of the first thread.
    state: u8,
    start: u64,
    run: Run,
    /// The kernel is ending the first thread.
    exiting: bool,
}

impl Stat {
    fn leader_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Reads the line. The process chooses the name in parentheses, and it may hold any bytes. The other fields follow
    /// the last closing parenthesis.
    fn of(line: &[u8]) -> Option<Self> {
        /// Flags of field 9: PF_EXITING, and PF_FORKNOEXEC, as ps(1) shows it.
        const EXITING: u64 = 0x4;
        const FORKED: u64 = 0x40;
        let end = line.iter().rposition(|byte| *byte == b')')?;
        let rest = std::str::from_utf8(line.get(end + 1..)?).ok()?;
        let mut fields = rest.split_ascii_whitespace();
        // Field 3, then 9, then 22.
        let state = *fields.next()?.as_bytes().first()?;
        let flags: u64 = fields.nth(5)?.parse().ok()?;
        let start = fields.nth(12)?.parse().ok()?;
        let run = if flags & FORKED == 0 { Run::Executed } else { Run::Forked };
        Some(Self { state, start, run, exiting: flags & EXITING != 0 })
    }
}

/// Reads /proc/PID/stat; `None` if there is no such process.
fn stat(pid: i32) -> Result<Option<Stat>> {
    if pid <= 0 {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/stat");
    let Some(line) = present(sys::fd::read_proc(&path)).called("read", || path.clone())? else {
        return Ok(None);
    };
    Stat::of(&line).with_context(|| format!("{path}: not in the form of proc_pid_stat(5)")).map(Some)
}

/// Turns the errors for a process that has ended into `None`.
fn present(read: std::io::Result<Vec<u8>>) -> std::io::Result<Option<Vec<u8>>> {
    match read {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        other => other.map(Some),
    }
}

/// Refuses a /proc of another pid namespace. There, our process numbers belong to other processes.
///
/// # Errors
/// /proc is of another pid namespace, or is not mounted.
pub fn check_proc() -> Result<()> {
    let own = rustix::process::getpid().as_raw_nonzero().to_string();
    match rustix::fs::readlink("/proc/self", Vec::new()) {
        Ok(shown) if shown.to_bytes() == own.as_bytes() => Ok(()),
        Ok(_) => bail!(
            "/proc is that of another pid namespace: mount one of this namespace (unshare --mount-proc, or mount -t \
             proc proc /proc)"
        ),
        Err(rustix::io::Errno::NOENT) => bail!("/proc is not mounted (mount -t proc proc /proc)"),
        Err(errno) => Ok(Err(errno).called("readlink", || "\"/proc/self\"".into())?),
    }
}

/// The identity of this boot.
///
/// # Errors
/// /proc cannot be read.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = sys::fd::read_proc(path).called("read", || path.into())?;
    Ok(String::from_utf8_lossy(&text).trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_alive_only_with_its_own_start_time() {
        let own = Process::own().unwrap();
        assert!(own.alive().unwrap());
        assert!(!Process { start: own.start + 1, ..own }.alive().unwrap());
        assert!(!Process::default().alive().unwrap());
    }

    #[test]
    fn a_name_of_any_bytes_does_not_hide_the_fields_behind_it() {
        let fields = "S 1 7 7 0 -1 4194560 155 0 0 0 0 0 0 0 20 0 1 0 38 7 8";
        let expected = Stat { state: b'S', start: 38, run: Run::Executed, exiting: false };
        let whole: Vec<u8> = (0..=255).collect();
        let singles = (0..=255).map(|byte| vec![byte]);
        let names = [&b""[..], b") Z 0", b"a) (b) X 1 1", b"\xff) Z 0\n", b"Z 1 2 3 4 5 6", &whole];
        for name in singles.chain(names.map(<[u8]>::to_vec)) {
            let line = [b"4711 (", name.as_slice(), b") ", fields.as_bytes(), b"\n"].concat();
            assert_eq!(Stat::of(&line), Some(expected), "{name:?}");
        }
        for line in [&b""[..], b"1", b"1 (a", b"1 (a)", b"1 (a) S", b"1 (a) S 1 2 3 4 5 \xff"] {
            assert_eq!(Stat::of(line), None);
        }
    }

    #[test]
    fn the_fields_are_those_that_procfs_finds() {
        use procfs::FromRead;
        let own = std::fs::read("/proc/self/stat").unwrap();
        let end = own.iter().rposition(|byte| *byte == b')').unwrap();
        for name in [&b"sleep"[..], b") Z 0", b"a) (b) X 1 1", b"\xff) Z 0\n", b"Z 1 2 3 4 5 6"] {
            let line = [b"4711 (", name, &own[end..]].concat();
            let theirs = procfs::process::Stat::from_read(line.as_slice()).unwrap();
            let ours = Stat::of(&line).unwrap();
            assert_eq!((char::from(ours.state), ours.start), (theirs.state, theirs.starttime), "{name:?}");
            let flags = procfs::process::StatFlags::from_bits_retain(theirs.flags);
            assert_eq!(ours.exiting, flags.contains(procfs::process::StatFlags::PF_EXITING));
            let forked = flags.contains(procfs::process::StatFlags::PF_FORKNOEXEC);
            assert_eq!(ours.run == Run::Forked, forked);
        }
    }

    #[test]
    fn a_killed_process_is_ending_until_it_has_ended() {
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = Process::of(child.id().try_into().unwrap()).unwrap();
        assert!(!process.is_ending().unwrap());
        let pidfd = process.open().unwrap().unwrap();
        child.kill().unwrap();
        // Either it is seen to be at its end, or it has ended.
        while process.alive().unwrap() {
            assert!(process.is_ending().unwrap() || pidfd::poll_ended(pidfd.as_fd(), 0).unwrap());
        }
        child.wait().unwrap();
        assert!(!process.is_ending().unwrap());
    }

    #[test]
    fn a_forked_copy_has_not_executed_and_a_program_has() {
        crate::sys::prctl::testing::in_child(|| {
            anyhow::ensure!(Process::own()?.look()? == Some(Run::Forked));
            let mut child = std::process::Command::new("sleep").arg("10").spawn()?;
            let found = Process::of(i32::try_from(child.id())?)?.look()?;
            child.kill()?;
            child.wait()?;
            anyhow::ensure!(found == Some(Run::Executed));
            Ok(())
        });
    }
}
