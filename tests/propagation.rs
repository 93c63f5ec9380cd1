//! Which mounts travel between the host and a container: only those for which the configuration asks.
//!
//! Each test has a host of its own: a mount namespace whose root is shared, private, or a slave.

use serde_json::json;

use crate::support::{Bundle, bind, is_root, tmpfs};

/// Each way to tie the root of a host to other mount namespaces.
const HOSTS: [(&str, &str); 3] = [
    ("shared", "mount --make-rshared /;"),
    ("private", ""),
    (
        "slave",
        "mount --make-rshared /; exec unshare -m --propagation unchanged sh -c \"mount --make-rslave /; $HOST\" _ \"$@\";",
    ),
];

/// Calls the runtime through `script` on such a host.
fn on_a_host(bundle: Bundle, before: &str, script: &str) -> Bundle {
    let bundle = bundle.variable("HOST", script);
    bundle.through(&format!("exec unshare -m --propagation private sh -c '{before} eval \"$HOST\"' _ \"$@\""))
}

/// Runs the container to its end, and prints how the host's mount table has changed.
const COMPARED: &str = r#"
    cat /proc/self/mountinfo | sort > mounts.before
    "$@"; code=$?
    cat /proc/self/mountinfo | sort | diff mounts.before - && exit $code"#;

/// Creates the container; then the host mounts; then the container is started, ends, and is deleted.
fn then_mounts(mounts: &str) -> String {
    format!(
        r#"
    "$@" || exit
    {mounts}
    "$1" --root "$3" start "$ID" || exit
    for try in $(seq 400); do "$1" --root "$3" state "$ID" | grep -q stopped && break; sleep .02; done
    eval "$AFTER"
    "$1" --root "$3" delete "$ID""#
    )
}

/// A container with the default mounts, and with bind mounts, masks and devices.
fn bundle() -> Bundle {
    let bundle = Bundle::new()
        .file("secret", "hidden")
        .directory("hidden")
        .file("fixed/file", "")
        .capability("CAP_SYS_ADMIN");
    let source = bundle.host_directory("source");
    let device = json!([{"path": "/dev/mine", "type": "c", "major": 1, "minor": 5}]);
    bundle
        .mount("/data", bind(&source, &["ro"]))
        .mount("/file", bind(&format!("{source}/file"), &[]))
        .mount("/fresh", tmpfs(&[]))
        .set(
            "/linux/maskedPaths",
            json!(["/secret", "/hidden", "/proc/keys", "/proc/kcore", "/sys/firmware"]),
        )
        .set("/linux/readonlyPaths", json!(["/fixed", "/proc/sys", "/sys/fs"]))
        .set("/linux/devices", device)
}

/// The same as root of a user namespace without a network namespace: its /sys is the host's.
fn in_a_user_namespace() -> Bundle {
    bundle().user_namespace().without_namespace("network")
}

#[test]
fn nothing_that_a_container_mounts_arrives_on_the_host() {
    crate::skip_unless!(is_root(), "a host of its own needs root");
    for (host, before) in HOSTS {
        for (who, make) in [("root", bundle as fn() -> Bundle), ("user namespace", in_a_user_namespace)] {
            for propagation in ["", "rslave", "rprivate", "private", "slave"] {
                if !propagation.is_empty() && (host, who) != ("shared", "root") {
                    continue;
                }
                let bundle = make().set("/linux/rootfsPropagation", json!(propagation));
                let facts =
                    on_a_host(bundle, before, COMPARED).guest("multi mountinfo -- cover").run().facts();
                let (table, covered) = facts.rsplit_once('\n').expect("two facts");
                let shared = table.lines().find(|line| line.contains("shared"));
                assert_eq!(shared, None, "{host}, {who}, {propagation:?}: {facts}");
                // A tmpfs on /sys/fs hides the mount points below it.
                let refused = covered.split('"').skip(1).step_by(2).find(|said| !said.ends_with(" ENOENT"));
                assert_eq!(refused, None, "{host}, {who}, {propagation:?}: {facts}");
                let count: Option<u32> =
                    covered.split([' ', ',']).nth(1).and_then(|count| count.parse().ok());
                assert!(count > Some(15), "{host}, {who}, {propagation:?}: {facts}");
            }
        }
    }
}

