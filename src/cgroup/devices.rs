//! `linux.resources.devices`: which device nodes the container may use (version 1 `devices`, version 2 eBPF).
//!
//! The rules are brought into one normal form: a default and its exceptions. The version 1 files can express exactly
//! that. The version 1 lines and the version 2 program are both written from it.
//! Not for: making device nodes (`parts::devices`).

#[cfg(test)]
mod machine;

use anyhow::{Result, bail};
use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType};
use serde::Serialize;

/// Block or character device. The numbers are the kernel's (`BPF_DEVCG_DEV_*`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    /// `b`
    Block = 1,
    /// `c`
    Char = 2,
}

/// A set of ways of access. The bits are the kernel's (`BPF_DEVCG_ACC_*`).
pub type Access = u8;
/// `m`: create the node.
pub const MKNOD: Access = 1;
/// `r`
pub const READ: Access = 2;
/// `w`
pub const WRITE: Access = 4;
const ALL: Access = MKNOD | READ | WRITE;

/// The devices of an exception; `None` means every number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[allow(missing_docs)]
pub struct Which {
    pub kind: Kind,
    pub major: Option<u32>,
    pub minor: Option<u32>,
}

impl Which {
    fn covers(self, other: Which) -> bool {
        self.kind == other.kind
            && (self.major.is_none() || self.major == other.major)
            && (self.minor.is_none() || self.minor == other.minor)
    }
}

/// The policy in normal form.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Policy {
    /// Whether a device without an exception is allowed.
    pub allow_by_default: bool,
    /// The devices for which the opposite holds, and for which access. Each is named once, in the order of the rules.
    #[serde(serialize_with = "as_lines")]
    pub exceptions: Vec<(Which, Access)>,
}

fn as_lines<S: serde::Serializer>(exceptions: &[(Which, Access)], to: S) -> Result<S::Ok, S::Error> {
    to.collect_seq(exceptions.iter().map(|(which, access)| line(*which, *access)))
}

/// What every container may use besides the rules of its config: it may make any node, and use the usual devices.
///   kind        major      minor     access
const DEFAULTS: &[(Kind, Option<u32>, Option<u32>, Access)] = &[
    (Kind::Char, None, None, MKNOD),
    (Kind::Block, None, None, MKNOD),
    (Kind::Char, Some(1), Some(3), ALL),    // null
    (Kind::Char, Some(1), Some(8), ALL),    // random
    (Kind::Char, Some(1), Some(7), ALL),    // full
    (Kind::Char, Some(5), Some(0), ALL),    // tty
    (Kind::Char, Some(1), Some(5), ALL),    // zero
    (Kind::Char, Some(1), Some(9), ALL),    // urandom
    (Kind::Char, Some(136), None, ALL),     // pseudo terminals
    (Kind::Char, Some(5), Some(2), ALL),    // ptmx
    (Kind::Char, Some(10), Some(200), ALL), // net/tun: engines without a device option count on it
];

/// Reads the rules. Without any, only the usual devices are allowed.
///
/// # Errors
/// No device cgroup can express a rule; the error names its index.
pub fn plan(rules: &[LinuxDeviceCgroup]) -> Result<Policy> {
    let mut policy = Policy::default();
    for (index, rule) in rules.iter().enumerate() {
        policy.add(rule).map_err(|error| error.context(format!("linux.resources.devices[{index}]")))?;
    }
    for &(kind, major, minor, access) in DEFAULTS {
        policy.exception(Which { kind, major, minor }, access, true)?;
    }
    Ok(policy)
}

