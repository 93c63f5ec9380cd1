//! Cgroup ownership: whose the container's cgroup is, which decides what it may manage below it (version 2 only).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;

use serde_json::json;

use crate::support::{Bundle, Container, View};

fn delegated(options: &[&str]) -> Option<Container> {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return None;
    }
    let bundle = Bundle::new().view(View::V2).user_namespace().namespace("cgroup", None);
    Some(bundle.set("/mounts/6/options", json!(options)).started())
}

fn cgroup(container: &Container) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a v2 cgroup");
    let tree = if PathBuf::from("/sys/fs/cgroup/unified").exists() { "unified/" } else { "" };
    PathBuf::from(format!("/sys/fs/cgroup/{tree}{path}"))
}

fn owner(path: PathBuf) -> u32 {
    fs::metadata(path).expect("it is there").uid()
}

#[test]
fn a_cgroup_that_is_mounted_writable_belongs_to_the_containers_root() {
    let Some(container) = delegated(&["nosuid", "noexec", "nodev", "rw"]) else { return };
    let cgroup = cgroup(&container);
    assert_eq!(owner(cgroup.clone()), 100_000);
    for file in ["cgroup.procs", "cgroup.subtree_control", "cgroup.threads"] {
        assert_eq!(owner(cgroup.join(file)), 100_000, "{file}");
    }
    // Its own limits are not the container's to change.
    assert_eq!(owner(cgroup.join("cgroup.freeze")), 0);
    let inside = "multi mkdir /sys/fs/cgroup/below -- write /sys/fs/cgroup/below/cgroup.procs 0";
    container.exec(&[], inside).prints("ok\nok");
    container.exec(&[], "write /sys/fs/cgroup/cgroup.freeze 1").prints("EACCES");
    container.stop();
    container.delete();
}

#[test]
fn a_cgroup_that_is_mounted_readonly_stays_ours() {
    let Some(container) = delegated(&["nosuid", "noexec", "nodev", "ro"]) else { return };
    assert_eq!(owner(cgroup(&container)), 0);
    container.exec(&[], "mkdir /sys/fs/cgroup/below").prints("EROFS");
}

#[test]
fn without_a_cgroup_namespace_of_its_own_it_stays_ours() {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let bundle = Bundle::new().view(View::V2).user_namespace();
    let container = bundle.set("/mounts/6/options", json!(["rw"])).started();
    assert_eq!(owner(cgroup(&container)), 0);
}
