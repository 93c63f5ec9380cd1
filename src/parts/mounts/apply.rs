//! Making the mounts: `hold` in the parent, `apply` in init before the pivot.

use super::attributes::{Lock, Wanted, propagate_new, set_readonly};
use super::bind::{Opened, set_idmap};
use super::data::Pair;
use super::{
    Attributes, Bind, BindSource, HostInstead, Mount, Mounts, New, Remount, What, by_string, copy_up, layers,
};
use crate::log;
use crate::sys::mount::{self as sys, Context, Depth, NODEV, NOEXEC, NOSUID, Propagation, RDONLY};
use crate::sys::path::{Found, Root};
use crate::sys::rlimit::MoreDescriptors;
use crate::sys::{Error, errno_of};
use anyhow::{Context as _, Result, bail, ensure};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags};
use rustix::io::Errno;
use std::ffi::{CStr, CString};
use std::ops::Range;
use std::path::{Path, PathBuf};

/// The sources that the parent opened.
#[derive(Debug, Default)]
pub struct Held {
    /// One place a mount.
    sources: Vec<Option<Opened>>,
    /// Each source is a descriptor. Dropped after them, before anything else is executed.
    _descriptors: Option<MoreDescriptors>,
}

/// With more mounts than this, our limit on descriptors may be too low.
const MANY: usize = 32;

/// What is left to do for mounts when the root is complete.
#[derive(Debug, Default)]
pub struct Late {
    /// Mounts that become read-only now that the runtime has written into them.
    readonly: Vec<(usize, PathBuf, OwnedFd)>,
    /// The container's own /dev, if it is a new tmpfs: devices are made in it without looking up a path.
    pub dev: Option<OwnedFd>,
}

/// What a mount of type `cgroup` shows: given by the cgroup module.
#[derive(Debug)]
pub enum CgroupSource {
    /// The container's own directory (or, without a cgroup namespace, the root of the tree).
    V2(Source),
    /// One directory a hierarchy, named as its mount point (`cpu,cpuacct`).
    V1(Vec<(String, Source)>),
}

/// A directory of the host.
#[derive(Debug)]
pub enum Source {
    /// A detached mount of it (`sys::mount::clone_private` in the parent).
    Held(OwnedFd),
    /// Its path, to be opened by init.
    Path(CString),
    /// A mount of it that is in the container already.
    Attached(OwnedFd),
}

/// A new tmpfs of ours, where mount points are made without looking up a path.
struct Fresh {
    path: PathBuf,
    fd: OwnedFd,
}

impl Mounts {
    /// Opens the sources of bind mounts, in the parent and before the fork.
    ///
    /// # Errors
    /// A source is not there, or cannot be mounted as asked.
    pub fn hold(&self) -> Result<Held> {
        let hold = |mount: &Mount| match &mount.what {
            What::Bind(bind) => match &bind.source {
                BindSource::Host(source) => self.hold_bind(mount, bind, source).with_context(|| at(mount)),
                BindSource::Root(_) => Ok(None),
            },
            What::New(New { host_instead: Some(instead), .. }) if instead.is_likely => {
                Ok(self.hold_instead(mount, instead).map(Opened::Mount))
            }
            _ => Ok(None),
        };
        let descriptors = if self.list.len() > MANY { MoreDescriptors::allow() } else { None };
        let sources = self.list.iter().map(hold).collect::<Result<_>>()?;
        Ok(Held { sources, _descriptors: descriptors })
    }

    /// The one mount, without those below it: cgroups, debugfs and others that the configuration does not name. The parent
    /// leaves them out, for a user namespace inherits them locked. If the parent may not either (it is in a user
    /// namespace itself), init clones the tree.
    fn hold_instead(&self, mount: &Mount, instead: &HostInstead) -> Option<OwnedFd> {
        let fd = sys::clone_private(CWD, &instead.source, Depth::One, 0).ok()?;
        self.wanted_instead(mount, Depth::One, Lock::Emulated).apply(fd.as_fd()).ok().map(|()| fd)
    }

