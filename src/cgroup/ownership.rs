//! Cgroup ownership (config-linux.md, "Cgroup ownership"): the container's user may manage what is below its cgroup.

use super::{Cgroup, Hierarchy, Tree};
use crate::sys::Called;
use anyhow::{Context, Result};
use rustix::fs::{AtFlags, Uid};
use rustix::io::Errno;

/// Where the kernel lists the files that may be given away.
const LIST: &str = "/sys/kernel/cgroup/delegate";

/// What that list has at the least; older kernels have no list.
const ALWAYS: [&str; 3] = ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"];

/// How many cgroups may be in a line below one that is handed over, and how many in all. systemd in a container nests
/// about six, a container engine in it as many again; a whole host of either has some thousands. Without a bound a
/// container could make deletion take as long as it likes. `linux.resources.unified` may say other numbers.
const BOUNDS: [(&str, &str); 2] = [("cgroup.max.depth", "64"), ("cgroup.max.descendants", "16384")];

impl Cgroup {
    /// Bounds what is made below a cgroup that is handed over. The files stay ours.
    ///
    /// # Errors
    /// The kernel refuses.
    pub(super) fn bound(&self, cgroup: &Hierarchy) -> Result<()> {
        for (file, most) in BOUNDS.iter().filter(|(file, _)| !self.resources.unified.contains_key(*file)) {
            match cgroup.write(file, most) {
                // In the cgroup of an ordinary user, which another user has made.
                Err(error) if self.rootless && matches!(error.errno(), libc::EPERM | libc::EACCES) => {}
                written => written?,
            }
        }
        Ok(())
    }

    /// Gives the directory, and in it the files that the kernel means to be given away, to `owner` of the host.
    /// Version 2 only: below a version 1 cgroup nothing keeps a user within bounds.
    ///
    /// # Errors
    /// chown(2)'s.
    pub fn give_to(&self, owner: u32) -> Result<()> {
        let Tree::V2(cgroup) = &self.tree else { return Ok(()) };
        self.give(cgroup, owner).context("linux.cgroupsPath")
    }

    /// Gives away the container's cgroup or one below it.
    ///
    /// # Errors
    /// chown(2)'s, and those of [`bound`](Self::bound).
    pub(super) fn give(&self, cgroup: &Hierarchy, owner: u32) -> Result<()> {
        self.bound(cgroup)?;
        let directory = cgroup.leaf()?;
        let listed = std::fs::read_to_string(LIST).unwrap_or_else(|_| ALWAYS.join("\n"));
        for file in std::iter::once("").chain(listed.lines()) {
            let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::EMPTY_PATH;
            match rustix::fs::chownat(directory, file, Some(Uid::from_raw(owner)), None, flags) {
                // Of a controller that is not here; a list that is longer than this kernel's files.
                Err(Errno::NOENT) => {}
                // An ordinary user's cgroup is the user's already.
                Err(Errno::PERM) if self.rootless => {}
                other => {
                    other.called("fchownat", || format!("{:?} {owner}", cgroup.dir().join(file)))?;
                }
            }
        }
        Ok(())
    }
}
