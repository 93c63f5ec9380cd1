//! Every property of config.json is seen by the types, and changes what is planned.

use super::*;
use crate::host::CgroupMode;
use crate::parts::fields::{self, Fate};
use serde_json::{Value, json};

/// A configuration with every property of the schema, at its place.
fn every_property() -> Value {
    let mut config = json!({});
    for (path, example) in fields::all() {
        let example: Value = serde_json::from_str(example).unwrap();
        let mut place = &mut config;
        for name in path.split('.') {
            place = match name {
                // A list or a map? Those of the schema are told apart by what is above.
                "*" if is_map(path) => &mut place["x"],
                "*" => {
                    if place.is_null() {
                        *place = json!([null]);
                    }
                    &mut place[0]
                }
                name => &mut place[name],
            };
        }
        *place = example;
    }
    // Examples that must mean something.
    for (pointer, value) in [
        ("/ociVersion", json!("1.3.0")),
        ("/root/path", json!("rootfs")),
        ("/process/cwd", json!("/")),
        ("/process/env", json!(["A=1"])),
        ("/process/rlimits/0", json!({"type": "RLIMIT_CORE", "hard": 2, "soft": 1})),
        ("/process/capabilities", caps(["CAP_CHOWN"; 5])),
        ("/process/ioPriority/class", json!("IOPRIO_CLASS_BE")),
        ("/process/execCPUAffinity", json!({"initial": "0", "final": "0"})),
        ("/linux/cgroupsPath", json!("/x")),
        ("/linux/maskedPaths", json!(["/x"])),
        ("/linux/readonlyPaths", json!(["/x"])),
        ("/linux/devices/0/path", json!("/dev/x")),
        ("/linux/resources/cpu/shares", json!(512)),
        ("/linux/sysctl", json!({"net.ipv4.ip_forward": "1"})),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["MPOL_F_STATIC_NODES"]})),
        ("/linux/resources/devices/0/access", json!("r")),
        ("/linux/resources/hugepageLimits/0/pageSize", json!("2MB")),
        (
            "/linux/resources/memory",
            json!({
                "limit": 4096, "reservation": 2048, "swap": 8192, "kernel": 1, "kernelTCP": 1, "swappiness": 1,
                "disableOOMKiller": true, "useHierarchy": true, "checkBeforeUpdate": true
            }),
        ),
        ("/linux/resources/unified", json!({"memory.high": "1"})),
        (
            "/linux/namespaces",
            json!([
                {"type": "mount", "path": "/proc/self/ns/mnt"}, {"type": "network"}, {"type": "uts"}, {"type": "user"},
                {"type": "time"}
            ]),
        ),
        (
            "/linux/seccomp/syscalls/0",
            json!({
                "names": ["read", "write"], "action": "SCMP_ACT_ERRNO", "errnoRet": 2,
                "args": [{"index": 1, "op": "SCMP_CMP_MASKED_EQ", "value": 1, "valueTwo": 1}]
            }),
        ),
        ("/linux/seccomp/defaultAction", json!("SCMP_ACT_ERRNO")),
        ("/linux/seccomp/defaultErrnoRet", json!(38)),
        ("/linux/netDevices/x/name", json!("y")),
        ("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_LOG"])),
        ("/mounts/0/destination", json!("/x")),
        ("/mounts/0/source", json!("/x")),
        ("/mounts/0/options", json!(["bind", "idmap"])),
    ] {
        *config.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not in the list")) = value;
    }
    for (_, name) in hooks::KINDS {
        config["hooks"][name][0]["path"] = json!("/x");
        config["hooks"][name][0]["env"] = json!(["A=1"]);
    }
    config
}

fn caps(sets: [&str; 5]) -> Value {
    let names = ["ambient", "bounding", "effective", "inheritable", "permitted"];
    names
        .iter()
        .zip(sets)
        .map(|(name, cap)| ((*name).to_owned(), json!([cap])))
        .collect::<serde_json::Map<_, _>>()
        .into()
}

fn is_map(path: &str) -> bool {
    [
        "annotations.",
        "linux.netDevices.",
        "linux.resources.rdma.",
        "linux.resources.unified.",
        "linux.sysctl.",
    ]
    .iter()
    .any(|map| path.starts_with(map))
}

#[test]
fn no_property_is_read_past_but_those_that_are_said_to_be() {
    let text = every_property().to_string();
    let spec: Spec = serde_json::from_str(&text).unwrap();
    assert_eq!(spec.oci_version, "1.3.0");
    let ignored = crate::bundle::unknown_properties::<Spec>(&text);
    assert!(!ignored.is_empty());
    for path in &ignored {
        let row = fields::UNSUPPORTED.iter().find(|row| row.0 == path);
        assert_eq!(row.map(|row| row.1), Some(Fate::Ignored), "{path} is read past");
    }
}

