//! exec: a second process in a running container.

use std::fs;

use serde_json::json;

use crate::support::{Bundle, Container, eventually, under_runc};

fn container() -> Container {
    Bundle::new().started()
}

#[test]
fn exec_runs_in_the_namespaces_of_the_container() {
    let container = container();
    for kind in ["pid", "net", "ipc", "uts", "mnt"] {
        let theirs = fs::read_link(format!("/proc/{}/ns/{kind}", container.pid())).expect("the link");
        container.exec(&[], &format!("ns {kind}")).prints(&theirs.display().to_string());
    }
}

#[test]
fn exec_is_in_the_cgroup_of_the_container() {
    let container = container();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroup");
    container.exec(&[], "cgroup").prints(own.trim_end());
}

#[test]
fn exec_exits_as_its_process_does() {
    let container = container();
    for status in [0, 1, 42, 255] {
        container.exec(&[], &format!("exit {status}")).exits(status);
    }
    for signal in [9, 15] {
        container.exec(&[], &format!("kill-self {signal}")).exits(128 + signal);
    }
}

#[test]
fn exec_of_a_missing_program_is_255_and_named_as_engines_expect() {
    let container = container();
    let exec = |program| container.bundle.call(&["exec", container.id(), program]);
    exec("no-such").fails(255, &["exec failed: ", r#"exec: "no-such": executable file not found in $PATH"#]);
    exec("/no/such")
        .fails(255, &["exec failed: ", r#"exec: "/no/such": stat /no/such: no such file or directory"#]);
}

#[test]
fn exec_in_a_stopped_container_is_an_error() {
    let container = container();
    container.stop();
    container.exec(&[], "pid").fails(255, &["cannot exec in a stopped container"]);
}

#[test]
fn exec_works_in_a_created_container() {
    Bundle::new().container().exec(&[], "hostname").prints("orlop-test");
}

#[test]
fn the_process_comes_from_the_config_but_for_its_args() {
    let container = Bundle::new()
        .set("/process/env/-", json!("FROM=config"))
        .directory("work")
        .set("/process/cwd", json!("/work"))
        .started();
    container.exec(&[], "multi env FROM -- cwd").prints("config\n/work");
}

#[test]
fn env_is_added_and_the_last_wins() {
    let container = container();
    container
        .exec(&["--env", "A=1", "--env", "B=x=y", "--env", "A=2"], "multi env A -- env B -- env TERM")
        .prints("2\nx=y\nxterm");
}

#[test]
fn cwd_is_changed() {
    let container = Bundle::new().directory("a/b").started();
    container.exec(&["--cwd", "/a/b"], "cwd").prints("/a/b");
}

#[test]
fn a_missing_cwd_is_an_error_and_is_not_made() {
    let container = container();
    container.exec(&["--cwd", "/no/such"], "cwd").fails(
        255,
        &[r#"chdir to cwd ("/no/such") set in config.json failed: "#, "no such file or directory"],
    );
    assert!(!container.bundle.rootfs("no").exists());
}

#[test]
fn user_is_numeric_and_may_have_a_group() {
    let container = container();
    container.exec(&["--user", "1000"], "ids").prints("uid=1000 gid=0 groups= umask=0022");
    container.exec(&["-u", "1000:2000"], "ids").prints("uid=1000 gid=2000 groups= umask=0022");
}

#[test]
fn a_user_number_is_never_a_name_of_the_image() {
    // CVE-2016-3697.
    let container = Bundle::new().file("etc/passwd", "1000:x:0:0::/:/guest\n").started();
    container.exec(&["--user", "1000"], "ids").ok().says("uid=1000 ");
}

#[test]
fn a_user_that_is_no_32_bit_number_is_refused() {
    // CVE-2026-46680 and CVE-2026-30892: the number was taken as a name, or as 0.
    let container = container();
    for user in ["4294967296", "4294967295", "-1", "root", "1:x"] {
        let output = container.exec(&["--user", user], "ids");
        assert!(output.code != 0, "{user:?}: {output}");
    }
}

#[test]
fn additional_groups_are_set() {
    let container = container();
    container.exec(&["-g", "7", "-g", "8"], "ids").prints("uid=0 gid=0 groups=7,8 umask=0022");
}

#[test]
fn a_capability_is_added_but_never_inheritable() {
    // CVE-2022-29162.
    let container = container();
    let caps = container.exec(&["--cap", "CAP_NET_RAW"], "caps").ok().out;
    let of = |set: &str| caps.lines().find(|line| line.starts_with(set)).expect("the set").to_owned();
    for set in ["bounding", "effective", "permitted"] {
        assert!(of(set).contains("CAP_NET_RAW"), "{caps}");
    }
    assert_eq!(of("inheritable"), "inheritable=");
    assert_eq!(of("ambient"), "ambient=");
}

#[test]
fn no_new_privs_can_be_turned_on_only() {
    let free = Bundle::new().set("/process/noNewPrivileges", json!(false)).started();
    free.exec(&[], "status NoNewPrivs").prints("0");
    free.exec(&["--no-new-privs"], "status NoNewPrivs").prints("1");
    container().exec(&["--no-new-privs=false"], "status NoNewPrivs").prints("1");
}

#[test]
fn a_process_file_says_everything() {
    let container = Bundle::new().directory("work").started();
    let process = json!({
        "args": ["/guest", "multi", "cwd", "--", "ids", "--", "env"], "cwd": "/work", "env": ["ONLY=this"],
        "user": {"uid": 5, "gid": 6, "additionalGids": [7], "umask": 0o77}
    });
    fs::write(container.bundle.dir.join("process.json"), process.to_string()).expect("the file");
    let output = container.verb("exec", "--process process.json", "").ok();
    let lines: Vec<_> = output.out.lines().collect();
    assert_eq!(lines[..3], ["/work", "uid=5 gid=6 groups=7 umask=0077", "ONLY=this"], "{output}");
}

#[test]
fn a_broken_process_file_is_255() {
    let container = container();
    for text in
        ["", "{", r#"{"cwd":"/"}"#, r#"{"args":[],"cwd":"/"}"#, r#"{"args":["/guest"],"cwd":"relative"}"#]
    {
        fs::write(container.bundle.dir.join("process.json"), text).expect("the file");
        container.verb("exec", "--process process.json", "").exits(255);
    }
    container.verb("exec", "--process /does/not/exist", "").exits(255);
}

#[test]
fn detached_exec_returns_with_the_pid_in_the_file() {
    let container = container();
    container.exec(&["--detach", "--pid-file", "exec.pid"], "pause").ok();
    let pid = container.bundle.wait_for("exec.pid");
    let path = format!("/proc/{pid}/cmdline");
    eventually("the process is ours", || {
        fs::read_to_string(&path).is_ok_and(|line| line == "/guest\0pause\0")
    });
}

#[test]
fn exec_passes_signals_on() {
    let container = container();
    let running = container.start_exec(&[], "trap SIGTERM 7");
    running.until("ready");
    running.signal(rustix::process::Signal::TERM);
    running.finish().exits(7);
}

#[test]
fn a_paused_container_is_not_entered() {
    let container = container();
    container.verb("pause", "", "").ok();
    container.exec(&[], "pid").fails(255, &["cannot exec in a paused container"]);
}

#[test]
fn ignore_paused_waits_for_the_resume() {
    let container = container();
    container.verb("pause", "", "").ok();
    let running = container.start_exec(&["--ignore-paused"], "hostname");
    std::thread::sleep(std::time::Duration::from_millis(100));
    container.verb("resume", "", "").ok();
    running.finish().prints("orlop-test");
}

#[test]
fn exec_may_join_a_cgroup_below() {
    let container = container();
    let own = fs::read_to_string(format!("/proc/{}/cgroup", container.pid())).expect("the cgroup");
    let pids = own.lines().find_map(|line| line.split_once(":pids:")).map(|(_, path)| path.to_owned());
    crate::skip_unless!(pids.is_some(), "the pids controller is not on v1 here");
    let path = format!("/sys/fs/cgroup/pids{}/below", pids.unwrap_or_default());
    fs::create_dir(&path).expect("a cgroup below");
    container.exec(&["--cgroup", "pids:below"], "cgroup").ok().says("/below\n");
    container.exec(&["--cgroup", "pids:../up"], "cgroup").fails(255, &["bad sub cgroup path"]);
    fs::remove_dir(path).expect("the cgroup is empty again");
}

#[test]
fn the_rlimits_of_the_config_hold_for_exec() {
    container().exec(&[], "rlimit RLIMIT_NOFILE").prints("1024:1024");
}

#[test]
fn exec_in_a_user_namespace_is_its_root() {
    let container = Bundle::new().user_namespace().started();
    container.exec(&[], "multi ids -- read /proc/self/uid_map").ok().says("uid=0 gid=0").says("100000");
}

#[test]
fn no_part_of_the_host_is_reachable_while_exec_enters() {
    // CVE-2016-9962 and CVE-2024-21626: the container looks for an fd, cwd or root of the entering runtime.
    let container = Bundle::new().capability("CAP_SYS_PTRACE").started();
    let mark = format!("{}/file", container.bundle.host_directory("host"));
    let hunters: Vec<_> = (0..2).map(|_| container.start_exec(&[], &format!("hunt {mark} 3"))).collect();
    for _ in 0..20 {
        container.exec(&[], "pid").ok();
    }
    for hunter in hunters {
        hunter.finish().prints("contained");
    }
}

#[test]
fn a_working_directory_behind_a_leaked_fd_is_refused() {
    // CVE-2024-21626.
    let container = Bundle::new().symlink("leak", "/proc/self/fd").started();
    for number in 3..16 {
        for cwd in [format!("/proc/self/fd/{number}"), format!("/leak/{number}")] {
            let output = container.exec(&["--cwd", &cwd], "cwd");
            // The container's own directories that exec has open lead to no other place.
            let own = output.out.trim() == "/proc";
            assert!(!output.out.contains("(unreachable)") && (own || output.code != 0), "{cwd}: {output}");
        }
    }
}

#[test]
fn many_execs_at_once_all_succeed() {
    let container = container();
    let running: Vec<_> = (0..20).map(|_| container.start_exec(&[], "hostname")).collect();
    for one in running {
        one.finish().prints("orlop-test");
    }
    // Only the container's own process is left in it.
    let pids = container.verb("ps", "--format json", "").ok().out;
    assert_eq!(pids.trim(), format!("[{}]", container.pid()));
}

#[test]
fn exec_keeps_the_hosts_terminal_out_of_reach() {
    // Not even the terminal's name: without --tty the process has the caller's streams and no controlling terminal.
    let container = container();
    container.exec(&[], "open /dev/tty r").prints("ENXIO");
}

#[test]
fn the_cpu_affinity_of_exec_is_set() {
    crate::skip_unless!(!under_runc(), "runc 1.1 has no execCPUAffinity");
    let container = container();
    let process = json!({
        "args": ["/guest", "status", "Cpus_allowed_list"], "cwd": "/", "execCPUAffinity": {"initial": "0", "final": "0"}
    });
    fs::write(container.bundle.dir.join("process.json"), process.to_string()).expect("the file");
    container.verb("exec", "--process process.json", "").prints("0");
}
