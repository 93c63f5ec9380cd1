//! A machine that runs device programs, for the tests and the fuzzer. It is written from the kernel's documentation
//! (bpf(2), linux/bpf.h), and not from the code that writes the programs.
//!
//! Not part of the product. `fuzz/` includes this file by its path, so it uses nothing of this crate.

/// Runs `code` for the access `bits` (`BPF_DEVCG_ACC_*`) to a device of `kind` (`BPF_DEVCG_DEV_*`), and returns
/// whether it is allowed. Every path of such a program has fewer steps than the program has instructions.
pub fn run(code: &[u64], kind: u32, major: u32, minor: u32, bits: u32) -> bool {
    let context = [bits << 16 | kind, major, minor];
    let (mut registers, mut at) = ([0u64; 11], 0usize);
    for _ in 0..code.len() {
        let [op, regs, o0, o1, v0, v1, v2, v3] = code[at].to_ne_bytes();
        let (to, from) = (usize::from(regs & 15), usize::from(regs >> 4));
        let (offset, value) = (i16::from_ne_bytes([o0, o1]), i32::from_ne_bytes([v0, v1, v2, v3]));
        at += 1;
        let low = registers[to] as u32;
        let jump = match op {
            // BPF_LDX | BPF_MEM | BPF_W
            0x61 => {
                registers[to] = u64::from(context[usize::try_from(offset).expect("an offset") / 4]);
                false
            }
            // BPF_ALU | BPF_MOV | BPF_X, BPF_RSH | BPF_K, BPF_AND | BPF_K
            0xbc => {
                registers[to] = u64::from(registers[from] as u32);
                false
            }
            0x74 => {
                registers[to] = u64::from(low >> value);
                false
            }
            0x54 => {
                registers[to] = u64::from(low & value as u32);
                false
            }
            // BPF_ALU64 | BPF_MOV | BPF_K
            0xb7 => {
                registers[to] = i64::from(value) as u64;
                false
            }
            // BPF_JMP32 | BPF_JEQ, BPF_JNE, BPF_JSET; BPF_JMP | BPF_JA, BPF_EXIT
            0x16 => low == value as u32,
            0x56 => low != value as u32,
            0x46 => low & value as u32 != 0,
            0x05 => true,
            0x95 => return registers[0] == 1,
            other => panic!("instruction {other:#x}"),
        };
        if jump {
            at = at.checked_add_signed(isize::from(offset)).expect("a jump within the program");
        }
    }
    panic!("does not end");
}
