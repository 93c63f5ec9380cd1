//! config.json as it is written (runtime-spec, config.md and config-linux.md).
//!
//! Most types below the top levels are those of the oci-spec crate. The top levels are our own, because those of the
//! crate refuse values that the specification and runc allow: a process without `user`, unknown capabilities and
//! scheduler flags, an empty `execCPUAffinity`. They also keep `annotations` and `timeOffsets` in random order.
//!
//! Not for: the meaning of any property, which `plan.rs` and the parts decide.

use crate::cgroup::Resources;
use crate::parts::{capabilities, memory_policy, scheduling};
use oci_spec::runtime as oci;
use serde::Deserialize;
use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;

/// config.json.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Spec {
    /// `ociVersion`
    #[serde(default)]
    pub oci_version: String,
    /// `root`
    pub root: Option<oci::Root>,
    /// `mounts`
    pub mounts: Option<Vec<oci::Mount>>,
    /// `process`
    pub process: Option<Process>,
    /// `hostname`
    pub hostname: Option<String>,
    /// `domainname`
    pub domainname: Option<String>,
    /// `hooks`
    pub hooks: Option<oci::Hooks>,
    /// `annotations`
    pub annotations: Option<BTreeMap<String, String>>,
    /// `linux`
    pub linux: Option<Linux>,
}

/// `process`; also the content of the file of `exec --process`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Process {
    /// `terminal`
    pub terminal: Option<bool>,
    /// `consoleSize`
    pub console_size: Option<oci::Box>,
    /// `user`
    #[serde(default)]
    pub user: oci::User,
    /// `args`
    pub args: Option<Vec<String>>,
    /// `env`
    pub env: Option<Vec<String>>,
    /// `cwd`
    #[serde(default)]
    pub cwd: PathBuf,
    /// `capabilities`
    pub capabilities: Option<capabilities::Said>,
    /// `rlimits`
    pub rlimits: Option<Vec<oci::PosixRlimit>>,
    /// `noNewPrivileges`
    pub no_new_privileges: Option<bool>,
    /// `apparmorProfile`
    pub apparmor_profile: Option<String>,
    /// `oomScoreAdj`
    pub oom_score_adj: Option<i32>,
    /// `selinuxLabel`
    pub selinux_label: Option<String>,
    /// `ioPriority`
    pub io_priority: Option<scheduling::SaidIoPriority>,
    /// `scheduler`
    pub scheduler: Option<scheduling::SaidScheduler>,
    /// `execCPUAffinity`
    #[serde(rename = "execCPUAffinity")]
    pub exec_cpu_affinity: Option<scheduling::SaidAffinity>,
}

/// `linux`
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Linux {
    /// `namespaces`
    pub namespaces: Option<Vec<oci::LinuxNamespace>>,
    /// `uidMappings`
    pub uid_mappings: Option<Vec<oci::LinuxIdMapping>>,
    /// `gidMappings`
    pub gid_mappings: Option<Vec<oci::LinuxIdMapping>>,
    /// `timeOffsets`
    pub time_offsets: Option<BTreeMap<String, oci::LinuxTimeOffset>>,
    /// `devices`
    pub devices: Option<Vec<oci::LinuxDevice>>,
    /// `netDevices`
    pub net_devices: Option<HashMap<String, oci::LinuxNetDevice>>,
    /// `cgroupsPath`
    pub cgroups_path: Option<String>,
    /// `resources`
    pub resources: Option<Resources>,
    /// `intelRdt`
    pub intel_rdt: Option<oci::LinuxIntelRdt>,
    /// `memoryPolicy`
    pub memory_policy: Option<memory_policy::Said>,
    /// `sysctl`
    pub sysctl: Option<HashMap<String, String>>,
    /// `seccomp`
    pub seccomp: Option<oci::LinuxSeccomp>,
    /// `rootfsPropagation`
    pub rootfs_propagation: Option<String>,
    /// `maskedPaths`
    pub masked_paths: Option<Vec<String>>,
    /// `readonlyPaths`
    pub readonly_paths: Option<Vec<String>>,
    /// `mountLabel`
    pub mount_label: Option<String>,
    /// `personality`
    pub personality: Option<oci::LinuxPersonality>,
}
