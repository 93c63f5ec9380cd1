//! One directory of a container in one mounted hierarchy, and the only code that touches its files.
//!
//! Everything below the mount point is reached by openat2(2), without symlinks and without crossing mounts. The
//! directory fd that each path begins at is verified to be on a cgroup file system.
//! Not for: what the files mean (`v1`, `v2`), the cgroups that a container makes below (`walk`).

use crate::sys::{Called, Error};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::cell::{Cell, OnceCell};
use std::ffi::CStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

const CGROUP_SUPER_MAGIC: i64 = 0x0027_e0eb;
const CGROUP2_SUPER_MAGIC: i64 = 0x6367_7270;

/// How long a walk through all cgroups below one may take: a container may have made very many.
pub(super) const WALK_PATIENCE: Duration = Duration::from_secs(30);

/// No path below a mount point may lead out of it.
const BENEATH: ResolveFlags = ResolveFlags::BENEATH
    .union(ResolveFlags::NO_SYMLINKS)
    .union(ResolveFlags::NO_MAGICLINKS)
    .union(ResolveFlags::NO_XDEV);

/// The container's directory in one hierarchy.
#[derive(Debug, Serialize, Deserialize)]
pub struct Hierarchy {
    /// The controllers and `name=…` of the mount; empty for the version 2 tree.
    pub controllers: Vec<String>,
    /// Where it is mounted.
    pub mount: PathBuf,
    /// The container's directory, relative to the mount point; empty for the root.
    pub path: PathBuf,
    #[serde(skip)]
    root: OnceCell<OwnedFd>,
    #[serde(skip)]
    leaf: OnceCell<OwnedFd>,
    /// True if this process made the directory: then no other process has set anything in it.
    #[serde(skip)]
    fresh: Cell<bool>,
}

/// Whether this is a cgroup file system, of version 2 or 1.
#[allow(clippy::unnecessary_cast)] // the field has another type on other architectures
pub fn is_cgroup(found: &rustix::fs::StatFs, unified: bool) -> bool {
    found.f_type as i64 == if unified { CGROUP2_SUPER_MAGIC } else { CGROUP_SUPER_MAGIC }
}

/// Whether the error says that the cgroup does not exist, or no longer.
pub fn gone(error: &Error) -> bool {
    matches!(error.errno(), libc::ENOENT | libc::ENODEV)
}

impl Hierarchy {
    /// A directory in a hierarchy. It is opened at its first use.
    pub fn new(controllers: Vec<String>, mount: impl Into<PathBuf>, path: impl Into<PathBuf>) -> Self {
        Self {
            controllers,
            mount: mount.into(),
            // Collected, because a join with an empty path leaves a slash at the end.
            path: path.into().components().collect(),
            root: OnceCell::new(),
            leaf: OnceCell::new(),
            fresh: Cell::new(false),
        }
    }

    /// Another directory in the same hierarchy.
    pub fn at(&self, path: impl Into<PathBuf>) -> Self {
        Self::new(self.controllers.clone(), &self.mount, path)
    }

    /// Whether this is the version 2 tree.
    pub fn unified(&self) -> bool {
        self.controllers.is_empty()
    }

    /// Whether this hierarchy has the controller (or the `name=`).
    pub fn has(&self, controller: &str) -> bool {
        self.controllers.iter().any(|name| name == controller)
    }

    /// The directory as a path on the host.
    pub fn dir(&self) -> PathBuf {
        if self.path.as_os_str().is_empty() { self.mount.clone() } else { self.mount.join(&self.path) }
    }

    /// Whether the directory was made by this process.
    pub fn fresh(&self) -> bool {
        self.fresh.get()
    }

    /// The root of the mount, for paths below it.
    fn root(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(fd) = self.root.get() {
            return Ok(fd.as_fd());
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(CWD, &self.mount, flags, Mode::empty(), ResolveFlags::NO_MAGICLINKS)
            .called("openat2", || format!("{:?} (O_PATH)", self.mount))?;
        self.verify(fd.as_fd())?;
        Ok(self.root.get_or_init(|| fd).as_fd())
    }

    /// The container's directory itself, open for reading.
    ///
    /// # Errors
    /// It does not exist, or is not on a cgroup file system.
    pub fn leaf(&self) -> Result<BorrowedFd<'_>, Error> {
        if let Some(fd) = self.leaf.get() {
            return Ok(fd.as_fd());
        }
        let fd = match self.root.get() {
            Some(_) => self.open_below("", OFlags::DIRECTORY)?,
            None => {
                // This takes one call less than opening the root first. `verify` checks the file system afterwards.
                let flags = OFlags::DIRECTORY | OFlags::CLOEXEC;
                let resolve = ResolveFlags::NO_SYMLINKS | ResolveFlags::NO_MAGICLINKS;
                let fd = rustix::fs::openat2(CWD, self.dir(), flags, Mode::empty(), resolve)
                    .called("openat2", || format!("{:?}", self.dir()))?;
                self.verify(fd.as_fd())?;
                fd
            }
        };
        Ok(self.leaf.get_or_init(|| fd).as_fd())
    }

