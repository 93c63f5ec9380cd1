//! The state of containers on disk: state.json, which holds all that a later verb may know, and the directory around
//! it.
//!
//! `create` writes `<root>/<id>/state.json` before its first side effect, in the phase `creating`. Every later change
//! is one rename. Renaming the prepared directory to the id reserves the id; renaming it away deletes the container. So
//! no process ever sees a container's directory without its record.
//!
//! `essentials.json` beside the record is the part that `kill` needs, and `delete` if the record cannot be read. It is
//! replaced just before the record. If the runtime dies in between, `delete` finds the older record, and undoes a
//! `create` that has not ended.
//!
//! The status is never stored (runtime.md, "State"). It follows from the record, the process and the freezer. `trust`
//! checks the owner and the mode of every file before it is read.

mod clear;
mod dir;
mod essentials;
mod ids;
mod lock;
mod process;
mod record;
mod root;
mod trust;
mod way;

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

/// The reason why a verb cannot act on a container. Callers branch on it, and engines match its text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Error {
    /// No container of this id.
    NotFound,
    /// The id is in use.
    Exists,
    /// The id is empty, too long, or has a character that ids may not have.
    InvalidId,
    /// The container is not running, and the verb needs it to run.
    NotRunning,
    /// The container is not paused, and the verb needs it paused.
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
    /// The record is written. Of the things that it names, some may exist already.
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

/// A container with a readable record. Most verbs load one first.
#[derive(Debug)]
pub struct Container {
    /// Its directory.
    pub dir: ContainerDir,
    /// Its record.
    pub record: Record,
}

impl Container {
    /// The container `id` below `root`.
    ///
    /// # Errors
    /// [`Error::NotFound`] if the root or the container does not exist; [`Error::InvalidId`]; [`Untrusted`]; or the
    /// record is damaged.
    pub fn load(root: &Path, id: &str) -> Result<Self> {
        check_id(id)?;
        Root::of_containers(root)?.load(id)
    }

    /// Its status now.
    ///
    /// # Errors
    /// /proc or the freezer cannot be read.
    pub fn status(&self) -> Result<Status> {
        self.dir.status(self.record.essentials())
    }

    /// Its status now, and a pidfd of init if init lives.
    ///
    /// # Errors
    /// /proc or the freezer cannot be read, or no descriptors are left.
    pub fn look(&self) -> Result<(Status, Option<OwnedFd>)> {
        // Open before asking for the status: if the status says that init lives, the pidfd is init's.
        let init = self.record.init().descriptor()?;
        let status = self.status()?;
        Ok((status, init.filter(|_| !matches!(status, Status::Creating | Status::Stopped))))
    }
}

#[cfg(test)]
pub mod tests;
