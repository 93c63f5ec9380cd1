//! The runtime's own executable, made unwritable before any container can see it (CVE-2019-5736).
//!
//! A container process that gets hold of `/proc/PID/exe` of the runtime could write to the host's file
//! behind it as soon as nobody executes it. So the process that enters containers runs from a read-only
//! detached mount of the executable: opening it for writing gives `EROFS`, whatever the container's powers.
//! The mount is made in the host's mount namespace, appears in no mount table, and goes with the process.

use super::{Called, Error, check};
use rustix::fs::{AtFlags, MemfdFlags, Mode, OFlags, SealFlags};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use std::ffi::c_char;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const SELF: &str = "/proc/self/exe";

/// Returns when this process runs from an executable that no container can write; re-executes itself
/// from such a one first if need be.
///
/// # Errors
/// Neither a read-only mount nor a sealed copy can be made, or execveat(2) fails.
///
/// # Safety
/// `args` and `env` must be the process's own: C strings up to a null pointer.
pub unsafe fn seal(args: *const *const c_char, env: *const *const c_char) -> Result<(), Error> {
    if is_sealed()? {
        return Ok(());
    }
    let exe = match read_only_mount() {
        Ok(exe) => exe,
        // No right to mount (rootless), or Linux before 5.12: a sealed copy in memory.
        Err(_) => sealed_copy()?,
    };
    // SAFETY: the caller's promise.
    unsafe { execute(exe.as_fd(), args, env) }
}

/// Our executable cannot be opened for writing by a container: its mount is read-only, it is a sealed
/// memfd, or (for an ordinary user) it belongs to another user who is not mapped into our containers.
fn is_sealed() -> Result<bool, Error> {
    const READ_ONLY: i64 = libc::ST_RDONLY as i64;
    let found = rustix::fs::statfs(SELF).called("statfs", || SELF.into())?;
    if found.f_flags & READ_ONLY != 0 {
        return Ok(true);
    }
    let euid = rustix::process::geteuid().as_raw();
    // A memfd says that it is of a tmpfs. For root, all others are writable: enough is known.
    if euid == 0 && found.f_type != libc::TMPFS_MAGIC {
        return Ok(false);
    }
    let file = rustix::fs::stat(SELF).called("stat", || SELF.into())?;
    if euid != 0 && file.st_uid != euid && rustix::fs::access(SELF, rustix::fs::Access::WRITE_OK).is_err() {
        return Ok(true);
    }
    // Only a memfd has no link: an unlinked file on disk is not sealed, F_GET_SEALS refuses it.
    if file.st_nlink > 0 {
        return Ok(false);
    }
    let exe = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called("open", || SELF.into())?;
    Ok(rustix::fs::fcntl_get_seals(&exe)
        .is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SEAL)))
}

fn read_only_mount() -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(rustix::fs::CWD, SELF, flags).called("open_tree", || SELF.into())?;
    set_read_only(tree.as_fd())?;
    Ok(tree)
}

fn set_read_only(mount: BorrowedFd<'_>) -> Result<(), Error> {
    let attributes = libc::mount_attr {
        attr_set: u64::from(MountAttrFlags::MOUNT_ATTR_RDONLY.bits()),
        attr_clr: 0,
        propagation: 0,
        userns_fd: 0,
    };
    // SAFETY: `attributes` is a valid mount_attr of the size given; the path is a constant C string.
    check(unsafe {
        libc::syscall(
            libc::SYS_mount_setattr,
            mount.as_raw_fd(),
            c"".as_ptr(),
            libc::AT_EMPTY_PATH,
            &raw const attributes,
            size_of::<libc::mount_attr>(),
        )
    })
    .map(drop)
    .called("mount_setattr", || format!("{SELF} (MOUNT_ATTR_RDONLY)"))
}

fn sealed_copy() -> Result<OwnedFd, Error> {
    // vm.memfd_noexec wants to be told that this one is to be executed (Linux 6.3; older kernels refuse the flag).
    const MFD_EXEC: u32 = 0x10;
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    let copy = rustix::fs::memfd_create("orlop", flags | MemfdFlags::from_bits_retain(MFD_EXEC))
        .or_else(|_| rustix::fs::memfd_create("orlop", flags))
        .called("memfd_create", || "orlop".into())?;
    let exe = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called("open", || SELF.into())?;
    while rustix::fs::sendfile(&copy, &exe, None, 1 << 30).called("sendfile", || SELF.into())? > 0 {}
    let seals = SealFlags::SEAL | SealFlags::SHRINK | SealFlags::GROW | SealFlags::WRITE;
    rustix::fs::fcntl_add_seals(&copy, seals).called("fcntl", || "(F_ADD_SEALS)".into())?;
    Ok(copy)
}

/// Replaces this process by the program `exe`, with our own arguments and environment.
///
/// # Safety
/// As for [`seal`].
unsafe fn execute(
    exe: BorrowedFd<'_>,
    args: *const *const c_char,
    env: *const *const c_char,
) -> Result<(), Error> {
    // SAFETY: both arrays are null-terminated and point to C strings (the caller's promise).
    check(unsafe {
        libc::syscall(
            libc::SYS_execveat,
            exe.as_raw_fd(),
            c"".as_ptr(),
            args,
            env,
            AtFlags::EMPTY_PATH.bits(),
        )
    })
    .map(drop)
    .called("execveat", || SELF.into())
}
