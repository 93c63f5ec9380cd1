//! The sweep: each operation, each way to interfere, each point, and what is found afterwards.

use crate::host::{self, Bundle, Who};
use crate::inject::{self, How, Report};
use crate::{Options, Place, leftovers, ourselves};
use anyhow::{Context, Result, bail, ensure};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fs;
use std::io::Write;
use std::process::Stdio;
use std::time::{Duration, Instant};

/// How long the kernel and orphans may take to finish their work after a command has ended.
const SETTLE: Duration = Duration::from_secs(2);
/// How long the kernel may take to end processes; everything else must be true at once.
const AT_ONCE: Duration = Duration::from_millis(300);

/// The script that shows a command another view of the host's cgroup tree.
const CGROUP_VIEW: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/integration/cgroup-view");

/// What the sweep counts; each must be 0.
const COUNTERS: [&str; 7] = [
    "left_after_delete",
    "id_unusable",
    "hangs",
    "false_ok",
    "failed_but_dirty",
    "state_lies",
    "list_broken",
];

/// A command under test, and the state that its container must be in before it.
struct Op {
    name: &'static str,
    before: Before,
    /// The words between the global options and the id, and the words after the id.
    words: (&'static [&'static str], &'static [&'static str]),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Before {
    Nothing,
    Created,
    Running,
    Paused,
    Stopped,
}

#[rustfmt::skip]
const OPS: &[Op] = &[
    Op { name: "create",  before: Before::Nothing, words: (&["create", "--pid-file", "pid"], &[]) },
    Op { name: "start",   before: Before::Created, words: (&["start"], &[]) },
    Op { name: "run",     before: Before::Nothing, words: (&["run", "--detach", "--pid-file", "pid"], &[]) },
    Op { name: "run-fg",  before: Before::Nothing, words: (&["run", "--config", "short.json"], &[]) },
    Op { name: "exec",    before: Before::Running, words: (&["exec"], &["/guest", "args", "done"]) },
    Op { name: "kill",    before: Before::Running, words: (&["kill"], &["KILL"]) },
    Op { name: "pause",   before: Before::Running, words: (&["pause"], &[]) },
    Op { name: "resume",  before: Before::Paused,  words: (&["resume"], &[]) },
    Op { name: "update",  before: Before::Running, words: (&["update", "--pids-limit", "50"], &[]) },
    Op { name: "delete",  before: Before::Stopped, words: (&["delete"], &[]) },
    Op { name: "delete-f", before: Before::Running, words: (&["delete", "--force"], &[]) },
    Op { name: "delete-p", before: Before::Paused, words: (&["delete", "--force"], &[]) },
];

/// Runs the sweep once in each view of the host's cgroups, in as many lanes at a time as the options say.
pub fn views(options: &Options) -> Result<i32> {
    let lanes = options.number("lanes", 1)?.max(1);
    let mut worst = 0;
    for view in options.list("view", "host,v1,v2") {
        ensure!(["host", "v1", "v2"].contains(&view), "--view {view}: not one of host, v1, v2");
        let script = format!("exec '{CGROUP_VIEW}' {view} \"$@\"");
        if view == "v1" && !std::path::Path::new("/sys/fs/cgroup/unified/cgroup.procs").exists() {
            println!("{view}: skipped: this host has no hybrid cgroups to show as version 1");
            continue;
        }
        println!("{:6} {:9} {:7} {:>6}  {}", "view", "command", "how", "points", COUNTERS.join(" "));
        let begun = (0..lanes).map(|lane| {
            let place = Place::new()?;
            let lane = lane.to_string();
            let mut command =
                place.command(&script, "sweep", options, &[("in-view", view), ("lane", &lane)])?;
            Ok((command.spawn()?, place))
        });
        for lane in begun.collect::<Result<Vec<_>>>()? {
            let (mut child, _place) = lane;
            worst = worst.max(child.wait()?.code().unwrap_or(1));
        }
    }
    Ok(worst)
}

