//! `linux.maskedPaths` and `linux.readonlyPaths` (config-linux.md).
//!
//! [`Paths::hold`] takes the null device of the host before the pivot; [`Paths::apply`] runs after it, in the
//! container's root.
//! Not for: mounts that are read-only (see `mounts`).

use crate::sys::mount::{self, Change, Depth};
use crate::sys::path::{Root, as_path};
use crate::sys::{Called, Error};
use anyhow::{Context as _, Result, ensure};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::FileType;
use serde::Serialize;
use std::collections::BTreeSet;
use std::ffi::CString;

/// Both lists.
#[derive(Debug, Serialize)]
pub struct Paths {
    /// To be hidden, each once.
    pub masked: Vec<CString>,
    /// To be made read-only.
    pub readonly: Vec<CString>,
    /// An SELinux context for what hides directories.
    pub label: Option<CString>,
}

/// What hides files: the null device of the host.
#[derive(Debug)]
pub struct Null(Option<OwnedFd>);

/// Decides what is hidden and what is read-only.
///
/// # Errors
/// A path is relative or has a NUL byte, or there is no mount namespace to do it in.
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
    let mut seen = BTreeSet::new();
    let mut masked = planned("linux.maskedPaths", masked)?;
    // As bytes: paths are compared name by name.
    masked.retain(|path| seen.insert(crate::sys::path::clean(as_path(path)).into_os_string()));
    let label = label.filter(|label| !label.is_empty());
    Ok(Paths {
        masked,
        readonly: planned("linux.readonlyPaths", readonly)?,
        label: label.map(CString::new).transpose().context("linux.mountLabel")?,
    })
}

fn planned(list: &str, paths: &[String]) -> Result<Vec<CString>> {
    let one = |(index, path): (usize, &String)| {
        ensure!(path.starts_with('/'), "{list}[{index}] {path:?}: not an absolute path");
        CString::new(path.as_str()).with_context(|| format!("{list}[{index}] {path:?}"))
    };
    paths.iter().enumerate().map(one).collect()
}

impl Paths {
    /// Takes the host's null device, in init and before the pivot. The container's own could be anything
    /// (CVE-2025-31133).
    ///
    /// # Errors
    /// /dev/null of the host is not the null device.
    pub fn hold(&self) -> Result<Null> {
        if self.masked.is_empty() {
            return Ok(Null(None));
        }
        let hold = || {
            let null = mount::clone_path(c"/dev/null", Depth::One)?;
            let stat = rustix::fs::fstat(&null).called("fstat", || "\"/dev/null\"".to_owned())?;
            ensure!(
                FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice
                    && stat.st_rdev == rustix::fs::makedev(1, 3),
                "/dev/null of the host is not the null device"
            );
            Ok(null)
        };
        hold().map(|null| Null(Some(null))).context("linux.maskedPaths")
    }

    /// Makes paths read-only, then hides the masked ones. `root` is the container's, and `/` by now.
    ///
    /// # Errors
    /// Anything but a path that is not there.
    pub fn apply(&self, root: &Root, null: &Null) -> Result<()> {
        for (index, path) in self.readonly.iter().enumerate() {
            let place = || format!("linux.readonlyPaths[{index}] {}", path.to_string_lossy());
            if let Some(target) = find(root, path).with_context(place)? {
                make_readonly(target.as_fd()).with_context(place)?;
            }
        }
        let (mut file, mut directory) = (Mask::of(null.0.as_ref()), Mask::of(None));
        for (index, path) in self.masked.iter().enumerate() {
            let place = || format!("linux.maskedPaths[{index}] {}", path.to_string_lossy());
            let Some(target) = find(root, path).with_context(place)? else { continue };
            let stat = rustix::fs::fstat(&target).called("fstat", String::new).with_context(place)?;
            if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
                directory.cover(target.as_fd(), || mount::empty_directory(self.label.as_deref()))
            } else {
                file.cover(target.as_fd(), || Err(Error::new("open_tree", "\"/dev/null\"", libc::ENOENT)))
            }
            .with_context(place)?;
        }
        Ok(())
    }
}

/// The place of a path, unless there is none.
fn find(root: &Root, path: &CString) -> Result<Option<OwnedFd>, Error> {
    match root.find(as_path(path)) {
        Ok(found) => Ok(Some(found.fd)),
        Err(error) if error.errno() == libc::ENOENT => Ok(None),
        Err(error) => Err(error),
    }
}

/// The tree of mounts there, attached once more on itself: read-only from its first moment.
fn make_readonly(target: BorrowedFd<'_>) -> Result<(), Error> {
    let tree = mount::clone_at(target, c"", Depth::Tree)?;
    let change = Change { set: mount::RDONLY, ..Change::default() };
    let pending = match mount::set_attributes(tree.as_fd(), Depth::One, change) {
        Err(error) if error.errno() == libc::ENOSYS => true,
        result => result.map(|()| false)?,
    };
    mount::attach(tree.as_fd(), target)?;
    if pending {
        mount::remount_bind(tree.as_fd(), mount::attributes(tree.as_fd())? | mount::RDONLY)?;
    }
    Ok(())
}

/// One mount that hides many places: attached at the first, cloned from there for the others, since before
/// Linux 6.15 only what is attached can be cloned.
struct Mask<'a> {
    given: Option<&'a OwnedFd>,
    made: Option<OwnedFd>,
    attached: bool,
}

impl<'a> Mask<'a> {
    fn of(given: Option<&'a OwnedFd>) -> Self {
        Self { given, made: None, attached: false }
    }

    fn cover(
        &mut self,
        target: BorrowedFd<'_>,
        make: impl FnOnce() -> Result<OwnedFd, Error>,
    ) -> Result<(), Error> {
        let mask = match self.given {
            Some(mask) => mask,
            None => match &mut self.made {
                Some(mask) => mask,
                made => made.insert(make()?),
            },
        };
        if self.attached {
            let copy = mount::clone_at(mask.as_fd(), c"", Depth::One)?;
            return mount::attach(copy.as_fd(), target);
        }
        mount::attach(mask.as_fd(), target)?;
        self.attached = true;
        Ok(())
    }
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
    fn a_relative_path_is_refused_by_name() {
        let text = format!("{:#}", paths(&["/a", "b"], &[]).unwrap_err());
        assert_eq!(text, "linux.maskedPaths[1] \"b\": not an absolute path");
    }

    #[test]
    fn a_path_is_masked_once() {
        assert_eq!(paths(&["/a", "/x/../a/"], &[]).unwrap().masked, [c"/a".to_owned()]);
    }

    #[test]
    fn nothing_is_restricted_without_a_mount_namespace() {
        assert!(plan(&["/a".to_owned()], &[], None, false).is_err());
        assert!(plan(&[], &[], None, false).is_ok());
    }

    /// A root with a place for each kind, entered as in init.
    fn inside(test: impl FnOnce(&Path, &Root) + Send + 'static) {
        private::run(|directory| {
            for name in ["secret/deep", "secret2", "conf", "dev"] {
                std::fs::create_dir_all(directory.join("rootfs").join(name)).unwrap();
            }
            for name in ["secret/file", "key", "key2", "conf/set"] {
                std::fs::write(directory.join("rootfs").join(name), "text").unwrap();
            }
            // What the image says is the null device must not matter.
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
            let null = paths.hold().unwrap();
            paths.apply(root, &null).unwrap();
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
            let null = paths.hold().unwrap();
            rootfs.pivot(&root).unwrap();
            paths.apply(&root, &null).unwrap();
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
