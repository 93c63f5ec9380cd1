//! A profile that lies about the system calls of init. init loads a filter without no_new_privs while it still has
//! rights to give up. The filter may answer "done" for a call that it does not let through. Then the process does not
//! start, or it has exactly what the configuration says. The tests read this from outside, in the host's /proc.
//!
//! `make test` tries the calls that change credentials, and those that init needs behind the filter. `make security`
//! tries each call of [`CALLS`].

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use crate::support::{Bundle, Running, begin, bind, eventually, is_root, under_runc, window};

/// The calls that init makes between its birth and execve, in the debug and in the release build, and calls that
/// could replace one of them. To make the list anew, run `strace -f -o LOG orlop run ID` with a configuration that
/// has a user, a filter, hooks, a terminal and sysctls; run `exec`, too. Take the names in LOG of all processes
/// except the first.
#[rustfmt::skip]
const CALLS: &[&str] = &[
    "access", "arch_prctl", "brk", "capget", "capset", "chdir", "chroot", "clock_nanosleep", "clone", "clone3", "close",
    "close_range", "connect", "dup", "dup2", "dup3", "epoll_create1", "epoll_ctl", "epoll_wait", "execve", "execveat", "exit",
    "exit_group", "faccessat", "faccessat2", "fchdir", "fchmod", "fchmodat", "fchown", "fchownat", "fcntl", "fork",
    "fsconfig", "fsmount", "fsopen", "fstat", "fstatfs", "fsync", "ftruncate", "futex", "getcwd", "getdents64", "getegid",
    "geteuid", "getgid", "getgroups", "getpgid", "getpid", "getppid", "getpriority", "getrandom", "getresgid", "getresuid",
    "getrlimit", "getsid", "getsockopt", "gettid", "getuid", "ioctl", "ioprio_get", "ioprio_set", "keyctl", "kill", "lseek",
    "lstat", "madvise", "memfd_create", "mkdir", "mkdirat", "mknodat", "mmap", "mount", "mount_setattr", "move_mount",
    "mprotect", "mremap", "munmap", "name_to_handle_at", "nanosleep", "newfstatat", "open", "open_tree", "openat", "openat2",
    "personality", "pidfd_getfd", "pidfd_open", "pidfd_send_signal", "pipe2", "pivot_root", "poll", "ppoll", "prctl",
    "pread64", "prlimit64", "read", "readlink", "readlinkat", "readv", "recvfrom", "recvmsg", "rseq", "rt_sigaction",
    "rt_sigprocmask", "rt_sigreturn", "rt_sigtimedwait", "sched_getaffinity", "sched_setaffinity", "sched_setattr",
    "sched_setscheduler", "sched_yield", "seccomp", "sendmsg", "sendto", "set_mempolicy", "set_robust_list",
    "set_tid_address", "setfsgid", "setfsuid", "setgid", "setgroups", "sethostname", "setns", "setpgid", "setpriority",
    "setregid", "setresgid", "setresuid", "setreuid", "setrlimit", "setsid", "setsockopt", "setuid", "shutdown",
    "sigaltstack", "socket", "socketpair", "splice", "stat", "statfs", "statx", "symlinkat", "sysinfo", "tgkill", "umask",
    "umount2", "uname", "unlinkat", "unshare", "vfork", "wait4", "waitid", "write", "writev",
];

/// The calls about which a lie would do the most harm.
#[rustfmt::skip]
const SHORT: &[&str] = &[
    "prctl", "capget", "capset", "setgroups", "setresuid", "setresgid", "setuid", "setgid", "umask", "chdir", "close_range",
    "execve", "exit_group", "write", "read", "recvfrom", "openat2", "fcntl", "seccomp",
];

