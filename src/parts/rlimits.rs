//! `process.rlimits`: the resource limits of the process (getrlimit(2); config.md, "POSIX process").
//!
//! The process sets its limits itself. If the kernel answers EPERM, it asks the parent, which sets them by prlimit(2):
//! raising a hard limit takes CAP_SYS_RESOURCE in the initial user namespace.

use crate::sys::Called;
use anyhow::{Context, Result, ensure};
use oci_spec::runtime::{PosixRlimit, PosixRlimitType as Type};
use rustix::process::{Pid, Resource, Rlimit};
use serde::Serialize;

/// One limit, with both values in the unit of the resource. `u64::MAX` means unlimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Limit {
    #[serde(serialize_with = "as_name")]
    resource: Resource,
    soft: u64,
    hard: u64,
}

fn as_name<S: serde::Serializer>(resource: &Resource, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(name_of(*resource))
}

/// All limits that config.json names, in the order of config.json.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Rlimits(Vec<Limit>);

const TABLE: [(Type, Resource, &str); 16] = [
    (Type::RlimitAs, Resource::As, "RLIMIT_AS"),
    (Type::RlimitCore, Resource::Core, "RLIMIT_CORE"),
    (Type::RlimitCpu, Resource::Cpu, "RLIMIT_CPU"),
    (Type::RlimitData, Resource::Data, "RLIMIT_DATA"),
    (Type::RlimitFsize, Resource::Fsize, "RLIMIT_FSIZE"),
    (Type::RlimitLocks, Resource::Locks, "RLIMIT_LOCKS"),
    (Type::RlimitMemlock, Resource::Memlock, "RLIMIT_MEMLOCK"),
    (Type::RlimitMsgqueue, Resource::Msgqueue, "RLIMIT_MSGQUEUE"),
    (Type::RlimitNice, Resource::Nice, "RLIMIT_NICE"),
    (Type::RlimitNofile, Resource::Nofile, "RLIMIT_NOFILE"),
    (Type::RlimitNproc, Resource::Nproc, "RLIMIT_NPROC"),
    (Type::RlimitRss, Resource::Rss, "RLIMIT_RSS"),
    (Type::RlimitRtprio, Resource::Rtprio, "RLIMIT_RTPRIO"),
    (Type::RlimitRttime, Resource::Rttime, "RLIMIT_RTTIME"),
    (Type::RlimitSigpending, Resource::Sigpending, "RLIMIT_SIGPENDING"),
    (Type::RlimitStack, Resource::Stack, "RLIMIT_STACK"),
];

fn name_of(resource: Resource) -> &'static str {
    TABLE.iter().find(|row| row.1 == resource).map_or("RLIMIT", |row| row.2)
}

/// Decides the limits from `process.rlimits`.
///
/// # Errors
/// A type is given twice, or a soft limit is above its hard limit.
pub fn plan(spec: &[PosixRlimit]) -> Result<Rlimits> {
    let mut limits: Vec<Limit> = Vec::with_capacity(spec.len());
    for (index, rlimit) in spec.iter().enumerate() {
        let place = || format!("process.rlimits[{index}] {}", rlimit.typ());
        let row = TABLE.iter().find(|row| row.0 == rlimit.typ());
        let resource = row.map(|row| row.1).context("not known").with_context(place)?;
        let (soft, hard) = (rlimit.soft(), rlimit.hard());
        let twice = limits.iter().any(|limit| limit.resource == resource);
        ensure!(!twice, "{}: given twice", place());
        ensure!(soft <= hard, "{}: soft limit {soft} is above hard limit {hard}", place());
        limits.push(Limit { resource, soft, hard });
    }
    Ok(Rlimits(limits))
}

impl Rlimits {
    /// Returns true if config.json names no limit.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The limits for which `wanted` is true of the resource.
    pub fn part(&self, wanted: impl Fn(Resource) -> bool) -> Self {
        Self(self.0.iter().filter(|limit| wanted(limit.resource)).copied().collect())
    }

