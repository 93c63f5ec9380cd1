//! `linux.sysctl`: kernel parameters of the container's own namespaces (config-linux.md, "Sysctl").
//!
//! A parameter that is not known to belong to such a namespace is refused: writing it would change the host.

use crate::parts::namespaces::{Kind, Namespaces};
use crate::sys::proc::Proc;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;
use std::collections::HashMap;

/// One parameter: its name in config.json, its path below /proc, and the value to write.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Parameter {
    name: String,
    path: String,
    value: String,
}

/// All parameters, in the order of their names.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Sysctl(Vec<Parameter>);

/// The owner of the container's network namespace. Config.json may name a namespace by a path that leads to the
/// runtime's own. The caller of [`plan`] finds that out, because it takes two stat(2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Network {
    /// The runtime's own.
    Host,
    /// The container's.
    Private,
}

const IPC: [&str; 8] = [
    "kernel.msgmax",
    "kernel.msgmnb",
    "kernel.msgmni",
    "kernel.sem",
    "kernel.shmall",
    "kernel.shmmax",
    "kernel.shmmni",
    "kernel.shm_rmid_forced",
];

/// Decides the parameters.
///
/// # Errors
/// A parameter belongs to no namespace of the container's own, its name is malformed, or its value has a NUL byte.
pub fn plan(spec: &HashMap<String, String>, namespaces: &Namespaces, network: Network) -> Result<Sysctl> {
    let mut parameters = Vec::with_capacity(spec.len());
    for (name, value) in spec {
        let dotted = dotted(name);
        let place = || format!("linux.sysctl {name}");
        check(&dotted, namespaces, network).with_context(place)?;
        ensure!(!value.contains('\0'), "{}: the value has a NUL byte", place());
        let path = format!("sys/{}", swapped(&dotted));
        let strange = |part: &str| part.is_empty() || part == "." || part == "..";
        ensure!(!path.contains('\0') && !path.split('/').any(strange), "{}: not a name", place());
        parameters.push(Parameter { name: name.clone(), path, value: value.clone() });
    }
    // A HashMap has no order: without this, two runs would differ.
    parameters.sort_by(|a, b| a.name.cmp(&b.name));
    Ok(Sysctl(parameters))
}

/// The name with `.` as the separator. As in sysctl(8), the first `.` or `/` in the name is its separator: in
/// `net/ipv4/conf/eno2.100/rp_filter` the dot belongs to the interface.
fn dotted(name: &str) -> String {
    match name.find(['.', '/']).and_then(|at| name.get(at..)) {
        Some(rest) if rest.starts_with('/') => swapped(name),
        _ => name.to_owned(),
    }
}

fn swapped(name: &str) -> String {
    name.chars()
        .map(|c| match c {
            '.' => '/',
            '/' => '.',
            other => other,
        })
        .collect()
}

fn check(name: &str, namespaces: &Namespaces, network: Network) -> Result<()> {
    if IPC.contains(&name) || name.starts_with("fs.mqueue.") {
        let private = namespaces.private(Kind::Ipc);
        ensure!(private, "sysctl {name:?} is not allowed in the hosts ipc namespace");
    } else if name.starts_with("net.") {
        let private = namespaces.private(Kind::Network) && network == Network::Private;
        ensure!(private, "sysctl {name:?} not allowed in host network namespace");
    } else if name == "kernel.domainname" && namespaces.private(Kind::Uts) {
    } else if name == "kernel.hostname" && namespaces.private(Kind::Uts) {
        bail!("sysctl {name:?} is not allowed as it conflicts with the OCI \"hostname\" field");
    } else if name.starts_with("user.") {
        let private = namespaces.private(Kind::User);
        ensure!(private, "setting ucounts without a user namespace not allowed: {name}");
    } else {
        bail!("sysctl {name:?} is not in a separate kernel namespace");
    }
    Ok(())
}

impl Sysctl {
    /// Writes the parameters. Init calls this in the container's namespaces, because the kernel changes the parameter of
    /// the writer's namespace.
    ///
    /// # Errors
    /// `ENOENT`: the kernel has no such parameter. `EINVAL`: it refuses the value.
    pub fn apply(&self, proc: &Proc) -> Result<()> {
        for parameter in &self.0 {
            proc.write(&parameter.path, parameter.value.as_bytes())
                .with_context(|| format!("linux.sysctl {}", parameter.name))?;
        }
        Ok(())
    }

    /// Returns true if there is nothing to write, so that init needs no procfs for it.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::namespaces::Request;
    use crate::sys::prctl::testing::{in_child, privileged, unshare};
    use nix::sched::CloneFlags;

