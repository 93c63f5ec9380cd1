//! The plan: what we shall do, decided before the first side effect.
//!
//! The last place that sees the configuration. Each part plans its own area; the values on which one part
//! depends on another are handed over here, so that parts do not know each other.

mod order;

pub use self::order::{DevicesAt, Order};

use self::order::Course;

use crate::bundle::Bundle;
use crate::cgroup;
use crate::host::{CgroupMode, Host};
use crate::notify;
use crate::parts::namespaces::{Entry, Kind, Namespaces, Request as NamespaceRequest, TimeOffsets};
use crate::parts::{
    capabilities::{self, Capabilities},
    console::{self, Console},
    devices::{self, Devices},
    hooks::{self, Hooks},
    hostname::{self, Names},
    idmap::{self, Maps},
    intel_rdt::{self, IntelRdt},
    keyring::{self, Joiner, Keyring},
    lsm::{self, Labels},
    memory_policy::{self, MemoryPolicy},
    mounts::{self, Mounts},
    namespaces,
    netdevices::{self, NetDevices},
    paths::{self, Paths},
    personality::{self, Personality},
    process::{self, Program},
    rlimits::{self, Rlimits},
    rootfs::{self, Rootfs},
    scheduling::{self, Affinity, IoPriority, Scheduler},
    seccomp::{self, Filter},
    sysctl::{self, Sysctl},
    user::{self, OriginalGroups, User},
};
use crate::spec::{self, Linux, Spec};
use crate::state::Record;
use crate::sys::ns::Flags;
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::path::{Path, PathBuf};

/// What the command line adds to config.json.
#[derive(Clone, Debug)]
pub struct Request<'a> {
    /// The container's name.
    pub id: &'a str,
    /// Whether the container gets a cgroup at all (`--cgroup-manager disabled`).
    pub cgroup: bool,
    /// Who is to make it, if systemd is (`--systemd-cgroup`).
    pub systemd: Option<cgroup::systemd::Bus>,
    /// Missing permission for cgroups is no error (`--rootless`).
    pub rootless: bool,
    /// `--no-pivot`
    pub no_pivot: bool,
    /// `--no-new-keyring` was not given.
    pub new_keyring: bool,
    /// Descriptors from 3 on that the process inherits: LISTEN_FDS and `--preserve-fds`.
    pub inherited: Inherited,
    /// The directory for a notify socket, if the caller is to be told of the container's readiness.
    pub notify: Option<PathBuf>,
}

/// The descriptors from 3 on that the container's process inherits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Inherited {
    /// Sockets of systemd's activation protocol (sd_listen_fds(3)).
    pub listen: u32,
    /// `--preserve-fds`
    pub preserve: u32,
}

impl Inherited {
    /// How many there are. The number behind the last one is a descriptor's, too: an `i32`.
    pub fn count(self) -> i32 {
        const MOST: i32 = i32::MAX - 3;
        i32::try_from(self.listen.saturating_add(self.preserve)).unwrap_or(MOST).min(MOST)
    }
}

/// What we shall do for `create` and `run` (with a root) or `exec` (without).
#[derive(Debug, Serialize)]
pub struct Plan {
    /// The container's name.
    pub id: String,
    /// The process shape.
    pub entry: Entry,
    /// The namespaces of the container.
    pub namespaces: Namespaces,
    /// For a new time namespace.
    pub time_offsets: TimeOffsets,
    /// The id maps of the container's user namespace, if they are known.
    pub maps: Option<Maps>,
    /// The cgroups, and their limits.
    pub cgroup: Option<cgroup::Plan>,
    /// The host's id of the process's user, if the container's cgroup is to be theirs.
    pub cgroup_owner: Option<u32>,
    /// The container's root; `exec` finds one.
    pub root: Option<Root>,
    /// Host and domain name.
    pub names: Names,
    /// Kernel parameters.
    pub sysctl: Sysctl,
    /// Programs of the configuration's author.
    pub hooks: Hooks,
    /// Network devices that move into the container.
    pub net_devices: NetDevices,
    /// A resctrl group.
    pub intel_rdt: Option<IntelRdt>,
    /// The directory of the container's notify socket, which is to be made.
    pub notify: Option<PathBuf>,
    /// The process.
    pub process: Process,
}

/// The container's root file system.
#[derive(Debug, Serialize)]
pub struct Root {
    /// The root itself.
    pub rootfs: Rootfs,
    /// What is mounted in it.
    pub mounts: Mounts,
    /// Device nodes and links in /dev.
    pub devices: Devices,
    /// Masked and read-only paths.
    pub paths: Paths,
    /// In which order init makes all this.
    pub order: Order,
}

