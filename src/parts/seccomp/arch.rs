//! The calling conventions of each machine, and their system call numbers.
//!
//! A machine has one or more calling conventions ([`Abi`]): an x86_64 kernel serves x86_64, 32-bit x86 and x32. The
//! filter needs no code for architectures that the machine's kernel does not serve.
//! Not for: rules (`compile.rs`).

use oci_spec::runtime::Arch;

/// One calling convention of a machine.
#[derive(Debug)]
pub struct Abi {
    /// The value that the kernel puts into `seccomp_data.arch` (`AUDIT_ARCH_*` of linux/audit.h).
    pub audit: u32,
    /// A bit that is set in every number of this convention. x32 has one, as it shares its audit value with x86_64.
    pub bit: u32,
    /// The numbers of names, without `bit`. The first table that has a name decides.
    pub numbers: &'static [&'static Table],
    /// The first number that is reserved for the architecture. Such numbers never count as newer than the profile.
    pub private: u32,
    /// True if `socketcall` (102) and `ipc` (117) exist. Their first argument selects one of many calls.
    pub multiplexed: bool,
    /// The calls whose only argument is a pointer to their arguments.
    pub packed: &'static [u32],
}

/// A call that a multiplexer (`socketcall` or `ipc`) carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Carried {
    /// The number of the multiplexer.
    pub number: u32,
    /// The bits of its first argument that the kernel uses.
    pub mask: u64,
    /// The value of these bits for this call.
    pub value: u64,
}

/// A machine, by the calling conventions that its kernel serves.
#[derive(Debug)]
pub struct Machine {
    /// Each architecture of the spec with its convention; the native one first.
    pub abis: &'static [(Arch, &'static Abi)],
}

/// The bit that distinguishes x32 from x86_64.
pub const X32_BIT: u32 = 0x4000_0000;
/// In `AUDIT_ARCH_*`: registers have 64 bits.
const WIDE: u32 = 0x8000_0000;
/// In `AUDIT_ARCH_*`: little endian.
const LITTLE: u32 = 0x4000_0000;
/// For [`Abi::private`]: no number is reserved.
const NONE_PRIVATE: u32 = u32::MAX;

impl Abi {
    /// Returns true if arguments are compared in 64 bits. x32 and the 32-bit conventions compare the low half.
    pub fn wide(&self) -> bool {
        self.audit & WIDE != 0 && self.bit == 0
    }

    /// Returns true if the low half of an argument comes first in memory.
    pub fn little_endian(&self) -> bool {
        self.audit & LITTLE != 0
    }

    /// The number of the call whose name has this [`hash`], with the convention's bit.
    pub fn number(&self, hash: u64) -> Option<u32> {
        self.numbers.iter().find_map(|table| table.get(hash)).map(|number| number | self.bit)
    }

    /// The multiplexer that carries the call whose name has this [`hash`]; `None` if none does.
    pub fn carried(&self, hash: u64) -> Option<Carried> {
        let found = if self.multiplexed { MULTIPLEXED.get(hash) } else { None };
        found.map(|found| {
            let (number, value) = (found >> 8, u64::from(found & 0xff));
            // Both take a 32-bit integer, even on 64-bit machines. ipc(2) has a version in the upper 16 bits.
            let mask = if number == IPC { 0xffff } else { 0xffff_ffff };
            Carried { number, mask, value }
        })
    }

    /// Returns true if a filter can read the arguments of the call `number`.
    pub fn shows_arguments(&self, number: u32) -> bool {
        !self.packed.contains(&number)
    }
}

/// The FNV-1a hash of a name, with 64 bits.
#[allow(clippy::indexing_slicing, reason = "const fn has no other way, and `at` is below the length")]
pub const fn hash(name: &str) -> u64 {
    let (bytes, mut hash, mut at) = (name.as_bytes(), 0xcbf2_9ce4_8422_2325_u64, 0);
    while at < bytes.len() {
        hash = (hash ^ bytes[at] as u64).wrapping_mul(0x0100_0000_01b3);
        at += 1;
    }
    hash
}

