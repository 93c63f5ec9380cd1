//! bpf(2), as far as device programs of cgroups need it: load, attach, list, detach.
//!
//! No policy: `cgroup::devices` decides what a program says.

use super::{Called, Error, check};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};

const BPF_PROG_LOAD: libc::c_int = 5;
const BPF_PROG_ATTACH: libc::c_int = 8;
const BPF_PROG_DETACH: libc::c_int = 9;
const BPF_PROG_GET_FD_BY_ID: libc::c_int = 13;
const BPF_PROG_QUERY: libc::c_int = 16;
const BPF_PROG_TYPE_CGROUP_DEVICE: u32 = 15;
const BPF_CGROUP_DEVICE: u32 = 6;
const BPF_F_ALLOW_MULTI: u32 = 2;

// The members of `union bpf_attr` that are used, each padded to a multiple of eight bytes.

#[repr(C)]
#[derive(Default)]
struct Load {
    prog_type: u32,
    insn_cnt: u32,
    insns: u64,
    license: u64,
    log_level: u32,
    log_size: u32,
    log_buf: u64,
    kern_version: u32,
    prog_flags: u32,
    prog_name: [u8; 16],
}

#[repr(C)]
#[derive(Default)]
struct Attach {
    target_fd: u32,
    attach_bpf_fd: u32,
    attach_type: u32,
    attach_flags: u32,
}

#[repr(C)]
#[derive(Default)]
struct Query {
    target_fd: u32,
    attach_type: u32,
    query_flags: u32,
    attach_flags: u32,
    prog_ids: u64,
    prog_cnt: u32,
    pad: u32,
}

#[repr(C)]
#[derive(Default)]
struct ById {
    prog_id: u32,
    next_id: u32,
    open_flags: u32,
    pad: u32,
}

fn bpf<T>(command: libc::c_int, attr: &mut T) -> std::io::Result<libc::c_long> {
    let (pointer, size) = (std::ptr::from_mut(attr), std::mem::size_of::<T>());
    // SAFETY: `attr` is a live #[repr(C)] prefix of `union bpf_attr` of `size` bytes; the kernel takes the rest as
    // zero. Memory that its fields point to is kept alive by the callers in this file.
    check(unsafe { libc::syscall(libc::SYS_bpf, command, pointer, size) })
}

fn raw(fd: BorrowedFd<'_>) -> u32 {
    fd.as_raw_fd().unsigned_abs()
}

fn owned(result: libc::c_long) -> OwnedFd {
    // SAFETY: the call succeeded, so `result` is a new descriptor without another owner; bpf(2) sets CLOEXEC.
    unsafe { OwnedFd::from_raw_fd(result as libc::c_int) }
}

/// Loads a program that decides on access to devices.
///
/// # Errors
/// The verifier refuses the program, or this process may not load one.
pub fn load_device_program(code: &[u64]) -> Result<OwnedFd, Error> {
    let mut attr = Load {
        prog_type: BPF_PROG_TYPE_CGROUP_DEVICE,
        insn_cnt: code.len() as u32,
        insns: code.as_ptr() as u64,
        license: c"GPL".as_ptr() as u64,
        prog_name: *b"container_device",
        ..Load::default()
    };
    attr.prog_name[15] = 0;
    loop {
        match bpf(BPF_PROG_LOAD, &mut attr) {
            // A signal arrived while the verifier was working.
            Err(error) if error.raw_os_error() == Some(libc::EAGAIN) => {}
            done => {
                return done
                    .map(owned)
                    .called("bpf", || format!("BPF_PROG_LOAD ({} instructions)", code.len()));
            }
        }
    }
}

/// Adds `program` to the device programs of the cgroup. All of them must allow an access.
///
/// # Errors
/// The cgroup, or one above it, takes no further program.
pub fn attach_device_program(cgroup: BorrowedFd<'_>, program: BorrowedFd<'_>) -> Result<(), Error> {
    let mut attr = Attach {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program),
        attach_type: BPF_CGROUP_DEVICE,
        attach_flags: BPF_F_ALLOW_MULTI,
    };
    bpf(BPF_PROG_ATTACH, &mut attr).map(drop).called("bpf", || "BPF_PROG_ATTACH (BPF_CGROUP_DEVICE)".into())
}

/// The ids of the device programs that are attached to the cgroup itself.
pub fn device_programs(cgroup: BorrowedFd<'_>) -> Result<Vec<u32>, Error> {
    let mut ids = vec![0u32; 64]; // the kernel's own limit for one cgroup
    let mut attr = Query {
        target_fd: raw(cgroup),
        attach_type: BPF_CGROUP_DEVICE,
        prog_ids: ids.as_mut_ptr() as u64,
        prog_cnt: ids.len() as u32,
        ..Query::default()
    };
    bpf(BPF_PROG_QUERY, &mut attr).called("bpf", || "BPF_PROG_QUERY (BPF_CGROUP_DEVICE)".into())?;
    ids.truncate(attr.prog_cnt as usize);
    Ok(ids)
}

/// Detaches the program with this id from the cgroup.
///
/// # Errors
/// It is not attached, or another program loaded it and this process may not detach it.
pub fn detach_device_program(cgroup: BorrowedFd<'_>, id: u32) -> Result<(), Error> {
    let mut by_id = ById { prog_id: id, ..ById::default() };
    let program = owned(
        bpf(BPF_PROG_GET_FD_BY_ID, &mut by_id).called("bpf", || format!("BPF_PROG_GET_FD_BY_ID {id}"))?,
    );
    let mut attr = Attach {
        target_fd: raw(cgroup),
        attach_bpf_fd: raw(program.as_fd()),
        attach_type: BPF_CGROUP_DEVICE,
        ..Attach::default()
    };
    bpf(BPF_PROG_DETACH, &mut attr)
        .map(drop)
        .called("bpf", || format!("BPF_PROG_DETACH (BPF_CGROUP_DEVICE) {id}"))
}
