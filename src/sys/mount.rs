//! Mounts by file descriptor: fsopen(2), open_tree(2), move_mount(2), mount_setattr(2).
//!
//! A mount is made detached, gets all its attributes, and is attached as the last step, with both ends given as
//! descriptors. So no process sees it half made, and no path is resolved twice.
//! Not for: what to mount where (see `parts::mounts`).

use super::{Called, Error, check};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, OpenTreeFlags,
    UnmountFlags,
};
use std::ffi::CStr;
use std::path::Path;

/// `MOUNT_ATTR_RDONLY`
pub const RDONLY: u64 = libc::MOUNT_ATTR_RDONLY;
/// `MOUNT_ATTR_NOSUID`
pub const NOSUID: u64 = libc::MOUNT_ATTR_NOSUID;
/// `MOUNT_ATTR_NODEV`
pub const NODEV: u64 = libc::MOUNT_ATTR_NODEV;
/// `MOUNT_ATTR_NOEXEC`
pub const NOEXEC: u64 = libc::MOUNT_ATTR_NOEXEC;
/// `MOUNT_ATTR_NOSYMFOLLOW`
pub const NOSYMFOLLOW: u64 = libc::MOUNT_ATTR_NOSYMFOLLOW;
/// `MOUNT_ATTR_NODIRATIME`
pub const NODIRATIME: u64 = libc::MOUNT_ATTR_NODIRATIME;
/// `MOUNT_ATTR__ATIME`, the mask of the three values that follow.
pub const ATIME_MASK: u64 = libc::MOUNT_ATTR__ATIME;
/// `MOUNT_ATTR_RELATIME`, which is 0.
pub const RELATIME: u64 = libc::MOUNT_ATTR_RELATIME;
/// `MOUNT_ATTR_NOATIME`
pub const NOATIME: u64 = libc::MOUNT_ATTR_NOATIME;
/// `MOUNT_ATTR_STRICTATIME`
pub const STRICTATIME: u64 = libc::MOUNT_ATTR_STRICTATIME;

/// How mount events travel (mount_namespaces(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Propagation {
    /// Not at all.
    Private,
    /// In both directions.
    Shared,
    /// From the host, not to it.
    Slave,
    /// Not at all, and it cannot be bound elsewhere.
    Unbindable,
}

impl Propagation {
    fn bits(self) -> u64 {
        match self {
            Self::Private => libc::MS_PRIVATE,
            Self::Shared => libc::MS_SHARED,
            Self::Slave => libc::MS_SLAVE,
            Self::Unbindable => libc::MS_UNBINDABLE,
        }
    }

    fn flags(self) -> MountPropagationFlags {
        match self {
            Self::Private => MountPropagationFlags::PRIVATE,
            Self::Shared => MountPropagationFlags::SHARED,
            Self::Slave => MountPropagationFlags::DOWNSTREAM,
            Self::Unbindable => MountPropagationFlags::UNBINDABLE,
        }
    }
}

/// Whether a call takes one mount or also those below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Depth {
    /// The one mount.
    One,
    /// The tree of mounts.
    Tree,
}

/// `struct mount_attr`: what mount_setattr(2) changes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Change {
    /// `MOUNT_ATTR_*` to set; applied after `clear`.
    pub set: u64,
    /// `MOUNT_ATTR_*` to clear.
    pub clear: u64,
    /// The new propagation.
    pub propagation: Option<Propagation>,
}

#[repr(C)]
struct MountAttr {
    attr_set: u64,
    attr_clr: u64,
    propagation: u64,
    userns_fd: u64,
}

fn mount_setattr(mount: BorrowedFd<'_>, depth: Depth, attr: &MountAttr) -> Result<(), Error> {
    let recursive = if depth == Depth::Tree { libc::AT_RECURSIVE } else { 0 };
    // SAFETY: the path is a static C string, and `attr` is a live `struct mount_attr` of the size that is passed.
    let result = unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH | recursive,
            std::ptr::from_ref(attr),
            size_of::<MountAttr>(),
        )
    };
    check(result).map(drop).called("mount_setattr", || {
        format!(
            "fd {} (set {:#x}, clear {:#x}, propagation {:#x})",
            mount.as_raw_fd(),
            attr.attr_set,
            attr.attr_clr,
            attr.propagation
        )
    })
}

