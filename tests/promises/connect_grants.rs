//! One answer for more than one connection: `for` grants a time, of which every use is written down; `grace` keeps an answer
//! for who hung up while it was being given, once.

use std::time::{Duration, Instant};

use ana_tests::{Ground, Net, Session, answers::Question, net::API, wait};

/// Fetches from the protected host whenever it is told to; tells how that ended.
const ASKER: &str = "while read -r url; do curl -sS -o /dev/null -w \"$url %{http_code} %{num_connects}\\n\" $url \
     || echo \"$url failed\"; done";

fn asker(ground: &Ground, net: &Net) -> Session {
    net.launch(ground, &["bash", "-c", ASKER]).start_listening()
}

fn rule(lines: &str) -> String {
    format!("[[connect]]\nname = \"api\"\nhost = [\"*.protected.test\", \"api.protected2.test\"]\n{lines}\n")
}

/// The first one asks for the grant, those after it do not ask; another host is another question.
#[test]
fn a_session_long() {
    let (ground, net) = (Ground::new("grant"), Net::new("grant"));
    ground.connecting(&rule("for = \"session\""));
    let mut session = asker(&ground, &net);
    session.say("http://api.protected.test/1");
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    assert_eq!(question.kind, "connect-grant");
    let grant = &question.operation["connect_grant"];
    assert_eq!(grant["until"], "session", "{grant}");
    assert!(grant["scope"].to_string().contains("api.protected.test"), "{grant}");
    ground.approve(&question.id);
    session.until_stdout("/1 200");
    for number in 2..5 {
        session.say(&format!("http://api.protected.test/{number}"));
        session.until_stdout(&format!("/{number} 200"));
    }
    ground.assert_nothing_pending();
    for other in ["http://four.protected.test/other", "http://api.protected.test:8080/port"] {
        let before = net.arrivals_at(API).len();
        session.say(other);
        let other = ground.question_of(&mut session);
        assert_eq!(net.arrivals_at(API).len(), before, "a grant is for its host and its port");
        ground.deny(&other.id, "another one");
        session.until_stdout(" 403");
    }
    session.hush();
    session.finish();
    let uses = ground.connections().into_iter().filter(|record| record.approves()).count();
    assert!(uses >= 4, "every use is written down: {:#?}", ground.connections());
    assert_eq!(net.arrivals_at(API).len(), 4);
    ground.verify();
}

/// Its time is over: the next one is asked about again.
#[test]
fn for_a_time() {
    let (ground, net) = (Ground::new("grant-time"), Net::new("grant-time"));
    ground.connecting(&rule("for = \"3s\""));
    let mut session = asker(&ground, &net);
    session.say("http://api.protected.test/0");
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    assert_eq!(question.kind, "connect-grant");
    ground.approve(&question.id);
    session.until_stdout("/0 200");
    let mut number = 0;
    let again = wait::until("the grant ends", || {
        number += 1;
        session.say(&format!("http://api.protected.test/{number}"));
        wait::until("answered, or asked about", || {
            let mut all = ground.pending(0);
            match all.pop() {
                Some(question) => Some(Some(question)),
                None => session.stdout().contains(&format!("/{number} 200")).then_some(None),
            }
        })
    });
    assert_ne!(again.id, question.id);
    ground.deny(&again.id, "it is over");
    session.until_stdout(" 403");
    session.hush();
    session.finish();
    ground.verify();
}

/// Without `for`, every connection is asked about; one that is kept alive is one connection.
#[test]
fn once() {
    let (ground, net) = (Ground::new("once"), Net::new("once"));
    ground.connecting(&rule(""));
    let mut session = asker(&ground, &net);
    for number in 1..4 {
        session.say(&format!("http://api.protected.test/{number}"));
        let question = ground.question_of(&mut session);
        assert_eq!(net.arrivals_at(API).len(), number - 1);
        ground.approve(&question.id);
        session.until_stdout(&format!("/{number} 200"));
    }
    session.hush();
    session.finish();
    assert_eq!(net.arrivals_at(API).len(), 3);
    ground.verify();
}

/// Whoever gives up while the answer is on its way may come back for it, once and soon; nobody else may, and never twice.
#[test]
fn an_answer_on_its_way_is_kept() {
    let (ground, net) = (Ground::new("grace"), Net::new("grace"));
    ground.connecting(&rule("grace = \"60s\""));
    // The connection goes at a random moment of the approval; whatever happens first, one approval is one connection.
    let script = "while read -r wait; do timeout $wait curl -sS -o /dev/null -w \"%{http_code} \" http://api.protected.test/g; \
         echo \"ended $?\"; done";
    let mut session = net.launch(&ground, &["bash", "-c", script]).start_listening();
    let mut approvals = 0;
    let mut kept = 0;
    for round in 0..6 {
        let (before, ends) = (net.arrivals_at(API).len(), session.stdout().matches("ended").count());
        session.say("0.6");
        let Some(question) = wait::poll(Duration::from_millis(550), || ground.pending(0).pop()) else {
            // A ticket of the round before let it through.
            kept += 1;
            wait::until("it ends", || (session.stdout().matches("ended").count() > ends).then_some(()));
            continue;
        };
        // Not synchronisation: the moment is what this test varies.
        std::thread::sleep(Duration::from_millis(80 * round));
        if ground.try_approve(&question.id).status.success() {
            approvals += 1;
        }
        wait::until("it ends", || (session.stdout().matches("ended").count() > ends).then_some(()));
        assert!(net.arrivals_at(API).len() <= before + 1);
    }
    session.hush();
    session.finish();
    let connected = net.arrivals_at(API).len();
    println!("{approvals} approvals, {connected} connections, {kept} by a ticket");
    assert!(connected <= approvals, "{connected} connections with {approvals} approvals");
    ground.verify();
}

