//! [`Root`]: the only way to files below a container's root filesystem.
//!
//! The kernel resolves a path below the rootfs against a directory fd (openat2(2), RESOLVE_IN_ROOT). So a symbolic
//! link of the image cannot lead out of it, and no path string contains the rootfs (CVE-2021-30465 and its
//! relatives). The one walk in userspace makes missing directories and files ([`Root::create_dir_all`],
//! [`Root::create_file`]). It goes component by component, below fds that it holds.
//! Also here: plain functions on host paths ([`real_path`], [`clean`]).
//! Not for: /proc (see `sys::proc`).

use super::{Called, Error};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString, OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};

/// EAGAIN means that another process renamed something on the system while the kernel walked a "..". With a rename
/// storm on every core, 128 tries leave about one failure in a thousand (measured by libpathrs). After that the call
/// fails.
const TRIES: usize = 128;

/// The kernel's own limit on links in one path (MAXSYMLINKS).
const MAX_LINKS: usize = 40;

/// How often a walk begins again because other processes make and remove files on its way. Containers that share one
/// root file system make the same mount points at the same time.
const WALKS: usize = 64;

const IN_ROOT: ResolveFlags = ResolveFlags::IN_ROOT.union(ResolveFlags::NO_MAGICLINKS);

/// An open directory; paths are resolved below it.
#[derive(Debug)]
pub struct Root(OwnedFd);

/// The result of looking up a path below the root.
#[derive(Debug)]
pub struct Found {
    /// An O_PATH descriptor, on the topmost mount there.
    pub fd: OwnedFd,
    /// True if a symbolic link was followed: then the path is not the place's real name.
    pub through_symlink: bool,
}

impl AsFd for Root {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<OwnedFd> for Root {
    fn from(directory: OwnedFd) -> Self {
        Self(directory)
    }
}

fn open_below(
    directory: BorrowedFd<'_>,
    path: &Path,
    flags: OFlags,
    mode: Mode,
    resolve: ResolveFlags,
) -> Result<OwnedFd, Errno> {
    // Callers mean the directory itself by an empty path; for openat2 it is ENOENT.
    let path = if path.as_os_str().is_empty() { Path::new(".") } else { path };
    for _ in 1..TRIES {
        match rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve) {
            Err(Errno::AGAIN | Errno::INTR) => {}
            result => return result,
        }
    }
    rustix::fs::openat2(directory, path, flags | OFlags::CLOEXEC, mode, resolve)
}

impl Root {
    /// Opens a directory of the host as a root.
    ///
    /// # Errors
    /// It cannot be opened, or is no directory.
    pub fn open_host(path: &Path) -> Result<Self, Error> {
        rustix::fs::openat(CWD, path, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
            .called("open", || format!("{path:?} (O_PATH|O_DIRECTORY)"))
            .map(Self)
    }

    /// Opens `path` in the root with `flags`. Links are followed, inside the root.
    ///
    /// # Errors
    /// ELOOP for a magic link; else those of openat2(2).
    pub fn open(&self, path: &Path, flags: OFlags) -> Result<OwnedFd, Error> {
        open_below(self.as_fd(), path, flags, Mode::empty(), IN_ROOT)
            .called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT)"))
    }

