//! Makes the runtime's own executable unwritable before any container can see it (CVE-2019-5736).
//!
//! A container process can get hold of `/proc/PID/exe` of the runtime. It could write to the host's file behind it as
//! soon as no process executes that file.
//!
//! So a process that enters containers runs from a detached, read-only clone of the executable's mount. Opening the
//! clone for writing gives `EROFS`, whatever the container's powers are. The clone is made in the host's mount
//! namespace and appears in no mount table. When its descriptor is closed it belongs to no mount namespace, and the
//! kernel changes no attributes of such a mount.
//!
//! A read-only mount of the host is not enough: the administrator may make it writable, and the container may have
//! kept the file open until then.

use super::{Called, Error, check};
use rustix::fs::{
    AtFlags, CWD, MemfdFlags, Mode, OFlags, SealFlags, StatFs, Statx, StatxAttributes, StatxFlags,
};
use rustix::mount::{MountAttrFlags, OpenTreeFlags, open_tree};
use std::ffi::{CStr, c_char};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

const SELF: &str = "/proc/self/exe";

/// The target of `/proc/self/exe` if the executable is the root of a detached mount: no path of any namespace leads
/// there.
const DETACHED: &CStr = c"/";
/// The target if the host's file has been removed or replaced since.
const DETACHED_AND_REMOVED: &CStr = c"/ (deleted)";

/// Returns if no container can write to the executable that this process runs from. Else it executes the program
/// again from such an executable.
///
/// # Errors
/// Neither a read-only clone nor a sealed copy can be made, or execveat(2) fails.
///
/// # Safety
/// `args` and `env` must be the process's own: C strings up to a null pointer.
pub unsafe fn seal(args: *const *const c_char, env: *const *const c_char) -> Result<(), Error> {
    if is_sealed()? {
        return Ok(());
    }
    let exe = match read_only_clone() {
        Ok(exe) => exe,
        // The process has no right to mount (rootless), or the executable is in no mount of our namespace.
        Err(_) if is_of_the_hosts_root()? => return Ok(()),
        Err(_) => sealed_copy()?,
    };
    // SAFETY: the caller's promise.
    unsafe { execute(exe.as_fd(), args, env) }
}

/// Whether no process can ever write to the file that this process runs from: it is our own read-only clone, it has
/// fs-verity, or it is a sealed memfd.
fn is_sealed() -> Result<bool, Error> {
    if is_own_clone()? {
        return Ok(true);
    }
    let file = file_of_self()?;
    if file.stx_attributes.contains(StatxAttributes::VERITY) {
        return Ok(keeps_verity(kind_of_self()?.f_type));
    }
    // A memfd has no link. An unlinked file on disk has none either, but F_GET_SEALS refuses it.
    if file.stx_nlink > 0 {
        return Ok(false);
    }
    let exe = rustix::fs::open(SELF, OFlags::RDONLY | OFlags::CLOEXEC, Mode::empty())
        .called("open", || SELF.into())?;
    Ok(rustix::fs::fcntl_get_seals(&exe)
        .is_ok_and(|seals| seals.contains(SealFlags::WRITE | SealFlags::SEAL)))
}

/// Whether this process runs from a detached read-only mount. It asks only the kernel: any caller could set a
/// variable or pass a descriptor.
fn is_own_clone() -> Result<bool, Error> {
    const READ_ONLY: i64 = libc::ST_RDONLY as i64;
    let mut place = [MaybeUninit::<u8>::uninit(); 16];
    let (name, _) = rustix::fs::readlinkat_raw(CWD, SELF, &mut place).called("readlink", || SELF.into())?;
    let detached = *name == *DETACHED.to_bytes() || *name == *DETACHED_AND_REMOVED.to_bytes();
    Ok(detached && kind_of_self()?.f_flags & READ_ONLY != 0)
}

/// Whether a file with the attribute of fs-verity cannot be written on a file system of this type. An overlay is not
/// among them: it shows the attribute of the file below, but copies that file when a process writes.
fn keeps_verity(kind: i64) -> bool {
    const EXT4: i64 = 0xef53;
    const F2FS: i64 = 0xf2f5_2010;
    const BTRFS: i64 = 0x9123_683e;
    [EXT4, F2FS, BTRFS].contains(&kind)
}

/// Whether the host's root owns the file, only root may write to it, and we are an ordinary user: then none of our
/// containers maps the owner.
///
/// The mode decides. access(2) would also refuse if a mount is read-only for the moment.
fn is_of_the_hosts_root() -> Result<bool, Error> {
    // A user namespace that does not map the owner shows this id.
    const OVERFLOW: u32 = 65534;
    let file = file_of_self()?;
    let mode = Mode::from_raw_mode(file.stx_mode.into());
    Ok(!rustix::process::geteuid().is_root()
        && [0, OVERFLOW].contains(&file.stx_uid)
        && !mode.intersects(Mode::WGRP | Mode::WOTH))
}

fn file_of_self() -> Result<Statx, Error> {
    rustix::fs::statx(CWD, SELF, AtFlags::empty(), StatxFlags::BASIC_STATS).called("statx", || SELF.into())
}

fn kind_of_self() -> Result<StatFs, Error> {
    rustix::fs::statfs(SELF).called("statfs", || SELF.into())
}

fn read_only_clone() -> Result<OwnedFd, Error> {
    let flags = OpenTreeFlags::OPEN_TREE_CLONE | OpenTreeFlags::OPEN_TREE_CLOEXEC;
    let tree = open_tree(CWD, SELF, flags).called("open_tree", || SELF.into())?;
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
    // The sysctl vm.memfd_noexec wants this flag for a memfd that is executed. Kernels before 6.3 refuse the flag.
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
    // SAFETY: both arrays end with null and point to C strings (the caller's promise).
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_attribute_of_verity_is_believed_only_of_file_systems_that_keep_it() {
        const OVERLAY: i64 = 0x794c_7630;
        const FUSE: i64 = 0x6573_5546;
        assert!([0xef53, 0xf2f5_2010, 0x9123_683e].into_iter().all(keeps_verity));
        assert!(![OVERLAY, FUSE, libc::TMPFS_MAGIC].into_iter().any(keeps_verity));
    }

    #[test]
    fn a_program_that_runs_from_a_mount_of_the_host_is_not_its_own_clone() {
        assert!(!is_own_clone().unwrap());
    }
}
