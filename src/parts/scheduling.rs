//! `process.scheduler`, `process.ioPriority` and `process.execCPUAffinity`: when and on which CPUs the process runs
//! (config.md, "Linux Process").
//!
//! Not for: the CPU limits of the cgroup (`resources.cpu`) and memory (`memory_policy`).

use super::bits::Bits;
use crate::sys::sched;
use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use serde::{Deserialize, Serialize};
use std::ffi::c_ulong;

/// The scheduling policy of the process (sched_setattr(2)).
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Scheduler {
    policy: &'static str,
    flags: Vec<&'static str>,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    /// True if the cgroup is limited to some CPUs. The kernel then refuses SCHED_DEADLINE.
    allowed_cpus: bool,
}

const POLICIES: [(&str, u32); 7] = [
    ("SCHED_OTHER", 0),
    ("SCHED_FIFO", 1),
    ("SCHED_RR", 2),
    ("SCHED_BATCH", 3),
    ("SCHED_ISO", 4),
    ("SCHED_IDLE", 5),
    ("SCHED_DEADLINE", 6),
];

const FLAGS: [(&str, u64); 7] = [
    ("SCHED_FLAG_RESET_ON_FORK", 0x01),
    ("SCHED_FLAG_RECLAIM", 0x02),
    ("SCHED_FLAG_DL_OVERRUN", 0x04),
    ("SCHED_FLAG_KEEP_POLICY", 0x08),
    ("SCHED_FLAG_KEEP_PARAMS", 0x10),
    ("SCHED_FLAG_UTIL_CLAMP_MIN", 0x20),
    ("SCHED_FLAG_UTIL_CLAMP_MAX", 0x40),
];

// The name that a type of oci-spec has for a flag, and the name in the specification.
const FLAG_ALIAS: (&str, &str) = ("SCHED_RESET_ON_FORK", "SCHED_FLAG_RESET_ON_FORK");

