//! System call filters. Each test makes the one system call for which its filter is written.

use std::os::fd::AsRawFd;
use std::os::unix::net::UnixListener;

use serde_json::{Value, json};

use crate::support::{Attempt, Bundle, accept_fd, under_runc};

/// A filter that allows everything except what these rules say.
fn with(rules: Value) -> Bundle {
    Bundle::new().set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}))
}

/// Calls getpriority(2), which stands for any call: neither init nor the guest needs it.
fn getpriority(bundle: Bundle, which: u32) -> Attempt {
    bundle.guest(&format!("syscall {} {which} 0", libc::SYS_getpriority)).run()
}

#[test]
fn the_mode_is_filter() {
    with(json!([])).guest("status Seccomp").run().prints("2");
    Bundle::new().guest("status Seccomp").run().prints("0");
}

#[test]
fn an_errno_is_returned() {
    getpriority(with(json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}])), 0).prints("EPERM");
    let rule = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": libc::ENOTNAM}]);
    getpriority(with(rule), 0).prints("ENOTNAM");
}

#[test]
fn an_errno_of_zero_is_success() {
    let rule = json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO", "errnoRet": 0}]);
    getpriority(with(rule), 0).prints("= 0");
}

#[test]
fn a_killed_process_is_128_and_sigsys() {
    for action in ["SCMP_ACT_KILL_PROCESS", "SCMP_ACT_KILL"] {
        getpriority(with(json!([{"names": ["getpriority"], "action": action}])), 0).exits(128 + libc::SIGSYS);
    }
}

#[test]
fn unknown_names_are_ignored() {
    let rule = json!([{"names": ["no_such_call", "getpriority"], "action": "SCMP_ACT_ERRNO"}]);
    getpriority(with(rule), 0).prints("EPERM");
}

#[test]
fn arguments_are_compared() {
    // getpriority(which, who): which 0 means a process, 2 means a user.
    let rule = |op: &str, value: u64, two: u64| {
        json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]}])
    };
    for (op, value, two, caught) in [
        ("SCMP_CMP_EQ", 2, 0, [false, true]),
        ("SCMP_CMP_NE", 2, 0, [true, false]),
        ("SCMP_CMP_LT", 2, 0, [true, false]),
        ("SCMP_CMP_LE", 2, 0, [true, true]),
        ("SCMP_CMP_GT", 0, 0, [false, true]),
        ("SCMP_CMP_GE", 1, 0, [false, true]),
        ("SCMP_CMP_MASKED_EQ", 2, 2, [false, true]),
    ] {
        for (which, caught) in [0, 2].into_iter().zip(caught) {
            let facts = getpriority(with(rule(op, value, two)), which).facts();
            assert_eq!(facts == "EPERM", caught, "{op} {value} with {which}: {facts}");
        }
    }
}

#[test]
fn a_default_of_errno_with_a_list_of_what_is_allowed() {
    let profile = json!({
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": libc::ENOTNAM,
        "syscalls": [{"action": "SCMP_ACT_ALLOW", "names": [
            "execve", "brk", "arch_prctl", "set_tid_address", "set_robust_list", "rseq", "prlimit64", "readlinkat",
            "readlink", "getrandom", "mprotect", "mmap", "munmap", "write", "exit_group", "poll", "rt_sigaction",
            "sigaltstack", "futex", "close", "fstat", "newfstatat", "read", "openat", "capget", "capset", "setgid",
            "setuid", "setgroups", "chdir", "getcwd", "prctl", "close_range", "fcntl", "getpid", "getppid", "epoll_ctl",
            "epoll_pwait", "nanosleep", "tgkill", "sched_yield", "rt_sigprocmask", "rt_sigreturn", "getdents64",
            "gettid", "clone", "fchdir", "faccessat2", "stat", "lseek", "fstatfs", "statfs"]}]
    });
    getpriority(Bundle::new().set("/linux/seccomp", profile), 0).prints("ENOTNAM");
}

