//! `linux.cgroupsPath` and `linux.resources`: version 1, hybrid and version 2 behind one type, [`Cgroup`].
//!
//! Two questions are kept apart: which trees the host has ([`Tree`]), and who makes the directories ([`Keeper`]).
//! A [`Cgroup`] says where the container is. It is part of state.json, so a later verb finds the cgroup without
//! looking at the host again.
//!
//! What other modules call, in the order of a container's life:
//!
//! | verb | function | file |
//! |---|---|---|
//! | create, run | [`plan`], [`delegated`]: read config.json, touch nothing | `mod`, `below` |
//! | | [`Cgroup::locate`], [`Cgroup::none`]: choose the directories, make nothing; the record follows | `mod` |
//! | | [`Cgroup::create`], [`Cgroup::set`]: make the directories, set limits and devices | `mod` |
//! | | [`Cgroup::waits_for_process`], [`Cgroup::adopt`]: the same by systemd, around the process | `keeper` |
//! | | [`Cgroup::give_to`]: the container's user owns the directory | `ownership` |
//! | | [`Cgroup::dir`], [`Cgroup::tasks`], [`Cgroup::refusal`]: the process enters | `enter` |
//! | | [`Cgroup::mount_sources`]: what the container sees of its cgroup | `mount` |
//! | | [`Cgroup::set_pids`], [`Cgroup::delegate`]: last steps, once init is ready | `mod`, `below` |
//! | exec | [`Cgroup::sub`], [`Cgroup::of_process`]: which cgroup | `sub` |
//! | | [`Cgroup::dir`], [`Cgroup::tasks`], [`Cgroup::refusal`]: the process enters | `enter` |
//! | | [`Cgroup::needs_attach`], [`Cgroup::attach`]: systemd moves the process | `keeper` |
//! | | [`Cgroup::stands_still`]: a process that enters would be frozen | `freezer` |
//! | update | [`Cgroup::update`], [`Cgroup::resources`], [`Cgroup::version_2`] | `mod` |
//! | pause, resume | [`Cgroup::freeze`], [`Cgroup::thaw`] | `freezer` |
//! | state, list | [`Cgroup::frozen`], [`Cgroup::paths`] | `freezer`, `mod` |
//! | ps | [`Cgroup::exists`], [`Cgroup::pids`] | `mod` |
//! | events | [`Cgroup::stats`], [`Cgroup::oom_watch`], [`Cgroup::oom_kills`] | `mod`, `oom` |
//! | kill | [`Cgroup::exists`], [`Cgroup::kill_all`], [`Cgroup::let_die`], [`Cgroup::may_hold_killed`] | `mod`, `freezer` |
//! | delete | [`Cgroup::kill_all`], [`Cgroup::let_die`], [`Cgroup::remove`] | `freezer`, `mod` |
//! | | [`Cgroup::by_default`], [`Cgroup::located`]: the place if the record is damaged | `mod`, `located` |
//!
//! Below them: `locate` (where), `hierarchy` and `walk` (the only code that touches the files), `v1` and `v2` (what
//! differs), `limits` (limits as writes), `devices` (device rules), `systemd` (the scope, over D-Bus).
//! Not for: the cgroup namespace (`parts::namespaces`), mounting (`parts::mounts`), device nodes.

mod below;
pub mod devices;
mod enter;
mod freezer;
mod hierarchy;
mod keeper;
mod limits;
mod locate;
mod located;
mod mount;
mod oom;
mod ownership;
mod resources;
mod stats;
mod sub;
pub mod systemd;
#[cfg(test)]
mod tests;
mod v1;
mod v2;
mod walk;

pub use below::{Delegated, delegated};
pub use locate::Place;
pub use mount::MountSource;
pub use oom::{OomNews, OomWatch};
pub use resources::Resources;
pub use stats::Stats;