/// A map from the hash of a name to a number. The compiler fills this open-addressed table.
///
/// The table does not hold the names: each `&str` would need a relocation at every start of the static PIE. The build
/// fails if two known names have the same hash. An unknown name has the hash of a known one with a probability of 2⁻⁵⁴.
#[derive(Debug)]
pub struct Table {
    hashes: [u64; SLOTS],
    numbers: [u32; SLOTS],
}

const SLOTS: usize = 1024;

// The compiler evaluates these functions, and refuses an index that is too big. Only `get` runs in the product.
#[allow(clippy::indexing_slicing, reason = "slots are taken modulo their number")]
impl Table {
    const EMPTY: Self = Self { hashes: [0; SLOTS], numbers: [0; SLOTS] };

    const fn with(mut self, name: &str, number: u32) -> Self {
        let hash = hash(name);
        let mut slot = hash as usize % SLOTS;
        while self.hashes[slot] != 0 {
            assert!(self.hashes[slot] != hash, "two names with one hash");
            slot = (slot + 1) % SLOTS;
        }
        self.hashes[slot] = hash;
        self.numbers[slot] = number;
        self
    }

    const fn of(rows: &[(&str, u32)]) -> Self {
        let (mut table, mut row) = (Self::EMPTY, 0);
        while row < rows.len() {
            table = table.with(rows[row].0, rows[row].1);
            row += 1;
        }
        table
    }

    fn get(&self, hash: u64) -> Option<u32> {
        let start = hash as usize % SLOTS;
        let slots = (start..SLOTS).chain(0..start);
        for slot in slots {
            match self.hashes.get(slot) {
                Some(&found) if found == hash => return self.numbers.get(slot).copied(),
                Some(0) | None => return None,
                Some(_) => {}
            }
        }
        None
    }
}

/// The table of one architecture of the `syscalls` crate.
macro_rules! table {
    ($arch:ident) => {{
        static TABLE: Table = {
            use syscalls::$arch::Sysno;
            let (mut table, mut id) = (Table::EMPTY, Sysno::first().id());
            while id <= Sysno::last().id() {
                if let Some(call) = Sysno::new(id as usize) {
                    table = table.with(call.name(), id as u32);
                }
                id += 1;
            }
            table
        };
        &TABLE
    }};
}

/// The number of `ipc`, the multiplexer of System V's interprocess communication.
const IPC: u32 = 117;

/// The calls that `socketcall` (102) and `ipc` (117) carry on 32-bit x86, s390 and PowerPC. The number of the
/// multiplexer is shifted left by 8; the low bits are the value of its first argument (linux/net.h, linux/ipc.h).
static MULTIPLEXED: Table = {
    const SOCKETCALL: u32 = 102 << 8;
    const IPC: u32 = self::IPC << 8;
    Table::of(&[
        ("socket", SOCKETCALL | 1),
        ("bind", SOCKETCALL | 2),
        ("connect", SOCKETCALL | 3),
        ("listen", SOCKETCALL | 4),
        ("accept", SOCKETCALL | 5),
        ("getsockname", SOCKETCALL | 6),
        ("getpeername", SOCKETCALL | 7),
        ("socketpair", SOCKETCALL | 8),
        ("send", SOCKETCALL | 9),
        ("recv", SOCKETCALL | 10),
        ("sendto", SOCKETCALL | 11),
        ("recvfrom", SOCKETCALL | 12),
        ("shutdown", SOCKETCALL | 13),
        ("setsockopt", SOCKETCALL | 14),
        ("getsockopt", SOCKETCALL | 15),
        ("sendmsg", SOCKETCALL | 16),
        ("recvmsg", SOCKETCALL | 17),
        ("accept4", SOCKETCALL | 18),
        ("recvmmsg", SOCKETCALL | 19),
        ("sendmmsg", SOCKETCALL | 20),
        ("semop", IPC | 1),
        ("semget", IPC | 2),
        ("semctl", IPC | 3),
        ("semtimedop", IPC | 4),
        ("msgsnd", IPC | 11),
        ("msgrcv", IPC | 12),
        ("msgget", IPC | 13),
        ("msgctl", IPC | 14),
        ("shmat", IPC | 21),
        ("shmdt", IPC | 22),
        ("shmget", IPC | 23),
        ("shmctl", IPC | 24),
    ])
};

