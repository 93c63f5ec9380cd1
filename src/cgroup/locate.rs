//! Where the container's directories will be, by /proc/self/cgroup and the usual mount points.
//!
//! It reads /proc/self/mountinfo only on hosts that mount cgroups elsewhere, and inside containers without a cgroup
//! namespace. It makes nothing.

use super::hierarchy::{self, Hierarchy};
use crate::host::CgroupMode;
use crate::sys::mountinfo::{self, Mount};
use crate::sys::{Called, fd};
use anyhow::{Result, bail, ensure};
use rustix::fs::OFlags;
use serde::Serialize;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Where cgroups are mounted.
pub const ROOT: &str = "/sys/fs/cgroup";

/// The version 1 controllers in which a container gets a directory. The runtime leaves others alone.
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

/// `linux.cgroupsPath`, cleaned: it has no `..` any more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Place {
    /// From the root of each hierarchy.
    Absolute(PathBuf),
    /// From the cgroup of the runtime.
    Relative(PathBuf),
}

impl Place {
    /// Reads a path as runc does: `..` goes up to where the path begins, and no further.
    pub fn of(said: &str) -> Self {
        let path = clean(Path::new(said));
        if said.starts_with('/') { Self::Absolute(path) } else { Self::Relative(path) }
    }
}

/// The path without `.`, `..` and the leading slash.
pub fn clean(path: &Path) -> PathBuf {
    crate::sys::path::clean(path).components().skip(1).collect()
}

/// Refuses a path that the kernel would not take, before the runtime makes anything.
///
/// # Errors
/// The path is too long, or has a byte that no name may have.
pub fn check(path: &str) -> Result<()> {
    if path.contains('\0') {
        bail!("linux.cgroupsPath: {path:?} has a NUL byte");
    }
    // /proc/PID/cgroup has a line for each cgroup.
    ensure!(!path.contains('\n'), "linux.cgroupsPath: {path:?} has a line break");
    ensure!(
        path.len() <= 2048,
        "linux.cgroupsPath: {} bytes are too long for a path, 2048 are allowed",
        path.len()
    );
    let name = path.split('/').find(|name| name.len() > 255);
    ensure!(name.is_none(), "linux.cgroupsPath: the name of a cgroup has at most 255 bytes");
    Ok(())
}

/// The hierarchies of the host, with the container's directory in each. A pure version 2 host has one.
///
/// # Errors
/// No hierarchy can guard devices, or /proc cannot be read.
pub fn hierarchies(place: &Place, mode: CgroupMode) -> Result<Vec<Hierarchy>> {
    let own = || own_cgroups("/proc/self/cgroup");
    if mode != CgroupMode::Unified {
        return version_1(place, mode, &own()?);
    }
    let path = match place {
        Place::Absolute(path) => path.clone(),
        Place::Relative(path) => {
            let own = parse(&own()?).into_iter().find(|(controllers, _)| controllers.is_empty());
            // Beside our own cgroup, not below it: a cgroup with processes cannot give controllers to its children.
            let beside =
                own.and_then(|(_, own)| clean(&own).parent().map(Path::to_path_buf)).unwrap_or_default();
            beside.join(path)
        }
    };
    Ok(vec![Hierarchy::new(vec![], ROOT, path)])
}

/// The content of /proc/PID/cgroup. It is bytes, because a cgroup's name need not be text.
fn own_cgroups(file: &str) -> Result<Vec<u8>> {
    use std::io::Read;
    let mut content = Vec::with_capacity(2048);
    // The file has at most one path for each hierarchy.
    let opened = fd::open_file(Path::new(file), OFlags::empty());
    let read = opened.and_then(|file| file.take(1 << 20).read_to_end(&mut content));
    read.called("read", || format!("{file:?}"))?;
    Ok(content)
}

fn version_1(place: &Place, mode: CgroupMode, own: &[u8]) -> Result<Vec<Hierarchy>> {
    let mut mounts = Mounts::default();
    let mut found = vec![];
    for (controllers, own) in parse(own) {
        // A cgroup outside our cgroup namespace begins with `..`. Then the container's is at the top of what we see.
        let own = clean(&own);
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
        // Without the devices controller the runtime cannot restrict devices.
        bail!("mountpoint for devices not found");
    }
    Ok(found)
}

/// Version 2: the cgroup that process `pid` is in, from the root of the tree.
///
/// # Errors
/// The process is gone, or its cgroup is outside our cgroup namespace.
pub fn of_process(pid: i32) -> Result<Option<PathBuf>> {
    unified_of(&own_cgroups(&format!("/proc/{pid}/cgroup"))?)
}

fn unified_of(content: &[u8]) -> Result<Option<PathBuf>> {
    let found = parse(content).into_iter().find(|(controllers, _)| controllers.is_empty());
    let Some((_, path)) = found else { return Ok(None) };
    // A cgroup outside our cgroup namespace begins with `..`; no cgroup has that name.
    let hidden = path.components().any(|part| part == Component::ParentDir);
    ensure!(!hidden, "cgroup {path:?} is outside of our cgroup namespace");
    Ok(Some(path))
}

