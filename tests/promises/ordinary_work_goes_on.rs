//! Sealed, the tools of every day work as they do without ana, and nobody is asked.

use std::{
    fs,
    path::{Path, PathBuf},
    time::Duration,
};

use ana_tests::{
    Ground,
    machine::{admin, has, path_str, virtual_python, which},
    skip::skipped,
    sudoers::Sudoers,
};

/// A ground where a question would be denied soon, so that asking breaks the work.
fn ground(name: &str) -> Ground {
    let ground = Ground::new(name);
    ground.policy(
        &(ground.head() + "[defaults]\ntimeout = \"1s\"\n" + &ground.rule("otherwise = \"approve\"")),
    );
    ground
}

/// The script ends well in a session, and nothing was decided at all.
#[track_caller]
fn works(ground: &Ground, script: &str) {
    let session = ground.start(&["bash", "-e", "-u", "-o", "pipefail", "-c", script]);
    let finished = session.finish_within(Duration::from_secs(120)).assert_code(0);
    let decisions = ground.decisions();
    assert!(decisions.is_empty(), "something was asked: {decisions:#?}\n{}", finished.stderr());
    assert!(!finished.stderr().contains("ana: "), "{}", finished.stderr());
    ground.verify();
}

#[test]
fn git() {
    let ground = ground("git-work");
    works(
        &ground,
        "git config --global user.email a@b; git config --global user.name a; git config --global init.defaultBranch main
         git init -q --bare remote.git; git init -q work; cd work; git remote add origin ../remote.git
         echo one > file; git add file; git commit -qm one; git push -q origin main
         git checkout -qb side; echo two >> file; git commit -qam two; git checkout -q main; git merge -q side
         git rebase -q HEAD~1; git stash list; git gc -q; cd ..; git clone -q remote.git again; test -f again/file
         mv again/file again/moved; mkdir -p a/b; mv again/moved a/b/; git -C work log --oneline | grep two",
    );
}

/// A toolchain that the session's user can reach: rustup's lies in root's home.
fn toolchain() -> Option<PathBuf> {
    let cargo = std::env::var_os("CARGO").map(PathBuf::from)?;
    let sysroot = cargo.parent()?.parent()?.to_owned();
    let to = Path::new(ana_tests::machine::BASE).join("installed/toolchain");
    if !to.join("lib").exists() {
        let fresh = to.with_extension(std::process::id().to_string());
        fs::create_dir_all(&fresh).ok()?;
        // Hard links where the file system is the same: a toolchain is half a gigabyte.
        for part in ["bin", "lib"] {
            let (from, to) = (sysroot.join(part), fresh.join(part));
            let linked = std::process::Command::new("cp").arg("-al").args([&from, &to]).output().ok()?;
            if !linked.status.success() {
                admin("cp", &["-r", path_str(&from), path_str(&to)]);
            }
        }
        if fs::rename(&fresh, &to).is_err() {
            fs::remove_dir_all(&fresh).ok()?;
        }
    }
    to.join("bin/cargo").exists().then_some(to)
}

#[test]
fn cargo_build() {
    let Some(toolchain) = toolchain() else {
        skipped("cargo_build", "no toolchain (the CARGO variable is not set)");
        return;
    };
    let ground = ground("cargo-work");
    works(
        &ground,
        &format!(
            "export PATH={}/bin:$PATH CARGO_HOME=$HOME/.cargo
             mkdir -p tiny/src; cd tiny
             printf '[package]\\nname = \"tiny\"\\nversion = \"0.1.0\"\\nedition = \"2021\"\\n' > Cargo.toml
             echo 'fn main() {{ println!(\"built\"); }}' > src/main.rs
             echo 'fn main() {{ println!(\"cargo:rustc-cfg=tried\"); }}' > build.rs
             cargo build --offline -q; target/debug/tiny | grep built",
            toolchain.display()
        ),
    );
}

#[test]
fn npm_install() {
    if which("npm").is_none() {
        skipped("npm_install", "no npm in the system's folders");
        return;
    }
    let ground = ground("npm-work");
    ground.write_home(
        "local/package.json",
        0o644,
        "{\"name\":\"local\",\"version\":\"1.0.0\",\"main\":\"index.js\"}",
    );
    ground.write_home("local/index.js", 0o644, "module.exports = 'required';");
    works(
        &ground,
        "mkdir app; cd app; npm init -y >/dev/null; npm install --offline --no-audit --no-fund ../local >/dev/null
         node -e 'console.log(require(\"local\"))' | grep required; npm run env >/dev/null",
    );
}

/// A virtual environment with pytest that the session's user can reach, made once.
fn pytest() -> PathBuf {
    let venv = Path::new(ana_tests::machine::BASE).join("installed/pytest");
    virtual_python(&venv, &["pytest"]);
    venv
}

