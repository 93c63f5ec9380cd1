//! For tests: an interpreter of profiles that shares no code with the compiler, and a machine that runs a filter as the
//! kernel does. Tests and the fuzzer compare the answers of the two.
//!
//! Not part of the product. `fuzz/` includes this file by its path, so it uses nothing of this crate.

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompArg, LinuxSeccompOperator as Operator,
    LinuxSyscall,
};

pub const ALLOW: u32 = 0x7fff_0000;
pub const ERRNO: u32 = 0x0005_0000;
pub const X32: u32 = 0x4000_0000;
pub const AUDIT_X86_64: u32 = 0xc000_003e;
pub const AUDIT_X86: u32 = 0x4000_0003;
pub const AUDIT_AARCH64: u32 = 0xc000_00b7;
pub const AUDIT_ARM: u32 = 0x4000_0028;

/// A system call as a filter sees it.
#[derive(Clone, Copy, Debug)]
pub struct Call {
    pub audit: u32,
    pub number: u32,
    pub args: [u64; 6],
}

/// An instruction: code, jt, jf, k.
pub type Row = (u16, u8, u8, u32);

/// Runs a program as the kernel does. Returns its answer, the number of instructions that ran, and true if it read an
/// argument.
pub fn run(program: &[Row], call: Call) -> (u32, usize, bool) {
    let word = |offset: u32| match offset {
        0 => call.number,
        4 => call.audit,
        16..64 => {
            let little = call.audit & 0x4000_0000 != 0;
            let low = offset.is_multiple_of(8) == little;
            let arg = call.args[(offset as usize - 16) / 8];
            if low { arg as u32 } else { (arg >> 32) as u32 }
        }
        _ => panic!("load from offset {offset}"),
    };
    let (mut at, mut steps, mut loaded, mut asked) = (0, 0, 0_u32, false);
    loop {
        let (code, jt, jf, k) = program[at];
        (at, steps) = (at + 1, steps + 1);
        let mut jump = |holds| at += usize::from(if holds { jt } else { jf });
        match code {
            0x20 => (loaded, asked) = (word(k), asked || k >= 16),
            0x54 => loaded &= k,
            0x15 => jump(loaded == k),
            0x25 => jump(loaded > k),
            0x35 => jump(loaded >= k),
            0x45 => jump(loaded & k != 0),
            0x05 => at += k as usize,
            0x06 => return (k, steps, asked),
            _ => panic!("instruction {code:#x}"),
        }
    }
}

/// The calls that have another number for x32, from 512 on in this order (arch/x86/entry/syscalls/syscall_64.tbl of the
/// kernel).
const X32_OWN: &str = "rt_sigaction rt_sigreturn ioctl readv writev recvfrom sendmsg recvmsg execve ptrace \
    rt_sigpending rt_sigtimedwait rt_sigqueueinfo sigaltstack timer_create mq_notify kexec_load waitid \
    set_robust_list get_robust_list vmsplice move_pages preadv pwritev rt_tgsigqueueinfo recvmmsg sendmmsg \
    process_vm_readv process_vm_writev setsockopt getsockopt io_setup io_submit execveat preadv2 pwritev2";

/// The numbers that a name stands for. A number of a multiplexer comes with the value of its first argument.
pub fn numbers(name: &str, audit: u32, x32: bool) -> Vec<(u32, Option<u64>)> {
    macro_rules! in_table {
        ($arch:ident) => {
            name.parse::<syscalls::$arch::Sysno>().ok().map(|call| call.id() as u32)
        };
    }
    let direct = match audit {
        AUDIT_X86_64 if x32 => match X32_OWN.split_whitespace().position(|own| own == name) {
            Some(at) => Some(512 + at as u32),
            None => in_table!(x86_64),
        }
        .map(|number| number | X32),
        AUDIT_X86_64 => in_table!(x86_64),
        AUDIT_X86 => in_table!(x86),
        AUDIT_AARCH64 => in_table!(aarch64),
        AUDIT_ARM => in_table!(arm).or(match name {
            "breakpoint" => Some(0xf0001),
            "cacheflush" => Some(0xf0002),
            "set_tls" => Some(0xf0005),
            _ => None,
        }),
        _ => None,
    };
    let carried =
        [("socket", 102, 1), ("bind", 102, 2), ("send", 102, 9), ("recv", 102, 10), ("shmget", 117, 23)];
    let carried = carried.iter().filter(|row| row.0 == name && audit == AUDIT_X86);
    let carried = carried.map(|&(_, number, value)| (number, Some(value)));
    direct.map(|number| (number, None)).into_iter().chain(carried).collect()
}

fn holds(arg: &LinuxSeccompArg, call: &Call, wide: bool) -> bool {
    let cut = |value: u64| if wide { value } else { value & 0xffff_ffff };
    let (is, value, two) = (cut(call.args[arg.index()]), cut(arg.value()), cut(arg.value_two().unwrap_or(0)));
    match arg.op() {
        Operator::ScmpCmpEq => is == value,
        Operator::ScmpCmpNe => is != value,
        Operator::ScmpCmpGt => is > value,
        Operator::ScmpCmpGe => is >= value,
        Operator::ScmpCmpLt => is < value,
        Operator::ScmpCmpLe => is <= value,
        Operator::ScmpCmpMaskedEq => is & value == two & value,
    }
}

/// The rules of a profile by their number, in the order of the profile, and the highest number that it names.
#[derive(Default)]
struct Table {
    newest: u32,
    rules: std::collections::HashMap<u32, Vec<(usize, Option<u64>)>>,
}

