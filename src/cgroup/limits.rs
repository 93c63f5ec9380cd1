//! Turns resources into writes: which file of which controller gets which value, in which order.
//!
//! Pure, and without a look at the host. What depends on the kernel is part of each [`Write`]: a file that may be
//! missing, an order that depends on the former values.
//! Not for: the writing (`hierarchy`).

use super::resources::{BlockIo, Resources, ThrottleDevice};
use anyhow::{Context, Result, bail};
use serde::Serialize;
use std::borrow::Cow;

/// One value for one file of a controller.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Write {
    /// The controller that has the file.
    pub controller: Cow<'static, str>,
    /// Name of the file in the container's directory.
    pub file: Cow<'static, str>,
    /// The value.
    pub value: String,
    /// The config pointer that asks for it.
    pub pointer: Cow<'static, str>,
    /// What a missing file means.
    pub missing: Missing,
    /// What EINVAL means.
    pub order: Order,
}

impl Write {
    /// The same file, without a limit.
    pub(super) fn lifted(&self) -> Self {
        Self { value: "max".to_owned(), ..self.clone() }
    }
}

/// What a missing file means.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub enum Missing {
    /// The limit cannot be kept: this is an error.
    Fails,
    /// Nothing is lost: the kernel was built or booted without the feature.
    Ignored,
    /// Another value in another file sets the same limit.
    Instead(&'static str, String),
}

/// What it means if the kernel answers EINVAL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum Order {
    /// The value is invalid.
    Now,
    /// Perhaps another of these values must be written first: so this one is tried again after them.
    AgainAtTheEnd,
}

/// All writes for a container.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Limits {
    /// The writes, in their order.
    pub writes: Vec<Write>,
    /// Version 2: refuse memory limits below the present usage. The pair is `(memory, memory and swap)`.
    pub check_usage: Option<(i64, i64)>,
}

struct Writes(Vec<Write>);

impl Writes {
    #[allow(clippy::indexing_slicing, reason = "the last one has just been pushed")]
    fn add(
        &mut self,
        controller: &'static str,
        file: impl Into<Cow<'static, str>>,
        pointer: impl Into<Cow<'static, str>>,
        value: impl ToString,
    ) -> &mut Write {
        self.0.push(Write {
            controller: Cow::Borrowed(controller),
            file: file.into(),
            value: value.to_string(),
            pointer: pointer.into(),
            missing: Missing::Fails,
            order: Order::Now,
        });
        let last = self.0.len() - 1;
        &mut self.0[last]
    }
}

/// Takes zero as "not set".
fn set<T: Default + PartialEq + Copy>(value: Option<T>) -> Option<T> {
    value.filter(|value| *value != T::default())
}

const MEMORY: &str = "linux.resources.memory.limit";
const SWAP: &str = "linux.resources.memory.swap";
const RESERVATION: &str = "linux.resources.memory.reservation";
const PIDS: &str = "linux.resources.pids.limit";

/// The writes for a host with version 1 controllers.
///
/// # Errors
/// Version 1 cannot express a value, or the kernel never accepts it. The error names its config pointer.
pub fn v1(asked: &Resources) -> Result<Limits> {
    if !asked.unified.is_empty() {
        bail!("linux.resources.unified: invalid configuration: cannot use unified on cgroup v1");
    }
    let mut writes = Writes(vec![]);
    cpuset(&mut writes, asked);
    v1_memory(&mut writes, asked)?;
    v1_cpu(&mut writes, asked)?;
    pids(&mut writes, asked);
    v1_block_io(&mut writes, &asked.block_io);
    hugetlb(&mut writes, asked, "limit_in_bytes")?;
    let network = &asked.network;
    if let Some(class) = set(network.class_id) {
        writes.add("net_cls", "net_cls.classid", "linux.resources.network.classID", class);
    }
    for (index, entry) in network.priorities.iter().enumerate() {
        let pointer = format!("linux.resources.network.priorities[{index}]");
        no_break(&entry.name).context(pointer.clone())?;
        let value = format!("{} {}", entry.name, entry.priority);
        writes.add("net_prio", "net_prio.ifpriomap", pointer, value);
    }
    rdma(&mut writes, asked)?;
    Ok(Limits { writes: writes.0, check_usage: None })
}

