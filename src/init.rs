//! The child's spine: namespaces → root → identity → seccomp → wait for `start` → execve.
//!
//! One line per step, a comment only where the order matters. It runs in a forked copy of the runtime, so the
//! plan needs no serialising. Not for: anything that touches the state directory, cgroup trees or the host
//! (`launch.rs`).

use crate::log;
use crate::oci_state::OciState;
use crate::parts::devices::Devices;
use crate::parts::hooks::Kind as HookKind;
use crate::parts::mounts::{self, CgroupSource, Source};
use crate::parts::namespaces::{self, Entry, Joins, Kind};
use crate::parts::{hooks, scheduling, user};
use crate::plan::{Plan, Process};
use crate::sys::spawn::{self, Parentage};
use crate::sys::{self, Called, ns::Flags, path::Root, prctl, proc::Proc};
use crate::wire::{self, Event, Failure, Gate, InitEnd};
use anyhow::{Context, Result, ensure};
use nix::sys::signal::Signal;
use std::cell::Cell;
use std::convert::Infallible;
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, IntoRawFd, OwnedFd};
use std::path::Path;

/// What init is given besides the plan: every descriptor that had to be opened while we saw the host.
#[derive(Debug)]
pub struct Held {
    /// Namespaces to be joined.
    pub joins: Joins,
    /// The host's procfs, verified.
    pub proc: Proc,
    /// v1: the `tasks` files of the container's cgroups.
    pub cgroup_tasks: Vec<OwnedFd>,
    /// The cgroup must be asked for: systemd makes it around a process.
    pub asks_for_cgroup: bool,
    /// What a mount of type `cgroup` shows.
    pub cgroup_mount: Option<mounts::CgroupSource>,
    /// The parent makes the network namespace, and we have not joined it yet.
    pub network_to_come: Cell<bool>,
    /// The capabilities' bounding set has been cut.
    pub is_bound: Cell<bool>,
    /// Sources of mounts.
    pub mounts: mounts::Held,
    /// The engine that wants the terminal.
    pub console_socket: Option<OwnedFd>,
    /// Where a created container waits for `start`.
    pub gate: Option<Gate>,
    /// The container's state, for hooks.
    pub hook_state: OciState,
    /// Where hooks print to.
    pub hook_output: hooks::Output,
    /// The signal mask that the caller of orlop had.
    pub mask: sys::signal::Mask,
}

/// The whole of the child: does everything, or reports why not and ends.
pub fn main(plan: &mut Plan, held: &mut Held, wire: &InitEnd) -> i32 {
    report_panics(wire);
    let mut start = None;
    let Err(error) = run(plan, held, wire, &mut start);
    match start {
        // The runtime that made us has gone; who started us reads this.
        Some(fifo) => drop(
            std::fs::File::from(fifo)
                .write_all(&serde_json::to_vec(&Failure::of(&error)).unwrap_or_default()),
        ),
        None => drop(wire.tell(&Event::Failed(Failure::of(&error)), None)),
    }
    1
}

/// The process between parent and init: joins or unshares, makes init as its own sibling, and is done.
///
/// `cgroup` is where init is to be born, unless this process is in it already.
pub fn hop(plan: &mut Plan, held: &mut Held, wire: &InitEnd, cgroup: Option<BorrowedFd<'_>>) -> i32 {
    report_panics(wire);
    let made = ask_for_cgroup(plan, held, wire).and_then(|()| enter(plan, held)).and_then(|clone| {
        let visible = plan.root.is_none();
        if visible {
            close_all_but(plan, wire, &[cgroup, console_of(held)])?;
        }
        Ok(spawn::spawn(clone, Parentage::Sibling, cgroup, || match visible {
            true => visible_main(plan, held, wire),
            false => main(plan, held, wire),
        })?)
    });
    let told = match made {
        Ok(child) => wire.tell(&Event::Born { pid: child.pid }, None),
        Err(error) => wire.tell(&Event::Failed(Failure::of(&error)), None).and(Err(error)),
    };
    i32::from(told.is_err())
}

