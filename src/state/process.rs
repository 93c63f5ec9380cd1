//! Processes that are known by number and start time, and found again by descriptor.

use crate::sys::{self, Called, pidfd};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::os::fd::{AsFd, OwnedFd};

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Process {
    /// Its id; 0 means none.
    pub pid: i32,
    /// Field 22 of /proc/PID/stat: when it started, in clock ticks since boot.
    pub start: u64,
}

impl Process {
    /// This very process.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn own() -> Result<Self> {
        Self::of(rustix::process::getpid().as_raw_nonzero().get())
    }

    /// The process that has this id now.
    ///
    /// # Errors
    /// There is none.
    pub fn of(pid: i32) -> Result<Self> {
        let found = stat(pid)?;
        let found = found.with_context(|| format!("process {pid}: {}", sys::strerror(libc::ESRCH)))?;
        Ok(Self { pid, start: found.start })
    }

    /// Whether it still runs: same number, same start, and one of its threads lives.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn alive(&self) -> Result<bool> {
        Ok(self.look()?.is_some())
    }

    /// What it runs; `None` if it has ended.
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
        // The first thread has ended. Others may live on, or one of them is at execve(2) and takes its place: the
        // descriptor knows. Whose number it is by now is read behind it.
        let Some(pidfd) = self.descriptor()? else { return Ok(None) };
        let found = stat(self.pid)?.filter(is_it);
        Ok(if pidfd::poll_ended(pidfd.as_fd(), 0)? { None } else { found })
    }

    /// Whether it will have ended in a moment: it is at its end, or SIGKILL waits for it.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn is_ending(&self) -> Result<bool> {
        let Some(found) = self.living()? else { return Ok(false) };
        // A first thread that has ended before the others says nothing of them.
        Ok((found.exiting && !found.leader_ended()) || self.is_killed()?)
    }

    fn is_killed(&self) -> Result<bool> {
        let path = format!("/proc/{}/status", self.pid);
        let Some(text) = present(sys::fd::read_proc(&path)).called("read", || path)? else {
            return Ok(false);
        };
        // The kernel writes a line feed in the name as `\n`: what begins a line is its own.
        let mut masks = text
            .split(|byte| *byte == b'\n')
            .filter_map(|line| line.strip_prefix(b"SigPnd:\t").or_else(|| line.strip_prefix(b"ShdPnd:\t")))
            .filter_map(|mask| u64::from_str_radix(std::str::from_utf8(mask).ok()?, 16).ok());
        Ok(masks.any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0))
    }

    /// `pidfd`, a descriptor for this process, as setns(2) takes it: one of a living thread if the first has ended,
    /// which has no namespaces any more.
    ///
    /// # Errors
    /// It has ended; or its first thread has, and the kernel has no descriptors for others (before Linux 6.9).
    pub fn to_join(&self, pidfd: OwnedFd) -> Result<OwnedFd> {
        match self.living_thread()? {
            first if first == self.pid => Ok(pidfd),
            other => {
                pidfd::open_thread(other).context("the first thread of the container's process has ended")
            }
        }
    }

    /// The number of its first thread, or of another one if that has ended.
    ///
    /// # Errors
    /// All have ended.
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

    /// A descriptor for it, or `None` if it has ended.
    ///
    /// # Errors
    /// /proc cannot be read, or no descriptors are left.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        let pidfd = self.descriptor()?;
        // The number may have been reused: what the descriptor means is settled now, so look after opening.
        Ok(if pidfd.is_some() && self.alive()? { pidfd } else { None })
    }

    /// A descriptor for whoever has its number now. Who then finds it alive knows that it is this process.
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

/// Whose program a process runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Run {
    /// That of the process it was forked from: an init of ours that waits for `start`.
    Forked,
    /// One of its own, since execve(2).
    Executed,
}

impl Run {
    /// What a child of ours runs, or ran: until we wait for it, it can still be asked.
    ///
    /// # Errors
    /// /proc cannot be read, or there is no such process.
    pub fn of_child(pid: i32) -> Result<Self> {
        let found = stat(pid)?.with_context(|| format!("process {pid}: {}", sys::strerror(libc::ESRCH)))?;
        Ok(found.run)
    }
}

/// What /proc/PID/stat says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Stat {
    /// Of the first thread.
    state: u8,
    start: u64,
    run: Run,
    /// Of the first thread.
    exiting: bool,
}

impl Stat {
    fn leader_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }

    /// Reads the line. The process chooses the name in parentheses, which may hold any bytes: all else stands behind
    /// the last closing one.
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

/// What there is to know of process `pid`; `None` when there is none.
fn stat(pid: i32) -> Result<Option<Stat>> {
    if pid <= 0 {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/stat");
    let Some(line) = present(sys::fd::read_proc(&path)).called("read", || path.clone())? else {
        return Ok(None);
    };
    Stat::of(&line).with_context(|| format!("{path}: not as proc_pid_stat(5) has it")).map(Some)
}

/// A file of a process that has ended is not there.
fn present(read: std::io::Result<Vec<u8>>) -> std::io::Result<Option<Vec<u8>>> {
    match read {
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => Ok(None),
        other => other.map(Some),
    }
}

/// Refuses a /proc that shows the processes of another pid namespace: by its numbers we would look at others.
///
/// # Errors
/// See above, or nothing is mounted there.
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
