//! An assembler for classic BPF. Programs are built from the end to the start, because BPF jumps go forward only: the
//! target of a jump exists before the jump.
//!
//! The `seccompiler` crate cannot express most profiles: its filters have one architecture, and one action for all
//! rules. They also compare the number with each known call in turn, where we use a binary search.
//! Not for: what the filter decides (`compile.rs`).

use crate::sys::seccomp::Instruction;

const LOAD: u16 = 0x20; // BPF_LD | BPF_W | BPF_ABS
const AND: u16 = 0x54; // BPF_ALU | BPF_AND | BPF_K
const JUMP: u16 = 0x05; // BPF_JMP | BPF_JA
const RETURN: u16 = 0x06; // BPF_RET | BPF_K

/// The condition of a jump, about the word that was loaded last.
#[derive(Clone, Copy, Debug)]
pub enum Test {
    /// Equal to the operand.
    Equal = 0x15,
    /// Greater than the operand.
    Greater = 0x25,
    /// Greater than or equal to the operand.
    AtLeast = 0x35,
    /// Has at least one bit of the operand set.
    AnyBit = 0x45,
}

/// A place in the program: the number of instructions from it to the end.
pub type Label = usize;

/// A program that grows at its front.
#[derive(Debug, Default)]
pub struct Assembler {
    reversed: Vec<Instruction>,
    /// The `return` of each value that is nearest to the front.
    returns: Vec<(u32, Label)>,
}

impl Assembler {
    fn push(&mut self, code: u16, jt: u8, jf: u8, k: u32) -> Label {
        self.reversed.push(Instruction { code, jt, jf, k });
        self.reversed.len()
    }

    /// The distance from a jump to `to`, if the jump is put in front after `more` other instructions.
    fn distance(&self, to: Label, more: usize) -> usize {
        self.reversed.len() + more - to
    }

    /// Returns the label of a `return` of `value`, which it adds if there is none.
    pub fn ret(&mut self, value: u32) -> Label {
        match self.returns.iter().find(|(known, _)| *known == value) {
            Some(&(_, label)) => label,
            None => {
                let label = self.push(RETURN, 0, 0, value);
                self.returns.push((value, label));
                label
            }
        }
    }

    /// Puts in front a copy of `to` if that is a `return`, and otherwise a jump to it.
    fn repeat(&mut self, to: Label) -> Label {
        let code = to.checked_sub(1).and_then(|at| self.reversed.get(at)).copied();
        let Some(Instruction { code: RETURN, k, .. }) = code else {
            let distance = self.distance(to, 0) as u32;
            return self.push(JUMP, 0, 0, distance);
        };
        let label = self.push(RETURN, 0, 0, k);
        self.returns.retain(|(value, _)| *value != k);
        self.returns.push((k, label));
        label
    }

    /// Returns a label equivalent to `to`, near enough for the next two instructions to reach.
    fn nearer(&mut self, to: Label) -> Label {
        let copies = &self.returns;
        let value = to.checked_sub(1).and_then(|at| self.reversed.get(at)).map(|found| (found.code, found.k));
        let copy = copies.iter().find(|(known, _)| value == Some((RETURN, *known))).map(|(_, label)| *label);
        match copy {
            Some(label) if self.distance(label, 1) <= usize::from(u8::MAX) => label,
            _ => self.repeat(to),
        }
    }

    /// Makes `to`, or an equivalent of it, the instruction at the front.
    fn follow(&mut self, to: Label) {
        if to != self.reversed.len() {
            self.repeat(to);
        }
    }

    /// Puts in front a jump to `yes` if the loaded word passes the test, else to `no`.
    pub fn branch(&mut self, test: Test, k: u32, mut yes: Label, mut no: Label) -> Label {
        if yes == no {
            return yes;
        }
        // Bringing one label nearer adds an instruction, so the other label moves away by one.
        if self.distance(yes, 1) > usize::from(u8::MAX) {
            yes = self.nearer(yes);
        }
        if self.distance(no, 0) > usize::from(u8::MAX) {
            no = self.nearer(no);
        }
        let (jt, jf) = (self.distance(yes, 0) as u8, self.distance(no, 0) as u8);
        self.push(test as u16, jt, jf, k)
    }

    /// Puts in front a load of the word at `offset` of `seccomp_data`, which goes on at `next`.
    pub fn load(&mut self, offset: u32, next: Label) -> Label {
        self.follow(next);
        self.push(LOAD, 0, 0, offset)
    }

    /// Puts in front an instruction that keeps only the bits of `mask`, and goes on at `next`.
    pub fn mask(&mut self, mask: u32, next: Label) -> Label {
        self.follow(next);
        self.push(AND, 0, 0, mask)
    }

    /// The finished program. It starts with the instruction that was put in front last.
    pub fn finish(self) -> Vec<Instruction> {
        let mut program = self.reversed;
        program.reverse();
        program
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::seccomp::reference::{Call, run};
    use crate::parts::seccomp::tests::rows;

    #[test]
    fn a_branch_reaches_both_ways_whatever_stands_between() {
        let call = Call { audit: 0, number: 0, args: [0; 6] };
        for (between, near, far_is_return) in
            (240..270).flat_map(|n| (0..4).flat_map(move |near| [(n, near, true), (n, near, false)]))
        {
            for (k, yes_first) in [(0, true), (0, false), (1, true), (1, false)] {
                let mut out = Assembler::default();
                let block = |value, out: &mut Assembler| {
                    let end = out.ret(value);
                    if far_is_return { end } else { out.mask(0, end) }
                };
                let first = block(1, &mut out);
                (0..near).fold(first, |next, _| out.mask(0, next));
                let second = block(2, &mut out);
                (0..between).fold(second, |next, _| out.mask(0, next));
                let (yes, no) = if yes_first { (first, second) } else { (second, first) };
                out.branch(Test::Equal, k, yes, no);
                let wanted = if (k == 0) == yes_first { 1 } else { 2 };
                assert_eq!(run(&rows(&out.finish()), call).0, wanted, "{between} {near} {k} {yes_first}");
            }
        }
    }
}
