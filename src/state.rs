//! state.json: all that a later verb may know of a container, and the directory it lies in.
//!
//! `<root>/<id>/state.json` is written before the first side effect of `create` (phase `creating`), and every
//! later change is one rename. The directory is the id: it gets its name with the record in it, which is the
//! reservation, and loses it by being renamed away, which is the deletion: nobody ever sees one without a record.
//! What a status is follows from the record, the process and the freezer, and is never stored.

mod lock;
mod process;
mod record;

pub use lock::Lock;
pub use process::{Process, Run, boot_id};
pub use record::{Config, IdMapEntry, MountEntry, NamespaceEntry, Own, Record, Shown};

use crate::parts::seccomp::Filter;
use crate::sys::{self, Called};
use crate::wire::{FIFO, Gate, RESULT};
use anyhow::{Context, Result, ensure};
use rustix::fs::{AtFlags, Dir, Mode, OFlags};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::io::{Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

const FILTER: &str = "seccomp.bpf";
const RECORD: &str = "state.json";
/// What a container's directory is called while it is being made, and when it has been deleted; the number of the
/// process that does so follows. `~` is not a character of ids: no container can have such a name.
const NEW: &str = "~new-";
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

    /// Takes the id of `record` for a new container, and writes it down.
    ///
    /// # Errors
    /// [`Error::Exists`], [`Error::InvalidId`].
    pub fn reserve(&self, record: &Record) -> Result<ContainerDir> {
        check_id(&record.id)?;
        let new = own_name(NEW);
        let shown = || format!("{:?}", self.path.join(&new));
        let make = || rustix::fs::mkdirat(&self.fd, &*new, Mode::from_raw_mode(0o700));
        match make() {
            // Of a process that had our number and died here.
            Err(rustix::io::Errno::EXIST) => {
                self.clear(&new)?;
                make()
            }
            other => other,
        }
        .called("mkdirat", shown)?;
        let reserved = self.name(&new, record);
        if reserved.is_err() {
            // The reason is what counts; what is left is swept by the next `list` or `delete`.
            let _ = self.clear(&new);
        }
        reserved
    }

    fn name(&self, new: &str, record: &Record) -> Result<ContainerDir> {
        let path = self.path.join(&record.id);
        let dir = ContainerDir { fd: self.open_entry(new)?, path };
        dir.write(RECORD, record)?;
        let flags = rustix::fs::RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.fd, new, &self.fd, &*record.id, flags) {
            Err(rustix::io::Errno::EXIST) => return Err(Error::Exists.into()),
            other => other.called("renameat2", || format!("{:?}", dir.path))?,
        }
        Ok(dir)
    }

    /// The error that a container has this id already, if one has.
    pub fn taken(&self, id: &str) -> Option<anyhow::Error> {
        let found = rustix::fs::accessat(&self.fd, id, rustix::fs::Access::EXISTS, AtFlags::empty());
        found.is_ok().then(|| Error::Exists.into())
    }

    fn open_entry(&self, name: &str) -> Result<OwnedFd> {
        let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let fd = rustix::fs::openat(&self.fd, name, flags, Mode::empty());
        Ok(fd.called("openat", || format!("{:?}", self.path.join(name)))?)
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
            } else if name.starts_with(GONE) || name.strip_prefix(NEW).is_some_and(is_nobody) {
                // A deletion that died behind its point of commit, a creation that died before it.
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
        let gone = own_name(GONE);
        let rename = || rustix::fs::renameat(&self.fd, id, &self.fd, &*gone);
        match rename() {
            Err(rustix::io::Errno::NOENT) => return Ok(()),
            // Of a process that had our number and died here.
            Err(rustix::io::Errno::EXIST | rustix::io::Errno::NOTEMPTY) => {
                self.clear(&gone)?;
                rename()
            }
            other => other,
        }
        .called("renameat", || format!("{:?}", self.path.join(id)))?;
        // It is deleted: what cannot be cleared now, or at once again, is swept by the next `list` or `delete`.
        if let Err(error) = self.clear(&gone).or_else(|_| self.clear(&gone)) {
            crate::log::warn(format!("{error:#}, ignoring"));
        }
        Ok(())
    }

    /// Our own files only, in a directory that only we write to: no recursion, nothing is followed.
    fn clear(&self, name: &str) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(name));
        let fd = match self.open_entry(name) {
            // Somebody else has swept it.
            Err(error) if sys::errno_of(&error) == Some(libc::ENOENT) => return Ok(()),
            other => other?,
        };
        // Mostly there is no more to it than these, and no list is needed.
        for file in [RECORD, FILTER] {
            let _ = rustix::fs::unlinkat(&fd, file, AtFlags::empty());
        }
        if rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR).is_ok() {
            return Ok(());
        }
        clear_files(fd.as_fd(), 1).with_context(shown)?;
        match rustix::fs::unlinkat(&self.fd, name, AtFlags::REMOVEDIR) {
            Err(rustix::io::Errno::NOENT) => Ok(()),
            other => Ok(other.called("unlinkat", shown)?),
        }
    }
}