use crate::host::{CgroupMode, Host};
use crate::sys::Error;
use anyhow::{Context, Result, anyhow, bail, ensure};
use hierarchy::{Hierarchy, WALK_PATIENCE, gone};
use keeper::Keeper;
use limits::{Limits, Missing, Order, Write};
use rustix::fs::OFlags;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// What config.json asks of cgroups.
#[derive(Debug, Serialize)]
pub struct Plan {
    /// Where the container's cgroup will be if the runtime makes it.
    pub place: Place,
    /// The scope that systemd will make, if systemd makes the cgroup.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub scope: Option<systemd::Scope>,
    /// True if config.json names the place. Then it is an error if the place cannot be had.
    pub named: bool,
    /// True if the runtime lacks root's powers, or was told so (`--rootless true`). Then it may run without a cgroup
    /// that config.json did not ask for.
    pub rootless: bool,
    /// True if the runtime really lacks root's powers over the host.
    pub without_root: bool,
    /// True if the limit of processes must wait until init is ready. Until then processes of the runtime are in the
    /// cgroup, and they must not count.
    pub pids_later: bool,
    /// What config.json asks for, kept for `update`.
    pub resources: Box<Resources>,
    /// The same, as writes to files.
    pub limits: Limits,
    /// Which devices may be used.
    pub devices: devices::Policy,
    /// A cgroup below the container's, which the container manages itself.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub delegated: Option<Delegated>,
}

/// Reads `linux.cgroupsPath` and `linux.resources`.
///
/// # Errors
/// A value that this host's cgroups cannot express, by its config pointer.
pub fn plan(
    path: Option<&str>,
    said: Option<&Resources>,
    id: &str,
    host: &Host,
    rootless: bool,
    systemd: Option<systemd::Asked<'_>>,
) -> Result<Plan> {
    let path = path.unwrap_or_default();
    locate::check(path)?;
    let resources = Box::new(said.cloned().unwrap_or_default());
    if systemd.is_some() && host.cgroup_mode != CgroupMode::Unified {
        bail!(
            "--systemd-cgroup: needs a host whose cgroups are of version 2 alone \
             (systemd.unified_cgroup_hierarchy=1 at boot); without the option orlop makes the cgroups itself"
        );
    }
    let limits = limits_for(&resources, host.cgroup_mode == CgroupMode::Unified, systemd.is_some())?;
    Ok(Plan {
        scope: systemd.map(|asked| systemd::plan(path, id, asked)).transpose()?,
        place: Place::of(if path.is_empty() { id } else { path }),
        named: !path.is_empty(),
        rootless,
        without_root: host.rootless(),
        pids_later: false,
        limits,
        devices: devices::plan(&resources.devices)?,
        resources,
        delegated: None,
    })
}

fn pids_max(plan: &Plan) -> impl Iterator<Item = &Write> {
    plan.limits.writes.iter().filter(|write| write.file == "pids.max")
}

/// The writes to the files. With systemd as the keeper, the values are those that systemd would write itself.
fn limits_for(resources: &Resources, unified: bool, beside_systemd: bool) -> Result<Limits> {
    let settled = beside_systemd.then(|| systemd::for_files(resources));
    let resources = settled.as_ref().unwrap_or(resources);
    if unified { limits::v2(resources) } else { limits::v1(resources) }
}

/// The container's place in the cgroup trees of the host.
#[derive(Debug, Serialize, Deserialize)]
pub struct Cgroup {
    tree: Tree,
    keeper: Keeper,
    named: bool,
    rootless: bool,
    #[serde(default)]
    resources: Box<Resources>,
    /// The cgroup below the container's that its process was moved to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    delegated: Option<PathBuf>,
}

/// Which trees there are.
#[derive(Debug, Serialize, Deserialize)]
enum Tree {
    /// One tree, for everything.
    V2(Hierarchy),
    /// A tree for each controller or group of controllers; on hybrid hosts one of version 2 beside them.
    V1(Vec<Hierarchy>),
    /// No tree that the runtime may use: a rootless container without limits, or one whose scope is still to be made.
    Nowhere,
}

