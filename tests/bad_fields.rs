//! Every field of config.json with something wrong in it: one line that names the field, exit 1, nothing left.

use serde_json::{Value, json};

use crate::support::{Bundle, View, is_root, under_runc};

/// The properties of the published schema with an example value each; see `tools/schema-fields`.
const FIELDS: &str = include_str!("../src/parts/fields.txt");

/// Fields of other platforms, and fields that the specification has dropped: the runtime ignores any value.
const IGNORED: [&str; 7] = [
    "freebsd",
    "solaris",
    "vm",
    "windows",
    "zos",
    "process.commandLine",
    "linux.resources.memory.useHierarchy",
];

fn is_map(path: &str) -> bool {
    let maps = [
        "annotations.",
        "linux.netDevices.",
        "linux.resources.rdma.",
        "linux.resources.unified.",
        "linux.sysctl.",
    ];
    maps.iter().any(|map| path.starts_with(map))
}

/// A bundle with only this value and its parents: `mounts.*.type` is the type of the only mount.
fn only(path: &str, value: Value) -> Bundle {
    let mut value = value;
    let names: Vec<&str> = path.split('.').collect();
    let base = ["process", "root", "linux", "linux.resources", "process.user"];
    let keep =
        (1..names.len()).rev().find(|end| base.contains(&names[..*end].join(".").as_str())).unwrap_or(0);
    for name in names[keep + 1..].iter().rev() {
        value = match *name {
            "*" if is_map(path) => json!({"x": value}),
            "*" => json!([value]),
            name => json!({name: value}),
        };
    }
    Bundle::new().set(&format!("/{}", names[..=keep].join("/")), value)
}

#[test]
fn the_wrong_type_of_each_field_is_named() {
    crate::skip_unless!(!under_runc(), "Go names the types of its own structures");
    for line in FIELDS.lines() {
        let (path, example) = line.split_once(' ').expect("a path and a value");
        if IGNORED.contains(&path) {
            continue;
        }
        let wrong = match serde_json::from_str(example).expect("JSON") {
            Value::String(_) => json!({"neither": "text"}),
            Value::Number(_) => json!("many"),
            _ => json!("perhaps"),
        };
        // The error names the field like this: linux.devices[0].major, or with a map's key.
        let named = path.replace(".*", if is_map(path) { ".x" } else { "[0]" });
        let bundle = only(path, wrong);
        eprintln!("{path}");
        bundle.create().fails_with(&format!("{named}: "));
    }
}

#[test]
fn a_list_or_an_object_in_the_wrong_place_is_named() {
    for (pointer, value, part) in [
        ("/process", json!([]), "process: "),
        ("/root", json!("rootfs"), "root: "),
        ("/mounts", json!({}), "mounts: "),
        ("/linux", json!("linux"), "linux: "),
        ("/linux", json!([]), "linux: "),
        ("/linux/resources", json!([1]), "linux.resources: "),
        ("/linux/resources/cpu", json!([]), "linux.resources.cpu: "),
        ("/linux/resources/rdma", json!({"mlx5_1": [1, 2]}), "linux.resources.rdma.mlx5_1: "),
        ("/linux/namespaces", json!([["pid"]]), "linux.namespaces[0]: "),
        ("/hooks", json!([1]), "hooks: "),
        ("/hooks/poststop", json!({"path": "/x"}), "hooks.poststop: "),
        ("/linux/seccomp", json!("allow"), "linux.seccomp: "),
        ("/process/capabilities", json!(["CAP_CHOWN"]), "process.capabilities: "),
        ("/annotations", json!(["a=b"]), "annotations: "),
    ] {
        Bundle::new().set(pointer, value).create().fails_with(part);
    }
}

#[track_caller]
fn each(cases: &[(&str, Value, &str)]) {
    for (pointer, value, part) in cases {
        eprintln!("{pointer} {value}");
        Bundle::new().set(pointer, value.clone()).create().fails_with(part);
    }
}

#[test]
fn numbers_out_of_range() {
    each(&[
        ("/process/user/uid", json!(-1), "process.user.uid"),
        ("/process/user/gid", json!(4_294_967_296_u64), "process.user.gid"),
        ("/process/user/umask", json!(-1), "process.user.umask"),
        ("/process/oomScoreAdj", json!(1001), "process.oomScoreAdj"),
        ("/process/oomScoreAdj", json!(-1001), "process.oomScoreAdj"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_BE", "priority": 8}), "riority"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "priority": 100}), "riority"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "nice": 20}), "nice"),
        ("/linux/timeOffsets", json!({"monotonic": {"secs": 1}}), "time namespace"),
        ("/linux/resources/blockIO", json!({"weight": 70_000}), "linux.resources.blockIO.weight"),
        (
            "/linux/resources/hugepageLimits",
            json!([{"pageSize": "3XB", "limit": 1}]),
            "linux.resources.hugepageLimits[0]",
        ),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "0-99999"}), "node"),
        ("/hooks/createRuntime", json!([{"path": "/bin/true", "timeout": 0}]), "hooks.createRuntime[0]"),
        ("/hooks/createRuntime", json!([{"path": "/bin/true", "timeout": -1}]), "hooks.createRuntime[0]"),
    ]);
    if !View::Host.unified() {
        // Version 2 has weights instead of shares, and each number of shares has a weight.
        each(&[("/linux/resources/cpu", json!({"shares": 1}), "shares")]);
    }
    let offset = json!({"monotonic": {"secs": 1, "nanosecs": 1_000_000_000_u32}});
    Bundle::new().namespace("time", None).set("/linux/timeOffsets", offset).create().fails_with("nanosecs");
}