/// Calls that are answered together: the call that sets a right, and the call that would reveal the lie. The numbers
/// are the first argument of prctl(2).
#[rustfmt::skip]
const TOGETHER: &[(&[&str], &[u32])] = &[
    (&[], &[PR_CAPBSET_DROP]),
    (&[], &[PR_CAPBSET_DROP, PR_CAPBSET_READ]),
    (&[], &[PR_CAP_AMBIENT]),
    (&[], &[PR_SET_KEEPCAPS]),
    (&[], &[PR_SET_NO_NEW_PRIVS]),
    (&[], &[PR_SET_NO_NEW_PRIVS, PR_GET_NO_NEW_PRIVS]),
    (&[], &[PR_SET_SECCOMP, PR_GET_SECCOMP]),
    (&[], &[PR_SET_DUMPABLE, PR_GET_DUMPABLE]),
    (&[], &[PR_SET_PDEATHSIG]),
    (&["capset", "capget"], &[]),
    (&["capset", "capget"], &[PR_CAPBSET_DROP, PR_CAPBSET_READ, PR_CAP_AMBIENT]),
    (&["setgroups", "getgroups"], &[]),
    (&["setresuid", "getresuid", "setuid", "getuid", "geteuid"], &[]),
    (&["setresgid", "getresgid", "setgid", "getgid", "getegid"], &[]),
    (&["setresuid", "getresuid", "setresgid", "getresgid", "setgroups", "getgroups"], &[]),
    (&["setresuid", "getresuid", "setresgid", "getresgid", "setgroups", "getgroups", "capset", "capget"], &[PR_CAPBSET_DROP]),
    (&["exit", "exit_group"], &[]),
    (&["write", "exit_group", "exit"], &[]),
];

const PR_SET_PDEATHSIG: u32 = libc::PR_SET_PDEATHSIG as u32;
const PR_GET_DUMPABLE: u32 = libc::PR_GET_DUMPABLE as u32;
const PR_SET_DUMPABLE: u32 = libc::PR_SET_DUMPABLE as u32;
const PR_SET_KEEPCAPS: u32 = libc::PR_SET_KEEPCAPS as u32;
const PR_GET_SECCOMP: u32 = libc::PR_GET_SECCOMP as u32;
const PR_SET_SECCOMP: u32 = libc::PR_SET_SECCOMP as u32;
const PR_CAPBSET_READ: u32 = libc::PR_CAPBSET_READ as u32;
const PR_CAPBSET_DROP: u32 = libc::PR_CAPBSET_DROP as u32;
const PR_SET_NO_NEW_PRIVS: u32 = libc::PR_SET_NO_NEW_PRIVS as u32;
const PR_GET_NO_NEW_PRIVS: u32 = libc::PR_GET_NO_NEW_PRIVS as u32;
const PR_CAP_AMBIENT: u32 = libc::PR_CAP_AMBIENT as u32;

/// A name for the messages, and the profile.
type Answered = (String, Value);

/// Profiles that answer one call each.
fn alone(calls: &[&str], errno: i32) -> Vec<Answered> {
    calls.iter().map(|call| (format!("{call} = {errno}"), answering(&[call], &[], errno))).collect()
}

/// Profiles that answer one row of [`TOGETHER`] each.
fn together(errno: i32) -> Vec<Answered> {
    let row = |(calls, options): &(&[&str], &[u32])| {
        (format!("{calls:?}, prctl {options:?} = {errno}"), answering(calls, options, errno))
    };
    TOGETHER.iter().map(row).collect()
}

/// What the configuration says about the process.
#[derive(Clone, Copy, Debug)]
enum Wanted {
    /// uid 1000, one group, one ambient capability.
    Something,
    /// uid 0, no group, no capability. A faked answer without data looks the same.
    Nothing,
}

impl Wanted {
    const ALL: [Self; 2] = [Self::Something, Self::Nothing];

