//! `plan`, a hidden verb: prints the plan of `create` and changes nothing.

use super::create::prepare;
use crate::cli;
use crate::cli::global::Global;
use anyhow::Result;
use std::io::Write;

/// Runs the verb.
///
/// # Errors
/// `create` would refuse the bundle or the arguments before its first side effect.
pub fn run(args: &cli::Create, global: &Global) -> Result<i32> {
    let text = serde_json::to_string_pretty(prepare(args, global)?.plan())?;
    std::io::stdout().write_all(format!("{text}\n").as_bytes())?;
    Ok(0)
}