    fn verify(&self, fd: BorrowedFd<'_>) -> Result<(), Error> {
        let found = rustix::fs::fstatfs(fd).called("fstatfs", || format!("{:?}", self.mount))?;
        if !is_cgroup(&found, self.unified()) {
            return Err(Error::new(
                "fstatfs",
                format!("{:?} is no cgroup file system", self.mount),
                libc::EINVAL,
            ));
        }
        Ok(())
    }

    /// Opens a file of the container's directory, or of a sub-cgroup (`sub/cgroup.procs`).
    pub fn open(&self, file: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Error> {
        self.open_below(file.as_ref(), flags)
    }

    fn open_below(&self, name: impl AsRef<Path>, flags: OFlags) -> Result<OwnedFd, Error> {
        let name = name.as_ref();
        let joined;
        let (from, path) = match self.leaf.get() {
            Some(leaf) => (leaf.as_fd(), name),
            None => {
                joined = self.path.join(name);
                (self.root()?, joined.as_path())
            }
        };
        let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        rustix::fs::openat2(from, path, flags | OFlags::CLOEXEC, Mode::empty(), BENEATH)
            .called("openat2", || format!("{:?}", self.dir().join(name)))
    }

    /// The content of a file.
    pub fn read(&self, file: impl AsRef<Path>) -> Result<String, Error> {
        let file = file.as_ref();
        let fd = self.open(file, OFlags::RDONLY)?;
        read_all(fd.as_fd()).called("read", || format!("{:?}", self.dir().join(file)))
    }

    /// The content of a file of the directory above.
    pub fn read_above(&self, file: &str) -> Result<String, Error> {
        let path = self.path.parent().unwrap_or(Path::new("")).join(file);
        let shown = || format!("{:?}", self.mount.join(&path));
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let fd = rustix::fs::openat2(self.root()?, &path, flags, Mode::empty(), BENEATH)
            .called("openat2", shown)?;
        read_all(fd.as_fd()).called("read", shown)
    }

    /// The content of a file; `None` if the kernel does not have the file.
    pub fn read_if_there(&self, file: impl AsRef<Path>) -> Result<Option<String>, Error> {
        match self.read(file) {
            Ok(content) => Ok(Some(content)),
            // EOPNOTSUPP: the kernel was booted without pressure information (psi=0).
            Err(error) if gone(&error) || error.errno() == libc::EOPNOTSUPP => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Writes a value into a file, in one write(2).
    ///
    /// # Errors
    /// The file is not there, or the kernel does not take the value.
    pub fn write(&self, file: impl AsRef<Path>, value: &str) -> Result<(), Error> {
        let file = file.as_ref();
        let fd = self.open(file, OFlags::WRONLY)?;
        self.put(fd.as_fd(), file, value)
    }

    /// Writes one more value into a file that is open already.
    pub fn put(&self, fd: BorrowedFd<'_>, file: impl AsRef<Path>, value: &str) -> Result<(), Error> {
        rustix::io::retry_on_intr(|| rustix::io::write(fd, value.as_bytes()))
            .map(drop)
            .called("write", || format!("{:?} {value:?}", self.dir().join(file.as_ref())))
    }

    /// Makes the directory and those above it that are missing. A directory that exists is taken as it is.
    pub fn make(&self) -> Result<(), Error> {
        let Some(name) = self.path.file_name() else { return Ok(()) };
        let root = self.root()?;
        let above = self.path.parent().unwrap_or(Path::new(""));
        let parent;
        let from = if above.as_os_str().is_empty() {
            root
        } else {
            parent = match self.step(root, above) {
                Err(error) if error.errno() == libc::ENOENT => self.make_each(above)?,
                opened => opened?,
            };
            parent.as_fd()
        };
        let made = match rustix::fs::mkdirat(from, name, Mode::from_raw_mode(0o755)) {
            Err(Errno::EXIST) => false,
            done => done.map(|()| true).called("mkdirat", || format!("{:?}", self.dir()))?,
        };
        self.fresh.set(made);
        Ok(())
    }

    fn make_each(&self, path: &Path) -> Result<OwnedFd, Error> {
        let mut at = rustix::io::fcntl_dupfd_cloexec(self.root()?, 0).called("fcntl", String::new)?;
        for name in path {
            match rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)) {
                Ok(()) | Err(Errno::EXIST) => {}
                failed => {
                    failed.called("mkdirat", || format!("{:?} in {:?}", name, self.mount.join(path)))?;
                }
            }
            at = self.step(at.as_fd(), Path::new(name))?;
        }
        Ok(at)
    }

    fn step(&self, from: BorrowedFd<'_>, path: &Path) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(from, path, flags, Mode::empty(), BENEATH)
            .called("openat2", || format!("{path:?} in {:?}", self.mount))
    }

    /// Removes the directory and its sub-cgroups; waits until `deadline` for killed processes to end.
    ///
    /// # Errors
    /// A process lives on, or the kernel refuses.
    pub fn remove(&self, deadline: Instant) -> Result<(), Error> {
        if self.path.as_os_str().is_empty() {
            return Ok(());
        }
        match rustix::fs::unlinkat(CWD, self.dir(), AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT) => return Ok(()),
            Err(_) => {}
        }
        // On a read-only mount rmdir(2) says EROFS also for a missing directory: so look whether it exists.
        match self.leaf() {
            Err(error) if gone(&error) => return Ok(()),
            opened => opened?,
        };
        if self.unified() {
            self.wait_unpopulated(deadline)?;
        }
        let mut pause = Duration::from_millis(1);
        loop {
            let limit = deadline + WALK_PATIENCE;
            match self.walk(limit, |_| Ok(()), |above, name| self.remove_below(above, name)) {
                // Another process removes them at the same time.
                Err(error) if gone(&error) => {}
                walked => walked?,
            }
            match rustix::fs::unlinkat(CWD, self.dir(), AtFlags::REMOVEDIR) {
                Ok(()) | Err(Errno::NOENT) => return Ok(()),
                // Version 1 has no event to wait for. In both versions a reference may remain for a moment after the
                // last process.
                Err(Errno::BUSY | Errno::INTR) if Instant::now() < deadline => {
                    std::thread::sleep(pause);
                    pause = (pause * 2).min(Duration::from_millis(100));
                }
                failed => return failed.called("rmdir", || format!("{:?}", self.dir())),
            }
        }
    }