/// A table for each architecture. Each is made once, because tests ask about a hundred thousand calls.
#[derive(Default)]
pub struct Tables(std::collections::HashMap<(u32, bool), Table>);

impl Tables {
    fn of(&mut self, spec: &LinuxSeccomp, audit: u32, x32: bool) -> &Table {
        self.0.entry((audit, x32)).or_insert_with(|| {
            let mut table = Table::default();
            for (index, entry) in spec.syscalls().iter().flatten().enumerate() {
                for (number, carried) in entry.names().iter().flat_map(|name| numbers(name, audit, x32)) {
                    if carried.is_none() && (audit != AUDIT_ARM || number < 0xf0000) {
                        table.newest = table.newest.max(number & !X32);
                    }
                    table.rules.entry(number).or_default().push((index, carried));
                }
            }
            table
        })
    }
}

/// Returns true if an entry has no condition about the arguments.
fn conditionless(entry: &LinuxSyscall) -> bool {
    let args = entry.args().clone().unwrap_or_default();
    let nothing = |arg: &LinuxSeccompArg| arg.op() == Operator::ScmpCmpMaskedEq && arg.value() == 0;
    let twice = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
    args.iter().all(nothing) || twice && args.iter().any(nothing)
}

/// The action for a call whose arguments are in memory: the first action without conditions, else the strictest.
fn unseen(default: u32, actions: &[(u32, bool)]) -> u32 {
    let strictness = |action: u32| match action & 0xffff_0000 {
        0x8000_0000 => 0, // KILL_PROCESS
        0x0000_0000 => 1, // KILL_THREAD
        0x0003_0000 => 2, // TRAP
        ERRNO => 3,
        0x7fc0_0000 => 4, // NOTIFY
        0x7ff0_0000 => 5, // TRACE
        0x7ffc_0000 => 6, // LOG
        ALLOW => 7,
        other => panic!("action {other:#x}"),
    };
    if let Some((always, _)) = actions.iter().find(|(_, conditionless)| *conditionless) {
        return *always;
    }
    let mut strictest = default;
    for (action, _) in actions {
        if strictness(*action) < strictness(strictest) {
            strictest = *action;
        }
    }
    strictest
}

/// The answer to a call according to the profile.
pub fn meant(spec: &LinuxSeccomp, native: u32, call: &Call, tables: &mut Tables) -> u32 {
    let errno = |errno: Option<u32>| errno.unwrap_or(1);
    let value = |action: Action, given| match action {
        Action::ScmpActErrno | Action::ScmpActTrace => action.as_u32(Some(errno(given))),
        _ => action.as_u32(None),
    };
    let x32 = call.audit == AUDIT_X86_64 && call.number >= X32;
    let default = value(spec.default_action(), spec.default_errno_ret());
    let listed = |arch| spec.architectures().iter().flatten().any(|one| *one == arch);
    let known = match call.audit {
        AUDIT_X86_64 if x32 && !listed(Arch::ScmpArchX32) => {
            return if call.number == u32::MAX { default } else { 0 };
        }
        AUDIT_X86 => listed(Arch::ScmpArchX86) && native == AUDIT_X86_64,
        AUDIT_ARM => listed(Arch::ScmpArchArm) && native == AUDIT_AARCH64,
        audit => audit == native,
    };
    if !known {
        return 0;
    }
    let (mut always, mut first, mut told) = (None, None, false);
    let Table { newest, rules } = tables.of(spec, call.audit, x32);
    let newest = *newest;
    let rules = rules.get(&call.number).map(Vec::as_slice).unwrap_or_default();
    let i386 = call.audit == AUDIT_X86;
    let blind = |carried: Option<u64>| {
        let same = rules.iter().filter(|rule| rule.1 == carried);
        let entries = same.filter_map(|rule| spec.syscalls().iter().flatten().nth(rule.0));
        let actions = entries.map(|entry| (value(entry.action(), entry.errno_ret()), conditionless(entry)));
        unseen(default, &actions.filter(|(action, _)| *action != default).collect::<Vec<_>>())
    };
    for &(index, carried) in rules {
        let Some(entry) = spec.syscalls().iter().flatten().nth(index) else { continue };
        let action = value(entry.action(), entry.errno_ret());
        if action == default {
            continue;
        }
        // The old mmap and select have their arguments in memory.
        if i386 && [82, 90].contains(&call.number) {
            return blind(None);
        }
        // So do calls that a multiplexer carries.
        if carried.is_some() {
            let action = blind(carried);
            let bits = if call.number == 117 { 0xffff } else { 0xffff_ffff };
            told |= action != default;
            let meant = action != default && Some(call.args[0] & bits) == carried;
            first = first.or(meant.then_some(action));
            continue;
        }
        told = true;
        let args = entry.args().clone().unwrap_or_default();
        let wide = call.audit & 0x8000_0000 != 0 && !x32;
        let twice = (0..6).any(|index| args.iter().filter(|arg| arg.index() == index).count() > 1);
        let passes = |arg: &_| holds(arg, call, wide);
        if conditionless(entry) {
            always = always.or(Some(action));
        } else if twice && args.iter().any(passes) || !twice && args.iter().all(passes) {
            first = first.or(Some(action));
        }
    }
    let permissive =
        matches!(spec.default_action(), Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace);
    // A call with a rule is known to the profile, even if its number is above `newest`, as a multiplexer's may be.
    let newer = call.number & if x32 { !X32 } else { u32::MAX } > newest && !told;
    let private = call.audit == AUDIT_ARM && call.number >= 0xf0000;
    match always.or(first) {
        None if newest > 0 && newer && !permissive && !private => ERRNO | 38,
        found => found.unwrap_or(default),
    }
}
