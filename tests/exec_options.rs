//! `exec`: where its process runs, what it gets, and which programs learn of it.

use std::fs;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;

use serde_json::{Value, json};

use crate::support::{Bundle, Container, View, accept_fd, begin, eventually, is_root, under_runc};

/// Calls `exec --process` with the guest, and with more members in the file.
fn exec_file(container: &Container, guest: &str, more: Value, options: &[&str]) -> crate::support::Running {
    let args: Vec<_> = std::iter::once("/guest").chain(guest.split_whitespace()).collect();
    let mut process = json!({"args": args, "cwd": "/", "user": {"uid": 0, "gid": 0}});
    for (key, value) in more.as_object().expect("an object") {
        process[key] = value.clone();
    }
    let path = container.bundle.dir.join("process.json");
    fs::write(&path, process.to_string()).expect("a file");
    let path = path.display().to_string();
    let mut words = options.to_vec();
    let at = words.iter().position(|word| *word == "exec").unwrap_or_else(|| {
        words.push("exec");
        words.len() - 1
    });
    words.splice(at + 1..at + 1, ["--process", &path]);
    words.push(container.id());
    begin(container.bundle.command(&words), &container.bundle.dir)
}

fn two_cpus() -> bool {
    fs::read_to_string("/sys/devices/system/cpu/online").is_ok_and(|text| text.trim().starts_with("0-"))
}

const ALLOWED: &str = "status Cpus_allowed_list";

#[test]
fn the_affinity_of_the_config_is_for_exec_alone() {
    crate::skip_unless!(two_cpus() && !under_runc(), "one CPU, or a runc without execCPUAffinity");
    let affinity = json!({"initial": "0", "final": "1"});
    let bundle = Bundle::new().set("/process/execCPUAffinity", affinity);
    let container = bundle.guest(&format!("multi {ALLOWED} -- pause")).started();
    assert_ne!(container.printed(), "1");
    container.exec(&[], ALLOWED).prints("1");
    let words = ["--debug", "exec", container.id(), "/guest", "pid"];
    let output = container.bundle.call(&words).ok();
    assert!(output.err.contains("affinity: 0x1"), "{output}");
}

#[test]
fn the_affinity_of_a_process_file_wins() {
    crate::skip_unless!(two_cpus() && !under_runc(), "one CPU, or a runc without execCPUAffinity");
    for view in View::ALL {
        if let Some(reason) = view.missing() {
            eprintln!("skipped {view:?}: {reason}");
            continue;
        }
        let bundle = Bundle::new().view(view).set("/process/execCPUAffinity", json!({"final": "1"}));
        let container = bundle.started();
        let run = |affinity: Value| {
            exec_file(&container, ALLOWED, json!({"execCPUAffinity": affinity}), &["--debug", "exec"])
                .finish()
        };
        let output = run(json!({"initial": "1", "final": "0"})).prints("0");
        assert!(output.err.contains("affinity: 0x2"), "{output}");
        // If only "initial" is given, it stays in force.
        run(json!({"initial": "0"})).prints("0");
        let output = run(json!({"final": "0-1"})).prints("0-1");
        assert!(output.err.contains("affinity: 0x3"), "{output}");
    }
}

#[test]
fn an_affinity_that_is_none_is_refused_by_create_and_exec() {
    for (affinity, text) in [
        (json!({"initial": "x"}), "bad CPUAffinity.Initial"),
        (json!({"final": "3-1"}), "bad CPUAffinity.Final"),
        (json!({"final": ","}), "no members found in set"),
    ] {
        Bundle::new().set("/process/execCPUAffinity", affinity.clone()).run().fails_with(text);
        let container = Bundle::new().started();
        let exec = exec_file(&container, "pid", json!({"execCPUAffinity": affinity}), &[]);
        exec.finish().fails(255, &["exec failed: ", text]);
    }
    let container = Bundle::new().started();
    let exec = exec_file(&container, "pid", json!({"execCPUAffinity": {"initial": "4000"}}), &[]);
    exec.finish().fails(255, &["error setting initial CPU affinity"]);
}