fn row<T: Copy>(table: &[(&'static str, T)], name: &str) -> Option<(&'static str, T)> {
    table.iter().find(|row| row.0 == name).copied()
}

/// `process.scheduler` as the configuration writes it. The type of `oci_spec` has no name for two of the flags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SaidScheduler {
    /// A policy such as SCHED_OTHER.
    pub policy: String,
    /// The nice value, for SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// The static priority, for SCHED_FIFO and SCHED_RR.
    pub priority: i32,
    /// Flags such as SCHED_FLAG_RESET_ON_FORK.
    pub flags: Option<Vec<String>>,
    /// The runtime for SCHED_DEADLINE, in nanoseconds.
    pub runtime: u64,
    /// The deadline for SCHED_DEADLINE, in nanoseconds.
    pub deadline: u64,
    /// The period for SCHED_DEADLINE, in nanoseconds; 0 means as long as the deadline.
    pub period: u64,
}

/// Decides the scheduling policy. `allowed_cpus` is true if `resources.cpu.cpus` is set.
///
/// # Errors
/// The policy or a flag is unknown, or a value is out of range or not used by the policy.
pub fn plan_scheduler(said: &SaidScheduler, allowed_cpus: bool) -> Result<Scheduler> {
    ensure!(!said.policy.is_empty(), "scheduler policy is required");
    let (policy, _) =
        row(&POLICIES, &said.policy).with_context(|| format!("invalid scheduler policy: {}", said.policy))?;
    let mut flags = Vec::new();
    for name in said.flags.iter().flatten() {
        let name = if name == FLAG_ALIAS.0 { FLAG_ALIAS.1 } else { name };
        flags.push(row(&FLAGS, name).with_context(|| format!("invalid scheduler flag: {name}"))?.0);
    }
    let SaidScheduler { nice, priority, runtime, deadline, period, .. } = *said;
    ensure!(
        !matches!(policy, "SCHED_OTHER" | "SCHED_BATCH") || (-20..=19).contains(&nice),
        "invalid scheduler.nice: {nice} when scheduler.policy is {policy}"
    );
    ensure!(
        priority == 0 || matches!(policy, "SCHED_FIFO" | "SCHED_RR"),
        "scheduler.priority can only be specified for SchedFIFO or SchedRR policy"
    );
    ensure!(
        policy == "SCHED_DEADLINE" || (runtime, deadline, period) == (0, 0, 0),
        "scheduler runtime/deadline/period can only be specified for SchedDeadline policy"
    );
    let priority =
        u32::try_from(priority).with_context(|| format!("invalid scheduler.priority: {priority}"))?;
    // With these flags the kernel keeps the policy or the numbers that the process already has.
    let keeps = ["SCHED_FLAG_KEEP_POLICY", "SCHED_FLAG_KEEP_PARAMS"];
    if policy == "SCHED_DEADLINE" && !flags.iter().any(|flag| keeps.contains(flag)) {
        check_deadline(runtime, deadline, period)?;
    }
    Ok(Scheduler { policy, flags, nice, priority, runtime, deadline, period, allowed_cpus })
}

/// Checks the rule of sched(7) for SCHED_DEADLINE. The error names the number that breaks the rule.
fn check_deadline(runtime: u64, deadline: u64, period: u64) -> Result<()> {
    const LEAST: u64 = 1024;
    const RULE: &str = "SCHED_DEADLINE wants 1024 ns <= runtime <= deadline <= period < 2^63";
    let is_signed = |number: u64| i64::try_from(number).is_ok();
    ensure!(runtime >= LEAST, "process.scheduler.runtime: {runtime} is less than {LEAST} ({RULE})");
    ensure!(
        runtime <= deadline,
        "process.scheduler.runtime: {runtime} is more than the deadline, {deadline} ({RULE})"
    );
    ensure!(is_signed(deadline), "process.scheduler.deadline: {deadline} is 2^63 or more ({RULE})");
    ensure!(is_signed(period), "process.scheduler.period: {period} is 2^63 or more ({RULE})");
    // Without a period, the kernel takes the deadline as the period.
    ensure!(
        period == 0 || deadline <= period,
        "process.scheduler.deadline: {deadline} is more than the period, {period} ({RULE})"
    );
    Ok(())
}

impl Scheduler {
    /// Sets the policy of `process`, which execve(2) keeps. The parent calls this: a process with SCHED_DEADLINE may
    /// not fork, as the hop must, and init may have given up CAP_SYS_NICE.
    ///
    /// # Errors
    /// `EPERM`: we lack CAP_SYS_NICE, or a SCHED_DEADLINE process is limited to some CPUs. `EBUSY`: the CPUs have no
    /// time left for the deadline.
    pub fn apply(&self, process: Pid) -> Result<()> {
        let attr = sched::Attr {
            policy: row(&POLICIES, self.policy).map_or(0, |row| row.1),
            flags: self.flags.iter().filter_map(|flag| row(&FLAGS, flag)).map(|row| row.1).sum(),
            nice: self.nice,
            priority: self.priority,
            runtime: self.runtime,
            deadline: self.deadline,
            period: self.period,
        };
        match sched::set_attr(process, &attr) {
            // The kernel wants a SCHED_DEADLINE process allowed on all CPUs of its root domain.
            Err(error) if error.errno() == libc::EPERM && self.allowed_cpus => {
                Err(error).context("process scheduler can't be used together with AllowedCPUs")
            }
            Err(error) if error.errno() == libc::EINVAL && self.policy == "SCHED_DEADLINE" => Err(error)
                .context(
                    "process.scheduler: is the period within sched_deadline_period_min_us and _max_us of \
                     /proc/sys/kernel?",
                ),
            Err(error) if error.errno() == libc::EBUSY => {
                Err(error).context("process.scheduler: the CPUs have no time left for another deadline")
            }
            result => result.context("process.scheduler"),
        }
    }
}

/// The priority of the process's input and output (ioprio_set(2)).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct IoPriority {
    class: &'static str,
    level: u8,
}

const IO_CLASSES: [(&str, u8); 3] =
    [("IOPRIO_CLASS_RT", 1), ("IOPRIO_CLASS_BE", 2), ("IOPRIO_CLASS_IDLE", 3)];

/// `process.ioPriority` as the configuration writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct SaidIoPriority {
    /// A class such as IOPRIO_CLASS_BE.
    pub class: String,
    /// The level, from 0 (highest) to 7.
    pub priority: i64,
}

/// Decides the class and the level.
///
/// # Errors
/// The class is unknown, or the level is not in 0..=7.
pub fn plan_io_priority(said: &SaidIoPriority) -> Result<IoPriority> {
    let level = u8::try_from(said.priority).ok().filter(|level| *level <= 7);
    let level = level.with_context(|| format!("invalid ioPriority.Priority: {}", said.priority))?;
    let (class, _) = row(&IO_CLASSES, &said.class)
        .with_context(|| format!("invalid ioPriority.Class: {:?}", said.class))?;
    Ok(IoPriority { class, level })
}

