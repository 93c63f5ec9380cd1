//! Bind mounts: their sources, opened by the parent or by init, and what they are mounted on.
//!
//! Not for: attributes and propagation (see `attributes`).

use super::apply::{MapIds, check_resolved, create_mountpoint, file_type, is_procfs};
use super::attributes::Lock;
use super::{Bind, BindSource, IdMapping, IdMaps, Mount, Mounts, SourceLink, SourcesFrom};
use crate::sys::Error;
use crate::sys::host_path::{self, LastLink, Place};
use crate::sys::mount as sys;
use crate::sys::path::{Found, Root, as_path, c_path};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags};
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
        let ours = self.sources != SourcesFrom::Init || bind.idmap.is_some();
        if !ours && bind.link != SourceLink::Copy {
            return Ok(None);
        }
        let source = match open_source(source, bind, || Root::open_host(&self.rootfs)) {
            Ok(Place::Host(source)) => source,
            // Init opens it in its turn, for earlier mounts may have put something there.
            Ok(Place::Root(_)) => return Ok(None),
            // Only root of a user namespace may do this there: init opens it, or says why it cannot.
            Err(_) if !ours || (self.rootless && bind.idmap.is_none()) => return Ok(None),
            Err(error) => return Err(error.into()),
        };
        if let Some(target) = link_to_copy(bind, source.as_fd())? {
            return Ok(Some(Opened::Link(target)));
        }
        if !ours {
            return Ok(None);
        }
        match self.hold_one(mount, bind, source.as_fd()) {
            Err(_) if self.rootless && bind.idmap.is_none() => Ok(None),
            held => held.map(|fd| Some(Opened::Mount(fd))),
        }
    }

    fn hold_one(&self, mount: &Mount, bind: &Bind, source: BorrowedFd<'_>) -> Result<OwnedFd> {
        let fd = sys::clone_tied(source, c"", bind.depth)?;
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
            BindSource::Host(path) => self.host_source(root, mount, bind, path, source, map_ids)?,
            BindSource::Root(path) => self.root_source(root, mount, bind, path, map_ids)?,
        };
        let source = match source {
            Opened::Mount(fd) => fd,
            Opened::Link(target) => return copy_link(root, mount, &target),
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

    /// A source that the configuration says as a path of the host.
    fn host_source(
        &self,
        root: &Root,
        mount: &Mount,
        bind: &Bind,
        path: &CStr,
        held: Option<OwnedFd>,
        map_ids: &MapIds<'_>,
    ) -> Result<Opened> {
        let held = match held {
            Some(fd) if self.sources == SourcesFrom::Parent || bind.idmap.is_some() => {
                return Ok(Opened::Mount(fd));
            }
            held => held,
        };
        let opened = match open_source(path, bind, || Ok(root.as_fd())) {
            Ok(Place::Root(path)) => return self.root_source(root, mount, bind, &path, map_ids),
            Ok(Place::Host(source)) => {
                if let Some(target) = link_to_copy(bind, source.as_fd())? {
                    return Ok(Opened::Link(target));
                }
                sys::clone_tied(source.as_fd(), c"", bind.depth)
            }
            Err(error) => Err(error),
        };
        let opened =
            opened.and_then(|fd| self.wanted(mount, bind.depth, Lock::Kernel).apply(fd.as_fd()).map(|()| fd));
        let opened = match opened {
            // Container root may not reach it, the parent could.
            Err(error) if error.errno() == libc::EACCES => held.ok_or(error),
            opened => opened,
        };
        Ok(opened.map(Opened::Mount)?)
    }

    /// A source in the root, in its turn among the mounts.
    fn root_source(
        &self,
        root: &Root,
        mount: &Mount,
        bind: &Bind,
        path: &Path,
        map_ids: &MapIds<'_>,
    ) -> Result<Opened> {
        let found = match bind.link {
            SourceLink::Follow => root.find(path)?.fd,
            SourceLink::Bind | SourceLink::Copy => root.find_nofollow(path)?,
        };
        if let Some(target) = link_to_copy(bind, found.as_fd())? {
            return Ok(Opened::Link(target));
        }
        let fd = sys::clone_tied(found.as_fd(), c"", bind.depth)?;
        if bind.idmap.is_some() {
            map_ids(mount.index, fd.as_fd())?;
        }
        self.wanted(mount, bind.depth, Lock::Kernel).apply(fd.as_fd())?;
        Ok(Opened::Mount(fd))
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

/// The target of `source`, if it is a link of which the configuration wants a copy.
fn link_to_copy(bind: &Bind, source: BorrowedFd<'_>) -> Result<Option<CString>, Error> {
    if bind.link != SourceLink::Copy || file_type(source)? != FileType::Symlink {
        return Ok(None);
    }
    rustix::fs::readlinkat(source, c"", Vec::new())
        .map(Some)
        .map_err(|errno| Error::new("readlinkat", "AT_EMPTY_PATH", errno.raw_os_error()))
}

/// Opens a source of the host, or says where in the root it is.
fn open_source<R: AsFd>(
    source: &CStr,
    bind: &Bind,
    root: impl FnOnce() -> Result<R, Error>,
) -> Result<Place, Error> {
    let last = match bind.link {
        SourceLink::Follow => LastLink::Follow,
        SourceLink::Bind | SourceLink::Copy => LastLink::Stay,
    };
    host_path::open(as_path(source), last, root)
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