    /// Removes one cgroup. A cgroup with processes, or with new cgroups in it, stays.
    fn remove_below(&self, above: BorrowedFd<'_>, name: &CStr) -> Result<(), Error> {
        match rustix::fs::unlinkat(above, name, AtFlags::REMOVEDIR) {
            Ok(()) | Err(Errno::NOENT | Errno::BUSY | Errno::INTR) => Ok(()),
            failed => failed.called("rmdir", || format!("{name:?} below {:?}", self.dir())),
        }
    }

    /// Version 2: waits until no process is left, here and below. At the deadline it returns without an error: the
    /// rmdir that follows reports the reason.
    fn wait_unpopulated(&self, deadline: Instant) -> Result<(), Error> {
        match self.wait_event("populated 0", deadline) {
            Err(error) if gone(&error) => Ok(()),
            waited => waited.map(drop),
        }
    }

    /// Version 2: waits until `cgroup.events` has the line; `false` at the deadline.
    pub fn wait_event(&self, line: &str, deadline: Instant) -> Result<bool, Error> {
        use rustix::event::{PollFd, PollFlags, Timespec, poll};
        const FILE: &str = "cgroup.events";
        let fd = self.open(FILE, OFlags::RDONLY)?;
        loop {
            let events = pread_all(fd.as_fd()).called("read", || format!("{:?}", self.dir().join(FILE)))?;
            if events.lines().any(|found| found == line) {
                return Ok(true);
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                return Ok(false);
            }
            let timeout = Timespec { tv_sec: left.as_secs() as i64, tv_nsec: i64::from(left.subsec_nanos()) };
            match poll(&mut [PollFd::new(&fd, PollFlags::PRI)], Some(&timeout)) {
                Ok(_) | Err(Errno::INTR) => {}
                failed => {
                    failed.called("poll", || format!("{:?}", self.dir().join(FILE)))?;
                }
            }
        }
    }
}

/// Reads an open file to its end. Bytes that are not UTF-8 become U+FFFD; callers use only the kernel's own words.
pub(super) fn read_all(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut content = vec![];
    let mut buffer = [0u8; 4096];
    loop {
        match rustix::io::read(fd, &mut buffer) {
            Ok(0) => return Ok(String::from_utf8_lossy(&content).into_owned()),
            Ok(length) => content.extend_from_slice(buffer.get(..length).unwrap_or_default()),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(errno),
        }
    }
}

/// Reads a file from its beginning, each time. These files fit into a page.
fn pread_all(fd: BorrowedFd<'_>) -> Result<String, Errno> {
    let mut buffer = [0u8; 4096];
    let length = rustix::io::retry_on_intr(|| rustix::io::pread(fd, &mut buffer, 0))?;
    Ok(String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned())
}

/// The number that follows `key` in a file of `key number` lines.
pub fn value_of(content: &str, key: &str) -> Option<u64> {
    content.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(' ')?.trim().parse().ok())
}
