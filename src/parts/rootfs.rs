//! `root` and `linux.rootfsPropagation` (config.md, "Root"; config-linux.md, "Rootfs Mount Propagation").
//!
//! [`Rootfs::open`] makes the root a mount of its own, and returns a descriptor of it. Init reaches everything in the
//! root through that descriptor. [`Rootfs::pivot`] makes the root `/`.
//! Not for: the mounts in the root (`mounts`).

use super::mount_options;
use crate::sys::mount::{self, Change, Depth, Propagation};
use crate::sys::mountinfo;
use crate::sys::path::{Root, as_path, clean};
use crate::sys::{Called, Error};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::fd::{AsFd, BorrowedFd};
use rustix::fs::{AtFlags, StatxFlags};
use serde::Serialize;
use std::ffi::CString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// How the root becomes `/`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Enter {
    /// By pivot_root(2): no host mount stays reachable.
    Pivot,
    /// By moving the mount over `/`, for `--no-pivot`: pivot_root(2) does not work on an initramfs.
    Move,
    /// By chroot(2) alone: the container has no mount namespace of its own. Its mounts stay on the host, below the
    /// mount on the root, until somebody unmounts that tree.
    Chroot,
}

/// The container's root.
#[derive(Debug, Serialize)]
pub struct Rootfs {
    /// Its absolute path on the host.
    pub path: CString,
    /// True if the root becomes read-only.
    pub readonly: bool,
    /// How the root becomes `/`.
    pub enter: Enter,
    /// The propagation that `/` has when the container starts. The depth says whether the mounts that came with the
    /// root from the host get it too.
    pub propagation: (Propagation, Depth),
}

/// Decides the root.
///
/// # Errors
/// The path is empty, is `/`, or has a NUL byte; or the propagation is unknown, or is private without pivot_root(2).
pub fn plan(
    bundle: &Path,
    path: &Path,
    readonly: bool,
    propagation: Option<&str>,
    own_mount_namespace: bool,
    no_pivot: bool,
) -> Result<Rootfs> {
    ensure!(!path.as_os_str().is_empty(), "root.path: empty");
    let absolute = bundle.join(path);
    ensure!(clean(&absolute) != Path::new("/"), "root.path: {path:?} is the host's root");
    let enter = match (own_mount_namespace, no_pivot) {
        (true, true) => Enter::Move,
        (true, false) => Enter::Pivot,
        // `--no-pivot` has no effect: moving a mount over "/" would move it over the host's root.
        (false, _) => Enter::Chroot,
    };
    let propagation = match propagation.filter(|name| !name.is_empty()) {
        // The default of runc.
        None => (Propagation::Slave, Depth::Tree),
        Some(name) => match mount_options::propagation(name) {
            None => bail!("linux.rootfsPropagation: {name:?} is not supported"),
            Some((Propagation::Private, _)) if no_pivot => {
                bail!("linux.rootfsPropagation: {name:?} is not safe without pivot_root")
            }
            Some(said) => said,
        },
    };
    let path =
        CString::new(absolute.as_os_str().as_bytes()).with_context(|| format!("root.path: {path:?}"))?;
    Ok(Rootfs { path, readonly, enter, propagation })
}

impl Rootfs {
    /// Makes the root a mount of its own and opens it. Init calls this in the container's mount namespace.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`: there is no such directory. `EPERM`: we may not change the mount namespace. Without an
    /// errno: the path leads to the host's root.
    pub fn open(&self) -> Result<Root> {
        self.open_mount().context("root.path")
    }

    fn open_mount(&self) -> Result<Root> {
        // Before any mount: below a shared "/" the mount would appear on the host too. This holds for any
        // rootfsPropagation: mounts that are to propagate to the host come from the parent as descriptors.
        if self.enter != Enter::Chroot {
            mount::set_propagation(c"/", Propagation::Slave, Depth::Tree)?;
        }
        let directory = Root::open_host(as_path(&self.path))?;
        // plan() has compared the path as text. Symbolic links in it may lead to "/".
        ensure!(
            place(directory.as_fd())? != place(Root::open_host(Path::new("/"))?.as_fd())?,
            "is the host's root"
        );
        let tree = mount::clone_tied(directory.as_fd(), c"", Depth::Tree)?;
        let private = match (self.enter, self.propagation) {
            // Otherwise our mounts in it would also appear in the host's other copies of these mounts.
            (Enter::Chroot, _) => Some(Depth::Tree),
            // The mount is a slave already. Mounts that the host makes below the root later still arrive.
            (_, (Propagation::Slave, _)) => None,
            (_, (Propagation::Private, depth)) => Some(depth),
            // Private until set_propagation(): no mount that init makes before that may appear elsewhere.
            (_, (Propagation::Shared | Propagation::Unbindable, _)) => Some(Depth::One),
        };
        if let Some(depth) = private {
            let change = Change { propagation: Some(Propagation::Private), ..Change::default() };
            mount::set_attributes(tree.as_fd(), depth, change)?;
        }
        mount::attach(tree.as_fd(), directory.as_fd())?;
        Ok(Root::from(tree))
    }

