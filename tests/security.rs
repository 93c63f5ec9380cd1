//! Attacks that have worked on other runtimes. Each is first shown to work where nothing stops it. Attacks on one
//! area of the configuration are tests of that area: mounts, devices, exec, fds, cgroups, bad input.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Bundle, bind, eventually, is_root, under_runc};

/// A container that may look into other processes of its pid namespace, and may open every file there.
fn tracer() -> Bundle {
    ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
        .into_iter()
        .fold(Bundle::new(), Bundle::capability)
}

/// The path of a host file below a procfs of the host. It is the same in each mount namespace.
fn mark(bundle: &Bundle) -> String {
    format!("/{}/root{}/file", std::process::id(), bundle.host_directory("host"))
}

#[test]
fn whoever_has_the_hosts_procfs_has_the_host() {
    crate::skip_unless!(is_root(), "looking into processes of the host needs root");
    let bundle = tracer().mount("/host", bind("/proc", &["rbind"]));
    let mark = mark(&bundle);
    bundle.guest(&format!("read /host{mark}")).run().prints("from the host");
}

#[test]
fn the_hosts_procfs_is_not_open_in_a_container_that_waits_for_start() {
    // As in CVE-2024-21626, but through a process that `exec` starts in a created container.
    crate::skip_unless!(is_root(), "looking into processes of the host needs root");
    let container = tracer().guest("pause").container();
    let mark = mark(&container.bundle);
    container.exec(&[], &format!("hunt {mark} 0.3")).prints("contained");
    // Of the host, init has only the fifos open at which it waits. No descriptor is a directory.
    let fds = container.exec(&[], "ls /proc/1/fd").ok().out;
    for fd in fds.split_whitespace() {
        let entries = container.exec(&[], &format!("ls /proc/1/fd/{fd}/..")).out;
        assert!(!entries.contains("state.json") && !entries.contains("config.json"), "fd {fd}: {entries}");
    }
}

#[test]
fn the_hosts_procfs_is_not_reachable_while_exec_enters() {
    // CVE-2016-9962: a process of the container looks into the process that enters.
    crate::skip_unless!(is_root(), "looking into processes of the host needs root");
    let container = tracer().started();
    let mark = mark(&container.bundle);
    let hunters: Vec<_> = [format!("hunt {mark} 3"), "hunt /state.json 3".to_owned()]
        .iter()
        .map(|words| container.start_exec(&[], words))
        .collect();
    for _ in 0..40 {
        container.exec(&[], "pid").ok();
    }
    for hunter in hunters {
        hunter.finish().prints("contained");
    }
}

#[test]
fn the_runtimes_own_executable_is_not_writable_from_inside() {
    // CVE-2019-5736. The executable of an ordinary runtime is protected only while it runs, because it is busy.
    crate::skip_unless!(is_root() && !under_runc(), "it is a read-only mount for root only");
    // A copy that no other test executes: a running file is busy, whatever its permissions.
    let bundle = Bundle::new().through("shift; exec ./runtime \"$@\"").guest("pause");
    let runtime = bundle.dir.join("runtime");
    crate::support::copy_program(crate::support::runtime(), &runtime);
    let reopen = |held: &fs::File| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(held));
        fs::OpenOptions::new().write(true).open(path).map_err(|error| error.raw_os_error())
    };
    // The attacker opens the executable while the runtime runs, and writes to it when the runtime has ended.
    let naive = fs::File::open(&runtime).expect("the runtime");
    let container = bundle.container();
    let held =
        fs::File::open(format!("/proc/{}/exe", container.pid())).expect("process 1 is the runtime still");
    container.start();
    assert!(reopen(&naive).is_ok(), "the attack does not work on an ordinary file");
    assert_eq!(reopen(&held).err().flatten(), Some(30), "EROFS is what a read-only mount says");
}

/// A mount namespace in which the bundle's program `runtime` is on a mount of its own. The process that holds the
/// namespace makes this mount writable on request, as an administrator does for an upgrade.
struct ReadOnlyMount(std::process::Child);

