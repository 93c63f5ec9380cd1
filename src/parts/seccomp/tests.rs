//! Tests: the compiled filter against the reference interpreter, the message to the agent, and the error texts.

use super::reference::{
    ALLOW, AUDIT_AARCH64, AUDIT_ARM, AUDIT_X86, AUDIT_X86_64, Call, ERRNO, Row, Tables, X32, meant, numbers,
    run,
};
use super::*;
use crate::sys::seccomp::probe;
use serde_json::json;

pub fn default_profile() -> LinuxSeccomp {
    serde_json::from_str(include_str!("../../../bundles/seccomp-default.json")).unwrap()
}

pub fn spec(json: serde_json::Value) -> LinuxSeccomp {
    serde_json::from_value(json).unwrap()
}

fn machine(audit: u32) -> &'static arch::Machine {
    let found = arch::all().into_iter().find(|machine| machine.abis[0].1.audit == audit);
    found.expect("a machine with this architecture")
}

pub fn compiled(spec: &LinuxSeccomp, audit: u32) -> Vec<Row> {
    rows(&filter(spec, None, machine(audit)).unwrap().program)
}

pub fn rows(program: &[Instruction]) -> Vec<Row> {
    program.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect()
}

/// xorshift64*: a failure can be run again.
pub struct Random(pub u64);

impl Random {
    pub fn below(&mut self, end: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 16) % end
    }

    pub fn of<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.below(from.len() as u64) as usize].clone()
    }

    /// A value at or around one that a condition compares with.
    pub fn value(&mut self, values: &[u64]) -> u64 {
        let near = self.of(values);
        match self.below(8) {
            0..3 => near,
            3 => near.wrapping_add(1),
            4 => near.wrapping_sub(1),
            5 => near ^ (1 << self.below(64)),
            6 => near & 0xffff_ffff,
            _ => near | self.below(1 << 20) << 32,
        }
    }
}

pub const NAMES: [&str; 23] = [
    "read",
    "write",
    "socket",
    "bind",
    "mmap",
    "select",
    "ioctl",
    "clone",
    "personality",
    "send",
    "shmget",
    "socketcall",
    "ipc",
    "openat2",
    "rt_sigaction",
    "readv",
    "no_such_call",
    "breakpoint",
    "dup3",
    "lseek",
    "close",
    "statx",
    "prctl",
];
pub const VALUES: [u64; 12] =
    [0, 1, 2, 9, 23, 40, 0x1_0017, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0xdead_beef_0000_0028, u64::MAX];

fn compare(spec: &LinuxSeccomp, native: u32, audits: &[u32], random: &mut Random, rounds: usize) {
    let program = compiled(spec, native);
    let mut tables = Tables::default();
    let mut values = VALUES.to_vec();
    let args = spec.syscalls().iter().flatten().flat_map(|entry| entry.args().iter().flatten());
    values.extend(args.map(|arg| arg.value()));
    for _ in 0..rounds {
        let audit = random.of(audits);
        let number = match random.below(12) {
            0 => random.below(1 << 32) as u32,
            1 => random.of(&[u32::MAX, X32, X32 - 1, X32 + 600, 600, 0, 0xf0000, 0xf0001, 0xf0006]),
            2..5 => {
                let named = numbers(random.of(&NAMES), audit, random.below(2) == 0);
                if named.is_empty() { 0 } else { random.of(&named).0 }
            }
            5 if audit == AUDIT_X86_64 => X32 | random.below(560) as u32,
            _ => random.below(480) as u32,
        };
        let mut args = [0; 6];
        args.iter_mut().for_each(|arg| *arg = random.value(&values));
        let call = Call { audit, number, args };
        let expected = meant(spec, native, &call, &mut tables);
        let got = run(&program, call).0;
        let profile = || serde_json::to_string(spec).unwrap().chars().take(3000).collect::<String>();
        assert_eq!(got, expected, "{call:x?} {got:#x} {expected:#x} in {}", profile());
    }
}

#[test]
fn the_default_profile_does_what_it_says() {
    let audits = [AUDIT_X86_64, AUDIT_X86, AUDIT_ARM, 0];
    compare(&default_profile(), AUDIT_X86_64, &audits, &mut Random(7), 100_000);
}

