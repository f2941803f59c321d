//! The real servers: TLS with HTTP/1, HTTP/2, websockets and git's files (Node), OpenSSH, PostgreSQL; the certificate
//! authority that all of them have.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use super::{Host, Net, space::Space};
use crate::{
    Ground,
    machine::{self, BASE, USER, admin, assignment, locked, path_str, target_dir, which},
    wait,
};

/// Names in the hosts' certificate.
const NAMES: &str = "DNS:api.protected.test,DNS:four.protected.test,DNS:api.protected2.test,DNS:www.innocent.test,\
     DNS:shared.test,DNS:cname.test,DNS:*.prod.example,IP:192.0.2.10,IP:192.0.2.20,IP:192.0.2.40,IP:2001:db8::10,\
     IP:2001:db8::20,IP:2001:db8::40";

/// A program of the tests' own that is not Rust.
pub const PROGRAMS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs");

/// The folder with `ca.pem`, `host.pem` and `host.key`, made once on a machine.
pub fn authority() -> PathBuf {
    static ONCE: std::sync::OnceLock<PathBuf> = std::sync::OnceLock::new();
    let make = || {
        let folder = Path::new(BASE).join("installed/authority-1");
        locked(|| {
            if !folder.join("ready").exists() {
                make_authority(&folder);
            }
        });
        folder
    };
    ONCE.get_or_init(make).clone()
}

