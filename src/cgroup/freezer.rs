//! Freezes, thaws and kills all processes of a container at once.

use super::hierarchy::WALK_PATIENCE;
use super::{Cgroup, Hierarchy, Tree, v1, v2};
use anyhow::{Result, bail};
use std::collections::BTreeSet;
use std::time::{Duration, Instant};

/// How long processes may take to freeze.
const FREEZE_PATIENCE: Duration = Duration::from_secs(10);

impl Cgroup {
    fn freezer(&self) -> Option<&Hierarchy> {
        self.controller("freezer").or(self.unified())
    }

    /// Freezes all processes.
    ///
    /// # Errors
    /// There is no freezer; or the processes do not freeze, and then they run again.
    pub fn freeze(&self) -> Result<()> {
        self.freeze_until(Instant::now() + FREEZE_PATIENCE)
    }

    fn freeze_until(&self, deadline: Instant) -> Result<()> {
        match self.freezer() {
            None => bail!("cannot toggle freezer: cgroups not configured for container"),
            Some(freezer) if freezer.unified() => v2::freeze(freezer, deadline),
            Some(freezer) => v1::freeze(freezer, deadline),
        }
    }

    /// Thaws all processes.
    pub fn thaw(&self) -> Result<()> {
        match self.freezer() {
            None => bail!("cannot toggle freezer: cgroups not configured for container"),
            Some(freezer) if freezer.unified() => Ok(v2::thaw(freezer)?),
            Some(freezer) => Ok(v1::thaw(freezer)?),
        }
    }

    /// Whether the container is paused. A container without cgroups is not.
    pub fn frozen(&self) -> Result<bool> {
        match self.freezer() {
            None => Ok(false),
            Some(freezer) if freezer.unified() => Ok(v2::frozen(freezer)?),
            Some(freezer) => Ok(v1::frozen(freezer)?),
        }
    }

    /// Lets killed processes die. In a frozen version 1 cgroup they do not, and the container may have frozen cgroups
    /// below its own. The caller sends SIGKILL to all processes first: a process that is thawed earlier could freeze
    /// another cgroup.
    ///
    /// # Errors
    /// The kernel refuses, or the walk through the cgroups below takes too long.
    pub fn let_die(&self) -> Result<()> {
        match self.freezer() {
            None => Ok(()),
            // In version 2, frozen processes die when they are killed. The thaw only ends the pause.
            Some(freezer) if freezer.unified() => {
                if v2::frozen(freezer)? {
                    v2::thaw(freezer)?;
                }
                Ok(())
            }
            Some(freezer) => Ok(v1::thaw_all(freezer)?),
        }
    }

    /// Whether killed processes may stay alive here because they are frozen: those of version 1 do.
    pub fn may_hold_killed(&self) -> bool {
        self.freezer().is_some_and(|freezer| !freezer.unified())
    }

    /// Whether a process that enters would be frozen at once: this cgroup or one above it is frozen.
    pub fn stands_still(&self) -> Result<bool> {
        match self.freezer() {
            None => Ok(false),
            Some(freezer) if freezer.unified() => Ok(v2::stands_still(freezer)?),
            Some(freezer) => Ok(v1::stands_still(freezer)?),
        }
    }

    /// Sends SIGKILL to every process here and below, including processes that are being forked and frozen ones.
    /// It does not wait for their end: [`remove`](Self::remove) does.
    ///
    /// # Errors
    /// The lists of processes cannot be read, the walk takes too long, or the kernel refuses a thaw.
    pub fn kill_all(&self) -> Result<()> {
        let killed = self.unified().map(v2::kill).transpose()?.unwrap_or(false);
        if killed && matches!(self.tree, Tree::V2(_)) {
            return Ok(());
        }
        let Some(main) = self.main() else { return Ok(()) };
        let deadline = Instant::now() + WALK_PATIENCE;
        let mut before = BTreeSet::new();
        for _ in 0..100 {
            // Frozen processes do not fork. A process that is slow to freeze must not keep the others alive: so the
            // wait is short, and SIGKILL follows in any case.
            let frozen = !killed && self.freeze_until(Instant::now() + Duration::from_millis(200)).is_ok();
            let found = main.signal_all(deadline);
            if frozen {
                self.thaw()?;
            }
            self.let_die()?;
            let found = found?;
            if found.is_subset(&before) {
                break;
            }
            before = found;
        }
        Ok(())
    }
}