#[derive(Default)]
struct Tally {
    points: u32,
    counters: BTreeMap<&'static str, u32>,
    /// Points at which something was left before `delete --force`. That is a measure and not a fault.
    left_before: u32,
}

struct Sweep {
    bundle: Bundle,
    view: String,
    serial: u32,
    /// The id in use. It stays from point to point until something is wrong with it.
    id: String,
    /// True if its container is already in the state that the next point of this operation needs.
    ready: bool,
    total: Tally,
}

pub fn sweep(options: &Options, view: &str) -> Result<i32> {
    let asked =
        options.list("ops", "create,start,run,run-fg,exec,kill,pause,resume,update,delete,delete-f,delete-p");
    let hows = options.list("how", inject::NAMES);
    let stride = options.number("stride", 1)?.max(1);
    let few = options.0.get("points").map(|_| options.number("points", 0)).transpose()?;
    let who = options.get("as", "root");
    let bundle = Bundle::new(&options.runtime()?, Who::of(who)?)?;
    let text = fs::read_to_string(bundle.path("config.json"))?;
    fs::write(bundle.path("rootfs/../short.json"), text.replace("\"pause\"", "\"pid\""))?;
    let (lane, lanes) = (options.number("lane", 0)?, options.number("lanes", 1)?.max(1));
    let (commit, begun, mut turn) = (bundle.commit()?, Instant::now(), 0);
    let mut sweep = Sweep {
        bundle,
        view: view.into(),
        serial: 0,
        id: String::new(),
        ready: false,
        total: Tally::default(),
    };
    sweep.next_id();
    for op in OPS.iter().filter(|op| asked.contains(&op.name)) {
        let cgroup = matches!(op.name, "pause" | "resume" | "update" | "delete-p");
        if (op.name == "update" && !host::limits()) || (cgroup && sweep.bundle.who == Who::User) {
            println!("{view:6} {}: skipped: no controllers here", op.name);
            continue;
        }
        for (name, how) in How::ALL.iter().filter(|row| hows.contains(&row.0)) {
            turn += 1;
            if turn % lanes != lane {
                continue; // This point belongs to another lane.
            }
            let tally = sweep.operation(op, *how, stride, few)?;
            sweep.print(op.name, name, &tally);
            if let Some(file) = options.0.get("record") {
                let faults: u32 = tally.counters.values().sum();
                let points = tally.points;
                let row =
                    format!("{who}\t{view}\t{}\t{name}\t{stride}\t{points}\t{faults}\t{commit}\n", op.name);
                fs::OpenOptions::new().create(true).append(true).open(file)?.write_all(row.as_bytes())?;
            }
            sweep.total.points += tally.points;
            sweep.total.left_before += tally.left_before;
            for (counter, count) in tally.counters {
                *sweep.total.counters.entry(counter).or_default() += count;
            }
        }
    }
    let total = std::mem::take(&mut sweep.total);
    sweep.print("TOTAL", "", &total);
    let seconds = begun.elapsed().as_secs_f64();
    println!("{view:6} {:.1} points in a second, {seconds:.0} seconds", f64::from(total.points) / seconds);
    Ok(i32::from(!total.counters.is_empty()))
}

impl Sweep {
    fn print(&self, op: &str, how: &str, tally: &Tally) {
        let counts: Vec<_> = COUNTERS
            .iter()
            .map(|name| format!("{:>width$}", tally.counters.get(name).unwrap_or(&0), width = name.len()))
            .collect();
        let note = format!("(left before delete: {})", tally.left_before);
        println!("{:6} {op:9} {how:7} {:>6}  {} {note}", self.view, tally.points, counts.join(" "));
    }

