//! All that `kill` and `delete` cannot do without: which process, which cgroup. In a small file of its own beside the
//! record, so that a container can be ended and removed when the record cannot be read.
//!
//! Not for: hooks, which stand in the record alone.

use super::{Phase, Process};
use crate::cgroup::Cgroup;
use crate::parts::intel_rdt::Group;
use serde::{Deserialize, Serialize};

/// What is known of a container's processes.
#[derive(Clone, Copy, Debug)]
pub struct Essentials<'a> {
    /// The container's id.
    pub id: &'a str,
    /// How far `create` has come.
    pub phase: Phase,
    /// The `create` or `run` that makes it.
    pub owner: Process,
    /// Init, if there is one.
    pub init: Process,
    /// The boot that process numbers and start times belong to.
    pub boot_id: &'a str,
    /// Whether init is the first process of a pid namespace made for it: its death is then the death of all in it.
    pub makes_pid_namespace: bool,
    /// The cgroups.
    pub cgroup: &'a Cgroup,
    /// The resctrl group that may be ours to remove.
    pub resctrl: Option<&'a Group>,
}

impl Essentials<'_> {
    /// Whether the container has no processes but those that end with init (pid_namespaces(7)): it has been made, and
    /// makes such a namespace.
    pub fn ends_with_init(&self) -> bool {
        self.phase == Phase::Created && self.makes_pid_namespace
    }

    /// As they are written.
    ///
    /// # Errors
    /// They cannot be written as JSON.
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

/// The essentials as they are read.
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
    /// What they say.
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
