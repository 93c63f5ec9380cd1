//! Processes that are known by number and start time, and found again by descriptor.

use crate::sys::{self, Called, pidfd};
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::os::fd::OwnedFd;

/// A process that cannot be mistaken for a later one of the same number.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
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

    /// Whether it still runs: same number, same start, not a zombie.
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
        let found = stat(self.pid)?;
        let found = found.filter(|found| found.start == self.start && !matches!(found.state, 'Z' | 'X'));
        Ok(found.map(|found| found.run))
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
struct Stat {
    state: char,
    start: u64,
    run: Run,
}

/// What there is to know of process `pid`; `None` when there is none.
fn stat(pid: i32) -> Result<Option<Stat>> {
    /// PF_FORKNOEXEC in field 9, as ps(1) shows it.
    const FORKED: u64 = 0x40;
    if pid <= 0 {
        return Ok(None);
    }
    let path = format!("/proc/{pid}/stat");
    let text = match sys::fd::read_proc(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        other => other.called("read", || path.clone())?,
    };
    // The command's name, in parentheses, may hold anything: fields are counted behind the last one.
    let rest = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let number = |field: usize| rest.split(' ').nth(field - 3).and_then(|field| field.parse::<u64>().ok());
    let (Some(state), Some(flags), Some(start)) = (rest.chars().next(), number(9), number(22)) else {
        bail!("{path}: not as proc_pid_stat(5) has it");
    };
    let run = if flags & FORKED == 0 { Run::Executed } else { Run::Forked };
    Ok(Some(Stat { state, start, run }))
}

/// The identity of this boot.
///
/// # Errors
/// /proc cannot be read.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = sys::fd::read_proc(path).called("read", || path.into())?;
    Ok(text.trim().to_owned())
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
