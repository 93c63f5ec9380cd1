//! `spec`: writes an example config.json. Except for the hostname, it is the same as runc's to the byte.
//!
//! Not for: the defaults of a container. `plan` decides what a missing property means.

use super::json::{Json, object, pretty, strings};
use crate::cli;
use crate::host::{CgroupMode, Host};
use crate::sys::Called;
use anyhow::{Result, bail};
use std::fs::OpenOptions;
use std::io::{ErrorKind, Write};
use std::path::Path;

/// Writes config.json into the bundle.
///
/// # Errors
/// The file exists already, or the directory cannot be written to.
pub fn run(args: &cli::Spec) -> Result<i32> {
    let path = args.bundle.as_deref().unwrap_or(Path::new("")).join("config.json");
    let text = pretty(&example(&Host::probe()?, args.rootless), "\t")?;
    // create_new is O_EXCL: a file that another program makes at this moment is not overwritten either.
    let mut file = match OpenOptions::new().write(true).create_new(true).open(&path) {
        Err(error) if error.kind() == ErrorKind::AlreadyExists => {
            bail!("File config.json exists. Remove it first")
        }
        opened => opened.called("open", || format!("{path:?}"))?,
    };
    file.write_all(&text).called("write", || format!("{path:?}"))?;
    Ok(0)
}

fn example(host: &Host, rootless: bool) -> Json {
    Json::from([
        ("ociVersion", "1.3.0".into()),
        ("process", process()),
        ("root", [("path", "rootfs".into()), ("readonly", true.into())].into()),
        ("hostname", "orlop".into()),
        ("mounts", mounts(rootless)),
        ("linux", linux(host, rootless)),
    ])
}

fn process() -> Json {
    let capabilities = || strings(["CAP_AUDIT_WRITE", "CAP_KILL", "CAP_NET_BIND_SERVICE"]);
    let nofile = [("type", "RLIMIT_NOFILE".into()), ("hard", 1024.into()), ("soft", 1024.into())];
    let path = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
    Json::from([
        ("terminal", true.into()),
        ("user", [("uid", 0.into()), ("gid", 0.into())].into()),
        ("args", strings(["sh"])),
        ("env", strings([path, "TERM=xterm"])),
        ("cwd", "/".into()),
        (
            "capabilities",
            [("bounding", capabilities()), ("effective", capabilities()), ("permitted", capabilities())]
                .into(),
        ),
        ("rlimits", vec![nofile.into()].into()),
        ("noNewPrivileges", true.into()),
    ])
}

//   destination      type      source    options
const MOUNTS: &[(&str, &str, &str, &str)] = &[
    ("/proc", "proc", "proc", ""),
    ("/dev", "tmpfs", "tmpfs", "nosuid strictatime mode=755 size=65536k"),
    ("/dev/pts", "devpts", "devpts", "nosuid noexec newinstance ptmxmode=0666 mode=0620 gid=5"),
    ("/dev/shm", "tmpfs", "shm", "nosuid noexec nodev mode=1777 size=65536k"),
    ("/dev/mqueue", "mqueue", "mqueue", "nosuid noexec nodev"),
    ("/sys", "sysfs", "sysfs", "nosuid noexec nodev ro"),
    ("/sys/fs/cgroup", "cgroup", "cgroup", "nosuid noexec nodev relatime ro"),
];

fn mounts(rootless: bool) -> Json {
    let mount = |&(destination, fstype, source, options): &(&str, &str, &str, &str)| {
        // The kernel lets a user namespace mount sysfs only if it owns the network namespace. Here it has none.
        let (fstype, source, options) = match destination {
            "/sys" if rootless => ("none", "/sys", "rbind nosuid noexec nodev ro"),
            _ => (fstype, source, options),
        };
        // The user namespace of this example does not map group 5.
        let options: Vec<_> = options.split(' ').filter(|o| !(rootless && o.starts_with("gid="))).collect();
        let options = options.into_iter().filter(|option| !option.is_empty());
        let options: Vec<_> = options.map(Json::from).collect();
        object([
            ("destination", Some(destination.into())),
            ("type", Some(fstype.into())),
            ("source", Some(source.into())),
            ("options", (!options.is_empty()).then(|| options.into())),
        ])
    };
    MOUNTS.iter().map(mount).collect::<Vec<_>>().into()
}

const MASKED: &str = "/proc/acpi /proc/asound /proc/kcore /proc/keys /proc/latency_stats /proc/timer_list \
                      /proc/timer_stats /proc/sched_debug /sys/firmware /proc/scsi";