/// A process of the container, its first or one of `exec`: the same steps for both.
#[derive(Debug, Serialize)]
pub struct Process {
    /// What is executed.
    pub program: Program,
    /// Ids, groups, umask.
    pub user: User,
    /// The five sets.
    pub capabilities: Capabilities,
    /// PR_SET_NO_NEW_PRIVS
    pub no_new_privileges: bool,
    /// Resource limits.
    pub rlimits: Rlimits,
    /// The filter.
    pub seccomp: Option<Filter>,
    /// AppArmor and SELinux.
    pub labels: Labels,
    /// A session keyring of its own.
    pub keyring: Option<Keyring>,
    /// The execution domain.
    pub personality: Option<Personality>,
    /// The scheduling policy.
    pub scheduler: Option<Scheduler>,
    /// The I/O priority.
    pub io_priority: Option<IoPriority>,
    /// The CPUs.
    pub affinity: Affinity,
    /// NUMA nodes.
    pub memory_policy: Option<MemoryPolicy>,
    /// /proc/PID/oom_score_adj
    pub oom_score_adj: Option<i32>,
    /// A terminal.
    pub console: Option<Console>,
    /// Descriptors that stay open.
    pub inherited: Inherited,
    /// Until it executes, the process may be looked into by others of its user: an ordinary user has no right over
    /// it that would replace this, and `exec` before `start` and a seccomp listener want it. Never where a namespace
    /// is joined, in which the others may be a container's.
    pub open_to_caller: bool,
}

/// When the seccomp filter is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FilterTime {
    /// There is none.
    Never,
    /// `exec`: in the hop, before it makes a process that the container can see. A process of the container with
    /// CAP_SYS_PTRACE could use one that has no filter yet, or still has the right that loading takes.
    InHop,
    /// Before the parent looks at init: loading takes a right that init gives up then (no no_new_privs), or the parent
    /// must be there to hand the listener to the agent.
    BeforeReady,
    /// As late as can be, so that the profile need not allow our own calls.
    Last,
}

impl Process {
    /// Whether an agent answers for the seccomp filter.
    pub fn has_agent(&self) -> bool {
        self.seccomp.as_ref().is_some_and(|filter| filter.listener().is_some())
    }
}

impl Plan {
    /// When the seccomp filter is loaded.
    pub fn filter_time(&self) -> FilterTime {
        let process = &self.process;
        match &process.seccomp {
            None => FilterTime::Never,
            Some(_) if process.has_agent() => FilterTime::BeforeReady,
            Some(_) if self.root.is_none() => FilterTime::InHop,
            Some(_) if !process.no_new_privileges => FilterTime::BeforeReady,
            Some(_) => FilterTime::Last,
        }
    }

    /// Whether the parent has something to do when the container's namespaces and mounts are there, before the pivot: its
    /// hooks, its network devices, or only to write down that hooks run from here on, which poststop hooks have to undo.
    pub fn parent_acts_before_pivot(&self) -> bool {
        let hooks = [hooks::Kind::Prestart, hooks::Kind::CreateRuntime, hooks::Kind::CreateContainer];
        hooks.iter().any(|kind| !self.hooks.of(*kind).is_empty()) || !self.net_devices.is_empty()
    }