/// The writes for a host with version 2 only.
pub fn v2(asked: &Resources) -> Result<Limits> {
    let mut writes = Writes(vec![]);
    pids(&mut writes, asked);
    v2_memory(&mut writes, asked)?;
    v2_block_io(&mut writes, &asked.block_io);
    v2_cpu(&mut writes, asked);
    cpuset(&mut writes, asked);
    hugetlb(&mut writes, asked, "max")?;
    rdma(&mut writes, asked)?;
    unified(&mut writes, asked)?;
    let memory = &asked.memory;
    let limits = (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0));
    let check_usage = memory.check_before_update == Some(true) && (limits.0 > 0 || limits.1 > 0);
    Ok(Limits { writes: writes.0, check_usage: check_usage.then_some(limits) })
}

fn pids(writes: &mut Writes, asked: &Resources) {
    let value = match asked.pids.limit {
        None => return,
        // systemd cannot express 0, and a container needs one process anyway.
        Some(0) => "1".to_owned(),
        Some(limit) if limit > 0 => limit.to_string(),
        Some(_) => "max".to_owned(),
    };
    writes.add("pids", "pids.max", PIDS, value);
}

fn cpuset(writes: &mut Writes, asked: &Resources) {
    let cpu = &asked.cpu;
    for (file, pointer, value) in [
        ("cpuset.cpus", "linux.resources.cpu.cpus", &cpu.cpus),
        ("cpuset.mems", "linux.resources.cpu.mems", &cpu.mems),
    ] {
        if !value.is_empty() {
            writes.add("cpuset", file, pointer, value);
        }
    }
}

fn v1_memory(writes: &mut Writes, asked: &Resources) -> Result<()> {
    let memory = &asked.memory;
    // The former limits decide which of the two must be first: the kernel keeps the swap limit at or above the memory
    // limit.
    if let Some(limit) = set(memory.limit) {
        writes.add("memory", "memory.limit_in_bytes", MEMORY, limit).order = Order::AgainAtTheEnd;
    }
    match (set(memory.limit), set(memory.swap)) {
        // A swap limit would still limit the memory.
        (Some(-1), None) => {
            let write = writes.add("memory", "memory.memsw.limit_in_bytes", MEMORY, -1);
            // Written before the memory limit, which it bounds. Without swap accounting there is nothing to lift.
            write.missing = Missing::Ignored;
        }
        (_, Some(swap)) => {
            writes.add("memory", "memory.memsw.limit_in_bytes", SWAP, swap).order = Order::AgainAtTheEnd;
        }
        (_, None) => {}
    }
    if let Some(reservation) = set(memory.reservation) {
        writes.add("memory", "memory.soft_limit_in_bytes", RESERVATION, reservation);
    }
    if let Some(limit) = set(memory.kernel_tcp) {
        writes.add("memory", "memory.kmem.tcp.limit_in_bytes", "linux.resources.memory.kernelTCP", limit);
    }
    if memory.disable_oom_killer {
        writes.add("memory", "memory.oom_control", "linux.resources.memory.disableOOMKiller", 1);
    }
    match memory.swappiness {
        // -1 in an unsigned field means "leave it".
        None | Some(u64::MAX) => {}
        Some(swappiness @ 0..=100) => {
            writes.add("memory", "memory.swappiness", "linux.resources.memory.swappiness", swappiness);
        }
        Some(other) => bail!(
            "linux.resources.memory.swappiness: invalid memory swappiness value: {other} (valid range is 0-100)"
        ),
    }
    Ok(())
}

