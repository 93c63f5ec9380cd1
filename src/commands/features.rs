//! `features`: what this runtime supports, as in the runtime-spec's features.md.
//!
//! Engines read it to decide whether to use recursive read-only mounts ("rro") and user namespaces ("idmap"). It is
//! printed from the tables that the code works with. Only the supported seccomp flags depend on the host's kernel.

use super::json::{Json, pretty, strings};
use crate::cli::argv;
use crate::oci_state;
use crate::parts::{capabilities, hooks, memory_policy, mount_options, namespaces, seccomp};
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
        ("ociVersionMax", oci_state::VERSION.into()),
        ("hooks", strings(hooks::KINDS.map(|(_, name)| name))),
        ("mountOptions", sorted(mount_options::names())),
        (
            "linux",
            [
                ("namespaces", sorted(namespaces::TABLE.map(|row| row.2))),
                ("capabilities", strings(capabilities::known().iter().map(String::as_str))),
                ("cgroup", enabled(&["v1", "v2", "systemd", "systemdUser", "rdma"])),
                ("seccomp", seccomp()),
                ("apparmor", enabled(&["enabled"])),
                ("selinux", enabled(&["enabled"])),
                ("intelRdt", enabled(&["enabled", "schemata", "monitoring"])),
                ("memoryPolicy", memory_policy()),
                ("mountExtensions", [("idmap", enabled(&["enabled"]))].into()),
                ("netDevices", enabled(&["enabled"])),
            ]
            .into(),
        ),
        ("annotations", ANNOTATIONS.map(|(name, value)| (name, Json::Text(value.to_owned()))).into()),
        ("potentiallyUnsafeConfigAnnotations", strings(UNSAFE_ANNOTATIONS)),
    ])
}

fn memory_policy() -> Json {
    let flags = memory_policy::FLAGS.map(|(name, _)| name);
    Json::from([("modes", sorted(memory_policy::MODES)), ("flags", sorted(flags))])
}

fn seccomp() -> Json {
    Json::from([
        ("enabled", true.into()),
        ("actions", sorted(seccomp::known_actions())),
        ("operators", sorted(seccomp::known_operators())),
        ("archs", sorted(seccomp::known_archs())),
        ("knownFlags", sorted(seccomp::known_flags())),
        ("supportedFlags", sorted(seccomp::supported_flags())),
    ])
}

fn enabled(names: &[&'static str]) -> Json {
    Json::Object(names.iter().map(|name| (*name, Some(true.into()))).collect())
}

fn sorted(names: impl IntoIterator<Item = &'static str>) -> Json {
    let mut names: Vec<_> = names.into_iter().collect();
    names.sort_unstable();
    strings(names)
}

/// The annotations of runc that engines look up; the values are those of `--version`.
const ANNOTATIONS: [(&str, &str); 3] = [
    ("org.opencontainers.runc.checkpoint.enabled", "false"), // there is no checkpoint
    ("org.opencontainers.runc.commit", argv::COMMIT),
    ("org.opencontainers.runc.version", argv::VERSION),
];

/// Annotations with an effect outside the container. An engine must not accept them from users that it does not trust.
const UNSAFE_ANNOTATIONS: [&str; 6] = [
    "bundle", // state.json has a label of this name, which other programs read; the annotation would be a second one
    "org.systemd.property.",
    "run.oci.hooks.stderr",
    "run.oci.hooks.stdout",
    "run.oci.keep_original_groups",
    "run.oci.seccomp.receiver",
];

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
    fn lists_have_what_the_tables_have_and_name_nothing_twice() {
        let json = serde_json::to_value(features()).unwrap();
        let linux = &json["linux"];
        assert_eq!(linux["capabilities"][0], "CAP_CHOWN");
        assert_eq!(linux["capabilities"][40], "CAP_CHECKPOINT_RESTORE");
        for (list, least) in [
            (&json["mountOptions"], 60),
            (&linux["namespaces"], 8),
            (&linux["seccomp"]["actions"], 9),
            (&linux["seccomp"]["operators"], 7),
            (&linux["seccomp"]["archs"], 15),
            (&linux["seccomp"]["knownFlags"], 4),
            (&linux["memoryPolicy"]["modes"], 7),
            (&linux["memoryPolicy"]["flags"], 3),
        ] {
            let names: Vec<_> = list.as_array().unwrap().iter().map(|name| name.as_str().unwrap()).collect();
            assert!(names.len() >= least, "{names:?}");
            assert!(names.windows(2).all(|pair| pair[0] < pair[1]), "{names:?}");
        }
    }
}
