//! `linux.personality`: the execution domain (personality(2)), which decides the machine that uname(2) reports
//! (config-linux.md, "Personality").

use crate::sys::prctl;
use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{LinuxPersonality, LinuxPersonalityDomain};
use serde::Serialize;

/// The execution domains of the spec.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Personality {
    /// uname(2) reports the real machine.
    Linux,
    /// uname(2) reports a 32-bit machine.
    Linux32,
}

/// Decides the domain.
///
/// # Errors
/// A flag is given.
pub fn plan(spec: &LinuxPersonality) -> Result<Personality> {
    let flags = spec.flags().iter().flatten().count();
    ensure!(flags == 0, "linux.personality.flags: not supported (no flag is defined by the spec)");
    Ok(match spec.domain() {
        LinuxPersonalityDomain::PerLinux => Personality::Linux,
        LinuxPersonalityDomain::PerLinux32 => Personality::Linux32,
    })
}

impl Personality {
    /// Sets the domain. Init calls this before it loads the seccomp filter, which may forbid personality(2).
    pub fn apply(self) -> Result<()> {
        prctl::set_personality(match self {
            Self::Linux => 0,   // PER_LINUX
            Self::Linux32 => 8, // PER_LINUX32
        })
        .map(drop)
        .context("linux.personality")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::in_child;

    fn planned(json: &str) -> Result<Personality> {
        plan(&serde_json::from_str(json).unwrap())
    }

    #[test]
    fn a_flag_is_refused() {
        let error = planned(r#"{"domain":"LINUX","flags":["ADDR_NO_RANDOMIZE"]}"#).unwrap_err();
        let text = "linux.personality.flags: not supported (no flag is defined by the spec)";
        assert_eq!(error.to_string(), text);
        assert_eq!(planned(r#"{"domain":"LINUX","flags":[]}"#).unwrap(), Personality::Linux);
    }

    #[test]
    fn linux32_is_a_32_bit_machine() {
        in_child(|| {
            let machine = || rustix::system::uname().machine().to_string_lossy().into_owned();
            let before = machine();
            planned(r#"{"domain":"LINUX32"}"#)?.apply()?;
            if before == "x86_64" {
                ensure!(machine() == "i686", "{}", machine());
            }
            planned(r#"{"domain":"LINUX"}"#)?.apply()?;
            ensure!(machine() == before, "{}", machine());
            Ok(())
        });
    }
}
