//! What people's agents do all day: a build, an installation of packages. Nothing of it is protected.

use std::{fmt::Write, path::Path};

use ana_tests::{
    Ground,
    bench::{Compared, Worker},
};

const ROUNDS: usize = 24;

pub(crate) fn measure(ground: &Ground, probe: &Path) -> Vec<(&'static str, Compared)> {
    let mut all = vec![("cargo build", in_turns(ground, probe, &cargo(ground)))];
    match ana_tests::machine::has("npm") {
        true => all.push(("npm ci", in_turns(ground, probe, &npm(ground)))),
        false => eprintln!("SKIPPED: npm ci: no npm"),
    }
    all
}

fn in_turns(ground: &Ground, probe: &Path, script: &Path) -> Compared {
    let command = [probe.to_str().expect("text"), "probe", "serve"];
    let mut workers = [Worker::bare(ground, &command), Worker::in_session(ground, &command)];
    let (mut bare, mut ana) = (Vec::new(), Vec::new());
    for round in 0..=ROUNDS {
        for (worker, into) in workers.iter_mut().zip([&mut bare, &mut ana]) {
            let times = worker.numbers(&format!("run 1 /bin/sh {}", script.display()));
            if round > 0 {
                into.extend(times);
            }
        }
    }
    workers.into_iter().for_each(Worker::end);
    (bare, ana)
}

/// A package without dependencies; the toolchain that built this, where every user can reach it.
fn cargo(ground: &Ground) -> std::path::PathBuf {
    let own = Path::new(env!("CARGO")).parent().and_then(Path::parent).expect("bin/cargo of a toolchain");
    let toolchain = ground.root().join("toolchain");
    ground.mount(&["--bind", own.to_str().expect("text")], &toolchain);
    ground.write_home(
        "c/Cargo.toml",
        0o644,
        "[package]\nname = \"c\"\nversion = \"0.1.0\"\nedition = \"2021\"\n",
    );
    let mut main = String::new();
    for number in 0..400 {
        writeln!(main, "pub fn f{number}(x: &[u64]) -> String {{ format!(\"{{:?}}\", x.iter().map(|y| y + {number}).collect::<Vec<_>>()) }}").expect("text");
    }
    main.push_str("fn main() { println!(\"{}\", f0(&[1])); }\n");
    ground.write_home("c/src/main.rs", 0o644, &main);
    let script = format!(
        "cd {0}/c && touch src/main.rs && PATH={1}/bin:$PATH CARGO_HOME={0}/.cargo {1}/bin/cargo build --offline\n",
        ground.home().display(),
        toolchain.display()
    );
    ground.write_home("cargo.sh", 0o644, &script)
}

/// A project with thirty packages of its own folder.
fn npm(ground: &Ground) -> std::path::PathBuf {
    let mut wanted = Vec::new();
    for number in 0..30 {
        let package = format!("{{\"name\": \"p{number}\", \"version\": \"1.0.0\"}}");
        ground.write_home(&format!("n/p{number}/package.json"), 0o644, &package);
        for file in 0..20 {
            ground.write_home(&format!("n/p{number}/lib/{file}.js"), 0o644, "module.exports = 1;\n");
        }
        wanted.push(format!("\"p{number}\": \"file:./p{number}\""));
    }
    let package =
        format!("{{\"name\": \"n\", \"version\": \"1.0.0\", \"dependencies\": {{{}}}}}", wanted.join(", "));
    ground.write_home("n/package.json", 0o644, &package);
    let npm =
        format!("cd {}/n && npm --offline --no-audit --no-fund --install-links", ground.home().display());
    let made = ground.without_ana(&["sh", "-c", &format!("{npm} install")]).output().expect("npm runs");
    assert!(made.status.success(), "{}", String::from_utf8_lossy(&made.stderr));
    ground.write_home("npm.sh", 0o644, &format!("{npm} ci\n"))
}
