//! The noun everything else talks about: one attempted operation, exactly as a person is asked about it.
//!
//! An [`Operation`] is plain data. Its canonical form (RFC 8785) is what is hashed into the challenge
//! ([`canonical`]), and the prompt is rendered from the same value ([`render`]).

pub mod bytes;
pub mod canonical;
mod connect;
mod kind;
pub mod render;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

pub use bytes::Bytes;
pub use connect::{Connect, ConnectGrant, GrantScope, Listener, NameSource, Transport};
pub use kind::Kind;

/// The schema version of [`Operation`].
pub const VERSION: u32 = 1;

/// What is attempted, by whom, under which rule, and until when it may be answered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Operation {
    /// [`VERSION`].
    pub v: u32,
    /// A ULID; what people type after `ana approve`.
    pub id: String,
    /// 128 random bits, base64url: no two operations hash alike.
    pub nonce: String,
    pub host: String,
    /// /proc/sys/kernel/random/boot_id.
    pub boot_id: String,
    /// The session's id (a ULID).
    pub session: String,
    /// The session user's uid.
    pub uid: u32,
    /// The policy rule's name.
    pub rule: String,
    /// SHA-256 of the loaded policy, base64url.
    pub policy_sha256: String,
    /// RFC 3339, UTC, milliseconds.
    pub issued_at: String,
    pub expires_at: String,
    /// What the authenticator has to check: presence, or the person (a PIN).
    pub verify: Verify,
    pub requester: Requester,
    /// `"kind": "exec", "exec": {…}`, or `"connect"`, or `"connect-grant"` with `"connect_grant": {…}`.
    #[serde(flatten)]
    pub kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Verify {
    Presence,
    Pin,
}

/// Which process attempts it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Requester {
    pub pid: i32,
    /// Field 22 of /proc/PID/stat (clock ticks since boot), as a string.
    pub start_time: String,
    /// The processes above it, nearest first, up to the agent.
    pub ancestry: Vec<Ancestor>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ancestor {
    pub pid: i32,
    pub start_time: String,
    /// /proc/PID/exe as it reads: a hint for people, never an identity.
    pub exe: Bytes,
}

/// The execution of a program, judged on the frozen new image.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Exec {
    /// The executable that the kernel loaded; for a script, its interpreter.
    pub program: File,
    /// The script, when one is run: through its #! line, or opened by an interpreter.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub script: Option<Script>,
    /// Every argument, argv\[0\] first.
    pub argv: Vec<Bytes>,
    pub cwd: Bytes,
    pub environment: Environment,
    pub ids: Ids,
    /// The kinds of namespaces ("mnt", "user", "pid", …) that are not the session's.
    pub foreign_namespaces: Vec<String>,
    /// The files that arguments name, if a person is asked; in the order of the arguments.
    #[serde(skip_serializing_if = "Vec::is_empty", default)]
    pub argument_files: Vec<ArgumentFile>,
    /// Nothing else of the session runs from the judgement until the program has ended.
    #[serde(skip_serializing_if = "std::ops::Not::not", default)]
    pub exclusive: bool,
}

/// A regular file that an argument names, as the process would open it at the judgement. Without `sha256` it could not
/// be read (or is protected, too large, one too many); without `dev` and `inode` not even be found in time.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ArgumentFile {
    /// Which argument; argv\[0\] is 0.
    pub index: u32,
    /// The part of the argument that names the file.
    pub path: Bytes,
    /// "major:minor" of st_dev (stat(2)).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub dev: Option<String>,
    /// Decimal, as a string.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub inode: Option<String>,
    /// Base64url.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
    /// The session's user can change the content or replace the file after the judgement.
    pub not_fixed: bool,
}

