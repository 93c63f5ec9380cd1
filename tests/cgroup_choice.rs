//! What a container can choose about its cgroups: their names, their number, their depth, which of them are frozen,
//! and what its files answer to `exec`. Whatever it chooses, state, exec, kill and `delete --force` work within two
//! seconds each.

use std::fs;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, Mode, OFlags};
use serde_json::json;

use crate::support::{Bundle, Container, Output, View, eventually, is_root, under_runc, window};

/// The views that this host can show.
fn views() -> impl Iterator<Item = View> {
    View::ALL.into_iter().filter(|view| match view.missing() {
        Some(reason) => {
            eprintln!("skipped {view:?}: {reason}");
            false
        }
        None => true,
    })
}

/// The cgroups of a process, in each hierarchy that the view has.
fn cgroups_of(pid: i64, view: View) -> Vec<PathBuf> {
    let lines = fs::read(format!("/proc/{pid}/cgroup")).expect("the cgroups");
    let unified = if Path::new("/sys/fs/cgroup/unified").exists() { "unified" } else { "" };
    let of = |line: &[u8]| {
        let mut fields = line.splitn(3, |byte| *byte == b':').skip(1);
        let (name, path) = (fields.next()?, fields.next()?);
        let name = std::str::from_utf8(name).ok()?;
        let name = match name {
            "" if view == View::V1 => return None,
            "" => unified,
            _ if view.unified() => return None,
            name => name.strip_prefix("name=").unwrap_or(name),
        };
        let tree = Path::new("/sys/fs/cgroup").join(name);
        Some(tree.join(std::ffi::OsStr::from_bytes(path.strip_prefix(b"/")?)))
    };
    let own: Vec<_> = lines.split(|byte| *byte == b'\n').filter_map(of).collect();
    own.into_iter().filter(|path| path.exists()).collect()
}

fn own_cgroups(container: &Container, view: View) -> Vec<PathBuf> {
    let own = cgroups_of(container.pid(), view);
    assert!(!own.is_empty() && own.iter().all(|path| path.ends_with(container.id())), "{own:?}");
    own
}

/// Nests cgroups as a container with a writable cgroup mount does. It goes by descriptor: the path may get too long.
fn nest(cgroup: &Path, name: &[u8], depth: usize) -> OwnedFd {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let mut at = rustix::fs::openat(CWD, cgroup, flags, Mode::empty()).expect("the cgroup");
    for _ in 0..depth {
        rustix::fs::mkdirat(&at, name, Mode::from_raw_mode(0o755)).expect("a cgroup");
        at = rustix::fs::openat(&at, name, flags, Mode::empty()).expect("the new cgroup");
    }
    at
}

fn write(cgroup: &OwnedFd, file: &str, text: &str) {
    let file =
        rustix::fs::openat(cgroup, file, OFlags::WRONLY | OFlags::CLOEXEC, Mode::empty()).expect("the file");
    rustix::io::write(&file, text.as_bytes()).expect("a write");
}

#[track_caller]
fn quickly(what: &str, run: impl FnOnce() -> Output) -> Output {
    let began = Instant::now();
    let output = run();
    let (took, limit) = (began.elapsed(), Duration::from_secs(window(2)));
    assert!(took < limit, "{what} took {took:?}: {output}");
    output
}

/// Calls the verbs that must always work. At the end nothing of the container is left.
#[track_caller]
fn all_verbs_work(container: &Container) {
    assert_eq!(quickly("state", || container.verb("state", "", "")).ok().out.matches("running").count(), 1);
    quickly("exec", || container.exec(&[], "hostname")).prints("orlop-test");
    quickly("ps", || container.verb("ps", "--format json", "")).says(&container.pid().to_string());
    quickly("kill", || container.kill("KILL")).ok();
    container.wait_until("stopped");
    quickly("delete", || container.verb("delete", "--force", "")).ok();
    container.bundle.assert_clean();
}

