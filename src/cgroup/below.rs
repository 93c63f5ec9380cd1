//! Cgroups below the container's that annotations ask for, as crun has them: `run.oci.systemd.subgroup` puts the
//! container into a cgroup below systemd's scope; `run.oci.delegate-cgroup` names one that the container manages
//! itself.
//!
//! Version 2 only.
//! Not for: the sub-cgroups of `exec --cgroup` (`sub`).

use super::{Cgroup, Hierarchy, Tree, v2};
use anyhow::{Context, Result, ensure};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::{Component, Path, PathBuf};

/// The annotation that names a cgroup below systemd's scope.
pub const SUBGROUP: &str = "run.oci.systemd.subgroup";

/// The annotation that names a cgroup for the container to manage.
const DELEGATE: &str = "run.oci.delegate-cgroup";

/// A cgroup that is handed over to the container.
#[derive(Debug, Serialize)]
pub struct Delegated {
    /// Its path below the container's cgroup.
    pub path: PathBuf,
    /// The host's id of the user that may manage it, unless that is the runtime's own user.
    pub owner: Option<u32>,
}

/// Reads `run.oci.delegate-cgroup`; `owner` is the host's id of the process's user.
///
/// # Errors
/// The path leads out of the container's cgroup, or the container has no cgroup of version 2.
pub fn delegated(
    annotations: Option<&BTreeMap<String, String>>,
    unified: bool,
    owner: Option<u32>,
) -> Result<Option<Delegated>> {
    let Some(path) = path(annotations, DELEGATE)? else { return Ok(None) };
    ensure!(unified, "annotations.{DELEGATE}: the container has no cgroup of version 2");
    Ok(Some(Delegated { path, owner }))
}

/// The path in an annotation; an empty path counts as absent.
///
/// # Errors
/// The path leads out of the container's cgroup.
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

/// Whether each name and the path are short enough for the kernel.
fn fits(path: &Path) -> bool {
    path.as_os_str().len() <= 1024 && path.iter().all(|name| name.len() <= 255)
}

/// Makes a cgroup below the container's and moves the process into it.
pub fn enter(cgroup: &Hierarchy, path: &Path, pid: i32) -> Result<Hierarchy, crate::sys::Error> {
    let below = cgroup.at(cgroup.path.join(path));
    below.make()?;
    below.write("cgroup.procs", &pid.to_string())?;
    v2::enable_controllers(&below, &[])?;
    Ok(below)
}

impl Cgroup {
    /// Moves the container's process into the cgroup that it will manage. Called after the process has its cgroup
    /// namespace, so that the root of that namespace stays the container's cgroup. The caller records the cgroup
    /// afterwards.
    ///
    /// # Errors
    /// The container has no cgroup of version 2, or the kernel refuses.
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