/// How long `remove` waits for killed processes to end.
const REMOVE_PATIENCE: Duration = Duration::from_secs(5);

impl Cgroup {
    /// No cgroup at all: the container stays in the runtime's (`--cgroup-manager disabled`).
    pub fn none() -> Self {
        Self {
            tree: Tree::Nowhere,
            keeper: Keeper::Us,
            named: false,
            rootless: false,
            resources: Box::default(),
            delegated: None,
        }
    }

    /// Where the container `id` is if its configuration named no place. `delete` uses this if the record is damaged.
    ///
    /// # Errors
    /// The host has no usable cgroups.
    pub fn by_default(id: &str, host: &Host) -> Result<Self> {
        let plan = plan(None, None, id, host, host.rootless(), None)?;
        Self::at_place(&plan, host)
    }

    /// Decides which directories will be made. It makes nothing, so that the record can be written first.
    ///
    /// # Errors
    /// The host has no usable cgroups; or the cgroup is in use: it has processes, or it is frozen.
    pub fn locate(plan: &Plan, host: &Host) -> Result<Self> {
        let cgroup = Self::at_place(plan, host)?;
        cgroup.check_unused()?;
        Ok(cgroup)
    }

    fn at_place(plan: &Plan, host: &Host) -> Result<Self> {
        if let Some(scope) = &plan.scope {
            let mut scope = scope.clone();
            scope.mark();
            let (named, rootless) = (plan.named, plan.rootless);
            let (keeper, resources) = (Keeper::Systemd(scope), plan.resources.clone());
            return Ok(Self { tree: Tree::Nowhere, keeper, named, rootless, resources, delegated: None });
        }
        let mut found = locate::hierarchies(&plan.place, host.cgroup_mode)?;
        let tree = match (host.cgroup_mode, found.pop()) {
            (CgroupMode::Unified, Some(only)) => Tree::V2(only),
            (_, last) => {
                found.extend(last);
                Tree::V1(found)
            }
        };
        Ok(Self {
            tree,
            keeper: Keeper::Us,
            named: plan.named,
            rootless: plan.rootless,
            resources: plan.resources.clone(),
            delegated: None,
        })
    }

    /// Takes over a cgroup that exists only if it has no processes and is not frozen.
    fn check_unused(&self) -> Result<()> {
        if let Some(scope) = self.scope_to_be() {
            // A frozen scope looks like any other from outside. Init would stop in it, and the parent would wait for
            // init.
            return if scope.open("", OFlags::PATH).is_ok() {
                refuse_used(&scope, v2::frozen(&scope)?)
            } else {
                Ok(())
            };
        }
        let Some(main) = self.main() else { return Ok(()) };
        let frozen = || self.frozen().or_else(|error| if self.rootless { Ok(false) } else { Err(error) });
        match main.open("", OFlags::PATH) {
            Ok(_) => refuse_used(main, frozen()?),
            Err(error) if gone(&error) && matches!(self.tree, Tree::V2(_)) => Ok(()),
            // `create` decides whether the error matters.
            Err(error) if gone(&error) || self.tolerates(&error) => refuse_frozen(frozen()?),
            Err(error) => Err(error.into()),
        }
    }

    fn all(&self) -> &[Hierarchy] {
        match &self.tree {
            Tree::V2(only) => std::slice::from_ref(only),
            Tree::V1(all) => all,
            Tree::Nowhere => &[],
        }
    }

    /// The hierarchy to ask for processes: all hierarchies have the same ones.
    fn main(&self) -> Option<&Hierarchy> {
        let all = self.all();
        all.iter().find(|hierarchy| hierarchy.has("devices")).or(all.first())
    }

    /// Whether version 2 controllers keep its limits.
    pub fn version_2(&self) -> bool {
        matches!(self.tree, Tree::V2(_))
    }

    fn unified(&self) -> Option<&Hierarchy> {
        self.all().iter().find(|hierarchy| hierarchy.unified())
    }

