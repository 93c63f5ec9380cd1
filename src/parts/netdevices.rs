//! `linux.netDevices`: network devices of the host that move into the container with their addresses (config-linux.md,
//! "Network Devices").
//!
//! Orlop does not move them back. When the network namespace ends, the kernel moves physical devices back to the host
//! and deletes virtual ones.

use crate::parts::namespaces::{Kind, Namespaces};
use crate::sys::Called;
use crate::sys::netlink::Route;
use anyhow::{Context, Result, ensure};
use oci_spec::runtime::LinuxNetDevice;
use rustix::process::Pid;
use rustix::thread::{LinkNameSpaceType, ThreadNameSpaceType};
use rustix::thread::{move_into_link_name_space, move_into_thread_name_spaces};
use serde::Serialize;
use std::collections::{BTreeSet, HashMap};
use std::os::fd::{AsFd, BorrowedFd};

/// One device, by its names on the host and in the container. The kernel replaces `%d` in the second by a number.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
struct Device {
    host: String,
    container: String,
}

/// All devices, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct NetDevices(BTreeSet<Device>);

/// The user who runs the runtime.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Runner {
    /// Root of the host.
    Root,
    /// Another user, who may not move the host's devices.
    Rootless,
}

/// Decides which devices move.
///
/// # Errors
/// The container has no network namespace of its own, the runtime is rootless, a name is malformed, or two devices get
/// the same name.
pub fn plan(
    spec: &HashMap<String, LinuxNetDevice>,
    namespaces: &Namespaces,
    runner: Runner,
) -> Result<NetDevices> {
    if spec.is_empty() {
        return Ok(NetDevices::default());
    }
    ensure!(
        namespaces.private(Kind::Network),
        "linux.netDevices: unable to move network devices without a NET namespace"
    );
    ensure!(
        runner == Runner::Root,
        "linux.netDevices: network devices are not supported for rootless containers"
    );
    let mut devices = BTreeSet::new();
    let mut taken = BTreeSet::new();
    for (host, device) in spec {
        let container = device.name().clone().filter(|name| !name.is_empty());
        let container = container.unwrap_or_else(|| host.clone());
        for name in [host, &container] {
            ensure!(is_name(name), "linux.netDevices: invalid network device name {name:?}");
        }
        ensure!(
            taken.insert(container.clone()) || container.contains('%'),
            "linux.netDevices: two devices are to be named {container:?}"
        );
        devices.insert(Device { host: host.clone(), container });
    }
    Ok(NetDevices(devices))
}

/// Returns true if the kernel takes `name` (dev_valid_name()). IFNAMSIZ is 16, with the NUL.
fn is_name(name: &str) -> bool {
    let strange = |c: char| matches!(c, '/' | ':' | '\0') || c.is_ascii_whitespace() || c == '\x0b';
    (1..16).contains(&name.len()) && name != "." && name != ".." && !name.contains(strange)
}

impl NetDevices {
    /// Returns true if there is no device to move.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Moves the devices into the network namespace of init, restores their addresses, and sets them up. The parent
    /// calls this, and enters that namespace only to open a socket.
    ///
    /// # Errors
    /// `ENODEV`: no such device. `EINVAL`: it cannot move. `EEXIST`: the container has a device of that name.
    pub fn apply_from_parent(&self, init: Pid, init_pidfd: BorrowedFd<'_>) -> Result<()> {
        if self.is_empty() {
            return Ok(());
        }
        let mut outside = Route::open()?;
        let mut inside = route_of(init_pidfd, &outside).context("linux.netDevices")?;
        for device in &self.0 {
            move_one(device, init, &mut outside, &mut inside)
                .with_context(|| format!("linux.netDevices {}", device.host))?;
        }
        Ok(())
    }
}

/// Opens a netlink socket in the network namespace of `process`. `ours` is a socket of our own namespace, by which we
/// return.
fn route_of(process: BorrowedFd<'_>, ours: &Route) -> Result<Route> {
    // Not by a pidfd of our own process: it stands for the namespace that we are in at that moment.
    let home = ours.namespace()?;
    move_into_thread_name_spaces(process, ThreadNameSpaceType::NETWORK)
        .called("setns", || "CLONE_NEWNET of init".into())?;
    let route = Route::open();
    move_into_link_name_space(home.as_fd(), Some(LinkNameSpaceType::Network))
        .called("setns", || "CLONE_NEWNET of the runtime".into())?;
    Ok(route?)
}