impl ReadOnlyMount {
    fn of(dir: &std::path::Path) -> Self {
        let script = "mount --bind runtime runtime && mount -o remount,bind,ro runtime && echo done && read -r now \
            && mount -o remount,bind,rw runtime && echo done && read -r now";
        let child = std::process::Command::new("unshare")
            .args(["-m", "--propagation", "private", "sh", "-c", script])
            .current_dir(dir)
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .expect("unshare(1)");
        let mut this = Self(child);
        this.wait();
        this
    }

    fn wait(&mut self) {
        let mut said = [0; 5];
        std::io::Read::read_exact(self.0.stdout.as_mut().expect("a pipe"), &mut said).expect("it is mounted");
    }

    fn remount_writable(&mut self) {
        std::io::Write::write_all(self.0.stdin.as_mut().expect("a pipe"), b"now\n")
            .expect("the script reads");
        self.wait();
    }
}

impl Drop for ReadOnlyMount {
    fn drop(&mut self) {
        let _ = self.0.kill(); // It may have ended.
        let _ = self.0.wait();
    }
}

#[test]
fn the_runtimes_executable_stays_unwritable_when_a_read_only_mount_of_the_host_becomes_writable() {
    // CVE-2019-5736, with patience: the attacker opens the file on a read-only mount, and writes to it during the
    // next upgrade.
    crate::skip_unless!(is_root() && !under_runc(), "mounting needs root");
    let bundle = Bundle::new();
    crate::support::copy_program(crate::support::runtime(), bundle.dir.join("runtime"));
    let mut mount = ReadOnlyMount::of(&bundle.dir);
    let enter = format!(
        "shift; exec nsenter --mount=/proc/{}/ns/mnt sh -c 'cd \"$0\" && exec ./runtime \"$@\"' \"$PWD\" \"$@\"",
        mount.0.id()
    );
    let naive = fs::File::open(format!("/proc/{}/root{}/runtime", mount.0.id(), bundle.dir.display()));
    let container = bundle.through(&enter).guest("pause").container();
    let open = |pid| fs::File::open(format!("/proc/{pid}/exe")).expect("the runtime of this process");
    let init = open(container.pid() as i32);
    container.start();
    let entering = container.start_exec(&["--pid-file", "pid"], "sleep 0.5");
    let pid_file = container.bundle.dir.join("pid");
    eventually("it has entered", || fs::read_to_string(&pid_file).is_ok_and(|pid| !pid.is_empty()));
    let line = |pid: &i32| fs::read_to_string(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let parent =
        crate::support::processes(&container.bundle).into_iter().find(|pid| line(pid).contains("\0exec\0"));
    let exec = open(parent.expect("the runtime that waits for the process"));
    entering.finish().ok();
    mount.remount_writable();
    let reopen = |held: &fs::File| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(held));
        fs::OpenOptions::new().write(true).open(path).map_err(|error| error.raw_os_error()).map(drop)
    };
    assert_eq!(reopen(&naive.expect("the program")), Ok(()), "the mount of the host is writable by now");
    for (what, held) in [("init", &init), ("exec", &exec)] {
        assert_eq!(reopen(held), Err(Some(30)), "{what}: EROFS is what a mount of our own says");
    }
}

#[test]
fn nothing_of_the_runtime_in_a_container_is_of_a_writable_mount() {
    // /proc/PID/map_files leads to the same file as /proc/PID/exe.
    crate::skip_unless!(is_root() && !under_runc(), "it is a read-only mount for root only");
    let container = Bundle::new().guest("pause").container();
    let proc = std::path::PathBuf::from(format!("/proc/{}", container.pid()));
    let mut mapped: Vec<_> = fs::read_dir(proc.join("map_files"))
        .expect("what it has mapped")
        .flatten()
        .map(|entry| entry.path())
        .collect();
    assert!(mapped.len() >= 3, "text, constants and data: {mapped:?}");
    mapped.push(proc.join("exe"));
    for file in mapped {
        let flags = rustix::fs::statvfs(&file).expect("a file").f_flag;
        assert!(flags.contains(rustix::fs::StatVfsMountFlags::RDONLY), "{file:?}: {flags:?}");
    }
    // ps(1) and containers read these files. They show nothing of the runtime's own command line.
    let said = fs::read_to_string(proc.join("cmdline")).expect("its command line");
    assert_eq!(said.trim_end_matches('\0'), "orlop\0init");
    let comm = fs::read_to_string(proc.join("comm")).expect("its name");
    let program = crate::support::runtime();
    let name = std::path::Path::new(&program).file_name().and_then(|name| name.to_str()).unwrap_or_default();
    assert_eq!(comm.trim_end(), &name[..name.len().min(15)]);
    container.start();
}

