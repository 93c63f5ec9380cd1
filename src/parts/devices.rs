//! `linux.devices` and the default devices and links of `/dev` (config-linux.md, "Devices", "Default Devices").
//!
//! Every node is made by us, in the container's /dev or, for a container in a user namespace, on a tmpfs of the parent
//! ([`Devices::hold`]). Where we may make none, it is a bind mount of a host device whose numbers were looked at. An
//! inode that the image brought along is never trusted to be a device (CVE-2025-31133 and its relatives).
//! Not for: who may open them (see the device rules of `cgroup`), and `/dev/console` (see `console`).

use super::idmap::Maps;
use crate::sys::mount::{self, Depth, NOEXEC, NOSUID, RDONLY};
use crate::sys::nodes::{self, Nodes};
use crate::sys::path::{Root, c_path, clean};
use crate::sys::{Called, Error};
use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::runtime::{self as oci, LinuxDeviceType};
use rustix::fd::{AsFd, BorrowedFd, OwnedFd};
use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, OFlags, Uid, makedev};
use rustix::io::Errno;
use serde::Serialize;
use std::ffi::{CStr, CString, OsStr};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// What goes into `/dev`.
#[derive(Debug, Serialize)]
pub struct Devices {
    /// The nodes, default ones first; empty with `/dev` of the host.
    pub nodes: Vec<Node>,
    /// Make the links of `/dev`: fd, stdin, stdout, stderr, ptmx, core.
    pub links: bool,
    /// In a user namespace no device may be made, so one is bound: the parent's, or the host's.
    pub bind: bool,
}

/// One device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Node {
    /// Where, from the container's root; clean of "." and "..".
    pub path: PathBuf,
    /// Character, block or FIFO.
    pub kind: Kind,
    /// Major and minor number.
    pub number: (u32, u32),
    /// Permission bits.
    pub mode: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Its place in `linux.devices`; a default device has none.
    pub index: Option<usize>,
}

/// The kind of a device.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `c` or `u`
    Char,
    /// `b`
    Block,
    /// `p`
    Fifo,
}

impl Kind {
    fn file_type(self) -> FileType {
        match self {
            Self::Char => FileType::CharacterDevice,
            Self::Block => FileType::BlockDevice,
            Self::Fifo => FileType::Fifo,
        }
    }
}

impl Node {
    /// Whether the parent makes it if init may not: everybody may make a FIFO.
    fn is_held(&self) -> bool {
        self.kind != Kind::Fifo
    }

    /// The node as the parent makes it, with ids of the host. If an id is not mapped, the node belongs to the host's root,
    /// like a device of the host.
    fn on_the_host(&self, maps: Option<&Maps>) -> nodes::Device {
        let owner = maps.map(|maps| (maps.uid.host_id(self.uid), maps.gid.host_id(self.gid)));
        let (uid, gid) = owner.unwrap_or_default();
        nodes::Device {
            kind: self.kind.file_type(),
            number: self.number,
            mode: self.mode,
            owner: (uid.unwrap_or(0), gid.unwrap_or(0)),
        }
    }
}

const DEFAULT: [(&str, (u32, u32)); 6] = [
    ("/dev/null", (1, 3)),
    ("/dev/random", (1, 8)),
    ("/dev/full", (1, 7)),
    ("/dev/tty", (5, 0)),
    ("/dev/zero", (1, 5)),
    ("/dev/urandom", (1, 9)),
];

const LINKS: [(&str, &str); 4] = [
    ("/proc/self/fd", "fd"),
    ("/proc/self/fd/0", "stdin"),
    ("/proc/self/fd/1", "stdout"),
    ("/proc/self/fd/2", "stderr"),
];

/// How often a link that other processes make as well is looked at again.
const LOOKS: usize = 16;

/// The largest numbers of Linux: 12 and 20 bits.
const MAX_MAJOR: i64 = 0xfff;
const MAX_MINOR: i64 = 0xf_ffff;