    /// As a new instance would be: no peer of the host's mount.
    fn wanted_instead<'a>(&self, mount: &'a Mount, depth: Depth, lock: Lock) -> Wanted<'a> {
        Wanted { base: Some(Propagation::Private), propagation: &[], ..self.wanted(mount, depth, lock) }
    }

    /// The propagation and attributes of a mount of the host.
    pub(super) fn wanted<'a>(&self, mount: &'a Mount, depth: Depth, lock: Lock) -> Wanted<'a> {
        Wanted {
            base: self.source_propagation,
            propagation: &mount.propagation,
            attributes: mount.attributes,
            depth,
            lock,
        }
    }

    /// Gives the detached mount `fd` the id maps of the mount at `index`: in the parent, for init may lack the
    /// privilege over the file system.
    ///
    /// # Errors
    /// The mount has no id maps, or the kernel refuses.
    pub fn map_ids(&self, index: usize, fd: BorrowedFd<'_>) -> Result<()> {
        let what = self.list.get(index).map(|mount| &mount.what);
        let Some(What::Bind(Bind { idmap: Some(idmap), .. })) = what else {
            bail!("mounts[{index}]: no id maps")
        };
        set_idmap(fd, idmap)
    }

    /// Begins to make the mounts below `root`. `map_ids` has [`Mounts::map_ids`] called in the parent.
    pub fn begin<'a>(
        &'a self,
        root: &'a Root,
        held: &mut Held,
        cgroup: Option<CgroupSource>,
        map_ids: &'a MapIds<'a>,
    ) -> Making<'a> {
        let held = std::mem::take(held);
        Making { mounts: self, root, held, cgroup, map_ids, fresh: Vec::new(), late: Late::default() }
    }

    fn fresh_fs(
        &self,
        root: &Root,
        mount: &Mount,
        new: &New,
        held: Option<Opened>,
        fresh: &mut Vec<Fresh>,
        late: &mut Late,
    ) -> Result<()> {
        let named = layers::open(root, new)?;
        let (target, existed) = directory_target(root, mount, new.ordinary_directory, fresh)?;
        let target = target.as_fd();
        let mode = if new.inherits_mode && existed { Some(mode_of(target)?) } else { None };
        let (source, data, one_string) = match &named {
            Some(named) => (&named.source, &named.data, &named.one_string),
            None => (&new.source, &new.data, &new.one_string),
        };
        let made = match one_string {
            Some(options) => {
                let given =
                    by_string::Given { source, options, mode: mode.as_deref(), label: self.label(new) };
                by_string::mount(mount, new, &given, target)
            }
            None => self.new_detached(mount, new, source, data, mode),
        };
        drop(named);
        let fd = match made {
            Err(error) if errno_of(&error) == Some(libc::EPERM) => {
                let Some(instead) = &new.host_instead else { return Err(error) };
                ensure!(
                    !instead.is_refused,
                    "{error:#}; a container of another user namespace may have the host's {:?}, but only with \
                     \"ro\" among the options",
                    instead.source
                );
                let fd = self.host_instead(mount, instead, held)?;
                sys::attach(fd.as_fd(), target)?;
                return Ok(propagate_new(fd.as_fd(), mount)?);
            }
            made => made?,
        };
        if new.copy_up {
            copy_up::copy(target, fd.as_fd()).context("tmpcopyup")?;
        }
        sys::attach(fd.as_fd(), target)?;
        propagate_new(fd.as_fd(), mount)?;
        if new.fstype.as_c_str() == c"mqueue"
            && let Some(label) = &self.label
        {
            label_mount(fd.as_fd(), label)?;
        }
        remember(mount, new, fd, fresh, late)
    }

    /// A file system of the host, in the place of a new one. Where what is mounted below it cannot be left out, nothing
    /// of that can be written to (CVE-2023-25809).
    fn host_instead(&self, mount: &Mount, instead: &HostInstead, held: Option<Opened>) -> Result<OwnedFd> {
        if let Some(Opened::Mount(fd)) = held {
            return Ok(fd);
        }
        let (fd, wanted) = match sys::clone_private(CWD, &instead.source, Depth::One, 0) {
            // Mounts below it are locked in our user namespace.
            Err(error) if error.errno() == libc::EINVAL => {
                let mut wanted = self.wanted_instead(mount, Depth::Tree, Lock::Kernel);
                wanted.attributes.lock_down_tree();
                (sys::clone_private(CWD, &instead.source, Depth::Tree, 0)?, wanted)
            }
            fd => (fd?, self.wanted_instead(mount, Depth::One, Lock::Kernel)),
        };
        wanted.apply(fd.as_fd())?;
        Ok(fd)
    }

    fn label(&self, new: &New) -> Option<&CStr> {
        self.label.as_deref().filter(|_| new.labelled)
    }

    fn new_detached(
        &self,
        mount: &Mount,
        new: &New,
        source: &CStr,
        data: &[Pair],
        mode: Option<CString>,
    ) -> Result<OwnedFd> {
        let context = Context::open(&new.fstype)?;
        if !source.is_empty() {
            context.string(c"source", source)?;
        }
        for flag in &new.flags {
            context.flag(flag)?;
        }
        if let Some(mode) = &mode {
            context.string(c"mode", mode)?;
        }
        for (key, value) in data {
            set_option(&context, key, value.as_deref())?;
        }
        if let Some(label) = self.label(new) {
            context.string(c"context", label)?;
        }
        let late = if new.late_readonly { RDONLY } else { 0 };
        Ok(context.mount(mount.attributes.set & !late)?)
    }

    fn cgroup(&self, root: &Root, mount: &Mount, source: Option<&mut CgroupSource>) -> Result<()> {
        match source {
            // No cgroup is to be seen from here. Not nothing: an rbind of the host's /sys would show its tree, which
            // may be the user's to write to (CVE-2023-25809).
            None => {
                let (target, _) = directory_target(root, mount, false, &[])?;
                let empty = crate::sys::mount::empty_directory(self.label.as_deref())?;
                Ok(sys::attach(empty.as_fd(), target.as_fd())?)
            }
            Some(CgroupSource::V2(source)) => {
                let (target, _) = directory_target(root, mount, false, &[])?;
                match self.cgroup_directory(mount, mount.attributes, source, target.as_fd()) {
                    // Rootless, outside of the namespaces that have the tree: an empty directory hides what an
                    // rbind of the host's /sys would show.
                    Err(error) if self.rootless && errno_of(&error) == Some(libc::ENOENT) => {
                        let empty = crate::sys::mount::empty_directory(self.label.as_deref())?;
                        Ok(sys::attach(empty.as_fd(), target.as_fd())?)
                    }
                    result => result,
                }
            }
            Some(CgroupSource::V1(hierarchies)) => self.cgroup_v1(root, mount, hierarchies),
        }
    }

    fn cgroup_directory(
        &self,
        mount: &Mount,
        attributes: Attributes,
        source: &mut Source,
        target: BorrowedFd<'_>,
    ) -> Result<()> {
        let unused = CString::default();
        let fd = match std::mem::replace(source, Source::Path(unused)) {
            Source::Held(fd) => fd,
            Source::Path(path) => {
                let cloned = sys::clone_private(CWD, &path, Depth::One, 0);
                *source = Source::Path(path);
                cloned?
            }
            // What cannot be bound once more (`unbindable`) cannot be shown a second time: EINVAL.
            Source::Attached(fd) => sys::clone_private(fd.as_fd(), c"", Depth::One, 0)?,
        };
        // Private, as a new mount of cgroups would be: what is mounted on it does not reach the host's.
        let wanted = self.wanted(mount, Depth::One, Lock::Kernel);
        Wanted { base: Some(Propagation::Private), attributes, ..wanted }.apply(fd.as_fd())?;
        sys::attach(fd.as_fd(), target)?;
        if !matches!(source, Source::Path(path) if !path.is_empty()) {
            *source = Source::Attached(fd);
        }
        Ok(())
    }

    fn cgroup_v1(&self, root: &Root, mount: &Mount, hierarchies: &mut [(String, Source)]) -> Result<()> {
        let (target, _) = directory_target(root, mount, false, &[])?;
        let context = Context::open(c"tmpfs")?;
        context.string(c"source", c"tmpfs")?;
        context.string(c"mode", c"755")?;
        if let Some(label) = &self.label {
            context.string(c"context", label)?;
        }
        let safe = NOSUID | NODEV | NOEXEC;
        let tmpfs = context.mount(safe)?;
        sys::attach(tmpfs.as_fd(), target.as_fd())?;
        propagate_new(tmpfs.as_fd(), mount)?;
        let attributes = Attributes { set: safe | mount.attributes.set, ..mount.attributes };
        for (name, source) in hierarchies {
            let place = make_directory(tmpfs.as_fd(), name)?;
            self.cgroup_directory(mount, attributes, source, place.as_fd())
                .with_context(|| format!("hierarchy {name:?}"))?;
            // cpu,cpuacct: programs look for either name.
            for alias in name.split(',').filter(|alias| alias != name) {
                match rustix::fs::symlinkat(name.as_str(), &tmpfs, alias) {
                    Ok(()) | Err(Errno::EXIST) => {}
                    Err(errno) => bail!(Error::new("symlinkat", format!("{alias:?}"), errno.raw_os_error())),
                }
            }
        }
        if mount.attributes.set & RDONLY != 0 {
            set_readonly(tmpfs.as_fd())?;
        }
        Ok(())
    }
}

