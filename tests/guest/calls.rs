//! System calls that do not go through the C library.

use nix::errno::Errno;

use super::{Fact, number, returned};

/// A system call as 32-bit x86 makes it. Numbers and arguments differ from 64-bit x86: the first argument is in
/// ebx.
#[cfg(target_arch = "x86_64")]
pub fn syscall32(args: &[String]) -> Fact {
    let word = |at| if at < args.len() { number::<i64>(args, at) } else { Ok(0) };
    let (mut result, first, second, third) = (word(0)?, word(1)?, word(2)?, word(3)?);
    // SAFETY: `int 0x80` takes eax, ebx, ecx and edx. LLVM reserves rbx, so the code exchanges it around the call.
    // Some kernels clear r8 to r11. The tests give integers only, and 0 where the kernel wants a pointer.
    unsafe {
        std::arch::asm!(
            "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
            first = inout(reg) first => _, inout("rax") result, in("rcx") second, in("rdx") third,
            out("r8") _, out("r9") _, out("r10") _, out("r11") _,
        );
    }
    let result = result as i32;
    if result < 0 {
        Errno::set_raw(-result);
    }
    Ok(returned(result.max(-1).into()))
}

/// Kernels of other machines have no such calls.
#[cfg(not(target_arch = "x86_64"))]
pub fn syscall32(_: &[String]) -> Fact {
    Err("not an x86_64 kernel".to_owned())
}
