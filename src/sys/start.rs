//! Where the kernel enters the program: a first attempt at sealing, before the C library starts.
//!
//! Here nothing has been written to yet, so that the program can be mapped anew from the read-only mount under its own
//! feet ([`anew`]), or be executed anew without having started a C library twice. Whatever goes wrong is left to
//! [`super::selfexe::seal`], which comes later, knows the other ways, and says what failed. On other architectures there
//! is only that one.
//!
//! Nothing here may touch the C library, not even by a `memcpy` of the compiler's: its functions are not yet chosen,
//! a call jumps to nowhere. Nor may it use thread-local data, or panic.

use std::sync::atomic::{AtomicBool, Ordering};

#[cfg(target_arch = "x86_64")]
mod anew;

/// Set by the first attempt, if the mount of our executable is read-only now.
static SEALED_ALREADY: AtomicBool = AtomicBool::new(false);

/// Whether the first attempt has found that there is nothing to do; then the second need not look again.
pub(super) fn sealed_already() -> bool {
    SEALED_ALREADY.load(Ordering::Relaxed)
}

#[cfg(target_arch = "x86_64")]
mod early {
    use super::{Ordering, SEALED_ALREADY, anew};
    use crate::sys::entry::SEALED;
    use crate::sys::selfexe::{DETACHED, DETACHED_AND_REMOVED};
    use libc::{AT_EMPTY_PATH, AT_FDCWD, MOUNT_ATTR_RDONLY, O_CLOEXEC, OPEN_TREE_CLONE, ST_RDONLY};
    use std::arch::{asm, global_asm};
    use std::ffi::{CStr, c_char};
    use std::mem::MaybeUninit;

    const SELF: &CStr = c"/proc/self/exe";

    // The linker is told to enter here (build.rs). The stack is as the kernel made it, and stays so for `_start`.
    global_asm!(
        ".pushsection .text.orlop_start, \"ax\", @progbits",
        ".globl orlop_start",
        ".type orlop_start, @function",
        "orlop_start:",
        "xor ebp, ebp",
        "mov r12, rsp",
        "mov rdi, rsp",
        "and rsp, -16",
        "call {seal}",
        "mov rsp, r12",
        "xor edx, edx", // no function of a dynamic linker to be called at exit
        "jmp _start",
        ".size orlop_start, . - orlop_start",
        ".popsection",
        seal = sym seal,
    );

    /// A mount that nothing can be written through. Static, so that it is not put together by `memcpy`.
    static READ_ONLY: libc::mount_attr =
        libc::mount_attr { attr_set: MOUNT_ATTR_RDONLY, attr_clr: 0, propagation: 0, userns_fd: 0 };

    /// Makes the program run from a read-only mount of it, if a word on the command line asks for that.
    ///
    /// # Safety
    /// `stack` is the stack at the program's entry: the number of arguments, these, a null pointer, the environment.
    unsafe extern "C" fn seal(stack: *const usize) {
        // SAFETY: the caller's promise.
        unsafe {
            let args = stack.wrapping_add(1).cast::<*const c_char>();
            let env = args.wrapping_add(*stack).wrapping_add(1);
            if !asks(args) || sealed() {
                return;
            }
            let path = SELF.as_ptr() as usize;
            let flags = OPEN_TREE_CLONE as usize | O_CLOEXEC as usize;
            let tree = call(libc::SYS_open_tree, AT_FDCWD as usize, path, flags, 0, 0, 0);
            if tree < 0 {
                return;
            }
            let (tree, empty) = (tree as usize, c"".as_ptr() as usize);
            let attributes = &raw const READ_ONLY as usize;
            let size = size_of::<libc::mount_attr>();
            let made =
                call(libc::SYS_mount_setattr, tree, empty, AT_EMPTY_PATH as usize, attributes, size, 0);
            if made == 0 && anew::map(tree, stack) {
                SEALED_ALREADY.store(true, Ordering::Relaxed);
            } else if made == 0 {
                call(libc::SYS_execveat, tree, empty, args as usize, env as usize, AT_EMPTY_PATH as usize, 0);
            }
            call(libc::SYS_close, tree, 0, 0, 0, 0, 0);
        }
    }

    /// One of the words is a verb whose processes a container can see.
    ///
    /// # Safety
    /// `args` are C strings up to a null pointer.
    unsafe fn asks(mut args: *const *const c_char) -> bool {
        // SAFETY: the caller's promise; nothing behind the null pointer is read.
        unsafe {
            while !(*args).is_null() {
                let mut verb = SEALED.as_ptr();
                while verb < SEALED.as_ptr().wrapping_add(SEALED.len()) {
                    if same(*args, (*verb).as_ptr()) {
                        return true;
                    }
                    verb = verb.wrapping_add(1);
                }
                args = args.wrapping_add(1);
            }
        }
        false
    }

    /// strcmp(3) is the C library's.
    ///
    /// # Safety
    /// Both are C strings.
    unsafe fn same(mut one: *const c_char, mut other: *const c_char) -> bool {
        // SAFETY: the caller's promise; nothing behind the end of the shorter one is read.
        unsafe {
            while *one == *other {
                if *one == 0 {
                    return true;
                }
                (one, other) = (one.wrapping_add(1), other.wrapping_add(1));
            }
        }
        false
    }

    /// Whether this attempt has nothing to do: we run from our own clone already, or `selfexe` must decide.
    fn sealed() -> bool {
        let mut name = MaybeUninit::<[u8; 16]>::uninit();
        let name = name.as_mut_ptr();
        let mut mount = MaybeUninit::<rustix::fs::StatFs>::uninit();
        let mount = mount.as_mut_ptr();
        let mut file = MaybeUninit::<libc::statx>::uninit();
        let file = file.as_mut_ptr();
        let path = SELF.as_ptr() as usize;
        // SAFETY: the calls write no more than what the pointers point to; of that, only what they did write is read.
        // The name becomes a C string.
        unsafe {
            let length = call(libc::SYS_readlink, path, name as usize, 15, 0, 0, 0);
            if length < 0 {
                return true;
            }
            name.cast::<u8>().wrapping_add(length as usize).write_volatile(0);
            if same(name.cast(), DETACHED.as_ptr()) || same(name.cast(), DETACHED_AND_REMOVED.as_ptr()) {
                let known = call(libc::SYS_statfs, path, mount as usize, 0, 0, 0, 0) == 0;
                let found = known && (*mount).f_flags & ST_RDONLY as i64 != 0;
                SEALED_ALREADY.store(found, Ordering::Relaxed);
                return found || !known;
            }
            call(libc::SYS_statx, AT_FDCWD as usize, path, 0, 0, file as usize, 0) != 0
                || (*file).stx_attributes & libc::STATX_ATTR_VERITY as u64 != 0
        }
    }

    /// A system call; its result is negative for an error. Not an array of arguments: a constant one would be copied by
    /// `memcpy` or `memset` where nothing is optimised.
    ///
    /// # Safety
    /// As the call asks for.
    pub(super) unsafe fn call(
        number: i64,
        a: usize,
        b: usize,
        c: usize,
        d: usize,
        e: usize,
        f: usize,
    ) -> isize {
        let result: isize;
        // SAFETY: the caller's promise; the kernel changes no registers but these.
        unsafe {
            asm!("syscall", inlateout("rax") number as isize => result,
                in("rdi") a, in("rsi") b, in("rdx") c, in("r10") d, in("r8") e, in("r9") f,
                lateout("rcx") _, lateout("r11") _, options(nostack));
        }
        result
    }
}