/// Whether [`brief_hop`] will do: nothing is asked on the way, and what is joined may be joined by who shares memory
/// with another process (setns(2)).
pub fn hop_is_brief(plan: &Plan, held: &Held) -> bool {
    let joins_alone = held.joins.has(Kind::User) || held.joins.has(Kind::Time);
    plan.root.is_none() && !held.asks_for_cgroup && !joins_alone && spawn::SHARES_MEMORY
}

/// [`hop`] in memory that is the parent's, who waits for its end (`spawn::in_our_memory`): it changes nothing there, and
/// allocates nothing unless something goes wrong. To be closed on the way are `closed`; gives init's process id.
///
/// # Errors
/// As `hop` reports them.
pub fn brief_hop(
    plan: &mut Plan,
    held: &mut Held,
    wire: &InitEnd,
    cgroup: Option<BorrowedFd<'_>>,
    closed: &sys::fd::Ranges,
) -> Result<i32> {
    let clone = enter(plan, held)?;
    closed.close()?;
    let init = spawn::spawn(clone, Parentage::Sibling, cgroup, || visible_main(plan, held, wire))?;
    Ok(init.pid)
}

/// What the hop closes before it makes an init that a container can see: by what of the host is open there, one that may
/// look into other processes (CAP_SYS_PTRACE) would get out.
pub fn closed_by_hop(
    plan: &Plan,
    held: &Held,
    wire: &InitEnd,
    cgroup: Option<BorrowedFd<'_>>,
) -> sys::fd::Ranges {
    all_but(plan, wire, &[cgroup, console_of(held)])
}

/// [`main`] in sight of a container. The host's descriptors are closed, the cgroup's still has to be; what is needed of
/// /proc, the container's own has.
fn visible_main(plan: &mut Plan, held: &mut Held, wire: &InitEnd) -> i32 {
    // Not to be dropped: its descriptor is closed, and the number may be that of the new one.
    std::mem::forget(std::mem::replace(&mut held.proc, Proc::of_container()));
    match close_all_but(plan, wire, &[held.proc.fd(), console_of(held)]) {
        Ok(()) => main(plan, held, wire),
        Err(error) => {
            drop(wire.tell(&Event::Failed(Failure::of(&error)), None));
            1
        }
    }
}

fn enter(plan: &Plan, held: &Held) -> Result<Flags> {
    let Entry::Hop { unshare, clone, .. } = plan.entry else { return Ok(Flags::NONE) };
    if !held.joins.is_empty() {
        // Before the first foreign namespace: a process in there must not be able to look into us. Who may trace the
        // host's root (CAP_SYS_PTRACE where no user namespace is) still can, until the last rights are gone.
        prctl::set_not_dumpable()?;
    }
    // What runc's nsexec says at the same place.
    log::debug(|| format!("hop: nsexec container setup: {:?}", plan.entry));
    log::debug(|| format!("hop (runc: nsexec): affinity: {}", scheduling::current_affinity()));
    spawn::join_cgroups(&held.cgroup_tasks).context("linux.cgroupsPath")?;
    // Before a new user namespace, which leaves no right to join what the host owns.
    held.joins.enter()?;
    if !unshare.is_empty() {
        sys::ns::unshare(unshare).context("linux.timeOffsets")?;
        // Not thread-self: a thread has no such file.
        held.proc
            .write("self/timens_offsets", plan.time_offsets.0.as_bytes())
            .context("linux.timeOffsets")?;
    }
    Ok(clone)
}

