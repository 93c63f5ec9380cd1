//! The session keyring of the container (keyrings(7)). Without one of its own, the container would possess the keys of
//! the runtime's caller.
//!
//! The specification says nothing about keyrings; runc makes one too.

use crate::parts::namespaces::{Kind, Namespaces};
use crate::sys::{Called, keyctl};
use anyhow::{Context, Result};
use serde::Serialize;
use std::ffi::CString;
use std::fmt::Write;

// The permissions that the kernel gives a new session keyring: the possessor may do everything, its user may view, read
// and link it.
const NEW: u32 = 0x3f13_0000;
const USER_SEARCH: u32 = 0x0008_0000;
const OTHER_SEARCH: u32 = 0x0000_0008;

/// The keyring `_ses.<id>.<random>`. `create` makes it, and every `exec` joins it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Keyring {
    name: CString,
    permissions: Option<u32>,
}

/// The kind of process that joins the keyring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Joiner<'a> {
    /// Init, which makes the keyring and sets its permissions.
    Create,
    /// The process of an `exec`, with the keyring's name from the record. Records of an older orlop hold no name.
    Exec(Option<&'a str>),
}

/// Decides the name and the permissions. The caller does not call this with `--no-new-keyring`.
///
/// # Errors
/// The id has a NUL byte, or getrandom(2) fails.
pub fn plan(id: &str, joiner: Joiner<'_>, namespaces: &Namespaces) -> Result<Keyring> {
    let name = match joiner {
        Joiner::Create => unforeseeable(id)?,
        Joiner::Exec(Some(recorded)) => recorded.to_owned(),
        Joiner::Exec(None) => format!("_ses.{id}"),
    };
    let name = CString::new(name).context("keyring: the id has a NUL byte")?;
    // In a user namespace the user of an exec does not own the keyring, so "other" needs the right to search.
    let search = if namespaces.private(Kind::User) { OTHER_SEARCH } else { USER_SEARCH };
    let permissions = match joiner {
        Joiner::Create => Some(NEW | search),
        Joiner::Exec(_) => None,
    };
    Ok(Keyring { name, permissions })
}

/// A name that nobody can guess. If a keyring of that name exists, joining joins it, so another user could make one
/// first under a guessed name. The name is short because its length counts against the user's quota of keys.
fn unforeseeable(id: &str) -> Result<String> {
    let mut random = [0; 8];
    rustix::rand::getrandom(&mut random, rustix::rand::GetRandomFlags::empty())
        .called("getrandom", || "(for the name of the session keyring)".into())?;
    let mut name = format!("_ses.{id}.");
    random.iter().try_for_each(|byte| write!(name, "{byte:02x}"))?;
    Ok(name)
}

impl Keyring {
    /// The name by which later processes join the keyring.
    pub fn name(&self) -> &str {
        self.name.to_str().unwrap_or_default()
    }

    /// Joins the keyring, before init reads anything of the image. Returns a warning if the quota of keys is full: the
    /// container then starts with the caller's keyring, because all containers of a user share one quota. A kernel
    /// without keys needs no warning, because it has no keys to leak.
    ///
    /// # Errors
    /// `EACCES`: another user owns a keyring of this name, so we cannot set its permissions.
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
    fn the_name_cannot_be_foreseen_and_is_found_in_the_record() {
        let create = || plan("web", Joiner::Create, &Namespaces::default()).unwrap().name().to_owned();
        let (one, other) = (create(), create());
        assert!(one.starts_with("_ses.web.") && one.len() == "_ses.web.".len() + 16, "{one}");
        assert_ne!(one, other);
        let exec = |recorded| plan("web", Joiner::Exec(recorded), &Namespaces::default()).unwrap();
        assert_eq!(exec(Some(&one)).name(), one);
        assert_eq!(exec(None).name(), "_ses.web");
    }

    #[test]
    fn the_search_permission_depends_on_the_user_namespace() {
        let plain = plan("web", Joiner::Create, &Namespaces::default()).unwrap();
        assert_eq!(plain.permissions, Some(0x3f1b_0000));
        let with_user = Namespaces([(Kind::User, Request::New)].into());
        assert_eq!(plan("web", Joiner::Create, &with_user).unwrap().permissions, Some(0x3f13_0008));
        assert_eq!(plan("web", Joiner::Exec(None), &with_user).unwrap().permissions, None);
        assert!(plan("a\0b", Joiner::Create, &with_user).is_err());
    }

    #[test]
    fn an_exec_joins_the_keyring_that_create_made() {
        in_child(|| {
            let id = format!("orlop-test-{}", std::process::id());
            let created = plan(&id, Joiner::Create, &Namespaces::default())?;
            if created.apply()?.is_some() {
                return Ok(()); // the quota is full: the warning is the behaviour
            }
            let first = keyctl::join_session_keyring(&created.name);
            // Joins another keyring first, so that the next join changes the keyring.
            keyctl::join_session_keyring(c"_ses.orlop-test-other")?;
            plan(&id, Joiner::Exec(Some(created.name())), &Namespaces::default())?.apply()?;
            let second = keyctl::join_session_keyring(&created.name);
            match (first, second) {
                (Ok(first), Ok(second)) => anyhow::ensure!(first == second, "{first:?} {second:?}"),
                (Err(error), _) if error.errno() == libc::ENOSYS => {}
                other => anyhow::bail!("{other:?}"),
            }
            Ok(())
        });
    }
}
