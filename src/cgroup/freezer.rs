//! All processes of a container at once: frozen, thawed, killed.

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

    /// Stops all processes where they are.
    ///
    /// # Errors
    /// There is no freezer, or the processes do not freeze; they run then.
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

    /// Lets killed processes die. A frozen cgroup of version 1 keeps them from that, also one below that the container
    /// has frozen itself. To be called when all have been sent SIGKILL: what is thawed before can freeze the next.
    ///
    /// # Errors
    /// The kernel refuses, or there is no end of cgroups below.
    pub fn let_die(&self) -> Result<()> {
        match self.freezer() {
            None => Ok(()),
            // Version 2 lets them die as they are. The container is not paused any more all the same.
            Some(freezer) if freezer.unified() => {
                if v2::frozen(freezer)? {
                    v2::thaw(freezer)?;
                }
                Ok(())
            }
            Some(freezer) => Ok(v1::thaw_all(freezer)?),
        }
    }

    /// Whether a process that enters would stand still: this cgroup or one above it is frozen.
    ///
    /// # Errors
    /// The freezer cannot be read.
    pub fn stands_still(&self) -> Result<bool> {
        match self.freezer() {
            None => Ok(false),
            Some(freezer) if freezer.unified() => Ok(v2::stands_still(freezer)?),
            Some(freezer) => Ok(v1::stands_still(freezer)?),
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
        let Some(main) = self.main() else { return Ok(()) };
        let deadline = Instant::now() + WALK_PATIENCE;
        let mut before = BTreeSet::new();
        for _ in 0..100 {
            // What stands still does not fork. Processes that are slow to freeze must not keep the others alive.
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
