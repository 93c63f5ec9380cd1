//! Namespaces: open, check, join (setns(2)), leave (unshare(2)).

use super::{Called, Error, check};
use rustix::fs::{Mode, OFlags};
use serde::Serialize;
use std::fmt;
use std::ops::{BitAnd, BitOr, Not};
use std::os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::path::Path;

/// Kinds of namespaces, as clone3(2), unshare(2) and setns(2) take them.
///
/// It holds only CLONE_NEW* bits. If a safe function took any number, it could be given CLONE_VM, and two processes
/// would run on one stack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Flags(i32);

impl Flags {
    /// No kind.
    pub const NONE: Self = Self(0);
    /// CLONE_NEWUSER
    pub const USER: Self = Self(libc::CLONE_NEWUSER);
    /// CLONE_NEWIPC
    pub const IPC: Self = Self(libc::CLONE_NEWIPC);
    /// CLONE_NEWUTS
    pub const UTS: Self = Self(libc::CLONE_NEWUTS);
    /// CLONE_NEWNET
    pub const NETWORK: Self = Self(libc::CLONE_NEWNET);
    /// CLONE_NEWCGROUP
    pub const CGROUP: Self = Self(libc::CLONE_NEWCGROUP);
    /// CLONE_NEWTIME. In clone(2) this bit belongs to the exit signal; libc has no name for it.
    pub const TIME: Self = Self(0x80);
    /// CLONE_NEWPID
    pub const PID: Self = Self(libc::CLONE_NEWPID);
    /// CLONE_NEWNS
    pub const MOUNT: Self = Self(libc::CLONE_NEWNS);

    /// All kinds with the names of their bits.
    const NAMES: [(Self, &str); 8] = [
        (Self::USER, "CLONE_NEWUSER"),
        (Self::IPC, "CLONE_NEWIPC"),
        (Self::UTS, "CLONE_NEWUTS"),
        (Self::NETWORK, "CLONE_NEWNET"),
        (Self::CGROUP, "CLONE_NEWCGROUP"),
        (Self::TIME, "CLONE_NEWTIME"),
        (Self::PID, "CLONE_NEWPID"),
        (Self::MOUNT, "CLONE_NEWNS"),
    ];

    /// The bits.
    pub fn bits(self) -> i32 {
        self.0
    }

    /// Whether it has no kind.
    pub fn is_empty(self) -> bool {
        self == Self::NONE
    }

    /// Whether it has all kinds of `other`.
    pub fn contains(self, other: Self) -> bool {
        self & other == other
    }

    /// The names of the bits.
    pub(super) fn names(self) -> impl Iterator<Item = &'static str> {
        Self::NAMES.iter().filter(move |(kind, _)| self.contains(*kind)).map(|(_, name)| *name)
    }
}

impl BitOr for Flags {
    type Output = Self;

    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

impl BitAnd for Flags {
    type Output = Self;

    fn bitand(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }
}

/// All other kinds; the result has only bits of kinds.
impl Not for Flags {
    type Output = Self;

    fn not(self) -> Self {
        let all = Self::NAMES.iter().fold(0, |all, (kind, _)| all | kind.0);
        Self(all & !self.0)
    }
}

impl fmt::Display for Flags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({})", self.names().collect::<Vec<_>>().join(" | "))
    }
}

const NSFS_MAGIC: i64 = 0x6e73_6673;
const NS_GET_NSTYPE: libc::Ioctl = 0xb703;
const PIDFD_GET_NET_NAMESPACE: libc::Ioctl = 0xff04;
const PIDFD_GET_USER_NAMESPACE: libc::Ioctl = 0xff09;

