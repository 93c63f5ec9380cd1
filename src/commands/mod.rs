//! One file per verb, and the dispatch from a parsed command line to them.
//!
//! Files that are not verbs: `json` (JSON in a fixed order, for `features` and `spec`) and `row` (a container as
//! `state` and `list` show it).

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
mod row;
pub mod run;
pub mod spec;
pub mod start;
pub mod state;
pub mod update;

use crate::cli::Command;
use crate::cli::global::{Global, RootFrom};
use crate::state::Root;
use anyhow::{Result, bail};

/// Runs the verb and returns the exit code.
///
/// # Errors
/// The verb did not do what it was asked for, or the directory below $XDG_RUNTIME_DIR cannot be made.
pub fn dispatch(command: &Command, global: &Global) -> Result<i32> {
    if global.root_from == RootFrom::RuntimeDir {
        Root::make_in_runtime_dir(&global.root)?;
    }
    match command {
        Command::Checkpoint(_) | Command::Restore(_) => {
            bail!("checkpoint and restore are not in this version")
        }
        Command::Create(args) => apart(|| create::run(args, global)),
        Command::Delete(args) => apart(|| delete::run(args, global)),
        Command::Events(args) => apart(|| events::run(args, global)),
        Command::Exec(args) => apart(|| exec::run(args, global)),
        Command::Features(_) => apart(features::run),
        Command::Kill(args) => apart(|| kill::run(args, global)),
        Command::List(args) => apart(|| list::run(args, global)),
        Command::Pause(args) => apart(|| pause::run(args, global)),
        Command::Plan(args) => apart(|| plan::run(args, global)),
        Command::Ps(args) => apart(|| ps::run(args, global)),
        Command::Resume(args) => apart(|| resume::run(args, global)),
        Command::Run(args) => apart(|| run::run(args, global)),
        Command::Spec(args) => apart(|| spec::run(args)),
        Command::Start(args) => apart(|| start::run(args, global)),
        Command::State(args) => apart(|| state::run(args, global)),
        Command::Update(args) => apart(|| update::run(args, global)),
    }
}

/// Runs a verb in a stack frame of its own. If all verbs were inlined into [`dispatch`], its frame would have room for
/// the values of all of them, and each verb would touch more pages of stack.
#[inline(never)]
fn apart(verb: impl FnOnce() -> Result<i32>) -> Result<i32> {
    verb()
}

/// The text before the error message if `command` fails, and the exit code.
///
/// Engines expect 255 from an `exec` that could not make its process; every other verb gives 1.
/// The texts are runc's. `main` replaces "orlop" by the name that the program was called by.
pub fn failure(command: &Command) -> (&'static str, i32) {
    match command {
        Command::Create(_) => ("orlop create failed: ", 1),
        Command::Run(_) => ("orlop run failed: ", 1),
        Command::Restore(_) => ("orlop restore failed: ", 1),
        Command::Exec(_) => ("exec failed: ", 255),
        _ => ("", 1),
    }
}
