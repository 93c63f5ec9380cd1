//! `tmpcopyup`: a new tmpfs starts with a copy of the directory that it will hide.
//!
//! Both sides are descriptors; links are copied, never followed, and the copy is not yet attached anywhere. The image
//! chooses what is there: each entry is looked at by an O_PATH descriptor, and only directories and regular files are
//! opened, by that descriptor. Opening a device or a FIFO may wait, or do something.
//!
//! The new tmpfs may lack `nodev` and `nosuid` that the source has. So no device is copied, and a program loses its
//! set-id bits if they have no effect at the source.

use crate::log;
use crate::sys::Error;
use anyhow::{Context as _, Result, bail};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, Dir, FileType, Gid, Mode, OFlags, Stat, Uid};
use std::ffi::CStr;

/// Deeper than any sane tree, and far less than the stack holds.
const DEPTH: usize = 256;

/// Copies all that is in `from` into `to`.
///
/// # Errors
/// Something cannot be read, or does not fit.
pub(super) fn copy(from: BorrowedFd<'_>, to: BorrowedFd<'_>) -> Result<()> {
    copy_directory(open(from, c".", OFlags::RDONLY | OFlags::DIRECTORY)?, to, DEPTH)
}

fn call<T>(name: &'static str, at: &CStr, result: rustix::io::Result<T>) -> Result<T, Error> {
    result.map_err(|errno| Error::new(name, format!("{at:?}"), errno.raw_os_error()))
}

fn open(at: BorrowedFd<'_>, name: &CStr, flags: OFlags) -> Result<OwnedFd, Error> {
    call(
        "openat",
        name,
        rustix::fs::openat(at, name, flags | OFlags::NOFOLLOW | OFlags::CLOEXEC, Mode::empty()),
    )
}

fn copy_directory(from: OwnedFd, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    if depth == 0 {
        bail!("deeper than {DEPTH} directories");
    }
    let entries = call("getdents64", c".", Dir::read_from(&from))?;
    for entry in entries {
        let entry = call("getdents64", c".", entry)?;
        let name = entry.file_name();
        if name != c"." && name != c".." {
            copy_one(from.as_fd(), name, to, depth).with_context(|| name.to_string_lossy().into_owned())?;
        }
    }
    Ok(())
}

fn copy_one(from: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>, depth: usize) -> Result<()> {
    let entry = open(from, name, OFlags::PATH)?;
    let stat = call("fstat", name, rustix::fs::fstat(&entry))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let mode = Mode::from_raw_mode(stat.st_mode & 0o7777);
    match kind {
        FileType::Directory => {
            call("mkdirat", name, rustix::fs::mkdirat(to, name, Mode::RWXU))?;
            let inner = open(to, name, OFlags::RDONLY | OFlags::DIRECTORY)?;
            let outer = open(entry.as_fd(), c".", OFlags::RDONLY | OFlags::DIRECTORY)?;
            copy_directory(outer, inner.as_fd(), depth - 1)?;
        }
        FileType::RegularFile => copy_file(entry.as_fd(), name, to)?,
        FileType::Symlink => {
            let target = call("readlinkat", name, rustix::fs::readlinkat(&entry, c"", Vec::new()))?;
            call("symlinkat", name, rustix::fs::symlinkat(&target, to, name))?;
        }
        FileType::Fifo => call("mknodat", name, rustix::fs::mknodat(to, name, kind, mode, 0))?,
        FileType::CharacterDevice | FileType::BlockDevice => {
            log::debug(|| format!("init: tmpcopyup: {name:?} is a device and is not copied"));
            return Ok(());
        }
        // A socket file is of no use without its server.
        FileType::Socket | FileType::Unknown => return Ok(()),
    }
    keep_owner(to, name, &stat)?;
    let mode = if kind == FileType::RegularFile { mode_at(entry.as_fd(), name, mode)? } else { mode };
    if kind != FileType::Symlink {
        // Last: chown clears the set-user-ID bit. Nobody else sees the new tmpfs, so the name is what we made.
        call("fchmodat", name, rustix::fs::chmodat(to, name, mode, AtFlags::empty()))?;
    }
    Ok(())
}

/// The mode of a copy: without set-id bits if the mount of `entry` is nosuid.
fn mode_at(entry: BorrowedFd<'_>, name: &CStr, mode: Mode) -> Result<Mode, Error> {
    let set_id = Mode::SUID | Mode::SGID;
    if !mode.intersects(set_id) {
        return Ok(mode);
    }
    let system = call("fstatvfs", name, rustix::fs::fstatvfs(entry))?;
    let nosuid = system.f_flag.contains(rustix::fs::StatVfsMountFlags::NOSUID);
    Ok(if nosuid { mode.difference(set_id) } else { mode })
}

fn keep_owner(to: BorrowedFd<'_>, name: &CStr, stat: &Stat) -> Result<(), Error> {
    let (uid, gid) = (Uid::from_raw(stat.st_uid), Gid::from_raw(stat.st_gid));
    call("fchownat", name, rustix::fs::chownat(to, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW))
}

/// `entry` is the O_PATH descriptor of a regular file. Only a magic link reopens that very file.
fn copy_file(entry: BorrowedFd<'_>, name: &CStr, to: BorrowedFd<'_>) -> Result<()> {
    let path = format!("/proc/self/fd/{}", entry.as_raw_fd());
    let source = rustix::fs::open(&path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty());
    let mut source = std::fs::File::from(call("open", name, source)?);
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::CLOEXEC;
    let target = call("openat", name, rustix::fs::openat(to, name, flags, Mode::RUSR | Mode::WUSR))?;
    std::io::copy(&mut source, &mut std::fs::File::from(target))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::path::Root;
    use rustix::fs::{CWD, RenameFlags, inotify, renameat_with};
    use std::sync::atomic::{AtomicBool, Ordering};

    #[test]
    fn nothing_but_files_and_directories_is_opened() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path();
        let (source, target) = (base.join("source"), base.join("target"));
        std::fs::create_dir(&source).unwrap();
        std::fs::create_dir(&target).unwrap();
        let (file, fifo) = (source.join("file"), source.join("fifo"));
        std::fs::write(&file, "").unwrap();
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, 0o600.into(), 0).unwrap();
        let watch = inotify::init(inotify::CreateFlags::NONBLOCK).unwrap();
        inotify::add_watch(&watch, &fifo, inotify::WatchFlags::OPEN).unwrap();
        let stop = AtomicBool::new(false);
        std::thread::scope(|scope| {
            // The image exchanges one for the other while we copy.
            scope.spawn(|| {
                while !stop.load(Ordering::Relaxed) {
                    renameat_with(CWD, &file, CWD, &fifo, RenameFlags::EXCHANGE).unwrap();
                }
            });
            let from = Root::open_host(&source).unwrap();
            for n in 0..1000 {
                let to = target.join(n.to_string());
                std::fs::create_dir(&to).unwrap();
                copy(from.as_fd(), Root::open_host(&to).unwrap().as_fd()).unwrap();
            }
            stop.store(true, Ordering::Relaxed);
        });
        // The kernel tells of each open(2), but not of one with O_PATH.
        let told = rustix::io::read(&watch, &mut [0_u8; 512]);
        assert_eq!(told, Err(rustix::io::Errno::AGAIN), "the fifo was opened");
    }
}