    fn process(self, bundle: Bundle) -> Bundle {
        let (user, bounding, ambient) = match self {
            Self::Something => (
                json!({"uid": 1000, "gid": 1001, "additionalGids": [7]}),
                json!(["CAP_KILL", "CAP_NET_BIND_SERVICE"]),
                json!(["CAP_NET_BIND_SERVICE"]),
            ),
            Self::Nothing => (json!({"uid": 0, "gid": 0}), json!([]), json!([])),
        };
        let capabilities = json!({"bounding": bounding, "permitted": ambient, "effective": ambient,
                                  "inheritable": ambient, "ambient": ambient});
        bundle.set("/process/user", user).set("/process/capabilities", capabilities)
    }

    /// Fields of /proc/PID/status. Bit 5 is CAP_KILL, bit 10 is CAP_NET_BIND_SERVICE.
    fn status(self) -> [(&'static str, String); 8] {
        let (uid, gid, groups, bounding, ambient) = match self {
            Self::Something => (1000, 1001, "7", 1_u64 << 5 | 1 << 10, 1_u64 << 10),
            Self::Nothing => (0, 0, "", 0, 0),
        };
        let set = |bits: u64| format!("{bits:016x}");
        [
            ("Uid", format!("{uid} {uid} {uid} {uid}")),
            ("Gid", format!("{gid} {gid} {gid} {gid}")),
            ("Groups", groups.to_owned()),
            ("CapInh", set(ambient)),
            ("CapPrm", set(ambient)),
            ("CapEff", set(ambient)),
            ("CapBnd", set(bounding)),
            ("CapAmb", set(ambient)),
        ]
    }
}

/// A container whose caller has groups that the container must not have. Its process makes no call that a filter
/// could answer. It shares the host's network: otherwise init cuts the bounding set before there is a filter.
fn bundle(profile: Value, wanted: Wanted, no_new_privileges: bool) -> Bundle {
    let bundle = wanted
        .process(Bundle::new())
        .set("/linux/seccomp", profile)
        .set("/process/noNewPrivileges", json!(no_new_privileges))
        .set("/process/args", json!(["/waiting"]))
        .without_namespace("network")
        .set("/mounts/5", bind("/sys", &["rbind", "ro"]))
        .set("/mounts/5/destination", json!("/sys"))
        .through("exec setpriv --groups 4,24 \"$@\"");
    let program = bundle.rootfs("waiting");
    fs::write(&program, crate::programs::waiting()).expect("the program");
    fs::set_permissions(program, fs::Permissions::from_mode(0o755)).expect("chmod");
    bundle
}

fn answering(calls: &[&str], options: &[u32], errno: i32) -> Value {
    let mut rules = Vec::new();
    if !calls.is_empty() {
        rules.push(json!({"names": calls, "action": "SCMP_ACT_ERRNO", "errnoRet": errno}));
    }
    for option in options {
        let first = json!([{"index": 0, "value": option, "op": "SCMP_CMP_EQ"}]);
        rules.push(json!({"names": ["prctl"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno, "args": first}));
    }
    json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules})
}

/// Where the process, as the host's kernel shows it, differs from the configuration.
fn differences(pid: &str, wanted: Wanted, no_new_privileges: bool) -> Vec<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process waits");
    let nnp = u8::from(no_new_privileges).to_string();
    let expected = wanted.status().into_iter().chain([("NoNewPrivs", nnp), ("Seccomp", "2".to_owned())]);
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().split_whitespace().collect::<Vec<_>>().join(" ")
    };
    let wrong = expected.filter(|(name, value)| field(name) != *value);
    wrong.map(|(name, value)| format!("{name} is {}, not {value}", field(name))).collect()
}

