//! The cgroup for an `exec`: the container's, a sub-cgroup of it, or the one that init has moved to.

use super::hierarchy::gone;
use super::{Cgroup, Hierarchy, Tree, locate};
use anyhow::{Result, bail};
use rustix::fs::OFlags;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

impl Cgroup {
    /// The cgroup for `exec --cgroup`: `PATH`, or `controller[,controller…]:PATH` for version 1. For controllers that
    /// the argument does not name, it is the container's cgroup.
    ///
    /// # Errors
    /// The argument is malformed, leads out of the container's cgroup, or names an unknown controller.
    pub fn sub(&self, spec: &[String]) -> Result<Self> {
        let asked = sub_paths(spec)?;
        let keeper = self.keeper.clone();
        let default = self.delegated.as_ref().filter(|_| asked.is_empty());
        let at = |hierarchy: &Hierarchy| -> Result<Hierarchy> {
            let of = |name: &String| asked.get(name);
            let sub = hierarchy.controllers.iter().find_map(of).or_else(|| {
                // A path without controllers is for all of them.
                asked.get("")
            });
            Ok(hierarchy.at(match sub {
                Some(sub) => join_beneath(&hierarchy.path, sub)?,
                None => default.map_or_else(|| hierarchy.path.clone(), |below| hierarchy.path.join(below)),
            }))
        };
        for name in asked.keys().filter(|name| !name.is_empty()) {
            if !self.all().iter().any(|hierarchy| hierarchy.has(name)) {
                bail!("unknown controller {name} in SubCgroupPaths");
            }
        }
        let tree = match &self.tree {
            Tree::V2(only) => Tree::V2(at(only)?),
            Tree::V1(all) => Tree::V1(all.iter().map(at).collect::<Result<_>>()?),
            Tree::Nowhere => Tree::Nowhere,
        };
        let (named, rootless, resources) = (self.named, self.rootless, Box::default());
        Ok(Self { tree, keeper, named, rootless, resources, delegated: None })
    }

    /// The cgroup that `pid`, the container's init, is in now.
    ///
    /// `exec` asks for it if the container's own cgroup takes no process. Either init has moved to a sub-cgroup and
    /// passed the controllers down to it (EBUSY), or the container's own cgroup is gone. `None` if init is in any
    /// other place: while the container's cgroup exists, its processes belong there. The version 1 hierarchies stay
    /// as they are, because they refuse no process.
    ///
    /// # Errors
    /// The process is gone, or its cgroup is outside our cgroup namespace.
    pub fn of_process(&self, pid: i32) -> Result<Option<Self>> {
        let Some(own) = self.unified() else { return Ok(None) };
        let Some(path) = locate::of_process(pid)? else { return Ok(None) };
        let below = path != own.path && path.starts_with(&own.path);
        let is_gone = || own.at(&own.path).open("", OFlags::PATH).is_err_and(|error| gone(&error));
        if !below && !is_gone() {
            return Ok(None);
        }
        let moved = |one: &Hierarchy| one.at(if one.unified() { &path } else { &one.path });
        Ok(Some(Self {
            tree: match &self.tree {
                Tree::V1(all) => Tree::V1(all.iter().map(moved).collect()),
                Tree::V2(only) => Tree::V2(moved(only)),
                Tree::Nowhere => return Ok(None),
            },
            keeper: self.keeper.clone(),
            named: self.named,
            rootless: self.rootless,
            resources: Box::default(),
            delegated: None,
        }))
    }
}

fn sub_paths(spec: &[String]) -> Result<BTreeMap<String, &str>> {
    let mut paths = BTreeMap::new();
    for argument in spec {
        let Some((controllers, path)) = argument.split_once(':') else {
            if spec.len() != 1 {
                bail!("invalid --cgroup argument: {argument} (missing <controller>: prefix)");
            }
            paths.insert(String::new(), argument.as_str());
            continue;
        };
        for name in controllers.split(',') {
            if name.is_empty() {
                bail!("invalid --cgroup argument: {argument} (empty <controller> prefix)");
            }
            if paths.insert(name.to_owned(), path).is_some() {
                bail!("invalid --cgroup argument(s): controller {name} specified multiple times");
            }
        }
    }
    Ok(paths)
}

fn join_beneath(path: &Path, sub: &str) -> Result<PathBuf> {
    let mut depth = 0usize;
    for component in Path::new(sub).components() {
        match component {
            std::path::Component::ParentDir if depth == 0 => bail!("bad sub cgroup path: {sub}"),
            std::path::Component::ParentDir => depth -= 1,
            std::path::Component::Normal(_) => depth += 1,
            _ => {}
        }
    }
    Ok(path.join(locate::clean(Path::new(sub))))
}
