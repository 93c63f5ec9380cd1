//! `mounts` (config.md, "Mounts"): what is mounted where in the container's root.
//!
//! [`plan`] decides every mount; [`Mounts::hold`] opens in the parent what only the parent may open;
//! [`Mounts::apply`] makes the mounts in init, before the pivot.
//! Not for: device nodes (`devices`), masked and read-only paths (`paths`), the root itself (`rootfs`).

mod apply;
mod attributes;
mod bind;
mod by_string;
mod copy_up;
mod data;
mod ids;
mod layers;
#[cfg(test)]
pub(crate) mod tests;

pub use apply::{CgroupSource, Held, Late, Making, MapIds, Source};

use super::idmap::Map;
use super::mount_options::{self, Options};
use crate::sys::mount::{ATIME_MASK, NODEV, NODIRATIME, NOEXEC, NOSUID, NOSYMFOLLOW, RDONLY};
use crate::sys::mount::{Change, Depth, Propagation};
use crate::sys::path::clean;
use anyhow::{Context as _, Result, bail, ensure};
use oci_spec::runtime as oci;
use serde::Serialize;
use std::ffi::{CStr, CString};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// The container's user namespace, as far as mounts depend on it.
#[derive(Clone, Copy, Debug)]
pub enum UserNamespace<'a> {
    /// The runtime's own.
    Host,
    /// A new one with these id maps.
    New(&'a Map, &'a Map),
    /// The one at this path.
    Join(&'a Path),
}

/// What the plan of the mounts depends on besides the mounts.
#[derive(Clone, Copy, Debug)]
pub struct Facts<'a> {
    /// Relative sources of bind mounts are relative to it.
    pub bundle: &'a Path,
    /// The root, absolute.
    pub rootfs: &'a Path,
    /// The container has a mount namespace that is not the runtime's.
    pub own_mount_namespace: bool,
    /// The container's user namespace.
    pub user_namespace: UserNamespace<'a>,
    /// The container gets a new network namespace.
    pub new_network_namespace: bool,
    /// The container gets a new IPC namespace.
    pub new_ipc_namespace: bool,
    /// We are not root: no privilege over the mount namespace that we are in.
    pub rootless: bool,
    /// The host has version 2 cgroups alone.
    pub unified_cgroups: bool,
    /// `linux.mountLabel`
    pub label: Option<&'a str>,
    /// `linux.rootfsPropagation`
    pub rootfs_propagation: Option<&'a str>,
}

/// Who opens the sources of bind mounts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourcesFrom {
    /// The parent, before the fork: with all privileges, and a missing source costs nothing.
    Parent,
    /// Init, since the parent lacks the privilege (rootless) or is in the same mount namespace.
    Init,
    /// Init, so that flags which the host has set stay locked in the container's user namespace; the parent's
    /// copy, if it has the privilege, is for sources that container root may not reach.
    InitElseParent,
}

/// All mounts, in order.
#[derive(Debug, Serialize)]
pub struct Mounts {
    /// The mounts in the order of config.json.
    pub list: Vec<Mount>,
    /// Who opens the sources of bind mounts.
    pub sources: SourcesFrom,
    /// Set on every source of the host before the mount's own propagation.
    pub source_propagation: Option<Propagation>,
    /// An SELinux context for the mounts.
    pub label: Option<CString>,
    /// In a user namespace some file systems may only be had from the host.
    pub in_user_namespace: bool,
    /// We are not root on the host.
    pub rootless: bool,
    /// The container's root as a path of the host: where a source leads is compared with it.
    #[serde(skip)]
    pub rootfs: PathBuf,
}

/// One entry of `mounts`.
#[derive(Debug, Serialize)]
pub struct Mount {
    /// Its place in config.json, for messages.
    pub index: usize,
    /// Where, from the container's root; clean of "." and "..".
    pub destination: PathBuf,
    /// `source` as config.json says it, for messages.
    pub source: String,
    /// What is mounted.
    pub what: What,
    /// The mount's own attributes.
    pub attributes: Attributes,
    /// Propagation changes, in order.
    pub propagation: Vec<(Propagation, Depth)>,
}

/// What is mounted.
#[derive(Debug, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum What {
    /// A directory or file of the host.
    Bind(Bind),
    /// A new instance of a file system.
    New(New),
    /// The container's cgroup directories.
    Cgroup,
    /// A change to what is mounted there already.
    Remount(Remount),
}

