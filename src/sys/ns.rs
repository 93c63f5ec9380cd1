//! Namespaces: opening, checking, joining (setns(2)), leaving (unshare(2)).

use super::{Called, Error, check};
use rustix::fs::{Mode, OFlags};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// CLONE_NEWTIME; libc has it only as part of a comment on the signal mask of clone(2).
pub const NEWTIME: i32 = 0x80;

const NSFS_MAGIC: i64 = 0x6e73_6673;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const PIDFD_GET_NET_NAMESPACE: libc::Ioctl = 0xff04;
const PIDFD_GET_USER_NAMESPACE: libc::Ioctl = 0xff09;

/// Opens the namespace file `path` and checks that it is a namespace of the kind `flag` (CLONE_NEW*).
///
/// # Errors
/// `EINVAL` when the file is no namespace, or one of another kind (ioctl_ns(2)).
pub fn open(path: &Path, flag: i32) -> Result<OwnedFd, Error> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called("open", || format!("{path:?}"))?;
    let magic = rustix::fs::fstatfs(&fd).called("fstatfs", || format!("{path:?}"))?.f_type as i64;
    if magic != NSFS_MAGIC {
        return Err(Error::new("setns", format!("{path:?} (not a namespace file)"), libc::EINVAL));
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and returns the CLONE_NEW* flag of the namespace.
    let found = check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }.into())
        .called("ioctl", || format!("{path:?} (NS_GET_NSTYPE)"))?;
    if found != i64::from(flag) {
        return Err(Error::new("setns", format!("{path:?} (a namespace of another kind)"), libc::EINVAL));
    }
    Ok(fd)
}

/// The namespace of the kind `flag` (CLONE_NEWNET, CLONE_NEWUSER) that this process is in.
///
/// Of a pidfd, where the kernel can (6.11): to open /proc/self/ns/net it makes the file first, and takes ten times as
/// long.
///
/// # Errors
/// Those of [`open`].
pub fn own(flag: i32) -> Result<OwnedFd, Error> {
    let (request, path) = match flag {
        libc::CLONE_NEWNET => (PIDFD_GET_NET_NAMESPACE, "/proc/self/ns/net"),
        _ => (PIDFD_GET_USER_NAMESPACE, "/proc/self/ns/user"),
    };
    by_pidfd(request).map_or_else(|| open(Path::new(path), flag), Ok)
}

fn by_pidfd(request: libc::Ioctl) -> Option<OwnedFd> {
    let this = super::pidfd::open(rustix::process::getpid().as_raw_pid()).ok()?;
    // SAFETY: these requests take 0, and return a new descriptor.
    let fd = check(unsafe { libc::ioctl(this.as_raw_fd(), request, 0) }.into()).ok()?;
    // SAFETY: nobody else knows it yet.
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Joins what `fd` refers to: one namespace, or with a pidfd all the kinds in `flags` at once.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN in the user namespace that owns it.
pub fn join(fd: BorrowedFd<'_>, flags: i32) -> Result<(), Error> {
    // SAFETY: setns(2) changes kernel state of this thread only; the process is single-threaded.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags) }.into())
        .map(drop)
        .called("setns", || format!("fd {} ({flags:#x})", fd.as_raw_fd()))
}

/// Moves this process into new namespaces of the kinds `flags` (CLONE_NEW*).
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn unshare(flags: i32) -> Result<(), Error> {
    // SAFETY: as for `join`.
    check(unsafe { libc::unshare(flags) }.into()).map(drop).called("unshare", || format!("({flags:#x})"))
}

/// Whether both descriptors are the same namespace (same inode of nsfs).
///
/// # Errors
/// Those of fstat(2).
pub fn same(one: BorrowedFd<'_>, other: BorrowedFd<'_>) -> Result<bool, Error> {
    let one = rustix::fs::fstat(one).called("fstat", || "namespace".into())?;
    let other = rustix::fs::fstat(other).called("fstat", || "namespace".into())?;
    Ok((one.st_dev, one.st_ino) == (other.st_dev, other.st_ino))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::fd::AsFd;

    #[test]
    fn our_own_namespace_is_that_of_proc() {
        for (flag, request, path) in [
            (libc::CLONE_NEWNET, PIDFD_GET_NET_NAMESPACE, "/proc/self/ns/net"),
            (libc::CLONE_NEWUSER, PIDFD_GET_USER_NAMESPACE, "/proc/self/ns/user"),
        ] {
            let (own, there) = (own(flag).unwrap(), open(Path::new(path), flag).unwrap());
            assert!(same(own.as_fd(), there.as_fd()).unwrap(), "{path}");
            let flags = rustix::io::fcntl_getfd(&own).unwrap();
            assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "{path}");
            let kernel = rustix::system::uname().release().to_string_lossy().into_owned();
            let mut numbers = kernel.split(['.', '-']).map_while(|part| part.parse::<u32>().ok());
            let can = (numbers.next(), numbers.next()) >= (Some(6), Some(11));
            assert_eq!(by_pidfd(request).is_some(), can, "{path}: Linux {kernel}");
        }
    }
}