/// The exit status, or nothing if the command had to be killed. A container must not be able to keep it waiting.
fn ended(mut running: Running) -> Option<i32> {
    let limit = Instant::now() + Duration::from_secs(window(5));
    while Instant::now() < limit {
        if let Some(status) = running.child.try_wait().expect("it is our child") {
            return Some(status.code().unwrap_or(-1));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    let _ = running.child.kill(); // It may just have ended.
    let _ = running.child.wait();
    None
}

/// Calls the runtime with `words`, which start a process in the foreground and write its id to `pid`. Returns what is
/// wrong with the process, and ends the process.
fn start(bundle: &Bundle, words: &[&str], wanted: Wanted, no_new_privileges: bool) -> Option<String> {
    let file = bundle.dir.join("pid");
    let _ = fs::remove_file(&file); // It is left from the process before.
    let mut running = begin(bundle.command(words), &bundle.dir);
    let limit = Instant::now() + Duration::from_secs(window(5));
    let pid = loop {
        if running.child.try_wait().expect("it is our child").is_some() {
            return None; // The process did not start.
        }
        let pid = fs::read_to_string(&file).unwrap_or_default();
        let exe = fs::read_link(format!("/proc/{pid}/exe")).unwrap_or_default();
        if exe.ends_with("waiting") {
            break pid;
        }
        if Instant::now() > limit {
            let _ = running.child.kill(); // It may just have ended.
            let _ = running.child.wait();
            return Some("hung".to_owned());
        }
        std::thread::sleep(Duration::from_millis(1));
    };
    let differ = differences(&pid, wanted, no_new_privileges);
    kill(&pid);
    match ended(running) {
        None => Some("hung when the process had ended".to_owned()),
        Some(_) => (!differ.is_empty()).then(|| differ.join(", ")),
    }
}

fn kill(pid: &str) {
    let pid = pid.parse().ok().and_then(rustix::process::Pid::from_raw).expect("a process id");
    let _ = rustix::process::kill_process(pid, rustix::process::Signal::KILL); // It may be gone.
}

/// Calls `run` for a container with each profile.
fn run(profiles: &[Answered], wanted: &[Wanted]) {
    crate::skip_unless!(is_root() && !under_runc(), "other groups for the caller need root");
    let mut wrong = Vec::new();
    for (name, profile) in profiles {
        for (wanted, nnp) in wanted.iter().flat_map(|wanted| [(*wanted, true), (*wanted, false)]) {
            let bundle = bundle(profile.clone(), wanted, nnp);
            bundle.write_config();
            let said = start(&bundle, &["run", "--pid-file", "pid", &bundle.id], wanted, nnp);
            wrong.extend(said.map(|said| format!("{name}, {wanted:?}, noNewPrivileges {nnp}: {said}")));
            clear(&bundle, &mut wrong, name);
        }
    }
    assert!(wrong.is_empty(), "{} of the processes:\n{}", wrong.len(), wrong.join("\n"));
}

/// Checks that a failed start left nothing, or deletes the running container.
fn clear(bundle: &Bundle, wrong: &mut Vec<String>, name: &str) {
    if !crate::support::names(&bundle.dir.join("state")).is_empty() {
        let delete = ended(begin(bundle.command(&["delete", "--force", &bundle.id]), &bundle.dir));
        if delete != Some(0) {
            wrong.push(format!("{name}: delete --force gives {delete:?}"));
        }
    }
}

/// Calls `exec` with each profile. The container's own process has no_new_privs, so init loads its filter last.
fn exec(profiles: &[Answered], wanted: &[Wanted]) {
    crate::skip_unless!(is_root() && !under_runc(), "other groups for the caller need root");
    let mut wrong = Vec::new();
    for ((name, profile), &wanted) in
        profiles.iter().flat_map(|one| wanted.iter().map(move |wanted| (one, wanted)))
    {
        let bundle = bundle(profile.clone(), wanted, true);
        bundle.write_config();
        let first = ended(begin(bundle.command(&["run", "--detach", &bundle.id]), &bundle.dir));
        if first != Some(0) {
            continue; // There is no container to enter: `run` is another test.
        }
        for nnp in [true, false] {
            let config = fs::read_to_string(bundle.dir.join("config.json")).expect("the configuration");
            let mut config: Value = serde_json::from_str(&config).expect("JSON");
            config["process"]["noNewPrivileges"] = json!(nnp);
            fs::write(bundle.dir.join("process.json"), config["process"].to_string()).expect("a file");
            let words = ["exec", "--pid-file", "pid", "--process", "process.json", &bundle.id];
            let said = start(&bundle, &words, wanted, nnp);
            wrong.extend(said.map(|said| format!("{name}, {wanted:?}, noNewPrivileges {nnp}: {said}")));
        }
        clear(&bundle, &mut wrong, name);
    }
    assert!(wrong.is_empty(), "{} of the processes:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn what_is_read_from_outside_is_what_the_configuration_says() {
    // This profile lies about nothing. The test shows that the comparison sees differences.
    crate::skip_unless!(is_root() && !under_runc(), "other groups for the caller need root");
    let wanted = Wanted::Something;
    let bundle = bundle(answering(&["getpriority"], &[], 0), wanted, false);
    bundle.write_config();
    let words = ["run", "--pid-file", "pid", &bundle.id];
    assert_eq!(start(&bundle, &words, wanted, false), None);
    assert!(bundle.dir.join("pid").exists(), "the process did not start");
    assert_eq!(start(&bundle, &words, wanted, true).as_deref(), Some("NoNewPrivs is 0, not 1"));
    let other = start(&bundle, &words, Wanted::Nothing, false).expect("it is another user");
    assert_eq!(other.matches(" is ").count(), 8, "{other}");
}

#[test]
fn a_profile_that_lies_about_one_call_gives_a_container_nothing() {
    run(&alone(SHORT, 0), &Wanted::ALL[..1]);
}

#[test]
fn a_profile_that_lies_about_all_that_would_tell_gives_a_container_nothing() {
    run(&together(0), &Wanted::ALL);
}

#[test]
fn a_profile_that_refuses_gives_a_container_nothing() {
    run(&alone(SHORT, libc::EPERM), &Wanted::ALL[..1]);
}

#[test]
fn a_profile_that_lies_gives_exec_nothing() {
    exec(&together(0), &[Wanted::Nothing]);
}

#[test]
#[ignore = "minutes: `make security` runs it"]
fn no_call_of_init_can_be_lied_about() {
    std::thread::scope(|scope| {
        for errno in [0, libc::EPERM] {
            scope.spawn(move || run(&alone(CALLS, errno), &[Wanted::Something]));
            scope.spawn(move || run(&together(errno), &Wanted::ALL));
            scope.spawn(move || exec(&alone(CALLS, errno), &[Wanted::Something]));
            scope.spawn(move || exec(&together(errno), &Wanted::ALL));
        }
    });
}

#[test]
fn a_profile_that_allows_nothing_is_an_error_soon() {
    crate::skip_unless!(!under_runc(), "runc's first process loops for ever");
    let mut wrong = Vec::new();
    for (action, errno) in [
        ("SCMP_ACT_ERRNO", 0),
        ("SCMP_ACT_ERRNO", 1),
        ("SCMP_ACT_ERRNO", 4),
        ("SCMP_ACT_KILL_PROCESS", 0),
        ("SCMP_ACT_TRAP", 0),
    ] {
        for nnp in [true, false] {
            let mut profile = json!({"defaultAction": action});
            if action == "SCMP_ACT_ERRNO" {
                profile["defaultErrnoRet"] = json!(errno);
            }
            for verb in ["run", "create"] {
                let bundle = bundle(profile.clone(), Wanted::Something, nnp);
                bundle.write_config();
                let ended = ended(begin(bundle.command(&[verb, &bundle.id]), &bundle.dir));
                // `create` returns before init loads a filter that comes last.
                if ended.is_none() || (ended == Some(0) && verb == "run") {
                    wrong.push(format!("{action} {errno}, noNewPrivileges {nnp}, {verb}: {ended:?}"));
                }
                clear(&bundle, &mut wrong, verb);
                eventually("nothing is left", || {
                    crate::support::left_by(&bundle).is_empty() || ended.is_none()
                });
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}