/// Decides what goes into `/dev`. `dev_is_bind`: some mount binds a directory of the host on `/dev`, then nothing
/// is made there nor anywhere else, for it would be made on the host.
///
/// # Errors
/// A device that cannot be meant, named by its index and path.
pub fn plan(devices: &[oci::LinuxDevice], dev_is_bind: bool, user_namespace: bool) -> Result<Devices> {
    if dev_is_bind {
        return Ok(Devices { nodes: Vec::new(), links: false, bind: user_namespace });
    }
    let mut given = Vec::new();
    for (index, device) in devices.iter().enumerate() {
        let place = || format!("linux.devices[{index}] {}", device.path().display());
        let node = plan_one(index, device).with_context(place)?;
        // runc's ptmx is always the link to the container's own pts.
        given.extend(Some(node).filter(|node| node.path != Path::new("/dev/ptmx")));
    }
    let default = |(path, number): &(&str, (u32, u32))| Node {
        path: PathBuf::from(path),
        kind: Kind::Char,
        number: *number,
        mode: 0o666,
        uid: 0,
        gid: 0,
        index: None,
    };
    let mut nodes: Vec<Node> = DEFAULT
        .iter()
        .map(default)
        .filter(|node| given.iter().all(|other| other.path != node.path))
        .collect();
    nodes.append(&mut given);
    Ok(Devices { nodes, links: true, bind: user_namespace })
}

fn plan_one(index: usize, device: &oci::LinuxDevice) -> Result<Node> {
    let path = clean(device.path());
    ensure!(path.file_name().is_some(), "no path");
    c_path(&path)?;
    let kind = match device.typ() {
        LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
        LinuxDeviceType::B => Kind::Block,
        LinuxDeviceType::P => Kind::Fifo,
        LinuxDeviceType::A => bail!("\"a\" is not a type of device"),
    };
    let (major, minor) = (device.major(), device.minor());
    let number = if kind == Kind::Fifo {
        (0, 0)
    } else {
        ensure!((0..=MAX_MAJOR).contains(&major), "major {major} is out of range");
        ensure!((0..=MAX_MINOR).contains(&minor), "minor {minor} is out of range");
        (u32::try_from(major)?, u32::try_from(minor)?)
    };
    let (uid, gid) = (device.uid().unwrap_or(0), device.gid().unwrap_or(0));
    // chown(2) reads -1 as "leave it".
    ensure!(uid != u32::MAX && gid != u32::MAX, "owner 4294967295 is no id");
    // The file type bits, which runc's own `spec` once wrote into fileMode, are said by `type`.
    let mode = device.file_mode().unwrap_or(0o666) & 0o7777;
    Ok(Node { path, kind, number, mode, uid, gid, index: Some(index) })
}

