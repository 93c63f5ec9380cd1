//! Attacks by an image, a volume or a neighbour. Each attack is first shown to work on a program that takes no care.
//! `integration/security/README.md` says which test stands for which advisory. `ORLOP_RACES=1000` makes the races
//! longer.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, symlink};
use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering::Relaxed};

use rustix::fs::{CWD, FileType, Mode, RenameFlags, makedev, mknodat, renameat_with};
use serde_json::{Value, json};

use crate::rootless::rootless;
use crate::support::{Bundle, bind, copy_program, eventually, is_root, terminal, tmpfs, under_runc, window};

/// Makes the bundle from which a test starts.
pub type Make = fn() -> Bundle;

/// Bundles for root, for root of a user namespace, and for an ordinary user.
pub fn everyone() -> [(&'static str, Make); 3] {
    [("root", Bundle::new), ("user namespace", || Bundle::new().user_namespace()), ("rootless", rootless)]
}

pub fn races() -> u32 {
    std::env::var("ORLOP_RACES").ok().and_then(|said| said.parse().ok()).unwrap_or(16)
}

/// The type, mode, owner and contents of a directory and of everything in it.
fn picture(dir: &str) -> Vec<String> {
    let tell = |path: &Path| {
        let meta = fs::symlink_metadata(path).expect("it is there");
        let text = fs::read_to_string(path).unwrap_or_default();
        format!("{path:?} {:o} {}:{} {text}", meta.mode(), meta.uid(), meta.gid())
    };
    let mut all: Vec<_> =
        fs::read_dir(dir).expect("a directory").map(|entry| tell(&entry.expect("an entry").path())).collect();
    all.sort();
    all.push(tell(Path::new(dir)));
    all
}

fn proc_only() -> Value {
    json!([{"destination": "/proc", "type": "proc", "source": "proc"}])
}

// --- links in the image ---

#[test]
fn links_of_the_image_lead_nothing_that_is_made_to_the_host() {
    // CVE-2018-15664 and its kind: /dev, /proc, /sys, /etc of the image are links to a directory of the host.
    crate::skip_unless!(is_root() && !under_runc(), "becoming another user needs root");
    for (who, bundle) in everyone() {
        for link in
            ["dev", "sys", "proc", "dev/pts", "dev/shm", "dev/mqueue", "sys/fs", "sys/fs/cgroup", "work"]
        {
            let outer = Bundle::new();
            let outside = outer.host_directory("outside");
            fs::set_permissions(&outside, std::os::unix::fs::PermissionsExt::from_mode(0o777))
                .expect("chmod");
            let bundle = bundle().symlink(link, &outside);
            // A program that makes the mount points by path makes them on the host.
            let naive = bundle.rootfs(link).join("naive");
            fs::create_dir_all(&naive).expect("a directory");
            assert!(fs::exists(format!("{outside}/naive")).expect("stat"), "{who}: the attack does not work");
            fs::remove_dir(format!("{outside}/naive")).expect("rmdir");
            let before = picture(&outside);
            let bundle = bundle.set("/process/cwd", json!("/work/deep")).mount("/work/made/here", tmpfs(&[]));
            let bundle = bundle.set("/root/readonly", json!(false)).guest("pid");
            // The run may succeed or fail. The test looks at the host only.
            drop(bundle.start("run").finish());
            assert_eq!(picture(&outside), before, "{who}: {link}");
            bundle.assert_clean();
        }
    }
}

#[test]
fn files_of_the_image_in_the_place_of_devices_are_not_used() {
    // CVE-2025-31133, CVE-2025-62161, CVE-2026-88265, CVE-2026-41579: the image has other files in the place of
    // /dev/null, ptmx, console, and the devices on which the standard streams are reopened.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    for (who, bundle) in everyone() {
        for name in ["null", "ptmx", "console", "full", "stdin"] {
            let outer = Bundle::new();
            let outside = outer.host_directory("outside");
            let victim = format!("{outside}/file");
            let bundle = bundle().symlink(&format!("dev/{name}"), &victim).file("secret", "hidden");
            // A program that opens the path opens the host's file.
            assert_eq!(
                fs::read_to_string(bundle.rootfs("dev").join(name)).expect("the victim"),
                "from the host"
            );
            let before = picture(&outside);
            let pts = json!({"destination": "/dev/pts", "type": "devpts", "source": "devpts", "options": ["newinstance", "ptmxmode=0666"]});
            let mut mounts = proc_only();
            mounts.as_array_mut().expect("a list").push(pts);
            let (_master, slave) = terminal(24, 80);
            let bundle = bundle
                .set("/mounts", mounts)
                .set("/linux/maskedPaths", json!(["/secret"]))
                .set("/process/terminal", json!(name == "console" || name == "ptmx"))
                .guest("multi read /secret -- write /dev/null x -- write /dev/stdin x");
            let bundle = bundle.through("exec setsid --ctty \"$@\" >&0 2>&0").stdin(slave);
            drop(bundle.start("run").finish());
            assert_eq!(picture(&outside), before, "{who}: {name}");
            bundle.assert_clean();
        }
    }
}