/// Has the parent give the mount of this index its id maps.
pub type MapIds<'a> = dyn Fn(usize, BorrowedFd<'_>) -> Result<()> + 'a;

/// The mounts while they are being made.
pub struct Making<'a> {
    mounts: &'a Mounts,
    root: &'a Root,
    /// Gone when the mounts are made: the descriptors, and our raised limit of them.
    held: Held,
    cgroup: Option<CgroupSource>,
    map_ids: &'a MapIds<'a>,
    fresh: Vec<Fresh>,
    late: Late,
}

impl Making<'_> {
    /// Makes those of the list that are in `range`, in order.
    ///
    /// # Errors
    /// A mount failed; those before it stay, in a mount namespace that dies with init.
    pub fn apply(&mut self, range: Range<usize>) -> Result<()> {
        let all = &self.mounts.list;
        for mount in all.get(range.start..range.end.min(all.len())).unwrap_or_default() {
            log::debug(|| {
                format!("init: mounts[{}] {} {:?}", mount.index, mount.destination.display(), mount.source)
            });
            self.one(mount).with_context(|| at(mount))?;
        }
        Ok(())
    }

    fn one(&mut self, mount: &Mount) -> Result<()> {
        let held = self.held.sources.get_mut(mount.index).and_then(Option::take);
        match &mount.what {
            What::Bind(bind) => self.mounts.bind(self.root, mount, bind, held, self.map_ids),
            What::New(new) => {
                self.mounts.fresh_fs(self.root, mount, new, held, &mut self.fresh, &mut self.late)
            }
            What::Cgroup => self.mounts.cgroup(self.root, mount, self.cgroup.as_mut()),
            What::Remount(change) => remount(self.root, mount, change),
        }
    }

    /// The container's /dev, if it is a new tmpfs.
    pub fn dev(&self) -> Option<BorrowedFd<'_>> {
        self.fresh.iter().find(|fresh| fresh.is_dev()).map(|fresh| fresh.fd.as_fd())
    }

    /// All are made.
    pub fn end(self) -> Late {
        let dev = self.fresh.into_iter().find(Fresh::is_dev).map(|fresh| fresh.fd);
        Late { dev, ..self.late }
    }
}

