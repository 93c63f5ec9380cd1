//! Paths of the host that may lead through a container's root.
//!
//! Links of the host are followed as usual. A link of the image must not be followed there: it would lead to the
//! host. So a path with links is walked by component, and each directory on the way is compared with the root. The
//! comparison is by device and inode: a path has many spellings, and a directory has one identity.
//! Not for: paths that are known to lie in the root (see `sys::path`).

use super::{Called, Error, path};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, Stat};
use rustix::io::Errno;
use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The kernel's own limit on links in one path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// More directories than the longest path has names.
const DEEPEST: usize = libc::PATH_MAX as usize;

/// `ST_NOSYMFOLLOW` of statfs(2).
const ST_NOSYMFOLLOW: u64 = 0x2000;

/// Where a path of the host leads.
#[derive(Debug)]
pub enum Place {
    /// To this O_PATH descriptor. No link of the image was followed.
    Host(OwnedFd),
    /// Into the root. This is the rest of the path, from the root.
    Root(PathBuf),
}

/// Whether a link at the end of the path is followed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LastLink {
    /// The result is what the link leads to.
    Follow,
    /// The result is the link.
    Stay,
}

/// Opens the absolute `path` with O_PATH: one system call for a directory without links on its way.
///
/// A path without links may end in the root all the same. It is safe: no link of the image was followed, and the
/// caller goes on with the descriptor. `root` is asked for only if there is a link.
///
/// # Errors
/// EXDEV if the path leads out of the root again, or by a link of /proc to a place inside the root; else those of
/// openat2(2).
pub fn open<R: AsFd>(
    path: &Path,
    last: LastLink,
    root: impl FnOnce() -> Result<R, Error>,
) -> Result<Place, Error> {
    match straight(path, last) {
        Err(Errno::LOOP) => walk(path, last, root()?.as_fd()),
        found => found.called("openat2", || format!("{path:?}")).map(Place::Host),
    }
}

fn straight(path: &Path, last: LastLink) -> Result<OwnedFd, Errno> {
    let flags = OFlags::PATH | OFlags::CLOEXEC | no_follow(last);
    let open = |flags| rustix::fs::openat2(CWD, path, flags, Mode::empty(), ResolveFlags::NO_SYMLINKS);
    // With O_DIRECTORY the kernel mounts what autofs has there.
    match open(flags | OFlags::DIRECTORY) {
        Err(Errno::NOTDIR) => open(flags),
        found => found,
    }
}

fn no_follow(last: LastLink) -> OFlags {
    if last == LastLink::Stay { OFlags::NOFOLLOW } else { OFlags::empty() }
}

/// Opens the absolute `path` by component, and tells whether it leads into `root`.
///
/// # Errors
/// Those of [`open`].
pub fn walk(path: &Path, last: LastLink, root: BorrowedFd<'_>) -> Result<Place, Error> {
    let error = |errno: i32| Error::new("openat", format!("{path:?} (O_PATH|O_NOFOLLOW)"), errno);
    let mut walk = Walk { root: identity(root)?, here: top()?, left: Vec::new(), links: 0, last };
    walk.push(path);
    walk.run().map_err(|errno| error(errno.raw_os_error()))
}

fn top() -> Result<OwnedFd, Error> {
    rustix::fs::openat(CWD, "/", DIRECTORY, Mode::empty()).called("open", || "\"/\" (O_PATH)".to_owned())
}

fn identity(directory: BorrowedFd<'_>) -> Result<(u64, u64), Error> {
    rustix::fs::fstat(directory).called("fstat", || "a directory".to_owned()).map(|stat| place(&stat))
}

fn place(stat: &Stat) -> (u64, u64) {
    (stat.st_dev, stat.st_ino)
}

const DIRECTORY: OFlags =
    OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

struct Walk {
    root: (u64, u64),
    /// The current directory.
    here: OwnedFd,
    /// The components that are left, the last one first.
    left: Vec<OsString>,
    links: usize,
    last: LastLink,
}

impl Walk {
    fn push(&mut self, path: &Path) {
        path::push_components(&mut self.left, path);
    }

    fn run(mut self) -> Result<Place, Errno> {
        loop {
            let stat = rustix::fs::fstat(&self.here)?;
            if place(&stat) == self.root && self.left.last().is_none_or(|name| name != "..") {
                return self.rest().map(Place::Root);
            }
            let Some(name) = self.left.pop() else { return Ok(Place::Host(self.here)) };
            if let Some(file) = self.step(&name, &stat)? {
                return if self.left.is_empty() { Ok(Place::Host(file)) } else { Err(Errno::NOTDIR) };
            }
        }
    }

    /// What is left of the path, when the walk is in the root. The root has no "..": in it, a path that leads out again
    /// would mean another place.
    fn rest(&self) -> Result<PathBuf, Errno> {
        let mut depth = 0_usize;
        for name in self.left.iter().rev() {
            depth = if name == ".." { depth.checked_sub(1).ok_or(Errno::XDEV)? } else { depth + 1 };
        }
        Ok(self.left.iter().rev().collect())
    }