/// A container for which `done` was called with its cgroup in each hierarchy.
fn with_cgroups(view: View, bundle: Bundle, done: impl Fn(&Path)) -> Container {
    let container = bundle.view(view).started();
    own_cgroups(&container, view).iter().for_each(|cgroup| done(cgroup));
    container
}

#[test]
fn cgroups_nested_deeper_than_a_path_can_say_are_removed() {
    for view in views() {
        let name = [b'd'; 250];
        all_verbs_work(&with_cgroups(view, Bundle::new(), |cgroup| drop(nest(cgroup, &name, 20))));
        // Without a pid namespace, only its cgroups tell which processes are the container's.
        let container = Bundle::new().view(view).without_namespace("pid").guest("spawn 3").started();
        container.prints_in_time("ready");
        let pids: Vec<i32> =
            serde_json::from_str(&container.verb("ps", "--format json", "").ok().out).expect("a list");
        // A new cpuset has no CPUs, and no process can enter it.
        let own = own_cgroups(&container, view);
        for cgroup in own.into_iter().filter(|cgroup| !cgroup.join("cpuset.cpus").exists()) {
            let deepest = nest(&cgroup, &name, 20);
            for pid in pids.iter().filter(|pid| i64::from(**pid) != container.pid()) {
                write(&deepest, "cgroup.procs", &pid.to_string());
            }
        }
        let found: Vec<i32> =
            serde_json::from_str(&container.verb("ps", "--format json", "").ok().out).expect("a list");
        assert_eq!(found, pids, "processes of the deepest cgroup are the container's");
        quickly("delete", || container.verb("delete", "--force", "")).ok();
        container.bundle.assert_clean();
    }
}

#[test]
fn the_names_of_cgroups_may_be_any_bytes() {
    for view in views() {
        let container = with_cgroups(view, Bundle::new(), |cgroup| {
            for byte in (1..=255).filter(|byte| ![b'/', b'\n'].contains(byte)) {
                drop(nest(cgroup, &[b'n', byte], 1));
            }
            for name in [&b"\xff) Z 0 (deleted)"[..], b"...", b" 0::/", b"-"] {
                drop(nest(cgroup, name, 2));
            }
        });
        all_verbs_work(&container);
    }
}

#[test]
fn a_thousand_cgroups_in_a_row_and_side_by_side_are_removed() {
    many(1000, 1000);
}

#[test]
#[ignore = "makes 10000 cgroups in each view: make security"]
fn ten_thousand_cgroups_side_by_side_are_removed() {
    // The kernel takes a tenth of a millisecond to remove one cgroup.
    many(10_000, 1);
}

fn many(wide: usize, deep: usize) {
    for view in views() {
        let container = Bundle::new().view(view).started();
        // Only in one hierarchy: making so many takes long.
        let own = own_cgroups(&container, view);
        let cgroup = own.iter().find(|path| path.starts_with("/sys/fs/cgroup/freezer")).unwrap_or(&own[0]);
        let at = nest(cgroup, b"wide", 1);
        for number in 0..wide {
            rustix::fs::mkdirat(&at, number.to_string(), Mode::from_raw_mode(0o755)).expect("a cgroup");
        }
        drop(nest(cgroup, b"x", deep));
        all_verbs_work(&container);
    }
}

/// Moves the process to this cgroup, and freezes the cgroup.
fn freeze(cgroup: &Path, pid: i64) {
    let (file, text) = match cgroup.join("freezer.state").exists() {
        true => ("freezer.state", "FROZEN"),
        false => ("cgroup.freeze", "1"),
    };
    if !cgroup.join(file).exists() {
        return;
    }
    let below = nest(cgroup, &[b'f'; 200], 2);
    write(&below, "cgroup.procs", &pid.to_string());
    write(&below, file, text);
}

/// The container's other processes, which its guest has spawned.
fn others(container: &Container) -> Vec<i64> {
    container.prints_in_time("ready");
    let pids: Vec<i64> =
        serde_json::from_str(&container.verb("ps", "--format json", "").ok().out).expect("a list");
    let init = container.pid();
    pids.into_iter().filter(|pid| *pid != init).collect()
}

