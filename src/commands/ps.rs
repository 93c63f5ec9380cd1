//! `ps`: lists the processes of a container, with the host's ps(1) or as JSON.

use crate::cli;
use crate::cli::global::Global;
use crate::cli::values::ListFormat;
use crate::log;
use crate::state::{Container, Record};
use crate::sys::{Called, spawn};
use anyhow::{Result, bail, ensure};
use std::io::Write;
use std::process::Command;
use std::time::Duration;

/// How long ps may take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Runs the verb.
///
/// # Errors
/// There is no such container, or ps(1) fails, takes too long, or prints no column PID.
pub fn run(args: &cli::Ps, global: &Global) -> Result<i32> {
    let container = Container::load(&global.root, &args.id)?;
    let cgroup = &container.record.orlop.cgroup;
    let pids = if cgroup.exists() { cgroup.pids()? } else { beside_init(&container.record)? };
    let text = match args.format {
        ListFormat::Json => format!("{}\n", serde_json::to_string(&pids)?),
        ListFormat::Table => table(&pids, &args.ps_options)?,
    };
    std::io::stdout().write_all(text.as_bytes())?;
    Ok(0)
}

/// The processes of a container without a cgroup, as a rootless one may be: those in init's pid namespace. If that is
/// our own namespace, only init is known.
fn beside_init(record: &Record) -> Result<Vec<i32>> {
    let init = record.init();
    if !init.alive()? {
        return Ok(Vec::new());
    }
    let namespace = |process: &str| std::fs::read_link(format!("/proc/{process}/ns/pid")).ok();
    // A first thread that has ended has no namespace any more: then another thread is asked.
    let threads = std::fs::read_dir(format!("/proc/{}/task", init.pid)).into_iter().flatten().flatten();
    let its = threads.filter_map(|thread| std::fs::read_link(thread.path().join("ns/pid")).ok()).next();
    if its.is_none() || its == namespace("self") {
        return Ok(vec![init.pid]);
    }
    let mut pids = Vec::new();
    for entry in std::fs::read_dir("/proc").called("opendir", || "/proc".into())?.flatten() {
        let name = entry.file_name();
        let name = name.to_string_lossy();
        if let Ok(pid) = name.parse()
            && namespace(&name) == its
        {
            pids.push(pid);
        }
    }
    pids.sort_unstable();
    Ok(pids)
}

/// The output of the host's ps(1) with the caller's options (default -ef), reduced to the lines of `pids`.
fn table(pids: &[i32], options: &[String]) -> Result<String> {
    let default = ["-ef".to_owned()];
    let options = if options.is_empty() { &default[..] } else { options };
    let output =
        spawn::output(Command::new("ps").args(options), PATIENCE).called("execve", || "ps".into())?;
    let text = String::from_utf8_lossy(&output.stdout);
    ensure!(
        output.status.success(),
        "ps: {}: {}",
        output.status,
        String::from_utf8_lossy(&output.stderr).trim()
    );
    select(&text, pids)
}

fn select(text: &str, pids: &[i32]) -> Result<String> {
    let mut lines = text.lines();
    let header = lines.next().unwrap_or_default();
    let Some(column) = header.split_whitespace().position(|word| word == "PID") else {
        bail!("couldn't find PID field in ps output");
    };
    let mut selected = format!("{header}\n");
    for line in lines.filter(|line| !line.is_empty()) {
        // If a column of names comes before PID, a space in a name shifts the fields. Only that line is lost then.
        let pid = line.split_whitespace().nth(column).and_then(|field| field.parse().ok());
        if pid.is_some_and(|pid: i32| pids.contains(&pid)) {
            // The container chooses the names of its processes, and not every ps removes control characters.
            selected.push_str(&log::printable(line));
            selected.push('\n');
        }
    }
    Ok(selected)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_containers_processes_are_kept() {
        let text = "UID   PID  CMD\nroot    1  init\nroot   42  sleep 7\n";
        assert_eq!(select(text, &[42]).unwrap(), "UID   PID  CMD\nroot   42  sleep 7\n");
        let text = "CMD PID\na name 7\nsleep 42\n";
        assert_eq!(select(text, &[42, 7]).unwrap(), "CMD PID\nsleep 42\n");
        assert_eq!(select("PID CMD\n7 \u{1b}[2J\n", &[7]).unwrap(), "PID CMD\n7 \\u001b[2J\n");
        assert_eq!(select("UID CMD\n", &[]).unwrap_err().to_string(), "couldn't find PID field in ps output");
    }
}
