//! Mounts, the root, masked and read-only paths, and devices, as the guest's own mountinfo and stat show them.

use std::fs;
use std::os::unix::fs::MetadataExt;

use serde_json::json;

use crate::support::{Bundle, bind, is_root, tmpfs, under_runc};

// --- file systems ---

#[test]
fn options_of_a_tmpfs_are_applied() {
    let facts = Bundle::new()
        .mount("/data", tmpfs(&["ro", "nosuid", "nodev", "noexec", "noatime", "size=1m", "mode=700"]))
        .guest("mountinfo /data")
        .run()
        .facts();
    assert!(facts.starts_with("/data tmpfs ro,nosuid,nodev,noexec,noatime "), "{facts}");
    assert!(facts.contains("size=1024k") && facts.contains("mode=700"), "{facts}");
}

#[test]
fn each_flag_and_its_opposite_is_applied() {
    for (option, seen) in [
        ("ro", "ro,relatime"),
        ("nosuid", "rw,nosuid,relatime"),
        ("nodev", "rw,nodev,relatime"),
        ("noexec", "rw,noexec,relatime"),
        ("noatime", "rw,noatime"),
        ("nodiratime", "rw,nodiratime,relatime"),
        ("strictatime", "rw"),
        ("relatime", "rw,relatime"),
        ("rw", "rw,relatime"),
        ("suid", "rw,relatime"),
        ("defaults", "rw,relatime"),
    ] {
        let facts = Bundle::new().mount("/data", tmpfs(&[option])).guest("mountinfo /data").run().facts();
        assert_eq!(facts.split(' ').nth(2), Some(seen), "{option}: {facts}");
    }
}

#[test]
fn of_two_contrary_options_the_last_wins() {
    let facts = Bundle::new()
        .mount("/data", tmpfs(&["ro", "noexec", "exec", "rw"]))
        .guest("mountinfo /data")
        .run()
        .facts();
    assert_eq!(facts.split(' ').nth(2), Some("rw,relatime"), "{facts}");
}

#[test]
fn mounts_are_made_in_the_order_of_the_config() {
    Bundle::new()
        .mount("/a", tmpfs(&[]))
        .mount("/a/b", tmpfs(&[]))
        .mount("/a", tmpfs(&[]))
        .guest("ls /a")
        .run()
        .prints("");
}

#[test]
fn devices_are_there_whatever_is_mounted_behind_sysfs() {
    // init makes devices before it mounts sysfs, while the kernel still makes the network namespace that sysfs needs.
    Bundle::new()
        .mount("/late", tmpfs(&[]))
        .mount("/dev/late", tmpfs(&[]))
        .guest("multi stat /dev/zero -- stat /dev/ptmx -- mountinfo /dev/late")
        .run()
        .says("1:5");
    Bundle::new().mount("/dev", tmpfs(&[])).guest("stat /dev/zero").run().says("1:5");
    // A link of the image leads a mount to one of the devices.
    let bundle = Bundle::new().symlink("here", "/dev/zero");
    let source = format!("{}/file", bundle.host_directory("source"));
    let attempt = bundle.mount("/here", bind(&source, &[])).guest("exit 0").run();
    attempt.fails_with("what is there is a regular file, not a character device");
}

#[test]
fn mount_points_are_made_with_their_parents() {
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    bundle
        .mount("/a/b/dir", bind(&source, &[]))
        .mount("/a/c/file", bind(&format!("{source}/file"), &[]))
        .guest("multi read /a/b/dir/file -- read /a/c/file")
        .run()
        .prints("from the host\nfrom the host");
}

#[test]
fn containers_on_one_root_make_the_same_mount_points_side_by_side() {
    for round in 0..3 {
        let first = Bundle::new();
        let (source, rootfs) = (first.host_directory("host"), first.rootfs(""));
        let on_the_same_root = |_| {
            let mut bundle = Bundle::new().set("/root/path", json!(rootfs));
            for number in 0..12 {
                let place = format!("/round/{round}/a/{number}");
                bundle = bundle.mount(&format!("{place}/dir"), bind(&source, &[]));
                bundle = bundle.mount(&format!("{place}/file"), bind(&format!("{source}/file"), &[]));
                bundle = bundle.mount(&format!("{place}/tmpfs"), tmpfs(&[]));
            }
            // Without a tmpfs on /dev, init must make devices and links in the root, too.
            bundle = bundle.set("/mounts/1/destination", json!("/elsewhere"));
            bundle.guest(&format!("read /round/{round}/a/11/file"))
        };
        let bundles: Vec<_> = (0..8).map(on_the_same_root).collect();
        let running: Vec<_> = bundles.iter().map(|bundle| bundle.start("run")).collect();
        for (one, bundle) in running.into_iter().zip(&bundles) {
            one.finish().prints("from the host");
            bundle.assert_clean();
        }
    }
}

