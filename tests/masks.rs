//! Masked and read-only paths, and mounted devices. A container changes nothing of the host through them. Each way to
//! write a path works or is an error.

use serde_json::{Value, json};

use crate::support::{Bundle, is_root, tmpfs, under_runc};

/// Gives the runtime a /dev of the test's own in place of the host's. Prints its nodes after the runtime has ended.
const OWN_DEV: &str = r#"exec unshare -m --propagation private sh -c '
    mount -t tmpfs -o mode=755 own-dev /dev || exit
    mknod -m 666 /dev/null c 1 3; mknod -m 666 /dev/zero c 1 5; mknod -m 666 /dev/full c 1 7
    mknod -m 666 /dev/random c 1 8; mknod -m 666 /dev/urandom c 1 9; mknod -m 666 /dev/tty c 5 0
    "$@"; code=$?
    stat -c "%n %a %u:%g" /dev/null /dev/zero
    exit $code' _ "$@""#;

/// What `OWN_DEV` prints if nothing has changed its nodes.
const UNCHANGED: &str = "/dev/null 666 0:0\n/dev/zero 666 0:0";

/// A user namespace whose root is the host's root, with the capabilities to change mounts.
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
        // A container that may change mounts gets a node of its own, which it may change.
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
    // The path has a ".." in it. It must not pass the place from which the runtime takes the devices.
    let devices = json!([{"path": "/link/mine", "type": "c", "major": 1, "minor": 5}]);
    for bundle in [Bundle::new().user_namespace(), Bundle::new()] {
        let bundle = bundle.directory("a/b").directory("there").symlink("a/b/link", "../../there");
        // The container's root makes the device in this directory.
        std::os::unix::fs::chown(bundle.rootfs("there"), Some(100_000), Some(100_000)).expect("chown");
        let bundle = bundle.symlink("link", "a/b/link").set("/linux/devices", devices.clone());
        let bundle = bundle.capability("CAP_DAC_OVERRIDE");
        bundle.guest("stat /there/mine").run().says("char 1:5 0666");
    }
}

// --- the ways to write a path ---

/// A root with a link to the root, links to a directory, and a file in both.
fn paths() -> Bundle {
    let bundle = Bundle::new().file("secret", "hidden").file("etc/inner", "hidden").directory("deep/etc");
    bundle.symlink("to-root", "/").symlink("to-etc", "deep/../etc").symlink("deep/up", "../etc")
}

/// Ways to write the path of a file or a directory; `@` stands for its name in the root.
const WAYS: [&str; 13] = [
    "/@",
    "//@",
    "/./@",
    "/../../@",
    "/etc/../@",
    "/to-etc/../@",
    "/deep/up/../@",
    "/to-root/@",
    "/to-root//to-etc/.././@",
    "@",
    "./@",
    "../@",
    "etc/../@",
];
const WAYS_OF_A_DIRECTORY: [&str; 5] = ["/@/", "/@/.", "//@//", "@/", "/@/below/.."];
/// Ways to write the root.
const ROOT: [&str; 11] =
    ["/", "//", "/.", "/..", ".", "./", "/etc/..", "/proc/..", "/to-root", "/to-root/", "/to-etc/.."];
/// Paths that are errors, and the reason.
const WRONG: [(&str, &str); 5] = [
    ("", "empty"),
    ("/secret/", "not a directory"),
    ("/secret/.", "not a directory"),
    ("/secret/..", "not a directory"),
    ("/proc/self/root", "too many symbolic links"),
];

/// A root with a file `fN` or a directory `dN` for each way, the list of the paths, and the names.
fn written() -> (Bundle, Vec<String>, Vec<String>) {
    let (mut bundle, mut list, mut names) = (paths(), Vec::new(), Vec::new());
    for (index, way) in WAYS.iter().enumerate() {
        bundle = bundle.file(&format!("f{index}"), "hidden");
        list.push(way.replace('@', &format!("f{index}")));
        names.push(format!("f{index}"));
    }
    for (index, way) in WAYS.iter().chain(&WAYS_OF_A_DIRECTORY).enumerate() {
        bundle = bundle.file(&format!("d{index}/inner"), "hidden").directory(&format!("d{index}/below"));
        list.push(way.replace('@', &format!("d{index}")));
        names.push(format!("d{index}/inner"));
    }
    (bundle, list, names)
}

/// The guest's command for each of these names; each prints one line.
fn each(names: &[String], attempt: impl Fn(&str) -> String) -> String {
    let attempts: Vec<_> = names.iter().map(|name| attempt(name)).collect();
    format!("multi {}", attempts.join(" -- "))
}