    /// Takes one step. Returns what it found if that is not a directory, and is not followed.
    fn step(&mut self, name: &OsStr, parent: &Stat) -> Result<Option<OwnedFd>, Errno> {
        if name == "/" {
            self.here = rustix::fs::openat(CWD, "/", DIRECTORY, Mode::empty())?;
            return Ok(None);
        }
        match rustix::fs::openat(&self.here, name, DIRECTORY, Mode::empty()) {
            // It is no directory; it may be a link.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            found => {
                self.here = found?;
                return Ok(None);
            }
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = rustix::fs::openat(&self.here, name, flags, Mode::empty())?;
        let stat = rustix::fs::fstat(&found)?;
        match FileType::from_raw_mode(stat.st_mode) {
            // Another process has replaced it a moment ago.
            FileType::Directory => {
                self.here = found;
                return Ok(None);
            }
            FileType::Symlink if self.last == LastLink::Follow || !self.left.is_empty() => {}
            _ => return Ok(Some(found)),
        }
        self.links += 1;
        let system = rustix::fs::fstatfs(&found)?;
        if self.links > MAX_LINKS || system.f_flags as u64 & ST_NOSYMFOLLOW != 0 {
            return Err(Errno::LOOP);
        }
        if system.f_type == rustix::fs::PROC_SUPER_MAGIC {
            return self.follow_in_proc(name);
        }
        // The kernel does the same for its own walks (fs.protected_symlinks).
        let sticky = parent.st_mode & 0o1002 == 0o1002;
        let ours = rustix::process::geteuid().as_raw();
        if sticky && stat.st_uid != parent.st_uid && stat.st_uid != ours {
            return Err(Errno::ACCESS);
        }
        let target = rustix::fs::readlinkat(&found, c"", Vec::new())?;
        self.push(Path::new(OsStr::from_bytes(target.as_bytes())));
        Ok(None)
    }

    /// The text of such a link does not say where it leads: only the kernel can follow it.
    fn follow_in_proc(&mut self, name: &OsStr) -> Result<Option<OwnedFd>, Errno> {
        let found = rustix::fs::openat(&self.here, name, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        if !FileType::from_raw_mode(rustix::fs::fstat(&found)?.st_mode).is_dir() {
            return Ok(Some(found));
        }
        if !self.left.is_empty() && self.is_inside(&found)? {
            return Err(Errno::XDEV);
        }
        self.here = found;
        Ok(None)
    }

    /// Whether `directory` lies below the root, and is not the root itself.
    fn is_inside(&self, directory: &OwnedFd) -> Result<bool, Errno> {
        let start = place(&rustix::fs::fstat(directory)?);
        if start == self.root {
            return Ok(false);
        }
        let mut below = start;
        let mut above = rustix::fs::openat(directory, "..", DIRECTORY, Mode::empty())?;
        for _ in 0..DEEPEST {
            let here = place(&rustix::fs::fstat(&above)?);
            if here == self.root {
                return Ok(true);
            }
            if here == below {
                return Ok(false);
            }
            below = here;
            above = rustix::fs::openat(&above, "..", DIRECTORY, Mode::empty())?;
        }
        Err(Errno::LOOP)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::path::Root;
    use std::os::unix::fs::symlink;

    fn look(base: &Path, path: &str) -> Result<Place, i32> {
        let root = Root::open_host(&base.join("root")).unwrap();
        open(&base.join(path), LastLink::Follow, || Ok(root)).map_err(|error| error.errno())
    }

    fn same(fd: &OwnedFd, path: &Path) -> bool {
        let there = Root::open_host(path).unwrap();
        identity(fd.as_fd()).unwrap() == identity(there.as_fd()).unwrap()
    }

    #[test]
    fn a_path_that_meets_the_root_goes_on_in_it() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("root/a/b")).unwrap();
        std::fs::create_dir(base.join("beside")).unwrap();
        symlink(&base, base.join("self")).unwrap();
        symlink("self/root", base.join("image")).unwrap();
        symlink(base.join("beside"), base.join("root/out")).unwrap();
        for (path, rest) in [
            ("image", ""),
            ("self/root/out", "out"),
            ("root/out/x", "out/x"),
            ("image/a/../b", "a/../b"),
            ("root/../self/beside/../root/a", "a"),
        ] {
            let found = look(&base, path);
            assert!(
                matches!(&found, Ok(Place::Root(found)) if found == Path::new(rest)),
                "{path}: {found:?}"
            );
        }
        for path in ["self/beside", "self/root/../beside", "beside", "image/../beside"] {
            let found = look(&base, path);
            assert!(
                matches!(&found, Ok(Place::Host(fd)) if same(fd, &base.join("beside"))),
                "{path}: {found:?}"
            );
        }
        assert_eq!(look(&base, "self/root/a/../../beside").unwrap_err(), libc::EXDEV);
        assert_eq!(look(&base, "self/nothing").unwrap_err(), libc::ENOENT);
    }

    #[test]
    fn a_link_of_proc_to_a_place_in_the_root_is_refused() {
        let directory = tempfile::tempdir().unwrap();
        let base = directory.path().canonicalize().unwrap();
        std::fs::create_dir_all(base.join("root/a/b")).unwrap();
        let root = Root::open_host(&base.join("root")).unwrap();
        let inside = root.find(Path::new("a")).unwrap().fd;
        let named = |fd: BorrowedFd<'_>| format!("/proc/self/fd/{}/b", rustix::fd::AsRawFd::as_raw_fd(&fd));
        let walk = |path: String| walk(Path::new(&path), LastLink::Follow, root.as_fd());
        assert_eq!(walk(named(inside.as_fd())).unwrap_err().errno(), libc::EXDEV);
        assert!(matches!(walk(named(root.as_fd())), Ok(Place::Root(rest)) if rest == Path::new("b")));
        assert!(matches!(walk("/proc/self/ns/net".to_owned()), Ok(Place::Host(_))));
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir(directory.path().join("root")).unwrap();
        symlink("two", directory.path().join("one")).unwrap();
        symlink("one", directory.path().join("two")).unwrap();
        assert_eq!(look(directory.path(), "one").unwrap_err(), libc::ELOOP);
    }
}