impl Devices {
    /// Whether the devices can be made, in a /dev that is a new tmpfs, before what is mounted at `rest`: nothing of that
    /// takes their place.
    pub fn can_precede<'a>(&self, mut rest: impl Iterator<Item = &'a Path>) -> bool {
        let dev = Path::new("/dev");
        let leaves_them = |path: &Path| match path.strip_prefix(dev).map(|below| below.components().next()) {
            Ok(None) => false,
            Ok(Some(name)) => !self.takes(name.as_os_str()),
            Err(_) => true,
        };
        self.nodes.iter().all(|node| node.path.parent() == Some(dev)) && rest.all(leaves_them)
    }

    /// Whether a device or a link has this name in /dev.
    fn takes(&self, name: &OsStr) -> bool {
        let links = LINKS.iter().map(|(_, link)| *link).chain(["ptmx", "core"]);
        self.nodes.iter().any(|node| node.path.file_name() == Some(name))
            || links.into_iter().any(|link| name == link)
    }

    /// Makes the devices on a tmpfs, in the parent: for a container in a user namespace, whose init may not. Each has the
    /// owner and the mode of the configuration, and the host need not have it. Gives nothing if we may not either.
    ///
    /// # Errors
    /// The kernel refuses for another reason.
    pub fn hold(&self, maps: Option<&Maps>, label: Option<&CStr>) -> Result<Option<Nodes>> {
        if !self.bind || self.nodes.is_empty() {
            return Ok(None);
        }
        let make = || -> Result<Nodes, Error> {
            let nodes = Nodes::new(self.nodes.len(), label)?;
            for (position, node) in self.held() {
                nodes.device(&name_of(position), node.on_the_host(maps))?;
            }
            Ok(nodes)
        };
        match make() {
            Ok(nodes) => Ok(Some(nodes)),
            Err(error) if matches!(error.errno(), libc::EPERM | libc::EACCES) => Ok(None),
            Err(error) => Err(anyhow::Error::from(error).context("linux.devices")),
        }
    }

    /// Makes the devices and links, or finds that they are there. `dev` is the container's /dev where it is a new tmpfs
    /// (see `mounts::Late`), and `held` is what the parent has made ([`Devices::hold`]).
    ///
    /// # Errors
    /// Something else is in the place of a device, or it cannot be made.
    pub fn apply(&self, root: &Root, dev: Option<BorrowedFd<'_>>, held: Option<Nodes>) -> Result<()> {
        if !self.links && self.nodes.is_empty() {
            return Ok(());
        }
        let opened;
        let dev = match dev {
            Some(dev) => dev,
            None => {
                opened = root.create_dir_all(Path::new("dev"), 0o755).context("/dev")?;
                opened.as_fd()
            }
        };
        // mknod(2) takes the umask off the mode. Nothing else runs in this process.
        let umask = rustix::process::umask(Mode::empty());
        let made = self.make(root, dev, held);
        rustix::process::umask(umask);
        made?;
        if self.links { links(dev) } else { Ok(()) }
    }

    fn make(&self, root: &Root, dev: BorrowedFd<'_>, held: Option<Nodes>) -> Result<()> {
        let mut mounts = Vec::new();
        if let Some(held) = held {
            let names: Vec<_> = self.held().map(|(position, _)| name_of(position)).collect();
            let names: Vec<_> = names.iter().map(CString::as_c_str).collect();
            mounts = held.mounts_of(root.as_fd(), &names).context("linux.devices")?;
        }
        let mut mounts = mounts.into_iter();
        for node in &self.nodes {
            let held = if node.is_held() { mounts.next() } else { None };
            self.node(root, dev, node, held).with_context(|| match node.index {
                Some(index) => format!("linux.devices[{index}] {}", node.path.display()),
                None => format!("default device {}", node.path.display()),
            })?;
        }
        Ok(())
    }

    /// What the parent makes, with the positions.
    fn held(&self) -> impl Iterator<Item = (usize, &Node)> {
        self.nodes.iter().enumerate().filter(|(_, node)| node.is_held())
    }

    /// After the pivot: [`reopen_null_streams`], unless /dev is the host's.
    ///
    /// # Errors
    /// The container's /dev/null is not the null device.
    pub fn reopen_null(&self, root: &Root) -> Result<()> {
        if self.links { reopen_null_streams(root) } else { Ok(()) }
    }

    fn node(&self, root: &Root, dev: BorrowedFd<'_>, node: &Node, held: Option<OwnedFd>) -> Result<()> {
        let opened: OwnedFd;
        let (directory, name) = match (node.path.parent(), node.path.file_name()) {
            (Some(parent), Some(name)) if parent == Path::new("/dev") => {
                (dev, CString::new(name.as_bytes())?)
            }
            _ => {
                let (parent, name) = root.create_parent(&node.path, 0o755)?;
                opened = parent;
                (opened.as_fd(), name)
            }
        };
        if self.bind && node.is_held() {
            return match held {
                Some(mount) => cover(directory, &name, mount.as_fd()),
                None => bind_host(directory, &name, node),
            };
        }
        let number = makedev(node.number.0, node.number.1);
        let mode = Mode::from_raw_mode(node.mode);
        match rustix::fs::mknodat(directory, &name, node.kind.file_type(), mode, number) {
            Ok(()) => own(directory, &name, node),
            // It is kept if it is what is asked for: never changed, for others may use it.
            Err(Errno::EXIST) => {
                let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
                let there = rustix::fs::openat(directory, &name, flags, Mode::empty())
                    .called("openat", || format!("{name:?}"))?;
                check_is(there.as_fd(), node, "what is there")
            }
            Err(Errno::PERM) if node.is_held() => bind_host(directory, &name, node),
            Err(errno) => bail!(Error::new("mknodat", describe(node), errno.raw_os_error())),
        }
    }
}

