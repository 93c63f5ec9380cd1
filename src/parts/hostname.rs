//! `hostname` and `domainname`: the names in the container's UTS namespace (config.md, "Hostname", "Domainname").

use crate::parts::namespaces::{Kind, Namespaces};
use crate::sys::Called;
use anyhow::{Context, Result, ensure};
use serde::Serialize;

/// The longest name that the kernel can hold (__NEW_UTS_LEN).
const LONGEST: usize = 64;

/// The names to set. Init leaves a name unchanged if it is empty here.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Names {
    hostname: String,
    domainname: String,
}

/// Decides the names.
///
/// # Errors
/// A name is given without a UTS namespace of the container's own, is too long, or has a NUL byte.
pub fn plan(hostname: Option<&str>, domainname: Option<&str>, namespaces: &Namespaces) -> Result<Names> {
    let names = Names {
        hostname: hostname.unwrap_or_default().to_owned(),
        domainname: domainname.unwrap_or_default().to_owned(),
    };
    for (place, name) in [("hostname", &names.hostname), ("domainname", &names.domainname)] {
        ensure!(
            name.is_empty() || namespaces.private(Kind::Uts),
            "unable to set {place} without a private UTS namespace"
        );
        ensure!(name.len() <= LONGEST, "{place}: {} bytes, and the kernel takes {LONGEST}", name.len());
        ensure!(!name.contains('\0'), "{place}: has a NUL byte");
    }
    Ok(names)
}

impl Names {
    /// Sets the names. Init calls this in the container's UTS namespace.
    ///
    /// # Errors
    /// We lack CAP_SYS_ADMIN in the user namespace that owns the UTS namespace.
    pub fn apply(&self) -> Result<()> {
        if !self.hostname.is_empty() {
            rustix::system::sethostname(self.hostname.as_bytes())
                .called("sethostname", || format!("{:?}", self.hostname))
                .context("hostname")?;
        }
        if !self.domainname.is_empty() {
            rustix::system::setdomainname(self.domainname.as_bytes())
                .called("setdomainname", || format!("{:?}", self.domainname))
                .context("domainname")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::namespaces::Request;
    use crate::sys::prctl::testing::{in_child, privileged, unshare};

    fn with_uts() -> Namespaces {
        Namespaces([(Kind::Uts, Request::New)].into())
    }

    #[test]
    fn names_need_a_uts_namespace() {
        for (host, domain, text) in [
            (Some("h"), None, "unable to set hostname without a private UTS namespace"),
            (None, Some("d"), "unable to set domainname without a private UTS namespace"),
        ] {
            assert_eq!(plan(host, domain, &Namespaces::default()).unwrap_err().to_string(), text);
        }
        assert_eq!(plan(Some(""), None, &Namespaces::default()).unwrap(), Names::default());
    }

    #[test]
    fn a_name_the_kernel_cannot_hold_is_refused() {
        let long = "x".repeat(65);
        assert!(plan(Some(&long), None, &with_uts()).is_err());
        assert!(plan(None, Some("a\0b"), &with_uts()).is_err());
    }

    #[test]
    fn both_names_are_set() {
        if !privileged("both_names_are_set") {
            return;
        }
        in_child(|| {
            unshare(nix::sched::CloneFlags::CLONE_NEWUTS)?;
            plan(Some("web"), Some("example"), &with_uts())?.apply()?;
            let uname = rustix::system::uname();
            ensure!(uname.nodename() == c"web" && uname.domainname() == c"example", "{uname:?}");
            Ok(())
        });
    }
}