/// The lines of /proc/PID/cgroup: controllers (none for version 2), and the path without its leading slash. The path
/// may have any byte except a line break, which the kernel refuses.
pub fn parse(content: &[u8]) -> Vec<(Vec<String>, PathBuf)> {
    let line = |line: &[u8]| {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let (controllers, path) = (std::str::from_utf8(fields.next()?).ok()?, fields.next()?);
        let controllers = controllers.split(',').filter(|name| !name.is_empty()).map(str::to_owned).collect();
        let path = Path::new(OsStr::from_bytes(path));
        Some((controllers, path.strip_prefix("/").unwrap_or(path).to_path_buf()))
    };
    content.split(|byte| *byte == b'\n').filter_map(line).collect()
}

/// The mounts of version 1. They are looked up where they usually are, else in mountinfo, which is read at most once.
#[derive(Default)]
struct Mounts {
    table: Option<Vec<Mount>>,
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
        // Controllers that are mounted together may have their names in another order; each name is a link then.
        let link = Path::new(ROOT).join(controllers.first()?);
        std::fs::canonicalize(link).ok().filter(|path| is_mount(path))
    }

    fn any(&mut self, controllers: &[String]) -> Option<PathBuf> {
        self.of(controllers).map(|mount| mount.point.clone())
    }

    fn of(&mut self, controllers: &[String]) -> Option<&Mount> {
        let table = self.table.get_or_insert_with(|| {
            // Other mounts may have any names. The ones we look for are recognized by their type, which follows the
            // names.
            let content = std::fs::read("/proc/self/mountinfo").unwrap_or_default();
            content.split(|byte| *byte == b'\n').filter_map(mount).collect()
        });
        let wanted = controllers.first()?;
        table.iter().find(|mount| mount.options.split(',').any(|option| option == wanted))
    }

    /// The path of our own cgroup below the mount point. /proc/self/cgroup gives it from the root of the hierarchy; a
    /// container without a cgroup namespace has only a part of the hierarchy mounted.
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

/// The mount of a line of mountinfo if it is one of version 1.
fn mount(line: &[u8]) -> Option<Mount> {
    mountinfo::mount(line).filter(|mount| mount.fstype == "cgroup")
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
        let parsed = parse(b"9:name=systemd:/\n4:cpu,cpuacct:/a:b/c\n0::/x/y\n");
        let expected: Vec<(Vec<String>, PathBuf)> = vec![
            (vec!["name=systemd".into()], "".into()),
            (vec!["cpu".into(), "cpuacct".into()], "a:b/c".into()),
            (vec![], "x/y".into()),
        ];
        assert_eq!(parsed, expected);
    }

    #[test]
    fn the_lines_are_read_as_procfs_reads_them() {
        use procfs::FromBufRead;
        let own = std::fs::read("/proc/self/cgroup").unwrap();
        let samples =
            [&own[..], b"9:name=systemd:/\n4:cpu,cpuacct:/a:b/c\n0::/x/y\n", b"0::/../other\n", b""];
        for text in samples {
            let theirs = procfs::ProcessCGroups::from_buf_read(text).unwrap();
            let theirs: Vec<_> = theirs.0.into_iter().map(|one| (one.controllers, one.pathname)).collect();
            let ours: Vec<_> =
                parse(text).into_iter().map(|(c, path)| (c, format!("/{}", path.display()))).collect();
            assert_eq!(ours, theirs);
        }
        // A container may name its cgroup so. procfs then gives no lines at all.
        let named = b"0::/a/\xff\n";
        assert!(procfs::ProcessCGroups::from_buf_read(&named[..]).is_err());
        assert_eq!(parse(named).len(), 1);
    }

    #[test]
    fn names_that_a_container_chooses_do_not_mislead() {
        // The kernel refuses a line break in the name of a cgroup, and nothing else.
        let own = |content: &[u8]| unified_of(content).map(|path| path.map(PathBuf::into_os_string));
        let found = own(b"5:pids:/x 0::y\n0::/a/\xff :0::/b (deleted)\n").unwrap().unwrap();
        assert_eq!(found.as_bytes(), b"a/\xff :0::/b (deleted)");
        assert_eq!(own(b"5:pids:/x\n").unwrap(), None);
        own(b"0::/../other\n").unwrap_err();
        // A mount on a name that is no text does not hide those after it.
        assert!(mount(b"40 31 0:38 / /x\xff\\040-\\040cgroup rw - tmpfs cgroup rw").is_none());
        let one = mount(b"40 31 0:38 / /x\xff\\011y rw - cgroup cgroup rw,pids").unwrap();
        assert_eq!(one.point.as_os_str().as_bytes(), b"/x\xff\ty");
    }

    #[test]
    fn mountinfo_tells_root_point_and_controllers_of_version_1_only() {
        let one =
            mount(b"36 31 0:33 /docker/ab /cg/cpu\\040x rw,relatime shared:1 - cgroup cgroup rw,cpu,cpuacct")
                .unwrap();
        assert_eq!((one.root, one.point), ("/docker/ab".into(), "/cg/cpu x".into()));
        assert_eq!(one.options, "rw,cpu,cpuacct");
        assert!(mount(b"41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw").is_none());
    }
}
