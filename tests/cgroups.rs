//! Control groups in each view of the host's tree: hybrid as it is, v1 only, v2 only.

use std::fs;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, View};

/// Runs the test in each view that the host can show and that has the controller.
#[track_caller]
fn in_each_view(controller: Option<&str>, test: impl Fn(View)) {
    let mut ran = 0;
    for view in View::ALL {
        if let Some(reason) = view.missing() {
            eprintln!("skipped {view:?}: {reason}");
        } else if controller.is_some_and(|name| !view.has(name)) {
            eprintln!("skipped {view:?}: no {} controller there", controller.unwrap_or_default());
        } else {
            eprintln!("in {view:?}");
            test(view);
            ran += 1;
        }
    }
    if ran == 0 {
        eprintln!("skipped: no view has it");
    }
}

/// The directory of the container's cgroup in the hierarchy of this controller.
fn directory(container: &Container, controller: &str) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    let path = |key: &str| text.lines().find_map(|line| line.split_once(key)).map(|(_, path)| path);
    match path(&format!(":{controller}:")) {
        Some(path) => PathBuf::from(format!("/sys/fs/cgroup/{controller}{path}")),
        None => {
            let tree = if PathBuf::from("/sys/fs/cgroup/unified").exists() { "/unified" } else { "" };
            PathBuf::from(format!("/sys/fs/cgroup{tree}{}", path("0::").unwrap_or("/")))
        }
    }
}

/// The value of the first of these files that exists: v1 and v2 name them differently.
#[track_caller]
fn value(container: &Container, controller: &str, files: &[&str]) -> String {
    let directory = directory(container, controller);
    let text = files.iter().find_map(|file| fs::read_to_string(directory.join(file)).ok());
    text.unwrap_or_else(|| panic!("none of {files:?} in {}", directory.display())).trim().to_owned()
}

fn limited(view: View, resources: Value) -> Bundle {
    let mut bundle = Bundle::new().view(view).namespace("cgroup", None);
    for (key, value) in resources.as_object().expect("an object") {
        bundle = bundle.set(&format!("/linux/resources/{key}"), value.clone());
    }
    bundle
}

#[test]
fn a_container_runs_in_each_view() {
    in_each_view(None, |view| Bundle::new().view(view).run().prints("1"));
}

#[test]
fn the_whole_lifecycle_works_in_each_view() {
    in_each_view(None, |view| {
        let container = Bundle::new().view(view).started();
        container.exec(&[], "hostname").prints("orlop-test");
        container.verb("pause", "", "").ok();
        assert_eq!(container.status(), "paused");
        container.verb("resume", "", "").ok();
        let pids = container.verb("ps", "--format json", "").ok().out;
        assert_eq!(pids.trim(), format!("[{}]", container.pid()));
        container.stop();
        container.delete();
    });
}

#[test]
fn everything_in_the_cgroup_is_gone_after_delete_in_each_view() {
    in_each_view(None, |view| {
        let container = Bundle::new().view(view).without_namespace("pid").guest("spawn 5").started();
        container.prints_in_time("ready");
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    });
}

#[test]
fn the_device_list_holds_in_each_view() {
    in_each_view(None, |view| {
        let bundle = Bundle::new().view(view).capability("CAP_MKNOD");
        bundle
            .guest("multi mknod /dev/mem c 1 1 -- open /dev/mem r -- open /dev/null w")
            .run()
            .prints("ok\nEPERM\nok");
    });
}

#[test]
fn the_default_path_is_the_id_below_our_own() {
    let container = Bundle::new().started();
    let theirs = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    assert!(theirs.lines().any(|line| line.ends_with(&format!("/{}", container.id()))), "{theirs}");
}

#[test]
fn an_absolute_path_is_from_the_root_of_the_tree() {
    in_each_view(None, |view| {
        let bundle = Bundle::new().view(view);
        let path = format!("/{}/deep/er", bundle.id);
        let container = bundle.set("/linux/cgroupsPath", json!(path)).started();
        let theirs = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
        assert!(theirs.lines().any(|line| line.ends_with(&format!(":{path}"))), "{theirs}");
        container.stop();
        container.verb("delete", "", "").ok();
        // The parents of the path are not the container's own. runc leaves them behind, and orlop may, too.
        assert!(!directory_exists(&path), "{path} is left");
        for parent in [format!("/{}/deep", container.id()), format!("/{}", container.id())] {
            remove_everywhere(&parent);
        }
    });
}