fn v2_memory(writes: &mut Writes, asked: &Resources) -> Result<()> {
    let memory = &asked.memory;
    let (limit, both) = (memory.limit.unwrap_or(0), memory.swap.unwrap_or(0));
    let swap = swap_alone(both, limit).context(SWAP)?;
    if let Some(swap) = swap {
        let write = writes.add("memory", "memory.swap.max", SWAP, max_or(swap));
        // Without swap accounting there is no swap to forbid or to allow.
        if swap <= 0 {
            write.missing = Missing::Ignored;
        }
    }
    if limit != 0 {
        writes.add("memory", "memory.max", MEMORY, max_or(limit));
    }
    if let Some(reservation) = set(memory.reservation) {
        writes.add("memory", "memory.low", RESERVATION, max_or(reservation));
    }
    Ok(())
}

/// The limit of swap alone. Version 1, and so config.json, limits the sum of memory and swap; version 2 limits each.
pub(super) fn swap_alone(both: i64, memory: i64) -> Result<Option<i64>> {
    Ok(match (both, memory) {
        (0, -1) | (-1, _) => Some(-1),
        (0, _) => None,
        (both, -1) => Some(both),
        (_, 0) => bail!("unable to set swap limit without memory limit"),
        (_, memory) if memory < 0 => bail!("invalid memory value: {memory}"),
        (both, memory) if both < memory => bail!("memory+swap limit should be >= memory limit"),
        (both, memory) => Some(both - memory),
    })
}

fn max_or(value: i64) -> String {
    if value == -1 { "max".to_owned() } else { value.to_string() }
}

fn v1_cpu(writes: &mut Writes, asked: &Resources) -> Result<()> {
    let cpu = &asked.cpu;
    if let Some(shares) = set(cpu.shares) {
        // The kernel changes a number that is out of range into one that is not. That is not what the user asked for.
        match shares {
            1 => bail!("linux.resources.cpu.shares: the minimum allowed cpu-shares is 2"),
            262_145.. => bail!("linux.resources.cpu.shares: the maximum allowed cpu-shares is 262144"),
            _ => writes.add("cpu", "cpu.shares", "linux.resources.cpu.shares", shares),
        };
    }
    // The kernel checks period, burst and quota against each other and against the parent's quota.
    let order = if set(cpu.quota).is_some() { Order::AgainAtTheEnd } else { Order::Now };
    if let Some(period) = set(cpu.period) {
        writes.add("cpu", "cpu.cfs_period_us", "linux.resources.cpu.period", period).order = order;
    }
    if let Some(burst) = cpu.burst {
        writes.add("cpu", "cpu.cfs_burst_us", "linux.resources.cpu.burst", burst).order = order;
    }
    if let Some(quota) = set(cpu.quota) {
        writes.add("cpu", "cpu.cfs_quota_us", "linux.resources.cpu.quota", quota);
    }
    if let Some(idle) = cpu.idle {
        writes.add("cpu", "cpu.idle", "linux.resources.cpu.idle", idle);
    }
    let order = if set(cpu.realtime_runtime).is_some() { Order::AgainAtTheEnd } else { Order::Now };
    if let Some(period) = set(cpu.realtime_period) {
        writes.add("cpu", "cpu.rt_period_us", "linux.resources.cpu.realtimePeriod", period).order = order;
    }
    if let Some(runtime) = set(cpu.realtime_runtime) {
        writes.add("cpu", "cpu.rt_runtime_us", "linux.resources.cpu.realtimeRuntime", runtime);
    }
    Ok(())
}