impl IoPriority {
    /// Sets the class and the level of the calling thread.
    ///
    /// # Errors
    /// `EPERM`: the real-time class needs CAP_SYS_NICE or CAP_SYS_ADMIN.
    pub fn apply(self) -> Result<()> {
        let class = row(&IO_CLASSES, self.class).map_or(0, |row| row.1);
        sched::set_io_priority(class, self.level).context("process.ioPriority")
    }
}

/// The CPUs on which the process runs, before and after it joins the container's cgroup.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub enum Affinity {
    /// All CPUs that the cgroup allows, even if the caller may use fewer. For every `create`, and for an `exec` without
    /// `execCPUAffinity`.
    Reset,
    /// The CPUs of `execCPUAffinity`. A stage that is `None` changes nothing.
    Stages {
        /// The CPUs while the process joins the cgroup.
        initial: Option<Bits>,
        /// The CPUs after that.
        r#final: Option<Bits>,
    },
}

/// The greatest CPU number that a kernel can be built for (CONFIG_NR_CPUS).
const LAST_CPU: u32 = 8191;

/// `process.execCPUAffinity` as the configuration writes it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct SaidAffinity {
    /// The CPUs while the process joins the cgroup; a list such as `0-3,7`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub initial: Option<String>,
    /// The CPUs after that.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub r#final: Option<String>,
}