/// A directory or file that is shown at a second place.
#[derive(Debug, Serialize)]
pub struct Bind {
    /// Where it is.
    pub source: BindSource,
    /// What becomes of a source that is a symbolic link.
    pub link: SourceLink,
    /// A symbolic link at the destination is mounted on, not followed.
    pub onto_link: bool,
    /// With what is mounted below it.
    pub depth: Depth,
    /// Other owners than on disk.
    pub idmap: Option<IdMapping>,
}

/// Where the source of a bind mount is.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum BindSource {
    /// An absolute path of the host. It may still lead into the root, by a link or in another spelling.
    /// `sys::host_path` finds out when the source is opened.
    Host(CString),
    /// A path in the container's root. Init opens it in its turn, for earlier mounts may have put something there. Links
    /// on the way are the image's, and stay in the root.
    Root(PathBuf),
}

/// What becomes of a source that is a symbolic link.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum SourceLink {
    /// It is followed.
    Follow,
    /// It is bound itself (`src-nofollow`).
    Bind,
    /// A link with the same target is made at the destination (`copy-symlink`).
    Copy,
}

/// Whose id maps a mount gets, and how deep.
#[derive(Debug, Serialize)]
pub struct IdMapping {
    /// The maps.
    pub maps: IdMaps,
    /// For the mount, or also for those below it.
    pub depth: Depth,
}

/// The source of id maps.
#[derive(Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum IdMaps {
    /// These.
    Given(Map, Map),
    /// Those of the user namespace at this path.
    OfNamespace(PathBuf),
}

/// A new instance of a file system.
#[derive(Debug, Serialize)]
pub struct New {
    /// Its type.
    pub fstype: CString,
    /// What mountinfo shows as the source, and a block device for those that have one.
    pub source: CString,
    /// Flags of the superblock (fsconfig(2) names).
    pub flags: Vec<CString>,
    /// The file system's own options: with a value or without.
    pub data: Vec<(CString, Option<CString>)>,
    /// The same as one string, where the file system must read it itself.
    pub one_string: Option<CString>,
    /// What of the host is bound where a new instance may not be had.
    pub host_instead: Option<HostInstead>,
    /// Must be a real directory, not a link: proc and sysfs.
    pub ordinary_directory: bool,
    /// A tmpfs without `mode=` looks like the directory that it hides.
    pub inherits_mode: bool,
    /// Start with a copy of what is hidden.
    pub copy_up: bool,
    /// Becomes read-only only at the end, for the runtime still writes into it.
    pub late_readonly: bool,
    /// Takes a `context=` option.
    pub labelled: bool,
}

/// A file system of the host that stands in for a new instance.
#[derive(Debug, Serialize)]
pub struct HostInstead {
    /// Where the host has it.
    pub source: CString,
    /// The container shares the namespace that the file system belongs to, so that a new instance is likely refused.
    pub is_likely: bool,
    /// Shown writable, files of the host's root would be within reach of a container whose root is the host's.
    pub is_refused: bool,
}

impl Mount {
    /// Whether it may depend on the network namespace in which it is mounted, as sysfs and network file systems do.
    pub fn needs_network(&self) -> bool {
        const WITHOUT: [&CStr; 5] = [c"proc", c"tmpfs", c"devpts", c"mqueue", c"cgroup2"];
        matches!(&self.what, What::New(new) if !WITHOUT.contains(&new.fstype.as_c_str()))
    }

    /// Whether it is a tmpfs that begins empty.
    pub fn is_new_tmpfs(&self) -> bool {
        matches!(&self.what, What::New(new) if new.fstype.as_c_str() == c"tmpfs" && !new.copy_up)
    }

    /// Whether its destination must be a directory and no link to one.
    pub fn wants_ordinary_directory(&self) -> bool {
        matches!(&self.what, What::New(new) if new.ordinary_directory)
    }
}

/// A change to what is mounted there already.
#[derive(Debug, Serialize)]
pub struct Remount {
    /// Flags and options of the superblock.
    pub data: Vec<(CString, Option<CString>)>,
}

/// The attributes of a mount, ready for mount_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Attributes {
    /// To set.
    pub set: u64,
    /// Not to have, said in so many words.
    pub forbidden: u64,
    /// Not to have, because a bind mount with options starts without those of its source.
    pub dropped: u64,
    /// To set in the whole tree.
    pub tree_set: u64,
    /// To clear in the whole tree.
    pub tree_clear: u64,
}

