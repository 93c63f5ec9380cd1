//! `linux.seccomp`: the system calls that the container may make (config-linux.md, "Seccomp").
//!
//! [`plan`] turns the names of the profile into numbers and compiles it (`compile.rs`, `arch.rs`, `assemble.rs`). Init
//! loads the filter by [`Filter::install`]. The parent sends the notification fd to the agent by [`send_to_listener`].
//! Not for: when init loads the filter (`plan::FilterTime`), and how the parent gets the fd (`wire`).

mod arch;
mod assemble;
mod compile;
#[cfg(test)]
mod kernel_tests;
#[cfg(test)]
mod reference;
#[cfg(test)]
mod seccompiler_tests;
#[cfg(test)]
mod tests;

use crate::sys::seccomp::{self as sys, Instruction};
use crate::sys::{Called, errno_of, fd};
use anyhow::{Context, Result, bail, ensure};
use compile::{Condition, Profile, Rule};
use nix::sys::socket::{self, ControlMessage, MsgFlags, UnixAddr};
use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction as Action, LinuxSeccompFilterFlag as Flag,
    LinuxSeccompOperator as Operator, LinuxSyscall, SECCOMP_FD_NAME,
};
use serde::{Deserialize, Serialize, Serializer};
use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

/// An action: its name, the value that the filter returns for it, and the data that the value can carry.
struct ActionRow {
    name: &'static str,
    action: Action,
    /// `SECCOMP_RET_*`.
    value: u32,
    /// The largest `errnoRet` that the action takes; 0 if it takes none.
    data: u32,
}

const fn action(name: &'static str, action: Action, value: u32, data: u32) -> ActionRow {
    ActionRow { name, action, value, data }
}

/// All actions, sorted by name. `features` prints them in this order.
const ACTIONS: &[ActionRow] = &[
    action("SCMP_ACT_ALLOW", Action::ScmpActAllow, 0x7fff_0000, 0),
    action("SCMP_ACT_ERRNO", Action::ScmpActErrno, 0x0005_0000, MAX_ERRNO),
    action("SCMP_ACT_KILL", Action::ScmpActKill, compile::KILL_THREAD, 0),
    action("SCMP_ACT_KILL_PROCESS", Action::ScmpActKillProcess, 0x8000_0000, 0),
    action("SCMP_ACT_KILL_THREAD", Action::ScmpActKillThread, compile::KILL_THREAD, 0),
    action("SCMP_ACT_LOG", Action::ScmpActLog, 0x7ffc_0000, 0),
    action("SCMP_ACT_NOTIFY", Action::ScmpActNotify, 0x7fc0_0000, 0),
    action("SCMP_ACT_TRACE", Action::ScmpActTrace, 0x7ff0_0000, 0xffff),
    action("SCMP_ACT_TRAP", Action::ScmpActTrap, 0x0003_0000, 0),
];

/// The largest errno that the kernel returns.
const MAX_ERRNO: u32 = 4095;

const OPERATORS: &[(&str, Operator)] = &[
    ("SCMP_CMP_EQ", Operator::ScmpCmpEq),
    ("SCMP_CMP_GE", Operator::ScmpCmpGe),
    ("SCMP_CMP_GT", Operator::ScmpCmpGt),
    ("SCMP_CMP_LE", Operator::ScmpCmpLe),
    ("SCMP_CMP_LT", Operator::ScmpCmpLt),
    ("SCMP_CMP_MASKED_EQ", Operator::ScmpCmpMaskedEq),
    ("SCMP_CMP_NE", Operator::ScmpCmpNe),
];