#[test]
fn a_filter_without_no_new_privileges_is_loaded_as_any_user() {
    // init loads the filter before or after it gives up its capabilities. Both orders must work.
    for nnp in [true, false] {
        let bundle = with(json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}]))
            .set("/process/noNewPrivileges", json!(nnp))
            .set("/process/user/uid", json!(1000));
        getpriority(bundle, 0).prints("EPERM");
    }
}

#[test]
fn a_filter_that_is_older_than_the_kernel_is_not_in_the_way() {
    // A profile of 2018 refuses these newer calls while init still has to find the program.
    let later =
        ["close_range", "openat2", "faccessat2", "statx", "pidfd_open", "pidfd_getfd", "mount_setattr"];
    for refusal in [libc::EPERM, libc::ENOSYS] {
        let rule = json!([{"names": later, "action": "SCMP_ACT_ERRNO", "errnoRet": refusal}]);
        let bundle =
            with(rule).set("/process/noNewPrivileges", json!(false)).set("/process/user/uid", json!(1000));
        bundle.guest("status Seccomp").run().prints("2");
    }
}

#[test]
fn a_filter_may_forbid_getcwd() {
    let bundle = with(json!([{"names": ["getcwd"], "action": "SCMP_ACT_ERRNO"}]));
    let bundle = bundle.set("/process/noNewPrivileges", json!(false)).set("/process/cwd", json!("/made"));
    bundle.guest(&format!("syscall {} 0 0", libc::SYS_getcwd)).run().prints("EPERM");
}

#[test]
fn a_profile_that_allows_nothing_is_an_error_and_nothing_spins() {
    crate::skip_unless!(!under_runc(), "runc words it in its own way");
    for no_new_privileges in [true, false] {
        Bundle::new()
            .set("/linux/seccomp", json!({"defaultAction": "SCMP_ACT_ERRNO"}))
            .set("/process/noNewPrivileges", json!(no_new_privileges))
            .run()
            .fails_with("(linux.seccomp: does the profile allow write and exit_group?)");
    }
}

#[test]
fn a_hook_that_the_profile_refuses_to_execute_ends_and_is_named() {
    crate::skip_unless!(!under_runc(), "runc words it in its own way");
    // The copy of init that cannot execute the hook may not call exit either.
    let rule = json!([{"names": ["execve", "execveat", "exit_group", "exit"], "action": "SCMP_ACT_ERRNO"}]);
    with(rule)
        .set("/hooks/startContainer", json!([{"path": "/guest", "args": ["guest", "pid"]}]))
        .run()
        .fails_with("hooks.startContainer[0] /guest");
}

#[test]
fn with_no_new_privileges_the_runtimes_own_calls_need_not_be_allowed() {
    let own = json!(["capset", "setuid", "setgid", "setgroups", "chdir", "prctl", "mount", "pivot_root"]);
    getpriority(with(json!([{"names": own, "action": "SCMP_ACT_KILL_PROCESS"}])), 0).says("= ");
}

#[test]
fn exec_has_the_filter_of_the_container() {
    let container = with(json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}])).started();
    let call = format!("syscall {} 0 0", libc::SYS_getpriority);
    container.exec(&[], &call).prints("EPERM");
    container.exec(&["--user", "1000"], &call).prints("EPERM");
}

#[test]
fn a_listener_is_given_the_notifications() {
    let bundle = with(json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]));
    let path = bundle.dir.join("agent");
    let listener = UnixListener::bind(&path).expect("a socket");
    let container = bundle
        .set("/linux/seccomp/listenerPath", json!(path))
        .set("/linux/seccomp/listenerMetadata", json!("for the agent"));
    // The agent accepts while create runs, because create waits for the agent.
    let agent = std::thread::spawn(move || accept_fd(&listener));
    let container = container.guest("pause").container();
    let (text, fds) = agent.join().expect("the agent got its message");
    let message: Value = serde_json::from_slice(&text).expect("JSON");
    assert_eq!(message["fds"], json!(["seccompFd"]), "{message}");
    assert_eq!(message["metadata"], "for the agent");
    assert_eq!((&message["state"]["id"], &message["pid"]), (&json!(container.id()), &json!(container.pid())));
    let link = std::fs::read_link(format!("/proc/self/fd/{}", fds[0].as_raw_fd())).expect("the fd");
    assert!(link.display().to_string().contains("seccomp notify"), "{link:?}");
}