impl Attributes {
    fn of(options: &Options) -> Self {
        let mut dropped = 0;
        if options.mentions_attributes {
            dropped |= RDONLY | NOSUID | NODEV | NOEXEC | NOSYMFOLLOW;
        }
        if options.chooses_atime {
            dropped |= ATIME_MASK | NODIRATIME;
        }
        Self {
            set: options.set,
            forbidden: options.clear,
            dropped: dropped & !options.clear & !(options.set & !ATIME_MASK),
            tree_set: options.tree_set,
            tree_clear: options.tree_clear,
        }
    }

    /// The mount and all below it become read-only, and nothing of it is executed or a device.
    fn lock_down_tree(&mut self) {
        let whole = self.set & NOSYMFOLLOW | RDONLY | NOSUID | NODEV | NOEXEC;
        self.tree_set |= whole;
        self.tree_clear &= !whole;
    }

    /// The change to the mount itself, if there is one.
    pub fn change(&self) -> Option<Change> {
        let clear = self.forbidden | self.dropped;
        (self.set | clear != 0).then_some(Change { set: self.set, clear, propagation: None })
    }

    /// The change to the mount and all below it, if there is one.
    pub fn tree_change(&self) -> Option<Change> {
        let (set, clear) = (self.tree_set, self.tree_clear);
        (set | clear != 0).then_some(Change { set, clear, propagation: None })
    }
}

impl Mounts {
    /// How many mounts get id maps.
    pub fn id_mapped(&self) -> usize {
        let mapped = |mount: &&Mount| matches!(&mount.what, What::Bind(bind) if bind.idmap.is_some());
        self.list.iter().filter(mapped).count()
    }

    /// Whether `/dev` is a directory of the host: then no device is made in it (see `devices::plan`).
    pub fn bind_dev(&self) -> bool {
        let binds =
            |mount: &Mount| matches!(mount.what, What::Bind(_)) && mount.destination == Path::new("/dev");
        self.list.iter().any(binds)
    }

    /// Whether some mount shows the container's cgroup, and all that do let it be written to.
    pub fn writable_cgroup(&self) -> bool {
        let mut shown = self.list.iter().filter(|mount| matches!(mount.what, What::Cgroup)).peekable();
        shown.peek().is_some() && shown.all(|mount| mount.attributes.set & RDONLY == 0)
    }

    /// Whether some mount shows the container's cgroup: then `apply` needs a source for it.
    pub fn show_cgroup(&self) -> bool {
        self.list.iter().any(|mount| matches!(mount.what, What::Cgroup))
    }
}

/// What lxcfs and its like may put over files of a container's /proc. Everything else there is the kernel's.
const BELOW_PROC: [&str; 10] = [
    "/proc/cpuinfo",
    "/proc/diskstats",
    "/proc/meminfo",
    "/proc/stat",
    "/proc/swaps",
    "/proc/uptime",
    "/proc/loadavg",
    "/proc/slabinfo",
    "/proc/sys/kernel/ns_last_pid",
    "/proc/sys/crypto/fips_enabled",
];

/// More are an attack or a mistake; the kernel's own limit (fs.mount-max) is 100 000 for a whole namespace.
const MOST: usize = 65_536;

/// Decides every mount.
///
/// # Errors
/// There are too many. A mount that cannot be meant, named by its index and destination.
pub fn plan(mounts: &[oci::Mount], facts: &Facts<'_>) -> Result<Mounts> {
    ensure!(mounts.len() <= MOST, "mounts: {} of them, at most {MOST} are supported", mounts.len());
    let list = mounts.iter().enumerate().map(|(index, mount)| {
        plan_one(index, mount, facts)
            .with_context(|| format!("mounts[{index}] {}", mount.destination().display()))
    });
    let in_user_namespace = !matches!(facts.user_namespace, UserNamespace::Host);
    Ok(Mounts {
        list: list.collect::<Result<_>>()?,
        sources: match (facts.own_mount_namespace, in_user_namespace, facts.rootless) {
            (false, _, _) | (true, false, true) => SourcesFrom::Init,
            (true, false, false) => SourcesFrom::Parent,
            // Also rootless: root of an engine's user namespace may give its container another one.
            (true, true, _) => SourcesFrom::InitElseParent,
        },
        source_propagation: source_propagation(facts)?,
        label: facts
            .label
            .filter(|label| !label.is_empty())
            .map(|label| c_string("linux.mountLabel", label))
            .transpose()?,
        in_user_namespace,
        rootless: facts.rootless,
        rootfs: facts.rootfs.to_owned(),
    })
}

