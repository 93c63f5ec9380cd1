//! What the runtime sets differently from its caller: the limit of descriptors, and the mask of new files. Hooks and
//! the container's process get the caller's values, or those of the configuration.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::support::{Bundle, View, bind, is_root, tmpfs, under_runc};

#[test]
fn more_sources_than_the_caller_may_have_descriptors() {
    crate::skip_unless!(!under_runc(), "runc opens one source at a time");
    let bundle = Bundle::new().through("ulimit -Sn 64; exec \"$@\"").remove("/process/rlimits");
    let source = bundle.host_directory("host");
    let out = bundle.dir.join("limits").display().to_string();
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("ulimit -Sn >> {out}")]}]);
    let mut bundle = (0..100).fold(bundle, |bundle, n| bundle.mount(&format!("/m/{n}"), bind(&source, &[])));
    for kind in ["createRuntime", "createContainer", "poststop"] {
        bundle = bundle.set(&format!("/hooks/{kind}"), hook.clone());
    }
    let container = bundle.guest("multi rlimit RLIMIT_NOFILE -- read /m/99/file").container();
    container.start();
    container.wait_until("stopped");
    assert!(container.printed().starts_with("64:"), "{}", container.printed());
    assert!(container.printed().ends_with("from the host"), "{}", container.printed());
    container.verb("delete", "", "").ok();
    assert_eq!(fs::read_to_string(&out).expect("what the hooks say"), "64\n64\n64\n");
}

#[test]
fn the_mask_of_the_caller_is_not_that_of_mount_points() {
    let bundle = Bundle::new().through("umask 077; exec \"$@\"");
    let source = bundle.host_directory("host");
    let out = bundle.dir.join("masks").display().to_string();
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", format!("umask >> {out}")]}]);
    let mut bundle = bundle
        .mount("/p/q", bind(&source, &[]))
        .mount("/r/file", bind(&format!("{source}/file"), &[]))
        .mount("/s/tmpfs", tmpfs(&[]))
        .set("/linux/devices", json!([{"path": "/d/zero", "type": "c", "major": 1, "minor": 5}]))
        .set("/process/user", json!({"uid": 1000, "gid": 1000}));
    for kind in ["createRuntime", "createContainer", "poststop"] {
        bundle = bundle.set(&format!("/hooks/{kind}"), hook.clone());
    }
    let pid_file = bundle.dir.join("pid");
    let bundle = bundle.option(&format!("--pid-file {}", pid_file.display()));
    let container =
        bundle.guest("multi read /p/q/file -- read /r/file -- ls /s -- stat /d/zero -- ids").container();
    assert_eq!(fs::metadata(&pid_file).expect("the pid file").mode() & 0o777, 0o600);
    container.start();
    container.wait_until("stopped");
    let printed = container.printed();
    assert!(printed.starts_with("from the host\nfrom the host\ntmpfs\nchar 1:5 0666"), "{printed}");
    assert!(printed.ends_with("umask=0022"), "{printed}");
    for (name, mode) in [("p", 0o755), ("p/q", 0o755), ("r/file", 0o644), ("s", 0o755), ("d", 0o755)] {
        let found = fs::metadata(container.bundle.rootfs(name)).expect("a mount point").mode() & 0o777;
        assert_eq!(found, mode, "{name}: {found:o}");
    }
    container.verb("delete", "", "").ok();
    assert_eq!(fs::read_to_string(&out).expect("what the hooks say"), "0077\n0077\n0077\n");
}

#[test]
fn the_cgroups_and_the_notify_socket_do_not_have_the_mask_of_the_caller() {
    crate::skip_unless!(is_root() && View::Host.has("pids"), "the test makes a cgroup of its own");
    let bundle = Bundle::new().through("umask 077; exec \"$@\"").guest("pause");
    let socket = bundle.dir.join("host.sock");
    let _host = std::os::unix::net::UnixDatagram::bind(&socket).expect("a socket");
    let container = bundle.variable("NOTIFY_SOCKET", &socket.to_string_lossy()).container();
    let bundle = &container.bundle;
    let notify =
        fs::metadata(bundle.dir.join("state").join(&bundle.id).join("notify")).expect("the directory");
    assert_eq!(notify.mode() & 0o777, 0o755);
    let found = crate::support::cgroups(bundle);
    assert!(!found.is_empty());
    for path in found {
        assert_eq!(fs::metadata(&path).expect("a cgroup").mode() & 0o777, 0o755, "{}", path.display());
    }
}
