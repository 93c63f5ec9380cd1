//! state.json: all that a later verb may know of a container, and the directory it lies in.
//!
//! `<root>/<id>/state.json` is written before the first side effect of `create` (phase `creating`), and every
//! later change is one rename. The directory is the id: making it is the reservation, renaming it away is the
//! deletion. What a status is follows from the record, the process, the fifo and the freezer, and is never stored.

mod process;
mod record;

pub use process::{Process, boot_id};
pub use record::{Config, NamespaceEntry, Own, Record};

use crate::parts::seccomp::Filter;
use crate::sys::{self, Called};
use crate::wire::{FIFO, Gate, RESULT};
use anyhow::{Context, Result, bail};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const FILTER: &str = "seccomp.bpf";
const RECORD: &str = "state.json";
/// Not a character of ids: no container can have this name.
const GONE: &str = "~gone-";
/// No record of ours comes near this.
const RECORD_LIMIT: u64 = 16 << 20;

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

/// The directory of all containers (`--root`).
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    fd: OwnedFd,
}

impl Root {
    /// Opens it, making it if need be.
    ///
    /// # Errors
    /// It is no directory, or may not be made.
    pub fn create(path: &Path) -> Result<Self> {
        match Self::open(path) {
            Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => {}
            other => return other,
        }
        use std::os::unix::fs::DirBuilderExt;
        let made = std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path);
        made.called("mkdir", || format!("{path:?}")).context("--root")?;
        Self::open(path)
    }

    /// Opens it.
    ///
    /// # Errors
    /// It is not there, or no directory.
    pub fn open(path: &Path) -> Result<Self> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::open(path, flags, Mode::empty());
        Ok(Self { path: path.into(), fd: fd.called("open", || format!("{path:?}")).context("--root")? })
    }

    /// Takes `id` for a new container.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::InvalidId`].
    pub fn reserve(&self, id: &str) -> Result<ContainerDir> {
        check_id(id)?;
        match rustix::fs::mkdirat(&self.fd, id, Mode::from_raw_mode(0o700)) {
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists.into()),
            other => other.called("mkdirat", || format!("{:?}", self.path.join(id)))?,
        }
        self.container(id)
    }

    /// The directory of the container `id`.
    ///
    /// # Errors
    /// [`Error::NotFound`], [`Error::InvalidId`].
    pub fn container(&self, id: &str) -> Result<ContainerDir> {
        check_id(id)?;
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(&self.fd, id, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT | rustix::io::Errno::NOTDIR) => Err(Error::NotFound.into()),
            other => {
                let fd = other.called("openat", || format!("{:?}", self.path.join(id)))?;
                Ok(ContainerDir { path: self.path.join(id), fd })
            }
        }
    }

    /// All ids, sorted.
    ///
    /// # Errors
    /// The directory cannot be read.
    pub fn ids(&self) -> Result<Vec<String>> {
        let mut ids = Vec::new();
        for entry in Dir::read_from(&self.fd).called("getdents", || format!("{:?}", self.path))? {
            let entry = entry.called("getdents", || format!("{:?}", self.path))?;
            let name = entry.file_name().to_string_lossy();
            if check_id(&name).is_ok() && name != "." && name != ".." {
                ids.push(name.into_owned());
            } else if name.starts_with(GONE) {
                // A deletion that died behind its point of commit.
                let _ = self.clear(&name);
            }
        }
        ids.sort();
        Ok(ids)
    }

    /// Deletes the container's directory: the rename is the commit, from then on the id is free.
    ///
    /// # Errors
    /// Those of renameat2(2) and unlinkat(2).
    pub fn remove(&self, id: &str) -> Result<()> {
        check_id(id)?;
        let gone = format!("{GONE}{id}");
        match rustix::fs::renameat(&self.fd, id, &self.fd, &gone) {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            // What an earlier deletion that died left behind.
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
                self.clear(&gone)?;
                rustix::fs::renameat(&self.fd, id, &self.fd, &gone)
                    .called("renameat", || format!("{:?}", self.path.join(id)))?;
            }
            other => other.called("renameat", || format!("{:?}", self.path.join(id)))?,
        }
        self.clear(&gone)
    }

    /// Our own files only, in a directory that only we write to: no recursion, nothing is followed.
    fn clear(&self, name: &str) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(name));
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty()).called("openat", shown)?;
        clear_files(fd.as_fd(), 1).with_context(shown)?;
        rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).called("unlinkat", shown)?;
        Ok(())
    }
}

