//! What the container uses: the `data` of runc's `events`, which engines parse.
//!
//! Field names, units, and the rule which zeros are left out are runc's.
//! Not for: Intel RDT (the caller sets [`Stats::intel_rdt`]), network interfaces (always `null`).

use super::hierarchy::{Hierarchy, WALK_PATIENCE, value_of};
use crate::sys::Error;
use anyhow::{Context, Result, anyhow};
use serde::Serialize;
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Instant;

/// The `data` of an event.
#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)] // the names of runc's events
pub struct Stats {
    pub cpu: Cpu,
    pub cpuset: Cpuset,
    pub memory: Memory,
    pub pids: Pids,
    pub blkio: Blkio,
    pub hugetlb: BTreeMap<String, Hugetlb>,
    pub intel_rdt: serde_json::Map<String, serde_json::Value>,
    pub network_interfaces: (),
}

/// CPU time, in nanoseconds.
#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Cpu {
    #[serde(skip_serializing_if = "zero")]
    pub usage: CpuUsage,
    #[serde(skip_serializing_if = "zero")]
    pub throttling: Throttling,
    #[serde(skip_serializing_if = "zero")]
    pub psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct CpuUsage {
    #[serde(skip_serializing_if = "zero")]
    pub total: u64,
    #[serde(skip_serializing_if = "zero")]
    pub percpu: Vec<u64>,
    #[serde(skip_serializing_if = "zero")]
    pub percpu_kernel: Vec<u64>,
    #[serde(skip_serializing_if = "zero")]
    pub percpu_user: Vec<u64>,
    pub kernel: u64,
    pub user: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Throttling {
    #[serde(skip_serializing_if = "zero")]
    pub periods: u64,
    #[serde(skip_serializing_if = "zero")]
    pub throttled_periods: u64,
    #[serde(skip_serializing_if = "zero")]
    pub throttled_time: u64,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Psi {
    pub some: Pressure,
    pub full: Pressure,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct Pressure {
    pub avg10: f64,
    pub avg60: f64,
    pub avg300: f64,
    pub total: u64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Cpuset {
    #[serde(skip_serializing_if = "zero")]
    pub cpus: Vec<u16>,
    pub cpu_exclusive: u64,
    #[serde(skip_serializing_if = "zero")]
    pub mems: Vec<u16>,
    pub mem_hardwall: u64,
    pub mem_exclusive: u64,
    pub memory_migrate: u64,
    pub memory_spread_page: u64,
    pub memory_spread_slab: u64,
    pub memory_pressure: u64,
    pub sched_load_balance: u64,
    pub sched_relax_domain_level: i64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Memory {
    #[serde(skip_serializing_if = "zero")]
    pub cache: u64,
    #[serde(skip_serializing_if = "zero")]
    pub usage: MemoryEntry,
    #[serde(skip_serializing_if = "zero")]
    pub swap: MemoryEntry,
    #[serde(skip_serializing_if = "zero")]
    pub kernel: MemoryEntry,
    #[serde(rename = "kernelTCP", skip_serializing_if = "zero")]
    pub kernel_tcp: MemoryEntry,
    #[serde(skip_serializing_if = "zero")]
    pub raw: BTreeMap<String, u64>,
    #[serde(skip_serializing_if = "zero")]
    pub psi: Option<Psi>,
}

#[derive(Clone, Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct MemoryEntry {
    pub limit: u64,
    #[serde(skip_serializing_if = "zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    pub failcnt: u64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Pids {
    #[serde(skip_serializing_if = "zero")]
    pub current: u64,
    /// Zero: no limit.
    #[serde(skip_serializing_if = "zero")]
    pub limit: u64,
}

#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Blkio {
    #[serde(skip_serializing_if = "zero")]
    pub io_service_bytes_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub io_serviced_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub io_queue_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub io_service_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub io_wait_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub io_merged_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub io_time_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub sectors_recursive: Vec<BlkioEntry>,
    #[serde(skip_serializing_if = "zero")]
    pub psi: Option<Psi>,
}

#[derive(Debug, Default, PartialEq, Serialize)]
#[allow(missing_docs)]
pub struct BlkioEntry {
    #[serde(skip_serializing_if = "zero")]
    pub major: u64,
    #[serde(skip_serializing_if = "zero")]
    pub minor: u64,
    #[serde(skip_serializing_if = "zero")]
    pub op: String,
    #[serde(skip_serializing_if = "zero")]
    pub value: u64,
}

#[derive(Debug, Default, Serialize)]
#[allow(missing_docs)]
pub struct Hugetlb {
    #[serde(skip_serializing_if = "zero")]
    pub usage: u64,
    #[serde(skip_serializing_if = "zero")]
    pub max: u64,
    pub failcnt: u64,
}

fn zero<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// The number in a file; `None` if the kernel has no such file. "max" becomes the largest number.
fn number(cgroup: &Hierarchy, file: &str) -> Result<Option<u64>> {
    let Some(content) = cgroup.read_if_there(file)? else { return Ok(None) };
    match content.trim() {
        "max" => Ok(Some(u64::MAX)),
        // Version 1 counters can be below zero for a moment.
        text if text.starts_with('-') => Ok(Some(0)),
        text => {
            Ok(Some(text.parse().with_context(|| format!("read {:?}: {text:?}", cgroup.dir().join(file)))?))
        }
    }
}

fn number_or_zero(cgroup: &Hierarchy, file: &str) -> Result<u64> {
    Ok(number(cgroup, file)?.unwrap_or(0))
}

fn pairs(content: &str) -> BTreeMap<String, u64> {
    let pair = |line: &str| {
        line.split_once(' ').and_then(|(key, value)| Some((key.to_owned(), value.trim().parse().ok()?)))
    };
    content.lines().filter_map(pair).collect()
}

fn numbers(content: &str) -> Vec<u64> {
    content.split_ascii_whitespace().filter_map(|number| number.parse().ok()).collect()
}

/// The members of a list such as `0-2,5`.
fn members(list: &str) -> Vec<u16> {
    let range = |part: &str| -> Option<std::ops::RangeInclusive<u16>> {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.trim().split(',').filter_map(range).flatten().collect()
}

type Part = fn(&Hierarchy, &mut Stats) -> Result<()>;

fn pids(cgroup: &Hierarchy) -> Result<Option<Pids>> {
    let Some(current) = number(cgroup, "pids.current")? else { return Ok(None) };
    let limit = number_or_zero(cgroup, "pids.max")?;
    Ok(Some(Pids { current, limit: if limit == u64::MAX { 0 } else { limit } }))
}

/// The sizes of huge pages, as file names have them: `2MB`.
fn huge_page_sizes() -> Vec<String> {
    let Ok(sizes) = std::fs::read_dir("/sys/kernel/mm/hugepages") else { return vec![] };
    let name = |entry: std::fs::DirEntry| {
        let name = entry.file_name();
        let kilobytes: u64 = name.to_str()?.strip_prefix("hugepages-")?.strip_suffix("kB")?.parse().ok()?;
        Some(page_size_name(kilobytes))
    };
    sizes.filter_map(|entry| name(entry.ok()?)).collect()
}

fn page_size_name(kilobytes: u64) -> String {
    match kilobytes {
        0..1024 => format!("{kilobytes}KB"),
        1024..0x10_0000 => format!("{}MB", kilobytes >> 10),
        _ => format!("{}GB", kilobytes >> 20),
    }
}

// Version 2.

/// Reads all files of the one directory. Without root's powers, a file that cannot be read is left out.
pub(super) fn v2(cgroup: &Hierarchy, rootless: bool) -> Result<Stats> {
    let mut stats = Stats::default();
    let parts: [Part; 6] = [v2_pids, v2_memory, v2_io, v2_cpu, v2_psi, v2_hugetlb];
    for part in parts {
        match part(cgroup, &mut stats) {
            Err(_) if rootless => {}
            done => done?,
        }
    }
    Ok(stats)
}

fn v2_pids(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    stats.pids = match pids(cgroup)? {
        Some(pids) => pids,
        // Without the pids controller, the processes are counted.
        None => Pids { current: cgroup.pids(Instant::now() + WALK_PATIENCE)?.len() as u64, limit: 0 },
    };
    Ok(())
}

fn v2_memory(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let Some(raw) = cgroup.read_if_there("memory.stat")? else { return Ok(()) };
    let memory = &mut stats.memory;
    memory.raw = pairs(&raw);
    memory.cache = memory.raw.get("file").copied().unwrap_or(0);
    let Some(usage) = number(cgroup, "memory.current")? else {
        // The root cgroup has no such file: the host's numbers count.
        let meminfo = std::fs::read_to_string("/proc/meminfo").context("read \"/proc/meminfo\"")?;
        (memory.usage, memory.swap) = root_memory(&memory.raw, &meminfo);
        return Ok(());
    };
    let events = cgroup.read_if_there("memory.events")?;
    memory.usage = MemoryEntry {
        limit: number_or_zero(cgroup, "memory.max")?,
        usage,
        max: number_or_zero(cgroup, "memory.peak")?,
        failcnt: events.and_then(|events| value_of(&events, "max")).unwrap_or(0),
    };
    // As in version 1, the sum of memory and swap. The kernel keeps no peak of the sum.
    let swap = number_or_zero(cgroup, "memory.swap.max")?;
    let failed = cgroup.read_if_there("memory.swap.events")?;
    memory.swap = MemoryEntry {
        limit: if swap == u64::MAX { swap } else { swap.saturating_add(memory.usage.limit) },
        usage: number_or_zero(cgroup, "memory.swap.current")?.saturating_add(usage),
        max: 0,
        failcnt: failed.and_then(|events| value_of(&events, "max")).unwrap_or(0),
    };
    Ok(())
}

fn root_memory(raw: &BTreeMap<String, u64>, meminfo: &str) -> (MemoryEntry, MemoryEntry) {
    let of_host = |key: &str| -> u64 {
        let line = meminfo.lines().find_map(|line| line.strip_prefix(key)?.strip_prefix(':'));
        line.and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok()).unwrap_or(0) * 1024
    };
    let of = |key: &str| raw.get(key).copied().unwrap_or(0);
    let usage = of("anon").saturating_add(of("file"));
    let swapped = of_host("SwapTotal").saturating_sub(of_host("SwapFree"));
    let entry = |usage| MemoryEntry { limit: u64::MAX, usage, ..MemoryEntry::default() };
    (entry(usage), entry(usage.saturating_add(swapped)))
}

fn v2_io(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    if let Some(content) = cgroup.read_if_there("io.stat")? {
        (stats.blkio.io_service_bytes_recursive, stats.blkio.io_serviced_recursive) = io_stat(&content);
    }
    Ok(())
}

fn io_stat(content: &str) -> (Vec<BlkioEntry>, Vec<BlkioEntry>) {
    let (mut bytes, mut operations) = (vec![], vec![]);
    for line in content.lines() {
        let mut words = line.split_ascii_whitespace();
        let Some((major, minor)) = words.next().and_then(device) else { continue };
        for (key, value) in words.filter_map(|word| word.split_once('=')) {
            let (list, op) = match key {
                "rbytes" => (&mut bytes, "Read"),
                "wbytes" => (&mut bytes, "Write"),
                "rios" => (&mut operations, "Read"),
                "wios" => (&mut operations, "Write"),
                _ => continue,
            };
            if let Ok(value) = value.parse() {
                list.push(BlkioEntry { major, minor, op: op.to_owned(), value });
            }
        }
    }
    (bytes, operations)
}

fn device(text: &str) -> Option<(u64, u64)> {
    let (major, minor) = text.split_once(':')?;
    Some((major.parse().ok()?, minor.parse().ok()?))
}

fn v2_cpu(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let Some(content) = cgroup.read_if_there("cpu.stat")? else { return Ok(()) };
    let of = |key: &str| value_of(&content, key).unwrap_or(0);
    let nanoseconds = |key: &str| of(key).saturating_mul(1000);
    stats.cpu.usage = CpuUsage {
        total: nanoseconds("usage_usec"),
        user: nanoseconds("user_usec"),
        kernel: nanoseconds("system_usec"),
        ..CpuUsage::default()
    };
    stats.cpu.throttling = Throttling {
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_time: nanoseconds("throttled_usec"),
    };
    Ok(())
}

fn v2_psi(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let read =
        |file: &str| -> Result<Option<Psi>, Error> { Ok(cgroup.read_if_there(file)?.map(|text| psi(&text))) };
    stats.cpu.psi = read("cpu.pressure")?;
    stats.memory.psi = read("memory.pressure")?;
    stats.blkio.psi = read("io.pressure")?;
    Ok(())
}

fn psi(content: &str) -> Psi {
    let line = |name: &str| {
        let mut pressure = Pressure::default();
        let words = content.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
        for (key, value) in words.split_ascii_whitespace().filter_map(|word| word.split_once('=')) {
            match key {
                "avg10" => pressure.avg10 = value.parse().unwrap_or(0.0),
                "avg60" => pressure.avg60 = value.parse().unwrap_or(0.0),
                "avg300" => pressure.avg300 = value.parse().unwrap_or(0.0),
                "total" => pressure.total = value.parse().unwrap_or(0),
                _ => {}
            }
        }
        pressure
    };
    Psi { some: line("some "), full: line("full ") }
}

fn v2_hugetlb(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes() {
        let Some(usage) = number(cgroup, &format!("hugetlb.{size}.rsvd.current"))? else { continue };
        let events = cgroup.read_if_there(format!("hugetlb.{size}.events"))?;
        let failcnt = events.and_then(|events| value_of(&events, "max")).unwrap_or(0);
        stats.hugetlb.insert(size, Hugetlb { usage, max: 0, failcnt });
    }
    Ok(())
}

// Version 1.

/// Reads the files of each controller, in its hierarchy.
pub(super) fn v1<'a>(controller: &dyn Fn(&str) -> Option<&'a Hierarchy>) -> Result<Stats> {
    let mut stats = Stats::default();
    let parts: [(&str, Part); 7] = [
        ("cpuacct", v1_cpuacct),
        ("cpu", v1_cpu),
        ("cpuset", v1_cpuset),
        ("memory", v1_memory),
        ("pids", v1_pids),
        ("blkio", v1_blkio),
        ("hugetlb", v1_hugetlb),
    ];
    for (name, part) in parts {
        controller(name).map_or(Ok(()), |cgroup| part(cgroup, &mut stats))?;
    }
    Ok(stats)
}

fn v1_cpuacct(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let Some(total) = number(cgroup, "cpuacct.usage")? else { return Ok(()) };
    let ticks = pairs(&cgroup.read("cpuacct.stat")?);
    // The kernel shows ticks as hundredths of a second, on every architecture.
    let nanoseconds = |key: &str| ticks.get(key).copied().unwrap_or(0).saturating_mul(10_000_000);
    let by_cpu = cgroup.read_if_there("cpuacct.usage_all")?.unwrap_or_default();
    let column = |index: usize| -> Vec<u64> {
        by_cpu.lines().skip(1).filter_map(|line| line.split(' ').nth(index)?.parse().ok()).collect()
    };
    stats.cpu.usage = CpuUsage {
        total,
        percpu: numbers(&cgroup.read("cpuacct.usage_percpu")?),
        percpu_kernel: column(2),
        percpu_user: column(1),
        kernel: nanoseconds("system"),
        user: nanoseconds("user"),
    };
    Ok(())
}

fn v1_pids(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    stats.pids = pids(cgroup)?.unwrap_or_default();
    Ok(())
}

fn v1_cpu(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let Some(content) = cgroup.read_if_there("cpu.stat")? else { return Ok(()) };
    let of = |key: &str| value_of(&content, key).unwrap_or(0);
    stats.cpu.throttling = Throttling {
        periods: of("nr_periods"),
        throttled_periods: of("nr_throttled"),
        throttled_time: of("throttled_time"),
    };
    Ok(())
}

fn v1_cpuset(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let flag = |name: &str| number_or_zero(cgroup, &format!("cpuset.{name}"));
    let list = |name: &str| -> Result<Vec<u16>, Error> {
        Ok(cgroup.read_if_there(format!("cpuset.{name}"))?.map(|text| members(&text)).unwrap_or_default())
    };
    let level = cgroup.read_if_there("cpuset.sched_relax_domain_level")?;
    stats.cpuset = Cpuset {
        cpus: list("cpus")?,
        cpu_exclusive: flag("cpu_exclusive")?,
        mems: list("mems")?,
        mem_hardwall: flag("mem_hardwall")?,
        mem_exclusive: flag("mem_exclusive")?,
        memory_migrate: flag("memory_migrate")?,
        memory_spread_page: flag("memory_spread_page")?,
        memory_spread_slab: flag("memory_spread_slab")?,
        memory_pressure: flag("memory_pressure")?,
        sched_load_balance: flag("sched_load_balance")?,
        sched_relax_domain_level: level.and_then(|level| level.trim().parse().ok()).unwrap_or(0),
    };
    Ok(())
}

fn v1_memory(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    let Some(raw) = cgroup.read_if_there("memory.stat")? else { return Ok(()) };
    let entry = |name: &str| -> Result<MemoryEntry> {
        let of = |file: &str| number_or_zero(cgroup, &format!("memory{name}.{file}"));
        Ok(MemoryEntry {
            limit: of("limit_in_bytes")?,
            usage: of("usage_in_bytes")?,
            max: of("max_usage_in_bytes")?,
            failcnt: of("failcnt")?,
        })
    };
    let memory = &mut stats.memory;
    memory.raw = pairs(&raw);
    memory.cache = memory.raw.get("cache").copied().unwrap_or(0);
    memory.usage = entry("")?;
    memory.swap = entry(".memsw")?;
    memory.kernel = entry(".kmem")?;
    memory.kernel_tcp = entry(".kmem.tcp")?;
    Ok(())
}

type BlkioField = fn(&mut Blkio) -> &mut Vec<BlkioEntry>;

/// Files and fields. The first group whose first file has content is used.
const BLKIO: [&[(&str, BlkioField)]; 4] = [
    &[
        ("bfq.sectors_recursive", |io| &mut io.sectors_recursive),
        ("bfq.io_service_time_recursive", |io| &mut io.io_service_time_recursive),
        ("bfq.io_wait_time_recursive", |io| &mut io.io_wait_time_recursive),
        ("bfq.io_merged_recursive", |io| &mut io.io_merged_recursive),
        ("bfq.io_queued_recursive", |io| &mut io.io_queue_recursive),
        ("bfq.time_recursive", |io| &mut io.io_time_recursive),
        ("bfq.io_serviced_recursive", |io| &mut io.io_serviced_recursive),
        ("bfq.io_service_bytes_recursive", |io| &mut io.io_service_bytes_recursive),
    ],
    &[
        ("bfq.io_serviced_recursive", |io| &mut io.io_serviced_recursive),
        ("bfq.io_service_bytes_recursive", |io| &mut io.io_service_bytes_recursive),
    ],
    &[
        ("throttle.io_serviced_recursive", |io| &mut io.io_serviced_recursive),
        ("throttle.io_service_bytes_recursive", |io| &mut io.io_service_bytes_recursive),
    ],
    &[
        ("throttle.io_serviced", |io| &mut io.io_serviced_recursive),
        ("throttle.io_service_bytes", |io| &mut io.io_service_bytes_recursive),
    ],
];

fn v1_blkio(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    for group in BLKIO {
        for (index, (file, field)) in group.iter().enumerate() {
            let name = format!("blkio.{file}");
            let entries = match cgroup.read_if_there(&name)? {
                None => vec![],
                Some(content) => blkio(&content).ok_or_else(|| {
                    anyhow!("read {:?}: malformed line", cgroup.dir().join(Path::new(&name)))
                })?,
            };
            if entries.is_empty() && index == 0 {
                break;
            }
            *field(&mut stats.blkio) = entries;
            if index == group.len() - 1 {
                return Ok(());
            }
        }
    }
    Ok(())
}

/// Reads lines such as `8:0 Read 4096` or `8:0 4096`; leaves out the line `Total`.
fn blkio(content: &str) -> Option<Vec<BlkioEntry>> {
    let entry = |line: &str| -> Option<BlkioEntry> {
        let words: Vec<&str> = line.split_ascii_whitespace().collect();
        let (at, op, value) = match words[..] {
            [at, op, value] => (at, op, value),
            [at, value] => (at, "", value),
            _ => return None,
        };
        let (major, minor) = device(at)?;
        Some(BlkioEntry { major, minor, op: op.to_owned(), value: value.parse().ok()? })
    };
    content.lines().filter(|line| !line.starts_with("Total ")).map(entry).collect()
}

fn v1_hugetlb(cgroup: &Hierarchy, stats: &mut Stats) -> Result<()> {
    for size in huge_page_sizes() {
        let of = |file: &str| number(cgroup, &format!("hugetlb.{size}.rsvd.{file}"));
        let Some(usage) = of("usage_in_bytes")? else { continue };
        let (max, failcnt) = (of("max_usage_in_bytes")?.unwrap_or(0), of("failcnt")?.unwrap_or(0));
        stats.hugetlb.insert(size, Hugetlb { usage, max, failcnt });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
