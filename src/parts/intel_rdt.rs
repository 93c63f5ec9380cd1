//! `linux.intelRdt`: the container's share of caches and memory bandwidth, set by a group of the resctrl file system
//! (config-linux.md, "IntelRdt").
//!
//! The parent makes the group at `create`, and the record holds it as [`Group`]. `exec` joins it, `delete` removes it.
//! Not for: mounting resctrl. The administrator does that, and only /sys/fs/resctrl is used.

mod stats;

pub use stats::stats;

use crate::sys::Called;
use anyhow::{Context, Result, ensure};
use oci_spec::runtime::LinuxIntelRdt;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io::Write;
use std::path::{Path, PathBuf};

/// The directory that the kernel provides as the mount point of resctrl.
pub const MOUNT_POINT: &str = "/sys/fs/resctrl";

const RDTGROUP_SUPER_MAGIC: rustix::fs::FsWord = 0x0765_5821;

/// The features of the host's resctrl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resctrl {
    /// The mount point.
    pub root: PathBuf,
    /// True if it allocates level 3 cache.
    pub l3_cache: bool,
    /// True if it allocates memory bandwidth.
    pub memory_bandwidth: bool,
}

/// Looks for resctrl; `None` if the host has none or has not mounted it. Called only if the configuration asks for it.
pub fn probe() -> Option<Resctrl> {
    let found = rustix::fs::statfs(MOUNT_POINT).ok()?;
    let info = |name: &str| Path::new(MOUNT_POINT).join("info").join(name).exists();
    (found.f_type == RDTGROUP_SUPER_MAGIC).then(|| Resctrl {
        root: MOUNT_POINT.into(),
        l3_cache: info("L3"),
        memory_bandwidth: info("MB"),
    })
}

/// The group of the container, and the share to set.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct IntelRdt {
    root: PathBuf,
    dir: PathBuf,
    owner: Owner,
    monitoring: Option<PathBuf>,
    /// The lines to write into `schemata`, in this order.
    schemata: Vec<String>,
    /// The lines that an existing group must already have.
    to_match: Vec<String>,
}

/// The owner of the group, which decides who makes and who removes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
enum Owner {
    /// The group has the name of the container. `create` makes it, `delete` removes it.
    Container,
    /// `closID` names the group. `create` makes it if it is missing; nobody removes it.
    Shared,
    /// `closID` names the group, and the configuration gives no share. The group must exist.
    Administrator,
}

/// The names that resctrl itself uses in every group.
const RESERVED: [&str; 5] = [".", "..", "info", "mon_groups", "mon_data"];

/// Decides the group. `resctrl` is the result of [`probe`].
///
/// # Errors
/// The host lacks resctrl or the feature, or `closID` or a line of the share is malformed.
pub fn plan(spec: &LinuxIntelRdt, id: &str, resctrl: Option<&Resctrl>) -> Result<IntelRdt> {
    let resctrl = resctrl.context("intelRdt is specified in config, but Intel RDT is not enabled")?;
    let text = |field: &Option<String>| field.clone().filter(|text| !text.is_empty());
    let (clos_id, l3, bandwidth) =
        (text(spec.clos_id()), text(spec.l3_cache_schema()), text(spec.mem_bw_schema()));
    ensure!(
        l3.is_none() || resctrl.l3_cache,
        "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled"
    );
    ensure!(
        bandwidth.is_none() || resctrl.memory_bandwidth,
        "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled"
    );
    let clos = clos_id.as_deref().unwrap_or(id);
    let strange = clos.contains('/') || clos.contains(['\0', '\n']) || RESERVED.contains(&clos);
    ensure!(clos == "/" && clos_id.is_some() || !strange, "invalid intelRdt.ClosID {clos:?}");
    ensure!(
        bandwidth.as_ref().is_none_or(|line| line.starts_with("MB:")),
        "linux.intelRdt.memBwSchema: does not start with \"MB:\""
    );
    let to_match: Vec<String> = [l3, bandwidth].into_iter().flatten().collect();
    let more = spec.schemata().iter().flatten().filter(|line| !line.is_empty()).cloned();
    let schemata: Vec<String> = to_match.iter().cloned().chain(more).collect();
    for line in &schemata {
        ensure!(!line.contains(['\n', '\0']), "linux.intelRdt: {line:?} is more than one line");
    }
    let dir = if clos == "/" { resctrl.root.clone() } else { resctrl.root.join(clos) };
    let owner = match (&clos_id, schemata.is_empty()) {
        (None, _) => Owner::Container,
        (Some(_), false) => Owner::Shared,
        (Some(_), true) => Owner::Administrator,
    };
    let monitoring = spec.enable_monitoring().unwrap_or(false).then(|| dir.join("mon_groups").join(id));
    Ok(IntelRdt { root: resctrl.root.clone(), dir, owner, monitoring, schemata, to_match })
}

