//! Containers of an ordinary user: no privilege on the host, and a user namespace with one id.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::os::unix::net::UnixListener;
use std::path::Path;

use serde_json::json;

use crate::support::{Bundle, CGROUP_VIEW, View, accept_fd, bind, eventually, is_root, runtime, under_runc};

/// A user id that need not exist on the host.
const USER: u32 = 64_321;

/// A bundle that this user owns and runs, with the configuration that `spec --rootless` writes.
pub fn rootless() -> Bundle {
    rootless_as(USER, |_| String::new())
}

/// The same for another user, with these words in front of the runtime.
fn rootless_as(user: u32, before: impl Fn(&Bundle) -> String) -> Bundle {
    let bundle = Bundle::new();
    let before = before(&bundle);
    for path in [".", "rootfs", "state"] {
        chown(bundle.dir.join(path), Some(user), Some(user)).expect("chown");
    }
    let map = json!([{"containerID": 0, "hostID": user, "size": 1}]);
    bundle
        .through(&format!(
            "exec setpriv --reuid={user} --regid={user} --clear-groups --inh-caps=-all {before} \"$@\""
        ))
        .copied_runtime()
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/mounts/2/options", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]))
        .remove("/linux/resources")
}

#[test]
fn a_user_runs_a_container_as_its_root() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let facts = rootless().guest("multi ids -- read /proc/self/uid_map -- pid").run().facts();
    let lines: Vec<_> = facts.lines().collect();
    assert!(lines[0].starts_with("uid=0 gid=0 "), "{facts}");
    assert_eq!(lines[1].split_whitespace().collect::<Vec<_>>(), ["0", "64321", "1"]);
    assert_eq!(lines[2], "1");
}

#[test]
fn a_user_has_the_whole_lifecycle() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let container = rootless().started();
    container.exec(&[], "hostname").prints("orlop-test");
    assert_eq!(container.status(), "running");
    container.stop();
    container.delete();
}

#[test]
fn a_user_enters_a_container_that_is_not_started() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let container = rootless().guest("pause").container();
    container.exec(&[], "hostname").prints("orlop-test");
    container.start();
    container.exec(&[], "hostname").prints("orlop-test");
}

#[test]
fn a_user_has_clocks_of_their_own() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    crate::skip_unless!(!under_runc(), "runc 1.1 has no time namespace");
    let bundle = rootless().namespace("time", None);
    let bundle = bundle.set("/linux/timeOffsets", json!({"monotonic": {"secs": 1_000_000_000}}));
    let container = bundle.started();
    for _ in 0..2 {
        let seconds: u64 = container.exec(&[], "clock monotonic").ok().out.trim().parse().expect("seconds");
        assert!(seconds >= 1_000_000_000, "{seconds}");
    }
}

#[test]
fn the_agent_of_a_user_gets_the_notifications() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    for no_new_privileges in [true, false] {
        let bundle = rootless().set("/process/noNewPrivileges", json!(no_new_privileges));
        let path = bundle.dir.join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o777)).expect("chmod");
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "syscalls": [
            {"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}
        ]});
        let agent = std::thread::spawn(move || accept_fd(&listener));
        let _container = bundle.set("/linux/seccomp", profile).guest("pause").container();
        let (text, fds) = agent.join().expect("the agent got its message");
        assert_eq!(fds.len(), 1, "{}", String::from_utf8_lossy(&text));
    }
}

#[test]
fn a_container_whose_processes_cannot_be_found_is_warned_of() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let proc = json!({"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]});
    let bundle = rootless().without_namespace("pid").set("/mounts/0", proc);
    let output = bundle.start("run").finish().ok();
    assert!(output.err.contains("Such configuration is strongly discouraged"), "{output}");
    bundle.assert_clean();
}

#[test]
fn devices_are_the_hosts_own() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    rootless().guest("multi open /dev/null w -- open /dev/urandom r").run().prints("ok\nok");
}

#[test]
fn the_cgroups_of_the_host_are_not_writable() {
    // CVE-2023-25809: rootless and without a cgroup namespace.
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let facts = rootless().guest("mkdir /sys/fs/cgroup/made").run().facts();
    assert!(["EROFS", "EACCES"].contains(&facts.as_str()), "{facts}");
}