    /// Looks `path` up as a place to mount on: one system call if there is no link on the way, else two.
    ///
    /// # Errors
    /// ENOENT if it does not exist; else those of openat2(2).
    pub fn find(&self, path: &Path) -> Result<Found, Error> {
        let straight = IN_ROOT.union(ResolveFlags::NO_SYMLINKS);
        match open_below(self.as_fd(), path, OFlags::PATH, Mode::empty(), straight) {
            Err(Errno::LOOP) => self.open(path, OFlags::PATH).map(|fd| Found { fd, through_symlink: true }),
            result => result
                .called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT)"))
                .map(|fd| Found { fd, through_symlink: false }),
        }
    }

    /// Opens `path` in the root. A link on the way is an error.
    ///
    /// # Errors
    /// ELOOP for a link, even a dangling one; else those of openat2(2).
    pub fn find_without_links(&self, path: &Path) -> Result<OwnedFd, Error> {
        let straight = IN_ROOT.union(ResolveFlags::NO_SYMLINKS);
        open_below(self.as_fd(), path, OFlags::PATH, Mode::empty(), straight)
            .called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT|RESOLVE_NO_SYMLINKS)"))
    }

    /// [`Root::find`] that does not follow the last component: it finds the link itself.
    ///
    /// # Errors
    /// ENOENT if it does not exist; else those of openat2(2).
    pub fn find_nofollow(&self, path: &Path) -> Result<OwnedFd, Error> {
        open_below(self.as_fd(), path, OFlags::PATH | OFlags::NOFOLLOW, Mode::empty(), IN_ROOT)
            .called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT, O_NOFOLLOW)"))
    }

    /// Opens the directory `path`. The last component must be a directory, and not a link to one.
    ///
    /// # Errors
    /// ENOENT if it does not exist; ENOTDIR or ELOOP if it is something else.
    pub fn find_directory_nofollow(&self, path: &Path) -> Result<OwnedFd, Error> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::DIRECTORY;
        open_below(self.as_fd(), path, flags, Mode::empty(), IN_ROOT)
            .called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT, O_NOFOLLOW|O_DIRECTORY)"))
    }

    /// Opens the directory `path`, and creates it with its parents if it is missing.
    ///
    /// It follows a dangling link inside the root and creates its target, as runc does.
    ///
    /// # Errors
    /// ENOTDIR if a component is no directory; ELOOP if another process puts a link in its place.
    pub fn create_dir_all(&self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        match open_below(self.as_fd(), path, OFlags::PATH | OFlags::DIRECTORY, Mode::empty(), IN_ROOT) {
            Err(Errno::NOENT) => self.create_missing_dir(path, mode),
            result => result.called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT)")),
        }
    }

    /// [`Root::create_dir_all`] for a path that was missing a moment ago: it does not look once more.
    pub fn create_missing_dir(&self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        walk_again(|| Walk::new(self).directory(path, mode))
    }

    /// The directory that holds `path`'s last component, created if missing, and the last component's name.
    ///
    /// # Errors
    /// The path has no last component, or the directory cannot be opened or made.
    pub fn create_parent(&self, path: &Path, mode: u32) -> Result<(OwnedFd, CString), Error> {
        let name = last_component(path)?;
        let parent = path.parent().unwrap_or(Path::new(""));
        Ok((self.create_dir_all(parent, mode)?, name))
    }

    /// Opens the file at `path`, and creates it, empty, with its parents if it is missing. The descriptor can be
    /// mounted on.
    ///
    /// It follows a dangling link inside the root. A file that another process has created meanwhile is taken as it
    /// is.
    ///
    /// # Errors
    /// EISDIR if a directory is there.
    pub fn create_file(&self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        walk_again(|| Walk::new(self).file(path, mode))
    }

    /// Creates the symbolic link `path` with this target, and its parents if they are missing.
    ///
    /// # Errors
    /// EEXIST if something else is there.
    pub fn create_link(&self, path: &Path, target: &CStr) -> Result<(), Error> {
        let shown = || format!("{target:?} at {path:?}");
        walk_again(|| {
            let (parent, name) = self.create_parent(path, 0o755)?;
            match rustix::fs::symlinkat(target, &parent, &name) {
                Err(Errno::EXIST) => {}
                result => return result.called("symlinkat", shown),
            }
            match rustix::fs::readlinkat(&parent, &name, Vec::new()) {
                Ok(there) if there.as_c_str() == target => Ok(()),
                Err(Errno::NOENT) => Err(Error::new("readlinkat", shown(), libc::ENOENT)),
                _ => Err(Error::new("symlinkat", shown(), libc::EEXIST)),
            }
        })
    }
}

/// Repeats a walk while other processes make or remove files on its way.
fn walk_again<T>(mut walk: impl FnMut() -> Result<T, Error>) -> Result<T, Error> {
    for _ in 1..WALKS {
        match walk() {
            Err(error) if matches!(error.errno(), libc::ENOENT | libc::EEXIST) => {}
            result => return result,
        }
    }
    walk()
}

/// The last component as a C string; "..", "/" and the empty path have none.
fn last_component(path: &Path) -> Result<CString, Error> {
    let refused = || Error::new("path", format!("{path:?}"), libc::EINVAL);
    let Some(Component::Normal(name)) = path.components().next_back() else { return Err(refused()) };
    CString::new(name.as_bytes()).map_err(|_| refused())
}

/// Walks and creates, one component a step. Every step is relative to a directory fd that was opened without
/// following links. So a racing rename can move the result, but never out of the root.
struct Walk<'a> {
    root: &'a Root,
    /// The current directory; `None` is the root itself.
    here: Option<OwnedFd>,
    /// The path to here, free of links. A ".." needs it.
    done: Vec<OsString>,
    /// The components that are left, the last one first.
    left: Vec<OsString>,
    links: usize,
}

