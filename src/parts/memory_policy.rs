//! `linux.memoryPolicy`: which NUMA nodes the process's memory comes from (set_mempolicy(2); config-linux.md).
//!
//! Not for: the memory nodes of the cgroup (`resources.cpu.mems`).

use super::bits::Bits;
use crate::sys::sched;
use anyhow::{Context, Result, bail};
use serde::{Deserialize, Serialize};
use std::ffi::c_int;

/// The memory policy of the process, with names as config.json writes them.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct MemoryPolicy {
    mode: &'static str,
    flags: Vec<&'static str>,
    nodes: Bits,
}

/// How many nodes a mode needs.
enum Nodes {
    None,
    Some,
    Any,
}

/// The modes of `linux.memoryPolicy`, at the index that is their number (linux/mempolicy.h). `features` prints them.
pub const MODES: [&str; 7] = [
    "MPOL_DEFAULT",
    "MPOL_PREFERRED",
    "MPOL_BIND",
    "MPOL_INTERLEAVE",
    "MPOL_LOCAL",
    "MPOL_PREFERRED_MANY",
    "MPOL_WEIGHTED_INTERLEAVE",
];

/// The flags of `linux.memoryPolicy`. `features` prints them.
pub const FLAGS: [(&str, c_int); 3] = [
    ("MPOL_F_STATIC_NODES", 1 << 15),
    ("MPOL_F_RELATIVE_NODES", 1 << 14),
    ("MPOL_F_NUMA_BALANCING", 1 << 13),
];

/// The greatest node number that a kernel can be built for (CONFIG_NODES_SHIFT).
const LAST_NODE: u32 = 1023;

/// `linux.memoryPolicy` as the configuration writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Said {
    /// One of [`MODES`].
    pub mode: String,
    /// A list such as `0-3,7`.
    pub nodes: Option<String>,
    /// Some of [`FLAGS`].
    pub flags: Option<Vec<String>>,
}

/// Decides the memory policy.
///
/// # Errors
/// The mode or a flag is unknown, or the mode needs nodes and has none, or must have none and has some.
pub fn plan(said: &Said) -> Result<MemoryPolicy> {
    let mode = said.mode.as_str();
    let known = MODES.into_iter().find(|known| *known == mode);
    let mode = known.with_context(|| format!("invalid memory policy mode {mode:?}"))?;
    let mut flags = Vec::new();
    for flag in said.flags.iter().flatten() {
        let known = FLAGS.iter().find(|row| row.0 == flag);
        flags.push(known.with_context(|| format!("invalid memory policy flag {flag:?}"))?.0);
    }
    let nodes = said.nodes.as_deref().unwrap_or_default();
    let nodes =
        Bits::parse(nodes, LAST_NODE).with_context(|| format!("invalid memory policy nodes {nodes:?}"))?;
    let wants = match mode {
        "MPOL_DEFAULT" | "MPOL_LOCAL" => Nodes::None,
        "MPOL_PREFERRED" => Nodes::Any,
        _ => Nodes::Some,
    };
    match (wants, nodes.count()) {
        (Nodes::None, 0) | (Nodes::Some, 1..) | (Nodes::Any, _) => {}
        (Nodes::None, count) => bail!("memory policy mode requires 0 nodes but got {count}"),
        (Nodes::Some, _) => bail!("memory policy mode requires at least one node but got 0"),
    }
    Ok(MemoryPolicy { mode, flags, nodes })
}

impl MemoryPolicy {
    /// Sets the policy of the calling thread. It survives fork(2) and execve(2).
    ///
    /// # Errors
    /// `EINVAL`: a node does not exist, or the kernel does not know the mode. `ENOSYS`: a kernel without NUMA.
    pub fn apply(&self) -> Result<()> {
        let mode = MODES.iter().position(|mode| *mode == self.mode).unwrap_or_default() as c_int;
        let flags: c_int = FLAGS.iter().filter(|row| self.flags.contains(&row.0)).map(|row| row.1).sum();
        sched::set_memory_policy(mode | flags, &self.nodes.0).context("linux.memoryPolicy")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::in_child;
    use anyhow::ensure;

    #[test]
    fn bad_memory_policies_are_refused() {
        for (mode, flag, nodes, text) in [
            ("", "", "0-7", "invalid memory policy mode \"\""),
            ("INTERLEAVE", "", "0", "invalid memory policy mode \"INTERLEAVE\""),
            ("MPOL_PREFERRED", "badflag", "0", "invalid memory policy flag \"badflag\""),
            ("MPOL_DEFAULT", "", "0-7", "memory policy mode requires 0 nodes but got 8"),
            ("MPOL_BIND", "", "", "memory policy mode requires at least one node but got 0"),
            (
                "MPOL_BIND",
                "",
                "0-9876543210",
                "invalid memory policy nodes \"0-9876543210\": values larger than 1023 are not supported",
            ),
        ] {
            let flags = [flag].iter().filter(|flag| !flag.is_empty()).map(ToString::to_string).collect();
            let said = Said { mode: mode.into(), nodes: Some(nodes.into()), flags: Some(flags) };
            assert_eq!(format!("{:#}", plan(&said).unwrap_err()), text);
        }
    }

    #[test]
    fn a_memory_policy_is_the_one_of_the_threads_mappings() {
        in_child(|| {
            let first = || -> Result<String> {
                let maps = std::fs::read_to_string("/proc/thread-self/numa_maps")?;
                Ok(maps.split_whitespace().nth(1).unwrap_or_default().to_owned())
            };
            let spec = r#"{"mode":"MPOL_BIND","nodes":"0","flags":["MPOL_F_STATIC_NODES"]}"#;
            match plan(&serde_json::from_str(spec)?)?.apply() {
                // A kernel without NUMA has no such call.
                Err(error) if crate::sys::errno_of(&error) == Some(libc::ENOSYS) => return Ok(()),
                result => result?,
            }
            ensure!(first()? == "bind=static:0", "{}", first()?);
            plan(&serde_json::from_str(r#"{"mode":"MPOL_DEFAULT"}"#)?)?.apply()?;
            ensure!(first()? == "default", "{}", first()?);
            Ok(())
        });
    }
}