#[test]
fn a_container_without_a_cgroup_of_its_own_sees_that_of_the_caller() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    crate::skip_unless!(!View::Host.unified(), "a version 2 tree is shown as it is");
    let bundle = rootless();
    // A cgroup that the user owns: its files would be writable if the mount were.
    let cgroup = format!("/sys/fs/cgroup/devices/{}", bundle.id.replace("test", "user"));
    let script = as_user(&format!(
        "mkdir -p {cgroup}; chown {USER} {cgroup}; echo $$ > {cgroup}/cgroup.procs; chmod 555 {cgroup};"
    ));
    let devices = "/sys/fs/cgroup/devices";
    let words = format!("multi ls {devices} -- mkdir {devices}/made -- write {devices}/tasks 0");
    let facts = bundle.through_anew(&script).guest(&words).run().facts();
    removed(&cgroup);
    let lines: Vec<_> = facts.lines().collect();
    // This is not the root cgroup, which has a file "release_agent".
    assert!(lines[0].contains("cgroup.procs") && !lines[0].contains("release_agent"), "{facts}");
    assert_eq!(lines[1..], ["EROFS", "EROFS"], "{facts}");
}

#[test]
fn limits_that_a_user_may_not_set_are_an_error() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless().set("/linux/resources", json!({"pids": {"limit": 10}}));
    let wanted = match View::Host.unified() {
        true => "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
        false => "cannot set pids limit: container could not join or create cgroup",
    };
    bundle.create().fails_with(wanted);
}

#[test]
fn a_cgroup_that_a_user_may_not_make_is_an_error() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless();
    let path = format!("/{}", bundle.id);
    let wanted = "rootless needs no limits + no cgrouppath when no permission is granted for cgroups";
    bundle.set("/linux/cgroupsPath", json!(path)).create().fails_with(wanted);
}

#[test]
fn a_map_of_ids_that_are_not_the_users_is_refused() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless().set("/linux/uidMappings", json!([{"containerID": 0, "hostID": 0, "size": 1}]));
    bundle.create().fails_with("");
}

/// A script that runs `"$@"` as the user, after the commands in `before`.
fn as_user(before: &str) -> String {
    format!("{before} exec setpriv --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all \"$@\"")
}

#[test]
fn what_spec_writes_runs_as_it_is() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless();
    bundle.call(&["spec", "--rootless"]).ok();
    let path = bundle.dir.join("config.json");
    let text = fs::read_to_string(&path).expect("config.json");
    let mut config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    config["process"]["args"] = json!(["/guest", "multi", "ids", "--", "pid"]);
    config["process"]["terminal"] = json!(false);
    bundle.raw(config.to_string()).run().prints("uid=0 gid=0 groups= umask=0022\n1");
}

#[test]
fn a_user_has_every_verb_that_needs_no_cgroup() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let container = rootless().started();
    let pid = container.pid();
    container.verb("ps", "--format json", "").prints(&format!("[{pid}]"));
    container.bundle.call(&["list", "-q"]).prints(container.id());
    container.verb("pause", "", "").fails(1, &["cgroups not configured for container"]);
    container.verb("update", "--pids-limit 5", "").fails(1, &["cannot set pids limit"]);
    container.verb("events", "--stats", "").ok();
    container.kill("KILL").ok();
    container.wait_until("stopped");
    container.delete();
}

#[test]
fn kill_ends_a_container_without_cgroup_and_pid_namespace() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let container = rootless().without_namespace("pid").guest("pause");
    // Mounting a new procfs needs a pid namespace. This bundle binds the host's.
    let proc = json!({"destination": "/proc", "type": "none", "source": "/proc", "options": ["rbind"]});
    let container = container.set("/mounts/0", proc).started();
    container.verb("kill", "--all", "KILL").ok();
    container.wait_until("stopped");
    container.delete();
}