/// The order of a container's birth.
fn run(plan: &mut Plan, held: &mut Held, wire: &InitEnd, start: &mut Option<OwnedFd>) -> Result<Infallible> {
    // Until the parent has us on record: die with it. EOF on the wire says the same for a parent that is
    // dead already, and after setuid, which clears this.
    nix::sys::prctl::set_pdeathsig(Signal::SIGKILL).called("prctl", || "(PR_SET_PDEATHSIG)".into())?;
    reset_signals(held)?;
    if let Entry::Direct { .. } = plan.entry {
        log::debug(|| format!("init: nsexec container setup: {:?}", plan.entry));
    }
    ask_for_cgroup(plan, held, wire)?;
    enter_namespaces(plan, held, wire)?;
    log::debug(|| "child process in init(): in its namespaces".into());
    rustix::process::setsid().called("setsid", String::new)?;
    join_keyring(&plan.process, held)?;
    let (mut pty, mut restricted) = (None, None);
    if let Some(plan_root) = &plan.root {
        if plan.namespaces.made(Kind::Network) && !plan.entry.network_comes_later() {
            sys::netlink::loopback_up()?;
        }
        let null = plan_root.paths.hold()?;
        // From here on no path is resolved from the host's root, but those of mount sources.
        let root = plan_root.rootfs.open()?;
        let (network, is_bound) = (&held.network_to_come, &held.is_bound);
        let devices_are_made = Cell::new(false);
        let map_ids = |mount, fd: BorrowedFd<'_>| {
            join_network(network, wire)?;
            wire.ask(&Event::MapMount { mount }, Some(fd))
        };
        let parent = mounts::Parent {
            map_ids: &map_ids,
            network: &|halfway| {
                if network.get() {
                    devices_are_made.set(devices_meanwhile(&plan_root.devices, &root, halfway)?);
                    bound_meanwhile(plan, is_bound)?;
                }
                join_network(network, wire)
            },
        };
        let late = plan_root.mounts.apply(&root, &mut held.mounts, held.cgroup_mount.take(), &parent)?;
        if !devices_are_made.get() {
            plan_root.devices.apply(&root, late.dev.as_ref().map(AsFd::as_fd))?;
        }
        join_network(network, wire)?;
        if runtime_is_needed(plan) {
            wire.ask(&Event::RunHooks, None)?;
        }
        if !plan.hooks.of(HookKind::CreateContainer).is_empty() {
            // Nothing else tells them where it is: they find it as their working directory, as with runc.
            rustix::process::fchdir(root.as_fd()).called("fchdir", || "(root.path)".into())?;
            run_hooks(plan, held, HookKind::CreateContainer, "created")?;
        }
        log::debug(|| "init: mounts and devices are there, pivot_root".into());
        // POINT OF NO RETURN: behind this line the host's paths are gone.
        plan_root.rootfs.pivot(&root)?;
        plan_root.devices.reopen_null(&root)?;
        if let Some(terminal) = &plan.process.console {
            let opened = terminal.open(&root)?;
            opened.bind(&root)?;
            pty = Some(opened);
        }
        // Before the root is read-only. `exec` makes none: a wrong --workdir there is the user's mistake.
        plan.process.program.make_cwd();
        late.set_readonly()?;
        plan_root.rootfs.set_readonly(&root)?;
        restricted = Some((root, null));
    } else if let Some(terminal) = &plan.process.console {
        pty = Some(terminal.open(&Root::open_host(Path::new("/"))?)?);
    }
    if let Some(pty) = pty {
        match &held.console_socket {
            Some(socket) => pty.send_to(socket.as_fd())?,
            None => wire.tell(&Event::Console, Some(pty.master.as_fd()))?,
        }
        pty.attach()?;
    }
    plan.names.apply()?;
    plan.process.labels.apply(&held.proc)?;
    plan.sysctl.apply(&held.proc)?;
    if let (Some(plan_root), Some((root, null))) = (&plan.root, restricted) {
        plan_root.paths.apply(&root, &null)?;
    }
    if held.gate.is_some() {
        close_what_start_does_not_need(plan, held, wire)?;
    }
    // Behind the filter prctl(2) may be forbidden. What is left is short, and `ask` notices a dead parent.
    nix::sys::prctl::set_pdeathsig(None).called("prctl", || "(PR_SET_PDEATHSIG, 0)".into())?;
    if held.gate.is_none() {
        // The parent writes us down while we go on, and stays to hear how it ends.
        wire.announce(&Event::Ready, None)?;
    }
    take_identity(&mut plan.process, held, wire)?;
    let process = &plan.process;
    let file = process.program.resolve()?;
    verify(process, held)?;

    log::debug(|| match &plan.root {
        Some(_) => format!("init: closing the pipe to signal completion, ready to execute {file:?}"),
        None => format!("setns_init: about to exec {file:?}"),
    });
    // From the parent's answer on we may outlive it.
    if let Some(gate) = held.gate.take() {
        // Before anybody can know of us, and send us some.
        spawn::end_on_signals()?;
        wire.ask(&Event::Ready, None)?;
        *start = Some(gate.wait()?);
    } else {
        wire.settle()?;
    }
    match process.program.verify_cwd() {
        // The filter forbids to ask. It was asked just before the filter came, and we have gone nowhere since.
        Err(error) if filter_comes_early(process) && sys::errno_of(&error).is_some() => {}
        said => said?,
    }
    if !filter_comes_early(process) {
        sys::fd::cloexec_from(3 + process.inherited.count())?;
    }
    // The one that would be worst to let out.
    if let Some(fd) = held.proc.fd() {
        ensure!(sys::fd::is_cloexec(fd)?, "the host's /proc would be open in the container");
    }
    // With no_new_privs as late as can be: the profile need not allow our own calls. But it holds for the hooks.
    if process.no_new_privileges && !has_listener(process) {
        load_filter(process, wire)?;
    }
    // The filter may forbid what is done from here on; it need only allow what every program needs.
    run_hooks(plan, held, HookKind::StartContainer, "created")?;
    if let Some(result) = start {
        rustix::io::write(result, &[wire::COMPLETE]).called("write", || wire::RESULT.into())?;
    }
    Err(process.program.execve(&file))
}