#[test]
fn random_profiles_do_what_they_say() {
    let actions = ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP", "NOTIFY"];
    let operators = known_operators();
    let archs = ["X86_64", "X86", "X32", "AARCH64", "ARM", "MIPS64N32"];
    let mut random = Random(0x5eed);
    for _ in 0..500 {
        let mut entries = Vec::new();
        for _ in 0..random.below(14) {
            let mut entry = json!({"action": format!("SCMP_ACT_{}", random.of(&actions))});
            let names = (0..1 + random.below(3)).map(|_| random.of(&NAMES)).filter(|name| *name != "write");
            entry["names"] = names.collect();
            if ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&entry["action"].as_str().unwrap())
                && random.below(2) == 0
            {
                entry["errnoRet"] = random.below(4).into();
            }
            let mut args = Vec::new();
            for _ in 0..random.below(4) {
                let (index, value, two) = (random.below(3), random.of(&VALUES), random.of(&VALUES));
                args.push(
                    json!({"index": index, "value": value, "valueTwo": two, "op": random.of(&operators)}),
                );
            }
            entry["args"] = args.into();
            entries.push(entry);
        }
        let listed: Vec<_> = archs.iter().filter(|_| random.below(2) == 0).collect();
        let listed: Vec<_> = listed.into_iter().map(|arch| format!("SCMP_ARCH_{arch}")).collect();
        let action = format!("SCMP_ACT_{}", random.of(&actions[..8]));
        let spec = spec(json!({"defaultAction": action, "architectures": listed, "syscalls": entries,
            "listenerPath": "/agent"}));
        compare(&spec, AUDIT_X86_64, &[AUDIT_X86_64, AUDIT_X86_64, AUDIT_X86, 0], &mut random, 150);
        compare(&spec, AUDIT_AARCH64, &[AUDIT_AARCH64, AUDIT_ARM], &mut random, 50);
    }
}

#[test]
fn big_endian_arguments_have_their_high_half_first() {
    let spec = spec(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": [{"names": ["lseek"],
        "action": "SCMP_ACT_ALLOW", "args": [{"index": 1, "value": 0x1_0000_0002_u64, "op": "SCMP_CMP_GT"}]}]}));
    let program = compiled(&spec, 0x8000_0016);
    let lseek = |arg| run(&program, Call { audit: 0x8000_0016, number: 19, args: [0, arg, 0, 0, 0, 0] }).0;
    assert_eq!([lseek(0x1_0000_0002), lseek(0x1_0000_0003), lseek(0x2_0000_0000)], [ERRNO | 1, ALLOW, ALLOW]);
    assert_eq!(run(&program, Call { audit: 0x8000_0016, number: 0, args: [0; 6] }).0, ERRNO | 38);
}

#[test]
fn a_call_that_is_always_allowed_never_looks_at_arguments() {
    // The kernel caches a call as always allowed only if the filter decides by number and architecture.
    let program = compiled(&default_profile(), AUDIT_X86_64);
    for number in [0, 1, 9, 59, 202, 257, 262] {
        let (value, steps, asked) = run(&program, Call { audit: AUDIT_X86_64, number, args: [0; 6] });
        assert!(value == ALLOW && !asked && steps <= 14, "{number}: {value:#x} after {steps}");
    }
}

#[test]
fn what_a_filter_cannot_see_gets_the_strictest_of_its_outcomes() {
    let (permit, errno) = (json!({"action": "SCMP_ACT_ALLOW"}), json!({"action": "SCMP_ACT_ERRNO"}));
    let kill = json!({"action": "SCMP_ACT_KILL_PROCESS"});
    let asked = |index: u32, rule: &serde_json::Value, name: &str| {
        json!({"names": [name], "action": rule["action"],
            "args": [{"index": index, "value": 0, "op": "SCMP_CMP_EQ"}]})
    };
    let always = |rule: &serde_json::Value, name: &str| json!({"names": [name], "action": rule["action"]});
    // socketcall carries bind, and ipc carries shmget. mmap and select take a pointer to their arguments.
    for (name, number, first) in
        [("bind", 102, 2), ("shmget", 117, 23), ("shmget", 117, 0x1_0017), ("mmap", 90, 0), ("select", 82, 0)]
    {
        for index in 0..3 {
            let cases = [
                ("SCMP_ACT_ERRNO", vec![asked(index, &permit, name)], ERRNO | 1),
                ("SCMP_ACT_ERRNO", vec![asked(index, &permit, name), always(&permit, name)], ALLOW),
                ("SCMP_ACT_ERRNO", vec![asked(index, &permit, name), asked(index, &kill, name)], 0x8000_0000),
                ("SCMP_ACT_ALLOW", vec![asked(index, &errno, name)], ERRNO | 1),
                ("SCMP_ACT_LOG", vec![asked(index, &permit, name)], 0x7ffc_0000),
            ];
            for (default, mut rules, expected) in cases {
                // A call with a high number, so that no call in this test is newer than the profile.
                rules.push(always(&kill, "statx"));
                let profile = spec(json!({"defaultAction": default, "architectures": ["SCMP_ARCH_X86"],
                    "syscalls": rules}));
                let program = compiled(&profile, AUDIT_X86_64);
                let call = Call { audit: AUDIT_X86, number, args: [first, 0, 0, 0, 0, 0] };
                assert_eq!(run(&program, call).0, expected, "{name} {index} {default}");
            }
        }
    }
}

