//! How init, or the hop before it, enters the container's cgroup and namespaces.

use super::Held;
use crate::log;
use crate::parts::mounts::{CgroupSource, Source};
use crate::parts::namespaces::{self, Entry, Kind};
use crate::parts::scheduling;
use crate::plan::Plan;
use crate::sys::{self, ns::Flags, prctl, spawn};
use crate::wire::{Event, InitEnd};
use anyhow::{Context, Result};
use std::os::fd::AsFd;

/// Asks the parent for the cgroup if systemd makes it around a process. Before the first namespace is joined: systemd must
/// know the process by its id on the host, and as the caller's.
pub fn ask_for_cgroup(plan: &Plan, held: &mut Held, wire: &InitEnd) -> Result<()> {
    if std::mem::take(&mut held.asks_for_cgroup) {
        let cgroup = wire.ask_for_cgroup()?;
        if plan.root.as_ref().is_some_and(|root| root.mounts.show_cgroup()) {
            held.cgroup_mount = Some(CgroupSource::V2(Source::Path(sys::path::c_path(&cgroup)?)));
        }
    }
    Ok(())
}

/// The hop's part: joins what must be joined before init is made. Returns the kinds of namespaces for the clone of init.
pub fn as_hop(plan: &Plan, held: &Held) -> Result<Flags> {
    let Entry::Hop { unshare, clone, .. } = plan.entry else { return Ok(Flags::NONE) };
    if !held.joins.is_empty() {
        // Before the first foreign namespace is joined: a process in it must not be able to look into the hop.
        prctl::set_not_dumpable()?;
    }
    // runc's nsexec says these words at the same place, and its tests look for them.
    log::debug(|| format!("hop: nsexec container setup: {:?}", plan.entry));
    log::debug(|| format!("hop (runc: nsexec): affinity: {}", scheduling::current_affinity()));
    spawn::join_cgroups(&held.cgroup_tasks).context("linux.cgroupsPath")?;
    // Before a new user namespace is made: in it the hop has no right to join what the host owns.
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

/// Init's part, for a new container.
pub fn as_init(plan: &Plan, held: &Held, wire: &InitEnd) -> Result<()> {
    if let Entry::Direct { .. } = plan.entry {
        log::debug(|| format!("init: nsexec container setup: {:?}", plan.entry));
        spawn::join_cgroups(&held.cgroup_tasks).context("linux.cgroupsPath")?;
    }
    if plan.maps.is_some() && plan.namespaces.made(Kind::User) {
        // The kernel lets only root write the maps of a process that is not dumpable.
        wire.ask(&Event::MapIds, None)?;
    }
    become_root(plan)?;
    if let Entry::Direct { join, .. } = &plan.entry
        && !join.is_empty()
    {
        held.joins.enter()?;
    }
    if let Some(warning) = plan.process.affinity.after_cgroup(None)? {
        log::debug(|| warning);
    }
    if plan.namespaces.made(Kind::Cgroup) {
        // Only now: the root of a cgroup namespace is the cgroup of the process that makes it.
        namespaces::unshare_cgroup()?;
    }
    Ok(())
}

/// Becomes root of the container's user namespace, if it has one: the ids of the host may not be mapped in it. Afterwards
/// the process is not dumpable; a change of credentials had undone that.
pub fn become_root(plan: &Plan) -> Result<()> {
    if plan.namespaces.private(Kind::User) {
        match prctl::setgroups(&[]) {
            // Denied where an ordinary user has mapped its own group only.
            Err(error) if error.errno() == libc::EPERM => {}
            other => other.context("linux.gidMappings")?,
        }
        prctl::setresgid(0).context("linux.gidMappings: no id 0")?;
        prctl::setresuid(0).context("linux.uidMappings: no id 0")?;
    }
    Ok(prctl::set_not_dumpable()?)
}

/// Joins the network namespace that the parent has made, if it makes one.
pub fn join_network(held: &mut Held) -> Result<()> {
    match held.network.take() {
        Some(network) => namespaces::join_network(network.receive()?.as_fd()),
        None => Ok(()),
    }
}
