//! Who makes and removes the container's directories, and what differs if that is systemd.

use super::hierarchy::{Hierarchy, gone};
use super::{Cgroup, Plan, Resources, Tree, below, locate, systemd, v2};
use crate::sys::{Error, Refused};
use anyhow::{Context, Result};
use rustix::fs::{Access, AtFlags, CWD, OFlags, accessat};
use serde::{Deserialize, Serialize};
use std::path::PathBuf;

/// Who makes and removes the container's directories.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub enum Keeper {
    /// The runtime.
    Us,
    /// systemd.
    Systemd(systemd::Scope),
}

impl Cgroup {
    /// Whether [`adopt`](Self::adopt) still has to make the cgroup, around a process.
    pub fn waits_for_process(&self) -> bool {
        matches!((&self.keeper, &self.tree), (Keeper::Systemd(_), Tree::Nowhere))
    }

    /// The directory that systemd will make, as far as the runtime can know it without asking systemd.
    pub(super) fn scope_to_be(&self) -> Option<Hierarchy> {
        let Keeper::Systemd(scope) = &self.keeper else { return None };
        self.waits_for_process().then(|| Hierarchy::new(vec![], locate::ROOT, scope.usual_path()))
    }

    /// Has systemd make a scope around `pid`, then sets limits and devices in it. The caller records the cgroup
    /// afterwards.
    ///
    /// # Errors
    /// systemd cannot be reached or refuses, or the kernel refuses a value.
    pub fn adopt(&mut self, pid: i32, plan: &Plan) -> Result<()> {
        let Keeper::Systemd(scope) = &mut self.keeper else { return Ok(()) };
        scope.start(pid, &plan.resources, &plan.devices)?;
        let (unit, subgroup) = (scope.unit.clone(), scope.subgroup.clone());
        let found = locate::of_process(pid)?.filter(|path| path.ends_with(&unit));
        let path = found.with_context(|| format!("linux.cgroupsPath: process {pid} is not in {unit}"))?;
        let mut cgroup = Hierarchy::new(vec![], locate::ROOT, path);
        if let Some(subgroup) = subgroup {
            let place = || format!("annotations.{}", below::SUBGROUP);
            cgroup = below::enter(&cgroup, &subgroup, pid).with_context(place)?;
        }
        let needed: Vec<&str> = plan.limits.writes.iter().map(|write| write.controller.as_ref()).collect();
        // systemd passes down the controllers that it knows, but not hugetlb and rdma.
        v2::enable_controllers(&cgroup, &needed).context("unable to apply cgroup configuration")?;
        self.tree = Tree::V2(cgroup);
        self.set(plan)
    }

    /// Whether the runtime may not clone a process into the cgroup, so that systemd has to move it there.
    ///
    /// The kernel wants the right to move processes in the lowest directory above both that cgroup and our own
    /// (cgroups(7), "delegation containment"). A user from a login session lacks it; the user's manager has it.
    pub fn needs_attach(&self) -> bool {
        let (Keeper::Systemd(scope), Tree::V2(cgroup)) = (&self.keeper, &self.tree) else { return false };
        if !scope.of_user() {
            return false;
        }
        let own = locate::of_process(rustix::process::getpid().as_raw_nonzero().get()).ok().flatten();
        let both = own.unwrap_or_default();
        let both = both.iter().zip(&cgroup.path).take_while(|(one, two)| one == two).map(|(one, _)| one);
        let file = cgroup.at(both.collect::<PathBuf>()).dir().join("cgroup.procs");
        accessat(CWD, &file, Access::WRITE_OK, AtFlags::EACCESS).is_err()
    }

    /// Has systemd move a process of ours into the cgroup, which is the scope's or one below it.
    ///
    /// # Errors
    /// systemd cannot be reached or refuses; EBUSY, as from clone3(2), if the cgroup takes no processes.
    pub fn attach(&self, pid: i32) -> Result<()> {
        let (Keeper::Systemd(scope), Tree::V2(cgroup)) = (&self.keeper, &self.tree) else {
            return self.join(pid);
        };
        let below = cgroup.path.iter().skip_while(|name| *name != scope.unit.as_str()).skip(1);
        scope.attach(pid, &below.collect::<PathBuf>()).map_err(|error| {
            match v2::why_refused(cgroup, libc::EBUSY) {
                // systemd reports "permission denied" for every errno of the kernel.
                Some(why) => Refused::told(Error::new("cgroup.procs", why, libc::EBUSY)),
                None => error,
            }
        })
    }

    pub(super) fn tell_keeper(&self, resources: &Resources) -> Result<()> {
        match &self.keeper {
            Keeper::Us => Ok(()),
            Keeper::Systemd(scope) => scope.set(resources),
        }
    }

    /// Has systemd end the scope and its processes. Asks nothing if the scope is gone already, as it is after its
    /// last process.
    pub(super) fn release(&self) -> Result<()> {
        let Keeper::Systemd(scope) = &self.keeper else { return Ok(()) };
        match self.unified().map(|cgroup| cgroup.open("", OFlags::PATH)) {
            // The usual case: systemd removed the scope when the last process ended.
            Some(Err(error)) if gone(&error) => Ok(()),
            _ => scope.stop(),
        }
    }
}
