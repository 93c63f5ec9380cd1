//! The content of state.json. Outside of `orlop`, the keys have the names of runc's state.json, which other tools read.
//!
//! Not for: reading and writing the file (`dir`).

use super::essentials::Kept;
use super::{Essentials, Phase, Process};
use crate::cgroup::Cgroup;
use crate::oci_state::OciState;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A part of the record for other programs only. No verb of orlop parses it, so it is kept as text.
pub type Shown = Box<RawValue>;

/// The record of a container. [`Written`] adds keys that follow from it.
#[derive(Debug, Serialize, Deserialize)]
pub struct Record {
    /// The container's id.
    pub id: String,
    /// Init's process id on the host; 0 before there is one.
    pub init_process_pid: i32,
    /// When init started, in clock ticks since boot.
    pub init_process_start: u64,
    /// When the container was created (RFC 3339, nanoseconds, UTC).
    pub created: String,
    /// The parts of the configuration that later verbs and other programs read.
    pub config: Config,
    /// The container was made without root's rights.
    pub rootless: bool,
    /// The files that descriptors 0, 1 and 2 of init were when it was made.
    pub external_descriptors: Shown,
    /// The path of the resctrl group; empty if there is none.
    #[serde(default)]
    pub intel_rdt_path: String,
    /// The parts that only orlop reads. They are large, and boxed to save stack: each function that passes a record on
    /// would touch one more page.
    pub orlop: Box<Own>,
}

/// The keys below `config` in runc's state.json, as far as other programs read them. `capabilities`, `cgroups` and
/// `hooks` are left out: they are kilobytes that each verb would read, and config.json has them too.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// `ociVersion`.
    #[serde(default)]
    pub version: String,
    /// The absolute path of the root filesystem.
    pub rootfs: PathBuf,
    /// `root.readonly`.
    pub readonlyfs: bool,
    /// `mounts`: a list of [`MountEntry`], with the keys that other programs read.
    pub mounts: Shown,
    /// The namespaces that init does not share with the host.
    pub namespaces: Vec<NamespaceEntry>,
    /// `key=value` of each annotation, and `bundle=PATH`.
    pub labels: Shown,
    /// `linux.uidMappings`, a list of [`IdMapEntry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Shown>,
    /// `linux.gidMappings`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Shown>,
    /// An ordinary user made the container.
    pub rootless_euid: bool,
    /// Missing permission for cgroups was ignored.
    #[serde(default)]
    pub rootless_cgroups: bool,
}

/// A row of `config.mounts`.
#[derive(Clone, Debug, Serialize)]
pub struct MountEntry {
    /// The source of the mount.
    pub source: PathBuf,
    /// The mount point in the container.
    pub destination: PathBuf,
    /// The type of the file system, or `bind`.
    pub device: String,
}

/// A row of `config.uid_mappings` and `config.gid_mappings`.
#[derive(Clone, Debug, Serialize)]
pub struct IdMapEntry {
    /// The first id in the container.
    pub container_id: u32,
    /// The first id outside the container.
    pub host_id: u32,
    /// The number of ids.
    pub size: u32,
}

/// A row of `config.namespaces`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceEntry {
    /// `NEWPID` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// The file that it was joined by; empty if it was made for the container.
    pub path: PathBuf,
}

/// The part of the record that has no counterpart in runc's.
#[derive(Debug, Serialize, Deserialize)]
pub struct Own {
    /// How far `create` has come.
    pub phase: Phase,
    /// The `create` or `run` that makes it.
    pub owner: Process,
    /// The boot that process numbers and start times belong to.
    pub boot_id: String,
    /// The cgroups. They are recorded before they are made.
    pub cgroup: Cgroup,
    /// The resctrl group. `delete` removes it if the container made it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<crate::parts::intel_rdt::Group>,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The name of the configuration in the bundle, if it is not config.json (`--config`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_file: Option<String>,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The hooks. `start` and `delete` run some of them.
    pub hooks: crate::parts::hooks::Hooks,
    /// Hooks have been run, so `delete` must run the poststop hooks.
    pub hooks_ran: bool,
    /// The file seccomp.bpf beside the record has the filter of init, which `exec` loads too.
    pub has_filter: bool,
    /// `linux.memoryPolicy`, which `exec` sets too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<crate::parts::memory_policy::Said>,
    /// `linux.personality`, which `exec` sets too.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<oci_spec::runtime::LinuxPersonality>,
    /// `linux.intelRdt`, which `update` changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<oci_spec::runtime::LinuxIntelRdt>,
    /// `--no-new-keyring` was not given.
    #[serde(default)]
    pub keyring: bool,
    /// The name of the session keyring, which `exec` joins. A record of an older orlop has none: there it is `_ses.ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring_name: Option<String>,
    /// `process.execCPUAffinity`, for an `exec` whose process does not have its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<crate::parts::scheduling::SaidAffinity>,
}