/// The architectures of the spec. The filter has no code for one that this machine's kernel does not serve: no process
/// can make such a call.
const ARCHITECTURES: &[(&str, Arch)] = &[
    ("SCMP_ARCH_AARCH64", Arch::ScmpArchAarch64),
    ("SCMP_ARCH_ARM", Arch::ScmpArchArm),
    ("SCMP_ARCH_LOONGARCH64", Arch::ScmpArchLoongarch64),
    ("SCMP_ARCH_M68K", Arch::ScmpArchM68k),
    ("SCMP_ARCH_MIPS", Arch::ScmpArchMips),
    ("SCMP_ARCH_MIPS64", Arch::ScmpArchMips64),
    ("SCMP_ARCH_MIPS64N32", Arch::ScmpArchMips64n32),
    ("SCMP_ARCH_MIPSEL", Arch::ScmpArchMipsel),
    ("SCMP_ARCH_MIPSEL64", Arch::ScmpArchMipsel64),
    ("SCMP_ARCH_MIPSEL64N32", Arch::ScmpArchMipsel64n32),
    ("SCMP_ARCH_PARISC", Arch::ScmpArchParisc),
    ("SCMP_ARCH_PARISC64", Arch::ScmpArchParisc64),
    ("SCMP_ARCH_PPC", Arch::ScmpArchPpc),
    ("SCMP_ARCH_PPC64", Arch::ScmpArchPpc64),
    ("SCMP_ARCH_PPC64LE", Arch::ScmpArchPpc64le),
    ("SCMP_ARCH_RISCV64", Arch::ScmpArchRiscv64),
    ("SCMP_ARCH_S390", Arch::ScmpArchS390),
    ("SCMP_ARCH_S390X", Arch::ScmpArchS390x),
    ("SCMP_ARCH_SH", Arch::ScmpArchSh),
    ("SCMP_ARCH_SHEB", Arch::ScmpArchSheb),
    ("SCMP_ARCH_X32", Arch::ScmpArchX32),
    ("SCMP_ARCH_X86", Arch::ScmpArchX86),
    ("SCMP_ARCH_X86_64", Arch::ScmpArchX86_64),
];

/// All flags, in the order in which `features` prints them. TSYNC has no effect, because init has only one thread.
const FLAGS: &[(&str, Flag, u32)] = &[
    ("SECCOMP_FILTER_FLAG_TSYNC", Flag::SeccompFilterFlagTsync, 0),
    ("SECCOMP_FILTER_FLAG_SPEC_ALLOW", Flag::SeccompFilterFlagSpecAllow, sys::SPEC_ALLOW),
    ("SECCOMP_FILTER_FLAG_LOG", Flag::SeccompFilterFlagLog, sys::LOG),
    (
        "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV",
        Flag::SeccompFilterFlagWaitKillableRecv,
        sys::WAIT_KILLABLE_RECV,
    ),
];

/// The actions that a profile may use.
pub fn known_actions() -> Vec<&'static str> {
    ACTIONS.iter().map(|row| row.name).collect()
}

/// The operators that a condition may use.
pub fn known_operators() -> Vec<&'static str> {
    OPERATORS.iter().map(|(name, _)| *name).collect()
}

/// The architectures that a profile may list.
pub fn known_archs() -> Vec<&'static str> {
    ARCHITECTURES.iter().map(|(name, _)| *name).collect()
}

/// The flags that a profile may list.
pub fn known_flags() -> Vec<&'static str> {
    FLAGS.iter().map(|(name, ..)| *name).collect()
}

/// The flags that the running kernel supports. Makes a system call for each.
pub fn supported_flags() -> Vec<&'static str> {
    let listener = |bits: u32| if bits == sys::WAIT_KILLABLE_RECV { sys::NEW_LISTENER } else { 0 };
    let supported = FLAGS.iter().filter(|(_, _, bits)| sys::knows_flags(bits | listener(*bits)));
    supported.map(|(name, ..)| *name).collect()
}

/// The compiled filter and how to load it.
#[derive(Clone, Debug, Serialize)]
pub struct Filter {
    #[serde(serialize_with = "summary")]
    program: Vec<Instruction>,
    flags: u32,
    listener: Option<Listener>,
}

/// The agent that answers notifications.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Listener {
    /// The agent's socket. `@name` stands for an abstract socket.
    pub path: PathBuf,
    /// `listenerMetadata`, which the agent gets unchanged.
    pub metadata: String,
}

