//! Removes what is in the directory of a deleted container.
//!
//! Usually that is a handful of files. A container with CAP_SYS_ADMIN can make the mount of its notify directory
//! writable, and make directories there: of any depth, with any names, and as many as the file system takes.
//!
//! Not for: which directory is removed, and when (`ids`).

use crate::sys::Called;
use anyhow::{Result, ensure};
use rustix::fs::{AtFlags, Dir, Mode, OFlags, RenameFlags};
use rustix::io::Errno;
use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// How long one call removes files. The next `list` or `delete` goes on.
const LONGEST: Duration = Duration::from_secs(5);

/// Removes all files and directories in `top`. No symbolic link is followed, and no mount is entered.
///
/// A directory in a directory is first moved up into `top`. So two directories are open at a time, however deep the
/// tree is, and no call is nested.
///
/// # Errors
/// Something cannot be removed, or [`LONGEST`] has passed.
pub fn clear(top: BorrowedFd<'_>) -> Result<()> {
    let mut work = Work { top, until: Instant::now() + LONGEST, moved: 0 };
    while work.pass()? {}
    Ok(())
}

struct Work<'a> {
    top: BorrowedFd<'a>,
    until: Instant,
    /// How many directories have been moved up. Their new names are numbers.
    moved: u64,
}

impl Work<'_> {
    /// Removes what the directory lists. Returns true if it listed something: there may be more then.
    fn pass(&mut self) -> Result<bool> {
        let mut found = false;
        for entry in Dir::read_from(self.top).called("getdents", String::new)? {
            let entry = entry.called("getdents", String::new)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            found = true;
            if !self.unlink(self.top, name)? {
                self.remove_directory(name)?;
            }
        }
        Ok(found)
    }

    fn remove_directory(&mut self, name: &CStr) -> Result<()> {
        let shown = || format!("{name:?}");
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let inner = rustix::fs::openat(self.top, name, flags, Mode::empty()).called("openat", shown)?;
        for entry in Dir::read_from(&inner).called("getdents", shown)? {
            let entry = entry.called("getdents", shown)?;
            let name = entry.file_name();
            if matches!(name.to_bytes(), b"." | b"..") {
                continue;
            }
            let inner = inner.as_fd();
            if !self.unlink(inner, name)? {
                self.move_up(inner, name)?;
            }
        }
        match rustix::fs::unlinkat(self.top, name, AtFlags::REMOVEDIR) {
            // The list was not complete, because it was read while entries were removed. The next pass goes on.
            Err(Errno::NOENT | Errno::NOTEMPTY) => Ok(()),
            other => Ok(other.called("unlinkat", shown)?),
        }
    }

    /// Returns false if it is a directory.
    fn unlink(&self, directory: BorrowedFd<'_>, name: &CStr) -> Result<bool> {
        ensure!(Instant::now() < self.until, "not all is removed after {} s", LONGEST.as_secs());
        match rustix::fs::unlinkat(directory, name, AtFlags::empty()) {
            Err(Errno::ISDIR) => Ok(false),
            Err(Errno::NOENT) => Ok(true),
            other => Ok(other.called("unlinkat", || format!("{name:?}")).map(|()| true)?),
        }
    }

    fn move_up(&mut self, directory: BorrowedFd<'_>, name: &CStr) -> Result<()> {
        loop {
            ensure!(Instant::now() < self.until, "not all is removed after {} s", LONGEST.as_secs());
            self.moved += 1;
            let number = self.moved.to_string();
            match rustix::fs::renameat_with(directory, name, self.top, number, RenameFlags::NOREPLACE) {
                // A runtime that was here before us has moved one up, and died.
                Err(Errno::EXIST) => {}
                Err(Errno::NOENT) => return Ok(()),
                other => return Ok(other.called("renameat2", || format!("{name:?}"))?),
            }
        }
    }
}
