//! What init is given besides the plan, and the moment when all of it that belongs to the host is closed.

use crate::log;
use crate::oci_state::OciState;
use crate::parts::hooks::{self, Kind as HookKind};
use crate::parts::mounts;
use crate::parts::namespaces::Joins;
use crate::plan::Plan;
use crate::sys::{self, nodes::Nodes, proc::Proc};
use crate::wire::{Event, Gate, InitEnd, NetworkTarget};
use anyhow::Result;
use std::os::fd::{AsFd, OwnedFd};

/// What init is given besides the plan: every descriptor that had to be opened while we saw the host.
#[derive(Debug)]
pub struct Held {
    /// Namespaces to be joined.
    pub joins: Joins,
    /// The host's procfs, verified.
    pub proc: Proc,
    /// v1: the `tasks` files of the container's cgroups.
    pub cgroup_tasks: Vec<OwnedFd>,
    /// Init must ask the parent for the cgroup: systemd makes it around a process.
    pub asks_for_cgroup: bool,
    /// What a mount of type `cgroup` shows.
    pub cgroup_mount: Option<mounts::CgroupSource>,
    /// Where the network namespace comes from, if the parent makes it.
    pub network: Option<NetworkTarget>,
    /// Sources of mounts.
    pub mounts: mounts::Held,
    /// Devices that init may not make itself.
    pub devices: Option<Nodes>,
    /// What hides the masked paths, if init may not make it itself.
    pub masks: Option<Nodes>,
    /// The engine that wants the terminal.
    pub console_socket: Option<OwnedFd>,
    /// Where a created container waits for `start`.
    pub gate: Option<Gate>,
    /// The container's state, for hooks.
    pub hook_state: OciState,
    /// Where hooks print to.
    pub hook_output: hooks::Output,
}

impl Held {
    /// Closes every descriptor of the host. Left are the standard streams, what the process inherits, the wire, the gate,
    /// and what startContainer hooks print to. None of these leads to a directory of the host. The log goes by the wire.
    ///
    /// They are closed, not marked close-on-exec: execve(2) looks for the program, and for the interpreter of its first
    /// line, while such descriptors are still open, so that a name like /proc/self/fd/7/../../bin/sh reached the host.
    /// A created container can wait for days, too, and `exec` lets others look at it.
    pub fn close_host(&mut self, plan: &Plan, wire: &InitEnd) -> Result<()> {
        // Drop the owners first. An owner that is dropped later would close a number that another descriptor has by then.
        self.joins = Joins::default();
        self.proc = Proc::none();
        self.cgroup_tasks = Vec::new();
        self.cgroup_mount = None;
        self.mounts = mounts::Held::default();
        self.devices = None;
        self.masks = None;
        if plan.hooks.of(HookKind::StartContainer).is_empty() {
            self.hook_output = hooks::Output::default();
        }
        let gate = self.gate.as_ref().map(|gate| [gate.go.as_fd(), gate.result.as_fd()]);
        let hooks = self.hook_output.fds();
        let console = self.console_socket.as_ref().map(AsFd::as_fd);
        let kept: Vec<_> =
            gate.into_iter().flatten().chain(hooks).chain(console).chain([wire.as_fd()]).collect();
        // The panic hook has a copy of the wire, which is closed below, too.
        drop(std::panic::take_hook());
        sys::fd::Ranges::all_but(3 + plan.process.inherited.count(), &kept).close()?;
        super::report_panics(wire);
        let wire = wire.try_clone()?;
        log::through(move |level, message| {
            drop(wire.tell(&Event::Log { level, message: message.into() }, None))
        });
        Ok(())
    }
}
