//! The runtime's own files that it mounts in a container: device nodes, and an empty directory.
//!
//! Root of a container can change the mode, owner and times of a file that is mounted from the host. The host sees
//! that change. So the runtime mounts no file of the host: it makes these files on a tmpfs for this container alone.
//!
//! For a container in a user namespace the parent makes them. There, init may not make a device (mknod(2)), and
//! devices on a tmpfs that init mounts do not work. Init then takes mounts of the files from the tmpfs
//! ([`Nodes::mounts_of`]).
//! Not for: what is mounted where (see `parts::devices`, `parts::paths`).

use super::mount::{self, Change, Context, Depth, NOEXEC, NOSUID, Propagation, RDONLY};
use super::{Called, Error};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, FileType, Gid, Mode, Uid};
use std::ffi::CStr;

/// A detached tmpfs.
#[derive(Debug)]
pub struct Nodes(OwnedFd);

/// The properties of a device node.
#[derive(Clone, Copy, Debug)]
pub struct Device {
    /// Character or block.
    pub kind: FileType,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// User and group.
    pub owner: (u32, u32),
}

impl Nodes {
    /// A tmpfs with room for `count` files, but not for any content.
    ///
    /// # Errors
    /// EPERM without the right to mount.
    pub fn new(count: usize, label: Option<&CStr>) -> Result<Self, Error> {
        let context = Context::open(c"tmpfs")?;
        context.string(c"source", c"tmpfs")?;
        context.string(c"mode", c"755")?;
        context.string(c"nr_blocks", c"1")?;
        // One more for the root directory.
        let inodes = std::ffi::CString::new((count + 1).to_string()).unwrap_or_default();
        context.string(c"nr_inodes", &inodes)?;
        if let Some(label) = label {
            context.string(c"context", label)?;
        }
        context.mount(NOSUID | NOEXEC).map(Self)
    }

    /// Makes a device node with its mode and owner.
    ///
    /// # Errors
    /// EPERM without the right to make devices.
    pub fn device(&self, name: &CStr, device: Device) -> Result<(), Error> {
        let (mode, (uid, gid)) = (Mode::from_raw_mode(device.mode), device.owner);
        let number = rustix::fs::makedev(device.number.0, device.number.1);
        rustix::fs::mknodat(&self.0, name, device.kind, mode, number)
            .called("mknodat", || format!("{name:?} ({device:?})"))?;
        if device.owner != (0, 0) {
            let (uid, gid) = (Uid::from_raw(uid), Gid::from_raw(gid));
            rustix::fs::chownat(&self.0, name, Some(uid), Some(gid), AtFlags::SYMLINK_NOFOLLOW)
                .called("fchownat", || format!("{name:?} ({device:?})"))?;
        }
        self.chmod(name, mode)
    }

    /// Makes an empty directory.
    pub fn directory(&self, name: &CStr, mode: u32) -> Result<(), Error> {
        let mode = Mode::from_raw_mode(mode);
        rustix::fs::mkdirat(&self.0, name, mode).called("mkdirat", || format!("{name:?}"))?;
        self.chmod(name, mode)
    }

    /// Sets the mode once more, because mknod(2) and mkdir(2) apply the umask.
    fn chmod(&self, name: &CStr, mode: Mode) -> Result<(), Error> {
        rustix::fs::chmodat(&self.0, name, mode, AtFlags::empty())
            .called("fchmodat", || format!("{name:?} {:#o}", mode.as_raw_mode()))
    }

    /// Detached mounts of these files: private, read-only, nosuid, noexec. A process can still write to a device on a
    /// read-only mount; such a mount only refuses chmod(2), chown(2) and utimensat(2).
    ///
    /// Before Linux 6.15 the kernel clones only what is attached. So the tmpfs is attached on top of `root`, the
    /// container's, for a moment. Until it is detached, no path may be looked up: a ".." could lead to it.
    ///
    /// # Errors
    /// There is no such file, or this process may not change the mount namespace.
    pub fn mounts_of(self, root: BorrowedFd<'_>, names: &[&CStr]) -> Result<Vec<OwnedFd>, Error> {
        mount::attach(self.0.as_fd(), root)?;
        let private = Change { set: RDONLY, clear: 0, propagation: Some(Propagation::Private) };
        mount::set_attributes(self.0.as_fd(), Depth::One, private)?;
        // The clones have the attributes of the tmpfs.
        let one = |name: &&CStr| mount::clone_tied(self.0.as_fd(), name, Depth::One);
        let mounts = names.iter().map(one).collect::<Result<_, _>>()?;
        mount::detach_from(self.0.as_fd())?;
        Ok(mounts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::path::Root;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, PermissionsExt as _};

    #[test]
    fn a_node_works_as_a_device_and_cannot_be_changed() {
        mount::private::run(|directory| {
            std::fs::write(directory.join("place"), "").unwrap();
            std::fs::create_dir(directory.join("empty")).unwrap();
            // The root is a shared mount, as with rootfsPropagation.
            let root = Root::open_host(directory).unwrap();
            let own = mount::clone_private(root.as_fd(), c"", Depth::Tree, 0).unwrap();
            let shared = Change { propagation: Some(Propagation::Shared), ..Change::default() };
            mount::set_attributes(own.as_fd(), Depth::One, shared).unwrap();
            mount::attach(own.as_fd(), root.as_fd()).unwrap();
            let root = Root::from(own);

            let nodes = Nodes::new(2, None).unwrap();
            let device =
                Device { kind: FileType::CharacterDevice, number: (1, 3), mode: 0o622, owner: (5, 6) };
            if let Err(error) = nodes.device(c"null", device) {
                eprintln!("skipped: {error}");
                return;
            }
            nodes.directory(c"empty", 0o1777).unwrap();
            let before = std::env::current_dir().unwrap();
            let mounts = nodes.mounts_of(root.as_fd(), &[c"null", c"empty"]).unwrap();
            // A relative path of the configuration is not looked up in the image.
            assert_eq!(std::env::current_dir().unwrap(), before);
            for (mount, place) in mounts.iter().zip(["place", "empty"]) {
                mount::attach(mount.as_fd(), root.find(std::path::Path::new(place)).unwrap().fd.as_fd())
                    .unwrap();
            }

            let place = directory.join("place");
            let found = std::fs::metadata(&place).unwrap();
            assert!(found.file_type().is_char_device());
            assert_eq!((found.uid(), found.gid(), found.mode() & 0o7777), (5, 6, 0o622));
            std::fs::write(&place, "gone").unwrap();
            assert_eq!(std::fs::read(&place).unwrap(), b"");
            let refused =
                |result: std::io::Result<()>| result.unwrap_err().raw_os_error() == Some(libc::EROFS);
            assert!(refused(std::fs::set_permissions(&place, std::fs::Permissions::from_mode(0o0))));
            assert!(refused(std::os::unix::fs::chown(&place, Some(1), None)));
            assert!(refused(std::fs::write(directory.join("empty/file"), "")));
            for name in ["place", "empty"] {
                let path = directory.join(name).display().to_string();
                let (options, _, _) = mount::private::mounts_at(&path).pop().unwrap();
                assert_eq!(options, "ro,nosuid,noexec,relatime");
            }
            // The tmpfs itself is gone.
            let path = directory.display().to_string();
            assert_eq!(mount::private::mounts_at(&path).len(), 1);
        });
    }
}
