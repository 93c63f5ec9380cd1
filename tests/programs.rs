//! Programs of a few instructions. They need no C library, and make only the system calls that are written here. So
//! neither a filter nor a missing library changes what they do.

/// Waits for ever. Its only system call is pause(2).
pub fn waiting() -> Vec<u8> {
    program(&[
        0xb8, 0x22, 0x00, 0x00, 0x00, // again: mov eax, SYS_pause
        0x0f, 0x05, //                          syscall
        0xeb, 0xf7, //                          jmp again
    ])
}

/// A dynamic linker that opens the program for which it was loaded, and then executes the guest to write to that
/// file. By then the program no longer runs: the kernel refuses writes to a file that is being executed.
pub fn hostile_linker() -> Vec<u8> {
    let mut code = vec![
        0x48, 0x8d, 0x3d, 0x38, 0x00, 0x00, 0x00, // lea rdi, [exe]
        0x31, 0xf6, //                               xor esi, esi            O_RDONLY
        0xb8, 0x02, 0x00, 0x00, 0x00, //             mov eax, SYS_open       gives 3
        0x0f, 0x05, //                               syscall
        0x31, 0xd2, //                               xor edx, edx            no environment
        0x52, //                                     push rdx                the end of the arguments
        0x48, 0x8d, 0x05, 0x34, 0x00, 0x00, 0x00, // lea rax, [text]
        0x50, //                                     push rax
        0x48, 0x8d, 0x05, 0x38, 0x00, 0x00, 0x00, // lea rax, [path]
        0x50, //                                     push rax
        0x48, 0x8d, 0x05, 0x40, 0x00, 0x00, 0x00, // lea rax, [verb]
        0x50, //                                     push rax
        0x48, 0x8d, 0x3d, 0x3e, 0x00, 0x00, 0x00, // lea rdi, [guest]
        0x57, //                                     push rdi
        0x48, 0x89, 0xe6, //                         mov rsi, rsp
        0xb8, 0x3b, 0x00, 0x00, 0x00, //             mov eax, SYS_execve
        0x0f, 0x05, //                               syscall
        0x0f, 0x0b, //                               ud2
    ];
    // exe, text, path, verb, guest
    code.extend(b"/proc/self/exe\0overwritten\0/proc/self/fd/3\0write\0/guest\0");
    program(&code)
}

/// An ELF file: a header, one segment that is the whole file, and the code behind both. See elf(5).
fn program(code: &[u8]) -> Vec<u8> {
    const HEADERS: u64 = 64 + 56;
    let mut file = b"\x7fELF\x02\x01\x01\0\0\0\0\0\0\0\0\0".to_vec();
    let half = |file: &mut Vec<u8>, numbers: &[u16]| {
        numbers.iter().for_each(|number| file.extend(number.to_le_bytes()))
    };
    let word = |file: &mut Vec<u8>, numbers: &[u32]| {
        numbers.iter().for_each(|number| file.extend(number.to_le_bytes()))
    };
    let long = |file: &mut Vec<u8>, numbers: &[u64]| {
        numbers.iter().for_each(|number| file.extend(number.to_le_bytes()))
    };
    half(&mut file, &[3, 62]); // ET_DYN, EM_X86_64
    word(&mut file, &[1]);
    long(&mut file, &[HEADERS, 64, 0]); // entry, program headers, section headers
    word(&mut file, &[0]);
    half(&mut file, &[64, 56, 1, 0, 0, 0]);
    word(&mut file, &[1, 5]); // PT_LOAD, readable and executable
    let size = HEADERS + code.len() as u64;
    long(&mut file, &[0, 0, 0, size, size, 4096]);
    file.extend(code);
    file
}