fn v2_cpu(writes: &mut Writes, asked: &Resources) {
    let cpu = &asked.cpu;
    if let Some(idle) = cpu.idle {
        writes.add("cpu", "cpu.idle", "linux.resources.cpu.idle", idle);
    }
    if let Some(shares) = set(cpu.shares) {
        writes.add("cpu", "cpu.weight", "linux.resources.cpu.shares", weight_of(shares));
    }
    let (quota, period) = (set(cpu.quota), set(cpu.period));
    if let Some(burst) = cpu.burst {
        let write = writes.add("cpu", "cpu.max.burst", "linux.resources.cpu.burst", burst);
        if quota.is_some() {
            write.order = Order::AgainAtTheEnd;
        }
    }
    if quota.is_some() || period.is_some() {
        let pointer =
            if quota.is_some() { "linux.resources.cpu.quota" } else { "linux.resources.cpu.period" };
        let limit =
            quota.filter(|quota| *quota > 0).map_or_else(|| "max".to_owned(), |quota| quota.to_string());
        writes.add("cpu", "cpu.max", pointer, format!("{limit} {}", period.unwrap_or(100_000)));
    }
}

/// Version 1 shares (2 to 262144, usually 1024) as a version 2 weight (1 to 10000, usually 100): the parabola through
/// these three points, in logarithms.
pub fn weight_of(shares: u64) -> u64 {
    match shares {
        0..=2 => 1,
        262_144.. => 10_000,
        _ => {
            let log = (shares as f64).log2();
            10f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0).ceil() as u64
        }
    }
}

fn throttles(io: &BlockIo) -> [(&'static str, &'static str, &'static str, &[ThrottleDevice]); 4] {
    //  config.json                v1 file                             v2 key
    [
        ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", &io.throttle_read_bps_device),
        ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", &io.throttle_write_bps_device),
        ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", &io.throttle_read_iops_device),
        (
            "throttleWriteIOPSDevice",
            "blkio.throttle.write_iops_device",
            "wiops",
            &io.throttle_write_iops_device,
        ),
    ]
}

fn v1_block_io(writes: &mut Writes, io: &BlockIo) {
    // CFQ's name for the file (before Linux 5.0), or else BFQ's.
    let mut weight = |file: &'static str, bfq: &'static str, pointer: String, value: String| {
        let write = writes.add("blkio", file, pointer, &value);
        write.missing = Missing::Instead(bfq, value);
    };
    if let Some(value) = set(io.weight) {
        let pointer = "linux.resources.blockIO.weight".to_owned();
        weight("blkio.weight", "blkio.bfq.weight", pointer, value.to_string());
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        if let Some(value) = set(device.weight) {
            let pointer = format!("linux.resources.blockIO.weightDevice[{index}].weight");
            let value = format!("{}:{} {value}", device.major, device.minor);
            weight("blkio.weight_device", "blkio.bfq.weight_device", pointer, value);
        }
    }
    if let Some(value) = set(io.leaf_weight) {
        writes.add("blkio", "blkio.leaf_weight", "linux.resources.blockIO.leafWeight", value);
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        if let Some(value) = set(device.leaf_weight) {
            let pointer = format!("linux.resources.blockIO.weightDevice[{index}].leafWeight");
            let value = format!("{}:{} {value}", device.major, device.minor);
            writes.add("blkio", "blkio.leaf_weight_device", pointer, value);
        }
    }
    for (name, file, _, devices) in throttles(io) {
        for (index, device) in devices.iter().enumerate() {
            let value = format!("{}:{} {}", device.major, device.minor, device.rate);
            writes.add("blkio", file, format!("linux.resources.blockIO.{name}[{index}]"), value);
        }
    }
}

fn v2_block_io(writes: &mut Writes, io: &BlockIo) {
    if let Some(weight) = set(io.weight) {
        let write = writes.add("io", "io.bfq.weight", "linux.resources.blockIO.weight", weight);
        // Maps 10..1000 to 1..10000.
        let linear = 1 + u64::from(weight.saturating_sub(10)) * 9999 / 990;
        write.missing = Missing::Instead("io.weight", linear.to_string());
    }
    for (index, device) in io.weight_device.iter().enumerate() {
        if let Some(weight) = set(device.weight) {
            let pointer = format!("linux.resources.blockIO.weightDevice[{index}].weight");
            let value = format!("{}:{} {weight}", device.major, device.minor);
            // Only the BFQ scheduler has weights for devices.
            writes.add("io", "io.bfq.weight", pointer, value).missing = Missing::Ignored;
        }
    }
    for (name, _, key, devices) in throttles(io) {
        for (index, device) in devices.iter().enumerate() {
            // In config.json, as in version 1, zero lifts a limit.
            let rate = if device.rate == 0 { "max".to_owned() } else { device.rate.to_string() };
            let value = format!("{}:{} {key}={rate}", device.major, device.minor);
            writes.add("io", "io.max", format!("linux.resources.blockIO.{name}[{index}]"), value);
        }
    }
}

fn hugetlb(writes: &mut Writes, asked: &Resources, suffix: &str) -> Result<()> {
    for (index, page) in asked.hugepage_limits.iter().enumerate() {
        let pointer = format!("linux.resources.hugepageLimits[{index}]");
        if page.page_size.is_empty() || !page.page_size.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            bail!("{pointer}: page size {:?} is not a number and KB, MB or GB", page.page_size);
        }
        let file = |kind: &str| format!("hugetlb.{}{kind}.{suffix}", page.page_size);
        writes.add("hugetlb", file(""), pointer.clone(), page.limit);
        writes.add("hugetlb", file(".rsvd"), pointer, page.limit);
    }
    Ok(())
}

