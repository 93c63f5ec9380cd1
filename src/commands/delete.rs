//! `delete`: removes what a container holds, and forgets it.

use crate::cgroup::Cgroup;
use crate::cli;
use crate::cli::global::Global;
use crate::destroy;
use crate::host::Host;
use crate::state::{Container, Error, Root, Status};
use crate::{log, sys};
use anyhow::{Result, bail};

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
    let container = match Container::load(&global.root, &args.id) {
        Err(error) => return without_record(args, global, error),
        Ok(container) => container,
    };
    let _lock = container.dir.lock_after(|| match args.force {
        // Whoever holds the lock may be waiting for what we are to kill: a `start` whose hook is stuck.
        true => destroy::kill(&container.record),
        false => Ok(()),
    })?;
    let root = Root::open(&global.root)?;
    let record = &container.record;
    if args.force {
        return destroy::container(&root, record);
    }
    match container.status()? {
        Status::Stopped if record.ends_with_init() => destroy::dead(&root, record),
        // Nobody has seen one run yet that is created: as runc, this is not what --force is for.
        Status::Stopped | Status::Created => destroy::container(&root, record),
        status @ (Status::Creating | Status::Running | Status::Paused) => {
            bail!("cannot delete container {} that is not stopped: {status}", args.id)
        }
    }
}

/// A directory without a record that can be read: `create` died before it wrote one (then nothing else was made),
/// or the record is damaged. The id must not be lost over it.
fn without_record(args: &cli::Delete, global: &Global, error: anyhow::Error) -> Result<()> {
    let is = |known: Error| error.downcast_ref() == Some(&known);
    if is(Error::InvalidId) || !(is(Error::NotFound) || args.force) {
        return Err(error);
    }
    let root = match Root::open(&global.root) {
        Err(absent) if sys::errno_of(&absent) == Some(libc::ENOENT) => return Err(error),
        other => other?,
    };
    if !is(Error::NotFound) {
        log::warn(format!("{error:#}: removing the cgroup that {} has by default", args.id));
        let cgroup = Cgroup::by_default(&args.id, &Host::probe()?)?;
        cgroup.kill_all()?;
        cgroup.remove()?;
        return root.remove(&args.id);
    }
    // Sweeps deletions that died behind their commit as well.
    root.ids()?;
    root.remove(&args.id)?;
    Err(error)
}
