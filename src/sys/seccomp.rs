//! seccomp(2): loads a filter program, and asks which flags the kernel knows.
//!
//! Not for: the content of the program (`parts::seccomp` compiles it).

use super::{Error, check};
use std::os::fd::{FromRawFd, OwnedFd};

/// One instruction of classic BPF, laid out as `struct sock_filter`.
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Instruction {
    /// Operation and addressing mode.
    pub code: u16,
    /// How many instructions to skip when the condition holds.
    pub jt: u8,
    /// How many instructions to skip when it does not.
    pub jf: u8,
    /// The operand.
    pub k: u32,
}

const _: () = assert!(size_of::<Instruction>() == size_of::<libc::sock_filter>());
const _: () = assert!(align_of::<Instruction>() == align_of::<libc::sock_filter>());

/// Asks for a notification fd. The libc crate has the flags with varying types; these are seccomp(2)'s.
pub const NEW_LISTENER: u32 = 1 << 3;
/// Log all actions except "allow".
pub const LOG: u32 = 1 << 1;
/// Leave the speculative store bypass mitigation alone.
pub const SPEC_ALLOW: u32 = 1 << 2;
/// Only fatal signals interrupt a call that a listener has received. Since Linux 5.19.
pub const WAIT_KILLABLE_RECV: u32 = 1 << 5;

/// The most instructions that the kernel takes (`BPF_MAXINSNS`).
pub const MAX_INSTRUCTIONS: usize = 4096;

/// Loads `program` for the calling thread, in one system call. Returns the notification fd (CLOEXEC) if `flags` has
/// [`NEW_LISTENER`].
///
/// # Errors
/// EACCES without no_new_privs and CAP_SYS_ADMIN, EINVAL for a flag that the kernel does not know, EBUSY if the
/// process has a listener already.
pub fn set_filter(program: &[Instruction], flags: u32) -> Result<Option<OwnedFd>, Error> {
    let args = || format!("SECCOMP_SET_MODE_FILTER flags {flags}, {} instructions", program.len());
    let len = u16::try_from(program.len()).map_err(|_| Error::new("seccomp", args(), libc::EINVAL))?;
    let program = libc::sock_fprog { len, filter: program.as_ptr().cast_mut().cast() };
    // SAFETY: `program` points to `len` instructions that outlive the call and have the layout of `sock_filter`
    // (asserted above). The kernel only copies them.
    let result =
        unsafe { libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, &raw const program) };
    let result = check(result)
        .map_err(|error| Error::new("seccomp", args(), error.raw_os_error().unwrap_or(libc::EIO)))?;
    if flags & NEW_LISTENER == 0 {
        return Ok(None);
    }
    // SAFETY: with NEW_LISTENER, the result is a new descriptor without another owner.
    Ok(Some(unsafe { OwnedFd::from_raw_fd(result as i32) }))
}

/// Whether the kernel knows all of `flags`. It checks them before it reads the program. So a null program answers
/// EFAULT for known flags and EINVAL for others, and nothing is loaded.
pub fn knows_flags(flags: u32) -> bool {
    // SAFETY: the kernel refuses a null program with EFAULT and touches no memory.
    let result = unsafe {
        libc::syscall(libc::SYS_seccomp, libc::SECCOMP_SET_MODE_FILTER, flags, std::ptr::null::<u8>())
    };
    check(result).is_err_and(|error| error.raw_os_error() == Some(libc::EFAULT))
}

/// Raw calls for the tests that ask the kernel what a loaded filter does.
#[cfg(test)]
pub(crate) mod probe {
    use super::check;
    use std::os::fd::{AsRawFd, BorrowedFd};

    /// Runs `body` in a forked child and returns its wait status.
    pub fn in_child(body: impl FnOnce() -> u8) -> nix::sys::wait::WaitStatus {
        // SAFETY: the child only runs `body` and `_exit`. The bodies use no lock of the test harness: they do not
        // print, and glibc makes malloc usable in the child of a fork.
        match unsafe { nix::unistd::fork() }.expect("fork") {
            nix::unistd::ForkResult::Parent { child } => {
                nix::sys::wait::waitpid(child, None).expect("waitpid")
            }
            nix::unistd::ForkResult::Child => {
                // A panic must not unwind into the harness: its other threads do not exist in the child.
                let body = std::panic::AssertUnwindSafe(body);
                let code = std::panic::catch_unwind(body).unwrap_or(254);
                // SAFETY: it ends the process.
                unsafe { libc::_exit(i32::from(code)) }
            }
        }
    }

    /// From now on `call` fails with `errno` in this process.
    pub fn refuse(call: libc::c_long, errno: i32) -> Result<(), super::Error> {
        let step = |code: u32, jf, k| super::Instruction { code: code as u16, jt: 0, jf, k };
        let program = [
            step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0),
            step(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, 1, call as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ERRNO | errno as u32),
            step(libc::BPF_RET | libc::BPF_K, 0, libc::SECCOMP_RET_ALLOW),
        ];
        crate::sys::prctl::set_no_new_privs()?;
        super::set_filter(&program, 0).map(drop)
    }

    /// The errno of a call with three arguments; 0 for success. The arguments must be harmless.
    pub fn errno(number: i64, args: [u64; 3]) -> i32 {
        // SAFETY: the tests pass integers and null pointers only.
        let result = unsafe { libc::syscall(number, args[0], args[1], args[2]) };
        check(result).err().and_then(|error| error.raw_os_error()).unwrap_or(0)
    }

    /// The errno of a call through the 32-bit gate of x86; 0 for success.
    #[cfg(target_arch = "x86_64")]
    pub fn errno_i386(number: u32, args: [u32; 3]) -> i32 {
        let mut result = i64::from(number);
        // SAFETY: int 0x80 takes eax, ebx, ecx, edx. LLVM owns rbx, so it is exchanged around the call. Older kernels
        // zero r8 to r11. The tests pass only integers and null pointers.
        unsafe {
            std::arch::asm!(
                "xchg rbx, {first}", "int 0x80", "xchg rbx, {first}",
                first = inout(reg) u64::from(args[0]) => _,
                inout("rax") result, in("rcx") u64::from(args[1]), in("rdx") u64::from(args[2]),
                out("r8") _, out("r9") _, out("r10") _, out("r11") _,
            );
        }
        if result < 0 { -(result as i32) } else { 0 }
    }

    const NOTIF_RECV: u64 = 0xc050_2100;
    const NOTIF_SEND: u64 = 0xc018_2101;

    /// Receives one notification and answers it with `errno`. Returns the number of the call.
    pub fn answer(listener: BorrowedFd, errno: i32) -> std::io::Result<i32> {
        // SAFETY: both structs are plain integers, for which zero is valid.
        let (mut asked, mut answer): (libc::seccomp_notif, libc::seccomp_notif_resp) =
            unsafe { (std::mem::zeroed(), std::mem::zeroed()) };
        // SAFETY: the request's size is encoded in its number and is that of the struct.
        check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_RECV as _, &raw mut asked) }.into())?;
        answer.id = asked.id;
        answer.error = -errno;
        // SAFETY: as above.
        check(unsafe { libc::ioctl(listener.as_raw_fd(), NOTIF_SEND as _, &raw mut answer) }.into())?;
        Ok(asked.data.nr)
    }
}