#[test]
fn a_multiplexer_takes_an_integer_of_32_bits_on_machines_of_64_too() {
    let profile = spec(json!({"defaultAction": "SCMP_ACT_ALLOW",
        "syscalls": [{"names": ["bind", "shmget"], "action": "SCMP_ACT_ERRNO"}]}));
    let program = compiled(&profile, 0x8000_0016);
    let s390x = |number, arg| run(&program, Call { audit: 0x8000_0016, number, args: [arg; 6] }).0;
    assert_eq!([s390x(102, 2), s390x(102, 0x1_0000_0002), s390x(102, 3)], [ERRNO | 1, ERRNO | 1, ALLOW]);
    assert_eq!([s390x(117, 23), s390x(117, 0x1_0001_0017), s390x(117, 22)], [ERRNO | 1, ERRNO | 1, ALLOW]);
}

#[test]
fn a_mask_without_bits_is_no_condition() {
    // As in libseccomp: such a condition always holds, and its rule wins over rules with real conditions.
    let rule = |errno, op, value, two| {
        json!({"names": ["getpid"], "action": "SCMP_ACT_ERRNO", "errnoRet": errno,
            "args": [{"index": 0, "value": value, "valueTwo": two, "op": op}]})
    };
    let list = [rule(1, "SCMP_CMP_EQ", 5, 0), rule(2, "SCMP_CMP_MASKED_EQ", 0, 7)];
    let spec = spec(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": list}));
    let program = compiled(&spec, AUDIT_X86_64);
    let getpid = |arg| run(&program, Call { audit: AUDIT_X86_64, number: 39, args: [arg; 6] });
    assert_eq!([getpid(5), getpid(6)].map(|(value, _, asked)| (value, asked)), [(ERRNO | 2, false); 2]);
    compare(&spec, AUDIT_X86_64, &[AUDIT_X86_64], &mut Random(7), 200);
}

#[test]
fn jumps_reach_across_a_filter_of_thousands_of_instructions() {
    let entry = |value: u64| {
        json!({"names": ["read", "ioctl", "execve"], "action": "SCMP_ACT_ALLOW",
        "args": [{"index": 1, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let wide: Vec<_> = (0..900).map(|value| entry(value << 33)).collect();
    let wide = spec(json!({"defaultAction": "SCMP_ACT_ERRNO", "syscalls": wide}));
    assert!(compiled(&wide, AUDIT_X86_64).len() > 3000);
    compare(&wide, AUDIT_X86_64, &[AUDIT_X86_64], &mut Random(3), 200);
}

fn error(json: serde_json::Value) -> String {
    format!("{:#}", plan(&spec(json), None).unwrap_err())
}

#[test]
fn errors_name_the_place() {
    let entry = |entry| error(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [entry]}));
    let cases = [
        (
            entry(json!({"names": ["write"], "action": "SCMP_ACT_NOTIFY"})),
            "SCMP_ACT_NOTIFY cannot be used for the write syscall",
        ),
        (
            error(json!({"defaultAction": "SCMP_ACT_NOTIFY"})),
            "SCMP_ACT_NOTIFY cannot be used as default action",
        ),
        (entry(json!({"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"})), "seccomp listenerPath is not set"),
        (
            entry(json!({"names": ["mkdir"], "action": "SCMP_ACT_KILL", "errnoRet": 2})),
            "syscalls[0]: errnoRet: SCMP_ACT_KILL takes no errno, and 2 is given",
        ),
        (
            entry(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 4096})),
            "syscalls[0]: errnoRet: 4096 is over 4095, the most for SCMP_ACT_ERRNO",
        ),
        (
            entry(json!({"names": ["mkdir"], "action": "SCMP_ACT_ERRNO",
                "args": [{"index": 6, "value": 0, "op": "SCMP_CMP_EQ"}]})),
            "syscalls[0]: args[0]: a system call has no argument 6, the last is 5",
        ),
        (
            entry(json!({"names": [""], "action": "SCMP_ACT_ERRNO"})),
            "syscalls[0]: empty string is not a valid syscall",
        ),
        (
            error(
                json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"]}),
            ),
            "flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY",
        ),
    ];
    for (got, expected) in cases {
        assert_eq!(got, format!("linux.seccomp: {expected}"));
    }
}

#[test]
fn a_profile_that_is_too_large_says_so() {
    let entry = |value: u64| {
        json!({"names": ["read"], "action": "SCMP_ACT_ERRNO",
        "args": [{"index": 0, "value": value, "op": "SCMP_CMP_EQ"}]})
    };
    let entries: Vec<_> = (0..1100).map(|value| entry(value << 32 | 1)).collect();
    let text = error(json!({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": entries}));
    assert!(text.starts_with("linux.seccomp: the filter needs 4"), "{text}");
    assert!(text.ends_with("instructions, and the kernel takes 4096"), "{text}");
}

#[test]
fn flags_are_spec_allow_unless_given() {
    let flags = |json: serde_json::Value| plan(&spec(json), None).unwrap().unwrap().flags();
    let with = |flags: serde_json::Value| json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": flags});
    assert_eq!(flags(json!({"defaultAction": "SCMP_ACT_ALLOW"})), 4);
    assert_eq!(flags(with(json!([]))), 0);
    assert_eq!(flags(with(json!(["SECCOMP_FILTER_FLAG_TSYNC"]))), 0);
    assert_eq!(flags(with(json!(["SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW"]))), 6);
    let notify = json!({"defaultAction": "SCMP_ACT_ALLOW", "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"],
        "listenerPath": "/a", "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]});
    assert_eq!(flags(notify), 40);
}

#[test]
fn the_receiver_annotation_stands_in_for_the_listener_path() {
    let notify = |path: &str| {
        spec(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": path, "listenerMetadata": "bar",
            "syscalls": [{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}]}))
    };
    let annotations = HashMap::from([("run.oci.seccomp.receiver".to_owned(), "/b".to_owned())]);
    let path = |spec| plan(&spec, Some(&annotations)).unwrap().unwrap().listener().unwrap().path.clone();
    assert_eq!(path(notify("/a")), Path::new("/a"));
    assert_eq!(path(notify("")), Path::new("/b"));
}

#[test]
fn a_listener_is_ignored_without_a_notify_rule() {
    let spec =
        spec(json!({"defaultAction": "SCMP_ACT_ALLOW", "listenerPath": "/a", "listenerMetadata": "b"}));
    assert_eq!(plan(&spec, None).unwrap().unwrap().listener(), None);
}

#[test]
fn names_in_the_tables_are_the_names_of_the_spec() {
    for row in ACTIONS {
        assert_eq!(row.name, row.action.to_string());
    }
    for (name, operator) in OPERATORS {
        assert_eq!(*name, operator.to_string());
    }
    for (name, flag, _) in FLAGS {
        assert_eq!(*name, flag.to_string());
    }
    for (name, arch) in ARCHITECTURES {
        assert_eq!(serde_json::to_value(arch).unwrap(), **name);
    }
    for names in [known_actions(), known_operators(), known_archs()] {
        assert!(names.is_sorted());
    }
}

#[test]
fn the_agent_gets_the_state_and_the_fd() {
    use std::io::Read;
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("agent");
    let socket = std::os::unix::net::UnixListener::bind(&path).unwrap();
    let listener = Listener { path, metadata: "bar".to_owned() };
    let (mut reader, writer) = std::io::pipe().unwrap();
    let state = json!({"id": "web", "status": "creating"});
    let writer = OwnedFd::from(writer);
    send_to_listener(&listener, std::os::fd::AsFd::as_fd(&writer), "1.3.0", 42, &state).unwrap();
    drop(writer);

    let (agent, _) = socket.accept().unwrap();
    let (mut buffer, mut space) = ([0; 4096], nix::cmsg_space!([i32; 2]));
    let (bytes, fds) = {
        let mut slices = [std::io::IoSliceMut::new(&mut buffer)];
        let message =
            socket::recvmsg::<()>(agent.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::empty())
                .unwrap();
        let fds: Vec<i32> = message
            .cmsgs()
            .unwrap()
            .flat_map(|one| match one {
                socket::ControlMessageOwned::ScmRights(fds) => fds,
                other => panic!("{other:?}"),
            })
            .collect();
        (message.bytes, fds)
    };
    assert_eq!(
        serde_json::from_slice::<serde_json::Value>(&buffer[..bytes]).unwrap(),
        json!({"ociVersion": "1.3.0", "fds": ["seccompFd"], "pid": 42, "metadata": "bar", "state": state})
    );
    let [fd] = fds[..] else { panic!("{fds:?}") };
    nix::unistd::close(fd).unwrap();
    assert_eq!(reader.read(&mut [0]).unwrap(), 0, "the fd was the only writer of the pipe");
    assert_eq!((&agent).read(&mut [0]).unwrap(), 0, "one state per connection");
}

#[test]
fn nobody_listening_is_said_as_runc_says_it() {
    let fd = OwnedFd::from(std::io::pipe().unwrap().0);
    for path in ["/no/agent", "@no-agent-of-orlop"] {
        let listener = Listener { path: path.into(), metadata: String::new() };
        let error = send_to_listener(&listener, std::os::fd::AsFd::as_fd(&fd), "1.3.0", 1, &json!({}));
        let text = format!("{:#}", error.unwrap_err());
        assert!(
            text.contains("failed to connect with seccomp agent specified in the seccomp profile: "),
            "{text}"
        );
        assert!(text.contains(path), "{text}");
    }
}

/// `PROFILE=file CALLS=mount,socket cargo test --release --lib seccomp::tests::cost -- --ignored --nocapture`
#[test]
#[ignore = "prints what a filter costs"]
fn cost_of_a_filter() {
    let profile = std::env::var("PROFILE").map_or_else(
        |_| default_profile(),
        |path| serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap(),
    );
    let begin = std::time::Instant::now();
    let rounds = 1000;
    let mut length = 0;
    for _ in 0..rounds {
        length = plan(&profile, None).unwrap().unwrap().program.len();
    }
    println!("{length} instructions, compiled in {:?}", begin.elapsed() / rounds);
    let filter = plan(&profile, None).unwrap().unwrap();
    if let Ok(path) = std::env::var("DUMP") {
        let bytes = filter.program.iter().flat_map(|one| {
            let mut row = one.code.to_le_bytes().to_vec();
            row.extend([one.jt, one.jf]);
            row.extend(one.k.to_le_bytes());
            row
        });
        std::fs::write(path, bytes.collect::<Vec<u8>>()).unwrap();
    }
    let names =
        std::env::var("CALLS").unwrap_or("read,execve,futex,mount,clone,socket,personality".to_owned());
    let (mut total, mut count) = (0, 0);
    for name in names.split(',') {
        for (number, _) in numbers(name, AUDIT_X86_64, false) {
            let (value, steps, asked) =
                run(&rows(&filter.program), Call { audit: AUDIT_X86_64, number, args: [0; 6] });
            println!("{name:20} {value:#010x} after {steps:2} instructions, looks at arguments: {asked}");
            (total, count) = (total + steps, count + 1);
        }
    }
    let _ = probe::in_child(|| {
        let ready = rustix::thread::set_no_new_privs(true).is_ok();
        let begin = std::time::Instant::now();
        let loaded = ready && filter.install().is_ok();
        println!("loaded in {:?}", begin.elapsed());
        u8::from(!loaded)
    });
    println!("mean depth {:.1}", total as f64 / f64::from(count.max(1)));
}

#[test]
fn what_is_newer_than_the_profile_is_so_beyond_a_multiplexer_too() {
    // On x86, `send` exists only through socketcall (102), so it has no number that could be the newest.
    let spec =
        spec(json!({"defaultAction": "SCMP_ACT_TRAP", "architectures": ["SCMP_ARCH_X86"], "syscalls": [
        {"names": ["send"], "action": "SCMP_ACT_KILL"}, {"names": ["lseek"], "action": "SCMP_ACT_ALLOW"}]}));
    let program = compiled(&spec, AUDIT_X86_64);
    let answer = |number| run(&program, Call { audit: AUDIT_X86, number, args: [1, 0, 0, 0, 0, 0] }).0;
    assert_eq!([18, 19, 20, 77, 101].map(answer), [0x0003_0000, ALLOW, ERRNO | 38, ERRNO | 38, ERRNO | 38]);
    assert_eq!([103, 500].map(answer), [ERRNO | 38, ERRNO | 38]);
}
