//! `linux.uidMappings` and `linux.gidMappings`: which host ids the container's ids are (user_namespaces(7)).

use super::namespaces::{Kind, Namespaces};
use crate::host::Host;
use crate::sys::{Called, proc::Proc, spawn};
use anyhow::{Context, Result, bail, ensure};
use oci_spec::runtime::LinuxIdMapping;
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::process::Command;
use std::time::Duration;

/// How long newuidmap may take: it asks for users, which may be a question to a server.
const HELPER_PATIENCE: Duration = Duration::from_secs(60);

/// One row of an id map: `size` ids from `container` on are the host's ids from `host` on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Range {
    /// First id inside the user namespace.
    pub container: u32,
    /// First id outside.
    pub host: u32,
    /// How many ids; never 0.
    pub size: u32,
}

/// A whole id map, as it goes into /proc/PID/uid_map.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Map(pub Vec<Range>);

/// The maps of a new user namespace, and who may write them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Maps {
    /// User ids.
    pub uid: Map,
    /// Group ids.
    pub gid: Map,
    /// How they are written.
    pub writer: Writer,
}

/// Who has the right to write the maps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Writer {
    /// We, with CAP_SETUID and CAP_SETGID over the parent namespace.
    Ourselves,
    /// We, a single id that is our own; the kernel wants setgroups(2) denied first.
    OurselvesWithoutSetgroups,
    /// newuidmap(1) and newgidmap(1), by the ranges of /etc/subuid and /etc/subgid.
    Helpers,
}

/// Reads the id maps.
///
/// # Errors
/// Maps without a user namespace and the reverse, empty or overlapping or overflowing ranges.
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
        // The namespace has its maps. Those given describe it (idmapped mounts and file ownership need them).
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

/// The kernel's own limit (UID_GID_MAP_MAX_EXTENTS, since Linux 4.15).
const MOST: usize = 340;

impl Map {
    /// Reads one map of config.json, which stands at `pointer`.
    ///
    /// # Errors
    /// Too many ranges, an empty one, one past 4294967294, or two that overlap: the kernel would refuse them with EINVAL.
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

    /// The host id of `container`'s id, or `None` where it is not mapped.
    pub fn host_id(&self, container: u32) -> Option<u32> {
        self.0.iter().find_map(|range| {
            let offset = container.checked_sub(range.container)?;
            (offset < range.size).then(|| range.host.checked_add(offset))?
        })
    }

    /// The text that the kernel reads: one `container host size` line a row.
    pub fn as_proc_text(&self) -> String {
        self.0.iter().map(|r| format!("{} {} {}\n", r.container, r.host, r.size)).collect()
    }

    fn write_by_helper(&self, program: &str, ranges: &str, pointer: &str, pid: i32) -> Result<()> {
        let rows = self.0.iter().flat_map(|r| [r.container, r.host, r.size].map(|number| number.to_string()));
        let mut command = Command::new(program);
        let output = match spawn::output(command.arg(pid.to_string()).args(rows), HELPER_PATIENCE) {
            // Not in the words of the errno, which engines take for a fault of the container's program.
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
    /// Writes the maps of process `pid`; run by the parent while init waits.
    ///
    /// # Errors
    /// The kernel or the helper refuses: no right to these host ids.
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
