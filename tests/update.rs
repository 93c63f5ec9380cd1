//! `update`: limits of a running container, as the kernel has them afterwards and as the record has them.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, View, begin};

#[track_caller]
fn in_each_view(controller: &str, test: impl Fn(View)) {
    for view in View::ALL {
        match view.missing() {
            Some(reason) => eprintln!("skipped {view:?}: {reason}"),
            None if !view.has(controller) => eprintln!("skipped {view:?}: no {controller} controller there"),
            None => {
                eprintln!("in {view:?}");
                test(view);
            }
        }
    }
}

/// The container's cgroup in the hierarchy of this controller.
fn cgroup(container: &Container, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    let path =
        |key: &str| text.lines().find_map(|line| line.split_once(key)).map(|(_, path)| path.to_owned());
    match path(&format!(":{controller}:")) {
        Some(path) => PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}")),
        None => {
            let tree = if PathBuf::from("/sys/fs/cgroup/unified").exists() { "/unified" } else { "" };
            PathBuf::from(format!("/sys/fs/cgroup{tree}{}", path("0::").unwrap_or_default()))
        }
    }
}

#[track_caller]
fn has(container: &Container, controller: &str, files: &[&str], value: &str) {
    let dir = cgroup(container, controller);
    let text = files.iter().find_map(|file| fs::read_to_string(dir.join(file)).ok());
    let text = text.unwrap_or_else(|| panic!("none of {files:?} in {}", dir.display()));
    assert_eq!(text.trim(), value, "{files:?}");
}

fn recorded(container: &Container) -> Value {
    let path = container.bundle.dir.join("state").join(container.id()).join("state.json");
    let text = fs::read(path).expect("state.json");
    serde_json::from_slice::<Value>(&text).expect("JSON")["orlop"]["cgroup"]["resources"].clone()
}

const MEMORY: &[&str] = &["memory.max", "memory.limit_in_bytes"];
const RESERVATION: &[&str] = &["memory.low", "memory.soft_limit_in_bytes"];
const PIDS: &[&str] = &["pids.max"];

#[test]
fn options_change_what_they_name_and_nothing_else() {
    in_each_view("memory", |view| {
        let limits = json!({"limit": 64 << 20, "reservation": 32 << 20});
        let container = Bundle::new().view(view).set("/linux/resources/memory", limits).started();
        container.verb("update", "--memory 48m", "").ok();
        has(&container, "memory", MEMORY, &(48 << 20).to_string());
        has(&container, "memory", RESERVATION, &(32 << 20).to_string());
        container.verb("update", "", "--memory-reservation=1g").ok();
        has(&container, "memory", MEMORY, &(48 << 20).to_string());
        has(&container, "memory", RESERVATION, &(1 << 30).to_string());
        let unlimited = fs::read_to_string(cgroup(&container, "memory").join("memory.max"));
        let unlimited = unlimited.map_or("9223372036854771712", |_| "max");
        container.verb("update", "--memory=-1", "").ok();
        has(&container, "memory", MEMORY, unlimited);
    });
}

#[test]
fn pids_are_limited_and_set_free_again() {
    in_each_view("pids", |view| {
        let container = Bundle::new().view(view).started();
        container.verb("update", "--pids-limit 20", "").ok();
        has(&container, "pids", PIDS, "20");
        container.verb("update", "--pids-limit -1", "").ok();
        has(&container, "pids", PIDS, "max");
        // 0 does not mean "unlimited" here; it becomes the smallest limit.
        container.verb("update", "--pids-limit 0", "").ok();
        has(&container, "pids", PIDS, "1");
    });
}

#[test]
fn cpu_quota_and_period_are_changed_one_without_the_other() {
    in_each_view("cpu", |view| {
        let cpu = json!({"quota": 50_000, "period": 100_000, "shares": 512});
        let container = Bundle::new().view(view).set("/linux/resources/cpu", cpu).started();
        let is = |quota: &str, period: &str| {
            if cgroup(&container, "cpu").join("cpu.max").exists() {
                has(&container, "cpu", &["cpu.max"], &format!("{quota} {period}"));
            } else {
                has(&container, "cpu", &["cpu.cfs_quota_us"], quota);
                has(&container, "cpu", &["cpu.cfs_period_us"], period);
            }
        };
        container.verb("update", "--cpu-quota 30000", "").ok();
        is("30000", "100000");
        container.verb("update", "--cpu-period 50000", "").ok();
        is("30000", "50000");
        container.verb("update", "--cpu-share 100", "").ok();
        is("30000", "50000");
    });
}

