//! Tells of processes that the kernel killed because memory ran out, without polling.

use super::hierarchy::{Hierarchy, value_of};
use super::{Cgroup, Tree, v2};
use crate::sys::{Called, Error};
use anyhow::{Result, bail};
use rustix::event::{EventfdFlags, eventfd};
use rustix::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use rustix::fs::{OFlags, inotify};
use rustix::io::Errno;

/// What has happened since the last look. Both may be true at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct OomNews {
    /// The kernel killed a process because memory ran out.
    pub killed: bool,
    /// The container has ended; no more events follow.
    pub over: bool,
}

impl Cgroup {
    /// Starts to watch for processes that the kernel kills because memory ran out.
    ///
    /// # Errors
    /// The memory controller is missing, or the kernel refuses.
    pub fn oom_watch(&self) -> Result<OomWatch> {
        match (&self.tree, self.controller("memory")) {
            (Tree::V2(cgroup), _) => watch_v2(cgroup),
            (_, Some(memory)) => watch_v1(memory),
            (_, None) => bail!("memory controller missing"),
        }
    }

    /// How many processes the kernel killed because memory ran out; 0 if that cannot be read.
    pub fn oom_kills(&self) -> u64 {
        let Some(memory) = self.controller("memory") else { return 0 };
        let count = match &self.tree {
            Tree::V2(_) => v2::oom_kills(memory),
            _ => memory
                .read_if_there("memory.oom_control")
                .map(|content| content.and_then(|content| value_of(&content, "oom_kill")).unwrap_or(0)),
        };
        // The caller explains a failure with this number: a second error would not help.
        count.unwrap_or(0)
    }
}

/// A running watch: poll [`fd`](Self::fd) for reading, then [`read`](Self::read).
#[derive(Debug)]
pub struct OomWatch {
    fd: OwnedFd,
    cgroup: Hierarchy,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    V1 {
        /// The kernel ends the watch when this is closed.
        _control: OwnedFd,
    },
    V2 {
        kills: u64,
    },
}

/// Version 2: changes of `memory.events`, and of `cgroup.events` for the end.
fn watch_v2(cgroup: &Hierarchy) -> Result<OomWatch> {
    let fd = inotify::init(inotify::CreateFlags::CLOEXEC | inotify::CreateFlags::NONBLOCK)
        .called("inotify_init1", String::new)?;
    let kills = match cgroup.read_if_there("memory.events")? {
        Some(events) => value_of(&events, "oom_kill").unwrap_or(0),
        None => bail!("memory controller missing"),
    };
    for file in ["memory.events", "cgroup.events"] {
        let path = cgroup.dir().join(file);
        inotify::add_watch(&fd, &path, inotify::WatchFlags::MODIFY)
            .called("inotify_add_watch", || format!("{path:?}"))?;
    }
    Ok(OomWatch { fd, cgroup: cgroup.at(&cgroup.path), kind: Kind::V2 { kills } })
}

/// Version 1: an eventfd that is registered with the memory controller.
fn watch_v1(memory: &Hierarchy) -> Result<OomWatch> {
    let control = memory.open("memory.oom_control", OFlags::RDONLY)?;
    let fd = eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK).called("eventfd", String::new)?;
    memory.write("cgroup.event_control", &format!("{} {}", fd.as_raw_fd(), control.as_raw_fd()))?;
    Ok(OomWatch { fd, cgroup: memory.at(&memory.path), kind: Kind::V1 { _control: control } })
}

impl OomWatch {
    /// Readable when something has happened.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }

    /// What has happened since the last call. It does not block.
    pub fn read(&mut self) -> Result<OomNews> {
        let mut buffer = [0u8; 4096];
        match rustix::io::retry_on_intr(|| rustix::io::read(&self.fd, &mut buffer)) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(OomNews::default()),
            failed => {
                failed.called("read", || "oom events".to_owned())?;
            }
        }
        // One wake-up may stand for several changes, so the files are read.
        match &mut self.kind {
            Kind::V1 { .. } => {
                // The removal of a cgroup is an event, too.
                let over = self.cgroup.open("", OFlags::PATH).is_err();
                Ok(OomNews { killed: !over, over })
            }
            Kind::V2 { kills } => {
                let of = |file: &str, key: &str| -> Result<Option<u64>, Error> {
                    Ok(self.cgroup.read_if_there(file)?.and_then(|content| value_of(&content, key)))
                };
                let now = of("memory.events", "oom_kill")?.unwrap_or(*kills);
                let killed = now > std::mem::replace(kills, now);
                let over = of("cgroup.events", "populated")?.unwrap_or(0) == 0;
                Ok(OomNews { killed, over })
            }
        }
    }
}
