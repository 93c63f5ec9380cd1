//! The annotations `run.oci.hooks.stdout` and `run.oci.hooks.stderr`: files of the host for what hooks print.

use super::Hooks;
use crate::sys::{self, Called};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// Where hooks print to, opened while the host is seen; what is `None` is kept for the error of a hook that fails.
#[derive(Debug, Default)]
pub struct Output {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// The directory for what hooks print where we are root. Annotations may come from the author of an image or of a pod: as
/// root they must not name any file of the host. Root allows it by making this directory.
const OUTPUT: &str = "/var/log/orlop";

/// NONBLOCK, but only for the moment: a fifo that nobody reads must not stop us.
const OUTPUT_FLAGS: OFlags = OFlags::CREATE
    .union(OFlags::WRONLY)
    .union(OFlags::APPEND)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Whether we may write to any file of the host. In doubt we may.
fn is_root_of_host() -> bool {
    let mapped = |map: Vec<u8>| {
        !map.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).eq([
            &b"0"[..],
            b"0",
            b"4294967295",
        ])
    };
    rustix::process::geteuid().is_root() && !sys::fd::read_proc("/proc/self/uid_map").is_ok_and(mapped)
}

/// An ordinary user's hooks print to whatever file the user may write to.
fn open_any(path: &Path) -> Result<OwnedFd> {
    let opened = rustix::fs::open(path, OUTPUT_FLAGS, Mode::from_raw_mode(0o600));
    let opened = opened.and_then(|file| rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map(|()| file));
    Ok(opened.called("open", || format!("{path:?}"))?)
}

/// A file in [`OUTPUT`], which is root's alone: nobody else can have put a link there.
fn open_in_directory(path: &Path) -> Result<OwnedFd> {
    let is_name = |name: &&Path| matches!(*name.components().collect::<Vec<_>>(), [Component::Normal(_)]);
    let name = path.strip_prefix(OUTPUT).ok().filter(is_name);
    let shown = || format!("{path:?}");
    let name = name.with_context(|| {
        format!("{path:?} is not a file in {OUTPUT}: as root, hooks print only there, and only if root has made it")
    })?;
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let directory = rustix::fs::open(OUTPUT, flags, Mode::empty())
        .called("open", || format!("{OUTPUT:?} (as root, hooks print only there)"))?;
    let found = rustix::fs::fstat(&directory).called("fstat", || OUTPUT.into())?;
    let roots_alone = found.st_uid == 0 && found.st_mode & 0o022 == 0;
    ensure!(
        roots_alone,
        "{OUTPUT}: other users than root own it or may write to it (chown root, chmod go-w)"
    );
    let flags = OUTPUT_FLAGS | OFlags::NOFOLLOW;
    let file =
        rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600)).called("open", shown)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND).called("fcntl", shown)?;
    Ok(file)
}

impl Hooks {
    /// Opens the files that hooks print to, if there are hooks and files.
    ///
    /// # Errors
    /// A file cannot be opened.
    pub fn open_output(&self) -> Result<Output> {
        if self.lists.is_empty() {
            return Ok(Output::default());
        }
        let open = |path: &Option<PathBuf>, name: &str| -> Result<Option<OwnedFd>> {
            let Some(path) = path else { return Ok(None) };
            let opened = if is_root_of_host() { open_in_directory(path) } else { open_any(path) };
            Ok(Some(opened.with_context(|| format!("annotations {name}"))?))
        };
        Ok(Output {
            stdout: open(&self.stdout, "run.oci.hooks.stdout")?,
            stderr: open(&self.stderr, "run.oci.hooks.stderr")?,
        })
    }
}
