//! Scheduling of processes and memory: sched_setattr(2), ioprio_set(2), sched_setaffinity(2), set_mempolicy(2).

use super::{Called, Error, check};
use rustix::process::Pid;
use std::ffi::{c_int, c_uint, c_ulong};
use std::fmt;

/// `struct sched_attr` as of Linux 5.3.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default)]
struct RawAttr {
    size: u32,
    policy: u32,
    flags: u64,
    nice: i32,
    priority: u32,
    runtime: u64,
    deadline: u64,
    period: u64,
    util_min: u32,
    util_max: u32,
}

/// The arguments of sched_setattr(2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Attr {
    /// SCHED_OTHER or another policy.
    pub policy: u32,
    /// SCHED_FLAG_RESET_ON_FORK and other flags.
    pub flags: u64,
    /// For SCHED_OTHER and SCHED_BATCH.
    pub nice: i32,
    /// For SCHED_FIFO and SCHED_RR.
    pub priority: u32,
    /// For SCHED_DEADLINE, in nanoseconds, as are the two below.
    pub runtime: u64,
    /// For SCHED_DEADLINE.
    pub deadline: u64,
    /// For SCHED_DEADLINE.
    pub period: u64,
}

impl fmt::Display for Attr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const DEADLINE: u32 = 6;
        write!(f, "policy {} flags {:#x}", self.policy, self.flags)?;
        match self.policy {
            DEADLINE => {
                write!(f, " runtime {} deadline {} period {}", self.runtime, self.deadline, self.period)
            }
            _ => write!(f, " nice {} priority {}", self.nice, self.priority),
        }
    }
}

/// The numbers of the bits in `mask`, in the kernel's form for CPUs and nodes: `0-3,7`.
fn numbers(mask: &[c_ulong]) -> String {
    let width = c_ulong::BITS as usize;
    let is_set = |bit: usize| mask.get(bit / width).is_some_and(|word| word >> (bit % width) & 1 == 1);
    let mut list = String::new();
    let starts = (0..mask.len() * width).filter(|bit| is_set(*bit) && (*bit == 0 || !is_set(bit - 1)));
    for first in starts {
        let last = (first..).take_while(|bit| is_set(*bit)).last().unwrap_or(first);
        let comma = if list.is_empty() { "" } else { "," };
        list += &if first == last { format!("{comma}{first}") } else { format!("{comma}{first}-{last}") };
    }
    list
}

/// sched_setattr(2) of `process`.
///
/// # Errors
/// EPERM without CAP_SYS_NICE, or for SCHED_DEADLINE on fewer CPUs than there are; EINVAL, EBUSY.
pub fn set_attr(process: Pid, attr: &Attr) -> Result<(), Error> {
    let raw = RawAttr {
        size: size_of::<RawAttr>() as u32,
        policy: attr.policy,
        flags: attr.flags,
        nice: attr.nice,
        priority: attr.priority,
        runtime: attr.runtime,
        deadline: attr.deadline,
        period: attr.period,
        util_min: 0,
        util_max: 0,
    };
    let pid: c_int = process.as_raw_nonzero().get();
    // SAFETY: `raw` lives over the call and has its own size in it; the kernel reads no more than that.
    let result = unsafe { libc::syscall(libc::SYS_sched_setattr, pid, &raw const raw, 0 as c_uint) };
    check(result).map(drop).called("sched_setattr", || attr.to_string())
}

/// ioprio_set(2) of the calling thread.
///
/// # Errors
/// EPERM for the real-time class without CAP_SYS_ADMIN or CAP_SYS_NICE.
pub fn set_io_priority(class: u8, level: u8) -> Result<(), Error> {
    const IOPRIO_WHO_PROCESS: c_int = 1;
    const IOPRIO_CLASS_SHIFT: u32 = 13;
    let value = c_int::from(class) << IOPRIO_CLASS_SHIFT | c_int::from(level);
    let pid: c_int = 0;
    // SAFETY: ioprio_set(2) takes three integers and touches no memory.
    let result = unsafe { libc::syscall(libc::SYS_ioprio_set, IOPRIO_WHO_PROCESS, pid, value) };
    check(result).map(drop).called("ioprio_set", || format!("class {class} level {level}"))
}

/// sched_setaffinity(2) of `process`, or of the calling thread; bit `n` of `mask` is CPU `n`.
///
/// # Errors
/// EINVAL if none of the CPUs exists and is allowed by the cpuset.
pub fn set_affinity(process: Option<Pid>, mask: &[c_ulong]) -> Result<(), Error> {
    let pid = Pid::as_raw(process);
    // SAFETY: the length is that of `mask`, which lives over the call and is only read.
    let result = unsafe { libc::syscall(libc::SYS_sched_setaffinity, pid, size_of_val(mask), mask.as_ptr()) };
    check(result).map(drop).called("sched_setaffinity", || format!("{pid} {}", numbers(mask)))
}

/// sched_getaffinity(2) of the calling thread. The buffer is as large as any kernel's mask.
pub fn affinity() -> Result<Vec<c_ulong>, Error> {
    let mut mask = vec![0 as c_ulong; 1024 / size_of::<c_ulong>()];
    let (pid, size): (c_int, usize) = (0, size_of_val(mask.as_slice()));
    // SAFETY: the length is that of `mask`, which lives over the call and is written within it.
    let result = unsafe { libc::syscall(libc::SYS_sched_getaffinity, pid, size, mask.as_mut_ptr()) };
    check(result).called("sched_getaffinity", String::new)?;
    Ok(mask)
}

/// set_mempolicy(2) of the calling thread. `mode` includes its flags; bit `n` of `nodes` is node `n`.
///
/// # Errors
/// EINVAL if mode, flags and nodes do not fit together, or no node exists.
pub fn set_memory_policy(mode: c_int, nodes: &[c_ulong]) -> Result<(), Error> {
    // The kernel reads one bit less than the count.
    let count = if nodes.is_empty() { 0 } else { nodes.len() * c_ulong::BITS as usize + 1 };
    let mask = if nodes.is_empty() { std::ptr::null() } else { nodes.as_ptr() };
    // SAFETY: `mask` is null with a count of 0, or `nodes`, which has `count - 1` bits and is only read.
    let result = unsafe { libc::syscall(libc::SYS_set_mempolicy, mode, mask, count as c_ulong) };
    check(result).map(drop).called("set_mempolicy", || format!("{mode:#x} {}", numbers(nodes)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_shows_numbers_as_people_write_them() {
        let deadline = Attr { policy: 6, runtime: 1, deadline: 2, period: 3, ..Attr::default() };
        assert_eq!(deadline.to_string(), "policy 6 flags 0x0 runtime 1 deadline 2 period 3");
        let batch = Attr { policy: 3, flags: 1, nice: -5, ..Attr::default() };
        assert_eq!(batch.to_string(), "policy 3 flags 0x1 nice -5 priority 0");
        assert_eq!(numbers(&[0b1000_1111, 1]), "0-3,7,64");
        assert_eq!(numbers(&[c_ulong::MAX, 3]), "0-65");
        assert_eq!(numbers(&[0]), "");
    }

    #[test]
    fn the_attributes_have_the_size_of_linux_5_3() {
        assert_eq!(size_of::<RawAttr>(), 56);
    }
}
