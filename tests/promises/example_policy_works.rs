//! The shipped policy for coding agents, as `ana policy init` writes it for this machine, on the real programs: what
//! it allows runs unasked, what it asks about waits, and does nothing when it is denied. All traffic is loopback's.

use std::{
    fs,
    io::{Read, Write},
    net::{Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::Command,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use ana_tests::{
    Ground,
    answers::Answer,
    machine::{path_str, which},
    skip::skipped,
    wait,
};

/// What a program does when it runs to its end.
enum Effect {
    /// A file of the user's home is there.
    File(&'static str),
    /// Somebody connects to the test's listener.
    Connection(Listener),
    /// It says something itself.
    Says(&'static str),
}

/// A server on loopback that refuses everybody, and counts them.
struct Listener {
    port: u16,
    seen: Arc<AtomicUsize>,
}

impl Listener {
    fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("loopback");
        let port = listener.local_addr().expect("bound").port();
        let seen = Arc::new(AtomicUsize::new(0));
        let count = Arc::clone(&seen);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                count.fetch_add(1, Ordering::SeqCst);
                std::thread::spawn(move || refuse(stream));
            }
        });
        Self { port, seen }
    }

    /// How many have connected since the last call. Our own connection comes behind theirs.
    fn drain(&self) -> usize {
        let mut own = TcpStream::connect(("127.0.0.1", self.port)).expect("the listener is there");
        own.shutdown(Shutdown::Write).expect("connected");
        // It answers after it has counted.
        let answer = own.read_to_end(&mut Vec::new());
        assert!(answer.is_ok_and(|length| length > 0), "the listener answers");
        self.seen.swap(0, Ordering::SeqCst) - 1
    }
}

/// Says no in HTTP, which most of them speak, and lets the other side hang up.
fn refuse(mut stream: TcpStream) {
    let answer = b"HTTP/1.1 403 Forbidden\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
    let told = stream.write_all(answer).and_then(|()| stream.shutdown(Shutdown::Write));
    // Whoever has gone already is none of ours.
    drop(told.and_then(|()| stream.read_to_end(&mut Vec::new())));
}

impl Effect {
    fn connection() -> (Self, u16) {
        let listener = Listener::start();
        let port = listener.port;
        (Self::Connection(listener), port)
    }

    /// Whether it has happened; and forgets it.
    fn take(&self, ground: &Ground, said: &str) -> bool {
        match self {
            Self::File(name) => fs::remove_file(ground.home().join(name)).is_ok(),
            Self::Connection(listener) => listener.drain() > 0,
            Self::Says(text) => said.contains(text),
        }
    }
}

/// A ground with the policy that `ana policy init` writes, for the programs of `bin/` and the system's.
fn ground(name: &str) -> Ground {
    let ground = Ground::new(name);
    install_policy(&ground);
    ground
}

fn install_policy(ground: &Ground) {
    let path = format!("{}:/usr/local/bin:/usr/bin:/bin", path_str(&ground.root().join("bin")));
    let home = ground.home();
    let init = ground
        .ana(&["policy", "init", "--allow-software-passkey", "--path", &path, "--home", path_str(&home)])
        .output()
        .expect("ana can be started");
    assert!(init.status.success(), "{}", String::from_utf8_lossy(&init.stderr));
    ground.policy(&String::from_utf8(init.stdout).expect("UTF-8"));
}

/// One program's command lines; the first word is what PATH or a path finds.
struct Try<'a> {
    ground: &'a Ground,
    /// Below the home.
    folder: &'a str,
    environment: &'a [&'a str],
}