#[test]
fn what_a_container_has_frozen_below_itself_dies_all_the_same() {
    for view in views() {
        for shared in [false, true] {
            for init in [false, true] {
                let mut bundle = Bundle::new().view(view).guest("spawn 2");
                if shared {
                    bundle = bundle.without_namespace("pid");
                }
                let container = bundle.started();
                let other = others(&container)[0];
                for cgroup in own_cgroups(&container, view) {
                    freeze(&cgroup, if init { container.pid() } else { other });
                }
                assert_eq!(
                    container.status(),
                    "running",
                    "only the container's own cgroup means that it is paused"
                );
                quickly("exec", || container.exec(&[], "hostname")).prints("orlop-test");
                quickly("kill", || container.kill("KILL")).ok();
                container.wait_until("stopped");
                quickly("delete", || container.verb("delete", "", "")).ok();
                container.bundle.assert_clean();
            }
        }
    }
}

#[test]
fn delete_by_force_takes_what_a_container_has_frozen_below_itself() {
    for view in views() {
        for paused in [false, true] {
            let container = Bundle::new().view(view).guest("spawn 2").started();
            let frozen = others(&container);
            for cgroup in own_cgroups(&container, view) {
                freeze(&cgroup, frozen[0]);
            }
            if paused {
                container.verb("pause", "", "").ok();
                assert_eq!(container.status(), "paused");
            }
            quickly("delete", || container.verb("delete", "--force", "")).ok();
            container.bundle.assert_clean();
        }
    }
}

#[test]
fn pause_and_resume_leave_frozen_what_the_container_has_frozen() {
    for view in views() {
        let container = Bundle::new().view(view).guest("spawn 2").started();
        let other = others(&container)[0];
        let own = own_cgroups(&container, view);
        own.iter().for_each(|cgroup| freeze(cgroup, other));
        container.verb("pause", "", "").ok();
        assert_eq!(container.status(), "paused");
        container.verb("resume", "", "").ok();
        assert_eq!(container.status(), "running");
        let name = String::from_utf8(vec![b'f'; 200]).expect("letters");
        let still = |file: &str| {
            own.iter().find_map(|cgroup| fs::read_to_string(cgroup.join(&name).join(&name).join(file)).ok())
        };
        let (v1, v2) = (still("freezer.self_freezing"), still("cgroup.freeze"));
        assert!(v1.as_deref().is_none_or(|text| text.trim() == "1"), "{v1:?}");
        assert!(v2.as_deref().is_none_or(|text| text.trim() == "1"), "{v2:?}");
    }
}

#[test]
fn exec_does_not_wait_in_a_cgroup_that_the_container_has_frozen() {
    crate::skip_unless!(!under_runc(), "runc waits");
    for view in views() {
        let container = Bundle::new().view(view).guest("spawn 1").started();
        let other = others(&container)[0];
        own_cgroups(&container, view).iter().for_each(|cgroup| freeze(cgroup, other));
        let name = "f".repeat(200);
        let below = format!("{name}/{name}");
        // The other hierarchies of version 1 have no such cgroup.
        let path = if view.unified() { below } else { format!("freezer:{below}") };
        let output = quickly("exec", || container.exec(&["--cgroup", &path], "hostname"));
        output.fails(255, &["cannot exec in a frozen cgroup"]);
    }
}

#[test]
fn the_device_list_holds_in_a_cgroup_below() {
    for view in views() {
        let bundle = Bundle::new().view(view).capability("CAP_MKNOD");
        let container = bundle.started();
        for cgroup in own_cgroups(&container, view) {
            drop(nest(&cgroup, b"below", 1));
            for file in ["cpuset.cpus", "cpuset.mems"] {
                if let Ok(text) = fs::read_to_string(cgroup.join(file)) {
                    fs::write(cgroup.join("below").join(file), text).expect("the CPUs");
                }
            }
        }
        let inside = "multi mknod /dev/mem c 1 1 -- open /dev/mem r -- open /dev/null w";
        container.exec(&["--cgroup", "/below"], inside).prints("ok\nEPERM\nok");
    }
}

