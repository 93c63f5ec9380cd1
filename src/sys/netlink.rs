//! Network devices: the few requests of rtnetlink(7) that moving a device takes, and "lo up".
//!
//! Every length from the kernel is checked before use.
//! Not for: routes, or which devices move.

use super::{Called, Error};
use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType};
use rustix::process::Pid;
use std::collections::BTreeSet;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

// netlink(7), rtnetlink(7).
const HEADER: usize = 16;
const ATTRIBUTE: usize = 4;
const REQUEST: u16 = 0x01;
const ACK: u16 = 0x04;
const DUMP: u16 = 0x300;
const EXCLUSIVE: u16 = 0x200;
const CREATE: u16 = 0x400;
const DUMP_INTERRUPTED: u16 = 0x10;
const ERROR: u16 = 2;
const DONE: u16 = 3;

const IFLA_IFNAME: u16 = 3;
const IFLA_NET_NS_PID: u16 = 19;
const IFA_ADDRESS: u16 = 1;
const IFA_LOCAL: u16 = 2;
const IFA_BROADCAST: u16 = 4;
const IFA_FLAGS: u16 = 8;

const IFF_UP: u32 = 1;
const IFA_F_PERMANENT: u32 = 0x80;
// The flags of an address that its user chose: NODAD, HOMEADDRESS, MANAGETEMPADDR, NOPREFIXROUTE, MCAUTOJOIN.
const IFA_F_CHOSEN: u32 = 0x02 | 0x10 | 0x100 | 0x200 | 0x400;

/// An address of a network device, with all that another device needs to get it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Address {
    family: u8,
    prefix: u8,
    scope: u8,
    flags: u32,
    address: Vec<u8>,
    local: Vec<u8>,
    broadcast: Vec<u8>,
}

impl Address {
    /// Whether a user configured it and it is valid everywhere. An administrator would miss such an address on a
    /// moved device.
    pub fn is_global_and_permanent(&self) -> bool {
        const RT_SCOPE_UNIVERSE: u8 = 0;
        self.scope == RT_SCOPE_UNIVERSE && self.flags & IFA_F_PERMANENT != 0
    }
}

/// A route netlink socket. It speaks to the network namespace in which it was opened.
#[derive(Debug)]
pub struct Route {
    socket: OwnedFd,
    sequence: u32,
}

struct Request {
    bytes: Vec<u8>,
    kind: u16,
    flags: u16,
}

impl Request {
    fn new(kind: u16, flags: u16, body: &[u8]) -> Self {
        let mut bytes = vec![0; HEADER];
        bytes.extend_from_slice(body);
        Self { bytes, kind, flags: flags | REQUEST }
    }

    fn attribute(mut self, kind: u16, value: &[u8]) -> Self {
        // Values here are names and addresses, far below the 64 KiB of the length field.
        let length = u16::try_from(ATTRIBUTE + value.len()).unwrap_or(u16::MAX);
        self.bytes.extend_from_slice(&length.to_ne_bytes());
        self.bytes.extend_from_slice(&kind.to_ne_bytes());
        self.bytes.extend_from_slice(value);
        self.bytes.resize(self.bytes.len().next_multiple_of(4), 0);
        self
    }

    fn finish(self, sequence: u32) -> Vec<u8> {
        let length = u32::try_from(self.bytes.len()).unwrap_or(u32::MAX);
        let mut header = Vec::with_capacity(HEADER);
        header.extend_from_slice(&length.to_ne_bytes());
        header.extend_from_slice(&self.kind.to_ne_bytes());
        header.extend_from_slice(&self.flags.to_ne_bytes());
        header.extend_from_slice(&sequence.to_ne_bytes());
        header.extend_from_slice(&0_u32.to_ne_bytes());
        let mut bytes = self.bytes;
        bytes.splice(..HEADER, header);
        bytes
    }
}

fn link_body(index: u32, flags: u32, change: u32) -> Vec<u8> {
    // struct ifinfomsg: family, padding, type, index, flags, change.
    let mut body = vec![0; 4];
    for word in [index, flags, change] {
        body.extend_from_slice(&word.to_ne_bytes());
    }
    body
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_ne_bytes(bytes.get(at..at + 2)?.try_into().ok()?))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