#[test]
fn a_false_proc_is_not_written_to() {
    // CVE-2019-16884, CVE-2019-19921: writes that are meant for /proc go to files of the image.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    for (who, bundle) in everyone() {
        let file = "fake/sys/net/core/somaxconn";
        let sysctl = json!({"net.core.somaxconn": "123"});
        let bundle = || bundle().file(file, "as it was").set("/linux/sysctl", sysctl.clone());
        let naive = bundle().symlink("proc", "fake");
        fs::write(naive.rootfs("proc/sys/net/core/somaxconn"), "naive").expect("a write through the link");
        assert_eq!(
            fs::read_to_string(naive.rootfs(file)).expect("the file"),
            "naive",
            "the attack does not work"
        );
        let linked = bundle().symlink("proc", "fake");
        let fake = bundle();
        let source = fake.rootfs("fake").display().to_string();
        let bound = bundle().set(
            "/mounts/0",
            json!({"destination": "/proc", "type": "bind", "source": source, "options": ["bind"]}),
        );
        let below = bundle().mount("/proc/sys", bind(&source, &[]));
        let covered = bundle().mount("/proc", tmpfs(&[]));
        for (how, bundle) in [("a link", linked), ("a bind", bound), ("below", below), ("a tmpfs", covered)] {
            let files = [bundle.rootfs(file), fake.rootfs(file)];
            let bundle = bundle.guest("sysctl net.core.somaxconn");
            let output = bundle.start("run").finish();
            // The runtime refuses, or it sets the value in the real /proc.
            assert!(output.code != 0 || output.out.trim() != "as it was", "{who}, {how}: {output}");
            for file in files {
                assert_eq!(fs::read_to_string(file).expect("the file"), "as it was", "{who}, {how}");
            }
        }
    }
}

// --- races ---

/// Exchanges two names again and again while `during` runs.
pub fn exchanging(one: &str, other: &str, during: impl FnOnce()) {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !done.load(Relaxed) {
                // Nothing else removes the two names.
                renameat_with(CWD, one, CWD, other, RenameFlags::EXCHANGE).expect("renameat2");
            }
        });
        // Ends the thread, also after a failed assertion.
        struct End<'a>(&'a AtomicBool);
        impl Drop for End<'_> {
            fn drop(&mut self) {
                self.0.store(true, Relaxed);
            }
        }
        let _end = End(&done);
        during();
    });
}