fn move_one(device: &Device, init: Pid, outside: &mut Route, inside: &mut Route) -> Result<()> {
    let index = outside.index_of(&device.host).context("link not found on runtime namespace")?;
    // Before the move, which takes all addresses from the device.
    let addresses = outside.addresses(index)?;
    // The kernel does not tell which name it makes of a pattern: the moved device is the one that was not there before.
    let before = if device.container.contains('%') { Some(inside.indices()?) } else { None };
    outside.move_to(index, init, &device.container)?;
    let index = match before {
        None => inside.index_of(&device.container)?,
        Some(before) => {
            *inside.indices()?.difference(&before).next().context("the moved device is missing")?
        }
    };
    for address in addresses.iter().filter(|address| address.is_global_and_permanent()) {
        inside.add_address(index, address)?;
    }
    inside.set_up(index)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::namespaces::Request;
    use crate::sys::prctl::testing::{in_child, privileged, unshare};
    use rustix::process::PidfdFlags;
    use std::io::Read;
    use std::process::{Command, Stdio};

    fn with_net() -> Namespaces {
        Namespaces([(Kind::Network, Request::New)].into())
    }

    fn spec(json: &str) -> HashMap<String, LinuxNetDevice> {
        serde_json::from_str(json).unwrap()
    }

    fn planned(json: &str) -> Result<NetDevices> {
        plan(&spec(json), &with_net(), Runner::Root)
    }

    #[test]
    fn devices_need_root_and_a_network_namespace() {
        let one = spec(r#"{"eth1":{}}"#);
        let error = plan(&one, &Namespaces::default(), Runner::Root).unwrap_err();
        let text = "linux.netDevices: unable to move network devices without a NET namespace";
        assert_eq!(format!("{error:#}"), text);
        let error = plan(&one, &with_net(), Runner::Rootless).unwrap_err();
        let text = "network devices are not supported for rootless containers";
        assert!(format!("{error:#}").ends_with(text), "{error:#}");
        assert!(plan(&HashMap::new(), &Namespaces::default(), Runner::Rootless).unwrap().is_empty());
    }

    #[test]
    fn bad_names_are_refused() {
        for name in ["", ".", "..", "a/b", "a:b", "a b", "a\tb", "sixteen_is_1_more"] {
            let json = serde_json::json!({ name: {} }).to_string();
            let wanted = format!("linux.netDevices: invalid network device name {name:?}");
            assert_eq!(planned(&json).unwrap_err().to_string(), wanted);
        }
        assert!(planned(r#"{"a":{"name":"b/c"}}"#).is_err());
        let twice = planned(r#"{"a":{"name":"x"},"b":{"name":"x"}}"#).unwrap_err();
        assert_eq!(twice.to_string(), "linux.netDevices: two devices are to be named \"x\"");
        assert!(planned(r#"{"a":{"name":"x%d"},"b":{"name":"x%d"}}"#).is_ok());
    }

    fn sh(script: &str) -> Result<String> {
        let output = Command::new("sh").args(["-ec", script]).output()?;
        ensure!(output.status.success(), "{script}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    // The child has a network namespace of its own and stands for the host. All devices end with it.
    fn with_container(test: &str, body: impl FnOnce(Pid, BorrowedFd<'_>) -> Result<()>) {
        if !privileged(test) || sh("command -v ip nsenter unshare").is_err() {
            eprintln!("{test}: skipped, needs root, ip, nsenter and unshare");
            return;
        }
        in_child(|| {
            unshare(nix::sched::CloneFlags::CLONE_NEWNET)?;
            sh("ip link add v0 type veth peer name v1; ip link set v0 mtu 1789 address 00:11:22:33:44:55
                ip addr add 169.254.169.77/32 dev v0; ip addr add 127.0.0.33 dev v0 scope host")?;
            let mut container = Command::new("unshare")
                .args(["-n", "sh", "-c", "echo x; exec sleep 60"])
                .stdout(Stdio::piped())
                .spawn()?;
            container.stdout.take().context("stdout")?.read_exact(&mut [0])?;
            let pid = Pid::from_child(&container);
            let pidfd = rustix::process::pidfd_open(pid, PidfdFlags::empty())?;
            let result = body(pid, pidfd.as_fd());
            container.kill()?;
            container.wait()?;
            result
        });
    }

    fn inside(pid: Pid, script: &str) -> Result<String> {
        sh(&format!("nsenter -n -t {} {script}", pid.as_raw_nonzero()))
    }

    #[test]
    fn a_device_moves_with_its_new_name_and_its_global_addresses() {
        with_container("a_device_moves_with_its_new_name_and_its_global_addresses", |pid, pidfd| {
            planned(r#"{"v0":{"name":"ctr0"}}"#)?.apply_from_parent(pid, pidfd)?;
            let shown = inside(pid, "ip addr show dev ctr0")?;
            for text in ["169.254.169.77/32 ", "mtu 1789 ", "00:11:22:33:44:55 ", ",UP"] {
                ensure!(shown.contains(text), "no {text:?} in {shown}");
            }
            ensure!(!shown.contains("127.0.0.33"), "{shown}");
            ensure!(sh("ip link show dev v0").is_err(), "the device is still outside");
            sh("ip link show dev v1")?; // we are still where we were
            Ok(())
        });
    }

    #[test]
    fn a_pattern_is_a_name_that_the_kernel_chooses() {
        with_container("a_pattern_is_a_name_that_the_kernel_chooses", |pid, pidfd| {
            planned(r#"{"v0":{"name":"n%d"},"v1":{"name":"n%d"}}"#)?.apply_from_parent(pid, pidfd)?;
            let shown = inside(pid, "ip -o addr show")?;
            ensure!(shown.contains("n0 ") && shown.contains("169.254.169.77/32"), "{shown}");
            inside(pid, "ip link show dev n1").map(drop)
        });
    }

    #[test]
    fn a_device_that_is_not_there_is_named() {
        with_container("a_device_that_is_not_there_is_named", |pid, pidfd| {
            let error = planned(r#"{"nope":{}}"#)?.apply_from_parent(pid, pidfd).unwrap_err();
            let text = "linux.netDevices nope: link not found on runtime namespace: \
                        ioctl SIOCGIFINDEX \"nope\": no such device";
            ensure!(format!("{error:#}") == text, "{error:#}");
            Ok(())
        });
    }
}