/// Splits off the first block. Its length, header included, is at `bytes[0]`, in 32 bits if `wide`. The next block
/// begins at a multiple of 4. `None` at the end, or if a length does not fit.
fn split_block(bytes: &[u8], wide: bool) -> Option<(&[u8], &[u8])> {
    let (length, least) =
        if wide { (u32_at(bytes, 0)? as usize, HEADER) } else { (usize::from(u16_at(bytes, 0)?), ATTRIBUTE) };
    if length < least {
        return None;
    }
    let block = bytes.get(..length)?;
    Some((block, bytes.get(length.next_multiple_of(4)..).unwrap_or_default()))
}

impl Route {
    /// Opens a socket in the network namespace of the calling thread.
    ///
    /// # Errors
    /// The kernel has no netlink, or no file descriptor is left.
    pub fn open() -> Result<Self, Error> {
        let socket = rustix::net::socket_with(
            AddressFamily::NETLINK,
            SocketType::RAW,
            SocketFlags::CLOEXEC,
            None, // NETLINK_ROUTE, which is 0
        )
        .called("socket", || "NETLINK_ROUTE".into())?;
        Ok(Self { socket, sequence: 0 })
    }

    /// The network namespace that the socket speaks to, for setns(2).
    ///
    /// # Errors
    /// CAP_NET_ADMIN is missing in the owner of that namespace.
    pub fn namespace(&self) -> Result<OwnedFd, Error> {
        const SIOCGSKNS: libc::c_ulong = 0x894c;
        // SAFETY: SIOCGSKNS takes no argument; it returns a new descriptor (CLOEXEC).
        let fd = unsafe { libc::ioctl(self.socket.as_raw_fd(), SIOCGSKNS as _) };
        super::check(fd.into()).called("ioctl", || "SIOCGSKNS".into())?;
        // SAFETY: the kernel has just made `fd`; it has no other owner.
        Ok(unsafe { OwnedFd::from_raw_fd(fd) })
    }

    /// The index of the device `name`.
    ///
    /// # Errors
    /// ENODEV if there is none.
    pub fn index_of(&self, name: &str) -> Result<u32, Error> {
        rustix::net::netdevice::name_to_index(&self.socket, name)
            .called("ioctl", || format!("SIOCGIFINDEX {name:?}"))
    }

    /// The indices of all devices.
    pub fn indices(&mut self) -> Result<BTreeSet<u32>, Error> {
        let request = || Request::new(libc::RTM_GETLINK, DUMP, &link_body(0, 0, 0));
        let replies = self.dump(request, "RTM_GETLINK")?;
        Ok(replies.iter().filter_map(|body| u32_at(body, 4)).collect())
    }

    /// All addresses of the device `index`.
    pub fn addresses(&mut self, index: u32) -> Result<Vec<Address>, Error> {
        let replies = self.dump(|| Request::new(libc::RTM_GETADDR, DUMP, &[0; 8]), "RTM_GETADDR")?;
        // The kernel filters by device only if it is asked to check the request strictly.
        Ok(replies
            .iter()
            .filter(|body| u32_at(body, 4) == Some(index))
            .filter_map(|body| parse(body))
            .collect())
    }

    /// Moves the device into the network namespace of process `init` and renames it there, in one request.
    ///
    /// # Errors
    /// EEXIST if the name is in use there; EINVAL for a device that cannot move.
    pub fn move_to(&mut self, index: u32, init: Pid, name: &str) -> Result<(), Error> {
        let pid = u32::try_from(init.as_raw_nonzero().get()).unwrap_or_default();
        let mut text = name.as_bytes().to_vec();
        text.push(0);
        let request = Request::new(libc::RTM_NEWLINK, ACK, &link_body(index, 0, 0))
            .attribute(IFLA_IFNAME, &text)
            .attribute(IFLA_NET_NS_PID, &pid.to_ne_bytes());
        self.ask(request, "RTM_NEWLINK", || format!("{index} IFLA_NET_NS_PID {pid} IFLA_IFNAME {name:?}"))
            .map(drop)
    }

