//! Ids of containers below the root: they are reserved, listed and freed here.
//!
//! A rename of a prepared directory to the id reserves the id. A rename away from the id frees it. The next `list` or
//! `delete` sweeps what a runtime left when it died before the first rename or after the second.

use super::dir::{ContainerDir, ESSENTIALS, FILTER, RECORD};
use super::{Container, Error, Process, Record, Root, clear, trust};
use crate::log;
use crate::sys::{self, Called};
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Dir, FileType, Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// Beginnings of the names that a container's directory has before and after it has an id. The number of the process
/// that makes or deletes the container follows. No id contains `~`, so no container has such a name.
pub(super) const NEW: &str = "~new-";
const GONE: &str = "~gone-";

impl Root {
    /// Reserves the id of `record` for a new container, and writes the record.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::InvalidId`]; or the record cannot be written. Nothing is left then.
    pub fn reserve(&self, record: &Record) -> Result<ContainerDir> {
        check_id(&record.id)?;
        let new = own_name(NEW);
        let shown = || format!("{:?}", self.path.join(&new));
        let make = || rustix::fs::mkdirat(&self.fd, &*new, Mode::from_raw_mode(0o700));
        match make() {
            // A process with our number died here.
            Err(rustix::io::Errno::EXIST) => {
                self.clear(&new)?;
                make()
            }
            other => other,
        }
        .called("mkdirat", shown)?;
        let reserved = self.name(&new, record);
        if reserved.is_err() {
            // The caller gets the first error. The next `list` or `delete` sweeps what cannot be cleared now.
            let _ = self.clear(&new);
        }
        reserved
    }

    fn name(&self, new: &str, record: &Record) -> Result<ContainerDir> {
        let dir = self.dir(&record.id, self.open_entry(new)?);
        dir.begin(record)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.fd, new, &self.fd, &*record.id, flags) {
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists.into()),
            other => other.called("renameat2", || format!("{:?}", dir.path))?,
        }
        Ok(dir)
    }

    /// [`Error::Exists`] if the id is in use; `None` if it is free.
    pub fn taken(&self, id: &str) -> Option<anyhow::Error> {
        let found = rustix::fs::accessat(&self.fd, id, rustix::fs::Access::EXISTS, AtFlags::empty());
        found.is_ok().then(|| Error::Exists.into())
    }

    /// Opens a directory in it, and checks that no other user can have written there.
    fn open_entry(&self, name: &str) -> Result<OwnedFd> {
        let shown = || format!("{:?}", self.path.join(name));
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).called("openat", shown)?;
        let found = rustix::fs::fstat(&fd).called("fstat", shown)?;
        trust::check(&found, trust::Others::Excluded, shown)?;
        Ok(fd)
    }

    fn dir(&self, id: &str, fd: OwnedFd) -> ContainerDir {
        ContainerDir::new(self.clone(), self.path.join(id), fd)
    }

    /// Opens the directory of the container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidId`], [`trust::Untrusted`].
    pub fn container(&self, id: &str) -> Result<ContainerDir> {
        check_id(id)?;
        match self.open_entry(id) {
            Err(error) if matches!(sys::errno_of(&error), Some(libc::ENOENT | libc::ENOTDIR)) => {
                Err(Error::NotFound.into())
            }
            other => Ok(self.dir(id, other?)),
        }
    }

    /// Opens the directory of the container `id`, and reads its record.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidId`], [`trust::Untrusted`], or the record is damaged.
    pub fn load(&self, id: &str) -> Result<Container> {
        let dir = self.container(id)?;
        let record = dir.load()?;
        Ok(Container { dir, record })
    }

    /// The names of all directories that may be containers, sorted. It sweeps the leftovers of runtimes that have died,
    /// and leaves other files alone.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in Dir::read_from(&self.fd).called("getdents", || format!("{:?}", self.path))? {
            let entry = entry.called("getdents", || format!("{:?}", self.path))?;
            let Ok(name) = entry.file_name().to_str() else { continue };
            if !matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
                continue;
            }
            if check_id(name).is_ok() {
                ids.push(name.to_owned());
            } else if name.starts_with(GONE) || name.strip_prefix(NEW).is_some_and(is_nobody) {
                // A `delete` died after its rename, or a `create` before its rename.
                let _ = self.clear(name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Removes a directory `id` without a record, if it holds files of orlop and no other files.
    ///
    /// # Errors
    /// As for [`Root::remove`]; or the directory cannot be read.
    pub fn remove_remains(&self, id: &str) -> Result<()> {
        match self.container(id) {
            Ok(dir) if dir.holds_only_ours()? => self.remove(id),
            _ => Ok(()),
        }
    }

    /// Deletes the container's directory. The rename is the commit: the id is free from then on, and what cannot be
    /// removed behind it is only a warning.
    ///
    /// # Errors
    /// The directory cannot be renamed. A missing directory is no error.
    pub fn remove(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let gone = own_name(GONE);
        let rename = || rustix::fs::renameat(&self.fd, id, &self.fd, &*gone);
        match rename() {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            // A process with our number died here.
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
                self.clear(&gone)?;
                rename()
            }
            other => other,
        }
        .called("renameat", || format!("{:?}", self.path.join(id)))?;
        // The container is deleted. If a second try does not clear the directory either, the next `list` or `delete`
        // will.
        if let Err(error) = self.clear(&gone).or_else(|_| self.clear(&gone)) {
            log::warn(format!("{error:#}, ignoring"));
        }
        Ok(())
    }

    /// Removes the directory `name` and all that is in it. No symbolic link is followed.
    fn clear(&self, name: &str) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(name));
        let fd = match self.open_entry(name) {
            // Another command has swept it.
            Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => return Ok(()),
            other => other?,
        };
        // Usually these are all files, and the directory need not be listed.
        for file in [RECORD, ESSENTIALS, FILTER] {
            let _ = rustix::fs::unlinkat(&fd, file, AtFlags::empty());
        }
        if rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        clear::clear(fd.as_fd()).with_context(shown)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other.called("unlinkat", shown)?),
        }
    }
}

/// The name of a directory that is no container yet, or no longer: `prefix` and our process number.
pub(super) fn own_name(prefix: &str) -> String {
    format!("{prefix}{}", rustix::process::getpid().as_raw_nonzero())
}

/// Returns true if no process has this number, or its process has ended and is a zombie.
fn is_nobody(number: &str) -> bool {
    let Some(pid) = number.parse().ok().and_then(rustix::process::Pid::from_raw) else { return true };
    let ended = || Process::of(pid.as_raw_pid()).and_then(|found| found.alive()).is_ok_and(|alive| !alive);
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) || ended()
}

/// Checks that a container may have this id: 1 to 255 letters, digits, `_`, `+`, `-` and `.`; but neither `.` nor `..`.
///
/// # Errors
/// [`Error::InvalidId`].
pub fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    let fits = !id.is_empty() && id.len() <= 255 && id.chars().all(allowed) && id != "." && id != "..";
    if fits { Ok(()) } else { Err(Error::InvalidId) }
}
