//! `delete`: removes all that was made for a container, then its record.
//!
//! This file decides whether a container may be deleted, also if its record is missing or damaged. The removal itself
//! is in `destroy`.

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
/// Without `--force`, the container is still running or does not exist. In both cases, a process does not end, or
/// something cannot be removed.
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
        // The command that holds the lock may wait for a process that we are to kill: a `start` with a stuck hook.
        true => destroy::kill(container.record.essentials()),
        false => Ok(()),
    })?;
    let record = &container.record;
    if args.force {
        return destroy::container(&root, record);
    }
    match settled_status(&container)? {
        Status::Stopped if record.essentials().ends_with_init() => destroy::dead(&root, record),
        // As in runc, a created container needs no --force: its program has not begun.
        Status::Stopped | Status::Created => destroy::container(&root, record),
        status @ (Status::Creating | Status::Running | Status::Paused) => {
            bail!("cannot delete container {} that is not stopped: {status}", args.id)
        }
    }
}

/// The status of the container. Engines send SIGKILL and delete at once, so a process that is about to end gets a short
/// time to do so.
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

/// Deletes a container without a readable record. Its id must become free again, and none of its processes may be left.
fn without_record(args: &cli::Delete, root: &Root, error: anyhow::Error) -> Result<()> {
    let absent = error.downcast_ref() == Some(&Error::NotFound);
    if absent {
        // This also sweeps directories that an interrupted `delete` had renamed away.
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
        // Free the id: no later verb could do more with this directory.
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
