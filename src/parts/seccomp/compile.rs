//! From the rules of a profile to a filter program.
//!
//! The program asks for the architecture, then finds the number by binary search over runs of numbers that have
//! the same outcome: O(log n) for every call. Only calls with conditions look at arguments, so the kernel's
//! cache of always-allowed calls (since Linux 5.11) holds for all others.
//!
//! Where the spec is silent, the outcome is what runc gets from libseccomp:
//! * a rule whose action is the default action is as if absent;
//! * of several rules without conditions the first wins, and it wins over rules with conditions, wherever those
//!   stand; rules with conditions are tried in the order of the profile (libseccomp sorts them by argument
//!   and value; only profiles whose rules overlap with different actions can tell);
//! * 32-bit conventions and x32 compare the low halves of arguments and values;
//! * a call that 32-bit x86 can also make through `socketcall` or `ipc` has its rule there too, for that value
//!   of the first argument (a profile that names the multiplexer itself says what becomes of all that it carries);
//! * an architecture that is not listed, and x32 where it is not listed, gets `KILL_THREAD`; the number -1 of
//!   x86_64 does not, as tracers use it to skip a call;
//! * numbers above every one that the profile names are newer than the profile: ENOSYS, so that programs fall
//!   back, unless the default action lets calls through.
//!
//! Where arguments are in memory (`socketcall`, `ipc`, 32-bit x86's `mmap` and `select`), a filter cannot ask the
//! conditions of a rule. Such a call gets the strictest of the outcomes that its arguments could have led to. Here
//! libseccomp compares registers that the call does not use.
//!
//! Not for: words of config.json (`mod.rs`).

use super::arch::{self, Abi, Carried, Machine, X32_BIT};
use super::assemble::{Assembler, Label, Test};
use crate::sys::seccomp::Instruction;
use oci_spec::runtime::{Arch, LinuxSeccompOperator as Operator};

/// Kill the calling thread (`SECCOMP_RET_KILL_THREAD`): for architectures that are not listed.
pub const KILL_THREAD: u32 = 0;
/// Fail with ENOSYS.
const NOT_IMPLEMENTED: u32 = 0x0005_0000 | libc::ENOSYS as u32;
/// Where `seccomp_data` has the number, the architecture and the first argument.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// What one argument must be.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// How it is compared.
    pub operator: Operator,
    /// With what; the mask of `MASKED_EQ`.
    pub value: u64,
    /// What the masked value must be.
    pub masked: u64,
}

/// An action (a return value of the filter) and the conditions that must all hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// None: always.
    pub conditions: Vec<Condition>,
}

/// The rules of a profile, free of its words.
#[derive(Debug)]
pub struct Profile<'a> {
    /// What calls without a rule get.
    pub default: u32,
    /// Whether calls that are newer than the profile get ENOSYS.
    pub newer_not_implemented: bool,
    /// The architectures besides the native one.
    pub architectures: &'a [Arch],
    /// Hashes of names, in the order of the profile, with the rules of each.
    pub calls: Vec<(u64, std::ops::Range<usize>)>,
    /// The rules, in the order of the profile.
    pub rules: Vec<Rule>,
}

/// What becomes of a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Return(u32),
    /// The rules of this index in [`Compiler::lists`], tried in order.
    Ask(usize),
}

/// The outcome from this number up to the next range.
type Range = (u32, Outcome);

struct Compiler {
    default: u32,
    newer_not_implemented: bool,
    calls: Vec<(u64, std::ops::Range<usize>)>,
    rules: Vec<Rule>,
    /// Distinct lists of rules, so that calls with the same conditions share their code.
    lists: Vec<Vec<usize>>,
    /// Code that is there already: list, wide, place.
    emitted: Vec<(usize, bool, Label)>,
    out: Assembler,
}

