//! The child's spine: namespaces → root → close the host → identity → ready → wait for `start` → execve.
//!
//! One line per step, a comment only where the order matters. It runs in a forked copy of the runtime, so the
//! plan needs no serialising. Not for: anything that touches the state directory, cgroup trees or the host
//! (`launch.rs`).

mod enter;
mod held;
mod identity;

pub use self::held::Held;

use self::identity::Standing;
use crate::log;
use crate::oci_state::OciState;
use crate::parts::console::Pty;
use crate::parts::devices;
use crate::parts::hooks::Kind as HookKind;
use crate::parts::namespaces::Kind;
use crate::parts::rlimits::Rlimits;
use crate::plan::{DevicesAt, FilterTime, Plan};
use crate::sys::spawn::{self, Parentage};
use crate::sys::{self, Called, Refused, cmdline, path::Root};
use crate::wire::{self, Event, Failure, InitEnd};
use anyhow::{Context, Result};
use rustix::process::Resource;
use std::convert::Infallible;
use std::ffi::{CStr, CString};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;

/// Init of a new container: does everything, or reports why not and ends.
pub fn main(plan: &mut Plan, held: &mut Held, wire: &InitEnd) -> i32 {
    told(wire, |start| container(plan, held, wire, start))
}

/// The hop, the process between parent and init: joins or unshares namespaces, makes init as its sibling, and ends.
///
/// `cgroup` is where init is to be born, unless this process is in it already.
pub fn hop(plan: &mut Plan, held: &mut Held, wire: &InitEnd, cgroup: Option<BorrowedFd<'_>>) -> i32 {
    report_panics(wire);
    let made = make_init(plan, held, wire, cgroup);
    let told = match made {
        Ok(pid) => wire.tell(&Event::Born { pid }, None),
        Err(error) => wire.tell(&Event::Failed(Failure::of(&error)), None).and(Err(error)),
    };
    i32::from(told.is_err())
}

/// Makes init or the process of `exec`, and returns its process id.
fn make_init(
    plan: &mut Plan,
    held: &mut Held,
    wire: &InitEnd,
    cgroup: Option<BorrowedFd<'_>>,
) -> Result<i32> {
    enter::ask_for_cgroup(plan, held, wire)?;
    let kinds = enter::as_hop(plan, held)?;
    if plan.root.is_some() {
        return spawn::spawn(kinds, Parentage::Sibling, cgroup, || main(plan, held, wire))
            .map(|init| init.pid)
            .map_err(Refused::by_clone);
    }
    // `exec`: the container can see the next process. So it is born without any right that the container's own processes
    // lack, behind the filter, and with nothing of the host open (CVE-2016-9962).
    let (file, standing, limits) = become_container_process(plan, held, wire)?;
    let time = plan.filter_time();
    let run = || {
        told(wire, |start| {
            // No parent-death signal: the filter may forbid prctl(2). The wire ends with the parent.
            rustix::process::setsid().called("setsid", String::new)?;
            if plan.process.console.is_some() {
                // The hop has put the terminal there.
                sys::tty::set_controlling(std::io::stdin().as_fd())?;
            }
            identity::limit(&limits, wire)?;
            if time == FilterTime::BeforeReady {
                identity::load_early(&plan.process, &standing, wire)?;
            }
            execute(plan, held, wire, &file, start)
        })
    };
    match time {
        FilterTime::InHop => spawn::behind_filter(run).context(
            "linux.seccomp: the process of exec is made behind the filter (does the profile allow clone?)",
        ),
        _ => spawn::spawn(kinds, Parentage::Sibling, cgroup, run)
            .map(|process| process.pid)
            .map_err(Refused::by_clone),
    }
}

/// `exec`, in the hop: sets the limits under which it can still make a process, and returns those that are left to that
/// process. In front of the filter, which may answer prlimit(2) in place of the kernel.
fn limits_of_exec(plan: &Plan) -> Rlimits {
    let in_hop = plan.filter_time() == FilterTime::InHop;
    // clone3(2) wants a descriptor for the new process; clone(2), as behind the filter, wants none.
    let hinders = |resource| resource == Resource::Nproc || (resource == Resource::Nofile && !in_hop);
    let limits = &plan.process.rlimits;
    match limits.part(|resource| !hinders(resource)).apply(None) {
        Ok(()) => limits.part(hinders),
        // The process asks the parent.
        Err(_) => limits.clone(),
    }
}

