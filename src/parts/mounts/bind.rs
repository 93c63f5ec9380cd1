//! Bind mounts: their sources, opened by the parent or by init, and what they are mounted on.
//!
//! Not for: attributes and propagation (see `attributes`).

use super::apply::{MapIds, check_resolved, create_mountpoint, file_type, is_procfs};
use super::attributes::Lock;
use super::{Bind, BindSource, IdMapping, IdMaps, Mount, Mounts, SourceLink, SourcesFrom};
use crate::sys::Error;
use crate::sys::mount as sys;
use crate::sys::path::{Found, Root, c_path};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags};
use std::ffi::{CStr, CString};
use std::path::Path;

/// What the parent has found at a source.
#[derive(Debug)]
pub(super) enum Opened {
    /// A detached mount of it, which only waits to be attached.
    Mount(OwnedFd),
    /// A symbolic link with this target, to be copied.
    Link(CString),
}

impl Mounts {
    pub(super) fn hold_bind(&self, mount: &Mount, bind: &Bind, source: &CStr) -> Result<Option<Opened>> {
        if bind.link == SourceLink::Copy
            && let Some(target) = link_target(source)
        {
            return Ok(Some(Opened::Link(target)));
        }
        if self.sources == SourcesFrom::Init && bind.idmap.is_none() {
            return Ok(None);
        }
        match self.hold_one(mount, bind, source) {
            // Only root of a user namespace may do this there: init opens it, or says why it cannot.
            Err(_) if self.rootless && bind.idmap.is_none() => Ok(None),
            held => held.map(|fd| Some(Opened::Mount(fd))),
        }
    }

    fn hold_one(&self, mount: &Mount, bind: &Bind, source: &CStr) -> Result<OwnedFd> {
        let fd = clone_source(source, bind)?;
        if let Some(idmap) = &bind.idmap {
            set_idmap(fd.as_fd(), idmap)?;
        }
        let lock = if self.sources == SourcesFrom::InitElseParent { Lock::Emulated } else { Lock::Kernel };
        self.wanted(mount, bind.depth, lock).apply(fd.as_fd())?;
        Ok(fd)
    }

    pub(super) fn bind(
        &self,
        root: &Root,
        mount: &Mount,
        bind: &Bind,
        held: Option<Opened>,
        map_ids: &MapIds<'_>,
    ) -> Result<()> {
        let source = match held {
            Some(Opened::Link(target)) => return copy_link(root, mount, &target),
            Some(Opened::Mount(fd)) => Some(fd),
            None => None,
        };
        let source = match &bind.source {
            BindSource::Host(path) => self.host_source(mount, bind, path, source)?,
            BindSource::Root(path) => {
                let found = match bind.link {
                    SourceLink::Follow => root.find(path)?.fd,
                    SourceLink::Bind | SourceLink::Copy => root.find_nofollow(path)?,
                };
                if bind.link == SourceLink::Copy && file_type(found.as_fd())? == FileType::Symlink {
                    return copy_link(root, mount, &read_link(found.as_fd())?);
                }
                let fd = sys::clone_tied(found.as_fd(), c"", bind.depth)?;
                if bind.idmap.is_some() {
                    map_ids(mount.index, fd.as_fd())?;
                }
                self.wanted(mount, bind.depth, Lock::Kernel).apply(fd.as_fd())?;
                fd
            }
        };
        if mount.destination == Path::new("/proc") {
            ensure!(
                is_procfs(source.as_fd())?,
                "{:?} cannot be mounted because it is not of type proc",
                mount.destination
            );
        }
        let target = bind_target(root, mount, bind, source.as_fd())?;
        Ok(sys::attach(source.as_fd(), target.as_fd())?)
    }

    fn host_source(&self, mount: &Mount, bind: &Bind, path: &CStr, held: Option<OwnedFd>) -> Result<OwnedFd> {
        match held {
            Some(fd) if self.sources == SourcesFrom::Parent || bind.idmap.is_some() => Ok(fd),
            held => match clone_source(path, bind) {
                Ok(fd) => self.wanted(mount, bind.depth, Lock::Kernel).apply(fd.as_fd()).map(|()| fd),
                // Container root may not reach it, the parent could.
                Err(error) if error.errno() == libc::EACCES => held.ok_or(error),
                Err(error) => Err(error),
            }
            .map_err(Into::into),
        }
    }
}

/// What a bind mount is mounted on, made if it is missing: a directory or a file, as the source is.
fn bind_target(root: &Root, mount: &Mount, bind: &Bind, source: BorrowedFd<'_>) -> Result<OwnedFd> {
    let found = if bind.onto_link {
        root.find_nofollow(&mount.destination).map(|fd| Found { fd, through_symlink: true })
    } else {
        root.find(&mount.destination)
    };
    let target = match found {
        Ok(found) if !found.through_symlink => return Ok(found.fd),
        Ok(found) => Ok(found.fd),
        Err(error) if error.errno() == libc::ENOENT => {
            if file_type(source)? == FileType::Directory {
                root.create_missing_dir(&mount.destination, 0o755)
            } else {
                root.create_file(&mount.destination, 0o644)
            }
        }
        Err(error) => Err(error),
    };
    let target = target.with_context(|| create_mountpoint(mount))?;
    // Also what was created: another process may have been faster, and have put a link there.
    check_resolved(root, target.as_fd(), &mount.destination)?;
    Ok(target)
}

/// Makes the link that `copy-symlink` asks for. Its target means something in the container only, and is not looked at.
fn copy_link(root: &Root, mount: &Mount, target: &CStr) -> Result<()> {
    root.create_link(&mount.destination, target).with_context(|| create_mountpoint(mount))
}

/// The target of a source that is a symbolic link. Whatever else is wrong with it is found when it is opened.
fn link_target(source: &CStr) -> Option<CString> {
    rustix::fs::readlinkat(rustix::fs::CWD, source, Vec::new()).ok()
}

fn read_link(link: BorrowedFd<'_>) -> Result<CString, Error> {
    rustix::fs::readlinkat(link, c"", Vec::new())
        .map_err(|errno| Error::new("readlinkat", "AT_EMPTY_PATH", errno.raw_os_error()))
}

fn clone_source(source: &CStr, bind: &Bind) -> Result<OwnedFd, Error> {
    match bind.link {
        SourceLink::Follow | SourceLink::Copy => sys::clone_tied(CWD, source, bind.depth),
        SourceLink::Bind => sys::clone_link(source, bind.depth),
    }
}

pub(super) fn set_idmap(fd: BorrowedFd<'_>, idmap: &IdMapping) -> Result<()> {
    let userns = match &idmap.maps {
        IdMaps::Given(uids, gids) => sys::user_namespace_of(&uids.as_proc_text(), &gids.as_proc_text())
            .context("a user namespace for the id maps")?,
        IdMaps::OfNamespace(path) => {
            let path = c_path(path)?;
            rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
                .map_err(|errno| Error::new("open", format!("{path:?}"), errno.raw_os_error()))?
        }
    };
    match sys::set_idmap(fd, idmap.depth, userns.as_fd()) {
        Err(error) if error.errno() == libc::EINVAL => {
            Err(error).context("idmap (this file system or kernel may have no id-mapped mounts)")
        }
        result => result.context("idmap"),
    }
}
