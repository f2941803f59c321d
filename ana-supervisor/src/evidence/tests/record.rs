//! What a record may say, and what its words are.

use serde_json::json;

use super::super::{AssertionRecord, Entry, Event, EvidenceError, RecordedVerdict};
use super::{Bench, allowed_by_rule, started};

fn allowed() -> Entry {
    allowed_by_rule(1, "s")
}

fn assertion() -> Option<AssertionRecord> {
    let text = String::new;
    Some(AssertionRecord {
        credential_id: text(),
        approver: text(),
        public_key: text(),
        authenticator_data: text(),
        client_data_json: text(),
        signature: text(),
    })
}

#[test]
fn an_entry_that_contradicts_itself_is_refused_by_name() {
    let deny = Some(RecordedVerdict::Deny);
    let by = |who: &str| json!({ "decided_by": who });
    let folded = |count: i64| json!({ "decided_by": "rule", "folded": count });
    let cases = [
        (Entry { session: Some("t".into()), ..allowed() }, "the operation is another session's"),
        (Entry { rule: Some("npm".into()), ..allowed() }, "the operation was asked under another rule"),
        (allowed().policy("q"), "the operation was asked under another policy"),
        (Entry { operation: None, ..allowed() }, "the decision has no operation"),
        (Entry { verdict: None, ..allowed() }, "the decision has no verdict"),
        (Entry { detail: None, ..allowed() }, "it is missing who decided"),
        (allowed().detail(by("nobody")), "it is missing who decided"),
        (allowed().detail(by("person")), "a person's approval without an assertion"),
        (allowed().detail(by("timeout")), "only a rule or a person can allow"),
        (allowed().detail(by("system")), "only a rule or a person can allow"),
        (Entry { assertion: assertion(), ..allowed() }, "an assertion that approves nothing"),
        (
            Entry { assertion: assertion(), verdict: deny, ..allowed().detail(by("person")) },
            "an assertion that approves nothing",
        ),
        (allowed().detail(folded(0)), "only what a rule allows can be folded, and into a count"),
        (allowed().detail(folded(-1)), "only what a rule allows can be folded, and into a count"),
        (
            Entry { verdict: deny, ..allowed().detail(folded(2)) },
            "only what a rule allows can be folded, and into a count",
        ),
        (Entry::new(Event::SessionStart).policy("p"), "the session is missing"),
        (Entry::new(Event::SessionStart).session("s"), "the policy's hash is missing"),
        (Entry::new(Event::SessionEnd), "the session is missing"),
        (Entry::new(Event::RootReached), "the session is missing"),
        (Entry::new(Event::Outcome).session("s"), "the outcome names no operation"),
        (
            Entry { verdict: deny, ..Entry::new(Event::Tamper) },
            "only a decision has a verdict or an assertion",
        ),
        (Entry { assertion: assertion(), ..started("s") }, "only a decision has a verdict or an assertion"),
    ];
    let bench = Bench::new();
    let store = bench.store();
    for (entry, why) in cases {
        let shown = format!("{entry:?}");
        match store.append(entry) {
            Err(EvidenceError::Entry(said)) => assert_eq!(said, why, "{shown}"),
            other => panic!("{other:?} for {shown}"),
        }
    }
    assert_eq!(bench.segment(1).len(), 0);
    for entry in [started("s"), allowed().detail(folded(2)), Entry { verdict: deny, ..allowed() }] {
        store.append(entry).expect("appended");
    }
}

/// A name is asked for where the JSON is not at hand; it must be the same word.
#[test]
fn names_are_the_words_of_the_json() {
    let events = [
        Event::SessionStart,
        Event::Enrolment,
        Event::Decision,
        Event::Outcome,
        Event::SessionEnd,
        Event::PolicyLoad,
        Event::RootReached,
        Event::Tamper,
        Event::Loss,
    ];
    for event in events {
        assert_eq!(json!(event), event.name());
    }
    for verdict in [RecordedVerdict::Allow, RecordedVerdict::Deny] {
        assert_eq!(json!(verdict), verdict.name());
    }
}