impl Fresh {
    fn is_dev(&self) -> bool {
        self.path == Path::new("/dev")
    }
}

impl Late {
    /// Makes read-only what was to be so from the start, had the runtime not to write into it.
    ///
    /// # Errors
    /// The kernel refuses.
    pub fn set_readonly(self) -> Result<()> {
        for (index, destination, fd) in &self.readonly {
            set_readonly(fd.as_fd()).with_context(|| format!("mounts[{index}] {}", destination.display()))?;
        }
        Ok(())
    }
}

#[cfg(test)]
impl Held {
    /// Attaches the first source, to look at what the parent made of it.
    pub(super) fn attach_first(&self, target: &Root) {
        let Some(Some(Opened::Mount(fd))) = self.sources.first() else { panic!("no source is held") };
        sys::attach(fd.as_fd(), target.as_fd()).expect("it can be attached");
    }
}

/// runc's words, which stand behind the same words in its messages, then the place in config.json.
pub(super) fn at(mount: &Mount) -> String {
    let to = mount.destination.display();
    format!(
        "error mounting {:?} to rootfs at {:?}: mounts[{}] {to}",
        mount.source, mount.destination, mount.index
    )
}

pub(super) fn create_mountpoint(mount: &Mount) -> String {
    format!("create mountpoint for {} mount", mount.destination.display())
}

