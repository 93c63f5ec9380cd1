//! `process.apparmorProfile`, `process.selinuxLabel` and `linux.mountLabel`: the labels by which AppArmor and SELinux
//! confine the container (config.md, "Linux Process"; config-linux.md, "Mount Label").
//!
//! The kernel changes the label of the process at execve(2). Each label is read back after it is written.
//! Not for: the label of a mount, which `mounts` passes to the file system.

use crate::sys::proc::Proc;
use anyhow::{Context, Result, bail, ensure};
use serde::Serialize;

/// A security module for which config.json may hold a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// AppArmor.
    AppArmor,
    /// SELinux.
    Selinux,
}

/// Returns true if the module is enabled on this host. `plan` asks only for a label that is set.
pub fn host_has(module: Module) -> bool {
    match module {
        Module::AppArmor => std::fs::read("/sys/module/apparmor/parameters/enabled")
            .is_ok_and(|text| text.first() == Some(&b'Y')),
        Module::Selinux => {
            rustix::fs::statfs("/sys/fs/selinux").is_ok_and(|found| found.f_type == SELINUX_MAGIC)
        }
    }
}

const SELINUX_MAGIC: rustix::fs::FsWord = 0xf97c_ff8c;

/// The labels of a container. An empty label is not set.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Labels {
    apparmor_profile: String,
    selinux_label: String,
    /// The mount option `context=` of the container's file systems, for `mounts`.
    pub mount_label: String,
}

/// Decides the labels. `enabled` is [`host_has`].
///
/// # Errors
/// A label is for a module that the host does not have, or has a NUL byte or a line break.
pub fn plan(
    apparmor_profile: Option<&str>,
    selinux_label: Option<&str>,
    mount_label: Option<&str>,
    enabled: impl Fn(Module) -> bool,
) -> Result<Labels> {
    let label = |place: &str, label: Option<&str>, module, name: &str| {
        let label = label.unwrap_or_default();
        ensure!(!label.contains(['\0', '\n']), "{place}: has a NUL byte or a line break");
        ensure!(
            label.is_empty() || enabled(module),
            "{place}: {label:?} is given, but {name} is disabled or not supported on this host"
        );
        Ok(label.to_owned())
    };
    Ok(Labels {
        apparmor_profile: label("process.apparmorProfile", apparmor_profile, Module::AppArmor, "apparmor")?,
        selinux_label: label("process.selinuxLabel", selinux_label, Module::Selinux, "selinux")?,
        mount_label: label("linux.mountLabel", mount_label, Module::Selinux, "selinux")?,
    })
}

impl Labels {
    /// Makes the SELinux label that of every key made next. The caller then makes the session keyring, and ends with
    /// [`Self::end_keyring`].
    ///
    /// # Errors
    /// `EACCES`: the SELinux policy does not allow the label.
    pub fn begin_keyring(&self, proc: &Proc) -> Result<()> {
        self.set_key_label(proc, self.selinux_label.as_bytes())
    }

    /// Undoes [`Self::begin_keyring`]: a new key gets the label of the process that makes it.
    pub fn end_keyring(&self, proc: &Proc) -> Result<()> {
        self.set_key_label(proc, b"\0")
    }

    fn set_key_label(&self, proc: &Proc, label: &[u8]) -> Result<()> {
        if self.selinux_label.is_empty() {
            return Ok(());
        }
        proc.write_self("attr/keycreate", label).context("process.selinuxLabel")
    }

    /// Asks the kernel to set both labels at the next execve(2) of the calling thread.
    ///
    /// # Errors
    /// `ENOENT`: the AppArmor profile is not loaded. `EACCES` or `EINVAL`: the SELinux policy does not allow the label.
    /// Without an errno: the kernel shows another label than the one written.
    pub fn apply(&self, proc: &Proc) -> Result<()> {
        if !self.apparmor_profile.is_empty() {
            self.apply_apparmor(proc).context("process.apparmorProfile")?;
        }
        if !self.selinux_label.is_empty() {
            self.apply_selinux(proc).context("process.selinuxLabel")?;
        }
        Ok(())
    }