#[cfg(any(test, target_arch = "x86_64"))]
mod x86_64 {
    use super::{Abi, Arch, LITTLE, Machine, NONE_PRIVATE, Table, WIDE, X32_BIT};

    const AUDIT: u32 = 62 | WIDE | LITTLE;
    static X86_64: Abi = Abi {
        audit: AUDIT,
        bit: 0,
        numbers: &[table!(x86_64)],
        private: NONE_PRIVATE,
        multiplexed: false,
        packed: &[],
    };
    static X32: Abi = Abi {
        audit: AUDIT,
        bit: X32_BIT,
        numbers: &[&X32_OWN, table!(x86_64)],
        private: NONE_PRIVATE,
        multiplexed: false,
        packed: &[],
    };
    /// The calls that have another number for x32, because their arguments have another layout there.
    static X32_OWN: Table = Table::of(&[
        ("rt_sigaction", 512),
        ("rt_sigreturn", 513),
        ("ioctl", 514),
        ("readv", 515),
        ("writev", 516),
        ("recvfrom", 517),
        ("sendmsg", 518),
        ("recvmsg", 519),
        ("execve", 520),
        ("ptrace", 521),
        ("rt_sigpending", 522),
        ("rt_sigtimedwait", 523),
        ("rt_sigqueueinfo", 524),
        ("sigaltstack", 525),
        ("timer_create", 526),
        ("mq_notify", 527),
        ("kexec_load", 528),
        ("waitid", 529),
        ("set_robust_list", 530),
        ("get_robust_list", 531),
        ("vmsplice", 532),
        ("move_pages", 533),
        ("preadv", 534),
        ("pwritev", 535),
        ("rt_tgsigqueueinfo", 536),
        ("recvmmsg", 537),
        ("sendmmsg", 538),
        ("process_vm_readv", 539),
        ("process_vm_writev", 540),
        ("setsockopt", 541),
        ("getsockopt", 542),
        ("io_setup", 543),
        ("io_submit", 544),
        ("execveat", 545),
        ("preadv2", 546),
        ("pwritev2", 547),
    ]);
    pub static MACHINE: Machine = Machine {
        abis: &[
            (Arch::ScmpArchX86_64, &X86_64),
            (Arch::ScmpArchX86, &super::x86::X86),
            (Arch::ScmpArchX32, &X32),
        ],
    };
}

#[cfg(any(test, target_arch = "x86_64", target_arch = "x86"))]
mod x86 {
    use super::{Abi, LITTLE, NONE_PRIVATE, Table};

    pub static X86: Abi = Abi {
        audit: 3 | LITTLE,
        bit: 0,
        numbers: &[table!(x86)],
        private: NONE_PRIVATE,
        multiplexed: true,
        packed: &[82, 90], // select and mmap; their successors are _newselect and mmap2
    };
    #[cfg(target_arch = "x86")]
    pub static MACHINE: super::Machine = super::Machine { abis: &[(super::Arch::ScmpArchX86, &X86)] };
}

#[cfg(any(test, target_arch = "aarch64"))]
mod aarch64 {
    use super::{Abi, Arch, LITTLE, Machine, NONE_PRIVATE, Table, WIDE};

    static AARCH64: Abi = Abi {
        audit: 183 | WIDE | LITTLE,
        bit: 0,
        numbers: &[table!(aarch64)],
        private: NONE_PRIVATE,
        multiplexed: false,
        packed: &[],
    };
    pub static MACHINE: Machine =
        Machine { abis: &[(Arch::ScmpArchAarch64, &AARCH64), (Arch::ScmpArchArm, &super::arm::ARM)] };
}

#[cfg(any(test, target_arch = "aarch64", target_arch = "arm"))]
mod arm {
    use super::{Abi, LITTLE, Table};