/// Prints a program as its length and a hash, so that a reader of a plan sees whether it has changed.
fn summary<S: Serializer>(program: &[Instruction], to: S) -> Result<S::Ok, S::Error> {
    let words =
        program.iter().flat_map(|one| [u32::from(one.code), u32::from(one.jt), u32::from(one.jf), one.k]);
    let hash = words.fold(0xcbf2_9ce4_8422_2325_u64, |hash, word| {
        (hash ^ u64::from(word)).wrapping_mul(0x0100_0000_01b3)
    });
    to.serialize_str(&format!("{} instructions, {hash:016x}", program.len()))
}

/// Compiles `linux.seccomp`. If the profile has no listener path, the annotation `run.oci.seccomp.receiver` gives it.
/// Always returns a filter today.
///
/// # Errors
/// The profile is malformed, contradicts itself, or compiles to more instructions than the kernel takes.
pub fn plan(spec: &LinuxSeccomp, annotations: Option<&HashMap<String, String>>) -> Result<Option<Filter>> {
    filter(spec, annotations, compile::native()).context("linux.seccomp").map(Some)
}

fn filter(
    spec: &LinuxSeccomp,
    annotations: Option<&HashMap<String, String>>,
    machine: &arch::Machine,
) -> Result<Filter> {
    let program = compile::compile(profile(spec)?, machine);
    let most = sys::MAX_INSTRUCTIONS;
    ensure!(
        program.len() <= most,
        "the filter needs {} instructions, and the kernel takes {most}",
        program.len()
    );
    let listener = listener(spec, annotations)?;
    let mut flags = match spec.flags() {
        // The default of runc.
        None => sys::SPEC_ALLOW,
        Some(flags) => {
            FLAGS.iter().filter(|(_, flag, _)| flags.contains(flag)).fold(0, |all, (_, _, bits)| all | bits)
        }
    };
    if listener.is_some() {
        flags |= sys::NEW_LISTENER;
    } else if flags & sys::WAIT_KILLABLE_RECV != 0 {
        bail!("flags: SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV needs a rule with SCMP_ACT_NOTIFY");
    }
    Ok(Filter { program, flags, listener })
}

fn listener(spec: &LinuxSeccomp, annotations: Option<&HashMap<String, String>>) -> Result<Option<Listener>> {
    let mut calls = spec.syscalls().iter().flatten();
    if !calls.any(|call| call.action() == Action::ScmpActNotify && !call.names().is_empty()) {
        return Ok(None);
    }
    let annotated = || annotations.and_then(|all| all.get("run.oci.seccomp.receiver")).map(PathBuf::from);
    let given = spec.listener_path().clone().filter(|path| !path.as_os_str().is_empty());
    let path = given.or_else(annotated).context("seccomp listenerPath is not set")?;
    ensure!(!path.as_os_str().as_bytes().contains(&0), "listenerPath {path:?}: contains a NUL byte");
    Ok(Some(Listener { path, metadata: spec.listener_metadata().clone().unwrap_or_default() }))
}

/// Turns the names of the profile into numbers.
fn profile(spec: &LinuxSeccomp) -> Result<Profile<'_>> {
    let default = spec.default_action();
    ensure!(default != Action::ScmpActNotify, "SCMP_ACT_NOTIFY cannot be used as default action");
    let none = Vec::new();
    let entries = spec.syscalls().as_ref().unwrap_or(&none);
    let (mut calls, mut rules) = (Vec::new(), Vec::with_capacity(entries.len()));
    for (index, entry) in entries.iter().enumerate() {
        let place = || format!("syscalls[{index}]");
        let start = rules.len();
        add_rules(entry, &mut rules).with_context(place)?;
        for name in entry.names() {
            ensure!(!name.is_empty(), "syscalls[{index}]: empty string is not a valid syscall");
            // With the filter loaded, init tells the parent about the notification fd by write(2). The agent could not
            // allow that call, because it does not have the fd yet.
            if entry.action() == Action::ScmpActNotify && name == "write" {
                bail!("SCMP_ACT_NOTIFY cannot be used for the write syscall");
            }
            calls.push((arch::hash(name), start..rules.len()));
        }
    }
    Ok(Profile {
        default: value(default, spec.default_errno_ret()).context("defaultErrnoRet")?,
        // A tracer or a log must see new calls too, so they do not get ENOSYS.
        newer_not_implemented: !matches!(
            default,
            Action::ScmpActAllow | Action::ScmpActLog | Action::ScmpActTrace
        ),
        architectures: spec.architectures().as_deref().unwrap_or_default(),
        calls,
        rules,
    })
}

