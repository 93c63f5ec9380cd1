//! `run`: creates and starts a container; unless detached, it also waits for the end and deletes the container.

use super::create::{container, prepare};
use super::start;
use crate::cli;
use crate::cli::global::Global;
use crate::destroy;
use crate::foreground::{self, Signals};
use crate::launch::{Launched, StartedBy};
use crate::state::{Container, Root};
use crate::sys::Called;
use anyhow::{Context, Result, ensure};
use std::os::fd::AsFd;

/// Runs the verb.
///
/// # Errors
/// The container could not be made or started, and nothing of it is left; or it could not be deleted at the end.
pub fn run(args: &cli::Run, global: &Global) -> Result<i32> {
    let prepared = prepare(&args.create, global)?;
    let terminal = prepared.plan().process.console.is_some();
    if args.detach {
        let socket = args.create.console_socket.is_some();
        ensure!(
            !terminal || socket,
            "cannot allocate tty if runc will detach without setting console socket"
        );
        let (container, launched) = container(&args.create, global, prepared, StartedBy::Us, None)?;
        let started = poststart(&container, &launched);
        if started.is_err() {
            delete(global, &container)?;
        }
        started?;
        if let Some(mut notify) = launched.notify {
            notify.wait(launched.child.pid, launched.child.pidfd.as_fd());
        }
        return Ok(0);
    }
    ensure!(
        args.create.console_socket.is_none(),
        "cannot use console socket if runc will not detach or allocate tty"
    );
    if terminal {
        foreground::check_terminal()?;
    }
    if !args.create.no_subreaper {
        foreground::become_subreaper()?;
    }
    let signals = Signals::collect()?;
    let (container, launched) = container(&args.create, global, prepared, StartedBy::Us, Some(&signals))?;
    let started = poststart(&container, &launched);
    let ended = foreground::wait(&launched.child, &signals, launched.terminal, launched.notify);
    // A container whose hook has failed is destroyed in any case (runtime.md, "Lifecycle", step 9).
    if !args.keep || started.is_err() {
        delete(global, &container)?;
    }
    started?;
    Ok(ended?.code())
}

/// Changes to the bundle, where hooks begin, and runs the poststart hooks. The poststop hooks need the same directory.
/// No relative path of the command line is used after this.
fn poststart(container: &Container, launched: &Launched) -> Result<()> {
    let bundle = &container.record.orlop.bundle;
    std::env::set_current_dir(bundle).called("chdir", || format!("{bundle:?}"))?;
    start::run_poststart(container, &launched.child.pidfd)
}

/// Deletes the container. No other command will do it, so a failure is tried once more. A second failure is the error
/// of `run`, whatever the exit status of the container was.
fn delete(global: &Global, container: &Container) -> Result<()> {
    let root = Root::open(&global.root)?;
    destroy::container(&root, &container.record)
        .or_else(|_| destroy::container(&root, &container.record))
        .with_context(|| format!("delete {}", container.record.id))
}