/// Changes attributes and propagation in one step (mount_setattr(2)).
///
/// # Errors
/// EPERM for a flag that is locked in this user namespace.
pub fn set_attributes(mount: BorrowedFd<'_>, depth: Depth, change: Change) -> Result<(), Error> {
    let propagation = change.propagation.map_or(0, Propagation::bits);
    mount_setattr(
        mount,
        depth,
        &MountAttr { attr_set: change.set, attr_clr: change.clear, propagation, userns_fd: 0 },
    )
}

/// Gives a detached mount the id maps of a user namespace (MOUNT_ATTR_IDMAP).
///
/// # Errors
/// EINVAL: the file system does not support it; EPERM without privilege over the file system.
pub fn set_idmap(mount: BorrowedFd<'_>, depth: Depth, userns: BorrowedFd<'_>) -> Result<(), Error> {
    let userns_fd = u64::try_from(userns.as_raw_fd()).unwrap_or(u64::MAX);
    mount_setattr(
        mount,
        depth,
        &MountAttr { attr_set: libc::MOUNT_ATTR_IDMAP, attr_clr: 0, propagation: 0, userns_fd },
    )
}

/// A detached copy of the mount at `path`, relative to `at`. It is private, and has the attributes `set` in addition
/// to its own (open_tree(2) with OPEN_TREE_CLONE; mount_setattr(2)).
///
/// It is private because of hosts with shared mounts: there, a mount that the container makes on a plain clone
/// appears on the host, and a mount of the host appears in the container.
///
/// # Errors
/// EPERM without CAP_SYS_ADMIN over our mount namespace; else the path's.
pub fn clone_private(at: BorrowedFd<'_>, path: &CStr, depth: Depth, set: u64) -> Result<OwnedFd, Error> {
    let clone = clone_tied(at, path, depth)?;
    set_attributes(clone.as_fd(), depth, Change { set, clear: 0, propagation: Some(Propagation::Private) })?;
    Ok(clone)
}

/// [`clone_private`] that keeps the propagation of its original: a peer of a shared mount, a slave of the same
/// master. Only for mounts whose propagation the configuration decides: bind mounts and the root.
pub fn clone_tied(at: BorrowedFd<'_>, path: &CStr, depth: Depth) -> Result<OwnedFd, Error> {
    let mut flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    if path.is_empty() {
        flags |= OpenTreeFlags::AT_EMPTY_PATH;
    }
    if depth == Depth::Tree {
        flags |= OpenTreeFlags::AT_RECURSIVE;
    }
    rustix::mount::open_tree(at, path, flags).called("open_tree", || match depth {
        Depth::One => format!("{path:?} (OPEN_TREE_CLONE)"),
        Depth::Tree => format!("{path:?} (OPEN_TREE_CLONE|AT_RECURSIVE)"),
    })
}

/// Attaches a detached mount on `target` (move_mount(2)). The descriptor still refers to the mount.
///
/// # Errors
/// ENOTDIR: a file on a directory, or a directory on a file; else those of move_mount(2).
pub fn attach(mount: BorrowedFd<'_>, target: BorrowedFd<'_>) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH | MoveMountFlags::MOVE_MOUNT_T_EMPTY_PATH;
    let moved = match rustix::mount::move_mount(mount, c"", target, c"", flags) {
        // move_mount(2) says EINVAL for many reasons; mount(2) has ENOTDIR for this one.
        Err(rustix::io::Errno::INVAL) if is_directory(mount) != is_directory(target) => {
            Err(rustix::io::Errno::NOTDIR)
        }
        other => other,
    };
    moved.called("move_mount", || format!("fd {} onto fd {}", mount.as_raw_fd(), target.as_raw_fd()))
}

fn is_directory(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|found| rustix::fs::FileType::from_raw_mode(found.st_mode).is_dir())
}

/// A file system that is being configured.
#[derive(Debug)]
pub struct Context(OwnedFd);