/// Unlinks the files in `dir`, and those in directories up to `depth` below it (the notify socket has one).
fn clear_files(dir: BorrowedFd<'_>, depth: u32) -> Result<()> {
    for entry in Dir::read_from(dir).called("getdents", String::new)? {
        let entry = entry.called("getdents", String::new)?;
        let name = entry.file_name();
        if matches!(name.to_bytes(), b"." | b"..") {
            continue;
        }
        match rustix::fs::unlinkat(dir, name, AtFlags::empty()) {
            Err(rustix::io::Errno::ISDIR) if depth > 0 => {
                let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let inner = rustix::fs::openat(dir, name, flags, Mode::empty())
                    .called("openat", || format!("{name:?}"))?;
                clear_files(inner.as_fd(), depth - 1)?;
                rustix::fs::unlinkat(dir, name, AtFlags::REMOVEDIR)
                    .called("unlinkat", || format!("{name:?}"))?;
            }
            Err(rustix::io::Errno::NOENT) => {}
            other => other.called("unlinkat", || format!("{name:?}"))?,
        }
    }
    Ok(())
}

/// Whether `id` may be a container's: letters, digits, `_`, `+`, `-`, `.`, but not `.` and `..`.
///
/// # Errors
/// [`Error::InvalidId`].
pub fn check_id(id: &str) -> Result<(), Error> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '+' | '-' | '.');
    let fits = !id.is_empty() && id.len() <= 255 && id.chars().all(allowed) && id != "." && id != "..";
    if fits { Ok(()) } else { Err(Error::InvalidId) }
}

/// The directory of one container.
#[derive(Debug)]
pub struct ContainerDir {
    path: PathBuf,
    fd: OwnedFd,
}

impl ContainerDir {
    /// Its descriptor.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// Its path, for messages and for what must be bound into the container.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Makes `record` the state: readers see the old one or the new one, never a mix. No fsync: after a power
    /// cut there is no container either, and the directory is a tmpfs.
    ///
    /// # Errors
    /// Those of open(2), write(2) and rename(2).
    pub fn commit(&self, record: &Record) -> Result<()> {
        let temporary = format!("{RECORD}.tmp");
        let shown = || format!("{:?}", self.path.join(&temporary));
        let text = serde_json::to_vec(record)?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, &temporary, flags, Mode::from_raw_mode(0o600));
        let mut file = std::fs::File::from(file.called("openat", shown)?);
        file.write_all(&text).called("write", shown)?;
        rustix::fs::renameat(&self.fd, &temporary, &self.fd, RECORD).called("renameat", shown)?;
        Ok(())
    }

    /// Reads the state.
    ///
    /// # Errors
    /// [`Error::NotFound`] when there is none, or what is wrong with it.
    pub fn load(&self) -> Result<Record> {
        let shown = || format!("{:?}", self.path.join(RECORD));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match rustix::fs::openat(&self.fd, RECORD, flags, Mode::empty()) {
            Err(rustix::io::Errno::NOENT) => return Err(Error::NotFound.into()),
            other => std::fs::File::from(other.called("openat", shown)?),
        };
        let mut text = Vec::new();
        file.take(RECORD_LIMIT).read_to_end(&mut text).called("read", shown)?;
        serde_json::from_slice(&text).with_context(shown)
    }

    /// Keeps the compiled filter for `exec`.
    ///
    /// # Errors
    /// Those of open(2) and write(2).
    pub fn store_filter(&self, filter: &Filter) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(FILTER));
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::WRONLY | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, FILTER, flags, Mode::from_raw_mode(0o600));
        let mut file = std::fs::File::from(file.called("openat", shown)?);
        Ok(file.write_all(&filter.encode()?).called("write", shown)?)
    }

    /// The filter that [`ContainerDir::store_filter`] kept.
    ///
    /// # Errors
    /// It is not there, or damaged.
    pub fn load_filter(&self) -> Result<Filter> {
        let shown = || format!("{:?}", self.path.join(FILTER));
        let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, FILTER, flags, Mode::empty()).called("openat", shown)?;
        let mut bytes = Vec::new();
        std::fs::File::from(file).take(RECORD_LIMIT).read_to_end(&mut bytes).called("read", shown)?;
        Filter::decode(&bytes).with_context(shown)
    }

    /// Keeps other commands from changing this container's state until the result is dropped.
    ///
    /// # Errors
    /// Another command holds it for longer than `seconds`.
    pub fn lock(&self, seconds: u32) -> Result<Lock> {
        // An open file of its own: a lock belongs to the open file, and `self.fd` may be inherited by a child.
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, ".", flags, Mode::empty());
        let fd = fd.called("openat", || format!("{:?}", self.path))?;
        match sys::fd::lock_exclusive(fd.as_fd(), seconds) {
            Err(error) if error.errno() == libc::EINTR => {
                bail!("flock {:?}: another command has held it for {seconds} s", self.path)
            }
            other => other?,
        }
        Ok(Lock { _fd: fd })
    }

    /// Makes the fifos that init will wait at, and opens init's ends.
    ///
    /// # Errors
    /// Those of mknod(2) and open(2).
    pub fn make_gate(&self) -> Result<Gate> {
        let make = |name: &str| {
            let shown = || format!("{:?}", self.path.join(name));
            let mode = Mode::from_raw_mode(0o600);
            rustix::fs::mknodat(&self.fd, name, rustix::fs::FileType::Fifo, mode, 0)
                .called("mknodat", shown)?;
            // For reading and writing: neither end waits for the other, and neither sees it close.
            let flags = OFlags::RDWR | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(&self.fd, name, flags, Mode::empty()).called("openat", shown)
        };
        Ok(Gate { go: make(FIFO)?, result: make(RESULT)? })
    }

    /// Makes a directory in it that others may enter, or opens the one that is there.
    ///
    /// # Errors
    /// Those of mkdir(2) and open(2).
    pub fn make_directory(&self, name: &str) -> Result<OwnedFd> {
        let shown = || format!("{:?}", self.path.join(name));
        match rustix::fs::mkdirat(&self.fd, name, Mode::from_raw_mode(0o755)) {
            Err(rustix::io::Errno::EXIST) => {}
            other => other.called("mkdirat", shown)?,
        }
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(rustix::fs::openat(&self.fd, name, flags, Mode::empty()).called("openat", shown)?)
    }

    /// Whether init waits for `start`.
    ///
    /// # Errors
    /// Those of stat(2).
    pub fn has_fifo(&self) -> Result<bool> {
        match rustix::fs::statat(&self.fd, FIFO, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(found) => Ok(rustix::fs::FileType::from_raw_mode(found.st_mode) == rustix::fs::FileType::Fifo),
            Err(rustix::io::Errno::NOENT) => Ok(false),
            Err(errno) => Ok(Err(errno).called("statat", || format!("{:?}", self.path.join(FIFO)))?),
        }
    }

    /// From now on the container is no longer `created`.
    ///
    /// # Errors
    /// Those of unlink(2).
    pub fn remove_gate(&self) -> Result<()> {
        for name in [FIFO, RESULT] {
            match rustix::fs::unlinkat(&self.fd, name, AtFlags::empty()) {
                Err(rustix::io::Errno::NOENT) => {}
                other => other.called("unlinkat", || format!("{:?}", self.path.join(name)))?,
            }
        }
        Ok(())
    }

    /// The status that follows from the record, the process, the freezer and the fifo.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub fn status(&self, record: &Record) -> Result<Status> {
        if record.orlop.phase == Phase::Creating {
            let at_work = record.orlop.owner.alive()? && same_boot(record)?;
            return Ok(if at_work { Status::Creating } else { Status::Stopped });
        }
        if !record.init().alive()? || !same_boot(record)? {
            return Ok(Status::Stopped);
        }
        if record.orlop.cgroup.frozen()? {
            return Ok(Status::Paused);
        }
        Ok(if self.has_fifo()? { Status::Created } else { Status::Running })
    }
}

