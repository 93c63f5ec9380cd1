//! The only way to /proc: a handle on a procfs that the container cannot have replaced.
//!
//! Every path below it is resolved without leaving that mount and without magic links. So a file that is mounted over
//! /proc/sys or /proc/self/attr is never written in place of the kernel's own (CVE-2019-16884, CVE-2023-28642,
//! CVE-2025-52881).
//! Not for: mounting the container's /proc.

use super::{Called, Error};
use rustix::fs::{CWD, Mode, OFlags, ResolveFlags};
use rustix::mount::{self, FsMountFlags, FsOpenFlags, MountAttrFlags};
use rustix::process::Pid;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const PROC_SUPER_MAGIC: rustix::fs::FsWord = rustix::fs::PROC_SUPER_MAGIC;
/// A procfs root always has this inode. A directory of a procfs that is bind mounted on /proc has another.
const PROC_ROOT_INO: u64 = 1;
/// The longest content that a file may have here. The kernel's files are shorter.
const LONGEST: usize = 1 << 16;

/// A verified procfs.
#[derive(Debug)]
pub struct Proc {
    root: Option<OwnedFd>,
}

impl Proc {
    /// Opens the /proc of the host (the runtime's mount namespace), in three system calls.
    ///
    /// # Errors
    /// /proc is missing, or is not the root of a procfs (EXDEV).
    pub fn open_host() -> Result<Self, Error> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let root = rustix::fs::openat(CWD, "/proc", flags, Mode::empty())
            .called("open", || "\"/proc\" (O_PATH)".into())?;
        Self::verified(root)
    }

    /// No procfs: each open answers ENOENT.
    pub fn none() -> Self {
        Self { root: None }
    }

    fn root(&self) -> rustix::io::Result<BorrowedFd<'_>> {
        self.root.as_ref().map(AsFd::as_fd).ok_or(rustix::io::Errno::NOENT)
    }

    /// Makes a procfs of the caller's pid namespace that is attached nowhere, so nothing can be mounted over it.
    ///
    /// # Errors
    /// EPERM without CAP_SYS_ADMIN, or in a user namespace where parts of /proc are hidden.
    pub fn detached(subset: Subset) -> Result<Self, Error> {
        let args = || "\"proc\"".to_owned();
        let context = mount::fsopen("proc", FsOpenFlags::FSOPEN_CLOEXEC).called("fsopen", args)?;
        if subset == Subset::Pid {
            mount::fsconfig_set_string(context.as_fd(), "subset", "pid")
                .called("fsconfig", || "\"proc\" \"subset\" \"pid\"".into())?;
        }
        mount::fsconfig_create(context.as_fd()).called("fsconfig", || "\"proc\" (CREATE)".into())?;
        let attributes = MountAttrFlags::MOUNT_ATTR_NODEV
            | MountAttrFlags::MOUNT_ATTR_NOEXEC
            | MountAttrFlags::MOUNT_ATTR_NOSUID;
        let root = mount::fsmount(context.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
            .called("fsmount", args)?;
        Self::verified(root)
    }

    fn verified(root: OwnedFd) -> Result<Self, Error> {
        let filesystem = rustix::fs::fstatfs(&root).called("fstatfs", || "\"/proc\"".into())?;
        let inode = rustix::fs::fstat(&root).called("fstat", || "\"/proc\"".into())?;
        if filesystem.f_type != PROC_SUPER_MAGIC || inode.st_ino != PROC_ROOT_INO {
            return Err(Error::new("open", "\"/proc\" (not the root of a procfs)", libc::EXDEV));
        }
        Ok(Self { root: Some(root) })
    }

    /// Opens `path` below /proc. A magic link on the way is an error, also as the last component (namespace files).
    ///
    /// # Errors
    /// EXDEV if something is mounted on the way and a clean procfs cannot be had either.
    pub fn open(&self, path: &str, flags: OFlags) -> Result<OwnedFd, Error> {
        match self.root().and_then(|root| open_beneath(root, path, flags)) {
            Err(rustix::io::Errno::XDEV) => {
                let clean = self.without_overmounts(path)?;
                clean.root().and_then(|root| open_beneath(root, path, flags))
            }
            result => result,
        }
        .called("openat2", || format!("\"/proc/{path}\""))
    }

    // A new procfs first. The kernel refuses one in a user namespace whose /proc has locked mounts on it, and refuses
    // a clone there for the same reason. Elsewhere one of the two ways may be missing.
    fn without_overmounts(&self, path: &str) -> Result<Self, Error> {
        let subset = if path.starts_with("sys/") { Subset::All } else { Subset::Pid };
        Self::detached(subset).or_else(|_| {
            let root = self.root().called("open_tree", || "\"/proc\" (OPEN_TREE_CLONE)".into())?;
            // Private: since Linux 6.15, a mount that the host makes later would appear on a clone that is not.
            Self::verified(super::mount::clone_private(root, c"", super::mount::Depth::One, 0)?)
        })
    }

    /// The target of the link of our own descriptor `fd`, such as `anon_inode:[eventfd]`.
    pub fn own_fd_link(&self, fd: BorrowedFd<'_>) -> Result<Vec<u8>, Error> {
        let path = format!("self/fd/{}", fd.as_raw_fd());
        let read = |root| rustix::fs::readlinkat(root, &*path, Vec::new());
        let link = self.root().and_then(read).called("readlinkat", || format!("\"/proc/{path}\""))?;
        Ok(link.into_bytes())
    }

    /// The identity of the namespace `name` (`net`) of process `pid`: device and inode of its file in nsfs.
    ///
    /// # Errors
    /// The process is gone, or this process may not look at it.
    pub fn namespace(&self, pid: Pid, name: &str) -> Result<(u64, u64), Error> {
        let path = format!("{}/ns/{name}", pid.as_raw_nonzero());
        let look = |root| rustix::fs::statat(root, &*path, rustix::fs::AtFlags::empty());
        let found = self.root().and_then(look).called("fstatat", || format!("\"/proc/{path}\""))?;
        Ok((found.st_dev, found.st_ino))
    }

    /// Writes `value` to the file `path` below /proc, in one write(2).
    ///
    /// # Errors
    /// EIO for a short write; else those of open(2) and write(2).
    pub fn write(&self, path: &str, value: &[u8]) -> Result<(), Error> {
        let file = self.open(path, OFlags::WRONLY)?;
        let args = || format!("\"/proc/{path}\" {:?}", String::from_utf8_lossy(value));
        // For most files of procfs, a second write is a second command: so a short write is an error.
        match rustix::io::write(&file, value).called("write", args)? {
            written if written == value.len() => Ok(()),
            _ => Err(Error::new("write", args(), libc::EIO)),
        }
    }

    /// Reads the whole file `path` below /proc.
    ///
    /// # Errors
    /// EFBIG for more than 64 KiB; else those of open(2) and read(2).
    pub fn read(&self, path: &str) -> Result<Vec<u8>, Error> {
        let file = self.open(path, OFlags::RDONLY)?;
        let mut content = Vec::new();
        let mut chunk = [0; 4096];
        loop {
            match rustix::io::read(&file, &mut chunk).called("read", || format!("\"/proc/{path}\""))? {
                0 => return Ok(content),
                length => content.extend_from_slice(chunk.get(..length).unwrap_or_default()),
            }
            if content.len() > LONGEST {
                return Err(Error::new("read", format!("\"/proc/{path}\""), libc::EFBIG));
            }
        }
    }

    /// Writes to /proc/PID/`name`. The caller has not reaped the process yet, so its pid is still its own.
    pub fn write_pid(&self, pid: Pid, name: &str, value: &[u8]) -> Result<(), Error> {
        self.write(&format!("{}/{name}", pid.as_raw_nonzero()), value)
    }

    /// Writes a file of the calling thread, such as `attr/exec`. The thread's pid in this procfs does not matter.
    pub fn write_self(&self, name: &str, value: &[u8]) -> Result<(), Error> {
        self.write(&format!("thread-self/{name}"), value)
    }

    /// Reads a file of the calling thread.
    pub fn read_self(&self, name: &str) -> Result<Vec<u8>, Error> {
        self.read(&format!("thread-self/{name}"))
    }

    /// Sets the user id map of `pid`'s new user namespace (user_namespaces(7)). This is possible once.
    ///
    /// # Errors
    /// EPERM if the caller may not set this map.
    pub fn write_uid_map(&self, pid: Pid, map: &str) -> Result<(), Error> {
        self.write_pid(pid, "uid_map", map.as_bytes())
    }

    /// Sets the group id map of `pid`'s new user namespace. This is possible once.
    ///
    /// # Errors
    /// EPERM if the caller may not set this map, or setgroups(2) is not denied yet.
    pub fn write_gid_map(&self, pid: Pid, map: &str) -> Result<(), Error> {
        self.write_pid(pid, "gid_map", map.as_bytes())
    }

    /// Denies setgroups(2) in `pid`'s user namespace. The kernel wants this before a group map that is set without
    /// CAP_SETGID outside.
    ///
    /// # Errors
    /// EPERM after the group map is set.
    pub fn deny_setgroups(&self, pid: Pid) -> Result<(), Error> {
        self.write_pid(pid, "setgroups", b"deny")
    }
}

