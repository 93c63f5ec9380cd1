//! `update`: changes the limits of a container, and records the new limits.

use crate::bundle;
use crate::cgroup::Resources;
use crate::cli;
use crate::cli::global::Global;
use crate::cli::values::MemorySize;
use crate::log;
use crate::parts::intel_rdt;
use crate::state::{Container, Error, Record, Status};
use anyhow::{Context, Result, ensure};

/// Runs the verb.
///
/// # Errors
/// The container is not running, a value is invalid, or the kernel refuses one. Then the old limits are restored.
pub fn run(args: &cli::Update, global: &Global) -> Result<i32> {
    let asked = asked(args)?;
    // The record is read again under the lock: otherwise one of two updates at the same time would be lost.
    let found = Container::load(&global.root, &args.id)?;
    let _lock = found.dir.lock()?;
    let mut record = found.dir.load()?;
    if matches!(found.dir.status(record.essentials())?, Status::Stopped | Status::Creating) {
        return Err(Error::NotRunning.into());
    }
    asked.memory.warn_of_ignored(record.orlop.cgroup.version_2());
    let rdt = share(args, &record)?;
    // Before anything changes, find out whether the record can be written.
    found.dir.rehearse(&record)?;
    let before = record.orlop.cgroup.resources().clone();
    record.orlop.cgroup.update(&asked)?;
    let done =
        rdt.map_or(Ok(()), |rdt| apply_share(&rdt, &mut record)).and_then(|()| found.dir.commit(&record));
    if let Err(error) = done {
        if let Err(left) = record.orlop.cgroup.update(&before) {
            log::warn(format!("update {}: old limits not restored: {left:#}", args.id));
        }
        return Err(error);
    }
    Ok(0)
}

/// The new limits: those of the file `--resources`, or else those of the options.
fn asked(args: &cli::Update) -> Result<Resources> {
    let mut asked = match &args.resources {
        Some(path) => bundle::load_part("--resources", path)?,
        None => from_options(args),
    };
    let kept = [
        ("devices", !asked.devices.is_empty()),
        ("hugepageLimits", !asked.hugepage_limits.is_empty()),
        ("network", asked.network != Default::default()),
        ("rdma", !asked.rdma.is_empty()),
        ("memory.swappiness", asked.memory.swappiness.is_some()),
        ("memory.disableOOMKiller", asked.memory.disable_oom_killer),
    ];
    for (name, _) in kept.iter().filter(|(_, given)| *given) {
        log::debug(|| format!("update: {name} ignored, only create sets it"));
    }
    // The check of memory limits that config.json asked `create` for does not hold for `update`.
    asked.memory.check_before_update.get_or_insert(false);
    Ok(asked)
}

fn from_options(args: &cli::Update) -> Resources {
    let size = |size: Option<MemorySize>| size.map(MemorySize::as_spec);
    let mut asked = Resources::default();
    asked.memory.limit = size(args.memory);
    asked.memory.reservation = size(args.memory_reservation);
    asked.memory.swap = size(args.memory_swap);
    asked.memory.kernel = size(args.kernel_memory);
    asked.memory.kernel_tcp = size(args.kernel_memory_tcp);
    asked.cpu.shares = args.cpu_share;
    asked.cpu.quota = args.cpu_quota;
    asked.cpu.period = args.cpu_period;
    asked.cpu.burst = args.cpu_burst;
    asked.cpu.realtime_period = args.cpu_rt_period;
    asked.cpu.realtime_runtime = args.cpu_rt_runtime;
    asked.cpu.cpus = args.cpuset_cpus.clone().unwrap_or_default();
    asked.cpu.mems = args.cpuset_mems.clone().unwrap_or_default();
    asked.cpu.idle = args.cpu_idle;
    asked.pids.limit = args.pids_limit;
    // 0 is the default of runc's option, and means that it is not given.
    asked.block_io.weight = args.blkio_weight.filter(|weight| *weight != 0);
    asked
}

/// The container's new share of cache and memory bandwidth: its former share with the changes of this update.
struct Share {
    said: oci_spec::runtime::LinuxIntelRdt,
    plan: intel_rdt::IntelRdt,
}

fn share(args: &cli::Update, record: &Record) -> Result<Option<Share>> {
    let (l3, bandwidth) = (&args.l3_cache_schema, &args.mem_bw_schema);
    if l3.is_none() && bandwidth.is_none() {
        return Ok(None);
    }
    let host = intel_rdt::probe();
    let can = |what: fn(&intel_rdt::Resctrl) -> bool| host.as_ref().is_some_and(what);
    ensure!(l3.is_none() || can(|host| host.l3_cache), "Intel RDT/CAT: l3 cache schema is not enabled");
    ensure!(
        bandwidth.is_none() || can(|host| host.memory_bandwidth),
        "Intel RDT/MBA: memory bandwidth schema is not enabled"
    );
    let said = record.orlop.intel_rdt.as_ref();
    let mut said = said.context("updating a non-existent Intel RDT configuration is not supported")?.clone();
    if let Some(schema) = l3 {
        said.set_l3_cache_schema(Some(schema.clone()));
    }
    if let Some(schema) = bandwidth {
        said.set_mem_bw_schema(Some(schema.clone()));
    }
    let plan = intel_rdt::plan(&said, &record.id, host.as_ref())?;
    Ok(Some(Share { said, plan }))
}

fn apply_share(share: &Share, record: &mut Record) -> Result<()> {
    let group = record.orlop.resctrl.as_ref().context("linux.intelRdt: the container has no group")?;
    share.plan.set(group)?;
    record.orlop.intel_rdt = Some(share.said.clone());
    Ok(())
}
