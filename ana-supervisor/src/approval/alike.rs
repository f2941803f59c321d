//! Which operations are the same question to a person.

use sha2::{Digest, Sha256};

use crate::operation::Kind;

/// The same for two operations that differ in nothing but who asks, when, and under which id and nonce. Lives in the
/// supervisor's memory only: it saves a question, never a signature.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Likeness([u8; 32]);

impl Likeness {
    /// `kind` is hashed as it is: salts in it (the environment's) have to be the same for all that are to be compared.
    /// `None` when it has no canonical form; such an operation is like no other.
    pub fn of(rule: &str, kind: &Kind) -> Option<Self> {
        let form = serde_json_canonicalizer::to_vec(&(rule, kind)).ok()?;
        Some(Self(Sha256::digest(form).into()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::operation::{Bytes, Exec, example, exec_of};

    fn exec(change: impl FnOnce(&mut Exec)) -> Kind {
        let mut operation = example();
        change(exec_of(&mut operation));
        operation.kind
    }

    #[test]
    fn whatever_a_person_would_see_differ_makes_another_question() {
        let like = |kind: &Kind| Likeness::of("git", kind).unwrap();
        let one = like(&exec(|_| ()));
        assert_eq!(one, like(&exec(|_| ())));
        assert_ne!(one, Likeness::of("other", &exec(|_| ())).unwrap());
        let changes: [fn(&mut Exec); 8] = [
            |e| e.program.sha256.push('x'),
            |e| e.program.inode.push('1'),
            |e| e.argv.push(Bytes(Vec::new())),
            |e| e.cwd.0.push(b'x'),
            |e| e.environment.sha256.push('x'),
            |e| e.environment.changed.clear(),
            |e| e.ids.euid = 0,
            |e| e.foreign_namespaces.push("mnt".into()),
        ];
        for (index, change) in changes.into_iter().enumerate() {
            assert_ne!(one, like(&exec(change)), "change {index}");
        }
    }
}