impl Policy {
    fn add(&mut self, rule: &LinuxDeviceCgroup) -> Result<()> {
        let mut access = 0;
        for letter in rule.access().iter().flat_map(|letters| letters.chars()) {
            access |= match letter {
                'r' => READ,
                'w' => WRITE,
                'm' => MKNOD,
                // The specification has no "a". runc accepts it, and its suite denies with it. A rule that allows is
                // refused: the letter may be a typing error, and would allow everything.
                'a' if !rule.allow() => READ | WRITE | MKNOD,
                other => bail!("unknown access {other:?} (known are r, w and m)"),
            };
        }
        if access == 0 {
            bail!("device access cannot be empty");
        }
        let kind = match rule.typ().unwrap_or_default() {
            LinuxDeviceType::A => {
                // An "a" rule replaces all rules before it; its numbers and access mean nothing.
                *self = Self { allow_by_default: rule.allow(), ..Self::default() };
                return Ok(());
            }
            LinuxDeviceType::B => Kind::Block,
            LinuxDeviceType::C | LinuxDeviceType::U => Kind::Char,
            LinuxDeviceType::P => bail!("a fifo has no device cgroup"),
        };
        let which = Which { kind, major: number(rule.major())?, minor: number(rule.minor())? };
        self.exception(which, access, rule.allow())
    }

    fn exception(&mut self, which: Which, access: Access, allow: bool) -> Result<()> {
        if allow != self.allow_by_default {
            match self.exceptions.iter_mut().find(|(same, _)| *same == which) {
                Some((_, had)) => *had |= access,
                None => self.exceptions.push((which, access)),
            }
            return Ok(());
        }
        // Version 1 silently ignores the removal of a part of an exception. The user would rely on a rule that is not
        // kept.
        let wider = self
            .exceptions
            .iter()
            .find(|(wide, had)| *wide != which && wide.covers(which) && had & access != 0);
        if let Some((wide, had)) = wider {
            bail!(
                "rule {:?} not supported by devices cgroupv1 (cannot punch hole in existing wildcard rule {:?})",
                line(which, access),
                line(*wide, *had)
            );
        }
        for (narrow, had) in &mut self.exceptions {
            // A denied wildcard also removes the allowed devices within it. An allowed wildcard does not remove the
            // denied ones within it: that would open what was denied on purpose. There, only the same rule is
            // removed.
            if *narrow == which || (!self.allow_by_default && which.covers(*narrow)) {
                *had &= !access;
            }
        }
        self.exceptions.retain(|(_, access)| *access != 0);
        Ok(())
    }

    /// Whether the policy allows everything. Such a policy needs no program and no lines.
    pub fn denies_nothing(&self) -> bool {
        self.allow_by_default && self.exceptions.is_empty()
    }

