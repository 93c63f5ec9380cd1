//! Network devices that are moved into the container. The devices are made in a network namespace of the test's own:
//! the host's is never touched.

use serde_json::json;

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