/// A source that the parent opened is still a peer of the host's mount. It becomes a slave, as everything in the
/// container's mount namespace does, unless rootfsPropagation asks for mounts that travel back to the host.
fn source_propagation(facts: &Facts<'_>) -> Result<Option<Propagation>> {
    if !facts.own_mount_namespace {
        return Ok(None);
    }
    let Some(name) = facts.rootfs_propagation.filter(|name| !name.is_empty()) else {
        return Ok(Some(Propagation::Slave));
    };
    match mount_options::propagation(name) {
        Some((Propagation::Shared, _)) => Ok(None),
        Some((Propagation::Slave, _)) => Ok(Some(Propagation::Slave)),
        Some((Propagation::Private | Propagation::Unbindable, _)) => Ok(Some(Propagation::Private)),
        None => bail!(
            "linux.rootfsPropagation: {name:?} is not one of (r)shared, (r)slave, (r)private, (r)unbindable"
        ),
    }
}

fn c_string(what: &str, text: impl AsRef<[u8]>) -> Result<CString> {
    let text = text.as_ref();
    CString::new(text).with_context(|| format!("{what}: {:?}", String::from_utf8_lossy(text)))
}

fn plan_one(index: usize, mount: &oci::Mount, facts: &Facts<'_>) -> Result<Mount> {
    let said = mount.destination();
    ensure!(!said.as_os_str().is_empty(), "no destination");
    c_string("destination", said.as_os_str().as_bytes())?;
    let (said, rootfs) = (clean(said), clean(facts.rootfs));
    let destination = match said.strip_prefix(&rootfs) {
        // As in runc: a path that says where the root is on the host is meant inside of it.
        Ok(below) => Path::new("/").join(below),
        Err(_) => said,
    };
    ensure!(destination != Path::new("/"), "mountpoint is on the top of the rootfs");
    let options = mount_options::parse(mount.options().as_deref().unwrap_or_default());
    let source = mount.source().clone().unwrap_or_default();
    let fstype = match (options.bind, mount.typ().as_deref()) {
        (Some(_), _) => "bind",
        (None, fstype) => fstype.unwrap_or_default(),
    };
    check_proc(&destination, fstype, &options)?;
    let idmap = ids::plan(index, mount, &options, facts)?;
    let link = source_link(&options)?;
    let what = if options.remount && options.bind.is_none() {
        What::Remount(Remount { data: superblock_and_data(&options)? })
    } else if options.remount {
        What::Remount(Remount { data: Vec::new() })
    } else if let Some(depth) = options.bind {
        ensure!(
            options.data.is_empty(),
            "bind mounts cannot have any filesystem-specific options applied: {:?}",
            options.data.join(",")
        );
        let source = bind_source(&source, &rootfs, facts)?;
        What::Bind(Bind { source, link, onto_link: options.destination_nofollow, depth, idmap })
    } else if fstype == "cgroup" || (fstype == "cgroup2" && facts.unified_cgroups) {
        // Beside version 1 `cgroup2` is a file system like any other, with what the cgroup namespace shows of it.
        if facts.unified_cgroups {
            data::check_cgroup2(&options.data)?;
        }
        What::Cgroup
    } else {
        What::New(plan_new(fstype, &source, &destination, &options, facts)?)
    };
    Ok(Mount {
        index,
        destination,
        source: source.to_string_lossy().into_owned(),
        what,
        attributes: Attributes::of(&options),
        propagation: options.propagation,
    })
}

fn bind_source(source: &Path, rootfs: &Path, facts: &Facts<'_>) -> Result<BindSource> {
    let source = facts.bundle.join(source);
    let named = c_string("source", source.as_os_str().as_bytes())?;
    Ok(match clean(&source).strip_prefix(rootfs) {
        Ok(below) => BindSource::Root(below.to_owned()),
        Err(_) => BindSource::Host(named),
    })
}