#[test]
fn proc_is_that_of_the_container() {
    Bundle::new().guest("readlink /proc/self").run().prints("1");
}

// --- bind mounts ---

#[test]
fn a_bind_mount_shows_the_host_directory() {
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    let container = bundle
        .mount("/data", bind(&source, &[]))
        .guest("multi read /data/file -- write /data/new text")
        .container();
    container.start();
    container.wait_until("stopped");
    assert_eq!(container.printed(), "from the host\nok");
    assert_eq!(fs::read_to_string(format!("{source}/new")).expect("the new file"), "text");
}

#[test]
fn a_read_only_bind_mount_is_not_written() {
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    bundle
        .mount("/data", bind(&source, &["ro", "nosuid"]))
        .guest("multi write /data/file no -- mountinfo /data")
        .run()
        .says("EROFS\n/data ");
}

#[test]
fn a_relative_source_is_below_the_bundle() {
    let bundle = Bundle::new();
    bundle.host_directory("host");
    bundle.mount("/data", bind("host", &[])).guest("read /data/file").run().prints("from the host");
}

#[test]
fn a_source_that_is_a_symlink_is_followed_on_the_host() {
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    std::os::unix::fs::symlink(&source, bundle.dir.join("link")).expect("a symlink");
    let link = bundle.dir.join("link").display().to_string();
    bundle.mount("/data", bind(&link, &[])).guest("read /data/file").run().prints("from the host");
}

#[test]
fn a_recursive_bind_brings_the_mounts_below() {
    // On a host with cgroups, `sys` has mounts below it.
    let of = |option: &str| {
        let mount = json!({"type": "none", "source": "/sys/fs", "options": [option]});
        Bundle::new().mount("/data", mount).guest("mountinfo /data/cgroup").run().facts()
    };
    assert_eq!(of("bind"), "not a mount point");
    assert_ne!(of("rbind"), "not a mount point");
}

#[test]
fn recursive_read_only_reaches_the_mounts_below() {
    crate::skip_unless!(!under_runc(), "runc 1.1.5 has no rro on this build");
    let mount = json!({"type": "none", "source": "/sys/fs", "options": ["rbind", "rro"]});
    let facts = Bundle::new().mount("/data", mount).guest("mountinfo").run().facts();
    for line in facts.lines().filter(|line| line.starts_with("/data")) {
        assert!(line.split(' ').nth(2).is_some_and(|options| options.starts_with("ro")), "{line}");
    }
}

#[test]
fn propagation_of_a_mount_is_set() {
    for (option, seen) in [("private", "private"), ("shared", "shared"), ("unbindable", "unbindable")] {
        let facts = Bundle::new().mount("/data", tmpfs(&[option])).guest("mountinfo /data").run().facts();
        assert_eq!(facts.split(' ').nth(3), Some(seen), "{option}: {facts}");
    }
}

#[test]
fn nothing_the_container_mounts_comes_back_to_the_host() {
    let bundle = Bundle::new().set("/linux/rootfsPropagation", json!("rslave")).capability("CAP_SYS_ADMIN");
    let source = bundle.host_directory("host");
    let container = bundle.mount("/data", bind(&source, &[])).started();
    container.exec(&[], "mount none /data tmpfs").prints("ok");
    container.exec(&[], "ls /data").prints("");
    let host = fs::read_to_string("/proc/self/mountinfo").expect("mountinfo");
    assert!(!host.contains(&source), "{host}");
}

#[test]
fn tmpcopyup_copies_what_was_below() {
    let bundle = Bundle::new().file("data/file", "below").mount("/data", tmpfs(&["tmpcopyup"]));
    bundle.guest("read /data/file").run().prints("below");
}

