//! Makes a world of its own, in which the protected program lies at /usr/bin/true and the working directory is another
//! person's project, and runs it there. Argument: the program.

use std::{fs, path::Path, process::Command};

use ana_tests::attempt::{argument, enter_namespaces, mount, run, say, tell, tell_io};
use nix::{
    mount::MsFlags,
    unistd::{chdir, pivot_root},
};

fn main() {
    let program = argument(1);
    let world = Path::new("world");
    let bind = MsFlags::MS_BIND | MsFlags::MS_REC;
    let tmpfs = Some("tmpfs");
    let made = tell_io("mkdir", fs::create_dir_all(world)).is_some()
        && enter_namespaces()
        && mount("world", Path::new("none"), world, tmpfs, MsFlags::empty(), None)
        && ["usr", "var", "proc", "old", "home/victim/project"]
            .iter()
            .all(|folder| tell_io("folder", fs::create_dir_all(world.join(folder))).is_some())
        && ["usr", "var", "proc"]
            .iter()
            .all(|name| mount(name, &Path::new("/").join(name), &world.join(name), None, bind, None))
        && ["lib", "lib64", "bin"].iter().all(|name| {
            tell_io(name, std::os::unix::fs::symlink(format!("usr/{name}"), world.join(name))).is_some()
        })
        && mount("disguise", &program, &world.join("usr/bin/true"), None, MsFlags::MS_BIND, None)
        && tell("pivot", pivot_root(world, &world.join("old"))).is_some()
        && tell("chdir", chdir("/home/victim/project")).is_some();
    if !made {
        say("attempt disguised: no world");
        return;
    }
    run("disguised", Command::new("/usr/bin/true").arg("--version"));
}
