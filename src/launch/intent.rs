//! The record as it is written before the first side effect.

use crate::bundle::{Bundle, CONFIG};
use crate::cgroup::Cgroup;
use crate::host::Host;
use crate::parts::namespaces::Kind;
use crate::plan::Plan;
use crate::state::{self, Config, IdMapEntry, MountEntry, NamespaceEntry, Own, Phase, Record, Shown};
use crate::sys;
use crate::timestamp;
use anyhow::Result;
use serde::Serialize;
use serde_json::value::RawValue;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// Makes the whole record. A record that is too long to be read again is refused here, before anything is made.
///
/// # Errors
/// Those of /proc.
pub fn intent(plan: &Plan, bundle: &Bundle, host: &Host, cgroup: Cgroup) -> Result<Record> {
    let spec = &bundle.spec;
    let annotations = spec.annotations.clone().unwrap_or_default();
    let linux = spec.linux.as_ref();
    let namespace = |(kind, request): (&Kind, &crate::parts::namespaces::Request)| NamespaceEntry {
        kind: kind.state_key().into(),
        path: match request {
            crate::parts::namespaces::Request::New => PathBuf::new(),
            crate::parts::namespaces::Request::Join(path) => path.clone(),
        },
    };
    let mut record = Record {
        id: plan.id.clone(),
        init_process_pid: 0,
        init_process_start: 0,
        created: timestamp::rfc3339_nanos(SystemTime::now()),
        config: Config {
            version: spec.oci_version.clone(),
            rootfs: plan
                .root
                .as_ref()
                .map(|root| sys::path::as_path(&root.rootfs.path).into())
                .unwrap_or_default(),
            readonlyfs: spec.root.as_ref().is_some_and(|root| root.readonly().unwrap_or(false)),
            mounts: nothing(),
            namespaces: plan.namespaces.0.iter().map(namespace).collect(),
            labels: nothing(),
            uid_mappings: None,
            gid_mappings: None,
            rootless_euid: host.rootless(),
            rootless_cgroups: plan.cgroup.as_ref().is_some_and(|cgroup| cgroup.rootless),
        },
        rootless: host.rootless(),
        external_descriptors: nothing(),
        intel_rdt_path: plan
            .intel_rdt
            .as_ref()
            .map(|rdt| rdt.dir().to_string_lossy().into())
            .unwrap_or_default(),
        orlop: Box::new(Own {
            phase: Phase::Creating,
            owner: state::Process::own()?,
            boot_id: state::boot_id()?,
            cgroup,
            resctrl: None,
            bundle: bundle.path.clone(),
            config_file: Some(bundle.file.clone()).filter(|file| file != CONFIG),
            annotations,
            hooks: plan.hooks.clone(),
            hooks_ran: false,
            has_filter: plan.process.seccomp.is_some(),
            memory_policy: linux.and_then(|linux| linux.memory_policy.clone()),
            personality: linux.and_then(|linux| linux.personality.clone()),
            intel_rdt: linux.and_then(|linux| linux.intel_rdt.clone()),
            keyring: plan.process.keyring.is_some(),
            keyring_name: plan.process.keyring.as_ref().map(|keyring| keyring.name().to_owned()),
            exec_cpu_affinity: spec.process.as_ref().and_then(|process| process.exec_cpu_affinity.clone()),
        }),
    };
    show(&mut record, bundle)?;
    Ok(record)
}

/// Completes the record with what only other programs read. `delete` needs none of it.
///
/// # Errors
/// It cannot be written as JSON.
fn show(record: &mut Record, bundle: &Bundle) -> Result<()> {
    let spec = &bundle.spec;
    let labels = record.orlop.annotations.iter().map(|(key, value)| format!("{key}={value}"));
    let labels: Vec<_> = labels.chain([format!("bundle={}", bundle.path.display())]).collect();
    let mounts: Vec<_> = spec.mounts.iter().flatten().map(|said| mount(said, &bundle.path)).collect();
    let linux = spec.linux.as_ref();
    record.config.mounts = shown(&mounts)?;
    record.config.labels = shown(&labels)?;
    record.config.uid_mappings = id_map(linux.and_then(|linux| linux.uid_mappings.as_deref()))?;
    record.config.gid_mappings = id_map(linux.and_then(|linux| linux.gid_mappings.as_deref()))?;
    record.external_descriptors = shown(&external_descriptors())?;
    Ok(())
}

fn mount(said: &oci_spec::runtime::Mount, bundle: &Path) -> MountEntry {
    let options = said.options().as_deref().unwrap_or_default();
    let bind = options.iter().any(|option| option == "bind" || option == "rbind");
    let source = said.source().clone().unwrap_or_default();
    MountEntry {
        source: if bind { bundle.join(source) } else { source },
        destination: said.destination().clone(),
        device: if bind { "bind".into() } else { said.typ().clone().unwrap_or_default() },
    }
}

fn nothing() -> Shown {
    RawValue::NULL.to_owned()
}

fn shown(value: &impl Serialize) -> Result<Shown> {
    Ok(serde_json::value::to_raw_value(value)?)
}

fn id_map(said: Option<&[oci_spec::runtime::LinuxIdMapping]>) -> Result<Option<Shown>> {
    let row = |row: &oci_spec::runtime::LinuxIdMapping| IdMapEntry {
        container_id: row.container_id(),
        host_id: row.host_id(),
        size: row.size(),
    };
    let rows: Vec<_> = said.unwrap_or_default().iter().map(row).collect();
    if rows.is_empty() { Ok(None) } else { shown(&rows).map(Some) }
}

/// What 0, 1 and 2 are, as runc records it for a later checkpoint.
fn external_descriptors() -> Vec<String> {
    let link = |number: i32| rustix::fs::readlink(format!("/proc/self/fd/{number}"), Vec::new());
    (0..3)
        .map(|number| link(number).map(|path| path.to_string_lossy().into_owned()).unwrap_or_default())
        .collect()
}
