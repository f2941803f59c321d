//! What the gate costs what it does not touch. Printed, not asserted: `--nocapture`.

use super::ground::{Actor, Ground};

const ROUNDS: u32 = 500;

/// Nanoseconds of one, in the median.
fn median(actor: &mut Actor, action: &str) -> f64 {
    let code = format!(
        "sorted((lambda t: ({action}, __import__('time').perf_counter_ns() - t)[1])(__import__('time').perf_counter_ns()) for _ in range({ROUNDS}))[{}]",
        ROUNDS / 2
    );
    actor.ask(&code).parse().unwrap()
}

#[test]
fn what_it_costs() {
    let mut ground = Ground::new(0);
    // With kernel.bpf_stats_enabled=1, which costs something itself, each program's share is printed as well.
    ground.maps.inspect(443).unwrap();
    ground.maps.protect("192.0.2.8".parse().unwrap(), 32, 1).unwrap();
    ground.outside.says("listen('server', '192.0.2.7', 80)", "None");
    ground.outside.says(
        "threading.Thread(target=lambda: [S['server'].settimeout(None)] and [S['server'].accept()[0].close() for _ in iter(int, 1)], daemon=True).start()",
        "None",
    );
    ground.outside.says("bound('sink', '192.0.2.7', 5001)", "None");
    ground.outside.says("listen('bulk', '192.0.2.7', 81)", "None");
    ground.outside.says(
        "threading.Thread(target=lambda: [c.recv(1 << 20) for c in [S['bulk'].accept()[0]] for _ in iter(int, 1)], daemon=True).start()",
        "None",
    );
    let mut bare = ground.another_outside();
    let setup =
        "[make('c', '1.1.1.1'), udp('u', '192.0.2.7', 5001), make('v', '1.1.1.1', socket.SOCK_DGRAM)] and 1";
    for actor in [&mut bare, &mut ground.agent] {
        actor.says(setup, "1");
    }
    for (what, action) in [
        ("socket + close", "socket.socket().close()"),
        ("connect + close, unlisted", "connect('c', '192.0.2.7', 80)"),
        ("UDP send, connected", "S['u'].send(b'x')"),
        ("UDP sendto", "S['v'].sendto(b'x', ('192.0.2.7', 5001))"),
    ] {
        let (mut without, mut within) = (f64::MAX, f64::MAX);
        let before = ground.costs();
        for _ in 0..3 {
            without = without.min(median(&mut bare, action));
            within = within.min(median(&mut ground.agent, action));
        }
        println!("{what}: bare {without} ns, in the session {within} ns ({:.3})", within / without);
        for ((name, before), (_, after)) in before.iter().zip(ground.costs()) {
            let (ns, runs) = (after.run_ns - before.run_ns, after.runs - before.runs);
            if let Some(each) = ns.checked_div(runs) {
                println!("    {name}: {each} ns in each of {runs} runs");
            }
        }
    }
    ground.agent.says("connect('b', '192.0.2.7', 81)", "ok");
    let within = median(&mut ground.agent, "S['b'].send(b'x' * 1000)");
    println!("TCP send of 1000 bytes in the session: {within} ns");
    for (name, cost) in ground.costs() {
        if let Some(each) = cost.run_ns.checked_div(cost.runs) {
            println!("{name}: {each} ns in each of {} runs", cost.runs);
        }
    }
}