/// Decides the affinity of an `exec`. For `create` it is always [`Affinity::Reset`].
///
/// # Errors
/// A list is malformed or names no CPU.
pub fn plan_exec_affinity(said: Option<&SaidAffinity>) -> Result<Affinity> {
    let Some(said) = said else { return Ok(Affinity::Reset) };
    let stage = |text: &Option<String>, name: &str| {
        let Some(text) = text.as_deref().filter(|text| !text.is_empty()) else { return Ok(None) };
        let place = || format!("bad CPUAffinity.{name}");
        let bits = Bits::parse(text, LAST_CPU).with_context(place)?;
        ensure!(bits.count() > 0, "{}: no members found in set {text:?}", place());
        Ok(Some(bits))
    };
    let initial = stage(&said.initial, "Initial")?;
    let last = stage(&said.r#final, "Final")?;
    if initial.is_none() && last.is_none() {
        return Ok(Affinity::Reset);
    }
    Ok(Affinity::Stages { initial, r#final: last })
}

impl Affinity {
    /// Sets the initial CPUs on the parent itself, before it makes the process, which inherits them. So the process has
    /// them before it joins a cgroup of the container. The parent then calls [`Lent::take_back`].
    ///
    /// # Errors
    /// `EINVAL`: none of the CPUs exists.
    pub fn lend(&self) -> Result<Option<Lent>> {
        match self {
            Self::Reset | Self::Stages { initial: None, .. } => Ok(None),
            Self::Stages { initial: Some(cpus), .. } => {
                let own = sched::affinity()?;
                sched::set_affinity(None, &cpus.0).context("error setting initial CPU affinity")?;
                Ok(Some(Lent(own)))
            }
        }
    }

    /// Sets the CPUs of `process` (`None`: the caller) after it has joined the cgroup. Returns a warning if a
    /// [`Affinity::Reset`] fails, because the configuration did not ask for it.
    ///
    /// # Errors
    /// `EINVAL`: none of the final CPUs exists and is allowed by the cgroup.
    pub fn after_cgroup(&self, process: Option<Pid>) -> Result<Option<String>> {
        match self {
            // The kernel removes CPUs that do not exist or that the cpuset does not allow.
            Self::Reset => Ok(sched::set_affinity(process, &ALL_CPUS)
                .err()
                .map(|error| format!("cpu affinity of the caller is kept: {error}, ignoring"))),
            Self::Stages { r#final: None, .. } => Ok(None),
            Self::Stages { r#final: Some(cpus), .. } => sched::set_affinity(process, &cpus.0)
                .map(|()| None)
                .context("error setting final CPU affinity"),
        }
    }
}

/// The CPUs that the parent had before [`Affinity::lend`].
#[derive(Debug)]
#[must_use]
pub struct Lent(Vec<c_ulong>);

impl Lent {
    /// Gives the parent its CPUs again.
    ///
    /// # Errors
    /// `EINVAL`: all of them are offline by now.
    pub fn take_back(self) -> Result<()> {
        Ok(sched::set_affinity(None, &self.0)?)
    }
}

/// The CPUs of the calling process, for the log.
pub fn current_affinity() -> String {
    sched::affinity().map_or_else(|error| error.to_string(), |mask| Bits(mask).to_string())
}

const ALL_CPUS: [c_ulong; (LAST_CPU + 1) as usize / c_ulong::BITS as usize] =
    [c_ulong::MAX; (LAST_CPU + 1) as usize / c_ulong::BITS as usize];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::{in_child, privileged};

    fn scheduler(json: &str) -> Result<Scheduler> {
        plan_scheduler(&serde_json::from_str(json).unwrap(), false)
    }

    fn status(field: &str) -> String {
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        status.lines().find_map(|line| line.strip_prefix(field)).unwrap().trim().to_owned()
    }

    #[test]
    fn a_value_that_the_policy_has_no_use_for_is_refused() {
        let priority = "scheduler.priority can only be specified for SchedFIFO or SchedRR policy";
        let deadline = "scheduler runtime/deadline/period can only be specified for SchedDeadline policy";
        for (json, text) in [
            (
                r#"{"policy":"SCHED_BATCH","nice":20}"#,
                "invalid scheduler.nice: 20 when scheduler.policy is SCHED_BATCH",
            ),
            (
                r#"{"policy":"SCHED_OTHER","nice":-21}"#,
                "invalid scheduler.nice: -21 when scheduler.policy is SCHED_OTHER",
            ),
            (r#"{"policy":"SCHED_IDLE","priority":1}"#, priority),
            (r#"{"policy":"SCHED_FIFO","period":1}"#, deadline),
            ("{}", "scheduler policy is required"),
            (r#"{"policy":"SCHED_X"}"#, "invalid scheduler policy: SCHED_X"),
            (r#"{"policy":"SCHED_OTHER","flags":["X"]}"#, "invalid scheduler flag: X"),
            (r#"{"policy":"SCHED_FIFO","priority":-1}"#, "invalid scheduler.priority: -1"),
        ] {
            let error = scheduler(json).unwrap_err();
            assert_eq!(error.to_string(), text);
        }
    }

    #[test]
    fn a_deadline_that_breaks_the_rule_is_named_by_the_number_that_does() {
        let rule = "(SCHED_DEADLINE wants 1024 ns <= runtime <= deadline <= period < 2^63)";
        let said = |runtime: u64, deadline: u64, period: u64| {
            let json = serde_json::json!({"policy": "SCHED_DEADLINE", "runtime": runtime, "deadline": deadline,
                "period": period});
            scheduler(&json.to_string()).map(drop).map_err(|error| error.to_string())
        };
        for (numbers, text) in [
            ((30_000, 20_000, 40_000), "runtime: 30000 is more than the deadline, 20000"),
            ((10_000, 50_000, 40_000), "deadline: 50000 is more than the period, 40000"),
            ((1023, 50_000, 0), "runtime: 1023 is less than 1024"),
            ((0, 0, 0), "runtime: 0 is less than 1024"),
            ((1024, 1 << 63, 0), "deadline: 9223372036854775808 is 2^63 or more"),
            ((1024, 1024, 1 << 63), "period: 9223372036854775808 is 2^63 or more"),
        ] {
            let (runtime, deadline, period) = numbers;
            assert_eq!(said(runtime, deadline, period), Err(format!("process.scheduler.{text} {rule}")));
        }
        for (runtime, deadline, period) in [(1024, 1024, 1024), (10_000, 20_000, 0), (10_000, 20_000, 20_000)]
        {
            assert_eq!(said(runtime, deadline, period), Ok(()));
        }
    }

    #[test]
    fn every_policy_and_flag_of_the_spec_is_in_the_tables() {
        // config.md, "scheduler"
        for policy in ["OTHER", "FIFO", "RR", "BATCH", "ISO", "IDLE", "DEADLINE"] {
            let flags = ["RESET_ON_FORK", "RECLAIM", "DL_OVERRUN", "KEEP_POLICY", "KEEP_PARAMS"];
            let more = ["UTIL_CLAMP_MIN", "UTIL_CLAMP_MAX"];
            let flags = flags.iter().chain(&more).map(|name| format!("SCHED_FLAG_{name}"));
            let said = SaidScheduler {
                policy: format!("SCHED_{policy}"),
                flags: Some(flags.collect()),
                ..SaidScheduler::default()
            };
            assert_eq!(plan_scheduler(&said, false).unwrap().flags, FLAGS.map(|row| row.0));
        }
    }

    #[test]
    fn batch_with_a_nice_value_is_set() {
        in_child(|| {
            scheduler(r#"{"policy":"SCHED_BATCH","nice":19}"#)?.apply(rustix::process::getpid())?;
            // Fields 19 (nice) and 41 (policy) of proc(5)'s stat.
            let stat = std::fs::read_to_string("/proc/thread-self/stat")?;
            let fields: Vec<&str> = stat.rsplit_once(") ").context("stat")?.1.split(' ').collect();
            ensure!(fields[16] == "19" && fields[38] == "3", "{stat}");
            Ok(())
        });
    }

    #[test]
    fn io_priority_is_set_and_checked() {
        let spec = |json: &str| serde_json::from_str::<SaidIoPriority>(json).unwrap();
        let class = plan_io_priority(&spec("{}")).unwrap_err().to_string();
        assert_eq!(class, "invalid ioPriority.Class: \"\"");
        for bad in [-1, 8] {
            let error =
                plan_io_priority(&spec(&format!(r#"{{"class":"IOPRIO_CLASS_BE","priority":{bad}}}"#)));
            assert_eq!(error.unwrap_err().to_string(), format!("invalid ioPriority.Priority: {bad}"));
        }
        in_child(|| {
            plan_io_priority(&spec(r#"{"class":"IOPRIO_CLASS_IDLE"}"#))?.apply()?;
            plan_io_priority(&spec(r#"{"class":"IOPRIO_CLASS_BE","priority":4}"#))?.apply()
        });
    }

    #[test]
    fn exec_affinity_says_which_stage_is_wrong() {
        let spec = |initial: Option<&str>, last: Option<&str>| {
            let said = SaidAffinity { initial: initial.map(str::to_owned), r#final: last.map(str::to_owned) };
            plan_exec_affinity(Some(&said))
        };
        assert_eq!(spec(None, Some("")).unwrap(), Affinity::Reset);
        let bad = format!("{:#}", spec(Some("x"), None).unwrap_err());
        assert_eq!(bad, "bad CPUAffinity.Initial: \"x\" is not a number");
        let none = spec(Some("0"), Some(",")).unwrap_err().to_string();
        assert_eq!(none, "bad CPUAffinity.Final: no members found in set \",\"");
    }

    #[test]
    fn a_reset_gives_back_all_cpus() {
        in_child(|| {
            let all = status("Cpus_allowed_list:");
            let first = Affinity::Stages { initial: Some(Bits::parse("0", 9)?), r#final: None };
            let lent = first.lend()?.context("nothing was lent")?;
            ensure!(first.after_cgroup(None)?.is_none());
            ensure!(status("Cpus_allowed_list:") == "0", "{}", status("Cpus_allowed_list:"));
            lent.take_back()?;
            ensure!(status("Cpus_allowed_list:") == all, "{all}");
            drop(first.lend()?);
            ensure!(Affinity::Reset.after_cgroup(None)?.is_none());
            ensure!(status("Cpus_allowed_list:") == all, "{all}");
            let absent = Affinity::Stages { initial: None, r#final: Some(Bits::parse("8191", LAST_CPU)?) };
            let error = format!("{:#}", absent.after_cgroup(None).unwrap_err());
            ensure!(error.starts_with("error setting final CPU affinity: sched_setaffinity 0 "), "{error}");
            Ok(())
        });
    }

    #[test]
    fn a_deadline_on_few_cpus_says_what_is_in_the_way() {
        if !privileged("a_deadline_on_few_cpus_says_what_is_in_the_way")
            || status("Cpus_allowed_list:") == "0"
        {
            return;
        }
        in_child(|| {
            sched::set_affinity(None, &[1])?;
            let spec = r#"{"policy":"SCHED_DEADLINE","runtime":42000,"deadline":1000000,"period":1000000}"#;
            let plan = plan_scheduler(&serde_json::from_str(spec)?, true)?;
            let error =
                format!("{:#}", plan.apply(rustix::process::getpid()).err().context("it was not refused")?);
            ensure!(
                error.starts_with("process scheduler can't be used together with AllowedCPUs: "),
                "{error}"
            );
            Ok(())
        });
    }
}
