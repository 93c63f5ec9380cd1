//! The state of a container as the specification defines it (runtime.md, "State"). Hooks and seccomp agents read it.
//!
//! Not for: the output of `state`, which has runc's additions (`commands/row.rs`).

use anyhow::Result;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use std::collections::BTreeMap;
use std::path::PathBuf;

/// The version of the runtime specification that we implement.
pub const VERSION: &str = "1.3.0";

/// The state of a container.
#[derive(Clone, Debug, Default)]
pub struct OciState {
    /// Its name.
    pub id: String,
    /// `creating`, `created`, `running` or `stopped`.
    pub status: &'static str,
    /// Init's process id in the pid namespace of the reader; 0 if there is no process.
    pub pid: i32,
    /// The absolute path of the bundle.
    pub bundle: PathBuf,
    /// `annotations`
    pub annotations: BTreeMap<String, String>,
}

impl OciState {
    /// The JSON text.
    pub fn json(&self) -> Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }
}

impl Serialize for OciState {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        let mut fields = to.serialize_struct("State", 6)?;
        fields.serialize_field("ociVersion", VERSION)?;
        fields.serialize_field("id", &self.id)?;
        fields.serialize_field("status", self.status)?;
        if self.pid != 0 {
            fields.serialize_field("pid", &self.pid)?;
        }
        fields.serialize_field("bundle", &self.bundle)?;
        if !self.annotations.is_empty() {
            fields.serialize_field("annotations", &self.annotations)?;
        }
        fields.end()
    }
}
