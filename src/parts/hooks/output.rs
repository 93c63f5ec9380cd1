//! The annotations `run.oci.hooks.stdout` and `run.oci.hooks.stderr` name host files that get the output of hooks.
//!
//! The specification does not define them; crun does.

use super::Hooks;
use crate::sys::{self, Called};
use anyhow::{Context, Result, ensure};
use rustix::fs::{Mode, OFlags};
use std::os::fd::OwnedFd;
use std::path::{Component, Path, PathBuf};

/// The files that hooks print to, opened while host paths can still be reached. If a field is `None`, the runtime keeps
/// the hook's output for the error message.
#[derive(Debug, Default)]
pub struct Output {
    pub(super) stdout: Option<OwnedFd>,
    pub(super) stderr: Option<OwnedFd>,
}

/// The only directory whose files the annotations may name if we are root. The author of an image or a pod may have
/// written the annotations, so they must not reach other files of the host. Root allows them by making this directory.
const OUTPUT: &str = "/var/log/orlop";

/// NONBLOCK keeps open(2) from waiting at a fifo that nobody reads. It is taken off again after the open.
const OUTPUT_FLAGS: OFlags = OFlags::CREATE
    .union(OFlags::WRONLY)
    .union(OFlags::APPEND)
    .union(OFlags::NONBLOCK)
    .union(OFlags::NOCTTY)
    .union(OFlags::CLOEXEC);

/// Returns true if we may write to any file of the host, or if we cannot tell.
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

/// Opens any file that an ordinary user may write to.
fn open_any(path: &Path) -> Result<OwnedFd> {
    let opened = rustix::fs::open(path, OUTPUT_FLAGS, Mode::from_raw_mode(0o600));
    let opened = opened.and_then(|file| rustix::fs::fcntl_setfl(&file, OFlags::APPEND).map(|()| file));
    Ok(opened.called("open", || format!("{path:?}"))?)
}

/// Opens a file in [`OUTPUT`]. Only root may write to that directory, so nobody else can have put a link there.
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
        "{OUTPUT}: another user than root owns it or may write to it (chown root, chmod go-w)"
    );
    let flags = OUTPUT_FLAGS | OFlags::NOFOLLOW;
    let file =
        rustix::fs::openat(&directory, name, flags, Mode::from_raw_mode(0o600)).called("open", shown)?;
    rustix::fs::fcntl_setfl(&file, OFlags::APPEND).called("fcntl", shown)?;
    Ok(file)
}

impl Hooks {
    /// Opens the files that hooks print to. Opens nothing if there are no hooks or no annotations.
    ///
    /// # Errors
    /// A file cannot be opened, or we are root and the file is not in /var/log/orlop.
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
