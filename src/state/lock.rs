//! The lock of a container: only the command that holds it changes the container's state.
//!
//! It is a flock(2) on the container's directory. Other commands wait for it for a limited time.

use super::{ContainerDir, Error};
use crate::sys::{self, Called};
use anyhow::{Result, bail};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsFd, OwnedFd};

/// How long to wait for another command that changes the container, in seconds.
const LOCK_PATIENCE: u32 = 10;

/// Held while a verb changes a container's state. Dropping it releases the lock; if the process dies, the kernel does.
#[derive(Debug)]
pub struct Lock {
    _fd: OwnedFd,
}

impl ContainerDir {
    /// Keeps other commands from changing this container's state until the result is dropped.
    ///
    /// # Errors
    /// Another command holds it for longer than 10 seconds, or has deleted the container ([`Error::NotFound`]).
    pub fn lock(&self) -> Result<Lock> {
        self.lock_after(|| Ok(()))
    }

    /// As [`lock`](Self::lock). If another command holds the lock, `meanwhile` runs before the wait.
    ///
    /// # Errors
    /// As for [`lock`](Self::lock); or `meanwhile` fails.
    pub fn lock_after(&self, meanwhile: impl FnOnce() -> Result<()>) -> Result<Lock> {
        // Open the directory again: a lock belongs to the open file, and a child may inherit `self.fd`.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, ".", flags, Mode::empty());
        let fd = fd.called("openat", || format!("{:?}", self.path))?;
        if !sys::fd::try_lock_exclusive(fd.as_fd())? {
            meanwhile()?;
            match sys::fd::lock_exclusive(fd.as_fd(), LOCK_PATIENCE) {
                Err(error) if error.errno() == libc::EINTR => {
                    bail!("flock {:?}: another command has held it for {LOCK_PATIENCE} s", self.path)
                }
                other => other?,
            }
        }
        if self.is_current()? { Ok(Lock { _fd: fd }) } else { Err(Error::NotFound.into()) }
    }

    /// Returns true if this is still the directory of the id. Another command may have deleted the container since we
    /// opened it, and a third one may have made a new container.
    fn is_current(&self) -> Result<bool> {
        let shown = || format!("{:?}", self.path);
        let own = rustix::fs::fstat(&self.fd).called("fstat", shown)?;
        let name = self.path.file_name().unwrap_or_default();
        match rustix::fs::statat(&self.root.fd, name, rustix::fs::AtFlags::SYMLINK_NOFOLLOW) {
            Err(rustix::io::Errno::NOENT) => Ok(false),
            found => {
                let found = found.called("fstatat", shown)?;
                Ok((found.st_dev, found.st_ino) == (own.st_dev, own.st_ino))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Root, tests::record};
    use super::*;

    #[test]
    fn who_waited_for_the_lock_of_a_deleted_container_has_none_of_the_next() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Root::create(temporary.path()).unwrap();
        let first = root.reserve(&record("c1")).unwrap();
        drop(first.lock().unwrap());
        root.remove("c1").unwrap();
        assert_eq!(first.lock().unwrap_err().downcast_ref(), Some(&Error::NotFound));
        let second = root.reserve(&record("c1")).unwrap();
        assert_eq!(first.lock().unwrap_err().downcast_ref(), Some(&Error::NotFound));
        drop(second.lock().unwrap());
    }
}
