//! config.json → plan. Any bytes give a plan or an error, with bounded memory and time.

#![no_main]

use libfuzzer_sys::{fuzz_mutator, fuzz_target};
use orlop::bundle::{self, Bundle};
use orlop::cgroup::systemd::Bus;
use orlop::host::{CgroupMode, Host};
use orlop::plan::{Inherited, Plan, Request};
use orlop::spec::Spec;
use orlop_fuzz::{json, memory};

fn host(cgroup_mode: CgroupMode, id: u32, initial_user_namespace: bool) -> Host {
    Host { cgroup_mode, euid: id, egid: id, initial_user_namespace }
}

fn plan(text: &[u8], which: usize) -> anyhow::Result<Plan> {
    let spec: Box<Spec> = bundle::parse(text)?;
    bundle::check_version(&spec.oci_version)?;
    let (host, systemd) = match which {
        0 => (host(CgroupMode::Unified, 0, true), None),
        1 => (host(CgroupMode::Hybrid, 0, true), None),
        2 => (host(CgroupMode::Unified, 1000, true), Some(Bus::User("unix:path=/run/user/1000/bus".into()))),
        3 => (host(CgroupMode::Unified, 0, true), Some(Bus::System)),
        _ => (host(CgroupMode::Legacy, 0, false), None),
    };
    let request = Request {
        id: "fuzz",
        cgroup: true,
        systemd,
        rootless: host.rootless(),
        no_pivot: false,
        new_keyring: true,
        inherited: Inherited { listen: 0, preserve: (which as u32) % 2 },
        notify: (which == 3).then(|| "/run/orlop/fuzz/notify".into()),
    };
    Plan::create(&Bundle { path: "/bundle".into(), file: "config.json".into(), spec }, &host, &request)
}

fuzz_target!(|text: &[u8]| {
    let which = text.iter().map(|byte| usize::from(*byte)).sum::<usize>() % 5;
    let planned = memory::bounded(text, || plan(text, which));
    let shown = |planned: anyhow::Result<Plan>| match planned {
        Ok(mut plan) => {
            // The name of the session keyring is random.
            plan.process.keyring = None;
            serde_json::to_string(&plan).expect("a plan can be printed")
        }
        Err(error) => format!("{error:#}"),
    };
    let (first, second) = (shown(planned), shown(plan(text, which)));
    assert_eq!(first, second, "the same input, twice");
    assert!(!first.is_empty(), "the error has no text");
});

fuzz_mutator!(|data: &mut [u8], size: usize, most: usize, seed: u32| {
    json::mutate(data, size, most, seed)
});
