//! A container as `state` and `list` show it (runtime.md, "State", with runc's additions).
//!
//! Not for: where rows come from and how they are printed; the verbs do that.

use crate::oci_state;
use crate::state::{Container, Status};
use anyhow::Result;
use serde::Serialize;
use std::collections::BTreeMap;

/// A container as `state` and `list` show it.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The version of the specification that orlop implements.
    #[serde(rename = "ociVersion")]
    pub version: String,
    /// Name of the container.
    pub id: String,
    /// The process id of init; 0 if it has ended.
    pub pid: i32,
    /// `creating`, `created`, `running`, `paused` or `stopped`; `unknown` if the record cannot be read.
    pub status: String,
    /// Directory of the bundle.
    pub bundle: String,
    /// Directory of the root filesystem.
    pub rootfs: String,
    /// When it was created, RFC 3339 with nanoseconds.
    pub created: String,
    /// `annotations` of config.json.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The owner of the state directory: a user name, or `#uid` if the user has no name.
    pub owner: String,
}

impl Row {
    /// The row of `container`, without its owner: only `list` shows one. `state` has always shown an empty string.
    ///
    /// # Errors
    /// The status cannot be found out.
    pub fn of(container: &Container) -> Result<Self> {
        let record = &container.record;
        let status = container.status()?;
        Ok(Self {
            version: oci_state::VERSION.into(),
            id: record.id.clone(),
            pid: if status == Status::Stopped { 0 } else { record.init_process_pid },
            status: status.to_string(),
            bundle: record.orlop.bundle.display().to_string(),
            rootfs: record.config.rootfs.display().to_string(),
            created: record.created.clone(),
            annotations: record.orlop.annotations.clone(),
            owner: String::new(),
        })
    }

    /// The row of a container whose record cannot be read: it says that the id is in use.
    pub fn unreadable(id: String) -> Self {
        Self {
            version: oci_state::VERSION.into(),
            id,
            pid: 0,
            status: "unknown".into(),
            bundle: String::new(),
            rootfs: String::new(),
            // Programs parse this as a time: this one is the zero value of Go's time type.
            created: "0001-01-01T00:00:00Z".into(),
            annotations: BTreeMap::new(),
            owner: String::new(),
        }
    }
}
