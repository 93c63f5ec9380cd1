//! `state`: what a container is now, as JSON (runtime.md, "State", with runc's additions).

use super::row::Row;
use crate::cli;
use crate::cli::global::Global;
use crate::state::Container;
use anyhow::Result;
use std::io::Write;

/// Runs the verb.
///
/// # Errors
/// There is no such container, or its record cannot be read.
pub fn run(args: &cli::State, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    let text = serde_json::to_string_pretty(&Row::of(&container)?)?;
    std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
    Ok(0)
}