/// The record as it is written: with keys for other programs that follow from the rest.
#[derive(Serialize)]
pub struct Written<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// The container's cgroups: controller (empty on version 2) → path.
    cgroup_paths: BTreeMap<String, PathBuf>,
    /// `NEWNET` and so on → `/proc/PID/ns/net`; empty before there is an init.
    namespace_paths: BTreeMap<&'static str, String>,
}

impl Record {
    /// The largest part of the record: its place in the configuration, and its length in bytes.
    pub fn largest_part(&self) -> (&'static str, usize) {
        let length = |value: serde_json::Result<Vec<u8>>| value.map_or(0, |text| text.len());
        let own = &self.orlop;
        let parts = [
            ("annotations", length(serde_json::to_vec(&own.annotations)) + self.config.labels.get().len()),
            ("hooks", length(serde_json::to_vec(&own.hooks))),
            ("mounts", self.config.mounts.get().len()),
            ("linux.resources", length(serde_json::to_vec(own.cgroup.resources()))),
            ("linux.namespaces", length(serde_json::to_vec(&self.config.namespaces))),
        ];
        parts.into_iter().max_by_key(|(_, length)| *length).unwrap_or_default()
    }
}

impl<'a> Written<'a> {
    /// `record` with the keys that follow from it.
    pub fn of(record: &'a Record) -> Self {
        let pid = record.init_process_pid;
        let path = |row: &(_, _, _, &str, &'static str)| (row.4, format!("/proc/{pid}/ns/{}", row.3));
        let kinds = crate::parts::namespaces::TABLE.iter().filter(|_| pid > 0);
        let namespace_paths = kinds.map(path).collect();
        Self { record, cgroup_paths: record.orlop.cgroup.paths(), namespace_paths }
    }
}

impl Record {
    /// Init is the first process of a new pid namespace. When it dies, the kernel kills all processes in there.
    fn makes_pid_namespace(&self) -> bool {
        let key = crate::parts::namespaces::Kind::Pid.state_key();
        self.config.namespaces.iter().any(|row| row.kind == key && row.path.as_os_str().is_empty())
    }

    /// The essentials: what `kill` and `delete` need.
    pub fn essentials(&self) -> Essentials<'_> {
        Essentials {
            id: &self.id,
            phase: self.orlop.phase,
            owner: self.orlop.owner,
            init: self.init(),
            boot_id: &self.orlop.boot_id,
            makes_pid_namespace: self.makes_pid_namespace(),
            cgroup: &self.orlop.cgroup,
            resctrl: self.orlop.resctrl.as_ref(),
        }
    }

    /// Init; its number is 0 before there is one.
    pub fn init(&self) -> Process {
        Process { pid: self.init_process_pid, start: self.init_process_start }
    }

    /// The state that hooks and seccomp agents read; `pid` is 0 if there is no process.
    pub fn oci_state(&self, status: &'static str, pid: i32) -> OciState {
        OciState {
            id: self.id.clone(),
            status,
            pid,
            bundle: self.orlop.bundle.clone(),
            annotations: self.orlop.annotations.clone(),
        }
    }

    /// Enters `init`, which is complete and waits for `start`.
    pub fn born(&mut self, init: Process) {
        self.init_process_pid = init.pid;
        self.init_process_start = init.start;
        self.orlop.phase = Phase::Created;
    }
}

/// The essentials of a container, from one of two files.
#[derive(Debug)]
pub enum Source {
    /// From essentials.json.
    Kept(Box<Kept>),
    /// From the record: essentials.json is damaged, or an older orlop made the container and did not write the file.
    Record(Box<Record>),
}

impl Source {
    /// The essentials.
    pub fn get(&self) -> Essentials<'_> {
        match self {
            Self::Kept(kept) => kept.get(),
            Self::Record(record) => record.essentials(),
        }
    }
}
