//! Visits the cgroups below a container's. The container chooses their names, number and depth. So each is reached by
//! a descriptor, one step at a time, and without recursion: a path may be longer than the kernel takes, and our stack
//! has an end.
//!
//! Not for: what is done to each of them (`hierarchy`, `v1`).

use super::hierarchy::{Hierarchy, gone, read_all};
use crate::sys::{Called, Error, pidfd};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{FileType, Mode, OFlags, RawDir, ResolveFlags};
use rustix::io::Errno;
use std::collections::BTreeSet;
use std::ffi::{CStr, CString};
use std::mem::MaybeUninit;
use std::path::Path;
use std::time::Instant;

/// One step up or down. It is not `BENEATH`, because `..` leaves the directory. That is safe: a cgroup never moves to
/// another parent, so `..` leads back to where we came from, and the levels are counted.
const STEP: ResolveFlags =
    ResolveFlags::NO_SYMLINKS.union(ResolveFlags::NO_MAGICLINKS).union(ResolveFlags::NO_XDEV);

/// How many descriptors of processes are open at a time.
const HELD: usize = 200;

/// A directory on the way from the container's cgroup to the current one.
struct Level {
    /// Its name in the directory above.
    name: CString,
    /// The sub-cgroups that have not been visited yet.
    rest: Vec<CString>,
}