impl Context {
    /// fsopen(2).
    ///
    /// # Errors
    /// ENODEV: the kernel has no such file system; EPERM.
    pub fn open(fstype: &CStr) -> Result<Self, Error> {
        rustix::mount::fsopen(fstype, FsOpenFlags::FSOPEN_CLOEXEC)
            .called("fsopen", || format!("{fstype:?}"))
            .map(Self)
    }

    /// The superblock of an existing mount, for reconfiguration (fspick(2)).
    ///
    /// # Errors
    /// EINVAL: it is not a mount.
    pub fn pick(mount: BorrowedFd<'_>) -> Result<Self, Error> {
        let flags =
            rustix::mount::FsPickFlags::FSPICK_CLOEXEC | rustix::mount::FsPickFlags::FSPICK_EMPTY_PATH;
        rustix::mount::fspick(mount, c"", flags)
            .called("fspick", || format!("fd {}", mount.as_raw_fd()))
            .map(Self)
    }

    /// The kernel's messages about the last failure, from the context's log.
    fn complaint(&self) -> String {
        let mut said = Vec::new();
        let mut line = [0_u8; 512];
        // Each read(2) gives one message; ENODATA ends them. The kernel keeps at most 8.
        for _ in 0..8 {
            let Ok(length) = rustix::io::read(&self.0, &mut line) else { break };
            let text = String::from_utf8_lossy(line.get(..length).unwrap_or_default());
            let text = text.trim().trim_start_matches(['e', 'w', 'i']).trim();
            if !text.is_empty() {
                said.push(text.to_owned());
            }
        }
        if said.is_empty() { String::new() } else { format!(" ({})", said.join("; ")) }
    }

    /// An option without a value (FSCONFIG_SET_FLAG).
    ///
    /// # Errors
    /// EINVAL: the file system does not know the option. The error has the kernel's message.
    pub fn flag(&self, key: &CStr) -> Result<(), Error> {
        rustix::mount::fsconfig_set_flag(&self.0, key)
            .called("fsconfig", || format!("{}{}", key.to_string_lossy(), self.complaint()))
    }

    /// An option with a value (FSCONFIG_SET_STRING).
    pub fn string(&self, key: &CStr, value: &CStr) -> Result<(), Error> {
        rustix::mount::fsconfig_set_string(&self.0, key, value).called("fsconfig", || {
            format!("{}={}{}", key.to_string_lossy(), value.to_string_lossy(), self.complaint())
        })
    }

    /// Makes the superblock and a detached mount of it with `attributes` (FSCONFIG_CMD_CREATE, fsmount(2)).
    ///
    /// # Errors
    /// The file system refuses an option. The error has the kernel's message.
    pub fn mount(&self, attributes: u64) -> Result<OwnedFd, Error> {
        rustix::mount::fsconfig_create(&self.0)
            .called("fsconfig", || format!("create{}", self.complaint()))?;
        let attributes = u32::try_from(attributes).unwrap_or(u32::MAX);
        rustix::mount::fsmount(
            self.0.as_fd(),
            FsMountFlags::FSMOUNT_CLOEXEC,
            MountAttrFlags::from_bits_retain(attributes),
        )
        .called("fsmount", || format!("{attributes:#x}{}", self.complaint()))
    }

    /// Applies the options to the picked superblock (FSCONFIG_CMD_RECONFIGURE).
    pub fn reconfigure(&self) -> Result<(), Error> {
        rustix::mount::fsconfig_reconfigure(&self.0)
            .called("fsconfig", || format!("reconfigure{}", self.complaint()))
    }
}

/// Changes the propagation of the mount at `path` by mount(2): for "/" before and after the pivot.
///
/// # Errors
/// EINVAL: not a mount point.
pub fn set_propagation(path: &CStr, propagation: Propagation, depth: Depth) -> Result<(), Error> {
    let recursive =
        if depth == Depth::Tree { MountPropagationFlags::REC } else { MountPropagationFlags::empty() };
    rustix::mount::mount_change(path, propagation.flags() | recursive)
        .called("mount", || format!("{path:?} ({propagation:?}, {depth:?})"))
}