fn rdma(writes: &mut Writes, asked: &Resources) -> Result<()> {
    for (device, limits) in &asked.rdma {
        let pointer = format!("linux.resources.rdma.{device}");
        no_break(device).context(pointer.clone())?;
        let mut value = device.clone();
        for (key, limit) in [("hca_handle", limits.hca_handles), ("hca_object", limits.hca_objects)] {
            if let Some(limit) = limit {
                value.push_str(&format!(" {key}={limit}"));
            }
        }
        writes.add("rdma", "rdma.max", pointer, value);
    }
    Ok(())
}

/// The core's own files that are limits. Its other files act when they are written: `cgroup.procs` moves a process,
/// `cgroup.kill` and `cgroup.freeze` act on all processes, and `cgroup.subtree_control` locks the container out.
const CORE_LIMITS: [&str; 2] = ["cgroup.max.depth", "cgroup.max.descendants"];

fn unified(writes: &mut Writes, asked: &Resources) -> Result<()> {
    for (file, value) in &asked.unified {
        let pointer = format!("linux.resources.unified.{}", file.escape_debug());
        if file.contains('/') {
            bail!("{pointer}: unified resource {file:?} must be a file name (no slashes)");
        }
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        let Some((controller, _)) = file
            .split_once('.')
            .filter(|(controller, rest)| ![*controller, *rest].contains(&"") && file.bytes().all(plain))
        else {
            bail!("{pointer}: unified resource {file:?} must be in the form CONTROLLER.PARAMETER");
        };
        if controller == "cgroup" && !CORE_LIMITS.contains(&file.as_str()) {
            bail!(
                "{pointer}: unified resource {file:?} can't be set: of the cgroup.* files only {} are limits",
                CORE_LIMITS.join(" and ")
            );
        }
        // The kernel takes one line for each write.
        for line in value.split_inclusive('\n') {
            let write = writes.add("", file.clone(), pointer.clone(), line);
            write.controller = Cow::Owned(controller.to_owned());
        }
    }
    Ok(())
}

/// Checks a name that becomes part of a line for the kernel: it must not end the line or the word.
fn no_break(name: &str) -> Result<()> {
    if name.is_empty() || name.contains(|c: char| c.is_whitespace() || c == '\0') {
        bail!("{name:?} is not a device name");
    }
    Ok(())
}

#[cfg(test)]
mod tests;