fn source_link(options: &Options) -> Result<SourceLink> {
    let given = [
        (options.copy_symlink, "copy-symlink"),
        (options.source_nofollow, "src-nofollow"),
        (options.destination_nofollow, "dest-nofollow"),
    ];
    let mut given = given.iter().filter(|(given, _)| *given).map(|(_, name)| name);
    if let Some(name) = given.next() {
        ensure!(options.bind.is_some() && !options.remount, "{name:?} is for bind mounts only");
        if let (true, Some(other)) = (options.copy_symlink, given.next()) {
            bail!("{name:?} and {other:?} exclude each other");
        }
    }
    Ok(match (options.copy_symlink, options.source_nofollow) {
        (true, _) => SourceLink::Copy,
        (false, true) => SourceLink::Bind,
        (false, false) => SourceLink::Follow,
    })
}

/// /proc is how everything is checked and labelled: no mount may stand in for a part of it.
fn check_proc(destination: &Path, fstype: &str, options: &Options) -> Result<()> {
    let Ok(below) = destination.strip_prefix("/proc") else { return Ok(()) };
    if options.remount {
        return Ok(());
    }
    if below.as_os_str().is_empty() {
        // A bind mount of a procfs is allowed; whether it is one is looked at when it is open.
        ensure!(
            matches!(fstype, "proc" | "bind"),
            "{destination:?} cannot be mounted because it is not of type proc"
        );
        return Ok(());
    }
    ensure!(
        BELOW_PROC.iter().any(|allowed| destination == Path::new(allowed)),
        "{destination:?} cannot be mounted because it is inside /proc"
    );
    Ok(())
}

fn plan_new(
    fstype: &str,
    source: &Path,
    destination: &Path,
    options: &Options,
    facts: &Facts<'_>,
) -> Result<New> {
    ensure!(!fstype.is_empty(), "no type, and neither \"bind\" nor \"rbind\" in the options: no such device");
    ensure!(!options.copy_up || fstype == "tmpfs", "tmpcopyup is for tmpfs, not for {fstype:?}");
    let mut flags: Vec<CString> = Vec::new();
    for name in &options.superblock {
        flags.push(c_string("options", name)?);
    }
    // Of a pseudo file system there may be one instance for all, so only the mount is read-only. Others may need
    // to know: a read-only disk, an image.
    const PSEUDO: [&str; 9] =
        ["proc", "sysfs", "tmpfs", "devpts", "mqueue", "bpf", "debugfs", "securityfs", "cgroup2"];
    if options.set & RDONLY != 0 && !PSEUDO.contains(&fstype) {
        flags.push(c"ro".to_owned());
    }
    let data = data::split(&options.data)?;
    if fstype == "overlay" {
        data::check_layers(&data)?;
    }
    let late = fstype == "tmpfs" || destination == Path::new("/dev");
    Ok(New {
        fstype: c_string("type", fstype)?,
        source: c_string("source", source.as_os_str().as_bytes())?,
        flags,
        ordinary_directory: matches!(fstype, "proc" | "sysfs"),
        inherits_mode: fstype == "tmpfs" && !data.iter().any(|(key, _)| key.as_c_str() == c"mode"),
        copy_up: options.copy_up,
        late_readonly: late && options.set & RDONLY != 0,
        labelled: !matches!(fstype, "proc" | "sysfs" | "mqueue")
            && !data.iter().any(|(key, _)| key.as_c_str() == c"context"),
        one_string: data::one_string(&options.data, &data)?,
        host_instead: host_instead(fstype, options, facts),
        data,
    })
}

/// These want privilege over a namespace of the container. In a user namespace that shares that namespace with the host,
/// what the host has is bound instead.
fn host_instead(fstype: &str, options: &Options, facts: &Facts<'_>) -> Option<HostInstead> {
    if matches!(facts.user_namespace, UserNamespace::Host) {
        return None;
    }
    let (source, shares) = match fstype {
        "sysfs" => (c"/sys", !facts.new_network_namespace),
        "mqueue" => (c"/dev/mqueue", !facts.new_ipc_namespace),
        _ => return None,
    };
    let readonly = (options.set | options.tree_set) & RDONLY != 0;
    Some(HostInstead {
        source: source.to_owned(),
        is_likely: shares,
        is_refused: fstype == "sysfs" && !readonly,
    })
}

fn superblock_and_data(options: &Options) -> Result<Vec<(CString, Option<CString>)>> {
    let mut all = Vec::new();
    for name in &options.superblock {
        all.push((c_string("options", name)?, None));
    }
    all.extend(data::split(&options.data)?);
    Ok(all)
}