/// A detached, empty, read-only directory: a tmpfs with room for its root only.
pub fn empty_directory(label: Option<&CStr>) -> Result<OwnedFd, Error> {
    let context = Context::open(c"tmpfs")?;
    context.string(c"source", c"tmpfs")?;
    context.string(c"nr_blocks", c"1")?;
    // Not 1: a patch in Ubuntu's kernels refuses less than 2 (seen with 5.4).
    context.string(c"nr_inodes", c"2")?;
    if let Some(label) = label {
        context.string(c"context", label)?;
    }
    context.mount(RDONLY)
}

/// The present attributes of a mount, of those that can be locked in a user namespace (fstatvfs(3)).
pub fn attributes(mount: BorrowedFd<'_>) -> Result<u64, Error> {
    use rustix::fs::StatVfsMountFlags as St;
    let found =
        rustix::fs::fstatvfs(mount).called("fstatvfs", || format!("fd {}", mount.as_raw_fd()))?.f_flag;
    let names = [
        (St::RDONLY, RDONLY),
        (St::NOSUID, NOSUID),
        (St::NODEV, NODEV),
        (St::NOEXEC, NOEXEC),
        (St::NOATIME, NOATIME),
        (St::NODIRATIME, NODIRATIME),
    ];
    let mut set = names.iter().filter(|(st, _)| found.contains(*st)).fold(0, |sum, (_, attr)| sum | attr);
    // There is no ST_STRICTATIME: a mount without the two others has it.
    if !found.intersects(St::NOATIME | St::RELATIME) {
        set |= STRICTATIME;
    }
    Ok(set)
}

/// Makes `new_root` the root of this mount namespace and detaches the old one (pivot_root(2)).
///
/// # Errors
/// EINVAL: `new_root` is no mount point of this namespace.
pub fn pivot(new_root: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::process::fchdir(new_root).called("fchdir", || "the rootfs".to_owned())?;
    // pivot_root(".", ".") needs no directory for the old root: it puts the old root on top of the new one. "." is
    // the new root below, so umount2(".") detaches the top, which is the old root (pivot_root(2), NOTES).
    rustix::process::pivot_root(c".", c".").called("pivot_root", || "\".\" \".\"".to_owned())?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
        .called("umount2", || "\".\" (MNT_DETACH)".to_owned())?;
    rustix::process::chdir(c"/").called("chdir", || "\"/\"".to_owned())
}

/// Makes `directory` the root of this process only (chroot(2)).
///
/// # Errors
/// EPERM without CAP_SYS_CHROOT.
pub fn chroot(directory: BorrowedFd<'_>) -> Result<(), Error> {
    rustix::process::fchdir(directory).called("fchdir", || "the rootfs".to_owned())?;
    rustix::process::chroot(c".").called("chroot", || "\".\"".to_owned())?;
    rustix::process::chdir(c"/").called("chdir", || "\"/\"".to_owned())
}

/// Moves the mount `new_root` on top of "/" (move_mount(2)).
///
/// # Errors
/// EINVAL: its parent mount is shared.
pub fn move_to_root(new_root: BorrowedFd<'_>) -> Result<(), Error> {
    let flags = MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH;
    rustix::mount::move_mount(new_root, c"", CWD, c"/", flags)
        .called("move_mount", || "the rootfs onto \"/\"".to_owned())
}

/// Detaches the mount at `path`. The kernel removes it when no process uses it any more.
///
/// # Errors
/// EINVAL: it is locked, or `path` is no mount point.
pub fn detach(path: &Path) -> Result<(), Error> {
    rustix::mount::unmount(path, UnmountFlags::DETACH).called("umount2", || format!("{path:?} (MNT_DETACH)"))
}

/// Detaches `mount`. It works by descriptors, because no path leads to the
/// mount. The working directory stays what it was: a relative path in the configuration must not be looked up in the
/// image.
///
/// # Errors
/// EINVAL: it is locked, or not attached.
pub fn detach_from(mount: BorrowedFd<'_>) -> Result<(), Error> {
    use rustix::fs::{Mode, OFlags};
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let before = rustix::fs::openat(CWD, c".", flags, Mode::empty())
        // We may not be allowed into the directory that we are in.
        .or_else(|_| rustix::fs::openat(CWD, c"/", flags, Mode::empty()))
        .called("openat", || "\"/\" (O_PATH)".to_owned())?;
    rustix::process::fchdir(mount).called("fchdir", || "(a mount)".to_owned())?;
    rustix::mount::unmount(c".", UnmountFlags::DETACH)
        .called("umount2", || "\".\" (MNT_DETACH)".to_owned())?;
    // Where we may not go back to, "/" is as far from the image.
    rustix::process::fchdir(&before)
        .or_else(|_| rustix::process::chdir(c"/"))
        .called("fchdir", || "(the working directory)".to_owned())
}