#[test]
fn the_pidfd_of_an_exec_comes_over_its_socket() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no pidfd socket");
    let container = Bundle::new().started();
    let path = container.bundle.dir.join("pidfd");
    let listener = UnixListener::bind(&path).expect("a socket");
    let waiting = std::thread::spawn(move || accept_fd(&listener));
    let path = path.display().to_string();
    let exec = container.start_exec(&["--pidfd-socket", &path], "pause");
    let (text, fds) = waiting.join().expect("the pidfd came");
    assert_eq!((text.as_slice(), fds.len()), (b"setns".as_slice(), 1));
    // The test must not kill the process before its execve: exec would report a failure of its own.
    let info = fs::read_to_string(format!("/proc/self/fdinfo/{}", fds[0].as_raw_fd())).expect("the fdinfo");
    let pid = info.lines().find_map(|line| line.strip_prefix("Pid:")).expect("it is a pidfd").trim();
    eventually("it executes", || {
        fs::read(format!("/proc/{pid}/cmdline")).is_ok_and(|line| line.starts_with(b"/guest"))
    });
    rustix::process::pidfd_send_signal(&fds[0], rustix::process::Signal::KILL).expect("it is a pidfd");
    exec.finish().exits(137);
    let output = container.exec(&["--pidfd-socket", "/does/not/exist"], "pid");
    output.fails(255, &["exec failed: ", "--pidfd-socket"]);
}

#[test]
fn an_agent_is_given_the_listener_of_an_exec_too() {
    let rules = json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]);
    let bundle = Bundle::new();
    let path = bundle.dir.join("agent");
    let listener = UnixListener::bind(&path).expect("a socket");
    let agent = std::thread::spawn(move || (accept_fd(&listener), accept_fd(&listener)));
    let seccomp = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules, "listenerPath": path});
    let container = bundle.set("/linux/seccomp", seccomp).started();
    container.exec(&["--pid-file", "pid"], "hostname").prints("orlop-test");
    let (_, (text, fds)) = agent.join().expect("the agent got both");
    let message: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(message["state"]["status"], "running", "{message}");
    assert_eq!(message["state"]["pid"], json!(container.pid()), "the state is the container's: {message}");
    assert_eq!(
        message["pid"].to_string(),
        container.bundle.wait_for("pid"),
        "the pid is the exec's: {message}"
    );
    let link = fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).expect("the fd");
    assert!(link.display().to_string().contains("seccomp notify"), "{link:?}");
}

#[test]
fn sockets_of_activation_are_for_the_first_process_only() {
    let script = "exec 3</dev/null 4</dev/null; export LISTEN_FDS=2 LISTEN_PID=$$; exec \"$@\"";
    let container = Bundle::new().through(script).started();
    container.exec(&[], "multi fds -- env LISTEN_FDS").prints("0 1 2\nunset");
}

/// The container's cgroup in the v2 tree.
fn v2_cgroup(container: &Container) -> PathBuf {
    let text = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroups");
    let path = text.lines().find_map(|line| line.strip_prefix("0::/")).expect("a v2 cgroup");
    let tree = if PathBuf::from("/sys/fs/cgroup/unified").exists() { "unified/" } else { "" };
    PathBuf::from(format!("/sys/fs/cgroup/{tree}{path}"))
}

#[test]
fn exec_may_join_a_cgroup_below_on_version_2() {
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    for bundle in [Bundle::new().view(View::V2), Bundle::new().view(View::V2).user_namespace()] {
        let container = bundle.started();
        let below = v2_cgroup(&container).join("below");
        fs::create_dir(&below).expect("a cgroup below");
        let cgroup = |options: &[&str]| container.exec(options, "read /proc/self/cgroup").ok().out;
        assert!(cgroup(&["--cgroup", "below"]).contains("/below\n"));
        for same in ["/", "below/..", "."] {
            let text = cgroup(&["--cgroup", same]);
            let line = text.lines().find(|line| line.starts_with("0::")).expect("a v2 cgroup");
            assert!(line.ends_with(container.id()), "{same}: {line}");
        }
        container.exec(&["--cgroup", "../up"], "pid").fails(255, &["bad sub cgroup path"]);
        container.exec(&["--cgroup", "cpu:below"], "pid").fails(255, &["unknown controller cpu"]);
        container.exec(&["--cgroup", "missing"], "pid").fails(255, &["exec failed: "]);
        fs::remove_dir(below).expect("the cgroup is empty again");
    }
}