    /// The plan of `create` and `run`.
    ///
    /// # Errors
    /// Whatever makes no sense in the configuration, by its place.
    pub fn create(bundle: &Bundle, host: &Host, request: &Request<'_>) -> Result<Self> {
        let spec = &bundle.spec;
        let none = Linux::default();
        let linux = spec.linux.as_ref().unwrap_or(&none);
        let annotations = annotations(spec.annotations.as_ref());
        let namespaces = namespaces::plan(linux.namespaces.as_deref().unwrap_or_default())?;
        let time_offsets = namespaces::plan_time(linux.time_offsets.as_ref(), &namespaces)?;
        let maps = idmap::plan(linux.uid_mappings.as_ref(), linux.gid_mappings.as_ref(), &namespaces, host)?;
        let process = spec.process.as_ref().context("process: process property must not be empty")?;
        for check in CHECKS {
            check(spec, &namespaces)?;
        }
        // For `exec` only, but a mistake in it is one of this configuration.
        scheduling::plan_exec_affinity(process.exec_cpu_affinity.as_ref())?;
        let allowed_cpus = linux.resources.as_ref().is_some_and(|resources| !resources.cpu.cpus.is_empty());
        let hooks = hooks::plan(spec.hooks.as_ref(), &annotations)?;
        let entry = namespaces.entry(&time_offsets, host.rootless());
        let course = Course {
            waits: entry.network_comes_later(),
            has_hooks: !hooks.of(hooks::Kind::CreateContainer).is_empty(),
        };
        let root = root(bundle, linux, host, request, &namespaces, maps.as_ref(), course)?;
        let mut plan = Self {
            id: request.id.into(),
            cgroup_owner: cgroup_owner(&root, process.user.uid(), host, &namespaces, maps.as_ref()),
            entry,
            cgroup: match request.cgroup {
                true => Some(cgroup::plan(
                    linux.cgroups_path.as_deref(),
                    linux.resources.as_ref(),
                    request.id,
                    host,
                    request.rootless,
                    request
                        .systemd
                        .clone()
                        .map(|bus| cgroup::systemd::Asked { bus, annotations: spec.annotations.as_ref() }),
                )?),
                false => None,
            },
            root: Some(root),
            names: hostname::plan(spec.hostname.as_deref(), spec.domainname.as_deref(), &namespaces)?,
            sysctl: sysctl(linux.sysctl.as_ref(), &namespaces)?,
            hooks,
            net_devices: match &linux.net_devices {
                Some(devices) => netdevices::plan(devices, &namespaces, runner(host))?,
                None => NetDevices::default(),
            },
            intel_rdt: (linux.intel_rdt.as_ref())
                .map(|rdt| intel_rdt::plan(rdt, request.id, intel_rdt::probe().as_ref()))
                .transpose()?,
            notify: request.notify.clone(),
            process: Process {
                keyring: keyring_of(request.id, request.new_keyring, Joiner::Create, &namespaces)?,
                personality: linux.personality.as_ref().map(personality::plan).transpose()?,
                memory_policy: linux.memory_policy.as_ref().map(memory_policy::plan).transpose()?,
                seccomp: match linux.seccomp.as_ref() {
                    Some(profile) => seccomp::plan(profile, Some(&annotations))?,
                    None => None,
                },
                affinity: Affinity::Reset,
                open_to_caller: host.euid != 0 && namespaces.joins_none(),
                ..process_of(
                    process,
                    linux.mount_label.as_deref(),
                    &annotations,
                    &[],
                    allowed_cpus,
                    request.inherited,
                )?
            },
            namespaces,
            time_offsets,
            maps,
        };
        if plan.notify.is_some() {
            let socket = format!("{}/{}", notify::INSIDE, notify::SOCKET);
            plan.process.program.set_env("NOTIFY_SOCKET", &socket);
        }
        // Without a cgroup of its own there is nothing of version 2 to hand over either.
        let unified = plan.cgroup.is_some() && host.cgroup_mode == CgroupMode::Unified;
        let owner = host_id(process.user.uid(), host, &plan.namespaces, plan.maps.as_ref());
        let delegated = cgroup::delegated(spec.annotations.as_ref(), unified, owner)?;
        if let Some(cgroup) = &mut plan.cgroup {
            cgroup.delegated = delegated;
            // The hop may be born in the cgroup, and so are the hooks that init runs before it is ready.
            let hops = matches!(plan.entry, Entry::Hop { .. });
            cgroup.pids_later = hops || !plan.hooks.of(hooks::Kind::CreateContainer).is_empty();
        }
        Ok(plan)
    }

    /// The plan of `exec`: the container is as it is recorded, the process as it is asked for, and its rights
    /// are set by the same steps as those of the first process.
    ///
    /// # Errors
    /// As for [`Plan::create`].
    pub fn exec(
        record: &Record,
        seccomp: Option<Filter>,
        process: &spec::Process,
        added: &[String],
        inherited: Inherited,
    ) -> Result<Self> {
        let own = &record.orlop;
        let namespaces = recorded_namespaces(record);
        let annotations = annotations(Some(&own.annotations));
        Ok(Self {
            id: record.id.clone(),
            entry: Entry::Hop {
                join: Vec::new(),
                unshare: Flags::NONE,
                clone: Flags::NONE,
                // No descriptor of the host's tree is open where the container can see us.
                hop_joins_cgroup: true,
            },
            time_offsets: TimeOffsets::default(),
            maps: None,
            cgroup: None,
            cgroup_owner: None,
            root: None,
            names: Names::default(),
            sysctl: Sysctl::default(),
            hooks: Hooks::default(),
            net_devices: NetDevices::default(),
            intel_rdt: None,
            notify: None,
            process: Process {
                keyring: keyring_of(
                    &record.id,
                    own.keyring,
                    Joiner::Exec(own.keyring_name.as_deref()),
                    &namespaces,
                )?,
                personality: own.personality.as_ref().map(personality::plan).transpose()?,
                memory_policy: own.memory_policy.as_ref().map(memory_policy::plan).transpose()?,
                seccomp,
                affinity: scheduling::plan_exec_affinity(
                    process.exec_cpu_affinity.as_ref().or(own.exec_cpu_affinity.as_ref()),
                )?,
                ..process_of(
                    process,
                    None,
                    &annotations,
                    added,
                    !own.cgroup.resources().cpu.cpus.is_empty(),
                    inherited,
                )?
            },
            namespaces,
        })
    }
}