    /// The hierarchy with the files of a controller.
    fn controller(&self, name: &str) -> Option<&Hierarchy> {
        match &self.tree {
            Tree::V2(only) => Some(only),
            Tree::V1(all) => all.iter().find(|hierarchy| hierarchy.has(name)),
            Tree::Nowhere => None,
        }
    }

    fn tolerates(&self, error: &Error) -> bool {
        self.forgiving() && denied(error)
    }

    /// Whether a permission error while creating the cgroup may be ignored.
    fn forgiving(&self) -> bool {
        self.rootless && !self.named
    }

    /// The error for a cgroup that cannot be had. Rootless containers get runc's words for it.
    fn inapplicable(&self, error: Error) -> anyhow::Error {
        let denied = denied(&error);
        let mut error = anyhow!(error);
        if self.rootless && denied {
            error = error.context(
                "rootless needs no limits + no cgrouppath when no permission is granted for cgroups",
            );
        }
        error.context("unable to apply cgroup configuration")
    }

    /// Makes the directories. It drops a hierarchy that the runtime may not use and does not need; so the caller
    /// records the cgroup again.
    pub fn create(&mut self, plan: &Plan) -> Result<()> {
        let forgiving = self.forgiving();
        match &mut self.tree {
            Tree::Nowhere => {}
            Tree::V2(cgroup) => {
                let needed: Vec<&str> =
                    plan.limits.writes.iter().map(|write| write.controller.as_ref()).collect();
                match cgroup.make().and_then(|()| v2::enable_controllers(cgroup, &needed)) {
                    Ok(()) => {}
                    Err(error) if forgiving && denied(&error) && needed.is_empty() => {
                        self.tree = Tree::Nowhere
                    }
                    Err(error) => return Err(self.inapplicable(error)),
                }
            }
            Tree::V1(all) => {
                let mut failed = None;
                all.retain(|hierarchy| {
                    // After an error the list stays as it is: the caller removes what was made.
                    match if failed.is_none() { make_v1(hierarchy, plan) } else { Ok(()) } {
                        Ok(()) => true,
                        Err(error) if (forgiving && denied(&error)) || optional(hierarchy) => false,
                        Err(error) => {
                            failed = Some(error);
                            true
                        }
                    }
                });
                if let Some(error) = failed {
                    return Err(self.inapplicable(error));
                }
            }
        }
        Ok(())
    }

    /// Sets limits and devices before the container's process runs.
    ///
    /// # Errors
    /// The kernel refuses a value; the error names its config pointer and file.
    pub fn set(&self, plan: &Plan) -> Result<()> {
        if self.waits_for_process() {
            return Ok(());
        }
        // Devices first: init opens files of the image, which may be devices.
        self.set_devices(plan)?;
        self.write_all(&plan.limits.writes)?;
        if plan.pids_later {
            self.write_all(&pids_max(plan).map(Write::lifted).collect::<Vec<_>>())?;
        }
        Ok(())
    }

    /// Sets the limit of processes, after the runtime's own processes have left the cgroup ([`Plan::pids_later`]).
    pub fn set_pids(&self, plan: &Plan) -> Result<()> {
        if !plan.pids_later {
            return Ok(());
        }
        self.write_all(&pids_max(plan).cloned().collect::<Vec<_>>())
    }

    fn set_devices(&self, plan: &Plan) -> Result<()> {
        let policy = &plan.devices;
        let done = match (&self.tree, self.controller("devices")) {
            (Tree::V2(cgroup), _) => v2::set_devices(cgroup, policy),
            (_, Some(cgroup)) => v1::set_devices(cgroup, policy),
            (_, None) if plan.without_root => Ok(()),
            (_, None) => bail!(
                "linux.resources.devices: cannot set devices limit: container could not join or create cgroup"
            ),
        };
        match done {
            // An ordinary user cannot make devices, and the host's devices have their own permissions.
            Err(error) if plan.without_root && denied(&error) => Ok(()),
            done => done.context("linux.resources.devices"),
        }
    }

