//! `exec`: executes another process in a running container.
//!
//! This file checks the state, builds the process from options and config.json, and finds its cgroup. Joining the
//! container is in `launch`.

use super::create::inherited;
use crate::bundle;
use crate::cgroup::Cgroup;
use crate::cli::global::Global;
use crate::cli::{self, values};
use crate::foreground::{self, Signals};
use crate::launch::{self, Handover};
use crate::plan::{Plan, absolute};
use crate::spec::Process;
use crate::state::{Container, Status};
use crate::sys::{Refused, pidfd};
use anyhow::{Context, Result, anyhow, bail, ensure};
use std::os::fd::{AsFd, OwnedFd};

/// Runs the verb.
///
/// # Errors
/// The container is not running, or the process could not be executed.
pub fn run(args: &cli::Exec, global: &Global) -> Result<i32> {
    let inherited = inherited(0, args.preserve_fds)?;
    let container = Container::load(&global.root, &args.id)?;
    let (status, init) = container.look()?;
    match status {
        Status::Stopped | Status::Creating => bail!("cannot exec in a stopped container"),
        Status::Paused if !args.ignore_paused => {
            bail!("cannot exec in a paused container (use --ignore-paused to override)")
        }
        Status::Paused | Status::Created | Status::Running => {}
    }
    let init = init.context("cannot exec in a stopped container")?;
    let init = container.record.init().to_join(init)?;
    let process = process(args, &container)?;
    let filter = container.record.orlop.has_filter.then(|| container.dir.load_filter()).transpose()?;
    let mut plan = Plan::exec(&container.record, filter, &process, &args.cap, inherited)?;
    let terminal = plan.process.console.is_some();
    ensure!(
        !terminal || !args.detach || args.console_socket.is_some(),
        "cannot allocate tty if runc will detach without setting console socket"
    );
    ensure!(
        args.console_socket.is_none() || (args.detach && terminal),
        "cannot use console socket if runc will not detach or allocate tty"
    );
    let signals = if args.detach { None } else { Some(Signals::collect()?) };
    if terminal && !args.detach {
        foreground::check_terminal()?;
    }
    let handover = Handover {
        pid_file: args.pid_file.as_deref().map(absolute).transpose()?,
        console_socket: args.console_socket.as_deref(),
        pidfd_socket: args.pidfd_socket.as_deref(),
        signals: signals.as_ref().map(Signals::fd),
        notify: None,
    };
    let cgroup = container.record.orlop.cgroup.sub(&args.cgroup)?;
    if !args.cgroup.is_empty() {
        check_thawed(&cgroup, args)?;
    }
    let launched = match launch::exec(&mut plan, &container, &init, &cgroup, &handover) {
        // Two cases lead here; in both, the cgroup that init is in now is tried instead.
        // The container has moved its processes into sub-cgroups and enabled controllers for these: then the kernel
        // refuses processes in the cgroup above (cgroups(7), "no internal processes").
        // Or another program has moved init elsewhere and removed the container's cgroup.
        Err(error) if args.cgroup.is_empty() && Refused::is_cause_of(&error) => {
            let Some(other) = cgroup_of_init(&container, &init)? else { return Err(error) };
            check_thawed(&other, args)?;
            launch::exec(&mut plan, &container, &init, &other, &handover)?
        }
        other => other?,
    };
    match signals {
        None => Ok(0),
        Some(signals) => Ok(foreground::wait(&launched.child, &signals, launched.terminal, None)?.code()),
    }
}

/// Refuses a frozen cgroup, in which a process would never start. A container can freeze a cgroup below its own; its
/// status is not `paused` then.
fn check_thawed(cgroup: &Cgroup, args: &cli::Exec) -> Result<()> {
    // A cgroup that does not exist is reported when the process is to enter it.
    let frozen = cgroup.stands_still().unwrap_or(false);
    ensure!(
        !frozen || args.ignore_paused,
        "cannot exec in a frozen cgroup (use --ignore-paused to override)"
    );
    Ok(())
}

/// The cgroup that init is in now.
fn cgroup_of_init(container: &Container, init: &OwnedFd) -> Result<Option<Cgroup>> {
    let record = &container.record;
    let found = record.orlop.cgroup.of_process(record.init_process_pid)?;
    // The lookup used init's number. If init still lives, the number was not reused meanwhile.
    ensure!(!pidfd::poll_ended(init.as_fd(), 0)?, "cannot exec in a stopped container");
    Ok(found)
}

/// The process to execute: from the file of `--process`, or config.json's process with the changes of the command line.
fn process(args: &cli::Exec, container: &Container) -> Result<Process> {
    if let Some(path) = &args.process {
        return bundle::load_part("--process", path);
    }
    ensure!(!args.command.is_empty(), "exec args cannot be empty");
    let own = &container.record.orlop;
    let bundle =
        bundle::load_again(own.bundle.clone(), own.config_file.as_deref().unwrap_or(bundle::CONFIG))?;
    let mut process = bundle.spec.process.context("process: process property must not be empty")?;
    process.args = Some(args.command.clone());
    process.terminal = Some(args.tty);
    if let Some(cwd) = &args.cwd {
        process.cwd = cwd.into();
    }
    process.apparmor_profile = args.apparmor.clone().or(process.apparmor_profile);
    process.selinux_label = args.process_label.clone().or(process.selinux_label);
    if args.no_new_privs {
        process.no_new_privileges = Some(true);
    }
    if let Some(user) = &args.user {
        let user = values::user_group(user).map_err(|error| anyhow!("--user: {error}"))?;
        process.user.set_uid(user.uid);
        if let Some(gid) = user.gid {
            process.user.set_gid(gid);
        }
    }
    if !args.additional_gids.is_empty() {
        let mut gids = process.user.additional_gids().clone().unwrap_or_default();
        gids.extend(&args.additional_gids);
        process.user.set_additional_gids(Some(gids));
    }
    process.env.get_or_insert_default().extend(args.env.iter().cloned());
    Ok(process)
}
