//! `resume`: thaws all processes of a paused container.

use crate::cli;
use crate::cli::global::Global;
use crate::state::{Container, Error, Status};
use anyhow::Result;

/// Runs the verb.
///
/// # Errors
/// The container is not paused, or there is no freezer.
pub fn run(args: &cli::Resume, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    let _lock = container.dir.lock()?;
    match container.status()? {
        Status::Paused => container.record.orlop.cgroup.thaw()?,
        Status::Creating | Status::Created | Status::Running | Status::Stopped => {
            return Err(Error::NotPaused.into());
        }
    }
    Ok(0)
}