/// How much of procfs a detached instance shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Subset {
    /// Processes only.
    Pid,
    /// Everything, with /proc/sys.
    All,
}

fn open_beneath(root: BorrowedFd<'_>, path: &str, flags: OFlags) -> rustix::io::Result<OwnedFd> {
    let mut resolve = ResolveFlags::BENEATH | ResolveFlags::NO_XDEV | ResolveFlags::NO_MAGICLINKS;
    // `self` and `thread-self` are ordinary symbolic links to `PID` and `PID/task/TID`.
    if !(path.starts_with("self/") || path.starts_with("thread-self/")) {
        resolve |= ResolveFlags::NO_SYMLINKS;
    }
    rustix::fs::openat2(root, path, flags | OFlags::CLOEXEC, Mode::empty(), resolve)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::{in_child, privileged, unshare};
    use anyhow::ensure;
    use nix::sched::CloneFlags;

    #[test]
    fn a_file_of_our_own_is_read_and_written() {
        in_child(|| {
            let proc = Proc::open_host()?;
            proc.write_self("comm", b"renamed")?;
            ensure!(proc.read_self("comm")? == b"renamed\n");
            proc.write_pid(rustix::process::getpid(), "comm", b"again")?;
            ensure!(proc.read_self("comm")? == b"again\n");
            Ok(())
        });
    }

    #[test]
    fn neither_parents_nor_magic_links_are_followed() {
        let proc = Proc::open_host().unwrap();
        for (path, errno) in
            [("../etc/passwd", libc::EXDEV), ("self/root/etc/passwd", libc::ELOOP), ("net/dev", libc::ELOOP)]
        {
            // After EXDEV, `open` tries a clean procfs; the error is EXDEV there, too.
            let error = proc.open(path, OFlags::RDONLY).unwrap_err();
            assert!([errno, libc::EPERM].contains(&error.errno()), "{error}");
        }
    }

    #[test]
    fn a_failed_write_names_the_file_and_the_value() {
        let proc = Proc::open_host().unwrap();
        let error = proc.write("self/oom_score_adj", b"x").unwrap_err();
        assert_eq!(error.to_string(), "write \"/proc/self/oom_score_adj\" \"x\": invalid argument");
    }

    #[test]
    fn a_file_mounted_over_procfs_is_not_written() {
        if !privileged("a_file_mounted_over_procfs_is_not_written") {
            return;
        }
        in_child(|| {
            let decoy = tempfile::NamedTempFile::new()?;
            unshare(CloneFlags::CLONE_NEWNS)?;
            let none: Option<&str> = None;
            let private = nix::mount::MsFlags::MS_REC | nix::mount::MsFlags::MS_PRIVATE;
            nix::mount::mount(none, "/", none, private, none)?;
            let proc = Proc::open_host()?;
            let target = format!("/proc/{}/comm", std::process::id());
            nix::mount::mount(Some(decoy.path()), &*target, none, nix::mount::MsFlags::MS_BIND, none)?;
            proc.write("self/comm", b"straight")?;
            nix::mount::umount(&*target)?;
            ensure!(std::fs::read(decoy.path())?.is_empty(), "the decoy was written");
            ensure!(proc.read("self/comm")? == b"straight\n");
            Ok(())
        });
    }

    #[test]
    fn another_filesystem_on_proc_is_refused() {
        let tmp = rustix::fs::open("/sys", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(Proc::verified(tmp).unwrap_err().errno(), libc::EXDEV);
        let part = rustix::fs::open("/proc/sys", OFlags::PATH, Mode::empty()).unwrap();
        assert_eq!(Proc::verified(part).unwrap_err().errno(), libc::EXDEV);
    }
}