    /// Visits all points, or each `stride`th point, or `few` points that differ each time.
    fn operation(&mut self, op: &Op, how: How, stride: u64, few: Option<u64>) -> Result<Tally> {
        let mut tally = Tally::default();
        let Some(few) = few else {
            let mut at = 1;
            while self.visit(op, how, at, &mut tally)? {
                at += stride;
            }
            self.clear()?;
            return Ok(tally);
        };
        let mut ignored = Tally::default();
        self.visit(op, how, 0, &mut ignored)?;
        let report: Report = serde_json::from_slice(&fs::read(self.bundle.path("report"))?)?;
        let (count, seed) = (u64::from(report.points), crate::any_number());
        for number in 0..few {
            let at = (count * number / few + seed * 7 % count.div_ceil(few).max(1)) % count.max(1) + 1;
            self.visit(op, how, at, &mut tally)?;
        }
        self.clear()?;
        Ok(tally)
    }

    /// The id begins with the directory's name, which no other sweep has.
    fn next_id(&mut self) {
        self.serial += 1;
        let name = self.bundle.dir.path().extension().unwrap_or_default().display();
        self.id = format!("crash-{name}-{:04}", self.serial);
    }

    /// Deletes the container that was kept for the next point.
    fn clear(&mut self) -> Result<()> {
        if std::mem::take(&mut self.ready) {
            self.bundle.ok(&["delete", "--force", &self.id])?;
        }
        Ok(())
    }

    /// Visits one point. Returns `false` if there is no such point.
    fn visit(&mut self, op: &Op, how: How, at: u64, tally: &mut Tally) -> Result<bool> {
        let id = self.id.clone();
        if !std::mem::take(&mut self.ready) {
            self.prepare(op.before, &id).with_context(|| format!("before {}", op.name))?;
        }
        let mut faults = Vec::new();
        let fired = self.point(op, how, u32::try_from(at)?, &id, &mut faults, tally);
        let fired = fired.inspect_err(|_| self.bundle.sweep(&id))?;
        for (counter, what) in &faults {
            *tally.counters.entry(counter).or_default() += 1;
            let place = fired.as_deref().unwrap_or("nothing");
            println!("  ! {counter}: {} {} {how} at {at} ({place}): {what}", self.view, op.name);
        }
        if !faults.is_empty() {
            self.bundle.sweep(&id);
            let left = self.bundle.leftovers(&id);
            anyhow::ensure!(left.is_empty(), "cannot clean up by hand: {left:?}");
            self.next_id();
        }
        self.ready = faults.is_empty() && op.before != Before::Nothing;
        tally.points += u32::from(fired.is_some());
        Ok(fired.is_some())
    }