#[test]
fn an_idmapped_bind_shows_other_owners() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no idmapped mounts");
    crate::skip_unless!(is_root(), "an idmapped mount of a host directory needs root");
    let bundle = Bundle::new();
    let source = bundle.host_directory("host");
    let map = json!([{"containerID": 0, "hostID": 5000, "size": 10}]);
    let mut mount = bind(&source, &["idmap"]);
    mount["uidMappings"] = map.clone();
    mount["gidMappings"] = map;
    bundle.mount("/data", mount).guest("stat /data/file").run().prints("file 0644 5000 5000");
}

#[test]
fn a_source_in_the_root_is_what_earlier_mounts_have_put_there() {
    for (user_namespace, again) in [(false, "/again"), (true, "/again"), (false, "rootfs/again")] {
        let bundle = if user_namespace { Bundle::new().user_namespace() } else { Bundle::new() };
        let (source, inside) = (bundle.host_directory("host"), bundle.rootfs("first"));
        let inside = inside.to_string_lossy().into_owned();
        // The destination may be the path that the host sees.
        let again =
            if again.starts_with('/') { again.into() } else { bundle.dir.join(again).display().to_string() };
        let bundle = bundle.mount("/first", bind(&source, &[])).mount(&again, bind(&inside, &["rbind"]));
        bundle.guest("read /again/file").run().prints("from the host");
    }
}

#[test]
fn a_source_in_the_root_gets_its_id_maps_too() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no idmapped mounts");
    crate::skip_unless!(is_root(), "an idmapped mount of a host directory needs root");
    let bundle = Bundle::new().user_namespace();
    let (source, inside) = (bundle.host_directory("host"), bundle.rootfs("first"));
    // The mount shows id 0 of the disk as the host's id of the container's root.
    let map = json!([{"containerID": 0, "hostID": 100_000, "size": 10}]);
    let mut again = bind(&inside.to_string_lossy(), &["rbind", "idmap"]);
    again["uidMappings"] = map.clone();
    again["gidMappings"] = map;
    let bundle = bundle.mount("/first", bind(&source, &[])).mount("/again", again);
    bundle.guest("stat /again/file").run().prints("file 0644 0 0");
}

#[test]
fn a_link_of_the_image_does_not_lead_a_source_out_of_the_root() {
    // The source lies below the root. It means the file that a process in the container would find there.
    for (target, says) in [("/data", "from the image"), ("../../../data", "from the image")] {
        for user_namespace in [false, true] {
            let bundle = if user_namespace { Bundle::new().user_namespace() } else { Bundle::new() };
            let host = bundle.host_directory("host");
            let bundle = bundle
                .file("data/file", "from the image")
                .symlink("link", target)
                .symlink("out", &host)
                .symlink(&format!("{host}/file"), "/data/file");
            let (link, out) = (bundle.rootfs("link"), bundle.rootfs("out/file"));
            bundle
                .mount("/again", bind(&link.to_string_lossy(), &[]))
                .mount("/file", bind(&out.to_string_lossy(), &[]))
                .guest("multi read /again/file -- read /file")
                .run()
                .prints(&format!("{says}\n{says}"));
        }
    }
    let bundle = Bundle::new();
    let host = bundle.host_directory("host");
    let bundle = bundle.symlink("out", &host);
    let out = bundle.rootfs("out");
    bundle.mount("/again", bind(&out.to_string_lossy(), &[])).run().fails_with("no such file or directory");
}

#[test]
fn a_source_in_the_root_is_found_in_every_spelling() {
    for way in ["link/rootfs", "to-root", "rootfs/../link/rootfs", "/proc/self/root"] {
        for user_namespace in [false, true] {
            let bundle = if user_namespace { Bundle::new().user_namespace() } else { Bundle::new() };
            let (host, dir) = (bundle.host_directory("host"), bundle.dir.display().to_string());
            for (name, target) in [("link", "."), ("to-root", "link/rootfs")] {
                std::os::unix::fs::symlink(target, bundle.dir.join(name)).expect("a symlink");
            }
            let source = |name: &str| match way.starts_with('/') {
                true => format!("{way}{dir}/rootfs/{name}"),
                false => format!("{dir}/{way}/{name}"),
            };
            let (inside, out) = (source("inside"), source("out"));
            let bundle =
                bundle.file("data/file", "from the image").symlink("inside", "/data").symlink("out", &host);
            // The root itself may have another spelling, too.
            let bundle = bundle.set("/root/path", json!("link/rootfs")).mount("/in", bind(&inside, &[]));
            let attempt = bundle.guest("read /in/file").run();
            assert_eq!(attempt.output.out.trim_end(), "from the image", "{way}: {}", attempt.output);
            let bundle = attempt.bundle.mount("/out", bind(&out, &[]));
            bundle.guest("read /out/file").run().fails_with("no such file or directory");
        }
    }
}

