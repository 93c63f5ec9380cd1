//! The session keyring of the container: without one it would possess the keys of the runtime's caller.

use crate::parts::namespaces::{Kind, Namespaces};
use crate::sys::keyctl;
use anyhow::{Context, Result};
use serde::Serialize;
use std::ffi::CString;

// keyrings(7). What the kernel gives a new session keyring: everything to the possessor; view, read and
// link to its user.
const NEW: u32 = 0x3f13_0000;
const USER_SEARCH: u32 = 0x0008_0000;
const OTHER_SEARCH: u32 = 0x0000_0008;

/// The keyring `_ses.<id>`, made for the container and joined by every exec into it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keyring {
    name: CString,
    permissions: Option<u32>,
}

/// Which process of the container joins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joiner {
    /// The first one, which also says who may search the keyring.
    Create,
    /// A later one.
    Exec,
}

/// Decides the name and the permissions. Not called with `--no-new-keyring`.
///
/// # Errors
/// The id has a NUL byte.
pub fn plan(id: &str, joiner: Joiner, namespaces: &Namespaces) -> Result<Keyring> {
    let name = CString::new(format!("_ses.{id}")).context("keyring: the id has a NUL byte")?;
    // In a user namespace the keyring's owner is not the exec's user, so the search is by "other".
    let search = if namespaces.private(Kind::User) { OTHER_SEARCH } else { USER_SEARCH };
    let permissions = match joiner {
        Joiner::Create => Some(NEW | search),
        Joiner::Exec => None,
    };
    Ok(Keyring { name, permissions })
}

impl Keyring {
    /// Joins the keyring; first thing in init. Returns what could not be had, for the log: a kernel without
    /// keys has none to leak, and a full quota of keys (a common one for all containers of a user) is no
    /// reason not to start. The caller's keyring is possessed then, so it is said.
    ///
    /// # Errors
    /// A keyring of this name is somebody else's.
    pub fn apply(&self) -> Result<Option<String>> {
        let key = match keyctl::join_session_keyring(&self.name) {
            Err(error) if error.errno() == libc::ENOSYS => return Ok(None),
            Err(error) if error.errno() == libc::EDQUOT => {
                return Ok(Some(format!("keyring: {error}, ignoring: the container has the caller's keys")));
            }
            result => result.context("unable to join session keyring")?,
        };
        if let Some(permissions) = self.permissions {
            keyctl::set_permissions(key, permissions).context("unable to mod keyring permissions")?;
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::parts::namespaces::Request;
    use crate::sys::prctl::testing::in_child;

    #[test]
    fn the_search_permission_depends_on_the_user_namespace() {
        let plain = plan("web", Joiner::Create, &Namespaces::default()).unwrap();
        assert_eq!(plain.name.as_c_str(), c"_ses.web");
        assert_eq!(plain.permissions, Some(0x3f1b_0000));
        let with_user = Namespaces([(Kind::User, Request::New)].into());
        assert_eq!(plan("web", Joiner::Create, &with_user).unwrap().permissions, Some(0x3f13_0008));
        assert_eq!(plan("web", Joiner::Exec, &with_user).unwrap().permissions, None);
        assert!(plan("a\0b", Joiner::Exec, &with_user).is_err());
    }

    #[test]
    fn an_exec_joins_the_keyring_that_create_made() {
        in_child(|| {
            let id = format!("orlop-test-{}", std::process::id());
            if plan(&id, Joiner::Create, &Namespaces::default())?.apply()?.is_some() {
                return Ok(()); // the quota is full: the warning is the behaviour
            }
            let first = keyctl::join_session_keyring(&std::ffi::CString::new(format!("_ses.{id}"))?);
            // Another keyring first, so that the second join is one.
            keyctl::join_session_keyring(c"_ses.orlop-test-other")?;
            plan(&id, Joiner::Exec, &Namespaces::default())?.apply()?;
            let second = keyctl::join_session_keyring(&std::ffi::CString::new(format!("_ses.{id}"))?);
            match (first, second) {
                (Ok(first), Ok(second)) => anyhow::ensure!(first == second, "{first:?} {second:?}"),
                (Err(error), _) if error.errno() == libc::ENOSYS => {}
                other => anyhow::bail!("{other:?}"),
            }
            Ok(())
        });
    }
}