    /// Makes the root `/`. From here on no path leads to the host.
    ///
    /// # Errors
    /// `EINVAL` from pivot_root(2): `/` is an initramfs, which needs `--no-pivot`.
    pub fn pivot(&self, root: &Root) -> Result<()> {
        match self.enter {
            Enter::Pivot => mount::pivot(root.as_fd())?,
            Enter::Move => {
                hide_host_pseudo_file_systems(as_path(&self.path))?;
                mount::move_to_root(root.as_fd())?;
                mount::chroot(root.as_fd())?;
            }
            Enter::Chroot => mount::chroot(root.as_fd())?,
        }
        Ok(())
    }

    /// Makes `/` shared or unbindable if the configuration says so. Must come after every clone of a mount in the root:
    /// the kernel does not clone an unbindable mount.
    pub fn set_propagation(&self, root: &Root) -> Result<()> {
        match self.propagation {
            (said @ (Propagation::Shared | Propagation::Unbindable), depth)
                if self.enter != Enter::Chroot =>
            {
                let change = Change { propagation: Some(said), ..Change::default() };
                mount::set_attributes(root.as_fd(), depth, change).context("linux.rootfsPropagation")
            }
            _ => Ok(()),
        }
    }

    /// Makes `/` read-only if the configuration says so. Must come after every write into the root.
    pub fn set_readonly(&self, root: &Root) -> Result<()> {
        if !self.readonly {
            return Ok(());
        }
        let readonly = Change { set: mount::RDONLY, ..Change::default() };
        mount::set_attributes(root.as_fd(), Depth::One, readonly).context("root.readonly")
    }
}

/// The mount id and the inode number of a directory.
fn place(directory: BorrowedFd<'_>) -> Result<(u64, u64), Error> {
    let wanted = StatxFlags::INO | StatxFlags::MNT_ID;
    let found =
        rustix::fs::statx(directory, c"", AtFlags::EMPTY_PATH, wanted).called("statx", String::new)?;
    Ok((found.stx_mnt_id, found.stx_ino))
}

/// Unmounts every whole procfs and sysfs of the host, or covers it with an empty directory. Without pivot_root(2) the
/// host's mounts stay in the namespace. As long as one of them shows a whole procfs or sysfs, the kernel lets the
/// container mount a new one, without the masks.
fn hide_host_pseudo_file_systems(rootfs: &Path) -> Result<()> {
    // Bytes, not text: any user of the host may have a mount whose name is not UTF-8.
    let mounts = std::fs::read("/proc/thread-self/mountinfo").context("/proc/thread-self/mountinfo")?;
    let places = mounts.split(|byte| *byte == b'\n').filter_map(whole_pseudo_mount);
    for place in places.filter(|place| !place.starts_with(rootfs)) {
        let Err(error) = mount::detach(&place) else { continue };
        match error.errno() {
            // It was below a mount that is already unmounted.
            libc::ENOENT => {}
            libc::EINVAL | libc::EPERM => {
                let empty = mount::empty_directory(None)?;
                let target = Root::open_host(&place)?;
                mount::attach(empty.as_fd(), target.as_fd())?;
            }
            _ => return Err(error.into()),
        }
    }
    Ok(())
}