/// A file by what it is. The path is for people; dev, inode and the hash identify.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct File {
    pub path: Bytes,
    /// "major:minor" of the file system (super_block.s_dev).
    pub dev: String,
    /// Decimal, as a string: inode numbers go beyond 2^53.
    pub inode: String,
    /// Base64url.
    pub sha256: String,
    /// The session's user can change the content or replace the file after the judgement.
    pub not_fixed: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Script {
    pub file: File,
    /// True: an interpreter opened it (`sh script`); false: it was executed (`./script`).
    pub opened: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Environment {
    /// SHA-256 over nonce ‖ the whole environment block as it lies in memory, base64url.
    pub sha256: String,
    /// What differs from the session's first environment, sorted by name.
    pub changed: Vec<Variable>,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Variable {
    pub name: Bytes,
    pub change: Change,
    /// SHA-256(nonce ‖ value), base64url; absent when the variable was removed.
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub sha256: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Change {
    Added,
    Changed,
    Removed,
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Ids {
    pub uid: u32,
    pub euid: u32,
    pub gid: u32,
    pub egid: u32,
    /// The permitted capabilities that the exec gained, as /proc/PID/status shows them (CapPrm).
    #[serde(skip_serializing_if = "Option::is_none", default)]
    pub capabilities: Option<String>,
}

/// A complete operation for tests of every room: `git push origin main` by a child of the agent.
#[cfg(test)]
pub(crate) fn example() -> Operation {
    let file = |path: &str, inode: &str| File {
        path: path.into(),
        dev: "254:1".into(),
        inode: inode.into(),
        sha256: "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg".into(),
        not_fixed: false,
    };
    Operation {
        v: VERSION,
        id: "01J8ZQ4T6M9B2N3C4D5E6F7G8H".into(),
        nonce: "AAECAwQFBgcICQoLDA0ODw".into(),
        host: "workstation".into(),
        boot_id: "5a0b6c1e-1f0e-4b7a-9a55-0c1d2e3f4a5b".into(),
        session: "01J8ZQ4T00000000000000000S".into(),
        uid: 1000,
        rule: "git".into(),
        policy_sha256: "47DEQpj8HBSa-_TImW-5JCeuQeRkm5NMpJWZG3hSuFU".into(),
        issued_at: "2026-03-01T12:00:00.000Z".into(),
        expires_at: "2026-03-01T12:02:00.000Z".into(),
        verify: Verify::Presence,
        requester: Requester {
            pid: 4242,
            start_time: "123456".into(),
            ancestry: vec![
                Ancestor { pid: 4240, start_time: "123400".into(), exe: "/usr/bin/bash".into() },
                Ancestor { pid: 4200, start_time: "120000".into(), exe: "/usr/bin/node".into() },
            ],
        },
        kind: Kind::Exec(Box::new(Exec {
            program: file("/usr/bin/git", "131234"),
            script: None,
            argv: ["git", "push", "origin", "main"].map(Bytes::from).to_vec(),
            cwd: "/home/alice/project".into(),
            environment: Environment {
                sha256: "n4bQgYhMfWWaL-qgxVrQFaO_TxsrC4Is0V1sFbDwCgg".into(),
                changed: vec![Variable {
                    name: "GIT_SSH_COMMAND".into(),
                    change: Change::Added,
                    sha256: Some("LPJNul-wow4m6DsqxbninhsWHlwfp0JecwQzYpOLmCQ".into()),
                }],
            },
            ids: Ids { uid: 1000, euid: 1000, gid: 1000, egid: 1000, capabilities: None },
            foreign_namespaces: Vec::new(),
            argument_files: Vec::new(),
            exclusive: false,
        })),
    }
}

/// `./deploy.sh prod`, a script that the session can still change, run through its `#!/bin/sh -e`.
#[cfg(test)]
pub(crate) fn example_script() -> Operation {
    let mut operation = example();
    let exec = exec_of(&mut operation);
    exec.script = Some(Script { file: exec.program.clone(), opened: false });
    if let Some(script) = &mut exec.script {
        script.file.path = "/srv/deploy.sh".into();
        script.file.not_fixed = true;
    }
    exec.program.path = "/usr/bin/dash".into();
    exec.argv = ["/bin/sh", "-e", "./deploy.sh", "prod"].map(Bytes::from).to_vec();
    exec.argument_files = vec![ArgumentFile {
        index: 3,
        path: "prod".into(),
        dev: Some("254:1".into()),
        inode: Some("4711".into()),
        sha256: Some(exec.program.sha256.clone()),
        not_fixed: true,
    }];
    operation
}

/// The exec of one of these.
#[cfg(test)]
pub(crate) fn exec_of(operation: &mut Operation) -> &mut Exec {
    match &mut operation.kind {
        Kind::Exec(exec) => exec,
        Kind::Connect(_) | Kind::ConnectGrant(_) => panic!("an exec"),
    }
}

/// `curl https://api.stripe.com/` by the same child of the agent.
#[cfg(test)]
pub(crate) fn example_connect() -> Operation {
    let mut operation = example();
    let program = exec_of(&mut operation).program.clone();
    operation.rule = "payments".into();
    operation.kind = Kind::Connect(Box::new(Connect {
        address: "192.0.2.10".into(),
        port: 443,
        transport: Transport::Tcp,
        name: Some("api.stripe.com".into()),
        name_source: Some(NameSource::Sni),
        confirmed: true,
        names: vec!["api.stripe.com".into()],
        tls: true,
        alpn: vec!["h2".into(), "http/1.1".into()],
        encrypted_hello: false,
        listener: None,
        through: None,
        program: Some(File { path: "/usr/bin/curl".into(), ..program }),
        argv: ["curl", "https://api.stripe.com/"].map(Bytes::from).to_vec(),
        cwd: Some("/home/alice/project".into()),
    }));
    operation
}

/// A database of this host outside of the session, for as long as the session lives.
#[cfg(test)]
pub(crate) fn example_grant() -> Operation {
    let mut operation = example_connect();
    let Some(mut connect) = operation.kind.connect().cloned() else { panic!("a connection") };
    operation.rule = "builtin:local-services".into();
    connect.address = "127.0.0.1".into();
    connect.port = 5432;
    (connect.name, connect.name_source, connect.names) = (None, None, Vec::new());
    (connect.tls, connect.confirmed, connect.alpn) = (false, false, Vec::new());
    connect.listener = Some(Listener {
        program: "/usr/lib/postgresql/17/bin/postgres".into(),
        pid: 812,
        uid: 113,
        address: "127.0.0.1:5432".into(),
    });
    let scope = GrantScope {
        name: None,
        address: Some("127.0.0.1".into()),
        port: 5432,
        rule: operation.rule.clone(),
    };
    operation.kind = Kind::ConnectGrant(Box::new(ConnectGrant { connect, scope, until: "session".into() }));
    operation
}
