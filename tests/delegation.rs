//! Delegation of cgroups: the owner of the container's cgroup decides what the container may manage in it (version 2
//! only).

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use serde_json::json;

use crate::support::{Bundle, Container, View, under_runc};

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
    // The container must not change its own limits.
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

fn self_managed(annotation: &str, bundle: Bundle) -> Bundle {
    bundle.view(View::V2).namespace("cgroup", None).set("/annotations", json!({DELEGATE: annotation}))
}

const DELEGATE: &str = "run.oci.delegate-cgroup";

#[test]
fn a_container_manages_a_cgroup_below_its_own_on_demand() {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    crate::skip_unless!(!under_runc(), "runc does not know the annotation");
    let bundle = self_managed("mine/all", Bundle::new().user_namespace());
    let container = bundle.set("/mounts/6/options", json!(["rw"])).started();
    let init = cgroup(&container);
    assert!(init.ends_with("mine/all"), "{init:?}");
    let own = init.parent().and_then(Path::parent).expect("the container's").to_owned();
    assert_eq!((owner(init.clone()), owner(init.join("cgroup.procs"))), (100_000, 100_000));
    // The cgroup namespace was made before. Its root is the cgroup with the limits, which the container must not
    // change.
    assert_eq!(owner(own.join("cgroup.freeze")), 0);
    container.exec(&[], "cgroup").ok().says("0::/mine/all");
    let below = "/sys/fs/cgroup/mine/all/below";
    let inside = format!("multi mkdir {below} -- write {below}/cgroup.procs 0 -- cgroup");
    container.exec(&[], &inside).ok().says("ok\nok\n").says("0::/mine/all/below\n");
    // The processes in both cgroups are the container's: the runtime freezes, counts and kills them.
    container.verb("pause", "", "").ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume", "", "").ok();
    container.verb("ps", "--format json", "").prints(&format!("[{}]", container.pid()));
    container.stop();
    container.delete();
    assert!(!own.exists());
}

#[test]
fn exec_finds_the_container_where_it_has_moved_to() {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    crate::skip_unless!(!under_runc(), "runc does not know the annotation");
    let container = self_managed("mine", Bundle::new()).set("/mounts/6/options", json!(["rw"])).started();
    let init = cgroup(&container);
    let other = init.with_file_name("other");
    fs::create_dir(&other).expect("another cgroup");
    fs::write(other.join("cgroup.procs"), container.pid().to_string()).expect("a move");
    crate::support::eventually("the first is empty", || fs::remove_dir(&init).is_ok());
    container.exec(&[], "cgroup").ok().says("0::/other");
}

#[test]
fn a_cgroup_to_be_managed_is_below_and_of_version_2() {
    crate::skip_unless!(!under_runc(), "runc does not know the annotation");
    let annotation = |said: &str| Bundle::new().set("/annotations", json!({DELEGATE: said}));
    if !View::Host.unified() {
        annotation("x")
            .create()
            .fails_with("annotations.run.oci.delegate-cgroup: the container has no cgroup");
    }
    if View::V2.missing().is_none() {
        let without = annotation("x").view(View::V2).global("--cgroup-manager disabled");
        without.create().fails_with("annotations.run.oci.delegate-cgroup: the container has no cgroup");
    }
    annotation("../x").create().fails_with("annotations.run.oci.delegate-cgroup: \"../x\"");
    annotation("").run().prints("1");
}
