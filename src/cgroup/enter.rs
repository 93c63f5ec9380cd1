//! How a process gets into the container's cgroup: it is born there (version 2), writes itself there (version 1), or is
//! moved.

use super::{Cgroup, Hierarchy, optional, v2};
use crate::sys::{Error, Refused};
use anyhow::{Context, Result};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::OFlags;

impl Cgroup {
    /// The directory to clone a process into (CLONE_INTO_CGROUP), if there is a version 2 tree.
    ///
    /// # Errors
    /// It is gone.
    pub fn dir(&self) -> Result<Option<BorrowedFd<'_>>> {
        self.unified().map(Hierarchy::leaf).transpose().map_err(Refused::by_open)
    }

    /// What it means that no process could be cloned into the cgroup.
    pub fn refusal(&self, error: Error) -> anyhow::Error {
        match self.unified() {
            Some(cgroup) => Refused::explained(v2::why_refused(cgroup, error.errno()), error),
            None => error.into(),
        }
    }

    /// The version 1 files that a process enters by, for [`join_cgroups`](crate::sys::spawn::join_cgroups); none with version 2 only.
    ///
    /// # Errors
    /// A directory is gone.
    pub fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let open = |hierarchy: &Hierarchy| hierarchy.open("tasks", OFlags::WRONLY);
        let opened: Result<_, Error> =
            self.all().iter().filter(|hierarchy| !hierarchy.unified()).map(open).collect();
        opened.context("error adding pid of the container's process to cgroups")
    }

    /// Moves a process into all hierarchies from outside. Slow (the kernel waits for a grace period): only for
    /// processes that cannot enter by themselves.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn join(&self, pid: i32) -> Result<()> {
        for hierarchy in self.all() {
            let done = hierarchy.write("cgroup.procs", &pid.to_string());
            match done {
                Err(error) if self.tolerates(&error) || optional(hierarchy) => drop(error),
                done => done.with_context(|| format!("error adding pid {pid} to cgroups"))?,
            }
        }
        Ok(())
    }
}