#[test]
fn engines_send_json_on_stdin_and_in_files() {
    in_each_view("memory", |view| {
        let container = Bundle::new().view(view).started();
        let said =
            r#"{"memory":{"limit":33554432,"checkBeforeUpdate":null},"pids":{"limit":30},"blockIO":null}"#;
        let path = container.bundle.dir.join("limits.json");
        fs::write(&path, said).expect("a file");
        let mut command = container.bundle.command(&["update", "--resources", "-", container.id()]);
        command.stdin(fs::File::open(&path).expect("the file"));
        begin(command, &container.bundle.dir).finish().ok();
        has(&container, "memory", MEMORY, "33554432");
        fs::write(&path, r#"{"memory":{"limit":50331648}}"#).expect("a file");
        // With -r the runtime ignores all other options.
        container.verb("update", &format!("--memory 1g -r {}", path.display()), "").ok();
        has(&container, "memory", MEMORY, "50331648");
        assert_eq!(recorded(&container)["memory"]["limit"], 50_331_648);
    });
}

#[test]
fn what_the_kernel_refuses_leaves_all_as_it_was() {
    in_each_view("memory", |view| {
        let limits = json!({"limit": 64 << 20});
        let container = Bundle::new().view(view).set("/linux/resources/memory", limits).started();
        let before = recorded(&container);
        let file = container.bundle.dir.join("limits.json");
        fs::write(&file, r#"{"memory":{"limit":50331648},"cpu":{"cpus":"7777"}}"#).expect("a file");
        let refused = container.verb("update", &format!("--resources {}", file.display()), "");
        refused.fails(1, &["linux.resources.cpu.cpus"]);
        has(&container, "memory", MEMORY, &(64 << 20).to_string());
        assert_eq!(recorded(&container), before);
        assert_eq!(container.status(), "running");
    });
}

#[test]
fn device_rules_are_left_alone() {
    in_each_view("memory", |view| {
        let bundle = Bundle::new().view(view).guest("pause");
        let container = bundle.started();
        let file = container.bundle.dir.join("limits.json");
        let said = r#"{"devices":[{"allow":false,"access":"rwm"}],"memory":{"limit":50331648}}"#;
        fs::write(&file, said).expect("a file");
        container.verb("update", &format!("--resources {}", file.display()), "").ok();
        container.exec(&[], "open /dev/null w").prints("ok");
    });
}

const NO_KERNEL_MEMORY: &str = "level=warning msg=\"Kernel memory settings are ignored and will be removed\"";

#[test]
fn kernel_memory_is_a_warning() {
    let container = Bundle::new().started();
    let output = container.verb("update", "--kernel-memory 50m", "").ok();
    assert!(output.err.contains(NO_KERNEL_MEMORY), "{output}");
    let output =
        Bundle::new().set("/linux/resources/memory", json!({"kernel": 1 << 20})).start("run").finish();
    assert!(output.err.contains(NO_KERNEL_MEMORY), "{output}");
    output.prints("1");
}

#[test]
fn kernel_tcp_memory_is_a_limit_with_version_1_and_a_warning_with_version_2() {
    in_each_view("memory", |view| {
        let bundle = Bundle::new().view(view).set("/linux/resources/memory", json!({"kernelTCP": 64 << 20}));
        let container = bundle.started();
        let output = container.verb("update", "--kernel-memory-tcp 32m", "").ok();
        let file = "memory.kmem.tcp.limit_in_bytes";
        if cgroup(&container, "memory").join("memory.max").exists() {
            assert!(output.err.contains(NO_KERNEL_MEMORY), "{output}");
            return;
        }
        assert_eq!(output.err, "");
        has(&container, "memory", &[file], &(32 << 20).to_string());
        // An update of other limits leaves it as it is. An update that fails restores it.
        let limits = container.bundle.dir.join("limits.json");
        fs::write(&limits, r#"{"memory":{"kernelTCP":16777216},"cpu":{"cpus":"7777"}}"#).expect("a file");
        let refused = container.verb("update", &format!("--resources {}", limits.display()), "");
        refused.fails(1, &["linux.resources.cpu.cpus"]);
        container.verb("update", "--memory 64m", "").ok();
        has(&container, "memory", &[file], &(32 << 20).to_string());
        assert_eq!(recorded(&container)["memory"]["kernelTCP"], 32 << 20);
    });
}

#[test]
fn bad_input_is_one_line_and_changes_nothing() {
    let container = Bundle::new().started();
    for (options, parts) in [
        ("--memory lots", &["invalid"][..]),
        ("--memory -2", &["invalid"]),
        ("--cpu-share -1", &["invalid"]),
        ("--cpu-period x", &["invalid"]),
        ("--blkio-weight 70000", &["invalid"]),
        ("--pids-limit many", &["invalid"]),
        ("--resources /does/not/exist", &["--resources", "/does/not/exist"]),
        ("--resources -", &["--resources", "EOF"]),
        ("--l3-cache-schema L3:0=f", &["Intel RDT/CAT: l3 cache schema is not enabled"]),
        ("--mem-bw-schema MB:0=20", &["Intel RDT/MBA: memory bandwidth schema is not enabled"]),
    ] {
        if options.contains("schema") && fs::exists("/sys/fs/resctrl/info").is_ok_and(|there| there) {
            eprintln!("skipped {options}: this host has resctrl");
            continue;
        }
        let output = container.verb("update", options, "");
        assert_eq!(output.code, 1, "{output}");
        for part in parts {
            assert!(output.err.contains(part), "stderr has no {part:?}: {output}");
        }
    }
    let file = container.bundle.dir.join("limits.json");
    for (text, part) in [
        ("{", "EOF"),
        (r#"{"memory":{"limit":"1g"}}"#, "memory.limit: invalid type"),
        (r#"{"pids":{"limit":1.5}}"#, "pids.limit: invalid type"),
        (r#"{"cpu":{"shares":-1}}"#, "cpu.shares: invalid value"),
        (r#"{"blockIO":{"weight":2000}}"#, "blockIO.weight"),
    ] {
        fs::write(&file, text).expect("a file");
        container.verb("update", &format!("-r {}", file.display()), "").fails(1, &[part]);
    }
}

#[test]
fn a_container_that_has_ended_is_not_updated() {
    let container = Bundle::new().started();
    container.stop();
    container.verb("update", "--pids-limit 5", "").fails(1, &["container not running"]);
}