/// The program for `profile` on `machine`.
pub fn compile(profile: Profile, machine: &Machine) -> Vec<Instruction> {
    let listed = |arch: Arch| profile.architectures.contains(&arch);
    let native = machine.abis.first().map(|(arch, _)| *arch);
    let abis = machine.abis.iter().filter(|(arch, _)| Some(*arch) == native || listed(*arch));
    let abis: Vec<&Abi> = abis.map(|(_, abi)| *abi).collect();
    let Profile { default, newer_not_implemented, calls, rules, .. } = profile;
    let (lists, emitted, out) = (Vec::new(), Vec::new(), Assembler::default());
    let mut compiler = Compiler { default, newer_not_implemented, calls, rules, lists, emitted, out };

    let mut entries = Vec::new();
    for abi in abis.iter().filter(|abi| abi.bit == 0).rev() {
        let mut ranges = compiler.ranges(abi);
        if let Some(x32) = abis.iter().find(|other| other.bit != 0 && other.audit == abi.audit) {
            ranges.extend(compiler.ranges(x32));
        } else if machine.abis.iter().any(|(_, other)| other.bit != 0 && other.audit == abi.audit) {
            ranges.push((X32_BIT, Outcome::Return(KILL_THREAD)));
            ranges.push((u32::MAX, Outcome::Return(default)));
        }
        entries.push((abi.audit, compiler.search(&ranges, abi.wide(), abi.little_endian())));
    }
    let mut next = compiler.out.ret(KILL_THREAD);
    for (audit, entry) in entries {
        next = compiler.out.branch(Test::Equal, audit, entry, next);
    }
    compiler.out.load(ARCHITECTURE, next);
    compiler.out.finish()
}

impl Compiler {
    /// Every number of a convention, in runs of the same outcome.
    fn ranges(&mut self, abi: &Abi) -> Vec<Range> {
        let (named, newest) = self.numbered(abi);
        let default = Outcome::Return(self.default);
        let mut ranges = vec![(abi.bit, default)];
        let mut set = |from: u32, outcome: Outcome| match ranges.last_mut() {
            Some(last) if last.1 == outcome => {}
            Some(last) if last.0 == from => last.1 = outcome,
            _ => ranges.push((from, outcome)),
        };
        const NEWER: Outcome = Outcome::Return(NOT_IMPLEMENTED);
        let newer = newest.filter(|_| self.newer_not_implemented).map(|newest| newest + 1);
        let private = newer.map(|_| abi.private);
        let is_newer = |number: u32| newer.is_some_and(|newer| newer <= number) && number < abi.private;
        let mut expected = abi.bit;
        let mut rows = named.chunk_by(|a, b| a.0 == b.0).peekable();
        loop {
            let number = rows.peek().and_then(|rows| rows.first()).map_or(u32::MAX, |row| row.0);
            // What no rule is about, up to there. A multiplexer may come after the newest number, and after it that
            // goes on.
            if number > expected {
                set(expected, if is_newer(expected) { NEWER } else { default });
            }
            for (from, outcome) in [(newer, NEWER), (private, default)] {
                if let Some(from) = from.filter(|from| (expected..number).contains(from)) {
                    set(from, outcome);
                }
            }
            let Some(rows) = rows.next() else { break };
            let outcome = self.outcome(rows, abi.shows_arguments(number));
            set(number, outcome);
            expected = number.saturating_add(1);
        }
        // setup(2), number 0, is what s390 makes of numbers that its kernel does not know.
        if newer.is_some() && abi.audit == AUDIT_S390X {
            ranges.splice(0..1, [(0, Outcome::Return(NOT_IMPLEMENTED)), (1, default)]);
        }
        ranges
    }

