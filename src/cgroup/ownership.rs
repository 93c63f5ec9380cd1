//! Cgroup ownership (config-linux.md, "Cgroup ownership"): the container's user may manage the cgroups below its own.

use super::{Cgroup, Hierarchy, Tree};
use crate::sys::Called;
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Uid};
use rustix::io::Errno;

/// Where the kernel lists the files that may be given away.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// The files that every such list has. Used where /sys does not show the list.
const ALWAYS: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

/// How many cgroups may be nested below one that is handed over, and how many there may be in all. systemd in a
/// container nests about six, and a container engine in it as many again. A whole host of either has some thousands.
/// Without a bound, a container could make its deletion take as long as it likes. `linux.resources.unified` may set
/// other numbers.
const BOUNDS: [(&str, &str); 2] = [("cgroup.max.depth", "64"), ("cgroup.max.descendants", "16384")];

impl Cgroup {
    /// Bounds the number of cgroups below one that is handed over. The runtime keeps these files: their owner stays.
    pub(super) fn bound(&self, cgroup: &Hierarchy) -> Result<()> {
        for (file, most) in BOUNDS.iter().filter(|(file, _)| !self.resources.unified.contains_key(*file)) {
            match cgroup.write(file, most) {
                // This is an ordinary user's cgroup, and another user made it.
                Err(error) if self.rootless && matches!(error.errno(), libc::EPERM | libc::EACCES) => {}
                written => written?,
            }
        }
        Ok(())
    }

    /// Makes `owner`, an id of the host, the owner of the directory and of the files in it that the kernel lists for
    /// this. Version 2 only: below a version 1 cgroup nothing limits what a user can do.
    pub fn give_to(&self, owner: u32) -> Result<()> {
        let Tree::V2(cgroup) = &self.tree else { return Ok(()) };
        self.give(cgroup, owner).context("linux.cgroupsPath")
    }

    /// Makes `owner` the owner of the container's cgroup, or of one below it.
    pub(super) fn give(&self, cgroup: &Hierarchy, owner: u32) -> Result<()> {
        self.bound(cgroup)?;
        let directory = cgroup.leaf()?;
        let listed = std::fs::read_to_string(LIST).unwrap_or_else(|_| ALWAYS.join("\n"));
        for file in std::iter::once("").chain(listed.lines()) {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            match rustix::fs::chownat(directory, file, Some(Uid::from_raw(owner)), None, flags) {
                // The list names files of controllers that this cgroup does not have.
                Err(Errno::NOENT) => {}
                // An ordinary user owns the cgroup already.
                Err(Errno::PERM) if self.rootless => {}
                other => {
                    other.called("fchownat", || format!("{:?} {owner}", cgroup.dir().join(file)))?;
                }
            }
        }
        Ok(())
    }
}
