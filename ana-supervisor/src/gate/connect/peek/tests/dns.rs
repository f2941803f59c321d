use hickory_proto::{
    op::{Message, MessageType, OpCode, Query},
    rr::{
        Name as DnsName, RData, Record, RecordType,
        rdata::{
            A, AAAA, CNAME, HTTPS, SVCB,
            svcb::{Alpn, EchConfigList, IpHint, Mandatory, SvcParamKey, SvcParamValue},
        },
    },
};
use proptest::prelude::*;

use super::super::{Name, QueryKind, dns_answer, dns_query};

fn dns(text: &str) -> DnsName {
    DnsName::from_ascii(text).unwrap()
}

fn answer(question: &str, kind: RecordType, records: Vec<Record>) -> Vec<u8> {
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(dns(question), kind));
    message.add_answers(records);
    message.to_vec().unwrap()
}

fn a(owner: &str, ttl: u32, address: &str) -> Record {
    Record::from_rdata(dns(owner), ttl, RData::A(A(address.parse().unwrap())))
}

fn names(names: &[Name]) -> Vec<&str> {
    names.iter().map(Name::as_str).collect()
}

#[test]
fn every_name_of_a_chain_gets_the_addresses() {
    // In the wrong order, in any case, and with somebody else's address.
    let records = vec![
        a("edge.cdn.example.", 60, "192.0.2.1"),
        a("evil.example.", 60, "192.0.2.66"),
        Record::from_rdata(dns("mid.example."), 300, RData::CNAME(CNAME(dns("Edge.CDN.example.")))),
        Record::from_rdata(dns("API.example."), 30, RData::CNAME(CNAME(dns("mid.example.")))),
        Record::from_rdata(dns("edge.cdn.example."), 60, RData::AAAA(AAAA("2001:db8::1".parse().unwrap()))),
    ];
    let bytes = answer("api.EXAMPLE.", RecordType::A, records);
    let answer = dns_answer(&bytes).unwrap();
    assert_eq!(names(&answer.names), ["api.example", "edge.cdn.example", "mid.example"]);
    assert_eq!(
        answer.addresses,
        ["192.0.2.1", "2001:db8::1"].map(|a| a.parse::<std::net::IpAddr>().unwrap())
    );
    assert_eq!((answer.ttl, answer.kind, answer.exists), (30, 1, true));
    assert_eq!(answer.question.as_deref(), Some("api.example"));
    assert_eq!(answer.message, bytes, "untouched");
}

#[test]
fn the_keys_for_an_encrypted_hello_are_taken_out() {
    let hints = |ech: bool| {
        let mut parameters = vec![
            (SvcParamKey::Mandatory, SvcParamValue::Mandatory(Mandatory(vec![SvcParamKey::EchConfigList]))),
            (SvcParamKey::Alpn, SvcParamValue::Alpn(Alpn(vec!["h2".to_owned()]))),
            (SvcParamKey::Ipv4Hint, SvcParamValue::Ipv4Hint(IpHint(vec![A("192.0.2.9".parse().unwrap())]))),
            (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1; 90]))),
            (
                SvcParamKey::Ipv6Hint,
                SvcParamValue::Ipv6Hint(IpHint(vec![AAAA("2001:db8::9".parse().unwrap())])),
            ),
        ];
        if !ech {
            parameters.retain(|(key, _)| !matches!(key, SvcParamKey::EchConfigList | SvcParamKey::Mandatory));
        }
        HTTPS(SVCB::new(1, dns("pool.example."), parameters))
    };
    let record = |ech| Record::from_rdata(dns("a.example."), 120, RData::HTTPS(hints(ech)));
    let found = dns_answer(&answer("a.example.", RecordType::HTTPS, vec![record(true)])).unwrap();
    assert_eq!((names(&found.names), names(&found.targets)), (vec!["a.example"], vec!["pool.example"]));
    assert_eq!((found.addresses.len(), found.hinted.len()), (0, 2));
    assert_eq!((found.ttl, found.kind), (120, 65));
    let without = Message::from_vec(&found.message).unwrap();
    assert_eq!(without.answers, [record(false)]);
    assert_eq!(without.metadata.id, 7);
    let untouched = answer("a.example.", RecordType::HTTPS, vec![record(false)]);
    assert_eq!(dns_answer(&untouched).unwrap().message, untouched);
}

#[test]
fn only_an_answer_to_one_question_counts() {
    assert!(dns_answer(b"").is_err());
    let name = Name::parse(b"a.example").unwrap();
    let query = dns_query(7, &name, QueryKind::Aaaa).unwrap();
    assert!(dns_answer(&query).is_err(), "a query");
    let parsed = Message::from_vec(&query).unwrap();
    assert_eq!((parsed.metadata.id, parsed.metadata.recursion_desired), (7, true));
    assert_eq!(parsed.queries, [Query::query(dns("a.example."), RecordType::AAAA)]);
    let mut none = Message::new(7, MessageType::Response, OpCode::Query);
    assert!(dns_answer(&none.to_vec().unwrap()).is_err());
    none.add_query(Query::query(dns("a.example."), RecordType::A));
    let empty = dns_answer(&none.to_vec().unwrap()).unwrap();
    assert_eq!((empty.addresses.len(), empty.ttl), (0, 0));
    let many = (0..300u32).map(|n| a("a.example.", 1, &std::net::Ipv4Addr::from(n).to_string()));
    assert!(dns_answer(&answer("a.example.", RecordType::A, many.collect())).is_err());
}