    /// The rules of each number: (number, order, rule), sorted; and the newest number that the profile names.
    fn numbered(&mut self, abi: &Abi) -> (Vec<(u32, usize, usize)>, Option<u32>) {
        let mut named = Vec::with_capacity(self.calls.len());
        let mut carried: Vec<(Carried, usize, Vec<usize>)> = Vec::new();
        let mut newest = 0;
        let mut order = 0;
        for at in 0..self.calls.len() {
            let Some((hash, range)) = self.calls.get(at).cloned() else { break };
            let number = abi.number(hash);
            if let Some(number) = number.filter(|number| *number < abi.private) {
                newest = newest.max(number);
            }
            let multiplexer = abi.carried(hash);
            for rule in range {
                let Some(action) = self.rules.get(rule).map(|rule| rule.action) else { continue };
                if action == self.default {
                    continue;
                }
                order += 1;
                if let Some(number) = number {
                    named.push((number, order, rule));
                }
                match (multiplexer, carried.iter_mut().find(|(known, ..)| Some(*known) == multiplexer)) {
                    (_, Some((.., rules))) => rules.push(rule),
                    (Some(multiplexer), None) => carried.push((multiplexer, order, vec![rule])),
                    (None, None) => {}
                }
            }
        }
        for (multiplexer, order, rules) in carried {
            let action = self.strictest(&rules);
            if action != self.default {
                self.rules.push(Rule { action, conditions: vec![is_carried(multiplexer)] });
                named.push((multiplexer.number, order, self.rules.len() - 1));
            }
        }
        named.sort_unstable();
        // As in runc, a profile that names nothing but number 0 says nothing about what is new.
        (named, Some(newest).filter(|newest| *newest & !abi.bit != 0))
    }

    /// The action for a call whose arguments cannot be seen: of those that the rules, and the default, have for it, the
    /// one that the kernel would prefer between two filters. A rule without conditions leaves no choice.
    fn strictest(&self, rules: &[usize]) -> u32 {
        let rules = || rules.iter().filter_map(|rule| self.rules.get(*rule));
        if let Some(always) = rules().find(|rule| rule.conditions.is_empty()) {
            return always.action;
        }
        let actions = std::iter::once(self.default).chain(rules().map(|rule| rule.action));
        // SECCOMP_RET_ACTION_FULL, compared with its sign: KILL_PROCESS is the lowest, ALLOW the highest.
        actions.min_by_key(|action| (action & 0xffff_0000).cast_signed()).unwrap_or(self.default)
    }

    /// The outcome of the rules of one number.
    fn outcome(&mut self, rows: &[(u32, usize, usize)], shows_arguments: bool) -> Outcome {
        if !shows_arguments {
            let rules: Vec<usize> = rows.iter().map(|row| row.2).collect();
            return Outcome::Return(self.strictest(&rules));
        }
        let rules = || rows.iter().filter_map(|row| self.rules.get(row.2).map(|rule| (row.2, rule)));
        if let Some((_, rule)) = rules().find(|(_, rule)| rule.conditions.is_empty()) {
            return Outcome::Return(rule.action);
        }
        let same = |list: &Vec<usize>| list.iter().copied().eq(rules().map(|(index, _)| index));
        if let Some(known) = self.lists.iter().position(same) {
            return Outcome::Ask(known);
        }
        let list = rules().map(|(index, _)| index).collect();
        self.lists.push(list);
        Outcome::Ask(self.lists.len() - 1)
    }

    /// Code that loads the number and finds its range.
    fn search(&mut self, ranges: &[Range], wide: bool, little: bool) -> Label {
        let mut places = Vec::with_capacity(ranges.len());
        for &(from, outcome) in ranges {
            // The x32 half of the x86_64 ranges compares as x32 does.
            let wide = wide && from & X32_BIT == 0;
            places.push((from, self.place(outcome, wide, little)));
        }
        let root = self.tree(&places);
        self.out.load(NUMBER, root)
    }

    /// A binary search. Between equal neighbours, a single number is one test for equality.
    fn tree(&mut self, places: &[(u32, Label)]) -> Label {
        match *places {
            [] => self.out.ret(self.default),
            [(_, place)] => place,
            [(_, below), (number, place), (above, after)] if below == after && above - number == 1 => {
                self.out.branch(Test::Equal, number, place, below)
            }
            _ => {
                let (left, right) = places.split_at(places.len() / 2);
                let (upper, from) = (self.tree(right), right.first().map_or(0, |(from, _)| *from));
                let lower = self.tree(left);
                self.out.branch(Test::AtLeast, from, upper, lower)
            }
        }
    }