const READONLY: &str = "/proc/bus /proc/fs /proc/irq /proc/sys /proc/sysrq-trigger";

fn linux(host: &Host, rootless: bool) -> Json {
    let namespaces = [
        ("pid", true),
        ("network", !rootless),
        ("ipc", true),
        ("uts", true),
        ("mount", true),
        ("cgroup", host.cgroup_mode == CgroupMode::Unified),
        ("user", rootless),
    ];
    let namespaces =
        namespaces.iter().filter(|(_, wanted)| *wanted).map(|(kind, _)| [("type", (*kind).into())].into());
    let map = |id: u32| {
        let one = [("containerID", 0.into()), ("hostID", id.into()), ("size", 1.into())];
        rootless.then(|| vec![one.into()].into())
    };
    let deny_all = Json::from([("allow", false.into()), ("access", "rwm".into())]);
    object([
        ("uidMappings", map(host.euid)),
        ("gidMappings", map(host.egid)),
        ("resources", (!rootless).then(|| [("devices", vec![deny_all].into())].into())),
        ("namespaces", Some(namespaces.collect::<Vec<Json>>().into())),
        ("maskedPaths", Some(strings(MASKED.split(' ')))),
        ("readonlyPaths", Some(strings(READONLY.split(' ')))),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn host(cgroup_mode: CgroupMode) -> Host {
        Host { cgroup_mode, euid: 1000, egid: 100, initial_user_namespace: true }
    }

    fn parsed(mode: CgroupMode, rootless: bool) -> (crate::spec::Spec, serde_json::Value) {
        let text = pretty(&example(&host(mode), rootless), "\t").unwrap();
        (serde_json::from_slice(&text).unwrap(), serde_json::from_slice(&text).unwrap())
    }

    fn kinds(json: &serde_json::Value) -> Vec<&str> {
        let list = json["linux"]["namespaces"].as_array().unwrap();
        list.iter().map(|namespace| namespace["type"].as_str().unwrap()).collect()
    }

    #[test]
    fn the_example_is_a_spec_and_asks_for_a_cgroup_namespace_on_unified_hosts_only() {
        let (spec, json) = parsed(CgroupMode::Hybrid, false);
        assert_eq!(spec.oci_version, "1.3.0");
        assert_eq!(kinds(&json), ["pid", "network", "ipc", "uts", "mount"]);
        assert_eq!(
            kinds(&parsed(CgroupMode::Unified, false).1),
            ["pid", "network", "ipc", "uts", "mount", "cgroup"]
        );
    }

    #[test]
    fn the_rootless_example_needs_nothing_that_an_ordinary_user_lacks() {
        let (_, json) = parsed(CgroupMode::Unified, true);
        assert_eq!(kinds(&json), ["pid", "ipc", "uts", "mount", "cgroup", "user"]);
        assert_eq!(json["linux"]["uidMappings"][0]["hostID"], 1000);
        assert_eq!(json["linux"]["gidMappings"][0]["hostID"], 100);
        assert!(json["linux"].get("resources").is_none());
        assert_eq!(json["mounts"][5]["type"], "none");
        assert_eq!(json["mounts"][5]["options"][0], "rbind");
        assert!(!json.to_string().contains("gid=5"));
    }

    #[test]
    fn keys_stand_in_the_order_of_runc_and_levels_are_tabs() {
        let text =
            String::from_utf8(pretty(&example(&host(CgroupMode::Hybrid), false), "\t").unwrap()).unwrap();
        assert!(
            text.starts_with("{\n\t\"ociVersion\": \"1.3.0\",\n\t\"process\": {\n\t\t\"terminal\": true,\n")
        );
        assert!(text.contains("\n\t\t{\n\t\t\t\"destination\": \"/proc\",\n\t\t\t\"type\": \"proc\",\n\t\t\t\"source\": \"proc\"\n\t\t},\n"));
    }

    #[test]
    fn a_config_that_is_there_is_kept() {
        let bundle = tempfile::tempdir().unwrap();
        let args = cli::Spec { bundle: Some(bundle.path().into()), rootless: false };
        assert_eq!(run(&args).unwrap(), 0);
        let written = std::fs::read(bundle.path().join("config.json")).unwrap();
        assert_eq!(run(&args).unwrap_err().to_string(), "File config.json exists. Remove it first");
        assert_eq!(std::fs::read(bundle.path().join("config.json")).unwrap(), written);
    }
}