/// A name for a directory that is not a container's (yet, or any more), by our process number.
fn own_name(prefix: &str) -> String {
    format!("{prefix}{}", rustix::process::getpid().as_raw_nonzero())
}

/// Whether no process has this number, or one that has ended and was not waited for yet.
fn is_nobody(number: &str) -> bool {
    let Some(pid) = number.parse().ok().and_then(rustix::process::Pid::from_raw) else { return true };
    let ended = || Process::of(pid.as_raw_pid()).and_then(|found| found.alive()).is_ok_and(|alive| !alive);
    rustix::process::test_kill_process(pid) == Err(rustix::io::Errno::SRCH) || ended()
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
        self.write(&temporary, record)?;
        rustix::fs::renameat(&self.fd, &*temporary, &self.fd, RECORD)
            .called("renameat", || format!("{:?}", self.path.join(RECORD)))?;
        Ok(())
    }

    fn write(&self, name: &str, record: &Record) -> Result<()> {
        let shown = || format!("{:?}", self.path.join(name));
        let text = serde_json::to_vec(&record::Written::of(record))?;
        let flags = OFlags::CREATE | OFlags::TRUNC | OFlags::WRONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = rustix::fs::openat(&self.fd, name, flags, Mode::from_raw_mode(0o600));
        std::fs::File::from(file.called("openat", shown)?).write_all(&text).called("write", shown)?;
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
        let mut text = Vec::with_capacity(8 << 10);
        file.take(RECORD_LIMIT).read_to_end(&mut text).called("read", shown)?;
        let text = std::str::from_utf8(&text).with_context(shown)?;
        serde_json::from_str(text).with_context(shown)
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
        let mut bytes = Vec::with_capacity(8 << 10);
        std::fs::File::from(file).take(RECORD_LIMIT).read_to_end(&mut bytes).called("read", shown)?;
        Filter::decode(&bytes).with_context(shown)
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

    /// Nobody waits there any more.
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

    /// The status that follows from the record, the process and the freezer.
    ///
    /// # Errors
    /// One of them cannot be looked at.
    pub fn status(&self, record: &Record) -> Result<Status> {
        if record.orlop.phase == Phase::Creating {
            let at_work = record.orlop.owner.alive()? && same_boot(record)?;
            return Ok(if at_work { Status::Creating } else { Status::Stopped });
        }
        let Some(run) = record.init().look()? else { return Ok(Status::Stopped) };
        if !same_boot(record)? {
            return Ok(Status::Stopped);
        }
        if record.orlop.cgroup.frozen()? {
            return Ok(Status::Paused);
        }
        Ok(match run {
            Run::Forked => Status::Created,
            Run::Executed => Status::Running,
        })
    }
}

/// Pids and start times begin anew with every boot.
fn same_boot(record: &Record) -> Result<bool> {
    Ok(boot_id()? == record.orlop.boot_id)
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
        // What later verbs remove is what the record names.
        ensure!(record.id == id, "{:?}: is of container {:?}", dir.path.join(RECORD), record.id);
        Ok(Self { dir, record })
    }

    /// Its status now.
    ///
    /// # Errors
    /// As [`ContainerDir::status`].
    pub fn status(&self) -> Result<Status> {
        self.dir.status(&self.record)
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
