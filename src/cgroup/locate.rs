//! Where the container's directories will be: /proc/self/cgroup and the usual mount points.
//!
//! /proc/self/mountinfo is only read on hosts that mount cgroups elsewhere, and inside of containers that have
//! no cgroup namespace. Nothing is made here.

use super::hierarchy::{self, Hierarchy};
use crate::host::CgroupMode;
use crate::sys::Called;
use anyhow::{Result, bail};
use serde::Serialize;
use std::path::{Path, PathBuf};

/// Where cgroups are mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The version 1 controllers that a container gets a directory in; others are none of our business.
const CONTROLLERS: &[&str] = &[
    "cpuset",
    "devices",
    "memory",
    "cpu",
    "cpuacct",
    "pids",
    "blkio",
    "hugetlb",
    "net_cls",
    "net_prio",
    "perf_event",
    "freezer",
    "rdma",
    "misc",
    "name=systemd",
];

/// `linux.cgroupsPath`, cleaned: no `..` is left in it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Place {
    /// From the root of each hierarchy.
    Absolute(PathBuf),
    /// Under the cgroup of the runtime.
    Relative(PathBuf),
}

impl Place {
    /// Reads a path as runc does: `..` goes up at most to where the path begins.
    pub fn of(said: &str) -> Self {
        let path = clean(Path::new(said));
        if said.starts_with('/') { Self::Absolute(path) } else { Self::Relative(path) }
    }
}

/// The path without `.`, `..` and leading slash.
pub fn clean(path: &Path) -> PathBuf {
    crate::sys::path::clean(path).components().skip(1).collect()
}

/// The hierarchies of the host with the container's directory in each; on pure version 2 hosts it is one.
///
/// # Errors
/// There is no cgroup file system that can guard devices, or /proc cannot be read.
pub fn hierarchies(place: &Place, mode: CgroupMode) -> Result<Vec<Hierarchy>> {
    let own = || -> Result<String> {
        Ok(crate::sys::fd::read_proc("/proc/self/cgroup")
            .called("read", || "\"/proc/self/cgroup\"".into())?)
    };
    if mode != CgroupMode::Unified {
        return version_1(place, mode, &own()?);
    }
    let path = match place {
        Place::Absolute(path) => path.clone(),
        Place::Relative(path) => {
            let own = parse(&own()?).into_iter().find(|(controllers, _)| controllers.is_empty());
            // Beside our own cgroup, not below: with processes in it, it cannot give controllers to children.
            let beside = own.and_then(|(_, own)| own.parent().map(Path::to_path_buf)).unwrap_or_default();
            beside.join(path)
        }
    };
    Ok(vec![Hierarchy::new(vec![], ROOT, path)])
}

fn version_1(place: &Place, mode: CgroupMode, own: &str) -> Result<Vec<Hierarchy>> {
    let mut mounts = Mounts::default();
    let mut found = vec![];
    for (controllers, own) in parse(own) {
        if controllers.is_empty() {
            if mode == CgroupMode::Hybrid {
                let path = match place {
                    Place::Absolute(path) => path.clone(),
                    Place::Relative(path) => own.join(path),
                };
                found.push(Hierarchy::new(vec![], format!("{ROOT}/unified"), path));
            }
            continue;
        }
        if !controllers.iter().any(|name| CONTROLLERS.contains(&name.as_str())) {
            continue;
        }
        let Some(mount) = mounts.usual(&controllers).or_else(|| mounts.any(&controllers)) else { continue };
        let path = match place {
            Place::Absolute(path) => path.clone(),
            Place::Relative(path) => mounts.seen_from(&mount, &controllers, own).join(path),
        };
        found.push(Hierarchy::new(controllers, mount, path));
    }
    if !found.iter().any(|hierarchy| hierarchy.has("devices")) {
        // Without it there is no telling which devices the container may use.
        bail!("mountpoint for devices not found");
    }
    Ok(found)
}

/// Version 2: the cgroup that process `pid` is in, from the root of the tree.
///
/// # Errors
/// The process is gone.
pub fn of_process(pid: i32) -> Result<Option<PathBuf>> {
    let file = format!("/proc/{pid}/cgroup");
    let content = std::fs::read_to_string(&file).called("read", || format!("{file:?}"))?;
    let found = parse(&content).into_iter().find(|(controllers, _)| controllers.is_empty());
    Ok(found.map(|(_, path)| path))
}