/// Opens the container's /dev/null in place of each standard stream that is the host's: root of the container could change
/// the mode of the host's node through such a descriptor.
///
/// # Errors
/// The container's /dev/null is not the null device.
pub fn reopen_null_streams(root: &Root) -> Result<()> {
    let is_null = |fd: BorrowedFd<'_>| -> Result<bool, Error> {
        let stat = rustix::fs::fstat(fd).called("fstat", String::new)?;
        let kind = FileType::from_raw_mode(stat.st_mode);
        Ok(kind == FileType::CharacterDevice && stat.st_rdev == makedev(1, 3))
    };
    let (stdin, stdout, stderr) = (std::io::stdin(), std::io::stdout(), std::io::stderr());
    let null = [is_null(stdin.as_fd())?, is_null(stdout.as_fd())?, is_null(stderr.as_fd())?];
    if !null.contains(&true) {
        return Ok(());
    }
    // Verified before it is opened, since opening another device can have an effect, and after, since links may change.
    let path = Path::new("/dev/null");
    ensure!(
        is_null(root.open(path, OFlags::PATH)?.as_fd())?,
        "the container's /dev/null is not the null device"
    );
    let opened = root.open(path, OFlags::RDWR | OFlags::NOCTTY)?;
    ensure!(is_null(opened.as_fd())?, "the container's /dev/null is not the null device");
    let replaced = || {
        if null[0] {
            nix::unistd::dup2_stdin(&opened)?;
        }
        if null[1] {
            nix::unistd::dup2_stdout(&opened)?;
        }
        if null[2] {
            nix::unistd::dup2_stderr(&opened)?;
        }
        Ok(())
    };
    replaced().map_err(|errno: nix::errno::Errno| Error::new("dup2", "\"/dev/null\"", errno as i32))?;
    Ok(())
}

/// As stat(1) says it.
fn words(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "regular file",
        FileType::Directory => "directory",
        FileType::Symlink => "symbolic link",
        FileType::Fifo => "fifo",
        FileType::Socket => "socket",
        FileType::CharacterDevice => "character device",
        FileType::BlockDevice => "block device",
        FileType::Unknown => "file of an unknown kind",
    }
}

fn describe(node: &Node) -> String {
    let (kind, (major, minor)) = (words(node.kind.file_type()), node.number);
    format!("{:?} ({kind} {major}:{minor}, {:#o})", node.path, node.mode)
}

fn own(directory: BorrowedFd<'_>, name: &CStr, node: &Node) -> Result<()> {
    if (node.uid, node.gid) == (0, 0) {
        return Ok(());
    }
    // By descriptor: in a /dev that others can write to, the name may stand for another file by now.
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let made = rustix::fs::openat(directory, name, flags, Mode::empty());
    let made = made.called("openat", || format!("{name:?}"))?;
    check_is(made.as_fd(), node, "what was made")?;
    let (uid, gid) = (Uid::from_raw(node.uid), Gid::from_raw(node.gid));
    rustix::fs::chownat(&made, c"", Some(uid), Some(gid), AtFlags::EMPTY_PATH)
        .called("fchownat", || format!("{:?} {}:{}", node.path, node.uid, node.gid))?;
    // chown(2) may have cleared set-id bits; a device with them is odd, but so it was said.
    Ok(())
}

