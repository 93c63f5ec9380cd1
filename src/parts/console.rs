//! `process.terminal` and `process.consoleSize`: a pseudo terminal of the container's own devpts (pty(7)).
//!
//! Init (for `exec`, the hop) opens it and sends the master side to the console socket or to the parent. The slave side
//! becomes the controlling terminal of the process. Not for: copying between the master side and the user's terminal
//! (`foreground.rs`).

use crate::sys::{self, Called, fd, mount, path::Root, tty};
use anyhow::{Context, Result, bail};
use rustix::fs::{FileType, OFlags};
use serde::Serialize;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// The terminal that the process asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Console {
    /// Columns and rows; `None` if the configuration gives no size.
    pub size: Option<(u16, u16)>,
    /// The container's user id that owns the terminal.
    pub owner: u32,
}

/// Decides the terminal; `None` if the process has none.
///
/// # Errors
/// The width or the height is above 65535.
pub fn plan(process: &crate::spec::Process) -> Result<Option<Console>> {
    if !process.terminal.unwrap_or(false) {
        return Ok(None);
    }
    let side = |value: u64, name: &str| {
        u16::try_from(value)
            .ok()
            .with_context(|| format!("process.consoleSize.{name}: {value} is above 65535"))
    };
    let size = match &process.console_size {
        Some(size) => Some((side(size.width(), "width")?, side(size.height(), "height")?)),
        None => None,
    };
    Ok(Some(Console { size, owner: process.user.uid() }))
}

/// Both sides of an open terminal.
#[derive(Debug)]
pub struct Pty {
    /// The side that the engine or the parent reads and writes.
    pub master: OwnedFd,
    /// The side that the container's process uses.
    pub slave: OwnedFd,
    /// `/dev/pts/N`, as the container sees it.
    pub name: String,
}

/// Connects to the engine's `--console-socket`. The parent does so before it makes anything.
///
/// # Errors
/// `ECONNREFUSED`: nobody listens there.
pub fn connect(socket: &Path) -> Result<OwnedFd> {
    let shown = || format!("{socket:?}");
    let address = nix::sys::socket::UnixAddr::new(socket).called("connect", shown)?;
    Ok(fd::connect(&address, shown)?)
}

/// Checks that init has sent the master side of a terminal.
///
/// # Errors
/// Init sent no descriptor, or one that is not a terminal's master side.
pub fn master(sent: Option<OwnedFd>) -> Result<OwnedFd> {
    let master = sent.context("process.terminal: init sent no descriptor")?;
    tty::number(master.as_fd()).context("process.terminal: init sent no master side of a terminal")?;
    Ok(master)
}

impl Console {
    /// Opens a new terminal of the container.
    ///
    /// Opens the master side by a path inside the container, and then checks that it is a ptmx device. Gets the slave
    /// side from the master side (TIOCGPTPEER), never by a path (CVE-2025-52565).
    ///
    /// # Errors
    /// The container has no devpts.
    pub fn open(&self, root: &Root) -> Result<Pty> {
        self.open_in(root).context("process.terminal")
    }

    fn open_in(&self, root: &Root) -> Result<Pty> {
        let master = open_ptmx(root)?;
        tty::unlock(master.as_fd())?;
        let slave = tty::peer(master.as_fd())?;
        let name = format!("/dev/pts/{}", tty::number(master.as_fd())?);
        // As in runc: the output of the process keeps its line ends.
        tty::keep_newlines(master.as_fd())?;
        if let Some((columns, rows)) = self.size {
            tty::set_size(master.as_fd(), columns, rows)?;
        }
        let owner = rustix::process::Uid::from_raw(self.owner);
        match rustix::fs::fchown(&slave, Some(owner), None) {
            // The user is not mapped in our user namespace, or the file system refuses. runc goes on as well.
            Ok(()) | Err(rustix::io::Errno::PERM | rustix::io::Errno::INVAL | rustix::io::Errno::ROFS) => {}
            Err(errno) => Err(errno).called("fchown", || format!("{name} {}", self.owner))?,
        }
        Ok(Pty { master, slave, name })
    }
}

fn open_ptmx(root: &Root) -> Result<OwnedFd> {
    let ptmx = rustix::fs::makedev(5, 2);
    let mut failure = None;
    for path in ["dev/pts/ptmx", "dev/ptmx"] {
        let handle = match root.open(Path::new(path), OFlags::PATH | OFlags::CLOEXEC) {
            Ok(handle) => handle,
            Err(error) => {
                failure.get_or_insert(error);
                continue;
            }
        };
        let found = rustix::fs::fstat(&handle).called("fstat", || path.into())?;
        if FileType::from_raw_mode(found.st_mode) != FileType::CharacterDevice || found.st_rdev != ptmx {
            continue;
        }
        let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC;
        return Ok(root.open(Path::new(path), flags).and_then(|master| check_ptmx(master, path))?);
    }
    match failure {
        Some(error) => Err(error.into()),
        None => bail!("/dev/ptmx is no ptmx device"),
    }
}

/// Checks the opened file again: the path may lead to another file by now.
fn check_ptmx(master: OwnedFd, path: &str) -> Result<OwnedFd, sys::Error> {
    match tty::number(master.as_fd()) {
        Ok(_) => Ok(master),
        Err(error) => Err(sys::Error::new("open", path, error.errno())),
    }
}

impl Pty {
    /// Mounts the slave side on /dev/console of a new container. The source is the descriptor, not a path.
    ///
    /// # Errors
    /// /dev/console is a link, or cannot be made.
    pub fn bind(&self, root: &Root) -> Result<()> {
        let mount = mount::clone_private(self.slave.as_fd(), c"", mount::Depth::One, 0)
            .context("process.terminal")?;
        super::devices::bind_fd_onto(root, mount.as_fd(), Path::new("dev/console"))
            .context("process.terminal: /dev/console")
    }

    /// Sends the master side to the engine: one message with the terminal's name and one descriptor.
    ///
    /// # Errors
    /// The engine has closed its end, or does not read for 10 seconds.
    pub fn send_to(&self, socket: BorrowedFd<'_>) -> Result<()> {
        fd::send(socket, self.name.as_bytes(), Some(self.master.as_fd())).context("--console-socket")
    }

    /// Makes the slave side the three standard streams, and closes our copy of the master side.
    pub fn become_stdio(self) -> Result<()> {
        fd::dup_to_stdio(self.slave.as_fd()).context("process.terminal")
    }
}