    fn apply_apparmor(&self, proc: &Proc) -> Result<()> {
        let command = format!("exec {}", self.apparmor_profile);
        // Not attr/exec, which may belong to another security module.
        const FILE: &str = "attr/apparmor/exec";
        proc.write_self(FILE, command.as_bytes()).context("unable to apply apparmor profile")?;
        verify(&self.apparmor_profile, &proc.read_self(FILE)?)
    }

    fn apply_selinux(&self, proc: &Proc) -> Result<()> {
        proc.write_self("attr/exec", self.selinux_label.as_bytes()).context("can't set process label")?;
        verify(&self.selinux_label, &proc.read_self("attr/exec")?)
    }
}

/// Compares the label that the kernel shows with the one written. AppArmor adds its mode: `docker-default (enforce)`.
fn verify(wanted: &str, is: &[u8]) -> Result<()> {
    let is = String::from_utf8_lossy(is);
    let is = is.trim_end_matches(['\0', '\n']);
    let bare = is.rsplit_once(" (").map_or(is, |(label, _mode)| label);
    // The kernel shows a stack of profiles ("a//&b") and a namespace (":ns:a") in another form than the one written.
    let composed = wanted.contains("//&") || wanted.starts_with(':');
    if bare == wanted || is == wanted || (composed && !is.is_empty()) {
        return Ok(());
    }
    bail!("{wanted:?} was written, and the kernel shows {is:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_empty_label_is_not_set_and_not_probed() {
        let never = |_| panic!("probed for nothing");
        let labels = plan(Some(""), None, Some(""), never).unwrap();
        assert_eq!(labels, Labels::default());
        let proc = Proc::open_host().unwrap();
        labels.apply(&proc).unwrap();
        labels.begin_keyring(&proc).unwrap();
        labels.end_keyring(&proc).unwrap();
    }

    #[test]
    fn a_label_needs_its_module() {
        let none = |_| false;
        for (result, text) in [
            (
                plan(Some("p"), None, None, none),
                "process.apparmorProfile: \"p\" is given, but apparmor is disabled or not supported on this host",
            ),
            (
                plan(None, Some("l"), None, none),
                "process.selinuxLabel: \"l\" is given, but selinux is disabled or not supported on this host",
            ),
            (
                plan(None, None, Some("m"), none),
                "linux.mountLabel: \"m\" is given, but selinux is disabled or not supported on this host",
            ),
            (
                plan(Some("a\nb"), None, None, |_| true),
                "process.apparmorProfile: has a NUL byte or a line break",
            ),
        ] {
            assert_eq!(result.unwrap_err().to_string(), text);
        }
    }

    #[test]
    fn what_the_kernel_says_is_compared() {
        verify("docker-default", b"docker-default (enforce)\n").unwrap();
        verify("unconfined", b"unconfined\n").unwrap();
        verify("u:r:container_t:s0:c1,c2", b"u:r:container_t:s0:c1,c2\0").unwrap();
        verify(":ns:a", b"a (enforce)").unwrap();
        for is in [&b""[..], b"unconfined\n", b"docker-default2 (enforce)"] {
            assert!(verify("docker-default", is).is_err(), "{is:?}");
        }
    }

    #[test]
    fn a_profile_that_is_not_loaded_is_an_error() {
        crate::sys::prctl::testing::in_child(|| {
            let labels = plan(Some("orlop-no-such-profile"), None, None, |_| true)?;
            let error = format!("{:#}", labels.apply(&Proc::open_host()?).unwrap_err());
            ensure!(
                error.starts_with("process.apparmorProfile: unable to apply apparmor profile: "),
                "{error}"
            );
            Ok(())
        });
    }
}
