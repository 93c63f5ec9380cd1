//! Maps the program anew from another mount of its file, page for page the same, and tells the kernel that this is its
//! executable (prctl(2), PR_SET_MM_MAP): what executing it again gives, for half of the time.
//!
//! It wants a kernel with CONFIG_CHECKPOINT_RESTORE and what mounting wants too, CAP_SYS_ADMIN in our user namespace.
//! The kernel refuses while anything of the old file is still mapped, so no part can be forgotten. What is said of
//! `start` holds here.

use super::early::call;
use libc::{Elf64_Ehdr, Elf64_Phdr, MAP_FIXED, MAP_PRIVATE, O_CLOEXEC, O_RDONLY};
use std::ffi::c_char;
use std::mem::MaybeUninit;

const PAGE: usize = 4096;

/// `struct prctl_mm_map` (linux/prctl.h): where the parts of a process are.
#[repr(C)]
struct Places {
    start_code: usize,
    end_code: usize,
    start_data: usize,
    end_data: usize,
    start_brk: usize,
    brk: usize,
    start_stack: usize,
    arg_start: usize,
    arg_end: usize,
    env_start: usize,
    env_end: usize,
    auxv: usize,
    auxv_size: u32,
    exe_fd: u32,
}

/// Whether the program runs from `tree` now, which is a mount of its file. If not, it runs on as before.
///
/// # Safety
/// `stack` is the stack at the program's entry, and nothing of the program's data has been written to.
pub(super) unsafe fn map(tree: usize, stack: *const usize) -> bool {
    let mut places = MaybeUninit::<Places>::uninit();
    let places = places.as_mut_ptr();
    // SAFETY: the caller's promise; every field of `places` is written before the kernel reads it.
    unsafe {
        let Some((headers, count)) = found_on(stack, places) else { return false };
        let file = open(tree);
        if file < 0 {
            return false;
        }
        (*places).exe_fd = file as u32;
        let changed = segments(file as usize, headers, count, places) && tell(places);
        call(libc::SYS_close, file as usize, 0, 0, 0, 0, 0);
        changed
    }
}

/// The program headers, and in `places` what the stack tells: arguments, environment, itself.
///
/// # Safety
/// As for [`map`].
unsafe fn found_on(stack: *const usize, places: *mut Places) -> Option<(*const Elf64_Phdr, usize)> {
    // SAFETY: the kernel has put there the number of arguments, these and the environment, each up to a null pointer,
    // and the auxiliary vector up to AT_NULL.
    unsafe {
        let (mut at, mut end) = (stack.wrapping_add(1), 0);
        (*places).arg_start = *at;
        for part in [&raw mut (*places).arg_end, &raw mut (*places).env_end] {
            while *at != 0 {
                end = behind(*at as *const c_char);
                at = at.wrapping_add(1);
            }
            *part = end;
            at = at.wrapping_add(1);
        }
        (*places).env_start = (*places).arg_end;
        (*places).start_stack = stack as usize;
        let (mut headers, mut count) = (0, 0);
        while *at != libc::AT_NULL as usize {
            match *at as u64 {
                libc::AT_PHDR => headers = *at.wrapping_add(1),
                libc::AT_PHNUM => count = *at.wrapping_add(1),
                _ => {}
            }
            at = at.wrapping_add(2);
        }
        // The headers follow the file's. One that may be loaded anywhere does not say here where it is.
        let file = headers.wrapping_sub(size_of::<Elf64_Ehdr>()) as *const Elf64_Ehdr;
        (headers != 0 && (*file).e_type == libc::ET_EXEC).then_some((headers as *const Elf64_Phdr, count))
    }
}

/// Where the string ends, its null byte included.
///
/// # Safety
/// It is a C string.
unsafe fn behind(mut string: *const c_char) -> usize {
    // SAFETY: the caller's promise. Volatile, or the compiler may see strlen(3) in it; so with the writes below.
    unsafe {
        while string.read_volatile() != 0 {
            string = string.wrapping_add(1);
        }
    }
    string as usize + 1
}