fn reset_signals(held: &Held) -> Result<()> {
    // Rust's runtime ignores SIGPIPE; an ignored signal stays ignored over execve.
    sys::spawn::set_default_action(Signal::SIGPIPE)?;
    sys::signal::block(held.mask)?;
    Ok(())
}

fn enter_namespaces(plan: &Plan, held: &Held, wire: &InitEnd) -> Result<()> {
    if let Entry::Direct { .. } = plan.entry {
        spawn::join_cgroups(&held.cgroup_tasks).context("linux.cgroupsPath")?;
    }
    if plan.maps.is_some() && plan.namespaces.made(Kind::User) {
        // The kernel lets nobody write the maps of a process that is not dumpable but root.
        wire.ask(&Event::MapIds, None)?;
    }
    if plan.namespaces.private(Kind::User) {
        become_root()?;
    }
    if let Entry::Direct { join, .. } = &plan.entry {
        prctl::set_not_dumpable()?;
        if !join.is_empty() {
            held.joins.enter()?;
        }
    } else {
        // Credentials have changed, which makes a process dumpable again.
        prctl::set_not_dumpable()?;
    }
    if let Some(warning) = plan.process.affinity.after_cgroup(None)? {
        log::debug(|| warning);
    }
    if plan.root.is_some() && plan.namespaces.made(Kind::Cgroup) {
        // Only now: its root is the cgroup that we are in.
        namespaces::unshare_cgroup()?;
    }
    Ok(())
}

/// In a user namespace our ids are whatever the host's are mapped to, if at all: we become its root.
fn become_root() -> Result<()> {
    match prctl::setgroups(&[]) {
        // Denied where an ordinary user has mapped its own group only.
        Err(error) if error.errno() == libc::EPERM => {}
        other => other.context("linux.gidMappings")?,
    }
    prctl::setresgid(0).context("linux.gidMappings: no id 0")?;
    prctl::setresuid(0).context("linux.uidMappings: no id 0")
}

/// Before the first namespace: systemd must know us by our process id on the host, and as ours.
fn ask_for_cgroup(plan: &Plan, held: &mut Held, wire: &InitEnd) -> Result<()> {
    if std::mem::take(&mut held.asks_for_cgroup) {
        join_network(&held.network_to_come, wire)?;
        let cgroup = wire.ask_for_cgroup()?;
        if plan.root.as_ref().is_some_and(|root| root.mounts.show_cgroup()) {
            held.cgroup_mount = Some(CgroupSource::V2(Source::Path(sys::path::c_path(&cgroup)?)));
        }
    }
    Ok(())
}

/// Makes the devices while the parent makes the network namespace, which takes the kernel longer than all else, unless
/// they would be in the way of what is still to be mounted. Gives whether nothing of that can come in between.
fn devices_meanwhile(devices: &Devices, root: &Root, halfway: &mounts::Halfway<'_>) -> Result<bool> {
    let rest = halfway.rest.iter().map(|mount| mount.destination.as_path());
    if halfway.dev.is_none() || !devices.can_precede(rest) {
        return Ok(false);
    }
    devices.apply(root, halfway.dev)?;
    Ok(halfway.is_sysfs_only())
}

