//! `events`: prints statistics of a container and its out-of-memory events, as one JSON object per line (runc's shape).
//!
//! One loop polls for three events: the kernel has killed a process because memory ran out, the container has ended, or
//! the next statistics are due.

use crate::cgroup::{Cgroup, OomWatch, Stats};
use crate::cli;
use crate::cli::global::Global;
use crate::log;
use crate::parts::intel_rdt;
use crate::state::{Container, Record, Status};
use crate::sys::Called;
use anyhow::{Context, Result, bail, ensure};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::Serialize;
use std::io::Write;
use std::time::{Duration, Instant};

/// Runs the verb.
///
/// # Errors
/// The container is not running, its statistics cannot be read, or stdout cannot be written to.
pub fn run(args: &cli::Events, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    ensure!(!args.interval.is_zero(), "duration interval must be greater than 0");
    if matches!(container.status()?, Status::Stopped | Status::Creating) {
        bail!("container with id {} is not running", args.id);
    }
    if args.stats {
        print(&stats(&container.record)?)?;
    } else {
        stream(&container, args.interval)?;
    }
    Ok(0)
}

/// One line of the output.
#[derive(Serialize)]
struct Event<'a> {
    #[serde(rename = "type")]
    kind: &'static str,
    id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Stats>,
}

fn stats(record: &Record) -> Result<Event<'_>> {
    let mut stats = record.orlop.cgroup.stats().context("unable to read the container's statistics")?;
    if let Some(group) = &record.orlop.resctrl {
        stats.intel_rdt = intel_rdt::stats(group);
    }
    Ok(Event { kind: "stats", id: &record.id, data: Some(stats) })
}

fn print(event: &Event<'_>) -> Result<()> {
    let mut line = serde_json::to_vec(event)?;
    line.push(b'\n');
    let mut out = std::io::stdout();
    out.write_all(&line).and_then(|()| out.flush()).called("write", || "stdout".into())?;
    Ok(())
}

/// Prints statistics and events until the container has ended.
fn stream(container: &Container, interval: Duration) -> Result<()> {
    let record = &container.record;
    let cgroup = &record.orlop.cgroup;
    let (mut watch, kills) = (watch(cgroup), cgroup.oom_kills());
    let mut told = false;
    // Wait for init, not for an empty cgroup: processes of others may be in it.
    let Some(init) = record.init().open()? else { return Ok(()) };
    let mut next = Instant::now() + interval;
    loop {
        let mut polled = vec![PollFd::new(&init, PollFlags::IN)];
        polled.extend(watch.as_ref().map(|watch| PollFd::from_borrowed_fd(watch.fd(), PollFlags::IN)));
        let left = next.saturating_duration_since(Instant::now());
        let left = Timespec {
            tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        };
        match poll(&mut polled, Some(&left)) {
            Err(rustix::io::Errno::INTR) => continue,
            other => other.called("poll", String::new)?,
        };
        let ended = polled.first().is_some_and(|fd| !fd.revents().is_empty());
        let killed = watch.as_mut().map_or(Ok(false), |watch| watch.read().map(|news| news.killed))?;
        // The kernel delays events of a cgroup by some milliseconds, so init may be dead before the event arrives.
        if killed || (ended && !told && cgroup.oom_kills() > kills) {
            print(&Event { kind: "oom", id: &record.id, data: None })?;
            told = true;
        }
        if ended {
            return Ok(());
        }
        if Instant::now() >= next {
            next += interval;
            match stats(record) {
                Ok(event) => print(&event)?,
                // The container may be ending. Then the next poll reports it.
                Err(error) => log::warn(format!("{error:#}, ignoring")),
            }
        }
    }
}

/// Watches for out-of-memory events. Without the memory controller there are none, and statistics are still printed.
fn watch(cgroup: &Cgroup) -> Option<OomWatch> {
    let watch = cgroup.oom_watch();
    watch.inspect_err(|error| log::warn(format!("no out-of-memory events: {error:#}"))).ok()
}
