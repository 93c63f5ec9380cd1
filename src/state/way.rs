//! The way to the directory of all containers. It is walked component by component, and each step is checked.
//!
//! A user who may rename a directory on the way could put a link in its place. The link could lead to a directory of
//! an image. The records in that directory would name hooks, which `delete` runs with our rights.
//!
//! Not for: the last directory itself, which the caller checks.

use super::trust;
use crate::sys::Called;
use anyhow::Result;
use rustix::fs::{CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::path::{Component, Path, PathBuf};

/// The kernel's own limit on links in one path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// What becomes of a missing directory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// It is an error: ENOENT.
    Refused,
    /// It is made, for its owner alone.
    Made,
}

/// A directory on the way, or the last one.
struct Place {
    fd: OwnedFd,
    name: PathBuf,
}

/// What the name of the next component stands for.
enum Found {
    Directory(OwnedFd),
    /// A symbolic link to this path.
    Link(PathBuf),
}

/// Opens the directory `path` for reading.
///
/// # Errors
/// [`trust::Untrusted`]: another user could put a link in the place of a directory on the way, or owns a link there.
/// Otherwise as for open(2) and mkdir(2).
pub fn open(path: &Path, missing: Missing) -> Result<OwnedFd> {
    let mut place = Place::begin(path)?;
    let mut rest = steps(path);
    let mut links = 0;
    while let Some(step) = rest.pop() {
        place.check(path)?;
        match place.find(&step, rest.is_empty(), missing)? {
            Found::Directory(fd) => place = Place { fd, name: place.name.join(step) },
            Found::Link(target) => {
                links += 1;
                if links > MAX_LINKS {
                    Err(Errno::LOOP).called("open", || format!("{path:?}"))?;
                }
                if target.has_root() {
                    place = Place::begin(&target)?;
                }
                rest.extend(steps(&target));
            }
        }
    }
    Ok(place.fd)
}

/// The components of a path; the first is the last of the vector.
fn steps(path: &Path) -> Vec<OsString> {
    let names = path.components().filter(|step| matches!(step, Component::Normal(_) | Component::ParentDir));
    let mut steps: Vec<OsString> = names.map(|step| step.as_os_str().to_owned()).collect();
    if steps.is_empty() {
        steps.push(".".into());
    }
    steps.reverse();
    steps
}

impl Place {
    fn begin(path: &Path) -> Result<Self> {
        let name = if path.has_root() { "/" } else { "." };
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(CWD, name, flags, Mode::empty());
        Ok(Self { fd: fd.called("open", || format!("{name:?}"))?, name: name.into() })
    }

    /// Refuses a directory in which another user could exchange what stands there.
    fn check(&self, path: &Path) -> Result<()> {
        let shown = || format!("{path:?}: the way leads through {:?}", self.name);
        let found = rustix::fs::fstat(&self.fd).called("fstat", shown)?;
        trust::check_way(&found, shown)
    }

    fn find(&self, step: &OsStr, is_last: bool, missing: Missing) -> Result<Found> {
        let shown = || format!("{:?}", self.name.join(step));
        let flags = OFlags::NOFOLLOW | OFlags::CLOEXEC;
        // O_DIRECTORY for the directories on the way too: without it, open(2) mounts nothing at an automount point.
        let access = if is_last { OFlags::RDONLY } else { OFlags::PATH };
        let open = || rustix::fs::openat(&self.fd, step, flags | access | OFlags::DIRECTORY, Mode::empty());
        let opened = match open() {
            Err(Errno::NOENT) if missing == Missing::Made => {
                match rustix::fs::mkdirat(&self.fd, step, Mode::RWXU) {
                    // Another runtime has made it.
                    Err(Errno::EXIST) => {}
                    other => other.called("mkdir", shown)?,
                }
                open()
            }
            other => other,
        };
        match opened {
            // It is no directory. It may be a link to one.
            Err(errno @ (Errno::NOTDIR | Errno::LOOP)) => {
                let file = rustix::fs::openat(&self.fd, step, flags | OFlags::PATH, Mode::empty());
                let file = file.called("open", shown)?;
                let found = rustix::fs::fstat(&file).called("fstat", shown)?;
                if !FileType::from_raw_mode(found.st_mode).is_symlink() {
                    Err(errno).called("open", shown)?;
                }
                trust::check_link(&found, shown)?;
                let target = rustix::fs::readlinkat(&file, "", Vec::new()).called("readlink", shown)?;
                Ok(Found::Link(OsString::from_vec(target.into_bytes()).into()))
            }
            other => Ok(Found::Directory(other.called("open", shown)?)),
        }
    }
}