#[test]
fn words_that_are_none() {
    each(&[
        ("/process/rlimits", json!([{"type": "RLIMIT_X", "hard": 1, "soft": 1}]), "RLIMIT_X"),
        ("/process/ioPriority", json!({"class": "IOPRIO_CLASS_X", "priority": 1}), "IOPRIO_CLASS_X"),
        ("/process/scheduler", json!({"policy": "SCHED_X"}), "SCHED_X"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "flags": ["SCHED_FLAG_X"]}), "SCHED_FLAG_X"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_X"}), "invalid memory policy mode"),
        ("/linux/memoryPolicy", json!({"mode": "MPOL_BIND", "nodes": "x"}), "invalid memory policy node"),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_BIND", "nodes": "0", "flags": ["F"]}),
            "invalid memory policy flag",
        ),
        ("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_X"}), "SCMP_ACT_X"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "architectures": ["SCMP_ARCH_X"]}),
            "SCMP_ARCH_X",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_X"]}),
            "SECCOMP_FILTER_FLAG_X",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [{
                "names": ["read"], "action": "SCMP_ACT_ERRNO", "args": [{"index": 0, "value": 0, "op": "SCMP_CMP_X"}]
            }]}),
            "SCMP_CMP_X",
        ),
        ("/linux/namespaces/-", json!({"type": "solar"}), "solar"),
        ("/linux/rootfsPropagation", json!("public"), "rootfsPropagation"),
        ("/linux/personality", json!({"domain": "LINUX64"}), "LINUX64"),
        (
            "/linux/devices",
            json!([{"path": "/dev/x", "type": "x", "major": 1, "minor": 3}]),
            "linux.devices[0]",
        ),
        (
            "/linux/resources/devices",
            json!([{"allow": true, "type": "c", "access": "rwx"}]),
            "linux.resources.devices[0]",
        ),
        ("/linux/timeOffsets", json!({"realtime": {"secs": 1}}), "time"),
        ("/process/execCPUAffinity", json!({"final": "a"}), "CPUAffinity.Final"),
    ]);
}

#[test]
fn paths_that_may_not_be() {
    each(&[
        ("/process/cwd", json!("tmp"), "Cwd must be an absolute path"),
        ("/hooks/prestart", json!([{"path": "true"}]), "hooks.prestart[0]"),
        ("/hooks/startContainer", json!([{"path": ""}]), "hooks.startContainer[0]"),
        (
            "/linux/devices",
            json!([{"path": "/dev/a\u{0}b", "type": "c", "major": 1, "minor": 3}]),
            "linux.devices[0]",
        ),
        ("/linux/maskedPaths", json!([""]), "linux.maskedPaths[0]"),
        ("/linux/readonlyPaths", json!([""]), "linux.readonlyPaths[0]"),
        ("/linux/cgroupsPath", json!("/a\u{0}b"), "linux.cgroupsPath"),
        ("/mounts/-", json!({"destination": "", "type": "tmpfs", "source": "tmpfs"}), "mounts[7]"),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/does/not/exist", "syscalls": [
                {"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}
            ]}),
            "/does/not/exist",
        ),
    ]);
}