// --- exec: which cgroup it takes if the container's own cgroup refuses it ---

#[test]
fn a_file_that_is_busy_leads_exec_to_no_other_cgroup() {
    crate::skip_unless!(Path::new("/dev/fuse").exists(), "no /dev/fuse");
    crate::skip_unless!(
        is_root() && !under_runc(),
        "a FUSE mount in the container needs root; runc does not retry"
    );
    for view in views() {
        let device = json!({"path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 438});
        let rule = json!({"allow": true, "type": "c", "major": 10, "minor": 229, "access": "rw"});
        let container = Bundle::new()
            .view(view)
            .capability("CAP_SYS_ADMIN")
            .directory("/fuse")
            .set("/linux/devices", json!([device]))
            .set("/linux/resources/devices", json!([{"allow": false, "access": "rwm"}, rule]))
            .guest("fuse-busy /fuse")
            .started();
        eventually("the mount is there", || container.printed().contains("ready"));
        let known = own_cgroups(&container, view).len();
        let is_inside =
            |out: &str| out.lines().filter(|line| line.ends_with(container.id())).count() >= known;
        // exec fails, or another process of the runtime tries again. The process never runs outside of the
        // container's cgroups.
        let output = container.exec(&["--cwd", "/fuse"], "cgroup");
        assert!(output.code != 0 || is_inside(&output.out), "{output}");
        // The mount itself works: the server answers EBUSY to the first exec only.
        let output = container.exec(&["--cwd", "/fuse"], "cgroup").ok();
        assert!(is_inside(&output.out), "{output}");
    }
}

#[test]
fn exec_follows_init_into_a_cgroup_of_any_name() {
    let view = View::V2;
    if let Some(reason) = view.missing() {
        return eprintln!("skipped: {reason}");
    }
    let container = Bundle::new().view(view).namespace("cgroup", None).started();
    let own = own_cgroups(&container, view).remove(0);
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).expect("the controllers");
    let known = ["memory", "hugetlb", "io"];
    let Some(controller) = known.iter().find(|name| controllers.split_whitespace().any(|has| has == **name))
    else {
        return eprintln!("skipped: no controller to give away");
    };
    let name = b"\xff :0::x (deleted)";
    let below = nest(&own, name, 1);
    write(&below, "cgroup.procs", &container.pid().to_string());
    fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).expect("a controller");
    container.exec(&[], "read /proc/self/cgroup").ok().says(" :0::x (deleted)");
    // While the container's own cgroup exists, a process in another cgroup is not the container's.
    let other = own.with_file_name(format!("{}-other", container.id()));
    fs::create_dir(&other).expect("a cgroup");
    fs::write(other.join("cgroup.procs"), container.pid().to_string()).expect("a move");
    let output = container.exec(&[], "cgroup");
    fs::write(
        own.join(std::ffi::OsString::from_vec(name.to_vec())).join("cgroup.procs"),
        container.pid().to_string(),
    )
    .expect("a move");
    let removed = (0..200).any(|_| {
        std::thread::sleep(Duration::from_millis(5));
        fs::remove_dir(&other).is_ok()
    });
    output.fails(255, &["linux.cgroupsPath", "gives controllers to cgroups below it"]);
    assert!(removed);
}

#[test]
fn a_delegated_cgroup_has_bounds_which_the_configuration_may_change() {
    let view = View::V2;
    if let Some(reason) = view.missing() {
        return eprintln!("skipped: {reason}");
    }
    crate::skip_unless!(!under_runc(), "runc sets none");
    let delegated =
        || Bundle::new().user_namespace().namespace("cgroup", None).set("/mounts/6/options", json!(["rw"]));
    let bounds = |container: &Container| {
        let own = own_cgroups(container, view).remove(0);
        ["cgroup.max.depth", "cgroup.max.descendants"]
            .map(|file| fs::read_to_string(own.join(file)).expect("the file").trim().to_owned())
    };
    let container = delegated().view(view).started();
    assert_eq!(bounds(&container), ["64", "16384"]);
    container.exec(&[], "write /sys/fs/cgroup/cgroup.max.depth max").prints("EACCES");
    let said = json!({"cgroup.max.depth": "3", "cgroup.max.descendants": "max"});
    let container = delegated().view(view).set("/linux/resources/unified", said).started();
    assert_eq!(bounds(&container), ["3", "max"]);
    // A cgroup that is not delegated has no bounds.
    assert_eq!(bounds(&Bundle::new().view(view).started()), ["max", "max"]);
}

