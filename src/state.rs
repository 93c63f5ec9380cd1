//! state.json: all that a later verb may know of a container, and the directory it lies in.
//!
//! `<root>/<id>/state.json` is written before the first side effect of `create` (phase `creating`), and every
//! later change is one rename. Renaming the prepared directory to the id reserves the id; renaming it away deletes
//! the container: no process ever sees a container's directory without its record.
//! Beside the record stands `essentials.json`: the part that `kill` needs, and `delete` if the record cannot be read.
//! It is replaced just before the record: a runtime that dies in between leaves the older record to `delete`, which
//! then undoes a `create` that has not ended.
//! What a status is follows from the record, the process and the freezer, and is never stored.
//! All that is read here is looked at first: see `trust`.

mod dir;
mod essentials;
mod ids;
mod lock;
mod process;
mod record;
mod root;
mod trust;

pub use dir::ContainerDir;
pub use essentials::Essentials;
pub use ids::check_id;
pub use lock::Lock;
pub use process::{Process, Run, boot_id};
pub use record::{Config, IdMapEntry, MountEntry, NamespaceEntry, Own, Record, Shown, Source};
pub use root::Root;
pub use trust::Untrusted;

use anyhow::Result;
use serde::{Deserialize, Serialize};
use std::fmt;
use std::os::fd::OwnedFd;
use std::path::Path;

/// Why a verb cannot act on a container; callers branch on it, engines match its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No container of this id.
    NotFound,
    /// The id is in use.
    Exists,
    /// No id at all: a character that ids do not have.
    InvalidId,
    /// Not running, where it would have to be.
    NotRunning,
    /// Not paused, where it would have to be.
    NotPaused,
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Error::NotFound => "container does not exist",
            Error::Exists => "container with given ID already exists",
            Error::InvalidId => "invalid container ID format",
            Error::NotRunning => "container not running",
            Error::NotPaused => "container not paused",
        })
    }
}

impl std::error::Error for Error {}

/// How far `create` has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Phase {
    /// The intent is written; anything in it may exist or not.
    Creating,
    /// Init waits for `start`, or has been started.
    Created,
}

/// The status of a container (runtime.md, "State").
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Status {
    /// `create` is at work.
    Creating,
    /// Init waits for `start`.
    Created,
    /// The container's process runs.
    Running,
    /// Its cgroup is frozen.
    Paused,
    /// Its process has ended.
    Stopped,
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Status::Creating => "creating",
            Status::Created => "created",
            Status::Running => "running",
            Status::Paused => "paused",
            Status::Stopped => "stopped",
        })
    }
}

/// A container that is on record: what most verbs begin with.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub dir: ContainerDir,
    /// What is known of it.
    pub record: Record,
}

impl Container {
    /// The container `id` below `root`.
    ///
    /// # Errors
    /// [`Error::NotFound`] when either is not there, [`Error::InvalidId`], or what is wrong with the record.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        Root::of_containers(root)?.load(id)
    }

    /// Its status now.
    ///
    /// # Errors
    /// As [`ContainerDir::status`].
    pub fn status(&self) -> Result<Status> {
        self.dir.status(self.record.essentials())
    }

    /// Its status now, and a descriptor for its first process, if that lives.
    ///
    /// # Errors
    /// As [`ContainerDir::status`], or no descriptors are left.
    pub fn look(&self) -> Result<(Status, Option<OwnedFd>)> {
        // First, for the status comes from looking at the process.
        let init = self.record.init().descriptor()?;
        let status = self.status()?;
        Ok((status, init.filter(|_| !matches!(status, Status::Creating | Status::Stopped))))
    }
}

#[cfg(test)]
pub mod tests;