/// Adds the rule of one entry. If the entry names an argument twice, adds a rule for each of its conditions instead: as
/// in runc, any of them is then enough.
fn add_rules(entry: &LinuxSyscall, rules: &mut Vec<Rule>) -> Result<()> {
    let action = value(entry.action(), entry.errno_ret()).context("errnoRet")?;
    let mut conditions = Vec::new();
    let (mut seen, mut twice) = (0_u8, false);
    for (index, arg) in entry.args().iter().flatten().enumerate() {
        ensure!(
            arg.index() < 6,
            "args[{index}]: a system call has no argument {}, the last is 5",
            arg.index()
        );
        let bit = 1 << arg.index();
        twice |= seen & bit != 0;
        seen |= bit;
        conditions.push(Condition {
            index: arg.index() as u32,
            operator: arg.op(),
            value: arg.value(),
            masked: arg.value_two().unwrap_or(0),
        });
    }
    // As in libseccomp: a condition whose mask is 0 counts as no condition. A rule without conditions comes first.
    let asks = |one: &Condition| one.operator != Operator::ScmpCmpMaskedEq || one.value != 0;
    let rule = |mut conditions: Vec<Condition>| {
        conditions.retain(asks);
        Rule { action, conditions }
    };
    if twice {
        rules.extend(conditions.into_iter().map(|one| rule(vec![one])));
    } else {
        rules.push(rule(conditions));
    }
    Ok(())
}

/// The return value of the filter for an action. The spec demands an error if errnoRet is given and has no meaning.
fn value(action: Action, errno: Option<u32>) -> Result<u32> {
    let row = ACTIONS.iter().find(|row| row.action == action).context("unknown action")?;
    match errno {
        None if row.data == 0 => Ok(row.value),
        None => Ok(row.value | libc::EPERM as u32),
        Some(errno) if row.data == 0 => bail!("{} takes no errno, and {errno} is given", row.name),
        Some(errno) if errno > row.data => bail!("{errno} is over {}, the most for {}", row.data, row.name),
        Some(errno) => Ok(row.value | errno),
    }
}

impl Filter {
    /// The flags of seccomp(2), as the number that the debug log shows.
    pub fn flags(&self) -> u32 {
        self.flags
    }

    /// The agent that gets the notification fd; `None` if [`Filter::install`] returns no fd.
    pub fn listener(&self) -> Option<&Listener> {
        self.listener.as_ref()
    }