#[test]
fn a_link_at_the_pid_file_is_replaced_and_not_followed() {
    let bundle = Bundle::new().option("--pid-file pid").guest("pause");
    let victim = format!("{}/file", bundle.host_directory("host"));
    std::os::unix::fs::symlink(&victim, bundle.dir.join("pid")).expect("a symlink");
    // The attack works on a program that opens the path.
    assert_eq!(fs::read_to_string(bundle.dir.join("pid")).expect("a file"), "from the host");
    let container = bundle.container();
    assert_eq!(fs::read_to_string(&victim).expect("the victim"), "from the host");
    let pid = fs::read_to_string(container.bundle.dir.join("pid")).expect("a pid file");
    assert_eq!(pid, container.pid().to_string());
}

#[test]
fn the_state_of_a_container_is_its_owners_alone() {
    let container = Bundle::new().guest("pause").container();
    let dir = container.bundle.dir.join("state").join(container.id());
    let mode = |path| fs::metadata(path).expect("a file of ours").permissions().mode() & 0o7777;
    assert_eq!(mode(dir.clone()), 0o700);
    for entry in fs::read_dir(dir).expect("the state").flatten() {
        assert_eq!(mode(entry.path()), 0o600, "{:?}", entry.path());
    }
}

#[test]
fn a_config_that_says_a_thing_twice_is_refused() {
    // If one reader takes the first value and another reader the last, they disagree on what is allowed.
    let bundle = Bundle::new();
    bundle.write_config();
    let text = fs::read_to_string(bundle.dir.join("config.json")).expect("the config");
    for (once, twice) in [
        ("\"noNewPrivileges\": true", "\"noNewPrivileges\": true, \"noNewPrivileges\": false"),
        (
            "\"process\": {",
            "\"process\": {\"args\": [\"/guest\"], \"cwd\": \"/\", \"user\": {}}, \"process\": {",
        ),
    ] {
        assert!(text.contains(once), "{once} is not in {text}");
        let bundle = Bundle::new().raw(text.replacen(once, twice, 1));
        bundle.run().fails_with("given twice, with different values; write it once");
    }
}

#[test]
fn a_config_without_end_is_refused_before_it_is_read() {
    let endless = format!("{{\"ociVersion\": \"1.2.0\", \"hostname\": \"{}\"}}", "a".repeat(17 << 20));
    Bundle::new().raw(endless).run().fails_with("over 16 MiB");
    let mounts = vec![json!({"destination": "/x", "type": "tmpfs", "source": "x"}); 100_001];
    Bundle::new().set("/mounts", json!(mounts)).run().fails_with("mounts");
}

#[test]
fn a_record_that_was_cut_off_costs_neither_the_list_nor_the_id() {
    for percent in [0, 1, 30, 60, 99] {
        let container = Bundle::new().started();
        let file = container.bundle.dir.join("state").join(container.id()).join("state.json");
        let text = fs::read(&file).expect("the record");
        fs::write(&file, &text[..text.len() * percent / 100]).expect("the record");
        container.bundle.call(&["list"]).ok();
        // delete ends the process, too: it looks at the cgroup that a container has by default.
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    }
}