    /// Sets the device up.
    pub fn set_up(&mut self, index: u32) -> Result<(), Error> {
        let request = Request::new(libc::RTM_NEWLINK, ACK, &link_body(index, IFF_UP, IFF_UP));
        self.ask(request, "RTM_NEWLINK", || format!("{index} up")).map(drop)
    }

    /// Gives the device `index` an address that another device had.
    ///
    /// # Errors
    /// EEXIST if the device has it already.
    pub fn add_address(&mut self, index: u32, address: &Address) -> Result<(), Error> {
        let flags = address.flags & IFA_F_CHOSEN;
        let mut body = vec![address.family, address.prefix, flags as u8, address.scope];
        body.extend_from_slice(&index.to_ne_bytes());
        let mut request = Request::new(libc::RTM_NEWADDR, ACK | CREATE | EXCLUSIVE, &body)
            .attribute(IFA_FLAGS, &flags.to_ne_bytes());
        for (kind, value) in [
            (IFA_ADDRESS, &address.address),
            (IFA_LOCAL, &address.local),
            (IFA_BROADCAST, &address.broadcast),
        ] {
            if !value.is_empty() {
                request = request.attribute(kind, value);
            }
        }
        let args = || format!("{index} {:?}/{}", address.address, address.prefix);
        self.ask(request, "RTM_NEWADDR", args).map(drop)
    }

    /// Repeats a dump that a change has interrupted, up to eight times.
    fn dump(&mut self, request: impl Fn() -> Request, what: &'static str) -> Result<Vec<Vec<u8>>, Error> {
        let mut result = self.ask(request(), what, String::new);
        for _ in 0..7 {
            match result {
                Err(error) if error.errno() == libc::EINTR => {
                    result = self.ask(request(), what, String::new);
                }
                result => return result,
            }
        }
        result
    }

    /// Sends a request and collects the bodies of its replies.
    fn ask(
        &mut self,
        request: Request,
        what: &'static str,
        args: impl Fn() -> String,
    ) -> Result<Vec<Vec<u8>>, Error> {
        let error = |errno: i32| Error::new("rtnetlink", format!("{what} {}", args()), errno);
        let failed = |errno: rustix::io::Errno| error(errno.raw_os_error());
        self.sequence += 1;
        let is_dump = request.flags & DUMP == DUMP;
        let bytes = request.finish(self.sequence);
        rustix::net::send(&self.socket, &bytes, SendFlags::empty()).map_err(failed)?;
        let mut replies = Vec::new();
        // The kernel puts at most 32 KiB into one message of a dump.
        let mut buffer = vec![0; 1 << 15];
        loop {
            // rtnetlink answers during the send, so an answer that is missing now will not come.
            let flags = RecvFlags::TRUNC | RecvFlags::DONTWAIT;
            let (_, length) = rustix::net::recv(&self.socket, &mut buffer[..], flags).map_err(failed)?;
            let mut rest = buffer.get(..length).ok_or_else(|| error(libc::EMSGSIZE))?;
            while let Some((block, next)) = split_block(rest, true) {
                rest = next;
                if u32_at(block, 8) != Some(self.sequence) {
                    continue; // the answer to an earlier request that failed half-way
                }
                let body = block.get(HEADER..).unwrap_or_default();
                match u16_at(block, 4) {
                    Some(ERROR) => {
                        let errno = u32_at(body, 0).map_or(libc::EBADMSG, |value| -(value as i32));
                        return if errno == 0 { Ok(replies) } else { Err(error(errno)) };
                    }
                    Some(DONE) if is_dump => return Ok(replies),
                    _ if u16_at(block, 6).is_some_and(|flags| flags & DUMP_INTERRUPTED != 0) => {
                        return Err(error(libc::EINTR));
                    }
                    _ => replies.push(body.to_vec()),
                }
            }
        }
    }
}