#[test]
fn a_volume_that_exchanges_a_directory_for_a_link_gets_nothing_of_the_host() {
    // CVE-2021-30465, CVE-2024-45310, CVE-2025-52881: another container with the same volume races against the
    // runtime.
    crate::skip_unless!(is_root() && !under_runc(), "becoming another user needs root");
    for (who, bundle) in everyone() {
        let outer = Bundle::new();
        let (outside, volume) = (outer.host_directory("outside"), outer.host_directory("volume"));
        for path in [&outside, &volume] {
            fs::set_permissions(path, std::os::unix::fs::PermissionsExt::from_mode(0o777)).expect("chmod");
        }
        fs::create_dir(format!("{volume}/here")).expect("a directory");
        symlink(&outside, format!("{volume}/there")).expect("a symlink");
        let (here, there) = (format!("{volume}/here"), format!("{volume}/there"));
        exchanging(&here, &there, || {
            let naive = |_: &u32| {
                // The naive way: look at the path, as filepath-securejoin did, and then make what was looked at.
                let looked = fs::symlink_metadata(&here).is_ok_and(|meta| meta.is_dir());
                looked
                    && fs::create_dir(format!("{here}/naive")).is_ok()
                    && fs::exists(format!("{outside}/naive")).unwrap_or(false)
            };
            let won = (0..200_000).find(naive);
            assert!(won.is_some(), "{who}: the race is never won: the test shows nothing");
        });
        fs::remove_dir(format!("{outside}/naive")).expect("rmdir");
        let before = picture(&outside);
        exchanging(&here, &there, || {
            for round in 0..races() {
                let mount = match round % 4 {
                    0 => tmpfs(&["size=1m"]),
                    1 => bind("/usr/share", &["ro"]),
                    2 => bind("/etc/hostname", &["ro"]),
                    _ => json!({"type": "proc", "source": "proc"}),
                };
                let bundle = bundle().mount("/volume", bind(&volume, &[])).mount("/volume/here/made", mount);
                let bundle = bundle
                    .set("/linux/maskedPaths", json!(["/volume/here/file"]))
                    .set("/linux/readonlyPaths", json!(["/volume/here"]))
                    .set("/process/cwd", json!("/volume/here/cwd"));
                // The run may fail. The test looks at where things were made.
                let bundle = bundle.guest("mountinfo");
                let output = bundle.start("run").finish();
                for line in output.out.lines() {
                    let point = line.split(' ').next().unwrap_or_default();
                    let known = ["/", "/proc", "/dev", "/sys", "/volume"];
                    let inside = known.contains(&point)
                        || ["/dev/", "/sys/", "/proc/", "/volume/"].iter().any(|dir| point.starts_with(dir))
                        || point.starts_with(&outside);
                    assert!(inside, "{who}: a mount at {point}");
                }
                bundle.assert_clean();
            }
        });
        assert_eq!(picture(&outside), before, "{who}: something was made on the host");
    }
}

#[test]
fn a_volume_that_exchanges_proc_gets_no_sysctl_written_elsewhere() {
    // CVE-2025-52881, CVE-2025-62596: the write is redirected while the runtime makes the container.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    let host = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the host's");
    for (who, bundle) in everyone() {
        let outer = Bundle::new();
        let rootfs = outer.rootfs("").display().to_string();
        fs::create_dir_all(format!("{rootfs}/proc")).expect("a directory");
        symlink("fake", format!("{rootfs}/other")).expect("a symlink");
        let outer = outer.file("fake/sys/net/core/somaxconn", "as it was");
        exchanging(&format!("{rootfs}/proc"), &format!("{rootfs}/other"), || {
            for _ in 0..races() / 2 {
                let bundle = bundle().set("/root/path", json!(rootfs)).guest("pid");
                let bundle = bundle.set("/linux/sysctl", json!({"net.core.somaxconn": "321"}));
                // The run may fail. The test looks at the file only.
                drop(bundle.start("run").finish());
                bundle.assert_clean();
            }
        });
        let fake = fs::read_to_string(outer.rootfs("fake/sys/net/core/somaxconn")).expect("the file");
        assert_eq!(fake, "as it was", "{who}");
    }
    assert_eq!(fs::read_to_string("/proc/sys/net/core/somaxconn").expect("the host's"), host);
}

// --- owners ---

