//! One file per area of config.json: `plan` (pure) says what will be done, `apply` does it in init.

pub mod namespaces;
pub mod idmap;
pub mod rootfs;
pub mod mounts;
pub mod mount_options;
pub mod devices;
pub mod paths;
pub mod user;
pub mod capabilities;
pub mod rlimits;
pub mod seccomp;
pub mod lsm;
pub mod hostname;
pub mod sysctl;
pub mod console;
pub mod keyring;
pub mod personality;
pub mod scheduling;
pub mod process;
pub mod hooks;
pub mod netdevices;
pub mod intel_rdt;
