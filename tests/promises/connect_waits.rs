//! Who waits is the connection, and nobody else: the program that made it goes on, others are not delayed, and two hundred
//! may wait at once.

use std::{collections::BTreeMap, time::Duration};

use ana_tests::{
    Ground, Net, Session,
    answers::shuffle,
    machine::{machine, path_str, which},
    net::{API, INNOCENT},
    skip::skipped,
    wait,
};

/// So long the programs are left waiting. An event loop that stands still for this long is what is looked for.
const HOLD: Duration = Duration::from_secs(5);

/// What the programs say of their event loop: how often it ticked, and the longest pause, in milliseconds.
fn ticks(told: &str) -> (u64, u64) {
    let last = |word: &str| {
        told.lines().filter_map(|line| line.strip_prefix(word)?.trim().parse().ok()).next_back().unwrap_or(0)
    };
    (last("ticks "), last("longest "))
}

/// Node, a program with tokio, and Python with threads, all at once.
#[test]
fn event_loops_go_on() {
    if which("node").is_none() {
        return skipped("event_loops_go_on", "no node");
    }
    let (ground, net) = (Ground::new("loops"), Net::new("loops"));
    ground.protecting_api();
    let (node, python) = (ground.script("client.mjs"), ground.script("client.py"));
    let tokio = machine().program("agent-tokio");
    let script = format!(
        "node {node} ticking http://api.protected.test/node > node.out &\n\
         /usr/bin/python3 {python} threads http://api.protected.test/python > python.out &\n\
         {} api.protected.test:80 > tokio.out &\nwait",
        path_str(&tokio)
    );
    let mut session = net.start(&ground, &["bash", "-c", &script]);
    let questions = net.held(&ground, &mut session, 3, API);
    net.assert_untouched_for(HOLD, API);
    questions.iter().for_each(|question| ground.approve(&question.id));
    session.finish().assert_code(0);
    for (program, expected) in [("node", "200 1.1"), ("python", "200 1.1"), ("tokio", "HTTP/1.1 200 OK")] {
        let told = std::fs::read_to_string(ground.home().join(format!("{program}.out"))).expect("its output");
        assert!(told.contains(expected), "{program}: {told}");
        let (ticks, longest) = ticks(&told);
        // A tick is 50 ms; on two busy cores some come late.
        assert!(ticks >= 50 && longest < 2000, "{program} stood still: {ticks} ticks, {longest} ms\n{told}");
    }
    ground.verify();
}

#[test]
fn event_loops_without_ana() {
    let (ground, net) = (Ground::bare("loops-bare"), Net::new("loops-bare"));
    let tokio = machine().program("agent-tokio");
    net.run_without_ana(&ground, &[path_str(&tokio), "api.protected.test:80"])
        .assert_stdout("HTTP/1.1 200 OK");
}

const MANY: usize = 200;

/// Two hundred connections of one program, answered in an order of their own, some of them denied; meanwhile what is not
/// protected is as quick as ever.
#[test]
fn two_hundred_at_once() {
    if which("node").is_none() {
        return skipped("two_hundred_at_once", "no node");
    }
    let (ground, net) = (Ground::new("two-hundred"), Net::new("two-hundred"));
    ground.connecting(&format!(
        "[session]\nmax_holds = {MANY}\n[defaults]\ntimeout = \"10m\"\n\
         [[connect]]\nname = \"api\"\nhost = [\"*.protected.test\"]\n"
    ));
    // Alike connections would be one question.
    net.dns.put("*.protected.test", &[API.0.into(), API.1.into()]);
    let node = ground.script("client.mjs");
    let script = format!(
        "node {node} many http://nNUMBER.protected.test/ {MANY} > many.out & \
         while read word; do curl -sS -o /dev/null -w \"$word %{{http_code}} %{{time_total}}\\n\" \
         http://www.innocent.test/$word; done; wait"
    );
    let mut session = net.launch(&ground, &["bash", "-c", &script]).start_listening();
    let mut questions = net.held(&ground, &mut session, MANY, API);
    let mut slowest = quick(&mut session, "before");
    shuffle(&mut questions);
    let denied = questions.split_off(MANY - 20);
    std::thread::scope(|people| {
        for mine in questions.chunks(questions.len() / 4) {
            let ground = &ground;
            people.spawn(move || mine.iter().for_each(|question| ground.approve(&question.id)));
        }
        slowest = slowest.max(quick(&mut session, "meanwhile"));
    });
    wait::until("all that were approved have arrived", || {
        (net.arrivals_at(API).len() == MANY - 20).then_some(())
    });
    for question in &denied {
        ground.deny(&question.id, "one of many");
    }
    session.finish().assert_code(0);
    let told = std::fs::read_to_string(ground.home().join("many.out")).expect("its output");
    let mut answers: BTreeMap<&str, usize> = BTreeMap::new();
    for line in told.lines().filter(|line| line.contains(": ")) {
        let status = line.split(' ').nth(1).unwrap_or_default();
        *answers.entry(status).or_default() += 1;
    }
    assert_eq!(answers, BTreeMap::from([("200", MANY - 20), ("403", 20)]), "{told}");
    assert!(
        slowest < wait::SOON.as_secs_f64(),
        "an unprotected request waited {slowest} s for the others' answers"
    );
    assert_eq!(net.arrivals_at(INNOCENT).len(), 2);
    assert_eq!(ground.connections().iter().filter(|record| record.approves()).count(), MANY - 20);
    ground.verify();
}

/// Lets the session fetch something that nobody protects; how long it took, in seconds.
#[track_caller]
fn quick(session: &mut Session, word: &str) -> f64 {
    session.say(word);
    let told = session.until_stdout(&format!("{word} 200 "));
    let line = wait::until("the line is whole", || {
        let told = session.stdout();
        let (_, rest) = told.split_once(&format!("{word} 200 "))?;
        rest.split_once('\n').map(|(time, _)| time.to_owned())
    });
    line.parse().unwrap_or_else(|e| panic!("{e}: {told}"))
}

/// Whoever hangs up is not asked about any longer.
#[test]
fn a_question_ends_with_its_connection() {
    let (ground, net) = (Ground::new("hung-up"), Net::new("hung-up"));
    ground.protecting_api();
    let script = "curl -sS --max-time 1 http://api.protected.test/; echo gone $?; read line";
    let mut session = net.launch(&ground, &["bash", "-c", script]).start_listening();
    net.held(&ground, &mut session, 1, API);
    session.until_stdout("gone 28");
    wait::until("the question is withdrawn", || ground.pending(0).is_empty().then_some(()));
    session.hush();
    session.finish();
    net.assert_untouched(API);
    ground.verify();
}

/// Connections that differ in nothing are one question; one approval is for one of them, and a denial for all.
#[test]
fn alike_they_are_one_question() {
    let (ground, net) = (Ground::new("alike-net"), Net::new("alike-net"));
    ground.protecting_api();
    let curl = "curl -sS -4 -o /dev/null -w '%{http_code}\\n' http://api.protected.test/alike";
    let script = format!("for i in 1 2 3; do {curl} & done; wait");
    let session = net.start(&ground, &["bash", "-c", &script]);
    let first = ground.question_for(3);
    net.assert_untouched(API);
    ground.approve(&first.id);
    let second = ground.question_for(2);
    ground.deny(&second.id, "one was enough");
    let told = session.finish().assert_code(0).stdout();
    assert_eq!((told.matches("200").count(), told.matches("403").count()), (1, 2), "{told}");
    assert_eq!(net.arrivals_at(API).len(), 1);
    ground.verify();
}