#[test]
fn nothing_that_the_host_mounts_on_its_devices_arrives_in_a_container() {
    crate::skip_unless!(is_root(), "a host of its own needs root");
    let mounts =
        "for file in null zero full random urandom tty; do mount --bind /etc/hostname /dev/$file; done
        for place in /dev /sys/fs /sys; do mount -t tmpfs late $place; done";
    for (host, before) in HOSTS {
        for make in [bundle as fn() -> Bundle, in_a_user_namespace] {
            let bundle = make().guest("multi read /secret -- stat /dev/zero -- stat /dev/mine -- mountinfo");
            let id = bundle.id.clone();
            let bundle = on_a_host(bundle, before, &then_mounts(mounts)).variable("ID", &id);
            // The runtime finds the cgroup only without the new mounts.
            let bundle = bundle.variable("AFTER", "umount /sys /sys/fs");
            let output = bundle.start("create").finish().ok();
            assert!(output.out.starts_with("\nchar 1:5 0666 0 0\nchar 1:5 0666 0 0\n"), "{host}: {output}");
            assert!(!output.out.contains(" late") && !output.out.contains("hostname"), "{host}: {output}");
            bundle.assert_clean();
        }
    }
}

#[test]
fn the_root_has_the_propagation_of_the_configuration() {
    crate::skip_unless!(is_root(), "a host of its own needs root");
    // The configuration's value; the root's propagation; that of a host mount below it; whether later host mounts
    // arrive.
    for (said, root, below, arrives) in [
        (None, "master", "master", [true, true]),
        (Some("slave"), "master", "master", [true, true]),
        (Some("rslave"), "master", "master", [true, true]),
        (Some("private"), "private", "master", [false, true]),
        (Some("rprivate"), "private", "private", [false, false]),
        (Some("shared"), "shared", "master", [false, true]),
        (Some("rshared"), "shared", "shared+master", [false, true]),
        (Some("unbindable"), "unbindable", "master", [false, true]),
        (Some("runbindable"), "unbindable", "unbindable", [false, false]),
    ] {
        let bundle =
            Bundle::new().directory("late").directory("below").guest("multi mountinfo / -- mountinfo");
        let bundle = match said {
            Some(said) => bundle.set("/linux/rootfsPropagation", json!(said)),
            None => bundle,
        };
        let (id, rootfs) = (bundle.id.clone(), bundle.rootfs("").display().to_string());
        let before =
            "mount -t tmpfs below \"$ROOTFS/below\"; mkdir \"$ROOTFS/below/late\"; mount --make-rshared /;";
        let mounts = "for place in late below/late; do mount -t tmpfs late \"$ROOTFS/$place\"; done";
        let bundle =
            on_a_host(bundle, before, &then_mounts(mounts)).variable("ID", &id).variable("ROOTFS", &rootfs);
        let output = bundle.start("create").finish().ok();
        let found = |place: &str| {
            let line = output.out.lines().find(|line| line.starts_with(&format!("{place} ")));
            line.and_then(|line| line.split(' ').nth(3)).map(str::to_owned)
        };
        assert_eq!(found("/").as_deref(), Some(root), "{said:?}: {output}");
        assert_eq!(found("/below").as_deref(), Some(below), "{said:?}: {output}");
        let arrived = [found("/late").is_some(), found("/below/late").is_some()];
        assert_eq!(arrived, arrives, "{said:?}: {output}");
        bundle.assert_clean();
    }
}

#[test]
fn a_mount_of_the_host_that_arrives_is_below_the_masks() {
    crate::skip_unless!(is_root(), "a host of its own needs root");
    let bundle = Bundle::new().directory("secrets/one").file("secrets/two", "hidden");
    let bundle = bundle.set("/linux/maskedPaths", json!(["/secrets"]));
    let bundle = bundle.guest("multi ls /secrets -- mountinfo /secrets");
    let (id, rootfs) = (bundle.id.clone(), bundle.rootfs("").display().to_string());
    let mounts = "mount -t tmpfs late \"$ROOTFS/secrets\"; touch \"$ROOTFS/secrets/late\"";
    let bundle = on_a_host(bundle, "mount --make-rshared /;", &then_mounts(mounts));
    let bundle = bundle.variable("ID", &id).variable("ROOTFS", &rootfs);
    let output = bundle.start("create").finish().ok();
    assert!(output.out.starts_with('\n') && output.out.contains("ro,nosuid,noexec"), "{output}");
    bundle.assert_clean();
}
