//! All processes of a container at once: frozen, thawed, killed.

use super::{Cgroup, Hierarchy, Tree, v1, v2};
use anyhow::{Result, bail};

impl Cgroup {
    fn freezer(&self) -> Option<&Hierarchy> {
        self.controller("freezer").or(self.unified())
    }

    /// Stops all processes where they are.
    ///
    /// # Errors
    /// There is no freezer, or the processes do not freeze; they run then.
    pub fn freeze(&self) -> Result<()> {
        match self.freezer() {
            None => bail!("cannot toggle freezer: cgroups not configured for container"),
            Some(freezer) if freezer.unified() => v2::freeze(freezer),
            Some(freezer) => v1::freeze(freezer),
        }
    }

    /// Lets all processes run.
    ///
    /// # Errors
    /// There is no freezer, or the kernel refuses.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer() {
            None => bail!("cannot toggle freezer: cgroups not configured for container"),
            Some(freezer) if freezer.unified() => Ok(v2::thaw(freezer)?),
            Some(freezer) => Ok(v1::thaw(freezer)?),
        }
    }

    /// Whether the container is paused. One without cgroups is not.
    ///
    /// # Errors
    /// The freezer cannot be read.
    pub fn frozen(&self) -> Result<bool> {
        match self.freezer() {
            None => Ok(false),
            Some(freezer) if freezer.unified() => Ok(v2::frozen(freezer)?),
            Some(freezer) => Ok(v1::frozen(freezer)?),
        }
    }

    /// Sends SIGKILL to every process here and below, also to those that are being forked, frozen or not.
    /// Does not wait for their end: [`remove`](Self::remove) does.
    ///
    /// # Errors
    /// The lists of processes cannot be read, or there are always new ones.
    pub fn kill_all(&self) -> Result<()> {
        let killed = self.unified().map(v2::kill).transpose()?.unwrap_or(false);
        if killed && matches!(self.tree, Tree::V2(_)) {
            return Ok(());
        }
        let mut signalled = vec![];
        for _ in 0..100 {
            let fresh: Vec<i32> = self.pids()?.into_iter().filter(|pid| !signalled.contains(pid)).collect();
            if fresh.is_empty() {
                break;
            }
            // What stands still does not fork, and its pid is not given to another process.
            let frozen = !killed && self.freeze().is_ok();
            for pid in if frozen { self.pids()? } else { fresh } {
                if let Some(process) = rustix::process::Pid::from_raw(pid) {
                    // ESRCH: it was faster.
                    let _ = rustix::process::kill_process(process, rustix::process::Signal::KILL);
                }
                signalled.push(pid);
            }
            if frozen {
                self.thaw()?;
            }
        }
        // A frozen cgroup of version 1 keeps its processes from dying.
        if self.frozen()? {
            self.thaw()?;
        }
        Ok(())
    }
}