#[test]
fn a_device_of_the_host_as_standard_stream_keeps_its_owner() {
    // CVE-2026-88265, and a /dev/null that once belonged to uid 100000. The test makes its own nodes on a tmpfs.
    crate::skip_unless!(is_root() && !under_runc(), "making devices needs root");
    let outer = Bundle::new();
    let nodes = [("null", 1, 3), ("zero", 1, 5), ("full", 1, 7), ("tty", 5, 0)];
    for (name, major, minor) in nodes {
        let path = outer.dir.join(name);
        mknodat(CWD, &path, FileType::CharacterDevice, Mode::from_raw_mode(0o666), makedev(major, minor))
            .expect("mknod");
        let owner =
            || fs::metadata(&path).map(|meta| (meta.uid(), meta.gid(), meta.mode())).expect("the node");
        // A program that gives all of its streams to the container's user gives this node away.
        std::os::unix::fs::chown(&path, Some(1000), Some(1000)).expect("chown");
        assert_eq!(owner().0, 1000, "the attack does not work");
        std::os::unix::fs::chown(&path, Some(0), Some(0)).expect("chown");
        let before = owner();
        let open = || fs::File::options().read(true).write(true).open(&path);
        for (who, bundle) in everyone() {
            // A terminal node that belongs to no session cannot be opened.
            let Ok(stream) = open() else { continue };
            let user = if who == "rootless" {
                json!({"uid": 0, "gid": 0})
            } else {
                json!({"uid": 1000, "gid": 1000})
            };
            let bundle = bundle().set("/process/user", user).stdin(stream).guest("ids");
            bundle.run().says("uid=");
            assert_eq!(owner(), before, "{who}: {name}");
            let container = self::stream(&path, bundle_of(who)).started();
            container.exec(&["--user", if who == "rootless" { "0" } else { "1000" }], "ids").says("uid=");
            assert_eq!(owner(), before, "{who}: exec, {name}");
        }
    }
}

fn bundle_of(who: &str) -> Bundle {
    everyone().into_iter().find(|(name, _)| *name == who).map(|(_, bundle)| bundle()).expect("one of them")
}

fn stream(path: &Path, bundle: Bundle) -> Bundle {
    bundle.stdin(fs::File::options().read(true).write(true).open(path).expect("the node"))
}

#[test]
fn a_device_of_the_config_has_its_owner_and_nothing_else_gets_it() {
    // If others can write to /dev, a name may stand for another file when the runtime changes its owner.
    crate::skip_unless!(is_root() && !under_runc(), "making devices needs root");
    let outer = Bundle::new();
    let volume = outer.host_directory("volume");
    let victim = format!("{volume}/file");
    let device =
        json!([{"path": "/volume/node", "type": "c", "major": 1, "minor": 3, "uid": 1000, "gid": 1000}]);
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let (node, link) = (format!("{volume}/node"), format!("{volume}/link"));
            while !done.load(Relaxed) {
                // Puts the victim under the device's name as soon as the device exists. The calls may fail; the loop
                // tries again.
                let _ = fs::hard_link(&victim, &link);
                if fs::symlink_metadata(&node).is_ok_and(|meta| meta.file_type().is_char_device()) {
                    let _ = fs::rename(&link, &node);
                    let _ = fs::remove_file(&node);
                }
            }
        });
        for _ in 0..races() / 2 {
            let bundle =
                Bundle::new().mount("/volume", bind(&volume, &[])).set("/linux/devices", device.clone());
            drop(bundle.guest("pid").run());
        }
        done.store(true, Relaxed);
    });
    assert_eq!(fs::metadata(&victim).expect("the victim").uid(), 0, "a file was given away");
}

// --- what a process inside reaches ---

#[test]
fn a_container_does_not_possess_the_keys_of_its_caller() {
    crate::skip_unless!(is_root() && !under_runc(), "becoming another user needs root");
    for (who, bundle) in everyone() {
        let with_key = |bundle: Bundle| {
            let script = format!("exec '{}' with-key orlop-secret \"$@\"", bundle.rootfs("/guest").display());
            let path = bundle.dir.join("with-key");
            fs::write(&path, format!("#!/bin/sh\n{script}\n")).expect("a script");
            bundle.guest("find-key orlop-secret")
        };
        let call = |option: &str| {
            let bundle = with_key(bundle());
            bundle.write_config();
            let line = bundle.command(&if option.is_empty() {
                vec!["run", &bundle.id]
            } else {
                vec!["run", option, &bundle.id]
            });
            let mut command = Command::new(bundle.rootfs("/guest"));
            command
                .args(["with-key", "orlop-secret"])
                .arg(line.get_program())
                .args(line.get_args())
                .current_dir(&bundle.dir);
            crate::support::begin(command, &bundle.dir).finish()
        };
        if who == "root" {
            call("--no-new-keyring").prints("found");
        }
        let output = call("").ok();
        assert_ne!(output.out.trim(), "found", "{who}");
    }
}