/// Cuts the bounding set, which takes a call for each capability, at the same time. We keep what we have; a hook that is
/// executed from here would not get it.
fn bound_meanwhile(plan: &Plan, is_bound: &Cell<bool>) -> Result<()> {
    if plan.hooks.of(HookKind::CreateContainer).is_empty() {
        plan.process.capabilities.bound()?;
        is_bound.set(true);
    }
    Ok(())
}

/// Joins the network namespace that the parent has made, if it has not been done.
fn join_network(to_come: &Cell<bool>, wire: &InitEnd) -> Result<()> {
    if to_come.take() { namespaces::join_network(wire.network()?.as_fd()) } else { Ok(()) }
}

fn join_keyring(process: &Process, held: &Held) -> Result<()> {
    let Some(keyring) = &process.keyring else { return Ok(()) };
    process.labels.begin_keyring(&held.proc)?;
    if let Some(warning) = keyring.apply()? {
        log::warn(warning);
    }
    process.labels.end_keyring(&held.proc)
}

/// Whether the parent has something to do when the container's namespaces and mounts are there.
fn runtime_is_needed(plan: &Plan) -> bool {
    let hooks = [HookKind::Prestart, HookKind::CreateRuntime];
    hooks.iter().any(|kind| !plan.hooks.of(*kind).is_empty()) || !plan.net_devices.is_empty()
}

/// The same function for the first process and for those of `exec`.
fn take_identity(process: &mut Process, held: &Held, wire: &InitEnd) -> Result<()> {
    if let Some(scheduler) = &process.scheduler {
        scheduler.apply()?;
    }
    if let Some(priority) = process.io_priority {
        priority.apply()?;
    }
    if let Some(personality) = process.personality {
        personality.apply()?;
    }
    if let Some(policy) = &process.memory_policy {
        policy.apply()?;
    }
    if process.program.wants_home() {
        let home = user::home_dir(process.user.uid)?;
        process.program.set_env("HOME", home.as_deref().unwrap_or("/"));
    }
    // Behind this line no descriptor is opened: RLIMIT_NOFILE may be 1. While we are root still: another user's
    // limits are not everybody's to set.
    if let Err(error) = process.rlimits.apply(None) {
        // In a user namespace nobody may raise a hard limit: the parent, outside of it, may.
        if sys::errno_of(&error) != Some(libc::EPERM) {
            return Err(error);
        }
        wire.ask(&Event::SetLimits, None)?;
    }
    if process.open_to_caller {
        prctl::set_dumpable()?;
    }
    // Root may enter what the user may not, and (on a FUSE mount) the other way round: both are tried, as in runc.
    // Before the filter, which may forbid to ask where that is.
    let entered = process.program.enter_cwd();
    if filter_comes_early(process) {
        // The filter may be older than close_range(2). What is opened from here on closes itself, as all of ours.
        sys::fd::cloexec_from(3 + process.inherited.count())?;
    }
    if !process.no_new_privileges {
        // Needs CAP_SYS_ADMIN, so before the capabilities go.
        load_filter(process, wire)?;
    }
    // While CAP_SETPCAP is ours.
    if !held.is_bound.get() {
        process.capabilities.bound()?;
    }
    // Keeps the permitted set over setuid(2), which would clear what the next line keeps.
    let mut warnings = process.user.apply(&held.proc)?;
    warnings.extend(process.capabilities.apply()?);
    if entered.is_err() {
        process.program.enter_cwd()?;
    }
    // setuid(2) may have changed it.
    match process.open_to_caller {
        true => prctl::set_dumpable()?,
        false => prctl::set_not_dumpable()?,
    }
    if process.no_new_privileges {
        prctl::set_no_new_privs()?;
        if has_listener(process) {
            // Not later: the runtime must be there to hand the listener to the agent.
            load_filter(process, wire)?;
        }
    }
    warnings.iter().for_each(log::warn);
    Ok(())
}