#[test]
fn a_source_behind_a_link_of_proc_is_bound_if_it_is_not_in_the_root() {
    crate::skip_unless!(is_root(), "another process's root");
    let bundle = Bundle::new();
    let host = bundle.host_directory("host");
    let pid = std::process::id();
    bundle
        .mount("/one", bind(&format!("/proc/self/root{host}"), &[]))
        .mount("/two", bind(&format!("/proc/{pid}/root{host}/file"), &[]))
        .mount("/net", bind(&format!("/proc/{pid}/ns/net"), &[]))
        .guest("multi read /one/file -- read /two -- mountinfo /net")
        .run()
        .says("from the host\nfrom the host\n/net nsfs");
}

#[test]
fn tmpcopyup_copies_no_device_and_gives_no_right_that_the_source_withholds() {
    crate::skip_unless!(is_root() && !under_runc(), "a device node needs root");
    let bundle = Bundle::new();
    let volume = bundle.host_directory("volume");
    let inside = format!("{volume}/x");
    fs::create_dir(&inside).expect("a directory");
    fs::write(format!("{inside}/su"), "").expect("a file");
    fs::set_permissions(format!("{inside}/su"), std::os::unix::fs::PermissionsExt::from_mode(0o4755))
        .expect("chmod");
    rustix::fs::mknodat(
        rustix::fs::CWD,
        format!("{inside}/zero"),
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::Mode::from_raw_mode(0o666),
        rustix::fs::makedev(1, 5),
    )
    .expect("mknod");
    bundle
        .mount("/v", bind(&volume, &["nosuid", "nodev"]))
        .mount("/v/x", tmpfs(&["tmpcopyup"]))
        .mount("/free", bind(&volume, &[]))
        .mount("/free/x", tmpfs(&["tmpcopyup"]))
        .guest("multi ls /v/x -- stat /v/x/su -- stat /free/x/su")
        .run()
        .prints("su\nfile 0755 0 0\nfile 4755 0 0");
}

// --- the host's file systems in place of new ones ---

#[test]
fn a_user_namespace_that_shares_the_network_gets_nothing_writable_below_sys() {
    crate::skip_unless!(is_root() && !under_runc(), "root maps the host's root");
    let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
    let shares = || {
        Bundle::new()
            .namespace("user", None)
            .without_namespace("network")
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map.clone())
            .set("/mounts/2/options", json!(["newinstance", "ptmxmode=0666"]))
    };
    // As the host's root, and as root of a user namespace that cannot leave out the mounts below /sys.
    for wrapper in ["exec \"$@\"", "exec unshare --user --map-root-user --mount \"$@\""] {
        let elsewhere = json!({"destination": "/elsewhere", "type": "tmpfs", "source": "tmpfs"});
        let bundle = shares().set("/mounts/6", elsewhere).through(wrapper);
        let facts = bundle.guest("mountinfo").run().facts();
        let below: Vec<&str> = facts.lines().filter(|line| line.starts_with("/sys")).collect();
        assert!(below.first().is_some_and(|line| line.starts_with("/sys sysfs ro,")), "{facts}");
        for line in &below {
            let options = line.split(' ').nth(2).unwrap_or_default();
            assert!(options.starts_with("ro,nosuid,nodev,noexec"), "{wrapper}: {line}");
        }
        assert_eq!(below.len() == 1, !wrapper.contains("unshare"), "{wrapper}: {facts}");
    }
    let writable = shares().set("/mounts/5/options", json!(["nosuid"]));
    writable.run().fails_with_all(&["mounts[5] /sys", "only with \"ro\" among the options"]);
}

// --- the root ---

#[test]
fn a_read_only_root_is_not_written() {
    Bundle::new()
        .set("/root/readonly", json!(true))
        .guest("multi write /file no -- write /dev/shm/file yes")
        .run()
        .prints("EROFS\nok");
}

