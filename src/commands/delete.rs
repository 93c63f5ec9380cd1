//! `delete`: removes what a container holds, and forgets it.

use crate::cgroup::Cgroup;
use crate::cli;
use crate::cli::global::Global;
use crate::destroy;
use crate::host::Host;
use crate::log;
use crate::state::{Container, Error, Root, Status, Untrusted, check_id};
use crate::sys::pidfd;
use anyhow::{Result, bail};
use std::os::fd::AsFd;

/// How long to wait for the end of a process that has been killed, in milliseconds.
const END_PATIENCE: i32 = 500;

/// Runs the verb.
///
/// # Errors
/// The container is still running and `--force` was not given, there is none (with `--force` that is fine), or
/// something of it resists.
pub fn run(args: &cli::Delete, global: &Global) -> Result<i32> {
    match delete(args, global) {
        Err(error) if args.force && error.downcast_ref() == Some(&Error::NotFound) => {}
        other => other?,
    }
    Ok(0)
}

fn delete(args: &cli::Delete, global: &Global) -> Result<()> {
    check_id(&args.id)?;
    let root = Root::of_containers(&global.root)?;
    let container = match root.load(&args.id) {
        Err(error) => return without_record(args, &root, error),
        Ok(container) => container,
    };
    let _lock = container.dir.lock_after(|| match args.force {
        // Whoever holds the lock may be waiting for what we are to kill: a `start` whose hook is stuck.
        true => destroy::kill(container.record.essentials()),
        false => Ok(()),
    })?;
    let record = &container.record;
    if args.force {
        return destroy::container(&root, record);
    }
    match settled_status(&container)? {
        Status::Stopped if record.essentials().ends_with_init() => destroy::dead(&root, record),
        // Nobody has seen one run yet that is created: as runc, this is not what --force is for.
        Status::Stopped | Status::Created => destroy::container(&root, record),
        status @ (Status::Creating | Status::Running | Status::Paused) => {
            bail!("cannot delete container {} that is not stopped: {status}", args.id)
        }
    }
}

/// The status, after a short wait for a process that is about to end: engines send SIGKILL, and delete at once.
fn settled_status(container: &Container) -> Result<Status> {
    let (status, init) = container.look()?;
    if let (Status::Running | Status::Paused, Some(init)) = (status, init)
        && container.record.init().is_ending()?
        && pidfd::poll_ended(init.as_fd(), END_PATIENCE)?
    {
        return Ok(Status::Stopped);
    }
    Ok(status)
}

/// There is no record, or none that can be read. The id must not be lost over it, nor a process forgotten.
fn without_record(args: &cli::Delete, root: &Root, error: anyhow::Error) -> Result<()> {
    let absent = error.downcast_ref() == Some(&Error::NotFound);
    if absent {
        // Sweeps deletions that died behind their commit as well.
        root.ids()?;
    }
    let refuse = error.downcast_ref::<Untrusted>().is_some() || !(absent || args.force);
    let Ok(dir) = root.container(&args.id) else { return Err(error) };
    if refuse {
        return Err(error);
    }
    let source = dir.load_essentials();
    let _lock = dir.lock_after(|| match &source {
        Ok(source) if args.force => destroy::kill(source.get()),
        _ => Ok(()),
    })?;
    if let Ok(source) = source {
        if !args.force {
            return Err(error.context("state.json"));
        }
        log::warn(format!("{error:#}: poststop hooks are not run, ignoring"));
        return destroy::without_record(root, source.get());
    }
    if absent {
        root.remove_remains(&args.id)?;
        return Err(error);
    }
    let cgroup = Cgroup::by_default(&args.id, &Host::probe()?)?;
    if !cgroup.exists() {
        // Not the id as well: no later verb could do more.
        root.remove(&args.id)?;
        return Err(error.context(format!(
            "the state of {} is gone, but nothing in it said which processes are the container's",
            args.id
        )));
    }
    log::warn(format!("{error:#}: removing the cgroup that {} has by default", args.id));
    cgroup.kill_all()?;
    cgroup.remove()?;
    root.remove(&args.id)
}