    /// Code for an outcome, made once.
    fn place(&mut self, outcome: Outcome, wide: bool, little: bool) -> Label {
        let list = match outcome {
            Outcome::Return(value) => return self.out.ret(value),
            Outcome::Ask(list) => list,
        };
        let known = self.emitted.iter().find(|(known, as_wide, _)| (*known, *as_wide) == (list, wide));
        if let Some(&(_, _, label)) = known {
            return label;
        }
        let rules = self.lists.get(list).into_iter().flatten();
        let rules: Vec<&Rule> = rules.filter_map(|rule| self.rules.get(*rule)).collect();
        let mut next = self.out.ret(self.default);
        for rule in rules.into_iter().rev() {
            let mut place = self.out.ret(rule.action);
            for condition in rule.conditions.iter().rev() {
                place = ask(&mut self.out, condition, (wide, little), place, next);
            }
            next = place;
        }
        self.emitted.push((list, wide, next));
        next
    }
}

const AUDIT_S390X: u32 = 0x8000_0016;

/// The condition by which a multiplexer carries a call.
fn is_carried(by: Carried) -> Condition {
    Condition { index: 0, operator: Operator::ScmpCmpMaskedEq, value: by.mask, masked: by.value }
}

/// One half of an argument and what it is compared with.
struct Half {
    offset: u32,
    value: u32,
    masked: u32,
}

/// Code that goes to `yes` if the condition holds, else to `no`.
fn ask(
    out: &mut Assembler,
    condition: &Condition,
    (wide, little): (bool, bool),
    yes: Label,
    no: Label,
) -> Label {
    let base = ARGUMENTS + 8 * condition.index;
    let masked = condition.masked & condition.value;
    let low = Half {
        offset: base + if little { 0 } else { 4 },
        value: condition.value as u32,
        masked: masked as u32,
    };
    let high = wide.then_some(Half {
        offset: base + if little { 4 } else { 0 },
        value: (condition.value >> 32) as u32,
        masked: (masked >> 32) as u32,
    });
    match condition.operator {
        Operator::ScmpCmpEq => equal(out, &low, high, yes, no),
        Operator::ScmpCmpNe => equal(out, &low, high, no, yes),
        Operator::ScmpCmpGt => ordered(out, Test::Greater, &low, high, yes, no),
        Operator::ScmpCmpLe => ordered(out, Test::Greater, &low, high, no, yes),
        Operator::ScmpCmpGe => ordered(out, Test::AtLeast, &low, high, yes, no),
        Operator::ScmpCmpLt => ordered(out, Test::AtLeast, &low, high, no, yes),
        Operator::ScmpCmpMaskedEq => {
            let low = masked_equal(out, &low, yes, no);
            high.map_or(low, |high| masked_equal(out, &high, low, no))
        }
    }
}

fn equal(out: &mut Assembler, low: &Half, high: Option<Half>, yes: Label, no: Label) -> Label {
    let test = out.branch(Test::Equal, low.value, yes, no);
    let low = out.load(low.offset, test);
    let Some(high) = high else { return low };
    let test = out.branch(Test::Equal, high.value, low, no);
    out.load(high.offset, test)
}

/// `test` is strict or not for the low half; the high half decides unless it is equal.
fn ordered(out: &mut Assembler, test: Test, low: &Half, high: Option<Half>, yes: Label, no: Label) -> Label {
    let found = out.branch(test, low.value, yes, no);
    let low = out.load(low.offset, found);
    let Some(high) = high else { return low };
    let same = out.branch(Test::Equal, high.value, low, no);
    let found = out.branch(Test::Greater, high.value, yes, same);
    out.load(high.offset, found)
}

fn masked_equal(out: &mut Assembler, half: &Half, yes: Label, no: Label) -> Label {
    let (mask, masked) = (half.value, half.masked);
    if mask == 0 {
        return yes;
    }
    let test = if masked == 0 {
        out.branch(Test::AnyBit, mask, no, yes)
    } else if masked == mask && mask.is_power_of_two() {
        out.branch(Test::AnyBit, mask, yes, no)
    } else {
        let test = out.branch(Test::Equal, masked, yes, no);
        out.mask(mask, test)
    };
    out.load(half.offset, test)
}

/// The machine that orlop is built for.
pub fn native() -> &'static Machine {
    arch::native()
}
