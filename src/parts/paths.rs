//! `linux.maskedPaths` and `linux.readonlyPaths` (config-linux.md, "Masked Paths", "Readonly Paths").
//!
//! A mask is an empty file or directory that orlop mounts on a masked path. Orlop makes its own masks (`sys::nodes`):
//! [`Paths::hold`] in the parent, or [`Paths::hold_in_init`] in init. If neither process may make a node, init uses the
//! host's /dev/null for files. [`Paths::apply`] mounts the masks in the container's root after the pivot.
//! Not for: read-only mounts (`mounts`).

use crate::log;
use crate::sys::mount::{self, Change, Depth, NOEXEC, NOSUID, RDONLY};
use crate::sys::nodes::{Device, Nodes};
use crate::sys::path::{Root, as_path};
use crate::sys::{Called, Error};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, StatxFlags};
use serde::Serialize;
use std::cell::Cell;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::path::PathBuf;

/// Both lists, as the configuration orders them.
#[derive(Debug, Serialize)]
pub struct Paths {
    /// The paths to mask, without repetitions.
    pub masked: Vec<CString>,
    /// The paths to make read-only.
    pub readonly: Vec<CString>,
    /// The SELinux context of the masks.
    pub label: Option<CString>,
}

/// The two masks.
#[derive(Debug)]
pub struct Masks {
    file: Mask,
    directory: Mask,
}

/// A detached mount that masks many paths. Before Linux 6.15 the kernel clones attached mounts only, so the first path
/// gets the mount itself and the others get clones of it.
#[derive(Debug)]
struct Mask {
    mount: OwnedFd,
    is_attached: Cell<bool>,
}

const NULL: Device = Device { kind: FileType::CharacterDevice, number: (1, 3), mode: 0o666, owner: (0, 0) };
const NULL_NAME: &CStr = c"null";
const EMPTY_NAME: &CStr = c"empty";

/// Decides which paths are masked and which are read-only.
///
/// # Errors
/// A path is empty, has a NUL byte, or masks the root; or the container has no mount namespace of its own.
pub fn plan(
    masked: &[String],
    readonly: &[String],
    label: Option<&str>,
    own_mount_namespace: bool,
) -> Result<Paths> {
    ensure!(
        own_mount_namespace || masked.is_empty() && readonly.is_empty(),
        "linux.maskedPaths, linux.readonlyPaths: unable to restrict sys entries without a private MNT namespace"
    );
    for (index, path) in masked.iter().enumerate() {
        let is_root = !path.is_empty() && path.split('/').all(|name| matches!(name, "" | "." | ".."));
        ensure!(!is_root, "linux.maskedPaths[{index}] {path:?}: the root cannot be masked");
    }
    let mut masked = planned("linux.maskedPaths", masked)?;
    let mut seen = BTreeSet::new();
    // ".." stays: a link before it decides where it leads. OsString compares bytes, which is faster than Path's way.
    masked.retain(|path| seen.insert(as_path(path).components().collect::<PathBuf>().into_os_string()));
    let label = label.filter(|label| !label.is_empty());
    Ok(Paths {
        masked,
        readonly: planned("linux.readonlyPaths", readonly)?,
        label: label.map(CString::new).transpose().context("linux.mountLabel")?,
    })
}

fn planned(list: &str, paths: &[String]) -> Result<Vec<CString>> {
    let one = |(index, path): (usize, &String)| {
        ensure!(!path.is_empty(), "{list}[{index}]: empty");
        if !path.starts_with('/') {
            // As in runc, whose working directory is the root when it masks paths.
            log::warn(format!(
                "{list}[{index}] {path:?}: not an absolute path, taken as relative to the root"
            ));
        }
        let absolute = if path.starts_with('/') { path.clone() } else { format!("/{path}") };
        CString::new(absolute).with_context(|| format!("{list}[{index}] {path:?}"))
    };
    paths.iter().enumerate().map(one).collect()
}

