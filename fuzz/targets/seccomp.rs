//! seccomp profile → BPF. The filter must answer as the profile says, which a second reader finds out directly.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxSeccomp;
use orlop::parts::seccomp::{self, Filter, known_archs, known_operators};
use serde_json::json;

#[path = "../../src/parts/seccomp/reference.rs"]
#[allow(dead_code)]
mod reference;

use reference::{AUDIT_ARM, AUDIT_X86, AUDIT_X86_64, Call, Row, Tables, X32, meant, numbers, run};

const ACTIONS: [&str; 9] =
    ["ALLOW", "ERRNO", "KILL", "KILL_PROCESS", "KILL_THREAD", "LOG", "TRACE", "TRAP", "NOTIFY"];
/// Calls of several architectures, calls of one, multiplexed calls, calls of x32 only, unknown names.
const NAMES: [&str; 26] = [
    "read",
    "close",
    "socket",
    "ioctl",
    "clone",
    "personality",
    "send",
    "recv",
    "shmget",
    "socketcall",
    "ipc",
    "openat2",
    "rt_sigaction",
    "rt_sigreturn",
    "readv",
    "writev",
    "recvfrom",
    "no_such_call",
    "breakpoint",
    "dup3",
    "lseek",
    "statx",
    "prctl",
    "execve",
    "fchmodat2",
    "setup",
];
const VALUES: [u64; 10] =
    [0, 1, 2, 9, 40, 0x7e02_0000, 0xffff_ffff, 0x1_0000_0000, 0xdead_beef_0000_0028, u64::MAX];

fn value(u: &mut Unstructured) -> Result<u64> {
    if u.ratio(1, 4)? { u.arbitrary() } else { Ok(*u.choose(&VALUES)?) }
}

fn profile(u: &mut Unstructured) -> Result<LinuxSeccomp> {
    let mut entries = Vec::new();
    for _ in 0..u.int_in_range(0..=12)? {
        let action = *u.choose(&ACTIONS)?;
        let mut entry = json!({"action": format!("SCMP_ACT_{action}")});
        let mut names = Vec::new();
        for _ in 0..u.int_in_range(1..=3)? {
            names.push(*u.choose(&NAMES)?);
        }
        entry["names"] = names.into();
        if ["ERRNO", "TRACE"].contains(&action) && u.arbitrary()? {
            entry["errnoRet"] = u.int_in_range(0..=4095)?.into();
        }
        let mut args = Vec::new();
        for _ in 0..u.int_in_range(0..=3)? {
            args.push(json!({"index": u.int_in_range(0..=5)?, "value": value(u)?, "valueTwo": value(u)?,
                "op": u.choose(&known_operators())?}));
        }
        entry["args"] = args.into();
        entries.push(entry);
    }
    let (bits, archs) = (u32::arbitrary(u)?, known_archs());
    let listed: Vec<_> =
        archs.iter().enumerate().filter(|(at, _)| bits >> at & 1 == 1).map(|(_, name)| name).collect();
    let default = u.choose(&ACTIONS[..8])?;
    let profile = json!({"defaultAction": format!("SCMP_ACT_{default}"), "architectures": listed,
        "syscalls": entries, "listenerPath": "/agent"});
    Ok(serde_json::from_value(profile).expect("a profile"))
}

fn call(u: &mut Unstructured) -> Result<Call> {
    let audit = *u.choose(&[AUDIT_X86_64, AUDIT_X86_64, AUDIT_X86_64, AUDIT_X86, AUDIT_X86, AUDIT_ARM, 0])?;
    let number = match u.int_in_range(0..=7)? {
        0 => u.arbitrary()?,
        1 => *u.choose(&[u32::MAX, X32, X32 - 1, X32 + 600, 600, 0])?,
        2..=5 => numbers(u.choose(&NAMES)?, audit, u.arbitrary()?).first().map_or(0, |row| row.0),
        6 => X32 | u.int_in_range(0..=559)?,
        _ => u.int_in_range(0..=480)?,
    };
    let mut args = [0; 6];
    for arg in &mut args {
        *arg = value(u)?;
    }
    Ok(Call { audit, number, args })
}

/// The program in seccomp.bpf, which follows a line of JSON.
fn program(filter: &Filter) -> Vec<Row> {
    let bytes = filter.encode().expect("a filter can be written");
    let end = bytes.iter().position(|byte| *byte == b'\n').expect("a line");
    let (rows, left) = bytes[end + 1..].as_chunks::<8>();
    assert!(left.is_empty());
    let row = |&[c0, c1, jt, jf, k0, k1, k2, k3]: &[u8; 8]| {
        (u16::from_ne_bytes([c0, c1]), jt, jf, u32::from_ne_bytes([k0, k1, k2, k3]))
    };
    rows.iter().map(row).collect()
}

fn compare(u: &mut Unstructured) -> Result<()> {
    let spec = profile(u)?;
    let Ok(Some(filter)) = seccomp::plan(&spec, None) else { panic!("refused: {spec:?}") };
    let (program, mut tables) = (program(&filter), Tables::default());
    for _ in 0..64 {
        let call = call(u)?;
        let (got, expected) = (run(&program, call).0, meant(&spec, AUDIT_X86_64, &call, &mut tables));
        assert_eq!(
            got,
            expected,
            "{call:x?} {got:#x} {expected:#x} in {}",
            serde_json::to_string(&spec).unwrap_or_default()
        );
        if u.is_empty() {
            break;
        }
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    // Bytes that are too few for a profile are skipped.
    let _ = compare(&mut Unstructured::new(bytes));
});