fn annotations(said: Option<&BTreeMap<String, String>>) -> HashMap<String, String> {
    said.into_iter().flatten().map(|(key, value)| (key.clone(), value.clone())).collect()
}

fn root(
    bundle: &Bundle,
    linux: &Linux,
    host: &Host,
    request: &Request<'_>,
    namespaces: &Namespaces,
    maps: Option<&Maps>,
    course: Course,
) -> Result<Root> {
    let spec = &bundle.spec;
    let user_namespace = match (namespaces.0.get(&Kind::User), maps) {
        (None, _) => mounts::UserNamespace::Host,
        (Some(NamespaceRequest::Join(path)), _) => mounts::UserNamespace::Join(path),
        (Some(NamespaceRequest::New), Some(maps)) => mounts::UserNamespace::New(&maps.uid, &maps.gid),
        (Some(NamespaceRequest::New), None) => mounts::UserNamespace::Host,
    };
    let root = spec.root.as_ref().context("root: root must be specified")?;
    let rootfs = bundle.path.join(root.path());
    let facts = mounts::Facts {
        bundle: &bundle.path,
        rootfs: &rootfs,
        own_mount_namespace: namespaces.private(Kind::Mount),
        user_namespace,
        new_network_namespace: namespaces.made(Kind::Network),
        new_ipc_namespace: namespaces.made(Kind::Ipc),
        rootless: host.rootless(),
        unified_cgroups: host.cgroup_mode == CgroupMode::Unified,
        label: linux.mount_label.as_deref(),
        rootfs_propagation: linux.rootfs_propagation.as_deref(),
    };
    let mut said = Cow::Borrowed(spec.mounts.as_deref().unwrap_or_default());
    if let Some(directory) = &request.notify {
        said.to_mut().push(notify_mount(directory));
    }
    let mounts = mounts::plan(&said, &facts)?;
    let own_mounts = facts.own_mount_namespace;
    let devices = devices::plan(
        linux.devices.as_deref().unwrap_or_default(),
        mounts.bind_dev(),
        namespaces.private(Kind::User) || host.rootless(),
    )?;
    let label = linux.mount_label.as_deref();
    Ok(Root {
        rootfs: rootfs::plan(
            &bundle.path,
            root.path(),
            root.readonly().unwrap_or(false),
            linux.rootfs_propagation.as_deref(),
            own_mounts,
            request.no_pivot,
        )?,
        order: order::plan(&mounts, &devices, course),
        devices,
        paths: paths::plan(
            linux.masked_paths.as_deref().unwrap_or_default(),
            linux.readonly_paths.as_deref().unwrap_or_default(),
            label,
            own_mounts,
        )?,
        mounts,
    })
}

/// Who is to own the container's cgroup (config-linux.md, "Cgroup ownership"): version 2, in a new cgroup namespace,
/// and with a mount that can be written to.
fn cgroup_owner(
    root: &Root,
    user: u32,
    host: &Host,
    namespaces: &Namespaces,
    maps: Option<&Maps>,
) -> Option<u32> {
    let unified = host.cgroup_mode == CgroupMode::Unified;
    if !(unified && namespaces.made(Kind::Cgroup) && root.mounts.writable_cgroup()) {
        return None;
    }
    host_id(user, host, namespaces, maps)
}

/// A user of the container as the host knows them, if that is not us.
fn host_id(user: u32, host: &Host, namespaces: &Namespaces, maps: Option<&Maps>) -> Option<u32> {
    let id = if namespaces.private(Kind::User) { maps?.uid.host_id(user)? } else { user };
    (id != host.euid).then_some(id)
}

/// Where the container finds its notify socket.
fn notify_mount(directory: &Path) -> oci_spec::runtime::Mount {
    let mut mount = oci_spec::runtime::Mount::default();
    mount.set_destination(notify::INSIDE.into()).set_source(Some(directory.into()));
    let options = ["bind", "nosuid", "noexec", "nodev", "ro"].map(str::to_owned).to_vec();
    mount.set_typ(None).set_options(Some(options));
    mount
}

