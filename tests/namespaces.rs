//! Namespaces: each type made new, shared with the host, and joined by path.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, View, under_runc};

fn own(kind: &str) -> String {
    fs::read_link(format!("/proc/self/ns/{kind}")).expect("our namespace").display().to_string()
}

/// The names in config.json and the names in /proc/PID/ns.
const TYPES: [(&str, &str); 6] = [
    ("pid", "pid"),
    ("network", "net"),
    ("ipc", "ipc"),
    ("uts", "uts"),
    ("mount", "mnt"),
    ("cgroup", "cgroup"),
];

#[test]
fn each_namespace_is_new_when_asked_for() {
    for (name, link) in TYPES {
        let facts = Bundle::new().namespace(name, None).guest(&format!("ns {link}")).run().facts();
        assert_ne!(facts, own(link), "{name}");
    }
}

#[test]
fn a_namespace_not_asked_for_is_the_hosts() {
    let shared = || {
        Bundle::new()
            .without_namespace("pid")
            .without_namespace("network")
            .without_namespace("ipc")
            .without_namespace("uts")
            .remove("/hostname")
            .set(
                "/mounts/5",
                json!({"destination": "/sys", "type": "bind", "source": "/sys", "options": ["rbind", "ro"]}),
            )
    };
    let wanted = ["pid", "net", "ipc", "uts", "cgroup"].map(own).join("\n");
    shared().guest("multi ns pid -- ns net -- ns ipc -- ns uts -- ns cgroup").run().prints(&wanted);
}

#[test]
fn each_namespace_can_be_joined() {
    let first = Bundle::new().namespace("cgroup", None).started();
    let links = || TYPES.iter().filter(|(name, _)| *name != "mount");
    let mut second = Bundle::new().remove("/hostname");
    for (name, link) in links() {
        second = second.namespace(name, Some(&format!("/proc/{}/ns/{link}", first.pid())));
    }
    let facts = links().map(|(_, link)| format!("ns {link}")).collect::<Vec<_>>().join(" -- ");
    let theirs: Vec<_> = links()
        .map(|(_, link)| {
            fs::read_link(format!("/proc/{}/ns/{link}", first.pid())).expect("link").display().to_string()
        })
        .collect();
    second.guest(&format!("multi {facts}")).run().prints(&theirs.join("\n"));
}

#[test]
fn a_user_namespace_can_be_joined_with_the_others() {
    let first = Bundle::new().user_namespace().started();
    let path = |link: &str| format!("/proc/{}/ns/{link}", first.pid());
    let second = Bundle::new()
        .remove("/hostname")
        .namespace("user", Some(&path("user")))
        .namespace("network", Some(&path("net")))
        .namespace("pid", Some(&path("pid")));
    // The container's root is not the host's, and must be able to make mount points.
    std::os::unix::fs::chown(second.rootfs("/"), Some(100_000), Some(100_000)).expect("chown");
    let theirs =
        ["user", "net", "pid"].map(|link| fs::read_link(path(link)).expect("the link").display().to_string());
    second.guest("multi ns user -- ns net -- ns pid").run().prints(&theirs.join("\n"));
}

#[test]
fn in_a_joined_pid_namespace_the_process_is_not_the_first() {
    let first = Bundle::new().started();
    let second = Bundle::new().namespace("pid", Some(&format!("/proc/{}/ns/pid", first.pid())));
    assert_ne!(second.guest("pid").run().facts(), "1");
}

#[test]
fn a_second_container_does_not_disturb_the_namespace_it_joined() {
    let first = Bundle::new().started();
    Bundle::new()
        .remove("/hostname")
        .namespace("uts", Some(&format!("/proc/{}/ns/uts", first.pid())))
        .guest("hostname")
        .run()
        .prints("orlop-test");
    assert_eq!(first.status(), "running");
}

#[test]
fn hostname_and_domainname_are_set() {
    Bundle::new().set("/hostname", json!("deck")).guest("hostname").run().prints("deck");
    crate::skip_unless!(!under_runc(), "runc 1.1 has no domainname");
    Bundle::new().set("/domainname", json!("orlop.test")).guest("domainname").run().prints("orlop.test");
}

#[test]
fn a_time_namespace_has_its_offsets() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no time namespace");
    let offset = 100_000_000;
    let bundle = Bundle::new()
        .namespace("time", None)
        .set("/linux/timeOffsets", json!({"monotonic": {"secs": offset}}));
    let inside: i64 = bundle.guest("clock monotonic").run().facts().parse().expect("seconds");
    assert!(inside >= offset, "{inside}");
}

#[test]
fn a_time_namespace_goes_with_a_user_namespace_in_each_view() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no time namespace");
    for view in View::ALL {
        if let Some(missing) = view.missing() {
            eprintln!("skipped: {view:?}: {missing}");
            continue;
        }
        let bundle = Bundle::new().view(view).user_namespace().namespace("time", None);
        bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": 7}})).run().prints("1");
    }
}

#[test]
fn exec_enters_the_time_and_cgroup_namespaces_too() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no time namespace");
    let container = Bundle::new().namespace("time", None).namespace("cgroup", None).started();
    let theirs = ["time", "cgroup"].map(|link| {
        fs::read_link(format!("/proc/{}/ns/{link}", container.pid())).expect("link").display().to_string()
    });
    container.exec(&[], "multi ns time -- ns cgroup").prints(&theirs.join("\n"));
}

#[test]
fn the_loopback_of_a_new_network_is_up() {
    // IFF_UP is the lowest bit of the flags.
    Bundle::new().guest("read /sys/class/net/lo/flags").run().prints("0x9");
}

#[test]
fn a_sysctl_of_a_namespace_is_set_inside_only() {
    let before = fs::read_to_string("/proc/sys/kernel/msgmax").expect("the host's");
    Bundle::new()
        .set("/linux/sysctl", json!({"kernel.msgmax": "1234", "net/ipv4/ip_forward": "1"}))
        .guest("multi sysctl kernel.msgmax -- sysctl net.ipv4.ip_forward")
        .run()
        .prints("1234\n1");
    assert_eq!(fs::read_to_string("/proc/sys/kernel/msgmax").expect("the host's"), before);
}

#[test]
fn the_rights_of_a_user_namespace_end_at_it() {
    Bundle::new()
        .user_namespace()
        .capability("CAP_MKNOD")
        .guest("mknod /dev/disk b 8 0")
        .run()
        .prints("EPERM");
}