fn trees() -> impl Iterator<Item = PathBuf> {
    let below = fs::read_dir("/sys/fs/cgroup").expect("the cgroups").flatten().map(|entry| entry.path());
    std::iter::once(PathBuf::from("/sys/fs/cgroup")).chain(below)
}

fn directory_exists(path: &str) -> bool {
    trees().any(|tree| tree.join(path.trim_start_matches('/')).exists())
}

fn remove_everywhere(path: &str) {
    for tree in trees() {
        let _ = fs::remove_dir(tree.join(path.trim_start_matches('/'))); // Not every tree has it.
    }
}

#[test]
fn a_path_with_dots_does_not_leave_the_tree() {
    let bundle = Bundle::new();
    let path = format!("/../../../../{}", bundle.id);
    let container = bundle.set("/linux/cgroupsPath", json!(path)).guest("pid").run();
    // The runtime cleans the path or refuses it, and makes nothing outside. `assert_clean` looks for leftovers.
    container.bundle.assert_clean();
}

// --- limits, read back from inside ---

#[test]
fn the_memory_limit_is_set() {
    in_each_view(Some("memory"), |view| {
        let container =
            limited(view, json!({"memory": {"limit": 67_108_864, "reservation": 33_554_432}})).started();
        assert_eq!(value(&container, "memory", &["memory.max", "memory.limit_in_bytes"]), "67108864");
        assert_eq!(value(&container, "memory", &["memory.low", "memory.soft_limit_in_bytes"]), "33554432");
        if !view.unified() {
            container.exec(&[], "read /sys/fs/cgroup/memory/memory.limit_in_bytes").prints("67108864");
        }
    });
}

#[test]
fn memory_above_the_limit_kills() {
    in_each_view(Some("memory"), |view| {
        limited(view, json!({"memory": {"limit": 33_554_432}})).guest("eat-memory 100").run().exits(128 + 9);
    });
}

#[test]
fn memory_below_the_limit_is_had() {
    in_each_view(Some("memory"), |view| {
        limited(view, json!({"memory": {"limit": 67_108_864}}))
            .guest("eat-memory 20")
            .run()
            .prints("ate 20 MiB");
    });
}

#[test]
fn a_tiny_memory_limit_is_an_error_that_names_it() {
    in_each_view(Some("memory"), |view| {
        limited(view, json!({"memory": {"limit": 4096}})).create().fails_with("memory");
    });
}

#[test]
fn the_cpu_limits_are_set() {
    in_each_view(Some("cpu"), |view| {
        let cpu = json!({"cpu": {"shares": 512, "quota": 50_000, "period": 100_000}});
        let container = limited(view, cpu).started();
        if directory(&container, "cpu").join("cpu.max").exists() {
            assert_eq!(value(&container, "cpu", &["cpu.max"]), "50000 100000");
            assert_eq!(value(&container, "cpu", &["cpu.weight"]), "59");
        } else {
            assert_eq!(value(&container, "cpu", &["cpu.shares"]), "512");
            assert_eq!(value(&container, "cpu", &["cpu.cfs_quota_us"]), "50000");
            assert_eq!(value(&container, "cpu", &["cpu.cfs_period_us"]), "100000");
            container.exec(&[], "read /sys/fs/cgroup/cpu/cpu.cfs_quota_us").prints("50000");
        }
    });
}

#[test]
fn the_cpu_quota_throttles() {
    in_each_view(Some("cpu"), |view| {
        let container = limited(view, json!({"cpu": {"quota": 10_000, "period": 100_000}})).started();
        container.exec(&[], "burn-cpu 0.5").prints("burnt");
        let stat = value(&container, "cpu", &["cpu.stat"]);
        let throttled =
            stat.lines().find_map(|line| line.strip_prefix("nr_throttled ")).expect("nr_throttled");
        assert_ne!(throttled, "0", "{stat}");
    });
}

#[test]
fn the_cpus_are_set() {
    in_each_view(Some("cpuset"), |view| {
        let container = limited(view, json!({"cpu": {"cpus": "0", "mems": "0"}})).started();
        container.exec(&[], "status Cpus_allowed_list").prints("0");
        container.exec(&[], "status Mems_allowed_list").prints("0");
    });
}

#[test]
fn the_pids_limit_holds() {
    in_each_view(Some("pids"), |view| {
        limited(view, json!({"pids": {"limit": 10}}))
            .guest("fork-bomb 50")
            .run()
            .prints("forked 9, then EAGAIN");
    });
}