fn remember(mount: &Mount, new: &New, fd: OwnedFd, fresh: &mut Vec<Fresh>, late: &mut Late) -> Result<()> {
    // What is below a place that is mounted over is not what it was.
    fresh.retain(|fresh| !fresh.path.starts_with(&mount.destination));
    let keep = new.fstype.as_c_str() == c"tmpfs" && !new.copy_up;
    let readonly = if !new.late_readonly {
        None
    } else if keep {
        Some(
            rustix::io::fcntl_dupfd_cloexec(&fd, 3)
                .map_err(|e| Error::new("fcntl", "F_DUPFD", e.raw_os_error()))?,
        )
    } else {
        late.readonly.push((mount.index, mount.destination.clone(), fd));
        return Ok(());
    };
    late.readonly.extend(readonly.map(|fd| (mount.index, mount.destination.clone(), fd)));
    if keep {
        fresh.push(Fresh { path: mount.destination.clone(), fd });
    }
    Ok(())
}

/// The directory to mount on, made if it is missing; and whether it was there.
fn directory_target(root: &Root, mount: &Mount, ordinary: bool, fresh: &[Fresh]) -> Result<(OwnedFd, bool)> {
    let destination = mount.destination.as_path();
    let parent = fresh.iter().rev().find(|fresh| destination.parent() == Some(&fresh.path));
    if let (Some(parent), Some(name)) = (parent, destination.file_name())
        && rustix::fs::mkdirat(&parent.fd, name, Mode::from_raw_mode(0o755)).is_ok()
    {
        return open_directory(parent.fd.as_fd(), Path::new(name)).map(|fd| (fd, false));
    }
    let found = if ordinary {
        root.find_directory_nofollow(destination).map(|fd| Found { fd, through_symlink: false })
    } else {
        root.find(destination)
    };
    match found {
        Ok(found) => {
            if found.through_symlink {
                check_resolved(root, found.fd.as_fd(), destination)?;
            }
            Ok((found.fd, true))
        }
        Err(error) if error.errno() == libc::ENOENT => {
            let created = root.create_missing_dir(destination, 0o755);
            // Another process may have created it first, and a link to it.
            let created = if ordinary {
                created.and_then(|_| root.find_directory_nofollow(destination))
            } else {
                created
            };
            let created = created.with_context(|| create_mountpoint(mount))?;
            check_resolved(root, created.as_fd(), destination)?;
            Ok((created, false))
        }
        Err(error) if ordinary && matches!(error.errno(), libc::ENOTDIR | libc::ELOOP) => {
            let fstype =
                if let What::New(new) = &mount.what { new.fstype.to_string_lossy() } else { "".into() };
            Err(anyhow::anyhow!("filesystem {fstype:?} must be mounted on ordinary directory"))
        }
        Err(error) => Err(error).with_context(|| create_mountpoint(mount)),
    }
}

