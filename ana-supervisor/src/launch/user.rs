//! Who the agent runs as.

use std::ffi::CString;

use nix::unistd::{Gid, Uid, User, getgrouplist};
use thiserror::Error;

use super::spec::{Identity, Spec};

#[derive(Debug, Error)]
pub enum UserError {
    #[error(
        "ana-run was started by root for nobody: an agent that is root can undo everything; name its user: \
         ana-run --user NAME -- CMD"
    )]
    Nobody,
    #[error(
        "the agent's user is root: an agent that is root can undo everything; name another user with --user"
    )]
    Root,
    #[error("no user {0:?}; name one that exists, or a number")]
    Unknown(String),
    #[error("look up user {name}")]
    LookUp { name: String, source: nix::errno::Errno },
}

/// A resolved user, and what of the account goes into the agent's environment.
#[derive(Clone, Debug)]
pub struct Account {
    pub identity: Identity,
    /// HOME, USER, LOGNAME and SHELL of the account; none for a bare number without an account.
    user: Option<User>,
}

impl Account {
    /// `--user` (a name or a number), else the person who called sudo.
    ///
    /// # Errors
    /// When there is neither, when it is root, or when there is no such account.
    pub fn resolve(user: Option<&str>, sudo_uid: Option<u32>) -> Result<Self, UserError> {
        let name = match (user, sudo_uid) {
            (Some(name), _) => name.to_owned(),
            (None, Some(uid)) => uid.to_string(),
            (None, None) => return Err(UserError::Nobody),
        };
        let failed = |source| UserError::LookUp { name: name.clone(), source };
        let found = match name.parse() {
            Ok(uid) => User::from_uid(Uid::from_raw(uid)).map_err(failed)?,
            Err(_) => User::from_name(&name).map_err(failed)?,
        };
        let (uid, gid) = match (&found, name.parse::<u32>()) {
            (Some(user), _) => (user.uid.as_raw(), user.gid.as_raw()),
            (None, Ok(number)) => (number, number),
            (None, Err(_)) => return Err(UserError::Unknown(name)),
        };
        if uid == 0 {
            return Err(UserError::Root);
        }
        let groups = match &found {
            Some(user) => groups_of(user).map_err(failed)?,
            None => vec![gid],
        };
        Ok(Self { identity: Identity { uid, gid, groups }, user: found })
    }

    /// The home folder that `~` in the policy means.
    pub fn home(&self, spec: &Spec) -> std::path::PathBuf {
        match &self.user {
            Some(user) => user.dir.clone(),
            None => spec.variable("HOME").map_or_else(|| "/".into(), Into::into),
        }
    }

    /// The account's name, or its number.
    pub fn name(&self) -> String {
        self.user.as_ref().map_or_else(|| self.identity.uid.to_string(), |user| user.name.clone())
    }

    /// Makes the environment of a root caller the user's own.
    pub fn adopt(&self, spec: &mut Spec) {
        use std::os::unix::ffi::OsStrExt;
        if let Some(user) = &self.user {
            spec.set_variable("HOME", user.dir.as_os_str().as_bytes());
            spec.set_variable("USER", user.name.as_bytes());
            spec.set_variable("LOGNAME", user.name.as_bytes());
            spec.set_variable("SHELL", user.shell.as_os_str().as_bytes());
        }
    }
}

fn groups_of(user: &User) -> nix::Result<Vec<u32>> {
    let name = CString::new(user.name.as_bytes()).map_err(|_nul| nix::errno::Errno::EINVAL)?;
    Ok(getgrouplist(&name, user.gid)?.into_iter().map(Gid::as_raw).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn root_is_refused_and_a_bare_number_keeps_its_own_gid() {
        assert!(matches!(Account::resolve(None, None), Err(UserError::Nobody)));
        assert!(matches!(Account::resolve(Some("root"), None), Err(UserError::Root)));
        assert!(matches!(Account::resolve(None, Some(0)), Err(UserError::Root)));
        assert!(matches!(Account::resolve(Some("no-such-user"), None), Err(UserError::Unknown(_))));
        let bare = Account::resolve(Some("54321"), Some(1)).unwrap();
        assert_eq!(bare.identity, Identity { uid: 54321, gid: 54321, groups: vec![54321] });
    }
}