/// The name of a device on the parent's tmpfs: its position in the plan.
fn name_of(position: usize) -> CString {
    CString::new(position.to_string()).unwrap_or_default()
}

/// Puts the host's device of the same path in its place. A read-only mount refuses chmod(2) and chown(2), which would change
/// the host's node; the device itself can be written to.
fn bind_host(directory: BorrowedFd<'_>, name: &CStr, node: &Node) -> Result<()> {
    let source = mount::clone_private(CWD, &c_path(&node.path)?, Depth::One, RDONLY | NOSUID | NOEXEC)?;
    check_is(source.as_fd(), node, "the host's device")?;
    cover(directory, name, source.as_fd())
}

/// Puts a mount over an empty file, which is made.
fn cover(directory: BorrowedFd<'_>, name: &CStr, source: BorrowedFd<'_>) -> Result<()> {
    let flags = OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let target = match rustix::fs::openat(directory, name, flags, Mode::empty()) {
        Err(Errno::EXIST) => {
            let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            rustix::fs::openat(directory, name, flags, Mode::empty())
        }
        result => result,
    }
    .called("openat", || format!("{name:?} (O_CREAT|O_NOFOLLOW)"))?;
    Ok(mount::attach(source, target.as_fd())?)
}

fn check_is(fd: BorrowedFd<'_>, node: &Node, who: &str) -> Result<()> {
    let stat = rustix::fs::fstat(fd).called("fstat", || format!("{:?}", node.path))?;
    let kind = FileType::from_raw_mode(stat.st_mode);
    let wanted = node.kind.file_type();
    ensure!(kind == wanted, "{who} is a {}, not a {}", words(kind), words(wanted));
    let is = (rustix::fs::major(stat.st_rdev), rustix::fs::minor(stat.st_rdev));
    ensure!(
        node.kind == Kind::Fifo || is == node.number,
        "{who} is {}:{}, not {}:{}",
        is.0,
        is.1,
        node.number.0,
        node.number.1
    );
    Ok(())
}

fn links(dev: BorrowedFd<'_>) -> Result<()> {
    let link = |target: &str, name: &str| rustix::fs::symlinkat(target, dev, name);
    let named =
        |name: &str, errno: Errno| Error::new("symlinkat", format!("/dev/{name}"), errno.raw_os_error());
    for (target, name) in LINKS {
        match link(target, name) {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => bail!(named(name, errno)),
        }
    }
    // Whatever ptmx the image has belongs to another devpts.
    let mut ptmx = link("pts/ptmx", "ptmx");
    // More than once: another container on the same root file system may be doing this, too.
    for _ in 0..LOOKS {
        if ptmx != Err(Errno::EXIST) {
            break;
        }
        match rustix::fs::unlinkat(dev, "ptmx", AtFlags::empty()) {
            Ok(()) | Err(Errno::NOENT) => {}
            removed => removed.called("unlinkat", || "/dev/ptmx".to_owned())?,
        }
        ptmx = link("pts/ptmx", "ptmx");
    }
    ptmx.map_err(|errno| named("ptmx", errno))?;
    // Only where the kernel has it (CONFIG_PROC_KCORE).
    if rustix::fs::access("/proc/kcore", rustix::fs::Access::EXISTS).is_ok() {
        match link("/proc/kcore", "core") {
            Ok(()) | Err(Errno::EXIST) => {}
            Err(errno) => bail!(named("core", errno)),
        }
    }
    Ok(())
}