/// Reads `struct ifaddrmsg` and its attributes.
fn parse(body: &[u8]) -> Option<Address> {
    let &[family, prefix, flags, scope, ..] = body else { return None };
    let mut address = Address {
        family,
        prefix,
        scope,
        flags: flags.into(),
        address: Vec::new(),
        local: Vec::new(),
        broadcast: Vec::new(),
    };
    let mut rest = body.get(8..)?;
    while let Some((block, next)) = split_block(rest, false) {
        rest = next;
        let value = block.get(ATTRIBUTE..).unwrap_or_default();
        match u16_at(block, 2) {
            Some(IFA_ADDRESS) => address.address = value.to_vec(),
            Some(IFA_LOCAL) => address.local = value.to_vec(),
            Some(IFA_BROADCAST) => address.broadcast = value.to_vec(),
            // All 32 flags; the header has room for eight.
            Some(IFA_FLAGS) => address.flags = u32_at(value, 0)?,
            _ => {}
        }
    }
    Some(address)
}

/// Sets the loopback device of the calling thread's network namespace up, in three system calls and without netlink.
///
/// # Errors
/// CAP_NET_ADMIN is missing in the owner of the network namespace.
pub fn loopback_up() -> Result<(), Error> {
    // Any socket takes the ioctl. A UNIX socket is the cheapest, and every kernel has it.
    let socket = rustix::net::socket_with(AddressFamily::UNIX, SocketType::DGRAM, SocketFlags::CLOEXEC, None)
        .called("socket", || "AF_UNIX".into())?;
    // SAFETY: ifreq is plain data, and all zeroes are valid for it.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(b"lo") {
        *to = *from as libc::c_char;
    }
    // A new loopback device has none of the flags that a user can set, so none has to be read first.
    request.ifr_ifru.ifru_flags = IFF_UP as libc::c_short;
    let fd = socket.as_raw_fd();
    // SAFETY: SIOCSIFFLAGS reads an ifreq; `request` is one and lives over the call.
    let result = unsafe { libc::ioctl(fd, libc::SIOCSIFFLAGS as _, &raw const request) };
    super::check(result.into()).map(drop).called("ioctl", || "SIOCSIFFLAGS \"lo\" IFF_UP".into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::prctl::testing::{in_child, privileged, unshare};
    use anyhow::ensure;
    use nix::sched::CloneFlags;

    #[test]
    fn lengths_that_do_not_fit_end_the_parsing() {
        let block = |length: u16, rest: &[u8]| [&length.to_ne_bytes()[..], rest].concat();
        assert!(split_block(&[], false).is_none());
        assert!(split_block(&block(3, &[0; 9]), false).is_none());
        assert!(split_block(&block(12, &[0; 9]), false).is_none());
        let fits = block(5, &[0; 9]);
        let (first, rest) = split_block(&fits, false).unwrap();
        assert_eq!((first.len(), rest.len()), (5, 3));
        // An address whose attribute claims more than there is has no attribute.
        let body = [&[2, 8, 0x80, 0, 1, 0, 0, 0][..], &block(200, &[1, 0, 9, 9])].concat();
        assert_eq!(parse(&body).unwrap().address, [0; 0]);
        assert_eq!(parse(&body[..3]), None);
    }

    #[test]
    fn a_request_is_padded_and_has_its_length() {
        let bytes = Request::new(16, ACK, &[7; 16]).attribute(IFLA_IFNAME, b"abc\0d").finish(9);
        assert_eq!(bytes.len(), 16 + 16 + 12);
        assert_eq!((u32_at(&bytes, 0), u16_at(&bytes, 4), u32_at(&bytes, 8)), (Some(44), Some(16), Some(9)));
        assert_eq!(u16_at(&bytes, 32), Some(9));
    }

    #[test]
    fn the_loopback_device_is_set_up() {
        if !privileged("the_loopback_device_is_set_up") {
            return;
        }
        in_child(|| {
            unshare(CloneFlags::CLONE_NEWNET)?;
            loopback_up()?;
            let mut route = Route::open()?;
            let index = route.index_of("lo")?;
            ensure!(route.indices()?.contains(&index));
            let addresses = route.addresses(index)?;
            let local = addresses.iter().find(|address| address.family == 2);
            ensure!(
                local.is_some_and(|local| local.address == [127, 0, 0, 1] && local.prefix == 8),
                "{addresses:?}"
            );
            ensure!(!local.is_some_and(Address::is_global_and_permanent));
            let error = route.set_up(4711).unwrap_err().to_string();
            ensure!(error == "rtnetlink RTM_NEWLINK 4711 up: no such device", "{error}");
            Ok(())
        });
    }
}
