//! `--pid-file`: written so that a reader never sees a part of it.

use crate::sys::Called;
use anyhow::{Context, Result};
use std::os::fd::AsRawFd;
use std::path::Path;

/// Writes `pid` in decimal, without a newline. The file gets its name when it is complete.
pub fn write(path: &Path, pid: i32) -> Result<()> {
    use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, openat};
    let name = path.file_name().with_context(|| format!("{path:?}: no file name"))?;
    let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let shown = || format!("{path:?}");
    let flags = OFlags::DIRECTORY | OFlags::RDONLY | OFlags::CLOEXEC;
    let dir = openat(CWD, parent, flags, Mode::empty()).called("open", || format!("{parent:?}"))?;
    let flags = OFlags::TMPFILE | OFlags::WRONLY | OFlags::CLOEXEC;
    let file = match openat(&dir, ".", flags, Mode::from_raw_mode(0o666)) {
        // This file system has no nameless files (O_TMPFILE).
        Err(rustix::io::Errno::OPNOTSUPP | rustix::io::Errno::ISDIR | rustix::io::Errno::INVAL) => {
            return write_beside(path, pid);
        }
        other => other.called("open", shown)?,
    };
    rustix::io::write(&file, pid.to_string().as_bytes()).called("write", shown)?;
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    let link = || linkat(CWD, &*own, &dir, name, AtFlags::SYMLINK_FOLLOW);
    match link() {
        // A file of an earlier container. A symbolic link is removed, not followed.
        Err(rustix::io::Errno::EXIST) => {
            rustix::fs::unlinkat(&dir, name, AtFlags::empty()).called("unlink", shown)?;
            link()
        }
        other => other,
    }
    .called("linkat", shown)?;
    Ok(())
}

/// Writes the file under a second name, and renames it.
fn write_beside(path: &Path, pid: i32) -> Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let temporary = path.with_file_name(format!(".{name}"));
    let shown = || format!("{temporary:?}");
    // O_EXCL: a link that somebody has put there is not followed.
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true).mode(0o666).custom_flags(libc::O_CLOEXEC);
    let file = match options.open(&temporary) {
        // Left by a runtime that died here.
        Err(error) if error.raw_os_error() == Some(libc::EEXIST) => {
            std::fs::remove_file(&temporary).called("unlink", shown)?;
            options.open(&temporary)
        }
        other => other,
    };
    file.called("open", shown)?.write_all(pid.to_string().as_bytes()).called("write", shown)?;
    Ok(std::fs::rename(&temporary, path).called("rename", || format!("{path:?}"))?)
}