#[test]
fn the_old_root_is_gone() {
    let facts = Bundle::new().guest("mountinfo").run().facts();
    assert_eq!(facts.lines().filter(|line| line.starts_with("/ ")).count(), 1, "{facts}");
    assert!(!facts.contains("/home"), "{facts}");
}

#[test]
fn a_bundle_on_a_path_with_odd_letters() {
    let bundle = Bundle::new();
    let odd = bundle.dir.join("a b\\040\"é");
    fs::create_dir(&odd).expect("a directory");
    fs::rename(bundle.dir.join("rootfs"), odd.join("rootfs")).expect("rename");
    bundle.write_config();
    fs::rename(bundle.dir.join("config.json"), odd.join("config.json")).expect("rename");
    let path = odd.display().to_string();
    bundle.call(&["run", "--bundle", &path, &bundle.id]).prints("1");
    bundle.assert_clean();
}

#[test]
fn no_pivot_works_where_asked_for() {
    Bundle::new().option("--no-pivot").guest("multi pid -- ls /").run().says("guest");
}

// --- attacks by the image ---

#[test]
fn a_symlink_in_the_image_does_not_lead_a_mount_to_the_host() {
    // CVE-2019-18837, CVE-2021-30465: the links stay as they are.
    let bundle = Bundle::new();
    let outside = bundle.host_directory("outside");
    for link in [outside.clone(), "../../../../../../../..".to_owned() + &outside] {
        let bundle = Bundle::new().symlink("data", &link);
        bundle.mount("/data", tmpfs(&[])).guest("pid").run().exits(0);
    }
    assert_eq!(fs::read_dir(outside).expect("outside").count(), 1);
}

#[test]
fn a_symlink_in_the_image_does_not_make_directories_on_the_host() {
    // CVE-2024-45310, CVE-2026-41579.
    let bundle = Bundle::new();
    let outside = bundle.host_directory("outside");
    let inner = Bundle::new().symlink("data", &outside).mount("/data/made/here", tmpfs(&[]));
    drop(inner.guest("pid").run());
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 1);
}

#[test]
fn a_symlink_at_dev_does_not_make_devices_on_the_host() {
    let bundle = Bundle::new();
    let outside = bundle.host_directory("outside");
    let inner = Bundle::new().symlink("dev", &outside);
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    drop(inner.set("/mounts", mounts).guest("pid").run());
    assert_eq!(fs::read_dir(&outside).expect("outside").count(), 1);
}

#[test]
fn a_symlink_exchanged_while_the_mounts_are_made_does_not_lead_to_the_host() {
    // CVE-2021-30465 and CVE-2024-45310: another container shares the volume and races against the runtime.
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    let outer = Bundle::new();
    let (outside, volume) = (outer.host_directory("outside"), outer.host_directory("volume"));
    fs::create_dir(format!("{volume}/here")).expect("a directory");
    std::os::unix::fs::symlink(&outside, format!("{volume}/there")).expect("a symlink");
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (here, there) = (format!("{volume}/here"), format!("{volume}/there"));
            let limit = std::time::Instant::now() + std::time::Duration::from_secs(15);
            while !done.load(Relaxed) && std::time::Instant::now() < limit {
                let exchange = rustix::fs::RenameFlags::EXCHANGE;
                // Nothing else removes the two names. If the call fails there is no race, and the test still tells no
                // lie.
                let _ =
                    rustix::fs::renameat_with(rustix::fs::CWD, &*here, rustix::fs::CWD, &*there, exchange);
            }
        });
        for _ in 0..40 {
            let bundle = Bundle::new().mount("/volume", bind(&volume, &[]));
            // The run may fail. The test looks at where the mount point was made.
            drop(bundle.mount("/volume/here/made", tmpfs(&[])).guest("pid").run());
        }
        done.store(true, Relaxed);
    });
    assert_eq!(fs::read_dir(outside).expect("outside").count(), 1, "something was made on the host");
}

#[test]
fn proc_and_sys_must_be_directories() {
    // CVE-2019-19921, CVE-2023-27561, CVE-2025-54867.
    for name in ["proc", "sys"] {
        let bundle = Bundle::new().directory("elsewhere").symlink(name, "elsewhere");
        bundle.run().fails_with_all(&["must be mounted on ordinary directory"]);
    }
}

