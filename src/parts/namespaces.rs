//! `linux.namespaces`: which are made, which are joined, and the process shape that this needs.

use serde::Serialize;
use std::path::PathBuf;

/// A kind of namespace (namespaces(7)), in the order in which they are joined.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// Users and groups.
    User,
    /// System V IPC and POSIX message queues.
    Ipc,
    /// Host and domain name.
    Uts,
    /// Network devices, addresses, ports.
    Network,
    /// The cgroup root directory.
    Cgroup,
    /// Boot and monotonic clocks.
    Time,
    /// Process ids.
    Pid,
    /// Mount points.
    Mount,
}

/// What config.json asks for one kind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Request {
    /// A new namespace.
    New,
    /// The one at this path.
    Join(PathBuf),
}

/// The namespaces of the container; a kind that is absent is shared with the host.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Namespaces(pub std::collections::BTreeMap<Kind, Request>);

impl Namespaces {
    /// Whether the container has a namespace of this kind that is not the runtime's own.
    pub fn private(&self, kind: Kind) -> bool {
        self.0.contains_key(&kind)
    }

    /// Whether a namespace of this kind is made for the container.
    pub fn new(&self, kind: Kind) -> bool {
        self.0.get(&kind) == Some(&Request::New)
    }
}
