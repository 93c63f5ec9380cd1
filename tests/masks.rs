//! Masked and read-only paths, and devices that are mounted: nothing of the host is changed by way of them.

use serde_json::json;

use crate::support::{Bundle, is_root};

/// The runtime has a /dev of the test's own for the host's, whose nodes are printed when it has ended.
const OWN_DEV: &str = r#"exec unshare -m --propagation private sh -c '
    mount -t tmpfs -o mode=755 own-dev /dev || exit
    mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/full c 1 7
    mknod -m 666 /dev/random c 1 8; mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/tty c 5 0
    "$@"; code=$?
    stat -c "%n %a %u:%g" /dev/null /dev/zero
    exit $code' _ "$@""#;

/// What the nodes of `OWN_DEV` are if nobody has changed them.
const UNCHANGED: &str = "/dev/null 666 0:0\n/dev/zero 666 0:0";

/// Root of a user namespace that is the host's root, and may change mounts.
fn host_root() -> Bundle {
    let map = json!([{"containerID": 0, "hostID": 0, "size": 65536}]);
    let bundle = Bundle::new().namespace("user", None);
    let bundle = bundle.set("/linux/uidMappings", map.clone()).set("/linux/gidMappings", map);
    ["CAP_SYS_ADMIN", "CAP_FOWNER", "CAP_CHOWN"].into_iter().fold(bundle, Bundle::capability)
}

#[test]
fn the_hosts_null_device_is_not_changed_through_a_mask() {
    crate::skip_unless!(is_root(), "the host's devices are root's");
    let bundles = [
        ["CAP_FOWNER", "CAP_CHOWN"].into_iter().fold(Bundle::new(), Bundle::capability),
        ["CAP_FOWNER", "CAP_CHOWN", "CAP_SYS_ADMIN"].into_iter().fold(Bundle::new(), Bundle::capability),
        host_root(),
    ];
    for bundle in bundles {
        let bundle = bundle.file("one", "hidden").file("two", "hidden").through(OWN_DEV);
        let bundle = bundle.set("/linux/maskedPaths", json!(["/one", "/two"]));
        let output = bundle
            .guest("multi chmod /one 0 -- chown /two 1 1 -- write /one x -- read /two -- remount-rw /one -- chmod /one 0")
            .run();
        let facts = output.facts();
        assert!(facts.starts_with("EROFS\nEROFS\nok\n\n"), "{facts}");
        // Who may change mounts gets a node of the container's own to change.
        assert!(facts.ends_with(UNCHANGED), "{facts}");
    }
}

#[test]
fn masks_are_read_only_and_no_programs() {
    let masked = json!(["/file", "/directory", "/proc/keys", "/proc/scsi"]);
    let facts = Bundle::new()
        .file("file", "hidden")
        .directory("directory")
        .set("/linux/maskedPaths", masked)
        .guest("multi mountinfo /file -- mountinfo /directory -- stat /file -- ls /directory")
        .run()
        .facts();
    let lines: Vec<_> = facts.lines().collect();
    for line in &lines[..2] {
        let words: Vec<_> = line.split(' ').collect();
        let nodev = words[2].replace(",nodev", "");
        assert_eq!((nodev.as_str(), words[3]), ("ro,nosuid,noexec,relatime", "private"), "{facts}");
    }
    assert_eq!(&lines[2..], ["char 1:3 0666 0 0"], "{facts}");
}

#[test]
fn devices_of_a_user_namespace_are_not_the_hosts_to_be_changed() {
    crate::skip_unless!(is_root(), "the host's devices are root's");
    let attempts = "multi chmod /dev/null 0 -- chown /dev/zero 1 1 -- write /dev/null x -- mountinfo /dev/null \
                    -- remount-rw /dev/zero -- chmod /dev/zero 0";
    let facts = host_root().through(OWN_DEV).guest(attempts).run().facts();
    assert!(facts.starts_with("EROFS\nEROFS\nok\n/dev/null tmpfs ro,nosuid,noexec"), "{facts}");
    assert!(facts.ends_with(UNCHANGED), "{facts}");
}

#[test]
fn where_no_device_can_be_made_the_hosts_is_mounted_read_only() {
    crate::skip_unless!(is_root(), "the ids of the test are root's");
    for flags in ["-Ur", "-Urm"] {
        let sys =
            json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]});
        let pts = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
        let bundle =
            Bundle::new().through(&format!("exec unshare {flags} \"$@\"")).remove("/linux/resources");
        let bundle = bundle.set("/mounts/5", sys).set("/mounts/2/options", pts).without_namespace("network");
        let bundle = bundle.file("one", "hidden").file("two", "hidden");
        let facts = bundle
            .set("/linux/maskedPaths", json!(["/one", "/two"]))
            .guest("multi read /one -- read /two -- write /two x -- write /dev/null x -- mountinfo")
            .run()
            .facts();
        assert!(facts.starts_with("\n\nok\nok\n"), "{flags}: {facts}");
        for place in ["/one", "/two", "/dev/null", "/dev/tty"] {
            let line = facts.lines().find(|line| line.starts_with(&format!("{place} "))).unwrap_or_default();
            let options = line.split(' ').nth(2).unwrap_or_default();
            for option in ["ro", "nosuid", "noexec"] {
                assert!(options.split(',').any(|said| said == option), "{flags} {place}: {facts}");
            }
        }
    }
}

#[test]
fn a_device_that_the_host_lacks_is_made_for_a_user_namespace() {
    crate::skip_unless!(is_root(), "an ordinary user may make no device");
    let device = |path: &str| json!({"path": path, "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4});
    let devices = json!([device("/dev/orlop-test-none"), device("/dev/deep/none"), device("/elsewhere")]);
    let rules = json!([{"allow": false, "access": "rwm"}]);
    for bundle in [Bundle::new().user_namespace(), Bundle::new()] {
        bundle
            .set("/linux/resources/devices", rules.clone())
            .set("/linux/devices", devices.clone())
            .set("/process/user", json!({"uid": 3, "gid": 4}))
            .guest("multi stat /dev/orlop-test-none -- stat /dev/deep/none -- stat /elsewhere -- open /dev/deep/none w")
            .run()
            .prints("char 1:5 0640 3 4\nchar 1:5 0640 3 4\nchar 1:5 0640 3 4\nok");
    }
    assert!(!std::path::Path::new("/dev/orlop-test-none").exists(), "made on the host");
}

#[test]
fn links_of_the_image_do_not_lead_devices_astray() {
    crate::skip_unless!(is_root(), "an ordinary user may make no device");
    // With "..": what the devices are taken from must not be met on the way.
    let devices = json!([{"path": "/link/mine", "type": "c", "major": 1, "minor": 5}]);
    for bundle in [Bundle::new().user_namespace(), Bundle::new()] {
        let bundle = bundle.directory("a/b").directory("there").symlink("a/b/link", "../../there");
        // Container root makes it in here.
        std::os::unix::fs::chown(bundle.rootfs("there"), Some(100_000), Some(100_000)).expect("chown");
        let bundle = bundle.symlink("link", "a/b/link").set("/linux/devices", devices.clone());
        let bundle = bundle.capability("CAP_DAC_OVERRIDE");
        bundle.guest("stat /there/mine").run().says("char 1:5 0666");
    }
}