/// Opens the namespace file `path` and checks that it is a namespace of the kind `flag`.
///
/// # Errors
/// `EINVAL` if the file is no namespace, or one of another kind (ioctl_ns(2)).
pub fn open(path: &Path, flag: Flags) -> Result<OwnedFd, Error> {
    let fd = rustix::fs::open(path, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called("open", || format!("{path:?}"))?;
    let magic = rustix::fs::fstatfs(&fd).called("fstatfs", || format!("{path:?}"))?.f_type as i64;
    if magic != NSFS_MAGIC {
        return Err(Error::new("setns", format!("{path:?} (not a namespace file)"), libc::EINVAL));
    }
    // SAFETY: NS_GET_NSTYPE takes no argument and returns the CLONE_NEW* flag of the namespace.
    let found = check(unsafe { libc::ioctl(fd.as_raw_fd(), NS_GET_NSTYPE) }.into())
        .called("ioctl", || format!("{path:?} (NS_GET_NSTYPE)"))?;
    if found != i64::from(flag.bits()) {
        return Err(Error::new("setns", format!("{path:?} (a namespace of another kind)"), libc::EINVAL));
    }
    Ok(fd)
}

/// The namespace of the kind `flag` (network or user) that this process is in.
///
/// From a pidfd if the kernel can (since Linux 6.11). To open /proc/self/ns/net takes ten times as long, because the
/// kernel makes the file first.
pub fn own(flag: Flags) -> Result<OwnedFd, Error> {
    let (request, path) = match flag {
        Flags::NETWORK => (PIDFD_GET_NET_NAMESPACE, "/proc/self/ns/net"),
        _ => (PIDFD_GET_USER_NAMESPACE, "/proc/self/ns/user"),
    };
    by_pidfd(request).map_or_else(|| open(Path::new(path), flag), Ok)
}

fn by_pidfd(request: libc::Ioctl) -> Option<OwnedFd> {
    let this = super::pidfd::open(rustix::process::getpid().as_raw_pid()).ok()?;
    // SAFETY: these requests take 0 and return a new descriptor.
    let fd = check(unsafe { libc::ioctl(this.as_raw_fd(), request, 0) }.into()).ok()?;
    // SAFETY: the descriptor is new and has no other owner.
    Some(unsafe { OwnedFd::from_raw_fd(fd as i32) })
}

/// Whether this process is in the host's initial user namespace. Only there is root the host's root.
///
/// The map of ids cannot tell: another namespace may map every id to itself.
pub fn is_initial_user() -> bool {
    let number = || Some(rustix::fs::fstat(own(Flags::USER).ok()?).ok()?.st_ino);
    let maps_all = || {
        let map = super::fd::read_proc("/proc/self/uid_map").unwrap_or_default();
        String::from_utf8_lossy(&map).split_whitespace().eq(["0", "0", "4294967295"])
    };
    is_initial(number(), maps_all)
}

/// Decides by the kernel's numbers: PROC_USER_INIT_INO for the initial one, PROC_DYNAMIC_FIRST and above for others.
/// A sandbox that plays the kernel (gVisor) may use other numbers; then only the map is left to decide by.
fn is_initial(number: Option<u64>, maps_all: impl FnOnce() -> bool) -> bool {
    const INITIAL: u64 = 0xefff_fffd;
    const FIRST_OF_THE_OTHERS: u64 = 0xf000_0000;
    match number {
        // Without a procfs, later steps fail and report that better.
        None | Some(INITIAL) => true,
        Some(FIRST_OF_THE_OTHERS..) => false,
        Some(_) => maps_all(),
    }
}

/// Joins the namespace behind `fd`; with a pidfd, all the kinds in `flags` at once.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN in the user namespace that owns it.
pub fn join(fd: BorrowedFd<'_>, flags: Flags) -> Result<(), Error> {
    // SAFETY: setns(2) only changes kernel state of this thread, and the process has one thread.
    check(unsafe { libc::setns(fd.as_raw_fd(), flags.bits()) }.into())
        .map(drop)
        .called("setns", || format!("fd {} {flags}", fd.as_raw_fd()))
}

/// Moves this process into new namespaces of the kinds `flags`.
///
/// # Errors
/// `EPERM` without CAP_SYS_ADMIN.
pub fn unshare(flags: Flags) -> Result<(), Error> {
    // SAFETY: as for `join`.
    check(unsafe { libc::unshare(flags.bits()) }.into()).map(drop).called("unshare", || flags.to_string())
}

/// Whether both descriptors refer to the same namespace (the same inode of nsfs).
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
    fn flags_hold_nothing_but_kinds_of_namespaces() {
        let other = libc::CLONE_VM | libc::CLONE_FILES | libc::CLONE_THREAD | libc::CLONE_PARENT;
        for flags in [!Flags::NONE, !Flags::USER | Flags::USER, !(Flags::PID | Flags::TIME)] {
            assert_eq!(flags.bits() & other, 0, "{flags}");
        }
        assert_eq!(!!Flags::NETWORK, Flags::NETWORK);
        assert_eq!((!Flags::NONE).names().count(), Flags::NAMES.len(), "each kind has a bit of its own");
        assert_eq!((Flags::PID | Flags::TIME).to_string(), "(CLONE_NEWTIME | CLONE_NEWPID)");
        assert_eq!((Flags::PID | Flags::TIME).bits(), libc::CLONE_NEWPID | 0x80);
    }

    #[test]
    fn a_user_namespace_is_known_by_its_number_unless_the_numbers_are_not_the_kernels() {
        for maps_all in [true, false] {
            assert!(is_initial(Some(0xefff_fffd), || maps_all));
            assert!(!is_initial(Some(0xf000_0000), || maps_all));
            assert!(!is_initial(Some(4_026_532_198), || maps_all));
            assert_eq!(is_initial(Some(5), || maps_all), maps_all, "numbers of another kernel");
            assert!(is_initial(None, || maps_all));
        }
    }

    #[test]
    fn our_own_namespace_is_that_of_proc() {
        for (flag, request, path) in [
            (Flags::NETWORK, PIDFD_GET_NET_NAMESPACE, "/proc/self/ns/net"),
            (Flags::USER, PIDFD_GET_USER_NAMESPACE, "/proc/self/ns/user"),
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