    fn namespaces(kinds: &[Kind]) -> Namespaces {
        Namespaces(kinds.iter().map(|&kind| (kind, Request::New)).collect())
    }

    fn planned(name: &str, kinds: &[Kind], network: Network) -> Result<Sysctl> {
        plan(&HashMap::from([(name.to_owned(), "1".to_owned())]), &namespaces(kinds), network)
    }

    #[test]
    fn a_parameter_needs_its_namespace() {
        use Kind::{Ipc, Network as Net, User, Uts};
        let host_net = r#"sysctl "net.core.somaxconn" not allowed in host network namespace"#;
        for (name, kinds, text) in [
            ("kernel.sem", &[Net][..], r#"sysctl "kernel.sem" is not allowed in the hosts ipc namespace"#),
            (
                "fs.mqueue.msg_max",
                &[Net],
                r#"sysctl "fs.mqueue.msg_max" is not allowed in the hosts ipc namespace"#,
            ),
            ("net.core.somaxconn", &[Ipc], host_net),
            (
                "kernel.domainname",
                &[Net],
                r#"sysctl "kernel.domainname" is not in a separate kernel namespace"#,
            ),
            (
                "kernel.hostname",
                &[Uts],
                r#"sysctl "kernel.hostname" is not allowed as it conflicts with the OCI "hostname" field"#,
            ),
            (
                "user.max_net_namespaces",
                &[Net],
                "setting ucounts without a user namespace not allowed: user.max_net_namespaces",
            ),
            (
                "vm.swappiness",
                &[Ipc, Net, User, Uts],
                r#"sysctl "vm.swappiness" is not in a separate kernel namespace"#,
            ),
            (
                "kernel/core_pattern",
                &[Ipc, Net, User, Uts],
                r#"sysctl "kernel.core_pattern" is not in a separate kernel namespace"#,
            ),
            ("", &[Net], r#"sysctl "" is not in a separate kernel namespace"#),
        ] {
            let error = format!("{:#}", planned(name, kinds, Network::Private).unwrap_err());
            assert!(error.ends_with(text), "{error}");
        }
        let error = format!("{:#}", planned("net.core.somaxconn", &[Net], Network::Host).unwrap_err());
        assert!(error.ends_with(host_net), "{error}");
    }

    #[test]
    fn both_separators_lead_to_the_same_file() {
        for (name, path) in [
            ("net.ipv4.ip_forward", "sys/net/ipv4/ip_forward"),
            ("net/ipv4/ip_forward", "sys/net/ipv4/ip_forward"),
            ("net.ipv4.conf.eno2/100.rp_filter", "sys/net/ipv4/conf/eno2.100/rp_filter"),
            ("net/ipv4/conf/eno2.100/rp_filter", "sys/net/ipv4/conf/eno2.100/rp_filter"),
        ] {
            let plan = planned(name, &[Kind::Network], Network::Private).unwrap();
            assert_eq!(plan.0.first().unwrap().path, path);
        }
    }

    #[test]
    fn a_name_cannot_climb_out() {
        for name in
            ["net.//.//.kernel.core_pattern", "net/../kernel/core_pattern", "net.", "net..x", "net.a\0b"]
        {
            let error = planned(name, &[Kind::Network], Network::Private).unwrap_err().to_string();
            assert!(error.ends_with(": not a name"), "{name:?}: {error}");
        }
    }

    #[test]
    fn parameters_are_written_in_the_namespaces_of_the_writer() {
        if !privileged("parameters_are_written_in_the_namespaces_of_the_writer") {
            return;
        }
        in_child(|| {
            let proc = Proc::open_host()?;
            let outside = proc.read("sys/kernel/msgmax")?;
            unshare(CloneFlags::CLONE_NEWIPC | CloneFlags::CLONE_NEWNET | CloneFlags::CLONE_NEWUTS)?;
            let spec = [("net.core.somaxconn", "77"), ("kernel.msgmax", "4242"), ("kernel.domainname", "d")];
            let spec = spec.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
            let kinds = namespaces(&[Kind::Ipc, Kind::Network, Kind::Uts]);
            plan(&spec, &kinds, Network::Private)?.apply(&proc)?;
            ensure!(proc.read("sys/net/core/somaxconn")? == b"77\n");
            ensure!(proc.read("sys/kernel/msgmax")? == b"4242\n" && outside != b"4242\n");
            ensure!(rustix::system::uname().domainname() == c"d");
            let missing =
                planned("net.nothing", &[Kind::Network], Network::Private)?.apply(&proc).unwrap_err();
            let text =
                "linux.sysctl net.nothing: openat2 \"/proc/sys/net/nothing\": no such file or directory";
            ensure!(format!("{missing:#}") == text, "{missing:#}");
            Ok(())
        });
    }
}