    /// Disturbs the command at one point. `None` means that the command has fewer calls, and was not disturbed.
    fn point(
        &self,
        op: &Op,
        how: How,
        at: u32,
        id: &str,
        faults: &mut Vec<(&'static str, String)>,
        tally: &mut Tally,
    ) -> Result<Option<String>> {
        let bundle = &self.bundle;
        let _ = fs::remove_file(bundle.path("pid")); // It is left from the last point.
        let (words, after) = op.words;
        let line: Vec<&str> = words.iter().copied().chain([id]).chain(after.iter().copied()).collect();
        let mut command = ourselves()?;
        command.args(["inject", &at.to_string(), &how.to_string()]).arg(bundle.path("report"));
        command.arg(bundle.user().to_string()).args(bundle.line(&line)).stdin(Stdio::null());
        let _ = fs::remove_file(bundle.path("report")); // It is left from the last point.
        let code = bundle.finish_within(command, Duration::from_secs(30))?;
        let said = fs::read_to_string(bundle.path("err"))?;
        let printed = fs::read_to_string(bundle.path("out"))?;
        let Some(code) = code else {
            let names = bundle.processes(id);
            faults.push(("hangs", format!("still there: {names:?}; {}", said.trim())));
            return Ok(Some("?".into()));
        };
        if said.starts_with("crash:") {
            bail!("{}: {said}", op.name);
        }
        let report: Report = serde_json::from_slice(&fs::read(bundle.path("report"))?)?;
        let killed = how.kills() && report.fired.is_some();
        let said = said.trim();
        let mut fault =
            |counter, what: String| faults.push((counter, format!("{what} [exit {code}: {said}]")));
        if report.fired.is_none() && code != 0 {
            bail!("{} fails undisturbed: exit {code}: {said}", op.name);
        }
        if code == 0
            && let Some(what) = self.not_done(op, id, (how != How::KillCaller).then_some(&printed))?
        {
            fault("false_ok", what);
        }
        if !killed
            && code != 0
            && let Some(what) = self.dirty(op, id)?
        {
            fault("failed_but_dirty", what);
        }
        if let Some(what) = self.lie(id)? {
            fault("state_lies", what);
        }
        if let Some(what) = self.list(id)? {
            fault("list_broken", what);
        }
        tally.left_before += u32::from(!bundle.leftovers(id).is_empty());
        let (code, _) = bundle.call(&["delete", "--force", id])?;
        let err = fs::read_to_string(bundle.path("err"))?;
        let left = bundle.leftovers_after(id, AT_ONCE);
        if code != 0 || !left.is_empty() {
            fault("left_after_delete", format!("delete --force exits {code} ({}), {left:?}", err.trim()));
        } else if let Err(error) = self.reuse(op.before, id) {
            fault("id_unusable", format!("{error:#}"));
        }
        Ok(report.fired)
    }

    /// Makes the container in the state that a command needs.
    fn prepare(&self, before: Before, id: &str) -> Result<()> {
        let bundle = &self.bundle;
        match before {
            Before::Nothing => return Ok(()),
            Before::Created => drop(bundle.ok(&["create", id])?),
            Before::Running | Before::Paused | Before::Stopped => {
                bundle.ok(&["run", "--detach", id])?;
            }
        }
        // `start` may return before the process has executed its program.
        let executed = || bundle.processes(id).iter().any(|line| line.starts_with("/guest"));
        until(SETTLE, || Ok(executed() == (before != Before::Created)))?
            .context("not what it was made for")?;
        if before == Before::Paused {
            bundle.ok(&["pause", id])?;
        }
        if before == Before::Stopped {
            bundle.ok(&["kill", id, "KILL"])?;
            // Not only until no process is seen: a process that is ending has neither a root nor, on version 1, a
            // cgroup.
            until(SETTLE, || Ok(self.state(id)?.is_some_and(|state| state["status"] == "stopped")))?
                .context("killed, and not stopped")?;
        }
        Ok(())
    }

    /// What `state` says; `None` if it knows no such container.
    fn state(&self, id: &str) -> Result<Option<Value>> {
        let (code, out) = self.bundle.call(&["state", id])?;
        Ok(if code == 0 { Some(serde_json::from_str(&out)?) } else { None })
    }

    /// The command reported success. Returns what it has not done. If the caller is dead, its output is unknown.
    fn not_done(&self, op: &Op, id: &str, printed: Option<&String>) -> Result<Option<String>> {
        let state = self.state(id)?;
        let status = state.as_ref().and_then(|state| state["status"].as_str()).unwrap_or("none").to_owned();
        let wants = match op.name {
            "create" => "created",
            "start" | "run" | "resume" | "exec" | "update" => "running",
            "pause" => "paused",
            "kill" => {
                let gone = || Ok(self.bundle.processes(id).is_empty());
                return Ok(until(SETTLE, gone)?.is_none().then(|| "processes live on".into()));
            }
            _ => {
                let left = self.bundle.leftovers_after(id, AT_ONCE);
                return Ok((!left.is_empty()).then(|| format!("{left:?}")));
            }
        };
        if status != wants {
            return Ok(Some(format!("is {status}")));
        }
        if matches!(op.name, "create" | "run") {
            let pid = fs::read_to_string(self.bundle.path("pid")).unwrap_or_default();
            if state.is_none_or(|state| state["pid"].as_i64() != pid.parse().ok()) {
                return Ok(Some(format!("the pid file has {pid:?}")));
            }
        }
        let wrong = printed.filter(|printed| op.name == "exec" && printed.trim() != "done");
        Ok(wrong.map(|printed| format!("printed {printed:?}")))
    }

    /// The command reported an error. Returns what is not as before.
    fn dirty(&self, op: &Op, id: &str) -> Result<Option<String>> {
        match op.before {
            Before::Nothing => {
                let left = self.bundle.leftovers_after(id, AT_ONCE);
                Ok((!left.is_empty()).then(|| format!("{left:?}")))
            }
            // Only init may run, and no process of a half-done exec.
            _ if op.name == "exec" => {
                let alone = || Ok(self.bundle.processes(id).len() == 1);
                Ok(until(AT_ONCE, alone)?.is_none().then(|| format!("{:?}", self.bundle.processes(id))))
            }
            _ => Ok(None),
        }
    }

    /// Returns what `state` says falsely. A killed command leaves processes that are about to end by themselves.
    fn lie(&self, id: &str) -> Result<Option<String>> {
        let mut found = None;
        let truth = until(SETTLE, || {
            found = self.lie_now(id)?;
            Ok(found.is_none())
        })?;
        Ok(if truth.is_some() { None } else { found })
    }

    fn lie_now(&self, id: &str) -> Result<Option<String>> {
        let Some(state) = self.state(id)? else {
            let left = self.bundle.leftovers(id);
            // A reservation that does not yet carry this id: no user can meet it.
            let left: Vec<_> = left.into_iter().filter(|what| !what.starts_with("state ~")).collect();
            return Ok((!left.is_empty()).then(|| format!("state knows nothing of {left:?}")));
        };
        let status = state["status"].as_str().unwrap_or("?");
        let pid = state["pid"].as_i64().and_then(|pid| i32::try_from(pid).ok()).unwrap_or(-1);
        let executed = leftovers::name_of(pid).starts_with("/guest");
        let frozen = leftovers::cgroups(id).iter().any(|path| {
            let is = |file: &str, value: &str| {
                fs::read_to_string(path.join(file)).is_ok_and(|content| content.trim() == value)
            };
            is("cgroup.freeze", "1") || is("freezer.self_freezing", "1")
        });
        let alive = pid > 0 && leftovers::alive(pid);
        let true_status = match status {
            "created" => alive && !executed && !frozen,
            "running" => alive && executed && !frozen,
            "paused" => alive && frozen,
            // The processes of a killed runtime may take a moment to end.
            "stopped" => self.bundle.processes(id).is_empty(),
            _ => false,
        };
        Ok((!true_status).then(|| {
            let names = self.bundle.processes(id);
            format!("{status} with pid {pid}, executed {executed}, frozen {frozen}, processes {names:?}")
        }))
    }

    /// Returns how `list` fails, or what it does not show.
    fn list(&self, id: &str) -> Result<Option<String>> {
        let (code, out) = self.bundle.call(&["list", "--format", "json"])?;
        let Ok(rows) = serde_json::from_str::<Value>(&out) else {
            return Ok(Some(format!("exit {code}, and printed {out:?}")));
        };
        let listed = rows.as_array().into_iter().flatten().any(|row| row["id"] == id);
        let there = self.bundle.path("state").join(id).exists();
        let err = fs::read_to_string(self.bundle.path("err"))?;
        Ok((code != 0 || listed != there || !err.is_empty())
            .then(|| format!("exit {code}, listed {listed}, is there {there}, {err}")))
    }

    /// Checks that a new container can use the id: the container of the next point, or one that is made and deleted.
    fn reuse(&self, before: Before, id: &str) -> Result<()> {
        if before != Before::Nothing {
            return self.prepare(before, id);
        }
        self.prepare(Before::Running, id)?;
        self.bundle.ok(&["delete", "--force", id])?;
        let left = self.bundle.leftovers_after(id, AT_ONCE);
        anyhow::ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    }
}

/// Waits until something holds; `None` if it did not in time.
fn until(patience: Duration, mut holds: impl FnMut() -> Result<bool>) -> Result<Option<()>> {
    let deadline = Instant::now() + patience;
    while !holds()? {
        if Instant::now() > deadline {
            return Ok(None);
        }
        std::thread::sleep(Duration::from_micros(500));
    }
    Ok(Some(()))
}
