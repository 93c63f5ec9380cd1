//! Facts about the host. They are read once per command, and are plain data afterwards.
//!
//! Only facts that `plan` decides by are here. Not for: kernel features; the call that uses a feature finds out.

use crate::sys::{self, Called};
use anyhow::Result;
use rustix::fs::statfs;

/// Which cgroup hierarchies the host offers at /sys/fs/cgroup (cgroups(7)).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CgroupMode {
    /// Only version 1 hierarchies.
    Legacy,
    /// Version 1 hierarchies with controllers, and a version 2 tree (usually at `unified`).
    Hybrid,
    /// Only the version 2 tree.
    Unified,
}

/// The facts about the host that a plan depends on.
#[derive(Clone, Debug)]
pub struct Host {
    /// The layout of /sys/fs/cgroup.
    pub cgroup_mode: CgroupMode,
    /// Our effective user id.
    pub euid: u32,
    /// Our effective group id.
    pub egid: u32,
    /// We are in the initial user namespace, where uid 0 has root's rights over the host.
    pub initial_user_namespace: bool,
}

impl Host {
    /// Reads the facts: with one or two statfs(2) calls and one stat(2).
    ///
    /// # Errors
    /// /sys/fs/cgroup exists, and statfs(2) fails.
    pub fn probe() -> Result<Self> {
        Ok(Self {
            cgroup_mode: cgroup_mode()?,
            euid: rustix::process::geteuid().as_raw(),
            egid: rustix::process::getegid().as_raw(),
            initial_user_namespace: sys::ns::is_initial_user(),
        })
    }

    /// Returns true if we lack root's rights over the host's cgroups, mounts and devices.
    pub fn rootless(&self) -> bool {
        self.euid != 0 || !self.initial_user_namespace
    }
}

const CGROUP2_SUPER_MAGIC: rustix::fs::FsWord = 0x6367_7270;

fn cgroup_mode() -> Result<CgroupMode> {
    let is_v2 = |path: &str| match statfs(path) {
        Ok(found) => Ok(found.f_type == CGROUP2_SUPER_MAGIC),
        Err(rustix::io::Errno::NOENT) => Ok(false),
        Err(errno) => Err(errno).called("statfs", || format!("{path:?}")),
    };
    Ok(if is_v2("/sys/fs/cgroup")? {
        CgroupMode::Unified
    } else if is_v2("/sys/fs/cgroup/unified")? {
        CgroupMode::Hybrid
    } else {
        CgroupMode::Legacy
    })
}
