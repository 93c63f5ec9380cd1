//! The process of `exec` on its way into a container, as the container's processes see it. From its first visible
//! moment it has no right that they do not have, shows nothing of its caller, and cannot be used to make `exec` hang.
//!
//! `ORLOP_RACES=1000` makes the races longer.

use std::fs;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use serde_json::json;

use crate::attacks::races;
use crate::support::{
    Bundle, Container, Running, begin, copy_program, is_root, processes, runtime, under_runc, window,
};

/// A container that may look into other processes of its pid namespace, because it has no user namespace.
fn tracer() -> Bundle {
    ["CAP_SYS_PTRACE", "CAP_DAC_OVERRIDE", "CAP_DAC_READ_SEARCH"]
        .into_iter()
        .fold(Bundle::new(), Bundle::capability)
}

/// The same, but its processes belong to an ordinary user.
fn tracer_as_a_user() -> Bundle {
    let caps = json!(["CAP_SYS_PTRACE", "CAP_DAC_READ_SEARCH"]);
    let sets =
        json!({"bounding": caps, "permitted": caps, "effective": caps, "inheritable": caps, "ambient": caps});
    Bundle::new().set("/process/capabilities", sets).set("/process/user", json!({"uid": 1000, "gid": 1001}))
}

/// What a guest in the container printed, line by line, while the test called `exec` again and again.
fn while_entered(container: &Container, guest: &str, options: &[&str]) -> Vec<String> {
    let mark = format!("{}/file", container.bundle.host_directory("host"));
    let watcher = container.start_exec(&[], &format!("{guest} {} {mark}", seconds()));
    let until = Instant::now() + Duration::from_secs_f64(seconds());
    while Instant::now() < until {
        container.exec(options, "sleep 0.01");
    }
    watcher.finish().ok().out.lines().map(str::to_owned).collect()
}

/// How long the race lasts.
fn seconds() -> f64 {
    (f64::from(races()) / 12.0 * window(1) as f64).min(60.0)
}

/// A tracer behind a filter. Without no_new_privs, loading it takes CAP_SYS_ADMIN.
fn tracer_behind_a_filter(no_new_privs: bool) -> Bundle {
    let rule = json!({"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"});
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]});
    tracer().set("/linux/seccomp", profile).set("/process/noNewPrivileges", json!(no_new_privs))
}

/// A field of the status of the container's first process.
fn own(container: &Container, field: &str) -> String {
    let status = fs::read_to_string(format!("/proc/{}/status", container.pid())).expect("it runs");
    let value =
        |line: &str| line.split_once(":\t").filter(|(name, _)| *name == field).map(|row| row.1.to_owned());
    status.lines().find_map(value).expect("the field")
}

/// The container's own bounding set.
fn bounding(container: &Container) -> u64 {
    u64::from_str_radix(&own(container, "CapBnd"), 16).expect("a set")
}

/// The lines that name a right which the container does not have.
fn excess(lines: &[String], container: &Container, ids: &[&str]) -> Vec<String> {
    let (filter, own) = (own(container, "Seccomp"), bounding(container));
    let wrong = |line: &&String| {
        let (name, value) = line.split_once(' ').unwrap_or((line, ""));
        match name {
            "CapInh" | "CapPrm" | "CapEff" | "CapBnd" | "CapAmb" => {
                u64::from_str_radix(value, 16).is_ok_and(|set| set & !own != 0)
            }
            "Uid" | "Gid" | "Groups" => value.split(' ').any(|id| !id.is_empty() && !ids.contains(&id)),
            "Seccomp" => value != filter,
            "escape" => true,
            _ => false,
        }
    };
    lines.iter().filter(wrong).cloned().collect()
}

#[test]
fn an_entering_process_has_no_right_that_the_container_does_not_have() {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    for (bundle, ids) in [
        (tracer(), vec!["0"]),
        (tracer_as_a_user(), vec!["1000", "1001"]),
        (tracer_behind_a_filter(true), vec!["0"]),
        (tracer_behind_a_filter(false), vec!["0"]),
    ] {
        // Groups of the caller, which the container must not see.
        let container = bundle.through("exec setpriv --groups 4,24 \"$@\"").started();
        let lines = while_entered(&container, "watch", &[]);
        assert!(
            lines.iter().any(|line| line.starts_with("CapEff")),
            "no entering process was seen: the test shows nothing"
        );
        let wrong = excess(&lines, &container, &ids);
        assert!(wrong.is_empty(), "seen from inside:\n{}", wrong.join("\n"));
    }
}

#[test]
fn an_entering_process_that_is_traced_has_no_right_that_the_container_does_not_have() {
    // CVE-2016-9962. A process that traces another one by ptrace(2) can use its capabilities.
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    for (bundle, ids) in [(tracer(), vec!["0"]), (tracer_as_a_user(), vec!["1000", "1001"])] {
        let container = bundle.through("exec setpriv --groups 4,24 \"$@\"").started();
        let lines = while_entered(&container, "catch", &[]);
        assert!(lines.iter().any(|line| line == "works"), "the tracer cannot attach: the test shows nothing");
        let wrong = excess(&lines, &container, &ids);
        assert!(wrong.is_empty(), "held from inside:\n{}", wrong.join("\n"));
    }
}