    /// The exceptions as the lines of `devices.allow` or `devices.deny`.
    pub fn lines(&self) -> impl Iterator<Item = String> + '_ {
        self.exceptions.iter().map(|(which, access)| line(*which, *access))
    }

    /// The policy as an eBPF program of type `BPF_PROG_TYPE_CGROUP_DEVICE`; `None` if it has more exceptions than its
    /// jumps can span.
    ///
    /// The program is a tree of comparisons (type, major, minor) with one exit for each verdict. The verifier follows
    /// every path to every exit at each load: the default list takes it 58 µs in this form, and 222 µs as a plain
    /// list.
    pub fn program(&self) -> Option<Vec<u64>> {
        let mut code = Code::default();
        let mut exceptions = self.exceptions.clone();
        exceptions.sort_unstable();
        code.extend(&[
            insn(LDX_W, TYPE, CONTEXT, 0, 0),
            insn(LDX_W, MAJOR, CONTEXT, 4, 0),
            insn(LDX_W, MINOR, CONTEXT, 8, 0),
            insn(MOV32_X, ACCESS, TYPE, 0, 0),
            insn(RSH32_K, ACCESS, 0, 0, 16),
            insn(AND32_K, TYPE, 0, 0, 0xffff),
        ]);
        let all = |kind| Which { kind, major: None, minor: None };
        let of_all =
            |kind| exceptions.iter().find(|(which, _)| *which == all(kind)).map(|(_, access)| *access);
        // An exception for all devices of both types needs no comparison of the type.
        let both = of_all(Kind::Block).filter(|access| of_all(Kind::Char) == Some(*access));
        if let Some(access) = both {
            self.decide_by_access(&mut code, access);
        }
        for kind in [Kind::Block, Kind::Char] {
            let mut rows = exceptions.iter().copied().filter(|(which, _)| which.kind == kind).peekable();
            rows.next_if(|(which, _)| both.is_some() && *which == all(kind));
            if rows.peek().is_none() {
                continue;
            }
            let other_type = code.jump(JNE32_K, TYPE, kind as i32);
            while let Some((first, access)) = rows.next() {
                let other_major = first.major.map(|major| code.jump(JNE32_K, MAJOR, major as i32));
                self.decide(&mut code, first, access);
                while let Some((which, access)) = rows.next_if(|(which, _)| which.major == first.major) {
                    self.decide(&mut code, which, access);
                }
                other_major.map_or(Some(()), |jump| code.land(jump))?;
            }
            code.land(other_type)?;
        }
        let default = i32::from(self.allow_by_default);
        code.extend(&[insn(MOV64_K, RESULT, 0, 0, default), insn(EXIT, 0, 0, 0, 0)]);
        for jump in std::mem::take(&mut code.to_verdict) {
            code.land(jump)?;
        }
        code.extend(&[insn(MOV64_K, RESULT, 0, 0, 1 - default), insn(EXIT, 0, 0, 0, 0)]);
        Some(code.words)
    }

    /// Adds the comparisons of one exception, after type and major number have matched.
    fn decide(&self, code: &mut Code, which: Which, access: Access) {
        match which.minor {
            None => self.decide_by_access(code, access),
            Some(minor) if access == ALL => code.jump_to_verdict(JEQ32_K, MINOR, minor as i32),
            Some(minor) => {
                let length = if self.allow_by_default { 1 } else { 2 };
                code.extend(&[insn(JNE32_K, MINOR, 0, length, minor as i32)]);
                self.decide_by_access(code, access);
            }
        }
    }

    fn decide_by_access(&self, code: &mut Code, access: Access) {
        if self.allow_by_default {
            // An exception that denies r or w denies an open for both.
            code.jump_to_verdict(JSET32_K, ACCESS, access.into());
        } else {
            // Only an exception that has both r and w allows an open for both.
            code.extend(&[insn(JSET32_K, ACCESS, 0, 1, i32::from(ALL & !access))]);
            code.jump_to_verdict(JA, 0, 0);
        }
    }
}

/// A program that is being written.
#[derive(Default)]
struct Code {
    words: Vec<u64>,
    to_verdict: Vec<Jump>,
}

/// A jump whose target is not known yet: its position, operation, register and value.
struct Jump(usize, u8, u8, i32);

impl Code {
    fn extend(&mut self, words: &[u64]) {
        self.words.extend(words);
    }

    fn jump(&mut self, op: u8, register: u8, value: i32) -> Jump {
        self.words.push(0);
        Jump(self.words.len() - 1, op, register, value)
    }

    fn jump_to_verdict(&mut self, op: u8, register: u8, value: i32) {
        let jump = self.jump(op, register, value);
        self.to_verdict.push(jump);
    }

    /// Makes the next instruction the target of `jump`; `None` if that is too far.
    fn land(&mut self, Jump(at, op, register, value): Jump) -> Option<()> {
        let offset = i16::try_from(self.words.len() - at - 1).ok()?;
        *self.words.get_mut(at)? = insn(op, register, 0, offset, value);
        Some(())
    }
}

fn number(said: Option<i64>) -> Result<Option<u32>> {
    match said {
        None => Ok(None),
        Some(negative) if negative < 0 => Ok(None),
        Some(number) => match u32::try_from(number) {
            Ok(number) => Ok(Some(number)),
            Err(_) => bail!("device number {number} is out of range"),
        },
    }
}

/// The letters of this access, of `rwm`.
pub fn letters(access: Access) -> String {
    let letters = [(READ, 'r'), (WRITE, 'w'), (MKNOD, 'm')];
    letters.iter().filter(|(bit, _)| access & bit != 0).map(|(_, letter)| letter).collect()
}

fn line(which: Which, access: Access) -> String {
    let kind = match which.kind {
        Kind::Block => 'b',
        Kind::Char => 'c',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |number| number.to_string());
    format!("{kind} {}:{} {}", number(which.major), number(which.minor), letters(access))
}