impl Paths {
    /// Makes the masks in the parent. The parent calls this for a container with a user namespace, whose init may not
    /// make nodes. Returns `None` if the parent may not make them either.
    ///
    /// # Errors
    /// A call fails with another errno than `EPERM` or `EACCES`.
    pub fn hold(&self) -> Result<Option<Nodes>> {
        if self.masked.is_empty() {
            return Ok(None);
        }
        let make = || {
            let nodes = self.nodes()?;
            nodes.device(NULL_NAME, NULL)?;
            Ok(nodes)
        };
        match make() {
            Ok(nodes) => Ok(Some(nodes)),
            Err(error) if may_not(&error) => Ok(None),
            Err(error) => Err(anyhow::Error::from(error).context("linux.maskedPaths")),
        }
    }

    /// Opens the masks as detached mounts. Init calls this before the pivot, with the masks of [`Paths::hold`]; without
    /// them it makes its own. No mask comes from the container's /dev, which the image controls (CVE-2025-31133).
    ///
    /// # Errors
    /// Init may not make a node, and the host's /dev/null, which it uses instead, is not the null device.
    pub fn hold_in_init(&self, root: &Root, held: Option<Nodes>) -> Result<Option<Masks>> {
        if self.masked.is_empty() {
            return Ok(None);
        }
        let make = || -> Result<Masks> {
            let (nodes, has_null) = match held {
                Some(nodes) => (nodes, true),
                None => {
                    let nodes = self.nodes()?;
                    match nodes.device(NULL_NAME, NULL) {
                        Ok(()) => (nodes, true),
                        Err(error) if may_not(&error) => (nodes, false),
                        Err(error) => return Err(error.into()),
                    }
                }
            };
            let names: &[&CStr] = if has_null { &[EMPTY_NAME, NULL_NAME] } else { &[EMPTY_NAME] };
            let mut mounts = nodes.mounts_of(root.as_fd(), names)?.into_iter().map(Mask::from);
            let directory = mounts.next().context("no mount of the empty directory")?;
            let file = mounts.next().map_or_else(host_null, Ok)?;
            Ok(Masks { file, directory })
        };
        make().map(Some).context("linux.maskedPaths")
    }

    fn nodes(&self) -> Result<Nodes, Error> {
        let nodes = Nodes::new(2, self.label.as_deref())?;
        // The default mode of the root of a tmpfs, which runc mounts on a masked directory.
        nodes.directory(EMPTY_NAME, 0o1777)?;
        Ok(nodes)
    }

    /// Makes paths read-only, then masks the masked ones. Init calls this after the pivot, when `root` is `/`. Paths
    /// that do not exist are skipped.
    ///
    /// # Errors
    /// A masked path leads to the root.
    pub fn apply(&self, root: &Root, masks: Option<Masks>) -> Result<()> {
        let top = Identity::of(root.as_fd())?;
        for (index, path) in self.readonly.iter().enumerate() {
            let place = || format!("linux.readonlyPaths[{index}] {}", path.to_string_lossy());
            if let Some(target) = find(root, path).with_context(place)? {
                let is_root = Identity::of(target.as_fd()).with_context(place)?.is_same(&top);
                make_readonly(target.as_fd(), is_root).with_context(place)?;
            }
        }
        let Some(masks) = masks else { return Ok(()) };
        for (index, path) in self.masked.iter().enumerate() {
            let place = || format!("linux.maskedPaths[{index}] {}", path.to_string_lossy());
            let Some(target) = find(root, path).with_context(place)? else { continue };
            let found = Identity::of(target.as_fd()).with_context(place)?;
            ensure!(!found.is_same(&top), "{}: leads to the root, which cannot be masked", place());
            let is_directory = found.kind == FileType::Directory;
            let mask = if is_directory { &masks.directory } else { &masks.file };
            mask.cover(target.as_fd()).with_context(place)?;
        }
        Ok(())
    }
}