#[test]
fn an_entering_process_shows_nothing_of_its_caller() {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root");
    for (who, bundle) in [("tracer", tracer()), ("anybody", Bundle::new())] {
        let bundle =
            bundle.through("shift; exec ./runtime-of-the-host \"$@\"").variable("OF_THE_HOST", "secret-2");
        let log = format!("--log {}/log-of-the-host", bundle.dir.display());
        let bundle = bundle.global(&log);
        copy_program(runtime(), bundle.dir.join("runtime-of-the-host"));
        let dir = bundle.dir.display().to_string();
        let container = bundle.started();
        let pid_file = format!("{dir}/pid-of-the-host");
        let options = ["--env", "TOKEN=secret-1", "--pid-file", &pid_file];
        let lines = while_entered(&container, "watch", &options);
        assert!(
            lines.iter().any(|line| line.starts_with("CapEff")),
            "no entering process was seen: the test shows nothing"
        );
        let secrets = ["secret-1", "secret-2", "of-the-host", "OF_THE_HOST", "TOKEN", "--root", &dir];
        // The line itself is not printed: it may hold the environment of the tests.
        let shown: Vec<_> = lines
            .iter()
            .filter_map(|line| {
                let secret = secrets.iter().find(|secret| line.contains(**secret))?;
                Some(format!("{secret} in {}", line.split(' ').next().unwrap_or_default()))
            })
            .collect();
        assert!(shown.is_empty(), "{who} sees {shown:?}");
    }
}

/// True if the command ends by itself within this many seconds.
fn ends_within(running: &mut Running, seconds: u64) -> bool {
    let limit = Instant::now() + Duration::from_secs(seconds);
    while Instant::now() < limit {
        if running.child.try_wait().expect("it is our child").is_some() {
            return true;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    false
}

/// Stopped processes of the container: those that still run the runtime, and those that run the container's programs.
fn stopped(container: &Container) -> (Vec<i32>, Vec<i32>) {
    let is_stopped = |pid: &i32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| rest.starts_with('T'))
    };
    let is_guest = |pid: &i32| {
        let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.starts_with(b"/guest")
    };
    let (guests, own) = processes(&container.bundle).into_iter().filter(is_stopped).partition(is_guest);
    (own, guests)
}

#[test]
fn exec_ends_when_its_process_is_stopped_while_it_enters() {
    stopped_again_and_again(&[]);
}

#[test]
fn a_detached_exec_ends_when_its_process_is_stopped_while_it_enters() {
    stopped_again_and_again(&["--detach"]);
}

fn stopped_again_and_again(options: &[&str]) {
    crate::skip_unless!(is_root() && !under_runc(), "it needs root; runc waits for ever");
    let container = Bundle::new().started();
    let stopper = container.start_exec(&[], &format!("multi pid -- stop {}", window(15)));
    stopper.until("\n");
    let mut wrong = None;
    // The stopper nearly always wins the race; two wins are enough.
    for _ in 0..20 {
        if wrong.is_some() || stopper.out().matches("stopped").count() >= 2 {
            break;
        }
        wrong = stopped_while_entering(&container, options);
    }
    let won = stopper.out().contains("stopped");
    // The stopper's `exec` is killed, and nothing else: its process in the container ends with the container.
    kill(&[stopper.child.id() as i32]);
    assert_eq!(wrong, None);
    assert!(won, "no entering process was stopped: the test shows nothing");
}

/// Calls `exec` once, and returns what was wrong with how it ended.
fn stopped_while_entering(container: &Container, options: &[&str]) -> Option<String> {
    let words: Vec<_> = ["exec"]
        .into_iter()
        .chain(options.iter().copied())
        .chain([container.id(), "/guest", "pid"])
        .collect();
    let mut exec = begin(container.bundle.command(&words), &container.bundle.dir);
    if !ends_within(&mut exec, 1) {
        let (own, guests) = stopped(container);
        if own.is_empty() && !guests.is_empty() {
            // The program already runs. The container may stop its own programs.
            kill(&guests);
        } else {
            exec.signal(Signal::TERM);
        }
    }
    let mut wrong = None;
    if !ends_within(&mut exec, window(3)) {
        wrong = Some("exec hangs, and ignores SIGTERM".to_owned());
        kill(&stopped(container).0);
    }
    if !ends_within(&mut exec, 1) {
        let _ = exec.child.kill(); // It may just have ended.
        let _ = exec.child.wait();
    }
    let (own, guests) = stopped(container);
    kill(&own);
    kill(&guests);
    wrong.or_else(|| (!own.is_empty()).then(|| "a stopped process of the runtime is left".to_owned()))
}

fn kill(pids: &[i32]) {
    for pid in pids.iter().filter_map(|pid| rustix::process::Pid::from_raw(*pid)) {
        let _ = rustix::process::kill_process(pid, Signal::KILL); // It may be gone.
    }
}

#[test]
fn a_standard_stream_of_exec_is_not_the_hosts_null_device() {
    // Root of the container could change its mode, for everybody on the host.
    crate::skip_unless!(is_root() && !under_runc(), "making a device node needs root");
    let bundle = Bundle::new();
    let node = bundle.dir.join("null-of-the-host");
    let mode = rustix::fs::Mode::from_raw_mode(0o666);
    let number = rustix::fs::makedev(1, 3);
    rustix::fs::mknodat(rustix::fs::CWD, &node, rustix::fs::FileType::CharacterDevice, mode, number)
        .expect("a node");
    let before = fs::metadata(&node).expect("the node").permissions();
    let container = bundle.through(&format!("exec \"$@\" < {}", node.display())).started();
    container.exec(&[], "chmod /proc/self/fd/0 600");
    assert_eq!(fs::metadata(&node).expect("the node").permissions(), before);
}