    /// Raises our own hard limits where the planned ones are higher, and nothing else: while the right to is ours. Afterwards
    /// [`Rlimits::apply`] only lowers them. Where the right is missing, `apply` says so.
    pub fn make_room(&self) {
        for limit in &self.0 {
            let now = rustix::process::getrlimit(limit.resource);
            let planned = (limit.hard != u64::MAX).then_some(limit.hard);
            if now.maximum.is_some_and(|now| planned.is_none_or(|planned| planned > now)) {
                let value = Rlimit { current: now.current, maximum: planned };
                let _ = rustix::process::setrlimit(limit.resource, value);
            }
        }
    }

    /// The limit of processes, if there is one: soft and hard.
    pub fn processes(&self) -> Option<(u64, u64)> {
        let found = self.0.iter().find(|limit| limit.resource == Resource::Nproc)?;
        Some((found.soft, found.hard))
    }

    /// Sets the limits of `process`, or of the caller if it is `None`. Called when the process opens no more files:
    /// a low RLIMIT_NOFILE must not hit our own code.
    ///
    /// # Errors
    /// `EPERM`: a hard limit would rise and we lack CAP_SYS_RESOURCE, or RLIMIT_NOFILE is above fs.nr_open.
    pub fn apply(&self, process: Option<Pid>) -> Result<()> {
        for limit in &self.0 {
            let finite = |value: u64| (value != u64::MAX).then_some(value);
            let value = Rlimit { current: finite(limit.soft), maximum: finite(limit.hard) };
            let name = name_of(limit.resource);
            rustix::process::prlimit(process, limit.resource, value)
                .called("prlimit", || format!("{name} soft {} hard {}", limit.soft, limit.hard))
                .context("process.rlimits")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::in_child;

    fn planned(json: &str) -> Result<Rlimits> {
        plan(&serde_json::from_str::<Vec<PosixRlimit>>(json).unwrap())
    }

    #[test]
    fn every_type_of_the_spec_is_in_the_table() {
        for (_, resource, name) in TABLE {
            let json = format!(r#"[{{"type":"{name}","soft":1,"hard":2}}]"#);
            assert_eq!(planned(&json).unwrap().0, [Limit { resource, soft: 1, hard: 2 }], "{name}");
        }
    }

    #[test]
    fn bad_limits_are_refused_with_their_place() {
        for (json, text) in [
            (
                r#"[{"type":"RLIMIT_CPU","soft":1,"hard":1},{"type":"RLIMIT_CPU","soft":2,"hard":2}]"#,
                "process.rlimits[1] RLIMIT_CPU: given twice",
            ),
            (
                r#"[{"type":"RLIMIT_NOFILE","soft":9,"hard":8}]"#,
                "process.rlimits[0] RLIMIT_NOFILE: soft limit 9 is above hard limit 8",
            ),
        ] {
            assert_eq!(planned(json).unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn limits_are_set_on_oneself_and_on_a_child() {
        in_child(|| {
            let one =
                r#"[{"type":"RLIMIT_CORE","soft":0,"hard":0},{"type":"RLIMIT_NOFILE","soft":64,"hard":128}]"#;
            planned(one)?.apply(None)?;
            let nofile = rustix::process::getrlimit(Resource::Nofile);
            ensure!(nofile == Rlimit { current: Some(64), maximum: Some(128) }, "{nofile:?}");
            let mut child = std::process::Command::new("/bin/sleep").arg("60").spawn()?;
            let pid = Pid::from_child(&child);
            let applied = planned(r#"[{"type":"RLIMIT_NOFILE","soft":32,"hard":33}]"#)?.apply(Some(pid));
            let limits = std::fs::read_to_string(format!("/proc/{}/limits", child.id()))?;
            child.kill()?;
            child.wait()?;
            applied?;
            let line = limits.lines().find(|line| line.starts_with("Max open files")).unwrap_or_default();
            ensure!(line.split_whitespace().skip(3).take(2).eq(["32", "33"]), "{line}");
            Ok(())
        });
    }

    #[test]
    fn the_greatest_value_is_no_limit() {
        in_child(|| {
            planned(r#"[{"type":"RLIMIT_CORE","soft":18446744073709551615,"hard":18446744073709551615}]"#)?
                .apply(None)
                .or_else(|error| match crate::sys::errno_of(&error) {
                    Some(libc::EPERM) => Ok(()), // not root, and the hard limit is lower
                    _ => Err(error),
                })
        });
    }
}