#[test]
fn a_circle_of_names_has_an_end() {
    let link = |from: &str, to: &str| Record::from_rdata(dns(from), 1, RData::CNAME(CNAME(dns(to))));
    let bytes = answer(
        "a.example.",
        RecordType::A,
        vec![link("a.example.", "b.example."), link("b.example.", "a.example.")],
    );
    assert_eq!(names(&dns_answer(&bytes).unwrap().names), ["a.example", "b.example"]);
}

#[test]
fn a_hint_is_no_address() {
    let hint = SvcParamValue::Ipv4Hint(IpHint(vec![A("192.0.2.9".parse().unwrap())]));
    let service = HTTPS(SVCB::new(1, dns("pool.example."), vec![(SvcParamKey::Ipv4Hint, hint)]));
    let mut message = Message::new(7, MessageType::Response, OpCode::Query);
    message.add_query(Query::query(dns("a.example."), RecordType::HTTPS));
    message.add_answer(Record::from_rdata(dns("b.example."), 60, RData::HTTPS(service)));
    message.add_answer(Record::from_rdata(dns("a.example."), 60, RData::CNAME(CNAME(dns("b.example.")))));
    message.add_answer(a("b.example.", 60, "192.0.2.1"));
    // Of the target, of the question in the wrong place, of somebody else.
    message.add_additional(a("pool.example.", 20, "192.0.2.2"));
    message.add_additional(a("a.example.", 30, "192.0.2.3"));
    message.add_additional(a("evil.example.", 10, "192.0.2.66"));
    let found = dns_answer(&message.to_vec().unwrap()).unwrap();
    assert_eq!(names(&found.names), ["a.example", "b.example"]);
    assert_eq!(names(&found.targets), ["pool.example"]);
    let addresses = |all: &[std::net::IpAddr]| all.iter().map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(addresses(&found.addresses), ["192.0.2.1"]);
    assert_eq!(addresses(&found.hinted), ["192.0.2.2", "192.0.2.3", "192.0.2.9"]);
    assert_eq!(found.ttl, 20);
}

/// From `n0.example` on, each to the next; backwards, with an address at the end.
fn chain(links: usize) -> Vec<u8> {
    let owner = |n: usize| format!("n{n}.example.");
    let link = |n: usize| Record::from_rdata(dns(&owner(n)), 1, RData::CNAME(CNAME(dns(&owner(n + 1)))));
    let mut records = vec![a(&owner(links), 1, "192.0.2.1")];
    records.extend((0..links).rev().map(link));
    answer("n0.example.", RecordType::A, records)
}

#[test]
fn a_chain_has_few_links() {
    let found = dns_answer(&chain(16)).unwrap();
    assert_eq!((found.names.len(), found.addresses.len()), (17, 1));
    assert!(dns_answer(&chain(17)).is_err());
    let fork =
        |n: usize| Record::from_rdata(dns("a.example."), 1, RData::CNAME(CNAME(dns(&format!("b{n}.")))));
    assert!(dns_answer(&answer("a.example.", RecordType::A, (0..17).map(fork).collect())).is_err());
}

#[test]
fn the_longest_answers_are_read_in_time() {
    let names = |n: usize| format!("n{n}.{}example.", "x.".repeat(20));
    // Labels that no other name has, to be written again without the keys.
    let labels = |n: usize| {
        let label = |at: usize| format!("{}.", u16::try_from(n * 90 + at).unwrap());
        (0..40).map(label).collect::<String>()
    };
    let ech = (SvcParamKey::EchConfigList, SvcParamValue::EchConfigList(EchConfigList(vec![1; 90])));
    let mut with_keys =
        vec![Record::from_rdata(dns("a."), 1, RData::HTTPS(HTTPS(SVCB::new(1, dns("."), vec![ech]))))];
    with_keys.extend((0..260).map(|n| a(&labels(n), 1, "192.0.2.1")));
    for (what, bytes) in [
        ("keys", answer("a.", RecordType::HTTPS, with_keys)),
        ("chain", chain(2000)),
        ("forks", {
            let link =
                |n: usize| Record::from_rdata(dns(&names(n)), 1, RData::CNAME(CNAME(dns(&names(n + 1)))));
            answer(&names(0), RecordType::A, (0..2000).rev().map(link).collect())
        }),
    ] {
        let began = std::time::Instant::now();
        drop(dns_answer(&bytes));
        println!("{what}: {} bytes, {:?}", bytes.len(), began.elapsed());
        // It took minutes when each link was a round through all records.
        assert!(began.elapsed() < std::time::Duration::from_secs(1), "{what}: {:?}", began.elapsed());
    }
}

proptest! {
    #[test]
    fn any_message(bytes in prop::collection::vec(any::<u8>(), 0..100)) {
        drop(dns_answer(&bytes));
    }
}