/// The mount point of a line of mountinfo if the line shows a whole procfs or a whole sysfs.
fn whole_pseudo_mount(line: impl AsRef<[u8]>) -> Option<PathBuf> {
    let mount = mountinfo::mount(line.as_ref())?;
    let is_whole = mount.root == Path::new("/");
    (is_whole && matches!(mount.fstype.as_str(), "proc" | "sysfs")).then_some(mount.point)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::path::c_path;

    fn planned(propagation: Option<&str>, own: bool, no_pivot: bool) -> Result<Rootfs> {
        plan(Path::new("/bundle"), Path::new("rootfs"), true, propagation, own, no_pivot)
    }

    #[test]
    fn a_relative_root_is_relative_to_the_bundle() {
        assert_eq!(planned(None, true, false).unwrap().path.as_c_str(), c"/bundle/rootfs");
    }

    #[test]
    fn without_a_mount_namespace_it_is_a_chroot() {
        assert_eq!(planned(None, false, false).unwrap().enter, Enter::Chroot);
        assert_eq!(planned(None, false, true).unwrap().enter, Enter::Chroot);
        assert_eq!(planned(None, true, true).unwrap().enter, Enter::Move);
        assert_eq!(planned(None, true, false).unwrap().enter, Enter::Pivot);
    }

    #[test]
    fn private_is_refused_without_pivot_and_slave_is_the_default() {
        let propagation = |said| planned(said, true, false).unwrap().propagation;
        assert_eq!(propagation(Some("rprivate")), (Propagation::Private, Depth::Tree));
        assert_eq!(propagation(None), (Propagation::Slave, Depth::Tree));
        assert_eq!(propagation(Some("")), (Propagation::Slave, Depth::Tree));
        assert!(planned(Some("rprivate"), true, true).is_err());
        assert!(planned(Some("sideways"), true, false).is_err());
    }

    #[test]
    fn the_host_root_is_no_rootfs() {
        for path in ["/", "//", "/..", "..", "../.", "../../x/.."] {
            assert!(plan(Path::new("/bundle"), Path::new(path), false, None, true, false).is_err(), "{path}");
        }
    }

    #[test]
    fn only_whole_procfs_and_sysfs_mounts_are_hidden() {
        let line = r"36 35 0:5 / /a\040b/proc rw,relatime shared:1 - proc proc rw";
        assert_eq!(whole_pseudo_mount(line), Some(PathBuf::from("/a b/proc")));
        assert_eq!(whole_pseudo_mount("36 35 0:5 /sys /x rw - proc proc rw"), None);
        assert_eq!(whole_pseudo_mount("36 35 0:5 / /x rw - tmpfs tmpfs rw"), None);
    }

    const DEFAULT: &str = r#"[
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs",
         "options": ["nosuid", "strictatime", "mode=755", "size=65536k"]},
        {"destination": "/dev/pts", "type": "devpts", "source": "devpts",
         "options": ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620", "gid=5"]},
        {"destination": "/dev/shm", "type": "tmpfs", "source": "shm",
         "options": ["nosuid", "noexec", "nodev", "mode=1777", "size=65536k"]},
        {"destination": "/dev/mqueue", "type": "mqueue", "source": "mqueue", "options": ["nosuid", "noexec", "nodev"]},
        {"destination": "/sys", "type": "sysfs", "source": "sysfs", "options": ["nosuid", "noexec", "nodev", "ro"]},
        {"destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
         "options": ["nosuid", "noexec", "nodev", "relatime", "ro"]}]"#;
    const MASKED: [&str; 9] = [
        "/proc/acpi",
        "/proc/asound",
        "/proc/kcore",
        "/proc/keys",
        "/proc/latency_stats",
        "/proc/timer_list",
        "/proc/sched_debug",
        "/sys/firmware",
        "/proc/scsi",
    ];
    const READONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

    /// Makes the whole root of a container from the bundle that `spec` prints. The two calls of getppid(2) mark where
    /// `strace -f` begins and ends to count the system calls.
    fn default_root(directory: &Path, user_namespace: bool) {
        use crate::parts::{devices, idmap::Map, mounts, paths};
        std::fs::create_dir(directory.join("rootfs")).unwrap();
        std::fs::create_dir(directory.join("group")).unwrap();
        // Group 5 is not in a map of one id; `spec --rootless` leaves it out too.
        let text = if user_namespace { DEFAULT.replace(r#", "gid=5""#, "") } else { DEFAULT.to_owned() };
        let list: Vec<oci_spec::runtime::Mount> = serde_json::from_str(&text).unwrap();
        let map = Map::default();
        let facts = mounts::Facts {
            bundle: directory,
            rootfs: &directory.join("rootfs"),
            own_mount_namespace: true,
            new_network_namespace: true,
            new_ipc_namespace: true,
            user_namespace: match user_namespace {
                true => mounts::UserNamespace::New(&map, &map),
                false => mounts::UserNamespace::Host,
            },
            rootless: false,
            unified_cgroups: true,
            label: None,
            rootfs_propagation: None,
        };
        let mounts = mounts::plan(&list, &facts).unwrap();
        let rootfs = plan(directory, Path::new("rootfs"), true, None, true, false).unwrap();
        let devices = devices::plan(&[], false, user_namespace).unwrap();
        let owned = |list: &[&str]| list.iter().map(|path| (*path).to_owned()).collect::<Vec<_>>();
        let paths = paths::plan(&owned(&MASKED), &owned(&READONLY), None, true).unwrap();
        let group = c_path(&directory.join("group")).unwrap();

        let _ = rustix::process::getppid();
        let mut held = mounts.hold().unwrap();
        let group =
            mounts::Source::Held(mount::clone_private(rustix::fs::CWD, &group, Depth::One, 0).unwrap());
        let root = rootfs.open().unwrap();
        let nobody = |_, _: rustix::fd::BorrowedFd<'_>| bail!("nothing has id maps");
        let mut making = mounts.begin(&root, &mut held, Some(mounts::CgroupSource::V2(group)), &nobody);
        making.apply(0..usize::MAX).unwrap();
        let late = making.end();
        devices.apply(&root, late.dev.as_ref().map(AsFd::as_fd), None).unwrap();
        let masks = paths.hold_in_init(&root, None).unwrap();
        rootfs.pivot(&root).unwrap();
        if user_namespace {
            // Only there does this test run in a process of its own.
            devices.reopen_null(&root).unwrap();
        }
        late.set_readonly().unwrap();
        paths.apply(&root, masks).unwrap();
        rootfs.set_propagation(&root).unwrap();
        rootfs.set_readonly(&root).unwrap();
        let _ = rustix::process::getppid();

        for name in
            ["/dev/pts/ptmx", "/dev/null", "/dev/stdin", "/dev/shm", "/proc/self/ns/mnt", "/sys/kernel"]
        {
            assert!(Path::new(name).symlink_metadata().is_ok(), "{name}");
        }
        std::fs::write("/dev/null", "gone").unwrap();
        let readonly = |name| std::fs::write(name, "").unwrap_err().raw_os_error() == Some(libc::EROFS);
        assert!(readonly("/new") && readonly("/sys/fs/cgroup/new") && readonly("/proc/sys/kernel/hostname"));
        assert_eq!(std::fs::read("/proc/timer_list").unwrap_or_default(), b"");
        assert!(std::fs::read_dir("/sys/firmware").unwrap().next().is_none());
    }

    #[test]
    fn the_default_bundle_becomes_a_complete_root() {
        mount::private::run(|directory| default_root(directory, false));
    }

    #[test]
    fn without_a_mount_namespace_only_a_mount_of_the_root_changes() {
        mount::private::run(|directory| {
            std::fs::create_dir(directory.join("rootfs")).unwrap();
            let rootfs = plan(directory, Path::new("rootfs"), true, None, false, false).unwrap();
            let root = rootfs.open().unwrap();
            rootfs.set_readonly(&root).unwrap();
            assert!(std::fs::write(directory.join("rootfs/new"), "").is_err());
            std::fs::write(directory.join("beside"), "").unwrap();
            // One call undoes all mounts.
            mount::detach(&directory.join("rootfs")).unwrap();
            std::fs::write(directory.join("rootfs/new"), "").unwrap();
        });
    }

    #[test]
    #[ignore = "run by in_a_user_namespace_the_root_is_complete_too, which makes its namespaces"]
    fn inside_a_user_namespace() {
        default_root(Path::new(&std::env::var_os("ROOT_TEST_DIRECTORY").unwrap()), true);
    }

    #[test]
    fn in_a_user_namespace_the_root_is_complete_too() {
        // Without a network namespace the container gets the host's /sys.
        for namespaces in ["-Urmpfni", "-Urmpfi"] {
            let directory = tempfile::tempdir().unwrap();
            let may = std::process::Command::new("unshare").args([namespaces, "true"]).output();
            if !may.is_ok_and(|output| output.status.success()) {
                eprintln!("skipped: unshare {namespaces} does not work here");
                continue;
            }
            let output = std::process::Command::new("unshare")
                .arg(namespaces)
                .arg(std::env::current_exe().unwrap())
                .args([
                    "--exact",
                    "parts::rootfs::tests::inside_a_user_namespace",
                    "--ignored",
                    "--nocapture",
                ])
                .env("ROOT_TEST_DIRECTORY", directory.path())
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
            assert!(output.status.success() && text.contains("1 passed"), "{namespaces}: {text}");
        }
    }

    #[test]
    fn without_pivot_the_root_is_moved_and_no_whole_procfs_stays() {
        mount::private::run(|directory| {
            std::fs::create_dir_all(directory.join("rootfs/proc")).unwrap();
            let rootfs = plan(directory, Path::new("rootfs"), false, None, true, true).unwrap();
            let root = rootfs.open().unwrap();
            let procfs = mount::Context::open(c"proc").unwrap().mount(0).unwrap();
            mount::attach(procfs.as_fd(), root.find(Path::new("proc")).unwrap().fd.as_fd()).unwrap();
            rootfs.pivot(&root).unwrap();
            let names: Vec<_> =
                std::fs::read_dir("/").unwrap().map(|entry| entry.unwrap().file_name()).collect();
            assert_eq!(names, ["proc"]);
            let mounts = std::fs::read_to_string("/proc/thread-self/mountinfo").unwrap();
            let whole: Vec<_> = mounts.lines().filter_map(whole_pseudo_mount).collect();
            assert_eq!(whole, [Path::new("/proc")]);
        });
    }
}