enum Step {
    /// The walk is in the directory of that name now.
    Entered,
    /// It was a link; its target is in `left` now.
    Followed,
    /// Nothing has that name.
    Missing,
    /// It is neither a directory nor a link; an O_PATH descriptor.
    File(OwnedFd),
}

/// Puts the components of `path` on `left`, the first one on top; `/` stands for the root and `..` for the parent.
pub(super) fn push_components(left: &mut Vec<OsString>, path: &Path) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => left.push(name.to_owned()),
            Component::ParentDir => left.push("..".into()),
            Component::RootDir => left.push("/".into()),
            Component::CurDir | Component::Prefix(_) => {}
        }
    }
}

impl<'a> Walk<'a> {
    fn new(root: &'a Root) -> Self {
        Self { root, here: None, done: Vec::new(), left: Vec::new(), links: 0 }
    }

    fn at(&self) -> BorrowedFd<'_> {
        self.here.as_ref().map_or_else(|| self.root.as_fd(), AsFd::as_fd)
    }

    fn push(&mut self, path: &Path) {
        push_components(&mut self.left, path);
    }

    /// Opens the directory `done` again, from the root.
    fn restart(&mut self) -> Result<(), Error> {
        if self.done.is_empty() {
            self.here = None;
            return Ok(());
        }
        let path: PathBuf = self.done.iter().collect();
        let resolve = IN_ROOT.union(ResolveFlags::NO_SYMLINKS);
        let flags = OFlags::PATH | OFlags::DIRECTORY;
        let fd = open_below(self.root.as_fd(), &path, flags, Mode::empty(), resolve)
            .called("openat2", || format!("{path:?} (RESOLVE_IN_ROOT|RESOLVE_NO_SYMLINKS)"))?;
        self.here = Some(fd);
        Ok(())
    }

    fn step(&mut self, name: &OsStr) -> Result<Step, Error> {
        if name == "/" {
            self.done.clear();
            self.here = None;
            return Ok(Step::Entered);
        }
        if name == ".." {
            self.done.pop();
            self.restart()?;
            return Ok(Step::Entered);
        }
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match rustix::fs::openat(self.at(), name, flags | OFlags::DIRECTORY, Mode::empty()) {
            Ok(fd) => {
                self.here = Some(fd);
                self.done.push(name.to_owned());
                return Ok(Step::Entered);
            }
            Err(Errno::NOENT) => return Ok(Step::Missing),
            // It is no directory; it may be a link.
            Err(Errno::NOTDIR | Errno::LOOP) => {}
            Err(errno) => return Err(errno).called("openat", || format!("{name:?} (O_PATH|O_NOFOLLOW)")),
        }
        let link = rustix::fs::openat(self.at(), name, flags, Mode::empty())
            .called("openat", || format!("{name:?} (O_PATH|O_NOFOLLOW)"))?;
        let stat = rustix::fs::fstat(&link).called("fstat", || format!("{name:?}"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Symlink => {}
            // Another process has replaced it a moment ago.
            FileType::Directory => {
                self.here = Some(link);
                self.done.push(name.to_owned());
                return Ok(Step::Entered);
            }
            _ => return Ok(Step::File(link)),
        }
        self.links += 1;
        if self.links > MAX_LINKS {
            return Err(Error::new("openat", format!("{name:?}"), libc::ELOOP));
        }
        let target =
            rustix::fs::readlinkat(&link, c"", Vec::new()).called("readlinkat", || format!("{name:?}"))?;
        self.push(Path::new(OsStr::from_bytes(target.as_bytes())));
        Ok(Step::Followed)
    }

    fn directory(mut self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        self.push(path);
        while let Some(name) = self.left.pop() {
            self.enter(&name, mode)?;
        }
        match self.here {
            Some(fd) => Ok(fd),
            None => rustix::io::fcntl_dupfd_cloexec(&self.root.0, 3).called("fcntl", || "F_DUPFD".to_owned()),
        }
    }

    fn enter(&mut self, name: &OsStr, mode: u32) -> Result<(), Error> {
        let no_directory = || Error::new("openat", format!("{name:?} (O_DIRECTORY)"), libc::ENOTDIR);
        match self.step(name)? {
            Step::Entered | Step::Followed => return Ok(()),
            Step::File(_) => return Err(no_directory()),
            Step::Missing => {}
        }
        match rustix::fs::mkdirat(self.at(), name, Mode::from_raw_mode(mode)) {
            // Another process was faster. Its directory is checked like any other.
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => return Err(errno).called("mkdirat", || format!("{name:?}")),
        }
        match self.step(name)? {
            Step::Entered | Step::Followed => Ok(()),
            Step::File(_) => Err(no_directory()),
            Step::Missing => Err(Error::new("openat", format!("{name:?}"), libc::ENOENT)),
        }
    }

    fn file(mut self, path: &Path, mode: u32) -> Result<OwnedFd, Error> {
        self.push(path);
        while let Some(name) = self.left.pop() {
            if !self.left.is_empty() {
                self.enter(&name, 0o755)?;
                continue;
            }
            match self.step(&name)? {
                Step::File(fd) => return Ok(fd),
                Step::Missing => {
                    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                    return rustix::fs::openat(self.at(), name.as_os_str(), flags, Mode::from_raw_mode(mode))
                        .called("openat", || format!("{name:?} (O_CREAT|O_EXCL|O_NOFOLLOW)"));
                }
                Step::Entered | Step::Followed => {}
            }
        }
        Err(Error::new("openat", format!("{path:?} (O_CREAT)"), libc::EISDIR))
    }
}

