//! Crash safety, shown point by point. A point is a system call of the runtime's processes that changes something. At
//! each point of each command the sweep kills processes, or lets the call fail. Then it compares what the host has
//! with what the runtime says, and `delete --force` must remove everything.
//!
//! ```text
//! crash sweep  [--runtime PATH] [--as root|userns|rootless] [--view host,v1,v2] [--ops create,…] [--how main,caller,…]
//!              [--stride N | --points N] [--lanes N] [--record FILE]
//! crash stress [--runtime PATH] [--containers 600] [--parallel 4] [--seed N]
//! crash table FILE                             what `--record` has written there, as a table
//! crash inject N HOW REPORT UID COMMAND…       what the sweep calls for each point; N = 0 only lists the calls
//! crash call UID COMMAND…                      the caller of the command, under the injector
//! crash reap ARGS…                             itself with these, as the child of a process 1 that reaps orphans
//! ```
//! Needs root. `make crash` runs all of it, `make test` a short form.

mod host;
mod inject;
#[path = "../../tests/support/leftovers.rs"]
mod leftovers;
mod stress;
mod sweep;
mod table;

use anyhow::{Context, Result, bail, ensure};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match run(&args) {
        Ok(code) => ExitCode::from(u8::try_from(code).unwrap_or(1)),
        Err(error) => {
            eprintln!("crash: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn run(args: &[String]) -> Result<i32> {
    let (mode, rest) = args.split_first().context("sweep, stress or inject?")?;
    match (mode.as_str(), rest) {
        ("inject", [at, how, report, uid, line @ ..]) => {
            return inject::run(at.parse()?, inject::How::of(how)?, Path::new(report), uid, line);
        }
        ("call", [uid, line @ ..]) => return inject::call(uid, line),
        ("reap", args) => return reap(args),
        ("table", [file]) => return table::print(Path::new(file)),
        _ => {}
    }
    ensure!(rustix::process::geteuid().is_root(), "this needs root");
    let options = Options::parse(rest)?;
    match (mode.as_str(), options.0.get("in-view")) {
        ("sweep", None) => sweep::views(&options),
        ("sweep", Some(view)) => sweep::sweep(&options, view),
        ("stress", None) => {
            let place = Place::new()?;
            Ok(place
                .command("exec \"$@\"", "stress", &options, &[("in-view", "host")])?
                .status()?
                .code()
                .unwrap_or(1))
        }
        ("stress", Some(_)) => stress::run(&options),
        (other, _) => bail!("{other}: not one of sweep, stress, inject"),
    }
}

/// `--name value` pairs.
struct Options(BTreeMap<String, String>);

impl Options {
    fn parse(args: &[String]) -> Result<Self> {
        let mut found = BTreeMap::new();
        for pair in args.chunks(2) {
            let [name, value] = pair else { bail!("{pair:?}: no value") };
            let name = name.strip_prefix("--").with_context(|| format!("{name}: not an option"))?;
            found.insert(name.to_owned(), value.clone());
        }
        Ok(Self(found))
    }

    fn get<'a>(&'a self, name: &str, default: &'a str) -> &'a str {
        self.0.get(name).map_or(default, String::as_str)
    }

    fn list<'a>(&'a self, name: &str, default: &'a str) -> Vec<&'a str> {
        self.get(name, default).split(',').collect()
    }

    fn number(&self, name: &str, default: u64) -> Result<u64> {
        self.0.get(name).map_or(Ok(default), |text| text.parse().with_context(|| format!("--{name} {text}")))
    }

    /// The runtime under test; by default the one that cargo built beside this program.
    fn runtime(&self) -> Result<PathBuf> {
        let own = std::env::current_exe()?;
        let beside = own.parent().and_then(Path::parent).map(|dir| dir.join("orlop")).unwrap_or_default();
        let asked = self.0.get("runtime").map_or(beside, PathBuf::from);
        asked.canonicalize().with_context(|| format!("--runtime {}", asked.display()))
    }
}

/// The place of a sweep: mount and pid namespaces of its own, with its files in memory. So everything that the sweep
/// finds there is its own.
struct Place(tempfile::TempDir);

impl Place {
    fn new() -> Result<Self> {
        Ok(Self(tempfile::Builder::new().prefix("orlop-crash.").tempdir()?))
    }

    /// The command that runs this program in `mode`, after the shell's `script`, which ends with `"$@"`.
    fn command(&self, script: &str, mode: &str, options: &Options, more: &[(&str, &str)]) -> Result<Command> {
        let mut command = Command::new("unshare");
        command.args([
            "--mount",
            "--propagation",
            "private",
            "--pid",
            "--fork",
            "--kill-child",
            "--mount-proc",
        ]);
        command.args([
            "sh",
            "-euc",
            &format!("mount -t tmpfs -o mode=711 crash \"$TMPDIR\"; {script}"),
            "sh",
        ]);
        command.arg(std::env::current_exe()?).args(["reap", mode]).env("TMPDIR", self.0.path());
        let options = options.0.iter().map(|(name, value)| (name.as_str(), value.as_str()));
        command.args(
            options
                .chain(more.iter().copied())
                .flat_map(|(name, value)| [format!("--{name}"), value.to_owned()]),
        );
        Ok(command)
    }
}

/// Runs this program as process 1 until it ends. Meanwhile it reaps the orphans of killed commands: a pid namespace
/// ends only when all of its processes have ended, and deletion would have to wait for that.
fn reap(args: &[String]) -> Result<i32> {
    use nix::sys::wait::{WaitStatus, wait};
    let child = nix::unistd::Pid::from_raw(i32::try_from(ourselves()?.args(args).spawn()?.id())?);
    loop {
        match wait()? {
            WaitStatus::Exited(pid, code) if pid == child => return Ok(code),
            WaitStatus::Signaled(pid, signal, _) if pid == child => return Ok(128 + signal as i32),
            _ => {}
        }
    }
}

/// A number that differs each time. A process id would be the same in each pid namespace.
fn any_number() -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::SystemTime::UNIX_EPOCH);
    now.map_or(1, |now| now.as_secs())
}

/// A command that runs this program again.
fn ourselves() -> Result<Command> {
    Ok(Command::new(std::env::current_exe()?))
}