#[test]
fn a_negative_pids_limit_is_none() {
    in_each_view(Some("pids"), |view| {
        limited(view, json!({"pids": {"limit": -1}})).guest("fork-bomb 50").run().prints("forked 50");
    });
}

#[test]
fn exec_counts_against_the_limits_of_the_container() {
    in_each_view(Some("pids"), |view| {
        let container = limited(view, json!({"pids": {"limit": 10}})).started();
        container.exec(&[], "fork-bomb 50").prints("forked 8, then EAGAIN");
    });
}

#[test]
fn the_cgroup_namespace_has_its_root_at_the_cgroup_of_the_container() {
    in_each_view(None, |view| {
        let facts = Bundle::new().view(view).namespace("cgroup", None).guest("cgroup").run().facts();
        for line in facts.lines().filter(|line| !line.contains("name=")) {
            assert!(line.ends_with(":/"), "{facts}");
        }
    });
}

#[test]
fn the_cgroup_mount_is_read_only_when_asked_for() {
    // CVE-2023-25809.
    in_each_view(Some("pids"), |view| {
        let made = if view.unified() { "/sys/fs/cgroup/made" } else { "/sys/fs/cgroup/pids/made" };
        for bundle in [Bundle::new(), Bundle::new().namespace("cgroup", None)] {
            let bundle = bundle.view(view).capability("CAP_DAC_OVERRIDE");
            bundle.guest(&format!("mkdir {made}")).run().prints("EROFS");
        }
    });
}

#[test]
fn the_cgroup_mount_shows_the_container_and_not_the_host() {
    in_each_view(Some("pids"), |view| {
        let container = limited(view, json!({"pids": {"limit": 77}})).started();
        let file = if view.unified() { "/sys/fs/cgroup/pids.max" } else { "/sys/fs/cgroup/pids/pids.max" };
        container.exec(&[], &format!("read {file}")).prints("77");
    });
}

#[test]
fn a_mount_of_type_cgroup2_shows_version_2_in_each_view() {
    in_each_view(Some("pids"), |view| {
        // Also on hosts with version 1, where the type `cgroup` would show version 1.
        let bundle = Bundle::new().view(view).namespace("cgroup", None);
        let bundle = bundle.mount("/cg2", json!({"type": "cgroup2", "source": "cgroup2", "options": ["ro"]}));
        bundle.guest("stat /cg2/cgroup.controllers").run().prints("file 0444 0 0");
    });
}

// --- update, events ---

#[test]
fn update_changes_limits_and_keeps_the_others() {
    in_each_view(Some("pids"), |view| {
        let resources = json!({"pids": {"limit": 10}, "memory": {"limit": 67_108_864}});
        let resources = if view.has("memory") { resources } else { json!({"pids": {"limit": 10}}) };
        let container = limited(view, resources).started();
        container.verb("update", "--pids-limit 20", "").ok();
        assert_eq!(value(&container, "pids", &["pids.max"]), "20");
        if view.has("memory") {
            assert_eq!(value(&container, "memory", &["memory.max", "memory.limit_in_bytes"]), "67108864");
            container.verb("update", "--memory 128m", "").ok();
            assert_eq!(value(&container, "memory", &["memory.max", "memory.limit_in_bytes"]), "134217728");
        }
    });
}

#[test]
fn update_reads_resources_from_a_file_and_from_stdin() {
    in_each_view(Some("pids"), |view| {
        let container = limited(view, json!({"pids": {"limit": 10}})).started();
        fs::write(container.bundle.dir.join("resources.json"), r#"{"pids": {"limit": 30}}"#)
            .expect("the file");
        container.verb("update", "--resources resources.json", "").ok();
        assert_eq!(value(&container, "pids", &["pids.max"]), "30");
        let path = container.bundle.dir.join("resources.json").display().to_string();
        let mut command = container.bundle.command(&["update", "--resources=-", container.id()]);
        let status = command.stdin(fs::File::open(path).expect("the file")).status().expect("update");
        assert!(status.success());
    });
}

#[test]
fn events_prints_one_object_of_statistics() {
    in_each_view(None, |view| {
        let container = limited(view, json!({})).started();
        let line = container.verb("events", "--stats", "").ok().out;
        let event: Value = serde_json::from_str(line.trim()).expect("one JSON object");
        assert_eq!((&event["type"], &event["id"]), (&json!("stats"), &json!(container.id())));
        if view.has("pids") {
            assert_eq!(event["data"]["pids"]["current"], 1, "{event}");
        }
    });
}