#[test]
fn combinations_that_contradict_themselves() {
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 65536}]);
    each(&[
        ("/linux/uidMappings", map.clone(), "user namespace"),
        ("/linux/timeOffsets", json!({"boottime": {"secs": 1}}), "time namespace"),
        ("/process/scheduler", json!({"policy": "SCHED_OTHER", "priority": 1}), "riority"),
        ("/process/scheduler", json!({"policy": "SCHED_FIFO", "runtime": 1000}), "untime"),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_DEFAULT", "nodes": "0-7"}),
            "mode requires 0 nodes but got 8",
        ),
        (
            "/linux/memoryPolicy",
            json!({"mode": "MPOL_LOCAL", "flags": ["MPOL_F_STATIC_NODES"]}),
            "linux.memoryPolicy",
        ),
        (
            "/linux/seccomp",
            json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
                {"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}
            ]}),
            "listenerPath",
        ),
        ("/process/consoleSize", json!({"height": "a", "width": 1}), "process.consoleSize.height"),
        ("/linux/netDevices", json!({"orlop-none": {}}), "orlop-none"),
        ("/linux/netDevices", json!({"lo": {"name": "a/b"}}), "netDevices"),
        ("/linux/intelRdt", json!({"closID": "..", "l3CacheSchema": "L3:0=f"}), "intelRdt"),
        ("/process/apparmorProfile", json!("orlop-no-such-profile"), "apparmor"),
        ("/process/selinuxLabel", json!("system_u:system_r:x_t:s0"), "selinux"),
        ("/linux/mountLabel", json!("system_u:object_r:x_t:s0"), "selinux"),
    ]);
    Bundle::new()
        .user_namespace()
        .set("/linux/uidMappings/-", json!({"containerID": 5, "hostID": 1, "size": 1}))
        .create()
        .fails_with("overlap");
    Bundle::new().user_namespace().remove("/linux/gidMappings").create().fails_with("linux.gidMappings");
    for kind in ["uid", "gid"] {
        let bundle = Bundle::new().namespace("user", Some("/proc/self/ns/user"));
        let bundle = bundle.set(&format!("/linux/{kind}Mappings"), map.clone());
        bundle.create().fails_with("Mappings");
    }
    let same =
        Bundle::new().namespace("user", Some("/proc/self/ns/user")).set("/linux/uidMappings", map.clone());
    same.set("/linux/gidMappings", map.clone()).create().fails_with("the user namespace that the runtime");
    // Only where the host has other CPUs than CPU 0.
    let online = std::fs::read_to_string("/sys/devices/system/cpu/online").expect("the CPUs");
    if is_root() && View::Host.has("cpuset") && online.trim() != "0" {
        let deadline = json!({
            "policy": "SCHED_DEADLINE", "runtime": 42_000, "deadline": 1_000_000, "period": 1_000_000
        });
        let bundle = Bundle::new().set("/process/scheduler", deadline);
        let bundle = bundle.set("/linux/resources/cpu", json!({"cpus": "0"}));
        bundle.create().fails_with("process scheduler can't be used together with AllowedCPUs");
    }
    if !View::Host.unified() {
        let unified = Bundle::new().set("/linux/resources/unified", json!({"memory.max": "1000000"}));
        unified.create().fails_with("linux.resources.unified: invalid configuration");
    }
    Bundle::new()
        .namespace("network", Some("/proc/self/ns/net"))
        .set("/linux/sysctl", json!({"net.core.somaxconn": "1"}))
        .create()
        .fails_with("linux.sysctl net.core.somaxconn");
}

#[test]
fn mounts_that_contradict_themselves() {
    let bind = |options: &[&str], more: Value| {
        let mut mount = json!({"type": "bind", "source": "/tmp", "options": options});
        for (key, value) in more.as_object().expect("an object") {
            mount[key] = value.clone();
        }
        Bundle::new().mount("/data", mount)
    };
    let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    for (options, more, part) in [
        (&["bind", "idmap"][..], json!({}), "mounts[7] /data"),
        (&["bind"], json!({"uidMappings": map}), "mounts[7] /data"),
        (&["bind"], json!({"gidMappings": map}), "mounts[7] /data"),
        (&["bind", "size=1k"], json!({}), "mounts[7] /data"),
        (&["bind"], json!({"source": "/tmp\u{0}x"}), "mounts[7] /data"),
        (
            &["bind"],
            json!({"uidMappings": [{"containerID": 0, "hostID": 1, "size": 0}], "gidMappings": map}),
            "size",
        ),
    ] {
        eprintln!("{options:?} {more}");
        bind(options, more).create().fails_with(part);
    }
}

#[test]
fn an_unknown_property_is_said_at_debug_level_with_the_nearest_name() {
    crate::skip_unless!(!under_runc(), "runc says nothing");
    let bundle =
        Bundle::new().set("/process/noNewPrivilege", json!(true)).set("/mounts/0/optoins", json!([]));
    let bundle = bundle.set("/x-vendor", json!({"a": 1})).global("--debug");
    let output = bundle.start("run").finish().ok();
    for (unknown, known) in
        [("process.noNewPrivilege", "process.noNewPrivileges"), ("mounts.0.optoins", "mounts.*.options")]
    {
        let said = format!("{unknown}: unknown property, ignored (nearest known: {known})");
        assert!(output.err.contains(&said), "{said}: {output}");
    }
    assert!(output.err.contains("x-vendor: unknown property, ignored\""), "{output}");
    bundle.assert_clean();
    // Without --debug the runtime does not mention it.
    Bundle::new().set("/process/noNewPrivilege", json!(true)).run().prints("1");
}

#[test]
fn an_ambient_capability_that_is_not_inheritable_is_warned_of() {
    // The specification calls this an error. runc warns only, and engines rely on that.
    let output =
        Bundle::new().set("/process/capabilities/ambient", json!(["CAP_CHOWN"])).start("run").finish();
    assert!(output.err.contains("can't raise ambient capability CAP_CHOWN: "), "{output}");
    output.prints("1");
}