/// A link of the image may lead anywhere inside the root, but the rules about "/" and /proc are about places.
pub(super) fn check_resolved(root: &Root, target: BorrowedFd<'_>, destination: &Path) -> Result<()> {
    let (top, here) = (stat(root.as_fd())?, stat(target)?);
    ensure!(
        (top.st_dev, top.st_ino) != (here.st_dev, here.st_ino),
        "mountpoint {destination:?} is on the top of the rootfs"
    );
    ensure!(!is_procfs(target)?, "{destination:?} cannot be mounted because it is inside /proc");
    Ok(())
}

fn remount(root: &Root, mount: &Mount, change: &Remount) -> Result<()> {
    let found = root.find(&mount.destination)?;
    if !change.data.is_empty() {
        let context = Context::pick(found.fd.as_fd())?;
        for (key, value) in &change.data {
            set_option(&context, key, value.as_deref())?;
        }
        context.reconfigure()?;
    }
    let wanted = Wanted {
        base: None,
        propagation: &mount.propagation,
        attributes: mount.attributes,
        depth: Depth::Tree,
        lock: Lock::Kernel,
    };
    Ok(wanted.apply(found.fd.as_fd())?)
}

fn set_option(context: &Context, key: &CStr, value: Option<&CStr>) -> Result<(), Error> {
    match value {
        Some(value) => context.string(key, value),
        None => context.flag(key),
    }
}

fn label_mount(mount: BorrowedFd<'_>, label: &CStr) -> Result<(), Error> {
    use rustix::fd::AsRawFd as _;
    let path = format!("/proc/self/fd/{}", mount.as_raw_fd());
    rustix::fs::setxattr(&path, c"security.selinux", label.to_bytes(), rustix::fs::XattrFlags::empty())
        .map_err(|errno| Error::new("setxattr", format!("{path:?} (security.selinux)"), errno.raw_os_error()))
}

pub(super) fn make_directory(parent: BorrowedFd<'_>, name: &str) -> Result<OwnedFd> {
    rustix::fs::mkdirat(parent, name, Mode::from_raw_mode(0o755))
        .map_err(|errno| Error::new("mkdirat", format!("{name:?}"), errno.raw_os_error()))?;
    open_directory(parent, Path::new(name))
}

fn open_directory(parent: BorrowedFd<'_>, name: &Path) -> Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(parent, name, flags, Mode::empty())
        .map_err(|errno| Error::new("openat", format!("{name:?}"), errno.raw_os_error()))?)
}

fn stat(fd: BorrowedFd<'_>) -> Result<rustix::fs::Stat, Error> {
    rustix::fs::statat(fd, c"", AtFlags::EMPTY_PATH)
        .map_err(|errno| Error::new("fstatat", "AT_EMPTY_PATH", errno.raw_os_error()))
}

pub(super) fn file_type(fd: BorrowedFd<'_>) -> Result<FileType, Error> {
    stat(fd).map(|stat| FileType::from_raw_mode(stat.st_mode))
}

/// The permission bits as tmpfs takes them: `1777`.
fn mode_of(fd: BorrowedFd<'_>) -> Result<CString, Error> {
    let mode = format!("{:04o}", stat(fd)?.st_mode & 0o7777);
    CString::new(mode).map_err(|_| Error::new("fstat", "mode", libc::EINVAL))
}

pub(super) fn is_procfs(fd: BorrowedFd<'_>) -> Result<bool, Error> {
    let found = rustix::fs::fstatfs(fd).map_err(|errno| Error::new("fstatfs", "", errno.raw_os_error()))?;
    Ok(found.f_type == rustix::fs::PROC_SUPER_MAGIC)
}
