//! The container's network, and network devices that are moved into it. The tests make the devices in a network
//! namespace of their own, and never touch the host's.

use std::fs;

use serde_json::{Value, json};

use crate::support::{Bundle, is_root, under_runc};

/// Runs the runtime in a new network namespace that has a pair of devices, `orlop0` and `orlop1`.
const PAIR: &str = "exec unshare -n sh -c 'ip link add orlop0 type veth peer name orlop1 && \
    ip address add 192.0.2.1/24 dev orlop0 && exec \"$@\"' _ \"$@\"";

fn can_make_devices() -> bool {
    let mut trial = std::process::Command::new("unshare");
    trial.args(["-n", "ip", "link", "add", "orlop0", "type", "veth", "peer", "name", "orlop1"]);
    is_root() && trial.output().is_ok_and(|output| output.status.success())
}

fn with_device(name: serde_json::Value) -> Bundle {
    Bundle::new().through(PAIR).set("/linux/netDevices", json!({"orlop0": name}))
}

#[test]
fn a_device_is_moved_and_renamed() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no netDevices");
    crate::skip_unless!(can_make_devices(), "no veth devices can be made here");
    let facts = with_device(json!({"name": "deck0"})).guest("ls /sys/class/net").run().facts();
    assert_eq!(facts, "deck0 lo");
}

#[test]
fn a_device_keeps_its_name_and_its_address() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no netDevices");
    crate::skip_unless!(can_make_devices(), "no veth devices can be made here");
    let facts =
        with_device(json!({})).guest("multi ls /sys/class/net -- read /proc/net/fib_trie").run().facts();
    assert!(facts.starts_with("lo orlop0\n") && facts.contains("192.0.2.1"), "{facts}");
}

#[test]
fn a_device_that_does_not_exist_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no netDevices");
    let bundle = Bundle::new().set("/linux/netDevices", json!({"no-such-dev": {}}));
    bundle.create().fails_with_all(&["linux.netDevices", "no-such-dev"]);
}

#[test]
fn a_device_without_a_network_namespace_is_refused() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no netDevices");
    let bundle = Bundle::new().without_namespace("network").set("/linux/netDevices", json!({"lo": {}}));
    bundle.create().fails_with("linux.netDevices");
}

/// Mounts of these types in this order.
fn mounts(types: &[&str]) -> Value {
    let mount = |fstype: &&str| {
        let destination = match *fstype {
            "sysfs" => "/sys",
            "proc" => "/proc",
            "tmpfs" => "/dev",
            "devpts" => "/dev/pts",
            _ => "/dev/mqueue",
        };
        json!({"destination": destination, "type": fstype, "source": fstype})
    };
    types.iter().map(mount).collect()
}

#[test]
fn sysfs_shows_the_containers_devices_wherever_it_stands_in_the_list() {
    for types in [&["sysfs", "proc"][..], &["proc", "tmpfs", "devpts", "mqueue", "sysfs"]] {
        Bundle::new().set("/mounts", mounts(types)).guest("ls /sys/class/net").run().prints("lo");
    }
}

#[test]
fn hooks_and_the_process_find_the_container_in_its_network_and_the_runtime_in_its_own() {
    let host = fs::read_link("/proc/self/ns/net").expect("our namespace").display().to_string();
    for types in [&["proc", "sysfs"][..], &["proc"]] {
        let mut bundle = Bundle::new().set("/mounts", mounts(types)).guest("ns net");
        for kind in ["prestart", "createRuntime", "createContainer", "poststart"] {
            // The first "pid" in the state on stdin is the container's.
            let text = format!(
                "pid=$(sed 's/.*\"pid\":\\([0-9]*\\).*/\\1/'); readlink /proc/self/ns/net > \"$1/{kind}\"; \
                 test {kind} = createContainer || readlink /proc/$pid/ns/net >> \"$1/{kind}\"; true"
            );
            let hook = json!({"path": "/bin/sh", "args": ["sh", "-c", text, "hook", bundle.dir]});
            bundle = bundle.set(&format!("/hooks/{kind}"), json!([hook]));
        }
        let attempt = bundle.run();
        let said = ["prestart", "createRuntime", "createContainer", "poststart"]
            .map(|kind| attempt.bundle.wait_for(kind));
        let container = attempt.facts();
        assert_ne!(container, host);
        let [prestart, create_runtime, create_container, poststart] = said;
        let both = format!("{host}\n{container}");
        assert_eq!([prestart.trim(), create_runtime.trim()], [both.as_str(); 2], "{types:?}");
        assert_eq!(create_container.trim(), container, "{types:?}");
        // The process may have ended before this hook ran.
        assert!(poststart.starts_with(&host), "{poststart}");
    }
}
