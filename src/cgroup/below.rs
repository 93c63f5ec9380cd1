//! Cgroups below the container's, which annotations ask for (crun's): `run.oci.systemd.subgroup`, in which the
//! container is in place of systemd's scope, and `run.oci.delegate-cgroup`, which the container manages itself.
//!
//! Version 2 only. Not for: the sub-cgroups of `exec --cgroup` (`sub`).

use super::{Cgroup, Hierarchy, Tree, v2};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The annotation for systemd's scope.
pub const SUBGROUP: &str = "run.oci.systemd.subgroup";

/// The annotation for a cgroup of the container's own.
const DELEGATE: &str = "run.oci.delegate-cgroup";

/// A cgroup that is handed over.
#[derive(Debug, Serialize)]
pub struct Delegated {
    /// Below the container's cgroup.
    pub path: PathBuf,
    /// The host's id of the user who may manage it, if that is not us.
    pub owner: Option<u32>,
}

/// Reads `run.oci.delegate-cgroup`; `owner` is the host's id of the process's user.
///
/// # Errors
/// It leads elsewhere, or the container has no cgroup of version 2.
pub fn delegated(
    annotations: Option<&BTreeMap<String, String>>,
    unified: bool,
    owner: Option<u32>,
) -> Result<Option<Delegated>> {
    let Some(path) = path(annotations, DELEGATE)? else { return Ok(None) };
    ensure!(unified, "annotations.{DELEGATE}: the container has no cgroup of version 2");
    Ok(Some(Delegated { path, owner }))
}

/// The path in an annotation; an empty one is none.
///
/// # Errors
/// It leads elsewhere.
pub fn path(annotations: Option<&BTreeMap<String, String>>, key: &str) -> Result<Option<PathBuf>> {
    let said = annotations.and_then(|annotations| annotations.get(key)).filter(|said| !said.is_empty());
    let Some(said) = said else { return Ok(None) };
    let below = Path::new(said.trim_start_matches('/'));
    let plain = below.components().all(|part| matches!(part, Component::Normal(_) | Component::CurDir));
    let path: PathBuf = below.components().filter(|part| *part != Component::CurDir).collect();
    ensure!(
        plain && !path.as_os_str().is_empty() && !said.contains(['\0', '\n']) && fits(&path),
        "annotations.{key}: {said:?} is not the path of a cgroup below the container's"
    );
    Ok(Some(path))
}

/// Whether the kernel takes the names, and the path is no longer than those that we make.
fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= 1024 && path.iter().all(|name| name.len() <= 255)
}

/// Makes a cgroup below and moves the process into it.
///
/// # Errors
/// The kernel refuses.
pub fn enter(cgroup: &Hierarchy, path: &Path, pid: i32) -> Result<Hierarchy, crate::sys::Error> {
    let below = cgroup.at(cgroup.path.join(path));
    below.make()?;
    below.write("cgroup.procs", &pid.to_string())?;
    v2::enable_controllers(&below, &[])?;
    Ok(below)
}

impl Cgroup {
    /// Moves the container's process into the cgroup that it is to manage. After its cgroup namespace is made, whose
    /// root stays the container's cgroup. Record the cgroup afterwards.
    ///
    /// # Errors
    /// There is no cgroup to be below of, or the kernel refuses.
    pub fn delegate(&mut self, asked: &Delegated, pid: i32) -> Result<()> {
        let place = || format!("annotations.{DELEGATE}");
        let Tree::V2(cgroup) = &self.tree else {
            return Err(anyhow::anyhow!("the container has no cgroup").context(place()));
        };
        let below = enter(cgroup, &asked.path, pid).with_context(place)?;
        match asked.owner {
            Some(owner) => self.give(&below, owner),
            None => self.bound(&below),
        }
        .with_context(place)?;
        self.delegated = Some(asked.path.clone());
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_annotation_names_a_place_below_or_none() {
        let of = |said: &str| path(Some(&[(DELEGATE.to_owned(), said.to_owned())].into()), DELEGATE);
        for (said, meant) in [("", None), ("a", Some("a")), ("/a/./b/", Some("a/b"))] {
            assert_eq!(of(said).unwrap(), meant.map(PathBuf::from), "{said}");
        }
        assert_eq!(path(None, DELEGATE).unwrap(), None);
        for said in ["..", "a/../../b", "/", ".", "a\0", "a\nb", &"x".repeat(256), &"x/".repeat(600)] {
            let text = of(said).unwrap_err().to_string();
            assert!(text.starts_with("annotations.run.oci.delegate-cgroup: "), "{text}");
        }
    }

    #[test]
    fn version_1_has_nothing_to_delegate() {
        let said = [(DELEGATE.to_owned(), "a".to_owned())].into();
        delegated(Some(&said), false, None).unwrap_err();
        assert!(delegated(None, false, None).unwrap().is_none());
    }
}