#[test]
fn with_permission_a_user_has_limits() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    crate::skip_unless!(
        Path::new("/sys/fs/cgroup/pids/tasks").exists(),
        "the pids controller is not on v1 here"
    );
    let bundle = rootless();
    // Its name is not the container's id: each command makes this cgroup, the last command too.
    let cgroup = format!("/sys/fs/cgroup/pids/{}", bundle.id.replace("test", "user"));
    let script =
        as_user(&format!("mkdir -p {cgroup}; chown -R {USER} {cgroup}; echo $$ > {cgroup}/cgroup.procs;"));
    let bundle = bundle.through_anew(&script).set("/linux/resources", json!({"pids": {"limit": 10}}));
    let container = bundle.started();
    let limit = format!("{cgroup}/{}/pids.max", container.id());
    assert_eq!(fs::read_to_string(&limit).expect("the limit").trim(), "10");
    container.exec(&[], "hostname").prints("orlop-test");
    container.verb("update", "--pids-limit 12", "").ok();
    assert_eq!(fs::read_to_string(limit).expect("the limit").trim(), "12");
    drop(container);
    removed(&cgroup);
}

#[test]
fn the_pure_v2_tree_can_be_delegated_to_a_user() {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let bundle = rootless();
    let name = bundle.id.replace("test", "user");
    let cgroup = format!("/sys/fs/cgroup/{name}");
    let script = as_user(&format!(
        "{CGROUP_VIEW:?} v2 true && mkdir -p {cgroup}/shell; \
             chown -R {USER} {cgroup}; echo $$ > {cgroup}/shell/cgroup.procs;"
    ));
    let bundle = bundle
        .through_anew(&format!("exec unshare -m --propagation private sh -c {} _ \"$@\"", quoted(&script)));
    let container = bundle.namespace("cgroup", None).started();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroup");
    // The container's cgroup is beside the shell's, as in runc: a cgroup with processes passes no controllers down.
    let wanted = format!("0::/{name}/{}", container.id());
    assert!(own.lines().any(|line| line == wanted), "{own}");
    container.exec(&[], "read /proc/self/cgroup").ok().says("0::/\n");
    container.verb("pause", "", "").ok();
    assert_eq!(container.status(), "paused");
    container.verb("resume", "", "").ok();
    drop(container);
    let tree = if Path::new("/sys/fs/cgroup/unified").exists() {
        "/sys/fs/cgroup/unified"
    } else {
        "/sys/fs/cgroup"
    };
    for left in ["/shell", ""] {
        removed(&format!("{tree}/{name}{left}"));
    }
}

/// Removes the user's own cgroup as soon as the kernel has released the last command in it.
#[track_caller]
fn removed(cgroup: &str) {
    eventually(&format!("{cgroup} is empty"), || fs::remove_dir(cgroup).is_ok());
}

fn quoted(script: &str) -> String {
    format!("'{}'", script.replace('\'', "'\\''"))
}

#[test]
fn missing_permission_is_passed_over_only_when_told_so() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    for told in ["--rootless=true", "--rootless=auto", ""] {
        rootless().global(told).guest("pid").run().prints("1");
    }
    let bundle = rootless().global("--rootless=false");
    bundle.run().fails_with("unable to apply cgroup configuration");
}

#[test]
fn more_ids_than_one_come_from_the_helpers() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let there = ["/usr/bin/newuidmap", "/usr/bin/newgidmap"].iter().all(|path| Path::new(path).exists());
    crate::skip_unless!(there, "newuidmap and newgidmap are not installed");
    let run = |range: u32| {
        let bundle = rootless();
        for (name, text) in [
            ("passwd", format!("orlop:x:{USER}:{USER}::/:/bin/sh\nroot:x:0:0::/:/bin/sh\n")),
            ("group", format!("orlop:x:{USER}:\nroot:x:0:\n")),
            ("subuid", "orlop:700000:1000\n".to_owned()),
            ("subgid", "orlop:800000:1000\n".to_owned()),
        ] {
            fs::write(bundle.dir.join(name), text).expect("a file");
        }
        let binds: String = ["passwd", "group", "subuid", "subgid"]
            .map(|name| format!("mount --bind '{}' /etc/{name}; ", bundle.dir.join(name).display()))
            .concat();
        let script = as_user(&binds);
        let map = |first: u32| json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": first, "size": range}]);
        bundle
            .through_anew(&format!(
                "exec unshare -m --propagation private sh -c {} _ \"$@\"",
                quoted(&script)
            ))
            .set("/linux/uidMappings", map(700_000))
            .set("/linux/gidMappings", map(800_000))
            .set("/process/user", json!({"uid": 5, "gid": 6, "additionalGids": [7]}))
            .guest("multi ids -- read /proc/self/uid_map -- read /proc/self/gid_map")
    };
    let facts = run(1000).run().facts();
    let words: Vec<_> = facts.split_whitespace().collect();
    let maps = ["0", "64321", "1", "1", "700000", "1000", "0", "64321", "1", "1", "800000", "1000"];
    assert_eq!(words[..4], ["uid=5", "gid=6", "groups=7", "umask=0022"], "{facts}");
    assert_eq!(words[4..], maps, "{facts}");
    // The range is not the user's.
    run(2000).run().fails_with_all(&["linux.uidMappings: newuidmap: ", "(see /etc/subuid)"]);
}