/// A group that exists. `exec` joins it and `delete` removes it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Group {
    /// Its directory.
    pub dir: PathBuf,
    /// Its monitoring group for this container.
    pub monitoring: Option<PathBuf>,
    /// The directory that `delete` removes; always one that `create` made for this container.
    pub remove: Option<PathBuf>,
}

impl IntelRdt {
    /// The group's directory.
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Makes the group if it is missing. The parent calls this, and records the result before its next step.
    ///
    /// # Errors
    /// `ENOSPC`: the hardware has no class of service left. Without an errno: a group that must exist is missing, or
    /// has another share.
    pub fn create(&self) -> Result<Group> {
        let made = match self.owner {
            Owner::Administrator => {
                ensure!(
                    self.dir.is_dir(),
                    "linux.intelRdt.closID: clos dir {} must be pre-created when schemata, \
                     l3CacheSchema and memBwSchema are empty",
                    self.dir.display()
                );
                false
            }
            Owner::Container | Owner::Shared => self.make(&self.dir)?,
        };
        if !made {
            self.check_share()?;
        }
        let ours = made && self.owner == Owner::Container;
        let monitored = self.monitoring.iter().try_for_each(|dir| self.make(dir).map(drop));
        if monitored.is_err() && ours {
            // The group is not recorded yet, so `delete` would not find it.
            let _ = std::fs::remove_dir(&self.dir);
        }
        monitored?;
        // If the kernel removes a group, it also removes the group's monitoring groups.
        let remove = if ours { Some(self.dir.clone()) } else { self.monitoring.clone() };
        Ok(Group { dir: self.dir.clone(), monitoring: self.monitoring.clone(), remove })
    }

    /// Writes the share and puts `process` into the group. The parent calls this.
    ///
    /// # Errors
    /// The kernel refuses a line. The error contains `last_cmd_status`, the kernel's reason.
    pub fn apply_from_parent(&self, group: &Group, process: Pid) -> Result<()> {
        self.set(group)?;
        group.join(process).map_err(|error| self.with_status(error))
    }

    /// Writes the share alone, for `update`.
    ///
    /// # Errors
    /// The kernel refuses a line. The error contains `last_cmd_status`, the kernel's reason.
    pub fn set(&self, group: &Group) -> Result<()> {
        if self.schemata.is_empty() {
            return Ok(());
        }
        let lines: String = self.schemata.iter().map(|line| format!("{line}\n")).collect();
        write(&group.dir.join("schemata"), &lines).map_err(|error| self.with_status(error))
    }

    /// Makes a directory. Returns false if it already exists.
    fn make(&self, dir: &Path) -> Result<bool> {
        match std::fs::create_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(false),
            result => result
                .called("mkdir", || format!("{dir:?}"))
                .map(|()| true)
                .map_err(|error| self.with_status(error.into())),
        }
    }

    fn with_status(&self, error: anyhow::Error) -> anyhow::Error {
        match std::fs::read_to_string(self.root.join("info/last_cmd_status")) {
            Ok(status) => error.context(format!("linux.intelRdt (last_cmd_status: {})", status.trim())),
            Err(_) => error.context("linux.intelRdt"),
        }
    }

    /// Checks that an existing shared group has the share of the configuration. Otherwise the configuration means
    /// another group.
    fn check_share(&self) -> Result<()> {
        if self.to_match.is_empty() || self.owner != Owner::Shared {
            return Ok(());
        }
        let file = self.dir.join("schemata");
        let is = std::fs::read_to_string(&file).called("read", || format!("{file:?}"))?;
        let is: Vec<_> = is.lines().map(parse_line).collect();
        for line in &self.to_match {
            let (resource, wanted) = parse_line(line);
            let has = is.iter().any(|(name, shares)| {
                *name == resource && wanted.iter().all(|(cache, share)| shares.get(cache) == Some(share))
            });
            ensure!(
                has,
                "linux.intelRdt.closID: {} exists, and its schemata has not {line:?}",
                self.dir.display()
            );
        }
        Ok(())
    }
}

