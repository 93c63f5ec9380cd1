//! `features`: what this runtime supports, as in the runtime-spec's features.md.
//!
//! Engines decide by it whether to use recursive read-only mounts ("rro") and user namespaces ("idmap").
//! So it says what the code does, from the code's own tables, and nothing about the host.

use super::json::{Json, pretty, strings};
use anyhow::Result;
use std::io::Write;

/// Prints the features.
///
/// # Errors
/// stdout cannot be written to.
pub fn run() -> Result<i32> {
    let mut text = pretty(&features(), "    ")?;
    text.push(b'\n');
    std::io::stdout().write_all(&text)?;
    Ok(0)
}

fn features() -> Json {
    Json::from([
        ("ociVersionMin", "1.0.0".into()),
        ("ociVersionMax", "1.3.0".into()),
        ("hooks", strings(HOOKS.split(' '))),
        ("mountOptions", strings(sorted(MOUNT_OPTIONS))),
        (
            "linux",
            [
                ("namespaces", strings(sorted(NAMESPACES))),
                ("capabilities", capabilities()),
                ("cgroup", enabled(&["v1", "v2", "systemd", "systemdUser", "rdma"])),
                ("seccomp", seccomp()),
                ("apparmor", enabled(&["enabled"])),
                ("selinux", enabled(&["enabled"])),
                ("intelRdt", enabled(&["enabled", "schemata", "monitoring"])),
                (
                    "memoryPolicy",
                    [("modes", strings(sorted(MPOL_MODES))), ("flags", strings(sorted(MPOL_FLAGS)))].into(),
                ),
                ("mountExtensions", [("idmap", enabled(&["enabled"]))].into()),
                ("netDevices", enabled(&["enabled"])),
            ]
            .into(),
        ),
        ("potentiallyUnsafeConfigAnnotations", strings(UNSAFE_ANNOTATIONS.split(' '))),
    ])
}

/// In the order of their numbers.
fn capabilities() -> Json {
    let mut all: Vec<_> = caps::all().into_iter().collect();
    all.sort_unstable_by_key(caps::Capability::index);
    all.iter().map(|capability| Json::from(capability.to_string().as_str())).collect::<Vec<_>>().into()
}

fn seccomp() -> Json {
    Json::from([
        ("enabled", true.into()),
        ("actions", strings(sorted(SECCOMP_ACTIONS))),
        ("operators", strings(sorted(SECCOMP_OPERATORS))),
        ("archs", strings(sorted(SECCOMP_ARCHS))),
        ("knownFlags", strings(SECCOMP_FLAGS.split(' '))),
        ("supportedFlags", strings(SECCOMP_FLAGS.split(' '))),
    ])
}

fn enabled(names: &[&'static str]) -> Json {
    Json::Object(names.iter().map(|name| (*name, Some(true.into()))).collect())
}

fn sorted(names: &'static str) -> Vec<&'static str> {
    let mut names: Vec<_> = names.split(' ').collect();
    names.sort_unstable();
    names
}

const HOOKS: &str = "prestart createRuntime createContainer startContainer poststart poststop";
const NAMESPACES: &str = "cgroup ipc mount network pid time user uts";
const MOUNT_OPTIONS: &str = "async atime bind defaults dev diratime dirsync exec iversion lazytime loud mand \
    noatime nodev nodiratime noexec noiversion nolazytime nomand norelatime nostrictatime nosuid nosymfollow \
    private ratime rbind rdev rdiratime relatime remount rexec rnoatime rnodev rnodiratime rnoexec rnorelatime \
    rnostrictatime rnosuid rnosymfollow ro rprivate rrelatime rro rrw rshared rslave rstrictatime rsuid \
    rsymfollow runbindable rw shared silent slave strictatime suid symfollow sync tmpcopyup unbindable";
const MPOL_MODES: &str = "MPOL_BIND MPOL_DEFAULT MPOL_INTERLEAVE MPOL_LOCAL MPOL_PREFERRED MPOL_PREFERRED_MANY \
    MPOL_WEIGHTED_INTERLEAVE";
const MPOL_FLAGS: &str = "MPOL_F_NUMA_BALANCING MPOL_F_RELATIVE_NODES MPOL_F_STATIC_NODES";
const SECCOMP_ACTIONS: &str = "SCMP_ACT_ALLOW SCMP_ACT_ERRNO SCMP_ACT_KILL SCMP_ACT_KILL_PROCESS \
    SCMP_ACT_KILL_THREAD SCMP_ACT_LOG SCMP_ACT_NOTIFY SCMP_ACT_TRACE SCMP_ACT_TRAP";
const SECCOMP_OPERATORS: &str = "SCMP_CMP_EQ SCMP_CMP_GE SCMP_CMP_GT SCMP_CMP_LE SCMP_CMP_LT SCMP_CMP_MASKED_EQ \
    SCMP_CMP_NE";
const SECCOMP_ARCHS: &str = "SCMP_ARCH_AARCH64 SCMP_ARCH_ARM SCMP_ARCH_LOONGARCH64 SCMP_ARCH_MIPS SCMP_ARCH_MIPS64 \
    SCMP_ARCH_MIPS64N32 SCMP_ARCH_MIPSEL SCMP_ARCH_MIPSEL64 SCMP_ARCH_MIPSEL64N32 SCMP_ARCH_PPC SCMP_ARCH_PPC64 \
    SCMP_ARCH_PPC64LE SCMP_ARCH_RISCV64 SCMP_ARCH_S390 SCMP_ARCH_S390X SCMP_ARCH_X32 SCMP_ARCH_X86 SCMP_ARCH_X86_64";
const SECCOMP_FLAGS: &str = "SECCOMP_FILTER_FLAG_TSYNC SECCOMP_FILTER_FLAG_SPEC_ALLOW SECCOMP_FILTER_FLAG_LOG \
    SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV";
const UNSAFE_ANNOTATIONS: &str = "bundle org.systemd.property. org.criu.config";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn engines_find_what_they_look_for() {
        let json = serde_json::to_value(features()).unwrap();
        let has =
            |list: &serde_json::Value, name: &str| list.as_array().unwrap().iter().any(|item| item == name);
        assert!(has(&json["mountOptions"], "rro"), "cri-o, containerd: recursive read-only");
        assert!(has(&json["linux"]["namespaces"], "user"), "containerd: user namespaces of pods");
        assert!(has(&json["linux"]["capabilities"], "CAP_CHECKPOINT_RESTORE"));
        assert_eq!(json["linux"]["mountExtensions"]["idmap"]["enabled"], true);
        assert_eq!(json["ociVersionMax"], "1.3.0");
        assert_eq!(json["hooks"].as_array().unwrap().len(), 6);
    }

    #[test]
    fn capabilities_are_listed_by_number() {
        let json = serde_json::to_value(capabilities()).unwrap();
        assert_eq!((&json[0], &json[40]), (&"CAP_CHOWN".into(), &"CAP_CHECKPOINT_RESTORE".into()));
    }

    #[test]
    fn lists_are_sorted_and_name_nothing_twice() {
        for list in [MOUNT_OPTIONS, NAMESPACES, SECCOMP_ACTIONS, SECCOMP_OPERATORS, SECCOMP_ARCHS] {
            let names = sorted(list);
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
            assert!(names.iter().all(|name| !name.is_empty()));
        }
    }
}