#[test]
fn an_agent_gets_its_listener_though_it_has_to_answer_for_every_read() {
    for no_new_privileges in [false, true] {
        let bundle = with(json!([{"names": ["read", "close", "fcntl"], "action": "SCMP_ACT_NOTIFY"}]));
        let path = bundle.dir.join("agent");
        let listener = UnixListener::bind(&path).expect("a socket");
        let bundle = bundle
            .set("/linux/seccomp/listenerPath", json!(path))
            .set("/process/noNewPrivileges", json!(no_new_privileges));
        let run = bundle.start("run");
        assert_eq!(accept_fd(&listener).1.len(), 1);
        // This agent never answers the notifications.
        bundle.call(&["delete", "--force", &bundle.id]).ok();
        run.finish();
        bundle.assert_clean();
    }
}

#[test]
fn a_listener_that_is_not_there_is_an_error() {
    let bundle = with(json!([{"names": ["getpriority"], "action": "SCMP_ACT_NOTIFY"}]));
    bundle.set("/linux/seccomp/listenerPath", json!("/does/not/exist")).run().fails_with("/does/not/exist");
}

#[test]
fn notifying_of_write_is_refused() {
    // The runtime itself would wait for an answer for ever.
    let bundle = with(json!([{"names": ["write"], "action": "SCMP_ACT_NOTIFY"}]));
    bundle
        .set("/linux/seccomp/listenerPath", json!("/tmp/none"))
        .run()
        .fails_with("SCMP_ACT_NOTIFY cannot be used for the write syscall");
}

#[test]
fn a_multiplexer_gives_32_bit_x86_no_call_that_it_may_not_make_directly() {
    crate::skip_unless!(cfg!(target_arch = "x86_64"), "no other kernel takes calls of 32-bit x86");
    crate::skip_unless!(!under_runc(), "libseccomp looks at registers there that the call does not use");
    let text = include_str!("../bundles/seccomp-default.json");
    let mut profile: Value = serde_json::from_str(text).expect("a profile");
    let entries = profile["syscalls"].as_array_mut().expect("entries");
    for names in entries.iter_mut().filter_map(|entry| entry["names"].as_array_mut()) {
        names.retain(|name| name != "bind" && name != "socketcall");
    }
    // The profile allows bind for one address only, which no program has.
    entries.push(json!({"names": ["bind"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 1, "value": 0, "op": "SCMP_CMP_EQ"}]}));
    for (words, fact) in [
        ("syscall32 20", "= 1"),         // getpid
        ("syscall32 361 -1 0", "EBADF"), // bind
        ("syscall32 361 -1 8", "EPERM"),
        ("syscall32 102 2 0", "EPERM"), // socketcall for bind; if the filter let it pass, bind would answer EFAULT
        ("syscall32 102 3 0", "EFAULT"), // socketcall for connect, which the profile allows with any arguments
    ] {
        Bundle::new().set("/linux/seccomp", profile.clone()).guest(words).run().prints(fact);
    }
}

#[test]
fn a_call_of_another_architecture_is_stopped() {
    crate::skip_unless!(!under_runc(), "the guest does not tell runc's answer from a crash");
    let bundle = with(json!([{"names": ["getpriority"], "action": "SCMP_ACT_ERRNO"}]));
    let profile = bundle
        .set("/linux/seccomp/architectures", json!(["SCMP_ARCH_X86_64", "SCMP_ARCH_X86", "SCMP_ARCH_X32"]));
    getpriority(profile, 0).prints("EPERM");
}