/// Fetches as it is told: `get URL` to the end, `hold URL` until it is told `drop`.
const HOLDER: &str = "fetch() { curl -sS -4 -o /dev/null -w '%{http_code}' \"$1\"; }; \
     while read -r what url; do case $what in \
     get) echo \"got $(fetch $url)\";; hold) fetch $url & ;; drop) pkill -KILL -P $! ; wait; echo dropped;; esac; done";

fn holder(ground: &Ground, net: &Net) -> Session {
    net.launch(ground, &["bash", "-c", HOLDER]).start_listening()
}

/// The client hangs up.
#[track_caller]
fn hang_up(session: &mut Session) {
    let before = session.stdout().matches("dropped").count();
    session.say("drop");
    wait::until("it has hung up", || (session.stdout().matches("dropped").count() > before).then_some(()));
}

/// The client hangs up, and the supervisor knows it: a later one has come, was asked about, has hung up, and is forgotten.
#[track_caller]
fn hang_up_for_all_to_know(ground: &Ground, session: &mut Session) {
    hang_up(session);
    let is_later = |question: &Question| question.connect()["name"] == "api.protected2.test";
    let later = |ground: &Ground| ground.pending(0).iter().any(is_later);
    session.say("hold http://api.protected2.test/later");
    wait::until("the later one is asked about", || later(ground).then_some(()));
    hang_up(session);
    wait::until("the later one is forgotten", || (!later(ground)).then_some(()));
}

const GRACE_URL: &str = "http://api.protected.test/grace";

/// Whoever hangs up while a person looks at the question comes back for the approval: once, unasked, and with a record.
#[test]
fn an_approval_after_the_hang_up_is_for_one_more_try() {
    let (ground, net) = (Ground::new("grace-once"), Net::new("grace-once"));
    ground.connecting(&rule("grace = \"60s\""));
    let mut session = holder(&ground, &net);
    session.say(&format!("hold {GRACE_URL}"));
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    let mut shown = ground.show(&question);
    hang_up_for_all_to_know(&ground, &mut session);
    shown.approve();
    let unused = wait::until("what became of the approval", || ground.records_of("outcome").pop());
    assert_eq!(unused.payload["detail"]["outcome"], "the client had hung up", "{}", unused.payload);
    net.assert_untouched(API);
    session.say(&format!("get {GRACE_URL}"));
    session.until_stdout("got 200");
    assert_eq!(net.arrivals_at(API).len(), 1);
    let approved: Vec<_> = ground.connections().into_iter().filter(|record| record.approves()).collect();
    assert_eq!(approved.len(), 2, "{approved:#?}");
    // It is used up.
    session.say(&format!("get {GRACE_URL}"));
    let again = ground.question_of(&mut session);
    assert_ne!(again.id, question.id);
    ground.deny(&again.id, "once was enough");
    session.until_stdout("got 403");
    session.hush();
    session.finish();
    assert_eq!(net.arrivals_at(API).len(), 1);
    ground.verify();
}

/// Too late, and for another URL: both ask. And who is shown a question whose client has gone may not answer it for ever.
#[test]
fn grace_ends() {
    const GRACE: Duration = Duration::from_secs(6);
    let (ground, net) = (Ground::new("grace-ends"), Net::new("grace-ends"));
    ground.connecting(&rule(&format!("grace = \"{}s\"", GRACE.as_secs())));
    let mut session = holder(&ground, &net);
    session.say(&format!("hold {GRACE_URL}"));
    let question = net.held(&ground, &mut session, 1, API).remove(0);
    let mut shown = ground.show(&question);
    hang_up_for_all_to_know(&ground, &mut session);
    shown.approve();
    wait::until("the approval is kept", || ground.records_of("outcome").pop());
    let kept = Instant::now();
    session.say(&format!("get {GRACE_URL}-of-another"));
    let other = ground.question_of(&mut session);
    ground.deny(&other.id, "another one");
    session.until_stdout("got 403");
    wait::until("the time is over", || (kept.elapsed() > GRACE).then_some(()));
    session.say(&format!("hold {GRACE_URL}"));
    let again = net.held(&ground, &mut session, 1, API).remove(0);
    let mut shown = ground.show(&again);
    hang_up(&mut session);
    wait::until("the question is withdrawn", || ground.pending(0).is_empty().then_some(()));
    let late = shown.try_approve();
    assert!(late.is_err(), "{late:?}");
    session.hush();
    session.finish();
    net.assert_untouched(API);
    ground.verify();
}

#[test]
fn the_holder_without_ana() {
    let (ground, net) = (Ground::bare("grace-bare"), Net::new("grace-bare"));
    let mut session =
        Session::of(net.without_ana(&ground, &["bash", "-c", HOLDER]).stdin(std::process::Stdio::piped()));
    session.say(&format!("get {GRACE_URL}"));
    session.until_stdout("got 200");
    session.hush();
    session.finish();
}

#[test]
fn the_asker_without_ana() {
    let (ground, net) = (Ground::bare("grant-bare"), Net::new("grant-bare"));
    let mut session =
        Session::of(net.without_ana(&ground, &["bash", "-c", ASKER]).stdin(std::process::Stdio::piped()));
    session.say("http://api.protected.test/1");
    session.until_stdout("/1 200 1");
    session.hush();
    session.finish();
}