/// What is set is read back: a process whose isolation is not what the plan says is not executed.
/// Not read back: a filter that is loaded last of all. Behind it no call is certain: prctl(PR_GET_SECCOMP) may be what
/// ends the process, and the parent hears of execve when it is done. seccomp(2) attaches the whole filter or fails.
fn verify(process: &Process, held: &Held) -> Result<()> {
    process.user.verify(&held.proc)?;
    process.capabilities.verify()?;
    ensure!(
        process.open_to_caller || !prctl::dumpable()?,
        "the process can be looked into: PR_GET_DUMPABLE is not 0"
    );
    if process.no_new_privileges {
        ensure!(prctl::no_new_privs()?, "process.noNewPrivileges: not in force");
    }
    if filter_comes_early(process) {
        ensure!(prctl::filtered()?, "linux.seccomp: no filter is in force");
    }
    Ok(())
}

/// Whether our own last calls are behind the filter.
fn filter_comes_early(process: &Process) -> bool {
    process.seccomp.is_some() && (!process.no_new_privileges || has_listener(process))
}

fn has_listener(process: &Process) -> bool {
    process.seccomp.as_ref().is_some_and(|filter| filter.listener().is_some())
}

fn load_filter(process: &Process, wire: &InitEnd) -> Result<()> {
    let Some(filter) = &process.seccomp else { return Ok(()) };
    log::debug(|| format!("seccomp filter flags: {}", filter.flags()));
    // Behind it read(2) may be a call that waits for the agent, who does not know of us yet.
    wire.settle()?;
    match filter.install()? {
        // The agent must answer from now on: the parent hands it the descriptor before we go on. Ours is closed
        // by execve: close(2) may be one of the calls that wait for the agent.
        Some(listener) => wire.ask(&Event::SeccompFd { fd: listener.into_raw_fd() }, None),
        None => Ok(()),
    }
}

/// A created container can wait for days, and be entered by `exec`: what a process that may trace us finds in
/// /proc/1/fd must not lead to the host. While the filter cannot forbid it, and before the rights are gone.
fn close_what_start_does_not_need(plan: &Plan, held: &mut Held, wire: &InitEnd) -> Result<()> {
    held.proc = Proc::of_container();
    let [go, result] =
        [held.gate.as_ref().map(|gate| gate.go.as_fd()), held.gate.as_ref().map(|gate| gate.result.as_fd())];
    close_all_but(plan, wire, &[held.proc.fd(), go, result])
}

/// Closes what we have of the host but what the process inherits, the wire, the log, and `kept`.
fn close_all_but(plan: &Plan, wire: &InitEnd, kept: &[Option<BorrowedFd<'_>>]) -> Result<()> {
    // It has a descriptor of its own, which goes.
    drop(std::panic::take_hook());
    all_but(plan, wire, kept).close()?;
    report_panics(wire);
    Ok(())
}

fn all_but(plan: &Plan, wire: &InitEnd, kept: &[Option<BorrowedFd<'_>>]) -> sys::fd::Ranges {
    let kept: Vec<_> = kept.iter().copied().chain([Some(wire.as_fd()), log::fd()]).flatten().collect();
    sys::fd::Ranges::all_but(3 + plan.process.inherited.count(), &kept)
}

fn console_of(held: &Held) -> Option<BorrowedFd<'_>> {
    held.console_socket.as_ref().map(AsFd::as_fd)
}

/// A panic of ours reaches the parent as the reason, not as a text on the container's stderr.
fn report_panics(wire: &InitEnd) {
    let Ok(wire) = wire.try_clone() else { return };
    std::panic::set_hook(Box::new(move |info| {
        let failure = Failure { chain: vec![format!("bug in orlop: {info}")], errno: None };
        let _ = wire.tell(&Event::Failed(failure), None);
        spawn::exit(1);
    }));
}

/// Hooks that run in the container's namespaces: without one of their own they have the process's environment.
fn run_hooks(plan: &Plan, held: &Held, kind: HookKind, status: &'static str) -> Result<()> {
    if plan.hooks.of(kind).is_empty() {
        return Ok(());
    }
    plan.hooks.run(kind, &hook_state(held, status)?, &plan.process.program.environment(), &held.hook_output)
}

/// The container's state for a hook that runs in here: the process id is that of our own pid namespace.
fn hook_state(held: &Held, status: &'static str) -> Result<Vec<u8>> {
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    OciState { pid, status, ..held.hook_state.clone() }.json()
}