    fn write_all(&self, writes: &[Write]) -> Result<()> {
        let mut again = vec![];
        for write in writes {
            match self.write(write) {
                Err(error)
                    if write.order == Order::AgainAtTheEnd
                        && crate::sys::errno_of(&error) == Some(libc::EINVAL) =>
                {
                    again.push(write);
                }
                done => done?,
            }
        }
        again.into_iter().try_for_each(|write| self.write(write))
    }

    fn write(&self, write: &Write) -> Result<()> {
        let controller = &write.controller;
        let Some(hierarchy) = self.controller(controller) else {
            if write.missing == Missing::Ignored {
                return Ok(());
            }
            bail!(
                "{}: cannot set {controller} limit: container could not join or create cgroup",
                write.pointer
            );
        };
        let done = match (hierarchy.write(write.file.as_ref(), &write.value), &write.missing) {
            (Err(error), Missing::Ignored) if gone(&error) => Ok(()),
            (Err(error), Missing::Instead(file, value)) if gone(&error) => hierarchy.write(file, value),
            (done, _) => done,
        };
        done.map_err(|error| self.explain(write, hierarchy, error)).with_context(|| write.pointer.to_string())
    }

    /// Explains why a limit failed. The plain "no such file" would mislead: engines take it to mean that the
    /// container's program is missing.
    fn explain(&self, write: &Write, hierarchy: &Hierarchy, error: Error) -> anyhow::Error {
        let file = hierarchy.dir().join(write.file.as_ref());
        let unified = write.pointer.starts_with("linux.resources.unified");
        if gone(&error) || (unified && matches!(error.errno(), libc::EPERM | libc::EACCES)) {
            let why = match &self.tree {
                Tree::V2(cgroup) => v2::why_missing(cgroup, &write.controller),
                _ => "this kernel does not have the file".to_owned(),
            };
            return match unified {
                true => anyhow!("unified resource {:?} can't be set: {why}", write.file),
                false => anyhow!("cannot write {}: {why}", file.display()),
            };
        }
        if error.errno() == libc::EBUSY && write.file == "memory.limit_in_bytes" {
            let read = |file: &str| {
                hierarchy.read(file).map_or_else(|_| "?".to_owned(), |value| value.trim().to_owned())
            };
            let (usage, peak) = (read("memory.usage_in_bytes"), read("memory.max_usage_in_bytes"));
            let text = format!(
                "unable to set memory limit to {} (current usage: {usage}, peak usage: {peak})",
                write.value
            );
            return anyhow!(error).context(text);
        }
        match unified {
            true => anyhow!(error).context(format!("unable to set unified resource {:?}", write.file)),
            false => error.into(),
        }
    }

    /// Changes the limits of a running container. What the update does not name stays as it is, and devices always
    /// do. The caller records the cgroup afterwards.
    ///
    /// # Errors
    /// The kernel refuses a value. The former limits are set again then.
    pub fn update(&mut self, asked: &Resources) -> Result<()> {
        let (unified, beside_systemd) = (self.version_2(), matches!(self.keeper, Keeper::Systemd(_)));
        let new = Box::new(self.resources.updated(asked));
        let limits = limits_for(&new, unified, beside_systemd)?;
        if let Some((memory, both)) = limits.check_usage {
            self.check_usage(memory, both)?;
        }
        if let Err(error) = self.tell_keeper(&new).and_then(|()| self.write_all(&limits.writes)) {
            // The first error is reported, not this one.
            let _ = self.tell_keeper(&self.resources);
            let old = limits_for(&self.resources, unified, beside_systemd)
                .and_then(|old| self.write_all(&old.writes));
            return Err(match old {
                Ok(()) => error,
                Err(second) => error.context(format!("the former limits are not restored ({second:#})")),
            });
        }
        self.resources = new;
        Ok(())
    }