// eBPF: registers and operations of the few instructions that are needed (linux/bpf.h).
const RESULT: u8 = 0;
const CONTEXT: u8 = 1;
const TYPE: u8 = 2;
const ACCESS: u8 = 3;
const MAJOR: u8 = 4;
const MINOR: u8 = 5;

const LDX_W: u8 = 0x61;
const MOV32_X: u8 = 0xbc;
const RSH32_K: u8 = 0x74;
const AND32_K: u8 = 0x54;
const MOV64_K: u8 = 0xb7;
const JEQ32_K: u8 = 0x16;
const JNE32_K: u8 = 0x56;
const JSET32_K: u8 = 0x46;
const JA: u8 = 0x05;
const EXIT: u8 = 0x95;

/// One instruction: `struct bpf_insn` as a machine word.
fn insn(op: u8, to: u8, from: u8, offset: i16, value: i32) -> u64 {
    let [o0, o1] = offset.to_ne_bytes();
    let [v0, v1, v2, v3] = value.to_ne_bytes();
    let registers = if cfg!(target_endian = "little") { from << 4 | to } else { to << 4 | from };
    u64::from_ne_bytes([op, registers, o0, o1, v0, v1, v2, v3])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(json: &str) -> LinuxDeviceCgroup {
        serde_json::from_str(json).unwrap()
    }

    /// The answer of the kernel's version 1 controller to the normal form.
    fn by_the_list(policy: &Policy, kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        let device = Which { kind, major: Some(major), minor: Some(minor) };
        let mut found = policy.exceptions.iter().filter(|(which, _)| which.covers(device));
        if policy.allow_by_default {
            !found.any(|(_, denied)| denied & access != 0)
        } else {
            found.any(|(_, allowed)| access & !allowed == 0)
        }
    }

    fn by_the_program(code: &[u64], kind: Kind, major: u32, minor: u32, access: Access) -> bool {
        machine::run(code, kind as u32, major, minor, access.into())
    }

    /// xorshift, so that every run has the same devices.
    fn random(state: &mut u64) -> u64 {
        *state ^= *state << 13;
        *state ^= *state >> 7;
        *state ^= *state << 17;
        *state
    }

    #[test]
    fn the_program_decides_as_the_list_on_random_devices() {
        let mut seed = 0x9e37_79b9_7f4a_7c15;
        let (mut policies, mut allowed, mut denied) = (0, 0, 0);
        for _ in 0..400 {
            let mut rules = vec![];
            if random(&mut seed) & 1 == 0 {
                rules.push(rule(&format!(r#"{{"allow":{}, "access":"rwm"}}"#, random(&mut seed) & 1 == 0)));
            }
            for _ in 0..random(&mut seed) % 8 {
                let pick = random(&mut seed);
                let access = ["r", "w", "m", "rw", "rm", "wm", "rwm"][(pick % 7) as usize];
                rules.push(rule(&format!(
                    r#"{{"allow":{},"type":"{}","major":{},"minor":{},"access":"{access}"}}"#,
                    pick & 64 == 0,
                    if pick & 128 == 0 { "b" } else { "c" },
                    (pick >> 8) as i64 % 4 - 1,
                    (pick >> 32) as i64 % 4 - 1,
                )));
            }
            let Ok(policy) = plan(&rules) else { continue };
            policies += 1;
            let code = policy.program().unwrap();
            for _ in 0..200 {
                let pick = random(&mut seed);
                let kind = if pick & 1 == 0 { Kind::Block } else { Kind::Char };
                let major = [0, 1, 2, 5, 10, 136, u32::MAX][(pick >> 8) as usize % 7];
                let minor = [0, 1, 2, 3, 8, 200, u32::MAX][(pick >> 16) as usize % 7];
                let access = ((pick >> 24) % 7 + 1) as Access;
                let expected = by_the_list(&policy, kind, major, minor, access);
                assert_eq!(
                    by_the_program(&code, kind, major, minor, access),
                    expected,
                    "{policy:?} {kind:?} {major}:{minor} {access}"
                );
                if expected { allowed += 1 } else { denied += 1 }
            }
        }
        assert!(policies > 100 && allowed > 1000 && denied > 1000, "{policies} {allowed} {denied}");
    }

    #[test]
    fn absent_empty_and_deny_all_mean_the_usual_devices_only() {
        let deny_all = plan(&[rule(r#"{"allow":false,"access":"rwm"}"#)]).unwrap();
        assert_eq!(plan(&[]).unwrap(), deny_all);
        assert!(!by_the_list(&deny_all, Kind::Block, 8, 0, READ));
        assert!(by_the_list(&deny_all, Kind::Block, 8, 0, MKNOD));
        assert!(by_the_list(&deny_all, Kind::Char, 1, 3, READ | WRITE));
        assert_eq!(deny_all.lines().count(), DEFAULTS.len());
    }

    #[test]
    fn rules_are_written_in_their_order_and_the_usual_devices_come_last() {
        let rules = [
            r#"{"allow":true,"type":"c","major":200,"minor":1,"access":"rw"}"#,
            r#"{"allow":true,"type":"b","major":8,"minor":1,"access":"r"}"#,
            r#"{"allow":true,"type":"c","major":10,"minor":1,"access":"m"}"#,
        ];
        let lines: Vec<String> = plan(&rules.map(rule)).unwrap().lines().collect();
        assert_eq!(lines[..4], ["c 200:1 rw", "b 8:1 r", "c 10:1 m", "c *:* m"]);
    }

    #[test]
    fn a_denied_wildcard_takes_with_it_what_was_allowed_within() {
        let policy = plan(&[
            rule(r#"{"allow":true,"type":"c","major":10,"minor":229,"access":"rw"}"#),
            rule(r#"{"allow":false,"type":"c","major":10,"access":"rwm"}"#),
        ])
        .unwrap();
        assert!(!by_the_list(&policy, Kind::Char, 10, 229, READ));
    }

    #[test]
    fn a_hole_in_a_wildcard_is_refused() {
        let error = plan(&[
            rule(r#"{"allow":true,"type":"c","major":10,"access":"rwm"}"#),
            rule(r#"{"allow":false,"type":"c","major":10,"minor":229,"access":"rwm"}"#),
        ])
        .unwrap_err();
        assert_eq!(
            format!("{error:#}"),
            "linux.resources.devices[1]: rule \"c 10:229 rwm\" not supported by devices cgroupv1 \
             (cannot punch hole in existing wildcard rule \"c 10:* rwm\")"
        );
    }

    #[test]
    fn allow_all_denies_nothing_and_an_open_for_both_is_denied_by_either() {
        assert!(plan(&[rule(r#"{"allow":true,"access":"rwm"}"#)]).unwrap().denies_nothing());
        let policy = plan(&[
            rule(r#"{"allow":true,"access":"rwm"}"#),
            rule(r#"{"allow":false,"type":"b","major":8,"minor":0,"access":"w"}"#),
        ])
        .unwrap();
        let code = policy.program().unwrap();
        assert!(by_the_program(&code, Kind::Block, 8, 0, READ));
        assert!(!by_the_program(&code, Kind::Block, 8, 0, READ | WRITE));
    }

    #[test]
    fn senseless_rules_are_refused() {
        for (json, said) in [
            (r#"{"allow":true,"type":"c","access":""}"#, "device access cannot be empty"),
            (r#"{"allow":true,"type":"c"}"#, "device access cannot be empty"),
            (r#"{"allow":true,"type":"c","access":"rx"}"#, "unknown access 'x'"),
            (r#"{"allow":true,"type":"c","access":"ra"}"#, "unknown access 'a'"),
            (r#"{"allow":true,"type":"p","access":"r"}"#, "a fifo has no device cgroup"),
            (r#"{"allow":true,"type":"c","major":4294967296,"access":"r"}"#, "out of range"),
        ] {
            let error = format!("{:#}", plan(&[rule(json)]).unwrap_err());
            assert!(error.starts_with("linux.resources.devices[0]: ") && error.contains(said), "{error}");
        }
    }
}
