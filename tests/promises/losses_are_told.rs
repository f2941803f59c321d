//! What the kernel could not tell, or the guard could not see, is on the record; where it matters, the session ends.

use std::{fs, path::Path};

use ana_tests::{Ground, processes, wait};
use aya::maps::{Map, MapData, PerCpuArray, PerCpuValues};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};

/// What one counter of the guard counts.
const COUNTED: usize = 8;
/// BPF_MAP_TYPE_PERCPU_ARRAY, as /proc/PID/fdinfo shows it.
const PER_CPU_ARRAY: &str = "6";

/// The guard's counters, by the supervisor's descriptor.
fn counters(supervisor: i32) -> PerCpuArray<MapData, u64> {
    let entries = fs::read_dir(format!("/proc/{supervisor}/fdinfo")).expect("it lives").flatten();
    let counters = entries.filter_map(|entry| {
        let text = fs::read_to_string(entry.path()).ok()?;
        let member = |name: &str| text.lines().find_map(|line| line.strip_prefix(name)).map(str::trim);
        let it_is = member("map_type:") == Some(PER_CPU_ARRAY)
            && member("value_size:").and_then(|size| size.parse().ok()) == Some(COUNTED);
        member("map_id:").filter(|_| it_is)?.parse::<u32>().ok()
    });
    let id = counters.last().expect("the supervisor has the counters open");
    let map = MapData::from_id(id).expect("root may");
    PerCpuArray::try_from(Map::PerCpuArray(map)).expect("of this kind")
}

/// The kernel skips a program, or a ring overflows, when it will; here the counter is set as that would set it.
#[test]
fn a_session_whose_guard_missed_something_ends() {
    for (which, name) in [(0, "lost: 1"), (1, "misses: 1")] {
        let ground = Ground::new("missed");
        let mut session = ground.start(&[ground.deploy()]);
        let held = ground.question_of(&mut session);
        let mut counters = counters(session.supervisor());
        let mut values = vec![0; aya::util::nr_cpus().expect("processors")];
        values[0] = 1;
        counters.set(which, PerCpuValues::try_from(values).expect("one each"), 0).expect("root may");
        let finished = session.finish();
        assert_ne!(finished.code(), 0);
        assert!(finished.stderr().contains("the guard missed something"), "{}", finished.stderr());
        assert!(!processes::alive(held.pid()));
        let lost = ground.records_of("loss");
        let told = |record: &ana_tests::records::Record| {
            record.payload["detail"]["health"].as_str().is_some_and(|text| text.contains(name))
        };
        assert!(lost.len() == 1 && told(&lost[0]), "{lost:#?}");
        let end = ground.records_of("session-end").pop().expect("it ended");
        assert!(end.payload["detail"]["cause"].as_str().is_some_and(|text| text.contains(name)), "{end:#?}");
        ground.assert_never_ran();
        ground.verify();
    }
}

/// More files appear in a watched folder than the kernel keeps for a supervisor that does not read. It says so, and finds
/// what came unseen.
#[test]
fn a_flood_of_new_files_hides_none() {
    let ground = Ground::new("flood");
    let listed = ground.write_home("bin/release.sh", 0o755, "#!/bin/sh\ntrue\n");
    let rule = format!("[[exec]]\nname = \"release\"\nfile = [{listed:?}]\notherwise = \"deny\"\n");
    ground.policy(&(ground.head() + &rule));
    let mut session = ground.launch(&["/bin/sh"]).start_listening();
    session.say("echo the session runs");
    session.until_stdout("the session runs");
    let limit = fs::read_to_string("/proc/sys/fs/fanotify/max_queued_events").expect("Linux 5.13");
    let limit: u32 = limit.trim().parse().expect("a number");

    // The warden first: it takes a silent supervisor for a hung one.
    let wardens = session.wardens();
    let (all, supervisor) = (wardens.iter().copied(), session.supervisor());
    all.chain([supervisor]).for_each(|pid| signal(pid, Signal::SIGSTOP));
    wait::until("it stands still", || {
        processes::state_and_parent(supervisor).filter(|(state, _)| *state == 'T')
    });
    let folder = listed.parent().expect("a folder");
    (0..=limit).for_each(|number| appear(folder, &format!("flood-{number}")));
    // The last one, of which there is no word any more.
    appear(folder, "release.new");
    fs::rename(folder.join("release.new"), &listed).expect("renamed");
    signal(supervisor, Signal::SIGCONT);
    let lost = wait::until("the loss is on the record", || ground.records_of("loss").pop());
    assert!(lost.payload["detail"]["notifications"].is_string(), "{lost:#?}");
    wardens.iter().for_each(|&pid| signal(pid, Signal::SIGCONT));

    session.say(&format!("{}; echo ended: $?", listed.display()));
    session.until_stdout("ended: 126");
    session.say("exit 0");
    session.finish().assert_code(0);
    let denied = ground.decisions();
    assert!(denied.len() == 1 && denied[0].denies(), "{denied:#?}");
    ground.verify();
}

fn appear(folder: &Path, name: &str) {
    use std::os::unix::fs::PermissionsExt;
    let path = folder.join(name);
    fs::write(&path, if name.starts_with("flood") { "" } else { "#!/bin/sh\necho it ran\n" })
        .expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).expect("executable");
}

fn signal(pid: i32, signal: Signal) {
    kill(Pid::from_raw(pid), signal).expect("root may");
}