fn runner(host: &Host) -> netdevices::Runner {
    if host.rootless() { netdevices::Runner::Rootless } else { netdevices::Runner::Root }
}

fn sysctl(spec: Option<&HashMap<String, String>>, namespaces: &Namespaces) -> Result<Sysctl> {
    let Some(spec) = spec.filter(|spec| !spec.is_empty()) else { return Ok(Sysctl::default()) };
    let network = match namespaces.0.get(&Kind::Network) {
        Some(NamespaceRequest::Join(path)) if is_own_network(path) => sysctl::Network::Host,
        _ => sysctl::Network::Private,
    };
    sysctl::plan(spec, namespaces, network)
}

/// A path may lead to the runtime's own namespace, as `--network=host` of some engines does.
fn is_own_network(path: &Path) -> bool {
    let identity = |path: &Path| rustix::fs::stat(path).ok().map(|found| (found.st_dev, found.st_ino));
    identity(path).is_some() && identity(path) == identity(Path::new("/proc/self/ns/net"))
}

fn keyring_of(
    id: &str,
    wanted: bool,
    joiner: Joiner<'_>,
    namespaces: &Namespaces,
) -> Result<Option<Keyring>> {
    if wanted { keyring::plan(id, joiner, namespaces).map(Some) } else { Ok(None) }
}

/// What is decided by `process` alone, for `create` and `exec` alike.
fn process_of(
    process: &spec::Process,
    mount_label: Option<&str>,
    annotations: &HashMap<String, String>,
    added: &[String],
    allowed_cpus: bool,
    inherited: Inherited,
) -> Result<Process> {
    let keep_groups = annotations.get("run.oci.keep_original_groups").is_some_and(|value| value == "1");
    let groups = if keep_groups { OriginalGroups::Keep } else { OriginalGroups::Drop };
    if let Some(value) = process.oom_score_adj {
        ensure!((-1000..=1000).contains(&value), "process.oomScoreAdj: {value} is not within -1000 and 1000");
    }
    let mut program = process::plan(process)?;
    if inherited.listen > 0 {
        program.set_env("LISTEN_FDS", &inherited.listen.to_string());
        program.set_env("LISTEN_PID", "1");
    }
    Ok(Process {
        program,
        user: user::plan(&process.user, groups)?,
        capabilities: capabilities::plan(process.capabilities.as_ref(), added),
        no_new_privileges: process.no_new_privileges.unwrap_or(false),
        rlimits: rlimits::plan(process.rlimits.as_deref().unwrap_or_default())?,
        seccomp: None,
        labels: lsm::plan(
            process.apparmor_profile.as_deref(),
            process.selinux_label.as_deref(),
            mount_label,
            lsm::host_has,
        )?,
        keyring: None,
        personality: None,
        scheduler: (process.scheduler.as_ref())
            .map(|scheduler| scheduling::plan_scheduler(scheduler, allowed_cpus))
            .transpose()?,
        io_priority: process.io_priority.as_ref().map(scheduling::plan_io_priority).transpose()?,
        affinity: Affinity::Reset,
        memory_policy: None,
        oom_score_adj: process.oom_score_adj,
        console: console::plan(process)?,
        inherited,
        open_to_caller: false,
    })
}

fn recorded_namespaces(record: &Record) -> Namespaces {
    let row = |entry: &crate::state::NamespaceEntry| {
        let kind = namespaces::TABLE.iter().find(|row| row.4 == entry.kind)?.0;
        Some((kind, NamespaceRequest::New))
    };
    Namespaces(record.config.namespaces.iter().filter_map(row).collect())
}

/// Rules that span several fields, in the order in which they are checked.
const CHECKS: &[fn(&Spec, &Namespaces) -> Result<()>] = &[paths_need_a_mount_namespace];

fn paths_need_a_mount_namespace(spec: &Spec, namespaces: &Namespaces) -> Result<()> {
    let Some(linux) = &spec.linux else { return Ok(()) };
    let some = |paths: &Option<Vec<String>>| paths.as_ref().is_some_and(|paths| !paths.is_empty());
    ensure!(
        namespaces.private(Kind::Mount) || !(some(&linux.masked_paths) || some(&linux.readonly_paths)),
        "linux.maskedPaths: unable to restrict sys entries without a private MNT namespace"
    );
    Ok(())
}

/// A name for a file that belongs to the plan, made absolute against the caller's directory.
///
/// # Errors
/// getcwd(3)'s.
pub fn absolute(path: &Path) -> Result<PathBuf> {
    std::path::absolute(path).with_context(|| format!("{path:?}"))
}

#[cfg(test)]
mod tests;
