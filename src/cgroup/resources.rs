//! `linux.resources`: what config.json and all updates so far ask of the controllers.
//!
//! It has the shape that it has in config.json: `update --resources` reads it, state.json keeps it, and `update`
//! merges two of them.
//! Not for: how a controller is told (`limits`), device rules (`devices`).

use crate::log;
use oci_spec::runtime as oci;
use serde::{Deserialize, Deserializer, Serialize};
use std::collections::BTreeMap;

/// What config.json and all updates so far ask for. Zero means "not set", as engines expect.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)] // the names of the runtime-spec
pub struct Resources {
    /// Only for `create`. They are not kept, because an update does not change the devices.
    #[serde(deserialize_with = "nullable", skip_serializing)]
    pub devices: Vec<oci::LinuxDeviceCgroup>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub memory: Memory,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub cpu: Cpu,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub pids: Pids,
    #[serde(rename = "blockIO", deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub block_io: BlockIo,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub hugepage_limits: Vec<Hugepage>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub network: Network,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub rdma: BTreeMap<String, Rdma>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub unified: BTreeMap<String, String>,
}

/// `linux.resources.memory`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Memory {
    #[serde(skip_serializing_if = "unset")]
    pub limit: Option<i64>,
    #[serde(skip_serializing_if = "unset")]
    pub reservation: Option<i64>,
    #[serde(skip_serializing_if = "unset")]
    pub swap: Option<i64>,
    /// Ignored, with a warning.
    #[serde(skip_serializing)]
    pub kernel: Option<i64>,
    /// Ignored on version 2, with a warning.
    #[serde(rename = "kernelTCP", skip_serializing_if = "unset")]
    pub kernel_tcp: Option<i64>,
    #[serde(skip_serializing_if = "unset")]
    pub swappiness: Option<u64>,
    #[serde(rename = "disableOOMKiller", deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub disable_oom_killer: bool,
    /// Three states: if an update does not name it, the former value stays.
    #[serde(skip_serializing_if = "unset")]
    pub check_before_update: Option<bool>,
}

impl Memory {
    /// Warns of settings that have no effect, in runc's words.
    pub fn warn_of_ignored(&self, version_2: bool) {
        if self.kernel.is_some() || (version_2 && self.kernel_tcp.is_some()) {
            log::warn("Kernel memory settings are ignored and will be removed");
        }
    }
}

/// `linux.resources.cpu`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Cpu {
    #[serde(skip_serializing_if = "unset")]
    pub shares: Option<u64>,
    #[serde(skip_serializing_if = "unset")]
    pub quota: Option<i64>,
    #[serde(skip_serializing_if = "unset")]
    pub burst: Option<u64>,
    #[serde(skip_serializing_if = "unset")]
    pub period: Option<u64>,
    #[serde(skip_serializing_if = "unset")]
    pub realtime_runtime: Option<i64>,
    #[serde(skip_serializing_if = "unset")]
    pub realtime_period: Option<u64>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub cpus: String,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub mems: String,
    #[serde(skip_serializing_if = "unset")]
    pub idle: Option<i64>,
}

/// `linux.resources.pids`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Pids {
    #[serde(skip_serializing_if = "unset")]
    pub limit: Option<i64>,
}

/// `linux.resources.blockIO`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct BlockIo {
    #[serde(skip_serializing_if = "unset")]
    pub weight: Option<u16>,
    #[serde(skip_serializing_if = "unset")]
    pub leaf_weight: Option<u16>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub weight_device: Vec<WeightDevice>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub throttle_read_bps_device: Vec<ThrottleDevice>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub throttle_write_bps_device: Vec<ThrottleDevice>,
    #[serde(rename = "throttleReadIOPSDevice", deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub throttle_read_iops_device: Vec<ThrottleDevice>,
    #[serde(
        rename = "throttleWriteIOPSDevice",
        deserialize_with = "nullable",
        skip_serializing_if = "unset"
    )]
    pub throttle_write_iops_device: Vec<ThrottleDevice>,
}

/// A block device's share of the bandwidth.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct WeightDevice {
    pub major: i64,
    pub minor: i64,
    #[serde(default, skip_serializing_if = "unset")]
    pub weight: Option<u16>,
    #[serde(default, skip_serializing_if = "unset")]
    pub leaf_weight: Option<u16>,
}

/// A block device's upper limit, per second.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct ThrottleDevice {
    pub major: i64,
    pub minor: i64,
    pub rate: u64,
}

/// An entry of `linux.resources.hugepageLimits`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[allow(missing_docs)]
pub struct Hugepage {
    // runc ignores the case of names, and its own suite writes this one in lower case.
    #[serde(rename = "pageSize", alias = "pagesize")]
    pub page_size: String,
    pub limit: u64,
}

/// `linux.resources.network`
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
#[allow(missing_docs)]
pub struct Network {
    #[serde(rename = "classID", skip_serializing_if = "unset")]
    pub class_id: Option<u32>,
    #[serde(deserialize_with = "nullable", skip_serializing_if = "unset")]
    pub priorities: Vec<Priority>,
}

/// An interface's traffic priority.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[allow(missing_docs)]
pub struct Priority {
    pub name: String,
    pub priority: u32,
}

/// Limits of one RDMA device.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Rdma {
    #[serde(skip_serializing_if = "unset")]
    pub hca_handles: Option<u32>,
    #[serde(skip_serializing_if = "unset")]
    pub hca_objects: Option<u32>,
}

fn unset<T: Default + PartialEq>(value: &T) -> bool {
    *value == T::default()
}

/// Engines written in Go send `null` for a value that they left out.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(from: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(from)?.unwrap_or_default())
}

