//! Device rules → normal form → BPF. The program must decide as the list of rules does, and the kernel's verifier must
//! accept it.

#![no_main]

use arbitrary::{Arbitrary, Result, Unstructured};
use libfuzzer_sys::fuzz_target;
use oci_spec::runtime::LinuxDeviceCgroup;
use orlop::cgroup::devices::{self, Access, Kind, MKNOD, Policy, READ, WRITE, Which};
use orlop::sys::bpf;
use serde_json::json;
use std::collections::BTreeMap;

#[path = "../../src/cgroup/devices/machine.rs"]
mod machine;

/// Allow or deny, the devices, the access. `None` means every device: such a rule cancels the rules before it.
type Rule = (bool, Option<Which>, Access);

const NUMBERS: [i64; 12] = [-1, 0, 1, 2, 3, 5, 8, 10, 136, 200, 255, 0xffff_ffff];

fn rule(u: &mut Unstructured) -> Result<Rule> {
    let allow = u.arbitrary()?;
    let access = u.int_in_range(1..=7)?;
    if u.ratio(1, 8)? {
        return Ok((allow, None, access));
    }
    let number = |u: &mut Unstructured| -> Result<Option<u32>> {
        let said = if u.ratio(1, 8)? { i64::from(u32::arbitrary(u)?) } else { *u.choose(&NUMBERS)? };
        Ok(u32::try_from(said).ok())
    };
    let kind = *u.choose(&[Kind::Block, Kind::Char])?;
    Ok((allow, Some(Which { kind, major: number(u)?, minor: number(u)? }), access))
}

fn said(&(allow, which, access): &Rule) -> LinuxDeviceCgroup {
    let access = devices::letters(access);
    let rule = match which {
        None => json!({"allow": allow, "type": "a", "access": access}),
        Some(Which { kind, major, minor }) => {
            let mut rule = json!({"allow": allow, "access": access});
            rule["type"] = if kind == Kind::Block { "b" } else { "c" }.into();
            if let Some(major) = major {
                rule["major"] = major.into();
            }
            // A missing major and a minor of -1 both mean "every".
            rule["minor"] = minor.map_or(json!(-1), Into::into);
            rule
        }
    };
    serde_json::from_value(rule).expect("a rule")
}

/// The usual devices, which come after the rules of the config (config-linux.md, "Default Devices").
const USUAL: [(u32, Option<u32>); 9] = [
    (1, Some(3)),
    (1, Some(5)),
    (1, Some(7)),
    (1, Some(8)),
    (1, Some(9)),
    (5, Some(0)),
    (5, Some(2)),
    (10, Some(200)),
    (136, None),
];

fn usual() -> Vec<Rule> {
    let every = |kind| (true, Some(Which { kind, major: None, minor: None }), MKNOD);
    let mut rules = vec![every(Kind::Char), every(Kind::Block)];
    let one = |&(major, minor)| Which { kind: Kind::Char, major: Some(major), minor };
    rules.extend(USUAL.iter().map(|row| (true, Some(one(row)), READ | WRITE | MKNOD)));
    rules
}

fn covers(wide: Which, one: Which) -> bool {
    let within = |wide: Option<u32>, one: Option<u32>| wide.is_none() || wide == one;
    wide.kind == one.kind && within(wide.major, one.major) && within(wide.minor, one.minor)
}

/// Reads the rules as a list: true if this access to this device is allowed. Each rule about the device counts, in order.
/// If all is allowed by default, only the very same rule allows again what another rule has denied.
fn by_the_rules(rules: &[Rule], device: Which, bit: Access) -> bool {
    let begin = rules.iter().rposition(|(_, which, _)| which.is_none());
    let allow_by_default = begin.is_some_and(|at| rules[at].0);
    let rules = &rules[begin.map_or(0, |at| at + 1)..];
    let about = |which: &Which, access: Access| covers(*which, device) && access & bit != 0;
    let mut exceptions: BTreeMap<Which, bool> = BTreeMap::new();
    for &(allow, which, access) in rules {
        let Some(which) = which.filter(|which| about(which, access)) else { continue };
        if !allow_by_default && !allow {
            exceptions.retain(|narrow, _| !covers(which, *narrow));
        }
        if allow == allow_by_default {
            exceptions.remove(&which);
        } else {
            exceptions.insert(which, true);
        }
    }
    exceptions.is_empty() == allow_by_default
}

/// True if the normal form allows all bits of this access, as the version 1 controller reads it.
fn by_the_policy(policy: &Policy, device: Which, access: Access) -> bool {
    let mut found = policy.exceptions.iter().filter(|(which, _)| covers(*which, device));
    if policy.allow_by_default {
        !found.any(|(_, denied)| denied & access != 0)
    } else {
        found.any(|(_, allowed)| access & !allowed == 0)
    }
}

fn compare(u: &mut Unstructured) -> Result<()> {
    let mut rules = Vec::new();
    for _ in 0..u.int_in_range(0..=16)? {
        rules.push(rule(u)?);
    }
    let spec: Vec<_> = rules.iter().map(said).collect();
    let Ok(policy) = devices::plan(&spec) else { return Ok(()) };
    rules.extend(usual());
    let code = policy.program().expect("few rules");
    for _ in 0..48 {
        let number = |u: &mut Unstructured| -> Result<Option<u32>> {
            Ok(Some(if u.ratio(1, 8)? { u.arbitrary()? } else { *u.choose(&NUMBERS)? as u32 }))
        };
        let kind = *u.choose(&[Kind::Block, Kind::Char])?;
        let (device, access) = (Which { kind, major: number(u)?, minor: number(u)? }, u.int_in_range(1..=7)?);
        let got = machine::run(
            &code,
            kind as u32,
            device.major.unwrap_or(0),
            device.minor.unwrap_or(0),
            access.into(),
        );
        assert_eq!(got, by_the_policy(&policy, device, access), "{device:?} {access} in {policy:?}");
        if access.is_power_of_two() {
            assert_eq!(got, by_the_rules(&rules, device, access), "{device:?} {access} in {rules:?}");
        }
        if u.is_empty() {
            break;
        }
    }
    // Loading takes longer than all of the above, and needs root. The runtime never loads a policy that denies nothing.
    if rules.len() % 4 == 0
        && !policy.denies_nothing()
        && rustix::process::geteuid().is_root()
        && let Err(error) = bpf::load_device_program(&code)
    {
        assert_eq!(error.errno(), 1, "the verifier refuses {policy:?}: {error}");
    }
    Ok(())
}

fuzz_target!(|bytes: &[u8]| {
    let _ = compare(&mut Unstructured::new(bytes));
});