/// Attaches a detached mount of a file on `path` below the root, which is made as an empty file if it is missing;
/// a link there is refused. For `/dev/console`.
///
/// # Errors
/// `path` is a link (ELOOP) or a directory, or cannot be made.
pub fn bind_fd_onto(root: &Root, source: BorrowedFd<'_>, path: &Path) -> Result<()> {
    let target = match root.find_nofollow(path) {
        Err(error) if error.errno() == libc::ENOENT => root.create_file(path, 0o666)?,
        result => result?,
    };
    let stat = rustix::fs::fstat(&target).called("fstat", || format!("{path:?}"))?;
    if FileType::from_raw_mode(stat.st_mode) == FileType::Symlink {
        bail!(Error::new("openat2", format!("{path:?} (O_NOFOLLOW)"), libc::ELOOP));
    }
    Ok(mount::attach(source, target.as_fd())?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::{FileTypeExt as _, MetadataExt as _, symlink};

    fn device(path: &str, typ: LinuxDeviceType, major: i64, minor: i64) -> oci::LinuxDevice {
        oci::LinuxDeviceBuilder::default().path(path).typ(typ).major(major).minor(minor).build().unwrap()
    }

    fn root_in(directory: &Path) -> Root {
        std::fs::create_dir(directory.join("root")).unwrap();
        Root::open_host(&directory.join("root")).unwrap()
    }

    #[test]
    fn a_device_of_the_config_replaces_the_default_one() {
        let mut null = device("/dev/null", LinuxDeviceType::C, 1, 3);
        null.set_file_mode(Some(0o020_600));
        let plan = plan(&[null], false, false).unwrap();
        let found: Vec<_> = plan.nodes.iter().filter(|node| node.path == Path::new("/dev/null")).collect();
        assert_eq!(plan.nodes.len(), 6);
        assert_eq!((found.len(), found[0].mode, found[0].index), (1, 0o600, Some(0)));
    }

    #[test]
    fn devices_precede_mounts_that_do_not_take_their_place() {
        let defaults = plan(&[], false, false).unwrap();
        let precede = |devices: &Devices, rest: &[&str]| devices.can_precede(rest.iter().map(Path::new));
        assert!(precede(
            &defaults,
            &["/sys", "/sys/fs/cgroup", "/dev/mqueue", "/dev/pts", "/run", "/device"]
        ));
        for taken in ["/dev", "/dev/null", "/dev/ptmx", "/dev/core", "/dev/fd/3", "/dev/stdin"] {
            assert!(!precede(&defaults, &["/sys", taken]), "{taken}");
        }
        let given = plan(&[device("/dev/fuse", LinuxDeviceType::C, 10, 229)], false, false).unwrap();
        assert!(precede(&given, &["/sys"]) && !precede(&given, &["/dev/fuse"]));
        let elsewhere = plan(&[device("/run/fuse", LinuxDeviceType::C, 10, 229)], false, false).unwrap();
        assert!(!precede(&elsewhere, &["/sys"]), "a mount may cover it");
    }

    #[test]
    fn ptmx_is_always_the_link() {
        let plan = plan(&[device("/dev/ptmx", LinuxDeviceType::C, 5, 2)], false, false).unwrap();
        assert!(plan.nodes.iter().all(|node| node.path != Path::new("/dev/ptmx")));
    }

    #[test]
    fn with_dev_of_the_host_nothing_is_made() {
        let plan = plan(&[device("/dev/x", LinuxDeviceType::C, 1, 3)], true, false).unwrap();
        assert!(plan.nodes.is_empty() && !plan.links);
    }

    #[test]
    fn impossible_devices_are_refused_by_name() {
        for (device, reason) in [
            (device("/dev/x", LinuxDeviceType::A, 1, 3), "not a type"),
            (device("/dev/x", LinuxDeviceType::C, -1, 3), "major -1"),
            (device("/dev/x", LinuxDeviceType::B, 1, 1 << 20), "minor 1048576"),
        ] {
            let text = format!("{:#}", plan(&[device], false, false).unwrap_err());
            assert!(text.starts_with("linux.devices[0] /dev/x: ") && text.contains(reason), "{text}");
        }
    }

    #[test]
    fn devices_and_links_are_made_whatever_the_umask() {
        mount::private::run(|directory| {
            let root = root_in(directory);
            let mut node = device("/dev/sub/fifo", LinuxDeviceType::P, 0, 0);
            node.set_uid(Some(5)).set_gid(Some(6)).set_file_mode(Some(0o622));
            plan(&[node], false, false).unwrap().apply(&root, None, None).unwrap();
            let dev = directory.join("root/dev");
            let null = std::fs::symlink_metadata(dev.join("null")).unwrap();
            assert!(null.file_type().is_char_device());
            assert_eq!((null.rdev(), null.mode() & 0o7777), (makedev(1, 3), 0o666));
            let fifo = std::fs::symlink_metadata(dev.join("sub/fifo")).unwrap();
            assert!(fifo.file_type().is_fifo());
            assert_eq!((fifo.uid(), fifo.gid(), fifo.mode() & 0o7777), (5, 6, 0o622));
            for (link, target) in
                [("fd", "/proc/self/fd"), ("stderr", "/proc/self/fd/2"), ("ptmx", "pts/ptmx")]
            {
                assert_eq!(std::fs::read_link(dev.join(link)).unwrap(), Path::new(target));
            }
            // Once more: what is right is kept.
            plan(&[], false, false).unwrap().apply(&root, None, None).unwrap();
        });
    }

    #[test]
    fn a_file_of_the_image_in_the_place_of_a_device_is_an_error() {
        mount::private::run(|directory| {
            for wrong in ["file", "link"] {
                let directory = &directory.join(wrong);
                std::fs::create_dir(directory).unwrap();
                let root = root_in(directory);
                let dev = directory.join("root/dev");
                std::fs::create_dir(&dev).unwrap();
                match wrong {
                    "file" => std::fs::write(dev.join("null"), "secret").unwrap(),
                    _ => symlink("zero", dev.join("null")).unwrap(),
                }
                let error = plan(&[], false, false).unwrap().apply(&root, None, None).unwrap_err();
                let text = format!("{error:#}");
                assert!(text.starts_with("default device /dev/null: what is there is a "), "{text}");
            }
        });
    }

    #[test]
    fn dev_as_a_link_does_not_lead_out() {
        mount::private::run(|directory| {
            let root = root_in(directory);
            let outside = directory.join("outside");
            std::fs::create_dir(&outside).unwrap();
            symlink(&outside, directory.join("root/dev")).unwrap();
            plan(&[], false, false).unwrap().apply(&root, None, None).unwrap();
            assert!(std::fs::read_dir(&outside).unwrap().next().is_none());
        });
    }

    #[test]
    fn in_a_user_namespace_the_host_device_is_bound_if_it_is_the_one() {
        mount::private::run(|directory| {
            let root = root_in(directory);
            plan(&[], false, true).unwrap().apply(&root, None, None).unwrap();
            let zero = std::fs::metadata(directory.join("root/dev/zero")).unwrap();
            assert_eq!(zero.rdev(), makedev(1, 5));
            let other = plan(&[device("/dev/null", LinuxDeviceType::C, 8, 0)], false, true).unwrap();
            let text = format!("{:#}", other.apply(&root, None, None).unwrap_err());
            assert_eq!(text, "linux.devices[0] /dev/null: the host's device is 1:3, not 8:0");
        });
    }

    #[test]
    fn console_is_not_bound_through_a_link() {
        mount::private::run(|directory| {
            let root = root_in(directory);
            let victim = directory.join("victim");
            std::fs::create_dir(directory.join("root/dev")).unwrap();
            symlink(&victim, directory.join("root/dev/console")).unwrap();
            let source = mount::clone_private(CWD, c"/dev/null", Depth::One, 0).unwrap();
            let error = bind_fd_onto(&root, source.as_fd(), Path::new("dev/console")).unwrap_err();
            assert_eq!(crate::sys::errno_of(&error), Some(libc::ELOOP));
            std::fs::remove_file(directory.join("root/dev/console")).unwrap();
            bind_fd_onto(&root, source.as_fd(), Path::new("dev/console")).unwrap();
            assert!(
                std::fs::metadata(directory.join("root/dev/console")).unwrap().file_type().is_char_device()
            );
        });
    }
}
