//! The compiled filter against that of the `seccompiler` crate, which knows nothing of our compiler.
//!
//! seccompiler knows one architecture at a time, one action for everything that matches, and no agent. On such profiles
//! both programs must answer alike. They differ by design in three places, which the tests name: calls of another
//! architecture, calls of x32, and calls that are newer than the profile.

use super::reference::{
    ALLOW, AUDIT_AARCH64, AUDIT_ARM, AUDIT_X86, AUDIT_X86_64, Call, ERRNO, Row, X32, numbers, run,
};
use super::tests::{NAMES, Random, VALUES, compiled, spec};
use seccompiler::{
    BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter, SeccompRule,
    TargetArch,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;

const KILL_THREAD: u32 = 0;
const KILL_PROCESS: u32 = 0x8000_0000;
const ENOSYS: u32 = 38;

/// An action as both sides write it.
fn action(random: &mut Random) -> (&'static str, Option<u32>, SeccompAction) {
    let data = random.below(200) as u32;
    match random.below(7) {
        0 => ("ALLOW", None, SeccompAction::Allow),
        1 => ("ERRNO", Some(data), SeccompAction::Errno(data)),
        2 => ("KILL_THREAD", None, SeccompAction::KillThread),
        3 => ("KILL_PROCESS", None, SeccompAction::KillProcess),
        4 => ("LOG", None, SeccompAction::Log),
        5 => ("TRACE", Some(data), SeccompAction::Trace(data)),
        _ => ("TRAP", None, SeccompAction::Trap),
    }
}

/// A condition as both sides write it. A masked comparison has its mask in `value`.
fn condition(index: u8, random: &mut Random) -> (Value, SeccompCondition) {
    let (value, two) = (random.of(&VALUES), random.of(&VALUES));
    let (operator, theirs, compared) = match random.below(7) {
        0 => ("EQ", SeccompCmpOp::Eq, value),
        1 => ("NE", SeccompCmpOp::Ne, value),
        2 => ("GT", SeccompCmpOp::Gt, value),
        3 => ("GE", SeccompCmpOp::Ge, value),
        4 => ("LT", SeccompCmpOp::Lt, value),
        5 => ("LE", SeccompCmpOp::Le, value),
        _ => ("MASKED_EQ", SeccompCmpOp::MaskedEq(value), two),
    };
    let ours = json!({"index": index, "value": value, "valueTwo": two, "op": format!("SCMP_CMP_{operator}")});
    (ours, SeccompCondition::new(index, SeccompCmpArgLen::Qword, theirs, compared).unwrap())
}

/// One profile, in our words and compiled by seccompiler.
struct Pair {
    profile: Value,
    theirs: Vec<Row>,
    values: Vec<u64>,
    named: Vec<u32>,
    default: SeccompAction,
}

impl Pair {
    fn random(audit: u32, random: &mut Random) -> Self {
        let (name, errno, matched) = action(random);
        let (default_name, default_errno, default) = loop {
            let other = action(random);
            if u32::from(other.2.clone()) != u32::from(matched.clone()) {
                break other;
            }
        };
        let mut rules: BTreeMap<i64, Vec<SeccompRule>> = BTreeMap::new();
        let mut always = Vec::new();
        let mut entries = Vec::new();
        let mut values = VALUES.to_vec();
        for _ in 0..1 + random.below(12) {
            let names: Vec<_> = (0..1 + random.below(3)).map(|_| random.of(&NAMES)).collect();
            // Two conditions on one argument mean "either" to runc: seccompiler has no such rule.
            let indexes = (0..3).filter(|_| random.below(3) == 0).collect::<Vec<_>>();
            let (args, conditions): (Vec<_>, Vec<_>) =
                indexes.into_iter().map(|index| condition(index, random)).unzip();
            values.extend(args.iter().filter_map(|arg| arg["value"].as_u64()));
            for (number, _) in names.iter().flat_map(|name| numbers(name, audit, false)) {
                match conditions.as_slice() {
                    [] => always.push(i64::from(number)),
                    some => rules
                        .entry(i64::from(number))
                        .or_default()
                        .push(SeccompRule::new(some.to_vec()).unwrap()),
                }
            }
            let action = format!("SCMP_ACT_{name}");
            entries.push(json!({"names": names, "action": action, "errnoRet": errno, "args": args}));
        }
        // No rules for a number mean to seccompiler that it always matches.
        rules.extend(always.into_iter().map(|number| (number, Vec::new())));
        let named = rules.keys().map(|number| u32::try_from(*number).unwrap()).collect();
        let target = if audit == AUDIT_X86_64 { TargetArch::x86_64 } else { TargetArch::aarch64 };
        let filter = SeccompFilter::new(rules, default.clone(), matched, target).unwrap();
        let theirs = BpfProgram::try_from(filter).unwrap();
        let theirs = theirs.iter().map(|one| (one.code, one.jt, one.jf, one.k)).collect();
        let default_action = format!("SCMP_ACT_{default_name}");
        let profile = json!({"defaultAction": default_action, "defaultErrnoRet": default_errno,
            "syscalls": entries});
        Self { profile, theirs, values, named, default }
    }

    /// A call is newer than the profile if its number is above all that are named; that says something only when the
    /// default refuses.
    fn is_newer(&self, number: u32) -> bool {
        let newest = self.named.iter().copied().max().unwrap_or(0);
        let permissive =
            matches!(self.default, SeccompAction::Allow | SeccompAction::Log | SeccompAction::Trace(_));
        newest > 0 && number > newest && !permissive
    }
}

#[test]
fn the_filter_answers_as_that_of_seccompiler_on_100_000_calls() {
    let mut random = Random(0xfeed);
    let mut answers: BTreeMap<u32, usize> = BTreeMap::new();
    for round in 0..400 {
        let audit = if round % 2 == 0 { AUDIT_X86_64 } else { AUDIT_AARCH64 };
        let pair = Pair::random(audit, &mut random);
        let ours = compiled(&spec(pair.profile.clone()), audit);
        let mut compared = 0;
        while compared < 250 {
            let number = match random.below(8) {
                0 => random.below(480) as u32,
                1 => random.below(u64::from(X32)) as u32,
                _ if pair.named.is_empty() => 0,
                _ => random.of(&pair.named),
            };
            let mut args = [0; 6];
            args.iter_mut().for_each(|arg| *arg = random.value(&pair.values));
            let call = Call { audit, number, args };
            let (is, theirs) = (run(&ours, call).0, run(&pair.theirs, call).0);
            if pair.is_newer(number) {
                assert_eq!((is, theirs), (ERRNO | ENOSYS, pair.default.clone().into()), "{call:x?}");
                continue;
            }
            assert_eq!(is, theirs, "{call:x?} {is:#x} {theirs:#x} in {}", pair.profile);
            *answers.entry(is & 0xffff_0000).or_default() += 1;
            compared += 1;
        }
    }
    assert_eq!(answers.values().sum::<usize>(), 100_000);
    // Every action was an answer, and none was nearly all of them.
    assert!(
        answers.len() == 7 && answers.values().all(|times| (4000..40_000).contains(times)),
        "{answers:x?}"
    );
    assert!(answers.contains_key(&ALLOW));
}

#[test]
fn both_filters_kill_calls_of_another_architecture() {
    let mut random = Random(0xcafe);
    for _ in 0..100 {
        let pair = Pair::random(AUDIT_X86_64, &mut random);
        let ours = compiled(&spec(pair.profile.clone()), AUDIT_X86_64);
        for audit in [AUDIT_X86, AUDIT_ARM, AUDIT_AARCH64, 0] {
            let call = Call { audit, number: random.below(480) as u32, args: [0; 6] };
            // As libseccomp, we kill the thread.
            assert_eq!((run(&ours, call).0, run(&pair.theirs, call).0), (KILL_THREAD, KILL_PROCESS));
        }
        // seccompiler does not know x32, and takes its numbers for unknown ones of x86_64.
        let call = Call { audit: AUDIT_X86_64, number: X32 | 1, args: [0; 6] };
        assert_eq!((run(&ours, call).0, run(&pair.theirs, call).0), (KILL_THREAD, pair.default.into()));
    }
}
