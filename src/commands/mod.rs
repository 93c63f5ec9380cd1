//! One file per verb, and which verb runs which.

pub mod create;
pub mod delete;
pub mod events;
pub mod exec;
pub mod features;
mod json;
pub mod kill;
pub mod list;
pub mod pause;
pub mod plan;
pub mod ps;
pub mod resume;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::cli::Command;
use crate::cli::global::Global;
use anyhow::{Result, bail};

/// Runs the verb; the number is the exit code.
///
/// # Errors
/// The verb did not do what it was asked for.
pub fn dispatch(command: &Command, global: &Global) -> Result<i32> {
    match command {
        Command::Checkpoint(_) | Command::Restore(_) => {
            bail!("checkpoint and restore are not in this version")
        }
        Command::Create(args) => create::run(args, global),
        Command::Delete(args) => delete::run(args, global),
        Command::Events(args) => events::run(args, global),
        Command::Exec(args) => exec::run(args, global),
        Command::Features(_) => features::run(),
        Command::Kill(args) => kill::run(args, global),
        Command::List(args) => list::run(args, global),
        Command::Pause(args) => pause::run(args, global),
        Command::Plan(args) => plan::run(args, global),
        Command::Ps(args) => ps::run(args, global),
        Command::Resume(args) => resume::run(args, global),
        Command::Run(args) => run::run(args, global),
        Command::Spec(args) => spec::run(args),
        Command::Start(args) => start::run(args, global),
        Command::State(args) => state::run(args, global),
        Command::Update(args) => update::run(args, global),
    }
}

/// What stands before the message when `command` fails, and the exit code then.
///
/// 255 is what engines expect of an exec whose process did not come to be; all others give 1.
/// The prefixes are runc's (in place of "orlop" goes the name that we are called by).
pub fn failure(command: &Command) -> (&'static str, i32) {
    match command {
        Command::Create(_) => ("orlop create failed: ", 1),
        Command::Run(_) => ("orlop run failed: ", 1),
        Command::Restore(_) => ("orlop restore failed: ", 1),
        Command::Exec(_) => ("exec failed: ", 255),
        _ => ("", 1),
    }
}
