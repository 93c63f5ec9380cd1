//! The essentials: the part of a record that `kill` and `delete` need, mainly the process and the cgroup.
//!
//! A small file beside the record holds them, so that a container can be killed and removed even if its record cannot
//! be read. Not for: hooks, which only the record has.

use super::{Phase, Process};
use crate::cgroup::Cgroup;
use crate::parts::intel_rdt::Group;
use serde::{Deserialize, Serialize};

/// The processes of a container, and what was made for them.
#[derive(Clone, Copy, Debug)]
pub struct Essentials<'a> {
    /// The container's id.
    pub id: &'a str,
    /// How far `create` has come.
    pub phase: Phase,
    /// The `create` or `run` that makes it.
    pub owner: Process,
    /// Init; its number is 0 before there is one.
    pub init: Process,
    /// The boot that process numbers and start times belong to.
    pub boot_id: &'a str,
    /// Init is the first process of a new pid namespace. When it dies, the kernel kills all processes in there.
    pub makes_pid_namespace: bool,
    /// The cgroups.
    pub cgroup: &'a Cgroup,
    /// The resctrl group. `delete` removes it if the container made it.
    pub resctrl: Option<&'a Group>,
}

impl Essentials<'_> {
    /// Returns true if all processes of the container end with init (pid_namespaces(7)): the container is complete, and
    /// has a pid namespace of its own.
    pub fn ends_with_init(&self) -> bool {
        self.phase == Phase::Created && self.makes_pid_namespace
    }

    /// The text of the file.
    pub fn to_json(self) -> serde_json::Result<Vec<u8>> {
        let Self { id, phase, owner, init, boot_id, makes_pid_namespace, cgroup, resctrl } = self;
        let cgroup = cgroup.located();
        serde_json::to_vec(&Written { id, phase, owner, init, boot_id, makes_pid_namespace, cgroup, resctrl })
    }
}

#[derive(Serialize)]
struct Written<'a, C> {
    id: &'a str,
    phase: Phase,
    owner: Process,
    init: Process,
    boot_id: &'a str,
    makes_pid_namespace: bool,
    cgroup: C,
    #[serde(skip_serializing_if = "Option::is_none")]
    resctrl: Option<&'a Group>,
}

/// The essentials as read from their file.
#[derive(Debug, Deserialize)]
pub struct Kept {
    id: String,
    phase: Phase,
    owner: Process,
    init: Process,
    boot_id: String,
    makes_pid_namespace: bool,
    cgroup: Cgroup,
    #[serde(default)]
    resctrl: Option<Group>,
}

impl Kept {
    /// The essentials.
    pub fn get(&self) -> Essentials<'_> {
        Essentials {
            id: &self.id,
            phase: self.phase,
            owner: self.owner,
            init: self.init,
            boot_id: &self.boot_id,
            makes_pid_namespace: self.makes_pid_namespace,
            cgroup: &self.cgroup,
            resctrl: self.resctrl.as_ref(),
        }
    }
}