// --- what the runtime itself uses does not count against the container's limits ---

#[test]
fn one_process_is_enough_however_the_container_is_made() {
    crate::skip_unless!(View::Host.has("pids"), "no pids controller");
    let first = Bundle::new().started();
    let path = |link: &str| format!("/proc/{}/ns/{link}", first.pid());
    let joins_pid = || Bundle::new().namespace("pid", Some(&path("pid")));
    let joins_network =
        || Bundle::new().user_namespace().namespace("network", Some(&path("net"))).remove("/hostname");
    let offsets = json!({"monotonic": {"secs": 5}});
    let has_time = || Bundle::new().namespace("time", None).set("/linux/timeOffsets", offsets.clone());
    let joins_cgroup = || joins_pid().namespace("cgroup", Some(&path("cgroup")));
    let hook = json!([{"path": "/bin/sh", "args": ["sh", "-c", "true | true | true"]}]);
    let has_hook = || Bundle::new().set("/hooks/createContainer", hook.clone());
    let shapes: [(&str, &dyn Fn() -> Bundle); 6] = [
        ("direct", &Bundle::new),
        ("joined pid", &joins_pid),
        ("new user, joined network", &joins_network),
        ("time offsets", &has_time),
        ("joined cgroup", &joins_cgroup),
        ("createContainer hook", &has_hook),
    ];
    for view in views().filter(|view| view.has("pids")) {
        for (name, bundle) in shapes {
            eprintln!("{view:?} {name}");
            let limited = || bundle().view(view).set("/linux/resources/pids", json!({"limit": 1}));
            limited().guest("fork-bomb 3").run().prints("forked 0, then EAGAIN");
            let container = limited().started();
            let limits = own_cgroups(&container, view)
                .into_iter()
                .filter_map(|path| fs::read_to_string(path.join("pids.max")).ok());
            assert_eq!(limits.collect::<Vec<_>>(), ["1\n"], "{name}");
        }
    }
}

// --- devices ---

#[test]
fn a_policy_for_devices_that_root_cannot_set_is_an_error_whatever_is_said_of_rootless() {
    crate::skip_unless!(
        is_root() && View::V2.missing().is_none() && !under_runc(),
        "root, and version 2 alone"
    );
    // More rules than one program can hold.
    let one = |minor: u32| json!({"allow": true, "type": "c", "major": 500, "minor": minor, "access": "r"});
    let rules: Vec<_> = (0..20_000).map(one).collect();
    let bundle =
        Bundle::new().view(View::V2).global("--rootless true").set("/linux/resources/devices", json!(rules));
    bundle.create().fails_with("linux.resources.devices");
}

#[test]
fn killed_processes_die_though_the_container_freezes_them_again() {
    let view = View::V1;
    crate::skip_unless!(view.missing().is_none(), view.missing().unwrap_or_default());
    for shared in [false, true] {
        let writable = json!(["nosuid", "noexec", "nodev", "relatime"]);
        let mut bundle = Bundle::new().view(view).guest("refreeze 60").namespace("cgroup", None);
        bundle = bundle.set("/mounts/6/options", writable);
        if shared {
            bundle = bundle.without_namespace("pid");
        }
        let container = bundle.started();
        container.prints_in_time("ready");
        container.kill("KILL").ok();
        let killed = || crate::support::processes(&container.bundle).is_empty();
        eventually("all have died", killed);
        assert_eq!(container.status(), "stopped");
        container.delete();
    }
}