/// A descriptor for the file behind `tree`, which itself only stands for a path; or a negative error.
///
/// # Safety
/// None, but for what [`call`] asks for.
unsafe fn open(tree: usize) -> isize {
    const PREFIX: &[u8] = b"/proc/self/fd/";
    let mut path = MaybeUninit::<[u8; 40]>::uninit();
    let path = path.as_mut_ptr().cast::<u8>();
    // SAFETY: the prefix, at most 20 digits and a null byte fit in.
    unsafe {
        let mut length = 0;
        while length < PREFIX.len() {
            path.wrapping_add(length).write_volatile(*PREFIX.as_ptr().wrapping_add(length));
            length += 1;
        }
        let mut digits = 1;
        while tree / digits >= 10 {
            digits *= 10;
        }
        while digits > 0 {
            path.wrapping_add(length).write_volatile(b'0' + (tree / digits % 10) as u8);
            (length, digits) = (length + 1, digits / 10);
        }
        path.wrapping_add(length).write_volatile(0);
        call(libc::SYS_open, path as usize, O_RDONLY as usize | O_CLOEXEC as usize, 0, 0, 0, 0)
    }
}

/// Maps what the headers name as the kernel has done at the execution, from `file`; notes in `places` where it is.
///
/// # Safety
/// As for [`map`]; `file` is the program's.
unsafe fn segments(file: usize, headers: *const Elf64_Phdr, count: usize, places: *mut Places) -> bool {
    // SAFETY: what is mapped over is the same, for it has not been written to.
    unsafe {
        (*places).start_code = usize::MAX;
        (*places).end_code = 0;
        (*places).start_data = 0;
        (*places).end_data = 0;
        let mut at = headers;
        while at < headers.wrapping_add(count) {
            let (from, flags) = ((*at).p_vaddr as usize, (*at).p_flags);
            let end = from + (*at).p_filesz as usize;
            if (*at).p_type == libc::PT_LOAD && end > from {
                let (start, before) = (from & !(PAGE - 1), from % PAGE);
                let rights = ((flags & libc::PF_R != 0) as i32 * libc::PROT_READ)
                    | ((flags & libc::PF_W != 0) as i32 * libc::PROT_WRITE)
                    | ((flags & libc::PF_X != 0) as i32 * libc::PROT_EXEC);
                let how = (MAP_PRIVATE | MAP_FIXED) as usize;
                let offset = (*at).p_offset as usize - before;
                let mapped = call(libc::SYS_mmap, start, end - start, rights as usize, how, file, offset);
                if mapped != start as isize {
                    return false;
                }
                if flags & libc::PF_W != 0 {
                    clear(end);
                }
                note(places, from, end, flags & libc::PF_X != 0);
            }
            at = at.wrapping_add(1);
        }
        true
    }
}

/// Clears the rest of the page: of the data that begins as null, what shares a page with the file's.
///
/// # Safety
/// The page is ours to write to.
unsafe fn clear(mut end: usize) {
    while !end.is_multiple_of(PAGE) {
        // SAFETY: the caller's promise. Volatile, or it would become a memset.
        unsafe { (end as *mut u8).write_volatile(0) };
        end += 1;
    }
}

/// Code and data as the kernel counts them (load_elf_binary).
///
/// # Safety
/// The four fields are initialised.
unsafe fn note(places: *mut Places, from: usize, end: usize, code: bool) {
    // SAFETY: the caller's promise. By hand: what is not inlined of core would be called, which is allowed, but not
    // what that may call.
    unsafe {
        if code && from < (*places).start_code {
            (*places).start_code = from;
        }
        if code && end > (*places).end_code {
            (*places).end_code = end;
        }
        if from > (*places).start_data {
            (*places).start_data = from;
        }
        if end > (*places).end_data {
            (*places).end_data = end;
        }
    }
}

/// Names the new executable to the kernel, which looks whether anything of the old one is still mapped.
///
/// # Safety
/// All else in `places` is written.
unsafe fn tell(places: *mut Places) -> bool {
    // SAFETY: the caller's promise; the kernel reads as many bytes as we say.
    unsafe {
        // Nothing has moved the break yet.
        let brk = call(libc::SYS_brk, 0, 0, 0, 0, 0, 0) as usize;
        (*places).start_brk = brk;
        (*places).brk = brk;
        // Stays as it is.
        (*places).auxv = 0;
        (*places).auxv_size = 0;
        let (set, map) = (libc::PR_SET_MM as usize, libc::PR_SET_MM_MAP as usize);
        call(libc::SYS_prctl, set, map, places as usize, size_of::<Places>(), 0, 0) == 0
    }
}