#[test]
fn a_masked_file_does_not_show_the_images_dev_null() {
    // CVE-2025-31133, CVE-2025-62161.
    let bundle = Bundle::new().file("dev/null", "of the image").file("secret", "hidden");
    let mounts = json!([{"destination": "/proc", "type": "proc", "source": "proc"}]);
    let attempt = bundle
        .set("/mounts", mounts)
        .set("/linux/maskedPaths", json!(["/secret"]))
        .guest("read /secret")
        .run();
    assert!(
        !attempt.output.out.contains("of the image") && !attempt.output.out.contains("hidden"),
        "{}",
        attempt.output
    );
}

// --- masked and read-only paths ---

#[test]
fn masked_paths_are_empty() {
    Bundle::new()
        .file("secret", "hidden")
        .file("secrets/one", "hidden")
        .set("/linux/maskedPaths", json!(["/secret", "/secrets", "/not/there"]))
        .guest("multi read /secret -- ls /secrets -- write /secrets/new no")
        .run()
        .prints("\n\nEROFS");
}

#[test]
fn readonly_paths_are_not_written() {
    Bundle::new()
        .file("fixed/file", "same")
        .set("/linux/readonlyPaths", json!(["/fixed", "/not/there", "/proc/sys"]))
        .guest("multi write /fixed/file no -- read /fixed/file -- write /proc/sys/kernel/hostname no")
        .run()
        .prints("EROFS\nsame\nEROFS");
}

#[test]
fn a_readonly_path_keeps_the_flags_of_its_mount() {
    let facts = Bundle::new()
        .set("/linux/readonlyPaths", json!(["/dev/shm"]))
        .guest("mountinfo /dev/shm")
        .run()
        .facts();
    let last = facts.lines().last().expect("a mount");
    assert_eq!(last.split(' ').nth(2), Some("ro,nosuid,nodev,noexec,relatime"), "{facts}");
}

// --- devices ---

#[test]
fn the_default_devices_are_there() {
    for (name, number) in [
        ("null", "1:3"),
        ("zero", "1:5"),
        ("full", "1:7"),
        ("random", "1:8"),
        ("urandom", "1:9"),
        ("tty", "5:0"),
    ] {
        Bundle::new().guest(&format!("stat /dev/{name}")).run().prints(&format!("char {number} 0666 0 0"));
    }
}

#[test]
fn the_default_links_are_there() {
    for (name, target) in [
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
        ("ptmx", "pts/ptmx"),
    ] {
        Bundle::new().guest(&format!("readlink /dev/{name}")).run().prints(target);
    }
}

#[test]
fn devices_of_the_config_are_made() {
    Bundle::new()
        .set("/linux/devices", json!([{"path": "/dev/deep/mine", "type": "c", "major": 1, "minor": 5, "fileMode": 0o640, "uid": 3, "gid": 4}]))
        .guest("stat /dev/deep/mine")
        .run()
        .prints("char 1:5 0640 3 4");
}

#[test]
fn in_a_user_namespace_devices_work() {
    Bundle::new().user_namespace().guest("multi stat /dev/null -- write /dev/null x").run().says("char 1:3");
}

#[test]
fn a_device_outside_the_list_is_not_opened() {
    // GHSA-g54h-m393-cpwq: a runtime read the list as the devices to deny.
    let disk = fs::metadata("/").expect("a root").dev();
    let (major, minor) = (rustix::fs::major(disk), rustix::fs::minor(disk));
    for devices in [json!([{"allow": false, "access": "rwm"}]), json!([]), json!(null)] {
        let bundle =
            Bundle::new().set("/linux/resources", json!({"devices": devices})).capability("CAP_MKNOD");
        bundle
            .guest(&format!("multi mknod /dev/disk b {major} {minor} -- open /dev/disk r"))
            .run()
            .prints("ok\nEPERM");
    }
}

#[test]
fn an_allowed_device_is_opened() {
    let rules = json!([{"allow": false, "access": "rwm"}, {"allow": true, "type": "c", "major": 1, "minor": 11, "access": "rw"}]);
    Bundle::new()
        .set("/linux/resources/devices", rules)
        .set("/linux/devices", json!([{"path": "/dev/kmsg", "type": "c", "major": 1, "minor": 11}]))
        .guest("multi open /dev/kmsg w -- open /dev/null w -- open /dev/urandom r")
        .run()
        .prints("ok\nok\nok");
}
