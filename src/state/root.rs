//! The directory of all containers (`--root`): how it is made, opened and trusted.
//!
//! Not for: the ids in it, which `ids` reserves, lists and frees.

use super::way::{self, Missing};
use super::{Error, process, trust};
use crate::sys::{self, Called};
use anyhow::{Context, Result};
use rustix::fs::Mode;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::rc::Rc;

/// The directory of all containers (`--root`).
#[derive(Clone, Debug)]
pub struct Root {
    pub(super) path: Rc<Path>,
    pub(super) fd: Rc<OwnedFd>,
}

impl Root {
    /// Opens it. A missing directory is made.
    ///
    /// # Errors
    /// As for [`open`](Self::open); or the directory cannot be made.
    pub fn create(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => {}
            other => return other,
        }
        Self::checked(path, way::open(path, Missing::Made).context("--root")?)
    }

    /// Makes the root of an ordinary user, which is below $XDG_RUNTIME_DIR. It may exist already.
    ///
    /// # Errors
    /// The directory cannot be made, or is not ours: chmod(2) fails then.
    pub fn make_in_runtime_dir(path: &Path) -> Result<()> {
        let made = way::open(path, Missing::Made).context("$XDG_RUNTIME_DIR")?;
        // The XDG specification lets a cleaner remove files there, except those with the sticky bit.
        let changed = rustix::fs::fchmod(made, Mode::RWXU | Mode::SVTX);
        Ok(changed.called("chmod", || format!("{path:?} (from $XDG_RUNTIME_DIR)"))?)
    }

    /// Opens it. Every verb about containers does so first; so this is also where /proc is checked.
    ///
    /// # Errors
    /// ENOENT if it does not exist; it is no directory; another user could have written in it, or could put another
    /// directory in its place ([`trust::Untrusted`]); or /proc shows another pid namespace than ours.
    pub fn open(path: &Path) -> Result<Self> {
        process::check_proc()?;
        Self::checked(path, way::open(path, Missing::Refused).context("--root")?)
    }

    fn checked(path: &Path, fd: OwnedFd) -> Result<Self> {
        let shown = || format!("{path:?}");
        let found = rustix::fs::fstat(&fd).called("fstat", shown).context("--root")?;
        trust::check(&found, trust::Others::BehindStickyBit, shown).context("--root")?;
        Ok(Self { path: path.into(), fd: fd.into() })
    }

    /// As [`open`](Self::open), for a verb about one container: without the directory, the container does not exist.
    ///
    /// # Errors
    /// [`Error::NotFound`] in place of ENOENT; otherwise as for `open`.
    pub fn of_containers(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => Err(Error::NotFound.into()),
            other => other,
        }
    }
}
