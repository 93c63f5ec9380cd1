//! Processes that are known by number and start time, and found again by descriptor.

use crate::sys::{self, Called, pidfd};
use anyhow::{Context, Result};
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
        let (start, _) = found.with_context(|| format!("process {pid}: {}", sys::strerror(libc::ESRCH)))?;
        Ok(Self { pid, start })
    }

    /// Whether it still runs: same number, same start, not a zombie.
    ///
    /// # Errors
    /// /proc cannot be read.
    pub fn alive(&self) -> Result<bool> {
        Ok(self.pid > 0
            && stat(self.pid)?
                .is_some_and(|(start, state)| start == self.start && !matches!(state, 'Z' | 'X')))
    }

    /// A descriptor for it, or `None` if it has ended.
    ///
    /// # Errors
    /// /proc cannot be read, or no descriptors are left.
    pub fn open(&self) -> Result<Option<OwnedFd>> {
        if self.pid <= 0 {
            return Ok(None);
        }
        let pidfd = match pidfd::open(self.pid) {
            Err(error) if error.errno() == libc::ESRCH => return Ok(None),
            other => other?,
        };
        // The number may have been reused: what the descriptor means is settled now, so look after opening.
        Ok(self.alive()?.then_some(pidfd))
    }
}

/// Start time and state letter of process `pid`; `None` when there is none.
fn stat(pid: i32) -> Result<Option<(u64, char)>> {
    let path = format!("/proc/{pid}/stat");
    let text = match std::fs::read_to_string(&path) {
        Ok(text) => text,
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOENT | libc::ESRCH)) => return Ok(None),
        other => other.called("read", || path.clone())?,
    };
    // The command's name, in parentheses, may hold anything: fields are counted behind the last one.
    let rest = text.rsplit_once(") ").map(|(_, rest)| rest).unwrap_or_default();
    let state = rest.chars().next();
    let start = rest.split(' ').nth(19).and_then(|field| field.parse().ok());
    Ok(Some((start.context("start time").context(path.clone())?, state.context("state").context(path)?)))
}

/// The identity of this boot.
///
/// # Errors
/// /proc cannot be read.
pub fn boot_id() -> Result<String> {
    let path = "/proc/sys/kernel/random/boot_id";
    let text = std::fs::read_to_string(path).called("read", || path.into())?;
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
}