/// `exec`, in the hop: becomes what the container's process is to be, in all but its process id. Returns the program's file,
/// and what is left to do.
fn become_container_process(
    plan: &mut Plan,
    held: &mut Held,
    wire: &InitEnd,
) -> Result<(CString, Standing, Rlimits)> {
    if let Some(warning) = plan.process.affinity.after_cgroup(None)? {
        log::debug(|| warning);
    }
    identity::join_keyring(&plan.process, held)?;
    plan.process.labels.apply(&held.proc)?;
    // POINT OF NO RETURN: below this line nothing of the host is open. It comes before the change of ids, behind which
    // the kernel makes us dumpable for a moment where fs.suid_dumpable is 1.
    held.close_host(plan, wire)?;
    cmdline::hide();
    enter::become_root(plan)?;
    let root = Root::open_host(Path::new("/"))?;
    devices::reopen_null_streams(&root)?;
    if let Some(terminal) = &plan.process.console {
        let pty = terminal.open(&root)?;
        hand_over(pty, held.console_socket.take(), wire)?;
    }
    sys::signal::reset()?;
    let standing = identity::give_up_rights(&plan.process, &root, false)?;
    let file = identity::settle(&mut plan.process, &root, &standing)?;
    let limits = limits_of_exec(plan);
    if plan.filter_time() == FilterTime::InHop {
        identity::load_early(&plan.process, &standing, wire)?;
    }
    Ok((file, standing, limits))
}

/// The order of a container's birth.
fn container(
    plan: &mut Plan,
    held: &mut Held,
    wire: &InitEnd,
    start: &mut Option<OwnedFd>,
) -> Result<Infallible> {
    identity::die_with_parent()?;
    sys::signal::reset()?;
    cmdline::hide();
    enter::ask_for_cgroup(plan, held, wire)?;
    enter::as_init(plan, held, wire)?;
    log::debug(|| "child process in init(): in its namespaces".into());
    rustix::process::setsid().called("setsid", String::new)?;
    identity::join_keyring(&plan.process, held)?;
    make_root(plan, held, wire)?;
    // Below this line nothing of the host is open.
    held.close_host(plan, wire)?;
    let root = Root::open_host(Path::new("/"))?;
    let is_bound = plan.root.as_ref().is_some_and(|root| root.order.bounding_early);
    let standing = identity::give_up_rights(&plan.process, &root, is_bound)?;
    let file = identity::settle(&mut plan.process, &root, &standing)?;
    identity::limit(&plan.process.rlimits, wire)?;
    if held.gate.is_some() {
        // Before `create` returns, after which another command may send signals.
        spawn::end_on_signals()?;
    }
    // From here on `ask` notices a dead parent. Behind the filter prctl(2) may be forbidden.
    identity::outlive_parent()?;
    if plan.filter_time() == FilterTime::BeforeReady {
        identity::load_early(&plan.process, &standing, wire)?;
    }
    execute(plan, held, wire, &file, start)
}

/// Makes the container's root and everything in it, and makes it `/`.
fn make_root(plan: &Plan, held: &mut Held, wire: &InitEnd) -> Result<()> {
    let Some(plan_root) = &plan.root else { return Ok(()) };
    if plan.namespaces.made(Kind::Network) && !plan.entry.network_comes_later() {
        sys::netlink::loopback_up()?;
    }
    // From here on no path is resolved from the host's root, except those of mount sources.
    let root = plan_root.rootfs.open()?;
    let masks = plan_root.paths.hold_in_init(&root, held.masks.take())?;
    let ask = |mount, fd: BorrowedFd<'_>| wire.ask(&Event::MapMount { mount }, Some(fd));
    let order = plan_root.order;
    let mut making = plan_root.mounts.begin(&root, &mut held.mounts, held.cgroup_mount.take(), &ask);
    // Meanwhile the parent makes the network namespace, which takes the kernel longer than these steps.
    making.apply(0..order.before_network)?;
    if order.devices != DevicesAt::AfterMounts {
        plan_root.devices.apply(&root, making.dev(), held.devices.take())?;
    }
    if order.bounding_early {
        plan.process.capabilities.bound()?;
    }
    enter::join_network(held)?;
    making.apply(order.before_network..usize::MAX)?;
    let late = making.end();
    if order.devices != DevicesAt::BeforeNetwork {
        plan_root.devices.apply(&root, late.dev.as_ref().map(AsFd::as_fd), held.devices.take())?;
    }
    if plan.parent_acts_before_pivot() {
        wire.ask(&Event::RunHooks, None)?;
    }
    if !plan.hooks.of(HookKind::CreateContainer).is_empty() {
        // Hooks find the root as their working directory, as with runc. Nothing else names it to them.
        rustix::process::fchdir(root.as_fd()).called("fchdir", || "(root.path)".into())?;
        run_hooks(plan, held, HookKind::CreateContainer, "created")?;
    }
    log::debug(|| "init: mounts and devices are there, pivot_root".into());
    // POINT OF NO RETURN: behind this line the host's paths are gone.
    plan_root.rootfs.pivot(&root)?;
    plan_root.devices.reopen_null(&root)?;
    if let Some(terminal) = &plan.process.console {
        let pty = terminal.open(&root)?;
        pty.bind(&root)?;
        hand_over(pty, held.console_socket.take(), wire)?;
        sys::tty::set_controlling(std::io::stdin().as_fd())?;
    }
    // Before the root is read-only. `exec` makes no directory: a wrong --cwd is the user's mistake.
    plan.process.program.make_cwd(&root);
    late.set_readonly()?;
    plan_root.rootfs.set_readonly(&root)?;
    plan.names.apply()?;
    plan.process.labels.apply(&held.proc)?;
    plan.sysctl.apply(&held.proc)?;
    plan_root.paths.apply(&root, masks)?;
    plan_root.rootfs.set_propagation(&root)
}