    /// Encodes the filter: a line of JSON with the flags and the listener, then the instructions in the kernel's
    /// layout. The container's state directory keeps these bytes for `exec`.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let mut bytes = serde_json::to_vec(&(self.flags, &self.listener))?;
        bytes.push(b'\n');
        for one in &self.program {
            bytes.extend(one.code.to_ne_bytes());
            bytes.extend([one.jt, one.jf]);
            bytes.extend(one.k.to_ne_bytes());
        }
        Ok(bytes)
    }

    /// Decodes the bytes of [`Filter::encode`].
    ///
    /// # Errors
    /// The bytes are cut off or malformed.
    pub fn decode(bytes: &[u8]) -> Result<Self> {
        let end = bytes.iter().position(|byte| *byte == b'\n').context("not a seccomp filter")?;
        let (head, rest) = bytes.split_at(end);
        let (flags, listener) = serde_json::from_str(std::str::from_utf8(head)?)?;
        let (rows, left) = rest.get(1..).unwrap_or_default().as_chunks::<8>();
        anyhow::ensure!(left.is_empty() && !rows.is_empty(), "the seccomp filter is cut off");
        let program = rows.iter().map(|&[c0, c1, jt, jf, k0, k1, k2, k3]| Instruction {
            code: u16::from_ne_bytes([c0, c1]),
            jt,
            jf,
            k: u32::from_ne_bytes([k0, k1, k2, k3]),
        });
        Ok(Self { program: program.collect(), flags, listener })
    }

    /// Loads the filter for the calling thread by one system call. Returns the notification fd if there is a listener.
    ///
    /// The filter may forbid close(2). A caller that cannot risk that leaves the fd open: it is CLOEXEC.
    ///
    /// # Errors
    /// `EACCES`: we have neither no_new_privs nor CAP_SYS_ADMIN. `EINVAL`: the kernel does not know a flag. `EBUSY`: an
    /// outer filter already has a listener.
    pub fn install(&self) -> Result<Option<OwnedFd>> {
        sys::set_filter(&self.program, self.flags).context("linux.seccomp")
    }
}

/// The message that the agent gets with the fd (config-linux.md, "The Container Process State").
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ContainerProcessState<'a, S> {
    oci_version: &'a str,
    fds: [&'static str; 1],
    pid: i32,
    #[serde(skip_serializing_if = "str::is_empty")]
    metadata: &'a str,
    state: &'a S,
}

/// Sends `notify_fd` and the state of the container to the agent, and closes the connection. `pid` is the process that
/// has loaded the filter: init, or the process of an `exec`.
///
/// # Errors
/// `ENOENT`, `ECONNREFUSED`: nobody listens at the path. `EPIPE`: the agent has closed the connection.
pub fn send_to_listener(
    listener: &Listener,
    notify_fd: BorrowedFd,
    oci_version: &str,
    pid: i32,
    state: &impl Serialize,
) -> Result<()> {
    let Listener { path, metadata } = listener;
    let message = ContainerProcessState {
        oci_version,
        fds: [SECCOMP_FD_NAME],
        pid,
        metadata: metadata.as_str(),
        state,
    };
    let message = serde_json::to_vec(&message).context("the container process state")?;
    let agent = connect(path)
        .context("failed to connect with seccomp agent specified in the seccomp profile")
        .context("linux.seccomp.listenerPath")?;
    send(&agent, &message, notify_fd)
        .with_context(|| format!("cannot send seccomp fd to {}", path.display()))
        .context("linux.seccomp.listenerPath")
}

fn connect(path: &Path) -> Result<OwnedFd> {
    let address = match path.as_os_str().as_bytes() {
        // As in Go: every agent that was written for runc uses this notation.
        [b'@', name @ ..] => UnixAddr::new_abstract(name),
        _ => UnixAddr::new(path),
    };
    let args = || format!("{path:?}");
    let address = address.called("connect", args)?;
    Ok(fd::connect(&address, args)?)
}

/// Sends the message, with the fd beside its first bytes. A stream socket may take the message in several parts.
fn send(agent: &OwnedFd, message: &[u8], fd: BorrowedFd) -> Result<()> {
    let (fds, mut rest) = ([fd.as_raw_fd()], message);
    let mut control = &[ControlMessage::ScmRights(&fds)][..];
    while !rest.is_empty() {
        let sent = socket::sendmsg::<()>(
            agent.as_raw_fd(),
            &[IoSlice::new(rest)],
            control,
            MsgFlags::MSG_NOSIGNAL,
            None,
        )
        .called("sendmsg", || format!("{} bytes", rest.len()));
        match sent.map_err(anyhow::Error::from) {
            Ok(sent) => (rest, control) = (rest.get(sent..).unwrap_or_default(), &[]),
            Err(error) if errno_of(&error) == Some(libc::EINTR) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
