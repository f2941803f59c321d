//! Five hundred held processes, answered in random order: none waits behind another, and what is not protected goes on.

use std::{collections::HashSet, time::Duration};

use ana_tests::{
    Ground,
    answers::{Question, shuffle},
    machine::path_str,
    wait,
};

const MANY: usize = 500;
/// So many are answered one by one, each with a look at what ran.
const WATCHED: usize = 40;
/// Two cores start, hold and freeze five hundred processes.
const LIMIT: Duration = Duration::from_secs(300);

#[test]
fn five_hundred_are_answered_in_any_order() {
    let ground = Ground::new("five-hundred");
    ground.policy(&format!(
        "{}[session]\nmax_holds = {MANY}\n[defaults]\ntimeout = \"1h\"\n{}",
        ground.head(),
        ground.rule("otherwise = \"approve\"")
    ));
    let script = format!(
        "i=0; while [ $i -lt {MANY} ]; do i=$((i+1)); {deploy} $i & done; \
         while read line; do {benign} $line; done; wait",
        deploy = ground.deploy().display(),
        benign = path_str(&ground.benign()),
    );
    let mut session = ground.launch(&["sh", "-c", &script]).start_listening();
    let mut questions = wait::until_within(LIMIT, "five hundred questions", || {
        assert!(!session.ended(), "ended early:\n{}", session.stderr());
        let all = ground.pending(1);
        (all.len() == MANY).then_some(all)
    });
    assert_eq!(questions.iter().map(Question::pid).collect::<HashSet<_>>().len(), MANY);
    ground.assert_never_ran();
    shuffle(&mut questions);
    let mut expected = HashSet::new();
    let (watched, rest) = questions.split_at(WATCHED);
    for (answered, question) in watched.iter().enumerate() {
        // Every fifth is denied: that answers only itself.
        if answered % 5 == 4 {
            ground.deny(&question.id, "one of many");
            continue;
        }
        ground.approve(&question.id);
        expected.insert(question.args());
        wait::until("the approved one runs, and no other", || {
            let ran: HashSet<Vec<String>> = ground.markers().iter().map(|marker| marker.args()).collect();
            assert!(ran.is_subset(&expected), "not approved: {:?}", ran.difference(&expected));
            (ran == expected).then_some(())
        });
        if answered % 10 == 0 {
            let benign = || ground.all_markers().len() - ground.markers().len();
            let before = benign();
            session.say("unprotected");
            wait::until("an unprotected program runs meanwhile", || (benign() == before + 1).then_some(()));
        }
    }
    // The rest by several people at once.
    std::thread::scope(|people| {
        for mine in rest.chunks(rest.len().div_ceil(4)) {
            let ground = &ground;
            people.spawn(move || mine.iter().for_each(|question| ground.approve(&question.id)));
        }
    });
    let approved = expected.len() + rest.len();
    let finished = session.finish_within(LIMIT).assert_code(0);
    ground.assert_nothing_pending();
    let decisions = ground.decisions();
    assert_eq!(decisions.len(), MANY);
    let denied: Vec<_> =
        decisions.iter().filter(|record| record.denies()).map(|record| &record.payload).collect();
    assert_eq!(decisions.iter().filter(|record| record.approves()).count(), approved, "{:#?}", denied.last());
    let (tampered, told) = (ground.records_of("tamper"), finished.stderr());
    let last = tampered.last().map(|record| &record.payload);
    let told: Vec<&str> = told.lines().filter(|line| !line.starts_with("ana-run: ")).rev().take(3).collect();
    assert_eq!(ground.markers().len(), approved, "{} records: {last:#?}\n{told:#?}", tampered.len());
    ground.assert_every_run_was_decided();
    ground.verify();
}