fn make_authority(folder: &Path) {
    fs::create_dir_all(folder).expect("the folder can be made");
    let at = |name: &str| path_str(&folder.join(name)).to_owned();
    let key =
        ["req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "3650"];
    let make = |more: &[&str]| drop(admin("openssl", &[&key[..], more].concat()));
    make(&["-subj", "/CN=ana test authority", "-keyout", &at("ca.key"), "-out", &at("ca.pem")]);
    let names = format!("subjectAltName={NAMES}");
    let (ca, ca_key) = (at("ca.pem"), at("ca.key"));
    let host = ["-CA", &ca, "-CAkey", &ca_key, "-subj", "/CN=ana test host", "-addext", &names];
    let constraints = ["-addext", "basicConstraints=critical,CA:FALSE"];
    make(&[&host[..], &constraints, &["-keyout", &at("host.key"), "-out", &at("host.pem")]].concat());
    // It is worth nothing, and servers run as the session's user as well.
    fs::set_permissions(at("host.key"), fs::Permissions::from_mode(0o644)).expect("mode");
    fs::write(at("ready"), "").expect("the folder can be written");
}

impl Net {
    /// Puts a real web server behind 80 (HTTP/1) and 443 (TLS, HTTP/1 and HTTP/2): it answers with what it was asked,
    /// echoes websockets, and has a git repository at `/git/`.
    pub fn web(&self) {
        let (plain, tls) = (local(8000), local(4430));
        let authority = authority();
        let repository = self.repository();
        let mut node = self.hosts.command("setpriv");
        node.args(["--pdeathsig", "KILL", "--", "node"])
            .arg(Path::new(PROGRAMS).join("hosts.mjs"))
            .args([plain.port().to_string(), tls.port().to_string()])
            .args([authority.join("host.pem"), authority.join("host.key"), repository]);
        self.server(&mut node);
        [plain, tls].into_iter().for_each(|at| self.wait_for(at));
        self.put(80, Host::Server(plain));
        self.put(443, Host::Server(tls));
    }

    /// A bare repository with one commit of one file.
    fn repository(&self) -> PathBuf {
        let folder = self.folder().join("git");
        let script = "export GIT_CONFIG_GLOBAL=/dev/null GIT_AUTHOR_NAME=a GIT_AUTHOR_EMAIL=a@b GIT_COMMITTER_NAME=a \
             GIT_COMMITTER_EMAIL=a@b; git init -q -b main work && cd work && echo from-git > file && git add file && \
             git commit -qm one && git clone -q --bare . ../git && cd ../git && git update-server-info";
        let done = Command::new("sh").args(["-ec", script]).current_dir(self.folder()).status();
        assert!(done.is_ok_and(|status| status.success()), "git makes a repository");
        folder
    }

    /// Puts an OpenSSH server behind port 22, that lets the session's user in; the arguments of ssh(1) for it. None
    /// where there is none.
    pub fn ssh(&self, ground: &Ground) -> Option<Vec<String>> {
        let at = local(2222);
        let client = self.ssh_server(&self.hosts, at, ground)?;
        self.put(22, Host::Server(at));
        Some(client)
    }

    /// The same server beside the session, at port 2222 of loopback.
    pub fn ssh_at_client(&self, ground: &Ground) -> Option<Vec<String>> {
        self.ssh_server(&self.client, local(2222), ground)
    }

    fn ssh_server(&self, space: &Space, at: SocketAddr, ground: &Ground) -> Option<Vec<String>> {
        let sshd = sshd()?;
        let key = |path: &Path| {
            admin("ssh-keygen", &["-q", "-t", "ed25519", "-N", "", "-f", path_str(path)]);
            ground.give(path);
        };
        let (host_key, client_key) = (self.folder().join("host_key"), ground.home().join("client_key"));
        key(&host_key);
        key(&client_key);
        let authorized = fs::read_to_string(client_key.with_extension("pub")).expect("just made");
        let authorized = self.write("authorized_keys", &authorized);
        let config = self.write(
            "sshd_config",
            &format!(
                "ListenAddress {at}\nHostKey {}\nAuthorizedKeysFile {}\nStrictModes no\nUsePAM no\nPidFile none\n\
                 PasswordAuthentication no\n",
                path_str(&host_key),
                path_str(&authorized)
            ),
        );
        let mut server = space.command("setpriv");
        // As the user, who needs no separated privileges to become.
        server
            .args(["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"])
            .arg(&sshd)
            .args(["-D", "-f"])
            .arg(&config)
            .env("LD_LIBRARY_PATH", libraries(&sshd))
            .stderr(Stdio::null());
        self.server(&mut server);
        space.inside(|| wait::until("sshd listens", || std::net::TcpStream::connect(at).ok().map(drop)));
        let options =
            ["BatchMode=yes", "StrictHostKeyChecking=no", "UserKnownHostsFile=/dev/null", "LogLevel=ERROR"];
        let mut words = vec!["ssh".to_owned(), "-F".into(), "none".into(), "-i".into()];
        words.push(path_str(&client_key).to_owned());
        words.extend(options.iter().flat_map(|option| ["-o".to_owned(), (*option).to_owned()]));
        Some(words)
    }

    /// Puts a PostgreSQL server behind port 5432, with TLS for who wants it; the user `postgres` needs no password. False
    /// where there is none.
    pub fn postgres(&self) -> bool {
        let Some(programs) = postgres_programs() else { return false };
        let (at, data) = (local(15432), self.folder().join("pg"));
        fs::create_dir(&data).expect("the folder is new");
        let machine = machine::machine();
        std::os::unix::fs::chown(&data, Some(machine.uid.as_raw()), Some(machine.gid.as_raw()))
            .expect("chown");
        let as_user = ["--reuid", USER, "--regid", USER, "--clear-groups", "--pdeathsig", "KILL", "--"];
        let mut init = Command::new("setpriv");
        init.args(as_user).arg(programs.join("initdb")).args([
            "--no-sync",
            "-A",
            "trust",
            "-U",
            "postgres",
            "-D",
        ]);
        let done = init.arg(&data).current_dir("/").stdout(Stdio::null()).status();
        assert!(done.is_ok_and(|status| status.success()), "initdb");
        // It takes a key only if nobody else can read it.
        let key = data.join("host.key");
        fs::copy(authority().join("host.key"), &key).expect("the key can be copied");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("mode");
        std::os::unix::fs::chown(&key, Some(machine.uid.as_raw()), None).expect("chown");
        let mut server = self.hosts.command("setpriv");
        server.args(as_user).arg(programs.join("postgres")).arg("-D").arg(&data).current_dir("/");
        for setting in ["fsync=off", "jit=off", "unix_socket_directories=", "listen_addresses=127.0.0.1"] {
            server.args(["-c", setting]);
        }
        server.args(["-c", "ssl=on", "-c", "ssl_key_file=host.key", "-c"]);
        server.arg(assignment("ssl_cert_file", authority().join("host.pem")));
        server.args(["-p", &at.port().to_string()]).stderr(Stdio::null());
        self.server(&mut server);
        // It accepts connections before it serves them.
        wait::until("PostgreSQL serves", || {
            let mut ready = self.hosts.command("pg_isready");
            ready.args(["-q", "-h", "127.0.0.1", "-p", &at.port().to_string()]);
            ready.status().is_ok_and(|status| status.success()).then_some(())
        });
        self.put(5432, Host::Server(at));
        true
    }
}

fn local(port: u16) -> SocketAddr {
    (Ipv4Addr::LOCALHOST, port).into()
}

/// OpenSSH's server, as Debian has it.
fn sshd() -> Option<PathBuf> {
    which("sshd").or_else(|| Some(unpacked("sshd")?.join("usr/sbin/sshd")))
}

/// The folder with `initdb` and `postgres`: Debian has it outside of the PATH.
fn postgres_programs() -> Option<PathBuf> {
    let newest = |folder: PathBuf| {
        let mut versions: Vec<PathBuf> =
            fs::read_dir(folder).ok()?.flatten().map(|entry| entry.path().join("bin")).collect();
        versions.sort();
        versions.into_iter().rev().find(|folder| folder.join("initdb").exists())
    };
    newest("/usr/lib/postgresql".into())
        .or_else(|| newest(unpacked("postgresql")?.join("usr/lib/postgresql")))
}

/// What `cargo xtask test` unpacked and did not install, at a place that the session's user can reach.
fn unpacked(name: &str) -> Option<PathBuf> {
    let from = target_dir().join("tools").join(name);
    if !from.join("ready").exists() {
        return None;
    }
    let to = Path::new(BASE).join("installed").join(name);
    locked(|| {
        if !to.join("ready").exists() {
            admin("cp", &["-rT", path_str(&from), path_str(&to)]);
        }
    });
    Some(to)
}

/// Where the libraries of an unpacked program are; an installed one finds its own.
fn libraries(program: &Path) -> PathBuf {
    let usr = program.ancestors().find(|folder| folder.ends_with("usr"));
    usr.unwrap_or(Path::new("/usr")).join("lib").join(format!("{}-linux-gnu", std::env::consts::ARCH))
}

/// The Go client, built once; none where there is no Go.
pub fn go_client() -> Option<PathBuf> {
    let go = which("go")?;
    let client = Path::new(BASE).join("installed/go-client-1");
    locked(|| {
        if !client.exists() {
            let cache = target_dir().join("go-cache");
            let mut build = Command::new(go);
            build.args(["build", "-o"]).arg(&client).arg(Path::new(PROGRAMS).join("client.go"));
            build.env("GOCACHE", cache).env("GO111MODULE", "off").env("GOFLAGS", "");
            assert!(build.status().is_ok_and(|status| status.success()), "go build");
        }
    });
    Some(client)
}
