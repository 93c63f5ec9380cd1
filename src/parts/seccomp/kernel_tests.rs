//! Tests with the real kernel: a forked child loads a filter and makes some system calls.

use super::reference::ALLOW;
use super::tests::{default_profile, spec};
use super::*;
use crate::sys::seccomp::probe;
use nix::sys::signal::Signal::SIGSYS;
use nix::sys::wait::WaitStatus;
use serde_json::json;
use std::os::fd::AsFd;

/// Loads a filter in a child and runs `body` there. `body` returns the number of the first failed check, or 0.
fn under(profile: serde_json::Value, body: impl FnOnce() -> u8) -> WaitStatus {
    let filter = plan(&spec(profile), None).unwrap().unwrap();
    probe::in_child(|| {
        let loaded = rustix::thread::set_no_new_privs(true).is_ok() && filter.install().is_ok();
        if loaded { body() } else { 255 }
    })
}

/// The number of the first row that is not as expected, counted from 1; 0 if there is none.
fn first_wrong(rows: &[(i32, i32)]) -> u8 {
    rows.iter().position(|(got, expected)| got != expected).map_or(0, |at| at as u8 + 1)
}

fn exit_code(status: WaitStatus) -> i32 {
    match status {
        WaitStatus::Exited(_, code) => code,
        other => panic!("{other:?}"),
    }
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_answers_as_the_default_profile_says() {
    const EPERM: i32 = libc::EPERM;
    let profile = serde_json::to_value(default_profile()).unwrap();
    let status = under(profile, || {
        first_wrong(&[
            (probe::errno(libc::SYS_getpid, [0; 3]), 0),
            (probe::errno(libc::SYS_write, [u64::MAX, 0, 0]), libc::EBADF),
            (probe::errno(libc::SYS_mount, [0; 3]), EPERM),
            (probe::errno(libc::SYS_unshare, [0; 3]), EPERM),
            (probe::errno(libc::SYS_clone3, [0; 3]), libc::ENOSYS),
            (probe::errno(libc::SYS_clone, [0x1000_0000, 0, 0]), EPERM),
            (probe::errno(libc::SYS_socket, [40, 1, 0]), EPERM),
            (probe::errno(libc::SYS_socket, [1, 999, 0]), libc::EINVAL),
            (probe::errno(libc::SYS_personality, [0xffff_ffff, 0, 0]), 0),
            (probe::errno(libc::SYS_personality, [0x4_0000, 0, 0]), EPERM),
            (probe::errno(1000, [0; 3]), libc::ENOSYS),
            // The filter lets x32's read through to a kernel that may lack x32, so only refused calls are tested.
            (probe::errno(0x4000_0000 | libc::SYS_mount, [0; 3]), EPERM),
            (probe::errno(0x4000_0000 | 2000, [0; 3]), libc::ENOSYS),
        ])
    });
    assert_eq!(exit_code(status), 0);
}

/// Returns true if this kernel runs 32-bit x86. The number of getpid is 20 there. Without IA32 emulation, the
/// instruction of the call kills the child.
#[cfg(target_arch = "x86_64")]
fn runs_i386() -> bool {
    let runs = match probe::in_child(|| u8::from(probe::errno_i386(20, [0; 3]) != 0)) {
        WaitStatus::Signaled(..) => false,
        status => exit_code(status) == 0,
    };
    if !runs {
        eprintln!("skipped: this kernel does not run 32-bit x86");
    }
    runs
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_denies_through_a_multiplexer_what_it_denies_directly() {
    if !runs_i386() {
        return;
    }
    const EPERM: i32 = libc::EPERM;
    let allowed = json!({"names": ["exit_group", "exit"], "action": "SCMP_ACT_ALLOW"});
    let asked = |name: &str, index: u32| {
        json!({"names": [name], "action": "SCMP_ACT_ALLOW",
            "args": [{"index": index, "value": 0, "op": "SCMP_CMP_EQ"}]})
    };
    let profile = json!({"defaultAction": "SCMP_ACT_ERRNO", "architectures": ["SCMP_ARCH_X86"],
        "syscalls": [allowed, asked("bind", 1), asked("socket", 0), asked("shmget", 1), asked("mmap", 1)]});
    let status = under(profile, || {
        first_wrong(&[
            (probe::errno_i386(361, [u32::MAX, 0, 0]), libc::EBADF), // bind, with the second argument of its rule
            (probe::errno_i386(361, [u32::MAX, 8, 0]), EPERM),
            (probe::errno_i386(102, [2, 0, 0]), EPERM), // socketcall; the kernel would answer EFAULT
            (probe::errno_i386(102, [1, 0, 0]), EPERM),
            (probe::errno_i386(117, [23, 0, 0]), EPERM), // ipc
            (probe::errno_i386(117, [0x1_0017, 0, 0]), EPERM),
            (probe::errno_i386(90, [0, 0, 0]), EPERM), // mmap, of a null pointer
        ])
    });
    assert_eq!(exit_code(status), 0);
}

#[test]
#[cfg(target_arch = "x86_64")]
fn the_kernel_answers_32_bit_calls_by_their_own_numbers() {
    if !runs_i386() {
        return;
    }
    let profile = serde_json::to_value(default_profile()).unwrap();
    let status = under(profile, || {
        first_wrong(&[
            (probe::errno_i386(20, [0; 3]), 0),
            (probe::errno_i386(21, [0; 3]), libc::EPERM), // mount
            (probe::errno_i386(359, [40, 1, 0]), libc::EPERM), // socket(AF_VSOCK)
            (probe::errno_i386(435, [0; 3]), libc::ENOSYS), // clone3
            (probe::errno_i386(1000, [0; 3]), libc::ENOSYS),
        ])
    });
    assert_eq!(exit_code(status), 0);
    let native_only = json!({"defaultAction": "SCMP_ACT_ALLOW"});
    let status = under(native_only, || u8::from(probe::errno_i386(20, [0; 3]) == 0));
    assert!(matches!(status, WaitStatus::Signaled(_, SIGSYS, _)), "{status:?}");
}

#[test]
fn kill_and_trap_end_the_process_by_sigsys() {
    for action in ["SCMP_ACT_KILL", "SCMP_ACT_KILL_THREAD", "SCMP_ACT_KILL_PROCESS", "SCMP_ACT_TRAP"] {
        let profile = json!({"defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [{"names": ["getppid"], "action": action}]});
        let status = under(profile, || u8::from(probe::errno(libc::SYS_getppid, [0; 3]) == 0));
        assert!(matches!(status, WaitStatus::Signaled(_, SIGSYS, _)), "{action}: {status:?}");
    }
}

#[test]
fn log_allows_and_trace_without_a_tracer_is_not_implemented() {
    let profile = json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [
        {"names": ["getppid"], "action": "SCMP_ACT_LOG"}, {"names": ["getsid"], "action": "SCMP_ACT_TRACE"}]});
    let status = under(profile, || {
        first_wrong(&[
            (probe::errno(libc::SYS_getppid, [0; 3]), 0),
            (probe::errno(libc::SYS_getsid, [0; 3]), libc::ENOSYS),
        ])
    });
    assert_eq!(exit_code(status), 0);
}

#[test]
fn a_notification_reaches_who_holds_the_fd() {
    let notify = spec(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/agent",
        "syscalls": [{"names": ["getppid"], "action": "SCMP_ACT_NOTIFY"}]}));
    let filter = plan(&notify, None).unwrap().unwrap();
    let status = probe::in_child(|| {
        if rustix::thread::set_no_new_privs(true).is_err() {
            return 1;
        }
        let Ok(Some(fd)) = filter.install() else { return 2 };
        if !rustix::io::fcntl_getfd(&fd).is_ok_and(|flags| flags.contains(rustix::io::FdFlags::CLOEXEC)) {
            return 3;
        }
        let asks = probe::in_child(|| u8::from(probe::errno(libc::SYS_getuid, [0; 3]) != 0));
        if exit_code(asks) != 0 {
            return 4;
        }
        // One thread makes the call while the other answers it.
        std::thread::scope(|scope| {
            let call = scope.spawn(|| probe::errno(libc::SYS_getppid, [0; 3]));
            let answered = probe::answer(fd.as_fd(), libc::ENOMEDIUM).ok();
            let same = answered.map(i64::from) == Some(libc::SYS_getppid);
            if same && call.join().is_ok_and(|errno| errno == libc::ENOMEDIUM) { 0 } else { 5 }
        })
    });
    assert_eq!(exit_code(status), 0);
}

#[test]
fn a_refused_filter_names_the_call() {
    // Wait-killable without a listener: the kernel says EINVAL.
    let program = [Instruction { code: 6, jt: 0, jf: 0, k: ALLOW }];
    let filter = Filter { program: program.to_vec(), flags: sys::WAIT_KILLABLE_RECV, listener: None };
    assert_eq!(
        format!("{:#}", filter.install().unwrap_err()),
        "linux.seccomp: seccomp SECCOMP_SET_MODE_FILTER flags 32, 1 instructions: invalid argument"
    );
}

#[test]
fn supported_flags_are_known_flags() {
    let supported = supported_flags();
    assert!(supported.starts_with(&["SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]));
    assert!(supported.iter().all(|flag| known_flags().contains(flag)));
    assert!(!sys::knows_flags(1 << 31));
}
