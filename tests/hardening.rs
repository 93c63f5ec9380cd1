//! How the program is linked: the obstacles for an attacker who has found a fault in it.

use std::fs;

use crate::support::{runtime, under_runc};

const LOAD: u32 = 1;
const DYNAMIC: u32 = 2;
const INTERPRETER: u32 = 3;
const GNU_STACK: u32 = 0x6474_e551;
const GNU_RELRO: u32 = 0x6474_e552;
const EXECUTE: u32 = 1;
const WRITE: u32 = 2;

/// The fields of a program header that the tests need.
struct Segment {
    kind: u32,
    flags: u32,
    offset: usize,
    size: usize,
}

/// A 64-bit ELF file of this machine.
struct Program {
    bytes: Vec<u8>,
}

impl Program {
    fn under_test() -> Self {
        let program = Self { bytes: fs::read(runtime()).expect("the runtime") };
        assert_eq!(program.bytes.get(..5), Some(b"\x7fELF\x02".as_slice()), "a 64-bit ELF file");
        program
    }

    fn number<const N: usize>(&self, at: usize) -> usize {
        let mut word = [0; 8];
        word[..N].copy_from_slice(&self.bytes[at..at + N]);
        u64::from_le_bytes(word) as usize
    }

    fn segments(&self, kind: u32) -> Vec<Segment> {
        let (first, size, count) = (self.number::<8>(32), self.number::<2>(54), self.number::<2>(56));
        (0..count)
            .map(|place| first + place * size)
            .map(|at| Segment {
                kind: self.number::<4>(at) as u32,
                flags: self.number::<4>(at + 4) as u32,
                offset: self.number::<8>(at + 8),
                size: self.number::<8>(at + 32),
            })
            .filter(|segment| segment.kind == kind)
            .collect()
    }

    /// The values of the dynamic section that have this tag.
    fn dynamic(&self, tag: usize) -> Vec<usize> {
        let entries = self.segments(DYNAMIC).into_iter().flat_map(|part| {
            (part.offset..part.offset + part.size).step_by(16).map(|at| (self.number::<8>(at), at + 8))
        });
        entries.filter(|(found, _)| *found == tag).map(|(_, at)| self.number::<8>(at)).collect()
    }
}

#[test]
fn the_program_is_a_static_pie() {
    crate::skip_unless!(!under_runc(), "it is about the program orlop itself");
    const SHARED_OBJECT: usize = 3;
    const NEEDED: usize = 1;
    const TEXT_RELOCATIONS: usize = 22;
    let program = Program::under_test();
    assert_eq!(program.number::<2>(16), SHARED_OBJECT, "loaded at any address");
    assert!(program.segments(INTERPRETER).is_empty(), "it needs no dynamic linker");
    assert!(program.dynamic(NEEDED).is_empty(), "it needs no library");
    assert!(program.dynamic(TEXT_RELOCATIONS).is_empty(), "its code is relocated without being written");
}

#[test]
fn nothing_of_the_relocated_data_stays_writable() {
    crate::skip_unless!(!under_runc(), "it is about the program orlop itself");
    const FLAGS: usize = 30;
    const BIND_NOW: usize = 8;
    const FLAGS_1: usize = 0x6fff_fffb;
    const NOW: usize = 1;
    let program = Program::under_test();
    let relro = program.segments(GNU_RELRO);
    assert!(relro.iter().any(|part| part.size > 0), "PT_GNU_RELRO");
    let now = program.dynamic(FLAGS).iter().any(|flags| flags & BIND_NOW != 0)
        || program.dynamic(FLAGS_1).iter().any(|flags| flags & NOW != 0);
    assert!(now, "the table of functions is filled, and closed, at the start");
}

#[test]
fn nothing_of_the_program_is_both_writable_and_executable() {
    crate::skip_unless!(!under_runc(), "it is about the program orlop itself");
    let program = Program::under_test();
    let stack = program.segments(GNU_STACK);
    assert!(!stack.is_empty() && stack.iter().all(|part| part.flags & EXECUTE == 0), "PT_GNU_STACK");
    let loaded = program.segments(LOAD);
    assert!(!loaded.is_empty());
    for part in loaded {
        assert_ne!(part.flags & (WRITE | EXECUTE), WRITE | EXECUTE, "at {:#x} of the file", part.offset);
    }
}
