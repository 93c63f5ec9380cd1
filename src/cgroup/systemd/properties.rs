//! Resources and devices as properties of a systemd unit. Pure.
//!
//! systemd may write a unit's limits into the cgroup's files at any time (`daemon-reload`, a change of another
//! property). What systemd does not know is lost then, above all the devices. So the runtime sets every limit twice:
//! as a property, if systemd has one for it, and by the file. systemd leaves files alone for which it has no property
//! (`hugetlb`, `rdma`, `memory.oom.group`).

use crate::cgroup::Resources;
use crate::cgroup::devices::{self, Policy};
use crate::cgroup::limits::{swap_alone, weight_of};
use crate::log;
use anyhow::{Context, Result, anyhow};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// A value of one of the D-Bus types that the properties need.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Value {
    /// `b`
    Bool(bool),
    /// `i`
    Int32(i32),
    /// `u`
    Uint32(u32),
    /// `t`
    Uint64(u64),
    /// `s`
    Text(String),
    /// `as`
    Texts(Vec<String>),
    /// `ay`
    Bytes(Vec<u8>),
    /// `au`
    Numbers(Vec<u32>),
    /// `a(ss)`
    Pairs(Vec<(String, String)>),
}

/// Name and value.
pub type Property = (Cow<'static, str>, Value);

/// The properties that every scope gets.
///
/// # Errors
/// `pid` is negative.
pub fn of_scope(slice: &str, description: &str, pid: i32) -> Result<Vec<Property>> {
    let pid = u32::try_from(pid).context("process id")?;
    let mut all: Vec<Property> = vec![
        ("Description".into(), Value::Text(description.into())),
        ("Slice".into(), Value::Text(slice.into())),
        // systemd leaves the directory, and what is below it, to the runtime.
        ("Delegate".into(), Value::Bool(true)),
        ("PIDs".into(), Value::Numbers(vec![pid])),
        ("DefaultDependencies".into(), Value::Bool(false)),
        // A scope that failed must not keep its name.
        ("CollectMode".into(), Value::Text("inactive-or-failed".into())),
    ];
    for name in ["MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"] {
        all.push((name.into(), Value::Bool(true)));
    }
    Ok(all)
}

/// Keeps each name once, with its last value.
pub fn last_wins(mut all: Vec<Property>) -> Vec<Property> {
    all.reverse();
    let mut seen = std::collections::BTreeSet::new();
    all.retain(|(name, _)| seen.insert(name.clone()));
    all.reverse();
    all
}

/// The properties for the limits that systemd knows.
///
/// # Errors
/// A value makes no sense; the error names its config pointer.
pub fn of_resources(asked: &Resources) -> Result<Vec<Property>> {
    let asked = &settled(asked);
    let mut all = vec![];
    let mut number = |name: &'static str, value: u64| all.push((Cow::Borrowed(name), Value::Uint64(value)));
    let (memory, cpu) = (&asked.memory, &asked.cpu);
    let limit = memory.limit.unwrap_or(0);
    for (name, value) in [("MemoryMax", limit), ("MemoryLow", memory.reservation.unwrap_or(0))] {
        if value != 0 {
            number(name, or_infinity(value));
        }
    }
    if let Some(swap) = swap_alone(memory.swap.unwrap_or(0), limit).context("linux.resources.memory.swap")? {
        number("MemorySwapMax", or_infinity(swap));
    }
    match (cpu.idle, cpu.shares.unwrap_or(0)) {
        // systemd sets cpu.idle for a weight of 0, since version 252.
        (Some(1), _) => number("CPUWeight", 0),
        (_, 0) => {}
        (_, shares) => number("CPUWeight", weight_of(shares)),
    }
    let (quota, period) = (cpu.quota.unwrap_or(0), cpu.period.unwrap_or(0));
    if quota != 0 || period != 0 {
        let period = if period == 0 { PERIOD } else { period };
        number("CPUQuotaPerSecUSec", per_second(quota, period));
        number("CPUQuotaPeriodUSec", period);
    }
    if let Some(limit) = asked.pids.limit {
        // systemd takes no 0, and a container needs one process anyway.
        number("TasksMax", if limit == 0 { 1 } else { or_infinity(limit) });
    }
    for (name, pointer, list) in [
        ("AllowedCPUs", "linux.resources.cpu.cpus", &cpu.cpus),
        ("AllowedMemoryNodes", "linux.resources.cpu.mems", &cpu.mems),
    ] {
        if !list.trim().is_empty() {
            all.push((name.into(), Value::Bytes(bits(list).context(pointer)?)));
        }
    }
    for (file, value) in &asked.unified {
        unified(&mut all, file, value.trim())
            .with_context(|| format!("linux.resources.unified.{file}: {value:?}"))?;
    }
    Ok(all)
}

/// The values for the files, so that systemd finds in them what it would write itself. systemd rounds quotas. It has
/// one property for weight and idleness, so the one that was asked for last holds.
pub fn for_files(asked: &Resources) -> Resources {
    if weighs_what_is_idle(asked) {
        log::warn("unable to apply both a CPU weight and idleness: the weight is ignored");
    }
    settled(asked)
}

fn settled(asked: &Resources) -> Resources {
    let mut said = asked.clone();
    let (idle, weight) = ("cpu.idle".to_owned(), "cpu.weight");
    if let (Some(quota @ 1..), period) = (said.cpu.quota, said.cpu.period.unwrap_or(0)) {
        let period = if period == 0 { PERIOD } else { period };
        let rounded = u128::from(per_second(quota, period)) * u128::from(period) / 1_000_000;
        said.cpu.quota = Some(i64::try_from(rounded).unwrap_or(quota));
    }
    if weighs_what_is_idle(&said) {
        said.cpu.shares = None;
        said.unified.remove(weight);
    }
    if said.cpu.shares.unwrap_or(0) != 0 {
        said.cpu.idle = Some(0);
    }
    if said.unified.contains_key(weight) {
        said.unified.insert(idle, "0".to_owned());
    }
    said
}

fn weighs_what_is_idle(asked: &Resources) -> bool {
    let unified = |file: &str| asked.unified.get(file).map(|value| value.trim());
    let idle = asked.cpu.idle == Some(1) || unified("cpu.idle") == Some("1");
    idle && (asked.cpu.shares.unwrap_or(0) != 0 || unified("cpu.weight").is_some())
}

/// The kernel's default, in microseconds.
const PERIOD: u64 = 100_000;

fn or_infinity(value: i64) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

/// CPU time for each second, in microseconds. systemd keeps whole percents, so a fraction is rounded up.
fn per_second(quota: i64, period: u64) -> u64 {
    const PERCENT: u128 = 10_000;
    match u64::try_from(quota) {
        Err(_) | Ok(0) => u64::MAX,
        Ok(quota) => {
            let exact = u128::from(quota) * 1_000_000 / u128::from(period.max(1));
            u64::try_from(exact.div_ceil(PERCENT) * PERCENT).unwrap_or(u64::MAX)
        }
    }
}

/// Adds the property for a file of `unified`, if systemd has one.
fn unified(all: &mut Vec<Property>, file: &str, value: &str) -> Result<()> {
    const NUMBERS: [(&str, &str); 7] = [
        ("memory.max", "MemoryMax"),
        ("memory.high", "MemoryHigh"),
        ("memory.low", "MemoryLow"),
        ("memory.min", "MemoryMin"),
        ("memory.swap.max", "MemorySwapMax"),
        ("cpu.weight", "CPUWeight"),
        ("pids.max", "TasksMax"),
    ];
    let number = |text: &str| -> Result<u64> {
        if text == "max" {
            Ok(u64::MAX)
        } else {
            text.parse().map_err(|_| anyhow!("{text:?} is not a number"))
        }
    };
    if let Some((_, name)) = NUMBERS.iter().find(|(known, _)| *known == file) {
        all.push(((*name).into(), Value::Uint64(number(value)?)));
        return Ok(());
    }
    match file {
        "cpuset.cpus" => all.push(("AllowedCPUs".into(), Value::Bytes(bits(value)?))),
        "cpuset.mems" => all.push(("AllowedMemoryNodes".into(), Value::Bytes(bits(value)?))),
        "cpu.max" => {
            let mut words = value.split_ascii_whitespace();
            let quota = number(words.next().unwrap_or_default())?;
            let period = words.next().map_or(Ok(PERIOD), &number)?;
            let quota = i64::try_from(quota).unwrap_or(-1);
            all.push(("CPUQuotaPerSecUSec".into(), Value::Uint64(per_second(quota, period))));
            all.push(("CPUQuotaPeriodUSec".into(), Value::Uint64(period)));
        }
        "cpu.idle" if value == "1" => all.push(("CPUWeight".into(), Value::Uint64(0))),
        _ => {}
    }
    Ok(())
}

/// A list such as `0-2,7` as bits, the lowest first.
fn bits(list: &str) -> Result<Vec<u8>> {
    /// More than any kernel has.
    const LIMIT: usize = 1 << 16;
    let mut bytes = vec![];
    for range in list.split(',').map(str::trim).filter(|range| !range.is_empty()) {
        let number = |text: &str| -> Result<usize> {
            let number = text.trim().parse().ok().filter(|number| *number < LIMIT);
            number.with_context(|| format!("{text:?} in {list:?} is not a number"))
        };
        let (first, last) = range.split_once('-').unwrap_or((range, range));
        for bit in number(first)?..=number(last)? {
            if bytes.len() <= bit / 8 {
                bytes.resize(bit / 8 + 1, 0u8);
            }
            if let Some(byte) = bytes.get_mut(bit / 8) {
                *byte |= 1 << (bit % 8);
            }
        }
    }
    Ok(bytes)
}

/// The properties for the device policy. systemd cannot express exceptions from "everything is allowed". Then systemd
/// gets no restriction, and takes nothing away from the container.
pub fn of_devices(policy: &Policy) -> Vec<Property> {
    if policy.allow_by_default {
        return vec![
            ("DevicePolicy".into(), Value::Text("auto".into())),
            ("DeviceAllow".into(), Value::Pairs(vec![])),
        ];
    }
    let mut pairs = vec![];
    for (which, access) in &policy.exceptions {
        let (word, folder) = match which.kind {
            devices::Kind::Block => ("block", "/dev/block"),
            devices::Kind::Char => ("char", "/dev/char"),
        };
        let name = match (which.major, which.minor) {
            (None, None) => format!("{word}-*"),
            (Some(major), None) => format!("{word}-{major}"),
            // systemd reads the numbers from this name; the node need not exist.
            (Some(major), Some(minor)) => format!("{folder}/{major}:{minor}"),
            // systemd cannot express this. Our program allows such devices until systemd next writes its own.
            (None, Some(_)) => continue,
        };
        pairs.push((name, devices::letters(*access)));
    }
    vec![("DevicePolicy".into(), Value::Text("strict".into())), ("DeviceAllow".into(), Value::Pairs(pairs))]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(json: &str) -> Vec<(String, Value)> {
        let all = of_resources(&serde_json::from_str(json).unwrap()).unwrap();
        last_wins(all).into_iter().map(|(name, value)| (name.into_owned(), value)).collect()
    }

    #[track_caller]
    fn number(json: &str, name: &str) -> u64 {
        match of(json).into_iter().find(|(found, _)| found == name) {
            Some((_, Value::Uint64(number))) => number,
            other => panic!("{json}: {name} is {other:?}"),
        }
    }

    #[test]
    fn limits_become_properties() {
        const M: u64 = u64::MAX;
        for (json, name, value) in [
            (r#"{"memory":{"limit":1000,"swap":1500}}"#, "MemoryMax", 1000),
            (r#"{"memory":{"limit":1000,"swap":1500}}"#, "MemorySwapMax", 500),
            (r#"{"memory":{"limit":-1}}"#, "MemorySwapMax", M),
            (r#"{"memory":{"reservation":7}}"#, "MemoryLow", 7),
            (r#"{"cpu":{"shares":1024}}"#, "CPUWeight", 100),
            (r#"{"cpu":{"shares":1024,"idle":1}}"#, "CPUWeight", 0),
            (r#"{"cpu":{"quota":50000}}"#, "CPUQuotaPerSecUSec", 500_000),
            (r#"{"cpu":{"quota":12345,"period":50000}}"#, "CPUQuotaPerSecUSec", 250_000),
            (r#"{"cpu":{"quota":12345,"period":50000}}"#, "CPUQuotaPeriodUSec", 50_000),
            (r#"{"cpu":{"quota":-1,"period":50000}}"#, "CPUQuotaPerSecUSec", M),
            (r#"{"pids":{"limit":0}}"#, "TasksMax", 1),
            (r#"{"pids":{"limit":-1}}"#, "TasksMax", M),
            (r#"{"memory":{"limit":5},"unified":{"memory.max":"max"}}"#, "MemoryMax", M),
            (r#"{"unified":{"cpu.max":"5000 10000"}}"#, "CPUQuotaPerSecUSec", 500_000),
            (r#"{"unified":{"memory.high":" 99 "}}"#, "MemoryHigh", 99),
            (r#"{"unified":{"cpu.weight":"8","cpu.idle":"1"}}"#, "CPUWeight", 0),
        ] {
            assert_eq!(number(json, name), value, "{json} {name}");
        }
        assert_eq!(of(r#"{"unified":{"hugetlb.2MB.max":"0"},"cpu":{"burst":5}}"#), []);
    }

    #[test]
    fn files_are_told_what_systemd_would_write() {
        for (json, wanted) in [
            (r#"{"cpu":{"quota":12345,"period":50000}}"#, r#"{"cpu":{"quota":12500,"period":50000}}"#),
            (r#"{"cpu":{"quota":500000,"period":900000}}"#, r#"{"cpu":{"quota":504000,"period":900000}}"#),
            (r#"{"cpu":{"quota":20000}}"#, r#"{"cpu":{"quota":20000}}"#),
            (r#"{"cpu":{"quota":-1,"period":9000}}"#, r#"{"cpu":{"quota":-1,"period":9000}}"#),
            (r#"{"cpu":{"shares":200}}"#, r#"{"cpu":{"shares":200,"idle":0}}"#),
            (r#"{"cpu":{"shares":200,"idle":1}}"#, r#"{"cpu":{"idle":1}}"#),
            (r#"{"unified":{"cpu.weight":"8","cpu.idle":"1"}}"#, r#"{"unified":{"cpu.idle":"1"}}"#),
            (r#"{"unified":{"cpu.weight":"8"}}"#, r#"{"unified":{"cpu.idle":"0","cpu.weight":"8"}}"#),
        ] {
            let parse = |json| serde_json::from_str::<Resources>(json).unwrap();
            assert_eq!(for_files(&parse(json)), parse(wanted), "{json}");
        }
    }

    #[test]
    fn cpu_lists_are_bits_and_nonsense_is_named() {
        for (list, bytes) in
            [("0", vec![1]), ("0-2,7", vec![0x87]), ("8,1", vec![2, 1]), ("15", vec![0, 0x80])]
        {
            assert_eq!(bits(list).unwrap(), bytes, "{list}");
        }
        for list in ["a", "1-", "99999999", "1-b"] {
            bits(list).unwrap_err();
        }
        let bad = serde_json::from_str(r#"{"cpu":{"cpus":"0,x"}}"#).unwrap();
        let error = format!("{:#}", of_resources(&bad).unwrap_err());
        assert_eq!(error, "linux.resources.cpu.cpus: \"x\" in \"0,x\" is not a number");
    }

    #[test]
    fn devices_are_said_by_number_so_that_no_node_is_needed() {
        let policy = devices::plan(&[]).unwrap();
        let all = of_devices(&policy);
        assert_eq!(all[0], ("DevicePolicy".into(), Value::Text("strict".into())));
        let Value::Pairs(pairs) = &all[1].1 else { panic!("{all:?}") };
        for (name, access) in
            [("char-*", "m"), ("block-*", "m"), ("char-136", "rwm"), ("/dev/char/1:3", "rwm")]
        {
            assert!(pairs.contains(&(name.into(), access.into())), "{name} {access} in {pairs:?}");
        }
        let everything = serde_json::from_str(r#"[{"allow":true,"access":"rwm"}]"#).unwrap();
        let all = of_devices(
            &devices::plan(&Vec::<oci_spec::runtime::LinuxDeviceCgroup>::clone(&everything)).unwrap(),
        );
        assert_eq!(all[0].1, Value::Text("auto".into()));
    }
}
