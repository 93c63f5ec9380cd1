//! One file per area of config.json: `plan` (pure) says what will be done, `apply` does it in init.

pub mod bits;
pub mod capabilities;
pub mod console;
pub mod devices;
pub mod hooks;
pub mod hostname;
pub mod idmap;
pub mod intel_rdt;
pub mod keyring;
pub mod lsm;
pub mod memory_policy;
pub mod mount_options;
pub mod mounts;
pub mod namespaces;
pub mod netdevices;
pub mod paths;
pub mod personality;
pub mod process;
pub mod rlimits;
pub mod rootfs;
pub mod scheduling;
pub mod seccomp;
pub mod sysctl;
pub mod user;

/// The known configuration property that is nearest to an unknown one.
pub fn nearest_known(_path: &str) -> Option<&'static str> {
    None
}