/// Splits `L3:0=0ff;1=c0` into the resource and its shares, without the kernel's leading zeros and spaces.
fn parse_line(line: &str) -> (&str, BTreeMap<&str, String>) {
    let (resource, shares) = line.split_once(':').unwrap_or((line, ""));
    let shares = shares.split(';').filter_map(|entry| {
        let (cache, share) = entry.split_once('=')?;
        Some((cache.trim(), share.trim().trim_start_matches('0').to_ascii_lowercase()))
    });
    (resource.trim(), shares.collect())
}

impl Group {
    /// Puts `process` into the group and its monitoring group.
    ///
    /// # Errors
    /// `ENOENT`: the group is gone. `ESRCH`: the process is gone.
    pub fn join(&self, process: Pid) -> Result<()> {
        let pid = process.as_raw_nonzero().to_string();
        write(&self.dir.join("tasks"), &pid)?;
        self.monitoring.iter().try_for_each(|dir| write(&dir.join("tasks"), &pid))
    }

    /// Removes the directory that was made for the container. A directory that is already gone is no error.
    pub fn remove(&self) -> Result<()> {
        let Some(dir) = &self.remove else { return Ok(()) };
        match std::fs::remove_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
            result => result.called("rmdir", || format!("{dir:?}")).context("linux.intelRdt"),
        }
    }
}