    const PRIVATE: u32 = 0xf_0000;
    static ARM_OWN: Table = Table::of(&[
        ("breakpoint", PRIVATE | 1),
        ("cacheflush", PRIVATE | 2),
        ("usr26", PRIVATE | 3),
        ("usr32", PRIVATE | 4),
        ("set_tls", PRIVATE | 5),
    ]);
    pub static ARM: Abi = Abi {
        audit: 40 | LITTLE,
        bit: 0,
        numbers: &[table!(arm), &ARM_OWN],
        private: PRIVATE,
        multiplexed: false,
        packed: &[],
    };
    #[cfg(target_arch = "arm")]
    pub static MACHINE: super::Machine = super::Machine { abis: &[(super::Arch::ScmpArchArm, &ARM)] };
}

/// A machine with one calling convention.
macro_rules! machine {
    ($name:ident, $target:literal, $arch:ident, $audit:expr, $multiplexed:literal, $packed:expr) => {
        #[cfg(any(test, target_arch = $target))]
        mod $name {
            #[allow(unused_imports)]
            use super::{Abi, Arch, LITTLE, Machine, NONE_PRIVATE, Table, WIDE};

            static ABI: Abi = Abi {
                audit: $audit,
                bit: 0,
                numbers: &[table!($name)],
                private: NONE_PRIVATE,
                multiplexed: $multiplexed,
                packed: &$packed,
            };
            pub static MACHINE: Machine = Machine { abis: &[(Arch::$arch, &ABI)] };
        }
    };
}

machine!(riscv64, "riscv64", ScmpArchRiscv64, 243 | WIDE | LITTLE, false, []);
machine!(loongarch64, "loongarch64", ScmpArchLoongarch64, 258 | WIDE | LITTLE, false, []);
// The filter has no code for the 31-bit convention of s390x and the 32-bit one of ppc64: calls get KILL_THREAD.
machine!(s390x, "s390x", ScmpArchS390x, 22 | WIDE, true, [90]); // mmap
machine!(powerpc64, "powerpc64", ScmpArchPpc64le, 21 | WIDE | LITTLE, true, []);

/// The machine for which orlop is built.
pub fn native() -> &'static Machine {
    #[cfg(target_arch = "x86_64")]
    return &x86_64::MACHINE;
    #[cfg(target_arch = "x86")]
    return &x86::MACHINE;
    #[cfg(target_arch = "aarch64")]
    return &aarch64::MACHINE;
    #[cfg(target_arch = "arm")]
    return &arm::MACHINE;
    #[cfg(target_arch = "riscv64")]
    return &riscv64::MACHINE;
    #[cfg(target_arch = "loongarch64")]
    return &loongarch64::MACHINE;
    #[cfg(target_arch = "s390x")]
    return &s390x::MACHINE;
    #[cfg(all(target_arch = "powerpc64", target_endian = "little"))]
    return &powerpc64::MACHINE;
}

/// All machines that have tables, for the tests.
#[cfg(test)]
pub fn all() -> [&'static Machine; 6] {
    [
        &x86_64::MACHINE,
        &aarch64::MACHINE,
        &riscv64::MACHINE,
        &loongarch64::MACHINE,
        &s390x::MACHINE,
        &powerpc64::MACHINE,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    macro_rules! every_name {
        ($($arch:ident),*) => {$({
            let table = table!($arch);
            for call in syscalls::$arch::Sysno::iter() {
                assert_eq!(table.get(hash(call.name())), Some(call.id() as u32), "{call:?}");
            }
        })*};
    }

    #[test]
    fn every_name_of_every_table_finds_its_number() {
        every_name!(x86_64, x86, aarch64, arm, riscv64, loongarch64, s390x, powerpc64);
        for unknown in ["", "no_such_call", "READ", "read "] {
            assert_eq!(table!(x86_64).get(hash(unknown)), None, "{unknown:?}");
        }
    }

    #[test]
    fn x32_has_numbers_of_its_own() {
        let (_, x32) = native().abis.iter().find(|(arch, _)| *arch == Arch::ScmpArchX32).unwrap();
        assert_eq!(x32.number(hash("execve")), Some(X32_BIT | 520));
        assert_eq!(x32.number(hash("read")), Some(X32_BIT));
    }
}