/// The most that mount(2) reads of its string of options: a page, without its last byte, which is 0.
pub fn longest_options() -> usize {
    // SAFETY: sysconf(3) takes a number and returns one.
    let page = unsafe { libc::sysconf(libc::_SC_PAGESIZE) };
    usize::try_from(page).unwrap_or(4096).saturating_sub(1)
}

/// mount(2) with one string of options, for options that do not fit into fsconfig(2). `target` is given by
/// descriptor, `flags` by their fsconfig(2) names.
pub fn mount_with_data(
    source: &CStr,
    target: BorrowedFd<'_>,
    fstype: &CStr,
    flags: &[std::ffi::CString],
    data: &CStr,
) -> Result<(), Error> {
    use rustix::mount::MountFlags as Ms;
    let names = [
        (c"ro", Ms::RDONLY),
        (c"sync", Ms::SYNCHRONOUS),
        (c"dirsync", Ms::DIRSYNC),
        (c"lazytime", Ms::LAZYTIME),
        (c"mand", Ms::PERMIT_MANDATORY_FILE_LOCKING),
    ];
    let has = |name: &CStr| flags.iter().any(|flag| flag.as_c_str() == name);
    let bits = names.iter().filter(|(name, _)| has(name)).fold(Ms::empty(), |sum, (_, bit)| sum | *bit);
    let path = format!("/proc/self/fd/{}", target.as_raw_fd());
    rustix::mount::mount(source, path.as_str(), fstype, bits, data)
        .called("mount", || format!("{source:?} {path:?} {fstype:?} ({bits:?}) {data:?}"))
}

/// A user namespace with these maps (the text of uid_map and gid_map), for the ids of a mount.
///
/// A child is cloned into it. The child lives until its maps are written and the namespace is opened.
///
/// # Errors
/// The host has no user namespaces (ENOSPC, EPERM), or the kernel refuses a map (EINVAL, EPERM).
pub fn user_namespace_of(uid_map: &str, gid_map: &str) -> Result<OwnedFd, Error> {
    let (reader, writer) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).called("pipe2", String::new)?;
    // SAFETY: without CLONE_VM this is a fork: the child has its own copy of all memory, and our process has one
    // thread. The child makes three system calls and ends by `_exit`, so no destructor runs twice.
    let pid =
        check(unsafe { libc::syscall(libc::SYS_clone, libc::CLONE_NEWUSER | libc::SIGCHLD, 0, 0, 0, 0) })
            .called("clone", || "CLONE_NEWUSER".to_owned())?;
    if pid == 0 {
        drop(writer);
        // EOF: the parent has opened the namespace, or is gone.
        let _ = rustix::io::read(&reader, &mut [0_u8; 1]);
        // SAFETY: it ends this process, and nothing else.
        unsafe { libc::_exit(0) }
    }
    let opened = open_user_namespace(pid, uid_map, gid_map);
    drop(writer);
    let child = i32::try_from(pid).ok().and_then(rustix::process::Pid::from_raw);
    // An error does not matter, because the namespace is open. For a child of ours, EINTR is the only one.
    while matches!(
        rustix::process::waitpid(child, rustix::process::WaitOptions::empty()),
        Err(rustix::io::Errno::INTR)
    ) {}
    opened
}

