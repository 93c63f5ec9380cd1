//! `linux.uidMappings` and `linux.gidMappings`: the host ids behind the container's ids (user_namespaces(7);
//! config-linux.md, "User namespace mappings").
//!
//! Not for: the id maps of a mount (`mounts`), which use the types of this file.

use super::namespaces::{Kind, Namespaces};
use crate::host::Host;
use crate::sys::{Called, proc::Proc, spawn};
use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::LinuxIdMapping;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::Duration;

/// How long newuidmap may take. It looks up the user, and the answer may come from a server.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// One row of an id map: the `size` ids that begin at `container` stand for the host ids that begin at `host`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First id inside the user namespace.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many ids; never 0.
    pub size: u32,
}

/// A whole id map, as the kernel reads it from /proc/PID/uid_map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map(pub Vec<Range>);

/// The id maps of the container's user namespace.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maps {
    /// User ids.
    pub uid: Map,
    /// Group ids.
    pub gid: Map,
    /// The program that writes them.
    pub writer: Writer,
}

/// The program that writes the maps. It depends on the rights of the runtime's caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Writer {
    /// The parent, with CAP_SETUID and CAP_SETGID in its user namespace.
    Ourselves,
    /// The parent, which may map its own id alone. The kernel wants setgroups(2) denied first.
    OurselvesWithoutSetgroups,
    /// newuidmap(1) and newgidmap(1), within the ranges of /etc/subuid and /etc/subgid.
    Helpers,
}

/// Decides the id maps; `None` if the container has no user namespace of its own, or joins one and gives no maps.
///
/// # Errors
/// Maps are given without a user namespace, or a new user namespace without maps; or [`Map::plan`] refuses a map.
pub fn plan(
    uid: Option<&Vec<LinuxIdMapping>>,
    gid: Option<&Vec<LinuxIdMapping>>,
    namespaces: &Namespaces,
    host: &Host,
) -> Result<Option<Maps>> {
    let uid = Map::plan(uid, "linux.uidMappings")?;
    let gid = Map::plan(gid, "linux.gidMappings")?;
    let given = !uid.0.is_empty() || !gid.0.is_empty();
    if !namespaces.private(Kind::User) {
        ensure!(
            !given,
            "linux.uidMappings: user namespace mappings specified, but user namespace isn't enabled in the config"
        );
        return Ok(None);
    }
    if namespaces.joined(Kind::User) {
        // The joined namespace has its maps. The given maps describe them: idmapped mounts and file owners need them.
        return Ok(given.then_some(Maps { uid, gid, writer: Writer::Ourselves }));
    }
    ensure!(
        given,
        "linux.uidMappings: user namespaces enabled, but no namespace path to join nor mappings to apply specified"
    );
    ensure!(!uid.0.is_empty(), "linux.uidMappings: empty, but linux.gidMappings is given");
    ensure!(!gid.0.is_empty(), "linux.gidMappings: empty, but linux.uidMappings is given");
    let own = |map: &Map, id: u32| matches!(map.0.as_slice(), [range] if range.host == id && range.size == 1);
    let writer = if host.euid == 0 {
        Writer::Ourselves
    } else if own(&uid, host.euid) && own(&gid, host.egid) {
        Writer::OurselvesWithoutSetgroups
    } else {
        Writer::Helpers
    };
    Ok(Some(Maps { uid, gid, writer }))
}

/// The largest number of ranges that the kernel takes (UID_GID_MAP_MAX_EXTENTS).
const MOST: usize = 340;

impl Map {
    /// Decides one map. `pointer` is its place in config.json.
    ///
    /// # Errors
    /// There are too many ranges, a range is empty or goes past 4294967294, or two overlap. The kernel would refuse such
    /// a map with EINVAL.
    pub fn plan(rows: Option<&Vec<LinuxIdMapping>>, pointer: &str) -> Result<Self> {
        let mut map = Vec::new();
        let count = rows.map_or(0, Vec::len);
        ensure!(count <= MOST, "{pointer}: {count} ranges, and the kernel takes {MOST}");
        for (index, row) in rows.into_iter().flatten().enumerate() {
            let range = Range { container: row.container_id(), host: row.host_id(), size: row.size() };
            ensure!(range.size > 0, "{pointer}[{index}].size: 0");
            for (name, first) in [("containerID", range.container), ("hostID", range.host)] {
                ensure!(
                    first.checked_add(range.size).is_some(),
                    "{pointer}[{index}].{name}: {first} plus size {} is past 4294967295, which is no id",
                    range.size
                );
            }
            let meets = |a: u32, b: u32, a_size: u32, b_size: u32| a < b + b_size && b < a + a_size;
            if let Some(other) = map.iter().position(|other: &Range| {
                meets(range.container, other.container, range.size, other.size)
                    || meets(range.host, other.host, range.size, other.size)
            }) {
                bail!("{pointer}[{other},{index}]: the ranges overlap");
            }
            map.push(range);
        }
        Ok(Self(map))
    }

