//! Compiles the rules of a profile into a filter program.
//!
//! The program first checks the architecture. Then it finds the system call number by binary search over ranges of
//! numbers that have the same outcome: O(log n) for every call. It reads arguments only for calls with conditions. For
//! all other calls that are allowed, the kernel caches the answer.
//!
//! The spec does not settle every case. These are settled as runc does by libseccomp:
//! * A rule whose action is the default action has no effect.
//! * The first rule without conditions wins over all other rules for the same call, in any order. Rules with conditions
//!   are tried in the order of the profile. (libseccomp sorts them by argument and value. The difference shows only if
//!   rules with different actions overlap.)
//! * 32-bit conventions and x32 compare only the low halves of arguments and values.
//! * A call that 32-bit x86 can also make through `socketcall` or `ipc` gets its rule there too, for its value of the
//!   first argument. A rule for `socketcall` or `ipc` itself covers all calls that go through it.
//! * A call by an architecture that the profile does not list gets `KILL_THREAD`. So does x32 if it is not listed,
//!   except for the number -1, by which tracers of x86_64 skip a call.
//! * A number above every number that the profile names belongs to a call newer than the profile. It gets ENOSYS, so
//!   that programs use an older call, unless the default action lets calls through.
//!
//! A filter cannot read arguments in memory: those of `socketcall`, of `ipc`, and of 32-bit x86's `mmap` and `select`.
//! Such a call gets the strictest of the outcomes that its rules allow. (libseccomp compares registers here that the
//! call does not use.)
//!
//! Not for: the names in config.json (`mod.rs`).

use super::arch::{self, Abi, Carried, Machine, X32_BIT};
use super::assemble::{Assembler, Label, Test};
use crate::sys::seccomp::Instruction;
use oci_spec::runtime::{Arch, LinuxSeccompOperator as Operator};

/// The filter's answer that kills the calling thread (`SECCOMP_RET_KILL_THREAD`).
pub const KILL_THREAD: u32 = 0;
/// The filter's answer that makes the call fail with ENOSYS.
const NOT_IMPLEMENTED: u32 = 0x0005_0000 | libc::ENOSYS as u32;
/// The offsets of the number, the architecture and the first argument in `seccomp_data`.
const NUMBER: u32 = 0;
const ARCHITECTURE: u32 = 4;
const ARGUMENTS: u32 = 16;

/// A condition about one argument.
#[derive(Clone, Copy, Debug)]
pub struct Condition {
    /// Which argument, 0 to 5.
    pub index: u32,
    /// How it is compared.
    pub operator: Operator,
    /// The value to compare with; for `MASKED_EQ` the mask.
    pub value: u64,
    /// For `MASKED_EQ`, the value that the masked argument must have.
    pub masked: u64,
}

/// An action, and the conditions under which it applies: all of them must hold.
#[derive(Clone, Debug)]
pub struct Rule {
    /// The return value of the filter: `SECCOMP_RET_*` with its data.
    pub action: u32,
    /// If this is empty, the rule always applies.
    pub conditions: Vec<Condition>,
}

/// A profile with numbers in place of names.
#[derive(Debug)]
pub struct Profile<'a> {
    /// The action for calls without a rule.
    pub default: u32,
    /// True if calls that are newer than the profile get ENOSYS.
    pub newer_not_implemented: bool,
    /// The architectures that the profile lists. The native one counts as listed.
    pub architectures: &'a [Arch],
    /// The hash of each name and the range of its rules in `rules`, in the order of the profile.
    pub calls: Vec<(u64, std::ops::Range<usize>)>,
    /// The rules, in the order of the profile.
    pub rules: Vec<Rule>,
}

/// The decision about a system call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Return(u32),
    /// The rules at this index of [`Compiler::lists`] are tried in order.
    Ask(usize),
}

/// The first number of a range, and the outcome for all numbers up to the next range.
type Range = (u32, Outcome);

struct Compiler {
    default: u32,
    newer_not_implemented: bool,
    calls: Vec<(u64, std::ops::Range<usize>)>,
    rules: Vec<Rule>,
    /// Distinct lists of rules. Calls with the same list share their code.
    lists: Vec<Vec<usize>>,
    /// The code that exists already: the list, whether it compares 64 bits, and its label.
    emitted: Vec<(usize, bool, Label)>,
    out: Assembler,
}

/// Compiles the program for `profile` on `machine`.
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
    /// Divides all numbers of a convention into ranges with the same outcome.
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
            // The numbers up to `number` have no rule. A multiplexer may be above the newest number; the numbers
            // after it still count as newer.
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
        // s390 reports numbers that its kernel does not know as number 0, setup(2).
        if newer.is_some() && abi.audit == AUDIT_S390X {
            ranges.splice(0..1, [(0, Outcome::Return(NOT_IMPLEMENTED)), (1, default)]);
        }
        ranges
    }

    /// Returns the rules of each number as (number, order, rule), sorted, and the newest number that is named.
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
        // As in runc, no call counts as newer if the profile names only number 0.
        (named, Some(newest).filter(|newest| *newest & !abi.bit != 0))
    }

    /// The action for a call whose arguments the filter cannot read: the strictest of the default action and the
    /// actions of its rules, in the kernel's order of actions. A rule without conditions decides alone.
    fn strictest(&self, rules: &[usize]) -> u32 {
        let rules = || rules.iter().filter_map(|rule| self.rules.get(*rule));
        if let Some(always) = rules().find(|rule| rule.conditions.is_empty()) {
            return always.action;
        }
        let actions = std::iter::once(self.default).chain(rules().map(|rule| rule.action));
        // The kernel compares these bits as a signed number: KILL_PROCESS is the lowest, ALLOW the highest.
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

    /// Emits code that loads the number and jumps to the outcome of its range.
    fn search(&mut self, ranges: &[Range], wide: bool, little: bool) -> Label {
        let mut places = Vec::with_capacity(ranges.len());
        for &(from, outcome) in ranges {
            // x32 shares the search with x86_64. Its numbers have X32_BIT, and its arguments have 32 bits.
            let wide = wide && from & X32_BIT == 0;
            places.push((from, self.place(outcome, wide, little)));
        }
        let root = self.tree(&places);
        self.out.load(NUMBER, root)
    }

    /// Emits a binary search. A single number between two ranges of equal outcome takes one test for equality.
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

    /// Emits the code for an outcome, or returns its label if the code exists.
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

/// The condition on a multiplexer's first argument under which it carries the call.
fn is_carried(by: Carried) -> Condition {
    Condition { index: 0, operator: Operator::ScmpCmpMaskedEq, value: by.mask, masked: by.value }
}

/// One half of an argument: its offset in `seccomp_data`, and the halves of the condition's values.
struct Half {
    offset: u32,
    value: u32,
    masked: u32,
}

/// Emits code that goes to `yes` if the condition holds, else to `no`.
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

/// Compares the high halves first. If they are equal, `test` compares the low halves.
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

/// The calling conventions of the machine that orlop is built for.
pub fn native() -> &'static Machine {
    arch::native()
}