#[test]
fn exec_follows_an_init_that_has_moved_below() {
    // As with docker in docker, or systemd in a container: the container's own cgroup no longer takes processes
    // (EBUSY).
    if let Some(reason) = View::V2.missing() {
        eprintln!("skipped: {reason}");
        return;
    }
    let container = Bundle::new().view(View::V2).started();
    let (own, below) = (v2_cgroup(&container), v2_cgroup(&container).join("below"));
    let controllers = fs::read_to_string(own.join("cgroup.controllers")).unwrap_or_default();
    let Some(controller) = controllers.split_whitespace().next() else {
        eprintln!("skipped: no controller on version 2 here");
        return;
    };
    fs::create_dir(&below).expect("a cgroup below");
    fs::write(below.join("cgroup.procs"), container.pid().to_string()).expect("moved");
    fs::write(own.join("cgroup.subtree_control"), format!("+{controller}")).expect("controllers given away");
    container.exec(&[], "read /proc/self/cgroup").ok().says("/below\n");
}

#[test]
fn exec_enters_a_user_namespace_with_a_time_namespace() {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root, and runc 1.1 has no time namespace");
    let container = Bundle::new().user_namespace().namespace("time", None).started();
    let kinds = ["user", "time", "pid", "mnt", "net", "ipc", "uts"];
    let theirs = kinds.map(|link| {
        fs::read_link(format!("/proc/{}/ns/{link}", container.pid())).expect("link").display().to_string()
    });
    let facts = kinds.map(|link| format!("ns {link}")).join(" -- ");
    container.exec(&[], &format!("multi {facts}")).prints(&theirs.join("\n"));
    container.exec(&[], "ids").prints("uid=0 gid=0 groups= umask=0022");
}

#[test]
fn its_own_failures_are_255_whatever_they_are() {
    let container = Bundle::new().started();
    for (options, guest, part) in [
        (&["--cwd", "relative"][..], "pid", "Cwd must be an absolute path"),
        (&["--env", "no-equals-sign"], "pid", "no-equals-sign"),
        (&["--console-socket", "/tmp/none"], "pid", "cannot use console socket"),
        (&["--tty", "--detach"], "pid", "cannot allocate tty"),
        (&["--pid-file", "/does/not/exist/pid"], "pid", "--pid-file"),
        (&["--apparmor", "orlop-no-such-profile"], "pid", "apparmor"),
    ] {
        if part == "apparmor" && fs::exists("/sys/kernel/security/apparmor").is_ok_and(|there| there) {
            eprintln!("skipped {part}: this host has it");
            continue;
        }
        container.exec(options, guest).fails(255, &["exec failed: ", part]);
    }
    container.bundle.call(&["exec", container.id()]).fails(255, &["exec failed: ", "args"]);
    container.bundle.call(&["exec", "no-such-container", "x"]).fails(255, &["container does not exist"]);
}

#[test]
fn a_user_that_is_no_number_is_a_failure_of_exec() {
    let container = Bundle::new().started();
    for user in ["bob", "1000:staff", "-1"] {
        let exec = container.bundle.call(&["exec", "--user", user, container.id(), "/guest", "pid"]);
        exec.fails(255, &["exec failed: ", "parsing "]);
    }
}

#[test]
fn a_capability_that_nobody_knows_is_warned_of() {
    let container = Bundle::new().started();
    let output = container.exec(&["--cap", "CAP_NOBODY_KNOWS"], "pid").ok();
    let warning = "ignoring unknown or unavailable capabilities: ";
    assert!(output.err.contains(warning) && output.err.contains("CAP_NOBODY_KNOWS"), "{output}");
}

#[test]
fn the_process_is_that_of_the_configuration_by_which_the_container_was_made() {
    crate::skip_unless!(!under_runc(), "runc has no --config");
    let bundle = Bundle::new().guest("pause").set("/process/env", json!(["FROM=other"]));
    bundle.write_config();
    fs::rename(bundle.dir.join("config.json"), bundle.dir.join("other.json")).expect("rename");
    let bundle = bundle.set("/process/env", json!(["FROM=config"])).option("--config other.json");
    bundle.started().exec(&[], "env FROM").prints("other");
}