fn open_user_namespace(pid: libc::c_long, uid_map: &str, gid_map: &str) -> Result<OwnedFd, Error> {
    for (file, map) in [("uid_map", uid_map), ("gid_map", gid_map)] {
        let path = format!("/proc/{pid}/{file}");
        std::fs::write(&path, map).called("write", || format!("{path:?} {:?}", map.trim_end()))?;
    }
    let path = format!("/proc/{pid}/ns/user");
    let flags = rustix::fs::OFlags::RDONLY | rustix::fs::OFlags::CLOEXEC;
    rustix::fs::open(path.as_str(), flags, rustix::fs::Mode::empty()).called("open", || format!("{path:?}"))
}

/// For tests: a mount namespace that no other process sees.
#[cfg(test)]
pub mod private {
    use super::{Depth, Propagation, set_propagation};

    /// Runs `test` in a thread with its own mount namespace, root and working directory; they end with the thread.
    /// The test's directory is removed from outside, where none of its mounts is, so that no removal enters a mount.
    /// Without the right to unshare it prints so and skips the test.
    pub fn run(test: impl FnOnce(&std::path::Path) + Send + 'static) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().to_owned();
        let thread = std::thread::spawn(move || {
            if let Err(errno) = nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNS) {
                eprintln!("skipped: unshare CLONE_NEWNS: {errno}");
                return;
            }
            set_propagation(c"/", Propagation::Slave, Depth::Tree).unwrap();
            test(&path);
        });
        let result = thread.join();
        directory.close().unwrap();
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    }

    /// The lines of this thread's mountinfo whose mount point is `place`: (options, optional fields, super options).
    pub fn mounts_at(place: &str) -> Vec<(String, String, String)> {
        let text = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
        let parse = |line: &str| {
            let (before, after) = line.split_once(" - ").unwrap();
            let fields: Vec<&str> = before.split(' ').collect();
            let superblock = after.rsplit(' ').next().unwrap();
            (fields[4] == place).then(|| (fields[5].to_owned(), fields[6..].join(" "), superblock.to_owned()))
        };
        text.lines().filter_map(parse).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::path::Root;

    /// `hold` relies on this for containers in a user namespace: a child without any right to the source can attach
    /// the parent's detached mount.
    #[test]
    fn a_mount_of_the_parent_can_be_attached_in_a_user_namespace() {
        private::run(|directory| {
            std::fs::create_dir_all(directory.join("closed/source")).unwrap();
            std::fs::create_dir(directory.join("target")).unwrap();
            std::fs::write(directory.join("closed/source/mark"), "").unwrap();
            let source = crate::sys::path::c_path(&directory.join("closed/source")).unwrap();
            let held = clone_tied(CWD, &source, Depth::One).unwrap();
            let change = Change { set: RDONLY, clear: 0, propagation: Some(Propagation::Slave) };
            set_attributes(held.as_fd(), Depth::One, change).unwrap();
            let (place, mark) = (directory.join("target"), directory.join("target/mark"));
            let flags = libc::CLONE_NEWUSER | libc::CLONE_NEWNS | libc::SIGCHLD;
            // SAFETY: a fork of this thread only. The child allocates nothing, because another thread of the test may
            // hold the allocator's lock. It ends by `_exit`.
            let pid = check(unsafe { libc::syscall(libc::SYS_clone, flags, 0, 0, 0, 0) }).unwrap();
            if pid == 0 {
                let attached =
                    Root::open_host(&place).and_then(|target| attach(held.as_fd(), target.as_fd())).is_ok();
                let shown = mark.exists();
                // SAFETY: it ends the child, and nothing else.
                unsafe { libc::_exit(i32::from(!(attached && shown))) }
            }
            let child = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap());
            let (_, status) =
                rustix::process::waitpid(child, rustix::process::WaitOptions::empty()).unwrap().unwrap();
            assert_eq!(status.exit_status(), Some(0));
            assert!(!mark.exists());
        });
    }

    #[test]
    fn a_user_namespace_for_id_maps_has_these_maps() {
        if !rustix::process::geteuid().is_root() {
            eprintln!("skipped: writing an id map of foreign ids needs root");
            return;
        }
        assert!(user_namespace_of("0 100000 10\n", "0 200000 10\n").is_ok());
        let error = user_namespace_of("0 100000 0\n", "0 200000 10\n").unwrap_err();
        assert!(error.to_string().ends_with("uid_map\" \"0 100000 0\": invalid argument"), "{error}");
    }
}