/// Returns true if a call failed because we lack a right, as an ordinary user or in a user namespace.
fn may_not(error: &Error) -> bool {
    matches!(error.errno(), libc::EPERM | libc::EACCES)
}

/// A read-only mount of the host's null device.
fn host_null() -> Result<Mask> {
    let mount = mount::clone_private(CWD, c"/dev/null", Depth::One, RDONLY | NOSUID | NOEXEC)?;
    let stat = rustix::fs::fstat(&mount).called("fstat", || "\"/dev/null\"".to_owned())?;
    ensure!(
        FileType::from_raw_mode(stat.st_mode) == NULL.kind
            && stat.st_rdev == rustix::fs::makedev(NULL.number.0, NULL.number.1),
        "/dev/null of the host is not the null device"
    );
    Ok(mount.into())
}

impl From<OwnedFd> for Mask {
    fn from(mount: OwnedFd) -> Self {
        Self { mount, is_attached: Cell::new(false) }
    }
}

impl Mask {
    fn cover(&self, target: BorrowedFd<'_>) -> Result<(), Error> {
        if self.is_attached.replace(true) {
            let copy = mount::clone_private(self.mount.as_fd(), c"", Depth::One, 0)?;
            return mount::attach(copy.as_fd(), target);
        }
        mount::attach(self.mount.as_fd(), target)
    }
}