impl Try<'_> {
    fn command(&self, words: &[&str]) -> Vec<String> {
        let folder = self.ground.home().join(self.folder);
        ["/usr/bin/env", "-C", path_str(&folder)]
            .iter()
            .chain(self.environment)
            .chain(words)
            .map(|word| (*word).to_owned())
            .collect()
    }

    /// Runs unasked to this exit status, and is recorded.
    #[track_caller]
    fn is_allowed(&self, words: &[&str], code: i32) {
        let (finished, questions) = self.ground.run_answered(&self.command(words), Answer::Deny);
        let said = finished.stdout() + &finished.stderr();
        assert!(questions.is_empty(), "{words:?} asks: {questions:#?}\n{said}");
        finished.assert_code(code);
        let recorded = |record: &ana_tests::records::Record| {
            let args = record.args();
            record.approves() && record.decided_by() == "rule" && args.ends_with(&owned(&words[1..]))
        };
        let decisions = self.ground.decisions();
        assert!(decisions.iter().any(recorded), "{words:?} is not recorded as allowed: {decisions:#?}");
    }

    /// Has its effect without ana; under ana it asks once, and has none when it is denied.
    #[track_caller]
    fn is_asked(&self, words: &[&str], effect: &Effect) {
        let control = self.ground.run_without_ana(&self.command(words));
        let said = control.stdout() + &control.stderr();
        assert!(effect.take(self.ground, &said), "{words:?} has no effect without ana: {said}");

        let (finished, questions) = self.ground.run_answered(&self.command(words), Answer::Deny);
        assert_eq!(questions.len(), 1, "{words:?}: {questions:#?}");
        let asked = questions[0].args();
        assert!(asked.ends_with(&owned(&words[1..])), "asked about {asked:?}, not {words:?}");
        let finished = finished.assert_code(137).assert_stderr("ana: denied: ");
        let said = finished.stdout() + &finished.stderr();
        assert!(!effect.take(self.ground, &said), "{words:?} was denied and ran: {said}");
        self.ground.assert_nothing_pending();
        self.ground.verify();
    }

    /// Never runs, and nobody is asked.
    #[track_caller]
    fn is_denied(&self, words: &[&str]) {
        let (finished, questions) = self.ground.run_answered(&self.command(words), Answer::Approve);
        assert!(questions.is_empty(), "{words:?} asks: {questions:#?}");
        finished.assert_code(137).assert_stderr("ana: denied: ");
    }
}

fn owned(words: &[&str]) -> Vec<String> {
    words.iter().map(|word| (*word).to_owned()).collect()
}

/// False, and counted, where the program is not installed.
fn there(test: &str, program: &str) -> bool {
    let there = which(program).is_some();
    if !there {
        skipped(test, &format!("no {program} on this machine"));
    }
    there
}

#[test]
fn git() {
    let ground = ground("example-git");
    ground
        .run_without_ana(&[
            "bash",
            "-euc",
            "git config --global user.email a@b; git config --global user.name a; git init -q -b main work
             git init -q --bare remote.git; cd work; git remote add origin ../remote.git
             git commit -q --allow-empty -m one",
        ])
        .assert_code(0);
    let git = Try { ground: &ground, folder: "work", environment: &[] };
    git.is_allowed(&["git", "commit", "--allow-empty", "-m", "two"], 0);
    git.is_asked(&["git", "push", "origin", "main"], &Effect::File("remote.git/refs/heads/main"));
}

#[test]
fn gh() {
    if !there("gh", "gh") {
        return;
    }
    let ground = ground("example-gh");
    let gh = Try { ground: &ground, folder: "", environment: &["GH_NO_UPDATE_NOTIFIER=1"] };
    gh.is_allowed(&["gh", "--version"], 0);
    // Not logged in: it says so and is gone.
    gh.is_allowed(&["gh", "pr", "list"], 4);
    gh.is_asked(&["gh", "config", "set", "editor", "vi"], &Effect::File(".config/gh/config.yml"));
    gh.is_denied(&["gh", "auth", "token"]);
}

#[test]
fn npm() {
    if !there("npm", "npm") {
        return;
    }
    let ground = ground("example-npm");
    let scripts = "{\"hello\": \"echo hello\", \"release\": \"npm publish\"}";
    let package = format!("{{\"name\": \"p\", \"version\": \"1.0.0\", \"scripts\": {scripts}}}");
    ground.write_home("p/package.json", 0o644, &package);
    let (effect, port) = Effect::connection();
    let npmrc = format!(
        "registry=http://127.0.0.1:{port}/\n//127.0.0.1:{port}/:_authToken=x\nfetch-retries=0\nupdate-notifier=false\n"
    );
    ground.write_home(".npmrc", 0o600, &npmrc);
    let npm = Try { ground: &ground, folder: "p", environment: &[] };
    npm.is_allowed(&["npm", "ls", "--json"], 0);
    npm.is_allowed(&["npm", "run", "hello"], 0);
    npm.is_asked(&["npm", "publish"], &effect);
    npm.is_asked(&["npm", "pub"], &effect);
    // The script is allowed, what it publishes is asked: once.
    let (finished, questions) = ground.run_answered(&npm.command(&["npm", "run", "release"]), Answer::Deny);
    assert_ne!(finished.code(), 0);
    assert_eq!(questions.len(), 1, "{questions:#?}");
    assert!(questions[0].args().ends_with(&owned(&["publish"])), "{questions:#?}");
    assert!(!effect.take(&ground, ""));
}

