//! What a mount of type `cgroup` shows inside the container.
//! Not for: the mounting itself (`parts::mounts`).

use super::{Cgroup, Hierarchy, Place, Tree, locate, v1};
use crate::host::CgroupMode;
use anyhow::Result;
use rustix::fd::OwnedFd;
use rustix::fs::OFlags;
use std::path::PathBuf;

/// A directory to mount for a mount of type `cgroup`.
#[derive(Debug)]
pub struct MountSource {
    /// Version 1: the name of the directory to mount it on. Version 2: empty, because it is the mount itself.
    pub name: String,
    /// Version 1: the links to make beside it, if controllers are mounted together.
    pub links: Vec<String>,
    /// The container's own directory; for version 2 without a cgroup namespace, the root of the tree.
    pub dir: OwnedFd,
    /// Its path on the host.
    pub path: PathBuf,
}

impl Cgroup {
    /// What a mount of type `cgroup` shows in the container. Version 1: one directory for each hierarchy, without the
    /// version 2 tree of hybrid hosts, as engines expect. A container without a cgroup of its own is in the
    /// runtime's, and sees that one.
    pub fn mount_sources(&self, cgroup_namespace: bool, mode: CgroupMode) -> Result<Vec<MountSource>> {
        let source = |hierarchy: &Hierarchy, name: String| -> Result<MountSource> {
            let links =
                if name.contains(',') { name.split(',').map(str::to_owned).collect() } else { vec![] };
            Ok(MountSource { dir: hierarchy.open("", OFlags::PATH)?, path: hierarchy.dir(), name, links })
        };
        match &self.tree {
            Tree::V2(cgroup) if cgroup_namespace => Ok(vec![source(cgroup, String::new())?]),
            Tree::V2(cgroup) => Ok(vec![source(&cgroup.at(""), String::new())?]),
            Tree::Nowhere if mode == CgroupMode::Unified => {
                let own = if cgroup_namespace { locate::of_process(own_pid()) } else { Ok(None) };
                // Our own cgroup is outside the cgroup namespace: there is nothing to show.
                let Ok(own) = own else { return Ok(vec![]) };
                let shown = Hierarchy::new(vec![], locate::ROOT, own.unwrap_or_default());
                Ok(source(&shown, String::new()).into_iter().collect())
            }
            Tree::V1(_) | Tree::Nowhere => {
                let mut shown = Vec::new();
                for one in self.all().iter().filter(|one| !one.unified()) {
                    shown.push(source(one, v1::mount_name(one))?);
                }
                if self.rootless || matches!(self.tree, Tree::Nowhere) {
                    let own = locate::hierarchies(&Place::Relative("".into()), mode).unwrap_or_default();
                    let dropped = |one: &&Hierarchy| {
                        !one.unified() && one.controllers.iter().all(|name| self.controller(name).is_none())
                    };
                    shown.extend(
                        own.iter().filter(dropped).filter_map(|one| source(one, v1::mount_name(one)).ok()),
                    );
                }
                Ok(shown)
            }
        }
    }
}

fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}