fn planned(config: &Value, mode: CgroupMode) -> Result<Value> {
    let spec: Spec = serde_json::from_value(config.clone())?;
    let bundle = Bundle { path: "/b".into(), file: crate::bundle::CONFIG.into(), spec: Box::new(spec) };
    let host = Host { cgroup_mode: mode, euid: 0, egid: 0, initial_user_namespace: true };
    let request = Request {
        systemd: None,
        id: "web",
        cgroup: true,
        rootless: false,
        no_pivot: false,
        new_keyring: true,
        inherited: Inherited::default(),
        notify: None,
    };
    let plan = Plan::create(&bundle, &host, &request)?;
    Ok(serde_json::to_value(&plan)?)
}

/// Properties that change no plan of `create`: what sees them, and which test of that says so.
const ELSEWHERE: &[(&str, &str)] = &[
    ("annotations", "the record; tests::annotations_are_in_the_state"),
    ("ociVersion", "bundle::check_version"),
    ("linux.intelRdt", "the host need not have it; parts::intel_rdt"),
    ("linux.mountLabel", "the host need not have it; parts::lsm"),
    ("linux.personality.flags", "refused; parts::personality"),
    ("process.apparmorProfile", "the host need not have it; parts::lsm"),
    ("process.execCPUAffinity", "exec; tests/exec_options.rs"),
    ("process.selinuxLabel", "the host need not have it; parts::lsm"),
    // Unlike create, update looks at what is in use.
    ("linux.resources.memory.checkBeforeUpdate", "cgroup::limits"),
];

fn below(row: &str, path: &str) -> bool {
    path.strip_prefix(row).is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

/// The value at `path` taken away.
fn without(config: &Value, path: &str) -> Value {
    fn take(place: &mut Value, names: &[&str]) {
        match (names, place) {
            (["*"], Value::Array(list)) => list.clear(),
            (["*"], Value::Object(map)) => map.clear(),
            ([name], Value::Object(map)) => drop(map.remove(*name)),
            (["*", rest @ ..], Value::Array(list)) => list.iter_mut().for_each(|entry| take(entry, rest)),
            (["*", rest @ ..], Value::Object(map)) => map.values_mut().for_each(|entry| take(entry, rest)),
            ([name, rest @ ..], Value::Object(map)) => {
                map.get_mut(*name).map_or((), |entry| take(entry, rest))
            }
            _ => {}
        }
    }
    let mut config = config.clone();
    take(&mut config, &path.split('.').collect::<Vec<_>>());
    config
}

/// Not all properties can stand in one configuration, nor mean something on every host.
struct Variant {
    mode: CgroupMode,
    without: &'static [&'static str],
    with: Vec<(&'static str, Value)>,
}

fn variants() -> [Variant; 3] {
    let notify = json!({"names": ["read"], "action": "SCMP_ACT_NOTIFY"});
    [
        Variant {
            mode: CgroupMode::Unified,
            without: &["linux.resources.memory.disableOOMKiller", "linux.resources.memory.swappiness"],
            with: vec![(
                "/process/scheduler",
                json!({"policy": "SCHED_OTHER", "nice": 1, "flags": ["SCHED_FLAG_RESET_ON_FORK"]}),
            )],
        },
        Variant {
            mode: CgroupMode::Legacy,
            without: &[
                "linux.resources.unified",
                "linux.uidMappings",
                "linux.gidMappings",
                "mounts.*.uidMappings",
                "mounts.*.gidMappings",
            ],
            with: vec![
                ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 1})),
                ("/mounts/0/options", json!(["ro"])),
                ("/linux/seccomp/syscalls/0", notify),
                (
                    "/linux/namespaces",
                    json!([{"type": "mount"}, {"type": "network"}, {"type": "uts"}, {"type": "time"}]),
                ),
            ],
        },
        Variant {
            mode: CgroupMode::Hybrid,
            without: &["linux.resources.unified"],
            with: vec![(
                "/process/scheduler",
                json!({"policy": "SCHED_DEADLINE", "runtime": 2000, "deadline": 3000, "period": 4000}),
            )],
        },
    ]
}

#[test]
fn every_property_changes_the_plan_or_is_said_to_be_seen_elsewhere() {
    let exempt = |path: &str| {
        let ignored = fields::UNSUPPORTED.iter().filter(|row| row.1 == Fate::Ignored);
        ignored.map(|row| row.0).chain(ELSEWHERE.iter().map(|row| row.0)).any(|row| below(row, path))
    };
    let mut full = every_property();
    for (path, _) in ELSEWHERE.iter().filter(|row| !row.1.starts_with("bundle")) {
        full = without(&full, path);
    }
    let mut blind: Vec<&str> = fields::all().map(|(path, _)| path).filter(|path| !exempt(path)).collect();
    for Variant { mode, without: refused, with } in variants() {
        let mut base = refused.iter().fold(full.clone(), |config, path| without(&config, path));
        for (pointer, value) in with {
            *base.pointer_mut(pointer).unwrap_or_else(|| panic!("{pointer} is not there")) = value;
        }
        let with_all = planned(&base, mode).unwrap_or_else(|error| panic!("{mode:?}: {error:#}"));
        blind.retain(|path| match planned(&without(&base, path), mode) {
            Ok(plan) => plan == with_all,
            // It is missed.
            Err(_) => false,
        });
    }
    assert!(blind.is_empty(), "no plan depends on {blind:#?}");
}
