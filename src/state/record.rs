//! What state.json holds. The names of the keys outside `orlop` are those of runc's, which tools read.

use super::essentials::Kept;
use super::{Essentials, Phase, Process};
use crate::cgroup::Cgroup;
use crate::oci_state::OciState;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;
use std::collections::BTreeMap;
use std::path::PathBuf;

/// A part of the record that is there for other programs: no verb of ours takes it apart, it is kept as it was written.
pub type Shown = Box<RawValue>;

/// What `state.json` holds, but for what follows from it ([`Written`]).
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
    /// What later verbs and other programs may want to know of the configuration.
    pub config: Config,
    /// Made without root's rights.
    pub rootless: bool,
    /// What 0, 1 and 2 of init were when it was made.
    pub external_descriptors: Shown,
    /// The resctrl group, if there is one.
    #[serde(default)]
    pub intel_rdt_path: String,
    /// What only we need. Boxed, for it is large: each function that hands a record on would touch a page more of stack.
    pub orlop: Box<Own>,
}

/// The part of the configuration that runc's state.json shows under `config`, as far as there are readers of it: its
/// `capabilities`, `cgroups` and `hooks` would be kilobytes that each verb reads, and that config.json has as well.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct Config {
    /// `ociVersion`.
    #[serde(default)]
    pub version: String,
    /// Absolute.
    pub rootfs: PathBuf,
    /// `root.readonly`.
    pub readonlyfs: bool,
    /// `mounts`, as far as others ask for them: a list of [`MountEntry`].
    pub mounts: Shown,
    /// The namespaces that are not the host's.
    pub namespaces: Vec<NamespaceEntry>,
    /// `key=value` of each annotation, and `bundle=PATH`.
    pub labels: Shown,
    /// `linux.uidMappings`, a list of [`IdMapEntry`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid_mappings: Option<Shown>,
    /// `linux.gidMappings`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub gid_mappings: Option<Shown>,
    /// Made by an ordinary user.
    pub rootless_euid: bool,
    /// Missing permission for cgroups was no error.
    #[serde(default)]
    pub rootless_cgroups: bool,
}

/// A row of `config.mounts`.
#[derive(Clone, Debug, Serialize)]
pub struct MountEntry {
    /// What is mounted.
    pub source: PathBuf,
    /// Where, in the container.
    pub destination: PathBuf,
    /// The type of the file system, or `bind`.
    pub device: String,
}

/// A row of `config.uid_mappings` and `config.gid_mappings`.
#[derive(Clone, Debug, Serialize)]
pub struct IdMapEntry {
    /// The first id in the container.
    pub container_id: u32,
    /// The first id outside.
    pub host_id: u32,
    /// How many.
    pub size: u32,
}

/// A row of `config.namespaces`.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct NamespaceEntry {
    /// `NEWPID` and so on.
    #[serde(rename = "type")]
    pub kind: String,
    /// Where it was joined from; empty when it was made.
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
    /// The cgroups, recorded before they are made.
    pub cgroup: Cgroup,
    /// The resctrl group that may be ours to remove.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resctrl: Option<crate::parts::intel_rdt::Group>,
    /// The bundle, absolute.
    pub bundle: PathBuf,
    /// The configuration in it, if it has another name than usual (`--config`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub config_file: Option<String>,
    /// `annotations`.
    pub annotations: BTreeMap<String, String>,
    /// The hooks, of which `start` and `delete` have some to run.
    pub hooks: crate::parts::hooks::Hooks,
    /// Hooks have been run, so that the poststop hooks must be.
    pub hooks_ran: bool,
    /// `seccomp.bpf` beside the record is the filter that `exec` loads as well.
    pub has_filter: bool,
    /// `linux.memoryPolicy`, which `exec` sets as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub memory_policy: Option<crate::parts::memory_policy::Said>,
    /// `linux.personality`, which `exec` sets as well.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub personality: Option<oci_spec::runtime::LinuxPersonality>,
    /// `linux.intelRdt`, which `update` changes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub intel_rdt: Option<oci_spec::runtime::LinuxIntelRdt>,
    /// `--no-new-keyring` was not given.
    #[serde(default)]
    pub keyring: bool,
    /// The name of the session keyring, which `exec` joins. Of a container that an older orlop has made it is `_ses.ID`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub keyring_name: Option<String>,
    /// `process.execCPUAffinity`, for each `exec` that does not bring its own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec_cpu_affinity: Option<crate::parts::scheduling::SaidAffinity>,
}

/// The record as it is written: with what other programs look for, and follows from the rest.
#[derive(Serialize)]
pub struct Written<'a> {
    #[serde(flatten)]
    record: &'a Record,
    /// The container's cgroups: controller (empty on version 2) → path.
    cgroup_paths: BTreeMap<String, PathBuf>,
    /// `NEWNET` and so on → `/proc/PID/ns/net`; nothing before there is an init.
    namespace_paths: BTreeMap<&'static str, String>,
}

impl Record {
    /// The part of the configuration that makes it large, by its place there, and how many bytes that is.
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
    /// `record`, and what follows from it.
    pub fn of(record: &'a Record) -> Self {
        let pid = record.init_process_pid;
        let path = |row: &(_, _, _, &str, &'static str)| (row.4, format!("/proc/{pid}/ns/{}", row.3));
        let kinds = crate::parts::namespaces::TABLE.iter().filter(|_| pid > 0);
        let namespace_paths = kinds.map(path).collect();
        Self { record, cgroup_paths: record.orlop.cgroup.paths(), namespace_paths }
    }
}

impl Record {
    /// Whether init is the first process of a pid namespace made for it: its death is then the death of all in it.
    fn makes_pid_namespace(&self) -> bool {
        let key = crate::parts::namespaces::Kind::Pid.state_key();
        self.config.namespaces.iter().any(|row| row.kind == key && row.path.as_os_str().is_empty())
    }

    /// What `kill` and `delete` need of it.
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

    /// Init, if there is one.
    pub fn init(&self) -> Process {
        Process { pid: self.init_process_pid, start: self.init_process_start }
    }

    /// The container as hooks and seccomp agents are told of it; `pid` is 0 when there is no process.
    pub fn oci_state(&self, status: &'static str, pid: i32) -> OciState {
        OciState {
            id: self.id.clone(),
            status,
            pid,
            bundle: self.orlop.bundle.clone(),
            annotations: self.orlop.annotations.clone(),
        }
    }

    /// Init is complete, and this is it.
    pub fn born(&mut self, init: Process) {
        self.init_process_pid = init.pid;
        self.init_process_start = init.start;
        self.orlop.phase = Phase::Created;
    }
}

/// Where the essentials of a container come from.
#[derive(Debug)]
pub enum Source {
    /// Their own file.
    Kept(Box<Kept>),
    /// The record: of a container that an orlop without such files has made, or if the file is damaged.
    Record(Box<Record>),
}

impl Source {
    /// What they say.
    pub fn get(&self) -> Essentials<'_> {
        match self {
            Self::Kept(kept) => kept.get(),
            Self::Record(record) => record.essentials(),
        }
    }
}
