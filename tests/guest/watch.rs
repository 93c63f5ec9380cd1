//! What a hostile process learns of entering processes, and does to them, from their first moment in its
//! container.

use std::collections::BTreeSet;
use std::fs;
use std::time::{Duration, Instant};

use nix::sys::ptrace;
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, waitpid};
use nix::unistd::Pid;

use super::{Fact, number, word};

/// Calls `seen` for each new process within a few system calls of its birth. The kernel counts process ids
/// upwards, so the next id is known. Asking for that id is faster than reading the directory.
fn newcomers(seconds: &[String], mut seen: impl FnMut(i32)) -> Result<(), String> {
    let until = Instant::now() + Duration::from_secs_f64(number(seconds, 0)?);
    let names = fs::read_dir("/proc").map_err(|error| error.to_string())?.flatten();
    let pids = names.filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok());
    let mut last = pids.max().unwrap_or(1);
    while Instant::now() < until {
        for pid in last + 1..last + 4 {
            // SAFETY: signal 0 reaches no process; the call only tells whether the process exists.
            let there =
                unsafe { libc::kill(pid, 0) } == 0 || nix::errno::Errno::last() == nix::errno::Errno::EPERM;
            if there {
                seen(pid);
                last = pid;
                break;
            }
        }
    }
    Ok(())
}

fn read(pid: i32, file: &str) -> Option<String> {
    let bytes = fs::read(format!("/proc/{pid}/{file}")).ok()?;
    Some(String::from_utf8_lossy(&bytes).replace('\0', " ").trim().to_owned())
}

/// True if the process runs a program of the container by now, or has ended. An entering process still runs the
/// runtime.
fn is_program(pid: i32) -> bool {
    // A process that ends has no command line from then on; an entering one has that of the runtime, or what is left of it.
    read(pid, "cmdline").is_none_or(|line| line.starts_with("/guest") || line.is_empty())
}

/// Collects the credentials, as the kernel prints them: `CapEff 0000000000000420`.
fn credentials(pid: i32, found: &mut BTreeSet<String>) {
    const FIELDS: [&str; 9] =
        ["Uid", "Gid", "Groups", "CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb", "Seccomp"];
    let Some(status) = read(pid, "status") else { return };
    if status.contains("State:\tZ") || status.contains("State:\tX") {
        return;
    }
    for line in status.lines() {
        let Some((name, value)) = line.split_once(':') else { continue };
        if FIELDS.contains(&name) {
            let value: Vec<_> = value.split_whitespace().collect();
            found.insert(format!("{name} {}", value.join(" ")));
        }
    }
}

/// Collects the links of the process that lead to a directory from which `mark`, a path of the host, can be
/// reached.
fn escapes(pid: i32, mark: &str, found: &mut BTreeSet<String>) {
    const UP: &str = "/../../../../../../..";
    let links =
        ["root".to_owned(), "cwd".to_owned()].into_iter().chain((3..40).map(|number| format!("fd/{number}")));
    for link in links {
        let path = format!("/proc/{pid}/{link}");
        if [mark.to_owned(), format!("{UP}{mark}")]
            .iter()
            .any(|rest| fs::exists(path.clone() + rest).unwrap_or(false))
        {
            found.insert(format!("escape {link}"));
        }
    }
}

/// Prints each different thing that it saw of entering processes: credentials, `cmdline`, `environ`, `exe`,
/// `escape`.
pub fn watch(args: &[String]) -> Fact {
    let mark = word(args, 1)?;
    let mut found = BTreeSet::new();
    newcomers(args, |pid| {
        let limit = Instant::now() + Duration::from_millis(200);
        while Instant::now() < limit {
            let mut now = BTreeSet::new();
            credentials(pid, &mut now);
            for file in ["cmdline", "environ"] {
                now.extend(
                    read(pid, file).filter(|text| !text.is_empty()).map(|text| format!("{file} {text}")),
                );
            }
            let links = (3..20).filter_map(|fd| fs::read_link(format!("/proc/{pid}/fd/{fd}")).ok());
            now.extend(links.map(|link| format!("fd {}", link.display())));
            let exe = fs::read_link(format!("/proc/{pid}/exe"));
            now.extend(exe.ok().map(|exe| format!("exe {}", exe.display())));
            if fs::File::open(format!("/proc/{pid}/mem")).is_ok() {
                now.insert("mem opened".to_owned());
            }
            escapes(pid, mark, &mut now);
            // The process may run the container's program by now. That program may show these things.
            if is_program(pid) {
                break;
            }
            found.extend(now);
        }
    })?;
    Ok(found.into_iter().collect::<Vec<_>>().join("\n"))
}

/// Attaches to entering processes, and prints the credentials of each process that it holds stopped. `works` means
/// that it could attach to a program of the container.
pub fn catch(args: &[String]) -> Fact {
    let mark = word(args, 1)?;
    let mut found = BTreeSet::new();
    let mut seen = 0;
    newcomers(args, |pid| {
        seen += 1;
        // On a quiet machine the tracer is always in time. So it lets each fourth process become a program first.
        let lets_pass = seen % 4 == 0;
        let process = Pid::from_raw(pid);
        let limit = Instant::now() + Duration::from_millis(100);
        while Instant::now() < limit {
            if lets_pass && !is_program(pid) {
                continue;
            }
            if ptrace::seize(process, ptrace::Options::empty()).is_err() {
                if is_program(pid) {
                    break;
                }
                continue;
            }
            let stopped =
                ptrace::interrupt(process).is_ok() && waitpid(process, Some(WaitPidFlag::__WALL)).is_ok();
            if stopped && is_program(pid) {
                found.insert("works".to_owned());
            } else if stopped {
                credentials(pid, &mut found);
                escapes(pid, mark, &mut found);
            }
            let _ = ptrace::detach(process, None); // It may have ended.
            break;
        }
    })?;
    Ok(found.into_iter().collect::<Vec<_>>().join("\n"))
}

/// Stops each entering process for ever, and prints that it did. Programs of the container may go on.
pub fn stop(args: &[String]) -> Fact {
    newcomers(args, |pid| {
        let process = Pid::from_raw(pid);
        if kill(process, Signal::SIGSTOP).is_err() {
            return;
        }
        if is_program(pid) {
            let _ = kill(process, Signal::SIGCONT); // It may have ended.
        } else {
            println!("stopped");
        }
    })?;
    Ok("done".to_owned())
}