/// The end that all processes of a container share: take the last steps of the identity, let the parent verify, execute.
fn execute(
    plan: &mut Plan,
    held: &mut Held,
    wire: &InitEnd,
    file: &CStr,
    start: &mut Option<OwnedFd>,
) -> Result<Infallible> {
    log::debug(|| match &plan.root {
        Some(_) => format!("init: closing the pipe to signal completion, ready to execute {file:?}"),
        None => format!("setns_init: about to exec {file:?}"),
    });
    // After the parent's answer init may outlive the parent.
    wire.ask(&Event::Ready, None)?;
    if let Some(gate) = held.gate.take() {
        *start = Some(gate.wait()?);
    }
    // With no_new_privs the filter comes as late as possible, so that the profile need not allow init's own calls. It comes
    // before the hooks, which it confines too.
    if plan.filter_time() == FilterTime::Last {
        identity::load_filter(&plan.process, wire)?;
    }
    // From here on the profile must allow what init does, which is no more than every program needs.
    run_hooks(plan, held, HookKind::StartContainer, "created")?;
    if let Some(result) = start {
        rustix::io::write(result, &[wire::COMPLETE]).called("write", || wire::RESULT.into())?;
    }
    Err(plan.process.program.execve(file))
}

/// Gives the terminal's master side to the engine or to the parent, and makes the slave side our standard streams.
fn hand_over(pty: Pty, socket: Option<OwnedFd>, wire: &InitEnd) -> Result<()> {
    match socket {
        Some(socket) => pty.send_to(socket.as_fd())?,
        None => wire.ask(&Event::Console, Some(pty.master.as_fd()))?,
    }
    pty.become_stdio()
}

/// Runs `steps`, which return only with an error, and reports that error: to `start` if it has released us, otherwise to
/// the parent.
fn told(wire: &InitEnd, steps: impl FnOnce(&mut Option<OwnedFd>) -> Result<Infallible>) -> i32 {
    report_panics(wire);
    let mut start = None;
    let Err(error) = steps(&mut start);
    match start {
        // The parent has ended; `start` reads this.
        Some(fifo) => drop(
            std::fs::File::from(fifo)
                .write_all(&serde_json::to_vec(&Failure::of(&error)).unwrap_or_default()),
        ),
        None => drop(wire.tell(&Event::Failed(Failure::of(&error)), None)),
    }
    1
}

/// A panic of ours reaches the parent as the reason, not as a text on the container's stderr.
fn report_panics(wire: &InitEnd) {
    let Ok(wire) = wire.try_clone() else { return };
    std::panic::set_hook(Box::new(move |info| {
        let failure =
            Failure { chain: vec![format!("bug in orlop: {info}")], errno: None, cgroup_refused: false };
        let _ = wire.tell(&Event::Failed(failure), None);
        spawn::exit(1);
    }));
}

/// Runs hooks in the container's namespaces. A hook without an environment of its own gets that of the process.
fn run_hooks(plan: &Plan, held: &Held, kind: HookKind, status: &'static str) -> Result<()> {
    if plan.hooks.of(kind).is_empty() {
        return Ok(());
    }
    plan.hooks.run(kind, &hook_state(held, status)?, &plan.process.program.environment(), &held.hook_output)
}

/// The container's state for a hook that init runs. Its process id is that of the container's pid namespace.
fn hook_state(held: &Held, status: &'static str) -> Result<Vec<u8>> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    OciState { pid, status, ..held.hook_state.clone() }.json()
}