/// `path` as a C string.
///
/// # Errors
/// EINVAL: it holds a NUL byte.
pub fn c_path(path: &Path) -> Result<CString, Error> {
    CString::new(path.as_os_str().as_bytes())
        .map_err(|_| Error::new("path", format!("{path:?}"), libc::EINVAL))
}

/// `path` made absolute and free of links (realpath(3)). Not std's: there the C library allocates the result, for
/// which musl makes five system calls.
///
/// # Errors
/// A component is missing, or is no directory.
pub fn real_path(path: &Path) -> Result<PathBuf, Error> {
    let mut room = [0; libc::PATH_MAX as usize];
    let named = c_path(path)?;
    // SAFETY: `named` is a C string; `room` has PATH_MAX bytes, the most that realpath(3) writes.
    let found = unsafe { libc::realpath(named.as_ptr(), room.as_mut_ptr()) };
    if found.is_null() {
        return Err(std::io::Error::last_os_error()).called("realpath", || format!("{path:?}"));
    }
    // SAFETY: realpath(3) has written a C string there.
    Ok(as_path(unsafe { CStr::from_ptr(room.as_ptr()) }).to_owned())
}

/// The path of a C string.
pub fn as_path(path: &CStr) -> &Path {
    Path::new(OsStr::from_bytes(path.to_bytes()))
}

/// `path` made absolute and free of ".", ".." and double slashes, by its text alone, as seen from the container's
/// root.
pub fn clean(path: &Path) -> PathBuf {
    // By its bytes: std's iterator looks at the rest of the path for each name.
    let path = path.as_os_str().as_bytes();
    let mut clean = Vec::with_capacity(path.len() + 1);
    for name in path.split(|byte| *byte == b'/') {
        match name {
            b"" | b"." => {}
            b".." => clean.truncate(clean.iter().rposition(|byte| *byte == b'/').unwrap_or(0)),
            name => {
                clean.push(b'/');
                clean.extend_from_slice(name);
            }
        }
    }
    if clean.is_empty() {
        clean.push(b'/');
    }
    path_of(clean)
}