#[test]
fn more_ids_than_one_need_the_helpers() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    let bundle = rootless();
    let script = format!(
        "PATH=/no/such/directory exec {} --reuid={USER} --regid={USER} --clear-groups --inh-caps=-all \"$@\"",
        "/usr/bin/setpriv"
    );
    let map = json!([{"containerID": 0, "hostID": USER, "size": 1}, {"containerID": 1, "hostID": 700_000, "size": 10}]);
    let attempt = bundle.through_anew(&script).set("/linux/uidMappings", map).run();
    let said = "linux.uidMappings: more ids than our own are asked for, and newuidmap is not installed";
    // To engines that means that the container's program is missing.
    assert!(!attempt.output.err.to_lowercase().contains("no such file"), "{}", attempt.output);
    attempt.fails_with(said);
}

#[test]
fn a_full_quota_of_keys_is_a_warning() {
    crate::skip_unless!(is_root(), "becoming another user needs root");
    crate::skip_unless!(!under_runc(), "runc does not go on");
    crate::skip_unless!(Path::new("/proc/sys/kernel/keys/maxkeys").exists(), "the kernel has no keys");
    // This test has a user of its own, so that the quota of the other tests stays free.
    let bundle =
        rootless_as(USER + 1, |bundle| format!("'{}' without-keys", bundle.rootfs("guest").display()));
    let bundle = bundle.guest("multi pid -- keyring");
    let output = bundle.start("run").finish().ok();
    // The caller's keyring, which has no name of its own.
    assert_eq!(output.out, "1\n_ses\n", "{output}");
    for part in ["level=warning", "keyring: keyctl JOIN_SESSION_KEYRING", "quota exceeded"] {
        assert!(output.err.contains(part), "{part}: {output}");
    }
    assert_eq!(output.err.lines().count(), 1, "{output}");
    bundle.assert_clean();
    let bundle = bundle.option("--no-new-keyring");
    let output = bundle.start("run").finish().ok();
    assert_eq!(output.err, "", "{output}");
    bundle.assert_clean();
}

/// Root of a user namespace, as in a container in a container. It has no power over the host's mounts and cgroups.
fn nested(flags: &str) -> Bundle {
    let bundle = Bundle::new();
    let script = format!("exec unshare {flags} \"$@\"");
    bundle.through(&script).remove("/linux/resources")
}

#[test]
fn root_of_a_user_namespace_runs_containers_with_and_without_one_of_their_own() {
    crate::skip_unless!(is_root(), "the ids of the test are root's");
    let sys = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]});
    let pts = json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]);
    for flags in ["-Ur", "-Urm", "-Urmpf --mount-proc"] {
        let bundle = nested(flags).set("/mounts/5", sys.clone()).set("/mounts/2/options", pts.clone());
        let bundle = bundle.without_namespace("network");
        let facts = "multi ids -- pid -- open /dev/null w -- hostname";
        eprintln!("unshare {flags}");
        bundle.guest(facts).run().prints("uid=0 gid=0 groups= umask=0022\n1\nok\norlop-test");
        let map = json!([{"containerID": 0, "hostID": 0, "size": 1}]);
        let bundle = nested(flags).set("/mounts/5", sys.clone()).set("/mounts/2/options", pts.clone());
        let bundle = bundle
            .namespace("user", None)
            .set("/linux/uidMappings", map.clone())
            .set("/linux/gidMappings", map);
        bundle.guest(facts).run().prints("uid=0 gid=0 groups= umask=0022\n1\nok\norlop-test");
    }
}