/// The lines of /proc/PID/cgroup: controllers (none for version 2) and the path without leading slash.
pub fn parse(content: &str) -> Vec<(Vec<String>, PathBuf)> {
    let line = |line: &str| {
        let mut fields = line.splitn(3, ':').skip(1);
        let (controllers, path) = (fields.next()?, fields.next()?);
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        Some((controllers, clean(Path::new(path))))
    };
    content.lines().filter_map(line).collect()
}

/// The mounts of version 1, looked up where they usually are, or in mountinfo, which is read at most once.
#[derive(Default)]
struct Mounts {
    table: Option<Vec<Mount>>,
}

struct Mount {
    root: PathBuf,
    point: PathBuf,
    options: String,
}

impl Mounts {
    fn usual(&self, controllers: &[String]) -> Option<PathBuf> {
        let joined = controllers.join(",");
        let name = joined.strip_prefix("name=").unwrap_or(&joined);
        let is_mount =
            |path: &Path| rustix::fs::statfs(path).is_ok_and(|found| hierarchy::is_cgroup(&found, false));
        let path = Path::new(ROOT).join(name);
        if is_mount(&path) {
            return Some(path);
        }
        // Mounted together under names in another order, with a link for each.
        let link = Path::new(ROOT).join(controllers.first()?);
        std::fs::canonicalize(link).ok().filter(|path| is_mount(path))
    }

    fn any(&mut self, controllers: &[String]) -> Option<PathBuf> {
        self.of(controllers).map(|mount| mount.point.clone())
    }

    fn of(&mut self, controllers: &[String]) -> Option<&Mount> {
        let table = self.table.get_or_insert_with(|| {
            let content = std::fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
            content.lines().filter_map(mount).collect()
        });
        let wanted = controllers.first()?;
        table.iter().find(|mount| mount.options.split(',').any(|option| option == wanted))
    }

    /// Our own cgroup as it is found below the mount point. /proc/self/cgroup says it from the root of the
    /// hierarchy, of which a container without cgroup namespace has only a part mounted.
    fn seen_from(&mut self, mount: &Path, controllers: &[String], own: PathBuf) -> PathBuf {
        if own.as_os_str().is_empty()
            || rustix::fs::access(mount.join(&own), rustix::fs::Access::EXISTS).is_ok()
        {
            return own;
        }
        let root = self.of(controllers).map(|mount| clean(&mount.root)).unwrap_or_default();
        own.strip_prefix(&root).map(Path::to_path_buf).unwrap_or(own)
    }
}

fn mount(line: &str) -> Option<Mount> {
    let (place, device) = line.split_once(" - ")?;
    let mut place = place.split(' ').skip(3);
    let (root, point) = (place.next()?, place.next()?);
    let mut device = device.split(' ');
    (device.next()? == "cgroup").then_some(())?;
    let path = |text: &str| PathBuf::from(text.replace("\\040", " ").replace("\\134", "\\"));
    Some(Mount { root: path(root), point: path(point), options: device.nth(1)?.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_cannot_climb_out_of_where_it_begins() {
        for (said, place) in [
            ("/a/b", Place::Absolute("a/b".into())),
            ("/../../a", Place::Absolute("a".into())),
            ("a//b/./c", Place::Relative("a/b/c".into())),
            ("../../a", Place::Relative("a".into())),
            ("a/../..", Place::Relative("".into())),
            ("/", Place::Absolute("".into())),
        ] {
            assert_eq!(Place::of(said), place, "{said}");
        }
    }

    #[test]
    fn the_lines_of_proc_self_cgroup_are_understood() {
        let parsed = parse("9:name=systemd:/\n4:cpu,cpuacct:/a:b/c\n0::/x/y\n");
        let expected: Vec<(Vec<String>, PathBuf)> = vec![
            (vec!["name=systemd".into()], "".into()),
            (vec!["cpu".into(), "cpuacct".into()], "a:b/c".into()),
            (vec![], "x/y".into()),
        ];
        assert_eq!(parsed, expected);
    }

    #[test]
    fn mountinfo_tells_root_point_and_controllers_of_version_1_only() {
        let one =
            mount("36 31 0:33 /docker/ab /cg/cpu\\040x rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct")
                .unwrap();
        assert_eq!((one.root, one.point), ("/docker/ab".into(), "/cg/cpu x".into()));
        assert_eq!(one.options, "rw,cpu,cpuacct");
        assert!(mount("41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw").is_none());
    }
}