/// Owned bytes as a path.
pub fn path_of(bytes: Vec<u8>) -> PathBuf {
    PathBuf::from(OsString::from_vec(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn root() -> (tempfile::TempDir, Root) {
        let directory = tempfile::tempdir().unwrap();
        std::fs::create_dir_all(directory.path().join("root/there/deep")).unwrap();
        std::fs::create_dir(directory.path().join("outside")).unwrap();
        let root = Root::open_host(&directory.path().join("root")).unwrap();
        (directory, root)
    }

    #[test]
    fn an_absolute_link_stays_in_the_root() {
        let (directory, root) = root();
        symlink(directory.path().join("outside"), directory.path().join("root/data")).unwrap();
        root.create_dir_all(Path::new("/data/new"), 0o755).unwrap();
        assert!(!directory.path().join("outside/new").exists());
        let inside = directory.path().strip_prefix("/").unwrap();
        assert!(directory.path().join("root").join(inside).join("outside/new").is_dir());
    }

    #[test]
    fn dots_do_not_leave_the_root() {
        let (directory, root) = root();
        symlink("../../../../../../../../outside", directory.path().join("root/up")).unwrap();
        root.create_dir_all(Path::new("/up/new"), 0o755).unwrap();
        root.create_dir_all(Path::new("/../../outside/other"), 0o755).unwrap();
        assert!(std::fs::read_dir(directory.path().join("outside")).unwrap().next().is_none());
        assert!(directory.path().join("root/outside/new").is_dir());
        assert!(directory.path().join("root/outside/other").is_dir());
    }

    #[test]
    fn a_relative_link_is_followed_from_where_it_stands() {
        let (directory, root) = root();
        symlink("../there/./deep", directory.path().join("root/there/back")).unwrap();
        root.create_dir_all(Path::new("/there/back/a/../b"), 0o755).unwrap();
        assert!(directory.path().join("root/there/deep/b").is_dir());
        assert!(directory.path().join("root/there/deep/a").is_dir());
    }

    #[test]
    fn links_in_a_circle_are_an_error() {
        let (directory, root) = root();
        symlink("two", directory.path().join("root/one")).unwrap();
        symlink("one", directory.path().join("root/two")).unwrap();
        assert_eq!(root.create_dir_all(Path::new("one/x"), 0o755).unwrap_err().errno(), libc::ELOOP);
        assert_eq!(root.find(Path::new("one")).unwrap_err().errno(), libc::ELOOP);
    }

    #[test]
    fn a_file_on_the_way_is_an_error() {
        let (directory, root) = root();
        std::fs::write(directory.path().join("root/file"), "").unwrap();
        assert_eq!(root.create_dir_all(Path::new("file/x"), 0o755).unwrap_err().errno(), libc::ENOTDIR);
        assert_eq!(root.create_dir_all(Path::new("file"), 0o755).unwrap_err().errno(), libc::ENOTDIR);
    }

    #[test]
    fn a_new_file_has_its_parents_made_and_a_dangling_link_filled() {
        let (directory, root) = root();
        root.create_file(Path::new("/etc/x/hosts"), 0o644).unwrap();
        assert!(directory.path().join("root/etc/x/hosts").is_file());
        symlink("/run/resolv.conf", directory.path().join("root/etc/resolv.conf")).unwrap();
        root.create_file(Path::new("/etc/resolv.conf"), 0o644).unwrap();
        assert!(directory.path().join("root/run/resolv.conf").is_file());
        assert_eq!(root.create_file(Path::new("/there"), 0o644).unwrap_err().errno(), libc::EISDIR);
    }

    #[test]
    fn what_another_process_has_made_meanwhile_is_taken_as_it_is() {
        let (directory, root) = root();
        let (root, base) = (&root, directory.path().join("root"));
        let stop = std::sync::atomic::AtomicBool::new(false);
        let running = || !stop.load(std::sync::atomic::Ordering::Relaxed);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while running() {
                    // Another process removes places that we make. That is no attack: we make them again.
                    let _ = std::fs::remove_file(base.join("a/b/file"));
                    let _ = std::fs::remove_dir(base.join("a/c/dir"));
                    let _ = std::fs::remove_dir(base.join("a/c"));
                }
            });
            let makers: Vec<_> = (0..4)
                .map(|_| {
                    scope.spawn(move || {
                        for _ in 0..500 {
                            root.create_file(Path::new("/a/b/file"), 0o644)?;
                            root.create_dir_all(Path::new("/a/c/dir"), 0o755)?;
                            root.create_link(Path::new("/a/link"), c"there")?;
                        }
                        Ok::<(), Error>(())
                    })
                })
                .collect();
            let results: Vec<_> = makers.into_iter().map(|maker| maker.join().unwrap()).collect();
            stop.store(true, std::sync::atomic::Ordering::Relaxed);
            results.into_iter().for_each(|result| result.unwrap());
        });
        std::fs::write(base.join("other"), "").unwrap();
        assert_eq!(root.create_link(Path::new("/a/link"), c"here").unwrap_err().errno(), libc::EEXIST);
        assert_eq!(root.create_link(Path::new("/other"), c"here").unwrap_err().errno(), libc::EEXIST);
        assert!(root.create_file(Path::new("/other"), 0o644).is_ok());
    }

    #[test]
    fn find_says_whether_a_link_was_followed() {
        let (directory, root) = root();
        symlink("there", directory.path().join("root/link")).unwrap();
        assert!(!root.find(Path::new("/there")).unwrap().through_symlink);
        assert!(root.find(Path::new("/link")).unwrap().through_symlink);
    }

    #[test]
    fn clean_knows_no_way_above_the_root() {
        assert_eq!(clean(Path::new("a//b/../../../c/.")), PathBuf::from("/c"));
        assert_eq!(clean(Path::new("/a/.../b./")), PathBuf::from("/a/.../b."));
        assert_eq!(clean(Path::new("/../..")), PathBuf::from("/"));
    }
}