#[test]
fn the_executable_of_exec_is_not_writable_from_inside() {
    // CVE-2019-5736, through the process that enters.
    crate::skip_unless!(is_root() && !under_runc(), "looking into processes of the host needs root");
    let tracer = || {
        ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
            .into_iter()
            .fold(Bundle::new(), Bundle::capability)
    };
    let bundle = |guest: &str| {
        let bundle = tracer().through("shift; exec ./runtime \"$@\"").guest(guest);
        copy_program(crate::support::runtime(), bundle.dir.join("runtime"));
        copy_program(bundle.rootfs("/guest"), bundle.rootfs("/other"));
        bundle.started()
    };
    // The attack works on an ordinary program that starts and ends.
    let container = bundle(&format!("grab-exe {} /other", window(2)));
    container.bundle.call(&["exec", container.id(), "/other", "sleep", "0.5"]).ok();
    container.prints_in_time("written");
    let container = bundle("grab-exe 4 /");
    for _ in 0..20 {
        let entered = container.exec(&[], "pid");
        // The attacker ends by itself; on a slow host it ends before this loop does.
        if !container.printed().is_empty() {
            break;
        }
        entered.ok();
    }
    eventually("it has ended", || !container.printed().is_empty());
    let got = container.printed();
    assert!(["EROFS", "never seen"].contains(&got.as_str()), "{got}");
}

#[test]
fn who_enters_a_container_cannot_be_traced_by_it() {
    // CVE-2016-9962. With CAP_SYS_PTRACE and without a user namespace, a process may trace every process that it
    // sees, also the runtime's. The capability means that.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    let mapped = || Bundle::new().user_namespace().capability("CAP_SYS_PTRACE");
    for (who, bundle) in [("root", Bundle::new as Make), ("user namespace", mapped)] {
        let container = bundle().started();
        let tracer = container.start_exec(&[], "seize 3");
        for _ in 0..20 {
            container.exec(&[], "sleep 0.02").ok();
        }
        // The attack works on a process that is already the container's.
        assert_eq!(tracer.finish().ok().out.trim(), "seized our own", "{who}");
    }
}

#[test]
fn a_container_that_joins_a_pid_namespace_shows_it_nothing_of_the_host() {
    // The joined namespace sees init while init still has the host's root and descriptors. A hook makes that time
    // long.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    let mapped = || Bundle::new().user_namespace().capability("CAP_SYS_PTRACE");
    let allowed = || {
        ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
            .into_iter()
            .fold(Bundle::new(), Bundle::capability)
    };
    let cases: [(&str, Make, &str); 3] = [
        // The attack works if the tracer may trace the host's root: CAP_SYS_PTRACE without a user namespace allows
        // that.
        ("allowed", allowed, "escaped"),
        ("root", Bundle::new, "contained"),
        ("user namespace", mapped, "contained"),
    ];
    for (who, bundle, expected) in cases {
        let first = bundle().started();
        let mark = format!("{}/file", first.bundle.host_directory("host"));
        let join = |kind: &str| format!("/proc/{}/ns/{kind}", first.pid());
        let second = Bundle::new().guest("pause").namespace("pid", Some(&join("pid")));
        let second = match who {
            "user namespace" => second
                .namespace("user", Some(&join("user")))
                .set("/linux/namespaces/-", json!({"type": "cgroup"})),
            _ => second,
        };
        let hook = json!([{"path": "/bin/sleep", "args": ["sleep", "1.5"]}]);
        let second = second.set("/hooks/createRuntime", hook);
        std::os::unix::fs::chown(second.rootfs(""), Some(100_000), Some(100_000)).expect("chown");
        let hunters =
            [format!("hunt {mark} 2.5"), "seize 2.5".to_owned()].map(|words| first.start_exec(&[], &words));
        let create = second.start("create").finish();
        assert_eq!(create.code, 0, "{who}: {create}");
        let [hunt, seize] = hunters.map(|hunter| hunter.finish().ok().out);
        assert!(hunt.starts_with(expected), "{who}: {hunt}");
        assert_eq!(seize.starts_with("escaped"), expected == "escaped", "{who}: {seize}");
        second.call(&["delete", "--force", &second.id]).ok();
    }
}