impl Resources {
    /// The resources after an `update` that asks for `asked`. What the update does not name stays. Block devices are
    /// replaced one by one, `unified` as a whole.
    #[must_use]
    pub fn updated(&self, asked: &Resources) -> Resources {
        let (memory, cpu) = (&asked.memory, &asked.cpu);
        // If an update lifts the memory limit and does not name swap, the swap limit goes too: it needs a memory
        // limit.
        let swap = memory.swap.or((memory.limit == Some(-1)).then_some(0));
        // The kernel refuses a weight for an idle group, so the former shares go.
        let shares = cpu.shares.or(cpu.idle.map(|_| 0));
        let (period, quota) = match (cpu.period.unwrap_or(0), cpu.quota.unwrap_or(0)) {
            (0, 0) => (None, None),
            (0, quota) => (self.cpu.period, Some(quota)),
            (period, 0) => (Some(period), self.cpu.quota),
            (period, quota) => (Some(period), Some(quota)),
        };
        Resources {
            memory: Memory {
                limit: memory.limit.or(self.memory.limit),
                reservation: memory.reservation.or(self.memory.reservation),
                swap: swap.or(self.memory.swap),
                kernel: None,
                kernel_tcp: memory.kernel_tcp.or(self.memory.kernel_tcp),
                check_before_update: memory.check_before_update.or(self.memory.check_before_update),
                ..self.memory
            },
            cpu: Cpu {
                shares: shares.or(self.cpu.shares),
                quota,
                period,
                realtime_runtime: cpu.realtime_runtime.or(self.cpu.realtime_runtime),
                realtime_period: cpu.realtime_period.or(self.cpu.realtime_period),
                // Only this update writes these; the kernel keeps the former values.
                burst: cpu.burst,
                cpus: cpu.cpus.clone(),
                mems: cpu.mems.clone(),
                idle: cpu.idle,
            },
            pids: asked.pids.clone(),
            block_io: self.block_io.updated(&asked.block_io),
            unified: asked.unified.clone(),
            ..self.clone()
        }
    }
}

impl BlockIo {
    fn updated(&self, asked: &BlockIo) -> BlockIo {
        let mut now = self.clone();
        now.weight = asked.weight.or(now.weight);
        now.leaf_weight = asked.leaf_weight.or(now.leaf_weight);
        for device in &asked.weight_device {
            let of = |old: &&mut WeightDevice| (old.major, old.minor) == (device.major, device.minor);
            match now.weight_device.iter_mut().rev().find(of) {
                Some(old) => {
                    old.weight = device.weight.or(old.weight);
                    old.leaf_weight = device.leaf_weight.or(old.leaf_weight);
                }
                None => now.weight_device.push(device.clone()),
            }
        }
        for (old, new) in [
            (&mut now.throttle_read_bps_device, &asked.throttle_read_bps_device),
            (&mut now.throttle_write_bps_device, &asked.throttle_write_bps_device),
            (&mut now.throttle_read_iops_device, &asked.throttle_read_iops_device),
            (&mut now.throttle_write_iops_device, &asked.throttle_write_iops_device),
        ] {
            for device in new {
                let of = |old: &&mut ThrottleDevice| (old.major, old.minor) == (device.major, device.minor);
                match old.iter_mut().rev().find(of) {
                    Some(same) => same.rate = device.rate,
                    None => old.push(device.clone()),
                }
            }
        }
        now
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(json: &str) -> Resources {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn an_update_keeps_what_it_does_not_name() {
        let old = parse(
            r#"{"memory":{"limit":100,"swap":200,"reservation":50},"cpu":{"shares":512,"period":1000,"quota":500}}"#,
        );
        let new = old.updated(&parse(r#"{"memory":{"limit":80},"cpu":{"quota":700}}"#));
        assert_eq!(
            (new.memory.limit, new.memory.swap, new.memory.reservation),
            (Some(80), Some(200), Some(50))
        );
        assert_eq!((new.cpu.period, new.cpu.quota, new.cpu.shares), (Some(1000), Some(700), Some(512)));
    }

    #[test]
    fn unlimited_memory_forgets_the_swap_limit_and_idle_forgets_the_shares() {
        let old = parse(r#"{"memory":{"limit":100,"swap":200},"cpu":{"shares":512}}"#);
        let new = old.updated(&parse(r#"{"memory":{"limit":-1},"cpu":{"idle":1}}"#));
        assert_eq!((new.memory.limit, new.memory.swap), (Some(-1), Some(0)));
        assert_eq!(new.cpu.shares, Some(0));
    }

    #[test]
    fn block_devices_are_replaced_one_by_one_and_unified_as_a_whole() {
        let old = parse(
            r#"{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":0,"rate":1},{"major":8,"minor":1,"rate":2}]},
                "unified":{"memory.high":"1"}}"#,
        );
        let new = old.updated(&parse(
            r#"{"blockIO":{"throttleReadIOPSDevice":[{"major":8,"minor":1,"rate":9},{"major":9,"minor":0,"rate":3}]}}"#,
        ));
        let rates: Vec<u64> =
            new.block_io.throttle_read_iops_device.iter().map(|device| device.rate).collect();
        assert_eq!(rates, [1, 9, 3]);
        assert!(new.unified.is_empty());
    }

    #[test]
    fn nulls_are_what_was_left_out() {
        let parsed = parse(
            r#"{"memory":null,"cpu":{"cpus":null,"shares":null},"pids":{},"blockIO":{"weightDevice":null},"unified":null}"#,
        );
        assert_eq!(parsed, Resources::default());
        assert_eq!(serde_json::to_string(&parsed).unwrap(), "{}");
    }
}
