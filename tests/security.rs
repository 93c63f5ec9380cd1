//! Attacks that have worked on runtimes of this kind, each first shown to work where nothing is in its way. Those on
//! one area of the configuration stand with that area: mounts, devices, exec, fds, cgroups, bad input.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use serde_json::json;

use crate::support::{Bundle, bind, is_root, under_runc};

/// A container that may look into other processes of its pid namespace, and open whatever it finds there.
fn tracer() -> Bundle {
    ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
        .into_iter()
        .fold(Bundle::new(), Bundle::capability)
}

/// A file of the host as it is named by a procfs of the host, whatever the mount namespace.
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
    // As CVE-2024-21626: found by an exec into a created container.
    crate::skip_unless!(is_root(), "looking into processes of the host needs root");
    let container = tracer().guest("pause").container();
    let mark = mark(&container.bundle);
    container.exec(&[], &format!("hunt {mark} 0.3")).prints("contained");
    // Nothing of the host is open but the fifos at which it waits: no directory to walk from.
    let fds = container.exec(&[], "ls /proc/1/fd").ok().out;
    for fd in fds.split_whitespace() {
        let entries = container.exec(&[], &format!("ls /proc/1/fd/{fd}/..")).out;
        assert!(!entries.contains("state.json") && !entries.contains("config.json"), "fd {fd}: {entries}");
    }
}

#[test]
fn the_hosts_procfs_is_not_reachable_while_exec_enters() {
    // CVE-2016-9962: a process of the container looks into the one that enters.
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
    // CVE-2019-5736. Where the executable is an ordinary file it is only busy, and for no longer than it runs.
    crate::skip_unless!(is_root() && !under_runc(), "it is a read-only mount for root only");
    // A copy of its own, which no other test executes: a running file is busy, whoever may write to it.
    let bundle = Bundle::new().through("shift; exec ./runtime \"$@\"").guest("pause");
    let runtime = bundle.dir.join("runtime");
    fs::copy(crate::support::runtime(), &runtime).expect("a copy of the runtime");
    let reopen = |held: &fs::File| {
        let path = format!("/proc/self/fd/{}", std::os::fd::AsRawFd::as_raw_fd(held));
        fs::OpenOptions::new().write(true).open(path).map_err(|error| error.raw_os_error())
    };
    // What the attack holds is opened while the runtime runs, and written to when it no longer does.
    let naive = fs::File::open(&runtime).expect("the runtime");
    let container = bundle.container();
    let held =
        fs::File::open(format!("/proc/{}/exe", container.pid())).expect("process 1 is the runtime still");
    container.start();
    assert!(reopen(&naive).is_ok(), "the attack does not work on an ordinary file");
    assert_eq!(reopen(&held).err().flatten(), Some(30), "EROFS is what a read-only mount says");
}

#[test]
fn a_link_at_the_pid_file_is_replaced_and_not_followed() {
    let bundle = Bundle::new().option("--pid-file pid").guest("pause");
    let victim = format!("{}/file", bundle.host_directory("host"));
    std::os::unix::fs::symlink(&victim, bundle.dir.join("pid")).expect("a symlink");
    // The attack works on who just opens the path.
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
    // Two readers that take one the first and the other the last would disagree on what was allowed.
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
        bundle.run().fails_with("duplicate field");
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
        // The process, too: the cgroup that it has by default is looked for.
        container.verb("delete", "--force", "").ok();
        container.bundle.assert_clean();
    }
}
