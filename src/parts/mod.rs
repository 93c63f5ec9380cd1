//! One file per area of config.json. `plan` decides from the configuration; `apply` acts, in init or in the parent.
//!
//! The table in [`fields`] says which file applies which property.
//! Not for: the order of the steps (`init` and `launch`).

pub mod bits;
pub mod capabilities;
pub mod console;
pub mod devices;
pub mod fields;
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

pub use fields::nearest_known;