#[test]
fn what_only_root_of_an_outer_user_namespace_may_enter_is_mounted_in_an_inner_one() {
    // As with rootless podman: root of the engine's namespace is the user, whose home is closed to others. The
    // container's root is another of the user's ids.
    crate::skip_unless!(is_root(), "the ids of the test are root's");
    let bundle = Bundle::new().remove("/linux/resources");
    let own = |path: &Path| chown(path, Some(USER), Some(USER)).expect("chown");
    own(&bundle.dir.join("state"));
    let closed = bundle.host_directory("closed");
    own(Path::new(&closed));
    fs::set_permissions(&closed, fs::Permissions::from_mode(0o700)).expect("chmod");
    let (inner, go) = (bundle.dir.join("inner"), bundle.dir.join("go"));
    chown(bundle.rootfs("/"), Some(700_000), Some(700_000)).expect("chown");
    // A process may write only one id into the maps of its own namespace. So the outer shell writes them when the
    // inner one is there.
    let script = format!(
        "rm -f '{inner}' '{go}'; mkfifo '{go}'; \
         unshare -Um --keep-caps sh -c 'echo $$ >\"{inner}\"; read _ <\"{go}\"; exec setpriv --reuid=0 --regid=0 --clear-groups \"$@\"' _ \"$@\" & \
         job=$!; until [ -s '{inner}' ]; do sleep 0.01; done; pid=$(cat '{inner}'); \
         for map in uid gid; do printf '0 {USER} 1\\n1 700000 10\\n' >/proc/$pid/${{map}}_map; done; \
         echo >'{go}'; wait $job",
        inner = inner.display(),
        go = go.display()
    );
    let map = json!([{"containerID": 0, "hostID": 1, "size": 1}]);
    let sys = json!({"destination": "/sys", "type": "none", "source": "/sys", "options": ["rbind", "ro"]});
    let bundle = bundle
        .through(&script)
        .copied_runtime()
        .namespace("user", None)
        .set("/linux/uidMappings", map.clone())
        .set("/linux/gidMappings", map)
        .set("/mounts/2/options", json!(["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]))
        .set("/mounts/5", sys)
        .without_namespace("network")
        .mount("/data", bind(&format!("{closed}/file"), &["ro"]));
    bundle.guest("multi ids -- read /data").run().prints("uid=0 gid=0 groups= umask=0022\nfrom the host");
}

#[test]
fn a_user_namespace_that_maps_every_id_to_itself_is_not_that_of_the_host() {
    // systemd's PrivateUsers=full makes such a map. Its root is a user: without --root, the state is where users have
    // theirs.
    crate::skip_unless!(is_root() && !under_runc(), "only root may write such a map; runc reads the map");
    let bundle = Bundle::new();
    let script = "unshare -U --keep-caps sh -c 'echo $$ >pid; read _ <go; exec \"$@\"' _ \"$@\" & \
        until [ -s pid ]; do sleep 0.01; done; \
        for map in uid gid; do echo 0 0 4294967295 >/proc/$(cat pid)/${map}_map; done; echo >go; wait $!";
    let run = |script: &str| {
        let mut command = std::process::Command::new("sh");
        command.args(["-c", script, "_"]).arg(runtime()).args(["list", "-q"]);
        command.current_dir(&bundle.dir).env_remove("USER").env("XDG_RUNTIME_DIR", bundle.dir.join("xdg"));
        crate::support::begin(command, &bundle.dir).finish().ok();
        bundle.dir.join("xdg/orlop").exists()
    };
    rustix::fs::mknodat(rustix::fs::CWD, bundle.dir.join("go"), rustix::fs::FileType::Fifo, 0o600.into(), 0)
        .expect("a fifo");
    assert!(!run("exec \"$@\""), "root of the host has none");
    assert!(run(script), "it was taken for root of the host");
}