fn write(file: &Path, value: &str) -> Result<()> {
    std::fs::OpenOptions::new()
        .write(true)
        .open(file)
        .called("open", || format!("{file:?}"))?
        .write_all(value.as_bytes())
        .called("write", || format!("{file:?} {value:?}"))
        .map_err(Into::into)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resctrl(root: &Path) -> Resctrl {
        Resctrl { root: root.into(), l3_cache: true, memory_bandwidth: true }
    }

    fn planned(json: &str, root: &Path) -> Result<IntelRdt> {
        plan(&serde_json::from_str(json).unwrap(), "web", Some(&resctrl(root)))
    }

    // Makes the files that the kernel provides in a new directory of resctrl.
    fn group(dir: &Path, schemata: &str) {
        std::fs::create_dir_all(dir.join("mon_groups")).unwrap();
        std::fs::write(dir.join("tasks"), "").unwrap();
        std::fs::write(dir.join("schemata"), schemata).unwrap();
    }

    fn us() -> Pid {
        rustix::process::getpid()
    }

    #[test]
    fn what_the_host_lacks_is_refused() {
        let spec = |json| serde_json::from_str::<LinuxIntelRdt>(json).unwrap();
        let error = plan(&spec("{}"), "web", None).unwrap_err().to_string();
        assert_eq!(error, "intelRdt is specified in config, but Intel RDT is not enabled");
        let bare = Resctrl { root: "/r".into(), l3_cache: false, memory_bandwidth: false };
        for (json, text) in [
            (
                r#"{"l3CacheSchema":"L3:0=f"}"#,
                "intelRdt.l3CacheSchema is specified in config, but Intel RDT/CAT is not enabled",
            ),
            (
                r#"{"memBwSchema":"MB:0=20"}"#,
                "intelRdt.memBwSchema is specified in config, but Intel RDT/MBA is not enabled",
            ),
        ] {
            assert_eq!(plan(&spec(json), "web", Some(&bare)).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn bad_names_and_lines_are_refused() {
        for (json, text) in [
            (r#"{"closID":".."}"#, "invalid intelRdt.ClosID \"..\""),
            (r#"{"closID":"a/b"}"#, "invalid intelRdt.ClosID \"a/b\""),
            (r#"{"closID":"info"}"#, "invalid intelRdt.ClosID \"info\""),
            (r#"{"memBwSchema":"L3:0=f"}"#, "linux.intelRdt.memBwSchema: does not start with \"MB:\""),
            (
                r#"{"schemata":["L3:0=f\nMB:0=1"]}"#,
                "linux.intelRdt: \"L3:0=f\\nMB:0=1\" is more than one line",
            ),
        ] {
            assert_eq!(planned(json, Path::new("/r")).unwrap_err().to_string(), text);
        }
        assert_eq!(planned(r#"{"closID":"/"}"#, Path::new("/r")).unwrap().dir, Path::new("/r"));
    }

    #[test]
    fn the_lines_are_written_in_the_order_of_the_spec() {
        let json = r#"{"schemata":["L2:0=f"],"memBwSchema":"MB:0=20","l3CacheSchema":"L3:0=7f"}"#;
        assert_eq!(planned(json, Path::new("/r")).unwrap().schemata, ["L3:0=7f", "MB:0=20", "L2:0=f"]);
    }

    #[test]
    fn a_group_of_the_containers_own_is_made_and_removed() {
        let root = tempfile::tempdir().unwrap();
        let plan = planned("{}", root.path()).unwrap();
        let made = plan.create().unwrap();
        assert_eq!(made.remove.as_deref(), Some(root.path().join("web").as_path()));
        made.remove().unwrap();
        assert!(!root.path().join("web").exists());
        made.remove().unwrap();
    }

    #[test]
    fn a_group_that_was_there_is_joined_and_stays() {
        let root = tempfile::tempdir().unwrap();
        let dir = root.path().join("gold");
        group(&dir, "    L3:0=000ff;1=fffff\n    MB:0= 20;1=100\n");
        let json = r#"{"closID":"gold","l3CacheSchema":"L3:0=FF","memBwSchema":"MB:1=100;0=20","schemata":["L2:0=1"]}"#;
        let plan = planned(json, root.path()).unwrap();
        let joined = plan.create().unwrap();
        assert_eq!(joined.remove, None);
        plan.apply_from_parent(&joined, us()).unwrap();
        assert_eq!(std::fs::read_to_string(dir.join("tasks")).unwrap(), std::process::id().to_string());
        let schemata = std::fs::read_to_string(dir.join("schemata")).unwrap();
        assert!(schemata.starts_with("L3:0=FF\nMB:1=100;0=20\nL2:0=1\n"), "{schemata}");
    }

    #[test]
    fn a_shared_group_with_another_share_is_refused() {
        let root = tempfile::tempdir().unwrap();
        group(&root.path().join("gold"), "L3:0=ff\n");
        let error = planned(r#"{"closID":"gold","l3CacheSchema":"L3:0=f0"}"#, root.path()).unwrap().create();
        assert!(error.unwrap_err().to_string().ends_with("its schemata has not \"L3:0=f0\""));
    }

    #[test]
    fn a_group_without_a_share_must_be_there() {
        let root = tempfile::tempdir().unwrap();
        let error = planned(r#"{"closID":"gold"}"#, root.path()).unwrap().create().unwrap_err().to_string();
        assert!(error.contains("must be pre-created when schemata"), "{error}");
        assert!(!root.path().join("gold").exists());
    }

    #[test]
    fn a_monitoring_group_in_a_shared_group_is_what_is_removed() {
        let root = tempfile::tempdir().unwrap();
        group(&root.path().join("gold"), "");
        let plan = planned(r#"{"closID":"gold","enableMonitoring":true}"#, root.path()).unwrap();
        let made = plan.create().unwrap();
        let monitoring = root.path().join("gold/mon_groups/web");
        assert_eq!(made.remove.as_deref(), Some(monitoring.as_path()));
        std::fs::write(monitoring.join("tasks"), "").unwrap();
        made.join(us()).unwrap();
        assert_eq!(
            std::fs::read_to_string(monitoring.join("tasks")).unwrap(),
            std::process::id().to_string()
        );
        std::fs::remove_file(monitoring.join("tasks")).unwrap();
        made.remove().unwrap();
        assert!(!monitoring.exists() && root.path().join("gold").exists());
    }

    #[test]
    fn a_refusal_has_the_kernels_reason_and_leaves_nothing() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("info")).unwrap();
        std::fs::write(root.path().join("info/last_cmd_status"), "Out of RMIDs\n").unwrap();
        // A plain directory has no mon_groups, so the second mkdir fails.
        let plan = planned(r#"{"enableMonitoring":true}"#, root.path()).unwrap();
        let error = format!("{:#}", plan.create().unwrap_err());
        assert!(error.starts_with("linux.intelRdt (last_cmd_status: Out of RMIDs): mkdir "), "{error}");
        assert!(error.ends_with("no such file or directory"), "{error}");
        assert!(!root.path().join("web").exists());
    }
}