/// The cargo that built this test: behind rustup's proxy, and for everybody to run.
#[test]
fn cargo() {
    let ground = Ground::new("example-cargo");
    fs::copy(env!("CARGO"), ground.root().join("bin/cargo")).expect("cargo can be copied");
    install_policy(&ground);
    let (effect, port) = Effect::connection();
    ground.write_home(
        "c/Cargo.toml",
        0o644,
        "[package]\nname = \"c\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
    );
    ground.write_home("c/src/lib.rs", 0o644, "");
    let config = format!(
        "[registries.local]\nindex = \"sparse+http://127.0.0.1:{port}/\"\n[net]\nretry = 0\n
         [alias]\nc = [\"publish\", \"--registry\", \"local\", \"--no-verify\", \"--allow-dirty\"]\n"
    );
    ground.write_home("c/.cargo/config.toml", 0o644, &config);
    ground.write_home(".cargo/credentials.toml", 0o600, "[registries.local]\ntoken = \"x\"\n");
    let program = ground.root().join("bin/cargo");
    let program = path_str(&program);
    let cargo = Try { ground: &ground, folder: "c", environment: &[] };
    cargo.is_allowed(&[program, "locate-project"], 0);
    cargo.is_allowed(&[program, "help", "publish"], 0);
    cargo.is_asked(&[program, "publish", "--registry", "local", "--no-verify", "--allow-dirty"], &effect);
    // By a name that usually means `check`.
    cargo.is_asked(&[program, "c"], &effect);
}

#[test]
fn kubectl() {
    if !there("kubectl", "kubectl") {
        return;
    }
    let ground = ground("example-kubectl");
    let (effect, port) = Effect::connection();
    let kubectl = Try { ground: &ground, folder: "", environment: &[] };
    kubectl.is_allowed(&["kubectl", "config", "get-contexts"], 0);
    let server = format!("--server=http://127.0.0.1:{port}");
    kubectl.is_asked(&["kubectl", "delete", "pod/web", &server], &effect);
    // An allowed command is no longer one with another server behind it.
    kubectl.is_asked(&["kubectl", "get", "pods", &server], &effect);
}

#[test]
fn terraform() {
    if !there("terraform", "terraform") {
        return;
    }
    let ground = ground("example-terraform");
    ground.write_home("tf/main.tf", 0o644, "output \"x\" {\nvalue = 1\n}\n");
    let terraform = Try { ground: &ground, folder: "tf", environment: &["CHECKPOINT_DISABLE=1"] };
    terraform.is_allowed(&["terraform", "fmt"], 0);
    terraform.is_asked(&["terraform", "apply", "-auto-approve"], &Effect::File("tf/terraform.tfstate"));
    terraform.is_denied(&["terraform", "destroy", "-auto-approve"]);
}

/// A Python program: the machine's, or the one of root's pyenv, where a user can reach it.
#[test]
fn aws() {
    let ground = Ground::new("example-aws");
    let Some(program) = which("aws").or_else(|| aws_of_pyenv(&ground)) else {
        skipped("aws", "no aws on this machine");
        return;
    };
    install_policy(&ground);
    let (effect, port) = Effect::connection();
    let environment = ["AWS_MAX_ATTEMPTS=1", "AWS_EC2_METADATA_DISABLED=true"];
    let aws = Try { ground: &ground, folder: "", environment: &environment };
    let program = path_str(&program);
    aws.is_allowed(&[program, "--version"], 0);
    let endpoint = format!("http://127.0.0.1:{port}");
    aws.is_asked(
        &[
            program,
            "--endpoint-url",
            &endpoint,
            "--no-sign-request",
            "--region",
            "x",
            "s3api",
            "list-buckets",
        ],
        &effect,
    );
    // Why nothing that talks to AWS is allowed: an alias may have any command's name.
    ground.write_home(".aws/cli/alias", 0o644, "[toplevel]\nsts = !touch ~/reached\n");
    aws.is_asked(&[program, "sts", "get-caller-identity"], &Effect::File("reached"));
}

/// The same program for the system's Python, if it is of the same version.
fn aws_of_pyenv(ground: &Ground) -> Option<PathBuf> {
    let tell = "import sys; print('python%d.%d' % sys.version_info[:2], end='')";
    let python = Command::new("/usr/bin/python3").args(["-c", tell]).output().ok()?.stdout;
    let lib = PathBuf::from("lib").join(String::from_utf8(python).ok()?).join("site-packages");
    let versions = fs::read_dir("/root/.pyenv/versions").ok()?.flatten().map(|version| version.path());
    let prefix = versions
        .into_iter()
        .find(|prefix| prefix.join("bin/aws").is_file() && prefix.join(&lib).join("awscli").is_dir())?;
    let text = fs::read_to_string(prefix.join("bin/aws")).ok()?;
    let (_shebang, rest) = text.split_once('\n')?;
    let packages = ground.root().join("packages");
    ground.mount(&["--bind", path_str(&prefix.join(&lib))], &packages);
    let path = format!("import sys; sys.path.insert(0, {:?})", path_str(&packages));
    Some(ground.write("bin/aws", 0o755, &format!("#!/usr/bin/python3\n{path}\n{rest}")))
}

#[test]
fn gcloud() {
    if !there("gcloud", "gcloud") {
        return;
    }
    let ground = ground("example-gcloud");
    let environment =
        ["CLOUDSDK_CORE_DISABLE_USAGE_REPORTING=1", "CLOUDSDK_COMPONENT_MANAGER_DISABLE_UPDATE_CHECK=1"];
    let gcloud = Try { ground: &ground, folder: "", environment: &environment };
    gcloud.is_allowed(&["gcloud", "auth", "list"], 0);
    gcloud.is_asked(
        &["gcloud", "config", "set", "core/pass_credentials_to_gsutil", "false"],
        &Effect::File(".config/gcloud/configurations/config_default"),
    );
    gcloud.is_denied(&["gcloud", "auth", "print-access-token"]);
}

#[test]
fn docker() {
    if !there("docker", "docker") {
        return;
    }
    let ground = ground("example-docker");
    let (effect, port) = Effect::connection();
    let docker =
        Try { ground: &ground, folder: "", environment: &["DOCKER_HOST=unix:///nowhere/docker.sock"] };
    // There is no daemon at that place.
    docker.is_allowed(&["docker", "ps", "-a"], 1);
    let host = format!("tcp://127.0.0.1:{port}");
    docker.is_asked(&["docker", "-H", &host, "ps"], &effect);
    docker.is_asked(&["docker", "-H", &host, "run", "alpine"], &effect);
    docker.is_denied(&["docker", "run", "--privileged", "alpine"]);
}

#[test]
fn sudo() {
    let ground = ground("example-sudo");
    let sudo = Try { ground: &ground, folder: "", environment: &[] };
    sudo.is_allowed(&["sudo", "-V"], 0);
    sudo.is_asked(&["sudo", "-n", "true"], &Effect::Says("password is required"));
}

#[test]
fn ssh() {
    let ground = ground("example-ssh");
    let (effect, port) = Effect::connection();
    let ssh = Try { ground: &ground, folder: "", environment: &[] };
    ssh.is_allowed(&["ssh", "-V"], 0);
    ssh.is_asked(&["ssh", "-o", "BatchMode=yes", "-p", &port.to_string(), "127.0.0.1", "true"], &effect);
}

/// rustup's cargo is rustup, and pyenv's are scripts that start others: listed is what they start.
#[test]
fn what_is_listed_is_what_runs() {
    let ground = Ground::bare("example-init");
    let home = ground.home();
    let real = ground.write_home(".rustup/toolchains/stable/bin/cargo", 0o755, "");
    let proxy = ground.write_home(".cargo/bin/rustup", 0o755, "");
    std::os::unix::fs::symlink(&proxy, home.join(".cargo/bin/cargo")).expect("link");
    let path = format!("{}:/nowhere", path_str(&home.join(".cargo/bin")));
    let init = |more: &[&str]| {
        let all = [&["policy", "init", "--path", &path, "--home", path_str(&home)], more].concat();
        let output = ground.ana(&all).output().expect("ana can be started");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8(output.stdout).expect("UTF-8")
    };
    let listed = |text: &str, file: &Path| text.contains(&format!("  {:?},\n", path_str(file)));
    let text = init(&[]);
    assert!(listed(&text, &real), "{text}");
    assert!(!listed(&text, &home.join(".cargo/bin/cargo")), "{text}");
    assert!(text.contains("allow_software_passkey = false"), "{text}");
    let git_only = init(&["--git"]);
    assert!(git_only.contains("name = \"git\"") && !git_only.contains("name = \"cargo\""), "{git_only}");
    // And what PATH finds is not complained about: it leads to the listed one.
    ground.policy(&text);
    let mut check = ground.ana(&["policy", "check", "--json", "--home", path_str(&home)]);
    let said = wait::until("ana policy check", || check.env("PATH", &path).output().ok());
    let said = String::from_utf8(said.stdout).expect("UTF-8");
    assert!(said.contains("\"ok\": true") && !said.contains("PATH finds"), "{said}");
}