#[test]
fn each_way_to_write_a_masked_path_works_or_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc ignores some of them");
    let (bundle, list, names) = written();
    let guest = each(&names, |name| format!("read /{name}"));
    let attempt = bundle.set("/linux/maskedPaths", json!(list)).guest(&guest).run();
    let relative = list.iter().filter(|path| !path.starts_with('/')).count();
    let warned =
        attempt.output.err.lines().filter(|line| line.contains("taken as relative to the root")).count();
    assert_eq!(warned, relative, "{}", attempt.output);
    let wanted: Vec<_> = names.iter().map(|name| if name.starts_with('f') { "" } else { "ENOENT" }).collect();
    assert_eq!(attempt.output.out.lines().collect::<Vec<_>>(), wanted, "{list:?}");
    for path in ROOT {
        let attempt = paths().set("/linux/maskedPaths", json!([path])).run();
        attempt.fails_with_all(&["linux.maskedPaths[0]", path, "cannot be masked"]);
    }
    for (path, said) in WRONG {
        paths()
            .set("/linux/maskedPaths", json!([path]))
            .run()
            .fails_with_all(&["linux.maskedPaths[0]", said]);
    }
    let absent = json!(["/none", "/none/", "/none/.."]);
    paths().set("/linux/maskedPaths", absent).guest("read /secret").run().prints("hidden");
}

#[test]
fn each_way_to_write_a_read_only_path_works_or_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc ignores some of them");
    let (bundle, list, names) = written();
    let guest = each(&names, |name| format!("write /{name} x")) + " -- write /new x";
    let attempt = bundle.set("/linux/readonlyPaths", json!(list)).guest(&guest).run();
    let mut wanted = vec!["EROFS"; names.len()];
    wanted.push("ok");
    assert_eq!(attempt.output.out.lines().collect::<Vec<_>>(), wanted, "{list:?}");
    for path in ROOT {
        let attempt = paths()
            .set("/linux/readonlyPaths", json!([path]))
            .guest("multi write /new x -- write /dev/shm/x x")
            .run();
        assert_eq!(attempt.facts(), "EROFS\nok", "{path:?}");
    }
    for (path, said) in WRONG {
        paths()
            .set("/linux/readonlyPaths", json!([path]))
            .run()
            .fails_with_all(&["linux.readonlyPaths[0]", said]);
    }
}

#[test]
fn each_way_to_write_a_device_a_mount_point_or_the_root_works_or_is_an_error() {
    crate::skip_unless!(!under_runc(), "runc ignores some of them");
    let device = |path: &str| json!([{"path": path, "type": "c", "major": 1, "minor": 5}]);
    for path in [
        "/dev/new",
        "//dev//new",
        "/dev/./new",
        "/dev/new/",
        "dev/new",
        "/to-root/dev/new",
        "/etc/../dev/new",
    ] {
        paths().set("/linux/devices", device(path)).guest("stat /dev/new").run().prints("char 1:5 0666 0 0");
    }
    for (path, said) in [
        ("/", "no path"),
        ("", "no path"),
        ("..", "no path"),
        ("/dev", "is a Directory"),
        ("/dev/.", "is a Directory"),
    ] {
        paths().set("/linux/devices", device(path)).run().fails_with_all(&["linux.devices[0]", said]);
    }
    for path in ["/etc", "//etc/", "etc", "/./etc/.", "/to-etc", "/deep/up", "/to-root/etc", "/deep/../etc"] {
        paths().mount(path, tmpfs(&[])).guest("multi mountinfo /etc -- ls /etc").run().says("/etc tmpfs rw");
    }
    for path in ["/", "//", "/..", "/etc/..", "/to-root", "/to-root/."] {
        paths().mount(path, tmpfs(&[])).run().fails_with("is on the top of the rootfs");
    }
    paths().mount("", tmpfs(&[])).run().fails_with("no destination");
    for path in ["rootfs", "rootfs/", "./rootfs", ".//rootfs/.", "rootfs/../rootfs", "link", "link/"] {
        let bundle = paths();
        std::os::unix::fs::symlink("rootfs", bundle.dir.join("link")).expect("a link");
        bundle.set("/root/path", json!(path)).guest("read /secret").run().prints("hidden");
    }
    for path in ["/", "//", "/..", "../../../../../..", "/tmp/..", "host", "host/", "host/."] {
        let bundle = paths();
        std::os::unix::fs::symlink("/", bundle.dir.join("host")).expect("a link");
        let attempt = bundle.set("/root/path", json!(path)).set("/process/args", json!(["true"])).run();
        attempt.fails_with_all(&["root.path", "is the host's root"]);
    }
    paths().set("/root/path", json!("")).run().fails_with("root.path: empty");
}

#[test]
fn a_path_is_masked_wherever_links_lead() {
    // The last two paths look alike to a reader that does not follow the links.
    let masked: Value = json!(["/secret", "/to-etc/../secret", "/x/../secret"]);
    let bundle = paths().directory("far/away").file("far/secret", "hidden").symlink("x", "far/away");
    bundle.set("/linux/maskedPaths", masked).guest("multi read /secret -- read /far/secret").run().prints("");
}