#[test]
fn a_console_socket_that_is_none_is_refused_and_not_touched() {
    let bundle = Bundle::new().set("/process/terminal", json!(true)).option("--console-socket console");
    let victim = format!("{}/file", bundle.host_directory("host"));
    std::os::unix::fs::symlink(&victim, bundle.dir.join("console")).expect("a symlink");
    // The attack works on a program that writes to the path.
    assert_eq!(fs::read_to_string(bundle.dir.join("console")).expect("a file"), "from the host");
    bundle.create().fails_with_all(&["--console-socket", "connection refused"]);
    // The pid file of exec is treated in the same way.
    let bundle = Bundle::new();
    let victim = format!("{}/file", bundle.host_directory("host"));
    let container = bundle.started();
    std::os::unix::fs::symlink(&victim, container.bundle.dir.join("pid")).expect("a symlink");
    let pid = container.bundle.dir.join("pid").display().to_string();
    container.exec(&["--detach", "--pid-file", &pid], "sleep 1").ok();
    assert_eq!(fs::read_to_string(&victim).expect("the victim"), "from the host");
    assert!(fs::read_to_string(&pid).expect("a pid file").parse::<u32>().is_ok());
}

#[test]
fn an_id_that_does_not_fit_is_refused_wherever_one_is_taken() {
    // 4294967295 means "unchanged" to setuid and chown: root would stay root. A cast to 32 bits makes 0 of 2^32.
    assert_eq!(4_294_967_296_u64 as u32, 0, "the naive cast");
    for number in [json!(-1), json!(4_294_967_295_u64), json!(4_294_967_296_u64), json!("1"), json!(1.5)] {
        let device =
            |key: &str| json!([{"path": "/dev/x", "type": "c", "major": 1, "minor": 3, key: number}]);
        let map = |key: &str| {
            let mut row = json!({"containerID": 0, "hostID": 100_000, "size": 10});
            row[key] = number.clone();
            json!([row])
        };
        for (pointer, value) in [
            ("/process/user/uid", number.clone()),
            ("/process/user/gid", number.clone()),
            ("/process/user/additionalGids", json!([number])),
            ("/linux/devices", device("uid")),
            ("/linux/devices", device("gid")),
            ("/linux/uidMappings", map("containerID")),
            ("/linux/uidMappings", map("hostID")),
            ("/linux/gidMappings", map("hostID")),
            ("/linux/gidMappings", map("size")),
        ] {
            let bundle =
                if pointer.ends_with("Mappings") { Bundle::new().user_namespace() } else { Bundle::new() };
            let name = pointer.split('/').next_back().expect("a name");
            bundle.set(pointer, value).guest("ids").run().fails_with(name);
        }
    }
    // The end of this range is past the last id.
    let map = json!([{"containerID": 0, "hostID": 4_294_967_290_u64, "size": 10}]);
    Bundle::new().user_namespace().set("/linux/uidMappings", map).run().fails_with("uidMappings");
    let container = Bundle::new().started();
    for user in ["-1", "4294967295", "4294967296", "0:4294967295", "0:-1", "18446744073709551616"] {
        assert_ne!(container.exec(&["--user", user], "ids").code, 0, "--user {user}");
        let groups = user.split(':').next_back().expect("a number");
        assert_ne!(
            container.exec(&["--additional-gids", groups], "ids").code,
            0,
            "--additional-gids {groups}"
        );
    }
}

#[test]
fn an_id_does_not_lead_to_the_container_of_another_root() {
    let container = Bundle::new().started();
    let other = container.bundle.dir.join("other");
    fs::create_dir(&other).expect("another root");
    let id = format!("../state/{}", container.id());
    // The attack works on a program that appends the id to the root.
    assert!(other.join(&id).join("state.json").exists());
    for words in [
        vec!["state", &id],
        vec!["kill", &id, "KILL"],
        vec!["delete", "--force", &id],
        vec!["pause", &id],
        vec!["start", &id],
        vec!["ps", &id],
        vec!["events", "--stats", &id],
        vec!["update", "--pids-limit", "5", &id],
        vec!["exec", &id, "/guest", "pid"],
    ] {
        let mut command = std::process::Command::new(crate::support::runtime());
        command.arg("--root").arg(&other).args(&words).current_dir(&container.bundle.dir);
        let output = crate::support::begin(command, &container.bundle.dir).finish();
        assert_ne!(output.code, 0, "{output}");
        assert_eq!(container.status(), "running", "{words:?}");
    }
}

