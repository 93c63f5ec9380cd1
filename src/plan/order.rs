//! In which order init makes the root: what it does while the parent makes the network namespace.
//!
//! To make a network namespace takes the kernel longer than all other kinds of namespaces together, and of all that init
//! does only some mounts need it. Not for: making anything (`init.rs`).

use crate::parts::devices::Devices;
use crate::parts::mounts::Mounts;
use serde::Serialize;
use std::path::Path;

/// When the devices and links of /dev are made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum DevicesAt {
    /// Before the network is joined: no later mount can cover one of them.
    BeforeNetwork,
    /// Before the network is joined, and looked at again when all mounts are there: a link of the image may lead a later
    /// mount onto one of them.
    Twice,
    /// When all mounts are there.
    AfterMounts,
}

/// The order.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Order {
    /// So many of the mounts are made before the network is joined.
    pub before_network: usize,
    /// When the devices are made.
    pub devices: DevicesAt,
    /// The bounding set is cut before the network is joined. Init keeps the capabilities that it has; a hook that it
    /// executed would not get them.
    pub bounding_early: bool,
}

/// What decides the order beside the mounts and devices.
#[derive(Clone, Copy, Debug)]
pub struct Course {
    /// The parent makes the network namespace, and init joins it.
    pub waits: bool,
    /// Init executes hooks before it changes its rights.
    pub has_hooks: bool,
}

/// Decides the order.
pub fn plan(mounts: &Mounts, devices: &Devices, course: Course) -> Order {
    if !course.waits {
        let all = mounts.list.len();
        return Order { before_network: all, devices: DevicesAt::AfterMounts, bounding_early: false };
    }
    let before_network = mounts.before_network();
    let rest = mounts.list.get(before_network..).unwrap_or_default();
    let devices = if !mounts.has_new_dev(before_network)
        || !devices.can_precede(rest.iter().map(|mount| mount.destination.as_path()))
    {
        DevicesAt::AfterMounts
    } else if rest.is_empty() || mounts.is_below_sysfs(before_network) {
        DevicesAt::BeforeNetwork
    } else {
        DevicesAt::Twice
    };
    Order { before_network, devices, bounding_early: !course.has_hooks }
}

impl Mounts {
    /// How many mounts stand before the first one that may depend on the network namespace.
    fn before_network(&self) -> usize {
        self.list.iter().position(|mount| mount.needs_network()).unwrap_or(self.list.len())
    }

    /// Whether /dev is a new tmpfs when the first `count` mounts are made.
    fn has_new_dev(&self, count: usize) -> bool {
        let dev = Path::new("/dev");
        let mut made = self.list.iter().take(count).rev();
        made.find(|mount| dev.starts_with(&mount.destination))
            .is_some_and(|mount| mount.destination == dev && mount.is_new_tmpfs())
    }

    /// Whether the mounts from place `first` on are a sysfs on /sys and mounts in it: no link of the image can lead them
    /// elsewhere.
    fn is_below_sysfs(&self, first: usize) -> bool {
        let sys = Path::new("/sys");
        let rest = self.list.get(first..).unwrap_or_default();
        rest.first().is_some_and(|mount| mount.destination == sys && mount.wants_ordinary_directory())
            && rest.iter().all(|mount| mount.destination.starts_with(sys))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::{devices, mounts};

    fn order(list: &str, waits: bool, has_hooks: bool) -> Order {
        let list: Vec<oci_spec::runtime::Mount> = serde_json::from_str(list).unwrap();
        let mounts = mounts::plan(&list, &mounts::tests::facts()).unwrap();
        plan(&mounts, &devices::plan(&[], false, false).unwrap(), Course { waits, has_hooks })
    }

    const PROC: &str = r#"{"destination": "/proc", "type": "proc", "source": "proc"}"#;
    const DEV: &str = r#"{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}"#;
    const SYS: &str = r#"{"destination": "/sys", "type": "sysfs", "source": "sysfs"}"#;
    const DATA: &str = r#"{"destination": "/data", "type": "tmpfs", "source": "tmpfs"}"#;

    #[test]
    fn what_needs_no_network_comes_first() {
        let usual = order(&format!("[{PROC}, {DEV}, {SYS}]"), true, false);
        let wanted = Order { before_network: 2, devices: DevicesAt::BeforeNetwork, bounding_early: true };
        assert_eq!(usual, wanted);
        assert!(!order(&format!("[{PROC}]"), true, true).bounding_early);
    }

    #[test]
    fn devices_that_a_later_mount_may_cover_are_looked_at_again() {
        assert_eq!(order(&format!("[{DEV}, {SYS}, {DATA}]"), true, false).devices, DevicesAt::Twice);
        assert_eq!(order(&format!("[{SYS}, {DEV}]"), true, false).devices, DevicesAt::AfterMounts);
        assert_eq!(order(&format!("[{PROC}, {SYS}]"), true, false).devices, DevicesAt::AfterMounts);
    }

    #[test]
    fn without_a_wait_there_is_one_pass() {
        let once = order(&format!("[{PROC}, {DEV}, {SYS}]"), false, false);
        let wanted = Order { before_network: 3, devices: DevicesAt::AfterMounts, bounding_early: false };
        assert_eq!(once, wanted);
    }
}