/// Opens a path; `None` if it does not exist.
fn find(root: &Root, path: &CString) -> Result<Option<OwnedFd>, Error> {
    match root.find(as_path(path)) {
        Ok(found) => Ok(Some(found.fd)),
        Err(error) if error.errno() == libc::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// The mount and the inode of an opened path. Two paths with the same pair lead to the same place.
struct Identity {
    mount: u64,
    inode: u64,
    kind: FileType,
}

impl Identity {
    fn of(place: BorrowedFd<'_>) -> Result<Self, Error> {
        let wanted = StatxFlags::TYPE | StatxFlags::INO | StatxFlags::MNT_ID;
        let found =
            rustix::fs::statx(place, c"", AtFlags::EMPTY_PATH, wanted).called("statx", String::new)?;
        let kind = FileType::from_raw_mode(found.stx_mode.into());
        Ok(Self { mount: found.stx_mnt_id, inode: found.stx_ino, kind })
    }

    fn is_same(&self, other: &Self) -> bool {
        (self.mount, self.inode) == (other.mount, other.inode)
    }
}

/// Mounts a copy of the tree of mounts at `target` on itself. The copy is read-only before it is attached. The root
/// gets no copy, because no path would lead to it: the root mount itself becomes read-only.
fn make_readonly(target: BorrowedFd<'_>, is_root: bool) -> Result<(), Error> {
    let change = Change { set: RDONLY, ..Change::default() };
    if is_root {
        return mount::set_attributes(target, Depth::One, change);
    }
    // Tied: the copy keeps the propagation of the mount below it, which the configuration may have asked for.
    let tree = mount::clone_tied(target, c"", Depth::Tree)?;
    mount::set_attributes(tree.as_fd(), Depth::One, change)?;
    mount::attach(tree.as_fd(), target)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::mount::private;
    use std::path::Path;

    fn paths(masked: &[&str], readonly: &[&str]) -> Result<Paths> {
        let owned = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        plan(&owned(masked), &owned(readonly), None, true)
    }

    #[test]
    fn a_relative_path_is_one_of_the_root() {
        let planned = paths(&["a"], &["b/c"]).unwrap();
        assert_eq!((planned.masked, planned.readonly), (vec![c"/a".to_owned()], vec![c"/b/c".to_owned()]));
    }

    #[test]
    fn what_cannot_be_meant_is_refused_by_name() {
        for (masked, readonly, said) in [
            (&["/a", "/"][..], &[][..], "linux.maskedPaths[1] \"/\": the root cannot be masked"),
            (&["//.//.."], &[], "linux.maskedPaths[0] \"//.//..\": the root cannot be masked"),
            (&[""], &[], "linux.maskedPaths[0]: empty"),
            (&[], &["/a", ""], "linux.readonlyPaths[1]: empty"),
        ] {
            assert_eq!(format!("{:#}", paths(masked, readonly).unwrap_err()), said);
        }
    }

    #[test]
    fn a_path_is_masked_once() {
        assert_eq!(paths(&["/a", "//./a/"], &[]).unwrap().masked, [c"/a".to_owned()]);
        // A link at /x decides where /x/../a leads.
        assert_eq!(paths(&["/a", "/x/../a"], &[]).unwrap().masked.len(), 2);
    }

    #[test]
    fn nothing_is_restricted_without_a_mount_namespace() {
        assert!(plan(&["/a".to_owned()], &[], None, false).is_err());
        assert!(plan(&[], &[], None, false).is_ok());
    }

    /// Runs `test` with a root that has a file and a directory of each kind, opened as in init.
    fn inside(test: impl FnOnce(&Path, &Root) + Send + 'static) {
        private::run(|directory| {
            for name in ["secret/deep", "secret2", "conf", "dev"] {
                std::fs::create_dir_all(directory.join("rootfs").join(name)).unwrap();
            }
            for name in ["secret/file", "key", "key2", "conf/set"] {
                std::fs::write(directory.join("rootfs").join(name), "text").unwrap();
            }
            // The image's own "null device" must have no effect.
            std::fs::write(directory.join("rootfs/dev/null"), "fake").unwrap();
            let rootfs =
                crate::parts::rootfs::plan(directory, Path::new("rootfs"), true, None, true, false).unwrap();
            let root = rootfs.open().unwrap();
            test(directory, &root);
        });
    }

    #[test]
    fn masked_paths_are_empty_and_readonly_paths_cannot_be_written() {
        inside(|directory, root| {
            let paths =
                paths(&["/secret", "/secret2", "/key", "/key2", "/none"], &["/conf", "/nowhere"]).unwrap();
            let masks = paths.hold_in_init(root, paths.hold().unwrap()).unwrap();
            paths.apply(root, masks).unwrap();
            let at = |name: &str| directory.join("rootfs").join(name);
            for name in ["key", "key2"] {
                assert_eq!(std::fs::read_to_string(at(name)).unwrap(), "");
            }
            for name in ["secret", "secret2"] {
                assert!(std::fs::read_dir(at(name)).unwrap().next().is_none());
                let error = std::fs::write(at(name).join("new"), "").unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EROFS));
            }
            assert_eq!(std::fs::write(at("conf/set"), "x").unwrap_err().raw_os_error(), Some(libc::EROFS));
            assert_eq!(std::fs::read_to_string(at("conf/set")).unwrap(), "text");
        });
    }

    #[test]
    fn after_the_pivot_the_host_is_gone_and_the_root_can_be_readonly() {
        private::run(|directory| {
            std::fs::create_dir(directory.join("rootfs")).unwrap();
            std::fs::write(directory.join("rootfs/key"), "text").unwrap();
            let rootfs = crate::parts::rootfs::plan(
                directory,
                Path::new("rootfs"),
                true,
                Some("rshared"),
                true,
                false,
            )
            .unwrap();
            let paths = paths(&["/key"], &[]).unwrap();
            let root = rootfs.open().unwrap();
            let masks = paths.hold_in_init(&root, None).unwrap();
            rootfs.pivot(&root).unwrap();
            paths.apply(&root, masks).unwrap();
            rootfs.set_propagation(&root).unwrap();
            rootfs.set_readonly(&root).unwrap();
            let names: Vec<_> =
                std::fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["key"]);
            assert_eq!(std::fs::read_to_string("/key").unwrap(), "");
            assert_eq!(std::fs::write("/new", "").unwrap_err().raw_os_error(), Some(libc::EROFS));
            assert_eq!(std::env::current_dir().unwrap(), Path::new("/"));
        });
    }
}