#[test]
fn exec_does_not_leave_the_cgroup_of_its_container() {
    let container = Bundle::new().started();
    for path in ["../", "../..", "/../x", "a/../../..", "/../../../"] {
        let output = container.exec(&["--cgroup", path], "cgroup");
        assert!(output.code != 0 || output.out.contains(container.id()), "{path}: {output}");
    }
}

#[test]
fn a_sysctl_does_not_leave_what_is_the_containers() {
    // Each key names a file outside of the container's namespaces by a path through a file inside of them.
    assert!(fs::exists("/proc/sys/net/core/../../kernel/panic").expect("stat"), "the way is there");
    let before = fs::read_to_string("/proc/sys/kernel/panic").expect("the host's");
    for key in [
        "net/core/../../kernel/panic",
        "net.core.../../../kernel/panic",
        "net/../kernel/panic",
        "fs.mqueue/../../kernel/panic",
        "net//../kernel/panic",
        "/proc/sys/kernel/panic",
        "net\0/x",
        "../sys/kernel/panic",
    ] {
        let mut sysctl = serde_json::Map::new();
        sysctl.insert(key.to_owned(), json!("33"));
        Bundle::new().set("/linux/sysctl", json!(sysctl)).run().fails_with("linux.sysctl");
    }
    assert_eq!(fs::read_to_string("/proc/sys/kernel/panic").expect("the host's"), before);
}

#[test]
fn annotations_give_no_right_that_the_configuration_does_not() {
    // CVE-2024-3154, CVE-2025-24965, CVE-2026-84042: properties of systemd, and other programs in the runtime's place.
    for (name, value) in [
        ("org.systemd.property.ExecStartPre", "[('/bin/sh', ['sh', '-c', 'touch /made'], false)]"),
        ("run.oci.handler", "krun"),
        ("module.wasm.image/variant", "compat"),
        ("io.crun.wasm", "1"),
    ] {
        let mut annotations = serde_json::Map::new();
        annotations.insert(name.to_owned(), json!(value));
        let bundle = Bundle::new().symlink(".krun_config.json", "/made").guest("ids");
        let output = bundle.set("/annotations", json!(annotations)).start("run").finish();
        // The runtime refuses the annotation or ignores it: the process is the one of the configuration.
        assert!(output.code != 0 || output.out.starts_with("uid=0"), "{name}: {output}");
        assert!(!fs::exists("/made").expect("stat"), "{name}");
    }
}

#[test]
fn nothing_is_restored_from_what_an_image_says() {
    // CVE-2026-119101, CVE-2026-115520, CVE-2026-119614: orlop has no restore.
    let bundle = Bundle::new();
    bundle.write_config();
    assert_ne!(bundle.call(&["restore", "--image-path", ".", &bundle.id]).code, 0);
    bundle.assert_clean();
}

#[test]
fn what_spec_writes_has_no_inheritable_capabilities() {
    // CVE-2022-24769.
    let dir = Bundle::new();
    dir.call(&["spec"]).ok();
    let text = fs::read_to_string(dir.dir.join("config.json")).expect("config.json");
    let config: serde_json::Value = serde_json::from_str(&text).expect("JSON");
    let sets = &config["process"]["capabilities"];
    assert!(sets["bounding"].as_array().is_some_and(|list| !list.is_empty()));
    let empty = |set: &str| sets[set].as_array().is_none_or(Vec::is_empty);
    assert!(empty("inheritable") && empty("ambient"), "{sets}");
}

#[test]
fn no_tree_is_removed_by_name() {
    // CVE-2022-21658: the runtime never walks by path what a container can write to.
    for file in ["src/state.rs", "src/destroy.rs", "src/launch.rs", "src/commands/delete.rs"] {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
        assert!(!fs::read_to_string(path).expect("a source file").contains("remove_dir_all"), "{file}");
    }
}
