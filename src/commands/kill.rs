//! `kill`: sends a signal to a container's first process.

use crate::cgroup::Cgroup;
use crate::cli;
use crate::cli::global::Global;
use crate::state::{Error, Essentials, Root, Status, check_id};
use crate::sys::{pidfd, signal};
use anyhow::{Context, Result, anyhow};
use std::os::fd::AsFd;
use std::time::Duration;

/// Runs the verb. It reads only the essentials of the container's state, so that it works with a damaged record.
///
/// # Errors
/// The container is not running, or the signal is unknown. With `--all`, which engines give to end all that is left, a
/// container that is not running is no error.
pub fn run(args: &cli::Kill, global: &Global) -> Result<i32> {
    check_id(&args.id)?;
    let dir = Root::of_containers(&global.root)?.container(&args.id)?;
    let source = dir.load_essentials()?;
    let signal = signal_of(args.signal.as_deref().unwrap_or("SIGTERM"))?;
    match send(source.get(), || dir.status(source.get()), signal) {
        Err(error) if args.all && error.downcast_ref() == Some(&Error::NotRunning) => Ok(0),
        other => other.map(|()| 0),
    }
}

fn send(of: Essentials<'_>, status: impl FnOnce() -> Result<Status>, signal: i32) -> Result<()> {
    let cgroup = of.cgroup;
    // A rootless container may have no cgroup. Then its other processes are not known.
    if signal == libc::SIGKILL && !of.makes_pid_namespace && cgroup.exists() {
        // The container shares its pid namespace: its other processes do not end with init, which may be dead already.
        cgroup.kill_all().context("unable to kill all processes")?;
        return let_die(cgroup, |milliseconds| {
            std::thread::sleep(Duration::from_millis(milliseconds.unsigned_abs().into()));
            Ok(cgroup.pids()?.is_empty())
        });
    }
    if status()? == Status::Stopped {
        return Err(Error::NotRunning.into());
    }
    let init = of.init.open()?.ok_or(Error::NotRunning)?;
    match pidfd::send_signal(init.as_fd(), signal) {
        Err(error) if error.errno() == libc::ESRCH => return Err(Error::NotRunning.into()),
        other => other.context("unable to signal init")?,
    }
    if signal == libc::SIGKILL {
        cgroup.let_die()?;
        let_die(cgroup, |milliseconds| Ok(pidfd::poll_ended(init.as_fd(), milliseconds)?))?;
    }
    Ok(())
}

/// Thaws the container until it has `ended` within the given milliseconds, for about a second. In a frozen cgroup of
/// version 1 even SIGKILL waits. The container can freeze a cgroup below its own, and again until its last process is dead.
fn let_die(cgroup: &Cgroup, ended: impl Fn(i32) -> Result<bool>) -> Result<()> {
    if !cgroup.may_hold_killed() {
        return Ok(());
    }
    for pause in [1, 9, 40].into_iter().chain([50; 19]) {
        if ended(pause)? {
            break;
        }
        cgroup.let_die()?;
    }
    Ok(())
}

/// Reads a signal: a number, or a name with or without SIG in upper or lower case, or RTMIN+n, or RTMAX-n.
fn signal_of(text: &str) -> Result<i32> {
    let unknown = || anyhow!("unknown signal {text:?}");
    if let Ok(number) = text.parse::<i32>() {
        return if (0..=signal::RTMAX).contains(&number) { Ok(number) } else { Err(unknown()) };
    }
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    for (start, base, sign) in [("RTMIN", signal::RTMIN, 1), ("RTMAX", signal::RTMAX, -1)] {
        if let Some(rest) = name.strip_prefix(start) {
            let offset: i32 = match rest.strip_prefix(if sign > 0 { '+' } else { '-' }) {
                Some(digits) => digits.parse::<u16>().map_err(|_| unknown())?.into(),
                None if rest.is_empty() => 0,
                None => return Err(unknown()),
            };
            let number = base + sign * offset;
            let range = signal::RTMIN..=signal::RTMAX;
            return if range.contains(&number) { Ok(number) } else { Err(unknown()) };
        }
    }
    // nix does not know these names.
    const ALIASES: [(&str, i32); 4] =
        [("IOT", libc::SIGIOT), ("CLD", libc::SIGCHLD), ("POLL", libc::SIGPOLL), ("STKFLT", libc::SIGSTKFLT)];
    if let Some((_, number)) = ALIASES.iter().find(|(alias, _)| *alias == name) {
        return Ok(*number);
    }
    format!("SIG{name}")
        .parse::<nix::sys::signal::Signal>()
        .map(|signal| signal as i32)
        .map_err(|_| unknown())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_signal_is_a_number_or_a_name_in_any_form() {
        for text in ["9", "KILL", "SIGKILL", "sigkill", "Kill"] {
            assert_eq!(signal_of(text).unwrap(), libc::SIGKILL, "{text}");
        }
        assert_eq!(signal_of("0").unwrap(), 0);
        assert_eq!(signal_of("SIGRTMIN+3").unwrap(), 37);
        assert_eq!(signal_of("rtmax").unwrap(), 64);
        for text in
            ["", "SIG", "FOO", "65", "-1", "RTMIN+99", "RTMIN3", "RTMIN+2147483647", "RTMAX--2147483648"]
        {
            assert_eq!(signal_of(text).unwrap_err().to_string(), format!("unknown signal {text:?}"));
        }
    }
}