impl Hierarchy {
    /// Visits the container's cgroup and all below it. `arrive` gets each cgroup before those in it. `leave` gets
    /// each one below the container's after those in it, as the directory that holds it and its name. A cgroup that
    /// is removed meanwhile is skipped.
    ///
    /// # Errors
    /// An error of `arrive` or `leave`; a directory cannot be read; or `ETIMEDOUT` at the deadline, because a
    /// container can make cgroups as fast as we find them.
    pub(super) fn walk(
        &self,
        deadline: Instant,
        mut arrive: impl FnMut(BorrowedFd<'_>) -> Result<(), Error>,
        mut leave: impl FnMut(BorrowedFd<'_>, &CStr) -> Result<(), Error>,
    ) -> Result<(), Error> {
        let mut here = match self.enter(self.leaf()?, c".") {
            Err(error) if gone(&error) => return Ok(()),
            opened => opened?,
        };
        arrive(here.as_fd())?;
        let mut levels = vec![Level { name: CString::default(), rest: self.children(here.as_fd())? }];
        while let Some(level) = levels.last_mut() {
            if let Some(name) = level.rest.pop() {
                if Instant::now() > deadline {
                    return Err(Error::new("getdents64", self.below(), libc::ETIMEDOUT));
                }
                let child = match self.enter(here.as_fd(), &name) {
                    Err(error) if gone(&error) => continue,
                    opened => opened?,
                };
                arrive(child.as_fd())?;
                let rest = self.children(child.as_fd())?;
                if rest.is_empty() {
                    leave(here.as_fd(), &name)?;
                } else {
                    levels.push(Level { name, rest });
                    here = child;
                }
            } else if let Some(done) = levels.pop()
                && !levels.is_empty()
            {
                here = self.enter(here.as_fd(), c"..")?;
                leave(here.as_fd(), &done.name)?;
            }
        }
        Ok(())
    }

    fn enter(&self, from: BorrowedFd<'_>, name: &CStr) -> Result<OwnedFd, Error> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        rustix::fs::openat2(from, name, flags, Mode::empty(), STEP)
            .called("openat2", || format!("{name:?} {}", self.below()))
    }

    /// The names of the cgroups in a directory.
    fn children(&self, dir: BorrowedFd<'_>) -> Result<Vec<CString>, Error> {
        let mut names = vec![];
        // A directory has two links, and one more for each directory in it. Most cgroups have none, and dozens of
        // files.
        if rustix::fs::fstat(dir).is_ok_and(|found| found.st_nlink == 2) {
            return Ok(names);
        }
        let mut space = [MaybeUninit::uninit(); 8192];
        let mut entries = RawDir::new(dir, &mut space);
        while let Some(entry) = entries.next() {
            let entry = match entry {
                Err(Errno::NOENT | Errno::NODEV) => break,
                entry => entry.called("getdents64", || self.below())?,
            };
            let name = entry.file_name();
            if entry.file_type() == FileType::Directory && name != c"." && name != c".." {
                names.push(name.to_owned());
            }
        }
        Ok(names)
    }

    fn below(&self) -> String {
        format!("below {:?}", self.dir())
    }

    /// The content of a file of a cgroup below; empty if the cgroup is gone.
    pub(super) fn read_in(&self, dir: BorrowedFd<'_>, file: &str) -> Result<String, Error> {
        let flags = OFlags::RDONLY | OFlags::CLOEXEC;
        let read = rustix::fs::openat2(dir, file, flags, Mode::empty(), STEP)
            .and_then(|fd| read_all(fd.as_fd()))
            .called("read", || format!("{file:?} {}", self.below()));
        match read {
            Err(error) if gone(&error) => Ok(String::new()),
            read => read,
        }
    }

    /// Writes a value into a file of a cgroup below. A cgroup that is gone is skipped.
    pub(super) fn write_in(&self, dir: BorrowedFd<'_>, file: &str, value: &str) -> Result<(), Error> {
        let flags = OFlags::WRONLY | OFlags::CLOEXEC;
        let written = match rustix::fs::openat2(dir, file, flags, Mode::empty(), STEP) {
            Ok(fd) => self.put(fd.as_fd(), Path::new(file), value),
            Err(errno) => Err(errno).called("openat2", || format!("{file:?} {}", self.below())),
        };
        match written {
            Err(error) if gone(&error) => Ok(()),
            written => written,
        }
    }

    /// The processes in one of the directories.
    fn pids_in(&self, dir: BorrowedFd<'_>) -> Result<Vec<i32>, Error> {
        let list = match self.read_in(dir, "cgroup.procs") {
            // A threaded cgroup lists threads only.
            Err(error) if error.errno() == libc::EOPNOTSUPP => self.read_in(dir, "cgroup.threads"),
            list => list,
        };
        // The kernel lists a process as 0 if its pid namespace is outside ours.
        Ok(list?.lines().filter_map(|pid| pid.parse().ok()).filter(|pid| *pid > 0).collect())
    }

    /// The processes in the directory and in its sub-cgroups.
    ///
    /// # Errors
    /// A list cannot be read although its cgroup exists, or the walk takes too long (`ETIMEDOUT`).
    pub fn pids(&self, deadline: Instant) -> Result<BTreeSet<i32>, Error> {
        self.each(deadline, |_, _| Ok(()))
    }

    /// Sends SIGKILL to the processes in the directory and in its sub-cgroups, and returns them.
    ///
    /// # Errors
    /// Those of [`pids`](Self::pids), or a process cannot be opened although it exists.
    pub(super) fn signal_all(&self, deadline: Instant) -> Result<BTreeSet<i32>, Error> {
        self.each(deadline, |dir, pids| self.signal(dir, pids))
    }

    /// Lets `act` see the processes of each cgroup, and returns them all. A directory that is gone has none.
    fn each(
        &self,
        deadline: Instant,
        mut act: impl FnMut(BorrowedFd<'_>, &[i32]) -> Result<(), Error>,
    ) -> Result<BTreeSet<i32>, Error> {
        let mut found = BTreeSet::new();
        let done = self.walk(
            deadline,
            |dir| {
                let pids = self.pids_in(dir)?;
                act(dir, &pids)?;
                found.extend(pids);
                Ok(())
            },
            |_, _| Ok(()),
        );
        match done {
            Err(error) if gone(&error) => {}
            done => done?,
        }
        Ok(found)
    }

    /// Sends SIGKILL to these processes. Before a number is opened, the kernel may give it to another process, but
    /// not afterwards. So the list is read again, and only processes that are still in it get the signal.
    fn signal(&self, dir: BorrowedFd<'_>, pids: &[i32]) -> Result<(), Error> {
        let mut rest = pids;
        while !rest.is_empty() {
            let mut opened = vec![];
            let mut next = rest.len();
            for (index, pid) in rest.iter().enumerate() {
                match pidfd::open(*pid) {
                    Ok(fd) => opened.push((*pid, fd)),
                    Err(error) if matches!(error.errno(), libc::EMFILE | libc::ENFILE) && index > 0 => {
                        next = index;
                        break;
                    }
                    // The process ended first, or this is a thread (EINVAL; since Linux 6.9 ENOENT).
                    Err(error) if matches!(error.errno(), libc::ESRCH | libc::EINVAL | libc::ENOENT) => {}
                    Err(error) => return Err(error),
                }
                if opened.len() == HELD {
                    next = index + 1;
                    break;
                }
            }
            let still: BTreeSet<i32> = self.pids_in(dir)?.into_iter().collect();
            for (_, process) in opened.iter().filter(|(pid, _)| still.contains(pid)) {
                match pidfd::send_signal(process.as_fd(), libc::SIGKILL) {
                    Err(error) if error.errno() == libc::ESRCH => {}
                    sent => sent?,
                }
            }
            rest = rest.get(next..).unwrap_or_default();
        }
        Ok(())
    }
}
