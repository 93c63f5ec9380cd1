//! Containers of a user who is not root: no privilege on the host, a user namespace with one id.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, is_root, runtime};

/// A host user that need not exist.
const USER: u32 = 64_321;

/// A bundle that belongs to the user and is run by them, as `spec --rootless` writes it.
fn rootless() -> Bundle {
    let bundle = Bundle::new();
    // The path to the binary under test may be closed to others.
    let binary = bundle.dir.join("runtime");
    fs::copy(runtime(), &binary).expect("a copy of the runtime");
    fs::set_permissions(&binary, fs::Permissions::from_mode(0o755)).expect("chmod");
    for path in [".", "rootfs", "state"] {
        own(&bundle.dir.join(path));
    }
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}]);
    bundle
        .through(&format!(
            "shift; exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all '{}' \"$@\"",
            binary.display()
        ))
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/mounts/2/options", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]))
        .remove("/linux/resources")
}

fn own(path: &Path) {
    chown(path, Some(USER), Some(USER)).expect("chown");
}

#[test]
fn a_user_runs_a_container_as_its_root() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let facts = rootless().guest("multi ids -- read /proc/self/uid_map -- pid").run().facts();
    let lines: Vec<_> = facts.lines().collect();
    assert!(lines[0].starts_with("uid=0 gid=0 "), "{facts}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "64321", "1"]);
    assert_eq!(lines[2], "1");
}

#[test]
fn a_user_has_the_whole_lifecycle() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let container = rootless().started();
    container.exec(&[], "hostname").prints("orlop-test");
    assert_eq!(container.status(), "running");
    container.stop();
    container.delete();
}

#[test]
fn devices_are_the_hosts_own() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    rootless().guest("multi open /dev/null w -- open /dev/urandom r").run().prints("ok\nok");
}

#[test]
fn the_cgroups_of_the_host_are_not_writable() {
    // CVE-2023-25809: rootless and without a cgroup namespace.
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let facts = rootless().guest("mkdir /sys/fs/cgroup/made").run().facts();
    assert!(["EROFS", "EACCES"].contains(&facts.as_str()), "{facts}");
}

#[test]
fn limits_that_a_user_may_not_set_are_an_error() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless().set("/linux/resources", json!({"pids": {"limit": 10}}));
    bundle.create().fails_with("cannot set pids limit: container could not join or create cgroup");
}

#[test]
fn a_cgroup_that_a_user_may_not_make_is_an_error() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless();
    let path = format!("/{}", bundle.id);
    let wanted = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    bundle.set("/linux/cgroupsPath", json!(path)).create().fails_with(wanted);
}

#[test]
fn a_map_of_ids_that_are_not_the_users_is_refused() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless().set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    bundle.create().fails_with("");
}