#[test]
fn pytest_runs() {
    let ground = ground("pytest-work");
    let venv = pytest();
    ground.write_home(
        "test_it.py",
        0o644,
        "import multiprocessing, subprocess, threading\n\
         def test_process(): assert subprocess.run(['true']).returncode == 0\n\
         def square(x): return x * x\n\
         def test_pool():\n    with multiprocessing.Pool(2) as pool: assert pool.map(square, [1, 2]) == [1, 4]\n\
         def test_thread():\n    t = threading.Thread(target=print); t.start(); t.join()\n\
         def test_shm():\n    from multiprocessing import shared_memory\n    s = shared_memory.SharedMemory(create=True, size=9); s.close(); s.unlink()\n",
    );
    works(&ground, &format!("{}/bin/python -m pytest -q test_it.py", venv.display()));
}

#[test]
fn make_and_gcc() {
    if !has("gcc") || !has("make") {
        skipped("make_and_gcc", "no gcc or no make");
        return;
    }
    let ground = ground("make-work");
    ground.write_home("main.c", 0o644, "#include <stdio.h>\nint main(void) { puts(\"made\"); return 0; }\n");
    ground.write_home(
        "Makefile",
        0o644,
        "all: main\nmain: main.o\n\tgcc -o main main.o\nmain.o: main.c\n\tgcc -c main.c\n",
    );
    works(&ground, "make -j2; ./main | grep made; make -j2 | grep -i 'nothing to be done'");
}

/// A terminal multiplexer inside a session makes terminals of its own there.
#[test]
fn tmux_inside() {
    let ground = ground("tmux-work");
    works(
        &ground,
        "export TMUX_TMPDIR=$HOME TERM=screen; unset TMUX
         tmux -f /dev/null new-session -d -x 80 -y 20 'bash --norc --noprofile -i'
         tmux send-keys 'echo in-$((6*7)); tty' Enter
         for i in $(seq 200); do tmux capture-pane -p | grep in-42 && break; sleep 0.05; done
         tmux capture-pane -p | grep in-42; tmux capture-pane -p | grep /dev/pts/
         tmux kill-server
         script -qec 'tty' /dev/null | grep /dev/pts/",
    );
}

/// Sockets, pipes, shared memory, temporary files, signals among themselves: a session is no straitjacket.
#[test]
fn processes_of_a_session_work_together() {
    let ground = ground("together");
    works(
        &ground,
        "sleep 100 & kill $!; wait $! || test $? = 143
         mkfifo pipe; echo through > pipe & grep -q through pipe
         /usr/bin/python3 - <<'END'
import socket, os, tempfile, mmap
a, b = socket.socketpair(); a.send(b'x'); assert b.recv(1) == b'x'
s = socket.socket(); s.bind(('127.0.0.1', 0)); s.listen(); c = socket.create_connection(s.getsockname()); c.close()
u = socket.socket(socket.AF_UNIX); u.bind('sock'); u.listen(); v = socket.socket(socket.AF_UNIX); v.connect('sock')
w = socket.socket(socket.AF_UNIX); w.bind('\\0abstract-' + str(os.getpid())); w.listen()
x = socket.socket(socket.AF_UNIX); x.connect(w.getsockname())
t = tempfile.TemporaryFile(); t.write(b'y' * 4096); t.flush(); mmap.mmap(t.fileno(), 4096)
os.makedirs('d/e'); os.rename('d/e', 'f'); os.symlink('f', 'g'); os.link('pipe', 'h'); os.rmdir('f')
os.nice(1); os.sched_yield(); open('/dev/shm/ana-' + str(os.getpid()), 'w').close(); os.unlink('/dev/shm/ana-' + str(os.getpid()))
for name in ('null', 'zero', 'full', 'random', 'urandom'): open('/dev/' + name, 'rb').close()
END",
    );
}

/// sudo works inside, where the policy lets it: without a rule it is asked about.
#[test]
fn sudo_inside() {
    if !has("sudo") {
        skipped("sudo_inside", "no sudo");
        return;
    }
    let ground = ground("sudo-work");
    ground.policy(&(ground.head() + "[defaults]\nprivilege = \"allow\"\n"));
    let _leave = Sudoers::new();
    let finished = ground.run(&["sudo", "-n", "id", "-u"]).assert_code(0);
    assert_eq!(finished.stdout().trim(), "0");
    ground.verify();
}

/// An agent's own sandbox wants user namespaces, which the seal refuses: `ana-run` says how to go on.
#[test]
fn a_sandbox_inside_is_explained() {
    let ground = ground("sandbox");
    let finished = ground.run(&["unshare", "--user", "--map-root-user", "true"]);
    assert_ne!(finished.code(), 0, "the seal refuses user namespaces");
    for said in ["setting up uid map: Permission denied", "No permissions to creating new namespace, likely"]
    {
        let finished = ground.run_shell(&format!("echo 'bwrap: {said}' >&2; exit 1")).assert_code(1);
        assert!(
            finished.stderr().contains("namespaces = true"),
            "no way out is told:\n{}",
            finished.stderr()
        );
    }
}

/// With the policy's leave, user namespaces work.
#[test]
fn namespaces_by_policy() {
    let ground = Ground::new("namespaces");
    if !ground.with_namespaces("namespaces_by_policy", &ground.rule("otherwise = \"approve\"")) {
        return;
    }
    let finished =
        ground.run(&["unshare", "--user", "--map-root-user", "--mount", "id", "-u"]).assert_code(0);
    assert_eq!(finished.stdout().trim(), "0");
}