/// Pids and start times begin anew with every boot.
fn same_boot(record: &Record) -> Result<bool> {
    Ok(boot_id()? == record.orlop.boot_id)
}

/// Held while a verb changes a container's state; released when dropped, and by the kernel when we die.
#[derive(Debug)]
pub struct Lock {
    _fd: OwnedFd,
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
        let root = match Root::open(root) {
            Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => return Err(Error::NotFound.into()),
            other => other?,
        };
        let dir = root.container(id)?;
        let record = dir.load()?;
        Ok(Self { dir, record })
    }

    /// Its status now.
    ///
    /// # Errors
    /// As [`ContainerDir::status`].
    pub fn status(&self) -> Result<Status> {
        self.dir.status(&self.record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_has_no_slash_and_is_no_directory_entry() {
        for id in ["a", "A-b_c+d.e", "...", "0"] {
            assert_eq!(check_id(id), Ok(()), "{id}");
        }
        for id in ["", ".", "..", "a/b", "../x", "a b", "é", "~gone-x", "a\0"] {
            assert_eq!(check_id(id), Err(Error::InvalidId), "{id}");
        }
    }

    #[test]
    fn an_id_is_reserved_once_and_free_again_after_removal() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Root::create(&temporary.path().join("a/b")).unwrap();
        let dir = root.reserve("c1").unwrap();
        dir.make_gate().unwrap();
        assert!(dir.has_fifo().unwrap());
        let again = root.reserve("c1").unwrap_err();
        assert_eq!(again.downcast_ref(), Some(&Error::Exists));
        assert_eq!(root.ids().unwrap(), ["c1"]);
        root.remove("c1").unwrap();
        assert!(root.ids().unwrap().is_empty());
        root.reserve("c1").unwrap();
    }

    #[test]
    fn a_deletion_that_died_halfway_is_swept_by_the_next_look() {
        let temporary = tempfile::tempdir().unwrap();
        let root = Root::create(temporary.path()).unwrap();
        std::fs::create_dir(temporary.path().join("~gone-x")).unwrap();
        std::fs::write(temporary.path().join("~gone-x/state.json"), "").unwrap();
        assert!(root.ids().unwrap().is_empty());
        assert!(!temporary.path().join("~gone-x").exists());
    }
}
