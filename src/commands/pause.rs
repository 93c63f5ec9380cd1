//! `pause`: freezes all processes of a container.

use crate::cli;
use crate::cli::global::Global;
use crate::state::{Container, Error, Status};
use anyhow::Result;

/// Runs the verb.
///
/// # Errors
/// The container is not running, or there is no freezer.
pub fn run(args: &cli::Pause, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    let _lock = container.dir.lock()?;
    match container.status()? {
        Status::Running | Status::Created => container.record.orlop.cgroup.freeze()?,
        Status::Creating | Status::Paused | Status::Stopped => return Err(Error::NotRunning.into()),
    }
    Ok(0)
}