    /// The host id behind the id `container`; `None` if it is not mapped.
    pub fn host_id(&self, container: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = container.checked_sub(range.container)?;
            (offset < range.size).then(|| range.host.checked_add(offset))?
        })
    }

    /// The text that the kernel reads: a line `container host size` for each row.
    pub fn as_proc_text(&self) -> String {
        self.0.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
    }

    fn write_by_helper(&self, program: &str, ranges: &str, pointer: &str, pid: i32) -> Result<()> {
        let rows = self.0.iter().flat_map(|r| [r.container, r.host, r.size].map(|number| number.to_string()));
        let mut command = Command::new(program);
        let output = match spawn::output(command.arg(pid.to_string()).args(rows), HELPER_PATIENCE) {
            // Without the text of ENOENT: engines would take it for a missing program of the container.
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                bail!("{pointer}: more ids than our own are asked for, and {program} is not installed")
            }
            other => other.called("execve", || program.into()).with_context(|| pointer.to_owned())?,
        };
        let text = String::from_utf8_lossy(&output.stderr);
        ensure!(output.status.success(), "{pointer}: {} (see {ranges})", text.trim().replace('\n', "; "));
        Ok(())
    }
}

impl Maps {
    /// Writes the maps of the process `pid`. The parent does so while the hop or init waits.
    ///
    /// # Errors
    /// We have no right to these host ids: `EPERM` from the kernel, or the text of the helper program.
    pub fn write(&self, proc: &Proc, pid: i32) -> Result<()> {
        match self.writer {
            Writer::Helpers => {
                self.uid.write_by_helper("newuidmap", "/etc/subuid", "linux.uidMappings", pid)?;
                return self.gid.write_by_helper("newgidmap", "/etc/subgid", "linux.gidMappings", pid);
            }
            // user_namespaces(7): without CAP_SETGID in the parent namespace, gid_map wants this first.
            Writer::OurselvesWithoutSetgroups => {
                proc.deny_setgroups(of(pid)?).context("linux.gidMappings")?;
            }
            Writer::Ourselves => {}
        }
        proc.write_uid_map(of(pid)?, &self.uid.as_proc_text()).context("linux.uidMappings")?;
        proc.write_gid_map(of(pid)?, &self.gid.as_proc_text()).context("linux.gidMappings")
    }
}

fn of(pid: i32) -> Result<Pid> {
    Pid::from_raw(pid).context("process id 0")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(rows: &str) -> Result<Map> {
        Map::plan(Some(&serde_json::from_str(rows).unwrap()), "linux.uidMappings")
    }

    #[test]
    fn ranges_that_the_kernel_would_refuse_are_refused_by_place() {
        let text = |rows| map(rows).unwrap_err().to_string();
        assert_eq!(text(r#"[{"containerID":0,"hostID":0,"size":0}]"#), "linux.uidMappings[0].size: 0");
        assert!(
            text(r#"[{"containerID":0,"hostID":4294967295,"size":1}]"#).contains("[0].hostID: 4294967295")
        );
        assert_eq!(
            text(r#"[{"containerID":0,"hostID":5,"size":10},{"containerID":20,"hostID":14,"size":1}]"#),
            "linux.uidMappings[0,1]: the ranges overlap"
        );
    }

    #[test]
    fn more_ranges_than_the_kernel_takes_are_refused_before_they_are_compared() {
        let row = |at: usize| format!(r#"{{"containerID":{at},"hostID":{at},"size":1}}"#);
        let rows = |count| format!("[{}]", (0..count).map(row).collect::<Vec<_>>().join(","));
        assert_eq!(map(&rows(340)).unwrap().0.len(), 340);
        let error = map(&rows(341)).unwrap_err().to_string();
        assert_eq!(error, "linux.uidMappings: 341 ranges, and the kernel takes 340");
    }

    #[test]
    fn an_id_is_found_in_its_range_or_not_at_all() {
        let map =
            map(r#"[{"containerID":0,"hostID":1000,"size":1},{"containerID":1,"hostID":100000,"size":10}]"#)
                .unwrap();
        assert_eq!(map.host_id(0), Some(1000));
        assert_eq!(map.host_id(10), Some(100009));
        assert_eq!(map.host_id(11), None);
        assert_eq!(map.as_proc_text(), "0 1000 1\n1 100000 10\n");
    }
}
