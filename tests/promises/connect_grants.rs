//! One answer for more than one connection: `for` grants a time, of which every use is written down; `grace` keeps an answer
//! for who hung up while it was being given, once.

use std::time::Duration;

use ana_tests::{Ground, Net, Session, net::API, wait};

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