    fn check_usage(&self, memory: i64, both: i64) -> Result<()> {
        // This check only helps the user: without a number there is nothing to compare.
        let usage = self.controller("memory").and_then(|cgroup| cgroup.read("memory.current").ok());
        let Some(usage) = usage.and_then(|usage| usage.trim().parse::<i64>().ok()) else { return Ok(()) };
        for (what, limit) in [("memory+swap", both), ("memory", memory)] {
            if limit > 0 && limit <= usage {
                bail!("rejecting {what} limit {limit} <= usage {usage}");
            }
        }
        Ok(())
    }

    /// What config.json and all updates so far asked of the controllers.
    pub fn resources(&self) -> &Resources {
        &self.resources
    }

    /// The controllers and their directories, as state.json shows them. The version 2 tree has the empty name.
    pub fn paths(&self) -> BTreeMap<String, PathBuf> {
        let mut paths = BTreeMap::new();
        for hierarchy in self.all() {
            if hierarchy.unified() {
                paths.insert(String::new(), hierarchy.dir());
            }
            paths.extend(hierarchy.controllers.iter().map(|name| (name.clone(), hierarchy.dir())));
        }
        paths
    }

    /// Whether the container's own directory exists.
    pub fn exists(&self) -> bool {
        self.main().is_some_and(|main| main.open("", OFlags::PATH).is_ok())
    }

    /// The processes of the container, those in sub-cgroups included.
    pub fn pids(&self) -> Result<Vec<i32>> {
        let Some(main) = self.main() else { return Ok(vec![]) };
        Ok(main.pids(Instant::now() + WALK_PATIENCE)?.into_iter().collect())
    }

    /// Removes all directories and their sub-cgroups, after the killed processes have ended. A missing one is fine.
    ///
    /// # Errors
    /// A process lives on, or the kernel refuses. The other hierarchies are removed nevertheless.
    pub fn remove(&self) -> Result<()> {
        self.release()?;
        let deadline = Instant::now() + REMOVE_PATIENCE;
        let mut result = Ok(());
        // Version 2 first: its kernel interface tells when the processes are gone. Then the other hierarchies need no
        // wait.
        let (first, rest): (Vec<_>, Vec<_>) = self.all().iter().partition(|hierarchy| hierarchy.unified());
        for hierarchy in first.into_iter().chain(rest) {
            if let Err(error) = hierarchy.remove(deadline) {
                result = result.and(Err(error));
            }
        }
        Ok(result?)
    }

    /// What the container uses, in the shape of runc's `events`.
    pub fn stats(&self) -> Result<Stats> {
        match &self.tree {
            Tree::V2(cgroup) => stats::v2(cgroup, self.rootless),
            Tree::V1(_) | Tree::Nowhere => stats::v1(&|name| self.controller(name)),
        }
    }
}

fn refuse_used(cgroup: &Hierarchy, frozen: bool) -> Result<()> {
    let pids = cgroup.pids(Instant::now() + WALK_PATIENCE)?;
    ensure!(pids.is_empty(), "container's cgroup is not empty: {} process(es) found", pids.len());
    refuse_frozen(frozen)
}

fn refuse_frozen(frozen: bool) -> Result<()> {
    ensure!(!frozen, "container's cgroup unexpectedly frozen");
    Ok(())
}

fn make_v1(hierarchy: &Hierarchy, plan: &Plan) -> Result<(), Error> {
    hierarchy.make()?;
    if hierarchy.has("cpuset") {
        // A file with a limit of its own inherits nothing: the value from above may be exclusive to other cgroups.
        let own: Vec<&str> = plan.limits.writes.iter().map(|write| write.file.as_ref()).collect();
        v1::inherit_cpuset(hierarchy, &own)?;
    }
    Ok(())
}

fn denied(error: &Error) -> bool {
    matches!(error.errno(), libc::EACCES | libc::EPERM | libc::EROFS)
}

/// Hierarchies that only show other programs where the container is. The container works without them.
fn optional(hierarchy: &Hierarchy) -> bool {
    hierarchy.unified()
        || hierarchy.controllers.iter().all(|name| name == "misc" || name.starts_with("name="))
}
