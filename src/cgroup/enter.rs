//! How a process gets into the container's cgroup: the kernel creates it there (version 2), it writes itself there
//! (version 1), or the runtime moves it.

use super::{Cgroup, Hierarchy, optional, v2};
use crate::sys::{Error, Refused};
use anyhow::{Context, Result};
use rustix::fd::{BorrowedFd, OwnedFd};
use rustix::fs::OFlags;

impl Cgroup {
    /// The directory to clone a process into (CLONE_INTO_CGROUP), if the container has a version 2 tree.
    pub fn dir(&self) -> Result<Option<BorrowedFd<'_>>> {
        self.unified().map(Hierarchy::leaf).transpose().map_err(Refused::by_open)
    }

    /// Explains why a process could not be cloned into the cgroup.
    pub fn refusal(&self, error: Error) -> anyhow::Error {
        match self.unified() {
            Some(cgroup) => Refused::explained(v2::why_refused(cgroup, error.errno()), error),
            None => error.into(),
        }
    }

    /// The version 1 files that a process enters by, for [`join_cgroups`](crate::sys::spawn::join_cgroups). Empty if
    /// the host has version 2 only.
    pub fn tasks(&self) -> Result<Vec<OwnedFd>> {
        let open = |hierarchy: &Hierarchy| hierarchy.open("tasks", OFlags::WRONLY);
        let opened: Result<_, Error> =
            self.all().iter().filter(|hierarchy| !hierarchy.unified()).map(open).collect();
        opened.context("error adding pid of the container's process to cgroups")
    }

    /// Moves a process into all hierarchies from outside. This is slow, because the kernel waits for a grace period.
    /// So it is only for processes that cannot enter by themselves.
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
